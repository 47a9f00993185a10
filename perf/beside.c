/*
 * A targeted event beside a topic's job: how long the fan-out keeps one that is for one person
 * while it expands a topic with 100,000 subscribers on the same shard, from post to settled
 * (decided, written, sent). Events of the critical and the normal lane in turn, at fixed times
 * whatever the answers; alone first, then while the job runs. One shard, no dataplane.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "belfry/conf/conf_load.h"
#include "fanout/calls.h"
#include "fanout/core_state.h"
#include "pf_report.h"
#include "pipeline/jobs.h"
#include "pipeline/open_event.h"

#define PEOPLE     100000u
#define ALONE      1000u
#define EVENTS_MAX 50000u
/* A thousand targeted events a second. */
#define EVERY_NS 1000000u

struct sample {
    uint64_t due_ns;
    _Atomic uint64_t took_ns; /* relaxed: read when all are settled, which |open| orders */
};

static struct bench {
    struct bf_core *core;
    struct bf_store *store;
    struct sample samples[EVENTS_MAX];
    uint32_t count;
    _Atomic uint32_t open;
} bench;

static void settled(struct bf_open_event *open)
{
    struct sample *sample = open->owner;
    atomic_store_explicit(&sample->took_ns, bf_mono_ns() - sample->due_ns, memory_order_relaxed);
    bf_open_event_free(open);
    /* release: the reader of 0 sees what was stored before */
    atomic_fetch_sub_explicit(&bench.open, 1, memory_order_release);
}

static struct bf_event *parse(const char *json, const struct bf_event_meta *meta)
{
    struct bf_event *event;
    struct bf_problem problem;
    if (bf_event_parse((struct bf_bytes){json, strlen(json)}, meta, &event, &problem) != 0)
        pf_die("%s: %s", problem.field, problem.detail);
    return event;
}

static struct bf_event_meta meta_of(uint32_t number)
{
    struct bf_event_meta meta = {
        .source = BF_SOURCE_KAFKA, .accepted_ms = bf_wall_ms(), .offset = number};
    snprintf(meta.producer, sizeof(meta.producer), "perf");
    return meta;
}

static void post_one(uint64_t due_ns)
{
    char json[200];
    uint32_t number = bench.count++;
    struct bf_event_meta meta = meta_of(number);
    snprintf(json, sizeof(json),
             "{\"id\":\"e%u\",\"source\":\"perf\",\"type\":\"code\",\"priority\":\"%s\","
             "\"user_id\":\"user-%05u\",\"title\":\"Your code\",\"body\":\"123456\"}",
             number, number % 2 ? "normal" : "high", number * 7919u % PEOPLE);
    struct bf_event *event = parse(json, &meta);
    struct bf_open_event *open =
        bf_open_event_create(event, 1, (struct bf_bytes){0}, (struct bf_bytes){0});
    open->settled = settled;
    open->owner = &bench.samples[number];
    open->write_row = true;
    bench.samples[number].due_ns = due_ns;
    atomic_fetch_add_explicit(&bench.open, 1, memory_order_relaxed);
    bf_open_event_leg(open, 0)->uid = (struct bf_uid){.user = event->recipients[0]};
    bf_open_event_post(bench.core, open, 1);
}

