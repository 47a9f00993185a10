/*
 * A connection, on its thread: steps that each do one thing that can be done now, until there is
 * none. epoll is edge-triggered and set up once; is_readable and is_writable remember what it said.
 * A client whose answers wait is not read from, so a connection holds one buffer of input and one
 * of answers.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/server.h"

/* Steps of one connection in one turn; the others want theirs too. */
#define STEPS_MAX 64u

enum step { GO_ON, WAIT, END };

/* ---- bytes ---- */

static bool take_work(struct bf_http_conn *c)
{
    struct bf_http_thread *t = c->thread;
    if (c->work)
        return true;
    c->work = t->spares;
    if (c->work) {
        t->spares = c->work->next;
        t->spare_count--;
    } else {
        c->work = malloc(sizeof(*c->work));
    }
    c->in_at = c->in_len = c->out_at = c->out_len = 0;
    return c->work != NULL;
}

static void give_work(struct bf_http_conn *c)
{
    struct bf_http_thread *t = c->thread;
    if (!c->work)
        return;
    if (t->spare_count < BF_HTTP_SPARES_MAX) {
        c->work->next = t->spares;
        t->spares = c->work;
        t->spare_count++;
    } else {
        free(c->work);
    }
    c->work = NULL;
    c->in_at = c->in_len = c->out_at = c->out_len = 0;
}

size_t bf_http_conn_receive(struct bf_http_conn *c, char *to, size_t cap)
{
    if (c->fd < 0 || cap == 0)
        return 0;
    long n = c->ssl ? bf_http_tls_receive(c->ssl, to, cap) : recv(c->fd, to, cap, MSG_DONTWAIT);
    if (n < 0 && !c->ssl)
        n = -errno;
    if (n > 0) {
        /* less than asked for: the socket is empty, and epoll tells when it is not (epoll(7)).
         * After a FIN it tells nothing more, and a TLS session may hold bytes that epoll does not
         * know of */
        if ((size_t)n < cap && !c->ssl && !c->sees_end)
            c->is_readable = false;
        c->moved += (uint64_t)n;
        return (size_t)n;
    }
    if (n == 0)
        c->is_ended = true;
    else if (n == -EAGAIN)
        c->is_readable = false;
    else if (n != -EINTR)
        c->is_broken = true;
    return 0;
}

/* ---- waiting ---- */

static enum step wait_writable(struct bf_http_conn *c)
{
    if (c->is_broken)
        return END;
    if (c->state != BF_HTTP_CONN_WRITING)
        bf_http_conn_enter(c, BF_HTTP_CONN_WRITING);
    return WAIT;
}

/* For the next request, or the rest of its head: from its first byte on the clock runs. Before it a
 * connection is idle, also a new one: clients open some ahead, and one that waits costs little and
 * gives its place to the next. */
static enum step wait_head(struct bf_http_conn *c)
{
    bool is_partial = c->in_len > c->in_at;
    enum bf_http_conn_state state = is_partial ? BF_HTTP_CONN_HEAD : BF_HTTP_CONN_IDLE;
    if (!is_partial)
        give_work(c);
    if (c->state != state || c->has_begun)
        bf_http_conn_enter(c, state);
    c->has_begun = false;
    return WAIT;
}

static enum step wait_body(struct bf_http_conn *c)
{
    if (c->is_ended || c->is_broken) /* of a TLS session that broke no event tells */
        return END;
    bf_reply_flush(c); /* "100 Continue", answers of earlier requests */
    if (c->state != BF_HTTP_CONN_BODY)
        bf_http_conn_enter(c, BF_HTTP_CONN_BODY);
    return WAIT;
}

/* ---- steps ---- */

static enum step step_handshake(struct bf_http_conn *c)
{
    long rc = bf_http_tls_handshake(c->ssl);
    if (rc == 1) {
        c->is_handshaken = true;
        c->is_readable = c->is_writable = true;
        return GO_ON;
    }
    if (rc == -EAGAIN)
        return WAIT;
    bf_http_tell(&c->thread->http->stats->refused[BF_REFUSED_TLS]);
    return END;
}

/* The last answer is out. A close now, with bytes unread, would reset it out of the client's hands
 * (RFC 9112 9.6): read on until the client closes. */
static enum step begin_closing(struct bf_http_conn *c)
{
    give_work(c);
    if (c->is_ended)
        return END;
    if (c->ssl)
        bf_http_tls_close(c->ssl);
    shutdown(c->fd, SHUT_WR);
    bf_http_conn_enter(c, BF_HTTP_CONN_CLOSING);
    return GO_ON;
}

