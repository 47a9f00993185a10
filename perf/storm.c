/*
 * A reconnect storm beside 200,000 who stay, and a drain. No bar in a figure of its own: what must
 * hold is printed as "ok" (nothing lost, nobody dropped, the rate reached, everyone back).
 *
 *   1. N connections to a whole node; 500 of them get messages through the HTTP API at a steady
 * rate and are read by a process with real-time priority: their latency in calm
 *   2. the same while clients end their connections without a goodbye and connect again, 3,300 a
 * second; a tenth of the messages goes to users of those, and must be in their inboxes afterwards
 *   3. `belfryctl drain --rate`: goaway with a time to come back, spread by jitter, until everyone
 * was told; then how long until all are connected again
 *
 * Each message is counted once: lost and doubled ones are both faults.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "belfry/base/time.h"
#include "pf_args.h"
#include "pf_http.h"
#include "pf_load.h"
#include "pf_node.h"
#include "pf_post.h"
#include "pf_proc.h"
#include "pf_report.h"

#define SERVER_CORE    0
#define CLIENT_CORE    1
#define OPEN_SECONDS   600.0
#define DRAIN_SECONDS  15.0
#define BACK_SECONDS   120.0
#define SLOTS_SPARE    4096u
#define POSTERS        16u
#define PENDING        256u
#define RECONNECT_MS   5000u
#define CONNECT_FRAME  "{\"t\":\"connect\",\"device\":\"perf\"}"
#define MEASURED_FIRST 10000000u
#define CHURN_FIRST    20000000u
/* Of the users that come and go, these get messages and are asked for their inbox. */
#define SAMPLED 100u
/* Messages a run can have: bits to see each once. */
#define MESSAGES_MAX 1000000u
#define STAMP        "\"sent_ns\":"
#define NUMBER       "\"number\":"

struct options {
    uint64_t connections, churners, measured, rate, seconds, messages_per_s, drain_rate;
};

struct storm {
    struct options o;
    struct pf_node node;
    struct pf_load *crowd, *churners, *measured;
    uint64_t next;    /* number of the first message of the next run */
    uint64_t sampled; /* messages that went to users of the churners */
    uint8_t *seen;    /* by message, in the measured clients' process */
};

struct outcome {
    uint64_t sent, lost, doubled, samples;
    double p50_ms, p99_ms, max_ms;
};

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* ---- messages ---- */

static bool to_churner(uint64_t number)
{
    return number % 10 == 9;
}

static size_t make_event(void *ctx, uint64_t number, uint64_t now_ns, char *out, size_t cap)
{
    const struct storm *s = ctx;
    uint64_t user =
        to_churner(number)
            ? CHURN_FIRST + number / 10 % (s->o.churners < SAMPLED ? s->o.churners : SAMPLED)
            : MEASURED_FIRST + number * 2654435761u % s->o.measured;
    int n = snprintf(out, cap,
                     "{\"user_id\":\"storm-%" PRIu64 "\",\"type\":\"perf\",\"title\":\"storm\","
                     "\"data\":{" STAMP "%" PRIu64 "," NUMBER "%" PRIu64 "}}",
                     user, now_ns, s->next + number);
    return (size_t)n;
}

static uint64_t member(const uint8_t *data, size_t len, const char *name)
{
    const char *at = memmem(data, len, name, strlen(name));
    return at ? strtoull(at + strlen(name), NULL, 10) : UINT64_MAX;
}

/* In the measured clients' process: each number once. */
static bool on_message(void *ctx, const struct pf_load_conn *conn,
                       struct pf_load_counters *counters, const uint8_t *data, size_t len,
                       uint64_t now_ns)
{
    struct storm *s = ctx;
    uint64_t sent = member(data, len, STAMP), number = member(data, len, NUMBER);
    (void)conn;
    if (number >= MESSAGES_MAX || (s->seen[number / 8] & (1u << number % 8)))
        return false;
    s->seen[number / 8] |= (uint8_t)(1u << number % 8);
    bf_hist_add(&counters->latency_ns, now_ns > sent ? now_ns - sent : 0);
    return true;
}

