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
#include "io/io_op.h"
#include "io/ktls.h"

/* 256 sends, as many receives and the rest of a turn fit without an early submit. 64 KiB a ring. */
#define SQ_ENTRIES 1024u
/* One accept may bring a whole backlog (4,096) in one go, on top of a turn's requests. 128 KiB. */
#define CQ_ENTRIES 8192u
/* Descriptors of the process itself: log, listeners, rings, DPDK's files. */
#define FILES_RESERVED 64u
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

/* The accept of a ring on one listener. */
struct acceptor {
    bool armed;
    bool cancelling;
    bool with_address;            /* how it was armed */
    socklen_t len;                /* the kernel writes both of an accept with an address */
    struct sockaddr_storage from; /* untouched as long as nobody asks for addresses */
};

struct io_ring {
    struct io_uring ring;
    uint32_t open; /* direct descriptors in use */
    struct acceptor acceptors[BF_IO_LISTENERS_MAX];
    int event_fd; /* ring 0 polls it; -1 for ring 0 itself */
};

struct bf_io {
    struct bf_io_plan plan;
    struct bf_worker_stats *stats;
    uint32_t worker;
    int listen_fds[BF_IO_LISTENERS_MAX];
    bool has_futex;
    bool has_options;    /* socket options of direct descriptors */
    bool with_address;   /* accepts are wanted one by one, each with an address */
    bool can_connect;    /* descriptors of ring 0 are kept for outgoing sockets */
    bool bell_pending;   /* the futex wait is in the kernel */
    uint32_t next_reap;  /* ring that is reaped first; rotates */
    uint32_t ring_count; /* opened so far */
    uint64_t overflows;
    struct io_ring rings[];
};

/* ---- plan -------------------------------------------------------------------------------------
 */

