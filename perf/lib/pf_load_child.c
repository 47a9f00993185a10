/*
 * Load client, a child: one io_uring, up to 18,000 connections. A connection walks
 *   IDLE -> CONNECTING -> UPGRADING (request sent) -> GREETING (connect frame sent) -> READY ->
 * GONE and back to CONNECTING for clients that come back. Receives are multishot into a provided
 * buffer ring; sends are few and small (handshake, pongs), so they are plain send() calls on
 * sockets that have room. One thread.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "belfry/base/ws_frame.h"
#include "pf_jwt.h"
#include "pf_load_shared.h"
#include "pf_report.h"
#include "pf_ws.h"

#define SQ_ENTRIES      4096u
#define CQ_ENTRIES      65536u /* every connection may have a completion at once */
#define BUFFER_COUNT    4096u  /* power of two; a broadcast comes faster than we take it */
#define BUFFER_BYTES    2048u
#define BUFFER_GROUP    1u
#define PENDING_MAX     128u
#define HEAD_BYTES_MAX  4096u
#define TURN_TIMEOUT_MS 50u
#define TOKEN_TTL_S     86400u
/* Ports are named, not asked for: with thousands in use the kernel's search costs 300 us a connect.
 */
#define SOURCE_PORT_FIRST 40000u
/* Clients that come back: how often the due ones are looked for, and how long they stay away. */
#define RETURN_LOOK_NS 10000000ull
#define RETURN_LEFT_MS                                                                             \
    200u /* after leaving: the old socket must be gone, its port is taken again */
#define RETURN_LOST_MS  2000u /* jitter after a loss that nobody announced */
#define LEAVES_PER_TURN 256u
_Static_assert(SOURCE_PORT_FIRST + PF_LOAD_PROCESS_CONNECTIONS < 65536u, "a port each");

enum state { IDLE = 0, CONNECTING, UPGRADING, GREETING, READY, GONE };
enum op { OP_CONNECT = 1, OP_RECV = 2 };

struct conn {
    int fd;
    enum state state;
    uint8_t generation; /* of the socket: completions of an earlier one say so */
    bool was_open;
    uint32_t after_ms; /* what a goaway said */
    char *head;        /* answer to the upgrade, while it is read */
    uint32_t head_len;
    struct pf_ws_reader reader;
};

struct child {
    const struct pf_load_spec *spec;
    struct pf_load_shared *shared;
    struct pf_load_counters *counters;
    struct io_uring ring;
    struct io_uring_buf_ring *buffers;
    uint8_t *buffer_bytes;
    struct conn *conns;
    struct sockaddr_in to, from;
    uint32_t process, first, count;
    uint32_t next; /* first connection not yet started */
    uint32_t pending;
    uint32_t *due_ms; /* by connection: when it connects again, of this child's clock; 0: not */
    uint32_t due_count;
    uint32_t leaver; /* next connection to leave */
    uint64_t start_ns, looked_ns;
    double leave_credit;
    uint32_t random;
    uint32_t round;
    uint8_t *round_frame; /* the round's message as the first connection here got it */
    size_t round_frame_len, round_frame_cap;
};

static void bump(_Atomic uint64_t *counter)
{
    bf_hist_bump(counter, 1);
}

static struct io_uring_sqe *sqe_get(struct child *c)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&c->ring);
    if (!sqe) {
        io_uring_submit(&c->ring);
        sqe = io_uring_get_sqe(&c->ring);
    }
    if (!sqe)
        pf_die("submission queue full");
    return sqe;
}

/* op in 8 bits, generation in 8, index in 32. */
static uint64_t tag(enum op op, uint32_t generation, uint32_t index)
{
    return (uint64_t)op << 40 | (uint64_t)generation << 32 | index;
}

/* xorshift32: jitter, not secrecy. */
static uint32_t next_random(struct child *c)
{
    c->random ^= c->random << 13;
    c->random ^= c->random >> 17;
    c->random ^= c->random << 5;
    return c->random;
}

/* ---- life of a connection ---- */