/* Posts for |seconds|, then waits for what is still under way. */
static struct outcome post_run(struct storm *s, double seconds, struct pf_report *report,
                               const char *name)
{
    static struct pf_post_result result;
    static struct bf_hist latency;
    struct pf_post_spec spec = {.host = s->node.api_host,
                                .port = s->node.api_port,
                                .api_key = s->node.api_key,
                                .path = "/v1/notifications",
                                .connections = POSTERS,
                                .rate = (double)s->o.messages_per_s,
                                .seconds = seconds,
                                .expect = 202,
                                .make = make_event,
                                .ctx = s};
    uint64_t bad = pf_load_totals(s->measured).bad, frames = pf_load_totals(s->measured).frames;
    struct outcome out = {0};
    pf_load_latency_reset(s->measured);
    if (!pf_post_run(&spec, &result) || result.bad > 0)
        pf_die("posting failed: %" PRIu64 " bad, %s", result.bad, result.first_bad);
    out.sent = result.good;
    uint64_t due = 0;
    for (uint64_t i = 0; i < result.sent; i++) {
        due += !to_churner(i);
        s->sampled += to_churner(i);
    }
    uint64_t deadline = bf_mono_ns() + (uint64_t)(DRAIN_SECONDS * 1e9), good;
    do {
        sleep_ms(2);
        struct pf_load_totals t = pf_load_totals(s->measured);
        out.doubled = t.bad - bad;
        good = t.frames - frames - out.doubled;
    } while (good < due && bf_mono_ns() < deadline);
    s->next += result.sent;
    out.lost = due - good;
    pf_load_latency(s->measured, &latency);
    out.samples = latency.count;
    out.p50_ms = (double)bf_hist_quantile(&latency, 0.5) / 1e6;
    out.p99_ms = (double)bf_hist_quantile(&latency, 0.99) / 1e6;
    out.max_ms = (double)bf_hist_quantile(&latency, 1.0) / 1e6;
    pf_report_hist(report, name, &latency);
    return out;
}

/* What the sampled users' inboxes hold. */
static uint64_t inbox_count(const struct storm *s)
{
    static char answer[PF_TEXT_BYTES];
    uint64_t found = 0;
    for (uint32_t i = 0; i < SAMPLED && i < s->o.churners; i++) {
        char path[128];
        snprintf(path, sizeof(path), "/v1/users/storm-%u/notifications?limit=100", CHURN_FIRST + i);
        if (pf_node_api(&s->node, "GET", path, NULL, answer) != 200)
            pf_die("GET %s failed", path);
        for (const char *at = answer; (at = strstr(at, NUMBER)) != NULL; at++)
            found++;
    }
    return found;
}

static void report_outcome(struct pf_report *report, const char *name, const struct outcome *out)
{
    const struct {
        const char *name;
        double value;
    } rows[] = {{"messages", (double)out->sent}, {"samples", (double)out->samples},
                {"lost", (double)out->lost},     {"doubled", (double)out->doubled},
                {"p50_ms", out->p50_ms},         {"p99_ms", out->p99_ms},
                {"max_ms", out->max_ms}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char key[64];
        snprintf(key, sizeof(key), "%s_%s", name, rows[i].name);
        pf_report_double(report, key, rows[i].value);
    }
    pf_say("%s: %" PRIu64 " messages, %" PRIu64 " lost, %" PRIu64 " doubled, p50 %.2f p99 %.2f ms",
           name, out->sent, out->lost, out->doubled, out->p50_ms, out->p99_ms);
}

/* ---- clients ---- */

static struct pf_load *connect_some(struct storm *s, uint32_t first, uint64_t count, bool realtime)
{
    struct pf_load_spec spec = {.host = s->node.ws_host,
                                .port = s->node.ws_port,
                                .connections = (uint32_t)count,
                                .user_prefix = "storm-",
                                .first_user = first,
                                .jwt_secret = s->node.jwt_secret,
                                .jwt_secret_len = s->node.jwt_secret_len,
                                .connect_frame = CONNECT_FRAME,
                                .core = CLIENT_CORE,
                                .acknowledge = true,
                                .realtime = realtime,
                                .pending_max = PENDING,
                                .comes_back = true,
                                .on_message = realtime ? on_message : NULL,
                                .ctx = s};
    struct pf_load *load = pf_load_start(&spec);
    if (!pf_load_wait_open(load, OPEN_SECONDS))
        pf_die("not all connected");
    return load;
}

static uint64_t up(const struct storm *s)
{
    return pf_load_up(s->crowd) + pf_load_up(s->churners) + pf_load_up(s->measured);
}

static struct pf_load_totals totals(const struct storm *s)
{
    struct pf_load *loads[] = {s->crowd, s->churners, s->measured};
    struct pf_load_totals sum = {0};
    for (size_t i = 0; i < 3; i++) {
        struct pf_load_totals t = pf_load_totals(loads[i]);
        sum.failed += t.failed;
        sum.dropped += t.dropped;
        sum.goaways += t.goaways;
        sum.returned += t.returned;
    }
    return sum;
}

