/*
 * Hash tables with open addressing: an entry lies at the place that its hash names, or after it
 * where that was taken, with no free place in between. What all such tables have in common: the
 * walk, the load, and how an entry is taken out without leaving a mark that later walks have to
 * step over. What lies at a place is the table's own business, so are its memory and its threads.
 * The number of places is a power of two; the mask is one less.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Places at which an entry of |hash| may lie, one after the other. Without an end: a table always
 * has a free place, and there the search is over. */
#define bf_hash_walk(at, hash, mask)                                                               \
    for (uint32_t at = (uint32_t)(hash) & (mask);; at = (at + 1) & (mask))

/* Whether one more than |count| entries leave less than a quarter of the places free: then walks
 * grow long, and the table is to be made larger. */
static inline bool bf_hash_is_full(uint32_t count, uint32_t mask)
{
    return (count + UINT64_C(1)) * 4 > (mask + UINT64_C(1)) * 3;
}

/* What a table says of its places. */
struct bf_hash_ops {
    bool (*is_free)(const void *table, uint32_t at);
    uint32_t (*hash)(const void *table, uint32_t at); /* of the entry that lies there */
    void (*move)(void *table, uint32_t to, uint32_t from);
};

/* The entry at |hole| is taken out: those after it that could not lie there before move up.
 * Returns the place that the table has to mark as free. */
static inline uint32_t bf_hash_close(void *table, const struct bf_hash_ops *ops, uint32_t mask,
                                     uint32_t hole)
{
    bf_hash_walk (at, hole + 1, mask) {
        if (ops->is_free(table, at))
            return hole;
        /* not if its own place lies after the hole: it would not be found there */
        if (((at - ops->hash(table, at)) & mask) < ((at - hole) & mask))
            continue;
        ops->move(table, hole, at);
        hole = at;
    }
}
