/*
 * HTTP/2 as a client (RFC 9113), over nghttp2, without I/O: bytes that came go in, bytes to send
 * come out, one callback tells what happened. It sends requests and reads answers; server push is
 * refused, priorities are ignored, of an answer it keeps what a provider's answer has: the status,
 * retry-after and the first bytes of the body.
 *
 * A request's memory is the caller's: struct bf_h2_stream stays until BF_H2_STREAM_END of it or
 * bf_h2_forget; its body as long. Header fields are read during bf_h2_request only. nghttp2's own
 * memory comes from a pool made at start (h2_memory.h): nothing reaches the heap.
 *
 * What a hostile or broken server can make us do is limited: header fields of an answer,
 * CONTINUATION frames, frames that carry nothing, bytes of a body. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/shm/push_wire.h"
#include "proto/h2/h2_memory.h"

/* Header fields of a request, the pseudo fields among them. Twice what any provider's has. */
#define BF_H2_FIELDS_MAX 24u
/* Fields of an answer, by RFC 9113 section 6.5.2 (name + value + 32): announced and enforced.
 * Google's answers have about 1 KB. More: the stream is reset, `is_bad`. */
#define BF_H2_HEADER_LIST_MAX 16384u
/* CONTINUATION frames after one HEADERS: with 16 KB in each, one is enough for any honest answer.
 */
#define BF_H2_CONTINUATIONS_MAX 4u
/* Bytes of a body that are read at all; an error object has 500. More: it is cut off there and the
 * stream is reset, with its status. */
#define BF_H2_BODY_BYTES_MAX 65536u
/* Frames a second that answer nothing: SETTINGS, PING, WINDOW_UPDATE, empty DATA, unknown ones. Two
 * window updates a request at 150,000 requests over 16 connections are 20,000. More: the connection
 * is ended, ENHANCE_YOUR_CALM. */
#define BF_H2_IDLE_FRAMES_MAX 65536u
/* Bytes that one call can put out at least: a frame of the default size and its header. */
#define BF_H2_OUT_BYTES_MIN 16393u
/* What bf_h2_request may append: the largest request, its fields as literals, three frame headers.
 */
#define BF_H2_REQUEST_OUT_MAX (BF_PUSH_REQUEST_BYTES_MAX + 4096u)
/* Debug data of a GOAWAY that is kept. */
#define BF_H2_DEBUG_MAX 200u
/* Our windows. An answer is small: a stream gets what one record carries, a connection 1 MiB so
 * that a thousand answers need no WINDOW_UPDATE in between. */
#define BF_H2_WINDOW_STREAM 16384
#define BF_H2_WINDOW_CONN   (1 << 20)
/* Our decoder's table (SETTINGS_HEADER_TABLE_SIZE), the default: APNs' answers gain nothing from
 * it, Google's repeat a dozen fields that then cost a byte each. Filled only by what a server
 * indexes. */
#define BF_H2_TABLE_BYTES 4096u

struct bf_h2;

struct bf_h2_stream {
    const uint8_t *body; /* of the request, borrowed */
    uint32_t body_len;
    uint32_t body_at;  /* written so far */
    uint64_t end_mark; /* bf_h2_written() after its END_STREAM; 0: not written yet */
    int32_t id;
    uint32_t header_bytes; /* of the answer so far, by the rule of BF_H2_HEADER_LIST_MAX */
    uint32_t answer_bytes; /* of its body so far */
    uint32_t retry_after_s;
    uint16_t status; /* 0: none yet */
    uint16_t answer_len;
    bool is_answered; /* END_STREAM came, or enough of the body */
    bool is_bad;      /* more header fields than can be */
    bool is_reset;    /* the peer's RST_STREAM has come */
    uint8_t answer[BF_PUSH_ANSWER_BYTES_MAX];
};

enum bf_h2_event_kind {
    BF_H2_STREAM_END = 0, /* the last event of a stream; its memory is the caller's again */
    BF_H2_SETTINGS = 1,   /* the peer's settings have changed: see bf_h2_streams_max */
    BF_H2_GOAWAY = 2,     /* no new requests; streams above last_stream_id end by themselves */
    BF_H2_PONG = 3,
};

