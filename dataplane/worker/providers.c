/* See providers.h. */
#include "worker/providers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "worker/worker.h"

static struct bf_provider_conn *conn_of(struct bf_worker *w, uint32_t index)
{
    return &w->providers.conns[index];
}

static struct bf_io_sock sock_of(struct bf_worker *w, uint32_t index)
{
    const struct bf_provider_conn *c = conn_of(w, index);
    return (struct bf_io_sock){.slot = w->providers.first_slot + index,
                               .generation = c->generation,
                               .file = c->file,
                               .ring = 0};
}

static bool has_op(const struct bf_provider_conn *c, enum bf_io_op op)
{
    return c->ops & (1u << op);
}

static void set_op(struct bf_provider_conn *c, enum bf_io_op op)
{
    c->ops = (uint16_t)(c->ops | 1u << op);
}

static void clear_op(struct bf_provider_conn *c, enum bf_io_op op)
{
    c->ops = (uint16_t)(c->ops & ~(1u << op));
}

/* ---- ends ---- */

static void out_put(struct bf_worker *w, struct bf_provider_conn *c)
{
    if (c->out != 0)
        bf_slab_put(&w->providers.out, c->out);
    c->out = 0;
}

static void try_free(struct bf_worker *w, uint32_t index)
{
    struct bf_provider_conn *c = conn_of(w, index);
    if (c->state != BF_OUT_CLOSED || c->ops != 0 || c->cancels[0] || c->cancels[1] || c->rx_waits)
        return;
    out_put(w, c);
    c->state = BF_OUT_FREE;
    c->generation++;
    w->providers.open--;
    bf_push_released(&w->push, index);
}

static void cancel(struct bf_worker *w, uint32_t index, enum bf_io_op op, uint32_t which)
{
    struct bf_provider_conn *c = conn_of(w, index);
    if (!has_op(c, op))
        return;
    c->cancels[which] = true;
    bf_io_cancel(w->io, sock_of(w, index), op);
}

/* The socket goes, with whatever was not said. */
static void finish(struct bf_worker *w, uint32_t index)
{
    struct bf_provider_conn *c = conn_of(w, index);
    w->providers.closing -= c->state == BF_OUT_CLOSING;
    bf_tls_free(&c->tls);
    c->state = BF_OUT_CLOSED;
    cancel(w, index, BF_IO_POLL, 0);
    cancel(w, index, has_op(c, BF_IO_CONNECT) ? BF_IO_CONNECT : BF_IO_POLLOUT, 1);
    set_op(c, BF_IO_CLOSE);
    bf_io_close(w->io, sock_of(w, index));
}

/* ---- bytes out ---- */

static void send_out(struct bf_worker *w, uint32_t index)
{
    struct bf_provider_conn *c = conn_of(w, index);
    const uint8_t *bytes = bf_slab_at(&w->providers.out, c->out);
    set_op(c, BF_IO_SEND);
    bf_io_send(w->io, sock_of(w, index), bytes + c->out_at, c->out_len - c->out_at);
    bf_worker_count(&w->core, BF_M_sends, 1);
}

/* A buffer to fill; NULL: the connection has one that is not sent, or there is none. */
static uint8_t *out_take(struct bf_worker *w, struct bf_provider_conn *c)
{
    if (c->out != 0 || (c->out = bf_slab_take(&w->providers.out)) == 0)
        return NULL;
    c->out_at = c->out_len = c->out_plain = 0;
    return bf_slab_at(&w->providers.out, c->out);
}

