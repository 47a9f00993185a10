/* Signed tokens: JWT (RFC 7519) with ES256 or RS256, VAPID's form of it, our own access tokens. Any
 * thread. */
#pragma once

#include <openssl/evp.h>

#include "sim_creds.h"

#define SIM_JWT_BYTES_MAX 2048u

/* Each fills |ret|: kind, claims, key row. */
void sim_jwt_provider(const struct sim_creds *c, const struct sim_world *w,
                      struct sim_slice authorization, struct sim_claims *ret);
void sim_jwt_vapid(struct sim_slice authorization, struct sim_claims *ret);
void sim_jwt_assertion(const struct sim_creds *c, struct sim_slice assertion,
                       struct sim_claims *ret);
void sim_jwt_access(const struct sim_creds *c, struct sim_slice authorization,
                    struct sim_claims *ret);

/* Mints an access token good for |ttl_s|. Returns its characters. */
size_t sim_jwt_mint_access(const struct sim_creds *c, int64_t now_s, uint32_t ttl_s, uint64_t nonce,
                           char *out, size_t size);