int bf_io_plan(const struct bf_io_opts *opts, struct bf_io_plan *ret_plan)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return -errno;
    /* what we may have, not what the shell gave us */
    if (limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    uint32_t files = limit.rlim_cur > 1u << 20 ? 1u << 20 : (uint32_t)limit.rlim_cur;
    if (files < FILES_RESERVED * 4u)
        return -EMFILE;
    uint32_t wanted = opts->ring_connections_max;
    uint32_t backlog = opts->backlog;
    files -= FILES_RESERVED;
    /* an accept into a full table destroys the connection: leave room for a burst of the backlog,
     * and where the table is small, make the backlog small */
    if (backlog > files / 4u)
        backlog = files / 4u;
    if (wanted > files)
        wanted = files;
    uint32_t room = files > backlog + UNSEEN_MAX ? files - backlog - UNSEEN_MAX : 0;
    uint32_t outgoing = opts->outgoing_max < room / 4u ? opts->outgoing_max : room / 4u;
    uint32_t slack = backlog + UNSEEN_MAX + outgoing;
    uint32_t table = wanted + slack < files ? wanted + slack : files;
    uint32_t stop = wanted * ACCEPT_STOP_PERCENT / 100u;
    if (stop > table - slack)
        stop = table - slack;
    uint32_t rings = (opts->connections_max + stop - 1) / stop;
    if (rings > RINGS_MAX)
        return -E2BIG;
    *ret_plan = (struct bf_io_plan){
        .rings = rings,
        .table = table,
        .accept_stop = stop,
        .accept_again = stop * ACCEPT_AGAIN_PERCENT / ACCEPT_STOP_PERCENT,
        .backlog = backlog / (opts->listeners > 1 ? opts->listeners : 1),
        .outgoing = outgoing,
    };
    return 0;
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

/* ---- set-up -----------------------------------------------------------------------------------
 */

static int open_ring(struct io_ring *r, uint32_t worker)
{
    static const struct {
        unsigned flags;
        const char *lost;
    } tries[] = {
        /* completions run when we ask, not in the middle of a turn */
        {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, NULL},
        {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, "deferred completions"},
        {0, "cooperative completions"},
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
    case EINVAL: /* a flag or a request that a kernel before 6.0 does not know */
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

static bool has_op(const struct io_uring_probe *probe, int op)
{
    return op <= probe->last_op && (probe->ops[op].flags & IO_URING_OP_SUPPORTED);
}

/* Asks for an option of a socket. Only on a ring that has nothing else in it. */
static bool try_socket_option(struct io_uring *ring)
{
    int type = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    struct io_uring_cqe *cqe = NULL;
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    bf_prep_socket_option(sqe, fd, BF_SOCKET_GETSOCKOPT, SOL_SOCKET, SO_TYPE, &type, sizeof(type));
    io_uring_sqe_set_data64(sqe, bf_io_name(BF_IO_OPTION, 0, 0, 0));
    bool has = io_uring_submit_and_wait(ring, 1) == 1 && io_uring_peek_cqe(ring, &cqe) == 0 &&
               cqe->res == (int)sizeof(type) && type == SOCK_STREAM;
    if (cqe)
        io_uring_cqe_seen(ring, cqe);
    close(fd);
    return has;
}

/* What only newer kernels have. Tried rather than concluded from the version: distributions
 * backport. Ring 0 is still empty. A kernel that does not answer the probe has none of it. */
static void probe_kernel(struct bf_io *io)
{
    struct io_uring *ring = &io->rings[0].ring;
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    io->has_futex = probe && has_op(probe, BF_IORING_OP_FUTEX_WAIT);
    io->has_options = probe && has_op(probe, BF_IORING_OP_URING_CMD) && try_socket_option(ring);
    io_uring_free_probe(probe);
    if (!io->has_futex)
        BF_WARN(
            "dataplane",
            "worker %u: this kernel's io_uring has no futex (Linux 6.7 has): asleep, the worker "
            "looks for commands every 1 ms",
            io->worker);
    if (!io->has_options)
        BF_WARN("dataplane",
                "worker %u: this kernel's io_uring has no socket options (Linux 6.7 has): who is "
                "refused is closed, not reset; with admission.per_address connections are accepted "
                "one a turn",
                io->worker);
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
    struct acceptor *a = &r->acceptors[listener];
    struct io_uring_sqe *sqe = get_sqe(io, r);
    int fd = io->listen_fds[listener];
    a->armed = true;
    a->with_address = io->with_address;
    if (io->with_address) {
        a->len = sizeof(a->from);
        io_uring_prep_accept(sqe, fd, (struct sockaddr *)&a->from, &a->len, 0);
        sqe->file_index = IORING_FILE_INDEX_ALLOC;
    } else {
        if (a->from.ss_family != AF_UNSPEC)
            a->from.ss_family = AF_UNSPEC;
        io_uring_prep_multishot_accept_direct(sqe, fd, NULL, NULL, 0);
    }
    io_uring_sqe_set_data64(sqe, bf_io_name(BF_IO_ACCEPT, (uint16_t)listener, 0, 0));
}

int bf_io_create(const struct bf_io_opts *opts, const struct bf_io_plan *plan,
                 const int listen_fds[BF_IO_LISTENERS_MAX], void *memory, struct bf_io **ret_io)
{
    struct bf_io *io = memory;
    io->plan = *plan;
    io->stats = opts->stats;
    io->worker = opts->worker;
    memcpy(io->listen_fds, listen_fds, sizeof(io->listen_fds));
    for (uint32_t i = 0; i < plan->rings; i++) {
        int rc = open_ring(&io->rings[i], opts->worker);
        if (rc == 0) {
            io->ring_count++;
            rc = io_uring_register_files_sparse(&io->rings[i].ring, plan->table);
        }
        /* accepts take no descriptor of those kept for outgoing sockets */
        if (rc == 0 && i == 0 && plan->outgoing > 0) {
            rc = io_uring_register_file_alloc_range(&io->rings[0].ring, 0,
                                                    plan->table - plan->outgoing);
            io->can_connect = rc == 0;
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
    probe_kernel(io);
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

/* ---- requests ---------------------------------------------------------------------------------
 */

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
    sqe->flags |= IOSQE_FIXED_FILE;
    name_request(sqe, BF_IO_POLL, 0, s);
}

void bf_io_recv(struct bf_io *io, struct bf_io_sock s, void *buffer, uint32_t len, uint16_t aux)
{
    struct io_uring_sqe *sqe = request(io, s);
    io_uring_prep_recv(sqe, (int)s.file, buffer, len, MSG_DONTWAIT);
    sqe->flags |= IOSQE_FIXED_FILE;
    name_request(sqe, BF_IO_RECV, aux, s);
}

void bf_io_send(struct bf_io *io, struct bf_io_sock s, const void *bytes, size_t len)
{
    struct io_uring_sqe *sqe = request(io, s);
    io_uring_prep_send(sqe, (int)s.file, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
    sqe->flags |= IOSQE_FIXED_FILE;
    name_request(sqe, BF_IO_SEND, 0, s);
}

void bf_io_pollout(struct bf_io *io, struct bf_io_sock s)
{
    struct io_uring_sqe *sqe = request(io, s);
    io_uring_prep_poll_add(sqe, (int)s.file, POLLOUT);
    sqe->flags |= IOSQE_FIXED_FILE;
    name_request(sqe, BF_IO_POLLOUT, 0, s);
}

void bf_io_shutdown(struct bf_io *io, struct bf_io_sock s)
{
    struct io_uring_sqe *sqe = request(io, s);
    io_uring_prep_shutdown(sqe, (int)s.file, SHUT_WR);
    sqe->flags |= IOSQE_FIXED_FILE;
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
    io_uring_prep_close_direct(sqe, s.file);
    name_request(sqe, BF_IO_CLOSE, 0, s);
}

void bf_io_install(struct bf_io *io, struct bf_io_sock s)
{
    struct io_uring_sqe *sqe = request(io, s);
    io_uring_prep_rw(BF_IORING_OP_FIXED_FD_INSTALL, sqe, (int)s.file, NULL, 0, 0);
    sqe->flags |= IOSQE_FIXED_FILE;
    name_request(sqe, BF_IO_INSTALL, 0, s);
}

void bf_io_peer(struct bf_io *io, struct bf_io_sock s, void *address, uint32_t len, uint16_t aux)
{
    struct io_uring_sqe *sqe = request(io, s);
    bf_prep_socket_option(sqe, (int)s.file, BF_SOCKET_GETSOCKOPT, SOL_SOCKET, SO_PEERNAME, address,
                          len);
    sqe->flags |= IOSQE_FIXED_FILE;
    name_request(sqe, BF_IO_PEER, aux, s);
}

bool bf_io_has_options(const struct bf_io *io)
{
    return io->has_options;
}

void bf_io_reset(struct bf_io *io, struct bf_io_sock s)
{
    static struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (!io->has_options)
        return;
    struct io_uring_sqe *sqe = request(io, s);
    bf_prep_socket_option(sqe, (int)s.file, BF_SOCKET_SETSOCKOPT, SOL_SOCKET, SO_LINGER, &at_once,
                          sizeof(at_once));
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
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
    sqe->flags |= IOSQE_FIXED_FILE | IOSQE_IO_LINK;
    name_request(sqe, BF_IO_OPTION, 0, s);
    sqe = get_sqe(io, r);
    bf_ktls_prep_tx(sqe, (int)s.file, info);
    sqe->flags |= IOSQE_FIXED_FILE;
    name_request(sqe, BF_IO_KTLS, aux, s);
}

void bf_io_alert(struct bf_io *io, struct bf_io_sock s, const struct bf_ktls_alert *alert)
{
    struct io_uring_sqe *sqe = request(io, s);
    bf_ktls_prep_alert(sqe, (int)s.file, alert);
    sqe->flags |= IOSQE_FIXED_FILE;
    name_request(sqe, BF_IO_ALERT, 0, s);
}

int bf_io_connect(struct bf_io *io, uint32_t index, const struct sockaddr *address,
                  struct bf_io_sock *s)
{
    const int on = 1;
    s->ring = 0;
    s->file = io->plan.table - io->plan.outgoing + index;
    if (!io->can_connect || index >= io->plan.outgoing)
        return -ENOSYS;
    /* by system calls: connects are rare, and a direct IORING_OP_SOCKET cannot be set to NODELAY on
     * every kernel we run on. Blocking, so that io_uring waits for it; each send says DONTWAIT */
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    int rc = io_uring_register_files_update(&io->rings[0].ring, s->file, &fd, 1);
    close(fd);
    if (rc != 1)
        return rc < 0 ? rc : -EIO;
    struct io_uring_sqe *sqe = request(io, *s);
    socklen_t len =
        address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    io_uring_prep_connect(sqe, (int)s->file, address, len);
    sqe->flags |= IOSQE_FIXED_FILE;
    name_request(sqe, BF_IO_CONNECT, 0, *s);
    return 0;
}

/* ---- accept -----------------------------------------------------------------------------------
 */

void bf_io_accept_check(struct bf_io *io, uint32_t ring, bool may_accept)
{
    struct io_ring *r = &io->rings[ring];
    for (uint32_t l = 0; l < BF_IO_LISTENERS_MAX; l++) {
        struct acceptor *a = &r->acceptors[l];
        bool is_wrong =
            !may_accept || r->open >= io->plan.accept_stop || a->with_address != io->with_address;
        /* a stopped accept goes on at a distance from the stop; one by one it stops each time */
        uint32_t room = io->with_address ? io->plan.accept_stop : io->plan.accept_again;
        if (a->armed && !a->cancelling && is_wrong) {
            struct io_uring_sqe *sqe = get_sqe(io, r);
            io_uring_prep_cancel64(sqe, bf_io_name(BF_IO_ACCEPT, (uint16_t)l, 0, 0), 0);
            io_uring_sqe_set_data64(sqe, bf_io_name(BF_IO_ACCEPT_END, 0, 0, 0));
            a->cancelling = true;
        } else if (!a->armed && io->listen_fds[l] >= 0 && may_accept && r->open < room) {
            start_accept(io, ring, l);
        }
    }
}

void bf_io_accept_with_address(struct bf_io *io, bool on)
{
    io->with_address = on;
}

const struct sockaddr_storage *bf_io_accepted_from(const struct bf_io *io, uint32_t ring,
                                                   uint32_t listener)
{
    return &io->rings[ring].acceptors[listener].from;
}

void bf_io_closed(struct bf_io *io, uint32_t ring)
{
    BF_BUG_ON(io->rings[ring].open == 0);
    io->rings[ring].open--;
}

/* ---- submit and reap --------------------------------------------------------------------------
 */

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
            r->acceptors[event->aux].armed = false;
            r->acceptors[event->aux].cancelling = false;
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
