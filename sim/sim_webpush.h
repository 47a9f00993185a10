/* Web Push service: RFC 8030 push resource, RFC 8291 body form, RFC 8292 VAPID. Pure: no I/O. */
#pragma once

#include "sim_world.h"

#define SIM_WEBPUSH_BODY_BYTES_MAX  4096u /* a service must take this much (RFC 8030 7.2) */
#define SIM_WEBPUSH_BODY_BYTES_MIN  103u  /* header 86, padding delimiter 1, tag 16 (RFC 8291 4) */
#define SIM_WEBPUSH_TOPIC_CHARS_MAX 32u
#define SIM_WEBPUSH_VAPID_S_MAX     86400 /* exp at most a day ahead (RFC 8292 2) */

/* Answers POST /push/{subscription}; q->claims are those of the VAPID token. */
void sim_webpush_answer(const struct sim_ctx *c, const struct sim_request *q, struct sim_answer *a);
void sim_webpush_fail(struct sim_answer *a, uint16_t status, const char *reason);
