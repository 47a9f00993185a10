/*
 * The control process dies, and stops, beside 200,000 connections: how long the census takes, what
 * is sent afterwards, and that every socket stays open. No bar in a figure of its own; "ok" says
 * what must hold.
 *
 *   1. N connections to a whole node (so many of them get a message and acknowledge it)
 *   2. kill -9 of the control process, start again: seconds until ready, the census' own time from
 * its log line; then the frames and commands of the next seconds: a replay storm would show there
 *   3. kill -STOP of the control process: a successor must refuse; after some seconds it is let go
 * and goes on; stopped again it is killed, and the successor takes over
 *   4. a message to each user of a sample arrives
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "pf_args.h"
#include "pf_http.h"
#include "pf_load.h"
#include "pf_node.h"
#include "pf_post.h"
#include "pf_proc.h"
#include "pf_report.h"

#define SERVER_CORE   0
#define CLIENT_CORE   1
#define OPEN_SECONDS  600.0
#define FRAME_SECONDS 30.0
#define SLOTS_SPARE   1024u
#define POSTERS       16u
/* What a replay or push storm would fall into. */
#define AFTER_MS      5000u
#define STOPPED_MS    5000u
#define CONNECT_FRAME "{\"t\":\"connect\",\"device\":\"perf\"}"
/* Frames to all of N after a restart: none is due. Those who had not acknowledged in time may get
 * theirs. */
#define READY_SECONDS "60"

struct options {
    uint64_t connections, messages, rate;
};

struct run {
    struct options o;
    struct pf_node node;
    struct pf_load *load;
};

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static size_t make_event(void *ctx, uint64_t number, uint64_t now_ns, char *out, size_t cap)
{
    const struct run *r = ctx;
    (void)now_ns;
    int n = snprintf(out, cap,
                     "{\"user_id\":\"census-%" PRIu64 "\",\"type\":\"perf\",\"title\":\"census\"}",
                     number * 2654435761u % r->o.connections);
    return (size_t)n;
}

/* |count| messages to users all over; waits until they have arrived. Returns those that did not. */
static uint64_t send_messages(struct run *r)
{
    static struct pf_post_result result;
    struct pf_post_spec spec = {.host = r->node.api_host,
                                .port = r->node.api_port,
                                .api_key = r->node.api_key,
                                .path = "/v1/notifications",
                                .connections = POSTERS,
                                .rate = (double)r->o.rate,
                                .seconds = 60,
                                .count = r->o.messages,
                                .expect = 202,
                                .make = make_event,
                                .ctx = r};
    uint64_t before = pf_load_totals(r->load).frames;
    if (!pf_post_run(&spec, &result) || result.bad > 0)
        pf_die("posting failed: %" PRIu64 " bad, %s", result.bad, result.first_bad);
    uint64_t deadline = bf_mono_ns() + (uint64_t)(FRAME_SECONDS * 1e9), got;
    do {
        sleep_ms(5);
        got = pf_load_totals(r->load).frames - before;
    } while (got < result.good && bf_mono_ns() < deadline);
    return result.good > got ? result.good - got : 0;
}

static double metric(const struct run *r, const char *name)
{
    char full[96];
    snprintf(full, sizeof(full), "belfry_dataplane_%s", name);
    double value = pf_node_metric(&r->node, full);
    if (value >= 0)
        return value;
    snprintf(full, sizeof(full), "belfry_dataplane_%s_total", name);
    return pf_node_metric(&r->node, full);
}

/* The last "census complete in N us" of the control process's log, in ms. */
static double census_ms(const struct run *r)
{
    char path[PF_PATH_BYTES + 32], line[1024];
    unsigned long long us = 0;
    snprintf(path, sizeof(path), "%s/ctrlplane.log", r->node.state);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        const char *at = strstr(line, "census complete in ");
        if (at)
            us = strtoull(at + sizeof("census complete in ") - 1, NULL, 10);
    }
    if (file)
        fclose(file);
    return (double)us / 1e3;
}

/* One death and return, of a process that is |stopped| before or not; what the dataplane did
 * meanwhile. */
