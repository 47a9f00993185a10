/*
 * Connections of an address over all workers (memory/address_counts.h): the limit is exact, what
 * ends makes room, one address does not count for another, and workers that race for the last
 * places never take more than there are.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "memory/address_counts.h"

#define WORKERS     4u
#define ROUNDS      200000u
#define LIMIT       3u
#define CONNECTIONS 20000u

static struct bf_arena arena;
static struct bf_address_counts counts;
static _Atomic uint32_t holders, worst;

static uint64_t key_of(uint64_t number)
{
    return XXH3_64bits_withSeed(&number, sizeof(number), 77) | 1u;
}

static void start(void)
{
    cr_assert_eq(bf_address_counts_init(&counts, &arena, CONNECTIONS), 0);
}

static void stop(void)
{
    bf_arena_fini(&arena);
}

TestSuite(address_counts, .init = start, .fini = stop, .timeout = 60);

Test(address_counts, as_many_as_the_limit_says)
{
    uint64_t key = key_of(1);
    for (uint32_t i = 0; i < LIMIT; i++)
        cr_assert(bf_address_counts_take(&counts, key, LIMIT));
    cr_assert_not(bf_address_counts_take(&counts, key, LIMIT));
    cr_assert_not(bf_address_counts_take(&counts, key, LIMIT), "who is refused counts for nothing");
    bf_address_counts_put(&counts, key);
    cr_assert(bf_address_counts_take(&counts, key, LIMIT));
    cr_assert_not(bf_address_counts_take(&counts, key, LIMIT));
}

Test(address_counts, others_do_not_count)
{
    for (uint64_t n = 0; n < 100; n++) /* a hundred that have used up their limit */
        for (uint32_t i = 0; i < LIMIT; i++)
            cr_assert(bf_address_counts_take(&counts, key_of(n), LIMIT));
    for (uint64_t n = 100; n < CONNECTIONS; n++)
        cr_assert(bf_address_counts_take(&counts, key_of(n), LIMIT), "%lu", (unsigned long)n);
    for (uint64_t n = 0; n < 100; n++)
        cr_assert_not(bf_address_counts_take(&counts, key_of(n), LIMIT));
}

static void *race(void *arg)
{
    uint64_t key = key_of(5);
    (void)arg;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (!bf_address_counts_take(&counts, key, LIMIT))
            continue;
        uint32_t now = atomic_fetch_add(&holders, 1) + 1;
        uint32_t seen = atomic_load(&worst);
        while (now > seen && !atomic_compare_exchange_weak(&worst, &seen, now))
            continue;
        atomic_fetch_sub(&holders, 1);
        bf_address_counts_put(&counts, key);
    }
    return NULL;
}

Test(address_counts, workers_that_race)
{
    pthread_t threads[WORKERS];
    for (uint32_t i = 0; i < WORKERS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, race, NULL), 0);
    for (uint32_t i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_leq(worst, LIMIT);
    cr_assert_geq(worst, 1);
    for (uint32_t i = 0; i < LIMIT; i++)
        cr_assert(bf_address_counts_take(&counts, key_of(5), LIMIT), "all have been given back");
}
