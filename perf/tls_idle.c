/*
 * What idle TLS 1.3 connections cost: P4 user bytes, by the definition of P1: RSS and hugepages of
 * the dataplane configured for and holding N, less the same for 100, over N - 100. With --lean the
 * option tls.lean, whose aim is P4's stretch.
 *
 * Dataplane on core 0, clients on core 1. Each of the two measurements runs in a child process,
 * which is the control plane there (EAL initialises once a process).
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pf_args.h"
#include "pf_http.h"
#include "pf_plane.h"
#include "pf_proc.h"
#include "pf_report.h"
#include "pf_tls.h"

#define SERVER_CORE   0
#define CLIENT_CORE   1
#define BASE_COUNT    100u
#define SLOTS_SPARE   64u
#define SETTLE_MS     2000u
#define P4_BYTES      14500.0
#define P4_LEAN_BYTES 1024.0 /* P4's stretch */

struct options {
    uint64_t connections;
    int lean;
};

struct result {
    double base, full;           /* RSS + hugepages, bytes */
    double lean_base, lean_full; /* with tls.lean */
    uint64_t handshakes, dropped;
    char congestion[PF_CONGESTION_BYTES];
};

static void sleep_ms(uint32_t ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000u, .tv_nsec = (long)(ms % 1000u) * 1000000L},
              NULL);
}

static double memory_of(pid_t pid)
{
    return 1024.0 *
           (double)(pf_proc_status_kb(pid, "VmRSS") + pf_proc_status_kb(pid, "HugetlbPages"));
}

static void hold(const struct pf_tls_cert *cert, uint32_t n, bool lean, struct result *r,
                 double *ret_bytes)
{
    char yaml[1024], tls[512];
    pf_tls_yaml(cert, tls, sizeof(tls));
    snprintf(yaml, sizeof(yaml),
             "  ping_interval: 600000\n  presence_timeout: 1200000\n"
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: %u\n"
             "  ring_connections_max: 18000\n%s%s",
             SERVER_CORE, n + SLOTS_SPARE, tls, lean ? "  lean: true\n" : "");
    struct pf_plane *plane = pf_plane_start(yaml, false, CLIENT_CORE);
    struct pf_tls_hold_spec spec = {.port = pf_plane_tls_port(plane),
                                    .connections = n,
                                    .user_prefix = "tls-",
                                    .core = CLIENT_CORE};
    spec.jwt_secret = pf_plane_secret(plane, &spec.jwt_secret_len);
    struct pf_tls_hold *clients = pf_tls_hold_start(&spec);
    sleep_ms(SETTLE_MS);
    *ret_bytes = memory_of(pf_plane_pid(plane));
    r->handshakes = pf_plane_metric(plane, BF_M_tls_handshakes);
    r->dropped += pf_tls_hold_dropped(clients) + n - pf_plane_metric(plane, BF_M_tls_connections);
    pf_say("%u%s: RSS and hugepages %.1f MB", n, lean ? " lean" : "", *ret_bytes / 1e6);
    int fd = pf_tcp_connect("127.0.0.1", pf_plane_port(plane));
    if (fd >= 0)
        pf_congestion(fd, r->congestion);
    pf_tls_hold_stop(clients);
    pf_plane_stop(plane);
}

static void hold_apart(const struct pf_tls_cert *cert, uint32_t n, bool lean, struct result *r,
                       double *ret_bytes)
{
    int status = 1;
    pid_t pid = fork();
    if (pid == 0) {
        hold(cert, n, lean, r, ret_bytes);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        pf_die("the measurement at %u connections ended early", n);
}

int main(int argc, char **argv)
{
    struct options o = {.connections = 4000};
    struct pf_tls_cert cert;
    struct result *r =
        mmap(NULL, sizeof(*r), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const struct pf_option table[] = {
        {"--connections", &o.connections, NULL, NULL, "connections to hold"},
        {"--lean", NULL, NULL, &o.lean, "measure tls.lean too"},
        {0},
    };
    pf_args(argc, argv, table);
    if (o.connections <= BASE_COUNT || r == MAP_FAILED)
        pf_die("--connections: more than %u", BASE_COUNT);
    pf_tls_cert_make(&cert);
    hold_apart(&cert, BASE_COUNT, false, r, &r->base);
    hold_apart(&cert, (uint32_t)o.connections, false, r, &r->full);
    if (o.lean) {
        hold_apart(&cert, BASE_COUNT, true, r, &r->lean_base);
        hold_apart(&cert, (uint32_t)o.connections, true, r, &r->lean_full);
    }
    pf_tls_cert_remove(&cert);
    struct pf_report *report = pf_report_create("tls-idle");
    pf_report_u64(report, "N", o.connections);
    pf_report_u64(report, "payload", 0);
    pf_report_text(report, "congestion", r->congestion);
    pf_report_double(report, "base_mb", r->base / 1e6);
    pf_report_double(report, "full_mb", r->full / 1e6);
    pf_report_u64(report, "handshakes", r->handshakes);
    pf_report_u64(report, "dropped", r->dropped);
    pf_report_bar(report, "P4", (r->full - r->base) / ((double)o.connections - BASE_COUNT), "bytes",
                  PF_AT_MOST, P4_BYTES);
    pf_report_bar_and(report, "P4", r->dropped == 0);
    if (o.lean) {
        pf_report_bar(report, "P4-lean",
                      (r->lean_full - r->lean_base) / ((double)o.connections - BASE_COUNT), "bytes",
                      PF_AT_MOST, P4_LEAN_BYTES);
        pf_report_bar_and(report, "P4-lean", r->dropped == 0);
    }
    return pf_report_print(report);
}
