/*
 * Bytes in: a readable socket is read into one of the worker's buffers until a read comes short
 * (the poll is edge-triggered), its bytes go to the request parser or to the WebSocket's receive
 * side, its events to the session. Only what is cut in the middle is kept: a request in a stash, a
 * message in a reception context.
 */
#include <errno.h>
#include <string.h>

#include "belfry/base/err.h"
#include "session/life.h"
#include "worker/echo.h"
#include "worker/worker.h"

/* ---- receptions ---- */

static struct bf_reception *reception_of(struct bf_worker *w, uint32_t slot)
{
    uint32_t index = bf_cold(&w->core, slot)->rx;
    return index ? bf_slab_at(&w->receptions, index) : NULL;
}

static struct bf_reception *reception_take(struct bf_worker *w, uint32_t slot)
{
    struct bf_reception *rx = reception_of(w, slot);
    if (rx)
        return rx;
    uint32_t index = bf_slab_take(&w->receptions);
    if (index == 0)
        return NULL;
    bf_cold(&w->core, slot)->rx = index;
    rx = bf_slab_at(&w->receptions, index);
    *rx = (struct bf_reception){.slot = slot};
    return rx;
}

static void list_remove(struct bf_worker *w, struct bf_reception *rx)
{
    struct bf_reception *older = rx->older ? bf_slab_at(&w->receptions, rx->older) : NULL;
    struct bf_reception *newer = rx->newer ? bf_slab_at(&w->receptions, rx->newer) : NULL;
    *(older ? &older->newer : &w->rx_oldest) = rx->newer;
    *(newer ? &newer->older : &w->rx_newest) = rx->older;
    rx->older = rx->newer = 0;
}

static void list_append(struct bf_worker *w, struct bf_reception *rx)
{
    uint32_t index = bf_cold(&w->core, rx->slot)->rx;
    struct bf_reception *last = w->rx_newest ? bf_slab_at(&w->receptions, w->rx_newest) : NULL;
    rx->since = w->core.tick;
    rx->older = w->rx_newest;
    *(last ? &last->newer : &w->rx_oldest) = index;
    w->rx_newest = index;
}

/* |is_new|: the context's message began just now. */
static void context_set(struct bf_worker *w, struct bf_reception *rx, struct bf_ws_rx *context,
                        bool is_new)
{
    if (rx->context && (!context || is_new))
        list_remove(w, rx);
    if (context && (!rx->context || is_new))
        list_append(w, rx);
    rx->context = context;
}

static void stash_drop(struct bf_worker *w, struct bf_reception *rx)
{
    if (rx->stash != 0)
        bf_slab_put(&w->stashes, rx->stash);
    rx->stash = 0;
    rx->stash_bytes = 0;
}

/* Gives the record back once nothing is kept in it. */
static void reception_tidy(struct bf_worker *w, uint32_t slot)
{
    struct bf_conn_cold *cold = bf_cold(&w->core, slot);
    struct bf_reception *rx = reception_of(w, slot);
    if (!rx || rx->context || rx->stash != 0)
        return;
    bf_slab_put(&w->receptions, cold->rx);
    cold->rx = 0;
}

void bf_rx_drop(struct bf_worker *w, uint32_t slot)
{
    struct bf_reception *rx = reception_of(w, slot);
    if (!rx)
        return;
    struct bf_ws_rx *context = rx->context;
    context_set(w, rx, NULL, false);
    bf_ws_rx_drop(w->rx_pool, &context);
    stash_drop(w, rx);
    reception_tidy(w, slot);
}

/* Keeps bytes for later. False: no memory for it, or more than a stash. */
static bool stash_append(struct bf_worker *w, uint32_t slot, const uint8_t *bytes, size_t len)
{
    struct bf_reception *rx = reception_take(w, slot);
    if (!rx)
        return false;
    if (rx->stash == 0) {
        rx->stash = bf_slab_take(&w->stashes);
        rx->stash_bytes = 0;
    }
    if (rx->stash == 0 || len > BF_UPGRADE_BYTES_MAX - rx->stash_bytes) {
        reception_tidy(w, slot);
        return false;
    }
    memcpy((uint8_t *)bf_slab_at(&w->stashes, rx->stash) + rx->stash_bytes, bytes, len);
    rx->stash_bytes += (uint32_t)len;
    return true;
}

/* ---- WebSocket ---- */

static void overloaded(struct bf_worker *w, uint32_t slot)
{
    bf_worker_count(&w->core, BF_M_rejected_overload, 1);
    bf_life_close(&w->core, slot, BF_CLOSE_OVERLOADED, "no room for this message now", false);
}

/* No context is free: keep the bytes and stop reading until one is. */
static void block(struct bf_worker *w, uint32_t slot, const uint8_t *bytes, size_t len)
{
    if (!stash_append(w, slot, bytes, len) || !bf_slot_queue_push(&w->blocked, slot)) {
        overloaded(w, slot);
        return;
    }
    bf_hot(&w->core, slot)->flags |= BF_CF_RX_BLOCKED;
}

