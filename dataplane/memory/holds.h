/*
 * The worker's private count of how many users a block has here (DESIGN 2 "Blocks"). A command
 * holds the block that it names while it is carried out; each queued frame and each broadcast job
 * holds it too. When the count falls to zero the block goes back to its producer, once; a return
 * slot carries six references. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/shm/layout.h"

struct bf_hold {
    uint32_t count;
    uint32_t lap; /* of the use that is held; 0 with count 0 */
};

struct bf_return_batch {
    struct bf_ring_producer ring;
    uint32_t count;
    struct bf_block_ref refs[BF_RETURN_REFS_MAX];
    bool published_due;
};

struct bf_holds {
    struct bf_region *region;
    struct bf_hold *by_block;
    uint64_t returned; /* references since the last flush */
    uint64_t held;     /* blocks with count > 0 */
    uint32_t producers;
    bool late; /* a return ring was full: search by_block when it has room */
    struct bf_return_batch returns[BF_PRODUCERS_MAX];
};

/* Takes over the return rings of |worker|. |by_block|: zeroed, one an index of the region. */
void bf_holds_init(struct bf_holds *h, struct bf_region *region, uint32_t worker,
                   struct bf_hold *by_block);

/* Holds the block of a command just taken from a ring. NULL: impossible or of another lap; count it
 * and go on. Pair with bf_holds_drop(index). */
const struct bf_block *bf_holds_take(struct bf_holds *h, struct bf_block_ref ref);

/* As bf_holds_take for the common case of a block that nobody here holds yet, without holding it.
 * NULL: take the general way. */
static inline const struct bf_block *bf_holds_find_new(const struct bf_holds *h,
                                                       struct bf_block_ref ref)
{
    const struct bf_block *block = bf_block_find(h->region, ref);
    if (!block || block->len == 0 || block->owner >= h->producers)
        return NULL;
    return h->by_block[ref.index].lap == 0 ? block : NULL;
}

/* Holds a block that bf_holds_find_new found, once. */
static inline void bf_holds_add_new(struct bf_holds *h, struct bf_block_ref ref)
{
    h->by_block[ref.index] = (struct bf_hold){.count = 1, .lap = ref.lap};
    h->held++;
}

/* One more holder of a block already held. */
static inline void bf_holds_add(struct bf_holds *h, uint32_t index)
{
    BF_BUG_ON(h->by_block[index].count == 0);
    h->by_block[index].count++;
}

/* Undoes bf_holds_take for a command that stays in its ring. Nothing goes back to the producer. */
static inline void bf_holds_forget(struct bf_holds *h, uint32_t index)
{
    BF_BUG_ON(h->by_block[index].count == 0);
    if (--h->by_block[index].count == 0) {
        h->held--;
        h->by_block[index].lap = 0;
    }
}

void bf_holds_return(struct bf_holds *h, uint32_t index); /* by bf_holds_drop only */

static inline void bf_holds_drop(struct bf_holds *h, uint32_t index)
{
    struct bf_hold *hold = &h->by_block[index];
    BF_BUG_ON(hold->count == 0);
    if (--hold->count > 0)
        return;
    struct bf_return_batch *batch = &h->returns[bf_blocks(h->region)[index].owner];
    if (BF_UNLIKELY(batch->count == BF_RETURN_REFS_MAX)) {
        bf_holds_return(h, index);
        return;
    }
    h->held--;
    batch->refs[batch->count++] = (struct bf_block_ref){.index = index, .lap = hold->lap};
    hold->lap = 0;
}

/* Publishes what was returned. Returns the number of references given back since the last call. */
uint64_t bf_holds_flush(struct bf_holds *h);

/* Writes the bitmap of held blocks for the census. Returns how many there are. */
uint64_t bf_holds_bitmap(const struct bf_holds *h, _Atomic uint64_t *bitmap);
