/* See totals.h. */
#include "outbound/totals.h"

unsigned bf_breaker_badness(enum bf_breaker_state state)
{
    static const unsigned char order[BF_BREAKER_STATE_COUNT] = {[BF_BREAKER_CLOSED] = 0,
                                                                [BF_BREAKER_RAMP] = 1,
                                                                [BF_BREAKER_PROBE] = 2,
                                                                [BF_BREAKER_OPEN] = 3};
    return (unsigned)state < BF_BREAKER_STATE_COUNT ? order[state] : 0;
}

const struct bf_pool_total *bf_pool_total_find(const struct bf_pool_totals *totals, uint8_t channel,
                                               uint32_t pool)
{
    for (uint32_t i = 0; i < totals->count; i++)
        if (totals->at[i].pool == pool && totals->at[i].channel == channel)
            return &totals->at[i];
    return NULL;
}

static void add_state(struct bf_pool_totals *sum, const struct bf_pool *state)
{
    struct bf_pool_total *total = NULL;
    for (uint32_t i = 0; i < sum->count && !total; i++)
        if (sum->at[i].pool == state->id && sum->at[i].channel == state->channel)
            total = &sum->at[i];
    if (!total && sum->count == BF_POOLS_MAX)
        return; /* shards that remember pools of an earlier configuration: the first shard's are
                   shown */
    if (!total) {
        total = &sum->at[sum->count++];
        *total = (struct bf_pool_total){.channel = state->channel, .pool = state->id};
    }
    if (bf_breaker_badness(state->breaker.state) > bf_breaker_badness(total->breaker))
        total->breaker = state->breaker.state;
    total->opened_count += state->breaker.opened_count;
    total->attempts_out += state->attempts_out;
    total->cuts += state->bucket.cut_count;
    total->limit_per_min += state->bucket.limit_per_min;
    total->rate_per_min += state->bucket.rate_per_min;
    if (state->stopped_until_ms > total->stopped_until_ms)
        total->stopped_until_ms = state->stopped_until_ms;
    total->failed_over += state->failed_over;
    if (state->failed_over_ms > total->failed_over_ms)
        total->failed_over_ms = state->failed_over_ms;
}

void bf_pool_totals_add(struct bf_pool_totals *sum, const struct bf_pool *pools)
{
    for (uint32_t i = 0; pools && i < BF_POOLS_MAX; i++)
        if (pools[i].id != 0)
            add_state(sum, &pools[i]);
}
