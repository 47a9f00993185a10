/* See io.h. */
#include "io/io.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "belfry/base/log.h"
#include "io/io_compat.h"
#include "io/io_kernel.h"
#include "io/io_op.h"
#include "io/ktls.h"

/* 256 sends, as many receives and the rest of a turn fit without an early submit. 64 KiB a ring. */
#define SQ_ENTRIES 1024u
/* One accept may bring a whole backlog (4,096) in one go, on top of a turn's requests. 128 KiB. */
#define CQ_ENTRIES 8192u
/* Descriptors of the process itself: log, listeners, rings, DPDK's files. */
#define FILES_RESERVED 64u
/* Where sockets are ordinary descriptors: what they leave of them, as a share. belfry-dev's control
 * plane has its files and its HTTP connections in the same table. */
#define FILES_KEPT_DIVISOR 8u
/* Shares of a table (percent): DESIGN 3. */
#define ACCEPT_STOP_PERCENT  95u
#define ACCEPT_AGAIN_PERCENT 90u
/* A kernel runs at most ~20 deferred completions a call, so taking a burst needs several; bounded.
 */
#define GET_EVENTS_CALLS_MAX 16u
/* What a turn reaps. */
#define GET_EVENTS_ENOUGH 256u
/* Accepts that may lie among completions not yet reaped, beside the one burst that is a backlog. */
#define UNSEEN_MAX 512u
#define RINGS_MAX  255u

struct io_ring {
    struct io_uring ring;
    uint32_t open; /* direct descriptors in use */
    bool accepting[BF_IO_LISTENERS_MAX];
    bool cancelling[BF_IO_LISTENERS_MAX];
    int event_fd; /* ring 0 polls it; -1 for ring 0 itself */
};

struct bf_io {
    struct bf_io_plan plan;
    struct bf_worker_stats *stats;
    uint32_t worker;
    uint8_t file_flag; /* of a request: the file is a direct descriptor */
    int listen_fds[BF_IO_LISTENERS_MAX];
    bool has_futex;
    bool bell_pending;   /* the futex wait is in the kernel */
    uint32_t next_reap;  /* ring that is reaped first; rotates */
    uint32_t ring_count; /* opened so far */
    uint64_t overflows;
    struct io_ring rings[];
};

/* ---- plan ---- */

/* What we may have, not what the shell gave us. */
static int raise_files(uint32_t *ret_files)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return -errno;
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    *ret_files = limit.rlim_cur > 1u << 20 ? 1u << 20 : (uint32_t)limit.rlim_cur;
    return *ret_files < FILES_RESERVED * 4u ? -EMFILE : 0;
}

/* Sockets a ring may hold of |files| descriptors, so that |stop| of them are reached. */
static void plan_ring(const struct bf_io_opts *opts, uint32_t files, uint32_t wanted,
                      struct bf_io_plan *plan)
{
    uint32_t backlog = opts->backlog;
    /* an accept into a full table destroys the connection: leave room for a burst of the backlog,
     * and where the table is small, make the backlog small */
    if (backlog > files / 4u)
        backlog = files / 4u;
    if (wanted > files)
        wanted = files;
    uint32_t room = files > backlog + UNSEEN_MAX ? files - backlog - UNSEEN_MAX : 0;
    plan->outgoing = opts->outgoing_max < room / 4u ? opts->outgoing_max : room / 4u;
    uint32_t slack = backlog + UNSEEN_MAX + plan->outgoing;
    plan->table = wanted + slack < files ? wanted + slack : files;
    uint32_t stop = (uint32_t)((uint64_t)wanted * ACCEPT_STOP_PERCENT / 100u);
    if (stop > plan->table - slack)
        stop = plan->table - slack;
    plan->accept_stop = stop;
    plan->accept_again = stop * ACCEPT_AGAIN_PERCENT / ACCEPT_STOP_PERCENT;
    plan->backlog = backlog / (opts->listeners > 1 ? opts->listeners : 1);
}

