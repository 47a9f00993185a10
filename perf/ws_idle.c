/*
 * What idle WebSocket connections cost: P1 user bytes, P2 kernel bytes beyond a bare socket, P3
 * holding them with pings (with --minutes). Method (PERFORMANCE "What each bar means"):
 *
 *   1. bare server holding N: slab delta, and CPU of one ping with its pong
 *   2. dataplane configured for 100 and holding 100: its RSS + hugepages
 *   3. dataplane configured for N and holding N: the same, and slab delta
 *   4. with --minutes: 3 goes on; every ping counted, CPU over the interval
 *
 * Dataplane on core 0, clients on core 1. The same clients in 1 and 3, so their share cancels out.
 * 2 and 3 run in a child process each, which is the control plane there (EAL initialises once a
 * process).
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "pf_args.h"
#include "pf_bare.h"
#include "pf_http.h"
#include "pf_load.h"
#include "pf_plane.h"
#include "pf_proc.h"
#include "pf_report.h"

#define SERVER_CORE  0
#define CLIENT_CORE  1
#define BASE_COUNT   100u
#define PING_S       30u
#define OPEN_SECONDS 600.0
#define SETTLE_MS    2000u
/* Slots above N: the last accept and reconnects must not be refused. */
#define SLOTS_SPARE 64u
/* Pings whose pong had no time yet when both were read. */
#define PONGS_UNDER_WAY 500u
#define P1_BYTES        256.0
#define P2_BYTES        270.0
#define P3_MB           1300.0
#define P3_CPU_RATIO    1.25
#define CONNECT_FRAME   "{\"t\":\"connect\",\"device\":\"perf\"}"

struct options {
    uint64_t connections, minutes;
    int skip_bare;
};

struct memory {
    double rss, huge; /* bytes */
};

struct result {
    double bare_slab, node_slab; /* bytes a connection */
    double ping_raw_ns;          /* CPU of a raw ping and pong */
    struct memory base, full;
    uint64_t pings, pongs_missing, dropped, bad;
    double cpu_s, hold_s;
    char congestion[PF_CONGESTION_BYTES];
};

static void sleep_ms(uint64_t ms)
{
    nanosleep(
        &(struct timespec){.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000},
        NULL);
}

static struct memory memory_of(pid_t pid)
{
    return (struct memory){
        .rss = (double)pf_proc_status_kb(pid, "VmRSS") * 1024,
        .huge = (double)pf_proc_status_kb(pid, "HugetlbPages") * 1024,
    };
}

static struct pf_load_spec client_spec(uint32_t connections)
{
    return (struct pf_load_spec){
        .host = "127.0.0.1",
        .connections = connections,
        .connect_frame = CONNECT_FRAME,
        .core = CLIENT_CORE,
    };
}

static void hold_bare(const struct options *o, struct result *r)
{
    uint32_t n = (uint32_t)o->connections;
    struct pf_bare *bare =
        pf_bare_start(n, PF_LOAD_PROCESS_CONNECTIONS, SERVER_CORE, "{\"t\":\"welcome\"}");
    struct pf_load_spec spec = client_spec(n);
    spec.ports = pf_bare_ports(bare);
    sleep_ms(SETTLE_MS);
    uint64_t before = pf_proc_slab_settled();
    struct pf_load *load = pf_load_start(&spec);
    if (!pf_load_wait_open(load, OPEN_SECONDS))
        pf_die("bare server: not all connected");
    sleep_ms(SETTLE_MS);
    r->bare_slab = (double)(pf_proc_slab_settled() - before) / n;
    (void)pf_bare_ping(bare); /* a first round wakes every socket's lines */
    double rounds[3];
    for (unsigned i = 0; i < 3; i++)
        rounds[i] = (double)pf_bare_ping(bare) / n;
    r->ping_raw_ns = pf_median(rounds, 3);
    pf_say("bare: slab %.0f B a connection (both ends), ping and pong %.2f us", r->bare_slab,
           r->ping_raw_ns / 1e3);
    pf_load_stop(load);
    pf_bare_stop(bare);
    sleep_ms(SETTLE_MS);
}

