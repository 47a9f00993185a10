/*
 * Sockets of one worker over io_uring. A ring holds a table of direct descriptors (a table may have
 * as many entries as the process may have descriptors, so a worker opens as many rings as its
 * connections need); each ring has its own multishot accept on the one listening socket. Waiters of
 * a socket are woken in order, so rings fill one after the other. Extra rings are polled from ring
 * 0. On kernels that do not let closed direct descriptors go (before 6.13, io_kernel.h) sockets are
 * ordinary descriptors on one ring, as many as the process may have, shared by its workers.
 *
 * Requests are named by op, generation and slot in user_data, never by pointers; completions come
 * back as plain events. Sends and receives carry MSG_DONTWAIT, so they have completed when the
 * submit returns, and their buffers are free again after bf_io_submit. Owner: one worker thread
 * (the rings are created by it).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/shm/layout.h"

struct bf_io;
struct bf_ktls_alert;
struct bf_ktls_info;

enum bf_io_op {
    BF_IO_NONE = 0,
    BF_IO_ACCEPT = 1,  /* res: direct descriptor, or -errno; ring: whose; aux: which listener */
    BF_IO_POLL = 2,    /* readable; more == false: arm again */
    BF_IO_RECV = 3,    /* res: bytes, 0 end, -errno; aux: receive buffer */
    BF_IO_SEND = 4,    /* res: bytes or -errno */
    BF_IO_POLLOUT = 5, /* writable again */
    BF_IO_SHUTDOWN = 6,
    BF_IO_CANCEL = 7,
    BF_IO_CLOSE = 8,
    BF_IO_ACCEPT_END = 9, /* internal */
    BF_IO_BELL = 10,      /* internal: the doorbell rang */
    BF_IO_RING = 11,      /* internal: an extra ring has work */
    BF_IO_INSTALL = 12,   /* --raw: res: descriptor */
    BF_IO_PEER = 13,      /* res: bytes of the address, or -errno; aux: as asked */
    BF_IO_OPTION = 14,    /* internal */
    BF_IO_CONNECT = 15,   /* res: 0 or -errno */
    BF_IO_KTLS = 16,      /* res: 0, or -errno: records stay the caller's; aux: as asked */
    BF_IO_ALERT = 17,     /* res: bytes of the alert, or -errno */
    BF_IO_OP_COUNT
};

struct bf_io_event {
    uint32_t slot;
    uint32_t generation; /* low BF_IO_GENERATION_BITS of the connection's */
    int32_t res;
    uint16_t aux;
    uint8_t op;
    uint8_t ring;
    bool more;
};

#define BF_IO_GENERATION_BITS 20u
#define BF_IO_GENERATION_MASK ((1u << BF_IO_GENERATION_BITS) - 1u)

/* A connection as io sees it. */
struct bf_io_sock {
    uint32_t slot;
    uint32_t generation;
    uint32_t file;
    uint8_t ring;
};

/* Listeners of a worker: the plain one, and the one for TLS. */
#define BF_IO_LISTENERS_MAX 2u

struct bf_io_opts {
    const char *host;
    uint16_t port; /* 0: any */
    uint32_t backlog;
    uint32_t listeners;       /* how many there will be: they share the backlog */
    uint32_t user_timeout_ms; /* bytes that nobody acknowledges end the connection (RFC 5482) */
    uint32_t workers;         /* of the process: they share its ordinary descriptors */
    uint32_t connections_max; /* of the worker */
    uint32_t ring_connections_max; /* of a ring */
    uint32_t outgoing_max;         /* sockets that we connect, all on ring 0 */
    struct bf_worker_stats *stats;
    uint32_t worker;
};

/* How many rings and how large their tables, before anything is opened. */
struct bf_io_plan {
    uint32_t rings;
    uint32_t table; /* direct descriptors a ring, so connections it can hold */
    uint32_t
        accept_stop; /* accept is cancelled at this many, so that a burst still fits the table */
    uint32_t accept_again;
    uint32_t backlog;
    uint32_t outgoing; /* the last descriptors of a table are kept for these */
    bool is_direct;    /* else the table is a number: ordinary descriptors, one ring */
};
int bf_io_plan(const struct bf_io_opts *opts, struct bf_io_plan *ret_plan);

/* Binds the worker's listening socket (SO_REUSEPORT). Returns the descriptor or -errno; *ret_port.
 */
