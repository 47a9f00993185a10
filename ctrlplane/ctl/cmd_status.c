/* belfryctl status, top, connections: how the node is, and what moves through it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "belfry/base/time.h"
#include "ctl/ctl.h"

#define INTERVAL_MAX_S 3600u

static const char *const lanes[] = {"critical", "normal", "bulk"};
#define LANES (sizeof(lanes) / sizeof(lanes[0]))

/* Fetches a call's JSON; BF_CTL_OK, or an exit code after saying why. */
static int fetch(struct bf_ctl *ctl, const char *path, struct bf_reply *reply)
{
    if (!bf_ctl_call(ctl, "GET", path, NULL, reply))
        return BF_CTL_FAILED;
    if (reply->status == 200 && reply->json)
        return BF_CTL_OK;
    int code = bf_ctl_refused(reply);
    bf_reply_free(reply);
    return code;
}

static uint64_t funnel(yyjson_val *root, const char *lane, const char *stage)
{
    char path[64];
    snprintf(path, sizeof(path), "funnel.%s.%s", lane, stage);
    return bf_json_number(root, path);
}

static const char *yes_no(yyjson_val *root, const char *member)
{
    return yyjson_get_bool(yyjson_obj_get(root, member)) ? "yes" : "NO";
}

static unsigned long long number(yyjson_val *root, const char *path)
{
    return (unsigned long long)bf_json_number(root, path);
}

static void print_funnel(yyjson_val *root)
{
    static const char *const stages[] = {"accepted",  "stored",     "dispatched", "sent",
                                         "delivered", "suppressed", "opened",     "failed"};
    printf("\n%-9s", "lane");
    for (size_t s = 0; s < sizeof(stages) / sizeof(stages[0]); s++)
        printf(" %11s", stages[s]);
    for (size_t lane = 0; lane < LANES; lane++) {
        printf("\n%-9s", lanes[lane]);
        for (size_t s = 0; s < sizeof(stages) / sizeof(stages[0]); s++)
            printf(" %11llu", (unsigned long long)funnel(root, lanes[lane], stages[s]));
    }
    putchar('\n');
}

static void print_dlq(yyjson_val *root)
{
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    unsigned long long total = 0;
    yyjson_obj_foreach (yyjson_obj_get(root, "dlq"), i, max, key, val)
        total += yyjson_get_uint(val);
    printf("dead letters        %llu%s\n", total, total ? " (belfryctl dlq list)" : "");
}

/* 20 digits at most, or what stands for a lag that nobody can know. */
#define LAG_BYTES 24u

static void word_lag(yyjson_val *root, char out[LAG_BYTES], const char *unknown)
{
    if (yyjson_is_uint(yyjson_obj_get(root, "lag_events")))
        snprintf(out, LAG_BYTES, "%llu", number(root, "lag_events"));
    else
        snprintf(out, LAG_BYTES, "%s", unknown);
}

static void print_status(yyjson_val *root)
{
    printf("ready               %s\n", yes_no(root, "ready"));
    printf("dataplane attached  %s (generation %s, %llu workers, attach %llu)\n",
           yes_no(root, "dataplane_attached"), bf_json_text(root, "dataplane.generation"),
           number(root, "dataplane.workers"), number(root, "dataplane.attaches"));
    printf("presence known      %s\n", yes_no(root, "presence_known"));
    printf("log takes events    %s (%s)\n", yes_no(root, "log_can_append"),
           bf_json_text(root, "log"));
    printf("connections         %llu\n", number(root, "dataplane.connections"));
    printf("users               %llu\n", number(root, "users"));
    char lag[LAG_BYTES];
    word_lag(root, lag, "not known:");
    printf("lag                 %s events, oldest open %llu ms, %llu in flight\n", lag,
           number(root, "oldest_open_ms"), number(root, "inflight"));
    printf("blocks free         %llu of %llu\n", number(root, "blocks.free"),
           number(root, "blocks.total"));
    printf("disk free           %llu of %llu MiB\n", number(root, "disk.free") >> 20,
           number(root, "disk.size") >> 20);
    print_dlq(root);
    printf("uptime              %llu s, version %s, pid %llu\n", number(root, "uptime_s"),
           bf_json_text(root, "version"), number(root, "pid"));
    print_funnel(root);
    bf_ctl_print_channels(root);
}

int bf_ctl_status(struct bf_ctl *ctl, struct bf_args *args)
{
    struct bf_reply reply;
    if (!bf_args_done(args))
        return BF_CTL_USAGE;
    int code = fetch(ctl, "/admin/status", &reply);
    if (code != BF_CTL_OK)
        return code;
    if (ctl->is_json)
        bf_ctl_print_body(&reply);
    else
        print_status(yyjson_doc_get_root(reply.json));
    bf_reply_free(&reply);
    return BF_CTL_OK;
}

/* ---- top ---- */

/* What top compares between two looks. */
struct sample {
    uint64_t at_ns;
    uint64_t accepted[LANES], dispatched[LANES], delivered[LANES];
    uint64_t frames, acks, requests;
    char lag[LAG_BYTES]; /* "null": not known */
    uint64_t connections, inflight, p50_us, p99_us;
};

