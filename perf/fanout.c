/*
 * P14 fanout: events -> per-recipient deliveries with every check of the chain that this build has
 * (de-duplication against the embedded store, preferences at every level, expiry, presence), 20% of
 * them suppressed by preferences. The decision stage on a shard's own thread: each event's leg is
 * decided and its rows are put into the store batch. Writing the batch is counted apart; the figure
 * with the writes is printed beside it. CPU of the shard thread only.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "belfry/conf/conf_load.h"
#include "fanout/calls.h"
#include "fanout/core_state.h"
#include "fanout/gather.h"
#include "pf_report.h"
#include "pipeline/open_event.h"
#include "stats/metrics.h"

#define USERS          200000u
#define EVENTS         1000000u
#define SUPPRESS_EVERY 5u
#define BAR_PER_S      500000.0

struct bench {
    struct bf_core *core;
    struct bf_event **events;
    double decide_s, write_s;
    uint64_t decided;
};

static double thread_cpu_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void settled(struct bf_open_event *open)
{
    bf_open_event_free(open);
}

static struct bf_event *make_event(uint32_t number)
{
    char json[400];
    struct bf_event *event;
    struct bf_problem problem;
    struct bf_event_meta meta = {.source = BF_SOURCE_KAFKA, .accepted_ms = 1, .offset = number};
    snprintf(meta.producer, sizeof(meta.producer), "perf");
    meta.accepted_ms = (uint64_t)time(NULL) * 1000;
    int n =
        snprintf(json, sizeof(json),
                 "{\"id\":\"e%u\",\"source\":\"perf\",\"type\":\"comment\",\"category\":\"social\","
                 "\"user_id\":\"user-%u\",\"topic\":\"thread-%u\",\"title\":\"New comment\","
                 "\"body\":\"Ann wrote to you\",\"data\":{\"a\":\"1\",\"b\":\"2\",\"c\":\"3\"}}",
                 number, (number * 2654435761u) % USERS, number % 100);
    if (bf_event_parse((struct bf_bytes){json, (size_t)n}, &meta, &event, &problem) != 0) {
        fprintf(stderr, "perf-fanout: %s: %s\n", problem.field, problem.detail);
        exit(1);
    }
    return event;
}

static int add_users(struct bf_shard *shard, void *arg)
{
    (void)arg;
    for (uint32_t i = 0; i < USERS; i++) {
        char id[32];
        int n = snprintf(id, sizeof(id), "user-%u", i);
        struct bf_uid uid = {.user = {id, (size_t)n}};
        struct bf_user *user = bf_user_add(&shard->users, uid);
        struct bf_problem problem;
        const char *prefs = i % SUPPRESS_EVERY == 0
                                ? "{\"categories\":{\"social\":{\"inapp\":false}}}"
                                : "{\"channels\":{\"inapp\":true},\"topics\":{\"other\":\"mute\"}}";
        bf_prefs_compile((struct bf_bytes){prefs, strlen(prefs)}, &user->prefs, NULL, &problem);
        bf_batch_put_user(shard->batch, uid, BF_BYTES("{}"));
        if (i % 1000 == 0)
            bf_batch_write(shard->batch, false);
    }
    return bf_batch_write(shard->batch, true);
}

/* As the shard's loop takes legs from its queue: the memory of a burst is asked for ahead, then
 * each is decided. */
static void decide_burst(struct bf_shard *shard, struct bench *bench, uint32_t first)
{
    struct bf_leg *legs[BF_GATHER_AHEAD_MAX];
    uint32_t count = 0;
    for (; count < BF_GATHER_AHEAD_MAX && first + count < EVENTS; count++) {
        struct bf_event *event = bench->events[first + count];
        struct bf_open_event *open =
            bf_open_event_create(event, 1, (struct bf_bytes){0}, (struct bf_bytes){0});
        open->settled = settled;
        open->write_row = true;
        legs[count] = bf_open_event_leg(open, 0);
        legs[count]->uid = (struct bf_uid){.user = event->recipients[0]};
    }
    bf_shard_gather_ahead(shard, legs, count);
    for (uint32_t i = 0; i < count; i++)
        bf_shard_take_leg(shard, legs[i]);
    bench->decided += count;
}

static int run_events(struct bf_shard *shard, void *arg)
{
    struct bench *bench = arg;
    for (uint32_t i = 0; i < EVENTS; i += BF_SHARD_BATCH_MAX) {
        double began = thread_cpu_s();
        for (uint32_t k = i; k < i + BF_SHARD_BATCH_MAX && k < EVENTS; k += BF_GATHER_AHEAD_MAX)
            decide_burst(shard, bench, k);
        double decided = thread_cpu_s();
        bf_shard_commit(shard);
        bench->decide_s += decided - began;
        bench->write_s += thread_cpu_s() - decided;
    }
    return 0;
}

static int report_result(const struct bench *bench, uint64_t suppressed)
{
    struct pf_report *report = pf_report_create("fanout");
    double rate = (double)bench->decided / bench->decide_s;
    pf_report_u64(report, "events", bench->decided);
    pf_report_u64(report, "users", USERS);
    pf_report_u64(report, "suppressed", suppressed);
    pf_report_u64(report, "channels", 1);
    pf_report_text(report, "checks", "de-duplication, subscription, preferences, expiry, presence");
    pf_report_double(report, "decide_us", bench->decide_s * 1e6 / (double)bench->decided);
    pf_report_double(report, "write_us", bench->write_s * 1e6 / (double)bench->decided);
    pf_report_double(report, "with_store_writes_per_s",
                     (double)bench->decided / (bench->decide_s + bench->write_s));
    pf_report_bar(report, "P14", rate, "/s", PF_AT_LEAST, BAR_PER_S);
    return pf_report_print(report);
}

int main(void)
{
    char dir[] = "/tmp/belfry-perf-XXXXXX";
    char store_dir[64], err[256];
    struct bf_conf *conf;
    struct bench bench = {0};
    struct bf_store *store;
    if (!mkdtemp(dir) || bf_conf_load(NULL, &conf, err, sizeof(err)) != 0)
        return 1;
    snprintf(store_dir, sizeof(store_dir), "%s/store", dir);
    struct bf_store_options options = {.dir = store_dir,
                                       .cache_mb = conf->store_cache_mb,
                                       .write_buffer_mb = conf->store_write_buffer_mb};
    if (bf_store_open(&options, &store, err, sizeof(err)) != 0 ||
        bf_core_create(conf, store, NULL, &bench.core) != 0) {
        fprintf(stderr, "perf-fanout: %s\n", err);
        return 1;
    }
    bench.events = calloc(EVENTS, sizeof(*bench.events));
    fprintf(stderr, "preparing %u users and %u events\n", USERS, EVENTS);
    bf_core_run_on(bench.core, 0, add_users, NULL);
    for (uint32_t i = 0; i < EVENTS; i++)
        bench.events[i] = make_event(i);
    bf_core_run_on(bench.core, 0, run_events, &bench);
    uint64_t suppressed = 0;
    for (int i = 1; i < BF_REASON_COUNT; i++)
        suppressed += bf_ctrl_stats.suppressed[i];
    bf_core_destroy(bench.core);
    bf_store_close(store);
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    if (system(command) != 0)
        pf_say("%s is left behind", dir);
    return report_result(&bench, suppressed);
}