/* Appends the last bytes and TLS's close_notify (RFC 8446 section 6.1) to what is being sent. */
static void put_last(struct bf_worker *w, struct bf_provider_conn *c, const uint8_t *last,
                     size_t len)
{
    bool can_say =
        c->state == BF_OUT_OPEN && (c->tls.state == BF_TLS_OPEN || c->tls.state == BF_TLS_ENDED);
    if (!can_say || (c->out == 0 && !out_take(w, c)))
        return;
    struct bf_tls_io io = {.out = (uint8_t *)bf_slab_at(&w->providers.out, c->out) + c->out_len,
                           .out_cap = BF_PROVIDER_WRITE_BYTES - c->out_len};
    size_t needs = len + BF_TLS_RECORD_OVERHEAD * (2u + len / BF_TLS_WRITE_BYTES_MAX);
    for (size_t at = 0; at < len && needs <= io.out_cap;) {
        size_t n = len - at < BF_TLS_WRITE_BYTES_MAX ? len - at : BF_TLS_WRITE_BYTES_MAX;
        if (bf_tls_write(w->secure.engine, &c->tls, &io, last + at, n) != 0)
            break;
        at += n;
    }
    if (io.out_cap - io.out_len >= BF_TLS_RECORD_OVERHEAD)
        bf_tls_close(w->secure.engine, &c->tls, &io);
    c->out_len += (uint32_t)io.out_len;
}

/*
 * Push ends a connection. What is to be said is sent, then our direction is shut, and what the peer
 * still sends is read away until it ends too: a socket that is closed over unread bytes resets the
 * connection, and the peer may never read why. Bounded by BF_PROVIDER_LINGER_MS.
 */
static void close_conn(void *context, uint32_t index, const uint8_t *last, size_t len)
{
    struct bf_worker *w = context;
    struct bf_provider_conn *c = conn_of(w, index);
    if (c->state == BF_OUT_FREE) { /* it was never opened */
        bf_push_released(&w->push, index);
        return;
    }
    if (!c->tx_dead)
        put_last(w, c, last, len);
    if (c->tx_dead || c->out == 0 || c->out_at == c->out_len || c->state == BF_OUT_CONNECTING) {
        finish(w, index);
        return;
    }
    bf_tls_free(&c->tls);
    c->state = BF_OUT_CLOSING;
    c->closing_ms = w->core.mono_ms;
    w->providers.closing++;
    if (!has_op(c, BF_IO_SEND) && !has_op(c, BF_IO_POLLOUT))
        send_out(w, index);
}

/* Peers that do not end a connection that we have ended. */
static void finish_late(struct bf_worker *w)
{
    struct bf_provider_sockets *o = &w->providers;
    uint64_t now = w->core.mono_ms;
    if (o->closing == 0 || now - o->closing_look_ms < BF_PUSH_KEEP_MS)
        return;
    o->closing_look_ms = now;
    for (uint32_t i = 0; i < o->conns_max && i < w->push.conn_bump; i++)
        if (o->conns[i].state == BF_OUT_CLOSING &&
            now - o->conns[i].closing_ms > BF_PROVIDER_LINGER_MS)
            finish(w, i);
}

/* All is said. */
static void said_all(struct bf_worker *w, uint32_t index)
{
    struct bf_provider_conn *c = conn_of(w, index);
    if (c->rx_ended) {
        finish(w, index);
        return;
    }
    set_op(c, BF_IO_SHUTDOWN);
    bf_io_shutdown(w->io, sock_of(w, index));
}

static void read_conn(struct bf_worker *w, uint32_t index, bool may_step);

/* The peer takes no more bytes, but what it said before may still lie in the socket: answers, or
 * the GOAWAY that tells which requests it has not processed. That is read up to the end, which
 * closes the connection; until then it gets no new requests. */
static void send_failed(struct bf_worker *w, uint32_t index, int res)
{
    struct bf_provider_conn *c = conn_of(w, index);
    if (c->state == BF_OUT_CLOSING) {
        finish(w, index);
        return;
    }
    if (c->state != BF_OUT_OPEN) {
        char text[96];
        snprintf(text, sizeof(text), "send: %s", strerror(-res));
        bf_push_closed(&w->push, index, text);
        return;
    }
    c->tx_dead = true;
    out_put(w, c);
    bf_push_drain(&w->push, index);
    read_conn(w, index, false);
}

