/*
 * Push (P13): 1 M distinct tokens, 256 B of JSON each, from the command in the ring to the receipt
 * in the ring, over TLS to belfry-sim's APNs on the other core. A push costs what the dataplane's
 * process spends of CPU; the rate of a core is its reciprocal, since the simulator and this program
 * share the other core and may be what limits the wall's rate, which is given beside it.
 *
 * The simulator must not be what is measured. Its capacity is what it answers in a second of its
 * own CPU in the same run; over the wall's rate that is its headroom. h2load's rate with the same
 * simulator is given beside it, where it is installed; it is h2load's limit too.
 *
 * --peer apns2,gorush runs other people's clients afterwards, in the dataplane's place: the same
 * simulator and tokens, JSON of the same size, CPU of their process a push. Where gorush cannot be
 * had, sideshow/apns2, which it sends with, takes its place.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/histogram.h"
#include "belfry/base/time.h"
#include "pf_args.h"
#include "pf_load.h"
#include "pf_plane.h"
#include "pf_proc.h"
#include "pf_pusher.h"
#include "pf_report.h"
#include "pf_sim.h"

#define DATAPLANE_CORE 0
#define OTHER_CORE     1
#define P13_RATE       150000.0
#define P13_HEADROOM   1.3
#define POOL           1u
#define OPEN_SECONDS   20.0
#define STALL_SECONDS  20.0
#define BATCH          64u
/* A peer's pushes under way: below the streams that one connection is allowed. */
#define PEER_UNDER_WAY 900u
#define PEER_WARM      2000u

struct options {
    uint64_t pushes, payload, connections, in_flight, streams, peer_pushes;
    const char *peer;
};

struct run {
    _Atomic uint64_t done;
    _Atomic uint64_t ends[BF_PUSH_END_COUNT];
    _Atomic uint64_t good;
    _Atomic uint32_t open;
    char text[256];
    struct bf_hist answer_us;
};

static void take(void *context, uint16_t kind, const uint8_t *bytes, uint32_t len)
{
    struct run *run = context;
    struct bf_rcpt_push push;
    struct bf_rcpt_pool pool;
    if (kind == BF_RCPT_POOL && len >= sizeof(pool)) {
        memcpy(&pool, bytes, sizeof(pool));
        snprintf(run->text, sizeof(run->text), "%.*s", (int)pool.text_len,
                 (const char *)bytes + sizeof(pool));
        atomic_store(&run->open, pool.connections);
    }
    if (kind != BF_RCPT_PUSH || len < sizeof(push))
        return;
    memcpy(&push, bytes, sizeof(push));
    atomic_fetch_add(&run->ends[push.end < BF_PUSH_END_COUNT ? push.end : BF_PUSH_UNKNOWN], 1);
    atomic_fetch_add(&run->good, push.end == BF_PUSH_ANSWERED && push.status == 200);
    bf_hist_add(&run->answer_us, push.answer_us);
    atomic_fetch_add(&run->done, 1);
}

/* What a run took, read before and after it. */
struct taken {
    uint64_t good, cpu_ns, simulator_ns, own_ns, wall_ns, sent_bytes, sends;
};

struct request {
    uint64_t number;
    size_t payload;
    size_t len;
    uint8_t bytes[BF_PUSH_REQUEST_BYTES_MAX];
};

static void put_field(struct bf_writer *w, const char *name, const char *value)
{
    bf_put_u8(w, (uint8_t)strlen(name));
    bf_put_raw(w, name, strlen(name));
    bf_put_str16(w, (struct bf_bytes){value, strlen(value)});
}

/* As APNs wants it: a token of its own, the fields that an alert has, JSON of the size asked for.
 */
static void build(struct request *r)
{
    struct bf_writer w = {.buf = r->bytes, .cap = sizeof(r->bytes)};
    char path[96], id[40], body[BF_PUSH_REQUEST_BYTES_MAX];
    int n = snprintf(path, sizeof(path), "/3/device/%016" PRIx64 "%048x",
                     r->number * 0x9e3779b97f4a7c15u, (unsigned)r->number);
    bf_put_str16(&w, (struct bf_bytes){path, (size_t)n});
    snprintf(id, sizeof(id), "%08x-0000-4000-8000-%012" PRIx64, (unsigned)r->number, r->number);
    bf_put_u8(&w, 5);
    put_field(&w, "apns-topic", "com.example.app");
    put_field(&w, "apns-push-type", "alert");
    put_field(&w, "apns-priority", "10");
    put_field(&w, "apns-expiration", "1900000000");
    put_field(&w, "apns-id", id);
    n = snprintf(body, sizeof(body), "{\"aps\":{\"alert\":{\"title\":\"Belfry\",\"body\":\"");
    memset(body + n, 'x', r->payload - (size_t)n);
    memcpy(body + r->payload - 4, "\"}}}", 4);
    bf_put_str32(&w, (struct bf_bytes){body, r->payload});
    r->len = w.len;
}

