/*
 * Compressed copies of blocks (permessage-deflate), shared by all connections of the worker that
 * agreed to the same window: a block is compressed once, however many it goes to. A copy is whole
 * frame bytes, so it leaves like a block. Nothing is kept for a connection.
 *
 * Everything is bounded: the number and size of copies, and the bytes that one turn compresses.
 * Where a bound is met, or compression does not pay, the frame leaves as it is. Owner: one worker
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct bf_worker_core;
struct bf_node;
struct bf_deflater;

/* Copies kept; 4 places for a block by its hash. A slow reader pins what it has queued, and 64
 * frames are a queue's default bound: a few such readers leave room for everyone's broadcasts. */
#define BF_PACKED_COPIES 256u
#define BF_PACKED_WAYS   4u
/* Larger ones leave uncompressed. A frame is at most 64 KiB and its envelope. */
#define BF_PACKED_BYTES_MAX (48u * 1024u)
/* Bytes compressed in one turn: at about 100 MB/s that takes 1.3 ms, which is the longest that a
 * critical frame waits for it. */
#define BF_PACK_BYTES_PER_TURN (128u * 1024u)

/* One copy: of use |lap| of a block for a window of |bits|. len 0: compression does not pay. */
struct bf_packed {
    uint32_t block;
    uint32_t lap;     /* 0: the place is empty */
    uint32_t holders; /* queued frames */
    uint32_t len;
    uint8_t bits;
};

struct bf_packs {
    struct bf_deflater *deflater; /* NULL: websocket.deflate is off */
    struct bf_packed *copies;     /* BF_PACKED_COPIES */
    uint8_t *bytes;               /* BF_PACKED_BYTES_MAX each */
    uint32_t payload_min;         /* websocket.deflate_min */
    uint32_t turn_left;
    uint32_t victim;
};

/* Makes |node|, a block's for connection |slot|, a compressed copy's if that pays, and holds the
 * copy. False: it stays as it is. */
bool bf_packed_node(struct bf_worker_core *core, uint32_t slot, struct bf_node *node);
/* One holder less. |index| as in the node. */
void bf_packed_drop(struct bf_worker_core *core, uint32_t index);
/* Bytes of a copy. */
uint32_t bf_packed_bytes(const struct bf_worker_core *core, uint32_t index, const uint8_t **ret_at);

/* A new turn: the bytes that it may compress. */
static inline void bf_packs_turn(struct bf_packs *p)
{
    p->turn_left = BF_PACK_BYTES_PER_TURN;
}
