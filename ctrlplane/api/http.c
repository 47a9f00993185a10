/*
 * libmicrohttpd glue; see http.h. A request's life, on one server thread:
 *
 *   headers -> route, decode, admit -> body (bounded) -> handle -> [suspended ... resumed] ->
 * answer
 *
 * An answer that is known early (unknown path, no key, too large) waits for the end of a small
 * body, so that the connection stays usable; a large announced body is refused at once and the
 * connection ends.
 */
#include "api/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "belfry/base/time.h"
#include "ingest/utf8.h"

/* An idle or stuck connection is closed after this; keep-alive clients come back. */
#define IDLE_TIMEOUT_S 75u
/* Request line and headers: an 8 KiB token and room beside it. The library clears all of it for
 * every request, so it is no larger than that. */
#define CONNECTION_BYTES (14u * 1024u)
#define LISTEN_BACKLOG   1024
/* Bytes of a refused body that are read for the sake of the connection; then it is cut. */
#define DISCARD_BYTES_MAX (16u * 1024u * 1024u)
/* A body up to this is read even if the route wants none. */
#define BODY_IGNORED_BYTES 4096u
/* A stop waits this long for suspended requests: longer than any commit takes, and short of the 10
 * s that a restart may take in all. */
#define STOP_WAIT_MS 3000u
/* ... this long for connections that were taken from the backlog and have not asked yet: their
 * question is on its way. What is still in the backlog, the next process takes. */
#define STOP_FRESH_MS 300u
/* ... and this long for the rest: answers under way; a client in the middle of its body may lose.
 */
#define STOP_GRACE_MS 500u

struct bf_http {
    struct MHD_Daemon *daemon;
    struct bf_http_options options;
    int listen_fd;
    int port;
    _Atomic uint32_t fresh;     /* connections that have asked nothing yet */
    _Atomic uint32_t open;      /* requests begun and not completed */
    _Atomic uint32_t suspended; /* of them, in the hands of somebody else */
    _Atomic uint32_t handling;  /* of them, in their handler, which may suspend them */
    _Atomic bool is_stopping;   /* nothing is suspended any more */
};

/* ---- answers ----------------------------------------------------------------------------------
 */

static void set_body(struct bf_request *r, int status, const char *content_type, struct bf_out *o)
{
    size_t len = 0;
    char *body = bf_out_take(o, &len);
    if (r->answer.status != 0) {
        free(body);
        return;
    }
    r->answer.status = body ? status : 503;
    r->answer.content_type = content_type;
    r->answer.body = body;
    r->answer.body_len = body ? len : 0;
}

void bf_answer_json(struct bf_request *r, int status, struct bf_out *o)
{
    set_body(r, status, "application/json", o);
}

void bf_answer_text(struct bf_request *r, int status, const char *content_type, struct bf_out *o)
{
    set_body(r, status, content_type, o);
}

void bf_answer_empty(struct bf_request *r, int status)
{
    if (r->answer.status == 0)
        r->answer.status = status;
}

void bf_answer_problem(struct bf_request *r, const struct bf_problem *problem)
{
    struct bf_out o = {0};
    if (r->answer.status != 0)
        return;
    bf_out_text(&o, "{\"type\":\"urn:belfry:problem:");
    bf_out_text(&o, problem->type);
    bf_out_text(&o, "\",\"title\":");
    bf_out_cstr(&o, problem->title);
    bf_out_text(&o, ",\"status\":");
    bf_out_uint(&o, (uint64_t)problem->status);
    bf_out_text(&o, ",\"detail\":");
    bf_out_cstr(&o, problem->detail);
    if (problem->field[0]) {
        bf_out_text(&o, ",\"field\":");
        bf_out_cstr(&o, problem->field);
    }
    bf_out_text(&o, "}");
    if (problem->retry_after_s > 0)
        bf_answer_header(r, "Retry-After", "%u", problem->retry_after_s);
    if (problem->status == 401)
        bf_answer_header(r, "WWW-Authenticate", "Bearer realm=\"belfry\"");
    set_body(r, problem->status, "application/problem+json", &o);
}

void bf_answer_fail(struct bf_request *r, int status, const char *type, const char *field,
                    const char *detail, ...)
{
    struct bf_problem problem;
    char text[sizeof(problem.detail)];
    va_list args;
    va_start(args, detail);
    bf_vformat(text, sizeof(text), detail, args);
    va_end(args);
    bf_problem_set(&problem, status, type, field, "%s", text);
    if (status == 503 || status == 409)
        problem.retry_after_s = 1;
    bf_answer_problem(r, &problem);
}

