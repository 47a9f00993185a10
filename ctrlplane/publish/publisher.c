/* See publisher.h. */
#include "publish/publisher.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/fault.h"
#include "stats/metrics.h"

static struct bf_fault fault_publish = {.point = "ring_publish"};

static uint32_t first_block(const struct bf_publisher *p)
{
    return (uint32_t)(p->producer * p->region->blocks_per_producer);
}

void bf_publisher_attach(struct bf_publisher *p, struct bf_region *region, uint32_t producer,
                         uint32_t generation)
{
    memset(p, 0, sizeof(*p));
    p->region = region;
    p->producer = producer;
    p->workers = region->geometry.workers;
    for (uint32_t w = 0; w < p->workers; w++) {
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
            bf_ring_producer_attach(&p->rings[w][lane], bf_command_ring(region, producer, w, lane),
                                    bf_command_control(region, producer, w, lane), generation);
        bf_ring_consumer_attach(&p->returns[w], bf_return_ring(region, producer, w),
                                bf_return_control(region, producer, w));
    }
    bf_fault_arm(&fault_publish);
}

/* Bitmap of workers that hold a block, from their census answers. */
static uint64_t census_holders(const struct bf_publisher *p, uint32_t index)
{
    uint64_t holders = 0;
    for (uint32_t w = 0; w < p->workers; w++) {
        /* relaxed: the census-done receipt's release/acquire came after the bitmap was complete */
        uint64_t word =
            atomic_load_explicit(&bf_census_bitmap(p->region, w)[index / 64], memory_order_relaxed);
        holders |= (word >> (index % 64) & 1u) << w;
    }
    return holders;
}

int64_t bf_publisher_adopt_blocks(struct bf_publisher *p)
{
    struct bf_block *blocks = bf_blocks(p->region);
    uint32_t first = first_block(p);
    int64_t held = 0;
    for (uint32_t c = 0; c < BF_BLOCK_CLASS_COUNT; c++) {
        p->free_cap[c] = p->region->geometry.blocks[c];
        p->free_blocks[c] = calloc(p->free_cap[c] ? p->free_cap[c] : 1, sizeof(uint32_t));
        if (!p->free_blocks[c])
            return -ENOMEM;
    }
    for (uint32_t i = 0; i < p->region->blocks_per_producer; i++) {
        struct bf_block *block = &blocks[first + i];
        block->holders = census_holders(p, first + i);
        if (block->holders) {
            held++;
            continue;
        }
        uint32_t c = block->class_index;
        BF_BUG_ON(p->free_count[c] >= p->free_cap[c]);
        p->free_blocks[c][p->free_count[c]++] = first + i;
    }
    return held;
}

void bf_publisher_detach(struct bf_publisher *p)
{
    for (uint32_t c = 0; c < BF_BLOCK_CLASS_COUNT; c++)
        free(p->free_blocks[c]);
    memset(p, 0, sizeof(*p));
}

static void free_block(struct bf_publisher *p, uint32_t index)
{
    uint32_t c = bf_blocks(p->region)[index].class_index;
    BF_BUG_ON(p->free_count[c] >= p->free_cap[c]);
    p->free_blocks[c][p->free_count[c]++] = index;
}

static bool take_block(struct bf_publisher *p, uint32_t bytes, uint32_t *ret_index)
{
    for (uint32_t c = 0; c < BF_BLOCK_CLASS_COUNT; c++) {
        if (bf_block_class_bytes[c] < bytes || p->free_count[c] == 0)
            continue;
        *ret_index = p->free_blocks[c][--p->free_count[c]];
        return true;
    }
    return false;
}

uint8_t *bf_publisher_alloc(struct bf_publisher *p, uint32_t bytes, struct bf_block_ref *ret_ref)
{
    uint32_t index;
    if (!p->region)
        return NULL;
    if (!take_block(p, bytes, &index)) {
        bf_publisher_reclaim(p);
        if (!take_block(p, bytes, &index)) {
            bf_count(BF_CM_M_blocks_exhausted, 1);
            return NULL;
        }
    }
    struct bf_block *block = &bf_blocks(p->region)[index];
    /* relaxed: the ring's publish orders it before the command; single writer */
    uint32_t lap = atomic_load_explicit(&block->lap, memory_order_relaxed) + 1;
    if (lap == 0)
        lap = 1; /* 0 means "no block" in a command */
    atomic_store_explicit(&block->lap, lap, memory_order_relaxed);
    block->holders = 0;
    block->len = bytes;
    *ret_ref = (struct bf_block_ref){.index = index, .lap = lap};
    return bf_block_data(p->region, block);
}