static void fill(void *context, uint8_t *at)
{
    const struct request *r = context;
    memcpy(at, r->bytes, r->len);
}

static void pause_us(long us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

/* Keeps |in_flight| requests under way until |count| have come back. */
static void send_all(struct pf_plane *plane, struct run *run, const struct options *o,
                     uint64_t first, uint64_t count)
{
    static struct request r;
    uint64_t base = atomic_load(&run->done), sent = 0;
    uint64_t last_done = base, last_ns = bf_mono_ns();
    while (atomic_load(&run->done) - base < count) {
        uint64_t done = atomic_load(&run->done);
        uint32_t batch = 0;
        for (; sent < count && sent - (done - base) < o->in_flight && batch < BATCH; batch++) {
            r.number = first + sent;
            r.payload = o->payload;
            build(&r);
            struct bf_cmd_push cmd = {.push_id = r.number + 1, .pool = POOL};
            if (!pf_plane_push(plane, &cmd, BF_LANE_NORMAL, r.len, fill, &r))
                break;
            sent++;
        }
        pf_plane_flush(plane);
        if (batch == 0)
            pause_us(50);
        if (done != last_done)
            last_ns = bf_mono_ns();
        last_done = done;
        if (bf_mono_ns() - last_ns > (uint64_t)(STALL_SECONDS * 1e9))
            pf_die("no answers any more: %" PRIu64 " of %" PRIu64 " (%s)", done - base, count,
                   run->text);
    }
}

static void wait_open(struct run *run, uint32_t connections)
{
    uint64_t deadline = bf_mono_ns() + (uint64_t)(OPEN_SECONDS * 1e9);
    while (atomic_load(&run->open) < connections) {
        if (bf_mono_ns() > deadline)
            pf_die("%u of %u connections open (%s)", atomic_load(&run->open), connections,
                   run->text);
        pause_us(1000);
    }
}

static void publish_pool(struct pf_plane *plane, const struct pf_sim *sim, const struct options *o)
{
    static uint8_t content[BF_SNAPSHOT_BYTES_MAX];
    struct bf_writer w = {.buf = content, .cap = sizeof(content)};
    const struct pf_pool pool = {.id = POOL,
                                 .connections_min = (uint16_t)o->connections,
                                 .connections_max = (uint16_t)o->connections,
                                 .streams_first = 1,
                                 .ping_idle_ms = 3600000};
    pf_sim_put_pool(sim, &w, &pool);
    bf_put_u16(&w, BF_SNAP_END);
    bf_put_u32(&w, 0);
    pf_plane_snapshot(plane, content, w.len);
}

/* What the simulator takes from h2load, which costs little itself; both on the other core's side:
 * h2load on the dataplane's, which is idle then. 0: there is no h2load. */
static double simulator_limit(const struct pf_sim *sim, const struct options *o)
{
    char command[4096], file[128], line[512];
    double rate = 0;
    snprintf(file, sizeof(file), "%s/body.json", pf_sim_dir(sim));
    FILE *out = fopen(file, "we");
    if (!out)
        return 0;
    fprintf(out, "{\"aps\":{\"alert\":\"%0*d\"}}", (int)o->payload - 22, 0);
    fclose(out);
    snprintf(command, sizeof(command),
             "command -v h2load >/dev/null && taskset -c %d h2load -n 300000 -c %u -m 100 -t 1 "
             "-d '%s' -H 'authorization: %s' -H 'apns-topic: com.example.app' "
             "-H 'apns-push-type: alert' https://127.0.0.1:%u/3/device/%064d 2>/dev/null",
             DATAPLANE_CORE, (unsigned)o->connections, file, pf_sim_authorization(sim),
             pf_sim_apns_port(sim), 7);
    FILE *pipe = popen(command, "r");
    while (pipe && fgets(line, sizeof(line), pipe))
        (void)sscanf(line, "finished in %*[^,], %lf req/s", &rate);
    if (pipe)
        pclose(pipe);
    return rate;
}

static struct taken read_taken(const struct pf_plane *plane, const struct pf_sim *sim,
                               const struct run *run)
{
    return (struct taken){
        .good = atomic_load(&run->good),
        .cpu_ns = pf_proc_cpu_ns(pf_plane_pid(plane)),
        .simulator_ns = pf_proc_cpu_ns(pf_sim_pid(sim)),
        .own_ns = pf_proc_cpu_ns(getpid()),
        .wall_ns = bf_mono_ns(),
        .sent_bytes = pf_plane_metric(plane, BF_M_push_bytes_sent),
        .sends = pf_plane_metric(plane, BF_M_sends),
    };
}

static struct taken difference(struct taken a, struct taken b)
{
    return (struct taken){
        .good = b.good - a.good,
        .cpu_ns = b.cpu_ns - a.cpu_ns,
        .simulator_ns = b.simulator_ns - a.simulator_ns,
        .own_ns = b.own_ns - a.own_ns,
        .wall_ns = b.wall_ns - a.wall_ns,
        .sent_bytes = b.sent_bytes - a.sent_bytes,
        .sends = b.sends - a.sends,
    };
}

static struct taken measure(const struct options *o, struct pf_plane *plane,
                            const struct pf_sim *sim, struct run *run)
{
    uint64_t warm = o->pushes / 20;
    pf_plane_on_receipt(plane, take, run);
    publish_pool(plane, sim, o);
    wait_open(run, (uint32_t)o->connections);
    send_all(plane, run, o, 0, warm);
    struct taken before = read_taken(plane, sim, run);
    send_all(plane, run, o, warm, o->pushes);
    return difference(before, read_taken(plane, sim, run));
}

static void report_run(struct pf_report *report, const struct options *o, const struct taken *t,
                       const struct run *run)
{
    double pushes = (double)o->pushes, wall_s = (double)t->wall_ns / 1e9;
    double core_rate = pushes / ((double)t->cpu_ns / 1e9);
    double simulator_rate = pushes / ((double)t->simulator_ns / 1e9);
    double headroom = simulator_rate / (pushes / wall_s);
    pf_report_u64(report, "N", o->pushes);
    pf_report_u64(report, "payload", o->payload);
    pf_report_u64(report, "connections", o->connections);
    pf_report_u64(report, "in_flight", o->in_flight);
    pf_report_u64(report, "answered_200", t->good);
    pf_report_double(report, "wall_rate", pushes / wall_s);
    pf_report_double(report, "dataplane_us_per_push", (double)t->cpu_ns / 1e3 / pushes);
    pf_report_double(report, "bytes_sent_per_push", (double)t->sent_bytes / pushes);
    pf_report_double(report, "pushes_per_send", pushes / (double)(t->sends ? t->sends : 1));
    pf_report_u64(report, "answer_p50_us", bf_hist_quantile(&run->answer_us, 0.5));
    pf_report_u64(report, "answer_p99_us", bf_hist_quantile(&run->answer_us, 0.99));
    pf_report_double(report, "simulator_us_per_push", (double)t->simulator_ns / 1e3 / pushes);
    pf_report_double(report, "simulator_core_share", (double)t->simulator_ns / (double)t->wall_ns);
    pf_report_double(report, "producer_core_share", (double)t->own_ns / (double)t->wall_ns);
    pf_report_double(report, "simulator_core_rate", simulator_rate);
    pf_report_double(report, "simulator_headroom", headroom);
    pf_report_bar(report, "P13", core_rate, "pushes/s/core", PF_AT_LEAST, P13_RATE);
    pf_report_bar_and(report, "P13", t->good == o->pushes && headroom >= P13_HEADROOM);
}

/* ---- peers ---- */

/* One push alone first: until an answer was good, APNs allows one stream. Then some that do not
 * count, for compilers and windows. Returns CPU microseconds a push; 0: not all were good. */
static double peer_us(struct pf_pusher *pusher, const struct options *o)
{
    const uint64_t counts[] = {1, PEER_WARM, o->peer_pushes};
    uint64_t first = 0, good = 0, cpu = 0, count = 0;
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        count = counts[i];
        if (!pf_pusher_prepare(pusher, first, count))
            return 0;
        cpu = pf_proc_cpu_ns(pf_pusher_pid(pusher));
        good = pf_pusher_run(pusher);
        cpu = pf_proc_cpu_ns(pf_pusher_pid(pusher)) - cpu;
        first += count;
    }
    pf_say("%" PRIu64 " of %" PRIu64 " good", good, count);
    return good == count ? (double)cpu / 1e3 / (double)count : 0;
}

