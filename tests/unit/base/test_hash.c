/*
 * Hash tables with open addressing: whatever is put and taken out in any order, each entry is found
 * from its own place on, and a search for anything else ends.
 */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/hash.h"

#define PLACES 64u

/* Entries are their hashes; 0 is free. */
static uint32_t table[PLACES];
static bool is_in[1024];

static bool is_free(const void *t, uint32_t at)
{
    return ((const uint32_t *)t)[at] == 0;
}

static uint32_t hash_at(const void *t, uint32_t at)
{
    return ((const uint32_t *)t)[at];
}

static void move(void *t, uint32_t to, uint32_t from)
{
    ((uint32_t *)t)[to] = ((const uint32_t *)t)[from];
}

static const struct bf_hash_ops ops = {is_free, hash_at, move};

static uint32_t place_of(uint32_t hash)
{
    uint32_t looked_at = 0;
    bf_hash_walk (at, hash, PLACES - 1) {
        cr_assert(looked_at++ < PLACES, "a search without an end");
        if (table[at] == 0 || table[at] == hash)
            return at;
    }
}

static void check_all(unsigned seed)
{
    for (uint32_t hash = 1; hash < 1024; hash++)
        cr_assert_eq(table[place_of(hash)] == hash, is_in[hash], "seed %u: %u", seed, hash);
}

Test(hash, what_is_put_is_found_until_it_is_taken_out)
{
    for (unsigned seed = 1; seed <= 20; seed++) {
        unsigned random = seed;
        uint32_t count = 0;
        memset(table, 0, sizeof(table));
        memset(is_in, 0, sizeof(is_in));
        for (unsigned i = 0; i < 4000; i++) {
            /* few places of their own: entries lie over each other, past the end too */
            uint32_t hash =
                1 + (uint32_t)rand_r(&random) % 15 * 64 + (uint32_t)rand_r(&random) % 4 * 20;
            if (is_in[hash]) {
                table[bf_hash_close(table, &ops, PLACES - 1, place_of(hash))] = 0;
                count--;
            } else if (bf_hash_is_full(count, PLACES - 1)) {
                continue;
            } else {
                table[place_of(hash)] = hash;
                count++;
            }
            is_in[hash] = !is_in[hash];
            check_all(seed);
        }
    }
}

Test(hash, a_quarter_of_the_places_stays_free)
{
    cr_assert(!bf_hash_is_full(47, 63));
    cr_assert(bf_hash_is_full(48, 63));
    cr_assert(!bf_hash_is_full(0, UINT32_MAX));
    cr_assert(bf_hash_is_full(UINT32_MAX, UINT32_MAX));
}
