/* Connections: see sim_conn.h. */
#include "sim_conn.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "sim_answer.h"
#include "sim_h1.h"
#include "sim_provider.h"

#define READS_BEFORE_FLUSH                                                                         \
    4 /* answers to 64 KB of requests leave together; the peer works meanwhile */
#define TLS_CHUNK           16384u
#define H1_ANSWER_BYTES_MAX 4096u
#define ENDLESS_TURNS       16 /* of 16 KB, then others have their turn */

static void set_events(struct sim_conn *c, uint32_t events)
{
    struct epoll_event e = {.events = events,
                            .data.u64 = (uint64_t)c->w->generations[c->slot] << 32 | c->slot};
    if (c->events == events)
        return;
    epoll_ctl(c->w->epoll, c->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, c->fd, &e);
    c->events = events;
}

struct sim_conn *sim_conn_create(struct sim_worker *w, enum sim_provider_id provider, int fd)
{
    struct sim_conn *c = calloc(1, sizeof(*c));
    if (!c)
        return NULL;
    c->w = w;
    c->provider = provider;
    c->fd = fd;
    c->peer.bound_key = -1;
    /* relaxed: only uniqueness is wanted */
    c->id = atomic_fetch_add_explicit(&w->sim->conn_ids, 1, memory_order_relaxed) + 1;
    c->ssl = SSL_new(w->sim->tls[provider]);
    if (!c->ssl || SSL_set_fd(c->ssl, fd) != 1) {
        SSL_free(c->ssl);
        free(c);
        return NULL;
    }
    SSL_set_app_data(c->ssl, c);
    SSL_set_accept_state(c->ssl);
    return c;
}

void sim_conn_close(struct sim_conn *c, bool reset)
{
    if (c->state == SIM_CONN_DEAD)
        return;
    if (reset) {
        struct linger now = {1, 0};
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    } else if (c->state == SIM_CONN_H2 || c->state == SIM_CONN_H1) {
        SSL_shutdown(c->ssl);
    }
    if (c->state <= SIM_CONN_TLS)
        sim_count(&c->w->counters[c->provider].handshakes_failed, 1);
    sim_count(&c->w->counters[c->provider].conns_closed, 1);
    ERR_clear_error();
    close(c->fd); /* leaves epoll by that */
    c->state = SIM_CONN_DEAD;
    c->w->generations[c->slot]++;
    c->w->conns[c->slot] = NULL;
    c->w->conns_count--;
    c->next = c->w->dead;
    c->w->dead = c;
}

void sim_conn_free(struct sim_conn *c)
{
    sim_h2_close(c);
    if (c->h1)
        sim_stream_put(&c->w->streams, c->h1);
    SSL_free(c->ssl);
    free(c->h1_in);
    free(c->out);
    free(c);
}

void sim_conn_freeze(struct sim_conn *c)
{
    c->state = SIM_CONN_FROZEN;
    set_events(c, EPOLLRDHUP);
}

struct sim_fault *sim_conn_fault(struct sim_conn *c, enum sim_fault_kind kind)
{
    struct sim_script *s = c->w->script;
    struct sim_fault *f = sim_script_active(s, kind, c->provider, c->w->ctx.now_ms);
    if (!f || f->rate >= 1)
        return f;
    uint64_t hash = XXH3_64bits_withSeed(&c->id, sizeof(c->id), s->seed + kind);
    return (double)(hash >> 11) * 0x1p-53 < f->rate ? f : NULL;
}

/* ---- output ---- */

uint8_t *sim_conn_out(struct sim_conn *c, size_t bytes)
{
    size_t wanted = c->out_bytes + bytes, room = c->out_room ? c->out_room : SIM_OUT_BYTES_MIN;
    while (room < wanted)
        room *= 2;
    if (room > SIM_OUT_BYTES_MAX) {
        c->h2.over = true;
        return NULL;
    }
    if (room > c->out_room) {
        uint8_t *wider = realloc(c->out, room);
        if (!wider) {
            c->h2.over = true;
            return NULL;
        }
        c->out = wider;
        c->out_room = room;
    }
    c->out_bytes = wanted;
    return c->out + wanted - bytes;
}

void sim_conn_out_less(struct sim_conn *c, size_t bytes)
{
    c->out_bytes -= bytes;
}

