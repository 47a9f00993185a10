/*
 * TLS 1.3 handshakes (P-256 certificate and key share): P12 full ones a second of server CPU, over
 * those of a raw OpenSSL epoll loop in the same run with the same clients; the ratio of resumed
 * ones beside it. Rounds alternate, five each, medians of ratios. A handshake counts when the
 * client has its ticket; then the client resets.
 *
 * Server on core 0, clients on core 1. CPU is that of the whole server process.
 */
#include <stdio.h>

#include "pf_args.h"
#include "pf_http.h"
#include "pf_plane.h"
#include "pf_report.h"
#include "pf_tls.h"

#define SERVER_CORE 0
#define CLIENT_CORE 1
#define ROUNDS      5u
#define P12_RATIO   0.85

struct rounds {
    double ours[ROUNDS], raw[ROUNDS], ratio[ROUNDS];
    uint64_t bad;
};

static void run(struct pf_plane *plane, uint16_t raw_port, pid_t raw, uint32_t clients, bool resume,
                double seconds, struct rounds *r)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct pf_tls_round theirs =
            pf_tls_handshakes(raw_port, raw, clients, CLIENT_CORE, resume, seconds);
        struct pf_tls_round ours = pf_tls_handshakes(pf_plane_tls_port(plane), pf_plane_pid(plane),
                                                     clients, CLIENT_CORE, resume, seconds);
        r->ours[i] = ours.per_cpu_s;
        r->raw[i] = theirs.per_cpu_s;
        r->ratio[i] = ours.per_cpu_s / theirs.per_cpu_s;
        r->bad += ours.failed + ours.not_as_asked + theirs.failed + theirs.not_as_asked;
        pf_say("%s: ours %.0f, raw %.0f a CPU second (server busy %.0f%%, %.0f%%)",
               resume ? "resumed" : "full", ours.per_cpu_s, theirs.per_cpu_s,
               100 * ours.cpu_s / seconds, 100 * theirs.cpu_s / seconds);
    }
}

int main(int argc, char **argv)
{
    uint64_t clients = 24, milliseconds = 1500;
    char yaml[1024], tls[512];
    struct pf_tls_cert cert;
    uint16_t raw_port;
    static struct rounds full, resumed;
    const struct pf_option table[] = {
        {"--clients", &clients, NULL, NULL, "client processes"},
        {"--ms", &milliseconds, NULL, NULL, "length of a round"},
        {0},
    };
    pf_args(argc, argv, table);
    pf_tls_cert_make(&cert);
    pid_t raw = pf_tls_raw_start(&cert, SERVER_CORE, &raw_port);
    pf_tls_yaml(&cert, tls, sizeof(tls));
    snprintf(yaml, sizeof(yaml),
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: 8000\n%s", SERVER_CORE,
             tls);
    struct pf_plane *plane = pf_plane_start(yaml, false, CLIENT_CORE);
    run(plane, raw_port, raw, (uint32_t)clients, false, (double)milliseconds / 1e3, &full);
    run(plane, raw_port, raw, (uint32_t)clients, true, (double)milliseconds / 1e3, &resumed);
    struct pf_report *report = pf_report_create("tls-accept");
    pf_report_u64(report, "N", clients);
    pf_report_u64(report, "payload", 0);
    int fd = pf_tcp_connect("127.0.0.1", pf_plane_port(plane));
    if (fd >= 0)
        pf_report_congestion(report, fd);
    pf_report_double(report, "full_per_cpu_s", pf_median(full.ours, ROUNDS));
    pf_report_double(report, "full_raw_per_cpu_s", pf_median(full.raw, ROUNDS));
    pf_report_double(report, "resumed_per_cpu_s", pf_median(resumed.ours, ROUNDS));
    pf_report_double(report, "resumed_raw_per_cpu_s", pf_median(resumed.raw, ROUNDS));
    pf_report_double(report, "resumed_ratio", pf_median(resumed.ratio, ROUNDS));
    pf_report_list(report, "ratios", full.ratio, ROUNDS);
    pf_report_u64(report, "failed", full.bad + resumed.bad);
    pf_report_bar(report, "P12", pf_median(full.ratio, ROUNDS), "ratio", PF_AT_LEAST, P12_RATIO);
    pf_report_bar_and(report, "P12", full.bad + resumed.bad == 0);
    pf_plane_stop(plane);
    pf_tls_raw_stop(raw);
    pf_tls_cert_remove(&cert);
    return pf_report_print(report);
}
