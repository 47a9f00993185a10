/*
 * Tokens that open providers: claims and signatures for APNs (PROVIDERS 1.3), VAPID (RFC 8292) and
 * Google's assertion (RFC 7523), and when each is due. Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "crypto/sign.h"

/* malloc'ed values for `authorization` (caller frees), NULL when signing fails. */
char *bf_apns_token(const struct bf_sign_key *key, const char *key_id, const char *team_id,
                    uint64_t now_ms); /* "bearer <jwt>" */
/* |origin|: "https://host[:port]"; |subject|: mailto: or https:. "vapid t=<jwt>, k=<public key>" */
char *bf_vapid_token(const struct bf_sign_key *key, const char *origin, const char *subject,
                     uint64_t expires_ms);

/* A Google service account: the members of its JSON file that are used. */
struct bf_service_account {
    char email[256], project[128], key_id[128], token_uri[512];
    struct bf_sign_key *key;
};
/* BF_ERR_MALFORMED with a line in |err| that names the member. */
int bf_service_account_read(struct bf_bytes json, struct bf_service_account *ret, char *err,
                            size_t err_len);
void bf_service_account_clear(struct bf_service_account *account);
/* The form that is posted to token_uri: malloc'ed, terminated. */
char *bf_service_account_form(const struct bf_service_account *account, uint64_t now_ms);
/* The endpoint's answer: "Bearer <token>" malloc'ed, and its life. BF_ERR_MALFORMED. */
int bf_access_token_read(struct bf_bytes json, char **ret_authorization, uint64_t *ret_life_ms);
