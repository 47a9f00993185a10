/* Small HTTP client: see pf_http.h. */
#include "pf_http.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_BYTES_MAX 4096u

/* Bytes read and not yet used. */
struct input {
    int fd;
    char buf[16384];
    size_t at, len;
};

int pf_tcp_connect(const char *host, uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (inet_pton(AF_INET, host, &to.sin_addr) == 1 &&
        connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
        return fd;
    close(fd);
    return -1;
}

static bool send_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

static int input_char(struct input *in)
{
    if (in->at == in->len) {
        ssize_t n = recv(in->fd, in->buf, sizeof(in->buf), 0);
        if (n <= 0)
            return -1;
        in->at = 0;
        in->len = (size_t)n;
    }
    return (uint8_t)in->buf[in->at++];
}

/* A line without CRLF. Returns false at the end of input. */
static bool input_line(struct input *in, char *out, size_t cap)
{
    size_t n = 0;
    for (int c; (c = input_char(in)) >= 0;) {
        if (c == '\n') {
            if (n > 0 && out[n - 1] == '\r')
                n--;
            out[n] = '\0';
            return true;
        }
        if (n + 1 < cap)
            out[n++] = (char)c;
    }
    return false;
}

struct body {
    char *out;
    size_t cap, len;
};

static bool input_body(struct input *in, size_t len, struct body *body)
{
    for (size_t i = 0; i < len; i++) {
        int c = input_char(in);
        if (c < 0)
            return false;
        if (body->out && body->len + 1 < body->cap)
            body->out[body->len++] = (char)c;
    }
    return true;
}

static bool input_chunks(struct input *in, struct body *body)
{
    char line[128];
    for (;;) {
        if (!input_line(in, line, sizeof(line)))
            return false;
        size_t n = strtoul(line, NULL, 16);
        if (!input_body(in, n, body) || !input_line(in, line, sizeof(line)))
            return false;
        if (n == 0)
            return true;
    }
}

/* Reads one answer. Returns its status or -1. *ret_close: the server closes after it. */
static int answer_read(struct input *in, struct body *body, bool *ret_close)
{
    char line[HEAD_BYTES_MAX];
    int status = -1;
    size_t length = 0;
    bool chunked = false;
    if (!input_line(in, line, sizeof(line)) || sscanf(line, "HTTP/1.1 %d", &status) != 1)
        return -1;
    while (input_line(in, line, sizeof(line)) && line[0] != '\0') {
        if (strncasecmp(line, "content-length:", 15) == 0)
            length = strtoul(line + 15, NULL, 10);
        else if (strncasecmp(line, "transfer-encoding:", 18) == 0)
            chunked = strcasestr(line, "chunked") != NULL;
        else if (strncasecmp(line, "connection:", 11) == 0)
            *ret_close = strcasestr(line, "close") != NULL;
    }
    if (status == 204 || status == 304)
        return status;
    return (chunked ? input_chunks(in, body) : input_body(in, length, body)) ? status : -1;
}

static int call_once(struct pf_http *http, const char *head, size_t head_len, const char *bytes,
                     size_t len, char *answer, size_t cap)
{
    struct input in = {.fd = http->fd};
    struct body body = {.out = answer, .cap = cap};
    bool closes = false;
    int status = -1;
    if (send_all(http->fd, head, head_len) && send_all(http->fd, bytes, len))
        status = answer_read(&in, &body, &closes);
    if (answer && cap > 0)
        answer[body.len] = '\0';
    if (status < 0 || closes)
        pf_http_close(http);
    return status;
}

int pf_http_call(struct pf_http *http, const char *host, uint16_t port, const char *method,
                 const char *path, const char *authorization, const char *content_type,
                 const char *body, size_t body_len, char *answer, size_t cap)
{
    char head[HEAD_BYTES_MAX];
    int n = snprintf(head, sizeof(head),
                     "%s %s HTTP/1.1\r\nHost: %s:%u\r\nContent-Length: %zu\r\n%s%s%s%s%s%s\r\n",
                     method, path, host, port, body_len, authorization ? "Authorization: " : "",
                     authorization ? authorization : "", authorization ? "\r\n" : "",
                     content_type ? "Content-Type: " : "", content_type ? content_type : "",
                     content_type ? "\r\n" : "");
    if (n < 0 || (size_t)n >= sizeof(head))
        return -1;
    for (int try = 0; try < 2; try++) {
        bool is_kept = http->fd >= 0;
        if (!is_kept)
            http->fd = pf_tcp_connect(host, port);
        if (http->fd < 0)
            return -1;
        int status = call_once(http, head, (size_t)n, body, body_len, answer, cap);
        if (status > 0 || !is_kept) /* a kept connection may have been closed by the server */
            return status;
    }
    return -1;
}

void pf_http_close(struct pf_http *http)
{
    if (http->fd >= 0)
        close(http->fd);
    http->fd = -1;
}