/* Keeps the context that a message goes on in, or none. |is_new|: another message than before. */
static void keep_context(struct bf_worker *w, uint32_t slot, struct bf_ws_rx *context, bool is_new)
{
    struct bf_reception *rx = context ? reception_take(w, slot) : reception_of(w, slot);
    if (rx) {
        context_set(w, rx, context, is_new);
    } else if (context) {
        bf_ws_rx_drop(w->rx_pool, &context);
        overloaded(w, slot);
    }
}

static void feed(struct bf_worker *w, uint32_t slot, uint8_t *bytes, size_t len)
{
    const struct bf_conn_hot *hot = bf_hot(&w->core, slot);
    struct bf_reception *rx = reception_of(w, slot);
    struct bf_ws_rx *context = rx ? rx->context : NULL;
    bool is_new = false;
    int rc = 0;
    while (len > 0) {
        struct bf_ws_event event;
        size_t used = 0;
        if (BF_UNLIKELY(w->opts.echo) && !bf_echo_has_room(w, slot)) {
            rc = BF_ERR_FULL;
            break;
        }
        rc = bf_ws_rx_feed(w->rx_pool, &context, (hot->flags & BF_CF_DEFLATE) != 0, bytes, len,
                           &used, &event);
        bytes += used;
        len -= used;
        if (rc != 1)
            break;
        is_new |= event.kind <= BF_WS_EV_BINARY;
        if (BF_UNLIKELY(w->opts.echo))
            bf_echo_event(w, slot, &event);
        else
            bf_session_event(&w->session, slot, &event);
        if (bf_hot(&w->core, slot)->state > BF_CONN_LIVE) {
            keep_context(w, slot, context, is_new); /* dropped with the socket */
            return;
        }
    }
    keep_context(w, slot, context, is_new);
    if (rc == BF_ERR_FULL && len > 0)
        block(w, slot, bytes, len);
}

/* ---- request ---- */

static void refuse(struct bf_worker *w, uint32_t slot, int status)
{
    const char *why = status == 431   ? "the request is too large"
                      : status == 503 ? "no room for this request now"
                      : status == 404 ? "the WebSocket is at /v1/ws, server-sent events at /v1/sse"
                      : status == 405 ? "only GET is answered here"
                      : status == 426 ? "WebSocket version 13 is spoken here"
                                      : "bad request";
    bf_session_refuse(&w->session, slot, status, why);
}

/* Parses what is there of a request; what follows it is fed to the WebSocket. Returns false when
 * more is needed. */
static bool parse_request(struct bf_worker *w, uint32_t slot, uint8_t *bytes, size_t len)
{
    struct bf_upgrade up;
    int used = bf_upgrade_parse((const char *)bytes, len, &up);
    if (used == 0)
        return false;
    if (used < 0) {
        refuse(w, slot, -used);
        return true;
    }
    if (BF_UNLIKELY(w->opts.echo))
        bf_echo_upgrade(w, slot, &up);
    else if (up.is_events)
        bf_session_events(&w->session, slot, &up);
    else
        bf_session_upgrade(&w->session, slot, &up);
    uint8_t state = bf_hot(&w->core, slot)->state;
    if ((state == BF_CONN_OPEN || state == BF_CONN_LIVE) && len > (size_t)used && !up.is_events)
        feed(w, slot, bytes + used, len - (size_t)used);
    return true;
}

static void request(struct bf_worker *w, uint32_t slot, uint8_t *bytes, size_t len)
{
    struct bf_reception *rx = reception_of(w, slot);
    if (!rx || rx->stash == 0) {
        if (!parse_request(w, slot, bytes, len) && !stash_append(w, slot, bytes, len))
            refuse(w, slot, 503);
        return;
    }
    if (!stash_append(w, slot, bytes, len)) {
        refuse(w, slot, 431);
        return;
    }
    uint32_t stash = rx->stash;
    uint32_t stashed = rx->stash_bytes;
    /* the stash is parsed in place; the record gives it up first, because bytes after the request
     * may need another stash */
    rx->stash = 0;
    rx->stash_bytes = 0;
    if (parse_request(w, slot, bf_slab_at(&w->stashes, stash), stashed)) {
        bf_slab_put(&w->stashes, stash);
        reception_tidy(w, slot);
    } else {
        rx->stash = stash;
        rx->stash_bytes = stashed;
    }
}

void bf_rx_take(struct bf_worker *w, uint32_t slot, uint8_t *bytes, size_t len)
{
    struct bf_conn_hot *hot = bf_hot(&w->core, slot);
    bf_cold(&w->core, slot)->last_rx = w->core.tick;
    if (BF_UNLIKELY(hot->flags & BF_CF_RX_BLOCKED)) {
        /* TLS: the rest of a read whose first part found no context */
        if (hot->state <= BF_CONN_LIVE && !stash_append(w, slot, bytes, len))
            overloaded(w, slot);
        return;
    }
    if (hot->state == BF_CONN_HTTP)
        request(w, slot, bytes, len);
    else if (hot->state <= BF_CONN_LIVE && !(hot->streams & BF_STREAMS_AS_EVENTS))
        feed(w, slot, bytes, len);
    /* CLOSING, LINGER, an event stream: read to see the peer's end, and forget */
    reception_tidy(w, slot);
}

