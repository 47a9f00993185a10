/*
 * One message to everyone: P5 rate against the raw floor over the same sockets, P6 p99 latency, P19
 * instructions, P20 system calls and (P20-heap) heap allocations a frame. The dataplane runs with
 * --raw (worker/raw.h) under a control plane that is the benchmark itself, so both kinds of round
 * begin with one command in the worker's ring and differ in nothing but the worker's path. Rounds
 * alternate: raw (io_uring, 256 a submit), plain send(), Belfry; medians of ratios.
 *
 * A round counts from the enqueue to the last client's frame; every client's bytes are checked.
 * Worker on core 0, clients on core 1. Then, with --api, the same number of rounds through a whole
 * node: HTTP call, log, fan-out, worker (figures api_*, no bar).
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "belfry/base/time.h"
#include "belfry/base/ws_frame.h"
#include "pf_args.h"
#include "pf_heap.h"
#include "pf_http.h"
#include "pf_instr.h"
#include "pf_load.h"
#include "pf_node.h"
#include "pf_peer.h"
#include "pf_plane.h"
#include "pf_proc.h"
#include "pf_report.h"
#include "worker/raw.h"

#define SERVER_CORE   0
#define CLIENT_CORE   1
#define OPEN_SECONDS  600.0
#define ROUND_SECONDS 60.0
#define SETTLE_MS     300u
#define SLOTS_SPARE   64u
/* The plain send() loop needs a descriptor for each socket beside the rings' own. */
#define PLAIN_MAX     18500u
#define PAYLOAD_MAX   65536u
#define MARKER_BYTES  24u
#define P5_RATIO      0.95
#define P6_RATIO      1.05
#define P19_RATIO     0.7
#define P20_CALLS     0.02
#define CONNECT_FRAME "{\"t\":\"connect\"}"

struct options {
    uint64_t connections, payload, rounds;
    const char *peer;
    int api;
};

enum kind { RAW = 0, PLAIN = 1, BELFRY = 2, KIND_COUNT };
static const char *const kind_names[KIND_COUNT] = {"raw", "plain", "belfry"};

struct sample {
    double rate, p50_ms, p99_ms, first_ms;
    double cpu_us, calls, seconds; /* CPU and system calls a frame */
    double client_us;              /* CPU of the clients, a frame: who else may bound a round */
    double heap;                   /* heap allocations of the dataplane in the round */
    double instructions;           /* in user mode, a frame */
};

struct samples {
    struct sample by[KIND_COUNT][PF_ROUNDS_MAX];
    uint32_t count[KIND_COUNT];
    struct pf_instr instr; /* of the dataplane */
    bool has_instr;
};

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* A JSON text of exactly |len| bytes with the round's marker in front. */
static void payload_make(char *out, size_t len, const char *what, uint32_t round, char *marker)
{
    int n = snprintf(marker, MARKER_BYTES + 1, "%-6.6s-%017u", what, round);
    memset(out, 'x', len);
    memcpy(out, marker, (size_t)n);
}

static uint64_t topic_of(enum kind kind)
{
    return kind == RAW ? BF_RAW_URING : kind == PLAIN ? BF_RAW_SEND : 0;
}