/* One ring, and of the process's descriptors a worker's share. */
static int plan_ordinary(const struct bf_io_opts *opts, uint32_t files, struct bf_io_plan *plan)
{
    uint32_t workers = opts->workers > 0 ? opts->workers : 1;
    uint32_t share = (files - files / FILES_KEPT_DIVISOR) / workers;
    if (share < FILES_RESERVED * 4u)
        return -EMFILE;
    /* the stop is at what was asked for, which the table lies above */
    uint64_t wanted = (uint64_t)opts->connections_max * 100u / ACCEPT_STOP_PERCENT + 1u;
    plan->rings = 1;
    plan_ring(opts, share, wanted > share ? share : (uint32_t)wanted, plan);
    plan->accept_again = plan->accept_stop; /* no other ring has the place that becomes free */
    BF_WARN(
        "dataplane",
        "this kernel keeps what direct descriptors of io_uring have closed (Linux 6.13 does "
        "not): ordinary ones are used, of which the process may have %u: %u connections a worker",
        files,
        plan->accept_stop < opts->connections_max ? plan->accept_stop : opts->connections_max);
    if (plan->accept_stop < opts->connections_max)
        BF_WARN("dataplane",
                "dataplane.connections_max asks for %u a worker: raise the limit of open files "
                "(LimitNOFILE of the service, ulimit -Hn)",
                opts->connections_max);
    return 0;
}

int bf_io_plan(const struct bf_io_opts *opts, struct bf_io_plan *ret_plan)
{
    uint32_t files = 0;
    int rc = raise_files(&files);
    if (rc != 0)
        return rc;
    *ret_plan = (struct bf_io_plan){.is_direct = bf_kernel_lets_direct_go()};
    if (!ret_plan->is_direct)
        return plan_ordinary(opts, files, ret_plan);
    plan_ring(opts, files - FILES_RESERVED, opts->ring_connections_max, ret_plan);
    ret_plan->rings = (opts->connections_max + ret_plan->accept_stop - 1) / ret_plan->accept_stop;
    return ret_plan->rings > RINGS_MAX ? -E2BIG : 0;
}

int bf_io_listen(const struct bf_io_opts *opts, uint32_t backlog, uint16_t *ret_port)
{
    struct sockaddr_storage addr = {0};
    struct sockaddr_in *v4 = (struct sockaddr_in *)&addr;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&addr;
    socklen_t len = sizeof(*v4);
    const int on = 1;
    if (inet_pton(AF_INET, opts->host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(opts->port);
    } else if (inet_pton(AF_INET6, opts->host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(opts->port);
        len = sizeof(*v6);
    } else {
        return -EINVAL;
    }
    int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    /* inherited by accepted sockets. NODELAY: a frame leaves at once, coalescing is ours.
     * USER_TIMEOUT: a peer that only listens (server-sent events) and has vanished is noticed by
     * what it does not acknowledge; the system's own patience is 15 minutes */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &opts->user_timeout_ms,
                   sizeof(opts->user_timeout_ms)) != 0 ||
        bind(fd, (struct sockaddr *)&addr, len) != 0 || listen(fd, (int)backlog) != 0 ||
        getsockname(fd, (struct sockaddr *)&addr, &len) != 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    *ret_port = ntohs(addr.ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
    return fd;
}

/* ---- set-up ---- */

static int open_ring(struct io_ring *r, uint32_t worker)
{
    static const struct {
        unsigned flags;
        const char *lost;
    } tries[] = {
        /* completions run when we ask, not in the middle of a turn */
        {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, NULL},
        {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, "deferred completions"},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
        struct io_uring_params params = {
            .flags =
                tries[i].flags | IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP,
            .cq_entries = CQ_ENTRIES,
        };
        rc = io_uring_queue_init_params(SQ_ENTRIES, &r->ring, &params);
        if (rc != -EINVAL) {
            if (rc == 0 && tries[i].lost)
                BF_WARN("dataplane", "worker %u: io_uring without %s", worker, tries[i].lost);
            return rc;
        }
    }
    return rc;
}

static int open_signal(struct io_ring *r)
{
    r->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return r->event_fd < 0 ? -errno : io_uring_register_eventfd(&r->ring, r->event_fd);
}

static const char *likely_cause(int err)
{
    switch (-err) {
    case EINVAL: /* a flag or a request that it does not know */
        return "this kernel's io_uring is too old; Belfry needs Linux 6.1 or newer";
    case EPERM:
        return "kernel.io_uring_disabled or a seccomp filter forbids io_uring";
    case ENOSYS:
        return "this kernel has no io_uring";
    case ENOMEM:
        return "memory or RLIMIT_MEMLOCK";
    case EMFILE:
        return "RLIMIT_NOFILE";
    default:
        return strerror(-err);
    }
}

size_t bf_io_bytes(const struct bf_io_plan *plan)
{
    return sizeof(struct bf_io) + plan->rings * sizeof(struct io_ring);
}

static struct io_uring_sqe *get_sqe(struct bf_io *io, struct io_ring *r)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&r->ring);
    while (BF_UNLIKELY(!sqe)) {
        bf_metric_add(io->stats, BF_M_io_enter, 1);
        (void)io_uring_submit(&r->ring);
        sqe = io_uring_get_sqe(&r->ring);
    }
    return sqe;
}

