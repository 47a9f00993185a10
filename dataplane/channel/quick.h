/*
 * The common case of a frame for one user, as an inline function: the next frame of an open lane,
 * neither critical nor to be compressed, for a live connection that is the user's only one, has
 * missed nothing, has nothing queued or being sent, and is in no list. It touches one cache line
 * and a node. Everything else takes bf_channel_offer, which decides the same for these cases too.
 */
#pragma once

#include <string.h>

#include "channel/channel.h"
#include "channel/queue.h"

/* The last eight bytes of a hot line, as one word (x86: little-endian). */
#define BF_HOT_WORD(count, flags, streams, state, ops)                                             \
    ((uint64_t)(count) | (uint64_t)(flags) << 16 | (uint64_t)(streams) << 32 |                     \
     (uint64_t)(state) << 48 | (uint64_t)(ops) << 56)
_Static_assert(offsetof(struct bf_conn_hot, queue_count) == 56 &&
                   offsetof(struct bf_conn_hot, flags) == 58 &&
                   offsetof(struct bf_conn_hot, streams) == 60 &&
                   offsetof(struct bf_conn_hot, state) == 62 &&
                   offsetof(struct bf_conn_hot, ops) == 63,
               "the word is what it is taken for");

/* What the common case asks of that word, for the frames of one lane. */
struct bf_quick {
    uint64_t asked;
    uint64_t wanted;
};

static inline struct bf_quick bf_quick_of(uint32_t lane)
{
    if (lane == BF_LANE_CRITICAL) /* no connection will do: critical frames overtake others */
        return (struct bf_quick){.asked = BF_HOT_WORD(0, 0, 0, UINT8_MAX, 0), .wanted = UINT64_MAX};
    return (struct bf_quick){
        .asked = BF_HOT_WORD(UINT16_MAX, BF_CF_LINKED | BF_CF_READY | BF_CF_URGENT,
                             BF_STREAM_OPEN(lane) | BF_STREAM_BEHIND(lane) | BF_STREAM_TOLD(lane),
                             UINT8_MAX, BF_OP_SEND | BF_OP_POLLOUT),
        .wanted = BF_HOT_WORD(0, BF_CF_LINKED, BF_STREAM_OPEN(lane), BF_CONN_LIVE, 0),
    };
}

/*
 * Queues |frame| of |bytes| on |slot| if the connection is as above, and puts it into the ready
 * list. |quick| is that of the frame's lane. The caller then holds the block for the queue and
 * counts the frame. False: nothing was changed.
 */
static inline bool bf_channel_try_offer(struct bf_worker_core *core, uint32_t slot,
                                        const struct bf_frame *frame, uint32_t bytes,
                                        const struct bf_quick *quick)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    const uint32_t lane = frame->stream;
    uint64_t word;
    memcpy(&word, &hot->queue_count, sizeof(word));
    if (((word ^ quick->wanted) & quick->asked) != 0 || hot->user_next != BF_SLOT_NONE ||
        frame->seq <= hot->lane_sent[lane] || frame->prev > hot->lane_sent[lane])
        return false;
    if ((hot->flags & BF_CF_DEFLATE) && bytes >= core->packs.payload_min)
        return false; /* may leave compressed */
    uint32_t index = bf_slab_take(&core->nodes);
    if (BF_UNLIKELY(index == 0))
        return false;
    *bf_node_at(core, index) = (struct bf_node){
        .ref = frame->block,
        .collapse = frame->collapse,
        .kind = BF_NODE_BLOCK,
        .stream = (uint8_t)lane,
        .rank = BF_RANK_REST,
        .flags = BF_NF_HELD | BF_NF_MASKABLE,
        .seq = frame->seq,
    };
    hot->lane_sent[lane] = frame->seq;
    hot->queue_head = index;
    hot->queue_tail = index;
    hot->queue_bytes = bytes;
    word += BF_HOT_WORD(1, BF_CF_READY, 0, 0, 0);
    memcpy(&hot->queue_count, &word, sizeof(word));
    bf_ready_append(&core->ready, slot);
    return true;
}