int bf_io_listen(const struct bf_io_opts *opts, uint32_t backlog, uint16_t *ret_port);

/* Opens the rings and starts accepting on |listen_fds| (-1: none there). 0 or -errno after a log
 * line with the likely cause. bf_io_destroy accepts NULL. */
int bf_io_create(const struct bf_io_opts *opts, const struct bf_io_plan *plan,
                 const int listen_fds[BF_IO_LISTENERS_MAX], void *memory, struct bf_io **ret_io);
size_t bf_io_bytes(const struct bf_io_plan *plan);
void bf_io_destroy(struct bf_io *io);

/* ---- requests; each is submitted by bf_io_submit at the latest ---- */
void bf_io_poll(struct bf_io *io, struct bf_io_sock s);
void bf_io_recv(struct bf_io *io, struct bf_io_sock s, void *buffer, uint32_t len, uint16_t aux);
void bf_io_send(struct bf_io *io, struct bf_io_sock s, const void *bytes, size_t len);
void bf_io_pollout(struct bf_io *io, struct bf_io_sock s);
void bf_io_shutdown(struct bf_io *io, struct bf_io_sock s);
/* Cancels the connection's request |op| (POLL, POLLOUT). Two completions follow: BF_IO_CANCEL with
 * aux = op, and that of the cancelled request. The request is named by its user_data, which the
 * kernel looks up; given the descriptor it would search all polls. */
void bf_io_cancel(struct bf_io *io, struct bf_io_sock s, enum bf_io_op op);
void bf_io_close(struct bf_io *io, struct bf_io_sock s);
void bf_io_install(struct bf_io *io, struct bf_io_sock s);
/* Whether sockets are direct descriptors. */
bool bf_io_is_direct(const struct bf_io *io);
/* The peer's socket address where they are not. 0 or -errno. */
struct sockaddr_storage;
int bf_io_peer_now(const struct bf_io *io, struct bf_io_sock s, struct sockaddr_storage *ret);
/* Where they are: asks for it, |len| bytes at |address|, which stay until the completion. */
void bf_io_peer(struct bf_io *io, struct bf_io_sock s, void *address, uint32_t len, uint16_t aux);
/* The kernel makes the TLS records of what is sent from here on: BF_IO_KTLS. |info| stays until
 * then. No send may be under way. */
void bf_io_ktls(struct bf_io *io, struct bf_io_sock s, const struct bf_ktls_info *info,
                uint16_t aux);
/* Says an alert on such a socket. |alert| stays until bf_io_submit. */
void bf_io_alert(struct bf_io *io, struct bf_io_sock s, const struct bf_ktls_alert *alert);
/* The close that follows is a reset: no FIN, nothing lingers. Where the kernel cannot, it is a
 * close. */
void bf_io_reset(struct bf_io *io, struct bf_io_sock s);

/*
 * Connects socket |index| < outgoing_max of ours to |address| (borrowed until bf_io_submit):
 * BF_IO_CONNECT follows. Its name is *s but for `file` and `ring`, which are set. 0 or -errno, then
 * nothing follows. bf_io_close takes it back.
 */
struct sockaddr;
int bf_io_connect(struct bf_io *io, uint32_t index, const struct sockaddr *address,
                  struct bf_io_sock *s);

/* The worker tells how many connections a ring holds, so that accept stops and starts in time.
 * |may_accept| false: the worker is full or stopping. */
void bf_io_accept_check(struct bf_io *io, uint32_t ring, bool may_accept);
/* A descriptor of the ring was closed. */
void bf_io_closed(struct bf_io *io, uint32_t ring);

/* Descriptors in use, of all rings. */
uint32_t bf_io_open(const struct bf_io *io);
/* Requests waiting to be submitted, of all rings. */
uint32_t bf_io_queued(const struct bf_io *io);
/* Submits everything and takes completions in, one system call a ring that has something. */
void bf_io_submit(struct bf_io *io);
/* Takes up to |max| completions. */
uint32_t bf_io_reap(struct bf_io *io, struct bf_io_event *events, uint32_t max);
/* Whether completions wait. */
bool bf_io_has_events(struct bf_io *io);

/* Sleeps until the doorbell, a completion, or the timeout. Submits first. Returns true if only the
 * timeout ended it. The caller has armed the bell and looked at its rings. */
bool bf_io_sleep(struct bf_io *io, struct bf_doorbell *bell, uint32_t timeout_ms);