struct bf_h2_event {
    enum bf_h2_event_kind kind;
    struct bf_h2_stream *stream; /* STREAM_END */
    uint32_t error_code;         /* STREAM_END, GOAWAY: RFC 9113 section 7 */
    bool is_refused;             /* STREAM_END: the peer said that it has not processed it ... */
    bool is_goaway;              /* ... by GOAWAY, not by REFUSED_STREAM */
    bool is_malformed;           /* STREAM_END: we have ended it, because of a malformed answer */
    int32_t last_stream_id;      /* GOAWAY */
    struct bf_bytes debug;       /* GOAWAY: borrowed during the call */
};

/* Called from within bf_h2_feed, bf_h2_pull and bf_h2_request. It must not call the session. */
typedef void (*bf_h2_event_fn)(void *context, const struct bf_h2_event *event);

struct bf_h2_field {
    struct bf_bytes name; /* lower case */
    struct bf_bytes value;
};

/* A request; texts are borrowed during the call. :method is POST, :scheme https. */
struct bf_h2_request {
    struct bf_bytes authority;
    struct bf_bytes path;
    struct bf_bytes authorization; /* empty: none */
    const struct bf_h2_field *fields;
    uint32_t fields_count; /* at most BF_H2_FIELDS_MAX - 5 */
};

/* A session; its preface and SETTINGS are the first bytes out. 0 or BF_ERR_NO_MEMORY. */
int bf_h2_create(struct bf_h2_memory *memory, bf_h2_event_fn on_event, void *context,
                 struct bf_h2 **ret);
/* Frees it; nothing is sent, and streams get no STREAM_END. Accepts NULL. */
void bf_h2_destroy(struct bf_h2 *h);

/*
 * Takes what came. |now_ms|: monotonic. 0; or the session has failed (it is of no more use but for
 * bf_h2_pull, which gives the GOAWAY that says why): BF_ERR_MALFORMED or BF_ERR_NO_MEMORY, and
 * bf_h2_error_text tells.
 */
int bf_h2_feed(struct bf_h2 *h, const uint8_t *bytes, size_t len, uint64_t now_ms);

/* Writes what is to be sent, up to |cap| >= 1. Returns the bytes; fewer than |cap|: that is all. */
size_t bf_h2_pull(struct bf_h2 *h, uint8_t *to, size_t cap);
/* The last bytes of a session that we end: what is left of a frame begun, and the GOAWAY that
 * says why (RFC 9113 section 6.8). 0: they do not fit. Nothing may follow. */
size_t bf_h2_farewell(struct bf_h2 *h, uint8_t *to, size_t cap);
/* Whether bf_h2_pull would give something. */
bool bf_h2_wants_write(const struct bf_h2 *h);

/*
 * Sends a request: opens a stream and appends it to |to|, with as much of the body as flow control
 * allows (the rest comes by bf_h2_pull). |stream|: body and body_len are set, the rest is cleared.
 * Returns the bytes written, at most |cap|, which is BF_H2_REQUEST_OUT_MAX at least; 0: not now
 * (the session has bytes to write first, or may open no stream); BF_ERR_TOO_LARGE: more fields or
 * bytes than can be; BF_ERR_NO_MEMORY, BF_ERR_MALFORMED: the session has failed.
 */
int bf_h2_request(struct bf_h2 *h, const struct bf_h2_request *request, struct bf_h2_stream *stream,
                  uint8_t *to, size_t cap);
/* Gives a stream up: RST_STREAM CANCEL. No event follows, its memory is the caller's again. */
void bf_h2_forget(struct bf_h2 *h, struct bf_h2_stream *stream);
/* A PING (section 6.7); BF_H2_PONG answers. */
void bf_h2_ping(struct bf_h2 *h);
/* GOAWAY NO_ERROR: we are about to close. */
void bf_h2_close(struct bf_h2 *h);

/* Streams that the peer allows at once, now; 0 until its first SETTINGS. */
uint32_t bf_h2_streams_max(const struct bf_h2 *h);
/* Streams open. */
uint32_t bf_h2_streams(const struct bf_h2 *h);
/* Whether another request may be sent at all: no GOAWAY, ids left, not failed. */
bool bf_h2_is_usable(const struct bf_h2 *h);
/* Bytes written since the start: compare with bf_h2_stream.end_mark. */
uint64_t bf_h2_written(const struct bf_h2 *h);
/* Why it failed, for people; "" if it has not. Static or the session's. */
const char *bf_h2_error_text(const struct bf_h2 *h);
