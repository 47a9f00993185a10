/*
 * Control plane's enqueue to the moment (P9) before the io_uring_enter that carries the
 * send, one message at a time, worker awake (busy_poll), planes on different cores. Each command
 * carries the time of its enqueue (BF_FRAME_STAMPED); the worker adds the difference at its submit
 * to command_to_send_ns.
 *
 * The frame goes to a real connection and is counted there; the next one is sent only then.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "belfry/base/time.h"
#include "pf_args.h"
#include "pf_http.h"
#include "pf_load.h"
#include "pf_plane.h"
#include "pf_report.h"

#define SERVER_CORE   0
#define CLIENT_CORE   1
#define WARM_UP       1000u
#define OPEN_SECONDS  20.0
#define FRAME_SECONDS 5.0
#define P9_US         2.0
#define CONNECT_FRAME "{\"t\":\"connect\"}"
#define USERS         64u

struct options {
    uint64_t messages, payload, gap_us;
};

static void wait_frames(const struct pf_load *load, uint64_t frames)
{
    uint64_t deadline = bf_mono_ns() + (uint64_t)(FRAME_SECONDS * 1e9);
    while (pf_load_totals(load).frames < frames) {
        if (bf_mono_ns() > deadline)
            pf_die("a message did not arrive");
        nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
    }
}

static void hist_clear(struct bf_hist *h)
{
    /* the worker is idle between messages: nobody writes */
    memset((void *)h, 0, sizeof(*h));
}

/* Sends |count| messages one at a time, round robin over users. */
static void send_all(struct pf_plane *plane, const struct pf_load *load, const struct options *o,
                     uint64_t count)
{
    static char payload[65536];
    uint64_t before = pf_load_totals(load).frames;
    memset(payload, 'x', sizeof(payload));
    for (uint64_t i = 0; i < count; i++) {
        char user[32];
        snprintf(user, sizeof(user), "hop-%" PRIu64, i % USERS);
        if (!pf_plane_notify_stamped(plane, pf_plane_user(plane, user), payload, o->payload))
            pf_die("no room in the ring");
        wait_frames(load, before + i + 1);
        if (o->gap_us > 0)
            nanosleep(&(struct timespec){.tv_nsec = (long)o->gap_us * 1000}, NULL);
    }
}

static void figures(struct pf_report *report, const char *name, const struct bf_hist *h)
{
    static const struct {
        const char *name;
        double quantile;
    } rows[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1.0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char key[64];
        snprintf(key, sizeof(key), "%s_%s_ns", name, rows[i].name);
        pf_report_u64(report, key, bf_hist_quantile(h, rows[i].quantile));
    }
}

int main(int argc, char **argv)
{
    struct options o = {.messages = 20000, .payload = 64, .gap_us = 0};
    const struct pf_option table[] = {
        {"--messages", &o.messages, NULL, NULL, "messages that count"},
        {"--payload", &o.payload, NULL, NULL, "bytes of a message"},
        {"--gap", &o.gap_us, NULL, NULL, "pause between messages, us"},
        {0},
    };
    char yaml[256];
    pf_args(argc, argv, table);
    if (o.payload == 0 || o.payload > 65536)
        pf_die("--payload: 1 to 65536");
    struct pf_report *report = pf_report_create("hop");
    snprintf(yaml, sizeof(yaml),
             "dataplane:\n  workers: 1\n  first_core: %d\n  connections_max: 1000\n"
             "  busy_poll: true\n",
             SERVER_CORE);
    struct pf_plane *plane = pf_plane_start(yaml, false, CLIENT_CORE);
    size_t secret_len;
    const char *secret = pf_plane_secret(plane, &secret_len);
    struct pf_load_spec spec = {.host = "127.0.0.1",
                                .port = pf_plane_port(plane),
                                .connections = USERS,
                                .user_prefix = "hop-",
                                .jwt_secret = secret,
                                .jwt_secret_len = secret_len,
                                .connect_frame = CONNECT_FRAME,
                                .core = CLIENT_CORE};
    struct pf_load *load = pf_load_start(&spec);
    if (!pf_load_wait_open(load, OPEN_SECONDS))
        pf_die("not all connected");
    struct bf_hist *h = &pf_plane_stats(plane)->command_to_send_ns;
    send_all(plane, load, &o, WARM_UP);
    hist_clear(h);
    send_all(plane, load, &o, o.messages);
    pf_report_u64(report, "N", o.messages);
    pf_report_u64(report, "payload", o.payload);
    pf_report_u64(report, "samples", bf_hist_quantile(h, 0) ? h->count : 0);
    int fd = pf_tcp_connect("127.0.0.1", pf_plane_port(plane));
    if (fd >= 0)
        pf_report_congestion(report, fd);
    figures(report, "awake", h);
    pf_report_bar(report, "P9", (double)bf_hist_quantile(h, 0.99) / 1e3, "us", PF_AT_MOST, P9_US);
    pf_load_stop(load);
    pf_plane_stop(plane);
    return pf_report_print(report);
}
