/*
 * The region: everything both processes share, in one memzone that the primary lays out (DESIGN 2).
 * All places are offsets from its start. Its geometry is fixed when the dataplane starts and stands
 * in the header, where the control process reads it. Writers:
 *   header ............ dataplane at start; words marked below by their owner
 *   command rings ..... producing end ctrlplane (one thread each), consuming end the worker
 *   return rings ...... producing end the worker, consuming end the owning producer thread
 *   receipts rings .... producing end the worker, consuming end ctrlplane's receipts thread
 *   blocks, bytes ..... the owning producer thread;  census bitmaps: the worker
 *   doorbells ......... both (shm/doorbell.h);  counters: the worker;  snapshots: ctrlplane
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/histogram.h"
#include "belfry/base/limits.h"
#include "belfry/shm/block.h"
#include "belfry/shm/command.h"
#include "belfry/shm/doorbell.h"
#include "belfry/shm/push_wire.h"
#include "belfry/shm/receipt.h"
#include "belfry/shm/ring.h"
#include "belfry/shm/snapshot.h"
#include "belfry/shm/user_key.h"

#define BF_SHM_MAGIC            UINT64_C(0x79726665422d6d68)
#define BF_SHM_CONTRACT_VERSION 3u
#define BF_SHM_MEMZONE          "belfry_region"
#define BF_CACHE_LINE           64u

enum bf_metric {
#define X(name, kind, unit, help) BF_M_##name,
#include "belfry/shm/metrics.def"
#undef X
    BF_M_COUNT
};

/* One a worker; each on its own cache lines. Relaxed single-writer counters (see histogram.h). */
struct bf_worker_stats {
    _Atomic uint64_t counters[BF_M_COUNT];
    struct bf_hist
        command_to_send_ns; /* stamp in the command's slot is not kept: sampled by perf */
    struct bf_hist turn_ns;
    struct bf_hist send_bytes;
} __attribute__((aligned(64)));

static inline void bf_metric_add(struct bf_worker_stats *stats, enum bf_metric metric, uint64_t by)
{
    bf_hist_bump(&stats->counters[metric], by);
}

static inline void bf_metric_set(struct bf_worker_stats *stats, enum bf_metric metric,
                                 uint64_t value)
{
    atomic_store_explicit(&stats->counters[metric], value, memory_order_relaxed);
}

static inline uint64_t bf_metric_get(const struct bf_worker_stats *stats, enum bf_metric metric)
{
    return atomic_load_explicit(&stats->counters[metric], memory_order_relaxed);
}

/* What the dataplane's configuration decides about the region. */
struct bf_geometry {
    uint32_t workers;
    uint32_t producers;     /* fan-out shards + 1; the last one is the control producer */
    uint32_t command_slots; /* a ring [producer][worker][lane]; power of two */
    uint32_t receipt_slots; /* a worker; power of two */
    uint32_t return_slots;  /* a ring [producer][worker]; power of two, >= blocks of a producer */
    uint32_t blocks[BF_BLOCK_CLASS_COUNT]; /* of each class, a producer */
    uint32_t connections_max;              /* a worker */
    uint32_t reserved[3];
};

struct bf_region {
    uint64_t magic;
    uint32_t contract_version;
    /* Hash of the store's epoch that open connections were welcomed with; 0: none yet. Writer: the
     * control process, once their census is in and those of another epoch are closed. */
    _Atomic uint32_t store_epoch;
    uint64_t layout_hash;
    uint64_t bytes;
    uint64_t generation; /* of the dataplane start */
    struct bf_geometry geometry;
    uint8_t user_secret[BF_USER_SECRET_BYTES];
    int64_t dataplane_pid;
    uint64_t started_wall_ms;

    /* offsets; strides are the ring's bytes */
    uint64_t off_command_control; /* struct bf_ring_control [producer][worker][lane] */
    uint64_t off_command_rings;
    uint64_t command_ring_stride;
    uint64_t off_return_control; /* [producer][worker] */
    uint64_t off_return_rings;
    uint64_t return_ring_stride;
    uint64_t off_receipt_control; /* [worker] */
    uint64_t off_receipt_rings;
    uint64_t receipt_ring_stride;
    uint64_t off_blocks; /* struct bf_block, block_count of them, producer by producer */
    uint64_t block_count;
    uint64_t blocks_per_producer;
    uint64_t off_census; /* one bitmap a worker: census_words u64 each */
    uint64_t census_words;
    uint64_t off_worker_bells; /* struct bf_doorbell [worker] */
    uint64_t off_stats;        /* struct bf_worker_stats [worker] */
    uint64_t off_snapshots;    /* struct bf_snapshot_area */
    uint64_t off_data;         /* block bytes */

    /* words that change */
    struct bf_doorbell receipts_bell; /* ctrlplane's receipts thread sleeps on it */
    _Atomic uint32_t ctrl_generation __attribute__((aligned(64))); /* writer: ctrlplane at attach */
    _Atomic uint32_t ctrl_attaches;                                /* writer: ctrlplane */
    _Atomic uint64_t ctrl_heartbeat_ms; /* mono; an alarm, never ownership */
    _Atomic uint64_t data_heartbeat_ms __attribute__((aligned(64)));
    _Atomic uint32_t data_ready; /* 1: workers run. Writer: dataplane */
} __attribute__((aligned(64)));