void bf_answer_error(struct bf_request *r, int rc)
{
    bool is_passing = rc == BF_ERR_AWAY || rc == BF_ERR_FULL || rc == BF_ERR_LOG || rc == -ENOMEM ||
                      rc == BF_ERR_NO_MEMORY || rc == -ENOSPC;
    if (is_passing)
        bf_answer_fail(r, 503, "unavailable", "", "%s; nothing was changed; try again",
                       bf_err_text(rc));
    else
        bf_answer_fail(r, 500, "internal", "", "%s; the log of this node says more",
                       bf_err_text(rc));
}

void bf_answer_header(struct bf_request *r, const char *name, const char *format, ...)
{
    va_list args;
    if (r->answer.header_count == BF_HTTP_HEADERS_MAX)
        return;
    struct bf_http_header *header = &r->answer.headers[r->answer.header_count++];
    header->name = name;
    va_start(args, format);
    bf_vformat(header->value, sizeof(header->value), format, args);
    va_end(args);
}

static enum MHD_Result send_answer(struct bf_request *r)
{
    struct bf_answer *a = &r->answer;
    if (r->http->options.answered)
        r->http->options.answered(r);
    struct MHD_Response *response =
        MHD_create_response_from_buffer(a->body_len, a->body ? a->body : (char[]){""},
                                        a->body ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
    if (!response)
        return MHD_NO;
    a->body = NULL; /* the response frees it */
    if (a->content_type)
        MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, a->content_type);
    for (unsigned i = 0; i < a->header_count; i++)
        MHD_add_response_header(response, a->headers[i].name, a->headers[i].value);
    enum MHD_Result rc = MHD_queue_response(r->connection, (unsigned)a->status, response);
    MHD_destroy_response(response);
    return rc;
}

/* ---- reading ----------------------------------------------------------------------------------
 */

struct bf_bytes bf_request_header(struct bf_request *r, const char *name)
{
    const char *value = MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
    return (struct bf_bytes){value, value ? strlen(value) : 0};
}

struct header_walk {
    const char *prefix;
    void (*each)(void *arg, const char *name, const char *value);
    void *arg;
};

static enum MHD_Result visit_header(void *cls, enum MHD_ValueKind kind, const char *name,
                                    const char *value)
{
    const struct header_walk *walk = cls;
    (void)kind;
    if (strncasecmp(name, walk->prefix, strlen(walk->prefix)) == 0)
        walk->each(walk->arg, name, value ? value : "");
    return MHD_YES;
}

void bf_request_headers(struct bf_request *r, const char *prefix,
                        void (*each)(void *arg, const char *name, const char *value), void *arg)
{
    struct header_walk walk = {.prefix = prefix, .each = each, .arg = arg};
    MHD_get_connection_values(r->connection, MHD_HEADER_KIND, visit_header, &walk);
}

bool bf_request_query(struct bf_request *r, const char *name, char *out, size_t cap,
                      struct bf_bytes *ret_value)
{
    const char *raw = MHD_lookup_connection_value(r->connection, MHD_GET_ARGUMENT_KIND, name);
    *ret_value = (struct bf_bytes){NULL, 0};
    if (!raw)
        return true;
    long n = bf_percent_decode(raw, strlen(raw), out, cap);
    struct bf_bytes value = {out, n < 0 ? 0 : (size_t)n};
    if (n < 0 || memchr(out, 0, value.len) || !bf_utf8_is_valid(value)) {
        bf_answer_fail(r, 400, "bad-query", name, "%s in the query is too long or not valid UTF-8",
                       name);
        return false;
    }
    *ret_value = value;
    return true;
}

static void too_large(struct bf_request *r)
{
    bf_answer_fail(r, 413, "too-large", "", "the body is larger than %u bytes", r->route->body_max);
}

/* Announced length; -1 when it is not (chunked). */
static long long announced_bytes(struct bf_request *r)
{
    struct bf_bytes value = bf_request_header(r, MHD_HTTP_HEADER_CONTENT_LENGTH);
    return value.at ? strtoll(value.at, NULL, 10) : -1;
}

/* Takes |len| body bytes. False: the connection is to be cut. */
static bool take_body(struct bf_request *r, const char *bytes, size_t len)
{
    if (r->answer.status == 0 && r->body_len + len > r->route->body_max)
        too_large(r);
    if (r->answer.status != 0) {
        r->discarded += len;
        return r->discarded <= DISCARD_BYTES_MAX;
    }
    if (r->body_len + len > r->body_cap) {
        size_t cap = r->body_cap ? r->body_cap * 2 : 1024;
        while (cap < r->body_len + len)
            cap *= 2;
        char *body = realloc(r->body, cap);
        if (!body) {
            bf_answer_error(r, -ENOMEM);
            return true;
        }
        r->body = body;
        r->body_cap = cap;
    }
    memcpy(r->body + r->body_len, bytes, len);
    r->body_len += len;
    return true;
}

