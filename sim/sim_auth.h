/*
 * Credentials of a request, verified once and remembered: a signature costs 50 us, a look-up 30 ns.
 * One cache for each thread. Only the claims are remembered; whether the token is still valid is
 * checked each time.
 */
#pragma once

#include "sim_jwt.h"

#define SIM_AUTH_CACHE_ROWS 1024u /* direct-mapped by hash; a collision costs one verification */

struct sim_auth;

/* |creds| and |world| outlive it. NULL without memory. */
struct sim_auth *sim_auth_create(const struct sim_creds *creds, const struct sim_world *world);
void sim_auth_destroy(struct sim_auth *a);

/* Claims of the Authorization field of |q|, of the assertion in the body for OAuth. The result
 * lives until the next call with this cache. */
const struct sim_claims *sim_auth_resolve(struct sim_auth *a, enum sim_provider_id provider,
                                          const struct sim_request *q);
