/*
 * APNs: a request in, its answer out; no I/O. Statuses and reasons are those of Apple's "Handling
 * notification responses from APNs"; the order of the checks is ours: method, path, credentials,
 * fields, payload, token. Broadcast and channel management as in "Sending channel management
 * requests to APNs".
 */
#pragma once

#include "sim_world.h"

#define SIM_APNS_PAYLOAD_BYTES_MAX  4096u
#define SIM_APNS_VOIP_BYTES_MAX     5120u /* also Live Activity broadcasts */
#define SIM_APNS_COLLAPSE_BYTES_MAX 64u
#define SIM_APNS_TOKEN_DIGITS_MIN   64u /* 32 bytes, as devices have today */
#define SIM_APNS_TOKEN_DIGITS_MAX   200u
#define SIM_APNS_EXPIRATION_MAX     253402300799ull /* end of year 9999: seconds, not milliseconds */

/* Answers |q| of the connection |peer|, whose bound key and provider token it keeps up to date. */
void sim_apns_answer(const struct sim_ctx *c, struct sim_peer *peer, const struct sim_request *q,
                     struct sim_answer *a);

/* Makes |a| the documented failure |reason| (static text or longer-lived than |a|). |status| 0
 * takes the reason's own. |timestamp_ms| goes into a 410. The id that |a| holds stays. */
void sim_apns_fail(struct sim_answer *a, uint16_t status, const char *reason, int64_t timestamp_ms);

/* Status of a documented reason, 0 if there is none of that name. */
uint16_t sim_apns_status_of(const char *reason);