/* ---- a request's life -------------------------------------------------------------------------
 */

static const struct bf_route none = {.method = "", .path = "", .body_max = BODY_IGNORED_BYTES};

static void find_route(struct bf_request *r, const char *method, const char *url)
{
    const struct bf_http_options *options = &r->http->options;
    char allow[96];
    const struct bf_route *route =
        bf_route_find(options->routes, options->route_count, method, url, allow, sizeof(allow));
    r->route = route ? route : &none;
    if (route) {
        bf_route_decode(r, url);
    } else if (allow[0]) {
        bf_answer_header(r, "Allow", "%s", allow);
        bf_answer_fail(r, 405, "method-not-allowed", "", "%.*s is not done here; allowed: %s",
                       BF_CUT(method, 16), allow);
    } else {
        bf_answer_fail(r, 404, "not-found", "", "nothing lives at this path");
    }
}

/* Headers are in. Returns whether the answer must go out at once, the body unread. */
static bool begin(struct bf_request *r, const char *method, const char *url)
{
    find_route(r, method, url);
    if (r->answer.status == 0 && r->http->options.admit)
        r->http->options.admit(r);
    long long announced = announced_bytes(r);
    uint32_t limit =
        r->route->body_max > BODY_IGNORED_BYTES ? r->route->body_max : BODY_IGNORED_BYTES;
    if (announced > (long long)limit) {
        too_large(r);
        return true;
    }
    if (announced > 0 && r->answer.status == 0) {
        r->body_cap = (size_t)announced;
        r->body = malloc(r->body_cap);
        if (!r->body)
            r->body_cap = 0;
    }
    return false;
}

/* What the library keeps for us with a connection. */
struct link {
    bool has_asked;
};

static void on_connection(void *cls, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct bf_http *http = cls;
    struct link *link = *context;
    (void)connection;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        *context = link = calloc(1, sizeof(*link));
        if (link) /* without memory a stop does not wait for it */
            atomic_fetch_add(&http->fresh, 1);
    } else if (link) {
        if (!link->has_asked)
            atomic_fetch_sub(&http->fresh, 1);
        free(link);
        *context = NULL;
    }
}

static void note_asked(struct bf_http *http, struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct link *link = info ? info->socket_context : NULL;
    if (!link || link->has_asked)
        return;
    link->has_asked = true;
    atomic_fetch_sub(&http->fresh, 1);
}

static struct bf_request *create_request(struct bf_http *http, struct MHD_Connection *connection)
{
    struct bf_request *r = malloc(sizeof(*r));
    if (!r)
        return NULL;
    memset(r, 0, offsetof(struct bf_request, path));
    memset(r->state, 0, sizeof(r->state));
    r->http = http;
    r->connection = connection;
    r->owner = http->options.owner;
    r->began_us = bf_mono_ns() / 1000;
    atomic_fetch_add(&http->open, 1);
    note_asked(http, connection); /* counted as open first: a stop sees it in one of the two */
    return r;
}

/* The body is in, or the request was resumed. Between suspend and resume the answer belongs to
 * whoever works on it: this thread looks at nothing but |suspended|, which only it writes. */
static void handle(struct bf_request *r)
{
    struct bf_http *http = r->http;
    /* seq_cst: Dekker with the stop. It sees us in here and waits, or we see that it has begun */
    atomic_fetch_add(&http->handling, 1);
    if (atomic_load(&http->is_stopping))
        bf_answer_fail(r, 503, "stopping", "", "the node is stopping or starting over; try again");
    else
        r->route->handle(r);
    atomic_fetch_sub(&http->handling, 1);
}

static enum MHD_Result finish(struct bf_request *r)
{
    bool is_first = !r->suspended;
    if (is_first && r->answer.status == 0)
        handle(r);
    if (is_first && r->suspended)
        return MHD_YES;
    if (!is_first && r->answer.status == 0 && r->route->resumed)
        r->route->resumed(r);
    if (r->answer.status == 0) /* a handler that says nothing is a bug of ours, not the client's */
        bf_answer_fail(r, 500, "internal", "", "no answer was made");
    return send_answer(r);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **request)
{
    struct bf_request *r = *request;
    (void)version;
    if (!r) {
        r = create_request(cls, connection);
        if (!r)
            return MHD_NO;
        *request = r;
        return begin(r, method, url) ? send_answer(r) : MHD_YES;
    }
    if (*upload_size > 0) {
        size_t len = *upload_size;
        *upload_size = 0;
        return take_body(r, upload, len) ? MHD_YES : MHD_NO;
    }
    return finish(r);
}

