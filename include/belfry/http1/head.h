/*
 * The one grammar of request heads (RFC 9112, RFC 9110) for every port of a node: the WebSocket
 * port, the API and the admin port judge a request by this file and nothing else, so that no two of
 * them can disagree on where a request ends. It is strict wherever lenient servers have let a
 * second request hide in a first one: bare CR or LF, folded lines, white space before a colon,
 * empty names, two lengths, a length beside a coding, no or two hosts. Bytes in, verdict out: no
 * I/O, no allocation, nothing kept between calls. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "belfry/base/cursor.h"
#include "belfry/http1/text.h"

/* Header fields of one request. Browsers and chains of proxies send about thirty. */
#define BF_HTTP1_FIELDS_MAX 64u
/* A method longer than this is not one (the longest registered has 17 letters). */
#define BF_HTTP1_METHOD_BYTES_MAX 32u
/* No head is longer, whatever the port allows: offsets of fields have 16 bits. */
#define BF_HTTP1_HEAD_BYTES_MAX 65535u

/* One header field as offsets into the buffer; the value is without white space around it. */
struct bf_http1_field {
    uint16_t name_at, name_len;
    uint16_t value_at, value_len;
};

struct bf_http1_head {
    struct bf_bytes method;
    struct bf_bytes path; /* without query; "/" when an absolute-form target has none */
    struct bf_bytes query;
    struct bf_bytes host;    /* of the target if it is absolute, else of Host */
    uint64_t content_length; /* valid with has_length */
    uint8_t minor;           /* 0 or 1: a later 1.x is taken as 1.1 (RFC 9110 2.5) */
    bool has_length, is_chunked;
    bool is_close; /* the connection ends with this request's answer */
    bool expects_continue, expects_other;
    bool has_host, has_absolute_host, has_authorization;
    uint32_t field_count;
    struct bf_http1_field fields[BF_HTTP1_FIELDS_MAX];
    const char *why; /* of a refusal: one clause for a person, static */
};

struct bf_http1_limits {
    size_t head_bytes; /* of the whole head; more: 431 */
    size_t line_bytes; /* of the request line with its CRLF; more: 414. At most head_bytes */
};

static inline int bf_http1_no(struct bf_http1_head *head, int status, const char *why)
{
    head->why = why;
    return -status;
}

static inline struct bf_bytes bf_http1_field_name(const char *buf, const struct bf_http1_field *f)
{
    return (struct bf_bytes){.at = buf + f->name_at, .len = f->name_len};
}

static inline struct bf_bytes bf_http1_field_value(const char *buf, const struct bf_http1_field *f)
{
    return (struct bf_bytes){.at = buf + f->value_at, .len = f->value_len};
}

/* ---- host ---- */

/* An optional ":" and digits that make a port, up to the end of |b|. */
static inline bool bf_http1_is_port(struct bf_bytes b)
{
    uint32_t port = 0;
    if (b.len == 0)
        return true;
    if (b.at[0] != ':' || b.len > 6)
        return false;
    for (size_t i = 1; i < b.len; i++) {
        if (b.at[i] < '0' || b.at[i] > '9')
            return false;
        port = port * 10 + (uint32_t)(b.at[i] - '0');
    }
    return port <= UINT16_MAX;
}

/* uri-host [":" port] (RFC 3986 3.2.2), never empty, no user info. */
static inline bool bf_http1_is_host(struct bf_bytes b)
{
    size_t i = 0;
    if (b.len == 0 || b.at[0] == ':')
        return false;
    if (b.at[0] == '[') {
        const char *end = memchr(b.at, ']', b.len);
        i = end ? (size_t)(end - b.at) : 0;
        for (size_t k = 1; k < i; k++)
            if (!bf_http1_is_hex(b.at[k]) && b.at[k] != ':' && b.at[k] != '.')
                return false;
        return i > 2 && bf_http1_is_port(bf_http1_skip(b, i + 1));
    }
    for (; i < b.len && b.at[i] != ':'; i++) {
        if (b.at[i] == '%') {
            if (b.len - i < 3 || !bf_http1_is_hex(b.at[i + 1]) || !bf_http1_is_hex(b.at[i + 2]))
                return false;
        } else if (!bf_http1_is_alnum(b.at[i]) &&
                   (b.at[i] == '\0' || !strchr("-._~!$&'()*+,;=", b.at[i]))) {
            return false;
        }
    }
    return bf_http1_is_port(bf_http1_skip(b, i));
}