static struct pf_load *connect_all(const struct pf_plane *plane, uint32_t connections)
{
    struct pf_load_spec spec = client_spec(connections);
    spec.port = pf_plane_port(plane);
    spec.user_prefix = "idle-";
    spec.jwt_secret = pf_plane_secret(plane, &spec.jwt_secret_len);
    uint64_t start = bf_mono_ns();
    struct pf_load *load = pf_load_start(&spec);
    if (!pf_load_wait_open(load, OPEN_SECONDS))
        pf_die("not all connected");
    pf_say("%u connected in %.1f s", connections, (double)(bf_mono_ns() - start) / 1e9);
    sleep_ms(SETTLE_MS);
    return load;
}

/* Holds for the given time and counts what happened. */
static void hold_pings(const struct options *o, const struct pf_plane *plane, struct pf_load *load,
                       struct result *r)
{
    struct pf_load_totals before = pf_load_totals(load);
    uint64_t cpu_before = pf_proc_cpu_ns(pf_plane_pid(plane));
    uint64_t sent_before = pf_plane_metric(plane, BF_M_pings_sent);
    uint64_t pongs_before = pf_plane_metric(plane, BF_M_pongs_received);
    uint64_t start = bf_mono_ns();
    for (uint64_t minute = 1; minute <= o->minutes; minute++) {
        sleep_ms(60000);
        struct pf_load_totals t = pf_load_totals(load);
        pf_say("minute %" PRIu64 ": %" PRIu64 " pings, %" PRIu64 " dropped", minute,
               t.pings - before.pings, t.dropped);
    }
    struct pf_load_totals after = pf_load_totals(load);
    r->hold_s = (double)(bf_mono_ns() - start) / 1e9;
    r->cpu_s = (double)(pf_proc_cpu_ns(pf_plane_pid(plane)) - cpu_before) / 1e9;
    r->pings = after.pings - before.pings;
    sleep_ms(SETTLE_MS); /* the last pongs are under way; fewer pings than that follow meanwhile */
    uint64_t sent = pf_plane_metric(plane, BF_M_pings_sent) - sent_before;
    uint64_t pongs = pf_plane_metric(plane, BF_M_pongs_received) - pongs_before;
    r->pongs_missing = sent > pongs ? sent - pongs : 0;
    r->dropped = after.dropped;
    r->bad = after.bad;
}

/* Steps 2 (|base|) and 3, 4. */
static void hold_plane(const struct options *o, struct result *r, bool base)
{
    uint32_t n = base ? BASE_COUNT : (uint32_t)o->connections;
    char yaml[256];
    snprintf(yaml, sizeof(yaml),
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: %u\n"
             "  ring_connections_max: 18000\n",
             SERVER_CORE, n + SLOTS_SPARE);
    struct pf_plane *plane = pf_plane_start(yaml, false, CLIENT_CORE);
    sleep_ms(SETTLE_MS);
    uint64_t before = pf_proc_slab_settled();
    struct pf_load *load = connect_all(plane, n);
    double slab = (double)(pf_proc_slab_settled() - before) / n;
    struct memory memory = memory_of(pf_plane_pid(plane));
    pf_say("%u: RSS %.1f MB, hugepages %.1f MB, slab %.0f B a connection", n, memory.rss / 1e6,
           memory.huge / 1e6, slab);
    if (base) {
        r->base = memory;
    } else {
        r->full = memory;
        r->node_slab = slab;
        int fd = pf_tcp_connect("127.0.0.1", pf_plane_port(plane));
        if (fd >= 0)
            pf_congestion(fd, r->congestion);
        hold_pings(o, plane, load, r);
    }
    pf_load_stop(load);
    pf_plane_stop(plane);
}

