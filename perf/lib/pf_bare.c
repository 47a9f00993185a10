/*
 * Bare servers: see pf_bare.h. Blocking calls, one connection at a time at the handshake: it need
 * not be fast, it must hold nothing but the socket afterwards (no epoll entry, no buffers).
 */
#include "pf_bare.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "belfry/base/ws_frame.h"
#include "pf_proc.h"
#include "pf_report.h"
#include "proto/http1/upgrade.h"

#define FRAME_BYTES_MAX (128u * 1024u)
#define BACKLOG         4096
#define IDLE_NS         200000L

enum order { ORDER_NONE = 0, ORDER_SEND = 1, ORDER_PING = 2, ORDER_STOP = 3 };

struct bare_shared {
    _Atomic uint32_t order_seq; /* published after order, frame (release) */
    uint32_t order;
    uint32_t frame_len;
    uint8_t frame[FRAME_BYTES_MAX];
    struct {
        _Atomic uint32_t done_seq; /* release: the order is carried out */
        _Atomic uint32_t accepted;
        _Atomic uint64_t cpu_ns; /* of the last order */
    } process[PF_LOAD_PROCESSES_MAX];
};

struct pf_bare {
    struct bare_shared *shared;
    uint32_t process_count;
    pid_t pids[PF_LOAD_PROCESSES_MAX];
    uint16_t ports[PF_LOAD_PROCESSES_MAX];
    int listeners[PF_LOAD_PROCESSES_MAX];
};

/* ---- a process ---- */

static bool send_all(int fd, const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    while (len > 0) {
        ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        p += n;
        len -= (size_t)n;
    }
    return true;
}

/* Reads one client frame and drops it. */
static bool frame_skip(int fd)
{
    uint8_t head[14], rest[512];
    if (recv(fd, head, 2, MSG_WAITALL) != 2)
        return false;
    size_t left = head[1] & 0x7f;
    if (left == 126) {
        if (recv(fd, head, 2, MSG_WAITALL) != 2)
            return false;
        left = (size_t)head[0] << 8 | head[1];
    }
    left += 4;
    while (left > 0) {
        ssize_t n = recv(fd, rest, left < sizeof(rest) ? left : sizeof(rest), 0);
        if (n <= 0)
            return false;
        left -= (size_t)n;
    }
    return true;
}

/* Upgrade, and the welcome where one is wanted. */
static bool greet(int fd, const char *welcome)
{
    char head[BF_UPGRADE_BYTES_MAX], answer[BF_UPGRADE_RESPONSE_BYTES_MAX];
    uint8_t frame[512];
    struct bf_upgrade up;
    size_t len = 0;
    int rc = 0;
    while (rc == 0) {
        ssize_t n = recv(fd, head + len, sizeof(head) - len, 0);
        if (n <= 0)
            return false;
        len += (size_t)n;
        rc = bf_upgrade_parse(head, len, &up);
    }
    if (rc < 0 || !send_all(fd, answer, bf_upgrade_accept(&up, false, answer)))
        return false;
    if (!welcome)
        return true;
    size_t n = strlen(welcome);
    size_t header = bf_ws_header_write(frame, BF_WS_TEXT, n);
    memcpy(frame + header, welcome, n);
    return frame_skip(fd) && send_all(fd, frame, header + n);
}

