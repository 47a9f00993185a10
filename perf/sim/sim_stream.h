/* One request under way, HTTP/2 stream or HTTP/1.1 request: its fields, body and answer. Pooled per
 * worker. */
#pragma once

#include "sim_world.h"

#define SIM_FIELD_BYTES_MAX                                                                        \
    3072u /* of all kept fields; a VAPID field takes 500, an assertion is a body */
#define SIM_BODY_INLINE   1024u /* a common push; a larger body takes a block of the second pool */
#define SIM_STREAMS_CHUNK 64u

struct sim_conn;

struct sim_stream {
    struct sim_stream *next;              /* in the pool */
    struct sim_stream *live_next, **live; /* in its connection's list, HTTP/2 */
    struct sim_conn *conn;
    int32_t id;   /* 0 = HTTP/1.1 */
    bool held;    /* never answered */
    bool waiting; /* decided, its latency runs */
    struct sim_request q;
    struct sim_answer a;
    char target[SIM_TOKEN_BYTES_MAX];
    uint32_t fields_bytes, body_room, body_sent;
    char *body; /* |body_inline| or a block */
    char fields[SIM_FIELD_BYTES_MAX];
    char body_inline[SIM_BODY_INLINE];
};

struct sim_body_block {
    struct sim_body_block *next;
};

struct sim_stream_pool {
    struct sim_stream *free;
    struct sim_body_block *bodies;
};

/* NULL without memory. Streams go back with _put; memory stays with the pool until the program
 * ends. */
struct sim_stream *sim_stream_take(struct sim_stream_pool *p, struct sim_conn *conn, int32_t id);
void sim_stream_put(struct sim_stream_pool *p, struct sim_stream *s);

/* Keeps a field that some provider looks at; |name| is lower case. */
void sim_stream_field(struct sim_stream *s, struct sim_slice name, struct sim_slice value);
/* Appends to the body, up to SIM_BODY_BYTES_MAX; counts the rest. */
void sim_stream_body(struct sim_stream_pool *p, struct sim_stream *s, const uint8_t *data,
                     size_t bytes);
