/*
 * Kafka log engine, consumer side: records of the three lane topics. One message a call of
 * rd_kafka_consumer_poll: its batch interface skips offsets around pause and resume before
 * librdkafka 2.1 (Debian 12 has 2.0.2), and here a skipped offset is a lost message. Consumer
 * thread only.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/fault.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "log/kafka.h"
#include "stats/metrics.h"
#include "time/record_time.h"

#define LAG_INTERVAL_MS 1000u
/* Errors that one poll passes over before it returns; a broker in trouble must not hold us here. */
#define ERRORS_PER_POLL 64

static struct bf_fault consumer_fault = {.point = "kafka_consumer_fatal"};

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    struct bf_kafka *k = opaque;
    char why[BF_KAFKA_TEXT_BYTES];
    if (err == RD_KAFKA_RESP_ERR__FATAL) {
        rd_kafka_fatal_error(rk, why, sizeof(why));
        bf_kafka_consumer_dies(k, "consumer", why);
        return;
    }
    bf_kafka_say("consumer", reason);
    if (bf_kafka_is_refusal((rd_kafka_resp_err_t)err)) {
        bf_kafka_note_why(k, "consumer", reason);
        bf_kafka_refresh_password(k->conf, rk, &k->consumer_password_ms, bf_mono_ms());
    }
}

static int subscribe(struct bf_kafka *k, char *err, size_t err_len)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(BF_LANE_COUNT);
    for (int lane = 0; lane < (int)BF_LANE_COUNT; lane++) {
        if (rd_kafka_topic_partition_list_find(list, k->topics[lane], RD_KAFKA_PARTITION_UA) ==
            NULL)
            rd_kafka_topic_partition_list_add(list, k->topics[lane], RD_KAFKA_PARTITION_UA);
    }
    rd_kafka_resp_err_t rc = rd_kafka_subscribe(k->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (rc == RD_KAFKA_RESP_ERR_NO_ERROR)
        return 0;
    snprintf(err, err_len, "kafka: subscribe: %s", rd_kafka_err2str(rc));
    return BF_ERR_LOG;
}

int bf_kafka_consumer_open(struct bf_kafka *k, char *err, size_t err_len)
{
    char fetch_wait[16], fetch_min[16], max_poll[16], session[16];
    uint32_t poll_ms = k->conf->kafka_max_poll_ms;
    snprintf(fetch_wait, sizeof(fetch_wait), "%u", k->conf->kafka_fetch_wait_ms);
    snprintf(fetch_min, sizeof(fetch_min), "%u", k->conf->kafka_fetch_min_bytes);
    snprintf(max_poll, sizeof(max_poll), "%u", poll_ms);
    snprintf(session, sizeof(session), "%u",
             poll_ms < BF_KAFKA_SESSION_TIMEOUT_MS ? poll_ms : BF_KAFKA_SESSION_TIMEOUT_MS);
    const struct bf_kafka_setting settings[] = {
        {"bootstrap.servers", k->conf->kafka_brokers},
        {"client.id", k->conf->node_id},
        {"group.id", k->conf->kafka_group},
        {"group.instance.id", k->conf->node_id},
        {"session.timeout.ms", session},
        {"max.poll.interval.ms", max_poll},
        {"partition.assignment.strategy", "cooperative-sticky"},
        {"auto.offset.reset", "error"},
        {"enable.auto.offset.store", "false"},
        {"enable.auto.commit", "true"},
        {"auto.commit.interval.ms", "500"},
        {"fetch.wait.max.ms", fetch_wait},
        {"fetch.min.bytes", fetch_min},
        {"fetch.error.backoff.ms", "100"},
        /* librdkafka 2.0 stops fetching for a second once these are reached: they must hold a
         * second of work at the rate that one core can take. */
        {"queued.min.messages", "500000"},
        {"queued.max.messages.kbytes", "262144"},
        {"socket.nagle.disable", "true"},
        {"reconnect.backoff.max.ms", "1000"},
        {"topic.metadata.refresh.interval.ms", "10000"}, /* a topic made anew is found as soon */
        /* librdkafka reports the end of a partition with its offset, which comes after the control
         * records of transactions; nothing else tells of those */
        {"enable.partition.eof", "true"},
        {NULL, NULL},
    };
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_opaque(conf, k);
    rd_kafka_conf_set_rebalance_cb(conf, bf_kafka_rebalance);
    rd_kafka_conf_set_error_cb(conf, on_error);
    if (k->consumer_renewal.made_ms == 0) /* once a process: its successor lives */
        bf_fault_arm(&consumer_fault);
    int rc = bf_kafka_configure(conf, settings, err, err_len);
    if (rc == 0)
        rc = bf_kafka_secure(k->conf, conf, err, err_len);
    if (rc != 0) {
        rd_kafka_conf_destroy(conf);
        return rc;
    }
    k->consumer = bf_kafka_client(RD_KAFKA_CONSUMER, conf, err, err_len);
    if (k->consumer == NULL)
        return BF_ERR_LOG;
    rd_kafka_poll_set_consumer(k->consumer);
    return subscribe(k, err, err_len);
}

