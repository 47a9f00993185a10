/* See jobs.h. */
#include "pipeline/jobs.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/prctl.h>

#include "stats/metrics.h"
#include "belfry/base/fatal.h"
#include "belfry/base/time.h"
#include "pipeline/open_event.h"
#include "store/devices.h"

/* People of a chunk: between two checkpoints (FAN-3). */
#define CHUNK 1000u
/* While nothing is to be done the thread looks at readiness this often. */
#define IDLE_MS 50

struct job {
    struct job *next;
    struct bf_event *event;
    struct bf_bytes meta, body; /* after this struct */
    char cursor[BF_USER_ID_BYTES_MAX];
    size_t cursor_len;
    uint64_t targeted;
    bool is_push_only;
};

struct bf_jobs {
    struct bf_core *core;
    pthread_t thread;
    pthread_mutex_t lock; /* guards the queues and stop */
    pthread_cond_t changed;
    struct job *first[BF_LANE_COUNT];
    struct job **tail[BF_LANE_COUNT];
    bool stop;
    bool started;
    struct bf_batch *row_batch;   /* pipeline thread */
    struct bf_batch *check_batch; /* job thread */
    uint32_t chunk_open;          /* guarded by lock: 1 while the chunk's legs are out */
};

/* The recipients of a chunk, and where it ended. */
struct chunk {
    char *text;
    size_t text_len;
    struct {
        uint32_t at;
        uint16_t len;
        uint8_t mask;
    } users[CHUNK];
    uint32_t count;
    char last[BF_USER_ID_BYTES_MAX];
    size_t last_len;
};

int bf_jobs_create(struct bf_core *core, struct bf_jobs **ret)
{
    struct bf_jobs *jobs = calloc(1, sizeof(*jobs));
    pthread_condattr_t attr;
    if (!jobs)
        return BF_ERR_NO_MEMORY;
    jobs->core = core;
    pthread_mutex_init(&jobs->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&jobs->changed, &attr);
    pthread_condattr_destroy(&attr);
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        jobs->tail[lane] = &jobs->first[lane];
    jobs->row_batch = bf_batch_create(core->store);
    jobs->check_batch = bf_batch_create(core->store);
    *ret = jobs;
    return jobs->row_batch && jobs->check_batch ? 0 : BF_ERR_NO_MEMORY;
}

static struct job *make_job(struct bf_event *event, struct bf_bytes meta, struct bf_bytes body,
                            struct bf_bytes cursor)
{
    struct job *job = calloc(1, sizeof(*job) + meta.len + body.len);
    if (!job)
        return NULL;
    char *at = (char *)(job + 1);
    if (meta.len)
        memcpy(at, meta.at, meta.len);
    memcpy(at + meta.len, body.at, body.len);
    job->event = event;
    job->meta = (struct bf_bytes){.at = at, .len = meta.len};
    job->body = (struct bf_bytes){.at = at + meta.len, .len = body.len};
    if (cursor.len <= sizeof(job->cursor) && cursor.len > 0) {
        memcpy(job->cursor, cursor.at, cursor.len);
        job->cursor_len = cursor.len;
    }
    return job;
}

static void enqueue(struct bf_jobs *jobs, struct job *job)
{
    uint32_t lane = job->event->lane;
    pthread_mutex_lock(&jobs->lock);
    *jobs->tail[lane] = job;
    jobs->tail[lane] = &job->next;
    pthread_cond_broadcast(&jobs->changed);
    pthread_mutex_unlock(&jobs->lock);
    atomic_fetch_add_explicit(&jobs->core->jobs, 1, memory_order_relaxed);
}

static void put_row(struct bf_batch *batch, const struct job *job)
{
    struct bf_job_row row = {.id = job->event->id,
                             .meta = job->meta,
                             .body = job->body,
                             .cursor = {.at = job->cursor, .len = job->cursor_len},
                             .targeted = job->targeted,
                             .is_push_only = job->is_push_only};
    bf_batch_put_job(batch, &row);
}

int bf_jobs_add(struct bf_jobs *jobs, struct bf_event *event, struct bf_bytes meta,
                struct bf_bytes body, bool is_push_only)
{
    struct job *job = make_job(event, meta, body, (struct bf_bytes){0});
    if (!job)
        return BF_ERR_NO_MEMORY;
    job->is_push_only = is_push_only;
    put_row(jobs->row_batch, job);
    int rc = bf_batch_write(jobs->row_batch, false);
    if (rc != 0) {
        free(job);
        return rc;
    }
    enqueue(jobs, job);
    return 0;
}

