/* Workers: see sim_worker.h. */
#include "sim_worker.h"

#include <errno.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "sim_answer.h"
#include "sim_conn.h"
#include "sim_provider.h"

#define EVENTS_BURST   256
#define ACCEPTS_BURST  64
#define DELAYS_BURST   4096 /* answers that leave in one turn; the rest in the next */
#define LISTEN_BACKLOG 4096
#define LISTENER_MARK  (1ull << 63) /* in epoll data: a listener, not a connection */

int64_t sim_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

uint64_t sim_mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void read_clocks(struct sim_worker *w)
{
    w->now_ns = sim_mono_ns();
    w->now_us = sim_now_us();
    w->ctx.now_ms = w->now_us / 1000;
}

/* ---- decisions ---- */

static void count_answer(struct sim_counters *n, const struct sim_stream *s)
{
    uint16_t status = s->a.status;
    sim_count(&n->requests, 1);
    sim_count(&n->bytes_body, s->q.body_bytes_total);
    sim_count(&n->status[status < SIM_STATUS_MAX ? status : 0], 1);
    sim_count(status < 300 ? &n->accepted : status < 500 ? &n->rejected : &n->failed, 1);
}

uint64_t sim_worker_decide(struct sim_worker *w, struct sim_stream *s)
{
    struct sim_conn *c = s->conn;
    enum sim_provider_id provider = c->provider;
    s->q.claims = sim_auth_resolve(w->auth, provider, &s->q);
    sim_providers[provider].answer(&w->ctx, &c->peer, &s->q, &s->a, s->target);
    if (s->q.fields_too_big) {
        sim_answer_init(&s->a);
        s->a.status = 431;
        s->a.reason = "FieldsTooLarge";
    } else if (!sim_script_before(w->script, provider, &w->ctx, &s->a) && s->a.status < 300) {
        sim_script_after(w->script, provider, &w->ctx, &s->a);
    }
    count_answer(&w->counters[provider], s);
    const struct sim_latency *l = &w->script->latency[provider];
    uint64_t wait_ns = l->kind == SIM_LATENCY_NONE ? 0 : sim_latency_draw_ns(l, &w->rng);
    if (w->sim->record) {
        struct sim_entry e = {w->now_us,   provider,       c->id, s->id, s->a.status,
                              s->a.reason, wait_ns / 1000, &s->q, &s->a};
        sim_record_put(w->sim->record, w->index, &e);
    }
    return wait_ns;
}

void sim_worker_unprocessed(struct sim_worker *w, const struct sim_stream *s, const char *why)
{
    struct sim_conn *c = s->conn;
    sim_count(&w->counters[c->provider].unprocessed, 1);
    if (w->sim->record) {
        struct sim_entry e = {w->now_us, c->provider, c->id, s->id, 0, why, 0, &s->q, NULL};
        sim_record_put(w->sim->record, w->index, &e);
    }
}

static size_t mint_access_token(const struct sim_ctx *c, char *out, size_t size)
{
    return sim_jwt_mint_access(c->secret, c->now_ms / 1000, c->world->access_token_ttl_s,
                               sim_rng_next(c->rng), out, size);
}

/* ---- listeners ---- */

