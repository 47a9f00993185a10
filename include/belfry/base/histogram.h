/*
 * Log-linear histogram of non-negative integers (HDR style): 32 linear sub-buckets a power of two,
 * so a value is kept within 3.2%. One writer; readers see each counter whole (relaxed atomics: a
 * percentile over moving counters needs no order between them). Lives in shared memory too.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define BF_HIST_SUB_BITS 5u
#define BF_HIST_SUB      (1u << BF_HIST_SUB_BITS)
/* Covers up to 2^40: 12.7 days in microseconds, 18 minutes in nanoseconds. Larger counts as the
 * top. */
#define BF_HIST_BITS_MAX 40u
#define BF_HIST_BUCKETS  ((BF_HIST_BITS_MAX - BF_HIST_SUB_BITS + 1u) * BF_HIST_SUB)

struct bf_hist {
    _Atomic uint64_t count;
    _Atomic uint64_t sum;
    _Atomic uint64_t max;
    _Atomic uint64_t buckets[BF_HIST_BUCKETS];
};

static inline unsigned bf_hist_index(uint64_t value)
{
    if (value < BF_HIST_SUB)
        return (unsigned)value;
    unsigned top = 63u - (unsigned)__builtin_clzll(value);
    if (top >= BF_HIST_BITS_MAX)
        return BF_HIST_BUCKETS - 1u;
    unsigned sub = (unsigned)(value >> (top - BF_HIST_SUB_BITS)) & (BF_HIST_SUB - 1u);
    return (top - BF_HIST_SUB_BITS + 1u) * BF_HIST_SUB + sub;
}

/* Highest value that falls into a bucket. */
static inline uint64_t bf_hist_value(unsigned index)
{
    if (index < BF_HIST_SUB)
        return index;
    unsigned shift = index / BF_HIST_SUB - 1u;
    uint64_t base = (uint64_t)(BF_HIST_SUB + index % BF_HIST_SUB) << shift;
    return base + ((uint64_t)1 << shift) - 1u;
}

static inline void bf_hist_bump(_Atomic uint64_t *counter, uint64_t by)
{
    /* single writer: a plain read-modify-write is enough, atomic only against torn reads */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
                          memory_order_relaxed);
}

/* Owner thread only. */
static inline void bf_hist_add(struct bf_hist *h, uint64_t value)
{
    bf_hist_bump(&h->count, 1);
    bf_hist_bump(&h->sum, value);
    bf_hist_bump(&h->buckets[bf_hist_index(value)], 1);
    if (value > atomic_load_explicit(&h->max, memory_order_relaxed))
        atomic_store_explicit(&h->max, value, memory_order_relaxed);
}

/* Value at a quantile in 0..1; 0 when empty. Any thread. */
static inline uint64_t bf_hist_quantile(const struct bf_hist *h, double quantile)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < BF_HIST_BUCKETS; i++)
        total += atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
    if (total == 0)
        return 0;
    uint64_t rank = (uint64_t)(quantile * (double)total);
    uint64_t seen = 0;
    for (unsigned i = 0; i < BF_HIST_BUCKETS; i++) {
        seen += atomic_load_explicit(&h->buckets[i], memory_order_relaxed);
        if (seen > rank || seen == total) {
            uint64_t max = atomic_load_explicit(&h->max, memory_order_relaxed);
            uint64_t value = bf_hist_value(i);
            return value < max ? value : max;
        }
    }
    return atomic_load_explicit(&h->max, memory_order_relaxed);
}
