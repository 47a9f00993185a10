/*
 * A critical message while a broadcast to 200,000 runs: P8, p99 from the enqueue to the client's
 * recv. The broadcast is walked in slices and the critical lane is taken first, so the message
 * waits for one slice at most. Its receivers are connections of their own, read by a process of
 * their own with real-time priority, so that the server is measured and not the client that is busy
 * with 200,000 frames.
 *
 * The messages come at random times, open loop, while the walk is under way: the last
 * is sent when the walk has ended. Beside it: the same messages with nothing else going on.
 * Worker on core 0, clients and producer on core 1.
 */
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "belfry/base/time.h"
#include "pf_args.h"
#include "pf_http.h"
#include "pf_load.h"
#include "pf_plane.h"
#include "pf_floor.h"
#include "pf_report.h"

#define SERVER_CORE   0
#define CLIENT_CORE   1
#define OPEN_SECONDS  600.0
#define ROUND_SECONDS 60.0
#define SETTLE_MS     500u
#define SLOTS_SPARE   64u
#define P8_MS         2.0
#define STRETCH_US    500.0
#define PAYLOAD       64u
#define MARKER_BYTES  24u
#define IDLE_MESSAGES 1000u
#define CONNECT_FRAME "{\"t\":\"connect\"}"
/* A critical message: this and the time of its enqueue. A broadcast begins otherwise. */
#define STAMP          "stamp:"
#define MEASURED_FIRST 10000000u

struct options {
    uint64_t connections, measured, rounds, gap_us;
};

struct run {
    struct pf_plane *plane;
    struct pf_load *crowd, *measured;
    struct bf_user_key *users;
    uint64_t random;
};

/* In the measured clients' process. */
static bool on_message(void *ctx, const struct pf_load_conn *conn,
                       struct pf_load_counters *counters, const uint8_t *data, size_t len,
                       uint64_t now_ns)
{
    uint64_t sent = 0;
    (void)ctx;
    (void)conn;
    if (len != PAYLOAD || memcmp(data, STAMP, sizeof(STAMP) - 1) != 0)
        return true; /* they are part of everyone, too */
    for (size_t i = sizeof(STAMP) - 1; data[i] >= '0' && data[i] <= '9'; i++)
        sent = sent * 10 + (uint64_t)(data[i] - '0');
    bf_hist_add(&counters->latency_ns, now_ns > sent ? now_ns - sent : 0);
    return true;
}

static void sleep_ns(uint64_t ns)
{
    nanosleep(
        &(struct timespec){.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)},
        NULL);
}

/* xorshift64: arrival times, not secrecy. */
static uint64_t next_random(struct run *r)
{
    r->random ^= r->random << 13;
    r->random ^= r->random >> 7;
    r->random ^= r->random << 17;
    return r->random;
}

static void send_critical(struct run *r, const struct options *o)
{
    char payload[PAYLOAD + 1];
    memset(payload, 'x', sizeof(payload));
    uint64_t user = next_random(r) % o->measured;
    int n = snprintf(payload, sizeof(payload), STAMP "%" PRIu64, bf_mono_ns());
    payload[n] = ';';
    if (!pf_plane_notify_stamped(r->plane, r->users[user], payload, PAYLOAD))
        pf_die("no room in the critical ring");
}

static uint64_t samples(const struct run *r)
{
    static struct bf_hist h;
    pf_load_latency(r->measured, &h);
    return h.count;
}

static void wait_samples(const struct run *r, uint64_t count)
{
    uint64_t deadline = bf_mono_ns() + (uint64_t)(ROUND_SECONDS * 1e9);
    while (samples(r) < count) {
        if (bf_mono_ns() > deadline)
            pf_die("critical messages are missing: %" PRIu64 " of %" PRIu64, samples(r), count);
        sleep_ns(1000000);
    }
}

/* One broadcast; critical messages go out until it is walked to the end. Returns how many. */
static uint64_t broadcast_round(struct run *r, const struct options *o, uint32_t number,
                                double *ret_seconds)
{
    char payload[PAYLOAD], marker[MARKER_BYTES + 1];
    struct pf_round round;
    uint64_t sent = 0;
    memset(payload, 'b', sizeof(payload));
    snprintf(marker, sizeof(marker), "crowd-%018u", number);
    memcpy(payload, marker, MARKER_BYTES);
    uint64_t walks = pf_plane_metric(r->plane, BF_M_broadcasts);
    pf_load_round_begin(r->crowd, marker, MARKER_BYTES);
    if (!pf_plane_broadcast(r->plane, payload, PAYLOAD, 0))
        pf_die("no room in the ring");
    for (; pf_plane_metric(r->plane, BF_M_broadcasts) == walks; sent++) {
        sleep_ns(o->gap_us * 500 + next_random(r) % (o->gap_us * 1000));
        send_critical(r, o);
    }
    if (!pf_load_round_wait(r->crowd, o->connections, ROUND_SECONDS, &round))
        pf_die("broadcast %u: %" PRIu64 " of %" PRIu64 " frames, %" PRIu64 " bad", number,
               round.frames, o->connections, round.bad);
    *ret_seconds = round.seconds;
    return sent;
}

static void report_latency(struct pf_report *report, const char *name, const struct bf_hist *h)
{
    static const struct {
        const char *name;
        double quantile;
    } rows[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1.0}};
    char key[64];
    snprintf(key, sizeof(key), "%s_samples", name);
    pf_report_u64(report, key, h->count);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        snprintf(key, sizeof(key), "%s_%s_us", name, rows[i].name);
        pf_report_double(report, key, (double)bf_hist_quantile(h, rows[i].quantile) / 1e3);
    }
    pf_report_hist(report, name, h);
}