static void sent(struct bf_worker *w, uint32_t index, int res)
{
    struct bf_provider_conn *c = conn_of(w, index);
    if (c->state == BF_OUT_CLOSED)
        return;
    if (res < 0 && res != -EAGAIN && res != -EINTR) {
        send_failed(w, index, res);
        return;
    }
    c->out_at += res > 0 ? (uint32_t)res : 0;
    bf_worker_count(&w->core, BF_M_push_bytes_sent, res > 0 ? (uint64_t)res : 0);
    if (c->out_at < c->out_len) {
        set_op(c, BF_IO_POLLOUT);
        bf_io_pollout(w->io, sock_of(w, index));
        return;
    }
    out_put(w, c);
    if (c->state == BF_OUT_CLOSING)
        said_all(w, index);
    if (c->state == BF_OUT_OPEN) {
        bf_push_sent(&w->push, index, c->out_plain);
        bf_push_blocked(&w->push, index, false);
    }
}

/* Encrypts |len| bytes of plaintext, a record after the other. 0 or what bf_tls_write said. */
static int encrypt(struct bf_worker *w, struct bf_provider_conn *c, struct bf_tls_io *io,
                   size_t len)
{
    int rc = 0;
    for (size_t at = 0; at < len && rc == 0; at += BF_TLS_WRITE_BYTES_MAX) {
        size_t n = len - at < BF_TLS_WRITE_BYTES_MAX ? len - at : BF_TLS_WRITE_BYTES_MAX;
        rc = bf_tls_write(w->secure.engine, &c->tls, io, w->providers.plain + at, n);
    }
    return rc;
}

/* Pulls plaintext and sends it. */
static void write_conn(struct bf_worker *w, uint32_t index)
{
    struct bf_provider_conn *c = conn_of(w, index);
    uint8_t *to = c->state == BF_OUT_OPEN && !c->tx_dead ? out_take(w, c) : NULL;
    if (!to)
        return; /* when what it has is sent, or a buffer is free again, push is asked again */
    size_t len = bf_push_pull(&w->push, index, w->providers.plain, BF_PROVIDER_PLAIN_BYTES);
    if (len == 0) {
        out_put(w, c);
        return;
    }
    struct bf_tls_io io = {.out = to, .out_cap = BF_PROVIDER_WRITE_BYTES};
    if (encrypt(w, c, &io, len) != 0) {
        bf_push_closed(&w->push, index, "TLS: a record could not be written");
        return;
    }
    c->out_len = (uint32_t)io.out_len;
    c->out_plain = (uint32_t)len;
    bf_push_blocked(&w->push, index, true);
    send_out(w, index);
}

/* ---- bytes in ---- */

/* Reads the socket, or remembers that it is to be read. */
static void read_conn(struct bf_worker *w, uint32_t index, bool may_step)
{
    struct bf_provider_sockets *o = &w->providers;
    struct bf_provider_conn *c = conn_of(w, index);
    c->rx_again = true;
    if (c->state == BF_OUT_CLOSED || has_op(c, BF_IO_RECV))
        return;
    bool is_cheap = c->state == BF_OUT_OPEN || c->state == BF_OUT_CLOSING;
    uint32_t buffer = is_cheap || may_step ? bf_slab_take(&o->reads) : 0;
    if (buffer == 0) {
        if (!c->rx_waits)
            c->rx_waits = bf_slot_queue_push(&o->waits, index);
        return;
    }
    c->rx_again = false;
    set_op(c, BF_IO_RECV);
    bf_io_recv(w->io, sock_of(w, index), bf_slab_at(&o->reads, buffer), BF_PROVIDER_READ_BYTES,
               (uint16_t)buffer);
}

/* Those that waited for a buffer, or for the turn of their handshake. */
static void read_waiting(struct bf_worker *w)
{
    struct bf_provider_sockets *o = &w->providers;
    uint32_t steps = 0;
    for (uint32_t n = o->waits.count; n > 0; n--) {
        uint32_t index = bf_slot_queue_pop(&o->waits);
        struct bf_provider_conn *c = conn_of(w, index);
        c->rx_waits = false;
        if (c->state == BF_OUT_CLOSED) {
            try_free(w, index);
            continue;
        }
        bool may_step = c->state == BF_OUT_HANDSHAKE && steps < BF_PROVIDER_STEPS_PER_TURN;
        steps += may_step;
        read_conn(w, index, may_step);
    }
}