static void all_send(const int *fds, uint32_t count, const void *frame, size_t len)
{
    for (uint32_t i = 0; i < count; i++)
        if (send(fds[i], frame, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len)
            pf_say("bare send: %s", strerror(errno));
}

static void all_ping(const int *fds, uint32_t count)
{
    static const uint8_t ping[2] = {0x80 | BF_WS_PING, 0};
    all_send(fds, count, ping, sizeof(ping));
    for (uint32_t i = 0; i < count; i++) {
        uint8_t pong[64];
        if (recv(fds[i], pong, sizeof(pong), 0) <= 0)
            pf_say("bare recv: %s", strerror(errno));
    }
}

static uint64_t own_cpu_ns(void)
{
    return bf_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static void carry_out(struct bare_shared *shared, uint32_t process, const int *fds, uint32_t count,
                      uint32_t seq)
{
    uint64_t before = own_cpu_ns();
    if (shared->order == ORDER_STOP)
        _exit(0);
    if (shared->order == ORDER_SEND)
        all_send(fds, count, shared->frame, shared->frame_len);
    if (shared->order == ORDER_PING)
        all_ping(fds, count);
    atomic_store_explicit(&shared->process[process].cpu_ns, own_cpu_ns() - before,
                          memory_order_relaxed);
    /* release: the parent that sees it done sees cpu_ns */
    atomic_store_explicit(&shared->process[process].done_seq, seq, memory_order_release);
}

/* Accepts what waits, then looks for an order; sleeps shortly when there is neither. */
_Noreturn static void serve(struct bare_shared *shared, uint32_t process, int listener,
                            uint32_t capacity, const char *welcome)
{
    int *fds = calloc(capacity, sizeof(*fds));
    uint32_t count = 0, done = 0;
    if (!fds)
        pf_die("out of memory");
    for (;;) {
        struct pollfd ready = {.fd = listener, .events = POLLIN};
        uint32_t seq = atomic_load_explicit(&shared->order_seq, memory_order_acquire);
        if (seq != done) {
            carry_out(shared, process, fds, count, seq);
            done = seq;
        }
        if (poll(&ready, 1, 0) == 1 && count < capacity) {
            int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0 && greet(fd, welcome))
                fds[count++] = fd;
            else if (fd >= 0)
                close(fd);
            atomic_store_explicit(&shared->process[process].accepted, count, memory_order_relaxed);
        } else {
            nanosleep(&(struct timespec){.tv_nsec = IDLE_NS}, NULL);
        }
    }
}

/* ---- the parent ---- */

static int listen_free(uint16_t *ret_port)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof(at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, "127.0.0.1", &at.sin_addr);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof(at)) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&at, &len) != 0)
        pf_die("cannot listen: %s", strerror(errno));
    *ret_port = ntohs(at.sin_port);
    return fd;
}

struct pf_bare *pf_bare_start(uint32_t connections, uint32_t process_connections, int core,
                              const char *welcome)
{
    struct pf_bare *bare = calloc(1, sizeof(*bare));
    if (!bare)
        pf_die("out of memory");
    bare->process_count = (connections + process_connections - 1) / process_connections;
    bare->shared = mmap(NULL, sizeof(*bare->shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bare->shared == MAP_FAILED || bare->process_count > PF_LOAD_PROCESSES_MAX)
        pf_die("bare server: too many connections");
    for (uint32_t i = 0; i < bare->process_count; i++) {
        int listener = listen_free(&bare->ports[i]);
        bare->pids[i] = fork();
        if (bare->pids[i] < 0)
            pf_die("fork failed");
        if (bare->pids[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            signal(SIGINT, SIG_IGN);
            pf_pin(core);
            serve(bare->shared, i, listener, process_connections, welcome);
        }
        close(listener);
    }
    return bare;
}

const uint16_t *pf_bare_ports(const struct pf_bare *bare)
{
    return bare->ports;
}

static void give_order(struct pf_bare *bare, enum order order)
{
    bare->shared->order = order;
    /* release: who sees the number sees order and frame */
    atomic_fetch_add_explicit(&bare->shared->order_seq, 1, memory_order_release);
}

static void wait_done(const struct pf_bare *bare)
{
    uint32_t seq = atomic_load_explicit(&bare->shared->order_seq, memory_order_relaxed);
    for (uint32_t i = 0; i < bare->process_count; i++)
        while (atomic_load_explicit(&bare->shared->process[i].done_seq, memory_order_acquire) !=
               seq)
            nanosleep(&(struct timespec){.tv_nsec = IDLE_NS}, NULL);
}

void pf_bare_send(struct pf_bare *bare, const void *frame, uint32_t len)
{
    if (len > FRAME_BYTES_MAX)
        pf_die("frame of %u bytes", len);
    memcpy(bare->shared->frame, frame, len);
    bare->shared->frame_len = len;
    give_order(bare, ORDER_SEND);
    wait_done(bare);
}

uint64_t pf_bare_ping(struct pf_bare *bare)
{
    uint64_t total = 0;
    give_order(bare, ORDER_PING);
    wait_done(bare);
    for (uint32_t i = 0; i < bare->process_count; i++)
        total += atomic_load_explicit(&bare->shared->process[i].cpu_ns, memory_order_relaxed);
    return total;
}

uint64_t pf_bare_cpu_ns(const struct pf_bare *bare)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < bare->process_count; i++)
        total += pf_proc_cpu_ns(bare->pids[i]);
    return total;
}

void pf_bare_stop(struct pf_bare *bare)
{
    give_order(bare, ORDER_STOP);
    for (uint32_t i = 0; i < bare->process_count; i++)
        waitpid(bare->pids[i], NULL, 0);
    munmap(bare->shared, sizeof(*bare->shared));
    free(bare);
}
