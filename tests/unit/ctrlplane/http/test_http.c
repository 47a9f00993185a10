/*
 * The HTTP server by itself: requests that are with somebody else while their client leaves, and a
 * stop around them. A thread of the test holds suspended requests for a while, writes to them, and
 * gives them back. What must hold: a suspended request is whole until it is given back, its route's
 * |resumed| runs then whoever has left, |ended| runs once for each request that was admitted.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "http/http.h"

#define HELD_MAX 4096u

/* What the handlers keep with a request; |canary| tells that it is still that request. */
struct state {
    uint64_t canary;
    bool was_suspended;
};

#define CANARY UINT64_C(0x5afe5afe5afe5afe)

struct fixture {
    struct bf_http *http;
    struct bf_http_stats stats;
    pthread_t holder;
    pthread_mutex_t lock;
    struct bf_request *held[HELD_MAX];
    unsigned held_count;
    _Atomic bool keeps; /* gives nothing back */
    _Atomic bool is_over;
    _Atomic uint32_t admitted, handled, resumed, ended;
};

static struct fixture f;

static struct state *state_of(struct bf_request *r)
{
    return (struct state *)(void *)r->state;
}

static void admit(struct bf_request *r)
{
    state_of(r)->canary = CANARY;
    atomic_fetch_add(&f.admitted, 1);
}

static void ended(struct bf_request *r)
{
    cr_assert_eq(state_of(r)->canary, CANARY);
    atomic_fetch_add(&f.ended, 1);
}

static void handle_slow(struct bf_request *r)
{
    atomic_fetch_add(&f.handled, 1);
    state_of(r)->was_suspended = true;
    bf_request_suspend(r);
    pthread_mutex_lock(&f.lock);
    cr_assert_lt(f.held_count, HELD_MAX);
    f.held[f.held_count++] = r;
    pthread_mutex_unlock(&f.lock);
}

static void resumed(struct bf_request *r)
{
    cr_assert(state_of(r)->was_suspended);
    atomic_fetch_add(&f.resumed, 1);
    bf_answer_empty(r, 204);
}

static void handle_quick(struct bf_request *r)
{
    struct bf_out o = {0};
    bf_out_text(&o, "{}");
    bf_answer_json(r, 200, &o);
}

/* Gives back what it holds, in turns of about a millisecond: a commit of a log. */
static void *hold(void *arg)
{
    struct bf_request *mine[HELD_MAX];
    (void)arg;
    while (!atomic_load(&f.is_over)) {
        nanosleep(&(struct timespec){.tv_nsec = 700000}, NULL);
        if (atomic_load(&f.keeps))
            continue;
        pthread_mutex_lock(&f.lock);
        unsigned n = f.held_count;
        memcpy(mine, f.held, sizeof(mine[0]) * n);
        f.held_count = 0;
        pthread_mutex_unlock(&f.lock);
        for (unsigned i = 0; i < n; i++) {
            cr_assert_eq(state_of(mine[i])->canary, CANARY);
            if (mine[i]->body_len > 0)
                cr_assert_eq(mine[i]->body[0], '{', "the body is still there");
            bf_request_resume(mine[i]);
        }
    }
    return NULL;
}

static const struct bf_route routes[] = {
    {"POST", "/slow", 0, 65536, handle_slow, resumed},
    {"GET", "/quick", 0, 0, handle_quick, NULL},
};

static void start(uint32_t threads)
{
    char err[256] = "";
    memset(&f, 0, sizeof(f));
    pthread_mutex_init(&f.lock, NULL);
    struct bf_http_options options = {
        .name = "test-http",
        .host = "127.0.0.1",
        .listen_fd = -1,
        .threads = threads,
        .connections_max = 1000,
        .limits =
            {.head_ms = 500, .idle_ms = 500, .body_ms = 500, .write_ms = 500, .rate_min = 100},
        .routes = routes,
        .route_count = 2,
        .stats = &f.stats,
        .admit = admit,
        .ended = ended,
    };
    cr_assert_eq(bf_http_start(&options, &f.http, err, sizeof(err)), 0, "%s", err);
    cr_assert_eq(pthread_create(&f.holder, NULL, hold, NULL), 0);
}

static void end_holder(void)
{
    atomic_store(&f.is_over, true);
    pthread_join(f.holder, NULL);
}

static int dial(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)bf_http_port(f.http))};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static const char slow[] =
    "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n{\"a\": \"bcd\"}";

static void leave(int fd, unsigned way)
{
    struct linger reset = {.l_onoff = 1};
    char answer[512];
    struct timeval patience = {.tv_sec = 5};
    if (way == 0)
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    if (way >= 2)
        shutdown(fd, SHUT_WR);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    while (way == 3 && recv(fd, answer, sizeof(answer), 0) > 0)
        continue;
    close(fd);
}

static void wait_for_all(void)
{
    uint64_t until = bf_mono_ms() + 20000;
    while (atomic_load(&f.ended) != atomic_load(&f.admitted) && bf_mono_ms() < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static uint32_t in_state(enum bf_http_conn_state state)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < BF_HTTP_THREADS_MAX; i++)
        sum += atomic_load(&f.stats.threads[i].states[state]);
    return sum;
}