/* ---- sockets ---- */

void bf_rx_readable(struct bf_worker *w, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(&w->core, slot);
    if (hot->state == BF_CONN_CLOSED)
        return;
    if ((hot->ops & BF_OP_RECV) || (hot->flags & BF_CF_RX_BLOCKED)) {
        hot->flags |= BF_CF_RX_AGAIN;
        return;
    }
    if (BF_UNLIKELY(hot->flags & BF_CF_TLS) && !bf_secure_may_read(w, slot))
        return;
    uint32_t buffer = bf_slab_take(&w->buffers);
    if (buffer == 0) {
        bf_worker_count(&w->core, BF_M_io_no_buffers, 1);
        if (!bf_slot_queue_push(&w->rx_wait, slot))
            bf_life_gone(&w->core, slot, 0);
        return;
    }
    hot->flags &= (uint16_t)~BF_CF_RX_AGAIN;
    hot->ops |= BF_OP_RECV;
    bf_io_recv(w->io, bf_sock_of(w, slot), bf_slab_at(&w->buffers, buffer), BF_RECEIVE_BUFFER_BYTES,
               (uint16_t)buffer);
}

void bf_rx_received(struct bf_worker *w, const struct bf_io_event *event)
{
    struct bf_worker_core *core = &w->core;
    uint32_t slot = event->slot;
    struct bf_conn_hot *hot = bf_hot(core, slot);
    bool is_tls = hot->flags & BF_CF_TLS;
    hot->ops &= (uint8_t)~BF_OP_RECV;
    if (BF_UNLIKELY(is_tls))
        bf_secure_read_done(w, slot);
    if (hot->state == BF_CONN_CLOSED) {
        bf_slab_put(&w->buffers, event->aux);
        return;
    }
    if (event->res > 0) {
        bf_worker_count(core, BF_M_bytes_received, (uint64_t)event->res);
        uint8_t *bytes = bf_slab_at(&w->buffers, event->aux);
        if (BF_UNLIKELY(is_tls))
            bf_secure_received(w, slot, bytes, (size_t)event->res);
        else
            bf_rx_take(w, slot, bytes, (size_t)event->res);
    }
    bf_slab_put(&w->buffers, event->aux);
    if (event->res == 0 || (event->res < 0 && event->res != -EAGAIN && event->res != -EINTR))
        bf_life_gone(core, slot, 0);
    else if (event->res == (int32_t)BF_RECEIVE_BUFFER_BYTES || (hot->flags & BF_CF_RX_AGAIN))
        bf_rx_readable(w, slot);
}

/* One more try for a connection whose bytes waited for a context. */
static void unblock(struct bf_worker *w, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(&w->core, slot);
    struct bf_reception *rx = reception_of(w, slot);
    hot->flags &= (uint16_t)~BF_CF_RX_BLOCKED;
    if (hot->state > BF_CONN_LIVE || !rx || rx->stash == 0) {
        bf_worker_core_try_free(&w->core, slot);
        return;
    }
    uint32_t stash = rx->stash;
    uint32_t bytes = rx->stash_bytes;
    rx->stash = 0;
    rx->stash_bytes = 0;
    feed(w, slot, bf_slab_at(&w->stashes, stash), bytes);
    bf_slab_put(&w->stashes, stash);
    reception_tidy(w, slot);
    if (!(hot->flags & BF_CF_RX_BLOCKED) && hot->state <= BF_CONN_LIVE)
        bf_rx_readable(w, slot);
}

/* Ends receptions whose message takes too long: nobody holds a context for ever. */
static void expire(struct bf_worker *w)
{
    uint32_t limit = w->blocked.count > 0 ? BF_MESSAGE_CROWDED_MS : BF_MESSAGE_DEADLINE_MS;
    while (w->rx_oldest != 0) {
        const struct bf_reception *rx = bf_slab_at(&w->receptions, w->rx_oldest);
        uint32_t slot = rx->slot;
        if (w->core.tick - rx->since <= bf_ticks_of(limit))
            break;
        bf_worker_count(&w->core, BF_M_closes_unfinished, 1);
        bf_life_close(&w->core, slot, 1008, "message not finished in time", false);
        bf_rx_drop(w, slot);
    }
}

void bf_rx_retry(struct bf_worker *w)
{
    expire(w);
    /* no more than there are buffers: the others would only be queued again */
    uint32_t free_buffers = w->buffers.cap - w->buffers.used;
    uint32_t tries = w->rx_wait.count < free_buffers ? w->rx_wait.count : free_buffers;
    for (; tries > 0; tries--) {
        uint32_t slot = bf_slot_queue_pop(&w->rx_wait);
        if (bf_hot(&w->core, slot)->state != BF_CONN_FREE)
            bf_rx_readable(w, slot);
    }
    for (uint32_t n = w->blocked.count; n > 0; n--)
        unblock(w, bf_slot_queue_pop(&w->blocked));
}
