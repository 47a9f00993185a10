/*
 * The HTTP server of the API and the admin port, as its users see it: a route table, requests with
 * bounded bodies, answers, and suspension. Handlers run on a server thread; one that waits for
 * something slow suspends its request, and whoever finishes it resumes it from any thread. A
 * suspended request stays valid until it is resumed, whatever its client does meanwhile. Inside of
 * the server: server.h.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/id.h"
#include "belfry/base/limits.h"
#include "belfry/http1/head.h"
#include "json/out.h"
#include "terms/problem.h"

struct bf_conf;
struct bf_http_conn;
struct bf_http;
struct bf_request;

/* Segments of the longest path, "/v1/topics/{topic}/subscriptions/{user}", and room for one more.
 */
#define BF_HTTP_SEGMENTS_MAX 6u
/* Rate limits (5), CORS (3), what a handler says. */
#define BF_HTTP_HEADERS_MAX 16u

/*
 * A path is literal segments and {user}, {topic}, {id} (a UUID), {name} (any short text): checked
 * and decoded before the handler runs. |access| is the server's owner's (see
 * bf_http_options.admit). A row of BF_ANY_METHOD takes its path with any method, and as the last
 * row, of the path "", whatever path no other row has; r->name is the path as it came, borrowed.
 */
#define BF_ANY_METHOD "*"

struct bf_route {
    const char *method;
    const char *path;
    uint16_t access;
    uint32_t body_max; /* bytes; 0: no body wanted (a small one is ignored) */
    void (*handle)(struct bf_request *r);
    void (*resumed)(struct bf_request *r); /* NULL: whoever resumes has set the answer */
};

struct bf_http_header {
    const char *name; /* static */
    char value[96];
};

struct bf_answer {
    int status; /* 0: none yet */
    const char *content_type;
    char *body; /* malloc'ed */
    size_t body_len;
    unsigned header_count;
    struct bf_http_header headers[BF_HTTP_HEADERS_MAX];
};

/* Room for what the API and the admin port keep with a request (they assert that it is enough). */
#define BF_HTTP_STATE_BYTES 1024u

struct bf_request {
    struct bf_http *http;
    struct bf_http_conn *conn;
    const struct bf_route *route;
    void *owner; /* bf_http_options.owner */
    uint64_t began_us;
    struct bf_bytes user, topic, name; /* decoded path segments */
    struct bf_id id;
    char *body; /* in the connection's buffer, or malloc'ed if body_cap > 0 */
    size_t body_len, body_cap;
    uint64_t discarded; /* body bytes that nobody wants */
    bool suspended;
    bool is_head;  /* HEAD: GET without the body */
    bool is_begun; /* its headers were good: bf_http_options.ended is owed */
    char *head_at; /* what the head's offsets count from; names and values end in zeros there */
    uint32_t head_bytes;
    struct bf_http1_head head;
    struct bf_answer answer;
    char path[2 * BF_USER_ID_BYTES_MAX + 128]; /* decoded segments live here */
    _Alignas(16) uint8_t state[BF_HTTP_STATE_BYTES];
};

/* What a connection is doing, for /metrics and for its deadline. */
enum bf_http_conn_state {
    BF_HTTP_CONN_HEAD = 0, /* a request's head is awaited, or the TLS handshake */
    BF_HTTP_CONN_BODY,
    BF_HTTP_CONN_WORKING, /* the request is with somebody else */
    BF_HTTP_CONN_WRITING, /* the client has to take its answer */
    BF_HTTP_CONN_IDLE,    /* between two requests */
    BF_HTTP_CONN_CLOSING, /* answered for the last time: the client's close is awaited */
    BF_HTTP_CONN_STATE_COUNT
};

enum bf_http_refusal {
    BF_REFUSED_CONNECTIONS = 0, /* connections_max, and none idle */
    BF_REFUSED_ADDRESS,         /* per_address */
    BF_REFUSED_DESCRIPTORS,     /* the process has no more */
    BF_REFUSED_MALFORMED,       /* requests that are none, or too large */
    BF_REFUSED_TLS,             /* handshakes that failed */
    BF_REFUSED_KEY,             /* more at once than one API key may have */
    BF_REFUSED_COUNT
};

/* Written by one thread of a server, read by /metrics. */
struct bf_http_gauges {
    _Alignas(64) _Atomic uint32_t states[BF_HTTP_CONN_STATE_COUNT];
};

#define BF_HTTP_THREADS_MAX 64u

/* Outlives the server, so that /metrics never looks at one that has stopped. */
struct bf_http_stats {
    struct bf_http_gauges threads[BF_HTTP_THREADS_MAX];
    _Atomic uint64_t refused[BF_REFUSED_COUNT];
    _Atomic uint64_t timeouts[BF_HTTP_CONN_STATE_COUNT];
    _Atomic uint64_t evicted;  /* idle connections that made room for new ones */
    _Atomic uint64_t hang_ups; /* clients that left while their request was worked on */
};

