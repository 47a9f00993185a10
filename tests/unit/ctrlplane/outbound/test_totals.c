/* Proves what status shows of a pool that several shards use: sums, and the worst breaker. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "outbound/totals.h"

#define NOW UINT64_C(1700000000000)

Test(totals, the_worst_shard_counts)
{
    struct bf_pool_totals *sum = calloc(1, sizeof(*sum));
    struct bf_pool *a = calloc(BF_POOLS_MAX, sizeof(*a));
    struct bf_pool *b = calloc(BF_POOLS_MAX, sizeof(*b));
    a[3] = (struct bf_pool){.channel = BF_CHANNEL_PUSH, .id = 7, .attempts_out = 2};
    a[3].breaker = (struct bf_breaker){.state = BF_BREAKER_RAMP, .opened_count = 1};
    a[3].bucket = (struct bf_bucket){.limit_per_min = 300, .rate_per_min = 300};
    b[0] = (struct bf_pool){
        .channel = BF_CHANNEL_PUSH, .id = 7, .attempts_out = 3, .stopped_until_ms = NOW};
    b[0].breaker = (struct bf_breaker){.state = BF_BREAKER_OPEN, .opened_count = 2};
    b[0].bucket = (struct bf_bucket){.limit_per_min = 300, .rate_per_min = 75, .cut_count = 2};
    b[BF_POOLS_MAX - 1] = (struct bf_pool){.channel = BF_CHANNEL_PUSH, .id = 8};
    bf_pool_totals_add(sum, NULL);
    cr_assert_eq(sum->count, 0);
    bf_pool_totals_add(sum, a);
    bf_pool_totals_add(sum, b);
    bf_pool_totals_add(sum, a);
    cr_assert_eq(sum->count, 2);
    const struct bf_pool_total *seven = bf_pool_total_find(sum, BF_CHANNEL_PUSH, 7);
    cr_assert_not_null(seven);
    cr_assert_eq(seven->breaker, BF_BREAKER_OPEN);
    cr_assert_eq(seven->opened_count, 4);
    cr_assert_eq(seven->attempts_out, 7);
    cr_assert_eq(seven->limit_per_min, 900);
    cr_assert_eq(seven->rate_per_min, 675);
    cr_assert_eq(seven->cuts, 2);
    cr_assert_eq(seven->stopped_until_ms, NOW);
    cr_assert_eq(bf_pool_total_find(sum, BF_CHANNEL_PUSH, 8)->breaker, BF_BREAKER_CLOSED);
    cr_assert_null(bf_pool_total_find(sum, BF_CHANNEL_PUSH, 9));
    free(a);
    free(b);
    free(sum);
}
