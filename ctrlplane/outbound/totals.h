/*
 * A pool as all shards see it together: breaker, rate, attempts out. For status and metrics only.
 * Who has the sum.
 */
#pragma once

#include <stdint.h>

#include "outbound/outbound.h"

struct bf_pool_total {
    uint8_t channel;
    uint32_t pool;
    enum bf_breaker_state breaker; /* the worst */
    uint32_t opened_count;         /* sum: each shard's breaker opens by itself */
    uint32_t attempts_out;
    uint32_t cuts;
    uint64_t limit_per_min, rate_per_min; /* sum of the shares; 0: no limit */
    uint64_t stopped_until_ms;            /* wall, the latest; 0: not stopped */
    uint64_t failed_over, failed_over_ms; /* sum; wall, the latest, 0: none */
};
/* Sorted by nothing; found by bf_pool_total_find. 12 KB: keep it off a small stack. */
struct bf_pool_totals {
    uint32_t count;
    struct bf_pool_total at[BF_POOLS_MAX];
};
/* Adds a shard's pools (BF_POOLS_MAX places, id 0: unused; NULL: none) to |sum|. */
void bf_pool_totals_add(struct bf_pool_totals *sum, const struct bf_pool *pools);
/* How much is wrong: 0 closed, 1 ramp, 2 probe, 3 open. */
unsigned bf_breaker_badness(enum bf_breaker_state state);
/* NULL: no shard has used the pool yet. */
const struct bf_pool_total *bf_pool_total_find(const struct bf_pool_totals *totals, uint8_t channel,
                                               uint32_t pool);
