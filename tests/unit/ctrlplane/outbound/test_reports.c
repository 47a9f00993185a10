/*
 * Proves what status shows of connections: reports add up over workers, the newest failure's text
 * is kept, nonsense from a ring is refused, the table stays bounded.
 */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "belfry/base/limits.h"
#include "outbound/reports.h"

#define NOW UINT64_C(1700000000000)

static struct bf_pool_reports *reports;

static void setup(void)
{
    reports = bf_pool_reports_create();
    cr_assert_not_null(reports);
}

static void teardown(void)
{
    bf_pool_reports_destroy(reports);
}

TestSuite(reports, .init = setup, .fini = teardown);

static bool say(struct bf_rcpt_pool rcpt, const char *text, uint64_t now_ms)
{
    uint8_t bytes[sizeof(rcpt) + BF_PUSH_POOL_TEXT_MAX];
    rcpt.text_len = (uint32_t)strlen(text);
    memcpy(bytes, &rcpt, sizeof(rcpt));
    memcpy(bytes + sizeof(rcpt), text, rcpt.text_len);
    return bf_pool_reports_take(reports, bytes, (uint32_t)sizeof(rcpt) + rcpt.text_len, now_ms);
}

Test(reports, workers_add_up)
{
    struct bf_pool_report got;
    cr_assert(!bf_pool_reports_get(reports, 7, &got));
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
    cr_assert(bf_pool_reports_get(reports, 7, &got));
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
    cr_assert(bf_pool_reports_get(reports, 7, &got));
    cr_assert_eq(got.connections, 2);
}

Test(reports, the_newest_failure_is_told_with_its_time)
{
    struct bf_pool_report got;
    say((struct bf_rcpt_pool){.pool = 7, .worker = 0, .failures = 1}, "connection refused", NOW);
    say((struct bf_rcpt_pool){.pool = 7, .worker = 1, .failures = 1}, "TLS: wrong name", NOW + 5);
    say((struct bf_rcpt_pool){.pool = 7, .worker = 0, .failures = 1}, "connection refused",
        NOW + 9);
    cr_assert(bf_pool_reports_get(reports, 7, &got));
    cr_assert_str_eq(got.text, "TLS: wrong name",
                     "the other was not said anew, only reported again");
    cr_assert_eq(got.text_ms, NOW + 5);
    say((struct bf_rcpt_pool){.pool = 7, .worker = 0, .failures = 2}, "connection refused",
        NOW + 10);
    cr_assert(bf_pool_reports_get(reports, 7, &got));
    cr_assert_str_eq(got.text, "connection refused");
    cr_assert_eq(got.text_ms, NOW + 10);
}

Test(reports, nonsense_is_refused)
{
    struct bf_pool_report got;
    uint8_t bytes[sizeof(struct bf_rcpt_pool) + 8] = {0};
    struct bf_rcpt_pool rcpt = {.pool = 7, .worker = 0, .text_len = 8};
    memcpy(bytes, &rcpt, sizeof(rcpt));
    cr_assert(bf_pool_reports_take(reports, bytes, sizeof(bytes), NOW));
    cr_assert(!bf_pool_reports_take(reports, bytes, sizeof(bytes) - 1, NOW),
              "a text beyond its end");
    cr_assert(!bf_pool_reports_take(reports, bytes, sizeof(rcpt) - 1, NOW));
    rcpt.text_len = UINT32_MAX;
    memcpy(bytes, &rcpt, sizeof(rcpt));
    cr_assert(!bf_pool_reports_take(reports, bytes, sizeof(bytes), NOW));
    cr_assert(!say((struct bf_rcpt_pool){.pool = 7, .worker = BF_WORKERS_MAX}, "", NOW));
    cr_assert(!say((struct bf_rcpt_pool){.pool = 0}, "", NOW));
    cr_assert(!bf_pool_reports_get(reports, 0, &got));
}

Test(reports, bounded_and_forgotten)
{
    struct bf_pool_report got;
    for (uint32_t i = 1; i <= BF_PUSH_POOLS_MAX; i++)
        cr_assert(say((struct bf_rcpt_pool){.pool = i, .connections = i}, "", NOW + i));
    cr_assert(say((struct bf_rcpt_pool){.pool = 1, .connections = 1}, "", NOW + 1000));
    cr_assert(say((struct bf_rcpt_pool){.pool = 1001, .connections = 5}, "", NOW + 1001));
    cr_assert(bf_pool_reports_get(reports, 1001, &got));
    cr_assert(bf_pool_reports_get(reports, 1, &got));
    cr_assert(!bf_pool_reports_get(reports, 2, &got), "the one not heard of for longest made room");
    bf_pool_reports_forget(reports);
    for (uint32_t i = 1; i <= BF_PUSH_POOLS_MAX; i++)
        cr_assert(!bf_pool_reports_get(reports, i, &got));
}