void bf_kafka_consumer_close(struct bf_kafka *k)
{
    if (k->consumer == NULL)
        return;
    k->is_leaving = true;
    rd_kafka_consumer_close(k->consumer); /* commits; a static member keeps its partitions */
    if (k->pending != NULL)
        rd_kafka_topic_partition_list_destroy(k->pending);
    rd_kafka_destroy(k->consumer);
    k->consumer = NULL;
}

/* ---- records ---- */

/* Messages come in runs of one partition; the topic is told by librdkafka's handle, not by its
 * name. */
static struct bf_kafka_partition *partition_of(struct bf_kafka *k, const rd_kafka_message_t *m)
{
    /* one beyond the bounds was assigned a moment ago: the consumer is about to go */
    if (m->partition < 0 || m->partition >= (int32_t)BF_LEDGER_PARTITIONS_MAX)
        return NULL;
    for (int lane = 0; lane < (int)BF_LANE_COUNT; lane++) {
        if (k->topic_handle[lane] == m->rkt) {
            int16_t index = k->index_of[lane][m->partition];
            return index >= 0 ? &k->partitions[index] : NULL;
        }
    }
    const char *name = rd_kafka_topic_name(m->rkt);
    for (int lane = 0; lane < (int)BF_LANE_COUNT; lane++) {
        if (strcmp(name, k->topics[lane]) == 0) {
            k->topic_handle[lane] = m->rkt;
            return partition_of(k, m);
        }
    }
    return NULL;
}

static bool is_ce_header(const char *name)
{
    return strncmp(name, "ce_", 3) == 0 || strcmp(name, "content-type") == 0;
}

/* "name\0value\0" of the headers that CloudEvents' binary mode uses; one allocation, only if any.
 */
static void copy_ce_headers(const rd_kafka_headers_t *headers, struct bf_log_record *record)
{
    const char *name;
    const void *value;
    size_t size, bytes = 0;
    for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == 0; i++)
        bytes += is_ce_header(name) ? strlen(name) + size + 2 : 0;
    char *out = bytes > 0 ? malloc(bytes) : NULL;
    if (out == NULL)
        return;
    record->ce_headers = (struct bf_bytes){out, bytes};
    for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == 0; i++) {
        if (!is_ce_header(name))
            continue;
        size_t name_size = strlen(name) + 1;
        memcpy(out, name, name_size);
        out += name_size;
        if (size > 0)
            memcpy(out, value, size);
        out[size] = 0;
        out += size + 1;
    }
}