void bf_publisher_drop(struct bf_publisher *p, struct bf_block_ref ref)
{
    struct bf_block *block = &bf_blocks(p->region)[ref.index];
    if (block->holders == 0)
        free_block(p, ref.index);
}

void bf_publisher_set_len(struct bf_publisher *p, struct bf_block_ref ref, uint32_t len)
{
    struct bf_block *block = &bf_blocks(p->region)[ref.index];
    BF_BUG_ON(len > block->cap || block->holders != 0);
    block->len = len;
}

bool bf_publisher_has_room(struct bf_publisher *p, uint32_t worker, enum bf_lane lane,
                           uint32_t slots)
{
    return p->region && bf_ring_free(&p->rings[worker][lane], slots) >= slots;
}

bool bf_publisher_send(struct bf_publisher *p, uint32_t worker, enum bf_lane lane,
                       enum bf_cmd_kind kind, const void *payload, struct bf_block_ref ref)
{
    uint32_t position;
    struct bf_ring_producer *ring = &p->rings[worker][lane];
    if (!p->region || !bf_ring_reserve(ring, 1, &position)) {
        bf_count(BF_CM_M_ring_full, 1);
        return false;
    }
    if (ref.lap != 0) {
        struct bf_block *block = &bf_blocks(p->region)[ref.index];
        BF_BUG_ON(block->holders >> worker & 1u);
        block->holders |= UINT64_C(1) << worker; /* before the enqueue (DESIGN 2) */
    }
    memcpy(bf_ring_slot(ring, position)->payload, payload, BF_SLOT_PAYLOAD_BYTES);
    bf_slot_seal(ring, position, (uint16_t)kind, 0, 1, BF_SLOT_PAYLOAD_BYTES);
    p->dirty |= UINT64_C(1) << worker;
    return true;
}

void bf_publisher_flush(struct bf_publisher *p)
{
    while (p->dirty) {
        uint32_t worker = (uint32_t)__builtin_ctzll(p->dirty);
        p->dirty &= p->dirty - 1;
        bf_fault_pass(&fault_publish);
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
            bf_ring_publish(&p->rings[worker][lane]);
        bf_doorbell_ring(bf_worker_bell(p->region, worker));
    }
}

static void take_return(struct bf_publisher *p, uint32_t worker, struct bf_block_ref ref)
{
    struct bf_block *block = bf_block_find(p->region, ref);
    uint64_t bit = UINT64_C(1) << worker;
    if (!block || block->owner != p->producer || !(block->holders & bit)) {
        bf_count(BF_CM_M_returns_ignored, 1);
        return;
    }
    block->holders &= ~bit;
    if (block->holders == 0)
        free_block(p, ref.index);
}

static void reclaim_from(struct bf_publisher *p, uint32_t worker)
{
    struct bf_ring_consumer *c = &p->returns[worker];
    uint32_t ready = bf_ring_ready_now(c);
    for (uint32_t i = 0; i < ready; i++) {
        const struct bf_slot *slot = bf_ring_peek(c, c->next);
        if (bf_slot_is_valid(c, c->next) && slot->kind == BF_RETURN_BLOCK &&
            slot->len <= BF_SLOT_PAYLOAD_BYTES) {
            struct bf_block_ref refs[BF_RETURN_REFS_MAX];
            memcpy(refs, slot->payload, sizeof(refs));
            for (uint32_t k = 0; k < slot->len / sizeof(refs[0]); k++)
                take_return(p, worker, refs[k]);
        } else {
            bf_count(BF_CM_M_receipts_bad, 1);
        }
        c->next++;
    }
    if (ready)
        bf_ring_release(c, c->next);
}

void bf_publisher_reclaim(struct bf_publisher *p)
{
    if (!p->region || !p->free_blocks[0])
        return; /* not adopted yet: returns wait in their ring */
    for (uint32_t w = 0; w < p->workers; w++)
        reclaim_from(p, w);
}

uint64_t bf_publisher_free_total(const struct bf_publisher *p)
{
    uint64_t total = 0;
    for (uint32_t c = 0; c < BF_BLOCK_CLASS_COUNT; c++)
        total += p->free_count[c];
    return total;
}
