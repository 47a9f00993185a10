/*
 * How fast people come in: P11 accept, upgrade with a token, connect frame and welcome, a second of
 * the dataplane's CPU, HS256 and fresh users; the same with ES256 beside it. Five waves each, the
 * median; a wave connects N sockets, all are welcomed, then they are reset and the worker has
 * closed them.
 *
 * Dataplane on core 0; clients and the answering control plane on core 1.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "pf_args.h"
#include "pf_http.h"
#include "pf_jwt.h"
#include "pf_load.h"
#include "pf_plane.h"
#include "pf_proc.h"
#include "pf_report.h"

#define SERVER_CORE   0
#define CLIENT_CORE   1
#define WAVES         5u
#define OPEN_SECONDS  60.0
#define PER_S         55000.0
#define CONNECT_FRAME "{\"t\":\"connect\",\"device\":\"perf\"}"

static void wait_closed(const struct pf_plane *plane)
{
    uint64_t deadline = bf_mono_ns() + (uint64_t)(OPEN_SECONDS * 1e9);
    while (pf_plane_metric(plane, BF_M_connections) > 0) {
        if (bf_mono_ns() > deadline)
            pf_die("the sockets of a wave are not closed");
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* Welcomed connections a CPU second. */
static double wave(struct pf_plane *plane, uint32_t n, void *es256_key)
{
    static uint32_t next_user;
    struct pf_load_spec spec = {.host = "127.0.0.1",
                                .port = pf_plane_port(plane),
                                .connections = n,
                                .user_prefix = "in-",
                                .first_user = next_user,
                                .jwt_es256_key = es256_key,
                                .connect_frame = CONNECT_FRAME,
                                .core = CLIENT_CORE};
    spec.jwt_secret = pf_plane_secret(plane, &spec.jwt_secret_len);
    next_user += n;
    uint64_t cpu_ns = pf_proc_cpu_ns(pf_plane_pid(plane));
    uint64_t start_ns = bf_mono_ns();
    struct pf_load *load = pf_load_start(&spec);
    if (!pf_load_wait_open(load, OPEN_SECONDS))
        pf_die("not all connected");
    cpu_ns = pf_proc_cpu_ns(pf_plane_pid(plane)) - cpu_ns;
    double seconds = (double)(bf_mono_ns() - start_ns) / 1e9;
    double per_s = n / ((double)cpu_ns / 1e9);
    pf_say("%s: %.0f a CPU second (%.0f a second, worker busy %.0f%%)",
           es256_key ? "ES256" : "HS256", per_s, n / seconds, (double)cpu_ns / 1e7 / seconds);
    pf_load_stop(load);
    wait_closed(plane);
    return per_s;
}

int main(int argc, char **argv)
{
    uint64_t n = 15000;
    char dir[] = "/tmp/belfry-accept-XXXXXX", file[64], keys[128], yaml[256];
    double hs256[WAVES], es256[WAVES];
    const struct pf_option table[] = {
        {"--connections", &n, NULL, NULL, "connections of a wave"},
        {0},
    };
    pf_args(argc, argv, table);
    if (!mkdtemp(dir))
        pf_die("no directory in /tmp");
    snprintf(file, sizeof(file), "%s/es.pem", dir);
    void *key = pf_jwt_key_make(file);
    snprintf(keys, sizeof(keys), ", {kid: es, alg: ES256, file: %s}", file);
    snprintf(yaml, sizeof(yaml),
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: %u\n", SERVER_CORE,
             (unsigned)n + 64);
    pf_plane_more_keys = keys;
    struct pf_plane *plane = pf_plane_start(yaml, false, CLIENT_CORE);
    (void)wave(plane, (uint32_t)n, NULL); /* touches the memory */
    for (unsigned i = 0; i < WAVES; i++)
        hs256[i] = wave(plane, (uint32_t)n, NULL);
    for (unsigned i = 0; i < WAVES; i++)
        es256[i] = wave(plane, (uint32_t)n, key);
    struct pf_report *report = pf_report_create("ws-accept");
    pf_report_u64(report, "N", n);
    pf_report_u64(report, "payload", 0);
    int fd = pf_tcp_connect("127.0.0.1", pf_plane_port(plane));
    if (fd >= 0)
        pf_report_congestion(report, fd);
    pf_report_list(report, "hs256_per_cpu_s", hs256, WAVES);
    pf_report_double(report, "es256_per_cpu_s", pf_median(es256, WAVES));
    pf_report_bar(report, "P11", pf_median(hs256, WAVES), "1/s", PF_AT_LEAST, PER_S);
    pf_plane_stop(plane);
    (void)unlink(file);
    (void)rmdir(dir);
    return pf_report_print(report);
}
