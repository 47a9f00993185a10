/* See pf_post.h. */
#include "pf_post.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "pf_http.h"

/* An answer's head and body; ours are small. */
#define ANSWER_BYTES_MAX 8192u
/* After the last request, answers are awaited this long. */
#define DRAIN_NS UINT64_C(10000000000)
#define LATE_NS  UINT64_C(1000000)

struct connection {
    int fd;
    bool busy;
    uint64_t began_ns;
    size_t len;
    char in[ANSWER_BYTES_MAX];
};

struct run {
    const struct pf_post_spec *spec;
    struct pf_post_result *result;
    struct connection *all;
    uint32_t *idle;
    uint32_t idle_count;
    int epoll;
    uint64_t begun_ns, last_ns;
};

static bool open_all(struct run *r)
{
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    for (uint32_t i = 0; i < r->spec->connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        r->all[i].fd = pf_tcp_connect(r->spec->host, r->spec->port);
        if (r->all[i].fd < 0 || epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->all[i].fd, &event) != 0)
            return false;
        r->idle[r->idle_count++] = i;
    }
    return true;
}

static void begin_request(struct run *r, uint64_t number)
{
    char body[PF_POST_BODY_BYTES_MAX], out[PF_POST_BODY_BYTES_MAX + 512];
    struct connection *c = &r->all[r->idle[--r->idle_count]];
    uint64_t now = bf_mono_ns();
    size_t len = r->spec->make(r->spec->ctx, number, now, body, sizeof(body));
    int n = snprintf(out, sizeof(out),
                     "POST %s HTTP/1.1\r\nHost: perf\r\nAuthorization: Bearer %s\r\n"
                     "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%.*s",
                     r->spec->path, r->spec->api_key, len, (int)len, body);
    c->busy = true;
    c->began_ns = now;
    c->len = 0;
    r->result->sent++;
    if (send(c->fd, out, (size_t)n, MSG_NOSIGNAL) != n)
        r->result->bad++; /* its answer never comes: the connection stays busy */
}

/* Bytes of a complete answer at the start of the buffer, or 0. */
static size_t answer_bytes(struct connection *c)
{
    c->in[c->len] = '\0';
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end)
        return 0;
    size_t body = 0;
    for (char *line = c->in; line && line < end; line = strstr(line, "\r\n")) {
        line += line == c->in ? 0 : 2;
        if (strncasecmp(line, "content-length:", 15) == 0)
            body = strtoul(line + 15, NULL, 10);
    }
    size_t total = (size_t)(end - c->in) + 4 + body;
    return c->len >= total ? total : 0;
}

static void note_answer(struct run *r, struct connection *c, uint64_t now)
{
    int status = atoi(c->in + 9);
    bf_hist_add(&r->result->latency_ns, now - c->began_ns);
    r->last_ns = now;
    if (status == r->spec->expect) {
        r->result->good++;
    } else {
        if (r->result->bad++ == 0)
            snprintf(r->result->first_bad, sizeof(r->result->first_bad), "%.200s", c->in);
    }
}

static void read_answer(struct run *r, uint32_t index)
{
    struct connection *c = &r->all[index];
    ssize_t n = recv(c->fd, c->in + c->len, sizeof(c->in) - 1 - c->len, MSG_DONTWAIT);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) {
            r->result->bad++;
            epoll_ctl(r->epoll, EPOLL_CTL_DEL, c->fd, NULL);
        }
        return;
    }
    c->len += (size_t)n;
    if (answer_bytes(c) == 0)
        return;
    note_answer(r, c, bf_mono_ns());
    c->busy = false;
    r->idle[r->idle_count++] = index;
}

static void wait_answers(struct run *r, uint64_t until_ns)
{
    struct epoll_event events[64];
    struct timespec wait = {0};
    uint64_t now = bf_mono_ns();
    if (until_ns > now)
        wait.tv_nsec = (long)(until_ns - now < 100000000 ? until_ns - now : 100000000);
    int n = epoll_pwait2(r->epoll, events, 64, &wait, NULL);
    for (int i = 0; i < n; i++)
        read_answer(r, events[i].data.u32);
}

/* When request |number| is due; closed loop: now. */
static uint64_t due_ns(const struct run *r, uint64_t number)
{
    if (r->spec->rate <= 0)
        return 0;
    return r->begun_ns + (uint64_t)((double)number * 1e9 / r->spec->rate);
}

static void run_requests(struct run *r)
{
    uint64_t end = r->begun_ns + (uint64_t)(r->spec->seconds * 1e9);
    uint64_t number = 0;
    for (;;) {
        uint64_t now = bf_mono_ns();
        if (now >= end || (r->spec->count && number >= r->spec->count))
            break;
        while (r->idle_count > 0 && due_ns(r, number) <= now &&
               (!r->spec->count || number < r->spec->count)) {
            if (r->spec->rate > 0 && now - due_ns(r, number) > LATE_NS)
                r->result->late++;
            begin_request(r, number++);
        }
        wait_answers(r,
                     r->idle_count > 0 && r->spec->rate > 0 ? due_ns(r, number) : now + 100000000);
    }
    end = bf_mono_ns() + DRAIN_NS;
    while (r->idle_count < r->spec->connections && bf_mono_ns() < end)
        wait_answers(r, end);
}

bool pf_post_run(const struct pf_post_spec *spec, struct pf_post_result *ret)
{
    struct run r = {.spec = spec, .result = ret};
    memset(ret, 0, sizeof(*ret));
    if (spec->connections == 0 || spec->connections > PF_POST_CONNECTIONS_MAX)
        return false;
    r.all = calloc(spec->connections, sizeof(struct connection));
    r.idle = calloc(spec->connections, sizeof(uint32_t));
    bool ok = open_all(&r);
    if (ok) {
        r.begun_ns = bf_mono_ns();
        run_requests(&r);
        ret->seconds = (double)(r.last_ns - r.begun_ns) / 1e9;
    }
    for (uint32_t i = 0; i < spec->connections; i++)
        if (r.all[i].fd > 0)
            close(r.all[i].fd);
    close(r.epoll);
    free(r.all);
    free(r.idle);
    return ok;
}