static bool run_peer(struct pf_report *report, const char *name, const struct options *o,
                     const struct pf_sim *sim, double own_us)
{
    char key[64], why[256] = "not every push was answered 200";
    struct pf_pusher *pusher =
        pf_pusher_start(name, DATAPLANE_CORE, sim, o->payload, PEER_UNDER_WAY, why, sizeof(why));
    double us = pusher ? peer_us(pusher, o) : 0;
    snprintf(key, sizeof(key), "%s_us_per_push", name);
    if (pusher)
        pf_pusher_stop(pusher);
    if (us <= 0) {
        pf_report_null(report, key, why);
        return false;
    }
    pf_report_double(report, key, us);
    snprintf(key, sizeof(key), "%s_rate", name);
    pf_report_double(report, key, 1e6 / us);
    snprintf(key, sizeof(key), "ratio_to_%s", name);
    pf_report_double(report, key, us / own_us);
    return true;
}

static void run_peers(struct pf_report *report, const struct options *o, const struct pf_sim *sim,
                      double own_us)
{
    char list[128];
    char *at = NULL;
    snprintf(list, sizeof(list), "%s", o->peer);
    pf_report_u64(report, "peer_pushes", o->peer_pushes);
    for (char *name = strtok_r(list, ",", &at); name; name = strtok_r(NULL, ",", &at))
        if (!run_peer(report, name, o, sim, own_us) && strcmp(name, "gorush") == 0)
            (void)run_peer(report, "sideshow", o, sim, own_us);
}

