/*
 * Threads of the server: a turn is events, mail, what was left over, deadlines. Starting, and
 * stopping without losing an answer; see server.h.
 */
#include "http/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/time.h"

#define LISTEN_BACKLOG 1024
#define EVENTS_MAX     128
/* A stop waits this long for suspended requests: longer than any commit takes, and short of the 10
 * s that a restart may take in all. */
#define STOP_WAIT_MS 3000u
/* ... this long for connections that were taken from the backlog and have sent no request yet,
 * because one may be on its way. Connections that are still in the backlog are left to the next
 * process. */
#define STOP_FRESH_MS 300u
/* ... and this long for the rest: answers under way; a client in the middle of its body may lose.
 */
#define STOP_GRACE_MS 500u

/* ---- mailboxes ---- */

void bf_http_wake(struct bf_http_thread *t)
{
    uint64_t one = 1;
    /* seq_cst: Dekker with the thread. It sees the mail before it sleeps, or we see that it sleeps
     */
    if (atomic_exchange(&t->is_asleep, 0) != 0)
        (void)!write(t->wake_fd, &one, sizeof(one));
}

void bf_http_mail(struct bf_http_thread *t, struct bf_http_conn *c)
{
    /* release by the exchange: the thread sees what was written to the request */
    struct bf_http_conn *head = atomic_load_explicit(&t->mail, memory_order_relaxed);
    do {
        c->mail_next = head;
    } while (!atomic_compare_exchange_weak(&t->mail, &head, c));
    bf_http_wake(t);
}

static void take_mail(struct bf_http_thread *t)
{
    struct bf_http_conn *in_order = NULL;
    if (!atomic_load_explicit(&t->mail, memory_order_relaxed))
        return;
    /* acquire: pairs with the exchange of who mailed */
    struct bf_http_conn *c = atomic_exchange_explicit(&t->mail, NULL, memory_order_acquire);
    while (c) { /* newest first, as it lies; oldest first, as it came */
        struct bf_http_conn *next = c->mail_next;
        c->mail_next = in_order;
        in_order = c;
        c = next;
    }
    while (in_order) {
        c = in_order;
        in_order = c->mail_next;
        if (c->is_listed)
            bf_http_conn_resumed(c);
        else
            bf_http_conn_begin(c);
    }
}

/* ---- a thread ---- */

static void go_on_again(struct bf_http_thread *t)
{
    struct bf_http_conn *c = t->again;
    t->again = NULL;
    while (c) {
        struct bf_http_conn *next = c->again_next;
        c->is_again = false;
        if (!c->is_freed)
            bf_http_conn_advance(c);
        c = next;
    }
}

static void serve_evictions(struct bf_http_thread *t)
{
    if (atomic_load_explicit(&t->evict_wanted, memory_order_relaxed) == 0)
        return;
    uint32_t wanted = atomic_exchange(&t->evict_wanted, 0);
    while (wanted-- > 0 && bf_deadlines_evict(t))
        continue;
}

static int sleep_ms(struct bf_http_thread *t)
{
    if (t->again)
        return 0;
    atomic_store(&t->is_asleep, 1); /* seq_cst: see bf_http_wake */
    if (atomic_load(&t->mail) || atomic_load(&t->evict_wanted) > 0 ||
        atomic_load(&t->http->is_over))
        return 0;
    return bf_deadlines_wait_ms(t);
}

static void turn(struct bf_http_thread *t)
{
    struct epoll_event events[EVENTS_MAX];
    bool may_accept = false;
    int n = epoll_wait(t->epoll_fd, events, EVENTS_MAX, sleep_ms(t));
    atomic_store_explicit(&t->is_asleep, 0, memory_order_relaxed); /* a wake too many is harmless */
    t->now_ms = bf_mono_ms();
    take_mail(t); /* answers that are ready go first */
    for (int i = 0; i < n; i++) {
        uint64_t count;
        if (events[i].data.ptr == t)
            (void)!read(t->wake_fd, &count, sizeof(count));
        else if (events[i].data.ptr == NULL)
            may_accept = true;
        else
            bf_http_conn_event(events[i].data.ptr, events[i].events);
    }
    go_on_again(t);
    if (may_accept)
        bf_http_accept(t);
    serve_evictions(t);
    bf_deadlines_pass(t);
    if (t->listen_again_ms > 0 && t->listen_again_ms <= t->now_ms)
        bf_http_accept_again(t);
    bf_http_conn_free_dead(t);
}