/* Until |count| are up. Returns the seconds, negative when they are not in time. */
static double wait_up(const struct storm *s, uint64_t count)
{
    uint64_t start = bf_mono_ns(), deadline = start + (uint64_t)(BACK_SECONDS * 1e9);
    while (up(s) < count && bf_mono_ns() < deadline)
        sleep_ms(5);
    double seconds = (double)(bf_mono_ns() - start) / 1e9;
    return up(s) >= count ? seconds : -seconds;
}

/* ---- the storm ---- */

/* What accept and admission counted; those that this build does not have are left out. */
static void report_admission(struct storm *s, struct pf_report *report)
{
    static const char *const names[] = {
        "accepts",          "accepts_refused",        "connects_ok",
        "connects_refused", "rejected_overload",      "closes_no_connect",
        "closes_replaced",  "admission_refused_rate", "admission_refused_address",
        "io_cq_overflow",   "io_no_buffers"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char name[96];
        snprintf(name, sizeof(name), "belfry_dataplane_%s", names[i]);
        double value = pf_node_metric(&s->node, name);
        if (value < 0) {
            snprintf(name, sizeof(name), "belfry_dataplane_%s_total", names[i]);
            value = pf_node_metric(&s->node, name);
        }
        if (value >= 0)
            pf_report_double(report, names[i], value);
    }
}

static bool storm_run(struct storm *s, struct pf_report *report)
{
    struct outcome calm = post_run(s, (double)s->o.seconds / 2, report, "calm");
    report_outcome(report, "calm", &calm);
    uint64_t failed = pf_load_totals(s->churners).failed;
    uint64_t returned = pf_load_totals(s->churners).returned;
    uint64_t stayed = pf_load_totals(s->crowd).dropped + pf_load_totals(s->measured).dropped;
    uint64_t cpu = pf_proc_cpu_ns(s->node.dataplane), start = bf_mono_ns();
    pf_load_churn(s->churners, (double)s->o.rate);
    struct outcome storm = post_run(s, (double)s->o.seconds, report, "storm");
    double seconds = (double)(bf_mono_ns() - start) / 1e9;
    uint64_t back = pf_load_totals(s->churners).returned - returned;
    cpu = pf_proc_cpu_ns(s->node.dataplane) - cpu;
    pf_load_churn(s->churners, 0);
    report_outcome(report, "storm", &storm);
    double settled = wait_up(s, s->o.connections);
    stayed = pf_load_totals(s->crowd).dropped + pf_load_totals(s->measured).dropped - stayed;
    failed = pf_load_totals(s->churners).failed - failed;
    uint64_t stored = inbox_count(s);
    double rate = (double)back / seconds;
    pf_report_double(report, "reconnects_per_s", rate);
    pf_report_u64(report, "reconnects", back);
    pf_report_u64(report, "reconnects_failed", failed);
    pf_report_double(report, "dataplane_cores_in_storm", (double)cpu / 1e9 / seconds);
    pf_report_u64(report, "stayers_dropped", stayed);
    pf_report_double(report, "all_up_again_s", settled);
    pf_report_u64(report, "inbox_due", s->sampled);
    pf_report_u64(report, "inbox_found", stored);
    pf_say("storm: %.0f reconnects/s, %" PRIu64 " failed, %" PRIu64
           " stayers dropped, inbox %" PRIu64 " of %" PRIu64,
           rate, failed, stayed, stored, s->sampled);
    return calm.lost + storm.lost + calm.doubled + storm.doubled + stayed == 0 && settled >= 0 &&
           stored == s->sampled && rate >= 0.9 * (double)s->o.rate;
}

/* ---- the drain ---- */

