/* See pipeline.h. */
#include "pipeline/pipeline.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/prctl.h>

#include "stats/metrics.h"
#include "belfry/base/fatal.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "channels/push/push_check.h"
#include "ingest/cloudevents.h"
#include "ingest/identity.h"
#include "time/record_time.h"
#include "pipeline/dedup.h"
#include "pipeline/jobs.h"
#include "pipeline/open_event.h"

/* How long the thread sleeps while the ledger is full, and until the census is in. */
#define ROOM_WAIT_NS   500000L
#define CENSUS_WAIT_NS 5000000L
/* Between two tries to put a broadcast on its log. */
#define BLOG_RETRY_NS 100000000L
/* Records of one poll. */
#define POLL_MAX 512
#define POLL_MS  20u
/* Watermarks go to the log this often, each after one store sync, which the log's own syncs wait
 * for (one journal of the file system): a kill repeats the look at a quarter second of events, no
 * more. */
#define COMMIT_MS 250u
/* Where nothing can be taken for this long (or a quarter of log.kafka.max_poll_interval) the log is
 * told that we live, and then so often. Kafka fetches again what it had fetched ahead: not sooner.
 */
#define KEEP_AFTER_MS 10000u
#define KEEP_EVERY_MS 100u
/* A stop waits this long for open events; what is still open is replayed at the next start. */
#define STOP_MS 3000u
/* Broken Kafka bodies are kept whole in the dead letter up to the event limit. */
#define DEAD_BODY_BYTES_MAX BF_EVENT_BYTES_MAX

struct bf_pipeline {
    struct bf_core *core;
    struct bf_log_hooks hooks;
    struct bf_jobs *jobs;
    struct bf_batch *batch; /* dead letters and rows of this thread */
    pthread_t thread;
    bool started;
    _Atomic bool running, stop;
    uint64_t committed_at_ms;
    uint64_t keep_at_ms; /* when the log is told that we live, unless it is polled before */
    int64_t committed[BF_LEDGER_PARTITIONS_MAX];
};

static void on_assign(void *arg, uint32_t partition, uint32_t assignment, int64_t offset)
{
    struct bf_pipeline *p = arg;
    bf_ledger_assign(p->core->ledger, partition, assignment, offset);
    p->committed[partition] = offset;
}

static void commit_watermarks(struct bf_pipeline *p);

static void on_revoke(void *arg, uint32_t partition, uint32_t assignment)
{
    struct bf_pipeline *p = arg;
    commit_watermarks(p);
    bf_ledger_revoke(p->core->ledger, partition, assignment);
}

/* ---- what one record becomes ---- */

static void event_settled(struct bf_open_event *open)
{
    struct bf_pipeline *p = open->owner;
    bf_ledger_settle(p->core->ledger, &open->ticket);
    bf_count(BF_CM_M_events_settled, 1);
    bf_open_event_free(open);
}

/* A gap in the log, told when all records before it were opened. */
static bool on_skip(void *arg, uint32_t partition, uint32_t assignment, int64_t offset)
{
    struct bf_pipeline *p = arg;
    return bf_ledger_skip(p->core->ledger, partition, assignment, offset);
}

static void meta_of(const struct bf_log_record *r, struct bf_event_meta *ret)
{
    if (r->has_meta && bf_event_meta_decode((const uint8_t *)r->meta.at, r->meta.len, ret) == 0) {
        /* whoever may write to the topic may also write this header */
        if (!bf_time_is_plausible(ret->accepted_ms, bf_wall_ms()))
            ret->accepted_ms = r->timestamp_ms;
        return;
    }
    memset(ret, 0, sizeof(*ret));
    ret->source = BF_SOURCE_KAFKA;
    ret->topic_lane = r->topic_lane;
    ret->accepted_ms = r->timestamp_ms;
    ret->partition = r->topic_partition;
    ret->offset = r->offset;
    bf_format(ret->producer, sizeof(ret->producer), "%s", r->topic ? r->topic : "");
    ret->has_record_id = true;
    bf_identity_of_record((struct bf_bytes){ret->producer, strlen(ret->producer)}, ret->partition,
                          ret->offset, r->written_at, r->body, &ret->record_id);
}

static void write_rows(struct bf_pipeline *p)
{
    if (bf_batch_write(p->batch, false) != 0)
        bf_fatal("ctrlplane", "the store refuses writes: stopping; events stay in the log");
}

