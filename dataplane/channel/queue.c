/* See queue.h. A queue holds at most a few dozen nodes, so walks are short; the tail is the fast
 * path. */
#include "channel/queue.h"

#include "belfry/base/ws_frame.h"

/* FIN, ping, no payload: the heartbeat needs none, any pong is a sign of life. */
static const uint8_t ping_frame[2] = {0x80u | BF_WS_PING, 0};

size_t bf_node_bytes(struct bf_worker_core *core, const struct bf_node *node,
                     const uint8_t **ret_at)
{
    if (node->kind == BF_NODE_BLOCK) {
        const struct bf_block *block = &bf_blocks(core->region)[node->ref];
        *ret_at = bf_block_data(core->region, block);
        return block->len;
    }
    if (node->kind == BF_NODE_LOCAL) {
        const struct bf_local *local = bf_slab_at(&core->locals, node->ref);
        *ret_at = local->bytes;
        return local->len;
    }
    if (node->kind == BF_NODE_PACKED)
        return bf_packed_bytes(core, node->ref, ret_at);
    if (node->kind == BF_NODE_CHUNK) {
        const struct bf_chunk *chunk = bf_slab_at(&core->chunks, node->ref);
        *ret_at = chunk->bytes;
        return chunk->len;
    }
    *ret_at = ping_frame;
    return sizeof(ping_frame);
}

bool bf_queue_has_room(struct bf_worker_core *core, uint32_t slot, size_t bytes)
{
    const struct bf_conn_hot *hot = bf_hot(core, slot);
    /* one frame always fits, however large: a limit below it would never let it go */
    if (hot->queue_count == 0)
        return true;
    return hot->queue_count < core->limits.conn_queue_frames &&
           hot->queue_bytes + bytes <= core->limits.conn_queue_bytes;
}

/* The node after which the new one is inserted: the last that is in flight or begun, or whose rank
 * is not above its own. */
static uint32_t find_place(struct bf_worker_core *core, uint32_t slot, uint8_t rank)
{
    const struct bf_conn_hot *hot = bf_hot(core, slot);
    uint32_t prev = 0;
    uint32_t fixed = bf_inflight(core, slot);
    if (fixed == 0 && (hot->flags & BF_CF_PARTIAL))
        fixed = 1;
    for (uint32_t at = hot->queue_head; at != 0; at = bf_node_at(core, at)->next) {
        if (fixed == 0 && bf_node_at(core, at)->rank > rank)
            break;
        fixed -= fixed > 0;
        prev = at;
    }
    return prev;
}

bool bf_queue_insert(struct bf_worker_core *core, uint32_t slot, const struct bf_node *fresh)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    const uint8_t *bytes;
    uint32_t index = bf_slab_take(&core->nodes);
    if (index == 0)
        return false;
    uint32_t prev = hot->queue_tail;
    if (prev != 0 && bf_node_at(core, prev)->rank > fresh->rank)
        prev = find_place(core, slot, fresh->rank);
    struct bf_node *node = bf_node_at(core, index);
    *node = *fresh;
    uint32_t *link = prev ? &bf_node_at(core, prev)->next : &hot->queue_head;
    node->next = *link;
    *link = index;
    if (node->next == 0)
        hot->queue_tail = index;
    hot->queue_count++;
    hot->queue_bytes += (uint32_t)bf_node_bytes(core, node, &bytes);
    return true;
}

void bf_queue_unlink(struct bf_worker_core *core, uint32_t slot, uint32_t prev)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    uint32_t *link = prev ? &bf_node_at(core, prev)->next : &hot->queue_head;
    uint32_t index = *link;
    struct bf_node *node = bf_node_at(core, index);
    const uint8_t *bytes;
    hot->queue_count--;
    if (hot->queue_count == 0) /* the last one: its length need not be looked up */
        hot->queue_bytes = 0;
    else
        hot->queue_bytes -= (uint32_t)bf_node_bytes(core, node, &bytes);
    *link = node->next;
    if (node->next == 0)
        hot->queue_tail = prev;
    if (node->kind == BF_NODE_BLOCK)
        bf_holds_drop(&core->holds, node->ref);
    else if (node->kind == BF_NODE_LOCAL)
        bf_slab_put(&core->locals, node->ref);
    else if (node->kind == BF_NODE_PACKED)
        bf_packed_drop(core, node->ref);
    else if (node->kind == BF_NODE_CHUNK)
        bf_slab_put(&core->chunks, node->ref);
    bf_slab_put(&core->nodes, index);
}

void bf_queue_pop(struct bf_worker_core *core, uint32_t slot)
{
    bf_hot(core, slot)->flags &= (uint16_t)~BF_CF_PARTIAL;
    bf_queue_unlink(core, slot, 0);
}

bool bf_queue_collapse(struct bf_worker_core *core, uint32_t slot, uint32_t stream,
                       uint32_t collapse)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    uint32_t fixed = bf_inflight(core, slot);
    uint32_t prev = 0;
    if (fixed == 0 && (hot->flags & BF_CF_PARTIAL))
        fixed = 1;
    for (uint32_t at = hot->queue_head; at != 0; at = bf_node_at(core, at)->next) {
        const struct bf_node *node = bf_node_at(core, at);
        if (fixed == 0 && node->stream == stream && node->collapse == collapse) {
            bf_queue_unlink(core, slot, prev);
            return true;
        }
        fixed -= fixed > 0;
        prev = at;
    }
    return false;
}
