/* What an answer of APNs, FCM or a Web Push service means (PROVIDERS 1.4, 2, 3). Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/shm/push_wire.h"
#include "channels/verdict.h"

/* First delays (PROVIDERS 1.4, 2). */
#define BF_PUSH_APNS_5XX_MS    (15u * 60u * 1000u)
#define BF_PUSH_FCM_429_MS     (60u * 1000u)
#define BF_PUSH_FCM_5XX_MS     (10u * 1000u) /* Google's scale guide */
#define BF_PUSH_THROTTLED_MS   (60u * 1000u) /* 429 that says no time */
#define BF_PUSH_WEBPUSH_5XX_MS (10u * 1000u)
#define BF_PUSH_AUTH_MS        (5u * 1000u) /* until a new credential has reached the workers */
#define BF_PUSH_RECONNECT_MS   1000u
/* A day: whoever asks for more is not believed; the TTL ends most pushes earlier. */
#define BF_PUSH_DELAY_MAX_MS (24u * 3600u * 1000u)

struct bf_push_context {
    enum bf_push_kind kind;
    uint64_t registered_ms; /* of the token, wall; for APNs' 410 timestamp. 0: unknown */
};

/* |body| may be cut short (BF_PUSH_ANSWER_BYTES_MAX): it is scanned, not parsed. */
void bf_push_classify(const struct bf_push_context *context, const struct bf_rcpt_push *answer,
                      struct bf_bytes body, struct bf_verdict *ret);