static enum step step_closing(struct bf_http_conn *c)
{
    char nobodys[4096];
    if (c->is_ended)
        return END;
    if (!c->is_readable)
        return WAIT;
    long n = recv(c->fd, nobodys, sizeof(nobodys), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        return END;
    c->is_readable = n > 0 || errno != EAGAIN;
    return GO_ON;
}

/* Moves a head to the front of the buffer if its body is still to come, so that there is room for
 * the body. */
static int move_to_front(struct bf_http_conn *c, const struct bf_http1_limits *limits)
{
    struct bf_http_work *w = c->work;
    memmove(w->in, w->in + c->in_at, c->in_len - c->in_at);
    c->in_len -= c->in_at;
    c->in_at = 0;
    return bf_http1_head_parse(w->in, c->in_len, limits, &w->request.head);
}

/* Bytes of a whole head, 0: more is needed, or the negated status of its refusal. */
static int parse(struct bf_http_conn *c)
{
    static const struct bf_http1_limits limits = {.head_bytes = BF_HTTP_HEAD_BYTES,
                                                  .line_bytes = BF_HTTP_LINE_BYTES};
    struct bf_http_work *w = c->work;
    size_t have = c->in_len - c->in_at;
    int n = bf_http1_head_parse(w->in + c->in_at, have, &limits, &w->request.head);
    bool has_more =
        n > 0 && (w->request.head.is_chunked || w->request.head.content_length > have - (size_t)n);
    return c->in_at > 0 && (n == 0 || has_more) ? move_to_front(c, &limits) : n;
}

static enum step read_more(struct bf_http_conn *c)
{
    if (c->out_len > 0 && !bf_reply_flush(c))
        return wait_writable(c);
    if (c->is_ended)
        return END;
    if (!c->is_readable)
        return wait_head(c);
    if (!take_work(c))
        return END;
    if (c->in_at == c->in_len)
        c->in_at = c->in_len = 0;
    c->in_len +=
        (uint32_t)bf_http_conn_receive(c, c->work->in + c->in_len, BF_HTTP_IN_BYTES - c->in_len);
    return GO_ON;
}

/* Between two requests. */
static enum step step_head(struct bf_http_conn *c)
{
    bool must_send =
        c->is_last || c->tail || c->out_len > BF_HTTP_OUT_BYTES - BF_HTTP_REPLY_HEAD_BYTES;
    if (must_send && !bf_reply_flush(c))
        return wait_writable(c);
    if (c->is_last)
        return begin_closing(c);
    if (c->in_at == c->in_len)
        return read_more(c);
    int n = parse(c);
    if (n == 0)
        return read_more(c);
    if (n > 0)
        bf_request_begin(c, (uint32_t)n);
    else
        bf_request_refuse(c, -n, c->work->request.head.why);
    return GO_ON;
}

/* A request is begun: its body, its handler, its answer. */
static enum step step_request(struct bf_http_conn *c)
{
    enum bf_body_step body = c->stops_body ? BF_BODY_DONE : bf_body_take(c);
    if (body == BF_BODY_MORE)
        return GO_ON;
    if (body == BF_BODY_WAIT)
        return c->is_readable && !c->is_ended && !c->is_broken ? GO_ON : wait_body(c);
    if (bf_request_handle(c)) {
        bf_request_complete(c);
        return GO_ON;
    }
    bf_http_conn_enter(c, BF_HTTP_CONN_WORKING);
    bf_reply_flush(c); /* answers of requests before it need not wait for it */
    return WAIT;
}

static enum step step(struct bf_http_conn *c)
{
    if (c->is_broken)
        return END;
    if (c->state == BF_HTTP_CONN_WORKING)
        return bf_reply_flush(c) || !c->is_broken ? WAIT : END;
    if (c->ssl && !c->is_handshaken)
        return step_handshake(c);
    if (c->state == BF_HTTP_CONN_CLOSING)
        return step_closing(c);
    return c->is_open ? step_request(c) : step_head(c);
}

void bf_http_conn_advance(struct bf_http_conn *c)
{
    if (c->fd < 0)
        return;
    for (unsigned i = 0; i < STEPS_MAX; i++) {
        enum step next = step(c);
        if (next == WAIT)
            return;
        if (next == END) {
            bf_http_conn_end(c);
            return;
        }
    }
    if (c->is_again)
        return;
    c->is_again = true;
    c->again_next = c->thread->again;
    c->thread->again = c;
}

/* ---- life ---- */

void bf_http_conn_begin(struct bf_http_conn *c)
{
    struct bf_http *http = c->thread->http;
    const struct bf_conf *conf = http->tls ? http->options.conf(http->options.owner) : NULL;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
    c->is_writable = true;
    bf_http_conn_enter(c, http->tls ? BF_HTTP_CONN_HEAD
                                    : BF_HTTP_CONN_IDLE); /* a handshake has a head's time */
    if (http->tls)
        c->ssl = bf_http_tls_open(http->tls, conf, c->fd);
    if ((http->tls && !c->ssl) || epoll_ctl(c->thread->epoll_fd, EPOLL_CTL_ADD, c->fd, &event) != 0)
        bf_http_conn_end(c);
}

void bf_http_conn_event(struct bf_http_conn *c, uint32_t events)
{
    if (c->fd < 0)
        return;
    c->is_readable |= (events & (EPOLLIN | EPOLLRDHUP)) != 0;
    c->is_writable |= (events & EPOLLOUT) != 0;
    c->sees_end |= (events & EPOLLRDHUP) != 0;
    c->is_broken |= (events & (EPOLLERR | EPOLLHUP)) != 0;
    if (c->ssl) /* a session may want to write in order to read, and the other way round */
        c->is_readable = c->is_writable = true;
    bf_http_conn_advance(c);
}

void bf_http_conn_resumed(struct bf_http_conn *c)
{
    bf_request_go_on(c);
    bf_request_complete(c);
    if (c->fd < 0) {
        bf_http_conn_end(c);
        return;
    }
    bf_http_conn_enter(c, BF_HTTP_CONN_HEAD); /* out of WORKING; where it waits next moves it on */
    bf_http_conn_advance(c);
}

static void close_socket(struct bf_http_conn *c)
{
    if (c->fd < 0)
        return;
    if (c->ssl)
        bf_http_tls_close(c->ssl);
    bf_http_tls_free(c->ssl);
    c->ssl = NULL;
    close(c->fd); /* epoll forgets it */
    c->fd = -1;
    free(c->tail);
    c->tail = NULL;
}

void bf_http_conn_end(struct bf_http_conn *c)
{
    struct bf_http_thread *t = c->thread;
    struct bf_http *http = t->http;
    close_socket(c);
    if (c->is_freed)
        return;
    if (c->is_open && c->work->request.suspended) {
        /* whoever has the request may write to it until it is resumed; only then it ends */
        bf_http_tell(&http->stats->hang_ups);
        return;
    }
    if (c->is_open)
        bf_request_complete(c);
    bf_http_conn_leave(c);
    give_work(c);
    bf_addresses_give(http->addresses, c->address);
    if (!c->has_asked)
        atomic_fetch_sub(&http->fresh, 1);
    /* relaxed: bounds, not order */
    atomic_fetch_sub_explicit(&t->connections, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&http->connections, 1, memory_order_relaxed);
    c->is_freed = true;
    c->next = t->dead;
    t->dead = c;
}

void bf_http_conn_cut(struct bf_http_conn *c, enum bf_http_conn_state kind)
{
    bool is_partial = kind == BF_HTTP_CONN_HEAD && c->work && c->in_len > c->in_at;
    if (kind != BF_HTTP_CONN_CLOSING)
        bf_http_tell(&c->thread->http->stats->timeouts[kind]);
    if (is_partial)
        bf_request_refuse(c, 408, "the request's head did not come whole in time");
    else if (kind == BF_HTTP_CONN_BODY)
        bf_request_refuse(c, 408, "the request's body came too slowly");
    if (!is_partial && kind != BF_HTTP_CONN_BODY) {
        bf_http_conn_end(c);
        return;
    }
    bf_request_complete(c);
    bf_http_conn_enter(c, BF_HTTP_CONN_WRITING); /* out of the list whose deadline has passed */
    bf_http_conn_advance(c);
}

void bf_http_conn_free_dead(struct bf_http_thread *t)
{
    struct bf_http_conn **at = &t->dead;
    while (*at) {
        struct bf_http_conn *c = *at;
        if (c->is_again) { /* still named there */
            at = &c->next;
            continue;
        }
        *at = c->next;
        free(c);
    }
}

/* ---- for users ---- */

bool bf_request_peer(struct bf_request *r, bool (*names)(void *arg, struct bf_bytes name),
                     void *arg)
{
    return r->conn && r->conn->ssl && bf_http_tls_names(r->conn->ssl, names, arg);
}

void *bf_request_peer_room(struct bf_request *r)
{
    return r->conn->peer_room;
}