/* ---- request line ---- */

/* The authority of an absolute-form target, which a server must accept (RFC 9112 3.2.2). Leaves the
 * rest of the target in *target. */
static inline int bf_http1_authority(struct bf_bytes *target, struct bf_http1_head *head)
{
    size_t scheme = bf_http1_has_prefix(*target, BF_BYTES("http://"))    ? 7
                    : bf_http1_has_prefix(*target, BF_BYTES("https://")) ? 8
                                                                         : 0;
    size_t n = 0;
    if (scheme == 0)
        return bf_http1_no(head, 400, "the target is neither a path nor an http URL");
    *target = bf_http1_skip(*target, scheme);
    while (n < target->len && target->at[n] != '/' && target->at[n] != '?')
        n++;
    head->host = (struct bf_bytes){.at = target->at, .len = n};
    head->has_absolute_host = true;
    *target = bf_http1_skip(*target, n);
    return bf_http1_is_host(head->host) ? 0
                                        : bf_http1_no(head, 400, "the target names no valid host");
}

static inline int bf_http1_target(struct bf_bytes target, struct bf_http1_head *head)
{
    int rc = 0;
    for (size_t i = 0; i < target.len; i++) {
        uint8_t c = (uint8_t)target.at[i];
        if (c <= ' ' || c >= 0x7f || c == '#')
            return bf_http1_no(head, 400, "the target holds a character that a URL may not have");
    }
    if (target.len == 0)
        return bf_http1_no(head, 400, "the request line has no target");
    bool is_asterisk = bf_bytes_is_equal(target, BF_BYTES("*"));
    if (target.at[0] != '/' && !is_asterisk)
        rc = bf_http1_authority(&target, head);
    if (rc != 0)
        return rc;
    const char *mark = target.len > 0 ? memchr(target.at, '?', target.len) : NULL;
    size_t path_len = mark ? (size_t)(mark - target.at) : target.len;
    head->path = path_len > 0 ? (struct bf_bytes){.at = target.at, .len = path_len} : BF_BYTES("/");
    head->query = bf_http1_skip(target, mark ? path_len + 1 : path_len);
    return 0;
}

static inline int bf_http1_version(struct bf_bytes v, struct bf_http1_head *head)
{
    bool is_version = v.len == 8 && memcmp(v.at, "HTTP/", 5) == 0 && v.at[6] == '.' &&
                      v.at[5] >= '0' && v.at[5] <= '9' && v.at[7] >= '0' && v.at[7] <= '9';
    if (!is_version)
        return bf_http1_no(head, 400, "the request line does not end in an HTTP version");
    if (v.at[5] != '1')
        return bf_http1_no(head, 505, "this version of HTTP is not spoken here; version 1.1 is");
    head->minor = v.at[7] == '0' ? 0 : 1;
    head->is_close = head->minor == 0;
    return 0;
}

static inline int bf_http1_request_line(struct bf_bytes line, struct bf_http1_head *head)
{
    const char *first = memchr(line.at, ' ', line.len);
    if (!first)
        return bf_http1_no(head, 400, "the request line is not METHOD TARGET VERSION");
    head->method = (struct bf_bytes){.at = line.at, .len = (size_t)(first - line.at)};
    struct bf_bytes rest = bf_http1_skip(line, head->method.len + 1);
    const char *second = memchr(rest.at, ' ', rest.len);
    if (!second)
        return bf_http1_no(head, 400, "the request line is not METHOD TARGET VERSION");
    if (!bf_http1_is_token(head->method) || head->method.len > BF_HTTP1_METHOD_BYTES_MAX)
        return bf_http1_no(head, 400, "the method is not a token");
    struct bf_bytes target = {.at = rest.at, .len = (size_t)(second - rest.at)};
    int rc = bf_http1_version(bf_http1_skip(rest, target.len + 1), head);
    return rc != 0 ? rc : bf_http1_target(target, head);
}

/* ---- fields that decide where the request ends ---- */

static inline int bf_http1_take_host(struct bf_http1_head *head, struct bf_bytes v)
{
    if (head->has_host)
        return bf_http1_no(head, 400, "there is more than one Host");
    head->has_host = true;
    if (!bf_http1_is_host(v))
        return bf_http1_no(head, 400, "Host is not a host and port");
    if (!head->has_absolute_host)
        head->host = v;
    return 0;
}