static bool is_h2(const struct bf_provider_conn *c)
{
    struct bf_tls_info info;
    bf_tls_info(&c->tls, &info);
    return strcmp(info.alpn, "h2") == 0;
}

/* Sends what the handshake or a close has written. False: no room. */
static bool say(struct bf_worker *w, uint32_t index, const struct bf_tls_io *io)
{
    struct bf_provider_conn *c = conn_of(w, index);
    if (io->out_len == 0 || c->tx_dead)
        return true;
    uint8_t *to = out_take(w, c);
    if (!to)
        return false;
    memcpy(to, io->out, io->out_len);
    c->out_len = (uint32_t)io->out_len;
    send_out(w, index);
    return true;
}

/* |io|: the alert that says why to the peer (RFC 8446 section 6.2). */
static void tls_failed(struct bf_worker *w, uint32_t index, const struct bf_tls_io *io)
{
    struct bf_provider_conn *c = conn_of(w, index);
    char text[128];
    if (io->out_len > 0 && !c->tx_dead && out_take(w, c)) {
        memcpy(bf_slab_at(&w->providers.out, c->out), io->out, io->out_len);
        c->out_len = (uint32_t)io->out_len;
    }
    snprintf(text, sizeof(text), "TLS: %s",
             bf_tls_error_text((enum bf_tls_error)conn_of(w, index)->tls.error));
    bf_push_closed(&w->push, index, text);
}

/* The handshake is over: HTTP/2 begins, if that is what was agreed. False: it was not. */
static bool opened(struct bf_worker *w, uint32_t index)
{
    struct bf_provider_conn *c = conn_of(w, index);
    if (!is_h2(c)) {
        bf_push_closed(&w->push, index, "TLS: the peer does not speak h2 (ALPN)");
        return false;
    }
    c->state = BF_OUT_OPEN;
    bf_push_opened(&w->push, index);
    return c->state == BF_OUT_OPEN;
}

static void decrypt(struct bf_worker *w, uint32_t index, const uint8_t *bytes, size_t len)
{
    struct bf_provider_sockets *o = &w->providers;
    struct bf_provider_conn *c = conn_of(w, index);
    struct bf_tls_io io = {
        .in = bytes, .in_len = len, .out = w->secure.flight, .out_cap = BF_TLS_FLIGHT_BYTES_MAX};
    int n;
    do {
        n = bf_tls_read(w->secure.engine, &c->tls, &io, o->plain, BF_TLS_WRITE_BYTES_MAX);
        if (n >= 0 && c->state == BF_OUT_HANDSHAKE && c->tls.state >= BF_TLS_OPEN &&
            !opened(w, index))
            return;
        if (n > 0)
            bf_push_received(&w->push, index, o->plain, (size_t)n);
    } while (n > 0 && c->state < BF_OUT_CLOSING);
    if (c->state >= BF_OUT_CLOSING)
        return;
    if (n < 0)
        tls_failed(w, index, &io);
    else if (!say(w, index, &io))
        bf_push_closed(&w->push, index, "TLS: an answer could not be sent");
    else if (c->tls.state == BF_TLS_ENDED)
        bf_push_closed(&w->push, index, "closed by the peer");
}

static void received(struct bf_worker *w, uint32_t index, const struct bf_io_event *event)
{
    struct bf_provider_sockets *o = &w->providers;
    struct bf_provider_conn *c = conn_of(w, index);
    int res = event->res;
    c->rx_ended = c->rx_ended || res == 0;
    if (res > 0 && c->state < BF_OUT_CLOSING) {
        bf_worker_count(&w->core, BF_M_push_bytes_received, (uint64_t)res);
        decrypt(w, index, bf_slab_at(&o->reads, event->aux), (size_t)res);
    }
    bf_slab_put(&o->reads, event->aux);
    if (c->state == BF_OUT_CLOSED)
        return;
    bool is_over = res == 0 || (res < 0 && res != -EAGAIN && res != -EINTR);
    if (c->state == BF_OUT_CLOSING && is_over && (c->out == 0 || res < 0))
        finish(w, index);
    else if (c->state == BF_OUT_CLOSING && is_over)
        return; /* the last bytes are being sent */
    else if (res == 0)
        bf_push_closed(&w->push, index, "closed by the peer");
    else if (res < 0 && res != -EAGAIN && res != -EINTR)
        bf_push_closed(&w->push, index, strerror(-res));
    else if (res == (int)BF_PROVIDER_READ_BYTES || (c->rx_again && res > 0))
        read_conn(w, index, false);
}

