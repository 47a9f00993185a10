/*
 * Retry times, the retry budget, the circuit breaker and the token bucket on virtual time: what
 * they let through, when, and how they come back.
 */
#include <criterion/criterion.h>

#include "outbound/breaker.h"
#include "outbound/bucket.h"
#include "outbound/retry.h"

#define NOW UINT64_C(1700000000000)

/* ---- retry ---- */

Test(retry, backoff_steps)
{
    static const uint64_t steps[] = {5000, 15000, 45000, 135000, 405000, 1215000, 3600000, 3600000};
    for (uint32_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        cr_expect_eq(bf_backoff_ms(i + 1), steps[i], "after %u", i + 1);
    cr_expect_eq(bf_backoff_ms(0), 5000);
    cr_expect_eq(bf_backoff_ms(UINT32_MAX), BF_BACKOFF_MAX_MS);
}

Test(retry, full_jitter_over_the_floor)
{
    struct bf_retry r = {
        .attempts = 2, .now_ms = NOW, .expires_ms = NOW + 10000000, .floor_ms = 60000};
    uint64_t lowest = UINT64_MAX, highest = 0;
    for (uint64_t random = 0; random <= 15000; random++) {
        r.random = random * 15001 + random;
        uint64_t at = bf_retry_at(&r) - NOW;
        lowest = at < lowest ? at : lowest;
        highest = at > highest ? at : highest;
    }
    cr_expect_eq(lowest, 60000, "never before what the provider asked for");
    cr_expect_eq(highest, 75000);
}

Test(retry, ends)
{
    struct bf_retry r = {.attempts = 1, .now_ms = NOW, .expires_ms = NOW + 4000, .random = 3999};
    cr_expect_eq(bf_retry_at(&r), NOW + 3999);
    r.random = 4000;
    cr_expect_eq(bf_retry_at(&r), 0, "at its expiry it is of no use");
    r = (struct bf_retry){.attempts = BF_ATTEMPTS_MAX - 1, .now_ms = NOW, .expires_ms = UINT64_MAX};
    cr_expect_neq(bf_retry_at(&r), 0);
    r.attempts++;
    cr_expect_eq(bf_retry_at(&r), 0);
}

Test(retry, budget)
{
    struct bf_retry_budget b;
    unsigned taken = 0;
    bf_retry_budget_init(&b, NOW);
    while (bf_retry_budget_take(&b, NOW))
        taken++;
    cr_expect_eq(taken, BF_RETRY_BUDGET_FLOOR);
    bf_retry_budget_earn(&b, 1000);
    for (taken = 0; bf_retry_budget_take(&b, NOW); taken++)
        ;
    cr_expect_eq(taken, 200, "a fifth of the first attempts");
    for (taken = 0; bf_retry_budget_take(&b, NOW + 3000); taken++)
        ;
    cr_expect_eq(taken, 3 * BF_RETRY_BUDGET_FLOOR, "a quiet node heals too");
    bf_retry_budget_earn(&b, UINT32_MAX);
    for (taken = 0; bf_retry_budget_take(&b, NOW + 3000); taken++)
        ;
    cr_expect_eq(taken, BF_RETRY_BUDGET_MAX);
}

/* ---- breaker ---- */

static struct bf_breaker breaker(void)
{
    struct bf_breaker b;
    struct bf_breaker_limits limits = bf_breaker_defaults();
    bf_breaker_init(&b, &limits, NOW);
    return b;
}

static bool may(struct bf_breaker *b, uint64_t at)
{
    uint64_t wait;
    bool ok = bf_breaker_try(b, at, &wait);
    cr_expect_eq(ok, wait == 0, "either it goes or it says when");
    return ok;
}

Test(breaker, half_of_twenty)
{
    struct bf_breaker b = breaker();
    for (unsigned i = 0; i < 19; i++)
        bf_breaker_note(&b, NOW + i, i % 2 == 0);
    cr_expect_eq(b.state, BF_BREAKER_CLOSED, "19 calls say nothing");
    bf_breaker_note(&b, NOW + 20, false);
    cr_expect_eq(b.state, BF_BREAKER_OPEN, "10 of 20");
    b = breaker();
    for (unsigned i = 0; i < 200; i++)
        bf_breaker_note(&b, NOW + i, i % 5 < 2);
    cr_expect_eq(b.state, BF_BREAKER_CLOSED, "40%%");
}

Test(breaker, window_is_a_minute)
{
    struct bf_breaker b = breaker();
    for (unsigned i = 0; i < 18; i++)
        bf_breaker_note(&b, NOW + i, i % 2 == 0);
    bf_breaker_note(&b, NOW + 61000, false);
    bf_breaker_note(&b, NOW + 61000, true);
    cr_expect_eq(b.state, BF_BREAKER_CLOSED);
    cr_expect_eq(b.calls_sum, 2, "what is older is forgotten");
    cr_expect_eq(b.errors_sum, 1);
    bf_breaker_note(&b, NOW + 80000, true);
    bf_breaker_note(&b, NOW + 121500, true);
    cr_expect_eq(b.calls_sum, 2, "bucket by bucket: %u", b.calls_sum);
}

Test(breaker, in_a_row)
{
    struct bf_breaker b = breaker();
    for (unsigned i = 0; i < 9; i++)
        bf_breaker_note(&b, NOW + i * 70000, true);
    cr_expect_eq(b.state, BF_BREAKER_CLOSED);
    bf_breaker_note(&b, NOW + 9 * 70000, true);
    cr_expect_eq(b.state, BF_BREAKER_OPEN, "ten in a row, however slowly");
    b = breaker();
    for (unsigned i = 0; i < 9; i++)
        bf_breaker_note(&b, NOW, true);
    bf_breaker_note(&b, NOW, false);
    for (unsigned i = 0; i < 9; i++)
        bf_breaker_note(&b, NOW, true);
    cr_expect_eq(b.in_a_row, 9);
    cr_expect_eq(b.state, BF_BREAKER_CLOSED, "19 calls, a success between");
}

static void trip(struct bf_breaker *b, uint64_t at)
{
    for (unsigned i = 0; i < 10; i++)
        bf_breaker_note(b, at, true);
    cr_assert_eq(b->state, BF_BREAKER_OPEN);
}

Test(breaker, open_probe_ramp_closed)
{
    struct bf_breaker b = breaker();
    uint64_t wait;
    trip(&b, NOW);
    cr_expect_not(bf_breaker_try(&b, NOW, &wait));
    cr_expect_eq(wait, 60000);
    bf_breaker_note(&b, NOW + 10, false);
    cr_expect_eq(b.state, BF_BREAKER_OPEN, "an answer of before opens nothing");
    cr_expect_not(may(&b, NOW + 59999));
    cr_expect(may(&b, NOW + 60000), "the probe");
    cr_expect_not(may(&b, NOW + 60001), "one probe");
    bf_breaker_note(&b, NOW + 60200, false);
    cr_expect_eq(b.state, BF_BREAKER_RAMP);
    for (unsigned second = 0; second < BF_BREAKER_RAMP_SECONDS; second++) {
        unsigned through = 0;
        while (may(&b, NOW + 60200 + second * 1000 + 5))
            through++;
        cr_expect_eq(through, BF_BREAKER_RAMP_FIRST << second, "second %u: %u", second, through);
    }
    cr_expect(may(&b, NOW + 60200 + 10000));
    cr_expect_eq(b.state, BF_BREAKER_CLOSED);
    cr_expect_eq(b.opened_count, 1);
}

Test(breaker, failed_probe_and_lost_probe)
{
    struct bf_breaker b = breaker();
    trip(&b, NOW);
    cr_expect(may(&b, NOW + 60000));
    bf_breaker_note(&b, NOW + 65000, true);
    cr_expect_eq(b.state, BF_BREAKER_OPEN);
    cr_expect_not(may(&b, NOW + 124999), "sixty seconds from the probe's end");
    cr_expect(may(&b, NOW + 125000));
    cr_expect_not(may(&b, NOW + 134999));
    cr_expect(may(&b, NOW + 135000), "a probe that nobody answered is let go again");
}

Test(breaker, trips_again_on_the_ramp)
{
    struct bf_breaker b = breaker();
    trip(&b, NOW);
    cr_expect(may(&b, NOW + 60000));
    bf_breaker_note(&b, NOW + 60010, false);
    cr_assert_eq(b.state, BF_BREAKER_RAMP);
    trip(&b, NOW + 60500);
    cr_expect_eq(b.opened_count, 2);
}

/* ---- bucket ---- */

static unsigned drain(struct bf_bucket *b, uint64_t at, bool is_retry)
{
    unsigned n = 0;
    uint64_t wait;
    while (bf_bucket_take(b, at, is_retry, &wait))
        n++;
    cr_expect_gt(wait, 0);
    return n;
}

Test(bucket, limit_over_a_minute)
{
    struct bf_bucket b;
    uint64_t total = 0;
    bf_bucket_init(&b, 600000, NOW);
    unsigned first = drain(&b, NOW, false);
    cr_expect_eq(first, 9000, "a second's worth, less the share of retries: %u", first);
    cr_expect_eq(drain(&b, NOW, true), 1000);
    for (unsigned ms = 1; ms <= 60000; ms++)
        total += drain(&b, NOW + ms, true);
    cr_expect_eq(total, 600000, "%llu", (unsigned long long)total);
}

Test(bucket, wait_is_exact)
{
    struct bf_bucket b;
    uint64_t wait;
    bf_bucket_init(&b, 60, NOW); /* one a second */
    drain(&b, NOW, true);
    cr_expect_not(bf_bucket_take(&b, NOW, true, &wait));
    cr_expect_eq(wait, 1000);
    cr_expect_not(bf_bucket_take(&b, NOW + 999, true, &wait));
    cr_expect(bf_bucket_take(&b, NOW + 1000, true, &wait));
    cr_expect_not(bf_bucket_take(&b, NOW + 1000, false, &wait));
    cr_expect(bf_bucket_take(&b, NOW + 1000 + wait, false, &wait),
              "first attempts wait longer, not for ever");
    bf_bucket_init(&b, 0, NOW);
    for (unsigned i = 0; i < 100000; i++)
        cr_assert(bf_bucket_take(&b, NOW, false, &wait), "no limit");
}

Test(bucket, cut_and_grown_back)
{
    struct bf_bucket b;
    bf_bucket_init(&b, 600000, NOW);
    bf_bucket_cut(&b, NOW);
    cr_expect_eq(b.rate_per_min, 300000);
    bf_bucket_cut(&b, NOW + 500);
    cr_expect_eq(b.rate_per_min, 300000, "answers to what was in flight cut once");
    bf_bucket_cut(&b, NOW + 1000);
    cr_expect_eq(b.rate_per_min, 150000);
    drain(&b, NOW + 11000, true);
    cr_expect_eq(b.rate_per_min, 150000, "calm first");
    drain(&b, NOW + 14000, true);
    cr_expect_eq(b.rate_per_min, 180000);
    drain(&b, NOW + 80000, true);
    cr_expect_eq(b.rate_per_min, 600000);
    for (unsigned i = 0; i < 50; i++)
        bf_bucket_cut(&b, NOW + 100000 + i * 1000);
    cr_expect_eq(b.rate_per_min, 6000, "a hundredth is kept");
}
