/* FCM HTTP v1: a request in, its answer out; no I/O. Error model of google.rpc.Status with
 * FcmError. */
#pragma once

#include "sim_world.h"

#define SIM_FCM_PAYLOAD_BYTES_MAX 4096u /* keys and values of data, and the texts shown */
#define SIM_FCM_TOPIC_BYTES_MAX   2048u
#define SIM_FCM_TTL_S_MAX         2419200.0 /* 4 weeks */
#define SIM_FCM_TOKEN_CHARS_MIN   32u       /* shorter is never a registration token */

/* Answers |q|. The target that a->token names lies in |target|, which lives as long as |a|. */
void sim_fcm_answer(const struct sim_ctx *c, const struct sim_request *q, struct sim_answer *a,
                    char target[SIM_TOKEN_BYTES_MAX]);

/* Makes |a| the failure with FCM's |error_code| ("UNREGISTERED", ..). |status| 0 takes the code's
 * own. */
void sim_fcm_fail(struct sim_answer *a, uint16_t status, const char *error_code);
uint16_t sim_fcm_status_of(const char *error_code);