static uint32_t child_ms(const struct child *c, uint64_t now_ns)
{
    return (uint32_t)((now_ns - c->start_ns) / 1000000u) + 1u;
}

static void conn_return_at(struct child *c, const struct conn *conn, uint32_t after_ms)
{
    if (!c->due_ms)
        return;
    c->due_ms[conn - c->conns] = child_ms(c, bf_mono_ns()) + after_ms;
    c->due_count++;
}

static void conn_end(struct child *c, struct conn *conn)
{
    static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (conn->state != READY && conn->state != IDLE)
        c->pending--;
    conn->state = GONE;
    setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    shutdown(conn->fd, SHUT_RDWR); /* ends the multishot receive before the descriptor goes */
    close(conn->fd);
    free(conn->head);
    conn->head = NULL;
    conn->head_len = 0;
    pf_ws_reader_fini(&conn->reader);
}

/* The other side ended it, or it never got there. */
static void conn_gone(struct child *c, struct conn *conn)
{
    if (conn->state == GONE)
        return;
    bump(conn->state == READY ? &c->counters->dropped : &c->counters->failed);
    conn_end(c, conn);
    conn_return_at(c, conn, conn->after_ms ? conn->after_ms : next_random(c) % RETURN_LOST_MS);
    conn->after_ms = 0;
}

static bool conn_send(const struct conn *conn, const void *bytes, size_t len)
{
    return send(conn->fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)len;
}

