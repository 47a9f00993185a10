/*
 * JWT verification (RFC 7519, 7515): HS256, RS256, ES256, EdDSA; one alg a key, key by kid; exp
 * required; aud (when configured) and nbf checked; leeway BF_JWT_LEEWAY_S. OpenSSL lives here. One
 * worker thread; keys are parsed when a snapshot is taken over, verification allocates nothing of
 * ours.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/base/limits.h"
#include "belfry/jwt/jwt.h"

#define BF_JWT_TOPICS_MAX 32u

struct bf_jwt_keys;

struct bf_claims {
    char user[BF_USER_ID_BYTES_MAX]; /* sub */
    size_t user_len;
    char tenant[BF_TENANT_BYTES_MAX]; /* claim "tenant", "" when absent */
    size_t tenant_len;
    uint64_t expires_s;
    uint32_t topic_count; /* claim "topics": names or prefixes ending in '*' */
    char topics[BF_JWT_TOPICS_MAX][BF_TOPIC_BYTES_MAX];
    uint8_t topic_len[BF_JWT_TOPICS_MAX];
};

/* Builds a key set from the JWT records of a snapshot (tags BF_SNAP_JWT_KEY, _AUDIENCE). Returns 0
 * or BF_ERR_MALFORMED (then *ret is untouched). bf_jwt_keys_destroy accepts NULL. */
int bf_jwt_keys_create(const uint8_t *snapshot, size_t len, struct bf_jwt_keys **ret);
void bf_jwt_keys_destroy(struct bf_jwt_keys *keys);

/* |now_s|: wall clock seconds. *ret_claims is filled only for BF_JWT_OK. */
enum bf_jwt_verdict bf_jwt_verify(const struct bf_jwt_keys *keys, struct bf_bytes token,
                                  uint64_t now_s, struct bf_claims *ret_claims);
const char *bf_jwt_verdict_text(enum bf_jwt_verdict verdict);
