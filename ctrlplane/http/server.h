/*
 * Inside of the HTTP server (its users see http.h). Threads with an epoll each; a connection
 * belongs to one thread for its life, and only that thread touches it. Others reach a thread by its
 * mailbox: connections that were accepted for it, requests that were resumed.
 *
 *   server.c     start, threads, mailboxes, stop
 *   accept.c     who gets in, and to which thread
 *   conn.c       a connection: bytes in and out, its states, its end
 *   request.c    a request: route, admission, handler, resumption, completion
 *   body.c       bodies, announced and chunked
 *   reply.c      answers into bytes
 *   deadlines.c  one list a state, oldest first: deadlines and whom to evict
 *   addresses.c  connections by address
 *   tls.c        OpenSSL
 *   route.c      paths and their decoding
 *   answer.c     what handlers say, and what they read of a request
 */
#pragma once

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "belfry/http1/chunked.h"
#include "http/http.h"

/* Request line and headers: an 8 KiB token, cookies and room beside it. */
#define BF_HTTP_HEAD_BYTES (16u * 1024u)
/* The request line alone: the longest path and query of ours, escaped, several times over. */
#define BF_HTTP_LINE_BYTES (8u * 1024u)
/* A head and some of what follows it: a body or a pipelined request. */
#define BF_HTTP_IN_BYTES (BF_HTTP_HEAD_BYTES + 4096u)
/* Answers of pipelined requests leave together; a larger one leaves from where it is. */
#define BF_HTTP_OUT_BYTES 8192u
/* The longest head of an answer: BF_HTTP_HEADERS_MAX lines with values of 95 bytes, and the rest.
 */
#define BF_HTTP_REPLY_HEAD_BYTES 3072u
/* A body up to this is read even if the route wants none. */
#define BF_HTTP_IGNORED_BYTES 4096u
/* Buffers that a thread keeps for the next connection that has something to say. */
#define BF_HTTP_SPARES_MAX 64u

_Static_assert(BF_HTTP_HEAD_BYTES <= BF_HTTP1_HEAD_BYTES_MAX, "fields' offsets have 16 bits");

/* What a connection needs while it has a request; an idle one has none. */
struct bf_http_work {
    struct bf_http_work *next; /* spare */
    struct bf_request request;
    char in[BF_HTTP_IN_BYTES];
    char out[BF_HTTP_OUT_BYTES];
};

struct bf_address_count;
struct bf_addresses;
struct bf_http_thread;
struct bf_http_tls;
struct ssl_st;

struct bf_http_conn {
    struct bf_http_thread *thread;
    int fd; /* -1: closed; the request may still be with somebody */
    enum bf_http_conn_state state;
    struct bf_http_conn *prev, *next; /* in the list of its state */
    uint64_t due_ms;                  /* 0: never */
    uint64_t moved;                   /* bytes of body or answer since the deadline was set */
    struct bf_http_conn *mail_next;   /* written by whoever mails it */
    struct bf_http_conn *again_next;  /* in thread->again */
    struct ssl_st *ssl;               /* NULL: plain */
    struct bf_address_count *address;
    struct bf_http_work *work;
    uint32_t in_at, in_len; /* unread bytes of work->in */
    uint32_t out_at, out_len;
    char *tail; /* rest of an answer that does not fit work->out; malloc'ed */
    size_t tail_at, tail_len;
    uint64_t body_left;             /* announced and not come */
    struct bf_http1_chunked chunks; /* of a chunked body */
    bool is_listed;                 /* in a list of its thread */
    bool is_open;    /* its request is begun and not answered: work->request is in use */
    bool stops_body; /* the rest of this request's body is not read */
    bool is_last;    /* closes after this answer */
    bool has_begun;  /* a request since the deadline was set */
    bool has_asked;  /* a request, ever */
    bool is_readable, is_writable; /* as epoll said last */
    bool sees_end;                 /* the peer's FIN has come, after bytes that are not read yet */
    bool is_ended;                 /* ... and has been read */
    bool is_broken;                /* reset, or an error of the socket */
    bool is_handshaken;
    bool is_again; /* in thread->again */
    bool is_freed; /* in thread->dead */
    _Alignas(16) uint8_t peer_room[BF_HTTP_PEER_BYTES];
};

