/* Private block counts and the return rings. See holds.h. */
#include "memory/holds.h"

#include <string.h>

/* Slots of a return ring that are prefetched: 24 returns, about a microsecond. */
#define RETURNS_AHEAD 4u
_Static_assert(sizeof(((struct bf_return_batch *)0)->refs) == BF_SLOT_PAYLOAD_BYTES,
               "a batch fills a slot");

void bf_holds_init(struct bf_holds *h, struct bf_region *region, uint32_t worker,
                   struct bf_hold *by_block)
{
    *h = (struct bf_holds){
        .region = region, .by_block = by_block, .producers = region->geometry.producers};
    for (uint32_t p = 0; p < h->producers; p++)
        bf_ring_producer_attach(&h->returns[p].ring, bf_return_ring(region, p, worker),
                                bf_return_control(region, p, worker),
                                (uint32_t)region->generation | 1u);
}

const struct bf_block *bf_holds_take(struct bf_holds *h, struct bf_block_ref ref)
{
    const struct bf_block *block = bf_block_find(h->region, ref);
    if (!block || block->len == 0 || block->owner >= h->producers)
        return NULL;
    struct bf_hold *hold = &h->by_block[ref.index];
    /* a producer never reuses a block that we hold; one that does is not believed */
    if (hold->lap != 0 && hold->lap != ref.lap)
        return NULL;
    if (hold->count++ == 0)
        h->held++;
    hold->lap = ref.lap;
    return block;
}

/* Moves a full or closing batch into its return ring. False: the ring is full. */
static bool flush_batch(struct bf_holds *h, struct bf_return_batch *batch)
{
    uint32_t position;
    if (batch->count == 0)
        return true;
    if (!bf_ring_reserve(&batch->ring, 1, &position))
        return false;
    /* references beyond the count are of earlier returns; the length says how many hold */
    memcpy(bf_ring_slot(&batch->ring, position)->payload, batch->refs, sizeof(batch->refs));
    bf_slot_seal(&batch->ring, position, BF_RETURN_BLOCK, 0, 1,
                 batch->count * (uint32_t)sizeof(struct bf_block_ref));
    /* the producer had these lines last: ask for those of the next returns */
    __builtin_prefetch(bf_ring_slot(&batch->ring, position + RETURNS_AHEAD), 1);
    h->returned += batch->count;
    batch->count = 0;
    batch->published_due = true;
    return true;
}

static bool add_return(struct bf_holds *h, uint32_t index)
{
    struct bf_return_batch *batch = &h->returns[bf_blocks(h->region)[index].owner];
    if (batch->count == BF_RETURN_REFS_MAX && !flush_batch(h, batch))
        return false;
    batch->refs[batch->count++] =
        (struct bf_block_ref){.index = index, .lap = h->by_block[index].lap};
    h->by_block[index].lap = 0;
    return true;
}

void bf_holds_return(struct bf_holds *h, uint32_t index)
{
    h->held--;
    /* a return ring has a slot for every block, so only a damaged one is ever full */
    if (!add_return(h, index))
        h->late = true;
}

/* Returns that found their ring full are the blocks with a lap and no count. */
static void retry_late(struct bf_holds *h)
{
    h->late = false;
    for (uint64_t i = 0; i < h->region->block_count; i++) {
        const struct bf_hold *hold = &h->by_block[i];
        if (hold->count == 0 && hold->lap != 0 && !add_return(h, (uint32_t)i)) {
            h->late = true;
            return;
        }
    }
}

uint64_t bf_holds_flush(struct bf_holds *h)
{
    if (h->late)
        retry_late(h);
    for (uint32_t p = 0; p < h->producers; p++) {
        struct bf_return_batch *batch = &h->returns[p];
        (void)flush_batch(h, batch);
        if (batch->published_due)
            bf_ring_publish(&batch->ring);
        batch->published_due = false;
    }
    uint64_t returned = h->returned;
    h->returned = 0;
    return returned;
}

uint64_t bf_holds_bitmap(const struct bf_holds *h, _Atomic uint64_t *bitmap)
{
    uint64_t held = 0;
    for (uint64_t word = 0; word < h->region->census_words; word++) {
        uint64_t bits = 0;
        for (uint64_t bit = 0; bit < 64; bit++) {
            uint64_t index = word * 64 + bit;
            if (index < h->region->block_count && h->by_block[index].count > 0) {
                bits |= UINT64_C(1) << bit;
                held++;
            }
        }
        /* relaxed: the CENSUS_DONE receipt that follows is the release */
        atomic_store_explicit(&bitmap[word], bits, memory_order_relaxed);
    }
    return held;
}
