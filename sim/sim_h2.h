/*
 * HTTP/2 server side of a connection (RFC 9113), lean: requests with small bodies in, answers of
 * one HEADERS and little DATA out, about a third of what a general library costs. Bytes in by
 * sim_h2_read, bytes out through the connection's buffer; no I/O. What the peer does wrong ends the
 * stream or the connection with the RFC's error code. Not there, since no push client needs it:
 * priorities (ignored), server push, trailers out.
 */
#pragma once

#include "sim_hpack.h"
#include "sim_stream.h"

#define SIM_H2_FRAME_BYTES_MAX                                                                     \
    16384u /* SETTINGS_MAX_FRAME_SIZE's default, we announce no other                              \
            */
#define SIM_H2_BLOCK_BYTES_MAX                                                                     \
    32768u                          /* header block with CONTINUATION; more is ENHANCE_YOUR_CALM */
#define SIM_H2_LIST_BYTES_MAX 8000u /* SETTINGS_MAX_HEADER_LIST_SIZE, as APNs announces */
#define SIM_H2_STREAM_WINDOW  (1 << 20) /* a body never waits for a WINDOW_UPDATE */
#define SIM_H2_CONN_WINDOW    (64 << 20)
#define SIM_H2_BUCKETS        1024u /* streams are found by id; about one each at the common limit */
#define SIM_H2_SETTINGS_PENDING                                                                    \
    8u /* announcements that the peer has not acknowledged; then no new ones */
#define SIM_H2_REFUSALS_MAX                                                                        \
    100000u /* streams above the limit before the peer is told to calm down */

enum sim_h2_type {
    SIM_H2_DATA = 0,
    SIM_H2_HEADERS,
    SIM_H2_PRIORITY,
    SIM_H2_RST_STREAM,
    SIM_H2_SETTINGS,
    SIM_H2_PUSH_PROMISE,
    SIM_H2_PING,
    SIM_H2_GOAWAY,
    SIM_H2_WINDOW_UPDATE,
    SIM_H2_CONTINUATION,
};

enum sim_h2_error {
    SIM_H2_NO_ERROR = 0,
    SIM_H2_PROTOCOL_ERROR,
    SIM_H2_INTERNAL_ERROR,
    SIM_H2_FLOW_CONTROL_ERROR,
    SIM_H2_SETTINGS_TIMEOUT,
    SIM_H2_STREAM_CLOSED,
    SIM_H2_FRAME_SIZE_ERROR,
    SIM_H2_REFUSED_STREAM,
    SIM_H2_CANCEL,
    SIM_H2_COMPRESSION_ERROR,
    SIM_H2_CONNECT_ERROR,
    SIM_H2_ENHANCE_YOUR_CALM,
};

struct sim_h2 {
    struct sim_hpack hpack;
    struct sim_stream *live; /* all open streams */
    struct sim_stream *buckets[SIM_H2_BUCKETS];
    uint32_t open, preface; /* streams open; bytes of the client preface seen */
    int32_t last_id, goaway_last;
    bool settings_seen, over, goaway_sent, peer_leaves;
    bool is_settled, is_pinged, is_used; /* counted as such */
    int64_t send_window;                 /* of the connection */
    int64_t peer_initial_window;         /* of each new stream */
    uint32_t peer_frame_max;
    uint32_t conn_unreported;                 /* bytes taken since our last WINDOW_UPDATE */
    uint32_t limit_in_force, limit_announced; /* streams at once: acknowledged, last sent */
    uint32_t limits_pending[SIM_H2_SETTINGS_PENDING], pending_count;
    uint32_t refusals;
    /* header block under way: HEADERS without END_HEADERS */
    uint8_t *block;
    uint32_t block_bytes;
    int32_t block_id; /* 0 = none */
    bool block_ends;  /* its HEADERS had END_STREAM */
    /* frame under way: the head of one that has not come whole */
    uint8_t *part;
    uint32_t part_bytes;
};

struct sim_conn;

/* Begins: SETTINGS with |limit| streams, the connection window. False without memory. */
bool sim_h2_open(struct sim_conn *c, uint32_t limit);
/* Gives back all streams and memory. */
void sim_h2_close(struct sim_conn *c);
/* Feeds bytes; whole requests come back by sim_on_request. False when the connection is over: what
 * is in the out buffer is still to be sent. */
bool sim_h2_read(struct sim_conn *c, const uint8_t *data, size_t bytes);

/* Answers |s| with s->a. The stream is gone afterwards unless its body waits for window. */
void sim_h2_answer(struct sim_conn *c, struct sim_stream *s);
/* Ends |s| by RST_STREAM; |header| sends a status line first. The stream is gone afterwards. */
void sim_h2_reset(struct sim_conn *c, struct sim_stream *s, enum sim_h2_error error, bool header);
/* Announces that no stream above |last| is processed; those are gone afterwards. */
void sim_h2_goaway(struct sim_conn *c, int32_t last, enum sim_h2_error error, const char *debug);
/* Announces another limit of streams. */
void sim_h2_limit(struct sim_conn *c, uint32_t limit);
/* An open stream, or NULL. */
struct sim_stream *sim_h2_find(struct sim_conn *c, int32_t id);
/* True when GOAWAY was sent or received and nothing is left to answer. */
bool sim_h2_is_done(const struct sim_conn *c);

/* ---- between sim_h2.c and sim_h2_out.c ---- */

void sim_h2_link(struct sim_conn *c, struct sim_stream *s);
void sim_h2_unlink(struct sim_conn *c, struct sim_stream *s);
void sim_h2_frame(struct sim_conn *c, uint8_t type, uint8_t flags, int32_t id,
                  const uint8_t *payload, size_t bytes);
void sim_h2_rst(struct sim_conn *c, int32_t id, enum sim_h2_error error);
void sim_h2_window_update(struct sim_conn *c, int32_t id, uint32_t more);
/* Goes on with bodies that waited for window. */
void sim_h2_send_waiting(struct sim_conn *c);