static void take_sample(yyjson_val *root, struct sample *s)
{
    s->at_ns = bf_mono_ns();
    for (size_t i = 0; i < LANES; i++) {
        s->accepted[i] = funnel(root, lanes[i], "accepted");
        s->dispatched[i] = funnel(root, lanes[i], "dispatched");
        s->delivered[i] = funnel(root, lanes[i], "delivered");
    }
    s->frames = bf_json_number(root, "dataplane.frames_sent");
    s->acks = bf_json_number(root, "dataplane.acks");
    s->requests = bf_json_number(root, "counters.http_requests");
    s->connections = bf_json_number(root, "dataplane.connections");
    word_lag(root, s->lag, "null");
    s->inflight = bf_json_number(root, "inflight");
    s->p50_us = bf_json_number(root, "stages.total.critical.p50_us");
    s->p99_us = bf_json_number(root, "stages.total.critical.p99_us");
}

static uint64_t sum(const uint64_t values[LANES])
{
    uint64_t total = 0;
    for (size_t i = 0; i < LANES; i++)
        total += values[i];
    return total;
}

/* Per second; a counter that went back (the process restarted) counts from zero. */
static unsigned long long rate(uint64_t before, uint64_t now, double seconds)
{
    uint64_t delta = now >= before ? now - before : now;
    return (unsigned long long)((double)delta / seconds);
}

static void print_sample(bool is_json, const struct sample *a, const struct sample *b)
{
    double s = (double)(b->at_ns - a->at_ns) / 1e9;
    const char *format =
        is_json ? "{\"accepted_per_s\":%llu,\"dispatched_per_s\":%llu,\"delivered_per_s\":%llu,"
                  "\"frames_per_s\":%llu,\"requests_per_s\":%llu,\"connections\":%llu,"
                  "\"lag_events\":%s,\"inflight\":%llu,\"p50_us\":%llu,\"p99_us\":%llu}\n"
                : "%10llu %10llu %10llu %10llu %10llu %10llu %8s %8llu %8llu %8llu\n";
    printf(format, rate(sum(a->accepted), sum(b->accepted), s),
           rate(sum(a->dispatched), sum(b->dispatched), s),
           rate(sum(a->delivered), sum(b->delivered), s), rate(a->frames, b->frames, s),
           rate(a->requests, b->requests, s), (unsigned long long)b->connections, b->lag,
           (unsigned long long)b->inflight, (unsigned long long)b->p50_us,
           (unsigned long long)b->p99_us);
    fflush(stdout);
}

static int look(struct bf_ctl *ctl, struct sample *s)
{
    struct bf_reply reply;
    int code = fetch(ctl, "/admin/status", &reply);
    if (code == BF_CTL_OK) {
        take_sample(yyjson_doc_get_root(reply.json), s);
        bf_reply_free(&reply);
    }
    return code;
}

int bf_ctl_top(struct bf_ctl *ctl, struct bf_args *args)
{
    uint64_t interval_s = 1;
    uint64_t count = UINT64_MAX;
    struct sample before;
    struct sample now;
    if (!bf_args_number(args, "interval", 1, INTERVAL_MAX_S, &interval_s) ||
        !bf_args_number(args, "count", 1, UINT64_MAX, &count) || !bf_args_done(args))
        return BF_CTL_USAGE;
    int code = look(ctl, &before);
    for (uint64_t i = 0; code == BF_CTL_OK && i < count; i++) {
        if (!ctl->is_json && i % 20 == 0)
            printf("%10s %10s %10s %10s %10s %10s %8s %8s %8s %8s\n", "accepted/s", "dispatch/s",
                   "deliver/s", "frames/s", "requests/s", "conns", "lag", "inflight", "p50 us",
                   "p99 us");
        nanosleep(&(struct timespec){.tv_sec = (time_t)interval_s}, NULL);
        code = look(ctl, &now);
        if (code == BF_CTL_OK)
            print_sample(ctl->is_json, &before, &now);
        before = now;
    }
    return code;
}

/* ---- connections ---- */

static void print_connections(yyjson_val *root)
{
    size_t i;
    size_t max;
    yyjson_val *row;
    printf("%-24s %-16s %6s  %-24s %12s %12s\n", "user", "device", "worker", "connected", "sent",
           "acked");
    yyjson_arr_foreach (yyjson_obj_get(root, "connections"), i, max, row) {
        const char *device = bf_json_text(row, "device");
        printf("%-24s %-16s %6llu  %-24s %12llu %12llu\n", bf_json_text(row, "user_id"),
               device[0] ? device : bf_json_text(row, "device_hash"), number(row, "worker"),
               bf_json_text(row, "connected_at"), number(row, "sent.normal"),
               number(row, "acked.normal"));
    }
    printf("%llu connections%s%s\n", number(root, "count"),
           bf_json_text(root, "presence")[0] ? ", presence " : "", bf_json_text(root, "presence"));
}

int bf_ctl_connections(struct bf_ctl *ctl, struct bf_args *args)
{
    struct bf_out path = {0};
    struct bf_reply reply;
    const char *user = bf_args_option(args, "user");
    uint64_t limit = 100;
    size_t len;
    if (!bf_args_number(args, "limit", 1, 10000, &limit) || !bf_args_done(args))
        return BF_CTL_USAGE;
    bf_out_print(&path, "/admin/connections?limit=%llu", (unsigned long long)limit);
    if (user) {
        bf_out_text(&path, "&user_id=");
        bf_out_percent(&path, user);
    }
    char *text = bf_out_take(&path, &len);
    int code = text ? fetch(ctl, text, &reply) : BF_CTL_FAILED;
    free(text);
    if (code != BF_CTL_OK)
        return code;
    if (ctl->is_json)
        bf_ctl_print_body(&reply);
    else
        print_connections(yyjson_doc_get_root(reply.json));
    bf_reply_free(&reply);
    return BF_CTL_OK;
}