static void on_completed(void *cls, struct MHD_Connection *connection, void **request,
                         enum MHD_RequestTerminationCode code)
{
    struct bf_request *r = *request;
    (void)cls;
    (void)connection;
    (void)code;
    if (!r)
        return;
    atomic_fetch_sub(&r->http->open, 1);
    free(r->answer.body);
    free(r->body);
    free(r);
    *request = NULL;
}

void bf_request_suspend(struct bf_request *r)
{
    r->suspended = true;
    atomic_fetch_add(&r->http->suspended, 1);
    MHD_suspend_connection(r->connection);
}

void bf_request_resume(struct bf_request *r)
{
    struct bf_http *http = r->http;
    MHD_resume_connection(r->connection); /* the request may be gone from here on */
    atomic_fetch_sub(&http->suspended, 1);
}

/* ---- start and stop ---------------------------------------------------------------------------
 */

/* Paths and queries reach us raw: ids may hold an encoded slash or zero. */
static size_t keep_escapes(void *cls, struct MHD_Connection *connection, char *text)
{
    (void)cls;
    (void)connection;
    return strlen(text);
}

static void ignore_log(void *cls, const char *format, va_list args)
{
    /* libmicrohttpd tells of every client that goes away; our counters tell what matters */
    (void)cls;
    (void)format;
    (void)args;
}

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

static struct MHD_Daemon *start_daemon(struct bf_http *http)
{
    const struct bf_http_options *o = &http->options;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_INTERNAL_POLLING_THREAD |
                     MHD_ALLOW_SUSPEND_RESUME | MHD_USE_TURBO | MHD_USE_ERROR_LOG;
    unsigned threads =
        o->threads > 1 ? o->threads : 0; /* a pool of one is no pool to the library */
    return MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, http, MHD_OPTION_EXTERNAL_LOGGER, ignore_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, http->listen_fd, MHD_OPTION_THREAD_POOL_SIZE, threads,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)o->connections_max, MHD_OPTION_CONNECTION_TIMEOUT,
        IDLE_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
        MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL, MHD_OPTION_NOTIFY_CONNECTION,
        on_connection, http, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL, MHD_OPTION_END);
}

int bf_http_start(const struct bf_http_options *options, struct bf_http **ret, char *err,
                  size_t err_len)
{
    struct bf_http *http = calloc(1, sizeof(*http));
    if (!http)
        return -ENOMEM;
    http->options = *options;
    http->listen_fd =
        options->listen_fd >= 0 ? options->listen_fd : bind_socket(options->host, options->port);
    if (http->listen_fd < 0) {
        int rc = http->listen_fd;
        snprintf(err, err_len, "cannot listen on %s port %u: %s", options->host, options->port,
                 strerror(-rc));
        free(http);
        return rc;
    }
    http->port = port_of(http->listen_fd);
    http->daemon = start_daemon(http);
    if (!http->daemon) {
        snprintf(err, err_len, "cannot start the HTTP server on %s port %d", options->host,
                 http->port);
        close(http->listen_fd);
        free(http);
        return BF_ERR_UNSUPPORTED;
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

static void wait_until_zero(const _Atomic uint32_t *count, uint32_t timeout_ms)
{
    uint64_t until = bf_mono_ms() + timeout_ms;
    while (atomic_load(count) > 0 && bf_mono_ms() < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

void bf_http_stop(struct bf_http *http)
{
    if (!http)
        return;
    MHD_socket fd = MHD_quiesce_daemon(http->daemon);
    /* connections that are open go on asking: from here on they are told to come back */
    atomic_store(&http->is_stopping, true);
    wait_until_zero(&http->fresh, STOP_FRESH_MS);
    wait_until_zero(&http->handling, STOP_WAIT_MS);
    wait_until_zero(&http->suspended, STOP_WAIT_MS);
    wait_until_zero(&http->open, STOP_GRACE_MS);
    if (atomic_load(&http->handling) > 0 || atomic_load(&http->suspended) > 0) {
        /* A log that hangs still holds these requests: stopping under them aborts the process. It
         * ends or executes itself again right after; the sockets close with it and their producers
         * ask again. */
        if (fd != MHD_INVALID_SOCKET)
            close(fd);
        return;
    }
    MHD_stop_daemon(http->daemon);
    if (fd != MHD_INVALID_SOCKET)
        close(fd);
    free(http);
}
