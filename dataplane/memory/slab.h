/*
 * Fixed pool of equal items, named by index. The memory is one lazily touched mapping taken at
 * start (memory/arena.h): the item that was freed last is given out first, and new items only when
 * none is free. So memory that was never needed is never touched and costs nothing. Owner: one
 * worker thread.
 */
#pragma once

#include <stdint.h>
#include <string.h>

#include "belfry/base/bug.h"

struct bf_slab {
    uint8_t *base;
    uint32_t item_bytes; /* >= 4: a free item holds the index of the next free one */
    uint32_t cap;
    uint32_t bump;      /* items ever handed out */
    uint32_t free_head; /* index, 0 = none */
    uint32_t used;
};

/* Address of item |index| (1-based). */
static inline void *bf_slab_at(const struct bf_slab *s, uint32_t index)
{
    return s->base + (uint64_t)(index - 1u) * s->item_bytes;
}

/* Returns an index, or 0 when the pool is empty. The item is not initialised. */
static inline uint32_t bf_slab_take(struct bf_slab *s)
{
    uint32_t index = s->free_head;
    if (index != 0) {
        memcpy(&s->free_head, bf_slab_at(s, index), sizeof(s->free_head));
    } else {
        if (s->bump == s->cap)
            return 0;
        index = ++s->bump;
    }
    s->used++;
    return index;
}

static inline void bf_slab_put(struct bf_slab *s, uint32_t index)
{
    BF_BUG_ON(index == 0 || index > s->bump || s->used == 0);
    memcpy(bf_slab_at(s, index), &s->free_head, sizeof(s->free_head));
    s->free_head = index;
    s->used--;
}
