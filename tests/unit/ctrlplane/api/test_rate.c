/* The rate bucket: a minute's burst, even refill, what the headers say (ING-6). */
#include <criterion/criterion.h>
#include <pthread.h>

#include "api/rate.h"

#define SECOND UINT64_C(1000000000)

Test(rate, a_full_bucket_then_refusal)
{
    struct bf_rate rate = {0};
    struct bf_rate_verdict v;
    uint64_t now = 1000 * SECOND;
    for (unsigned i = 0; i < 60; i++) {
        v = bf_rate_take(&rate, 60, now);
        cr_assert(v.is_allowed, "request %u", i);
        cr_assert_eq(v.remaining, 59 - i);
    }
    v = bf_rate_take(&rate, 60, now);
    cr_assert_not(v.is_allowed);
    cr_assert_eq(v.remaining, 0);
    cr_assert_eq(v.retry_after_s, 1);
    cr_assert_eq(v.reset_s, 60);
}

Test(rate, refills_evenly)
{
    struct bf_rate rate = {0};
    uint64_t now = 1000 * SECOND;
    for (unsigned i = 0; i < 60; i++)
        bf_rate_take(&rate, 60, now);
    cr_assert_not(bf_rate_take(&rate, 60, now + SECOND - 1).is_allowed);
    cr_assert(bf_rate_take(&rate, 60, now + SECOND).is_allowed);
    cr_assert_not(bf_rate_take(&rate, 60, now + SECOND).is_allowed);
    unsigned allowed = 0;
    for (unsigned i = 0; i < 100; i++)
        allowed += bf_rate_take(&rate, 60, now + 31 * SECOND).is_allowed;
    cr_assert_eq(allowed, 30);
    cr_assert_eq(bf_rate_take(&rate, 60, now + 1000 * SECOND).remaining, 59,
                 "never more than full");
}

Test(rate, slow_rates_say_how_long)
{
    struct bf_rate rate = {0};
    uint64_t now = 5 * SECOND;
    cr_assert(bf_rate_take(&rate, 1, now).is_allowed);
    struct bf_rate_verdict v = bf_rate_take(&rate, 1, now);
    cr_assert_not(v.is_allowed);
    cr_assert_eq(v.retry_after_s, 60);
}

struct hammer {
    struct bf_rate *rate;
    unsigned allowed;
};

static void *hammer_main(void *arg)
{
    struct hammer *h = arg;
    for (unsigned i = 0; i < 20000; i++)
        h->allowed += bf_rate_take(h->rate, 10000, 77 * SECOND).is_allowed;
    return NULL;
}

Test(rate, threads_share_one_bucket)
{
    struct bf_rate rate = {0};
    struct hammer h[4];
    pthread_t threads[4];
    unsigned total = 0;
    for (unsigned i = 0; i < 4; i++) {
        h[i] = (struct hammer){.rate = &rate};
        pthread_create(&threads[i], NULL, hammer_main, &h[i]);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        total += h[i].allowed;
    }
    cr_assert_eq(total, 10000);
}
