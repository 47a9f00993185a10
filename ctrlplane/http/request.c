/*
 * A request's life, on its connection's thread:
 *
 *   head -> route, decode, admit -> body (bounded) -> handle -> [suspended ... resumed] -> complete
 *
 * Every request ends in complete, however it ends: answered, refused, timed out, hung up, stopped.
 * What has to be undone at the end (a mark, a count) is undone in |ended|.
 */
#include <stdlib.h>

#include "http/server.h"

#include "belfry/base/text.h"
#include "belfry/base/time.h"

static const struct bf_route none = {.method = "", .path = "", .body_max = BF_HTTP_IGNORED_BYTES};

/* Zeroes what a request begins with; the large arrays at its end are written before they are read.
 */
static struct bf_request *clear(struct bf_http_conn *c)
{
    struct bf_request *r = &c->work->request;
    struct bf_http *http = c->thread->http;
    memset(r, 0, offsetof(struct bf_request, head));
    memset(r->state, 0, sizeof(r->state));
    r->http = http;
    r->conn = c;
    r->route = &none;
    r->owner = http->options.owner;
    r->answer.status = 0;
    r->answer.content_type = NULL;
    r->answer.body = NULL;
    r->answer.body_len = 0;
    r->answer.header_count = 0;
    r->began_us = bf_mono_ns() / 1000;
    c->is_open = c->has_begun = true;
    c->stops_body = false;
    /* relaxed: this thread alone writes it; a stop polls it */
    bf_http_set(&c->thread->open, atomic_load_explicit(&c->thread->open, memory_order_relaxed) + 1);
    if (!c->has_asked) /* counted as open first: a stop sees it in one of the two */
        atomic_fetch_sub(&http->fresh, 1);
    c->has_asked = true;
    return r;
}

/* Handlers read names and values as C strings: each is followed by a byte of the grammar (colon,
 * CR, white space), which has done its work. */
static void end_texts(struct bf_http_conn *c, struct bf_request *r)
{
    char *in = c->work->in;
    const struct bf_bytes views[] = {r->head.method, r->head.path, r->head.query};
    for (uint32_t i = 0; i < r->head.field_count; i++) {
        const struct bf_http1_field *f = &r->head.fields[i];
        r->head_at[f->name_at + f->name_len] = '\0';
        r->head_at[f->value_at + f->value_len] = '\0';
    }
    for (unsigned i = 0; i < sizeof(views) / sizeof(views[0]); i++) {
        size_t at = (size_t)(views[i].at - in);
        if (views[i].at >= in && at < BF_HTTP_IN_BYTES) /* the path may be a static "/" */
            in[at + views[i].len] = '\0';
    }
}

static void find_route(struct bf_request *r)
{
    const struct bf_http_options *options = &r->http->options;
    const char *method = r->head.method.at, *path = r->head.path.at;
    char allow[96];
    r->is_head = strcmp(method, "HEAD") == 0;
    const struct bf_route *route =
        bf_route_find(options->routes, options->route_count, r->is_head ? "GET" : method, path,
                      allow, sizeof(allow));
    if (route) {
        r->route = route;
        bf_route_decode(r, path);
        return;
    }
    if (options->preflight && strcmp(method, "OPTIONS") == 0)
        options->preflight(r, path);
    if (r->answer.status != 0)
        return;
    if (allow[0]) {
        bf_answer_header(r, "Allow", "%s%s", allow, strstr(allow, "GET") ? ", HEAD" : "");
        bf_answer_fail(r, 405, "method-not-allowed", "", "%.*s is not done here; allowed: %s%s",
                       BF_CUT(method, 16), allow, strstr(allow, "GET") ? ", HEAD" : "");
    } else {
        bf_answer_fail(r, 404, "not-found", "", "nothing lives at this path");
    }
}

void bf_request_begin(struct bf_http_conn *c, uint32_t bytes)
{
    struct bf_request *r = clear(c);
    r->head_at = c->work->in + c->in_at;
    r->head_bytes = bytes;
    c->in_at += bytes;
    end_texts(c, r);
    c->is_last = r->head.is_close;
    find_route(r);
    r->is_begun = true;
    if (r->answer.status == 0 && r->http->options.admit)
        r->http->options.admit(r);
    if (!bf_body_begin(c))
        c->stops_body = true;
}