/* How long a connection may take for each step, and how slow it may be meanwhile. */
struct bf_http_limits {
    uint32_t head_ms;  /* the whole head, counted from the connect or from its first byte */
    uint32_t idle_ms;  /* between two requests */
    uint32_t body_ms;  /* within each such time, rate_min bytes a second of the body ... */
    uint32_t write_ms; /* ... or of the answer */
    uint32_t rate_min;
    uint32_t per_address; /* connections at once; 0: no limit */
};

struct bf_http_options {
    const char
        *name; /* of the threads, as ps and perf show them: <name>-<number>; 12 bytes at most */
    const char *host;
    uint16_t port;
    int listen_fd; /* an open listening socket, or -1 to bind host and port */
    uint32_t threads, connections_max;
    struct bf_http_limits limits;
    struct bf_http_stats *stats; /* NULL: nobody looks */
    /* The configuration in force, whose api.tls the port speaks; asked at each connect. NULL:
     * plain. */
    const struct bf_conf *(*conf)(void *owner);
    const struct bf_route *routes;
    unsigned route_count;
    void *owner;
    /* Called once the headers are in; sets an answer to refuse. May be NULL. */
    void (*admit)(struct bf_request *r);
    /* Called with the final status before it goes out: counters. May be NULL. */
    void (*answered)(struct bf_request *r);
    /* Called for OPTIONS, which no route has; an answer that it sets goes out, else 405. May be
     * NULL. */
    void (*preflight)(struct bf_request *r, const char *path);
    /* Called once for each request that admit saw, however it ended. May be NULL. */
    void (*ended)(struct bf_request *r);
};

int bf_http_start(const struct bf_http_options *options, struct bf_http **ret, char *err,
                  size_t err_len);
int bf_http_port(const struct bf_http *http);
int bf_http_fd(const struct bf_http *http);
/* Accepts no more connections, waits for requests that are under way (10 s at most), and stops.
 * NULL is fine. False: a handler still runs or a request is still suspended; then the server's
 * memory is not freed, and its owner must not free what those use. */
bool bf_http_stop(struct bf_http *http);

/* Header or query value; {NULL, 0} when absent. Valid during the handler. The query value is
 * decoded into |out|; false (with a 400 answer) when it is not valid UTF-8, holds U+0000 or does
 * not fit. */
struct bf_bytes bf_request_header(struct bf_request *r, const char *name);
bool bf_request_query(struct bf_request *r, const char *name, char *out, size_t cap,
                      struct bf_bytes *ret_value);
/* Walks headers whose names begin with |prefix| (case-insensitive). */
void bf_request_headers(struct bf_request *r, const char *prefix,
                        void (*each)(void *arg, const char *name, const char *value), void *arg);

/*
 * Who is at the other end by certificate. |names| is called for each name of a verified certificate
 * (SAN, then CN) until it gives true; returns whether it did. False without TLS or certificate.
 */
bool bf_request_peer(struct bf_request *r, bool (*names)(void *arg, struct bf_bytes name),
                     void *arg);
/* Room that belongs to the connection, for what was found out about its peer. Zeroed at connect. */
#define BF_HTTP_PEER_BYTES 64u
void *bf_request_peer_room(struct bf_request *r);

/* Answers. Only the first one counts; later calls are ignored, so that a mistake does no harm. */
void bf_answer_json(struct bf_request *r, int status, struct bf_out *o);
void bf_answer_text(struct bf_request *r, int status, const char *content_type, struct bf_out *o);
void bf_answer_empty(struct bf_request *r, int status);
void bf_answer_problem(struct bf_request *r, const struct bf_problem *problem);
__attribute__((format(printf, 5, 6))) void bf_answer_fail(struct bf_request *r, int status,
                                                          const char *type, const char *field,
                                                          const char *detail, ...);
/* An error code of base/err.h that no handler words better: 503 or 500. Says that nothing was
 * changed only where that is known: BF_ERR_AWAY is a wait that ended. */
void bf_answer_error(struct bf_request *r, int rc);
__attribute__((format(printf, 3, 4))) void bf_answer_header(struct bf_request *r, const char *name,
                                                            const char *format, ...);

/* Suspends the request; call it before the slow work is handed over. bf_request_resume must then be
 * called once, by any thread: after it the route's |resumed| runs on a server thread, even if the
 * client is gone. */
void bf_request_suspend(struct bf_request *r);
void bf_request_resume(struct bf_request *r);

/* Path matching, apart from the server so that it is tested by itself. Returns the route, or NULL:
 * then *ret_allow lists the methods of the path ("" = no such path). */
const struct bf_route *bf_route_find(const struct bf_route *routes, unsigned count,
                                     const char *method, const char *path, char *allow,
                                     size_t allow_len);
/* Decodes |path| along |route| into the request. Sets a 400 or 404 answer and gives false. */
bool bf_route_decode(struct bf_request *r, const char *path);
/* Percent-decoding in place of up to |len| bytes; returns the new length or -1. */
long bf_percent_decode(const char *text, size_t len, char *out, size_t cap);
