/*
 * WebSocket receive side: see ws_rx.h.
 *
 *   between messages (*rx NULL)   whole FIN frames: header, unmask in place, event. No state.
 *   a cut or fragmented frame     takes a context; its gate collects the header, then passes
 * payload on, never past the end of a frame: control frame -> collected in the context, event in
 * its place data frame    -> wslay: fragment order, UTF-8 across fragments message complete event;
 * the context goes back to the pool
 *
 * A compressed message (RFC 7692) is kept as it came, and inflated in one go once it is whole:
 * zlib's state belongs to the pool and is in use only inside a call.
 *
 * Both ways judge headers by bf_ws_header_parse and control frames by control_event, so the events
 * do not depend on where reads cut the stream.
 *
 * Memory: per context 8.8 KB of wslay, the message buffer and about 200 B; per pool 40 KB of zlib
 * and one message inflated; all taken at start. wslay in no-buffering mode allocates nothing for
 * data frames (control frames never reach it). Only a context given up inside a message or after an
 * error is renewed: 7 allocations and frees in wslay, at most once a connection.
 */
#include "proto/ws/ws_rx.h"

#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/utf8.h"
#include "belfry/base/ws_frame.h"
#include "proto/ws/deflate.h"
#include "proto/ws/ws_header.h"

/* A message that does not compress grows by 5 bytes a stored block; zlib's hold 16 KiB or more,
 * small ones of other senders may take this much. Beyond: 1009. */
#define PACKED_BYTES_MAX(plain) ((plain) + (plain) / 256u + 64u)

struct bf_ws_rx {
    wslay_event_context_ptr wslay;
    struct bf_ws_rx *next_free;
    struct bf_ws_rx_pool *pool;

    /* the gate: header bytes of the current frame, then what is left of its payload */
    uint8_t head[BF_WS_CLIENT_HEADER_BYTES_MAX];
    uint8_t head_len;
    bool in_payload;
    struct bf_ws_header frame;
    uint64_t payload_left;

    /* what wslay may read now */
    const uint8_t *feed;
    size_t feed_len;

    bool may_compress;  /* agreed on this connection */
    bool is_compressed; /* the message is */
    bool in_message;    /* a first fragment came, its FIN frame did not end yet */
    bool is_used;       /* wslay saw bytes since it was made or last ended a message */
    bool is_complete;
    uint8_t message_opcode;
    uint8_t control_len;
    uint8_t control[BF_WS_CONTROL_BYTES_MAX];
    size_t message_len;
    uint8_t *message; /* pool->packed_bytes_max */
};

struct bf_ws_rx_pool {
    struct bf_ws_rx *free_list;
    size_t message_bytes_max;
    size_t packed_bytes_max;
    struct bf_inflater *inflater;
    uint8_t *inflated; /* message_bytes_max + 1 */
    uint32_t context_count;
    struct bf_ws_rx *contexts;
    uint8_t *messages;
};

/* ---- events ---- */

static int event_error(struct bf_ws_event *ret, int code, const char *why)
{
    *ret = (struct bf_ws_event){
        .kind = BF_WS_EV_ERROR,
        .code = (uint16_t)code,
        .data = {.at = why, .len = strlen(why)},
    };
    return 1;
}

/* Codes that may be on the wire (RFC 6455 7.4, IANA registry: 1012 to 1014 were added later). */
static bool is_close_code(uint16_t code)
{
    if (code >= 3000 && code <= 4999)
        return true;
    return code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
}

static int close_event(struct bf_bytes body, struct bf_ws_event *ret)
{
    uint16_t code = 0;
    struct bf_bytes reason = {0};
    if (body.len >= 2) {
        code = (uint16_t)((uint8_t)body.at[0] << 8 | (uint8_t)body.at[1]);
        reason = (struct bf_bytes){.at = body.at + 2, .len = body.len - 2};
        if (!is_close_code(code))
            return event_error(ret, 1002, "close code not allowed");
        if (!bf_utf8_is_valid(reason))
            return event_error(ret, 1007, "close reason is not UTF-8");
    }
    *ret = (struct bf_ws_event){.kind = BF_WS_EV_CLOSE, .code = code, .data = reason};
    return 1;
}

/* A whole control frame, unmasked. */
static int control_event(uint8_t opcode, struct bf_bytes body, struct bf_ws_event *ret)
{
    if (opcode == BF_WS_CLOSE)
        return close_event(body, ret);
    *ret = (struct bf_ws_event){
        .kind = opcode == BF_WS_PING ? BF_WS_EV_PING : BF_WS_EV_PONG,
        .data = body,
    };
    return 1;
}

