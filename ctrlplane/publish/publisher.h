/*
 * What one producer thread (a fan-out shard, or control) needs to send: its command rings to every
 * worker, its return rings, and its own part of the blocks with free lists in private memory
 * (DESIGN 2). Everything here belongs to that one thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/shm/layout.h"

struct bf_publisher {
    struct bf_region *region; /* NULL: detached, nothing can be sent */
    uint32_t producer;
    uint32_t workers;
    uint64_t dirty; /* bit w: rings to worker w hold reserved, unpublished slots */
    struct bf_ring_producer rings[BF_WORKERS_MAX][BF_LANE_COUNT];
    struct bf_ring_consumer returns[BF_WORKERS_MAX];
    uint32_t *free_blocks[BF_BLOCK_CLASS_COUNT]; /* stacks of block indexes */
    uint32_t free_count[BF_BLOCK_CLASS_COUNT];
    uint32_t free_cap[BF_BLOCK_CLASS_COUNT];
};

/* Takes over the producer's ring ends under this control generation. No block may be allocated yet.
 */
void bf_publisher_attach(struct bf_publisher *p, struct bf_region *region, uint32_t producer,
                         uint32_t generation);
/* After every worker's census: notes from the workers' bitmaps who holds which block, and frees all
 * other blocks. Returns the number of blocks still held, or -ENOMEM. */
int64_t bf_publisher_adopt_blocks(struct bf_publisher *p);
void bf_publisher_detach(struct bf_publisher *p);

/* Room for |bytes|; *ret_ref names it. NULL: even after reading the return rings there is no free
 * block of this class or a larger one. The caller fills the block and either sends it or gives it
 * back by bf_publisher_drop. */
uint8_t *bf_publisher_alloc(struct bf_publisher *p, uint32_t bytes, struct bf_block_ref *ret_ref);
void bf_publisher_drop(struct bf_publisher *p, struct bf_block_ref ref);
/* Says how many of the allocated bytes are used; before the block is sent. */
void bf_publisher_set_len(struct bf_publisher *p, struct bf_block_ref ref, uint32_t len);

/* Whether |slots| commands fit the ring now. */
bool bf_publisher_has_room(struct bf_publisher *p, uint32_t worker, enum bf_lane lane,
                           uint32_t slots);
/* Reserves and fills one command; if |ref|.lap is not 0, sets the worker's holder bit first. A
 * block goes to a worker at most once. Returns false when the ring is full (nothing changed).
 * Visible to the worker after bf_publisher_flush. */
bool bf_publisher_send(struct bf_publisher *p, uint32_t worker, enum bf_lane lane,
                       enum bf_cmd_kind kind, const void *payload, struct bf_block_ref ref);
/* Publishes all reserved slots and rings the doorbells. */
void bf_publisher_flush(struct bf_publisher *p);
/* Reads returned blocks. Cheap when there are none. */
void bf_publisher_reclaim(struct bf_publisher *p);
uint64_t bf_publisher_free_total(const struct bf_publisher *p);