static void check_peers(const char *peers)
{
    char list[128];
    char *at = NULL;
    snprintf(list, sizeof(list), "%s", peers);
    for (char *name = strtok_r(list, ",", &at); name; name = strtok_r(NULL, ",", &at))
        if (!pf_pusher_is_known(name))
            pf_die("--peer %s: known are apns2, gorush, sideshow", name);
}

int main(int argc, char **argv)
{
    struct options o = {.pushes = 1000000,
                        .payload = 256,
                        .connections = 4,
                        .in_flight = 3000,
                        .streams = 1000,
                        .peer_pushes = 50000,
                        .peer = ""};
    const struct pf_option table[] = {
        {"--pushes", &o.pushes, NULL, NULL, "pushes that count, each to a token of its own"},
        {"--payload", &o.payload, NULL, NULL, "bytes of JSON"},
        {"--connections", &o.connections, NULL, NULL, "HTTP/2 connections"},
        {"--in-flight", &o.in_flight, NULL, NULL, "requests under way"},
        {"--streams", &o.streams, NULL, NULL, "streams that the simulator allows a connection"},
        {"--peer", NULL, &o.peer, NULL, "other clients too: apns2, gorush, sideshow (a list)"},
        {"--peer-pushes", &o.peer_pushes, NULL, NULL, "pushes of each of them"},
        {0},
    };
    static struct run run;
    char yaml[256];
    pf_args(argc, argv, table);
    check_peers(o.peer);
    if (o.payload < 64 || o.payload > 4096 || o.connections == 0 || o.connections > 1000)
        pf_die("--payload: 64 to 4096; --connections: 1 to 1000");
    struct pf_report *report = pf_report_create("push");
    struct pf_sim *sim = pf_sim_start(OTHER_CORE, (uint32_t)o.streams, NULL);
    snprintf(yaml, sizeof(yaml),
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: 1000\n",
             DATAPLANE_CORE);
    struct pf_plane *plane = pf_plane_start(yaml, false, OTHER_CORE);
    struct taken taken = measure(&o, plane, sim, &run);
    pf_plane_stop(plane);
    report_run(report, &o, &taken, &run);
    pf_report_double(report, "simulator_h2load_rate", simulator_limit(sim, &o));
    if (o.peer[0] != '\0')
        run_peers(report, &o, sim, (double)taken.cpu_ns / 1e3 / (double)o.pushes);
    pf_sim_stop(sim);
    return pf_report_print(report);
}
