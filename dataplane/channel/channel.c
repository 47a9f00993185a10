/* Streams and sends of a connection. See channel.h. */
#include "channel/channel.h"

#include <string.h>

#include "belfry/base/err.h"
#include "channel/queue.h"
#include "channel/sse_client.h"

static bool is_urgent(uint32_t rank)
{
    return rank <= BF_RANK_CRITICAL;
}

/* ---- streams ---- */

uint64_t bf_channel_b_sent(const struct bf_worker_core *core, uint32_t slot)
{
    uint64_t sent = core->conns.cold[slot].b_sent;
    bool behind = core->conns.hot[slot].streams & BF_STREAM_BEHIND(BF_STREAM_BROADCAST);
    return behind || sent > core->b_pos ? sent : core->b_pos;
}

/* Says BEHIND once the queue has drained: only then is there room for a replay. */
static void tell_behind(struct bf_worker_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    if (hot->queue_count > 0 || hot->state != BF_CONN_LIVE)
        return;
    for (uint32_t s = 0; s < BF_STREAM_COUNT; s++) {
        if ((hot->streams & BF_STREAM_BEHIND(s)) && !(hot->streams & BF_STREAM_TOLD(s)))
            bf_rcpt_mark(&core->receipts, slot, BF_DIRTY_BEHIND(s));
    }
}

static void fall_behind(struct bf_worker_core *core, uint32_t slot, uint32_t stream)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    if (stream == BF_STREAM_BROADCAST)
        bf_cold(core, slot)->b_sent = bf_channel_b_sent(core, slot);
    hot->streams |= BF_STREAM_BEHIND(stream);
    tell_behind(core, slot);
}

static void heal(struct bf_conn_hot *hot, uint32_t stream)
{
    hot->streams &= (uint16_t) ~(BF_STREAM_BEHIND(stream) | BF_STREAM_TOLD(stream));
}

/* The stream is behind from |sent| on, and the connection says so (again) once its queue has
 * drained. */
static void ask_for_more(struct bf_worker_core *core, uint32_t slot, uint32_t stream)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    hot->streams &= (uint16_t)~BF_STREAM_TOLD(stream);
    hot->streams |= BF_STREAM_BEHIND(stream);
    tell_behind(core, slot);
}

void bf_channel_open(struct bf_worker_core *core, uint32_t slot, uint32_t stream, uint64_t seq)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_conn_cold *cold = bf_cold(core, slot);
    uint64_t *sent = bf_conn_sent(&core->conns, slot, stream);
    if (!(hot->streams & BF_STREAM_OPEN(stream))) {
        hot->streams |= BF_STREAM_OPEN(stream);
        *sent = seq;
        if (stream < BF_LANE_COUNT) {
            cold->opened[stream] = seq;
            cold->acked[stream] = seq;
        }
    } else if (seq > *sent) {
        *sent = seq;
    }
    if (BF_UNLIKELY(hot->streams & BF_STREAMS_AS_EVENTS))
        bf_sse_client_open(core, slot, stream, seq);
    /* a broadcast whose walk has begun may have passed this connection: the log has it */
    if (stream == BF_STREAM_BROADCAST && *sent < core->b_started)
        ask_for_more(core, slot, stream); /* explicit: its position does not follow the worker's */
}

/* Makes room under the connection's limits, collapsing once the queue is over half full. */
static bool make_room(struct bf_worker_core *core, uint32_t slot, const struct bf_frame *frame)
{
    const struct bf_conn_hot *hot = bf_hot(core, slot);
    uint32_t len = bf_blocks(core->region)[frame->block].len;
    if (frame->collapse != 0 && hot->queue_count > 0 &&
        (hot->queue_count * 2u > core->limits.conn_queue_frames ||
         (uint64_t)hot->queue_bytes * 2u > core->limits.conn_queue_bytes) &&
        bf_queue_collapse(core, slot, frame->stream, frame->collapse))
        bf_worker_count(core, BF_M_frames_collapsed, 1);
    return bf_queue_has_room(core, slot, len);
}

/* Queues a block's node, as its compressed copy where the connection agreed to that and it pays. */
static bool insert_block(struct bf_worker_core *core, uint32_t slot, struct bf_node *node)
{
    uint32_t block = node->ref;
    bool packed = (bf_hot(core, slot)->flags & BF_CF_DEFLATE) && bf_packed_node(core, slot, node);
    if (!bf_queue_insert(core, slot, node)) {
        if (packed)
            bf_packed_drop(core, node->ref);
        return false;
    }
    if (!packed)
        bf_holds_add(&core->holds, block);
    return true;
}