static void sleep_until(uint64_t due_ns)
{
    struct timespec at = {.tv_sec = (time_t)(due_ns / 1000000000u),
                          .tv_nsec = (long)(due_ns % 1000000000u)};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

/* Posts at fixed times: |count| events, or with 0 as long as jobs are open. Then waits for them. */
static void post_many(uint32_t count)
{
    uint64_t due_ns = bf_mono_ns();
    for (uint32_t i = 0; bench.count < EVENTS_MAX; i++) {
        if (count ? i == count : atomic_load(&bench.core->jobs) == 0)
            break;
        due_ns += EVERY_NS;
        sleep_until(due_ns);
        post_one(due_ns);
    }
    /* acquire: pairs with settled() */
    while (atomic_load_explicit(&bench.open, memory_order_acquire) > 0)
        sleep_until(bf_mono_ns() + EVERY_NS);
}

static int add_people(struct bf_shard *shard, void *arg)
{
    (void)arg;
    for (uint32_t i = 0; i < PEOPLE; i++) {
        char id[32];
        int n = snprintf(id, sizeof(id), "user-%05u", i);
        struct bf_uid uid = {.user = {id, (size_t)n}};
        struct bf_subscription sub = {.uid = uid, .topic = BF_BYTES("news")};
        bf_user_add(&shard->users, uid);
        bf_batch_put_user(shard->batch, uid, BF_BYTES("{}"));
        bf_batch_put_subscription(shard->batch, &sub);
        if (i % 1000 == 0)
            bf_batch_write(shard->batch, false);
    }
    return bf_batch_write(shard->batch, true);
}

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

/* Median, 99th percentile and worst of the samples [from, to) whose number is |odd|. */
static void report_times(struct pf_report *report, const char *name, uint32_t from, uint32_t to,
                         uint32_t odd)
{
    static uint64_t took[EVENTS_MAX];
    char text[64];
    uint32_t count = 0;
    for (uint32_t i = from; i < to; i++)
        if (i % 2 == odd)
            took[count++] = bench.samples[i].took_ns;
    if (count == 0)
        pf_die("no sample of %s", name);
    qsort(took, count, sizeof(*took), compare);
    const struct {
        const char *what;
        uint32_t at;
    } shown[] = {{"p50", count / 2}, {"p99", count * 99 / 100}, {"max", count - 1}};
    for (uint32_t i = 0; i < 3; i++) {
        snprintf(text, sizeof(text), "%s_%s_us", name, shown[i].what);
        pf_report_double(report, text, (double)took[shown[i].at] / 1e3);
    }
}

static void run_job(struct bf_jobs *jobs)
{
    static const char body[] =
        "{\"id\":\"t\",\"source\":\"perf\",\"type\":\"post\",\"topic\":\"news\","
        "\"title\":\"To all\",\"body\":\"A longer text about it\"}";
    uint8_t bytes[BF_EVENT_META_BYTES_MAX];
    struct bf_event_meta meta = meta_of(EVENTS_MAX);
    struct bf_bytes encoded = {(const char *)bytes, bf_event_meta_encode(&meta, bytes)};
    if (bf_jobs_add(jobs, parse(body, &meta), encoded, BF_BYTES(body), false) != 0)
        pf_die("the job cannot be added");
    post_many(0);
}

static void measure(struct bf_jobs *jobs)
{
    struct pf_report *report = pf_report_create("beside");
    post_many(ALONE);
    uint32_t alone = bench.count;
    uint64_t began = bf_mono_ns();
    run_job(jobs);
    double took_s = (double)(bf_mono_ns() - began) / 1e9;
    pf_report_u64(report, "recipients", PEOPLE);
    pf_report_u64(report, "targeted_per_s", 1000000000u / EVERY_NS);
    pf_report_double(report, "job_s", took_s);
    pf_report_double(report, "job_recipients_per_s", PEOPLE / took_s);
    report_times(report, "alone_critical", 0, alone, 0);
    report_times(report, "alone_normal", 0, alone, 1);
    report_times(report, "beside_critical", alone, bench.count, 0);
    report_times(report, "beside_normal", alone, bench.count, 1);
    pf_report_print(report);
}

int main(void)
{
    char dir[] = "/tmp/belfry-perf-XXXXXX";
    char store_dir[64], err[256], command[128];
    struct bf_conf *conf;
    struct bf_jobs *jobs;
    if (!mkdtemp(dir) || bf_conf_load(NULL, &conf, err, sizeof(err)) != 0)
        return 1;
    conf->shards = 1;
    snprintf(store_dir, sizeof(store_dir), "%s/store", dir);
    struct bf_store_options options = {.dir = store_dir,
                                       .cache_mb = conf->store_cache_mb,
                                       .write_buffer_mb = conf->store_write_buffer_mb};
    if (bf_store_open(&options, &bench.store, err, sizeof(err)) != 0 ||
        bf_core_create(conf, bench.store, NULL, &bench.core) != 0 ||
        bf_jobs_create(bench.core, &jobs) != 0)
        pf_die("%s", err);
    pf_say("preparing %u people", PEOPLE);
    bf_core_run_on(bench.core, 0, add_people, NULL);
    atomic_store(&bench.core->ready, true);
    if (bf_jobs_start(jobs) != 0)
        pf_die("the job thread does not start");
    measure(jobs);
    bf_jobs_stop(jobs);
    bf_jobs_destroy(jobs);
    bf_core_destroy(bench.core);
    bf_store_close(bench.store);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    if (system(command) != 0)
        pf_say("%s is left behind", dir);
    return 0;
}
