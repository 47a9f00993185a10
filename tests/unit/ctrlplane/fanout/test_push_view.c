/*
 * Proves what status shows of push: reports add up over workers, the newest failure's text is kept,
 * nonsense from a ring is refused, the table stays bounded; of several shards the worst breaker
 * counts.
 */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "fanout/push.h"
#include "fanout/push_view.h"

#define NOW UINT64_C(1700000000000)

static struct bf_push_view *view;

static void setup(void)
{
    view = bf_push_view_create();
    cr_assert_not_null(view);
}

static void teardown(void)
{
    bf_push_view_destroy(view);
}

TestSuite(push_view, .init = setup, .fini = teardown);

static bool say(struct bf_rcpt_pool rcpt, const char *text, uint64_t now_ms)
{
    uint8_t bytes[sizeof(rcpt) + BF_PUSH_POOL_TEXT_MAX];
    rcpt.text_len = (uint32_t)strlen(text);
    memcpy(bytes, &rcpt, sizeof(rcpt));
    memcpy(bytes + sizeof(rcpt), text, rcpt.text_len);
    return bf_push_view_take(view, bytes, (uint32_t)sizeof(rcpt) + rcpt.text_len, now_ms);
}

Test(push_view, workers_add_up)
{
    struct bf_push_report got;
    cr_assert(!bf_push_view_get(view, 7, &got));
    cr_assert(say((struct bf_rcpt_pool){.pool = 7,
                                        .worker = 0,
                                        .connections = 2,
                                        .streams = 10,
                                        .streams_max = 100,
                                        .waiting = 1},
                  "", NOW));
    cr_assert(say((struct bf_rcpt_pool){.pool = 7,
                                        .worker = 3,
                                        .connections = 1,
                                        .connecting = 2,
                                        .streams = 5,
                                        .streams_max = 50,
                                        .failures = 4,
                                        .goaways = 1},
                  "closed by the peer", NOW + 1));
    cr_assert(say((struct bf_rcpt_pool){.pool = 8, .worker = 0, .connections = 9}, "", NOW + 2));
    cr_assert(bf_push_view_get(view, 7, &got));
    cr_assert_eq(got.workers, 2);
    cr_assert_eq(got.connections, 3);
    cr_assert_eq(got.connecting, 2);
    cr_assert_eq(got.streams, 15);
    cr_assert_eq(got.streams_max, 150);
    cr_assert_eq(got.waiting, 1);
    cr_assert_eq(got.failures, 4);
    cr_assert_eq(got.goaways, 1);
    cr_assert_str_eq(got.text, "closed by the peer");
    cr_assert_eq(got.text_ms, NOW + 1);
    /* a later report of the same worker takes the place of the one before */
    cr_assert(say((struct bf_rcpt_pool){.pool = 7, .worker = 0, .connections = 1}, "", NOW + 3));
    cr_assert(bf_push_view_get(view, 7, &got));
    cr_assert_eq(got.connections, 2);
}

Test(push_view, the_newest_failure_is_told_with_its_time)
{
    struct bf_push_report got;
    say((struct bf_rcpt_pool){.pool = 7, .worker = 0, .failures = 1}, "connection refused", NOW);
    say((struct bf_rcpt_pool){.pool = 7, .worker = 1, .failures = 1}, "TLS: wrong name", NOW + 5);
    say((struct bf_rcpt_pool){.pool = 7, .worker = 0, .failures = 1}, "connection refused",
        NOW + 9);
    cr_assert(bf_push_view_get(view, 7, &got));
    cr_assert_str_eq(got.text, "TLS: wrong name",
                     "the other was not said anew, only reported again");
    cr_assert_eq(got.text_ms, NOW + 5);
    say((struct bf_rcpt_pool){.pool = 7, .worker = 0, .failures = 2}, "connection refused",
        NOW + 10);
    cr_assert(bf_push_view_get(view, 7, &got));
    cr_assert_str_eq(got.text, "connection refused");
    cr_assert_eq(got.text_ms, NOW + 10);
}