static enum bf_offer_result queue_frame(struct bf_worker_core *core, uint32_t slot,
                                        const struct bf_frame *frame)
{
    struct bf_node node = {
        .ref = frame->block,
        .collapse = frame->collapse,
        .kind = BF_NODE_BLOCK,
        .stream = (uint8_t)frame->stream,
        .rank = frame->stream == BF_LANE_CRITICAL ? BF_RANK_CRITICAL : BF_RANK_REST,
        .flags = BF_NF_HELD | BF_NF_MASKABLE,
        .seq = frame->seq,
    };
    if (!make_room(core, slot, frame) || !insert_block(core, slot, &node)) {
        bf_worker_count(core, BF_M_frames_queue_full, 1);
        fall_behind(core, slot, frame->stream);
        return BF_OFFER_FULL;
    }
    bf_worker_count(core, BF_M_frames_queued, 1);
    if (bf_hot(core, slot)->state == BF_CONN_LIVE)
        bf_ready_add(core, slot, is_urgent(node.rank));
    return BF_OFFER_QUEUED;
}

enum bf_offer_result bf_channel_offer(struct bf_worker_core *core, uint32_t slot,
                                      const struct bf_frame *frame)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    uint32_t s = frame->stream;
    uint64_t sent = s == BF_STREAM_BROADCAST ? bf_channel_b_sent(core, slot) : hot->lane_sent[s];
    if (!(hot->streams & BF_STREAM_OPEN(s)) || hot->state > BF_CONN_LIVE) {
        bf_worker_count(core, BF_M_frames_not_open, 1);
        return BF_OFFER_NOT_OPEN;
    }
    if (frame->seq <= sent) {
        bf_worker_count(core, BF_M_frames_duplicate, 1);
        return BF_OFFER_DUPLICATE;
    }
    if (frame->prev > sent || (frame->is_replay && frame->prev < sent)) {
        bf_worker_count(core, BF_M_frames_gap, 1);
        if (frame->is_replay) /* a replay that does not fit: ask again */
            hot->streams &= (uint16_t)~BF_STREAM_TOLD(s);
        fall_behind(core, slot, s);
        return BF_OFFER_GAP;
    }
    enum bf_offer_result offer = queue_frame(core, slot, frame);
    if (offer == BF_OFFER_QUEUED) {
        *bf_conn_sent(&core->conns, slot, s) = frame->seq;
        if (!frame->is_replay)
            heal(hot, s);
    } else {
        /* a replay that did not fit: it is asked for again when the queue has drained */
        hot->streams &= (uint16_t)~BF_STREAM_TOLD(s);
    }
    return offer;
}

void bf_channel_replay(struct bf_worker_core *core, uint32_t slot, const struct bf_frame *frame,
                       bool has_block, enum bf_replay_end end)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    uint32_t s = frame->stream;
    uint64_t *sent = bf_conn_sent(&core->conns, slot, s);
    if (!(hot->streams & BF_STREAM_OPEN(s)) || hot->state > BF_CONN_LIVE)
        return;
    /* explicit from here on: a broadcast position must not follow the worker's during a replay */
    if (s == BF_STREAM_BROADCAST && !(hot->streams & BF_STREAM_BEHIND(s)))
        *sent = bf_channel_b_sent(core, slot);
    hot->streams |= BF_STREAM_BEHIND(s);
    if (has_block)
        (void)bf_channel_offer(core, slot, frame);
    else if (frame->prev <= *sent && frame->seq > *sent)
        *sent = frame->seq;
    if (*sent < frame->seq || end == BF_REPLAY_WINDOW_END)
        ask_for_more(core, slot, s);
    else if (end == BF_REPLAY_HEAD)
        heal(hot, s);
    /* walks begun meanwhile have passed this connection: the log has what they carried */
    if (s == BF_STREAM_BROADCAST && end == BF_REPLAY_HEAD && *sent < core->b_started)
        ask_for_more(core, slot, s);
}

void bf_channel_skip(struct bf_worker_core *core, uint32_t slot, uint64_t prev)
{
    if (prev > bf_channel_b_sent(core, slot))
        fall_behind(core, slot, BF_STREAM_BROADCAST);
}

/* Last seq of the lane that may be in the client's hands: below the first of it that still waits.
 * What is in flight counts as there: its completion may reach us after the client's answer. */
