/*
 * HTTP/2 connections to providers held at once: 2,000 over TLS to belfry-sim's APNs by one
 * dataplane process, and what one costs. User memory as tls-idle counts it: RSS and hugepages of
 * the dataplane configured for and holding N, less the same for 100, over N - 100; before anything
 * was sent on them, and after a PING and a push on each. Kernel memory: the machine's slabs, so
 * both ends of a connection.
 *
 * The simulator is the witness: a TLS 1.3 handshake with ALPN h2, an acknowledgement of its
 * SETTINGS, a PING and a request on every single connection, none closed. Its answers take a while
 * and a connection that was never answered takes one request at a time, so the pushes spread over
 * all. Opening is paced (BF_PUSH_OPENS_PER_S): 2,000 take 20 s.
 *
 * Dataplane on core 0, the rest on core 1. Each of the two measurements runs in a child process,
 * which is the control plane there (EAL initialises once a process).
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "pf_args.h"
#include "pf_plane.h"
#include "pf_proc.h"
#include "pf_report.h"
#include "pf_sim.h"

#define DATAPLANE_CORE 0
#define OTHER_CORE     1
#define POOL           1u
#define BASE_COUNT     100u
#define STREAMS        1000u
#define SETTLE_MS      1000u
#define OPEN_SECONDS   120.0
#define PHASE_SECONDS  20.0
/* PINGs while that phase lasts, none in the others: the pool's ping_idle. */
#define PING_IDLE_MS  500u
#define PING_NEVER_MS 3600000u
/* Longer than it takes to write a request to every connection. */
#define FAULTS "{\"latency\":{\"apns\":{\"ms\":1500}}}"

struct held {
    double idle, used;           /* RSS and hugepages, bytes */
    double slab_idle, slab_used; /* beyond the slabs before the first connection, bytes */
    double seconds_to_open;
    uint64_t handshakes_h2, settled, pinged, used_conns, open, pings, pongs, failures;
    uint64_t answered, descriptors;
};

struct run {
    _Atomic uint32_t open;
    _Atomic uint64_t answered; /* 200 */
    _Atomic uint64_t ended;
    char text[256];
};

static void take(void *context, uint16_t kind, const uint8_t *bytes, uint32_t len)
{
    struct run *run = context;
    struct bf_rcpt_pool pool;
    struct bf_rcpt_push push;
    if (kind == BF_RCPT_POOL && len >= sizeof(pool)) {
        memcpy(&pool, bytes, sizeof(pool));
        snprintf(run->text, sizeof(run->text), "%.*s", (int)pool.text_len,
                 (const char *)bytes + sizeof(pool));
        atomic_store(&run->open, pool.connections);
    }
    if (kind == BF_RCPT_PUSH && len >= sizeof(push)) {
        memcpy(&push, bytes, sizeof(push));
        atomic_fetch_add(&run->answered, push.end == BF_PUSH_ANSWERED && push.status == 200);
        atomic_fetch_add(&run->ended, 1);
    }
}

static void pause_ms(uint32_t ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000u, .tv_nsec = (long)(ms % 1000u) * 1000000},
              NULL);
}

static uint64_t deadline_in(double seconds)
{
    return bf_mono_ns() + (uint64_t)(seconds * 1e9);
}

static double memory_of(const struct pf_plane *plane)
{
    pid_t pid = pf_plane_pid(plane);
    return 1024.0 *
           (double)(pf_proc_status_kb(pid, "VmRSS") + pf_proc_status_kb(pid, "HugetlbPages"));
}

/* ---- phases ---- */

static void publish_pool(struct pf_plane *plane, const struct pf_sim *sim, uint32_t connections,
                         uint32_t ping_idle_ms)
{
    static uint8_t content[BF_SNAPSHOT_BYTES_MAX];
    struct bf_writer w = {.buf = content, .cap = sizeof(content)};
    const struct pf_pool pool = {.id = POOL,
                                 .connections_min = (uint16_t)connections,
                                 .connections_max = (uint16_t)connections,
                                 .streams_first = 1,
                                 .ping_idle_ms = ping_idle_ms};
    pf_sim_put_pool(sim, &w, &pool);
    bf_put_u16(&w, BF_SNAP_END);
    bf_put_u32(&w, 0);
    pf_plane_snapshot(plane, content, w.len);
}

