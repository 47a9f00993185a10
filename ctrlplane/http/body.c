/*
 * Bodies. One that came complete with its head is read in place; any other is collected in memory
 * that grows with the bytes that have come, never with what was announced. A body that is not
 * needed (the answer is known, or the route takes none) is read and dropped up to a limit, so that
 * the connection stays usable.
 */
#include <errno.h>
#include <stdlib.h>

#include "http/server.h"

/* The first piece of a body that has to be collected. */
#define FIRST_BYTES 4096u

static uint32_t body_limit(const struct bf_request *r)
{
    return r->route->body_max > BF_HTTP_IGNORED_BYTES ? r->route->body_max : BF_HTTP_IGNORED_BYTES;
}

static void too_large(struct bf_http_conn *c)
{
    struct bf_request *r = &c->work->request;
    bf_answer_fail(r, 413, "too-large", "", "the body is larger than %u bytes", body_limit(r));
    c->is_last = c->stops_body = true; /* what is left of the body is not read */
}

void bf_body_free(struct bf_request *r)
{
    if (r->body_cap > 0)
        free(r->body);
    r->body = NULL;
    r->body_len = r->body_cap = 0;
}

/* Room for |more| bytes of a body whose end is not known. */
static bool make_room(struct bf_request *r, size_t more)
{
    size_t need = r->body_len + more;
    if (need <= r->body_cap)
        return true;
    size_t cap = r->body_cap > 0 ? r->body_cap * 2 : FIRST_BYTES;
    while (cap < need)
        cap *= 2;
    char *body = realloc(r->body_cap > 0 ? r->body : NULL, cap);
    if (!body) {
        bf_answer_error(r, -ENOMEM);
        return false;
    }
    r->body = body;
    r->body_cap = cap;
    return true;
}

static bool is_wanted(const struct bf_request *r)
{
    return r->answer.status == 0 && r->route->body_max > 0;
}

/* Keeps or drops |len| bytes. */
static void keep(struct bf_http_conn *c, const char *bytes, size_t len)
{
    struct bf_request *r = &c->work->request;
    if (r->body_len + r->discarded + len > body_limit(r)) {
        too_large(c);
        return;
    }
    if (!is_wanted(r) || !make_room(r, len)) {
        r->discarded += len;
        return;
    }
    memcpy(r->body + r->body_len, bytes, len);
    r->body_len += len;
}

/* 417, or 100 unless the body is here already. */
static bool expect(struct bf_http_conn *c)
{
    struct bf_request *r = &c->work->request;
    if (r->head.expects_other) {
        bf_answer_fail(r, 417, "expectation-failed", "Expect",
                       "Expect knows 100-continue alone; leave the header out");
        c->is_last = true;
        return false;
    }
    bool has_body = r->head.is_chunked || r->head.content_length > 0;
    if (!r->head.expects_continue || !has_body)
        return true;
    if (r->answer.status !=
        0) { /* the client waits for this before it sends, and may not send at all */
        c->is_last = true;
        return false;
    }
    if (c->in_at == c->in_len)
        bf_reply_continue(c);
    return true;
}

bool bf_body_begin(struct bf_http_conn *c)
{
    struct bf_request *r = &c->work->request;
    c->body_left = r->head.content_length;
    c->chunks = (struct bf_http1_chunked){.state = BF_CHUNK_SIZE};
    if (r->head.content_length > body_limit(r)) {
        too_large(c);
        return false;
    }
    if (!expect(c))
        return false;
    if (c->body_left > 0 && c->body_left <= c->in_len - c->in_at) {
        if (is_wanted(r)) {
            r->body = c->work->in + c->in_at;
            r->body_len = c->body_left;
        }
        c->in_at += (uint32_t)c->body_left;
        c->body_left = 0;
    }
    return true;
}

/* What has come of an announced body: from the buffer, then straight to where it is kept. */
static enum bf_body_step take_announced(struct bf_http_conn *c)
{
    struct bf_request *r = &c->work->request;
    size_t have = c->in_len - c->in_at;
    if (c->body_left == 0)
        return BF_BODY_DONE;
    if (have > 0) {
        size_t n = have < c->body_left ? have : (size_t)c->body_left;
        keep(c, c->work->in + c->in_at, n);
        c->in_at += (uint32_t)n;
        c->body_left -= n;
        return c->body_left == 0 ? BF_BODY_DONE : BF_BODY_MORE;
    }
    if (is_wanted(r) && r->body_cap > 0 && r->body_len < r->body_cap) {
        size_t room = r->body_cap - r->body_len;
        size_t n = bf_http_conn_receive(c, r->body + r->body_len,
                                        room < c->body_left ? room : (size_t)c->body_left);
        r->body_len += n;
        c->body_left -= n;
        return c->body_left == 0 ? BF_BODY_DONE : n > 0 ? BF_BODY_MORE : BF_BODY_WAIT;
    }
    return BF_BODY_WAIT;
}

static enum bf_body_step take_chunked(struct bf_http_conn *c)
{
    struct bf_bytes data;
    while (c->in_at < c->in_len) {
        long n =
            bf_http1_chunked_take(&c->chunks, c->work->in + c->in_at, c->in_len - c->in_at, &data);
        if (n < 0) {
            bf_request_refuse(c, (int)-n, c->chunks.why);
            return BF_BODY_DONE;
        }
        c->in_at += (uint32_t)n;
        if (data.len > 0)
            keep(c, data.at, data.len);
        if (c->stops_body || c->chunks.state == BF_CHUNK_DONE)
            return BF_BODY_DONE;
    }
    return BF_BODY_WAIT;
}

enum bf_body_step bf_body_take(struct bf_http_conn *c)
{
    struct bf_request *r = &c->work->request;
    enum bf_body_step step = r->head.is_chunked ? take_chunked(c) : take_announced(c);
    if (step != BF_BODY_WAIT || !c->is_readable)
        return step;
    /* the head stays where it is, its fields are still asked for; the rest of the buffer is free */
    uint32_t from = (uint32_t)(r->head_at - c->work->in) + r->head_bytes;
    c->in_at = c->in_len = from;
    size_t n = bf_http_conn_receive(c, c->work->in + from, BF_HTTP_IN_BYTES - from);
    c->in_len += (uint32_t)n;
    return n > 0 ? BF_BODY_MORE : BF_BODY_WAIT;
}
