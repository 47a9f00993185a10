/* Counters: a block per worker and provider, written by its worker alone, read by the control
 * thread. */
#pragma once

#include <stdatomic.h>

#include "sim_types.h"

#define SIM_STATUS_MAX 600u

/* name in /stats, what it counts */
#define SIM_COUNTERS(X)                                                                            \
    X(conns_opened)      /* accepted */                                                            \
    X(conns_closed)      /* of those, gone */                                                      \
    X(handshakes)        /* TLS established */                                                     \
    X(handshakes_h2)     /* of those, TLS 1.3 with ALPN h2 */                                      \
    X(handshakes_failed) /* TLS given up, by either side */                                        \
    X(conns_settled)     /* connections whose peer has acknowledged our SETTINGS */                \
    X(conns_pinged)      /* connections on which a PING came and was answered */                   \
    X(conns_used)        /* connections on which a whole request came */                           \
    X(pings)             /* PINGs answered */                                                      \
    X(protocol_errors)   /* the peer broke HTTP/2 or HTTP/1.1 */                                   \
    X(requests)          /* whole requests read */                                                 \
    X(accepted)          /* answered 2xx */                                                        \
    X(rejected)          /* answered 4xx */                                                        \
    X(failed)            /* answered 5xx */                                                        \
    X(unprocessed)       /* refused, held back before a GOAWAY, or never answered */               \
    X(answers_late)      /* decided, but the stream was gone when its latency was over */          \
    X(bytes_body)        /* of request bodies */                                                   \
    X(faults)            /* connections and streams spoilt on purpose */

struct sim_counters {
#define SIM_COUNTER_FIELD(name) _Atomic uint64_t name;
    SIM_COUNTERS(SIM_COUNTER_FIELD)
#undef SIM_COUNTER_FIELD
    _Atomic uint64_t status[SIM_STATUS_MAX];
};

/* Adds by the one writer: relaxed, since readers want only some recent value of each. */
static inline void sim_count(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
                          memory_order_relaxed);
}