/* Ends all remaining connections. A request that another thread holds stays in memory until the
 * process ends. */
static void end_connections(struct bf_http_thread *t)
{
    take_mail(t);
    for (unsigned i = 0; i < BF_HTTP_CONN_STATE_COUNT; i++) {
        struct bf_http_conn *next;
        for (struct bf_http_conn *c = t->lists[i].head; c; c = next) {
            next = c->next;
            bf_http_conn_end(c);
        }
    }
    go_on_again(t);
    bf_http_conn_free_dead(t);
    while (t->spares) {
        struct bf_http_work *next = t->spares->next;
        free(t->spares);
        t->spares = next;
    }
}

static void *thread_main(void *arg)
{
    struct bf_http_thread *t = arg;
    char name[16]; /* the kernel's limit */
    snprintf(name, sizeof(name), "%s-%u", t->http->options.name,
             (unsigned)(t - t->http->threads) % 100);
    prctl(PR_SET_NAME, name);
    t->now_ms = bf_mono_ms();
    while (!atomic_load(&t->http->is_over))
        turn(t);
    end_connections(t);
    return NULL;
}

/* ---- start ---- */

/* IPv4 or IPv6 by the look of |host|, which the configuration has checked. */
static socklen_t make_address(const char *host, uint16_t port, struct sockaddr_storage *address)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)address;
    memset(address, 0, sizeof(*address));
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return sizeof(*v4);
    }
    inet_pton(AF_INET6, host, &v6->sin6_addr);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    return sizeof(*v6);
}

static int bind_socket(const char *host, uint16_t port)
{
    struct sockaddr_storage address;
    socklen_t len = make_address(host, port, &address);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1;
    if (fd < 0)
        return -errno;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, LISTEN_BACKLOG) != 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

static int port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        return 0;
    return address.ss_family == AF_INET
               ? ntohs(((struct sockaddr_in *)(void *)&address)->sin_port)
               : ntohs(((struct sockaddr_in6 *)(void *)&address)->sin6_port);
}

static int start_thread(struct bf_http *http, uint32_t index)
{
    struct bf_http_thread *t = &http->threads[index];
    struct epoll_event waker = {.events = EPOLLIN, .data.ptr = t};
    t->http = http;
    t->gauges = &http->stats->threads[index];
    t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->epoll_fd < 0 || t->wake_fd < 0 ||
        epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->wake_fd, &waker) != 0)
        return -errno;
    bf_http_accept_again(t);
    int rc = -pthread_create(&t->id, NULL, thread_main, t);
    if (rc == 0)
        http->thread_count++;
    return rc;
}

static void destroy(struct bf_http *http)
{
    for (uint32_t i = 0; http->threads && i < http->options.threads; i++) {
        if (http->threads[i].epoll_fd >= 0)
            close(http->threads[i].epoll_fd);
        if (http->threads[i].wake_fd >= 0)
            close(http->threads[i].wake_fd);
    }
    if (http->listen_fd >= 0)
        close(http->listen_fd);
    bf_http_tls_destroy(http->tls);
    bf_addresses_destroy(http->addresses);
    free(http->threads);
    free(http);
}

/* What is needed before a socket is bound. */
static int prepare(struct bf_http *http, char *err, size_t err_len)
{
    struct bf_http_options *o = &http->options;
    const struct bf_conf *conf = o->conf ? o->conf(o->owner) : NULL;
    o->threads = o->threads < BF_HTTP_THREADS_MAX ? o->threads : BF_HTTP_THREADS_MAX;
    http->listen_fd = o->listen_fd;
    http->stats = o->stats ? o->stats : &http->own_stats;
    http->addresses = bf_addresses_create();
    http->threads = aligned_alloc(64, sizeof(*http->threads) * o->threads);
    if (!http->addresses || !http->threads)
        return -ENOMEM;
    memset(http->threads, 0, sizeof(*http->threads) * o->threads);
    for (uint32_t i = 0; i < o->threads; i++)
        http->threads[i].epoll_fd = http->threads[i].wake_fd = -1;
    return conf ? bf_http_tls_create(conf, &http->tls, err, err_len) : 0;
}

