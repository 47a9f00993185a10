/*
 * A rate limit for each API key (ING-6), as a token bucket in one word (the theoretical arrival
 * time of GCRA). It holds the requests of one minute and refills evenly. Lock-free; any thread.
 * Pure but for the clock given.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* What a bucket holds is the rate of one minute. */
#define BF_RATE_WINDOW_NS UINT64_C(60000000000)

struct bf_rate {
    _Atomic uint64_t full_at_ns; /* mono clock at which the bucket is full again */
};

struct bf_rate_verdict {
    bool is_allowed;
    uint32_t remaining;     /* requests left now */
    uint32_t reset_s;       /* until the bucket is full */
    uint32_t retry_after_s; /* refused: until one request fits */
};

/* Takes one request at |per_min| (> 0). */
static inline struct bf_rate_verdict bf_rate_take(struct bf_rate *rate, uint32_t per_min,
                                                  uint64_t now_ns)
{
    const uint64_t second = UINT64_C(1000000000);
    uint64_t cost = BF_RATE_WINDOW_NS / per_min;
    /* relaxed: the word stands for itself */
    uint64_t full_at = atomic_load_explicit(&rate->full_at_ns, memory_order_relaxed);
    for (;;) {
        uint64_t base = full_at > now_ns ? full_at : now_ns;
        uint64_t next = base + cost;
        bool fits = next - now_ns <= BF_RATE_WINDOW_NS;
        if (fits &&
            !atomic_compare_exchange_weak_explicit(&rate->full_at_ns, &full_at, next,
                                                   memory_order_relaxed, memory_order_relaxed))
            continue;
        uint64_t used = (fits ? next : base) - now_ns;
        uint64_t over = fits ? 0 : next - now_ns - BF_RATE_WINDOW_NS;
        return (struct bf_rate_verdict){
            .is_allowed = fits,
            .remaining =
                used < BF_RATE_WINDOW_NS ? (uint32_t)((BF_RATE_WINDOW_NS - used) / cost) : 0,
            .reset_s = (uint32_t)((used + second - 1) / second),
            .retry_after_s = (uint32_t)((over + second - 1) / second),
        };
    }
}