/* ---- connecting ---- */

static void arm(struct bf_worker *w, uint32_t index)
{
    set_op(conn_of(w, index), BF_IO_POLL);
    bf_io_poll(w->io, sock_of(w, index));
}

static void connected(struct bf_worker *w, uint32_t index, int res)
{
    struct bf_provider_conn *c = conn_of(w, index);
    struct bf_provider_pool *pool = &w->providers.pools[c->pool];
    struct bf_tls_io io = {.out = w->secure.flight, .out_cap = BF_TLS_FLIGHT_BYTES_MAX};
    uint8_t none[1];
    if (c->state == BF_OUT_CLOSED)
        return;
    if (res < 0) {
        bf_push_closed(&w->push, index, strerror(-res));
        return;
    }
    if (bf_tls_connect(w->secure.engine, pool->client, pool->tls_name, NULL, &c->tls) != 0) {
        bf_push_closed(&w->push, index, "TLS: out of memory");
        return;
    }
    c->state = BF_OUT_HANDSHAKE;
    if (bf_tls_read(w->secure.engine, &c->tls, &io, none, sizeof(none)) != 0)
        tls_failed(w, index, &io);
    else if (!say(w, index, &io))
        bf_push_closed(&w->push, index, "out of the buffers set aside for sending");
    else
        arm(w, index);
}

static bool open_conn(void *context, uint32_t index, uint32_t pool,
                      const struct bf_push_address *address)
{
    struct bf_worker *w = context;
    struct bf_provider_sockets *o = &w->providers;
    if (index >= o->conns_max || !o->pools[pool].client)
        return false;
    struct bf_provider_conn *c = conn_of(w, index);
    BF_BUG_ON(c->state != BF_OUT_FREE);
    *c = (struct bf_provider_conn){.generation = c->generation, .pool = (uint16_t)pool};
    if (address->is_v6) {
        c->address.v6.sin6_family = AF_INET6;
        c->address.v6.sin6_port = htons(address->port);
        memcpy(&c->address.v6.sin6_addr, address->ip, sizeof(c->address.v6.sin6_addr));
    } else {
        c->address.v4.sin_family = AF_INET;
        c->address.v4.sin_port = htons(address->port);
        memcpy(&c->address.v4.sin_addr, address->ip, sizeof(c->address.v4.sin_addr));
    }
    struct bf_io_sock sock = sock_of(w, index);
    if (bf_io_connect(w->io, index, &c->address.any, &sock) != 0)
        return false;
    c->file = sock.file;
    c->state = BF_OUT_CONNECTING;
    set_op(c, BF_IO_CONNECT);
    o->open++;
    return true;
}

/* ---- events ---- */

static void readable(struct bf_worker *w, uint32_t index, const struct bf_io_event *event)
{
    struct bf_provider_conn *c = conn_of(w, index);
    if (!event->more)
        clear_op(c, BF_IO_POLL);
    if (c->state == BF_OUT_CLOSED)
        return;
    if (!event->more)
        arm(w, index);
    read_conn(w, index, false);
}

void bf_provider_event(struct bf_worker *w, const struct bf_io_event *event)
{
    uint32_t index = event->slot - w->providers.first_slot;
    struct bf_provider_conn *c = index < w->providers.conns_max ? conn_of(w, index) : NULL;
    if (!c || (c->generation & BF_IO_GENERATION_MASK) != event->generation ||
        c->state == BF_OUT_FREE) {
        bf_worker_count(&w->core, BF_M_io_late, 1);
        return;
    }
    if (event->op != BF_IO_POLL && event->op != BF_IO_CANCEL)
        clear_op(c, (enum bf_io_op)event->op);
    switch (event->op) {
    case BF_IO_CONNECT:
        connected(w, index, event->res);
        break;
    case BF_IO_POLL:
        readable(w, index, event);
        break;
    case BF_IO_RECV:
        received(w, index, event);
        break;
    case BF_IO_SEND:
        sent(w, index, event->res);
        break;
    case BF_IO_POLLOUT:
        if (c->state != BF_OUT_CLOSED)
            send_out(w, index);
        break;
    case BF_IO_CANCEL:
        c->cancels[event->aux != BF_IO_POLL] = false;
        break;
    default:
        break;
    }
    try_free(w, index);
}

