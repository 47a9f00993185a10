/* What a shard knows of pools and of single endpoints: limits that providers set. See impl.h. */
#include "outbound/impl.h"

#include <string.h>

struct bf_pool *bf_pool_get(struct bf_outbound *o, uint8_t channel, uint8_t kind,
                            const struct bf_pool_info *info)
{
    struct bf_pool *free_place = NULL, *idle = NULL;
    for (uint32_t i = 0; i < BF_POOLS_MAX && !free_place; i++) {
        struct bf_pool *pool = &o->pools[(info->id + i) % BF_POOLS_MAX];
        if (pool->id == info->id && pool->channel == channel)
            return pool;
        if (pool->id == 0)
            free_place = pool;
        else if (pool->attempts_out == 0)
            idle = pool;
    }
    struct bf_pool *fresh = free_place ? free_place : idle;
    if (!fresh)
        return NULL;
    uint64_t now = o->turn->mono_ms;
    struct bf_breaker_limits limits = bf_breaker_defaults();
    *fresh = (struct bf_pool){.channel = channel, .kind = kind, .id = info->id};
    bf_breaker_init(&fresh->breaker, &limits, now);
    bf_bucket_init(&fresh->bucket, info->limit_per_min / o->node.shards, now);
    bf_retry_budget_init(&fresh->budget, now);
    return fresh;
}

/* ---- endpoints ---- */

static struct bf_slow_endpoint *slow_place(const struct bf_outbound *o,
                                           const struct bf_id *endpoint)
{
    uint32_t at;
    memcpy(&at, endpoint->bytes, sizeof(at));
    return &o->slow[at % BF_SLOW_ENDPOINTS];
}

/* One of many that fell on the same place is forgotten: it is throttled once more, and noted again.
 */
void bf_endpoint_slow(struct bf_outbound *o, const struct bf_id *endpoint, uint64_t until_ms)
{
    *slow_place(o, endpoint) =
        (struct bf_slow_endpoint){.endpoint = *endpoint, .until_ms = until_ms};
}

uint64_t bf_endpoint_slow_until(const struct bf_outbound *o, const struct bf_id *endpoint)
{
    const struct bf_slow_endpoint *slow = slow_place(o, endpoint);
    return bf_id_is_equal(&slow->endpoint, endpoint) ? slow->until_ms : 0;
}
