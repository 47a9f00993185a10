/*
 * Payload blocks (DESIGN 2 "Blocks"): immutable bytes, allocated by ctrlplane alone, read by
 * workers. Each producer thread owns a partition of the blocks and keeps its free lists in private
 * memory.
 *
 * Life: owner allocates (lap moves on), writes the bytes and `len`, sets holder bits of the workers
 * that will get it, then enqueues at most ONE command a worker that names it. The worker counts its
 * own connections that still need it in private memory and, when that count ends at zero, puts
 * {index, lap} on its return ring to the owner: once. The owner clears the worker's bit and frees
 * the block when no bit is left. A return whose lap or bit does not match is ignored: it was sent
 * before a census and has been counted there already. Nobody but the owner writes `holders`, so it
 * needs no atomic read-modify-write.
 *
 * After a ctrlplane restart nothing is allocated before all workers answered the census; then
 * blocks in no worker's bitmap are free.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "belfry/base/limits.h"
#include "belfry/shm/command.h"

enum bf_block_class {
    BF_BLOCK_256 = 0,
    BF_BLOCK_1K = 1,
    BF_BLOCK_4K = 2,
    BF_BLOCK_16K = 3,
    BF_BLOCK_80K = 4, /* an event at its limit, with the frame around it */
    BF_BLOCK_CLASS_COUNT
};

static const uint32_t bf_block_class_bytes[BF_BLOCK_CLASS_COUNT] = {256, 1024, 4096, 16384, 81920};

_Static_assert(81920 >= BF_EVENT_BYTES_MAX + 4096,
               "the largest event and its envelope fit a block");

struct bf_block {
    uint64_t holders;     /* bit w: worker w holds it. Writer: the owning producer */
    _Atomic uint32_t lap; /* 0: never used; moves on at each allocation. Writer: the owner */
    uint32_t len;         /* bytes used. Writer: the owner, before the enqueue (published by it) */
    uint64_t data;        /* offset of the bytes in the region; fixed at start */
    uint32_t cap;         /* bytes; fixed at start */
    uint8_t owner;        /* producer; fixed at start */
    uint8_t class_index;  /* fixed at start */
    uint16_t reserved;
};

_Static_assert(sizeof(struct bf_block) == 32, "two block headers a cache line");

/* What travels on a return ring, in a slot of its own (kind BF_RETURN_BLOCK). */
#define BF_RETURN_BLOCK 1u
/* References that one return slot carries. */
#define BF_RETURN_REFS_MAX (BF_SLOT_PAYLOAD_BYTES / 8u)