static int load_job(void *arg, const struct bf_job_row *row)
{
    struct bf_jobs *jobs = arg;
    struct bf_event_meta meta;
    struct bf_event *event;
    struct bf_problem problem;
    if (bf_event_meta_decode((const uint8_t *)row->meta.at, row->meta.len, &meta) != 0 ||
        bf_event_parse(row->body, &meta, &event, &problem) != 0) {
        bf_count(BF_CM_M_store_corrupt, 1);
        return 0;
    }
    struct job *job = make_job(event, row->meta, row->body, row->cursor);
    if (!job)
        return BF_ERR_NO_MEMORY;
    job->targeted = row->targeted;
    job->is_push_only = row->is_push_only || event->target == BF_TARGET_BROADCAST;
    enqueue(jobs, job);
    return 0;
}

/* ---- the thread ---- */

static void add_user(struct chunk *c, struct bf_bytes user, uint8_t mask)
{
    memcpy(c->text + c->text_len, user.at, user.len);
    c->users[c->count].at = (uint32_t)c->text_len;
    c->users[c->count].len = (uint16_t)user.len;
    c->users[c->count].mask = mask;
    c->text_len += user.len;
    c->count++;
}

static void note_last(struct chunk *c, struct bf_bytes user)
{
    memcpy(c->last, user.at, user.len);
    c->last_len = user.len;
}

static int collect_subscriber(void *arg, const struct bf_subscription *sub)
{
    struct chunk *c = arg;
    note_last(c, sub->uid.user);
    if (!sub->deny)
        add_user(c, sub->uid.user, sub->channel_mask);
    return c->count >= CHUNK;
}

static int collect_user(void *arg, struct bf_bytes user)
{
    struct chunk *c = arg;
    note_last(c, user);
    add_user(c, user, 0);
    return c->count >= CHUNK;
}

/* The next people of the job: a topic's subscribers, or for a broadcast whoever has a device. */
static void collect(struct bf_jobs *jobs, const struct job *job, struct chunk *c)
{
    struct bf_store *store = jobs->core->store;
    const struct bf_event *event = job->event;
    struct bf_bytes tenant = {.at = event->meta.tenant, .len = strlen(event->meta.tenant)};
    struct bf_bytes after = {.at = job->cursor, .len = job->cursor_len};
    c->count = 0;
    c->text_len = 0;
    c->last_len = 0;
    if (event->target == BF_TARGET_BROADCAST)
        bf_store_walk_device_users(store, tenant, after, collect_user, c);
    else
        bf_store_walk_subscribers(store, tenant, event->topic, after, collect_subscriber, c);
}

static void chunk_settled(struct bf_open_event *open)
{
    struct bf_jobs *jobs = open->owner;
    bf_open_event_free(open);
    pthread_mutex_lock(&jobs->lock);
    jobs->chunk_open = 0;
    pthread_cond_broadcast(&jobs->changed);
    pthread_mutex_unlock(&jobs->lock);
}

/* Hands the chunk's legs to the shards and waits until all are written. */
static int run_chunk(struct bf_jobs *jobs, struct job *job, const struct chunk *c)
{
    bf_event_ref(job->event);
    struct bf_open_event *open =
        bf_open_event_create(job->event, c->count, (struct bf_bytes){0},
                             (struct bf_bytes){.at = c->text, .len = c->text_len});
    if (!open)
        return BF_ERR_NO_MEMORY;
    open->settled = chunk_settled;
    open->owner = jobs;
    open->is_job = true;
    open->is_push_only = job->is_push_only;
    struct bf_bytes tenant = {.at = job->event->meta.tenant,
                              .len = strlen(job->event->meta.tenant)};
    for (uint32_t i = 0; i < c->count; i++) {
        struct bf_leg *leg = bf_open_event_leg(open, i);
        leg->uid = (struct bf_uid){
            .tenant = tenant,
            .user = {.at = open->raw_body.at + c->users[i].at, .len = c->users[i].len}};
        leg->channel_mask = c->users[i].mask;
    }
    jobs->chunk_open = 1;
    bf_open_event_post(jobs->core, open, c->count);
    pthread_mutex_lock(&jobs->lock);
    while (jobs->chunk_open)
        pthread_cond_wait(&jobs->changed, &jobs->lock);
    pthread_mutex_unlock(&jobs->lock);
    return 0;
}