static struct sample round_run(struct pf_plane *plane, struct pf_load *load,
                               const struct options *o, const struct pf_instr *instr,
                               enum kind kind, uint32_t number)
{
    static char payload[PAYLOAD_MAX];
    char marker[MARKER_BYTES + 1];
    struct pf_round r;
    double n = (double)o->connections;
    payload_make(payload, o->payload, kind_names[kind], number, marker);
    uint64_t cpu = pf_proc_cpu_ns(pf_plane_pid(plane));
    uint64_t calls = pf_plane_metric(plane, BF_M_io_enter);
    uint64_t heap = pf_heap_calls(), client = pf_load_cpu_ns(load);
    uint64_t instructions = pf_instr_read(instr);
    pf_load_round_begin(load, marker, MARKER_BYTES);
    if (!pf_plane_broadcast(plane, payload, o->payload, topic_of(kind)))
        pf_die("no room in the ring");
    if (!pf_load_round_wait(load, o->connections, ROUND_SECONDS, &r))
        pf_die("%s round %u: %" PRIu64 " of %" PRIu64 " frames, %" PRIu64 " bad", kind_names[kind],
               number, r.frames, o->connections, r.bad);
    sleep_ms(SETTLE_MS); /* completions that are still to be taken count too */
    struct sample s = {
        .rate = n / r.seconds,
        .seconds = r.seconds,
        .p50_ms = r.p50_ms,
        .p99_ms = r.p99_ms,
        .first_ms = r.first_ms,
        .cpu_us = (double)(pf_proc_cpu_ns(pf_plane_pid(plane)) - cpu) / n / 1e3,
        .calls = (double)(pf_plane_metric(plane, BF_M_io_enter) - calls) / n,
        .client_us = (double)(pf_load_cpu_ns(load) - client) / n / 1e3,
        .heap = (double)(pf_heap_calls() - heap),
        .instructions = (double)(pf_instr_read(instr) - instructions) / n,
    };
    pf_say("%-6s %u: %.0f frames/s, p99 %.1f ms, first %.2f ms, %.2f us CPU a frame",
           kind_names[kind], number, s.rate, s.p99_ms, s.first_ms, s.cpu_us);
    return s;
}

/* The plain loop's descriptors. */
static void install(struct pf_plane *plane)
{
    uint64_t before = pf_plane_metric(plane, BF_M_broadcasts);
    if (!pf_plane_broadcast(plane, "x", 1, BF_RAW_INSTALL))
        pf_die("no room in the ring");
    while (pf_plane_metric(plane, BF_M_broadcasts) == before)
        sleep_ms(1);
}

static void rounds_run(struct pf_plane *plane, struct pf_load *load, const struct options *o,
                       struct samples *out)
{
    bool with_plain = o->connections <= PLAIN_MAX;
    if (with_plain)
        install(plane);
    for (uint32_t i = 0; i <= o->rounds; i++) { /* round 0 warms up and is thrown away */
        for (int kind = 0; kind < KIND_COUNT; kind++) {
            if (kind == PLAIN && !with_plain)
                continue;
            struct sample s = round_run(plane, load, o, &out->instr, (enum kind)kind, i);
            if (i > 0)
                out->by[kind][out->count[kind]++] = s;
        }
    }
}

/* ---- figures ---- */

#define LIST(samples, kind, field, values)                                                         \
    for (uint32_t at_ = 0; at_ < (samples)->count[kind]; at_++)                                    \
    (values)[at_] = (samples)->by[kind][at_].field

static double median_of_rate(const struct samples *s, enum kind kind)
{
    double values[PF_ROUNDS_MAX];
    LIST(s, kind, rate, values);
    return pf_median(values, s->count[kind]);
}

static void report_kind(struct pf_report *report, const struct samples *s, enum kind kind)
{
    char name[64];
    double values[PF_ROUNDS_MAX];
    if (s->count[kind] == 0)
        return;
    LIST(s, kind, rate, values);
    snprintf(name, sizeof(name), "%s_frames_per_s", kind_names[kind]);
    pf_report_list(report, name, values, s->count[kind]);
    LIST(s, kind, p99_ms, values);
    snprintf(name, sizeof(name), "%s_p99_ms", kind_names[kind]);
    pf_report_list(report, name, values, s->count[kind]);
    LIST(s, kind, cpu_us, values);
    snprintf(name, sizeof(name), "%s_cpu_us_per_frame", kind_names[kind]);
    pf_report_double(report, name, pf_median(values, s->count[kind]));
    LIST(s, kind, client_us, values);
    snprintf(name, sizeof(name), "%s_client_cpu_us_per_frame", kind_names[kind]);
    pf_report_double(report, name, pf_median(values, s->count[kind]));
    LIST(s, kind, calls, values);
    snprintf(name, sizeof(name), "%s_enters_per_frame", kind_names[kind]);
    pf_report_double(report, name, pf_median(values, s->count[kind]));
}

/* All rounds that count, not their median: one allocation anywhere would be one too many. */
static void report_heap(struct pf_report *report, const struct samples *s, const struct options *o,
                        bool watched)
{
    double total = 0;
    if (!watched) {
        pf_report_bar_null(report, "P20-heap", "allocations/frame", 0,
                           "heap calls are not counted");
        return;
    }
    for (uint32_t i = 0; i < s->count[BELFRY]; i++)
        total += s->by[BELFRY][i].heap;
    pf_report_double(report, "heap_calls_in_rounds", total);
    pf_report_bar(report, "P20-heap", total / (double)(o->connections * s->count[BELFRY]),
                  "allocations/frame", PF_AT_MOST, 0);
}

