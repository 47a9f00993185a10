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
    struct sim_stream *hash_next;         /* in its connection's bucket, HTTP/2 */
    struct sim_stream *live_next, **live; /* in its connection's list, HTTP/2 */
    struct sim_conn *conn;
    int32_t id;      /* 0 = HTTP/1.1 */
    bool waiting;    /* decided, its latency runs */
    bool ended;      /* the request is whole */
    bool body_waits; /* the answer's body waits for window */
    bool regular_seen, scheme_seen, length_given;
    uint32_t list_bytes, received; /* of the header list, of DATA with padding */
    uint64_t length;               /* Content-Length, when given */
    int64_t send_window;
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

struct sim_stream_chunk {
    struct sim_stream_chunk *next;
    struct sim_stream streams[SIM_STREAMS_CHUNK];
};

struct sim_stream_pool {
    struct sim_stream_chunk *chunks;
    struct sim_stream *free;
    struct sim_body_block *bodies;
};

/* NULL without memory. Streams go back with _put; memory stays with the pool until the program
 * ends. */
struct sim_stream *sim_stream_take(struct sim_stream_pool *p, struct sim_conn *conn, int32_t id);
void sim_stream_put(struct sim_stream_pool *p, struct sim_stream *s);
/* Frees everything; all streams are back. */
void sim_stream_pool_fini(struct sim_stream_pool *p);

/* What a field's name is: a field that some provider looks at (enum sim_field, from 0), or one of
 * these. */
enum sim_tag {
    SIM_TAG_NONE = -1,      /* nobody looks at it */
    SIM_TAG_LENGTH = -2,    /* content-length */
    SIM_TAG_SCHEME = -3,    /* :scheme */
    SIM_TAG_FORBIDDEN = -4, /* not in HTTP/2: upper case, connection, .. (RFC 9113 8.2) */
};

int sim_stream_tag(struct sim_slice name);

/* Keeps a copy of a field. */
void sim_stream_field(struct sim_stream *s, enum sim_field f, struct sim_slice value);
/* Appends to the body, up to SIM_BODY_BYTES_MAX; counts the rest. */
void sim_stream_body(struct sim_stream_pool *p, struct sim_stream *s, const uint8_t *data,
                     size_t bytes);