static inline int bf_http1_take_length(struct bf_http1_head *head, struct bf_bytes v)
{
    uint64_t value = 0;
    if (head->has_length)
        return bf_http1_no(head, 400, "there is more than one Content-Length");
    if (head->is_chunked)
        return bf_http1_no(head, 400, "there are Content-Length and Transfer-Encoding");
    for (size_t i = 0; i < v.len; i++) {
        if (v.at[i] < '0' || v.at[i] > '9')
            return bf_http1_no(head, 400, "Content-Length is not digits alone");
        if (value > (INT64_MAX - 9) / 10)
            return bf_http1_no(head, 400, "Content-Length is larger than any body");
        value = value * 10 + (uint64_t)(v.at[i] - '0');
    }
    if (v.len == 0)
        return bf_http1_no(head, 400, "Content-Length is empty");
    head->has_length = true;
    head->content_length = value;
    return 0;
}

/* Accepts exactly "chunked". A list that names any other coding is a coding that we do not know. */
static inline int bf_http1_take_coding(struct bf_http1_head *head, struct bf_bytes v)
{
    struct bf_bytes element;
    bool is_other = false, is_broken = false;
    if (head->is_chunked)
        return bf_http1_no(head, 400, "there is more than one Transfer-Encoding");
    if (head->has_length)
        return bf_http1_no(head, 400, "there are Content-Length and Transfer-Encoding");
    if (head->minor == 0)
        return bf_http1_no(head, 400, "HTTP/1.0 has no Transfer-Encoding");
    head->is_chunked = true;
    if (bf_http1_is_equal(v, BF_BYTES("chunked")))
        return 0;
    while (bf_http1_list_next(&v, &element)) {
        const char *parameter = memchr(element.at, ';', element.len);
        struct bf_bytes name = element;
        name.len = parameter ? (size_t)(parameter - element.at) : element.len;
        is_broken |= !bf_http1_is_token(bf_http1_trim(name));
        is_other |= !bf_http1_is_equal(element, BF_BYTES("chunked"));
    }
    if (is_other && !is_broken)
        return bf_http1_no(head, 501, "a transfer coding other than chunked is not known here");
    return bf_http1_no(head, 400, "Transfer-Encoding is not the one word chunked");
}

static inline int bf_http1_take_connection(struct bf_http1_head *head, struct bf_bytes v)
{
    struct bf_bytes element;
    while (bf_http1_list_next(&v, &element))
        if (bf_http1_is_equal(element, BF_BYTES("close")))
            head->is_close = true;
    return 0;
}

static inline int bf_http1_take_expect(struct bf_http1_head *head, struct bf_bytes v)
{
    if (bf_http1_is_equal(v, BF_BYTES("100-continue")))
        head->expects_continue = head->minor > 0; /* RFC 9110 10.1.1: ignored in HTTP/1.0 */
    else
        head->expects_other = true;
    return 0;
}

/* Compares by length first: nearly every name has a length that none of these has. */
static inline int bf_http1_take_field(struct bf_http1_head *head, struct bf_bytes name,
                                      struct bf_bytes v)
{
    switch (name.len) {
    case 4:
        return bf_http1_is_equal(name, BF_BYTES("host")) ? bf_http1_take_host(head, v) : 0;
    case 6:
        return bf_http1_is_equal(name, BF_BYTES("expect")) ? bf_http1_take_expect(head, v) : 0;
    case 10:
        return bf_http1_is_equal(name, BF_BYTES("connection")) ? bf_http1_take_connection(head, v)
                                                               : 0;
    case 13: /* two might name two callers: who is meant is not guessed */
        if (!bf_http1_is_equal(name, BF_BYTES("authorization")))
            return 0;
        if (head->has_authorization)
            return bf_http1_no(head, 400, "there is more than one Authorization");
        head->has_authorization = true;
        return 0;
    case 14:
        return bf_http1_is_equal(name, BF_BYTES("content-length")) ? bf_http1_take_length(head, v)
                                                                   : 0;
    case 17:
        return bf_http1_is_equal(name, BF_BYTES("transfer-encoding"))
                   ? bf_http1_take_coding(head, v)
                   : 0;
    default:
        return 0;
    }
}