/* Every cut of two pipelined requests, every way to leave, with and without a moment for the
 * server. */
Test(http, clients_leave_at_every_byte, .timeout = 120)
{
    char text[2 * sizeof(slow)];
    int len = snprintf(text, sizeof(text), "%s%s", slow, slow);
    start(2);
    for (int cut = 0; cut <= len; cut++) {
        for (unsigned way = 0; way < 8; way++) {
            int fd = dial();
            (void)!send(fd, text, (size_t)cut, MSG_NOSIGNAL);
            if (way >= 4)
                nanosleep(&(struct timespec){.tv_nsec = 200000 * (way - 3)}, NULL);
            leave(fd, way & 3);
        }
    }
    wait_for_all();
    cr_expect_gt(atomic_load(&f.handled), 100);
    cr_expect_gt(atomic_load(&f.stats.hang_ups), 10, "some left while their request was held");
    cr_expect_eq(atomic_load(&f.resumed), atomic_load(&f.handled));
    cr_expect_eq(atomic_load(&f.ended), atomic_load(&f.admitted));
    uint64_t until = bf_mono_ms() + 10000;
    while (in_state(BF_HTTP_CONN_WORKING) + in_state(BF_HTTP_CONN_HEAD) > 0 && bf_mono_ms() < until)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    cr_expect_eq(in_state(BF_HTTP_CONN_WORKING), 0);
    cr_expect(bf_http_stop(f.http));
    end_holder();
}

Test(http, a_stop_waits_for_what_is_held, .timeout = 60)
{
    char answer[512] = "";
    start(2);
    int fd = dial();
    cr_assert_eq(send(fd, slow, sizeof(slow) - 1, 0), (ssize_t)sizeof(slow) - 1);
    while (atomic_load(&f.handled) == 0)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    cr_expect(bf_http_stop(f.http));
    cr_expect_eq(atomic_load(&f.ended), 1);
    cr_expect_gt(recv(fd, answer, sizeof(answer) - 1, 0), 0);
    cr_expect_eq(strncmp(answer, "HTTP/1.1 204 ", 13), 0, "%s", answer);
    close(fd);
    end_holder();
}

/* As before a re-execution while the log hangs: the stop gives up, and what is given back later
 * finds its request still there, client gone or not. */
Test(http, a_stop_gives_up_on_what_nobody_gives_back, .timeout = 60)
{
    start(2);
    atomic_store(&f.keeps, true);
    int fds[6];
    for (unsigned i = 0; i < 6; i++) {
        fds[i] = dial();
        cr_assert_eq(send(fds[i], slow, sizeof(slow) - 1, 0), (ssize_t)sizeof(slow) - 1);
    }
    while (atomic_load(&f.handled) < 6)
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    leave(fds[0], 0);
    leave(fds[1], 1);
    uint64_t began = bf_mono_ms();
    cr_expect_not(bf_http_stop(f.http));
    cr_expect_lt(bf_mono_ms() - began, 9000, "short of the 10 s that a restart may take");
    atomic_store(&f.keeps, false);
    uint64_t until = bf_mono_ms() + 5000;
    for (unsigned left = 1; left > 0 && bf_mono_ms() < until;) {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        pthread_mutex_lock(&f.lock);
        left = f.held_count;
        pthread_mutex_unlock(&f.lock);
    }
    end_holder();
    for (unsigned i = 2; i < 6; i++)
        close(fds[i]);
}

/* Whose deadline it is: one that says nothing, half a head, half a body, one that keeps quiet
 * after. */
Test(http, deadlines_fire, .timeout = 60)
{
    static const char *const texts[] = {
        "", "GET /qu", "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{",
        "GET /quick HTTP/1.1\r\nHost: a\r\n\r\n"};
    static const char *const wants[] = {"", "HTTP/1.1 408 ", "HTTP/1.1 408 ", "HTTP/1.1 200 "};
    start(1);
    for (unsigned i = 0; i < 4; i++) {
        char answer[1024] = "";
        size_t have = 0;
        ssize_t n;
        uint64_t began = bf_mono_ms();
        int fd = dial();
        (void)!send(fd, texts[i], strlen(texts[i]), 0);
        while (have < sizeof(answer) - 1 &&
               (n = recv(fd, answer + have, sizeof(answer) - 1 - have, 0)) > 0)
            have += (size_t)n;
        cr_expect_eq(strncmp(answer, wants[i], strlen(wants[i])), 0, "%u: %s", i, answer);
        cr_expect_geq(bf_mono_ms() - began, 450, "%u", i);
        close(fd);
    }
    cr_expect_eq(atomic_load(&f.stats.timeouts[BF_HTTP_CONN_HEAD]), 1);
    cr_expect_eq(atomic_load(&f.stats.timeouts[BF_HTTP_CONN_BODY]), 1);
    cr_expect_eq(atomic_load(&f.stats.timeouts[BF_HTTP_CONN_IDLE]), 2);
    wait_for_all();
    cr_expect_eq(atomic_load(&f.ended), atomic_load(&f.admitted));
    cr_expect(bf_http_stop(f.http));
    end_holder();
}