/* Sends c->out. False when the socket takes no more now, or the connection is gone. */
static bool send_out(struct sim_conn *c)
{
    while (c->out_sent < c->out_bytes) {
        size_t left = c->out_bytes - c->out_sent;
        int n = SSL_write(c->ssl, c->out + c->out_sent, (int)(left < TLS_CHUNK ? left : TLS_CHUNK));
        if (n > 0) {
            c->out_sent += (size_t)n;
            continue;
        }
        if (SSL_get_error(c->ssl, n) == SSL_ERROR_WANT_WRITE) {
            set_events(c, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
            return false;
        }
        sim_conn_close(c, false);
        return false;
    }
    c->out_bytes = c->out_sent = 0;
    return true;
}

/* CONTINUATION frames that add fields and never end the block, 16 KB of them. */
static void endless_frames(struct sim_conn *c)
{
    uint8_t block[960];
    static const uint8_t field[] = {0x00, 5, 'x', '-', 'e', 'n', 'd', 4, 'l', 'e', 's', 's'};
    for (size_t i = 0; i < sizeof(block); i += sizeof(field))
        memcpy(block + i, field, sizeof(field));
    for (unsigned i = 0; i < 16; i++)
        sim_h2_frame(c, SIM_H2_CONTINUATION, 0, c->newest_id, block, sizeof(block));
}

void sim_conn_flush(struct sim_conn *c)
{
    if (c->state == SIM_CONN_FROZEN || c->state == SIM_CONN_DEAD)
        return;
    bool sent = send_out(c);
    for (unsigned turns = 0; sent && c->state == SIM_CONN_ENDLESS && turns < ENDLESS_TURNS;
         turns++) {
        endless_frames(c);
        sent = send_out(c);
    }
    if (c->state == SIM_CONN_DEAD || !sent)
        return;
    if (c->state == SIM_CONN_H2 && sim_h2_is_done(c))
        sim_conn_close(c, false);
    else
        set_events(c, EPOLLIN | EPOLLRDHUP | (c->state == SIM_CONN_ENDLESS ? EPOLLOUT : 0u));
}

/* ---- HTTP/1.1 ---- */

static void h1_put(struct sim_conn *c, bool close)
{
    const size_t room = H1_ANSWER_BYTES_MAX;
    uint8_t *at = sim_conn_out(c, room);
    if (at)
        sim_conn_out_less(c, room - sim_h1_write(&c->h1->a, close, (char *)at, room));
}

static void h1_answer(struct sim_conn *c)
{
    h1_put(c, false);
    sim_stream_put(&c->w->streams, c->h1);
    c->h1 = NULL;
    sim_conn_flush(c);
}

static void h1_refuse(struct sim_conn *c, uint16_t status)
{
    sim_answer_init(&c->h1->a);
    c->h1->a.status = status;
    sim_count(&c->w->counters[c->provider].protocol_errors, 1);
    h1_put(c, true);
    if (send_out(c))
        sim_conn_close(c, false);
}

/* Handles requests in h1_in one after another; the next waits until the one before is answered. */
static void h1_turn(struct sim_conn *c)
{
    while (c->state == SIM_CONN_H1 && !c->h1 && c->h1_bytes) {
        uint16_t status = 400;
        c->h1 = sim_stream_take(&c->w->streams, c, 0);
        if (!c->h1) {
            sim_conn_close(c, false);
            return;
        }
        long n = sim_h1_read(&c->w->streams, c->h1, c->h1_in, c->h1_bytes, &status);
        if (n < 0) {
            h1_refuse(c, status);
            return;
        }
        if (n == 0) {
            sim_stream_put(&c->w->streams, c->h1);
            c->h1 = NULL;
            return;
        }
        c->streams++;
        memmove(c->h1_in, c->h1_in + n, c->h1_bytes - (size_t)n);
        c->h1_bytes -= (size_t)n;
        uint64_t wait_ns = sim_worker_decide(c->w, c->h1);
        struct sim_delay_row row = {c->w->now_ns + wait_ns, c->slot, c->w->generations[c->slot], 0,
                                    SIM_DELAY_ANSWER};
        if (wait_ns == 0 || !sim_delay_push(&c->w->delay, row))
            h1_answer(c);
    }
}

static bool h1_read(struct sim_conn *c, const uint8_t *data, size_t bytes)
{
    const size_t room = SIM_H1_HEAD_BYTES_MAX + SIM_BODY_BYTES_MAX * 4;
    if (!c->h1_in)
        c->h1_in = malloc(room);
    if (!c->h1_in || bytes > room - c->h1_bytes)
        return false; /* more than any client pipelines */
    memcpy(c->h1_in + c->h1_bytes, data, bytes);
    c->h1_bytes += bytes;
    h1_turn(c);
    return c->state != SIM_CONN_DEAD;
}

/* ---- input ---- */

static void on_established(struct sim_conn *c)
{
    const unsigned char *proto = NULL;
    unsigned n = 0;
    SSL_get0_alpn_selected(c->ssl, &proto, &n);
    sim_count(&c->w->counters[c->provider].handshakes, 1);
    sim_creds_peer(c->ssl, &c->peer);
    ERR_clear_error(); /* an unknown client certificate leaves an error in the queue */
    bool wants_h2 = n == 2 && memcmp(proto, "h2", 2) == 0;
    sim_count(&c->w->counters[c->provider].handshakes_h2,
              wants_h2 && SSL_version(c->ssl) == TLS1_3_VERSION);
    if (c->alpn && !wants_h2) {
        c->state = SIM_CONN_SPOILT; /* the client has to notice */
    } else if (wants_h2 && sim_providers[c->provider].h2) {
        c->state = SIM_CONN_H2;
        if (!sim_h2_open(c, sim_streams_wanted(c)))
            sim_conn_close(c, false);
    } else if (sim_providers[c->provider].http1) {
        c->state = SIM_CONN_H1;
    } else {
        sim_count(&c->w->counters[c->provider].protocol_errors, 1);
        sim_conn_close(c, false);
    }
}

static void handshake(struct sim_conn *c)
{
    int n = SSL_do_handshake(c->ssl);
    if (n == 1) {
        on_established(c);
        return;
    }
    int error = SSL_get_error(c->ssl, n);
    if (error == SSL_ERROR_WANT_READ)
        set_events(c, EPOLLIN | EPOLLRDHUP);
    else if (error == SSL_ERROR_WANT_WRITE)
        set_events(c, EPOLLOUT | EPOLLRDHUP);
    else
        sim_conn_close(c, false);
}

static bool feed(struct sim_conn *c, const uint8_t *data, size_t bytes)
{
    if (c->state == SIM_CONN_H2) {
        if (!sim_h2_read(c, data, bytes))
            return c->state != SIM_CONN_H2 && c->state != SIM_CONN_DEAD; /* a fault, or the end */
        if (c->state == SIM_CONN_H2)
            sim_h2_limit(c, sim_streams_wanted(c));
        return true;
    }
    return c->state == SIM_CONN_H1 ? h1_read(c, data, bytes) : true;
}

static void read_all(struct sim_conn *c)
{
    unsigned reads = 0;
    while (c->state != SIM_CONN_DEAD && c->state != SIM_CONN_FROZEN) {
        int n = SSL_read(c->ssl, c->w->in, SIM_IN_BYTES);
        if (n <= 0) {
            int error = SSL_get_error(c->ssl, n);
            if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
                sim_conn_close(c, false);
            return;
        }
        if (!feed(c, c->w->in, (size_t)n)) {
            if (c->state != SIM_CONN_DEAD) {
                sim_conn_flush(c);
                sim_conn_close(c, false);
            }
            return;
        }
        if (++reads % READS_BEFORE_FLUSH == 0)
            sim_conn_flush(c);
    }
}

void sim_conn_on_event(struct sim_conn *c, uint32_t events)
{
    if (c->state == SIM_CONN_FROZEN || c->state == SIM_CONN_WAIT_TLS) {
        if (events & (EPOLLERR | EPOLLHUP | EPOLLRDHUP))
            sim_conn_close(c, false);
        return;
    }
    if (c->state == SIM_CONN_TLS)
        handshake(c);
    if (c->state > SIM_CONN_TLS && c->state != SIM_CONN_DEAD && c->state != SIM_CONN_FROZEN) {
        read_all(c);
        if (c->state != SIM_CONN_DEAD && c->state != SIM_CONN_FROZEN)
            sim_conn_flush(c);
    }
    if (c->state != SIM_CONN_DEAD && (events & (EPOLLERR | EPOLLHUP)))
        sim_conn_close(c, false);
}

void sim_conn_on_delay(struct sim_conn *c, const struct sim_delay_row *row)
{
    if (row->kind == SIM_DELAY_TLS && c->state == SIM_CONN_WAIT_TLS) {
        c->state = SIM_CONN_TLS;
        handshake(c);
    } else if (c->state == SIM_CONN_H2) {
        sim_on_delay(c, row);
    } else if (c->state == SIM_CONN_H1 && row->kind == SIM_DELAY_ANSWER && c->h1) {
        h1_answer(c);
        h1_turn(c);
    }
}
