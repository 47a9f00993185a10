/* See sse_client.h. */
#include "channel/sse_client.h"

#include <string.h>

#include "channel/channel.h"
#include "channel/queue.h"

#define ALL_STREAMS ((1u << BF_STREAM_COUNT) - 1u)

static struct bf_sse_client *stream_of(struct bf_worker_core *core, uint32_t slot)
{
    return bf_slab_at(&core->streams, bf_cold(core, slot)->rate);
}

bool bf_sse_client_start(struct bf_worker_core *core, uint32_t slot, const struct bf_sse_id *resume)
{
    uint32_t index = bf_slab_take(&core->streams);
    if (index == 0)
        return false;
    struct bf_sse_client *s = bf_slab_at(&core->streams, index);
    *s = (struct bf_sse_client){.resume = *resume};
    bf_cold(core, slot)->rate = index; /* such a client sends nothing that could be counted */
    bf_hot(core, slot)->streams |= BF_STREAMS_AS_EVENTS;
    return true;
}

void bf_sse_client_drop(struct bf_worker_core *core, uint32_t slot)
{
    bf_slab_put(&core->streams, bf_cold(core, slot)->rate);
    bf_hot(core, slot)->streams &= (uint16_t)~BF_STREAMS_AS_EVENTS;
}

/* The value that follows |key| in JSON of our own. In people's texts quotes are escaped, so the key
 * is not found there. */
static struct bf_bytes value_of(struct bf_bytes json, struct bf_bytes key)
{
    const char *at = memmem(json.at, json.len, key.at, key.len);
    if (!at)
        return (struct bf_bytes){0};
    at += key.len;
    return (struct bf_bytes){.at = at, .len = (size_t)(json.at + json.len - at)};
}

void bf_sse_client_welcome(struct bf_worker_core *core, uint32_t slot, struct bf_bytes frame)
{
    struct bf_sse_client *s = stream_of(core, slot);
    struct bf_bytes epoch = value_of(frame, BF_BYTES(",\"epoch\":\""));
    const char *end = epoch.len > 0 ? memchr(epoch.at, '"', epoch.len) : NULL;
    size_t n = end ? (size_t)(end - epoch.at) : 0;
    if (n > 0 && n <= sizeof(s->at.epoch)) {
        memcpy(s->at.epoch, epoch.at, n);
        s->at.epoch_len = (uint8_t)n;
    }
    s->resumed =
        s->resume.epoch_len > 0 && value_of(frame, BF_BYTES(",\"resumed\":true")).at != NULL;
}

void bf_sse_client_open(struct bf_worker_core *core, uint32_t slot, uint32_t stream, uint64_t seq)
{
    struct bf_sse_client *s = stream_of(core, slot);
    struct bf_conn_cold *cold = bf_cold(core, slot);
    if (s->opened & 1u << stream)
        return;
    s->opened |= (uint8_t)(1u << stream);
    if (stream == BF_STREAM_BROADCAST) {
        s->at.b = seq;
    } else {
        s->at.from[stream] = seq;
        s->at.to[stream] = seq;
        if (s->resumed && s->resume.to[stream] == seq && s->resume.from[stream] < seq) {
            cold->opened[stream] = s->resume.from[stream];
            bf_worker_count(core, BF_M_acks, 1);
            bf_rcpt_mark(&core->receipts, slot, BF_DIRTY_ACK(stream));
        }
    }
    /* from now on there is an id: a client that is cut off before its first event needs it too */
    if (s->opened == ALL_STREAMS)
        (void)bf_channel_push_ping(core, slot);
}

/* The node as events, its id as of |at| once it has left. */
static void write_node(struct bf_worker_core *core, const struct bf_sse_client *s,
                       const struct bf_sse_id *at, const struct bf_node *node,
                       struct bf_sse_out *out)
{
    const struct bf_sse_id *id = s->opened == ALL_STREAMS && at->epoch_len > 0 ? at : NULL;
    const uint8_t *bytes;
    size_t len = bf_node_bytes(core, node, &bytes);
    if (node->kind == BF_NODE_PING)
        bf_sse_heartbeat(out, id);
    else
        bf_sse_write(out, (struct bf_bytes){.at = (const char *)bytes, .len = len},
                     node->stream < BF_STREAM_COUNT ? id : NULL);
}

static void advance(struct bf_sse_id *at, const struct bf_node *node)
{
    uint64_t *to = node->stream == BF_STREAM_BROADCAST ? &at->b
                   : node->stream < BF_LANE_COUNT      ? &at->to[node->stream]
                                                       : NULL;
    if (to && node->seq > *to)
        *to = node->seq;
}

struct bf_send bf_sse_client_batch(struct bf_worker_core *core, uint32_t slot, uint8_t *buffer,
                                   size_t cap)
{
    const struct bf_conn_hot *hot = bf_hot(core, slot);
    const struct bf_sse_client *s = stream_of(core, slot);
    struct bf_sse_id at = s->at;
    struct bf_send batch = {.bytes = buffer};
    for (uint32_t i = hot->queue_head; i != 0 && batch.len < cap; i = bf_node_at(core, i)->next) {
        const struct bf_node *node = bf_node_at(core, i);
        struct bf_sse_out out = {
            .at = buffer + batch.len, .cap = cap - batch.len, .skip = bf_node_offset(hot, i, node)};
        if (!bf_channel_may_leave(hot, node))
            break;
        advance(&at, node);
        write_node(core, s, &at, node, &out);
        batch.len += out.len;
        batch.frames++;
    }
    batch.copied = batch.len;
    return batch;
}

size_t bf_sse_client_bytes(struct bf_worker_core *core, uint32_t slot, const struct bf_node *node)
{
    const struct bf_sse_client *s = stream_of(core, slot);
    struct bf_sse_id at = s->at;
    struct bf_sse_out out = {0};
    advance(&at, node);
    write_node(core, s, &at, node, &out);
    return out.total;
}

void bf_sse_client_passed(struct bf_worker_core *core, uint32_t slot, const struct bf_node *node)
{
    advance(&stream_of(core, slot)->at, node);
}