static void measure(struct run *r, const struct options *o, struct pf_report *report)
{
    static struct bf_hist idle, busy;
    double seconds[PF_ROUNDS_MAX];
    uint64_t sent = 0;
    for (uint32_t i = 0; i < IDLE_MESSAGES; i++) {
        send_critical(r, o);
        sleep_ns(o->gap_us * 500 + next_random(r) % (o->gap_us * 1000));
    }
    wait_samples(r, IDLE_MESSAGES);
    pf_load_latency(r->measured, &idle);
    report_latency(report, "idle", &idle);
    pf_load_latency_reset(r->measured);
    for (uint32_t i = 0; i < o->rounds; i++) {
        sent += broadcast_round(r, o, i, &seconds[i]);
        pf_say("broadcast %u: %.2f s, %" PRIu64 " critical messages so far", i, seconds[i], sent);
        sleep_ns(SETTLE_MS * 1000000ull);
    }
    wait_samples(r, sent);
    pf_load_latency(r->measured, &busy);
    report_latency(report, "critical", &busy);
    pf_report_list(report, "broadcast_seconds", seconds, (uint32_t)o->rounds);
    double p99_us = (double)bf_hist_quantile(&busy, 0.99) / 1e3;
    pf_report_bool(report, "stretch_500us", p99_us <= STRETCH_US);
    pf_report_bar(report, "P8", p99_us / 1e3, "ms", PF_AT_MOST, P8_MS);
}

static struct pf_load *connect_some(const struct pf_plane *plane, uint32_t first, uint32_t count,
                                    bool realtime)
{
    struct pf_load_spec spec = {.host = "127.0.0.1",
                                .port = pf_plane_port(plane),
                                .connections = count,
                                .user_prefix = "prio-",
                                .first_user = first,
                                .connect_frame = CONNECT_FRAME,
                                .core = CLIENT_CORE,
                                .realtime = realtime,
                                .on_message = realtime ? on_message : NULL};
    spec.jwt_secret = pf_plane_secret(plane, &spec.jwt_secret_len);
    struct pf_load *load = pf_load_start(&spec);
    if (!pf_load_wait_open(load, OPEN_SECONDS))
        pf_die("not all connected");
    return load;
}

/* The producer too must not wait for the busy client between its stamp and its enqueue. */
static void raise_priority(void)
{
    struct sched_param param = {.sched_priority = 5};
    if (sched_setscheduler(0, SCHED_FIFO, &param) != 0)
        pf_say("no real-time priority: latencies include the producer's own waiting");
}

static void options_read(int argc, char **argv, struct options *o)
{
    const struct pf_option table[] = {
        {"--connections", &o->connections, NULL, NULL, "connections that get the broadcast"},
        {"--measured", &o->measured, NULL, NULL, "connections that get critical messages"},
        {"--rounds", &o->rounds, NULL, NULL, "broadcasts"},
        {"--gap", &o->gap_us, NULL, NULL, "mean time between critical messages, us"},
        {0},
    };
    pf_args(argc, argv, table);
    if (o->connections == 0 || o->measured == 0 || o->measured > 1000)
        pf_die("--measured: 1 to 1000");
    if (o->rounds == 0 || o->rounds > PF_ROUNDS_MAX || o->gap_us == 0)
        pf_die("--rounds: 1 to %u", PF_ROUNDS_MAX);
}

int main(int argc, char **argv)
{
    struct options o = {.connections = 200000, .measured = 64, .rounds = 3, .gap_us = 1000};
    struct run r = {.random = 88172645463325252ull};
    static struct pf_floor floor;
    char yaml[512];
    options_read(argc, argv, &o);
    struct pf_report *report = pf_report_create("ws-priority");
    pf_floor_wake(&floor);
    snprintf(yaml, sizeof(yaml),
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: %" PRIu64 "\n"
             "  ring_connections_max: 18000\n",
             SERVER_CORE, o.connections + o.measured + SLOTS_SPARE);
    r.plane = pf_plane_start(yaml, false, CLIENT_CORE);
    r.users = calloc(o.measured, sizeof(*r.users));
    if (!r.users)
        pf_die("out of memory");
    for (uint32_t i = 0; i < o.measured; i++) {
        char user[32];
        snprintf(user, sizeof(user), "prio-%u", MEASURED_FIRST + i);
        r.users[i] = pf_plane_user(r.plane, user);
    }
    r.crowd = connect_some(r.plane, 0, (uint32_t)o.connections, false);
    r.measured = connect_some(r.plane, MEASURED_FIRST, (uint32_t)o.measured, true);
    pf_report_u64(report, "N", o.connections);
    pf_report_u64(report, "payload", PAYLOAD);
    pf_report_u64(report, "measured_connections", o.measured);
    int fd = pf_tcp_connect("127.0.0.1", pf_plane_port(r.plane));
    if (fd >= 0)
        pf_report_congestion(report, fd);
    raise_priority();
    measure(&r, &o, report);
    pf_load_stop(r.crowd);
    pf_load_stop(r.measured);
    pf_plane_stop(r.plane);
    free(r.users);
    pf_floor_wake(&floor);
    pf_floor_report(&floor, report);
    return pf_report_print(report);
}
