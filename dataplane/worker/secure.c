/* See secure.h. */
#include "worker/secure.h"

#include <errno.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "channel/channel.h"
#include "session/life.h"
#include "worker/worker.h"

/* The answer to plain HTTP on the TLS port. */
static const char http_answer[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"
                                  "Content-Type: text/plain\r\nContent-Length: 22\r\n\r\n"
                                  "this port speaks TLS\r\n";

static const uint32_t class_bytes[BF_CIPHER_COUNT] = {
    [BF_CIPHER_SMALL] = BF_CIPHER_SMALL_BYTES,
    [BF_CIPHER_MEDIUM] = BF_CIPHER_MEDIUM_BYTES,
    [BF_CIPHER_LARGE] = BF_CIPHER_LARGE_BYTES,
};

static struct bf_secure_conn *conn_of(struct bf_worker *w, uint32_t slot)
{
    return &w->secure.conns[slot];
}

/* ---- start ---- */

int bf_secure_init(struct bf_worker *w, const struct bf_memory_plan *budget, uint32_t slots)
{
    struct bf_secure *s = &w->secure;
    struct bf_arena *arena = &w->arena;
    const uint32_t counts[BF_CIPHER_COUNT] = {0, budget->cipher_small, budget->cipher_medium,
                                              budget->cipher_large};
    static const char *const holders[BF_CIPHER_COUNT] = {NULL, "ciphertext, small",
                                                         "ciphertext, medium", "ciphertext, large"};
    int rc = 0;
    s->conns = bf_arena_take(arena, "TLS connections", slots, sizeof(*s->conns));
    s->fresh.slots = bf_arena_take(arena, "handshakes, fresh", slots, sizeof(uint32_t));
    s->middle.slots = bf_arena_take(arena, "handshakes, middle", slots, sizeof(uint32_t));
    s->fresh.cap = s->middle.cap = slots;
    s->flight = bf_arena_take(arena, "handshake output", 1, BF_TLS_FLIGHT_BYTES_MAX);
    s->plain = bf_arena_take(arena, "decrypted", 1, BF_RECEIVE_BUFFER_BYTES);
    if (!s->conns || !s->fresh.slots || !s->middle.slots || !s->flight || !s->plain)
        return BF_ERR_NO_MEMORY;
    for (uint32_t c = BF_CIPHER_SMALL; c < BF_CIPHER_COUNT && rc == 0; c++)
        rc = bf_arena_slab(arena, holders[c], counts[c], class_bytes[c], &s->out[c]);
    s->step_ns = BF_TLS_STEP_NS;
    if (rc == 0)
        rc = bf_secure_kernel_init(w);
    if (rc == 0)
        rc = bf_tls_engine_create(&s->engine);
    if (rc == 0 && w->opts.tls_records_max != 0)
        bf_tls_engine_wear(s->engine, w->opts.tls_records_max);
    return rc;
}

void bf_secure_fini(struct bf_worker *w)
{
    struct bf_conns *conns = &w->core.conns;
    /* connections that a stop did not wait for */
    if (w->secure.server) {
        for (uint32_t slot = bf_conns_skip(conns, 0); slot < conns->cap;
             slot = bf_conns_skip(conns, slot + 1))
            if (conns->hot[slot].flags & BF_CF_TLS)
                bf_tls_free(&conn_of(w, slot)->tls);
    }
    bf_tls_server_destroy(w->secure.server);
    bf_tls_engine_destroy(w->secure.engine);
}

int bf_secure_configure(struct bf_worker *w, const uint8_t *content, size_t len)
{
    struct bf_secure *s = &w->secure;
    struct bf_tls_server *fresh = NULL;
    char err[256];
    uint64_t hash = bf_tls_server_hash(content, len);
    if (hash == s->server_hash)
        return 0;
    int rc = bf_tls_server_create(content, len, &fresh, err, sizeof(err));
    if (rc == BF_ERR_NOT_FOUND)
        return 0;
    if (rc != 0) {
        BF_ERROR("dataplane", "worker %u: TLS: %s; the certificates in force stay", w->core.worker,
                 err[0] ? err : bf_err_text(rc));
        return rc;
    }
    bf_tls_server_destroy(s->server); /* sessions made from it go on */
    s->server = fresh;
    s->server_hash = hash;
    s->wants_kernel = bf_tls_server_wants_kernel(fresh);
    if (s->wants_kernel && w->opts.ktls_suites == 0 && w->core.worker == 0)
        BF_WARN("dataplane",
                "tls.kernel: this kernel makes no TLS records (module tls, Linux 6.7); "
                "they are made as under tls.lean");
    return 0;
}

/* ---- handshakes: whose turn it is ---- */

void bf_secure_start(struct bf_worker *w, uint32_t slot)
{
    bf_hot(&w->core, slot)->flags |= BF_CF_TLS;
    *conn_of(w, slot) = (struct bf_secure_conn){0};
    w->secure.open++;
    bf_metric_set(w->core.stats, BF_M_tls_connections, w->secure.open);
}

bool bf_secure_may_read(struct bf_worker *w, uint32_t slot)
{
    struct bf_secure *s = &w->secure;
    struct bf_secure_conn *conn = conn_of(w, slot);
    if (conn->tls.state == BF_TLS_OPEN || conn->tls.state == BF_TLS_ENDED ||
        (conn->flags & BF_SF_GRANTED))
        return true;
    if (conn->out != 0) { /* our answer comes first */
        bf_hot(&w->core, slot)->flags |= BF_CF_RX_AGAIN;
        return false;
    }
    if (conn->flags & BF_SF_QUEUED)
        return false;
    conn->flags |= BF_SF_QUEUED;
    if (!bf_slot_queue_push(conn->tls.state == BF_TLS_NONE ? &s->fresh : &s->middle, slot)) {
        bf_worker_count(&w->core, BF_M_tls_overload, 1);
        bf_life_gone(&w->core, slot, 0);
    }
    return false;
}

static uint32_t steps_of_turn(const struct bf_secure *s)
{
    uint64_t steps = BF_TLS_TURN_NS / (s->step_ns > 0 ? s->step_ns : 1);
    return steps < 1 ? 1 : steps > BF_TLS_STEPS_MAX ? BF_TLS_STEPS_MAX : (uint32_t)steps;
}

/* The queue whose turn it is; NULL: nobody may go on now. */
static struct bf_slot_queue *next_queue(struct bf_secure *s)
{
    if (s->middle.count > 0)
        return &s->middle;
    return s->fresh.count > 0 && s->handshakes < BF_TLS_HANDSHAKES_MAX ? &s->fresh : NULL;
}

bool bf_secure_has_work(const struct bf_worker *w)
{
    return next_queue((struct bf_secure *)(uintptr_t)&w->secure) != NULL;
}

void bf_secure_turn(struct bf_worker *w)
{
    struct bf_secure *s = &w->secure;
    struct bf_slot_queue *queue;
    uint32_t steps = steps_of_turn(s);
    /* entries of connections that are gone cost a look each, so they are bounded too */
    for (uint32_t looks = 0; looks < BF_REAP_PER_TURN && s->granted < steps; looks++) {
        if (!(queue = next_queue(s)))
            break;
        uint32_t slot = bf_slot_queue_pop(queue);
        struct bf_conn_hot *hot = bf_hot(&w->core, slot);
        struct bf_secure_conn *conn = conn_of(w, slot);
        if (!(hot->flags & BF_CF_TLS) || !(conn->flags & BF_SF_QUEUED) ||
            hot->state == BF_CONN_FREE || hot->state == BF_CONN_CLOSED)
            continue;
        conn->flags &= (uint8_t)~BF_SF_QUEUED;
        conn->flags |= BF_SF_GRANTED;
        s->granted++;
        bf_rx_readable(w, slot);
        if (!(hot->ops & BF_OP_RECV))
            bf_secure_read_done(w, slot); /* no buffer: it waits for one, then for a turn again */
    }
    bf_metric_set(w->core.stats, BF_M_tls_handshakes_waiting, s->middle.count + s->fresh.count);
}

void bf_secure_read_done(struct bf_worker *w, uint32_t slot)
{
    struct bf_secure_conn *conn = conn_of(w, slot);
    if (!(conn->flags & BF_SF_GRANTED))
        return;
    conn->flags &= (uint8_t)~BF_SF_GRANTED;
    w->secure.granted--;
}

/* ---- ciphertext buffers ---- */

/* A buffer of |bytes|, or the largest below it. 0: there is none at all. */
static uint32_t out_take(struct bf_worker *w, struct bf_secure_conn *conn, size_t bytes)
{
    uint8_t c = bytes <= BF_CIPHER_SMALL_BYTES    ? BF_CIPHER_SMALL
                : bytes <= BF_CIPHER_MEDIUM_BYTES ? BF_CIPHER_MEDIUM
                                                  : BF_CIPHER_LARGE;
    BF_BUG_ON(conn->out != 0);
    for (; c >= BF_CIPHER_SMALL; c--) {
        conn->out = bf_slab_take(&w->secure.out[c]);
        if (conn->out != 0) {
            conn->out_class = c;
            conn->out_at = conn->out_len = 0;
            conn->out_plain = 0;
            return class_bytes[c];
        }
    }
    return 0;
}

static uint8_t *out_bytes(struct bf_worker *w, const struct bf_secure_conn *conn)
{
    return bf_slab_at(&w->secure.out[conn->out_class], conn->out);
}

static void out_put(struct bf_worker *w, struct bf_secure_conn *conn)
{
    if (conn->out == 0)
        return;
    bf_slab_put(&w->secure.out[conn->out_class], conn->out);
    conn->out = 0;
}

static void out_send(struct bf_worker *w, uint32_t slot)
{
    struct bf_secure_conn *conn = conn_of(w, slot);
    bf_hot(&w->core, slot)->ops |= BF_OP_SEND;
    bf_io_send(w->io, bf_sock_of(w, slot), out_bytes(w, conn) + conn->out_at,
               (size_t)(conn->out_len - conn->out_at));
    bf_worker_count(&w->core, BF_M_sends, 1);
}

/* Sends what a read or a close has written. False: it cannot be sent, and the stream is broken. */
static bool say(struct bf_worker *w, uint32_t slot, const uint8_t *bytes, size_t len)
{
    struct bf_secure_conn *conn = conn_of(w, slot);
    if (conn->out != 0 || (bf_hot(&w->core, slot)->ops & BF_OP_SEND))
        return false;
    if (conn->flags & BF_SF_KERNEL)
        return len == 2 && bf_secure_alert(w, slot, bytes);
    if (out_take(w, conn, len) < len) {
        bf_worker_count(&w->core, BF_M_tls_overload, 1);
        out_put(w, conn);
        return false;
    }
    memcpy(out_bytes(w, conn), bytes, len);
    conn->out_len = (uint16_t)len;
    out_send(w, slot);
    return true;
}

/* ---- bytes in ---- */

static void handshake_over(struct bf_worker *w, struct bf_secure_conn *conn)
{
    if (conn->flags & BF_SF_COUNTED)
        w->secure.handshakes--;
    conn->flags &= (uint8_t)~BF_SF_COUNTED;
}

static void count_handshake(struct bf_worker *w, struct bf_secure_conn *conn)
{
    struct bf_tls_info info;
    bf_tls_info(&conn->tls, &info);
    bf_worker_count(&w->core, BF_M_tls_handshakes, 1);
    if (info.is_resumed)
        bf_worker_count(&w->core, BF_M_tls_handshakes_resumed, 1);
}

/* Keeps count of sessions with a part of a record. False: too many. */
static bool note_partial(struct bf_worker *w, struct bf_secure_conn *conn)
{
    bool was = conn->flags & BF_SF_PARTIAL;
    bool is = conn->tls.is_partial;
    if (is && !was && w->secure.partials == BF_TLS_PARTIALS_MAX)
        return false;
    if (is != was) {
        conn->flags ^= BF_SF_PARTIAL;
        w->secure.partials += is ? 1u : (uint32_t)-1;
    }
    return true;
}

/* Reads until the input is taken. Returns 0 or what bf_tls_read said. */
static int decrypt(struct bf_worker *w, uint32_t slot, struct bf_tls_io *io)
{
    struct bf_secure *s = &w->secure;
    struct bf_secure_conn *conn = conn_of(w, slot);
    bool was_open = conn->tls.state != BF_TLS_HANDSHAKE;
    int n;
    do {
        n = bf_tls_read(s->engine, &conn->tls, io, s->plain, BF_RECEIVE_BUFFER_BYTES);
        if (!was_open && conn->tls.state == BF_TLS_OPEN) {
            was_open = true;
            handshake_over(w, conn);
            count_handshake(w, conn);
            if (s->wants_kernel && conn->tls.is_lean)
                conn->flags |= BF_SF_OFFER;
        }
        if (n > 0)
            bf_rx_take(w, slot, s->plain, (size_t)n);
    } while (n > 0 && bf_hot(&w->core, slot)->state != BF_CONN_CLOSED);
    return n < 0 ? n : 0;
}

static void fail(struct bf_worker *w, uint32_t slot, struct bf_tls_io *io, bool was_handshake)
{
    struct bf_secure_conn *conn = conn_of(w, slot);
    bf_worker_count(&w->core, was_handshake ? BF_M_tls_handshakes_failed : BF_M_tls_records_bad, 1);
    if (conn->tls.error == BF_TLS_E_HTTP)
        (void)say(w, slot, (const uint8_t *)http_answer, sizeof(http_answer) - 1);
    else if (io->out_len > 0)
        (void)say(w, slot, io->out, io->out_len); /* the alert; the close follows it */
    bf_life_gone(&w->core, slot, 0);
}

static bool begin(struct bf_worker *w, uint32_t slot)
{
    struct bf_secure *s = &w->secure;
    struct bf_secure_conn *conn = conn_of(w, slot);
    if (conn->tls.state != BF_TLS_NONE)
        return true;
    if (!s->server || bf_tls_accept(s->engine, s->server, &conn->tls) != 0) {
        bf_worker_count(&w->core, BF_M_tls_overload, 1);
        bf_life_gone(&w->core, slot, 0);
        return false;
    }
    conn->flags |= BF_SF_COUNTED;
    s->handshakes++;
    return true;
}

void bf_secure_received(struct bf_worker *w, uint32_t slot, const uint8_t *bytes, size_t len)
{
    struct bf_secure *s = &w->secure;
    struct bf_worker_core *core = &w->core;
    struct bf_secure_conn *conn = conn_of(w, slot);
    struct bf_tls_io io = {
        .in = bytes, .in_len = len, .out = s->flight, .out_cap = BF_TLS_FLIGHT_BYTES_MAX};
    if (!begin(w, slot))
        return;
    bool was_handshake = conn->tls.state == BF_TLS_HANDSHAKE;
    uint64_t start_ns = was_handshake ? bf_mono_ns() : 0;
    int rc = decrypt(w, slot, &io);
    if (was_handshake) /* an eighth of the news: the cost of a step is no secret of one client */
        s->step_ns = (s->step_ns * 7 + (bf_mono_ns() - start_ns)) / 8;
    if (bf_hot(core, slot)->state == BF_CONN_CLOSED)
        return;
    if (rc != 0) {
        fail(w, slot, &io, was_handshake);
    } else if (!note_partial(w, conn)) {
        bf_worker_count(core, BF_M_tls_overload, 1);
        bf_life_gone(core, slot, 0);
    } else if (io.out_len > 0 && !say(w, slot, io.out, io.out_len)) {
        bf_life_gone(core, slot, 0);
    } else if (conn->tls.state == BF_TLS_ENDED) {
        bf_life_gone(core, slot, 0);
    } else if (conn->flags & BF_SF_KERNEL) {
        bf_secure_kernel_look(w, slot);
    }
}

/* ---- bytes out ---- */

bool bf_secure_is_drained(struct bf_worker *w, uint32_t slot)
{
    const struct bf_secure_conn *conn = conn_of(w, slot);
    bool may_speak = conn->tls.state == BF_TLS_OPEN;
    return conn->out == 0 && (!may_speak || (conn->flags & BF_SF_CLOSED));
}

/* Sends close_notify after our close frame. */
static bool send_close(struct bf_worker *w, uint32_t slot)
{
    struct bf_secure_conn *conn = conn_of(w, slot);
    struct bf_tls_io io = {.out = w->secure.flight, .out_cap = BF_TLS_RECORD_OVERHEAD};
    if (conn->tls.state != BF_TLS_OPEN || (conn->flags & BF_SF_CLOSED))
        return false;
    conn->flags |= BF_SF_CLOSED;
    bf_tls_close(w->secure.engine, &conn->tls, &io);
    return io.out_len > 0 && say(w, slot, io.out, io.out_len);
}

bool bf_secure_send(struct bf_worker *w, uint32_t slot)
{
    struct bf_worker_core *core = &w->core;
    struct bf_secure_conn *conn = conn_of(w, slot);
    if (conn->out != 0) {
        out_send(w, slot);
        return true;
    }
    if (conn->tls.state != BF_TLS_OPEN) {
        bf_channel_drop(core, slot); /* an end before the handshake's: there is nobody to tell */
        return false;
    }
    if (conn->flags & BF_SF_KERNEL)
        return bf_secure_kernel_send(w, slot);
    if ((conn->flags & BF_SF_OFFER) && bf_secure_offer(w, slot))
        return true;
    struct bf_send batch = bf_channel_batch(core, slot, w->copies + w->copied, BF_COALESCE_BYTES);
    if (batch.len == 0) {
        const struct bf_conn_hot *hot = bf_hot(core, slot);
        return hot->state == BF_CONN_CLOSING && hot->queue_head == 0 && send_close(w, slot);
    }
    size_t len = batch.len < BF_TLS_WRITE_BYTES_MAX ? batch.len : BF_TLS_WRITE_BYTES_MAX;
    size_t cap = out_take(w, conn, len + BF_TLS_RECORD_OVERHEAD);
    BF_BUG_ON(cap == 0); /* there is a small one for every connection */
    if (len > cap - BF_TLS_RECORD_OVERHEAD)
        len = cap - BF_TLS_RECORD_OVERHEAD;
    struct bf_tls_io io = {.out = out_bytes(w, conn), .out_cap = cap};
    if (bf_tls_write(w->secure.engine, &conn->tls, &io, batch.bytes, len) != 0) {
        (void)bf_channel_sent(core, slot, 0);
        out_put(w, conn);
        bf_worker_count(core, BF_M_tls_overload, 1);
        bf_life_gone(core, slot, 0);
        return false;
    }
    conn->out_len = (uint16_t)io.out_len;
    conn->out_plain = (uint32_t)len;
    out_send(w, slot);
    return true;
}

/* The frames of a buffer leave the queue with its first completion: what the socket has not taken
 * is ours to send, whatever becomes of them. */
static void settle(struct bf_worker *w, uint32_t slot, bool taken)
{
    struct bf_secure_conn *conn = conn_of(w, slot);
    if (conn->out_plain > 0)
        (void)bf_channel_sent(&w->core, slot, taken ? conn->out_plain : 0);
    conn->out_plain = 0;
}

void bf_secure_sent(struct bf_worker *w, const struct bf_io_event *event)
{
    struct bf_worker_core *core = &w->core;
    uint32_t slot = event->slot;
    struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_secure_conn *conn = conn_of(w, slot);
    bool failed = event->res < 0 && event->res != -EAGAIN && event->res != -EINTR;
    uint32_t bytes = event->res > 0 ? (uint32_t)event->res : 0;
    hot->ops &= (uint8_t)~BF_OP_SEND;
    settle(w, slot, !failed);
    bf_worker_count(core, BF_M_bytes_sent, bytes);
    if (bytes > 0)
        bf_tx_stamp(w, slot);
    conn->out_at = (uint16_t)(conn->out_at + bytes);
    if (hot->state == BF_CONN_CLOSED) {
        out_put(w, conn);
        bf_channel_drop(core, slot);
    } else if (failed) {
        bf_worker_count(core, BF_M_sends_failed, 1);
        bf_life_gone(core, slot, 0);
    } else if (conn->out_at < conn->out_len) {
        bf_worker_count(core, BF_M_sends_short, 1);
        bf_tx_wait(w, slot);
    } else {
        out_put(w, conn);
        if (hot->queue_head != 0 || hot->state == BF_CONN_CLOSING)
            bf_ready_add(core, slot, false);
        if (hot->flags & BF_CF_RX_AGAIN)
            bf_rx_readable(w, slot);
    }
}

void bf_secure_drop(struct bf_worker *w, uint32_t slot)
{
    struct bf_secure *s = &w->secure;
    struct bf_secure_conn *conn = conn_of(w, slot);
    handshake_over(w, conn);
    if (conn->flags & BF_SF_PARTIAL)
        s->partials--;
    if (conn->flags & BF_SF_KERNEL)
        bf_metric_set(w->core.stats, BF_M_ktls_connections, --s->by_kernel);
    /* until its receive has ended; and whose its send is */
    conn->flags &= BF_SF_GRANTED | BF_SF_KERNEL;
    bf_tls_free(&conn->tls);
    if (!(bf_hot(&w->core, slot)->ops & BF_OP_SEND)) {
        settle(w, slot, true);
        out_put(w, conn);
    }
    s->open--;
    bf_metric_set(w->core.stats, BF_M_tls_connections, s->open);
}