static uint64_t flushed_seq(struct bf_worker_core *core, uint32_t slot, enum bf_lane lane)
{
    uint32_t inflight = bf_inflight(core, slot);
    for (uint32_t at = bf_hot(core, slot)->queue_head; at != 0; at = bf_node_at(core, at)->next) {
        const struct bf_node *node = bf_node_at(core, at);
        if (inflight == 0 && node->stream == (uint8_t)lane)
            return node->seq - 1;
        inflight -= inflight > 0;
    }
    return bf_hot(core, slot)->lane_sent[lane];
}

int bf_channel_ack(struct bf_worker_core *core, uint32_t slot, enum bf_lane lane, uint64_t seq)
{
    struct bf_conn_cold *cold = bf_cold(core, slot);
    if (seq <= cold->acked[lane])
        return 0;
    const struct bf_conn_hot *hot = bf_hot(core, slot);
    if (!(hot->streams & BF_STREAM_OPEN(lane)) || seq > hot->lane_sent[lane])
        return BF_ERR_DENIED;
    if (seq > flushed_seq(core, slot, lane))
        return BF_ERR_DENIED;
    cold->acked[lane] = seq;
    bf_worker_count(core, BF_M_acks, 1);
    bf_rcpt_mark(&core->receipts, slot, BF_DIRTY_ACK(lane));
    return 0;
}

/* ---- unsequenced ---- */

/* There is always room for the welcome: answers to earlier requests of the client cannot take its
 * place. */
static bool has_control_room(struct bf_worker_core *core, uint32_t slot, enum bf_rank rank)
{
    uint32_t extra = rank == BF_RANK_FIRST ? BF_QUEUE_CONTROL_EXTRA + BF_QUEUE_FIRST_EXTRA
                                           : BF_QUEUE_CONTROL_EXTRA;
    return bf_hot(core, slot)->queue_count < core->limits.conn_queue_frames + extra;
}

bool bf_channel_push_block(struct bf_worker_core *core, uint32_t slot, uint32_t block,
                           enum bf_rank rank, uint8_t flags)
{
    struct bf_node node = {.ref = block,
                           .kind = BF_NODE_BLOCK,
                           .stream = BF_STREAM_NONE,
                           .rank = (uint8_t)rank,
                           .flags = flags};
    uint32_t len = bf_blocks(core->region)[block].len;
    bool room = rank <= BF_RANK_CONTROL ? has_control_room(core, slot, rank)
                                        : bf_queue_has_room(core, slot, len);
    if (!room || !insert_block(core, slot, &node)) {
        bf_worker_count(core, BF_M_frames_queue_full, 1);
        return false;
    }
    bf_worker_count(core, BF_M_frames_queued, 1);
    bf_ready_add(core, slot, is_urgent(rank));
    return true;
}

/* Key under which a waiting state frame is found; stream frames have their own stream. */
#define COLLAPSE_STATE 1u

static bool push_in_order(struct bf_worker_core *core, uint32_t slot, uint32_t block,
                          uint32_t collapse)
{
    struct bf_node node = {.ref = block,
                           .collapse = collapse,
                           .kind = BF_NODE_BLOCK,
                           .stream = BF_STREAM_NONE,
                           .rank = BF_RANK_REST,
                           .flags = BF_NF_HELD};
    if (!insert_block(core, slot, &node)) {
        bf_worker_count(core, BF_M_frames_queue_full, 1);
        return false;
    }
    bf_worker_count(core, BF_M_frames_queued, 1);
    if (bf_hot(core, slot)->state == BF_CONN_LIVE)
        bf_ready_add(core, slot, false);
    return true;
}

bool bf_channel_push_state(struct bf_worker_core *core, uint32_t slot, uint32_t block)
{
    uint32_t len = bf_blocks(core->region)[block].len;
    if (!bf_queue_has_room(core, slot, len) &&
        bf_queue_collapse(core, slot, BF_STREAM_NONE, COLLAPSE_STATE))
        bf_worker_count(core, BF_M_frames_collapsed, 1);
    return push_in_order(core, slot, block, COLLAPSE_STATE);
}

bool bf_channel_push_answer(struct bf_worker_core *core, uint32_t slot, uint32_t block)
{
    return has_control_room(core, slot, BF_RANK_CONTROL) && push_in_order(core, slot, block, 0);
}

bool bf_channel_push_local(struct bf_worker_core *core, uint32_t slot, const void *bytes,
                           size_t len, enum bf_rank rank, uint8_t flags)
{
    BF_BUG_ON(len == 0 || len > BF_LOCAL_BYTES_MAX);
    if (!has_control_room(core, slot, rank))
        return false;
    uint32_t index = bf_slab_take(&core->locals);
    if (index == 0)
        return false;
    struct bf_local *local = bf_slab_at(&core->locals, index);
    local->len = (uint16_t)len;
    memcpy(local->bytes, bytes, len);
    struct bf_node node = {.ref = index,
                           .kind = BF_NODE_LOCAL,
                           .stream = BF_STREAM_NONE,
                           .rank = (uint8_t)rank,
                           .flags = flags};
    if (!bf_queue_insert(core, slot, &node)) {
        bf_slab_put(&core->locals, index);
        return false;
    }
    bf_ready_add(core, slot, is_urgent(rank));
    return true;
}

