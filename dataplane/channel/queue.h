/* The queue itself: nodes in rank order, bounds, collapse. Private to channel/. */
#pragma once

#include "channel/channel.h"

static inline struct bf_node *bf_node_at(struct bf_core *core, uint32_t index)
{
    return bf_slab_at(&core->nodes, index);
}

size_t bf_node_bytes(struct bf_core *core, const struct bf_node *node, const uint8_t **ret_at);

/* Bytes of the node that have left already (only the first node's can). */
static inline size_t bf_node_offset(const struct bf_conn_hot *hot, uint32_t index,
                                    const struct bf_node *node)
{
    return index == hot->queue_head && (hot->flags & BF_CF_PARTIAL) ? node->collapse : 0;
}

/* Inserts a filled node by rank behind what is in flight. False: no node is free. */
bool bf_queue_insert(struct bf_core *core, uint32_t slot, const struct bf_node *fresh);
/* Whether a frame of |bytes| fits the connection's limits. */
bool bf_queue_has_room(struct bf_core *core, uint32_t slot, size_t bytes);
/* Removes a queued, not sent frame of this stream and collapse hash. Returns whether there was one.
 */
bool bf_queue_collapse(struct bf_core *core, uint32_t slot, uint32_t stream, uint32_t collapse);
/* Takes the first node off and frees what it names. */
void bf_queue_pop(struct bf_core *core, uint32_t slot);
/* Unlinks the node after |prev| (0: the first). */
void bf_queue_unlink(struct bf_core *core, uint32_t slot, uint32_t prev);
