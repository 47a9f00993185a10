/*
 * Several messages queued for every connection at once: P7, frames a second delivered. They leave
 * in one send a connection, so a burst of ten costs little more than one frame. Three kinds of
 * round alternate over the same sockets: raw (all frames' bytes in one io_uring send, worker/raw.h:
 * the floor), ten broadcasts published together (the bar), ten messages to each user by itself
 * (180,000 commands, printed beside it).
 *
 * A round counts from before the enqueue to the last client's last frame. Each client checks the
 * bytes and the order of what it gets. Worker on core 0, clients and producer on core 1.
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
#define PAYLOAD_MIN   64u
#define PAYLOAD_MAX   1024u
#define P7_FRAMES     1.5e6
#define CONNECT_FRAME "{\"t\":\"connect\"}"
/* "rRRRRRRmMM" and then filling: at fixed places, for a client that reads a million a second. */
#define HEAD_BYTES 10u

enum kind { RAW = 0, BROADCAST = 1, TARGETED = 2, KIND_COUNT };
static const char *const kind_names[KIND_COUNT] = {"raw", "broadcast", "targeted"};

struct options {
    uint64_t connections, messages, payload, rounds;
};

struct sample {
    double rate, cpu_us, sends; /* CPU and sends a frame */
};

/* What the clients' callback needs; the parent makes it before the fork, each child has its own
 * copy. */
struct expect {
    uint8_t *next;   /* by connection: number of the message that must come */
    uint32_t *round; /* by connection: round of the burst under way */
    uint32_t messages;
    size_t payload;
};

static struct expect expect;

static uint32_t digits(const uint8_t *at, unsigned count)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < count; i++)
        value = value * 10 + (uint32_t)(at[i] - '0');
    return value;
}

static bool is_filling(const uint8_t *data, size_t len)
{
    return data[HEAD_BYTES] == 'x' &&
           memcmp(data + HEAD_BYTES, data + HEAD_BYTES + 1, len - HEAD_BYTES - 1) == 0;
}