static void dead_letter(struct bf_pipeline *p, const struct bf_log_record *r,
                        const struct bf_event_meta *meta, const struct bf_problem *problem)
{
    uint8_t bytes[BF_EVENT_META_BYTES_MAX];
    char reason[sizeof(problem->type) + sizeof(problem->detail) + 4];
    size_t n = bf_format(reason, sizeof(reason), "%s: %s", problem->type, problem->detail);
    struct bf_bytes why = {.at = reason, .len = n};
    struct bf_bytes body = r->body;
    struct bf_dlq_row row = {.at_ms = bf_wall_ms(), .channel = BF_DLQ_INGEST, .reason = why};
    body.len = bf_utf8_cut(body.at, body.len, DEAD_BODY_BYTES_MAX);
    row.body = body;
    row.headers = r->ce_headers;
    row.meta = (struct bf_bytes){(const char *)bytes, bf_event_meta_encode(meta, bytes)};
    XXH128_hash_t h = XXH3_128bits_withSeed(body.at ? body.at : "", body.len, (uint64_t)r->offset);
    memcpy(row.event_id.bytes, &h, sizeof(h));
    bf_id_seal(&row.event_id);
    bf_batch_put_dlq(p->batch, &row);
    write_rows(p);
    bf_log_dead_letter(p->core->log, r->key, body, why, r->ce_headers);
    bf_count(BF_CM_M_ingest_dead_lettered, 1);
}

static bool matches_any(const char *const *rules, uint32_t count, struct bf_bytes topic)
{
    char text[BF_TOPIC_BYTES_MAX + 1];
    if (topic.len > BF_TOPIC_BYTES_MAX)
        return false;
    memcpy(text, topic.at, topic.len);
    text[topic.len] = 0;
    for (uint32_t i = 0; i < count; i++)
        if (fnmatch(rules[i], text, 0) == 0)
            return true;
    return false;
}

static bool is_broadcast_topic(struct bf_pipeline *p, const struct bf_event *event)
{
    const struct bf_conf *conf = bf_core_conf(p->core);
    struct bf_topic_row row;
    struct bf_bytes tenant = {.at = event->meta.tenant, .len = strlen(event->meta.tenant)};
    if (bf_store_get_topic(p->core->store, tenant, event->topic, &row) == 0)
        return row.carriage == BF_CARRIAGE_BROADCAST;
    return matches_any(conf->broadcast_topics, conf->broadcast_topic_count, event->topic);
}

/* |recipients|: of the event's list, named in the row. */
static void put_row_for(struct bf_pipeline *p, const struct bf_event *event, bool is_broadcast,
                        uint32_t recipients)
{
    struct bf_event_row row = {
        .event_id = event->id,
        .accepted_ms = event->created_ms,
        .expires_ms = bf_wall_ms() + (uint64_t)bf_core_conf(p->core)->status_ttl_s * 1000,
        .target = (uint8_t)event->target,
        .lane = (uint8_t)event->lane,
        .is_broadcast = is_broadcast,
        .tenant = {.at = event->meta.tenant, .len = strlen(event->meta.tenant)},
        .producer = {.at = event->meta.producer, .len = strlen(event->meta.producer)},
        .traceparent = {.at = event->meta.traceparent, .len = strlen(event->meta.traceparent)},
        .type = event->type,
        .topic = event->topic,
        .recipient_count = recipients,
        .recipients = event->recipients,
    };
    bf_batch_put_event_row(p->batch, &row);
    write_rows(p);
}

static void idle(struct bf_pipeline *p, long wait_ns);

/* A broker that cannot be reached will come back. Until then the event stays open, the group is
 * told that we live, and later events wait. If the record was written although we were not told,
 * its id shows that. */
static int append_broadcast(struct bf_pipeline *p, const struct bf_bcast_row *row)
{
    int rc;
    while ((rc = bf_blog_append(p->core->blog, row)) == BF_ERR_LOG &&
           !atomic_load_explicit(&p->stop, memory_order_relaxed))
        idle(p, BLOG_RETRY_NS);
    return rc;
}

