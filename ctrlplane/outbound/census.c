/* See census.h. */
#include "outbound/census.h"

#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/shm/push_wire.h"

#define CENSUS_FREE    0u
#define CENSUS_CLEARED 1u

int bf_attempt_census_init(struct bf_attempt_census *census, uint32_t workers)
{
    uint32_t slots = 1;
    bf_attempt_census_fini(census);
    while (slots < 2 * workers * BF_PUSH_REQUESTS_MAX)
        slots *= 2;
    census->ids = calloc(slots, sizeof(*census->ids));
    census->mask = slots - 1;
    return census->ids ? 0 : BF_ERR_NO_MEMORY;
}

void bf_attempt_census_fini(struct bf_attempt_census *census)
{
    free((void *)(uintptr_t)census->ids);
    *census = (struct bf_attempt_census){0};
}

/* An id without the byte that routes: the successor may have another number of shards. Never one of
 * the marks. */
static uint64_t attempt_of(uint64_t id)
{
    return id >> 8 | UINT64_C(1) << 63;
}

/* The place of an attempt, or the free one that ends its probing. Relaxed throughout: the census'
 * ticket orders all adds before any shard asks, and a slot is cleared by one shard alone. */
static _Atomic uint64_t *census_place(const struct bf_attempt_census *census, uint64_t attempt)
{
    for (uint32_t i = (uint32_t)attempt;; i++) {
        _Atomic uint64_t *place = &census->ids[i & census->mask];
        uint64_t there = atomic_load_explicit(place, memory_order_relaxed);
        if (there == attempt || there == CENSUS_FREE)
            return place;
    }
}

void bf_attempt_census_add(struct bf_attempt_census *census, uint64_t id)
{
    uint64_t attempt = attempt_of(id);
    if (census->ids)
        atomic_store_explicit(census_place(census, attempt), attempt, memory_order_relaxed);
}

bool bf_attempt_census_has(const struct bf_attempt_census *census, uint64_t id)
{
    uint64_t attempt = attempt_of(id);
    return census->ids &&
           atomic_load_explicit(census_place(census, attempt), memory_order_relaxed) == attempt;
}

void bf_attempt_census_forget(struct bf_attempt_census *census, uint64_t id)
{
    if (bf_attempt_census_has(census, id))
        atomic_store_explicit(census_place(census, attempt_of(id)), CENSUS_CLEARED,
                              memory_order_relaxed);
}

void bf_attempt_orphan_id(uint64_t id, struct bf_id *ret)
{
    static const char mark[8] = {'p', 'u', 's', 'h', '_', 'i', 'd', 0};
    uint64_t attempt = attempt_of(id);
    memcpy(ret->bytes, &attempt, sizeof(attempt));
    memcpy(ret->bytes + sizeof(attempt), mark, sizeof(mark));
}