static void open_all(struct pf_plane *plane, const struct pf_sim *sim, const struct run *run,
                     uint32_t n)
{
    uint64_t deadline = deadline_in(OPEN_SECONDS);
    publish_pool(plane, sim, n, PING_NEVER_MS);
    while (atomic_load(&run->open) < n) {
        if (bf_mono_ns() > deadline)
            pf_die("%u of %u open (%s)", atomic_load(&run->open), n, run->text);
        pause_ms(20);
    }
}

/* Until every connection was pinged and every PING answered. */
static void ping_each(struct pf_plane *plane, const struct pf_sim *sim, uint32_t n)
{
    uint64_t deadline = deadline_in(PHASE_SECONDS);
    publish_pool(plane, sim, n, PING_IDLE_MS);
    while (pf_sim_stat(sim, "conns_pinged") < n && bf_mono_ns() < deadline)
        pause_ms(50);
    publish_pool(plane, sim, n, PING_NEVER_MS);
    pause_ms(SETTLE_MS); /* the snapshot is in force: no more are sent */
    while (pf_plane_metric(plane, BF_M_push_pongs) < pf_plane_metric(plane, BF_M_push_pings) &&
           bf_mono_ns() < deadline)
        pause_ms(50);
}

static void fill(void *context, uint8_t *at)
{
    const struct bf_writer *w = context;
    memcpy(at, w->buf, w->len);
}

static void push_one(struct pf_plane *plane, uint32_t number)
{
    uint8_t bytes[512];
    char path[96];
    struct bf_writer w = {.buf = bytes, .cap = sizeof(bytes)};
    const struct bf_cmd_push cmd = {.push_id = number + 1u, .pool = POOL};
    int n = snprintf(path, sizeof(path), "/3/device/%064x", number);
    bf_put_str16(&w, (struct bf_bytes){path, (size_t)n});
    bf_put_u8(&w, 1);
    bf_put_u8(&w, 10);
    bf_put_bytes(&w, BF_BYTES("apns-topic"));
    bf_put_str16(&w, BF_BYTES("com.example.app"));
    bf_put_str32(&w, BF_BYTES("{\"aps\":{\"alert\":\"x\"}}"));
    while (!pf_plane_push(plane, &cmd, BF_LANE_NORMAL, w.len, fill, &w)) {
        pf_plane_flush(plane);
        pause_ms(1);
    }
}

static void push_each(struct pf_plane *plane, const struct run *run, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        push_one(plane, i);
    pf_plane_flush(plane);
    uint64_t deadline = deadline_in(PHASE_SECONDS);
    while (atomic_load(&run->ended) < n && bf_mono_ns() < deadline)
        pause_ms(1);
}

/* What the simulator and the dataplane say at the end. */
static void witness(const struct pf_plane *plane, const struct pf_sim *sim, const struct run *run,
                    struct held *r)
{
    r->handshakes_h2 = pf_sim_stat(sim, "handshakes_h2");
    r->settled = pf_sim_stat(sim, "conns_settled");
    r->pinged = pf_sim_stat(sim, "conns_pinged");
    r->used_conns = pf_sim_stat(sim, "conns_used");
    r->open = pf_sim_stat(sim, "conns_opened") - pf_sim_stat(sim, "conns_closed");
    r->pings = pf_plane_metric(plane, BF_M_push_pings);
    r->pongs = pf_plane_metric(plane, BF_M_push_pongs);
    r->failures = pf_plane_metric(plane, BF_M_push_connection_failures);
    r->descriptors = pf_proc_descriptors(pf_plane_pid(plane));
    r->answered = atomic_load(&run->answered);
}