bool bf_provider_turn(struct bf_worker *w)
{
    if (w->providers.conns_max == 0)
        return false;
    if (w->providers.waits.count > 0)
        read_waiting(w);
    (void)bf_push_turn(&w->push);
    finish_late(w);
    for (uint32_t n = w->push.ready_count; n > 0; n--) {
        uint32_t index = bf_push_ready_take(&w->push);
        if (index == UINT32_MAX)
            break;
        write_conn(w, index);
    }
    return w->push.ready_count > 0 || w->providers.waits.count > 0;
}

/* ---- configuration ---- */

static uint64_t identity_of(const struct bf_push_spec *spec)
{
    const struct bf_bytes parts[] = {spec->tls_name, spec->cert, spec->key, spec->ca};
    uint64_t hash = spec->flags;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        hash = XXH3_64bits_withSeed(parts[i].at, parts[i].len, hash + i + 1u);
    return hash;
}

static int make_client(struct bf_worker *w, const struct bf_push_spec *spec,
                       struct bf_tls_client **ret)
{
    char err[256] = "";
    const struct bf_tls_client_opts opts = {
        .ca_pem = spec->ca,
        .trust = w->providers.trust,
        .cert_pem = spec->cert,
        .key_pem = spec->key,
        .alpn = "h2",
        .no_verify = spec->flags & BF_PUSH_POOL_NO_VERIFY,
    };
    int rc = bf_tls_client_create(&opts, ret, err, sizeof(err));
    if (rc != 0)
        BF_ERROR("dataplane", "worker %u: pool %.*s: TLS: %s", w->core.worker, (int)spec->name.len,
                 spec->name.at, err[0] ? err : bf_err_text(rc));
    return rc;
}

static int take_pool(struct bf_worker *w, struct bf_bytes value)
{
    struct bf_push_spec spec;
    struct bf_tls_client *fresh = NULL;
    if (bf_push_spec_read(value, &spec) != 0 ||
        spec.tls_name.len >= sizeof(w->providers.pools[0].tls_name)) {
        BF_ERROR("dataplane", "worker %u: a push pool of the snapshot is malformed",
                 w->core.worker);
        return BF_ERR_MALFORMED;
    }
    int known = bf_push_pool_find(&w->push, spec.id);
    uint64_t hash = identity_of(&spec);
    bool is_other = known < 0 || w->providers.pools[known].hash != hash;
    if (is_other && make_client(w, &spec, &fresh) != 0)
        return BF_ERR_MALFORMED;
    int index = bf_push_configure_pool(&w->push, &spec, is_other);
    if (index < 0) {
        BF_ERROR("dataplane", "worker %u: more than %u push pools", w->core.worker,
                 BF_PUSH_POOLS_MAX);
        bf_tls_client_destroy(fresh);
        return BF_ERR_FULL;
    }
    if (is_other) {
        struct bf_provider_pool *pool = &w->providers.pools[index];
        bf_tls_client_destroy(pool->client); /* sessions made from it go on */
        pool->client = fresh;
        pool->hash = hash;
        memcpy(pool->tls_name, spec.tls_name.at, spec.tls_name.len);
        pool->tls_name[spec.tls_name.len] = '\0';
    }
    return 0;
}

