/*
 * What a provider's answer means, whatever the channel: a class, what to do with the message, with
 * the endpoint and with the pool, and how long to wait at least. Each channel's classify() fills
 * one from its provider's tables; outbound/ does what it says.
 */
#pragma once

#include <stdint.h>

enum bf_class {
    BF_CLASS_OK = 0,
    BF_CLASS_DEAD = 1,       /* the endpoint is bad for good */
    BF_CLASS_BAD = 2,        /* the request is bad for good: our mistake or the producer's */
    BF_CLASS_AUTH = 3,       /* credentials or configuration: somebody has to look */
    BF_CLASS_RETRY = 4,      /* later */
    BF_CLASS_CONNECTION = 5, /* the connection, not the request */
    BF_CLASS_COUNT
};
const char *bf_class_name(enum bf_class class);

/* What becomes of the message. */
enum bf_action {
    BF_ACTION_DONE = 0,  /* sent: settle it */
    BF_ACTION_DROP = 1,  /* classes BAD and AUTH: a dead letter with the reason; else it has
                          * failed (of a dead endpoint; others go on) */
    BF_ACTION_RETRY = 2, /* into the queue, not before delay_ms (outbound/retry.h adds backoff) */
    BF_ACTION_RETRY_ONCE = 3, /* the same, if this was the first attempt to end so; else drop */
    BF_ACTION_HOLD = 4,       /* into the queue until the pool is in order again: nothing was wrong
                               * with it, and the attempt does not count */
    BF_ACTION_COUNT
};

/* What else follows. */
#define BF_VERDICT_FORGET_ENDPOINT                                                                 \
    (1u << 0) /* it is dead; the channel notes it, and tells whom it must */
#define BF_VERDICT_RENEW      (1u << 1) /* the channel renews the credential (it knows when it may) */
#define BF_VERDICT_KEEP_TOKEN (1u << 2) /* the channel does not renew it for another 20 min */
#define BF_VERDICT_STOP_POOL                                                                       \
    (1u << 3) /* nothing more through this pool until its configuration changes */
#define BF_VERDICT_PAGE (1u << 4) /* log an error, raise the alarm metric */
#define BF_VERDICT_RECONNECT                                                                       \
    (1u << 5) /* a new connection; the dataplane does so for GOAWAY by itself */
#define BF_VERDICT_CUT_RATE      (1u << 6) /* outbound/bucket.h: the provider throttles this account */
#define BF_VERDICT_SLOW_ENDPOINT (1u << 7) /* throttled for this endpoint alone */
#define BF_VERDICT_FAULT         (1u << 8) /* outbound/breaker.h: counts as an error of the provider */
#define BF_VERDICT_MAY_DOUBLE                                                                      \
    (1u << 9) /* it may have arrived: same message id on the next attempt */

#define BF_VERDICT_REASON_BYTES 96u

struct bf_verdict {
    enum bf_class class;
    enum bf_action action;
    uint32_t flags;
    uint32_t delay_ms;                    /* at least; 0: backoff alone */
    char reason[BF_VERDICT_REASON_BYTES]; /* "Unregistered", "timeout", ...: for status, metrics,
                                             dead letters */
};