static void read_headers(rd_kafka_message_t *m, struct bf_log_record *record)
{
    rd_kafka_headers_t *headers;
    const void *value;
    size_t size;
    if (rd_kafka_message_headers(m, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return; /* the usual case: none */
    if (rd_kafka_header_get_last(headers, BF_KAFKA_HEADER_META, &value, &size) ==
        RD_KAFKA_RESP_ERR_NO_ERROR) {
        record->has_meta = true;
        record->meta = (struct bf_bytes){value, size};
    }
    copy_ce_headers(headers, record);
}

/* False: not ours to hand out (outdated or repeated after a resume); the message is destroyed. */
static bool fill_record(struct bf_kafka *k, rd_kafka_message_t *m, struct bf_log_record *record)
{
    rd_kafka_timestamp_type_t type;
    struct bf_kafka_partition *p = partition_of(k, m);
    if (p == NULL || !p->is_assigned || m->offset < p->next_offset) {
        rd_kafka_message_destroy(m);
        return false;
    }
    p->next_offset = m->offset + 1;
    bool is_odd;
    int64_t at = rd_kafka_message_timestamp(m, &type);
    uint64_t at_ms = bf_time_from_record(at, bf_wall_ms(), &is_odd);
    bf_count(BF_CM_M_ingest_odd_times, is_odd);
    *record = (struct bf_log_record){
        .partition = (uint32_t)(p - k->partitions),
        .assignment = p->assignment,
        .offset = m->offset,
        .topic_lane = (enum bf_lane)p->lane,
        .timestamp_ms = at_ms,
        .written_at = at,
        .key = {m->key, m->key_len},
        .body = {m->payload, m->len},
        .topic = k->topics[p->lane],
        .topic_partition = m->partition,
        .opaque = m,
    };
    read_headers(m, record);
    return true;
}

void bf_kafka_free_records(struct bf_log *log, struct bf_log_record *records, int count)
{
    ((struct bf_kafka *)log)->records_out -= (uint32_t)count;
    for (int i = 0; i < count; i++) {
        if (records[i].ce_headers.len > 0)
            free((void *)(uintptr_t)records[i].ce_headers.at);
        rd_kafka_message_destroy(records[i].opaque);
    }
}

/* The end of what can be read of a partition, control records included. It is told to the ledger at
 * the next poll: records of this one are not opened yet. */
static void note_end(struct bf_kafka *k, const rd_kafka_message_t *m)
{
    struct bf_kafka_partition *p = partition_of(k, m);
    /* while nothing is taken, fetched messages are dropped and fetched again later, so the end of a
     * partition means nothing */
    if (p == NULL || k->is_idle || !p->is_assigned || p->is_paused || m->offset <= p->next_offset)
        return;
    p->next_offset = p->skip_to = m->offset;
    k->has_skips = true;
}

static void note_error(struct bf_kafka *k, const rd_kafka_message_t *m)
{
    char why[BF_KAFKA_TEXT_BYTES];
    struct bf_kafka_partition *p = m->rkt != NULL ? partition_of(k, m) : NULL;
    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        note_end(k, m);
        return;
    }
    bool is_out = m->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
                  m->err == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    if (is_out && p != NULL && p->is_assigned) {
        bf_kafka_lose_place(k, p);
        return;
    }
    if (rd_kafka_fatal_error(k->consumer, why, sizeof(why)) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        bf_kafka_consumer_dies(k, "consumer", why);
        return;
    }
    bf_kafka_say("consumer", rd_kafka_message_errstr(m));
}

/* Drops records whose partition was revoked (or assigned anew) while the poll went on. */
static int drop_outdated(struct bf_kafka *k, struct bf_log_record *records, int count)
{
    int kept = 0;
    for (int i = 0; i < count; i++) {
        const struct bf_kafka_partition *p = &k->partitions[records[i].partition];
        if (p->is_assigned && p->assignment == records[i].assignment)
            records[kept++] = records[i];
        else
            bf_kafka_free_records(&k->log, &records[i], 1);
    }
    return kept;
}

/* Known only if the end of every partition is, and each is read. */
static void measure_lag(struct bf_kafka *k)
{
    uint64_t lag = 0, now = bf_mono_ms();
    if (now < k->lag_at_ms)
        return;
    k->lag_at_ms = now + LAG_INTERVAL_MS;
    for (uint32_t i = 0; i < k->partition_count && lag != BF_KAFKA_LAG_UNKNOWN; i++) {
        const struct bf_kafka_partition *p = &k->partitions[i];
        int64_t low = 0, high = -1;
        if (!p->is_assigned)
            continue;
        rd_kafka_get_watermark_offsets(k->consumer, k->topics[p->lane], p->partition, &low, &high);
        if (high < 0 || p->is_lost)
            lag = BF_KAFKA_LAG_UNKNOWN;
        else if (high > p->next_offset)
            lag += (uint64_t)(high - p->next_offset);
    }
    atomic_store_explicit(&k->lag, lag, memory_order_relaxed);
}

/* ---- taking nothing for a while ---- */

/* Those that this pause, or its end, is about; NULL: none. |offset|: where each goes on. */
static rd_kafka_topic_partition_list_t *list_paused(struct bf_kafka *k, bool is_paused)
{
    rd_kafka_topic_partition_list_t *list =
        rd_kafka_topic_partition_list_new((int)k->partition_count);
    for (uint32_t i = 0; i < k->partition_count; i++) {
        const struct bf_kafka_partition *p = &k->partitions[i];
        if (p->is_assigned && p->is_paused == is_paused)
            rd_kafka_topic_partition_list_add(list, k->topics[p->lane], p->partition)->offset =
                p->next_offset;
    }
    if (list->cnt > 0)
        return list;
    rd_kafka_topic_partition_list_destroy(list);
    return NULL;
}

static void mark_paused(struct bf_kafka *k, bool is_paused)
{
    for (uint32_t i = 0; i < k->partition_count; i++)
        if (k->partitions[i].is_assigned)
            k->partitions[i].is_paused = is_paused;
}

/* Waits until librdkafka has paused: a later poll gives no message. */
static void pause_all(struct bf_kafka *k)
{
    rd_kafka_topic_partition_list_t *list = list_paused(k, false);
    if (list == NULL)
        return;
    rd_kafka_pause_partitions(k->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    mark_paused(k, true);
}

/* The place is said again: librdkafka knows it only if a message of this assignment was taken, and
 * of one that came between an assignment and its pause it has a later one. False: not yet. */
static bool resume_all(struct bf_kafka *k)
{
    rd_kafka_topic_partition_list_t *list = list_paused(k, true);
    bool is_done = true;
    if (list == NULL)
        return true;
    rd_kafka_error_t *error = rd_kafka_seek_partitions(k->consumer, list, BF_KAFKA_ASK_TIMEOUT_MS);
    for (int i = 0; error == NULL && i < list->cnt; i++)
        is_done = is_done && list->elems[i].err == RD_KAFKA_RESP_ERR_NO_ERROR;
    if (error != NULL) {
        BF_WARN("ctrlplane", "kafka: reading cannot go on yet: %s", rd_kafka_error_string(error));
        rd_kafka_error_destroy(error);
        is_done = false;
    }
    if (is_done) {
        rd_kafka_resume_partitions(k->consumer, list);
        mark_paused(k, false);
    }
    rd_kafka_topic_partition_list_destroy(list);
    return is_done;
}

void bf_kafka_keep(struct bf_log *log)
{
    struct bf_kafka *k = (struct bf_kafka *)log;
    if (!bf_kafka_heal_consumer(k))
        return;
    k->is_idle = true;
    bf_kafka_retry_assign(k);
    pause_all(k);
    for (int i = 0; i < ERRORS_PER_POLL; i++) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(k->consumer, 0);
        if (m == NULL)
            break;
        if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR)
            note_error(k, m);
        /* a message, of a partition that this very poll assigned. It is read again after the pause
         */
        rd_kafka_message_destroy(m);
        pause_all(k);
    }
    measure_lag(k);
}