static void hold(uint32_t n, struct held *r)
{
    static struct run run;
    char yaml[256];
    struct pf_sim *sim = pf_sim_start(OTHER_CORE, STREAMS, FAULTS);
    snprintf(yaml, sizeof(yaml),
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: 1000\n"
             "  push_connections_max: %u\n",
             DATAPLANE_CORE, n);
    struct pf_plane *plane = pf_plane_start(yaml, false, OTHER_CORE);
    pf_plane_on_receipt(plane, take, &run);
    pause_ms(SETTLE_MS);
    uint64_t slab = pf_proc_slab_settled(), start_ns = bf_mono_ns();
    open_all(plane, sim, &run, n);
    r->seconds_to_open = (double)(bf_mono_ns() - start_ns) / 1e9;
    pause_ms(SETTLE_MS);
    r->idle = memory_of(plane);
    r->slab_idle = (double)pf_proc_slab_settled() - (double)slab;
    ping_each(plane, sim, n);
    push_each(plane, &run, n);
    pause_ms(SETTLE_MS);
    r->used = memory_of(plane);
    r->slab_used = (double)pf_proc_slab_settled() - (double)slab;
    witness(plane, sim, &run, r);
    pf_say("%u: RSS and hugepages %.1f MB idle, %.1f MB used", n, r->idle / 1e6, r->used / 1e6);
    pf_plane_stop(plane);
    pf_sim_stop(sim);
}

static void hold_apart(uint32_t n, struct held *r)
{
    int status = 1;
    pid_t pid = fork();
    if (pid == 0) {
        hold(n, r);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        pf_die("the measurement at %u connections ended early", n);
}

static int report(uint32_t n, const struct held *base, const struct held *full)
{
    struct pf_report *report = pf_report_create("push-connections");
    double more = (double)n - BASE_COUNT;
    struct rlimit limit = {0};
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    pf_report_u64(report, "N", n);
    pf_report_u64(report, "payload", 21);
    pf_report_u64(report, "descriptor_limit", limit.rlim_max);
    pf_report_u64(report, "dataplane_descriptors", full->descriptors);
    pf_report_double(report, "seconds_to_open", full->seconds_to_open);
    pf_report_u64(report, "tls13_h2", full->handshakes_h2);
    pf_report_u64(report, "settings_acknowledged", full->settled);
    pf_report_u64(report, "connections_pinged", full->pinged);
    pf_report_u64(report, "pings", full->pings);
    pf_report_u64(report, "pings_answered", full->pongs);
    pf_report_u64(report, "connections_used", full->used_conns);
    pf_report_u64(report, "answered_200", full->answered);
    pf_report_u64(report, "open_at_the_end", full->open);
    pf_report_u64(report, "failures", full->failures);
    pf_report_double(report, "base_mb", base->used / 1e6);
    pf_report_double(report, "full_mb", full->used / 1e6);
    pf_report_double(report, "user_bytes_each_idle", (full->idle - base->idle) / more);
    pf_report_double(report, "user_bytes_each", (full->used - base->used) / more);
    pf_report_double(report, "slab_bytes_each_both_ends_idle", full->slab_idle / n);
    pf_report_double(report, "slab_bytes_each_both_ends", full->slab_used / n);
    bool held = full->handshakes_h2 == n && full->settled == n && full->pinged == n &&
                full->pongs >= n && full->pongs == full->pings && full->used_conns == n &&
                full->answered == n && full->open == n && full->failures == 0;
    pf_report_bool(report, "held", held);
    return pf_report_print(report);
}

int main(int argc, char **argv)
{
    uint64_t connections = 2000;
    const struct pf_option table[] = {
        {"--connections", &connections, NULL, NULL, "HTTP/2 connections held"},
        {0},
    };
    struct held *r =
        mmap(NULL, 2 * sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pf_args(argc, argv, table);
    if (connections <= BASE_COUNT || connections > 4096)
        pf_die("--connections: %u to 4096", BASE_COUNT + 1u);
    if (r == MAP_FAILED)
        pf_die("out of memory");
    hold_apart(BASE_COUNT, &r[0]);
    hold_apart((uint32_t)connections, &r[1]);
    return report((uint32_t)connections, &r[0], &r[1]);
}