static int bind_socket(const char *address, uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    if (inet_pton(AF_INET, address, &at.sin_addr) != 1 ||
        bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool begin_listening(struct sim_worker *w, unsigned p)
{
    struct sim_listener *l = &w->listeners[p];
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = LISTENER_MARK | p};
    l->fd = bind_socket(w->sim->address, w->sim->port[p]);
    if (l->fd < 0 || listen(l->fd, LISTEN_BACKLOG) != 0)
        return false;
    return epoll_ctl(w->epoll, EPOLL_CTL_ADD, l->fd, &e) == 0;
}

static bool open_listener(struct sim_worker *w, unsigned p)
{
    struct sockaddr_in at;
    socklen_t n = sizeof(at);
    struct sim_listener *l = &w->listeners[p];
    l->reserved = bind_socket(w->sim->address, w->sim->port[p]);
    if (l->reserved < 0 || getsockname(l->reserved, (struct sockaddr *)&at, &n) != 0)
        return false;
    w->sim->port[p] = ntohs(at.sin_port);
    return begin_listening(w, p);
}

static bool is_refusing(const struct sim_fault *outage)
{
    return outage && (outage->how[0] == '\0' || strcmp(outage->how, "refuse") == 0);
}

/* Opens and closes listening sockets as the script says. */
static void check_listener(struct sim_worker *w, unsigned p)
{
    enum sim_provider_id provider = (enum sim_provider_id)p;
    struct sim_listener *l = &w->listeners[p];
    bool refuse = sim_script_active(w->script, SIM_REFUSE, provider, w->ctx.now_ms) ||
                  is_refusing(sim_script_active(w->script, SIM_OUTAGE, provider, w->ctx.now_ms));
    if (refuse && l->fd >= 0) {
        close(l->fd);
        l->fd = -1;
    } else if (!refuse && l->fd < 0 && !begin_listening(w, p) && l->fd >= 0) {
        close(l->fd); /* tried again at the next tick */
        l->fd = -1;
    }
}

/* ---- connections ---- */

static uint32_t free_slot(struct sim_worker *w)
{
    for (uint32_t i = 0; i < w->slots_count; i++)
        if (!w->conns[i])
            return i;
    return w->slots_count++;
}

/* What the script has in store for a connection at its beginning. */
static void begin_conn(struct sim_worker *w, struct sim_conn *c)
{
    struct sim_fault *outage = sim_script_active(w->script, SIM_OUTAGE, c->provider, w->ctx.now_ms);
    struct sim_fault *slow = sim_conn_fault(c, SIM_SLOW_TLS),
                     *alpn = sim_conn_fault(c, SIM_WRONG_ALPN);
    c->state = SIM_CONN_TLS;
    if (alpn)
        c->alpn = strcmp(alpn->how, "none") == 0    ? "none"
                  : strcmp(alpn->how, "alert") == 0 ? "alert"
                                                    : "http/1.1";
    if (outage && strcmp(outage->how, "silent") == 0) {
        sim_conn_freeze(c);
    } else if (outage) {
        sim_conn_close(c, true);
    } else if (slow) {
        struct sim_delay_row row = {w->now_ns + slow->delay_ms * 1000000ull, c->slot,
                                    w->generations[c->slot], 0, SIM_DELAY_TLS};
        if (sim_delay_push(&w->delay, row))
            c->state = SIM_CONN_WAIT_TLS;
    }
    struct sim_fault *fired = outage ? outage : slow ? slow : alpn;
    if (fired) {
        atomic_fetch_add_explicit(&fired->fired, 1, memory_order_relaxed); /* a statistic */
        sim_count(&w->counters[c->provider].faults, 1);
    }
    if (c->state == SIM_CONN_TLS)
        sim_conn_on_event(c, EPOLLIN); /* the first flight is often here already */
}

static void accept_some(struct sim_worker *w, unsigned p)
{
    for (unsigned i = 0; i < ACCEPTS_BURST && w->listeners[p].fd >= 0; i++) {
        int on = 1, fd = accept4(w->listeners[p].fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        struct sim_conn *c =
            w->conns_count < SIM_CONNS_MAX ? sim_conn_create(w, (enum sim_provider_id)p, fd) : NULL;
        if (!c) {
            close(fd);
            continue;
        }
        c->slot = free_slot(w);
        w->conns[c->slot] = c;
        w->conns_count++;
        sim_count(&w->counters[p].conns_opened, 1);
        begin_conn(w, c);
    }
}

static struct sim_conn *find_conn(struct sim_worker *w, uint32_t slot, uint32_t generation)
{
    return slot < w->slots_count && w->generations[slot] == generation ? w->conns[slot] : NULL;
}

static void free_dead(struct sim_worker *w)
{
    while (w->dead) {
        struct sim_conn *c = w->dead;
        w->dead = c->next;
        sim_conn_free(c);
    }
}

/* ---- the turn ---- */

static void run_delays(struct sim_worker *w)
{
    struct sim_delay_row row;
    struct sim_conn *dirty = NULL;
    for (unsigned i = 0; i < DELAYS_BURST && sim_delay_pop(&w->delay, w->now_ns, &row); i++) {
        struct sim_conn *c = find_conn(w, row.conn, row.generation);
        if (!c)
            continue;
        sim_conn_on_delay(c, &row);
        if (!c->dirty) {
            c->dirty = true;
            c->dirty_next = dirty;
            dirty = c;
        }
    }
    for (; dirty; dirty = dirty->dirty_next) {
        dirty->dirty = false;
        if (dirty->state == SIM_CONN_H2)
            sim_conn_flush(dirty);
    }
}

static void take_script(struct sim_worker *w)
{
    /* acquire: pairs with the release in sim_script_install */
    uint32_t version = atomic_load_explicit(&w->sim->script_version, memory_order_acquire);
    if (version == w->script_version)
        return;
    sim_script_unref(w->script);
    w->script = sim_script_current(w->sim);
    w->script_version = version;
}

/* An outage reaches open connections; a stream limit is told to those that send nothing. */
static void tick_conn(struct sim_worker *w, struct sim_conn *c)
{
    struct sim_fault *outage = sim_script_active(w->script, SIM_OUTAGE, c->provider, w->ctx.now_ms);
    if (outage && strcmp(outage->how, "silent") == 0) {
        sim_conn_freeze(c);
    } else if (outage) {
        sim_conn_close(c, true);
    } else if (c->state == SIM_CONN_H2) {
        sim_h2_limit(c, sim_streams_wanted(c));
        sim_conn_flush(c);
    }
}

static void tick(struct sim_worker *w)
{
    take_script(w);
    for (unsigned p = 0; p < SIM_PROVIDER_COUNT; p++)
        check_listener(w, p);
    for (uint32_t i = 0; i < w->slots_count; i++)
        if (w->conns[i] && w->conns[i]->state != SIM_CONN_FROZEN)
            tick_conn(w, w->conns[i]);
    /* release: the control thread's caller may rely on what was opened and closed above */
    atomic_store_explicit(&w->script_seen, w->script_version, memory_order_release);
}

bool sim_worker_has_script(const struct sim_worker *w, uint32_t version)
{
    /* signed difference: versions may wrap */
    return (int32_t)(atomic_load_explicit(&w->script_seen, memory_order_acquire) - version) >= 0;
}

static int wait_events(struct sim_worker *w, struct epoll_event *events, uint64_t tick_at)
{
    uint64_t due =
        w->delay.count && w->delay.rows[0].due_ns < tick_at ? w->delay.rows[0].due_ns : tick_at;
    uint64_t wait = due > w->now_ns ? due - w->now_ns : 0;
    struct timespec timeout = {(time_t)(wait / 1000000000ull), (long)(wait % 1000000000ull)};
    return epoll_pwait2(w->epoll, events, EVENTS_BURST, &timeout, NULL);
}

static void *worker_main(void *arg)
{
    struct sim_worker *w = arg;
    struct epoll_event events[EVENTS_BURST];
    uint64_t tick_at = 0;
    read_clocks(w);
    while (!atomic_load_explicit(&w->sim->stop, memory_order_relaxed)) {
        int n = wait_events(w, events, tick_at);
        read_clocks(w);
        for (int i = 0; i < n; i++) {
            uint64_t data = events[i].data.u64;
            struct sim_conn *c = NULL;
            if (data & LISTENER_MARK)
                accept_some(w, (unsigned)(data & 0xff));
            else if ((c = find_conn(w, (uint32_t)data, (uint32_t)(data >> 32))))
                sim_conn_on_event(c, events[i].events);
        }
        run_delays(w);
        if (w->now_ns >= tick_at) {
            tick(w);
            tick_at = w->now_ns + SIM_TICK_NS;
        }
        free_dead(w);
    }
    return NULL;
}

/* ---- life ---- */

struct sim_worker *sim_worker_create(struct sim *sim, unsigned index)
{
    struct sim_worker *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    w->sim = sim;
    w->index = index;
    w->rng.state = sim->seed + index * 0x9e3779b97f4a7c15ull;
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->auth = sim_auth_create(&sim->creds, &sim->world);
    w->conns = calloc(SIM_CONNS_MAX, sizeof(struct sim_conn *));
    w->generations = calloc(SIM_CONNS_MAX, sizeof(uint32_t));
    w->in = malloc(SIM_IN_BYTES);
    w->script = sim_script_current(sim);
    w->script_version = atomic_load_explicit(&sim->script_version, memory_order_acquire);
    w->ctx = (struct sim_ctx){.world = &sim->world,
                              .channels = sim->channels,
                              .rng = &w->rng,
                              .mint_access_token = mint_access_token,
                              .secret = &sim->creds};
    if (w->epoll < 0 || !w->auth || !w->conns || !w->generations || !w->in) {
        fprintf(stderr, "belfry-sim: out of memory\n");
        return NULL;
    }
    for (unsigned p = 0; p < SIM_PROVIDER_COUNT; p++)
        if (!open_listener(w, p)) {
            fprintf(stderr, "belfry-sim: %s: %s:%u: %s\n", sim_providers[p].name, sim->address,
                    sim->port[p], strerror(errno));
            return NULL;
        }
    return w;
}

bool sim_worker_start(struct sim_worker *w)
{
    return pthread_create(&w->thread, NULL, worker_main, w) == 0;
}

void sim_worker_destroy(struct sim_worker *w)
{
    pthread_join(w->thread, NULL);
    for (uint32_t i = 0; i < w->slots_count; i++)
        if (w->conns[i])
            sim_conn_close(w->conns[i], false);
    free_dead(w);
    for (unsigned p = 0; p < SIM_PROVIDER_COUNT; p++) {
        close(w->listeners[p].reserved);
        if (w->listeners[p].fd >= 0)
            close(w->listeners[p].fd);
    }
    sim_script_unref(w->script);
    sim_stream_pool_fini(&w->streams);
    sim_auth_destroy(w->auth);
    close(w->epoll);
    free(w->delay.rows);
    free(w->conns);
    free(w->generations);
    free(w->in);
    free(w);
}