/* A whole message that is not compressed, or not any more; its text was checked. */
static int data_event(uint8_t opcode, struct bf_bytes body, struct bf_ws_event *ret)
{
    *ret = (struct bf_ws_event){
        .kind = opcode == BF_WS_TEXT ? BF_WS_EV_TEXT : BF_WS_EV_BINARY,
        .data = body,
    };
    return 1;
}

/* A whole compressed message. */
static int packed_event(const struct bf_ws_rx_pool *pool, uint8_t opcode, struct bf_bytes body,
                        struct bf_ws_event *ret)
{
    struct bf_bytes plain = {.at = (const char *)pool->inflated};
    int rc = bf_inflate(pool->inflater, body, pool->inflated, pool->message_bytes_max, &plain.len);
    if (rc == BF_ERR_TOO_LARGE)
        return event_error(ret, 1009, "message too big");
    if (rc != 0)
        return event_error(ret, 1007, "compressed data is damaged");
    if (opcode == BF_WS_TEXT && !bf_utf8_is_valid(plain))
        return event_error(ret, 1007, "text is not UTF-8");
    return data_event(opcode, plain, ret);
}

/* What a data frame may hold; |used|: bytes of its message so far, compressed or not. */
static struct bf_ws_room room_of(const struct bf_ws_rx_pool *pool, bool may_compress,
                                 bool is_compressed, size_t used)
{
    return (struct bf_ws_room){
        .plain = (is_compressed ? pool->packed_bytes_max : pool->message_bytes_max) - used,
        .packed = may_compress ? pool->packed_bytes_max : 0,
    };
}

/* ---- fast path ---- */

/*
 * Decodes one whole frame in place. Returns 1 with an event and *ret_used, or 0 when the frame is
 * cut or a fragment and needs a context.
 */
static int fast_feed(const struct bf_ws_rx_pool *pool, bool may_compress, uint8_t *bytes,
                     size_t len, size_t *ret_used, struct bf_ws_event *ret)
{
    struct bf_ws_header frame;
    const char *why;
    int rc = bf_ws_header_parse(bytes, len, room_of(pool, may_compress, false, 0), &frame, &why);
    if (rc < 0) {
        *ret_used = len;
        return event_error(ret, -rc, why);
    }
    if (rc == 0)
        return 0;
    if (frame.opcode == BF_WS_CONTINUATION) {
        *ret_used = len;
        return event_error(ret, 1002, "continuation of no message");
    }
    if (!frame.is_fin || frame.payload_bytes > len - frame.header_bytes)
        return 0;
    uint8_t *payload = bytes + frame.header_bytes;
    size_t n = (size_t)frame.payload_bytes;
    bf_ws_unmask(payload, n, frame.mask);
    *ret_used = frame.header_bytes + n;
    struct bf_bytes body = {.at = (const char *)payload, .len = n};
    if (bf_ws_is_control(frame.opcode))
        return control_event(frame.opcode, body, ret);
    if (frame.is_compressed)
        return packed_event(pool, frame.opcode, body, ret);
    if (frame.opcode == BF_WS_TEXT && !bf_utf8_is_valid(body))
        return event_error(ret, 1007, "text is not UTF-8");
    return data_event(frame.opcode, body, ret);
}

/* ---- wslay ---- */