/* Ends the threads and waits for them, but for one that is inside a handler that hangs. */
static void end_threads(struct bf_http *http)
{
    uint64_t one = 1;
    atomic_store(&http->is_over, true);
    for (uint32_t i = 0; i < http->thread_count; i++)
        (void)!write(http->threads[i].wake_fd, &one, sizeof(one));
    for (uint32_t i = 0; i < http->thread_count; i++) {
        if (atomic_load(&http->threads[i].handling) == 0)
            pthread_join(http->threads[i].id, NULL);
        else
            pthread_detach(http->threads[i].id);
    }
}

static int start_threads(struct bf_http *http, char *err, size_t err_len)
{
    int rc = 0;
    for (uint32_t i = 0; i < http->options.threads && rc == 0; i++)
        rc = start_thread(http, i);
    if (rc == 0)
        return 0;
    snprintf(err, err_len, "cannot start the HTTP server on %s port %d: %s", http->options.host,
             http->port, strerror(-rc));
    end_threads(http);
    return rc;
}

int bf_http_start(const struct bf_http_options *options, struct bf_http **ret, char *err,
                  size_t err_len)
{
    struct bf_http *http = aligned_alloc(64, sizeof(*http));
    if (!http)
        return -ENOMEM;
    memset(http, 0, sizeof(*http));
    http->options = *options;
    int rc = prepare(http, err, err_len);
    if (rc == 0 && http->listen_fd < 0) {
        http->listen_fd = bind_socket(options->host, options->port);
        if (http->listen_fd < 0) {
            rc = http->listen_fd;
            snprintf(err, err_len, "cannot listen on %s port %u: %s", options->host, options->port,
                     strerror(-rc));
        }
    }
    if (rc == 0) {
        http->port = port_of(http->listen_fd);
        rc = start_threads(http, err, err_len);
    }
    if (rc != 0) {
        destroy(http);
        return rc;
    }
    *ret = http;
    return 0;
}

int bf_http_port(const struct bf_http *http)
{
    return http->port;
}

int bf_http_fd(const struct bf_http *http)
{
    return http->listen_fd;
}

/* ---- stop ---- */

static uint32_t fresh(const struct bf_http *http)
{
    return atomic_load(&http->fresh);
}

static uint32_t handling(const struct bf_http *http)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < http->thread_count; i++)
        sum += atomic_load(&http->threads[i].handling);
    return sum;
}

static uint32_t suspended(const struct bf_http *http)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < http->thread_count; i++) {
        /* this order: a request that is given back in between counts as suspended still */
        uint32_t given_back = atomic_load(&http->threads[i].resumed);
        sum += atomic_load(&http->threads[i].suspended) - given_back;
    }
    return sum;
}

static uint32_t open_requests(const struct bf_http *http)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < http->thread_count; i++)
        sum += atomic_load(&http->threads[i].open);
    return sum;
}

static void wait_until_none(const struct bf_http *http, uint32_t (*count)(const struct bf_http *),
                            uint32_t timeout_ms)
{
    uint64_t until = bf_mono_ms() + timeout_ms;
    while (count(http) > 0 && bf_mono_ms() < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

bool bf_http_stop(struct bf_http *http)
{
    if (!http)
        return true;
    for (uint32_t i = 0; i < http->thread_count; i++)
        epoll_ctl(http->threads[i].epoll_fd, EPOLL_CTL_DEL, http->listen_fd, NULL);
    /* open connections may send more requests: from now on they are told to come back later */
    atomic_store(&http->is_stopping, true);
    wait_until_none(http, fresh, STOP_FRESH_MS);
    wait_until_none(http, handling, STOP_WAIT_MS);
    wait_until_none(http, suspended, STOP_WAIT_MS);
    wait_until_none(http, open_requests, STOP_GRACE_MS);
    /* A log or a store that hangs still holds requests, and will write to them: then nothing of the
     * server is freed. The process ends or executes itself again right after; the sockets close
     * with it and producers ask again. */
    bool is_held = handling(http) > 0 || suspended(http) > 0;
    end_threads(http);
    if (is_held) {
        close(http->listen_fd);
        http->listen_fd = -1;
        return false;
    }
    destroy(http);
    return true;
}