static void drop_answer(struct bf_request *r)
{
    free(r->answer.body);
    r->answer.body = NULL;
    r->answer.body_len = 0;
    r->answer.status = 0;
    r->answer.header_count = 0;
}

void bf_request_refuse(struct bf_http_conn *c, int status, const char *why)
{
    const char *type = status == 408   ? "timeout"
                       : status == 414 ? "uri-too-long"
                       : status == 431 ? "head-too-large"
                       : status == 501 ? "not-implemented"
                       : status == 505 ? "http-version"
                                       : "bad-request";
    if (!c->is_open) {
        struct bf_request *r = clear(c);
        r->head.field_count = 0;
        r->head_at = c->work->in;
        r->head.is_chunked = false;
    }
    /* an answer that waited for the end of the body (401, 404) matters less than that the body is
     * malformed */
    drop_answer(&c->work->request);
    bf_answer_fail(&c->work->request, status, type, "", "%s; the connection is closed", why);
    c->is_last = c->stops_body = true;
    c->in_at = c->in_len; /* later bytes are not read as a request */
    if (status != 408)
        bf_http_tell(&c->thread->http->stats->refused[BF_REFUSED_MALFORMED]);
}

bool bf_request_handle(struct bf_http_conn *c)
{
    struct bf_http_thread *t = c->thread;
    struct bf_request *r = &c->work->request;
    if (r->answer.status != 0)
        return true;
    /* seq_cst: Dekker with the stop. It sees us in here and waits, or we see that it has begun */
    atomic_store(&t->handling, 1);
    if (atomic_load(&t->http->is_stopping))
        bf_answer_fail(r, 503, "stopping", "", "the node is stopping or starting over; try again");
    else
        r->route->handle(r);
    atomic_store(&t->handling, 0);
    /* between suspend and resume another thread may write the answer: nothing is read but
     * |suspended|, which only this thread writes */
    return !r->suspended;
}

void bf_request_go_on(struct bf_http_conn *c)
{
    struct bf_request *r = &c->work->request;
    r->suspended = false;
    if (r->answer.status != 0 || !r->route->resumed)
        return;
    atomic_store(&c->thread->handling, 1); /* as above */
    r->route->resumed(r);
    atomic_store(&c->thread->handling, 0);
}

void bf_request_complete(struct bf_http_conn *c)
{
    struct bf_http *http = c->thread->http;
    struct bf_request *r = &c->work->request;
    if (c->fd >= 0) {
        if (r->answer.status ==
            0) /* a handler that says nothing is a bug of ours, not the client's */
            bf_answer_fail(r, 500, "internal", "", "no answer was made");
        if (http->options.answered)
            http->options.answered(r);
        c->is_last |= atomic_load_explicit(&http->is_stopping, memory_order_relaxed);
        bf_reply_write(c);
    }
    if (r->is_begun && http->options.ended)
        http->options.ended(r);
    bf_body_free(r);
    free(r->answer.body);
    r->answer.body = NULL;
    c->is_open = false;
    bf_http_set(&c->thread->open, atomic_load_explicit(&c->thread->open, memory_order_relaxed) - 1);
}

/* ---- suspension ---- */

void bf_request_suspend(struct bf_request *r)
{
    struct bf_http_thread *t = r->conn->thread;
    r->suspended = true;
    /* seq_cst: a stop that saw no handler sees this */
    atomic_store(&t->suspended, atomic_load_explicit(&t->suspended, memory_order_relaxed) + 1);
}

void bf_request_resume(struct bf_request *r)
{
    struct bf_http_conn *c = r->conn;
    struct bf_http_thread *t = c->thread;
    bf_http_mail(t, c); /* connection and request may be gone from here on */
    /* seq_cst, and last: a stop that sees it frees the thread's memory */
    atomic_fetch_add(&t->resumed, 1);
}