static inline void *bf_region_at(const struct bf_region *region, uint64_t offset)
{
    return (uint8_t *)(uintptr_t)region + offset;
}

static inline uint32_t bf_command_ring_index(const struct bf_region *r, uint32_t producer,
                                             uint32_t worker, uint32_t lane)
{
    return (producer * r->geometry.workers + worker) * BF_LANE_COUNT + lane;
}

static inline struct rte_ring *bf_command_ring(const struct bf_region *r, uint32_t producer,
                                               uint32_t worker, uint32_t lane)
{
    uint64_t index = bf_command_ring_index(r, producer, worker, lane);
    return bf_region_at(r, r->off_command_rings + index * r->command_ring_stride);
}

static inline struct bf_ring_control *
bf_command_control(const struct bf_region *r, uint32_t producer, uint32_t worker, uint32_t lane)
{
    struct bf_ring_control *all = bf_region_at(r, r->off_command_control);
    return &all[bf_command_ring_index(r, producer, worker, lane)];
}

static inline struct rte_ring *bf_return_ring(const struct bf_region *r, uint32_t producer,
                                              uint32_t worker)
{
    uint64_t index = producer * r->geometry.workers + worker;
    return bf_region_at(r, r->off_return_rings + index * r->return_ring_stride);
}

static inline struct bf_ring_control *bf_return_control(const struct bf_region *r,
                                                        uint32_t producer, uint32_t worker)
{
    struct bf_ring_control *all = bf_region_at(r, r->off_return_control);
    return &all[producer * r->geometry.workers + worker];
}

static inline struct rte_ring *bf_receipt_ring(const struct bf_region *r, uint32_t worker)
{
    return bf_region_at(r, r->off_receipt_rings + worker * r->receipt_ring_stride);
}

static inline struct bf_ring_control *bf_receipt_control(const struct bf_region *r, uint32_t worker)
{
    struct bf_ring_control *all = bf_region_at(r, r->off_receipt_control);
    return &all[worker];
}

static inline struct bf_doorbell *bf_worker_bell(const struct bf_region *r, uint32_t worker)
{
    struct bf_doorbell *all = bf_region_at(r, r->off_worker_bells);
    return &all[worker];
}

static inline struct bf_worker_stats *bf_stats(const struct bf_region *r, uint32_t worker)
{
    struct bf_worker_stats *all = bf_region_at(r, r->off_stats);
    return &all[worker];
}

static inline struct bf_block *bf_blocks(const struct bf_region *r)
{
    return bf_region_at(r, r->off_blocks);
}

static inline _Atomic uint64_t *bf_census_bitmap(const struct bf_region *r, uint32_t worker)
{
    return bf_region_at(r, r->off_census + (uint64_t)worker * r->census_words * sizeof(uint64_t));
}

static inline struct bf_snapshot_area *bf_snapshots(const struct bf_region *r)
{
    return bf_region_at(r, r->off_snapshots);
}

/* The block that a command names, or NULL if there is no such block or the reference is to an
 * earlier use of it. */
static inline struct bf_block *bf_block_find(const struct bf_region *r, struct bf_block_ref ref)
{
    if (ref.index >= r->block_count || ref.lap == 0)
        return NULL;
    struct bf_block *block = &bf_blocks(r)[ref.index];
    /* relaxed: the ring's release/acquire already ordered the owner's writes before the command */
    if (atomic_load_explicit(&block->lap, memory_order_relaxed) != ref.lap ||
        block->len > block->cap)
        return NULL;
    return block;
}

static inline uint8_t *bf_block_data(const struct bf_region *r, const struct bf_block *block)
{
    return bf_region_at(r, block->data);
}

/* Hash of everything whose change would break the contract. The control process attaches only if
 * both binaries have the same. */
static inline uint64_t bf_layout_hash(void)
{
    const uint64_t facts[] = {
        BF_SHM_CONTRACT_VERSION,
        sizeof(struct bf_region),
        offsetof(struct bf_region, geometry),
        offsetof(struct bf_region, user_secret),
        offsetof(struct bf_region, off_data),
        offsetof(struct bf_region, receipts_bell),
        offsetof(struct bf_region, data_ready),
        sizeof(struct bf_geometry),
        sizeof(struct bf_slot),
        sizeof(struct bf_ring_control),
        sizeof(struct bf_block),
        sizeof(struct bf_worker_stats),
        sizeof(struct bf_snapshot_area),
        sizeof(struct bf_rcpt_connect),
        sizeof(struct bf_rcpt_census_conn),
        sizeof(struct bf_rcpt_client),
        sizeof(struct bf_rcpt_push),
        sizeof(struct bf_rcpt_pool),
        sizeof(struct rte_ring),
        BF_CMD_COUNT,
        BF_RCPT_COUNT,
        BF_SNAP_COUNT,
        BF_M_COUNT,
        BF_BLOCK_CLASS_COUNT,
        BF_SLOT_PARTS_MAX,
    };
    return XXH3_64bits(facts, sizeof(facts));
}
