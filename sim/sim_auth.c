/* Verified credentials: see sim_auth.h. */
#include "sim_auth.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <xxhash.h>

#include "sim_oauth.h"

struct row {
    XXH128_hash_t hash; /* of the whole field: 128 bits stand for it */
    struct sim_claims claims;
};

struct sim_auth {
    const struct sim_creds *creds;
    const struct sim_world *world;
    struct row rows[SIM_AUTH_CACHE_ROWS];
};

struct sim_auth *sim_auth_create(const struct sim_creds *creds, const struct sim_world *world)
{
    struct sim_auth *a = calloc(1, sizeof(*a));
    if (a) {
        a->creds = creds;
        a->world = world;
    }
    return a;
}

void sim_auth_destroy(struct sim_auth *a)
{
    free(a);
}

static void verify(const struct sim_auth *a, enum sim_provider_id provider, struct sim_slice text,
                   struct sim_claims *ret)
{
    switch (provider) {
    case SIM_APNS:
        sim_jwt_provider(a->creds, a->world, text, ret);
        break;
    case SIM_FCM:
        sim_jwt_access(a->creds, text, ret);
        break;
    case SIM_OAUTH:
        sim_jwt_assertion(a->creds, text, ret);
        break;
    default:
        sim_jwt_vapid(text, ret);
        break;
    }
}

const struct sim_claims *sim_auth_resolve(struct sim_auth *a, enum sim_provider_id provider,
                                          const struct sim_request *q)
{
    static const struct sim_claims none = {.kind = SIM_AUTH_NONE, .key = -1};
    char assertion[SIM_JWT_BYTES_MAX + 1];
    struct sim_slice text = q->field[SIM_F_AUTHORIZATION];
    if (provider == SIM_OAUTH)
        text = sim_oauth_assertion(q, assertion, sizeof(assertion));
    if (text.n == 0)
        return &none;
    XXH128_hash_t hash = XXH3_128bits_withSeed(text.p, text.n, provider);
    struct row *r = &a->rows[hash.low64 % SIM_AUTH_CACHE_ROWS];
    if (r->claims.fingerprint && XXH128_isEqual(r->hash, hash))
        return &r->claims;
    memset(r, 0, sizeof(*r));
    r->hash = hash;
    verify(a, provider, text, &r->claims);
    ERR_clear_error(); /* a bad signature left an error, which SSL_get_error would take for TLS's */
    r->claims.fingerprint = hash.high64 | 1; /* never 0: 0 means none */
    return &r->claims;
}