/* The bar is a ratio to a server that no package has: the count by itself is all there is. */
static void report_instructions(struct pf_report *report, const struct samples *s)
{
    double values[PF_ROUNDS_MAX];
    LIST(s, BELFRY, instructions, values);
    if (s->has_instr)
        pf_report_double(report, "instructions_per_frame", pf_median(values, s->count[BELFRY]));
    else
        pf_report_null(report, "instructions_per_frame", "this machine counts no instructions");
    pf_report_bar_null(report, "P19", "ratio", P19_RATIO,
                       "uWebSockets is in no package; see instructions_per_frame");
}

static void report_bars(struct pf_report *report, const struct samples *s)
{
    double rate[PF_ROUNDS_MAX], tail[PF_ROUNDS_MAX], calls[PF_ROUNDS_MAX];
    uint32_t n = s->count[BELFRY];
    for (uint32_t i = 0; i < n; i++) {
        rate[i] = s->by[BELFRY][i].rate / s->by[RAW][i].rate;
        tail[i] = s->by[BELFRY][i].p99_ms / (s->by[RAW][i].seconds * 1e3);
        calls[i] = s->by[BELFRY][i].calls;
    }
    pf_report_list(report, "ratio_to_raw", rate, n);
    if (s->count[PLAIN] > 0)
        pf_report_double(report, "ratio_to_plain_send",
                         median_of_rate(s, BELFRY) / median_of_rate(s, PLAIN));
    pf_report_bar(report, "P5", pf_median(rate, n), "ratio", PF_AT_LEAST, P5_RATIO);
    pf_report_bar(report, "P6", pf_median(tail, n), "ratio", PF_AT_MOST, P6_RATIO);
    pf_report_bar(report, "P20", pf_median(calls, n), "system calls/frame", PF_AT_MOST, P20_CALLS);
}

/* ---- peers ---- */

/* What Belfry's rate must be, over a peer's (P5). */
static double peer_bar(const char *name)
{
    if (strcmp(name, "centrifugo") == 0)
        return 0; /* printed beside: it was not there when the bar was set */
    return strcmp(name, "ws") == 0 ? 1.9 : 1.7;
}

static double peer_round(struct pf_peer *peer, struct pf_load *load, const struct options *o,
                         const char *name, uint32_t number)
{
    static char payload[PAYLOAD_MAX];
    char marker[MARKER_BYTES + 1];
    struct pf_round r;
    payload_make(payload, o->payload, name, number, marker);
    uint64_t cpu = pf_proc_cpu_ns(pf_peer_pid(peer));
    pf_load_round_begin(load, marker, MARKER_BYTES);
    if (!pf_peer_broadcast(peer, payload, o->payload) ||
        !pf_load_round_wait(load, o->connections, ROUND_SECONDS, &r))
        pf_die("%s round %u: %" PRIu64 " frames, %" PRIu64 " bad", name, number, r.frames, r.bad);
    sleep_ms(SETTLE_MS);
    pf_say("%-6s %u: %.0f frames/s, p99 %.1f ms, %.2f us CPU a frame", name, number,
           (double)o->connections / r.seconds, r.p99_ms,
           (double)(pf_proc_cpu_ns(pf_peer_pid(peer)) - cpu) / (double)o->connections / 1e3);
    return (double)o->connections / r.seconds;
}

