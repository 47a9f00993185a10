/* The queue itself: nodes in rank order, bounds, collapse. Private to channel/. */
#pragma once

#include "channel/channel.h"

static inline struct bf_node *bf_node_at(struct bf_worker_core *core, uint32_t index)
{
    return bf_slab_at(&core->nodes, index);
}

/* First nodes of the queue that the send under way carries. */
static inline uint32_t bf_inflight(const struct bf_worker_core *core, uint32_t slot)
{
    uint16_t flags = core->conns.hot[slot].flags;
    if (BF_UNLIKELY(flags & BF_CF_INFLIGHT_N))
        return core->conns.cold[slot].inflight;
    return flags & BF_CF_INFLIGHT ? 1 : 0;
}

/* What is held waits for the WELCOME. */
static inline bool bf_channel_may_leave(const struct bf_conn_hot *hot, const struct bf_node *node)
{
    return !(node->flags & BF_NF_HELD) || hot->state >= BF_CONN_LIVE;
}

size_t bf_node_bytes(struct bf_worker_core *core, const struct bf_node *node,
                     const uint8_t **ret_at);

/* Bytes of the node that have left already (only the first node's can). */
static inline size_t bf_node_offset(const struct bf_conn_hot *hot, uint32_t index,
                                    const struct bf_node *node)
{
    return index == hot->queue_head && (hot->flags & BF_CF_PARTIAL) ? node->collapse : 0;
}

/* Takes the only node off if it names a block and nothing of it has left or is leaving; the common
 * case of bf_queue_pop. False: nothing was changed. */
static inline bool bf_queue_try_pop_block(struct bf_worker_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    uint32_t index = hot->queue_head;
    if (hot->queue_count != 1 || (hot->flags & (BF_CF_INFLIGHT | BF_CF_PARTIAL)) ||
        bf_node_at(core, index)->kind != BF_NODE_BLOCK)
        return false;
    hot->queue_head = 0;
    hot->queue_tail = 0;
    hot->queue_bytes = 0;
    hot->queue_count = 0;
    bf_holds_drop(&core->holds, bf_node_at(core, index)->ref);
    bf_slab_put(&core->nodes, index);
    return true;
}

/* Inserts a filled node by rank, after the nodes that are in flight. False: no node is free. */
bool bf_queue_insert(struct bf_worker_core *core, uint32_t slot, const struct bf_node *fresh);
/* Whether a frame of |bytes| fits the connection's limits. */
bool bf_queue_has_room(struct bf_worker_core *core, uint32_t slot, size_t bytes);
/* Removes a queued, not sent frame of this stream and collapse hash. Returns whether there was one.
 */
bool bf_queue_collapse(struct bf_worker_core *core, uint32_t slot, uint32_t stream,
                       uint32_t collapse);
/* Takes the first node off and frees what it names. */
void bf_queue_pop(struct bf_worker_core *core, uint32_t slot);
/* Unlinks the node after |prev| (0: the first). */
void bf_queue_unlink(struct bf_worker_core *core, uint32_t slot, uint32_t prev);
