/* Requests under way: see sim_stream.h. */
#include "sim_stream.h"

#include <stdlib.h>

/* Sorted by nothing: the length tells most apart at once. */
static const struct {
    struct sim_slice name;
    int tag;
} names[] = {
#define NAME(text, field)                                                                          \
    {                                                                                              \
        {text, sizeof(text) - 1}, field                                                            \
    }
    NAME(":method", SIM_F_METHOD),
    NAME(":path", SIM_F_PATH),
    NAME(":authority", SIM_F_AUTHORITY),
    NAME("host", SIM_F_AUTHORITY),
    NAME("authorization", SIM_F_AUTHORIZATION),
    NAME("apns-id", SIM_F_APNS_ID),
    NAME("apns-topic", SIM_F_APNS_TOPIC),
    NAME("apns-push-type", SIM_F_APNS_PUSH_TYPE),
    NAME("apns-priority", SIM_F_APNS_PRIORITY),
    NAME("apns-expiration", SIM_F_APNS_EXPIRATION),
    NAME("apns-collapse-id", SIM_F_APNS_COLLAPSE_ID),
    NAME("apns-channel-id", SIM_F_APNS_CHANNEL_ID),
    NAME("apns-request-id", SIM_F_APNS_REQUEST_ID),
    NAME("content-type", SIM_F_CONTENT_TYPE),
    NAME("content-encoding", SIM_F_CONTENT_ENCODING),
    NAME("ttl", SIM_F_TTL),
    NAME("urgency", SIM_F_URGENCY),
    NAME("topic", SIM_F_TOPIC),
    NAME("prefer", SIM_F_PREFER),
    NAME("content-length", SIM_TAG_LENGTH),
    NAME(":scheme", SIM_TAG_SCHEME),
    NAME("connection", SIM_TAG_FORBIDDEN),
    NAME("keep-alive", SIM_TAG_FORBIDDEN),
    NAME("proxy-connection", SIM_TAG_FORBIDDEN),
    NAME("transfer-encoding", SIM_TAG_FORBIDDEN),
    NAME("upgrade", SIM_TAG_FORBIDDEN),
#undef NAME
};

static bool grow(struct sim_stream_pool *p)
{
    struct sim_stream_chunk *chunk = calloc(1, sizeof(*chunk));
    if (!chunk)
        return false;
    chunk->next = p->chunks;
    p->chunks = chunk;
    for (unsigned i = 0; i < SIM_STREAMS_CHUNK; i++) {
        chunk->streams[i].next = p->free;
        p->free = &chunk->streams[i];
    }
    return true;
}

void sim_stream_pool_fini(struct sim_stream_pool *p)
{
    while (p->chunks) {
        struct sim_stream_chunk *chunk = p->chunks;
        p->chunks = chunk->next;
        free(chunk);
    }
    while (p->bodies) {
        struct sim_body_block *block = p->bodies;
        p->bodies = block->next;
        free(block);
    }
    p->free = NULL;
}

struct sim_stream *sim_stream_take(struct sim_stream_pool *p, struct sim_conn *conn, int32_t id)
{
    if (!p->free && !grow(p))
        return NULL;
    struct sim_stream *s = p->free;
    p->free = s->next;
    s->conn = conn;
    s->id = id;
    s->waiting = s->ended = s->body_waits = false;
    s->regular_seen = s->scheme_seen = s->length_given = false;
    s->list_bytes = s->received = 0;
    memset(&s->q, 0, sizeof(s->q));
    for (unsigned f = 0; f < SIM_F_COUNT; f++)
        s->q.field[f].p = "";
    s->fields_bytes = s->body_sent = 0;
    s->body = s->body_inline;
    s->q.body = s->body;
    s->body_room = SIM_BODY_INLINE;
    return s;
}

void sim_stream_put(struct sim_stream_pool *p, struct sim_stream *s)
{
    if (s->body != s->body_inline) {
        struct sim_body_block *block = (struct sim_body_block *)(void *)s->body;
        block->next = p->bodies;
        p->bodies = block;
    }
    s->next = p->free;
    p->free = s;
}

int sim_stream_tag(struct sim_slice name)
{
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].name.n == name.n && memcmp(names[i].name.p, name.p, name.n) == 0)
            return names[i].tag;
    for (uint32_t i = 0; i < name.n; i++)
        if (name.p[i] >= 'A' && name.p[i] <= 'Z')
            return SIM_TAG_FORBIDDEN;
    return name.n ? SIM_TAG_NONE : SIM_TAG_FORBIDDEN;
}

void sim_stream_field(struct sim_stream *s, enum sim_field f, struct sim_slice value)
{
    if (sim_request_has(&s->q, f)) {
        if (f != SIM_F_AUTHORITY) /* Host beside :authority is legal */
            s->q.repeated |= 1u << f;
        return;
    }
    if (value.n > SIM_FIELD_BYTES_MAX - s->fields_bytes) {
        s->q.fields_too_big = true;
        return;
    }
    char *at = s->fields + s->fields_bytes;
    memcpy(at, value.p, value.n);
    s->fields_bytes += value.n;
    s->q.field[f] = (struct sim_slice){at, value.n};
    s->q.seen |= 1u << f;
}

/* Moves the body into a block of the largest size. */
static bool widen(struct sim_stream_pool *p, struct sim_stream *s)
{
    struct sim_body_block *block = p->bodies;
    if (block)
        p->bodies = block->next;
    else
        block = malloc(SIM_BODY_BYTES_MAX);
    if (!block)
        return false;
    memcpy(block, s->body, s->q.body_bytes);
    s->body = (char *)block;
    s->q.body = s->body;
    s->body_room = SIM_BODY_BYTES_MAX;
    return true;
}

void sim_stream_body(struct sim_stream_pool *p, struct sim_stream *s, const uint8_t *data,
                     size_t bytes)
{
    s->q.body_bytes_total += bytes;
    if (bytes > s->body_room - s->q.body_bytes && s->body_room < SIM_BODY_BYTES_MAX && !widen(p, s))
        return;
    size_t room = s->body_room - s->q.body_bytes;
    size_t n = bytes < room ? bytes : room;
    memcpy(s->body + s->q.body_bytes, data, n);
    s->q.body_bytes += (uint32_t)n;
}