static void peer_rounds(const struct options *o, struct pf_report *report, const char *name,
                        double belfry_rate)
{
    char key[64];
    double rate[PF_ROUNDS_MAX];
    struct pf_peer *peer = pf_peer_start(name, SERVER_CORE);
    if (!peer)
        pf_die("no peer %s", name);
    struct pf_load_spec spec = {.host = "127.0.0.1",
                                .port = pf_peer_port(peer),
                                .connections = (uint32_t)o->connections,
                                .connect_frame = pf_peer_connect_frame(name),
                                .core = CLIENT_CORE};
    struct pf_load *load = pf_load_start(&spec);
    if (!pf_load_wait_open(load, OPEN_SECONDS))
        pf_die("not all connected to %s", name);
    for (uint32_t i = 0; i <= o->rounds; i++) {
        double one = peer_round(peer, load, o, name, i);
        if (i > 0)
            rate[i - 1] = one;
    }
    double ratio = belfry_rate / pf_median(rate, (uint32_t)o->rounds);
    snprintf(key, sizeof(key), "%s_frames_per_s", name);
    pf_report_list(report, key, rate, (uint32_t)o->rounds);
    snprintf(key, sizeof(key), "ratio_to_%s", name);
    pf_report_double(report, key, ratio);
    pf_report_bar_and(report, "P5", ratio >= peer_bar(name));
    pf_load_stop(load);
    pf_peer_stop(peer);
}

/* --peer is a list: raw is always there. */
static void peers_run(const struct options *o, struct pf_report *report, double belfry_rate)
{
    char list[128];
    char *rest = list;
    snprintf(list, sizeof(list), "%s", o->peer);
    for (char *name; (name = strsep(&rest, ",")) != NULL;)
        if (strcmp(name, "raw") != 0)
            peer_rounds(o, report, name, belfry_rate);
}

/* ---- through a whole node ---- */

static bool api_broadcast(const struct pf_node *node, const char *text)
{
    static char body[PAYLOAD_MAX + 256];
    snprintf(body, sizeof(body), "{\"broadcast\":true,\"type\":\"perf\",\"body\":\"%s\"}", text);
    int status = pf_node_api(node, "POST", "/v1/notifications", body, NULL);
    if (status != 202)
        pf_say("POST /v1/notifications: %d", status);
    return status == 202;
}

static void node_rounds(const struct options *o, struct pf_report *report)
{
    static char text[PAYLOAD_MAX + 1];
    char yaml[512], marker[MARKER_BYTES + 1];
    double rate[PF_ROUNDS_MAX], p99[PF_ROUNDS_MAX], accepted[PF_ROUNDS_MAX];
    struct pf_node node;
    snprintf(yaml, sizeof(yaml),
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: %" PRIu64 "\n"
             "  ring_connections_max: 18000\n",
             SERVER_CORE, o->connections + SLOTS_SPARE);
    pf_node_up(&node, yaml, NULL);
    struct pf_load_spec spec = {.host = "127.0.0.1",
                                .port = node.ws_port,
                                .connections = (uint32_t)o->connections,
                                .user_prefix = "bc-",
                                .jwt_secret = node.jwt_secret,
                                .jwt_secret_len = node.jwt_secret_len,
                                .connect_frame = CONNECT_FRAME,
                                .core = CLIENT_CORE};
    struct pf_load *load = pf_load_start(&spec);
    if (!pf_load_wait_open(load, OPEN_SECONDS))
        pf_die("not all connected to the node");
    for (uint32_t i = 0; i <= o->rounds; i++) {
        struct pf_round r;
        payload_make(text, o->payload, "api", i, marker);
        text[o->payload] = '\0';
        uint64_t start = pf_load_round_begin(load, marker, MARKER_BYTES);
        bool taken = api_broadcast(&node, text);
        double answer_ms = (double)(bf_mono_ns() - start) / 1e6;
        if (!taken || !pf_load_round_wait(load, o->connections, ROUND_SECONDS, &r))
            pf_die("api round %u: %" PRIu64 " frames, %" PRIu64 " bad", i, r.frames, r.bad);
        pf_say("api    %u: %.0f frames/s, p99 %.1f ms, first %.2f ms, 202 after %.2f ms", i,
               (double)o->connections / r.seconds, r.p99_ms, r.first_ms, answer_ms);
        if (i > 0) {
            rate[i - 1] = (double)o->connections / r.seconds;
            p99[i - 1] = r.p99_ms;
            accepted[i - 1] = answer_ms;
        }
        sleep_ms(SETTLE_MS);
    }
    pf_report_list(report, "api_frames_per_s", rate, (uint32_t)o->rounds);
    pf_report_list(report, "api_p99_ms", p99, (uint32_t)o->rounds);
    pf_report_list(report, "api_accepted_ms", accepted, (uint32_t)o->rounds);
    pf_load_stop(load);
    pf_node_down(&node);
}