/* field-line (RFC 9112 5). Also judges a line of a chunked body's trailer. Gives name and value. */
static inline const char *bf_http1_field_line(struct bf_bytes line, struct bf_bytes *ret_name,
                                              struct bf_bytes *ret_value)
{
    const char *colon = memchr(line.at, ':', line.len);
    if (line.at[0] == ' ' || line.at[0] == '\t')
        return "a header line is folded";
    if (!colon)
        return "a header line has no colon";
    *ret_name = (struct bf_bytes){.at = line.at, .len = (size_t)(colon - line.at)};
    *ret_value = bf_http1_trim(bf_http1_skip(line, ret_name->len + 1));
    if (ret_name->len == 0)
        return "a header line has no name";
    if (!bf_http1_is_token(*ret_name)) /* white space before the colon, too */
        return "a header's name is not a token";
    if (!bf_http1_is_field_value(*ret_value))
        return "a header's value holds a control character";
    return NULL;
}

static inline int bf_http1_header_line(const char *buf, struct bf_bytes line,
                                       struct bf_http1_head *head)
{
    struct bf_bytes name, value;
    if (head->field_count == BF_HTTP1_FIELDS_MAX)
        return bf_http1_no(head, 431, "there are too many header lines");
    const char *why = bf_http1_field_line(line, &name, &value);
    if (why)
        return bf_http1_no(head, 400, why);
    head->fields[head->field_count++] = (struct bf_http1_field){
        .name_at = (uint16_t)(name.at - buf),
        .name_len = (uint16_t)name.len,
        .value_at = (uint16_t)(value.at - buf),
        .value_len = (uint16_t)value.len,
    };
    return bf_http1_take_field(head, name, value);
}

/* ---- the whole ---- */

/* Finds the next line, which must end in CRLF and hold no other CR. Returns its bytes with CRLF, 0
 * for more, or -400. */
static inline int bf_http1_line(const char *buf, size_t len, struct bf_bytes *ret_line)
{
    const char *end = memchr(buf, '\n', len);
    size_t n = end ? (size_t)(end - buf) : len;
    const char *cr = memchr(buf, '\r', n);
    if (!end)
        return !cr || cr + 1 == buf + n ? 0 : -400;
    if (n == 0 || cr != end - 1)
        return -400;
    *ret_line = (struct bf_bytes){.at = buf, .len = n - 1};
    return (int)n + 1;
}

/* Checks what can be judged only at the end of the head: whether something is missing. */
static inline int bf_http1_complete(struct bf_http1_head *head)
{
    /* RFC 9112 3.2: also with an absolute-form target; HTTP/1.0 had no Host */
    if (!head->has_host && head->minor > 0)
        return bf_http1_no(head, 400, "there is no Host");
    return 0;
}

/* The answer to a head that is longer than its limit. */
static inline int bf_http1_too_long(struct bf_http1_head *head, bool is_first)
{
    return is_first ? bf_http1_no(head, 414, "the request line is too long")
                    : bf_http1_no(head, 431, "the request line and headers are too large");
}

/*
 * Parses a request head. Returns the bytes it has, through the blank line (> 0), 0 when more are
 * needed, or the negated HTTP status of a refusal (400, 414, 431, 501, 505) with ret->why. Lines
 * are judged in order, each as soon as it is complete. So however the same bytes are cut into
 * reads, the result is "more" or the same verdict. Texts in *ret are borrowed from |buf| (path may
 * be a static "/").
 */
static inline int bf_http1_head_parse(const char *buf, size_t len,
                                      const struct bf_http1_limits *limits,
                                      struct bf_http1_head *ret)
{
    size_t limit = len < limits->head_bytes ? len : limits->head_bytes;
    size_t at = 0;
    memset(ret, 0, offsetof(struct bf_http1_head, fields));
    ret->why = "";
    for (bool is_first = true;; is_first = false) {
        struct bf_bytes line = {0};
        size_t end = is_first && limits->line_bytes < limit ? limits->line_bytes : limit;
        int n = bf_http1_line(buf + at, end - at, &line);
        if (n < 0)
            return bf_http1_no(ret, 400, "a line does not end in CRLF, or holds a CR inside");
        if (n == 0 && (is_first ? end == limits->line_bytes : end == limits->head_bytes))
            return bf_http1_too_long(ret, is_first);
        if (n == 0)
            return 0;
        at += (size_t)n;
        if (line.len == 0 && !is_first) {
            int rc = bf_http1_complete(ret);
            return rc != 0 ? rc : (int)at;
        }
        int rc = is_first ? bf_http1_request_line(line, ret) : bf_http1_header_line(buf, line, ret);
        if (rc != 0)
            return rc;
    }
}
