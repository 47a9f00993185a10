/*
 * The HTTP server below the API and the admin port: libmicrohttpd with an epoll thread pool, a route
 * table, requests with bounded bodies, answers, and suspension. Handlers run on a server thread; one
 * that waits for something slow suspends its request, and whoever finishes it resumes it from any
 * thread. This is the only module that knows libmicrohttpd.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "api/out.h"
#include "belfry/base/limits.h"
#include "ingest/event.h"

struct MHD_Connection;
struct bf_http;
struct bf_request;

/* Segments of the longest path, "/v1/topics/{topic}/subscriptions/{user}", and room for one more. */
#define BF_HTTP_SEGMENTS_MAX 6u
#define BF_HTTP_HEADERS_MAX  10u

/*
 * A path is literal segments and {user}, {topic}, {id} (a UUID), {name} (any short text): checked and
 * decoded before the handler runs. |access| is the server's owner's (see bf_http_options.admit).
 * A row of BF_ANY_METHOD takes its path with any method, and as the last row, of the path "", whatever
 * path no other row has; r->name views the path as it came.
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

/* Enough for what the two owners keep with a request (asserted by them). */
#define BF_HTTP_STATE_BYTES 1024u

struct bf_request {
    struct bf_http *http;
    struct MHD_Connection *connection;
    const struct bf_route *route;
    void *owner; /* bf_http_options.owner */
    uint64_t began_us;
    struct bf_bytes user, topic, name; /* decoded path segments */
    struct bf_id id;
    char *body;
    size_t body_len, body_cap;
    uint64_t discarded; /* body bytes of a request whose answer is known */
    bool suspended;
    struct bf_answer answer;
    char path[2 * BF_USER_ID_BYTES_MAX + 128]; /* decoded segments live here */
    _Alignas(16) uint8_t state[BF_HTTP_STATE_BYTES];
};

struct bf_http_options {
    const char *host;
    uint16_t port;
    int listen_fd; /* an open listening socket, or -1 to bind host and port */
    uint32_t threads, connections_max;
    const struct bf_route *routes;
    unsigned route_count;
    void *owner;
    /* Called once the headers are in; sets an answer to refuse. May be NULL. */
    void (*admit)(struct bf_request *r);
    /* Called with the final status before it goes out: counters. May be NULL. */
    void (*answered)(struct bf_request *r);
};

int bf_http_start(const struct bf_http_options *options, struct bf_http **ret, char *err,
                  size_t err_len);
int bf_http_port(const struct bf_http *http);
int bf_http_fd(const struct bf_http *http);
/* Takes no more connections, lets requests in flight end (10 s at most), stops. NULL is fine. */
void bf_http_stop(struct bf_http *http);

/* Header or query value; {NULL, 0} when absent. Valid during the handler. The query value is decoded
 * into |out|; false (with a 400 answer) when it is not valid UTF-8, holds U+0000 or does not fit. */
struct bf_bytes bf_request_header(struct bf_request *r, const char *name);
bool bf_request_query(struct bf_request *r, const char *name, char *out, size_t cap,
                      struct bf_bytes *ret_value);
/* Walks headers whose names begin with |prefix| (case-insensitive). */
void bf_request_headers(struct bf_request *r, const char *prefix,
                        void (*each)(void *arg, const char *name, const char *value), void *arg);

/* Answers. The first one stands; later calls are ignored (a bug would double an answer, not crash). */
void bf_answer_json(struct bf_request *r, int status, struct bf_out *o);
void bf_answer_text(struct bf_request *r, int status, const char *content_type, struct bf_out *o);
void bf_answer_empty(struct bf_request *r, int status);
void bf_answer_problem(struct bf_request *r, const struct bf_problem *problem);
__attribute__((format(printf, 5, 6))) void bf_answer_fail(struct bf_request *r, int status,
                                                          const char *type, const char *field,
                                                          const char *detail, ...);
/* An error code of base/err.h that no handler words better: 503 or 500. */
void bf_answer_error(struct bf_request *r, int rc);
__attribute__((format(printf, 3, 4))) void bf_answer_header(struct bf_request *r, const char *name,
                                                            const char *format, ...);

/* Suspends before the slow work is handed over; resume may then be called by any thread, once. */
void bf_request_suspend(struct bf_request *r);
void bf_request_resume(struct bf_request *r);

/* Path matching, apart from the server so that it is tested by itself. Returns the route, or NULL: then
 * *ret_allow lists the methods of the path ("" = no such path). */
const struct bf_route *bf_route_find(const struct bf_route *routes, unsigned count,
                                     const char *method, const char *path, char *allow,
                                     size_t allow_len);
/* Decodes |path| along |route| into the request. Sets a 400 or 404 answer and gives false. */
bool bf_route_decode(struct bf_request *r, const char *path);
/* Percent-decoding in place of up to |len| bytes; returns the new length or -1. */
long bf_percent_decode(const char *text, size_t len, char *out, size_t cap);