/* ---- */

static void options_check_peers(const char *peers)
{
    static const char *const known[] = {"raw", "ws", "gorilla", "nchan", "centrifugo"};
    char list[128];
    char *rest = list;
    snprintf(list, sizeof(list), "%s", peers);
    for (char *name; (name = strsep(&rest, ",")) != NULL;) {
        bool found = false;
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
            found |= strcmp(name, known[i]) == 0;
        if (!found)
            pf_die("--peer %s: known are raw, ws, gorilla, nchan, centrifugo", name);
    }
}

static void options_read(int argc, char **argv, struct options *o)
{
    const struct pf_option table[] = {
        {"--connections", &o->connections, NULL, NULL, "connections"},
        {"--payload", &o->payload, NULL, NULL, "bytes of the message"},
        {"--rounds", &o->rounds, NULL, NULL, "rounds of each kind that count"},
        {"--peer", NULL, &o->peer, NULL,
         "what to compare with: raw[,ws][,gorilla][,nchan][,centrifugo]"},
        {"--api", NULL, NULL, &o->api, "also rounds through a whole node, from the HTTP call on"},
        {0},
    };
    pf_args(argc, argv, table);
    options_check_peers(o->peer);
    if (strcmp(o->peer, "raw") != 0 && o->connections > PLAIN_MAX)
        pf_die("peers hold at most %u connections (one process each)", PLAIN_MAX);
    if (o->payload < MARKER_BYTES || o->payload > PAYLOAD_MAX)
        pf_die("--payload: %u to %u", MARKER_BYTES, PAYLOAD_MAX);
    if (o->rounds == 0 || o->rounds > PF_ROUNDS_MAX || o->connections == 0)
        pf_die("--rounds: 1 to %u", PF_ROUNDS_MAX);
}

int main(int argc, char **argv)
{
    static struct samples samples;
    struct options o = {.connections = 18000, .payload = 64, .rounds = 5, .peer = "raw"};
    char yaml[512];
    options_read(argc, argv, &o);
    struct pf_report *report = pf_report_create("ws-broadcast");
    snprintf(yaml, sizeof(yaml),
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: %" PRIu64 "\n"
             "  ring_connections_max: 18000\n",
             SERVER_CORE, o.connections + SLOTS_SPARE);
    bool watched = pf_heap_watch();
    struct pf_plane *plane = pf_plane_start(yaml, true, CLIENT_CORE);
    pf_heap_watched();
    if (watched)
        pf_report_u64(report, "heap_calls_at_start", pf_heap_calls());
    size_t secret_len;
    const char *secret = pf_plane_secret(plane, &secret_len);
    struct pf_load_spec spec = {.host = "127.0.0.1",
                                .port = pf_plane_port(plane),
                                .connections = (uint32_t)o.connections,
                                .user_prefix = "bc-",
                                .jwt_secret = secret,
                                .jwt_secret_len = secret_len,
                                .connect_frame = CONNECT_FRAME,
                                .core = CLIENT_CORE};
    struct pf_load *load = pf_load_start(&spec);
    if (!pf_load_wait_open(load, OPEN_SECONDS))
        pf_die("not all connected");
    samples.has_instr = pf_instr_open(&samples.instr, pf_plane_pid(plane));
    rounds_run(plane, load, &o, &samples);
    pf_instr_close(&samples.instr);
    pf_report_u64(report, "N", o.connections);
    pf_report_u64(report, "payload", o.payload);
    pf_report_u64(report, "rounds", o.rounds);
    pf_report_text(report, "peer", o.peer);
    int fd = pf_tcp_connect("127.0.0.1", pf_plane_port(plane));
    if (fd >= 0)
        pf_report_congestion(report, fd);
    for (int kind = 0; kind < KIND_COUNT; kind++)
        report_kind(report, &samples, (enum kind)kind);
    report_bars(report, &samples);
    report_instructions(report, &samples);
    report_heap(report, &samples, &o, watched);
    pf_load_stop(load);
    pf_plane_stop(plane);
    peers_run(&o, report, median_of_rate(&samples, BELFRY));
    if (o.api)
        node_rounds(&o, report);
    return pf_report_print(report);
}
