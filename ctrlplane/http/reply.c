/*
 * Answers into bytes, and bytes onto the socket. Small answers are collected in work->out, so that
 * those of pipelined requests leave in one send; a large body leaves from where its handler made
 * it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "http/server.h"

#include "belfry/base/text.h"

static const char *status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } texts[] = {
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {428, "Precondition Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };
    for (unsigned i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i].status == status)
            return texts[i].text;
    }
    return "Other";
}

/* ---- writing ---- */

/* BF_HTTP_REPLY_HEAD_BYTES are there: no check fails, but one that did would cut, not overrun. */
static void put(struct bf_http_conn *c, const void *bytes, size_t len)
{
    size_t room = BF_HTTP_OUT_BYTES - c->out_len;
    size_t n = len < room ? len : room;
    memcpy(c->work->out + c->out_len, bytes, n);
    c->out_len += (uint32_t)n;
}

static void put_text(struct bf_http_conn *c, const char *text)
{
    put(c, text, strlen(text));
}

static void put_uint(struct bf_http_conn *c, size_t value)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    put(c, digits + at, sizeof(digits) - at);
}

static void put_header(struct bf_http_conn *c, const char *name, const char *value)
{
    put_text(c, name);
    put(c, ": ", 2);
    put_text(c, value);
    put(c, "\r\n", 2);
}

/* IMF-fixdate (RFC 9110 5.6.7) without the process's locale; once a second. */
static const char *date_line(struct bf_http_thread *t)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct timespec now;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec == t->date_s)
        return t->date;
    t->date_s = now.tv_sec;
    gmtime_r(&now.tv_sec, &tm);
    snprintf(t->date, sizeof(t->date), "Date: %.*s, %02u %.*s %04u %02u:%02u:%02u GMT\r\n", 3,
             days + 3 * tm.tm_wday, (unsigned)tm.tm_mday % 100u, 3, months + 3 * tm.tm_mon,
             (unsigned)(tm.tm_year + 1900) % 10000u, (unsigned)tm.tm_hour % 100u,
             (unsigned)tm.tm_min % 100u, (unsigned)tm.tm_sec % 100u);
    return t->date;
}

static void put_head(struct bf_http_conn *c)
{
    const struct bf_answer *a = &c->work->request.answer;
    put_text(c, "HTTP/1.1 ");
    put_uint(c, (size_t)a->status);
    put(c, " ", 1);
    put_text(c, status_text(a->status));
    put(c, "\r\n", 2);
    put_text(c, date_line(c->thread));
    if (a->content_type)
        put_header(c, "Content-Type", a->content_type);
    if (a->status != 204) { /* RFC 9110 8.6 */
        put_text(c, "Content-Length: ");
        put_uint(c, a->body_len);
        put(c, "\r\n", 2);
    }
    for (unsigned i = 0; i < a->header_count; i++)
        put_header(c, a->headers[i].name, a->headers[i].value);
    if (c->is_last)
        put_text(c, "Connection: close\r\n");
    put(c, "\r\n", 2);
}

void bf_reply_write(struct bf_http_conn *c)
{
    struct bf_answer *a = &c->work->request.answer;
    put_head(c);
    if (c->work->request.is_head || a->body_len == 0 || a->status == 204)
        return;
    if (a->body_len <= BF_HTTP_OUT_BYTES - c->out_len) {
        put(c, a->body, a->body_len);
        return;
    }
    c->tail = a->body;
    c->tail_at = 0;
    c->tail_len = a->body_len;
    a->body = NULL; /* freed when it is sent */
}

void bf_reply_continue(struct bf_http_conn *c)
{
    put_text(c, "HTTP/1.1 100 Continue\r\n\r\n");
}

/* ---- sending ---- */

static long send_tls(struct bf_http_conn *c)
{
    size_t out = c->out_len - c->out_at;
    const char *from = out > 0 ? c->work->out + c->out_at : c->tail + c->tail_at;
    return bf_http_tls_send(c->ssl, from, out > 0 ? out : c->tail_len - c->tail_at);
}

static long send_plain(struct bf_http_conn *c)
{
    struct iovec parts[2] = {
        {.iov_base = c->work->out + c->out_at, .iov_len = c->out_len - c->out_at},
        {.iov_base = c->tail + c->tail_at, .iov_len = c->tail_len - c->tail_at},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = c->tail ? 2 : 1};
    long n = sendmsg(c->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    return n < 0 ? -errno : n;
}

static void take_sent(struct bf_http_conn *c, size_t n)
{
    size_t out = c->out_len - c->out_at;
    c->moved += n;
    if (n < out) {
        c->out_at += (uint32_t)n;
        return;
    }
    c->tail_at += n - out;
    c->out_at = c->out_len = 0;
    if (!c->tail || c->tail_at < c->tail_len)
        return;
    free(c->tail);
    c->tail = NULL;
    c->tail_at = c->tail_len = 0;
}

bool bf_reply_flush(struct bf_http_conn *c)
{
    while (c->out_len > 0 || c->tail) {
        if (c->fd < 0 || c->is_broken || !c->is_writable)
            return false;
        long n = c->ssl ? send_tls(c) : send_plain(c);
        if (n > 0)
            take_sent(c, (size_t)n);
        else if (n == -EAGAIN)
            c->is_writable = false; /* an event says when it is again */
        else if (n != -EINTR)
            c->is_broken = true;
    }
    return true;
}

void bf_reply_turn_away(int fd, enum bf_http_refusal reason)
{
    static const char head[] = "HTTP/1.1 503 Service Unavailable\r\n"
                               "Content-Type: application/problem+json\r\n"
                               "Retry-After: 1\r\n"
                               "Connection: close\r\n";
    const char *detail =
        reason == BF_REFUSED_ADDRESS
            ? "your address has as many connections as it may have at once; close some, "
              "or use those that are open"
            : "the server has as many connections as it takes, and none is idle; try again";
    char body[256];
    char text[sizeof(head) + sizeof(body) + 64];
    int len = snprintf(body, sizeof(body),
                       "{\"type\":\"urn:belfry:problem:too-many-connections\",\"title\":\"Service "
                       "Unavailable\",\"status\":503,\"detail\":\"%s\"}",
                       detail);
    int n = snprintf(text, sizeof(text), "%sContent-Length: %d\r\n\r\n%s", head, len, body);
    /* what does not fit an empty socket buffer is not worth waiting for */
    (void)!send(fd, text, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
}