/* In a child: right length, filling and place in its burst. */
static bool on_message(void *ctx, const struct pf_load_conn *conn,
                       struct pf_load_counters *counters, const uint8_t *data, size_t len,
                       uint64_t now_ns)
{
    struct expect *e = ctx;
    if (len != e->payload || data[0] != 'r' || data[7] != 'm' || !is_filling(data, len))
        return false;
    uint32_t round = digits(data + 1, 6), number = digits(data + 8, 2);
    bool good = number == e->next[conn->index] && (number == 0 || round == e->round[conn->index]);
    e->round[conn->index] = round;
    e->next[conn->index] = (uint8_t)((number + 1) % e->messages);
    atomic_store_explicit(&counters->round_last_ns, now_ns, memory_order_relaxed);
    return good;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static void payloads_make(char *out, const struct options *o, uint32_t round)
{
    for (uint32_t i = 0; i < o->messages; i++) {
        char head[HEAD_BYTES + 1];
        char *at = out + o->payload * i;
        memset(at, 'x', o->payload);
        snprintf(head, sizeof(head), "r%06um%02u", round % 1000000, i % 100);
        memcpy(at, head, HEAD_BYTES);
    }
}

static void to_each_user(struct pf_plane *plane, const struct options *o, const char *payloads)
{
    for (uint32_t i = 0; i < o->connections; i++) {
        char user[32];
        snprintf(user, sizeof(user), "burst-%u", i);
        struct bf_user_key key = pf_plane_user(plane, user);
        while (!pf_plane_notify_burst(plane, key, payloads, o->payload, (uint32_t)o->messages))
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
    }
}

static void trigger(struct pf_plane *plane, const struct options *o, enum kind kind,
                    const char *payloads)
{
    uint32_t count = (uint32_t)o->messages;
    bool sent = true;
    if (kind == TARGETED)
        to_each_user(plane, o, payloads);
    else if (kind == BROADCAST)
        sent = pf_plane_broadcast_burst(plane, payloads, o->payload, count);
    else
        sent = pf_plane_raw_burst(plane, payloads, o->payload, count, BF_RAW_URING);
    if (!sent)
        pf_die("no room in the ring");
}

static struct sample round_run(struct pf_plane *plane, struct pf_load *load,
                               const struct options *o, enum kind kind, uint32_t number)
{
    static char payloads[PF_BURST_MAX * PAYLOAD_MAX];
    double frames = (double)(o->connections * o->messages);
    payloads_make(payloads, o, number);
    struct pf_load_totals before = pf_load_totals(load);
    uint64_t cpu = pf_proc_cpu_ns(pf_plane_pid(plane));
    uint64_t sends = pf_plane_metric(plane, BF_M_sends);
    uint64_t start = bf_mono_ns(), deadline = start + (uint64_t)(ROUND_SECONDS * 1e9);
    struct pf_load_totals now;
    trigger(plane, o, kind, payloads);
    do {
        sleep_ms(1);
        now = pf_load_totals(load);
    } while (now.frames - before.frames < o->connections * o->messages && bf_mono_ns() < deadline);
    if (now.frames - before.frames != o->connections * o->messages || now.bad > before.bad)
        pf_die("%s round %u: %" PRIu64 " of %.0f frames, %" PRIu64 " bad", kind_names[kind], number,
               now.frames - before.frames, frames, now.bad - before.bad);
    struct sample s = {.rate = frames / ((double)(now.round_last_ns - start) / 1e9)};
    sleep_ms(SETTLE_MS); /* completions that are still to be taken count too */
    s.cpu_us = (double)(pf_proc_cpu_ns(pf_plane_pid(plane)) - cpu) / frames / 1e3;
    s.sends = (double)(pf_plane_metric(plane, BF_M_sends) - sends) / frames;
    pf_say("%-9s %u: %.0f frames/s, %.2f us CPU and %.3f sends a frame", kind_names[kind], number,
           s.rate, s.cpu_us, s.sends);
    return s;
}

static void report_kind(struct pf_report *report, enum kind kind, const struct sample *s,
                        uint32_t n)
{
    double rate[PF_ROUNDS_MAX], cpu[PF_ROUNDS_MAX], sends[PF_ROUNDS_MAX];
    char name[64];
    for (uint32_t i = 0; i < n; i++) {
        rate[i] = s[i].rate;
        cpu[i] = s[i].cpu_us;
        sends[i] = s[i].sends;
    }
    snprintf(name, sizeof(name), "%s_frames_per_s", kind_names[kind]);
    pf_report_list(report, name, rate, n);
    snprintf(name, sizeof(name), "%s_cpu_us_per_frame", kind_names[kind]);
    pf_report_double(report, name, pf_median(cpu, n));
    snprintf(name, sizeof(name), "%s_sends_per_frame", kind_names[kind]);
    pf_report_double(report, name, pf_median(sends, n));
}

static void report_all(struct pf_report *report, struct sample s[KIND_COUNT][PF_ROUNDS_MAX],
                       uint32_t n)
{
    double rate[PF_ROUNDS_MAX], ratio[PF_ROUNDS_MAX];
    for (int kind = 0; kind < KIND_COUNT; kind++)
        report_kind(report, (enum kind)kind, s[kind], n);
    for (uint32_t i = 0; i < n; i++) {
        rate[i] = s[BROADCAST][i].rate;
        ratio[i] = s[BROADCAST][i].rate / s[RAW][i].rate;
    }
    pf_report_list(report, "ratio_to_raw", ratio, n);
    pf_report_bar(report, "P7", pf_median(rate, n), "frames/s", PF_AT_LEAST, P7_FRAMES);
}

static void options_read(int argc, char **argv, struct options *o)
{
    const struct pf_option table[] = {
        {"--connections", &o->connections, NULL, NULL, "connections"},
        {"--messages", &o->messages, NULL, NULL, "messages queued for each"},
        {"--payload", &o->payload, NULL, NULL, "bytes of a message"},
        {"--rounds", &o->rounds, NULL, NULL, "rounds of each kind that count"},
        {0},
    };
    pf_args(argc, argv, table);
    if (o->connections == 0 || o->messages == 0 || o->messages > PF_BURST_MAX)
        pf_die("--messages: 1 to %u", PF_BURST_MAX);
    if (o->payload < PAYLOAD_MIN || o->payload > PAYLOAD_MAX)
        pf_die("--payload: %u to %u", PAYLOAD_MIN, PAYLOAD_MAX);
    if (o->rounds == 0 || o->rounds > PF_ROUNDS_MAX)
        pf_die("--rounds: 1 to %u", PF_ROUNDS_MAX);
}

int main(int argc, char **argv)
{
    static struct sample samples[KIND_COUNT][PF_ROUNDS_MAX];
    struct options o = {.connections = 18000, .messages = 10, .payload = 64, .rounds = 5};
    char yaml[512];
    options_read(argc, argv, &o);
    struct pf_report *report = pf_report_create("ws-burst");
    snprintf(yaml, sizeof(yaml),
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: %" PRIu64 "\n"
             "  ring_connections_max: 18000\n",
             SERVER_CORE, o.connections + SLOTS_SPARE);
    struct pf_plane *plane = pf_plane_start(yaml, true, CLIENT_CORE);
    struct pf_load_spec spec = {.host = "127.0.0.1",
                                .port = pf_plane_port(plane),
                                .connections = (uint32_t)o.connections,
                                .user_prefix = "burst-",
                                .connect_frame = CONNECT_FRAME,
                                .core = CLIENT_CORE,
                                .on_message = on_message,
                                .ctx = &expect};
    spec.jwt_secret = pf_plane_secret(plane, &spec.jwt_secret_len);
    expect = (struct expect){.next = calloc(o.connections, 1),
                             .round = calloc(o.connections, sizeof(uint32_t)),
                             .messages = (uint32_t)o.messages,
                             .payload = o.payload};
    if (!expect.next || !expect.round)
        pf_die("out of memory");
    struct pf_load *load = pf_load_start(&spec);
    if (!pf_load_wait_open(load, OPEN_SECONDS))
        pf_die("not all connected");
    for (uint32_t i = 0; i <= o.rounds; i++) { /* round 0 warms up and is thrown away */
        for (int kind = 0; kind < KIND_COUNT; kind++) {
            struct sample s =
                round_run(plane, load, &o, (enum kind)kind, i * KIND_COUNT + (uint32_t)kind);
            if (i > 0)
                samples[kind][i - 1] = s;
        }
    }
    pf_report_u64(report, "N", o.connections);
    pf_report_u64(report, "messages", o.messages);
    pf_report_u64(report, "payload", o.payload);
    pf_report_u64(report, "rounds", o.rounds);
    int fd = pf_tcp_connect("127.0.0.1", pf_plane_port(plane));
    if (fd >= 0)
        pf_report_congestion(report, fd);
    report_all(report, samples, (uint32_t)o.rounds);
    pf_load_stop(load);
    pf_plane_stop(plane);
    return pf_report_print(report);
}