static int to_broadcast(struct bf_pipeline *p, struct bf_event *event)
{
    struct bf_bcast_row row = {
        .event_id = event->id,
        .created_ms = event->created_ms,
        .expires_ms = event->expires_ms,
        .tenant = {.at = event->meta.tenant, .len = strlen(event->meta.tenant)},
        .topic = event->target == BF_TARGET_TOPIC ? event->topic : (struct bf_bytes){0},
        .fragment = event->fragment,
    };
    put_row_for(p, event, true, 0);
    return append_broadcast(p, &row);
}

static int to_job(struct bf_pipeline *p, const struct bf_log_record *r, struct bf_event *event,
                  bool is_push_only)
{
    uint8_t meta[BF_EVENT_META_BYTES_MAX];
    size_t len = bf_event_meta_encode(&event->meta, meta);
    return bf_jobs_add(p->jobs, event, (struct bf_bytes){(const char *)meta, len}, r->body,
                       is_push_only);
}

/* Onto the broadcast log, and where it asks for push to those who are not connected (FAN-2): of a
 * broadcast topic its subscribers. */
static int to_everyone(struct bf_pipeline *p, const struct bf_log_record *r, struct bf_event *event)
{
    const uint8_t push = 1u << BF_CHANNEL_PUSH;
    bool wants_push = event->channels_named && event->channel_mask & push;
    int rc = to_broadcast(p, event);
    if (rc == 0 && wants_push)
        return to_job(p, r, event, true);
    bf_event_unref(event);
    return rc;
}

static int to_users(struct bf_pipeline *p, const struct bf_log_record *r, struct bf_event *event,
                    const struct bf_ledger_ticket *ticket, bool has_row)
{
    bool keep_raw = event->meta.source == BF_SOURCE_KAFKA;
    struct bf_bytes none = {0};
    uint32_t legs = event->is_push_channel ? 1 : event->recipient_count;
    uint8_t bytes[BF_EVENT_META_BYTES_MAX];
    /* what is known of another producer's record only from its place, and what a redrive must know
     * too */
    struct bf_bytes meta = {(const char *)bytes, bf_event_meta_encode(&event->meta, bytes)};
    struct bf_open_event *open =
        bf_open_event_create(event, legs, keep_raw ? meta : none, keep_raw ? r->body : none);
    if (!open)
        return BF_ERR_NO_MEMORY;
    open->ticket = *ticket;
    open->settled = event_settled;
    open->owner = p;
    open->write_row = !has_row;
    open->is_push_only = event->is_push_channel;
    struct bf_bytes tenant = {.at = event->meta.tenant, .len = strlen(event->meta.tenant)};
    for (uint32_t i = 0; i < legs; i++)
        bf_open_event_leg(open, i)->uid = (struct bf_uid){
            .tenant = tenant,
            .user = event->is_push_channel ? BF_PUSH_CHANNEL_USER : event->recipients[i]};
    bf_open_event_post(p->core, open, legs);
    return 0;
}

/* Gives the event its way. Returns true if the ticket settles elsewhere (legs are out). */
static bool route(struct bf_pipeline *p, const struct bf_log_record *r, struct bf_event *event,
                  const struct bf_ledger_ticket *ticket)
{
    int rc;
    bool later = false;
    bf_funnel_count(BF_FUNNEL_ACCEPTED, event->lane, BF_CHANNEL_INAPP, 1);
    bf_count(BF_CM_M_ingest_unknown_fields, event->unknown_fields);
    bool is_none;
    uint32_t repeats = bf_dedup_take(p->core, p->batch, event, &is_none);
    if (repeats > 0 || is_none) /* its status names them all, and says why they did not get it */
        put_row_for(p, event, false, event->recipient_count + repeats);
    else if (event->dedup_key.len > 0)
        write_rows(p);
    if (is_none) {
        bf_event_unref(event);
        return false;
    }
    if (event->target == BF_TARGET_USERS || event->is_push_channel) {
        rc = to_users(p, r, event, ticket, repeats > 0);
        later = rc == 0;
    } else if (event->target == BF_TARGET_BROADCAST || is_broadcast_topic(p, event)) {
        rc = to_everyone(p, r, event);
    } else {
        put_row_for(p, event, false, 0);
        rc = to_job(p, r, event, false);
    }
    if (rc == BF_ERR_LOG && atomic_load_explicit(&p->stop, memory_order_relaxed))
        return true; /* we stop while the broadcast log is away: never settled, read again */
    if (rc != 0)
        bf_fatal("ctrlplane",
                 "an accepted event cannot be worked on (%s): stopping; it stays in "
                 "the log and is replayed at the next start",
                 bf_err_text(rc));
    return later;
}