int bf_provider_configure(struct bf_worker *w, const uint8_t *content, size_t len)
{
    struct bf_reader r = {.buf = content, .len = len};
    int rc = 0;
    if (w->providers.conns_max == 0)
        return 0;
    bf_push_configure_begin(&w->push);
    while (r.at < r.len && !r.failed) {
        uint16_t tag = bf_get_u16(&r);
        struct bf_bytes value = bf_get_str32(&r);
        int one = !r.failed && tag == BF_SNAP_PUSH_POOL ? take_pool(w, value) : 0;
        rc = rc != 0 ? rc : one;
    }
    bf_push_configure_end(&w->push);
    return rc;
}

/* ---- start ---- */

static int take_push_memory(struct bf_worker *w, uint32_t conns_max)
{
    struct bf_arena *arena = &w->arena;
    struct bf_push_memory m = {0};
    m.h2_bytes = (size_t)conns_max * BF_H2_SESSION_BYTES +
                 (size_t)BF_PUSH_REQUESTS_MAX * BF_H2_STREAM_BYTES + (4u << 20);
    m.h2_bytes = (m.h2_bytes + 4095u) & ~(size_t)4095u;
    m.h2 = bf_arena_take(arena, "HTTP/2 sessions", 1, m.h2_bytes);
    m.conns = bf_arena_take(arena, "push connections", BF_PUSH_CONNECTIONS_MAX, sizeof(*m.conns));
    m.pools = bf_arena_take(arena, "push pools", BF_PUSH_POOLS_MAX, sizeof(*m.pools));
    m.ready = bf_arena_take(arena, "push ready list", BF_PUSH_CONNECTIONS_MAX, sizeof(*m.ready));
    if (!m.h2 || !m.conns || !m.pools || !m.ready ||
        bf_arena_slab(arena, "push requests", BF_PUSH_REQUESTS_MAX, sizeof(struct bf_push_request),
                      &m.requests) != 0)
        return BF_ERR_NO_MEMORY;
    const struct bf_push_transport transport = {
        .context = w, .open = open_conn, .close = close_conn};
    bf_push_init(&w->push, &w->core, &m, &transport);
    return 0;
}

int bf_provider_init(struct bf_worker *w, uint32_t conns_max, uint32_t first_slot)
{
    struct bf_provider_sockets *o = &w->providers;
    struct bf_arena *arena = &w->arena;
    o->conns_max = conns_max < BF_PUSH_CONNECTIONS_MAX ? conns_max : BF_PUSH_CONNECTIONS_MAX;
    o->first_slot = first_slot;
    if (o->conns_max == 0) { /* every push is answered: no such pool */
        bf_push_init(&w->push, &w->core, &(struct bf_push_memory){0},
                     &(struct bf_push_transport){0});
        return 0;
    }
    o->conns = bf_arena_take(arena, "outgoing sockets", o->conns_max, sizeof(*o->conns));
    o->pools = bf_arena_take(arena, "push pools, TLS", BF_PUSH_POOLS_MAX, sizeof(*o->pools));
    o->plain = bf_arena_take(arena, "push plaintext", 1, BF_PROVIDER_PLAIN_BYTES);
    o->waits.slots = bf_arena_take(arena, "push reads waiting", o->conns_max, sizeof(uint32_t));
    o->waits.cap = o->conns_max;
    if (!o->conns || !o->pools || !o->plain || !o->waits.slots ||
        bf_arena_slab(arena, "push ciphertext", o->conns_max, BF_PROVIDER_WRITE_BYTES, &o->out) !=
            0 ||
        bf_arena_slab(arena, "push reads", BF_PROVIDER_READS_MAX, BF_PROVIDER_READ_BYTES,
                      &o->reads) != 0)
        return BF_ERR_NO_MEMORY;
    o->trust = bf_tls_trust_system();
    return take_push_memory(w, o->conns_max);
}

void bf_provider_fini(struct bf_worker *w)
{
    struct bf_provider_sockets *o = &w->providers;
    if (!o->conns || !o->pools)
        return;
    bf_push_fini(&w->push);
    for (uint32_t i = 0; i < o->conns_max && i < w->push.conn_bump; i++)
        bf_tls_free(&o->conns[i].tls);
    for (uint32_t i = 0; i < BF_PUSH_POOLS_MAX; i++)
        bf_tls_client_destroy(o->pools[i].client);
    bf_tls_trust_free(o->trust);
}