/* Polling the ring's own descriptor would not do: with deferred completions the kernel has posted
 * nothing yet that makes it readable. The eventfd is signalled when work is queued. */
static void watch_ring(struct bf_io *io, uint32_t index)
{
    struct io_uring_sqe *sqe = get_sqe(io, &io->rings[0]);
    io_uring_prep_poll_multishot(sqe, io->rings[index].event_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, bf_io_name(BF_IO_RING, (uint16_t)index, 0, 0));
}

/* Signals only while we sleep: awake, the flags of all rings are looked at every turn. */
static void set_signals(struct bf_io *io, bool on)
{
    for (uint32_t i = 1; i < io->plan.rings; i++)
        (void)io_uring_cq_eventfd_toggle(&io->rings[i].ring, on);
}

static void start_accept(struct bf_io *io, uint32_t index, uint32_t listener)
{
    struct io_ring *r = &io->rings[index];
    struct io_uring_sqe *sqe = get_sqe(io, r);
    if (io->plan.is_direct)
        io_uring_prep_multishot_accept_direct(sqe, io->listen_fds[listener], NULL, NULL, 0);
    else
        io_uring_prep_multishot_accept(sqe, io->listen_fds[listener], NULL, NULL, SOCK_CLOEXEC);
    io_uring_sqe_set_data64(sqe, bf_io_name(BF_IO_ACCEPT, (uint16_t)listener, 0, 0));
    r->accepting[listener] = true;
}

/* Of the first ring accepts take no descriptor of those kept for outgoing sockets. */
static int make_table(struct io_uring *ring, const struct bf_io_plan *plan, bool is_first)
{
    int rc = io_uring_register_files_sparse(ring, plan->table);
    if (rc < 0 || !is_first || plan->outgoing == 0)
        return rc;
    return io_uring_register_file_alloc_range(ring, 0, plan->table - plan->outgoing);
}

