/*
 * Who gets in. connections_max bounds the server: a new connection takes the place of the one that
 * has been idle longest, or of the slowest head, on whatever thread; where there is none it is told
 * 503. per_address bounds what one client can take of it.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/server.h"

/* Accepts in one turn: connections that are here want theirs too. */
#define ACCEPTS_MAX 16u
/* Without descriptors nothing can be done about the backlog but look again, and not in a hot loop.
 */
#define PAUSE_MS 100u
/* Other threads are asked to evict connections, and an idle connection may get a request meanwhile,
 * so for a moment there may be so many more than connections_max. */
#define OVER_MAX 64u

static void refuse(struct bf_http *http, int fd, enum bf_http_refusal reason)
{
    bf_http_tell(&http->stats->refused[reason]);
    if (!http->tls) /* a client that waits for a handshake reads no HTTP */
        bf_reply_turn_away(fd, reason);
    close(fd);
}

/* The longest idle or slowest of this thread ends, or one of another is asked for. */
static bool evict(struct bf_http_thread *t)
{
    struct bf_http *http = t->http;
    if (bf_deadlines_evict(t))
        return true;
    for (uint32_t i = 0; i < http->thread_count; i++) {
        struct bf_http_thread *other = &http->threads[i];
        /* relaxed: a guess; what it finds when it looks decides */
        uint32_t wanted = atomic_load_explicit(&other->evict_wanted, memory_order_relaxed);
        if (other == t || atomic_load_explicit(&other->idle, memory_order_relaxed) <= wanted)
            continue;
        atomic_fetch_add(&other->evict_wanted, 1);
        bf_http_wake(other);
        return true;
    }
    return false;
}

static bool has_room(struct bf_http_thread *t)
{
    struct bf_http *http = t->http;
    uint32_t have = atomic_load_explicit(&http->connections, memory_order_relaxed);
    if (have < http->options.connections_max)
        return true;
    return have < http->options.connections_max + OVER_MAX && evict(t);
}

/* The thread with the fewest: keep-alive connections stay where they come to. */
static struct bf_http_thread *choose(struct bf_http *http)
{
    struct bf_http_thread *best = &http->threads[0];
    for (uint32_t i = 1; i < http->thread_count; i++) {
        struct bf_http_thread *t = &http->threads[i];
        if (atomic_load_explicit(&t->connections, memory_order_relaxed) <
            atomic_load_explicit(&best->connections, memory_order_relaxed))
            best = t;
    }
    return best;
}

static void admit(struct bf_http_thread *t, int fd, const struct sockaddr_storage *from)
{
    struct bf_http *http = t->http;
    uint32_t per_address = http->options.limits.per_address;
    int on = 1;
    struct bf_address_count *address = NULL;
    if (per_address > 0 && !(address = bf_addresses_take(http->addresses, from, per_address))) {
        refuse(http, fd, BF_REFUSED_ADDRESS);
        return;
    }
    struct bf_http_conn *c = has_room(t) ? calloc(1, sizeof(*c)) : NULL;
    if (!c) {
        bf_addresses_give(http->addresses, address);
        refuse(http, fd, BF_REFUSED_CONNECTIONS);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    c->fd = fd;
    c->address = address;
    c->thread = choose(http);
    atomic_fetch_add(&http->fresh, 1);
    atomic_fetch_add_explicit(&http->connections, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->thread->connections, 1, memory_order_relaxed);
    if (c->thread == t)
        bf_http_conn_begin(c);
    else
        bf_http_mail(c->thread, c);
}

/* No descriptor, no memory: an idle connection has one; else the listener rests. */
static void pause_accepting(struct bf_http_thread *t)
{
    bf_http_tell(&t->http->stats->refused[BF_REFUSED_DESCRIPTORS]);
    if (bf_deadlines_evict(t))
        return;
    epoll_ctl(t->epoll_fd, EPOLL_CTL_DEL, t->http->listen_fd, NULL);
    t->listen_again_ms = t->now_ms + PAUSE_MS;
}

void bf_http_accept_again(struct bf_http_thread *t)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLEXCLUSIVE, .data.ptr = NULL};
    t->listen_again_ms = 0;
    if (!atomic_load(&t->http->is_stopping))
        epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->http->listen_fd, &event);
}

void bf_http_accept(struct bf_http_thread *t)
{
    struct bf_http *http = t->http;
    /* a socket that is accepted but not a connection yet counts as one without a request, so a stop
     * waits for it */
    atomic_fetch_add(&http->fresh, 1);
    for (unsigned i = 0; i < ACCEPTS_MAX && !atomic_load(&http->is_stopping); i++) {
        struct sockaddr_storage from = {.ss_family = AF_UNSPEC};
        socklen_t len = sizeof(from);
        int fd =
            accept4(http->listen_fd, (struct sockaddr *)&from, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            admit(t, fd, &from);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            pause_accepting(t);
            break;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            break;
        }
    }
    atomic_fetch_sub(&http->fresh, 1);
}