static bool conn_open_socket(struct child *c, struct conn *conn, uint32_t index)
{
    int one = 1;
    conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (conn->fd < 0)
        return false;
    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(conn->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    c->from.sin_port = htons((uint16_t)(SOURCE_PORT_FIRST + index));
    if (bind(conn->fd, (struct sockaddr *)&c->from, sizeof(c->from)) == 0)
        return true;
    /* somebody has that port: any other */
    c->from.sin_port = 0;
    setsockopt(conn->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
    return bind(conn->fd, (struct sockaddr *)&c->from, sizeof(c->from)) == 0;
}

static void conn_start(struct child *c, uint32_t index)
{
    struct conn *conn = &c->conns[index];
    conn->generation++;
    if (!conn_open_socket(c, conn, index)) {
        bump(&c->counters->failed);
        conn->state = GONE;
        conn_return_at(c, conn, RETURN_LOST_MS);
        return;
    }
    struct io_uring_sqe *sqe = sqe_get(c);
    io_uring_prep_connect(sqe, conn->fd, (struct sockaddr *)&c->to, sizeof(c->to));
    sqe->user_data = tag(OP_CONNECT, conn->generation, index);
    conn->state = CONNECTING;
    c->pending++;
}

static void recv_arm(struct child *c, uint32_t index)
{
    struct io_uring_sqe *sqe = sqe_get(c);
    io_uring_prep_recv_multishot(sqe, c->conns[index].fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = BUFFER_GROUP;
    sqe->user_data = tag(OP_RECV, c->conns[index].generation, index);
}

static void on_connected(struct child *c, uint32_t index, int result)
{
    const struct pf_load_spec *spec = c->spec;
    struct conn *conn = &c->conns[index];
    char request[PF_WS_REQUEST_BYTES_MAX], token[PF_JWT_BYTES_MAX], user[96];
    size_t token_len = 0;
    if (result < 0) {
        conn_gone(c, conn);
        return;
    }
    if (spec->user_prefix) {
        snprintf(user, sizeof(user), "%s%u", spec->user_prefix,
                 spec->first_user + c->first + index);
        uint64_t expires_s = bf_wall_ms() / 1000 + TOKEN_TTL_S;
        token_len =
            spec->jwt_es256_key
                ? pf_jwt_mint_es256(spec->jwt_es256_key, user, expires_s, token)
                : pf_jwt_mint(spec->jwt_secret, spec->jwt_secret_len, user, expires_s, token);
    }
    size_t n = pf_ws_request(request, sizeof(request), spec->host, ntohs(c->to.sin_port),
                             spec->path ? spec->path : "/v1/ws",
                             spec->subprotocol ? spec->subprotocol : "belfry.v1.json",
                             spec->user_prefix ? token : NULL, token_len);
    conn->state = UPGRADING;
    conn->head = malloc(HEAD_BYTES_MAX);
    if (!conn->head || !conn_send(conn, request, n))
        conn_gone(c, conn);
    else
        recv_arm(c, index);
}

static void conn_ready(struct child *c, struct conn *conn)
{
    conn->state = READY;
    c->pending--;
    bump(&c->counters->open);
    if (conn->was_open)
        bump(&c->counters->returned);
    conn->was_open = true;
    atomic_store_explicit(&c->counters->last_open_ns, bf_mono_ns(), memory_order_relaxed);
}

/* Reads the answer to the upgrade. Returns the bytes used, -1 on a refusal. */
static ssize_t head_take(struct child *c, struct conn *conn, const uint8_t *bytes, size_t len)
{
    uint8_t frame[1024];
    size_t room = HEAD_BYTES_MAX - 1 - conn->head_len;
    size_t n = len < room ? len : room;
    size_t before = conn->head_len;
    memcpy(conn->head + before, bytes, n);
    conn->head_len += (uint32_t)n;
    conn->head[conn->head_len] = '\0';
    char *end = strstr(conn->head, "\r\n\r\n");
    if (!end)
        return n == len ? (ssize_t)n : -1;
    if (strncmp(conn->head, "HTTP/1.1 101", 12) != 0) {
        pf_say("upgrade refused: %.*s", (int)strcspn(conn->head, "\r"), conn->head);
        return -1;
    }
    size_t used = (size_t)(end + 4 - conn->head) - before;
    free(conn->head);
    conn->head = NULL;
    if (!c->spec->connect_frame) {
        conn_ready(c, conn);
        return (ssize_t)used;
    }
    n = pf_ws_frame(frame, sizeof(frame), BF_WS_TEXT, c->spec->connect_frame,
                    strlen(c->spec->connect_frame));
    conn->state = GREETING;
    return n > 0 && conn_send(conn, frame, n) ? (ssize_t)used : -1;
}

/* ---- messages ---- */

static void round_enter(struct child *c, uint32_t round)
{
    struct pf_load_counters *k = c->counters;
    c->round = round;
    c->round_frame_len = 0;
    atomic_store_explicit(&k->round_frames, 0, memory_order_relaxed);
    atomic_store_explicit(&k->round_first_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&k->round_last_ns, 0, memory_order_relaxed);
    /* release: who sees the id sees the counters reset */
    atomic_store_explicit(&k->round_seen, round, memory_order_release);
}

/* The first message of a round here must hold the marker, the others equal it byte by byte. */
static bool round_matches(struct child *c, const uint8_t *data, size_t len)
{
    struct pf_load_shared *shared = c->shared;
    if (c->round_frame_len > 0)
        return len == c->round_frame_len && memcmp(data, c->round_frame, len) == 0;
    if (!memmem(data, len, shared->marker, shared->marker_len))
        return false;
    if (len > c->round_frame_cap) {
        uint8_t *grown = realloc(c->round_frame, len);
        if (!grown)
            return false;
        c->round_frame = grown;
        c->round_frame_cap = len;
    }
    memcpy(c->round_frame, data, len);
    c->round_frame_len = len;
    return true;
}

static bool round_message(struct child *c, const uint8_t *data, size_t len, uint64_t now_ns)
{
    struct pf_load_counters *k = c->counters;
    uint32_t round = atomic_load_explicit(&c->shared->round, memory_order_acquire);
    if (round == 0)
        return true; /* nothing was asked of us: counted as a frame only */
    if (round != c->round)
        round_enter(c, round);
    if (!round_matches(c, data, len))
        return false;
    uint64_t frames = atomic_load_explicit(&k->round_frames, memory_order_relaxed);
    if (frames == 0)
        atomic_store_explicit(&k->round_first_ns, now_ns, memory_order_relaxed);
    atomic_store_explicit(&k->round_last_ns, now_ns, memory_order_relaxed);
    bf_hist_add(&k->latency_ns, now_ns - c->shared->trigger_ns);
    bump(&k->round_frames);
    return true;
}

/* {"t":"n","seq":S,["lane":L,]...: our server writes them in this order. */
static bool acknowledge(const struct conn *conn, const uint8_t *data, size_t len)
{
    static const char start[] = "{\"t\":\"n\",\"seq\":";
    char ack[80];
    uint8_t frame[PF_WS_SMALL_BYTES_MAX];
    if (len < sizeof(start) + 20 || memcmp(data, start, sizeof(start) - 1) != 0)
        return true; /* a broadcast, an answer */
    uint64_t seq = strtoull((const char *)data + sizeof(start) - 1, NULL, 10);
    const char *lane = memmem(data, 64, "\"critical\"", 10) ? ",\"lane\":\"critical\""
                       : memmem(data, 64, "\"bulk\"", 6)    ? ",\"lane\":\"bulk\""
                                                            : "";
    int n =
        snprintf(ack, sizeof(ack), "{\"t\":\"ack\",\"seq\":%llu%s}", (unsigned long long)seq, lane);
    return conn_send(conn, frame, pf_ws_frame(frame, sizeof(frame), BF_WS_TEXT, ack, (size_t)n));
}

/* {"t":"goaway","reconnect_after_ms":N,...}: our server writes them in this order. */
static bool is_goaway(struct child *c, struct conn *conn, const uint8_t *data, size_t len)
{
    static const char start[] = "{\"t\":\"goaway\",\"reconnect_after_ms\":";
    if (len < sizeof(start) || memcmp(data, start, sizeof(start) - 1) != 0)
        return false;
    conn->after_ms = (uint32_t)strtoul((const char *)data + sizeof(start) - 1, NULL, 10);
    bump(&c->counters->goaways);
    return true;
}

static bool on_data(struct child *c, uint32_t index, const struct pf_ws_message *m, uint64_t now_ns)
{
    struct conn *conn = &c->conns[index];
    struct pf_load_conn seen = {.index = c->first + index, .process = c->process};
    bool good;
    if (conn->state == GREETING) {
        if (!memmem(m->data, m->len, "\"welcome\"", 9)) {
            pf_say("no welcome: %.*s", (int)m->len, (const char *)m->data);
            return false;
        }
        conn_ready(c, conn);
        return true;
    }
    if (c->spec->comes_back && is_goaway(c, conn, m->data, m->len))
        return true;
    bump(&c->counters->frames);
    good = c->spec->on_message
               ? c->spec->on_message(c->spec->ctx, &seen, c->counters, m->data, m->len, now_ns)
               : round_message(c, m->data, m->len, now_ns);
    if (!good)
        bump(&c->counters->bad);
    return !c->spec->acknowledge || acknowledge(conn, m->data, m->len);
}

/* Returns false when the connection is over. */
static bool on_frame(struct child *c, uint32_t index, const struct pf_ws_message *m,
                     uint64_t now_ns)
{
    uint8_t frame[PF_WS_SMALL_BYTES_MAX];
    switch (m->opcode) {
    case BF_WS_TEXT:
    case BF_WS_BINARY:
        return on_data(c, index, m, now_ns);
    case BF_WS_PING:
        bump(&c->counters->pings);
        bump(&c->counters->pongs);
        return conn_send(&c->conns[index], frame,
                         pf_ws_frame(frame, sizeof(frame), BF_WS_PONG, m->data, m->len));
    case BF_WS_PONG:
        return true;
    case BF_WS_CLOSE:
    default:
        return false;
    }
}

static void on_bytes(struct child *c, uint32_t index, const uint8_t *bytes, size_t len,
                     uint64_t now_ns)
{
    struct conn *conn = &c->conns[index];
    bf_hist_bump(&c->counters->bytes, len);
    if (conn->state == UPGRADING) {
        ssize_t n = head_take(c, conn, bytes, len);
        if (n < 0) {
            conn_gone(c, conn);
            return;
        }
        bytes += n;
        len -= (size_t)n;
    }
    while (len > 0 && (conn->state == GREETING || conn->state == READY)) {
        struct pf_ws_message m;
        size_t used = 0;
        int rc = pf_ws_read(&conn->reader, bytes, len, &used, &m);
        bytes += used;
        len -= used;
        if (rc < 0)
            bump(&c->counters->bad);
        if (rc < 0 || (rc == 1 && !on_frame(c, index, &m, now_ns)))
            conn_gone(c, conn);
        if (rc == 0)
            return;
    }
}

/* ---- the ring ---- */

static void buffer_return(struct child *c, uint16_t id)
{
    io_uring_buf_ring_add(c->buffers, c->buffer_bytes + (size_t)id * BUFFER_BYTES, BUFFER_BYTES, id,
                          io_uring_buf_ring_mask(BUFFER_COUNT), 0);
    io_uring_buf_ring_advance(c->buffers, 1);
}

static void on_recv(struct child *c, uint32_t index, const struct io_uring_cqe *cqe,
                    uint64_t now_ns)
{
    struct conn *conn = &c->conns[index];
    bool is_late = ((cqe->user_data >> 32) & 0xff) != conn->generation;
    if (cqe->res > 0) {
        uint16_t id = (uint16_t)(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
        if (conn->state != GONE && !is_late)
            on_bytes(c, index, c->buffer_bytes + (size_t)id * BUFFER_BYTES, (size_t)cqe->res,
                     now_ns);
        buffer_return(c, id);
    } else if (cqe->res != -ENOBUFS && !is_late) {
        conn_gone(c, conn);
        return;
    }
    if (!(cqe->flags & IORING_CQE_F_MORE) && conn->state != GONE && !is_late)
        recv_arm(c, index);
}

static void on_completion(struct child *c, const struct io_uring_cqe *cqe)
{
    uint32_t index = (uint32_t)cqe->user_data;
    if (cqe->user_data >> 40 == OP_CONNECT)
        on_connected(c, index, cqe->res);
    else
        on_recv(c, index, cqe, bf_mono_ns());
}

static void ring_setup(struct child *c)
{
    struct io_uring_params params = {
        /* deferred task work: the kernel runs receives when we ask for them, in batches */
        .flags = IORING_SETUP_CQSIZE | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
        .cq_entries = CQ_ENTRIES,
    };
    int rc = io_uring_queue_init_params(SQ_ENTRIES, &c->ring, &params);
    if (rc < 0)
        pf_die("io_uring: %s", strerror(-rc));
    size_t ring_bytes = BUFFER_COUNT * sizeof(struct io_uring_buf);
    void *ring_memory = NULL;
    c->buffer_bytes = malloc((size_t)BUFFER_COUNT * BUFFER_BYTES);
    if (posix_memalign(&ring_memory, 4096, ring_bytes) != 0 || !c->buffer_bytes)
        pf_die("out of memory");
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)ring_memory,
        .ring_entries = BUFFER_COUNT,
        .bgid = BUFFER_GROUP,
    };
    c->buffers = ring_memory;
    io_uring_buf_ring_init(c->buffers);
    rc = io_uring_register_buf_ring(&c->ring, &reg, 0);
    if (rc < 0)
        pf_die("provided buffers: %s", strerror(-rc));
    for (uint32_t i = 0; i < BUFFER_COUNT; i++)
        buffer_return(c, (uint16_t)i);
}

static void addresses_setup(struct child *c, const struct pf_load *load)
{
    const struct pf_load_spec *spec = c->spec;
    char source[32];
    c->to.sin_family = AF_INET;
    c->to.sin_port = htons(spec->ports ? spec->ports[c->process] : spec->port);
    if (inet_pton(AF_INET, spec->host, &c->to.sin_addr) != 1)
        pf_die("not an address: %s", spec->host);
    snprintf(source, sizeof(source), "127.0.%u.%u", load->instance, 2 + c->process);
    c->from.sin_family = AF_INET;
    inet_pton(AF_INET, source, &c->from.sin_addr);
    if ((ntohl(c->to.sin_addr.s_addr) >> 24) != 127)
        c->from.sin_addr.s_addr = INADDR_ANY;
}

/* Clients end connections at the rate asked for. */
static void leave_some(struct child *c, double seconds)
{
    /* relaxed: a wish, nothing is published with it */
    uint32_t milli = atomic_load_explicit(&c->shared->churn_milli, memory_order_relaxed);
    c->leave_credit += seconds * milli / 1000.0;
    if (c->leave_credit > LEAVES_PER_TURN)
        c->leave_credit = LEAVES_PER_TURN;
    for (uint32_t looked = 0; looked < c->count && c->leave_credit >= 1; looked++) {
        struct conn *conn = &c->conns[c->leaver];
        c->leaver = (c->leaver + 1) % c->count;
        if (conn->state != READY)
            continue;
        bump(&c->counters->left);
        conn_end(c, conn);
        conn_return_at(c, conn, RETURN_LEFT_MS / 2 + next_random(c) % RETURN_LEFT_MS);
        c->leave_credit -= 1;
    }
}

/* Those whose time has come connect again. */
static void come_back(struct child *c, uint32_t pending_max)
{
    uint64_t now_ns = bf_mono_ns();
    if (!c->due_ms || now_ns - c->looked_ns < RETURN_LOOK_NS)
        return;
    leave_some(c, (double)(now_ns - c->looked_ns) / 1e9);
    c->looked_ns = now_ns;
    uint32_t now_ms = child_ms(c, now_ns);
    uint32_t left = c->due_count;
    for (uint32_t i = 0; i < c->count && left > 0 && c->pending < pending_max; i++) {
        if (c->due_ms[i] == 0)
            continue;
        left--;
        if (c->due_ms[i] > now_ms)
            continue;
        c->due_ms[i] = 0;
        c->due_count--;
        conn_start(c, i);
    }
}

static void turn(struct child *c)
{
    uint32_t pending_max = c->spec->pending_max ? c->spec->pending_max : PENDING_MAX;
    struct __kernel_timespec timeout = {.tv_nsec = c->due_ms ? (long long)RETURN_LOOK_NS
                                                             : TURN_TIMEOUT_MS * 1000000ll};
    struct io_uring_cqe *cqe;
    unsigned head, taken = 0;
    while (c->next < c->count && c->pending < pending_max)
        conn_start(c, c->next++);
    come_back(c, pending_max);
    (void)io_uring_submit_and_wait_timeout(&c->ring, &cqe, 1, &timeout, NULL);
    bump(&c->counters->enter_calls);
    io_uring_for_each_cqe (&c->ring, head, cqe) {
        on_completion(c, cqe);
        taken++;
    }
    io_uring_cq_advance(&c->ring, taken);
    if (*c->ring.cq.koverflow)
        pf_die("completion queue overflow");
}

void pf_load_child(const struct pf_load *load, uint32_t process, uint32_t first, uint32_t count)
{
    struct child c = {
        .spec = &load->spec,
        .shared = load->shared,
        .counters = &load->shared->counters[process],
        .process = process,
        .first = first,
        .count = count,
    };
    c.start_ns = c.looked_ns = bf_mono_ns();
    c.random = (process + 1) * 2654435761u;
    c.conns = calloc(count, sizeof(*c.conns));
    c.due_ms = load->spec.comes_back ? calloc(count, sizeof(*c.due_ms)) : NULL;
    if (!c.conns || (load->spec.comes_back && !c.due_ms))
        pf_die("out of memory");
    addresses_setup(&c, load);
    ring_setup(&c);
    while (atomic_load_explicit(&c.shared->stop, memory_order_acquire) == 0)
        turn(&c);
    static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    for (uint32_t i = 0; i < count; i++)
        if (c.conns[i].state != IDLE && c.conns[i].state != GONE)
            setsockopt(c.conns[i].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    _exit(0); /* not exit: the parent's handlers are not ours to run */
}
