/*
 * The common case of a targeted frame, inline: the next frame of an open lane, not to be
 * compressed, for a live connection that is the user's only one, has missed nothing and has nothing
 * queued. It touches the hot line and a node. Everything else takes bf_channel_offer, which decides
 * the same for these cases too.
 */
#pragma once

#include "channel/channel.h"
#include "channel/queue.h"

/*
 * Queues |frame| of |bytes| on |slot| if the connection is as above, and puts it into a ready list.
 * The caller then holds the block for the queue and counts the frame. False: nothing was changed.
 */
static inline bool bf_channel_try_offer(struct bf_core *core, uint32_t slot,
                                        const struct bf_frame *frame, uint32_t bytes)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    const uint32_t lane = frame->stream;
    const uint32_t streams = BF_STREAM_OPEN(lane) | BF_STREAM_BEHIND(lane) | BF_STREAM_TOLD(lane);
    uint32_t differs = hot->queue_head | (uint32_t)(hot->state ^ BF_CONN_LIVE) | ~hot->user_next |
                       (~(uint32_t)hot->flags & BF_CF_LINKED) |
                       ((hot->streams & streams) ^ BF_STREAM_OPEN(lane));
    if (differs != 0 || frame->seq <= hot->lane_sent[lane] || frame->prev > hot->lane_sent[lane])
        return false;
    if ((hot->flags & BF_CF_DEFLATE) && bytes >= core->packs.payload_min)
        return false; /* may leave compressed */
    uint32_t index = bf_slab_take(&core->nodes);
    if (BF_UNLIKELY(index == 0))
        return false;
    const bool urgent = lane == BF_LANE_CRITICAL;
    *bf_node_at(core, index) = (struct bf_node){
        .ref = frame->block,
        .collapse = frame->collapse,
        .kind = BF_NODE_BLOCK,
        .stream = (uint8_t)lane,
        .rank = urgent ? BF_RANK_CRITICAL : BF_RANK_REST,
        .flags = BF_NF_HELD | BF_NF_MASKABLE,
        .seq = frame->seq,
    };
    hot->queue_head = index;
    hot->queue_tail = index;
    hot->queue_count = 1;
    hot->queue_bytes = bytes;
    hot->lane_sent[lane] = frame->seq;
    bf_ready_add(core, slot, urgent);
    return true;
}

_Static_assert(BF_SLOT_NONE == UINT32_MAX, "~user_next is 0 for the user's only connection");
