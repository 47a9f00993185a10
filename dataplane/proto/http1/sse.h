/*
 * Server-sent events (WHATWG HTML section 9.2): what a WebSocket frame of ours becomes for a client
 * that cannot do WebSocket, and the id that lets it resume. Bytes in, bytes out; no allocation. Any
 * thread.
 *
 *   {"t":"n","seq":5,...}     ->    id: EPOCH;n=3-5;c=0-0;k=0-2;b=17
 *                                   event: n
 *                                   data: {"t":"n","seq":5,...}
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/base/limits.h"

/* Epochs are "%016x-%u" today: 27 at most. */
#define BF_SSE_EPOCH_BYTES_MAX 40u
/* Epoch, seven numbers of 20 digits and their names. */
#define BF_SSE_ID_BYTES_MAX (BF_SSE_EPOCH_BYTES_MAX + 7u * 20u + 24u)

/* Where a stream of events stands: in each lane all of (from, to] was sent, of the broadcasts up to
 * b. */
struct bf_sse_id {
    uint8_t epoch_len;
    char epoch[BF_SSE_EPOCH_BYTES_MAX];
    uint64_t from[BF_LANE_COUNT];
    uint64_t to[BF_LANE_COUNT];
    uint64_t b;
};

/* Writes the id's text. Returns its bytes. */
size_t bf_sse_id_write(const struct bf_sse_id *id, char out[BF_SSE_ID_BYTES_MAX]);
/* Reads it back, as Last-Event-ID brings it. Returns 0 or BF_ERR_MALFORMED. */
int bf_sse_id_parse(struct bf_bytes text, struct bf_sse_id *ret);

/* The head of the answer, or 0 when it does not fit. |origin|: allowed, to be named in it; empty:
 * none.
 */
size_t bf_sse_accept(struct bf_bytes origin, char *out, size_t cap);

/* Writes a part of something longer: skips the first |skip| bytes, and only counts what comes after
 * |cap|. */
struct bf_sse_out {
    uint8_t *at;
    size_t cap;
    size_t skip;
    size_t len;   /* written */
    size_t total; /* there is */
};

/* Writes frames (one or more WebSocket text frames back to back, whole, unmasked, not compressed)
 * as events; |id| on the last of them, NULL: on none. Anything else than frames is written as it
 * is. */
void bf_sse_write(struct bf_sse_out *out, struct bf_bytes frames, const struct bf_sse_id *id);
/* Writes a heartbeat: a comment and, unless NULL, the id, which a client keeps without an event. */
void bf_sse_heartbeat(struct bf_sse_out *out, const struct bf_sse_id *id);
