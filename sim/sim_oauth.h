/* OAuth 2.0 token endpoint for service accounts (RFC 7523 with RS256): request in, answer out; no
 * I/O. */
#pragma once

#include "sim_world.h"

#define SIM_OAUTH_ASSERTION_S_MAX 3600 /* exp - iat */
#define SIM_OAUTH_SCOPE           "https://www.googleapis.com/auth/firebase.messaging"

/* The assertion inside a form body, percent-decoded into |out|; n = 0 when there is none. */
struct sim_slice sim_oauth_assertion(const struct sim_request *q, char *out, size_t size);

/* Answers POST /token; q->claims are those of the assertion. */
void sim_oauth_answer(const struct sim_ctx *c, const struct sim_request *q, struct sim_answer *a);
void sim_oauth_fail(struct sim_answer *a, uint16_t status, const char *error, const char *text);