bool bf_channel_push_ping(struct bf_worker_core *core, uint32_t slot)
{
    struct bf_node node = {.kind = BF_NODE_PING, .stream = BF_STREAM_NONE, .rank = BF_RANK_CONTROL};
    if (!has_control_room(core, slot, BF_RANK_CONTROL) || !bf_queue_insert(core, slot, &node))
        return false;
    bf_ready_add(core, slot, false);
    return true;
}

bool bf_channel_push_chunk(struct bf_worker_core *core, uint32_t slot, uint32_t index)
{
    struct bf_node node = {
        .ref = index, .kind = BF_NODE_CHUNK, .stream = BF_STREAM_NONE, .rank = BF_RANK_CONTROL};
    if (!bf_queue_insert(core, slot, &node)) {
        bf_slab_put(&core->chunks, index);
        return false;
    }
    bf_ready_add(core, slot, false);
    return true;
}

/* ---- sending ---- */

/* Withdraws notifications of a masked user; what has begun to leave, or is in the kernel's hands,
 * must end. */
static void withdraw_masked(struct bf_worker_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    uint32_t fixed = bf_inflight(core, slot);
    uint32_t prev = 0;
    uint32_t at = hot->queue_head;
    if (fixed == 0 && (hot->flags & BF_CF_PARTIAL))
        fixed = 1;
    for (; fixed > 0 && at != 0; fixed--) {
        prev = at;
        at = bf_node_at(core, at)->next;
    }
    while (at != 0) {
        uint32_t next = bf_node_at(core, at)->next;
        if (bf_node_at(core, at)->flags & BF_NF_MASKABLE) {
            bf_queue_unlink(core, slot, prev);
            bf_worker_count(core, BF_M_frames_masked, 1);
        } else {
            prev = at;
        }
        at = next;
    }
}

void bf_channel_mask(struct bf_worker_core *core, uint32_t slot)
{
    bf_hot(core, slot)->flags |= BF_CF_MASKED;
    withdraw_masked(core, slot);
    tell_behind(core, slot); /* the queue may have drained without a send */
}

void bf_channel_unmask(struct bf_worker_core *core, uint32_t slot, uint64_t bseq)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_conn_cold *cold = bf_cold(core, slot);
    if (!(hot->flags & BF_CF_MASKED))
        return;
    withdraw_masked(core, slot);
    hot->flags &= (uint16_t)~BF_CF_MASKED;
    if (hot->streams & BF_STREAM_OPEN(BF_STREAM_BROADCAST) && bf_channel_b_sent(core, slot) < bseq)
        cold->b_sent =
            bseq; /* above the worker's position: the connection's own counts until then */
    tell_behind(core, slot);
}

bool bf_channel_has_sendable(struct bf_worker_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    return hot->queue_head != 0 && bf_channel_may_leave(hot, bf_node_at(core, hot->queue_head));
}

/* Copies as many frames as fit, starting at the first. */
static struct bf_send copy_frames(struct bf_worker_core *core, struct bf_conn_hot *hot,
                                  uint8_t *buffer, size_t cap)
{
    struct bf_send batch = {.bytes = buffer};
    for (uint32_t at = hot->queue_head; at != 0;) {
        const struct bf_node *node = bf_node_at(core, at);
        const uint8_t *bytes;
        size_t offset = bf_node_offset(hot, at, node);
        size_t len = bf_node_bytes(core, node, &bytes) - offset;
        if (!bf_channel_may_leave(hot, node) || len > cap - batch.len)
            break;
        memcpy(buffer + batch.len, bytes + offset, len);
        batch.len += len;
        batch.frames++;
        at = node->next;
    }
    batch.copied = batch.len;
    return batch;
}

/* One frame in place, or several copied. There is a first one, and it may leave. */
static struct bf_send frames_batch(struct bf_worker_core *core, uint32_t slot, uint8_t *buffer,
                                   size_t cap)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_send batch = {0};
    const struct bf_node *first = bf_node_at(core, hot->queue_head);
    const uint8_t *bytes;
    size_t len = bf_node_bytes(core, first, &bytes);
    size_t offset = bf_node_offset(hot, hot->queue_head, first);
    bool alone = first->next == 0 || !bf_channel_may_leave(hot, bf_node_at(core, first->next));
    if (!alone)
        batch = copy_frames(core, hot, buffer, cap);
    /* in place: nothing to join it with, or too large to copy. One frame copied gains nothing. */
    if (alone || batch.frames <= 1)
        batch = (struct bf_send){.bytes = bytes + offset, .len = len - offset, .frames = 1};
    return batch;
}