int bf_io_create(const struct bf_io_opts *opts, const struct bf_io_plan *plan,
                 const int listen_fds[BF_IO_LISTENERS_MAX], void *memory, struct bf_io **ret_io)
{
    struct bf_io *io = memory;
    io->plan = *plan;
    io->stats = opts->stats;
    io->worker = opts->worker;
    io->file_flag = plan->is_direct ? IOSQE_FIXED_FILE : 0;
    memcpy(io->listen_fds, listen_fds, sizeof(io->listen_fds));
    for (uint32_t i = 0; i < plan->rings; i++) {
        int rc = open_ring(&io->rings[i], opts->worker);
        if (rc == 0) {
            io->ring_count++;
            rc = plan->is_direct ? make_table(&io->rings[i].ring, plan, i == 0) : 0;
        }
        if (rc < 0) {
            BF_ERROR("dataplane", "worker %u: io_uring %u of %u: %s", opts->worker, i + 1,
                     plan->rings, likely_cause(rc));
            bf_io_destroy(io);
            return rc;
        }
        io->rings[i].event_fd = -1;
        if (i > 0 && (rc = open_signal(&io->rings[i])) != 0) {
            BF_ERROR("dataplane", "worker %u: eventfd: %s", opts->worker, likely_cause(rc));
            bf_io_destroy(io);
            return rc;
        }
        /* saves a descriptor look-up a call; the first 16 of a thread, the others do without */
        (void)io_uring_register_ring_fd(&io->rings[i].ring);
    }
    io->has_futex = bf_kernel_has_futex(&io->rings[0].ring);
    if (!io->has_futex)
        BF_WARN(
            "dataplane",
            "worker %u: this kernel's io_uring has no futex (Linux 6.7 has): asleep, the worker "
            "looks for commands every 1 ms",
            opts->worker);
    for (uint32_t i = 0; i < plan->rings; i++) {
        for (uint32_t l = 0; l < BF_IO_LISTENERS_MAX; l++)
            if (io->listen_fds[l] >= 0)
                start_accept(io, i, l);
        if (i > 0)
            watch_ring(io, i);
    }
    set_signals(io, false);
    *ret_io = io;
    return 0;
}

void bf_io_destroy(struct bf_io *io)
{
    if (!io)
        return;
    for (uint32_t i = io->ring_count; i > 0; i--) {
        io_uring_queue_exit(&io->rings[i - 1].ring);
        if (io->rings[i - 1].event_fd >= 0)
            close(io->rings[i - 1].event_fd);
    }
    io->ring_count = 0;
}

/* ---- requests ---- */

static struct io_uring_sqe *request(struct bf_io *io, struct bf_io_sock s)
{
    return get_sqe(io, &io->rings[s.ring]);
}

static void name_request(struct io_uring_sqe *sqe, enum bf_io_op op, uint16_t aux,
                         struct bf_io_sock s)
{
    io_uring_sqe_set_data64(sqe, bf_io_name(op, aux, s.generation, s.slot));
}

void bf_io_poll(struct bf_io *io, struct bf_io_sock s)
{
    struct io_uring_sqe *sqe = request(io, s);
    io_uring_prep_poll_multishot(sqe, (int)s.file, POLLIN);
    sqe->flags |= io->file_flag;
    name_request(sqe, BF_IO_POLL, 0, s);
}

void bf_io_recv(struct bf_io *io, struct bf_io_sock s, void *buffer, uint32_t len, uint16_t aux)
{
    struct io_uring_sqe *sqe = request(io, s);
    io_uring_prep_recv(sqe, (int)s.file, buffer, len, MSG_DONTWAIT);
    sqe->flags |= io->file_flag;
    name_request(sqe, BF_IO_RECV, aux, s);
}

