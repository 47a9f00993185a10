/*
 * What a provider's answer means (PROVIDERS 1.4, 2, 3): a class, what to do with the message, with
 * the token and with the pool, and how long to wait at least. Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/shm/push.h"

enum bf_push_class {
    BF_PUSH_CLASS_OK = 0,
    BF_PUSH_CLASS_DEAD = 1,       /* the token is bad for good */
    BF_PUSH_CLASS_BAD = 2,        /* the request is bad for good: our mistake or the producer's */
    BF_PUSH_CLASS_AUTH = 3,       /* credentials or configuration: somebody has to look */
    BF_PUSH_CLASS_RETRY = 4,      /* later */
    BF_PUSH_CLASS_CONNECTION = 5, /* the connection, not the request */
    BF_PUSH_CLASS_COUNT
};
const char *bf_push_class_name(enum bf_push_class class);

/* What becomes of the message. */
enum bf_push_action {
    BF_PUSH_DONE = 0, /* sent: settle it */
    BF_PUSH_DROP =
        1, /* dead-letter it with the reason (a dead token: failed, other devices go on) */
    BF_PUSH_RETRY = 2, /* into the queue, not before delay_ms (outbound/retry.h adds backoff) */
    BF_PUSH_RETRY_ONCE = 3, /* the same, if this was the first attempt to end so; else drop */
    BF_PUSH_HOLD =
        4, /* into the queue until the pool is in order again: nothing was wrong with it */
    BF_PUSH_ACTION_COUNT
};

/* What else follows. */
#define BF_PUSH_F_FORGET_TOKEN (1u << 0) /* mark the token dead at once, tell belfry.tokens */
#define BF_PUSH_F_RENEW        (1u << 1) /* push_creds: renew the credential (it knows when it may) */
#define BF_PUSH_F_KEEP_TOKEN   (1u << 2) /* push_creds: do not renew for another 20 min */
#define BF_PUSH_F_STOP_POOL                                                                        \
    (1u << 3) /* nothing more through this pool until its configuration changes */
#define BF_PUSH_F_PAGE (1u << 4) /* log an error, raise the alarm metric */
#define BF_PUSH_F_RECONNECT                                                                        \
    (1u << 5) /* a new connection; the dataplane does so for GOAWAY by itself */
#define BF_PUSH_F_CUT_RATE                                                                         \
    (1u << 6) /* outbound/bucket.h: the provider throttles this project or key */
#define BF_PUSH_F_SLOW_DEVICE (1u << 7) /* throttled for this device alone */
#define BF_PUSH_F_FAULT       (1u << 8) /* outbound/breaker.h: counts as an error of the provider */
#define BF_PUSH_F_MAY_DOUBLE                                                                       \
    (1u << 9) /* it may have arrived: same message id on the next attempt */

#define BF_PUSH_REASON_BYTES 96u

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

struct bf_push_verdict {
    enum bf_push_class class;
    enum bf_push_action action;
    uint32_t flags;
    uint32_t delay_ms;                 /* at least; 0: backoff alone */
    char reason[BF_PUSH_REASON_BYTES]; /* "Unregistered", "timeout", ...: for status, metrics, dead
                                          letters */
};

/* |body| may be cut short (BF_PUSH_ANSWER_BYTES_MAX): it is scanned, not parsed. */
void bf_push_classify(const struct bf_push_context *context, const struct bf_rcpt_push *answer,
                      struct bf_bytes body, struct bf_push_verdict *ret);
