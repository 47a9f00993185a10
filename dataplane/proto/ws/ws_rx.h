/*
 * The receiving side of WebSocket (RFC 6455), without I/O. Whole, unfragmented, masked frames that
 * lie complete in the given bytes, which is nearly all that clients send, are decoded in place and
 * need no state. Anything else (fragments, a frame cut by the read) goes through a context around
 * wslay, which is taken from a pool only while a message is being received. One worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

struct bf_ws_rx_pool; /* contexts of one worker */
struct bf_ws_rx;      /* one context, while a connection is inside a message */

enum bf_ws_event_kind {
    BF_WS_EV_TEXT = 0, /* a whole text message, valid UTF-8 */
    BF_WS_EV_BINARY = 1,
    BF_WS_EV_PING = 2,
    BF_WS_EV_PONG = 3,
    BF_WS_EV_CLOSE = 4, /* code 0 when the body was empty; data = reason */
    BF_WS_EV_ERROR = 5, /* protocol error: close with .code (1002, 1007, 1009) and say .data */
};

struct bf_ws_event {
    enum bf_ws_event_kind kind;
    uint16_t code;
    struct bf_bytes data; /* valid until the next call for this worker */
};

/* |contexts| receptions may be in progress at once; the next waits: BF_ERR_FULL from feed. */
struct bf_ws_rx_pool *bf_ws_rx_pool_create(uint32_t contexts, size_t message_bytes_max);
void bf_ws_rx_pool_destroy(struct bf_ws_rx_pool *pool);

/*
 * Takes bytes of one connection (|bytes| is modified: unmasked in place). *rx is NULL between
 * messages, or the context held. |may_compress|: permessage-deflate was agreed on it. At most one
 * event a call. Returns 1 with *ret_event set, 0 when all bytes are consumed and no event is
 * complete, BF_ERR_FULL when no context is free (keep the bytes, stop reading, try later).
 * *ret_used says how many bytes were consumed; call again with the rest after an event. After
 * BF_WS_EV_CLOSE or ERROR call no more; bf_ws_rx_drop gives *rx back.
 */
int bf_ws_rx_feed(struct bf_ws_rx_pool *pool, struct bf_ws_rx **rx, bool may_compress,
                  uint8_t *bytes, size_t len, size_t *ret_used, struct bf_ws_event *ret_event);
void bf_ws_rx_drop(struct bf_ws_rx_pool *pool, struct bf_ws_rx **rx);

/* Frames of ours that do not come from blocks. Each returns the bytes written. */
size_t bf_ws_close_write(uint8_t *out, size_t cap, uint16_t code, const char *reason);
size_t bf_ws_control_write(uint8_t *out, size_t cap, uint8_t opcode, struct bf_bytes payload);
size_t bf_ws_text_write(uint8_t *out, size_t cap, struct bf_bytes payload);