/* Converts a CloudEvent into a plain event: |*ret_plain| is its body (a job and a dead letter keep
 * it and read it again without headers), |*ret_json| is to be freed. */
static int parse_record(const struct bf_log_record *r, const struct bf_event_meta *meta,
                        struct bf_log_record *ret_plain, char **ret_json,
                        struct bf_event **ret_event, struct bf_problem *problem)
{
    size_t len = 0;
    int rc = 0;
    *ret_plain = *r;
    *ret_json = NULL;
    if (r->ce_headers.len > 0 && bf_cloudevent_is(r->ce_headers)) {
        rc = bf_cloudevent_convert(r->ce_headers, r->body, ret_json, &len, problem);
        ret_plain->body = (struct bf_bytes){.at = *ret_json, .len = len};
        ret_plain->ce_headers = (struct bf_bytes){0};
    }
    return rc == 0 ? bf_event_parse(ret_plain->body, meta, ret_event, problem) : rc;
}

static void take_record(struct bf_pipeline *p, const struct bf_log_record *r,
                        const struct bf_ledger_ticket *ticket)
{
    struct bf_event_meta meta;
    struct bf_event *event;
    struct bf_problem problem;
    meta_of(r, &meta);
    if (meta.source == BF_SOURCE_KAFKA)
        meta.critical_allowed =
            r->topic_lane == BF_LANE_CRITICAL && bf_core_conf(p->core)->kafka_critical_allowed;
    struct bf_log_record plain;
    char *json;
    bool later = false;
    if (parse_record(r, &meta, &plain, &json, &event, &problem) != 0) {
        dead_letter(p, r, &meta, &problem);
    } else if (meta.source == BF_SOURCE_KAFKA &&
               bf_push_check_event(bf_core_conf(p->core), p->core->store, event, &problem) != 0) {
        /* what came by HTTP was checked there */
        dead_letter(p, r, &meta, &problem);
        bf_event_unref(event);
    } else {
        later = route(p, &plain, event, ticket);
    }
    free(json);
    if (!later)
        bf_ledger_settle(p->core->ledger, ticket);
}

/* ---- the thread ---- */

static void commit_watermarks(struct bf_pipeline *p)
{
    uint32_t assignment;
    int64_t offset;
    struct {
        uint32_t assignment;
        int64_t offset;
    } due[BF_LEDGER_PARTITIONS_MAX];
    uint32_t count = bf_ledger_partitions(p->core->ledger);
    bool any = false;
    for (uint32_t i = 0; i < count; i++) {
        due[i].offset = -1;
        if (!bf_ledger_watermark(p->core->ledger, i, &assignment, &offset) ||
            offset == p->committed[i])
            continue;
        due[i].assignment = assignment;
        due[i].offset = offset;
        any = true;
    }
    p->committed_at_ms = bf_mono_ms();
    /* the watermarks were read first, so the sync covers every write of the events below them */
    if (!any)
        return;
    if (bf_store_sync(p->core->store) != 0)
        bf_fatal("ctrlplane",
                 "the store cannot be synced: stopping; nothing is acknowledged to the "
                 "log that may be lost");
    for (uint32_t i = 0; i < count; i++) {
        if (due[i].offset < 0)
            continue;
        if (bf_log_commit(p->core->log, i, due[i].assignment, due[i].offset) == 0)
            p->committed[i] = due[i].offset;
    }
}

static void note_polled(struct bf_pipeline *p)
{
    uint64_t after_ms = bf_core_conf(p->core)->kafka_max_poll_ms / 4;
    p->keep_at_ms = bf_mono_ms() + (after_ms < KEEP_AFTER_MS ? after_ms : KEEP_AFTER_MS);
}

/* While nothing is taken: commits what settles, and keeps the log's partitions ours. */
static void idle(struct bf_pipeline *p, long wait_ns)
{
    uint64_t now = bf_mono_ms();
    if (now - p->committed_at_ms >= COMMIT_MS)
        commit_watermarks(p);
    if (now >= p->keep_at_ms) {
        bf_log_keep(p->core->log);
        p->keep_at_ms = now + KEEP_EVERY_MS;
    }
    nanosleep(&(struct timespec){.tv_nsec = wait_ns}, NULL);
}

