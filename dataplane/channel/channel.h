/*
 * What has to be sent to one connection: its streams (three lanes and the broadcasts), to which the
 * sequence rule of shm/command.h applies, and a bounded queue of frames that leave together in one
 * send. Frames are references to blocks; only handshakes, control frames and answers are bytes of
 * the worker's own.
 *
 *   queue:  [in flight ...][welcome][control][critical][normal, bulk, broadcast ...]
 *
 * A slow reader: over half full, a newer frame replaces the queued one of the same collapse key;
 * full, frames are left to the inbox (the stream is behind); without progress, the worker closes
 * (4001). A frame stays in the queue until the kernel has taken all of its bytes, so a send that
 * takes less than offered needs no extra memory. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel/worker_core.h"

/* Place in the queue. Equal ranks keep their order. */
enum bf_rank {
    BF_RANK_FIRST = 0,   /* handshake answer, WELCOME */
    BF_RANK_CONTROL = 1, /* pong, errors, answers */
    BF_RANK_CRITICAL = 2,
    BF_RANK_REST = 3,
    BF_RANK_LAST = 4, /* our close frame */
};

enum bf_node_kind {
    BF_NODE_BLOCK = 0,
    BF_NODE_LOCAL = 1,
    BF_NODE_PING = 2,   /* the one heartbeat frame, static */
    BF_NODE_CHUNK = 3,  /* --echo: a piece of an answer */
    BF_NODE_PACKED = 4, /* a block's compressed copy (packed.h) */
};

#define BF_STREAM_NONE 4u /* unsequenced: neither masked nor acknowledged */

/* bf_node.flags */
#define BF_NF_HELD     (1u << 0) /* not before the WELCOME */
#define BF_NF_MASKABLE (1u << 1) /* a notification: an opt-out withdraws it */

struct bf_node {
    uint32_t next;
    uint32_t ref; /* block index, or local index */
    uint32_t
        collapse; /* hash of the key; of the first node once part of it has left: bytes that have */
    uint8_t kind;
    uint8_t stream;
    uint8_t rank;
    uint8_t flags;
    uint64_t seq;
};

_Static_assert(sizeof(struct bf_node) == 24, "frames queued cost little");

/* Control frames may be queued above the limit, up to this many more, because every request must
 * get its answer. */
#define BF_QUEUE_CONTROL_EXTRA 32u
/* ... and those that come first (handshake answer, WELCOME: one each) this many over that. */
#define BF_QUEUE_FIRST_EXTRA 2u

enum bf_offer_result {
    BF_OFFER_QUEUED = 0,
    BF_OFFER_DUPLICATE,
    BF_OFFER_GAP,
    BF_OFFER_FULL,
    BF_OFFER_NOT_OPEN,
};

/* A frame of a lane or of the broadcasts, held by the caller (holds.h). */
struct bf_frame {
    uint32_t block; /* index */
    uint32_t stream;
    uint64_t prev;
    uint64_t seq;
    uint32_t collapse;
    bool is_replay; /* several frames in one block: fits only a connection at exactly |prev| */
};

/* Applies the sequence rule and queues the frame if it fits. Counts what became of it. */
enum bf_offer_result bf_channel_offer(struct bf_worker_core *core, uint32_t slot,
                                      const struct bf_frame *frame);

/* Opens a stream at |seq|; an open one only moves forward. */
void bf_channel_open(struct bf_worker_core *core, uint32_t slot, uint32_t stream, uint64_t seq);

/* A piece of a replay (shm/command.h): queues it, or with |has_block| false only moves on to its
 * seq. The stream counts as behind until the piece that reaches the head; the last piece of a
 * window makes the connection ask for more once its queue has drained. */
void bf_channel_replay(struct bf_worker_core *core, uint32_t slot, const struct bf_frame *frame,
                       bool has_block, enum bf_replay_end end);

/* Position of a connection in the broadcasts: its own while it is behind, else at least the
 * worker's. */
uint64_t bf_channel_b_sent(const struct bf_worker_core *core, uint32_t slot);

/* Tells of a broadcast, after |prev|, that is not for this connection: if the connection lacks
 * |prev| it is behind now. */
void bf_channel_skip(struct bf_worker_core *core, uint32_t slot, uint64_t prev);

/* Queues an unsequenced block (WELCOME, answers, state, transient). False: the queue is full. */
bool bf_channel_push_block(struct bf_worker_core *core, uint32_t slot, uint32_t block,
                           enum bf_rank rank, uint8_t flags);
/* Queues bytes of ours (<= BF_LOCAL_BYTES_MAX, copied). False: full, or no local buffer. */
/* Queues a `state` frame. It carries the unread count, so the last one must arrive: if there is no
 * room it replaces one that waits, whose count is older; if none waits it is queued above the
 * limits. False: no node is free. */
bool bf_channel_push_state(struct bf_worker_core *core, uint32_t slot, uint32_t block);
/* Queues the answer to a mark, which carries the count too, after all that waits. It has the same
 * room as other answers. */
bool bf_channel_push_answer(struct bf_worker_core *core, uint32_t slot, uint32_t block);
bool bf_channel_push_local(struct bf_worker_core *core, uint32_t slot, const void *bytes,
                           size_t len, enum bf_rank rank, uint8_t flags);
bool bf_channel_push_ping(struct bf_worker_core *core, uint32_t slot);
/* Queues chunk |index| of core->chunks and takes it over, whatever the result. The chunks of one
 * frame are pushed one after the other: nothing comes between them, because control frames have the
 * same rank and equal ranks keep their order. False: no node is free. */
bool bf_channel_push_chunk(struct bf_worker_core *core, uint32_t slot, uint32_t index);

/* The person opted out (or was erased): notifications that wait are withdrawn, and so is any that
 * comes later, before it leaves. A frame that has begun to leave is sent to its end, because half a
 * frame would break the stream. */
void bf_channel_mask(struct bf_worker_core *core, uint32_t slot);
/* The person opted in again: what still waits is withdrawn, and the broadcasts up to |bseq|, which
 * were made while the person was opted out, are skipped. */
void bf_channel_unmask(struct bf_worker_core *core, uint32_t slot, uint64_t bseq);

/* Takes an acknowledgement. 0, or BF_ERR_DENIED: above what was sent here (close 4400). */
int bf_channel_ack(struct bf_worker_core *core, uint32_t slot, enum bf_lane lane, uint64_t seq);

/* What the next send carries. */
struct bf_send {
    const uint8_t *bytes;
    size_t len;      /* 0: nothing may leave now */
    uint32_t frames; /* in it, the first perhaps in part */
    size_t copied;   /* bytes of |buffer| used; 0: bytes lie in their block */
};

/* Builds the next send: one frame in place, or several copied into |buffer|. Tests the mask. Marks
 * the frames in flight; every batch ends with bf_channel_sent. */
struct bf_send bf_channel_batch(struct bf_worker_core *core, uint32_t slot, uint8_t *buffer,
                                size_t cap);
/* The kernel took |bytes| of the batch (0 after an error). Frees whole frames. Returns them. */
uint32_t bf_channel_sent(struct bf_worker_core *core, uint32_t slot, size_t bytes);

/* Whether something could leave if the socket takes it. */
bool bf_channel_has_sendable(struct bf_worker_core *core, uint32_t slot);

/* Drops what is queued and not in flight. */
void bf_channel_drop(struct bf_worker_core *core, uint32_t slot);