/* Bulk expansion is held to the configured rate; other lanes are not. */
static void pace(struct bf_jobs *jobs, const struct job *job, uint32_t count, uint64_t began_ns)
{
    uint32_t rate = bf_core_conf(jobs->core)->fanout_rate;
    if (rate == 0 || job->event->lane != BF_LANE_BULK)
        return;
    uint64_t due = began_ns + (uint64_t)count * 1000000000u / rate;
    uint64_t now = bf_mono_ns();
    if (due > now)
        nanosleep(&(struct timespec){.tv_sec = (time_t)((due - now) / 1000000000u),
                                     .tv_nsec = (long)((due - now) % 1000000000u)},
                  NULL);
}

/* One chunk and its checkpoint. Returns true when the job is finished. */
static bool step(struct bf_jobs *jobs, struct job *job, struct chunk *c)
{
    uint64_t began = bf_mono_ns();
    collect(jobs, job, c);
    bool last = c->count < CHUNK;
    if (c->count > 0 && run_chunk(jobs, job, c) != 0)
        return false;
    job->targeted += c->count;
    if (c->last_len) {
        memcpy(job->cursor, c->last, c->last_len);
        job->cursor_len = c->last_len;
    }
    if (last)
        bf_batch_delete_job(jobs->check_batch, &job->event->id);
    else
        put_row(jobs->check_batch, job);
    if (bf_batch_write(jobs->check_batch, false) != 0)
        bf_fatal("ctrlplane", "a job's checkpoint cannot be written: stopping");
    pace(jobs, job, c->count, began);
    return last;
}

static struct job *next_job(struct bf_jobs *jobs, uint32_t *ret_lane)
{
    struct job *job = NULL;
    pthread_mutex_lock(&jobs->lock);
    while (!jobs->stop && !job) {
        for (uint32_t lane = 0; lane < BF_LANE_COUNT && !job; lane++) {
            job = atomic_load(&jobs->core->ready) ? jobs->first[lane] : NULL;
            *ret_lane = lane;
        }
        if (!job) {
            struct timespec until;
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_nsec += IDLE_MS * 1000000L;
            if (until.tv_nsec >= 1000000000L) {
                until.tv_nsec -= 1000000000L;
                until.tv_sec++;
            }
            pthread_cond_timedwait(&jobs->changed, &jobs->lock, &until);
        }
    }
    if (jobs->stop)
        job = NULL;
    pthread_mutex_unlock(&jobs->lock);
    return job;
}

static void finish(struct bf_jobs *jobs, struct job *job, uint32_t lane)
{
    pthread_mutex_lock(&jobs->lock);
    jobs->first[lane] = job->next;
    if (!jobs->first[lane])
        jobs->tail[lane] = &jobs->first[lane];
    pthread_mutex_unlock(&jobs->lock);
    atomic_fetch_sub_explicit(&jobs->core->jobs, 1, memory_order_relaxed);
    bf_event_unref(job->event);
    free(job);
}

static void *jobs_main(void *arg)
{
    struct bf_jobs *jobs = arg;
    struct chunk *c = calloc(1, sizeof(*c));
    struct job *job;
    uint32_t lane;
    prctl(PR_SET_NAME, "bf-jobs");
    c->text = malloc((size_t)CHUNK * BF_USER_ID_BYTES_MAX);
    /* one chunk at a time, the highest lane first: a job of a higher lane overtakes between chunks
     */
    while ((job = next_job(jobs, &lane)) != NULL)
        if (step(jobs, job, c))
            finish(jobs, job, lane);
    free(c->text);
    free(c);
    return NULL;
}

int bf_jobs_start(struct bf_jobs *jobs)
{
    int rc = bf_store_walk_jobs(jobs->core->store, load_job, jobs);
    if (rc == 0)
        rc = -pthread_create(&jobs->thread, NULL, jobs_main, jobs);
    jobs->started = rc == 0;
    return rc;
}

void bf_jobs_stop(struct bf_jobs *jobs)
{
    if (!jobs || !jobs->started)
        return;
    pthread_mutex_lock(&jobs->lock);
    jobs->stop = true;
    pthread_cond_broadcast(&jobs->changed);
    pthread_mutex_unlock(&jobs->lock);
    pthread_join(jobs->thread, NULL);
    jobs->started = false;
}

void bf_jobs_destroy(struct bf_jobs *jobs)
{
    if (!jobs)
        return;
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++) {
        while (jobs->first[lane]) {
            struct job *job = jobs->first[lane];
            jobs->first[lane] = job->next;
            bf_event_unref(job->event);
            free(job);
        }
    }
    bf_batch_destroy(jobs->row_batch);
    bf_batch_destroy(jobs->check_batch);
    pthread_cond_destroy(&jobs->changed);
    pthread_mutex_destroy(&jobs->lock);
    free(jobs);
}
