/*
 * Who makes a request (SEC-1), an API key (bfk_..., stored as a hash, cached here with its rate
 * bucket) or a user with a JWT, and whether they may. A key is read from the store once, then found
 * in a lock-free table.
 */
#pragma once

#include "api/api.h"
#include "api/rate.h"
#include "crypto/user_token.h"
#include "http/http.h"
#include "store/store.h"

struct bf_services;
struct bf_auth;

/* A key that was used; lives as long as the server. Nothing in its row changes but its end. */
struct bf_key_entry {
    struct bf_key_entry *next;
    struct bf_api_key_row row;
    struct bf_rate rate;
    _Atomic uint32_t running; /* requests at once (api.per_key) */
    /* Relaxed, all three: plain numbers, each by itself. An end that a request does not see yet is
     * seen by the next one. */
    _Atomic uint64_t ends_ms; /* wall; UINT64_MAX: never */
    _Atomic uint64_t used_ms; /* wall; 0: not since the start */
    _Atomic uint32_t read_at; /* bf_services.keys_changed when its end was read */
    uint64_t use_written_ms;  /* of used_ms, what the store has; only of whoever writes it */
};

enum bf_who { BF_WHO_NOBODY = 0, BF_WHO_KEY, BF_WHO_USER };

struct bf_principal {
    enum bf_who who;
    struct bf_key_entry *key;     /* BF_WHO_KEY */
    struct bf_user_claims claims; /* BF_WHO_USER */
};

/*
 * What a route asks of the caller, packed into bf_route.access: a scope for API keys, and what a
 * user's JWT may do. KEY ... API keys of the scope only SELF .. also the user whose id is in the
 * path MINE .. also a user, for their own data; an API key says user_id in query or body
 */
enum bf_access_kind { BF_ACCESS_KEY = 1, BF_ACCESS_SELF, BF_ACCESS_MINE };
#define BF_ACCESS(kind, scope) ((uint16_t)((unsigned)(kind) << 8 | (unsigned)(scope)))

int bf_auth_create(struct bf_services *services, struct bf_auth **ret, char *err, size_t err_len);
void bf_auth_destroy(struct bf_auth *auth); /* NULL is fine */

/* Writes when keys were used last, of those used since the last call, in one batch. Called by one
 * thread (main of the control process, once a minute and at the stop): a request only notes the
 * time in memory. */
void bf_auth_write_use(struct bf_auth *auth);

/* Authenticates and authorises |r| for its route; on refusal the answer is set (401, 403, 429). */
void bf_auth_admit(struct bf_auth *auth, struct bf_request *r, struct bf_principal *who);
bool bf_auth_has_scope(const struct bf_principal *who, enum bf_scope scope);
const char *bf_scope_name(enum bf_scope scope);
/* -1 when there is no such scope. */
int bf_scope_find(struct bf_bytes name);

/* Makes a key: its text ("bfk_" and 48 hex digits, shown once) and the row to store. */
#define BF_API_KEY_BYTES 53u
void bf_auth_make_key(const char *name, const char *tenant, uint32_t scopes, uint32_t rate_per_min,
                      char text[BF_API_KEY_BYTES], struct bf_api_key_row *ret_row);
