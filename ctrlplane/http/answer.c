/* Answers, and what a handler reads of its request; see http.h. */
#include "http/http.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "belfry/base/utf8.h"

/* ---- answers ---- */

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
    bool is_passing = rc == BF_ERR_FULL || rc == BF_ERR_LOG || rc == -ENOMEM ||
                      rc == BF_ERR_NO_MEMORY || rc == -ENOSPC;
    if (rc == BF_ERR_AWAY) /* whoever was asked may still do it */
        bf_answer_fail(r, 503, "unavailable", "",
                       "it was not confirmed in time: it may have been done, or not; try again");
    else if (is_passing)
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

/* ---- reading ---- */

struct bf_bytes bf_request_header(struct bf_request *r, const char *name)
{
    size_t len = strlen(name);
    for (uint32_t i = 0; i < r->head.field_count; i++) {
        const struct bf_http1_field *f = &r->head.fields[i];
        if (f->name_len == len && strncasecmp(r->head_at + f->name_at, name, len) == 0)
            return bf_http1_field_value(r->head_at, f);
    }
    return (struct bf_bytes){NULL, 0};
}

void bf_request_headers(struct bf_request *r, const char *prefix,
                        void (*each)(void *arg, const char *name, const char *value), void *arg)
{
    size_t len = strlen(prefix);
    for (uint32_t i = 0; i < r->head.field_count; i++) {
        const struct bf_http1_field *f = &r->head.fields[i];
        if (f->name_len >= len && strncasecmp(r->head_at + f->name_at, prefix, len) == 0)
            each(arg, r->head_at + f->name_at, r->head_at + f->value_at);
    }
}

/* The raw value of the first parameter |name|; {NULL, 0}: none, or without "=". */
static struct bf_bytes find_parameter(struct bf_bytes query, struct bf_bytes name)
{
    while (query.len > 0) {
        const char *end = memchr(query.at, '&', query.len);
        size_t len = end ? (size_t)(end - query.at) : query.len;
        const char *equals = memchr(query.at, '=', len);
        size_t name_len = equals ? (size_t)(equals - query.at) : len;
        if (equals && bf_bytes_is_equal((struct bf_bytes){query.at, name_len}, name))
            return (struct bf_bytes){equals + 1, len - name_len - 1};
        query = bf_http1_skip(query, end ? len + 1 : len);
    }
    return (struct bf_bytes){NULL, 0};
}

/* Percent-decoding, and '+' for a space, as forms write it. Returns the length or -1. */
static long decode_parameter(struct bf_bytes raw, char *out, size_t cap)
{
    size_t n = 0;
    while (raw.len > 0) {
        const char *plus = memchr(raw.at, '+', raw.len);
        size_t part = plus ? (size_t)(plus - raw.at) : raw.len;
        long got = bf_percent_decode(raw.at, part, out + n, cap - n);
        if (got < 0)
            return -1;
        n += (size_t)got;
        if (plus && n == cap)
            return -1;
        if (plus)
            out[n++] = ' ';
        raw = bf_http1_skip(raw, plus ? part + 1 : part);
    }
    return (long)n;
}

bool bf_request_query(struct bf_request *r, const char *name, char *out, size_t cap,
                      struct bf_bytes *ret_value)
{
    struct bf_bytes raw = find_parameter(r->head.query, (struct bf_bytes){name, strlen(name)});
    *ret_value = (struct bf_bytes){NULL, 0};
    if (!raw.at)
        return true;
    long n = decode_parameter(raw, out, cap);
    struct bf_bytes value = {out, n < 0 ? 0 : (size_t)n};
    if (n < 0 || memchr(out, 0, value.len) || !bf_utf8_is_valid(value)) {
        bf_answer_fail(r, 400, "bad-query", name, "%s in the query is too long or not valid UTF-8",
                       name);
        return false;
    }
    *ret_value = value;
    return true;
}
