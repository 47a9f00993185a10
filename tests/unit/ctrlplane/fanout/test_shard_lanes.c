/*
 * The lanes of a shard (fanout/msg.h, FAN-4): what is for one person overtakes the people of a job
 * that came before it, and the job still gets its share. A real shard over a real store, no
 * dataplane; the shard stands still while the queue is filled, so that who overtakes whom is no
 * matter of luck.
 */
#include "../store/store_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "belfry/base/time.h"
#include "belfry/conf/conf_load.h"
#include "fanout/core_state.h"
#include "pipeline/open_event.h"

#define CHUNK  1000u
#define MANY   4000u
#define PEOPLE 64u

static struct bf_conf *conf;
static struct bf_core *core;
static pthread_t gatekeeper;
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static _Atomic bool is_standing;
static _Atomic uint32_t settled_count;

/* An event, and the how-manieth to settle it was (1: the first). */
struct probe {
    _Atomic uint32_t place;
};

static int add_people(struct bf_shard *shard, void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < PEOPLE; i++) {
        char id[16];
        snprintf(id, sizeof(id), "p%u", i);
        cr_assert_not_null(bf_user_add(&shard->users, uid("", id)));
    }
    return 0;
}

static void start(void)
{
    char err[256];
    setup();
    cr_assert_eq(bf_conf_load(NULL, &conf, err, sizeof(err)), 0, "%s", err);
    conf->shards = 1;
    cr_assert_eq(bf_core_create(conf, store, NULL, &core), 0);
    cr_assert_eq(bf_core_run_on(core, 0, add_people, NULL), 0);
}

static void stop(void)
{
    bf_core_destroy(core);
    teardown();
}

static int stand_still(struct bf_shard *shard, void *arg)
{
    (void)shard, (void)arg;
    atomic_store(&is_standing, true);
    pthread_mutex_lock(&gate); /* until the test opens it */
    pthread_mutex_unlock(&gate);
    return 0;
}

static void *keep_gate(void *arg)
{
    bf_core_run_on(core, 0, stand_still, arg);
    return NULL;
}

static void close_gate(void)
{
    pthread_mutex_lock(&gate);
    cr_assert_eq(pthread_create(&gatekeeper, NULL, keep_gate, NULL), 0);
    while (!atomic_load(&is_standing))
        sched_yield();
}

static void open_gate(void)
{
    pthread_mutex_unlock(&gate);
    pthread_join(gatekeeper, NULL);
}

static void on_settled(struct bf_open_event *open)
{
    struct probe *probe = open->owner;
    atomic_store(&probe->place, atomic_fetch_add(&settled_count, 1) + 1);
    bf_open_event_free(open);
}

static uint64_t accepted_ms = 1;

static void post(struct probe *probe, const char *priority, uint32_t legs, bool is_job)
{
    static uint32_t number;
    struct bf_event *event;
    struct bf_problem problem;
    struct bf_event_meta meta = {.source = BF_SOURCE_HTTP, .accepted_ms = accepted_ms};
    char json[200];
    snprintf(
        json, sizeof(json),
        "{\"id\":\"%u\",\"type\":\"t\",\"title\":\"x\",\"user_id\":\"p0\",\"priority\":\"%s\"}",
        number++, priority);
    cr_assert_eq(bf_event_parse(text(json), &meta, &event, &problem), 0, "%s", problem.detail);
    struct bf_open_event *open = bf_open_event_create(event, legs, text(""), text(""));
    open->settled = on_settled;
    open->owner = probe;
    open->is_job = is_job;
    static const char *const names[] = {"p0", "p1", "p2", "p3"};
    for (uint32_t i = 0; i < legs; i++)
        bf_open_event_leg(open, i)->uid = uid("", names[i % 4]);
    bf_open_event_post(core, open, legs);
}

static void await(uint32_t count)
{
    while (atomic_load(&settled_count) < count)
        sched_yield();
}

TestSuite(lanes, .init = start, .fini = stop, .timeout = 60);

Test(lanes, one_person_overtakes_a_chunk)
{
    struct probe job = {0}, bulk = {0}, normal = {0}, critical = {0};
    close_gate();
    post(&job, "normal", CHUNK, true);
    post(&bulk, "low", 1, false);
    post(&normal, "normal", 1, false);
    post(&critical, "high", 1, false);
    open_gate();
    await(4);
    /* What is urgent is looked for before each slice, so the shard stood still before any of the
     * other lanes: at most one slice of one of them came before the urgent event. */
    cr_assert_leq(critical.place, 2);
    cr_assert_leq(normal.place, 3);
    cr_assert_leq(bulk.place, 3, "a chunk is taken in slices: also a lower lane gets its share");
    cr_assert_eq(job.place, 4);
}

Test(lanes, a_job_gets_its_share_of_a_flood)
{
    static struct probe flood[MANY];
    struct probe job = {0};
    close_gate();
    for (uint32_t i = 0; i < MANY; i++)
        post(&flood[i], i % 2 ? "normal" : "high", 1, false);
    post(&job, "normal", CHUNK / 10, true);
    open_gate();
    await(MANY + 1);
    cr_assert_lt(job.place, MANY, "%u of %u", job.place, MANY);
}

Test(lanes, order_within_a_lane)
{
    static struct probe flood[MANY];
    close_gate();
    for (uint32_t i = 0; i < MANY; i++)
        post(&flood[i], "normal", 1, false);
    open_gate();
    await(MANY);
    for (uint32_t i = 0; i < MANY; i++)
        cr_assert_eq(flood[i].place, i + 1);
}

Test(lanes, an_erasure_overtakes_what_came_before_it)
{
    struct probe before = {0}, after = {0};
    struct bf_uid gone = uid("", "p0");
    conf->users_auto_create = true;
    cr_assert_eq(bf_core_erase_user(core, gone, text("test")), 0);
    accepted_ms = bf_wall_ms() - 1000;
    post(&before, "normal", 1, false);
    await(1);
    cr_assert_not(bf_core_has_user(core, gone),
                  "accepted before the erasure: nobody comes back by it");
    accepted_ms = bf_wall_ms() + 1000;
    post(&after, "normal", 1, false);
    await(2);
    cr_assert(bf_core_has_user(core, gone));
}
