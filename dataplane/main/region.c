/*
 * Lays the shared region out (shm/layout.h): offsets from its start, in the order of the header,
 * each part on a page of its own so that parts with different writers never share one. Needs no
 * EAL: rte_ring_init only writes a header, so tests and belfry-dev lay out ordinary memory.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <rte_ring.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf.h"
#include "belfry/plane.h"
#include "belfry/shm/layout.h"

#define PART_ALIGN 4096u

struct part {
    uint64_t at;
};

static uint64_t place(struct part *p, uint64_t bytes)
{
    uint64_t at = p->at;
    p->at += (bytes + PART_ALIGN - 1) / PART_ALIGN * PART_ALIGN;
    return at;
}

static uint32_t power_above(uint64_t n)
{
    uint32_t power = 64;
    while (power <= n)
        power *= 2;
    return power;
}

static uint64_t ring_bytes(uint32_t slots)
{
    return sizeof(struct rte_ring) + (uint64_t)slots * BF_SLOT_BYTES;
}

static struct bf_geometry geometry_of(const struct bf_conf *conf)
{
    struct bf_geometry g = {
        .workers = conf->workers,
        .producers = conf->shards + 1,
        .command_slots = conf->command_slots,
        .receipt_slots = conf->receipt_slots,
        .connections_max = conf->connections_max,
        .blocks = {conf->blocks_256, conf->blocks_1k, conf->blocks_4k, conf->blocks_16k,
                   conf->blocks_80k},
    };
    uint64_t blocks = 0;
    for (uint32_t c = 0; c < BF_BLOCK_CLASS_COUNT; c++)
        blocks += g.blocks[c];
    /* a ring holds one slot less than its size: all blocks of a producer may be on their way back
     */
    g.return_slots = power_above(blocks + 1);
    return g;
}

/* Fills the header of |r| for a geometry and returns the bytes of the whole. */
static uint64_t lay_out(struct bf_region *r, const struct bf_geometry *g)
{
    struct part p = {0};
    uint64_t rings = (uint64_t)g->producers * g->workers;
    uint64_t data_per_producer = 0;
    r->geometry = *g;
    (void)place(&p, sizeof(struct bf_region));
    r->off_command_control = place(&p, rings * BF_LANE_COUNT * sizeof(struct bf_ring_control));
    r->command_ring_stride = ring_bytes(g->command_slots);
    r->off_command_rings = place(&p, rings * BF_LANE_COUNT * r->command_ring_stride);
    r->off_return_control = place(&p, rings * sizeof(struct bf_ring_control));
    r->return_ring_stride = ring_bytes(g->return_slots);
    r->off_return_rings = place(&p, rings * r->return_ring_stride);
    r->off_receipt_control = place(&p, g->workers * sizeof(struct bf_ring_control));
    r->receipt_ring_stride = ring_bytes(g->receipt_slots);
    r->off_receipt_rings = place(&p, g->workers * r->receipt_ring_stride);
    for (uint32_t c = 0; c < BF_BLOCK_CLASS_COUNT; c++) {
        r->blocks_per_producer += g->blocks[c];
        data_per_producer += (uint64_t)g->blocks[c] * bf_block_class_bytes[c];
    }
    r->block_count = r->blocks_per_producer * g->producers;
    r->off_blocks = place(&p, r->block_count * sizeof(struct bf_block));
    r->census_words = (r->block_count + 63) / 64;
    r->off_census = place(&p, g->workers * r->census_words * sizeof(uint64_t));
    r->off_worker_bells = place(&p, g->workers * sizeof(struct bf_doorbell));
    r->off_stats = place(&p, g->workers * sizeof(struct bf_worker_stats));
    r->off_snapshots = place(&p, sizeof(struct bf_snapshot_area));
    r->off_data = place(&p, data_per_producer * g->producers);
    return p.at;
}

unsigned long bf_region_bytes(const struct bf_conf *conf)
{
    struct bf_region scratch = {0};
    const struct bf_geometry g = geometry_of(conf);
    return lay_out(&scratch, &g);
}

static int init_ring(struct rte_ring *ring, uint32_t slots)
{
    /* the name is for DPDK's lists, which we do not use: rings are found by offset */
    return rte_ring_init(ring, "belfry", slots, RING_F_SP_ENQ | RING_F_SC_DEQ);
}

static int init_rings(const struct bf_region *r)
{
    const struct bf_geometry *g = &r->geometry;
    int rc = 0;
    for (uint32_t w = 0; w < g->workers; w++) {
        rc |= init_ring(bf_receipt_ring(r, w), g->receipt_slots);
        for (uint32_t p = 0; p < g->producers; p++) {
            rc |= init_ring(bf_return_ring(r, p, w), g->return_slots);
            for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
                rc |= init_ring(bf_command_ring(r, p, w, lane), g->command_slots);
        }
    }
    return rc == 0 ? 0 : -EINVAL;
}

/* Block headers: producer by producer, class by class; bytes follow in the same order. */
static void init_blocks(const struct bf_region *r)
{
    struct bf_block *block = bf_blocks(r);
    uint64_t data = r->off_data;
    for (uint32_t p = 0; p < r->geometry.producers; p++) {
        for (uint32_t c = 0; c < BF_BLOCK_CLASS_COUNT; c++) {
            for (uint32_t i = 0; i < r->geometry.blocks[c]; i++, block++) {
                block->data = data;
                block->cap = bf_block_class_bytes[c];
                block->owner = (uint8_t)p;
                block->class_index = (uint8_t)c;
                data += bf_block_class_bytes[c];
            }
        }
    }
}

/* Never 0: a generation names a start, and 0 is "none". */
static uint64_t new_generation(void)
{
    uint64_t random = 0;
    while (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random) || random == 0)
        continue;
    return random;
}

int bf_region_create(void *memory, unsigned long bytes, const struct bf_conf *conf,
                     struct bf_region **ret_region)
{
    struct bf_region *r = memory;
    const struct bf_geometry g = geometry_of(conf);
    if ((uintptr_t)memory % BF_CACHE_LINE != 0)
        return -EINVAL;
    memset(r, 0, sizeof(*r));
    uint64_t needed = lay_out(r, &g);
    if (bytes < needed)
        return BF_ERR_NO_MEMORY;
    r->contract_version = BF_SHM_CONTRACT_VERSION;
    r->layout_hash = bf_layout_hash();
    r->bytes = needed;
    r->generation = new_generation();
    r->dataplane_pid = getpid();
    r->started_wall_ms = bf_wall_ms();
    if (getrandom(r->user_secret, sizeof(r->user_secret), 0) != (ssize_t)sizeof(r->user_secret))
        return -EIO;
    int rc = init_rings(r);
    if (rc != 0)
        return rc;
    init_blocks(r);
    r->magic = BF_SHM_MAGIC; /* last: whoever sees it sees a whole header */
    *ret_region = r;
    return 0;
}
