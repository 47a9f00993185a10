/*
 * Runs the conformance test with seeds of its own, or with that of BELFRY_SEED alone, in a
 * directory that is made and removed. The seed of a run that fails is in what the test says.
 */
#pragma once

#include <criterion/criterion.h>
#include <sys/random.h>

#include "conformance.h"
#include "tmp_dir.h"

static inline uint64_t first_seed(void)
{
    const char *given = getenv("BELFRY_SEED");
    uint32_t seed = 0;
    if (given)
        return strtoull(given, NULL, 10);
    cr_assert_eq(getrandom(&seed, sizeof(seed), 0), (ssize_t)sizeof(seed));
    return seed;
}

static inline bool run_once(engine_open_fn open, uint64_t seed, unsigned steps,
                            char why[sizeof(((struct run *)0)->why)])
{
    struct run *r = calloc(1, sizeof(*r));
    r->open = open;
    r->seed = seed;
    r->steps = steps;
    tmp_dir_make(r->dir, sizeof(r->dir));
    bool good = conforms(r);
    memcpy(why, r->why, sizeof(r->why));
    tmp_dir_remove(r->dir);
    free(r);
    return good;
}

static inline void run_seeds(const char *name, engine_open_fn open, unsigned seeds, unsigned steps)
{
    char why[sizeof(((struct run *)0)->why)];
    uint64_t seed = first_seed();
    for (unsigned i = 0; i < seeds; i++, seed++) {
        fprintf(stderr, "%s: BELFRY_SEED=%llu, %u steps\n", name, (unsigned long long)seed, steps);
        cr_assert(run_once(open, seed, steps, why), "BELFRY_SEED=%llu: %s",
                  (unsigned long long)seed, why);
        if (getenv("BELFRY_SEED"))
            return;
    }
}