struct bf_send bf_channel_batch(struct bf_worker_core *core, uint32_t slot, uint8_t *buffer,
                                size_t cap)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_send batch = {0};
    BF_BUG_ON(hot->flags & BF_CF_INFLIGHT);
    if (BF_UNLIKELY(hot->flags & BF_CF_MASKED))
        withdraw_masked(core, slot);
    if (!bf_channel_has_sendable(core, slot))
        return batch;
    if (BF_UNLIKELY(hot->streams & BF_STREAMS_AS_EVENTS))
        batch = bf_sse_client_batch(core, slot, buffer, cap);
    else
        batch = frames_batch(core, slot, buffer, cap);
    hot->flags |= BF_CF_INFLIGHT;
    if (batch.frames > 1) {
        hot->flags |= BF_CF_INFLIGHT_N;
        bf_cold(core, slot)->inflight = (uint16_t)batch.frames;
    }
    return batch;
}

/* Bytes of a node as this connection's socket takes them. */
static size_t wire_bytes(struct bf_worker_core *core, uint32_t slot, const struct bf_node *node)
{
    const uint8_t *at;
    if (BF_UNLIKELY(bf_hot(core, slot)->streams & BF_STREAMS_AS_EVENTS))
        return bf_sse_client_bytes(core, slot, node);
    return bf_node_bytes(core, node, &at);
}

uint32_t bf_channel_sent(struct bf_worker_core *core, uint32_t slot, size_t bytes)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    uint32_t frames = 0;
    hot->flags &= (uint16_t) ~(BF_CF_INFLIGHT | BF_CF_INFLIGHT_N);
    while (bytes > 0) {
        BF_BUG_ON(hot->queue_head == 0);
        struct bf_node *node = bf_node_at(core, hot->queue_head);
        size_t offset = bf_node_offset(hot, hot->queue_head, node);
        size_t whole = wire_bytes(core, slot, node);
        size_t left = whole > offset ? whole - offset : 0;
        if (bytes < left) {
            /* the key has no more use: a frame that has begun to leave is not replaced */
            node->collapse = (uint32_t)(offset + bytes);
            hot->flags |= BF_CF_PARTIAL;
            break;
        }
        bytes -= left;
        if (BF_UNLIKELY(hot->streams & BF_STREAMS_AS_EVENTS))
            bf_sse_client_passed(core, slot, node);
        bf_queue_pop(core, slot);
        frames++;
    }
    bf_worker_count(core, BF_M_frames_sent, frames);
    if (hot->queue_count == 0 && (hot->streams & 0x0f0u))
        tell_behind(core, slot);
    return frames;
}

/* Nodes at the head that a close must not take away: in flight, begun, or the handshake's answer,
 * without which the peer cannot read a close frame. */
static uint32_t fixed_nodes(struct bf_worker_core *core, uint32_t slot)
{
    const struct bf_conn_hot *hot = bf_hot(core, slot);
    uint32_t fixed = bf_inflight(core, slot);
    uint32_t count = 0;
    if (hot->state == BF_CONN_CLOSED)
        return fixed;
    if (fixed == 0 && (hot->flags & BF_CF_PARTIAL))
        fixed = 1;
    for (uint32_t at = hot->queue_head; at != 0; at = bf_node_at(core, at)->next) {
        const struct bf_node *node = bf_node_at(core, at);
        bool handshake = node->kind == BF_NODE_LOCAL && node->rank == BF_RANK_FIRST;
        if (count >= fixed && !handshake)
            break;
        count++;
    }
    return count;
}

void bf_channel_drop(struct bf_worker_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    uint32_t prev = 0;
    if (hot->queue_head == 0)
        return;
    if (bf_queue_try_pop_block(core, slot))
        return;
    for (uint32_t fixed = fixed_nodes(core, slot); fixed > 0; fixed--)
        prev = prev ? bf_node_at(core, prev)->next : hot->queue_head;
    while ((prev ? bf_node_at(core, prev)->next : hot->queue_head) != 0)
        bf_queue_unlink(core, slot, prev);
    if (hot->queue_head == 0)
        hot->flags &= (uint16_t)~BF_CF_PARTIAL;
}