int bf_kafka_poll(struct bf_log *log, struct bf_log_record *records, int max, uint32_t timeout_ms)
{
    struct bf_kafka *k = (struct bf_kafka *)log;
    int count = 0, errors = 0;
    k->rebalanced = false;
    if (!bf_kafka_heal_consumer(k))
        return BF_ERR_LOG;
    bf_kafka_tell_skips(k);
    bf_kafka_retry_assign(k);
    bf_kafka_take_anew(k);
    bf_kafka_restart_lost(k);
    if (k->is_idle)
        k->is_idle = !resume_all(k);
    if (bf_fault_is_due(&consumer_fault))
        rd_kafka_test_fatal_error(k->consumer, RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID, "injected");
    while (count < max && errors < ERRORS_PER_POLL && !k->rebalanced) {
        rd_kafka_message_t *m =
            rd_kafka_consumer_poll(k->consumer, count == 0 && errors == 0 ? (int)timeout_ms : 0);
        if (m == NULL)
            break;
        if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            if (fill_record(k, m, &records[count]))
                count++;
            continue;
        }
        note_error(k, m);
        rd_kafka_message_destroy(m);
        errors++;
    }
    k->records_out += (uint32_t)count;
    if (k->rebalanced)
        count = drop_outdated(k, records, count);
    measure_lag(k);
    bf_count(BF_CM_M_ingest_kafka_records, (uint64_t)count);
    return count;
}

/* ---- pause and commit ---- */

static rd_kafka_topic_partition_list_t *list_of(const struct bf_kafka *k,
                                                const struct bf_kafka_partition *p, int64_t offset)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, k->topics[p->lane], p->partition)->offset = offset;
    return list;
}

void bf_kafka_pause(struct bf_log *log, uint32_t partition, bool paused)
{
    struct bf_kafka *k = (struct bf_kafka *)log;
    BF_BUG_ON(partition >= k->partition_count);
    const struct bf_kafka_partition *p = &k->partitions[partition];
    if (!p->is_assigned)
        return;
    rd_kafka_topic_partition_list_t *list = list_of(k, p, RD_KAFKA_OFFSET_INVALID);
    if (paused)
        rd_kafka_pause_partitions(k->consumer, list);
    else
        rd_kafka_resume_partitions(k->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
}

int bf_kafka_commit(struct bf_log *log, uint32_t partition, uint32_t assignment, int64_t offset)
{
    struct bf_kafka *k = (struct bf_kafka *)log;
    BF_BUG_ON(partition >= k->partition_count);
    struct bf_kafka_partition *p = &k->partitions[partition];
    if (!p->is_assigned || p->assignment != assignment || offset <= p->stored)
        return 0; /* results of an earlier assignment are dropped (DESIGN 4.14) */
    rd_kafka_topic_partition_list_t *list = list_of(k, p, offset);
    rd_kafka_resp_err_t err = rd_kafka_offsets_store(k->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
        return BF_ERR_LOG;
    p->stored = offset; /* librdkafka commits it within auto.commit.interval.ms */
    return 0;
}