struct bf_http_conn_list {
    struct bf_http_conn *head, *tail;
    uint32_t count;
};

struct bf_http_thread {
    struct bf_http *http;
    struct bf_http_gauges *gauges;
    pthread_t id;
    int epoll_fd, wake_fd;
    uint64_t now_ms; /* of this turn */
    struct bf_http_conn_list lists[BF_HTTP_CONN_STATE_COUNT];
    struct bf_http_conn *again; /* have more to do at this turn's end */
    struct bf_http_conn *dead;  /* freed at the turn's end: events in hand may name them */
    struct bf_http_work *spares;
    uint32_t spare_count;
    time_t date_s;
    char date[40];            /* "Date: ...\r\n" */
    uint64_t listen_again_ms; /* accepting pauses until then; 0: it does not */

    /* What other threads touch, away from the above. */
    _Alignas(64) _Atomic(struct bf_http_conn *) mail;
    _Atomic uint32_t is_asleep;
    _Atomic uint32_t resumed;      /* suspended requests given back, over all time */
    _Atomic uint32_t evict_wanted; /* connections to end for others' sake: see bf_deadlines_evict */
    _Atomic uint32_t idle;         /* copy of the counts of idle ones and of heads, for the same */
    _Atomic uint32_t connections;  /* that belong to this thread */
    /* What this thread alone writes, for a stop to read. */
    _Alignas(64) _Atomic uint32_t suspended; /* requests suspended, over all time */
    _Atomic uint32_t handling;               /* 1: inside a handler */
    _Atomic uint32_t open;                   /* requests begun and not completed */
};

struct bf_http {
    struct bf_http_options options;
    int listen_fd;
    int port;
    struct bf_http_tls *tls; /* NULL: plain */
    struct bf_addresses *addresses;
    struct bf_http_stats *stats;
    struct bf_http_stats own_stats; /* without options.stats */
    _Atomic uint32_t connections;
    _Atomic uint32_t fresh;   /* connections that have asked nothing yet */
    _Atomic bool is_stopping; /* nothing is suspended any more */
    _Atomic bool is_over;     /* threads end */
    uint32_t thread_count;    /* started */
    struct bf_http_thread *threads;
};

/* Counters of the server as a whole: rare, hence one word for all threads. Relaxed: they order
 * nothing. */