static bool drain_run(struct storm *s, struct pf_report *report)
{
    char arguments[96];
    struct pf_load_totals before = totals(s);
    uint64_t start = bf_mono_ns(), least = s->o.connections;
    uint64_t deadline = start +
                        (uint64_t)((double)s->o.connections / (double)s->o.drain_rate * 1.5e9) +
                        (uint64_t)(DRAIN_SECONDS * 1e9);
    snprintf(arguments, sizeof(arguments), "drain --rate %" PRIu64 " --reconnect-after %u",
             s->o.drain_rate, RECONNECT_MS);
    if (!pf_node_ctl(&s->node, arguments))
        pf_die("belfryctl drain failed");
    uint64_t told = 0, said = 0;
    while (told < s->o.connections && bf_mono_ns() < deadline) {
        sleep_ms(10);
        told = totals(s).goaways - before.goaways;
        uint64_t now = up(s);
        least = now < least ? now : least;
        if (told / 20000 > said) {
            said = told / 20000;
            pf_say("drain: %" PRIu64 " told after %.1f s, %" PRIu64 " connected", told,
                   (double)(bf_mono_ns() - start) / 1e9, now);
        }
    }
    double told_s = (double)(bf_mono_ns() - start) / 1e9;
    if (!pf_node_ctl(&s->node, "drain --rate 0"))
        pf_die("belfryctl drain failed");
    double back_s = wait_up(s, s->o.connections);
    struct pf_load_totals after = totals(s);
    pf_report_u64(report, "drain_rate", s->o.drain_rate);
    pf_report_u64(report, "drain_goaways", told);
    pf_report_double(report, "drain_seconds", told_s);
    pf_report_u64(report, "drain_closed", after.dropped - before.dropped);
    pf_report_u64(report, "drain_returned", after.returned - before.returned);
    pf_report_u64(report, "drain_failed_connects", after.failed - before.failed);
    pf_report_u64(report, "drain_least_connected", least);
    pf_report_double(report, "drain_all_back_s", back_s);
    pf_say("drain: %" PRIu64 " told in %.1f s, all back %.1f s later", told, told_s, back_s);
    return told >= s->o.connections && back_s >= 0;
}

static void options_read(int argc, char **argv, struct options *o, int *skip_drain)
{
    const struct pf_option table[] = {
        {"--connections", &o->connections, NULL, NULL, "connections in all"},
        {"--churners", &o->churners, NULL, NULL, "of them, those that come and go"},
        {"--measured", &o->measured, NULL, NULL, "of them, those that are measured"},
        {"--rate", &o->rate, NULL, NULL, "reconnects a second"},
        {"--seconds", &o->seconds, NULL, NULL, "length of the storm"},
        {"--messages", &o->messages_per_s, NULL, NULL, "messages a second meanwhile"},
        {"--drain-rate", &o->drain_rate, NULL, NULL, "connections a second told to go"},
        {"--skip-drain", NULL, NULL, skip_drain, "leave out the drain"},
        {0},
    };
    pf_args(argc, argv, table);
    if (o->measured == 0 || o->churners == 0 || o->connections <= o->churners + o->measured)
        pf_die("--connections: more than --churners and --measured");
    if (o->drain_rate == 0 || o->seconds < 2 || o->seconds * o->messages_per_s * 2 > MESSAGES_MAX)
        pf_die("--seconds: 2 or more, %u messages at most", MESSAGES_MAX);
}

int main(int argc, char **argv)
{
    static struct storm s = {.o = {.connections = 200000,
                                   .churners = 20000,
                                   .measured = 500,
                                   .rate = 3300,
                                   .seconds = 15,
                                   .messages_per_s = 500,
                                   .drain_rate = 10000}};
    char yaml[512];
    int skip_drain = 0;
    options_read(argc, argv, &s.o, &skip_drain);
    struct pf_report *report = pf_report_create("storm");
    snprintf(yaml, sizeof(yaml),
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: %" PRIu64 "\n"
             "  ring_connections_max: 18000\n",
             SERVER_CORE, s.o.connections + SLOTS_SPARE);
    s.seen = calloc(MESSAGES_MAX / 8 + 1, 1);
    if (!s.seen)
        pf_die("out of memory");
    pf_node_up(&s.node, yaml, NULL);
    uint64_t start = bf_mono_ns();
    s.crowd = connect_some(&s, 0, s.o.connections - s.o.churners - s.o.measured, false);
    s.churners = connect_some(&s, CHURN_FIRST, s.o.churners, false);
    s.measured = connect_some(&s, MEASURED_FIRST, s.o.measured, true);
    double open_s = (double)(bf_mono_ns() - start) / 1e9;
    pf_say("%" PRIu64 " connected in %.1f s", s.o.connections, open_s);
    pf_report_u64(report, "N", s.o.connections);
    pf_report_u64(report, "churners", s.o.churners);
    pf_report_u64(report, "measured_connections", s.o.measured);
    pf_report_double(report, "connected_s", open_s);
    int fd = pf_tcp_connect(s.node.ws_host, s.node.ws_port);
    if (fd >= 0)
        pf_report_congestion(report, fd);
    bool ok = storm_run(&s, report);
    pf_report_bool(report, "storm_ok", ok);
    if (!skip_drain)
        pf_report_bool(report, "drain_ok", drain_run(&s, report));
    report_admission(&s, report);
    pf_load_stop(s.crowd);
    pf_load_stop(s.churners);
    pf_load_stop(s.measured);
    pf_node_down(&s.node);
    return pf_report_print(report);
}