static bool take_over(struct run *r, struct pf_report *report, const char *name, bool stopped)
{
    char key[64];
    double commands = metric(r, "commands"), frames = metric(r, "frames_sent");
    double pings = metric(r, "pings_sent"), doubles = metric(r, "frames_duplicate");
    uint64_t seen = pf_load_totals(r->load).frames;
    if (stopped)
        kill(r->node.ctrlplane, SIGSTOP);
    kill(r->node.ctrlplane, SIGKILL);
    double ready_s = pf_node_restart(&r->node, "ctrlplane");
    sleep_ms(AFTER_MS);
    uint64_t replayed = pf_load_totals(r->load).frames - seen;
    const struct {
        const char *name;
        double value;
    } rows[] = {
        {"ready_s", ready_s},
        {"census_ms", census_ms(r)},
        {"commands", metric(r, "commands") - commands},
        /* events since the last checkpoint are offered again, and skipped */
        {"commands_skipped", metric(r, "frames_duplicate") - doubles},
        {"frames_sent", metric(r, "frames_sent") - frames},
        {"pings_sent", metric(r, "pings_sent") - pings},
        {"messages_replayed", (double)replayed},
        {"dropped", (double)pf_load_totals(r->load).dropped},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        snprintf(key, sizeof(key), "%s_%s", name, rows[i].name);
        pf_report_double(report, key, rows[i].value);
    }
    pf_say("%s: ready after %.2f s, census %.1f ms, %.0f commands, %" PRIu64
           " messages replayed, %" PRIu64 " sockets dropped",
           name, ready_s, rows[1].value, rows[2].value, replayed, pf_load_totals(r->load).dropped);
    return replayed <= r->o.messages && pf_load_totals(r->load).dropped == 0;
}

/* Another control process, beside the one that holds the lock. Returns whether it refused. */
static bool successor_refuses(const struct run *r)
{
    char command[4 * PF_PATH_BYTES];
    snprintf(command, sizeof(command),
             "'%s/belfry-ctrlplane' --config '%s/belfry.yaml' >/dev/null 2>&1",
             getenv("BELFRY_BUILD"), r->node.state);
    int status = system(command);
    return status != 0;
}

static bool stop_and_go(struct run *r, struct pf_report *report)
{
    uint64_t start = bf_mono_ns();
    double commands = metric(r, "commands");
    kill(r->node.ctrlplane, SIGSTOP);
    bool refused = successor_refuses(r);
    sleep_ms(STOPPED_MS);
    uint64_t dropped = pf_load_totals(r->load).dropped;
    kill(r->node.ctrlplane, SIGCONT);
    uint64_t missing = send_messages(r);
    pf_report_double(report, "stopped_s", (double)(bf_mono_ns() - start) / 1e9);
    pf_report_bool(report, "stopped_successor_refused", refused);
    pf_report_u64(report, "stopped_dropped", dropped);
    pf_report_double(report, "stopped_commands", metric(r, "commands") - commands);
    pf_report_u64(report, "stopped_messages_missing", missing);
    pf_say("stopped: successor %s, %" PRIu64 " dropped, %" PRIu64 " messages missing afterwards",
           refused ? "refused" : "DID NOT REFUSE", dropped, missing);
    return refused && dropped == 0 && missing == 0 && take_over(r, report, "stopped_killed", true);
}

int main(int argc, char **argv)
{
    struct run r = {.o = {.connections = 200000, .messages = 5000, .rate = 2000}};
    const struct pf_option table[] = {
        {"--connections", &r.o.connections, NULL, NULL, "connections"},
        {"--messages", &r.o.messages, NULL, NULL, "messages before and after"},
        {"--rate", &r.o.rate, NULL, NULL, "messages a second"},
        {0},
    };
    char yaml[512];
    pf_args(argc, argv, table);
    if (r.o.connections == 0 || r.o.rate == 0)
        pf_die("--connections: 1 or more");
    struct pf_report *report = pf_report_create("census");
    setenv("BELFRY_READY_S", READY_SECONDS, 0);
    snprintf(yaml, sizeof(yaml),
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: %" PRIu64 "\n"
             "  ring_connections_max: 18000\n",
             SERVER_CORE, r.o.connections + SLOTS_SPARE);
    pf_node_up(&r.node, yaml, NULL);
    struct pf_load_spec spec = {.host = r.node.ws_host,
                                .port = r.node.ws_port,
                                .connections = (uint32_t)r.o.connections,
                                .user_prefix = "census-",
                                .jwt_secret = r.node.jwt_secret,
                                .jwt_secret_len = r.node.jwt_secret_len,
                                .connect_frame = CONNECT_FRAME,
                                .core = CLIENT_CORE,
                                .acknowledge = true};
    r.load = pf_load_start(&spec);
    if (!pf_load_wait_open(r.load, OPEN_SECONDS))
        pf_die("not all connected");
    pf_say("%" PRIu64 " connected", r.o.connections);
    pf_report_u64(report, "N", r.o.connections);
    pf_report_u64(report, "messages", r.o.messages);
    int fd = pf_tcp_connect(r.node.ws_host, r.node.ws_port);
    if (fd >= 0)
        pf_report_congestion(report, fd);
    uint64_t missing = send_messages(&r);
    bool ok = take_over(&r, report, "killed", false);
    ok &= stop_and_go(&r, report);
    missing += send_messages(&r);
    pf_report_u64(report, "messages_missing", missing);
    pf_report_u64(report, "open_at_end", (uint64_t)metric(&r, "connections_welcomed"));
    pf_report_bool(report, "census_ok", ok && missing == 0);
    pf_load_stop(r.load);
    pf_node_down(&r.node);
    return pf_report_print(report);
}