static inline void bf_http_tell(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* A gauge that its thread alone writes. */
static inline void bf_http_set(_Atomic uint32_t *gauge, uint32_t value)
{
    atomic_store_explicit(gauge, value, memory_order_relaxed);
}

/* server.c */
/* Puts |c| into the mailbox of its thread: a new connection, or one whose request was resumed. Any
 * thread. */
void bf_http_mail(struct bf_http_thread *t, struct bf_http_conn *c);
void bf_http_wake(struct bf_http_thread *t);

/* conn.c; all on the connection's thread */
void bf_http_conn_begin(struct bf_http_conn *c); /* a fresh one, this thread owns it from now on */
void bf_http_conn_event(struct bf_http_conn *c, uint32_t events);
void bf_http_conn_advance(struct bf_http_conn *c); /* does what can be done */
void bf_http_conn_resumed(struct bf_http_conn *c);
void bf_http_conn_end(
    struct bf_http_conn *c); /* closes; what is suspended ends when it is resumed */
void bf_http_conn_cut(struct bf_http_conn *c,
                      enum bf_http_conn_state kind); /* its deadline of this kind has passed */
void bf_http_conn_free_dead(struct bf_http_thread *t);
/* Receives at most |cap| bytes (> 0). Returns them, or 0: nothing now, or c->is_ended or is_broken.
 */
size_t bf_http_conn_receive(struct bf_http_conn *c, char *to, size_t cap);

/* request.c */
/* A head of |bytes| lies at work->in + in_at and is good: route, admission, what its body may be.
 */
void bf_request_begin(struct bf_http_conn *c, uint32_t bytes);
/* The head (or chunk) is malformed: the answer says why, and the connection ends after it. */
void bf_request_refuse(struct bf_http_conn *c, int status, const char *why);
/* The body is in. False: the request is suspended. */
bool bf_request_handle(struct bf_http_conn *c);
/* It was resumed: the route's |resumed|. */
void bf_request_go_on(struct bf_http_conn *c);
/* Writes the answer if the client is still there, and ends the request. */
void bf_request_complete(struct bf_http_conn *c);

/* body.c */
enum bf_body_step { BF_BODY_DONE, BF_BODY_MORE, BF_BODY_WAIT };
/* The head has been read: judges the body that it announces. False: the answer is set and goes out
 * without the body being read. */
bool bf_body_begin(struct bf_http_conn *c);
enum bf_body_step bf_body_take(struct bf_http_conn *c);
void bf_body_free(struct bf_request *r);

/* reply.c */
/* Appends the request's answer to work->out, which has room for its head. */
void bf_reply_write(struct bf_http_conn *c);
void bf_reply_continue(struct bf_http_conn *c); /* "100 Continue" */
/* Sends what is there. True: all is sent. */
bool bf_reply_flush(struct bf_http_conn *c);
/* To a connection that gets no more than this: 503, by |reason|; then closed. */
void bf_reply_turn_away(int fd, enum bf_http_refusal reason);

/* accept.c */
void bf_http_accept(struct bf_http_thread *t);       /* what the backlog has, within bounds */
void bf_http_accept_again(struct bf_http_thread *t); /* after a pause */

/* deadlines.c */
void bf_http_conn_enter(struct bf_http_conn *c,
                        enum bf_http_conn_state state); /* moves to that list, sets its deadline */
void bf_http_conn_leave(struct bf_http_conn *c);
int bf_deadlines_wait_ms(const struct bf_http_thread *t); /* for epoll: -1 never */
void bf_deadlines_pass(struct bf_http_thread *t);
/* Ends the longest idle one, or the slowest head; false: none is idle or slow. */
bool bf_deadlines_evict(struct bf_http_thread *t);

/* addresses.c */
struct bf_addresses *bf_addresses_create(void);
void bf_addresses_destroy(struct bf_addresses *a);
/* Counts one more; NULL when that would pass |max| (or without memory). */
struct bf_address_count *bf_addresses_take(struct bf_addresses *a,
                                           const struct sockaddr_storage *from, uint32_t max);
void bf_addresses_give(struct bf_addresses *a, struct bf_address_count *count);

/* tls.c */
int bf_http_tls_create(const struct bf_conf *conf, struct bf_http_tls **ret, char *err,
                       size_t err_len);
void bf_http_tls_destroy(struct bf_http_tls *tls); /* NULL is fine */
/* A session for |fd| by the configuration in force; NULL: none can be made. */
struct ssl_st *bf_http_tls_open(struct bf_http_tls *tls, const struct bf_conf *conf, int fd);
void bf_http_tls_close(struct ssl_st *ssl); /* says close_notify if it can; again is harmless */
void bf_http_tls_free(struct ssl_st *ssl);  /* NULL is fine */
/* As recv and send: bytes, 0 at the end, or -errno (-EAGAIN: later). */
long bf_http_tls_handshake(struct ssl_st *ssl); /* 1: done */
long bf_http_tls_receive(struct ssl_st *ssl, char *to, size_t cap);
long bf_http_tls_send(struct ssl_st *ssl, const char *from, size_t len);
bool bf_http_tls_names(struct ssl_st *ssl, bool (*names)(void *arg, struct bf_bytes name),
                       void *arg);