static ssize_t on_recv(wslay_event_context_ptr ctx, uint8_t *buf, size_t len, int flags,
                       void *user_data)
{
    struct bf_ws_rx *rx = user_data;
    size_t n = rx->feed_len < len ? rx->feed_len : len;
    (void)flags;
    if (n == 0) {
        wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    memcpy(buf, rx->feed, n);
    rx->feed += n;
    rx->feed_len -= n;
    return (ssize_t)n;
}

/* wslay queues a close frame with its verdict; we read the code off it and send our own. */
static ssize_t on_send(wslay_event_context_ptr ctx, const uint8_t *data, size_t len, int flags,
                       void *user_data)
{
    (void)ctx;
    (void)data;
    (void)flags;
    (void)user_data;
    return (ssize_t)len;
}

static void on_chunk(wslay_event_context_ptr ctx,
                     const struct wslay_event_on_frame_recv_chunk_arg *arg, void *user_data)
{
    struct bf_ws_rx *rx = user_data;
    (void)ctx;
    /* the gate let no header pass that would go beyond it */
    BF_BUG_ON(arg->data_length > rx->pool->packed_bytes_max - rx->message_len);
    if (arg->data_length > 0)
        memcpy(rx->message + rx->message_len, arg->data, arg->data_length);
    rx->message_len += arg->data_length;
}

static void on_message(wslay_event_context_ptr ctx, const struct wslay_event_on_msg_recv_arg *arg,
                       void *user_data)
{
    struct bf_ws_rx *rx = user_data;
    (void)ctx;
    rx->is_complete = true;
    rx->message_opcode = arg->opcode;
}

/* Makes the wslay context of |rx|. Returns false when memory is out. */
static bool wslay_renew(struct bf_ws_rx *rx)
{
    static const struct wslay_event_callbacks callbacks = {
        .recv_callback = on_recv,
        .send_callback = on_send,
        .on_frame_recv_chunk_callback = on_chunk,
        .on_msg_recv_callback = on_message,
    };
    if (rx->wslay)
        wslay_event_context_free(rx->wslay);
    rx->wslay = NULL;
    if (wslay_event_context_server_init(&rx->wslay, &callbacks, rx) != 0) {
        rx->wslay = NULL;
        return false;
    }
    wslay_event_config_set_no_buffering(rx->wslay, 1);
    wslay_event_config_set_max_recv_msg_length(rx->wslay, rx->pool->packed_bytes_max);
    /* the gate lets RSV1 through only where it was agreed; wslay then leaves UTF-8 to us */
    wslay_event_config_set_allowed_rsv_bits(rx->wslay, WSLAY_RSV1_BIT);
    rx->is_used = false;
    return true;
}

/* Passes bytes of a data frame. Returns 0 going on or complete, 1 with an error event. */
static int wslay_pass(struct bf_ws_rx *rx, const uint8_t *p, size_t n, struct bf_ws_event *ret)
{
    rx->feed = p;
    rx->feed_len = n;
    rx->is_used = true;
    int rc = wslay_event_recv(rx->wslay);
    if (rc != 0)
        return event_error(ret, 1011, "receive context failed");
    if (wslay_event_get_read_enabled(rx->wslay)) {
        BF_BUG_ON(rx->feed_len != 0); /* wslay reads until it would block */
        return 0;
    }
    (void)wslay_event_send(rx->wslay);
    uint16_t code = wslay_event_get_status_code_sent(rx->wslay);
    return event_error(ret, code,
                       code == 1007   ? "text is not UTF-8"
                       : code == 1009 ? "message too big"
                                      : "frames out of order");
}

/* ---- slow path ---- */

static int header_done(struct bf_ws_rx *rx, struct bf_ws_event *ret)
{
    const struct bf_ws_header *frame = &rx->frame;
    rx->in_payload = true;
    rx->payload_left = frame->payload_bytes;
    rx->control_len = 0;
    if (bf_ws_is_control(frame->opcode))
        return 0;
    if (frame->opcode == BF_WS_CONTINUATION && !rx->in_message)
        return event_error(ret, 1002, "continuation of no message");
    if (frame->opcode != BF_WS_CONTINUATION && rx->in_message)
        return event_error(ret, 1002, "new message inside a message");
    if (!rx->in_message) {
        rx->message_len = 0;
        rx->is_compressed = frame->is_compressed;
    }
    rx->in_message = true;
    return wslay_pass(rx, rx->head, rx->head_len, ret);
}

/* Takes header bytes. Returns 0, or 1 with an error event. */
static int gate_header(struct bf_ws_rx *rx, const uint8_t *p, size_t len, size_t *used,
                       struct bf_ws_event *ret)
{
    const struct bf_ws_room room =
        rx->in_message ? room_of(rx->pool, rx->may_compress, rx->is_compressed, rx->message_len)
                       : room_of(rx->pool, rx->may_compress, false, 0);
    const char *why;
    while (len > *used) {
        rx->head[rx->head_len++] = p[(*used)++];
        int rc = bf_ws_header_parse(rx->head, rx->head_len, room, &rx->frame, &why);
        if (rc < 0)
            return event_error(ret, -rc, why);
        if (rc > 0)
            return header_done(rx, ret);
    }
    return 0;
}

static void control_take(struct bf_ws_rx *rx, const uint8_t *p, size_t n)
{
    BF_BUG_ON(n > sizeof(rx->control) - rx->control_len);
    if (n > 0)
        memcpy(rx->control + rx->control_len, p, n);
    rx->control_len = (uint8_t)(rx->control_len + n);
}

/* The frame has ended. Returns 1 with an event, 0 when the message goes on. */
static int frame_done(struct bf_ws_rx *rx, struct bf_ws_event *ret)
{
    rx->in_payload = false;
    rx->head_len = 0;
    if (bf_ws_is_control(rx->frame.opcode)) {
        bf_ws_unmask(rx->control, rx->control_len, rx->frame.mask);
        struct bf_bytes body = {.at = (const char *)rx->control, .len = rx->control_len};
        return control_event(rx->frame.opcode, body, ret);
    }
    if (!rx->is_complete)
        return 0;
    rx->is_complete = false;
    rx->in_message = false;
    rx->is_used = false;
    struct bf_bytes body = {.at = (const char *)rx->message, .len = rx->message_len};
    if (rx->is_compressed)
        return packed_event(rx->pool, rx->message_opcode, body, ret);
    return data_event(rx->message_opcode, body, ret);
}

/* Takes payload bytes, and the end of the frame. Returns 0, or 1 with an event. */
static int gate_payload(struct bf_ws_rx *rx, const uint8_t *p, size_t len, size_t *used,
                        struct bf_ws_event *ret)
{
    size_t left = len - *used;
    size_t n = rx->payload_left < left ? (size_t)rx->payload_left : left;
    const uint8_t *from = p + *used;
    *used += n;
    rx->payload_left -= n;
    if (bf_ws_is_control(rx->frame.opcode))
        control_take(rx, from, n);
    else if (n > 0 && wslay_pass(rx, from, n, ret) == 1)
        return 1;
    return rx->payload_left == 0 ? frame_done(rx, ret) : 0;
}

static int slow_feed(struct bf_ws_rx *rx, const uint8_t *p, size_t len, size_t *used,
                     struct bf_ws_event *ret)
{
    int rc = 0;
    while (rc == 0 && (*used < len || (rx->in_payload && rx->payload_left == 0))) {
        rc = rx->in_payload ? gate_payload(rx, p, len, used, ret)
                            : gate_header(rx, p, len, used, ret);
    }
    return rc;
}

static bool is_idle(const struct bf_ws_rx *rx)
{
    return !rx->in_message && !rx->in_payload && rx->head_len == 0;
}

/* ---- public ---- */

static struct bf_ws_rx *rx_take(struct bf_ws_rx_pool *pool)
{
    struct bf_ws_rx *rx = pool->free_list;
    if (!rx || (!rx->wslay && !wslay_renew(rx)))
        return NULL;
    pool->free_list = rx->next_free;
    rx->head_len = 0;
    rx->in_payload = false;
    rx->in_message = false;
    rx->is_complete = false;
    rx->message_len = 0;
    return rx;
}

int bf_ws_rx_feed(struct bf_ws_rx_pool *pool, struct bf_ws_rx **rx, bool may_compress,
                  uint8_t *bytes, size_t len, size_t *ret_used, struct bf_ws_event *ret_event)
{
    *ret_used = 0;
    if (len == 0)
        return 0;
    if (!*rx) {
        if (fast_feed(pool, may_compress, bytes, len, ret_used, ret_event) == 1)
            return 1;
        *rx = rx_take(pool);
        if (!*rx)
            return BF_ERR_FULL;
        (*rx)->may_compress = may_compress;
    }
    int rc = slow_feed(*rx, bytes, len, ret_used, ret_event);
    if (is_idle(*rx) && (rc == 0 || ret_event->kind != BF_WS_EV_ERROR))
        bf_ws_rx_drop(pool, rx); /* the event's bytes stay in the context until it is taken again */
    return rc;
}

void bf_ws_rx_drop(struct bf_ws_rx_pool *pool, struct bf_ws_rx **rx)
{
    struct bf_ws_rx *held = *rx;
    if (!held)
        return;
    *rx = NULL;
    /* left in the middle: wslay has no reset. Out of memory here: rx_take tries again */
    if (held->is_used)
        (void)wslay_renew(held);
    held->next_free = pool->free_list;
    pool->free_list = held;
}

struct bf_ws_rx_pool *bf_ws_rx_pool_create(uint32_t contexts, size_t message_bytes_max)
{
    struct bf_ws_rx_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return NULL;
    pool->message_bytes_max = message_bytes_max;
    pool->packed_bytes_max = PACKED_BYTES_MAX(message_bytes_max);
    pool->inflater = bf_inflater_create();
    pool->inflated = malloc(message_bytes_max + 1u);
    pool->contexts = calloc(contexts, sizeof(*pool->contexts));
    pool->messages = calloc(contexts, pool->packed_bytes_max);
    if (!pool->contexts || !pool->messages || !pool->inflater || !pool->inflated)
        goto fail_pool;
    for (uint32_t i = 0; i < contexts; i++) {
        struct bf_ws_rx *rx = &pool->contexts[i];
        rx->pool = pool;
        rx->message = pool->messages + i * pool->packed_bytes_max;
        pool->context_count = i + 1;
        if (!wslay_renew(rx))
            goto fail_pool;
        rx->next_free = pool->free_list;
        pool->free_list = rx;
    }
    return pool;

fail_pool:
    bf_ws_rx_pool_destroy(pool);
    return NULL;
}

void bf_ws_rx_pool_destroy(struct bf_ws_rx_pool *pool)
{
    if (!pool)
        return;
    for (uint32_t i = 0; i < pool->context_count; i++)
        if (pool->contexts[i].wslay)
            wslay_event_context_free(pool->contexts[i].wslay);
    bf_inflater_destroy(pool->inflater);
    free(pool->inflated);
    free(pool->messages);
    free(pool->contexts);
    free(pool);
}