/* Opens the event, if need be when there is room again. False: it is not ours any more (its
 * partition went to another node while we waited), or we stop; it is read again. */
static bool open_record(struct bf_pipeline *p, const struct bf_log_record *r,
                        struct bf_ledger_ticket *ret_ticket)
{
    struct bf_ledger *ledger = p->core->ledger;
    while (bf_ledger_is_current(ledger, r->partition, r->assignment)) {
        if (bf_ledger_open(ledger, r->partition, r->assignment, r->offset, ret_ticket))
            return true;
        if (atomic_load_explicit(&p->stop, memory_order_relaxed))
            return false;
        idle(p, ROOM_WAIT_NS);
    }
    return false;
}

static void take_records(struct bf_pipeline *p, struct bf_log_record *records, int count)
{
    for (int i = 0; i < count; i++) {
        struct bf_ledger_ticket ticket;
        if (open_record(p, &records[i], &ticket))
            take_record(p, &records[i], &ticket);
        else if (atomic_load_explicit(&p->stop, memory_order_relaxed))
            return;
    }
}

static void turn(struct bf_pipeline *p, struct bf_log_record *records)
{
    int count = bf_log_poll(p->core->log, records, POLL_MAX, POLL_MS);
    note_polled(p);
    if (count > 0) {
        take_records(p, records, count);
        bf_log_free_records(p->core->log, records, count);
    } else if (count < 0) {
        nanosleep(&(struct timespec){.tv_nsec = POLL_MS * 1000000L}, NULL);
    }
    if (bf_mono_ms() - p->committed_at_ms >= COMMIT_MS)
        commit_watermarks(p);
}

static void *pipeline_main(void *arg)
{
    struct bf_pipeline *p = arg;
    struct bf_log_record *records = calloc(POLL_MAX, sizeof(*records));
    prctl(PR_SET_NAME, "bf-pipeline");
    note_polled(p);
    while (!atomic_load_explicit(&p->stop, memory_order_relaxed)) {
        if (atomic_load_explicit(&p->running, memory_order_acquire))
            turn(p, records);
        else
            idle(p, CENSUS_WAIT_NS);
    }
    uint64_t until = bf_mono_ms() + STOP_MS;
    uint64_t open = 1;
    while (open && bf_mono_ms() < until) {
        open = 0;
        for (uint32_t i = 0; i < bf_ledger_partitions(p->core->ledger); i++)
            open += bf_ledger_inflight(p->core->ledger, i);
        commit_watermarks(p);
        if (open)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
    free(records);
    return NULL;
}

int bf_pipeline_create(struct bf_core *core, struct bf_pipeline **ret)
{
    struct bf_pipeline *p = calloc(1, sizeof(*p));
    if (!p)
        return BF_ERR_NO_MEMORY;
    p->core = core;
    p->hooks = (struct bf_log_hooks){
        .arg = p, .on_assign = on_assign, .on_revoke = on_revoke, .on_skip = on_skip};
    p->batch = bf_batch_create(core->store);
    *ret = p;
    return p->batch ? bf_jobs_create(core, &p->jobs) : BF_ERR_NO_MEMORY;
}

const struct bf_log_hooks *bf_pipeline_hooks(struct bf_pipeline *p)
{
    return &p->hooks;
}

int bf_pipeline_start(struct bf_pipeline *p)
{
    int rc = bf_jobs_start(p->jobs);
    if (rc == 0)
        rc = -pthread_create(&p->thread, NULL, pipeline_main, p);
    p->started = rc == 0;
    return rc;
}

void bf_pipeline_resume(struct bf_pipeline *p)
{
    atomic_store_explicit(&p->running, true, memory_order_release);
}

void bf_pipeline_stop(struct bf_pipeline *p)
{
    if (!p || !p->started)
        return;
    atomic_store_explicit(&p->stop, true, memory_order_relaxed);
    pthread_join(p->thread, NULL);
    bf_jobs_stop(p->jobs);
    p->started = false;
}

void bf_pipeline_destroy(struct bf_pipeline *p)
{
    if (!p)
        return;
    bf_jobs_destroy(p->jobs);
    bf_batch_destroy(p->batch);
    free(p);
}