void bf_io_send(struct bf_io *io, struct bf_io_sock s, const void *bytes, size_t len)
{
    struct io_uring_sqe *sqe = request(io, s);
    io_uring_prep_send(sqe, (int)s.file, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    sqe->flags |= io->file_flag;
    name_request(sqe, BF_IO_SEND, 0, s);
}

void bf_io_pollout(struct bf_io *io, struct bf_io_sock s)
{
    struct io_uring_sqe *sqe = request(io, s);
    io_uring_prep_poll_add(sqe, (int)s.file, POLLOUT);
    sqe->flags |= io->file_flag;
    name_request(sqe, BF_IO_POLLOUT, 0, s);
}

void bf_io_shutdown(struct bf_io *io, struct bf_io_sock s)
{
    struct io_uring_sqe *sqe = request(io, s);
    io_uring_prep_shutdown(sqe, (int)s.file, SHUT_WR);
    sqe->flags |= io->file_flag;
    name_request(sqe, BF_IO_SHUTDOWN, 0, s);
}

void bf_io_cancel(struct bf_io *io, struct bf_io_sock s, enum bf_io_op op)
{
    struct io_uring_sqe *sqe = request(io, s);
    io_uring_prep_cancel64(sqe, bf_io_name(op, 0, s.generation, s.slot), 0);
    name_request(sqe, BF_IO_CANCEL, (uint16_t)op, s);
}

void bf_io_close(struct bf_io *io, struct bf_io_sock s)
{
    struct io_uring_sqe *sqe = request(io, s);
    if (io->plan.is_direct)
        io_uring_prep_close_direct(sqe, s.file);
    else
        io_uring_prep_close(sqe, (int)s.file);
    name_request(sqe, BF_IO_CLOSE, 0, s);
}

void bf_io_install(struct bf_io *io, struct bf_io_sock s)
{
    struct io_uring_sqe *sqe = request(io, s);
    io_uring_prep_rw(BF_IORING_OP_FIXED_FD_INSTALL, sqe, (int)s.file, NULL, 0, 0);
    sqe->flags |= io->file_flag;
    name_request(sqe, BF_IO_INSTALL, 0, s);
}

bool bf_io_is_direct(const struct bf_io *io)
{
    return io->plan.is_direct;
}

int bf_io_peer_now(const struct bf_io *io, struct bf_io_sock s, struct sockaddr_storage *ret)
{
    socklen_t len = sizeof(*ret);
    BF_BUG_ON(io->plan.is_direct);
    return getpeername((int)s.file, (struct sockaddr *)ret, &len) == 0 ? 0 : -errno;
}

void bf_io_peer(struct bf_io *io, struct bf_io_sock s, void *address, uint32_t len, uint16_t aux)
{
    struct io_uring_sqe *sqe = request(io, s);
    bf_prep_socket_option(sqe, (int)s.file, BF_SOCKET_GETSOCKOPT, SOL_SOCKET, SO_PEERNAME, address,
                          len);
    sqe->flags |= io->file_flag;
    name_request(sqe, BF_IO_PEER, aux, s);
}

void bf_io_reset(struct bf_io *io, struct bf_io_sock s)
{
    static struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (!io->plan.is_direct) {
        (void)setsockopt((int)s.file, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        return;
    }
    struct io_uring_sqe *sqe = request(io, s);
    bf_prep_socket_option(sqe, (int)s.file, BF_SOCKET_SETSOCKOPT, SOL_SOCKET, SO_LINGER, &at_once,
                          sizeof(at_once));
    sqe->flags |= io->file_flag | IOSQE_CQE_SKIP_SUCCESS;
    name_request(sqe, BF_IO_OPTION, 0, s);
}

void bf_io_ktls(struct bf_io *io, struct bf_io_sock s, const struct bf_ktls_info *info,
                uint16_t aux)
{
    struct io_ring *r = &io->rings[s.ring];
    /* a submit between the two would break the link */
    if (io_uring_sq_space_left(&r->ring) < 2) {
        bf_metric_add(io->stats, BF_M_io_enter, 1);
        (void)io_uring_submit(&r->ring);
    }
    struct io_uring_sqe *sqe = get_sqe(io, r);
    bf_ktls_prep_ulp(sqe, (int)s.file);
    /* its success is not skipped: then its failure would take the second's completion with it */
    sqe->flags |= io->file_flag | IOSQE_IO_LINK;
    name_request(sqe, BF_IO_OPTION, 0, s);
    sqe = get_sqe(io, r);
    bf_ktls_prep_tx(sqe, (int)s.file, info);
    sqe->flags |= io->file_flag;
    name_request(sqe, BF_IO_KTLS, aux, s);
}

void bf_io_alert(struct bf_io *io, struct bf_io_sock s, const struct bf_ktls_alert *alert)
{
    struct io_uring_sqe *sqe = request(io, s);
    bf_ktls_prep_alert(sqe, (int)s.file, alert);
    sqe->flags |= io->file_flag;
    name_request(sqe, BF_IO_ALERT, 0, s);
}

/* Gives our descriptor a place in the table. */
static int make_direct(struct bf_io *io, uint32_t place, int fd)
{
    int rc = io_uring_register_files_update(&io->rings[0].ring, place, &fd, 1);
    close(fd);
    return rc == 1 ? 0 : rc < 0 ? rc : -EIO;
}

int bf_io_connect(struct bf_io *io, uint32_t index, const struct sockaddr *address,
                  struct bf_io_sock *s)
{
    const int on = 1;
    if (index >= io->plan.outgoing)
        return -ENOSYS;
    /* by system calls: connects are rare, and a direct IORING_OP_SOCKET cannot be set to NODELAY on
     * every kernel we run on. Blocking, so that io_uring waits for it; each send says DONTWAIT */
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    s->ring = 0;
    s->file = (uint32_t)fd;
    if (io->plan.is_direct) {
        s->file = io->plan.table - io->plan.outgoing + index;
        int rc = make_direct(io, s->file, fd);
        if (rc != 0)
            return rc;
    }
    struct io_uring_sqe *sqe = request(io, *s);
    socklen_t len =
        address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    io_uring_prep_connect(sqe, (int)s->file, address, len);
    sqe->flags |= io->file_flag;
    name_request(sqe, BF_IO_CONNECT, 0, *s);
    return 0;
}

/* ---- accept ---- */

void bf_io_accept_check(struct bf_io *io, uint32_t ring, bool may_accept)
{
    struct io_ring *r = &io->rings[ring];
    for (uint32_t l = 0; l < BF_IO_LISTENERS_MAX; l++) {
        if (r->accepting[l] && !r->cancelling[l] &&
            (!may_accept || r->open >= io->plan.accept_stop)) {
            struct io_uring_sqe *sqe = get_sqe(io, r);
            io_uring_prep_cancel64(sqe, bf_io_name(BF_IO_ACCEPT, (uint16_t)l, 0, 0), 0);
            io_uring_sqe_set_data64(sqe, bf_io_name(BF_IO_ACCEPT_END, 0, 0, 0));
            r->cancelling[l] = true;
        } else if (!r->accepting[l] && io->listen_fds[l] >= 0 && may_accept &&
                   r->open < io->plan.accept_again) {
            start_accept(io, ring, l);
        }
    }
}

void bf_io_closed(struct bf_io *io, uint32_t ring)
{
    BF_BUG_ON(io->rings[ring].open == 0);
    io->rings[ring].open--;
}

/* ---- submit and reap ---- */

uint32_t bf_io_open(const struct bf_io *io)
{
    uint32_t open = 0;
    for (uint32_t i = 0; i < io->plan.rings; i++)
        open += io->rings[i].open;
    return open;
}

uint32_t bf_io_queued(const struct bf_io *io)
{
    uint32_t queued = 0;
    for (uint32_t i = 0; i < io->plan.rings; i++)
        queued += io_uring_sq_ready(&io->rings[i].ring);
    return queued;
}

static bool has_kernel_work(const struct io_ring *r)
{
    /* relaxed: a flag set just now is seen a turn later, or by the sleep, which looks again */
    unsigned flags = __atomic_load_n(r->ring.sq.kflags, __ATOMIC_RELAXED);
    return flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

static void note_overflow(struct bf_io *io, const struct io_ring *r)
{
    if (BF_UNLIKELY(io_uring_cq_has_overflow(&r->ring)))
        bf_metric_add(io->stats, BF_M_io_cq_overflow, 1);
}

void bf_io_submit(struct bf_io *io)
{
    for (uint32_t i = 0; i < io->plan.rings; i++) {
        struct io_ring *r = &io->rings[i];
        if (io_uring_sq_ready(&r->ring) == 0 && !has_kernel_work(r))
            continue;
        for (uint32_t n = 0; n < GET_EVENTS_CALLS_MAX; n++) {
            bf_metric_add(io->stats, BF_M_io_enter, 1);
            /* no more completions than are being taken: accepts among them fill the table unseen */
            if (io_uring_cq_ready(&r->ring) >= GET_EVENTS_ENOUGH)
                (void)io_uring_submit(&r->ring);
            else
                (void)io_uring_submit_and_get_events(&r->ring);
            note_overflow(io, r);
            if (!has_kernel_work(r) || io_uring_cq_ready(&r->ring) >= GET_EVENTS_ENOUGH)
                break;
        }
    }
}

/* Handles what is io's own. Returns true if the event is the worker's. */
static bool translate(struct bf_io *io, uint32_t ring, const struct io_uring_cqe *cqe,
                      struct bf_io_event *event)
{
    struct io_ring *r = &io->rings[ring];
    *event = bf_io_event_of(cqe->user_data);
    event->res = cqe->res;
    event->ring = (uint8_t)ring;
    event->more = cqe->flags & IORING_CQE_F_MORE;
    switch (event->op) {
    case BF_IO_ACCEPT:
        if (!event->more) {
            r->accepting[event->aux] = false;
            r->cancelling[event->aux] = false;
        }
        if (cqe->res >= 0)
            r->open++;
        return cqe->res != -ECANCELED;
    case BF_IO_BELL:
        io->bell_pending = false;
        return false;
    case BF_IO_RING:
        if (!event->more)
            watch_ring(io, event->aux);
        return false;
    case BF_IO_ACCEPT_END:
    case BF_IO_OPTION:
    case BF_IO_NONE:
        return false;
    default:
        return true;
    }
}

uint32_t bf_io_reap(struct bf_io *io, struct bf_io_event *events, uint32_t max)
{
    uint32_t taken = 0;
    for (uint32_t i = 0; i < io->plan.rings && taken < max; i++) {
        uint32_t ring = (io->next_reap + i) % io->plan.rings;
        struct io_uring *r = &io->rings[ring].ring;
        struct io_uring_cqe *cqe;
        unsigned head;
        unsigned seen = 0;
        io_uring_for_each_cqe (r, head, cqe) {
            if (taken == max)
                break;
            taken += translate(io, ring, cqe, &events[taken]);
            seen++;
        }
        io_uring_cq_advance(r, seen);
    }
    io->next_reap = (io->next_reap + 1) % io->plan.rings;
    return taken;
}

bool bf_io_has_events(struct bf_io *io)
{
    for (uint32_t i = 0; i < io->plan.rings; i++) {
        if (io_uring_cq_ready(&io->rings[i].ring) > 0 || has_kernel_work(&io->rings[i]))
            return true;
    }
    return false;
}

bool bf_io_sleep(struct bf_io *io, struct bf_doorbell *bell, uint32_t timeout_ms)
{
    struct io_uring *ring = &io->rings[0].ring;
    struct io_uring_cqe *cqe;
    if (!io->has_futex && timeout_ms > 1)
        timeout_ms = 1;
    struct __kernel_timespec ts = {.tv_sec = timeout_ms / 1000u,
                                   .tv_nsec = (long long)(timeout_ms % 1000u) * 1000000};
    if (io->has_futex && !io->bell_pending) {
        struct io_uring_sqe *sqe = get_sqe(io, &io->rings[0]);
        bf_prep_futex_wait(sqe, (uint32_t *)(void *)&bell->arm, 1);
        io_uring_sqe_set_data64(sqe, bf_io_name(BF_IO_BELL, 0, 0, 0));
        io->bell_pending = true;
    }
    set_signals(io, true);
    /* the look at the rings comes after the switch: what was queued before it gave no signal */
    atomic_thread_fence(memory_order_seq_cst);
    if (bf_io_has_events(io)) {
        set_signals(io, false);
        return false;
    }
    bf_metric_add(io->stats, BF_M_io_enter, 1);
    (void)io_uring_submit_and_wait_timeout(ring, &cqe, 1, &ts, NULL);
    set_signals(io, false);
    note_overflow(io, &io->rings[0]);
    /* not the result: a call that also submitted returns how much, whatever ended its wait */
    return !bf_io_has_events(io);
}