/* In a child; |r| is shared with it. */
static void hold_apart(const struct options *o, struct result *r, bool base)
{
    int status = 1;
    pid_t pid = fork();
    if (pid == 0) {
        hold_plane(o, r, base);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        pf_die("the measurement at %s connections ended early", base ? "100" : "all");
    sleep_ms(SETTLE_MS);
}

static void report_p3(struct pf_report *report, const struct options *o, const struct result *r)
{
    uint64_t n = o->connections;
    double sockets_mb = r->node_slab * (double)n / 2 / 1e6;
    double mb = (r->full.rss + r->full.huge) / 1e6 + sockets_mb;
    double raw_s = (double)r->pings * r->ping_raw_ns / 1e9;
    if (o->minutes == 0 || o->skip_bare) {
        pf_report_bar_null(report, "P3", "MB", P3_MB,
                           "needs --minutes and --connections 200000, with the bare round");
        return;
    }
    pf_report_double(report, "hold_s", r->hold_s);
    pf_report_u64(report, "pings", r->pings);
    pf_report_u64(report, "pings_unanswered", r->pongs_missing);
    pf_report_double(report, "dataplane_cpu_s", r->cpu_s);
    pf_report_double(report, "raw_ping_us", r->ping_raw_ns / 1e3);
    pf_report_double(report, "ping_cpu_ratio", r->cpu_s / raw_s);
    if (r->dropped > 0) {
        pf_report_bar_null(report, "P3", "MB", P3_MB, "connections were dropped");
        return;
    }
    pf_report_bar(report, "P3", mb, "MB", PF_AT_MOST, P3_MB);
    /* every connection is pinged once a period, give or take the one under way */
    double due = (double)n * (r->hold_s / PING_S - 1);
    pf_report_bar_and(report, "P3", r->cpu_s / raw_s <= P3_CPU_RATIO);
    pf_report_bar_and(report, "P3",
                      (double)r->pings >= due && r->pongs_missing <= PONGS_UNDER_WAY &&
                          r->bad == 0);
}

static int report(const struct options *o, const struct result *r)
{
    struct pf_report *report = pf_report_create("ws-idle");
    double n = (double)o->connections;
    double user = (r->full.rss + r->full.huge - r->base.rss - r->base.huge) / (n - BASE_COUNT);
    pf_report_u64(report, "N", o->connections);
    pf_report_u64(report, "payload", 0);
    pf_report_text(report, "congestion", r->congestion);
    pf_report_double(report, "base_rss_mb", r->base.rss / 1e6);
    pf_report_double(report, "base_huge_mb", r->base.huge / 1e6);
    pf_report_double(report, "full_rss_mb", r->full.rss / 1e6);
    pf_report_double(report, "full_huge_mb", r->full.huge / 1e6);
    pf_report_double(report, "slab_per_connection", r->node_slab);
    pf_report_u64(report, "dropped", r->dropped);
    pf_report_bar(report, "P1", user, "bytes", PF_AT_MOST, P1_BYTES);
    if (o->skip_bare) {
        pf_report_bar_null(report, "P2", "bytes", P2_BYTES, "--skip-bare");
    } else {
        pf_report_double(report, "bare_slab_per_connection", r->bare_slab);
        pf_report_bar(report, "P2", r->node_slab - r->bare_slab, "bytes", PF_AT_MOST, P2_BYTES);
    }
    report_p3(report, o, r);
    return pf_report_print(report);
}

int main(int argc, char **argv)
{
    struct options o = {.connections = 18000};
    struct result *r =
        mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const struct pf_option table[] = {
        {"--connections", &o.connections, NULL, NULL, "connections to hold (P3: 200000)"},
        {"--minutes", &o.minutes, NULL, NULL, "how long to hold them with pings (P3: 10)"},
        {"--skip-bare", NULL, NULL, &o.skip_bare, "leave out the bare server: no P2, no P3"},
        {0},
    };
    pf_args(argc, argv, table);
    if (o.connections <= BASE_COUNT)
        pf_die("--connections: more than %u", BASE_COUNT);
    if (r == MAP_FAILED)
        pf_die("out of memory");
    if (!o.skip_bare)
        hold_bare(&o, r);
    hold_apart(&o, r, true);
    hold_apart(&o, r, false);
    return report(&o, r);
}