Test(push_view, nonsense_is_refused)
{
    struct bf_push_report got;
    uint8_t bytes[sizeof(struct bf_rcpt_pool) + 8] = {0};
    struct bf_rcpt_pool rcpt = {.pool = 7, .worker = 0, .text_len = 8};
    memcpy(bytes, &rcpt, sizeof(rcpt));
    cr_assert(bf_push_view_take(view, bytes, sizeof(bytes), NOW));
    cr_assert(!bf_push_view_take(view, bytes, sizeof(bytes) - 1, NOW), "a text beyond its end");
    cr_assert(!bf_push_view_take(view, bytes, sizeof(rcpt) - 1, NOW));
    rcpt.text_len = UINT32_MAX;
    memcpy(bytes, &rcpt, sizeof(rcpt));
    cr_assert(!bf_push_view_take(view, bytes, sizeof(bytes), NOW));
    cr_assert(!say((struct bf_rcpt_pool){.pool = 7, .worker = BF_WORKERS_MAX}, "", NOW));
    cr_assert(!say((struct bf_rcpt_pool){.pool = 0}, "", NOW));
    cr_assert(!bf_push_view_get(view, 0, &got));
}

Test(push_view, bounded_and_forgotten)
{
    struct bf_push_report got;
    for (uint32_t i = 1; i <= BF_PUSH_POOLS_MAX; i++)
        cr_assert(say((struct bf_rcpt_pool){.pool = i, .connections = i}, "", NOW + i));
    cr_assert(say((struct bf_rcpt_pool){.pool = 1, .connections = 1}, "", NOW + 1000));
    cr_assert(say((struct bf_rcpt_pool){.pool = 1001, .connections = 5}, "", NOW + 1001));
    cr_assert(bf_push_view_get(view, 1001, &got));
    cr_assert(bf_push_view_get(view, 1, &got));
    cr_assert(!bf_push_view_get(view, 2, &got), "the one not heard of for longest made room");
    bf_push_view_forget(view);
    for (uint32_t i = 1; i <= BF_PUSH_POOLS_MAX; i++)
        cr_assert(!bf_push_view_get(view, i, &got));
}

Test(push_view, the_worst_shard_counts)
{
    struct bf_push_sights *sum = calloc(1, sizeof(*sum));
    struct bf_push_pool_state *a = calloc(BF_PUSH_POOLS_MAX, sizeof(*a));
    struct bf_push_pool_state *b = calloc(BF_PUSH_POOLS_MAX, sizeof(*b));
    a[3] = (struct bf_push_pool_state){.id = 7, .flights = 2};
    a[3].breaker = (struct bf_breaker){.state = BF_BREAKER_RAMP, .opened_count = 1};
    a[3].bucket = (struct bf_bucket){.limit_per_min = 300, .rate_per_min = 300};
    b[0] = (struct bf_push_pool_state){.id = 7, .flights = 3, .stopped_until_ms = NOW};
    b[0].breaker = (struct bf_breaker){.state = BF_BREAKER_OPEN, .opened_count = 2};
    b[0].bucket = (struct bf_bucket){.limit_per_min = 300, .rate_per_min = 75, .cut_count = 2};
    b[BF_PUSH_POOLS_MAX - 1] = (struct bf_push_pool_state){.id = 8};
    bf_push_sights_add(sum, NULL);
    cr_assert_eq(sum->count, 0);
    bf_push_sights_add(sum, a);
    bf_push_sights_add(sum, b);
    bf_push_sights_add(sum, a);
    cr_assert_eq(sum->count, 2);
    const struct bf_push_sight *seven = bf_push_sight_find(sum, 7);
    cr_assert_not_null(seven);
    cr_assert_eq(seven->breaker, BF_BREAKER_OPEN);
    cr_assert_eq(seven->opened_count, 4);
    cr_assert_eq(seven->flights, 7);
    cr_assert_eq(seven->limit_per_min, 900);
    cr_assert_eq(seven->rate_per_min, 675);
    cr_assert_eq(seven->cuts, 2);
    cr_assert_eq(seven->stopped_until_ms, NOW);
    cr_assert_eq(bf_push_sight_find(sum, 8)->breaker, BF_BREAKER_CLOSED);
    cr_assert_null(bf_push_sight_find(sum, 9));
    free(a);
    free(b);
    free(sum);
}
