/*
 * Kafka log engine, producer side: acks=all, idempotent. The delivery thread serves delivery
 * reports in rounds: the idempotency rows of a round go to the store in one write, then the done
 * functions are called in order. It also knows whether a broker answers; when none does, appends
 * are refused at once, and those that wait are answered.
 *
 * Whoever appended is answered within log.kafka.append_timeout, whatever Kafka does. If Kafka takes
 * the record later, after the API has answered 503, its idempotency row is written all the same: a
 * repetition with the same key then gets the 202, and one that is already on its way has the same
 * event id.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/fault.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "ingest/cloudevents.h"
#include "log/kafka.h"
#include "stats/metrics.h"

#define SERVE_MS 100
/* At close, events on their way get a little more than their own timeout at its default. */
#define FLUSH_MS 3000
/* After so long without any answer a probe is sent, so that health is right without traffic too. */
#define PROBE_EVERY_MS 5000u
/* An append that waits for so long is a reason to ask. */
#define SLOW_MS 400u
/* How long one probe waits: short while appends may have to wait for it, longer once they are
 * refused anyway. */
#define PROBE_SLICE_MS 250
#define PROBE_AWAY_MS  1000
/* After so long without an answer Kafka counts as unreachable. Shorter pauses are not reported. */
#define AWAY_AFTER_MS 1200u

static struct bf_fault producer_fault = {.point = "kafka_producer_fatal"};

static void producer_dies(struct bf_kafka *k)
{
    char why[BF_KAFKA_TEXT_BYTES];
    uint64_t lives = 0;
    rd_kafka_fatal_error(k->producer, why, sizeof(why));
    bf_kafka_note_why(k, "producer", why);
    /* relaxed: a flag with a time in it; the first one counts */
    if (atomic_compare_exchange_strong_explicit(&k->producer_dead_ms, &lives, bf_mono_ms() + 1,
                                                memory_order_relaxed, memory_order_relaxed))
        BF_ERROR("ctrlplane", "kafka: producer: fatal: %s; it is made anew", why);
}

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    struct bf_kafka *k = opaque;
    k->is_suspect = true;
    if (rk != k->producer)
        return; /* what it still reports while it is closed */
    if (err == RD_KAFKA_RESP_ERR__FATAL) {
        producer_dies(k);
        return;
    }
    if (!bf_kafka_is_refusal((rd_kafka_resp_err_t)err))
        return; /* the probe says it once */
    bf_kafka_say("producer", reason);
    bf_kafka_note_why(k, "producer", reason);
    atomic_store_explicit(&k->is_refused, true, memory_order_relaxed);
    bf_kafka_refresh_password(k->conf, rk, &k->producer_password_ms, bf_mono_ms());
}

/* ---- those that wait ---- */

/* With the lock. */
static void link_waiting(struct bf_kafka *k, struct bf_kafka_done *done)
{
    done->is_waiting = true;
    done->older = k->waiting_newest;
    done->newer = NULL;
    if (k->waiting_newest != NULL)
        k->waiting_newest->newer = done;
    else
        k->waiting_oldest = done;
    k->waiting_newest = done;
}

/* With the lock. */
static void unlink_waiting(struct bf_kafka *k, struct bf_kafka_done *done)
{
    if (done->newer != NULL)
        done->newer->older = done->older;
    else
        k->waiting_newest = done->older;
    if (done->older != NULL)
        done->older->newer = done->newer;
    else
        k->waiting_oldest = done->newer;
    done->is_waiting = false;
}

static void wait_end(struct bf_kafka *k, struct bf_kafka_done *done)
{
    pthread_mutex_lock(&k->producer_lock);
    if (done->is_waiting)
        unlink_waiting(k, done);
    pthread_mutex_unlock(&k->producer_lock);
}

/* The oldest one if it is due, no longer in the list; NULL: none is. */
static struct bf_kafka_done *take_due(struct bf_kafka *k, uint64_t now)
{
    pthread_mutex_lock(&k->producer_lock);
    struct bf_kafka_done *done = k->waiting_oldest;
    if (done != NULL && done->deadline_ms <= now)
        unlink_waiting(k, done);
    else
        done = NULL;
    pthread_mutex_unlock(&k->producer_lock);
    return done;
}

/* Answers 503 to those that are due. Kafka's own report of them comes later and frees them: both
 * are of this thread. */
static void answer_due(struct bf_kafka *k, uint64_t now)
{
    struct bf_kafka_done *done;
    uint64_t late = 0;
    while ((done = take_due(k, now)) != NULL) {
        bf_log_done_fn fn = done->done;
        done->done = NULL;
        fn(done->arg, BF_ERR_LOG);
        late++;
    }
    bf_count(BF_CM_M_log_append_errors, late);
}

static bool is_slow(struct bf_kafka *k, uint64_t now)
{
    pthread_mutex_lock(&k->producer_lock);
    const struct bf_kafka_done *oldest = k->waiting_oldest;
    bool slow =
        oldest != NULL && oldest->deadline_ms + SLOW_MS <= now + k->conf->kafka_append_timeout_ms;
    pthread_mutex_unlock(&k->producer_lock);
    return slow;
}

/* Delivery thread, inside rd_kafka_poll: only gathers. */
static void on_delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    struct bf_kafka *k = opaque;
    struct bf_kafka_done *done = m->_private;
    (void)rk;
    if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR)
        k->heard_ms = bf_mono_ms();
    else
        k->is_suspect = true;
    if (done == NULL)
        return; /* a dead letter: the store's row is the one that counts */
    wait_end(k, done);
    done->rc = m->err == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : BF_ERR_LOG;
    done->next = NULL;
    if (k->done_last != NULL)
        k->done_last->next = done;
    else
        k->done_first = done;
    k->done_last = done;
}

static void finish_round(struct bf_kafka *k)
{
    uint64_t good = 0, bad = 0;
    for (struct bf_kafka_done *d = k->done_first; d != NULL; d = d->next) {
        if (d->rc == 0 && d->has_idem)
            bf_batch_put_idem(k->idem_batch, &d->idem);
    }
    /* the event is accepted already: without its row a repeat is caught by the event id instead */
    if (bf_batch_write(k->idem_batch, false) != 0)
        bf_batch_clear(k->idem_batch);
    while (k->done_first != NULL) {
        struct bf_kafka_done *d = k->done_first;
        k->done_first = d->next;
        good += d->rc == 0;
        if (d->done != NULL) { /* else it was answered 503 */
            d->done(d->arg, d->rc);
            bad += d->rc != 0;
        }
        free(d);
    }
    k->done_last = NULL;
    bf_count(BF_CM_M_log_appends, good);
    bf_count(BF_CM_M_log_append_errors, bad);
}

static void ensure_topics(struct bf_kafka *k)
{
    int rc = 0;
    for (int lane = 0; lane < (int)BF_LANE_COUNT; lane++)
        rc |= bf_kafka_ensure_topic(k->producer, k->topics[lane], 0);
    rc |= bf_kafka_ensure_topic(k->producer, k->conf->kafka_topic_dlq, 0);
    rc |= bf_kafka_ensure_topic(k->producer, k->conf->kafka_topic_tokens, 0);
    k->has_topics = rc == 0;
}

/* Checks whether a lane's topic is missing. It is not created while we run, because whoever deleted
 * it may be about to create it again with another number of partitions. */
static void look_for_topics(struct bf_kafka *k, const rd_kafka_metadata_t *metadata)
{
    uint32_t missing = 0;
    for (int i = 0; i < metadata->topic_cnt; i++) {
        const rd_kafka_metadata_topic_t *topic = &metadata->topics[i];
        if (topic->err != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
            continue;
        bf_kafka_say("a topic is not there", topic->topic);
        for (int lane = 0; lane < (int)BF_LANE_COUNT; lane++) {
            if (strcmp(k->topics[lane], topic->topic) == 0)
                missing |= 1u << lane;
        }
        if (missing != 0)
            bf_kafka_note_why(k, "topic", topic->topic);
    }
    atomic_store_explicit(&k->missing, missing, memory_order_relaxed);
}

static void note_answer(struct bf_kafka *k, rd_kafka_resp_err_t err, uint64_t asked_ms)
{
    uint64_t now = bf_mono_ms();
    bool is_silent = err != RD_KAFKA_RESP_ERR_NO_ERROR;
    if (is_silent && k->failing_ms == 0)
        k->failing_ms = asked_ms;
    if (!is_silent) {
        k->failing_ms = 0;
        k->heard_ms = now;
        atomic_store_explicit(&k->is_refused, false, memory_order_relaxed);
    }
    k->is_suspect = is_silent;
    bool is_away = is_silent && now - k->failing_ms >= AWAY_AFTER_MS;
    bool was_away = atomic_exchange_explicit(&k->is_away, is_away, memory_order_relaxed);
    if (is_away && !was_away)
        BF_WARN("ctrlplane", "kafka: no broker answers (%s): ingest closes", rd_kafka_err2str(err));
    if (!is_away && was_away)
        BF_INFO("ctrlplane", "kafka: a broker answers");
}

/* Asks for any answer of any broker, about the topics that we know. */
static void probe(struct bf_kafka *k, int timeout_ms)
{
    const rd_kafka_metadata_t *metadata = NULL;
    uint64_t asked = bf_mono_ms();
    rd_kafka_resp_err_t err = rd_kafka_metadata(k->producer, 0, NULL, &metadata, timeout_ms);
    note_answer(k, err, asked);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    if (k->has_topics)
        look_for_topics(k, metadata);
    else
        ensure_topics(k);
    rd_kafka_metadata_destroy(metadata);
}

static void look(struct bf_kafka *k)
{
    uint64_t now = bf_mono_ms();
    bool is_away = atomic_load_explicit(&k->is_away, memory_order_relaxed);
    bool is_quiet = now - k->heard_ms >= PROBE_EVERY_MS;
    if (k->is_suspect || is_quiet || is_slow(k, now) ||
        atomic_load_explicit(&k->missing, memory_order_relaxed) != 0)
        probe(k, is_away ? PROBE_AWAY_MS : PROBE_SLICE_MS);
}

/* Since when nothing is read, for the health report. */
static void note_reading(struct bf_kafka *k)
{
    bool reads = bf_kafka_reads(k);
    uint64_t since = atomic_load_explicit(&k->not_reading_ms, memory_order_relaxed);
    if (reads)
        atomic_store_explicit(&k->has_read, true, memory_order_relaxed);
    if (reads != (since == 0))
        atomic_store_explicit(&k->not_reading_ms, reads ? 0 : bf_mono_ms(), memory_order_relaxed);
}

static int make_producer(struct bf_kafka *k, char *err, size_t err_len);
static void throw_away(struct bf_kafka *k, rd_kafka_t *producer, rd_kafka_topic_t **topics);

/* A dead producer's successor takes its place; what the dead one held is answered: 503, or the
 * acknowledgement that came after all. */
static void heal_producer(struct bf_kafka *k)
{
    rd_kafka_topic_t *topics[] = {k->produce_to[0], k->produce_to[1], k->produce_to[2], k->dlq,
                                  k->tokens};
    rd_kafka_t *dead = k->producer;
    struct bf_kafka_renewal *renewal = &k->producer_renewal;
    char err[BF_KAFKA_TEXT_BYTES] = "";
    uint64_t now = bf_mono_ms();
    if (atomic_load_explicit(&k->producer_dead_ms, memory_order_relaxed) == 0)
        return;
    if (renewal->at_ms == 0)
        bf_kafka_renewal_plan(renewal, now);
    if (now < renewal->at_ms)
        return;
    renewal->made_ms = now;
    pthread_mutex_lock(&k->producer_lock);
    int rc = make_producer(k, err, sizeof(err));
    pthread_mutex_unlock(&k->producer_lock);
    if (rc != 0) {
        bf_kafka_say("the producer cannot be made anew yet", err);
        renewal->at_ms = now + BF_KAFKA_RENEW_MIN_MS;
        return;
    }
    renewal->at_ms = 0;
    throw_away(k, dead, topics);
    atomic_store_explicit(&k->producer_dead_ms, 0, memory_order_relaxed);
    bf_count(BF_CM_M_log_clients_renewed, 1);
    BF_INFO("ctrlplane", "kafka: the producer was made anew");
}

static void *delivery_main(void *arg)
{
    struct bf_kafka *k = arg;
    prctl(PR_SET_NAME, "bf-kafka-done");
    while (!atomic_load_explicit(&k->is_closing, memory_order_relaxed)) {
        rd_kafka_poll(k->producer, SERVE_MS);
        finish_round(k);
        answer_due(k, bf_mono_ms());
        heal_producer(k);
        look(k);
        if (atomic_load_explicit(&k->is_away, memory_order_relaxed))
            answer_due(k, UINT64_MAX); /* nobody waits for a broker that is not there */
        note_reading(k);
    }
    return NULL;
}

static rd_kafka_topic_t *make_topic(rd_kafka_t *producer, const char *name, const char *timeout,
                                    char *err, size_t err_len)
{
    const struct bf_kafka_setting settings[] = {{"message.timeout.ms", timeout}, {NULL, NULL}};
    rd_kafka_topic_conf_t *conf = rd_kafka_topic_conf_new();
    for (const struct bf_kafka_setting *s = settings; s->name != NULL; s++)
        rd_kafka_topic_conf_set(conf, s->name, s->value, err, err_len);
    /* as Java producers do, so that all events of a user are in one partition, whoever sends them
     */
    rd_kafka_topic_conf_set(conf, "partitioner", "murmur2_random", err, err_len);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(producer, name, conf);
    if (topic == NULL)
        snprintf(err, err_len, "kafka: topic %s: %s", name,
                 rd_kafka_err2str(rd_kafka_last_error()));
    return topic;
}

static void drop_topics(rd_kafka_topic_t **topics, int count)
{
    for (int i = 0; i < count; i++) {
        if (topics[i] != NULL)
            rd_kafka_topic_destroy(topics[i]);
    }
}

#define OWN_TOPICS ((int)BF_LANE_COUNT + 2)

static int make_topics(struct bf_kafka *k, rd_kafka_t *producer, char *err, size_t err_len)
{
    const char *names[] = {k->topics[0], k->topics[1], k->topics[2], k->conf->kafka_topic_dlq,
                           k->conf->kafka_topic_tokens};
    rd_kafka_topic_t *topics[OWN_TOPICS] = {NULL};
    char timeout[16];
    /* librdkafka gives up when we do, so that a record is not sent after the API has answered */
    snprintf(timeout, sizeof(timeout), "%u", k->conf->kafka_append_timeout_ms);
    for (int i = 0; i < OWN_TOPICS; i++) {
        bool is_lane = i < (int)BF_LANE_COUNT;
        topics[i] = make_topic(producer, names[i], is_lane ? timeout : BF_KAFKA_DELIVERY_TIMEOUT_MS,
                               err, err_len);
        if (topics[i] == NULL) {
            drop_topics(topics, OWN_TOPICS);
            return BF_ERR_LOG;
        }
    }
    memcpy(k->produce_to, topics, sizeof(k->produce_to));
    k->dlq = topics[BF_LANE_COUNT];
    k->tokens = topics[BF_LANE_COUNT + 1];
    return 0;
}

/* Sets producer and topics, or leaves them as they are. */
static int make_producer(struct bf_kafka *k, char *err, size_t err_len)
{
    bool is_safe = strcmp(k->conf->kafka_produce_acks, "all") == 0 ||
                   strcmp(k->conf->kafka_produce_acks, "-1") == 0;
    const struct bf_kafka_setting settings[] = {
        {"bootstrap.servers", k->conf->kafka_brokers},
        {"client.id", k->conf->node_id},
        {"acks", k->conf->kafka_produce_acks},
        {"enable.idempotence", is_safe ? "true" : "false"},
        {"linger.ms", "1"},
        {"message.timeout.ms", BF_KAFKA_DELIVERY_TIMEOUT_MS},
        /* a second of work; beyond it producers get 503 */
        {"queue.buffering.max.messages", "100000"},
        {"queue.buffering.max.kbytes", "131072"},
        {"socket.nagle.disable", "true"},
        {"reconnect.backoff.max.ms", "1000"},
        {"topic.metadata.refresh.interval.ms", "10000"}, /* a topic made anew is found as soon */
        {NULL, NULL},
    };
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_opaque(conf, k);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivered);
    rd_kafka_conf_set_error_cb(conf, on_error);
    int rc = bf_kafka_configure(conf, settings, err, err_len);
    if (rc == 0)
        rc = bf_kafka_secure(k->conf, conf, err, err_len);
    if (rc != 0) {
        rd_kafka_conf_destroy(conf);
        return rc;
    }
    rd_kafka_t *producer = bf_kafka_client(RD_KAFKA_PRODUCER, conf, err, err_len);
    if (producer == NULL)
        return BF_ERR_LOG;
    rc = make_topics(k, producer, err, err_len);
    if (rc != 0)
        rd_kafka_destroy(producer);
    else
        k->producer = producer;
    return rc;
}

int bf_kafka_producer_open(struct bf_kafka *k, char *err, size_t err_len)
{
    bf_fault_arm(&producer_fault);
    int rc = make_producer(k, err, err_len);
    if (rc != 0)
        return rc;
    probe(k, BF_KAFKA_ASK_TIMEOUT_MS); /* topics exist before the consumer asks for them; without a
                                          broker we start all the same */
    int made = pthread_create(&k->delivery_thread, NULL, delivery_main, k);
    BF_BUG_ON(made != 0); /* start-up only */
    k->has_thread = true;
    return 0;
}

static void throw_away(struct bf_kafka *k, rd_kafka_t *producer, rd_kafka_topic_t **topics)
{
    rd_kafka_purge(producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    rd_kafka_poll(producer, 0); /* reports of what was purged: nobody waits for ever */
    finish_round(k);
    drop_topics(topics, OWN_TOPICS);
    rd_kafka_destroy(producer);
}

void bf_kafka_producer_close(struct bf_kafka *k)
{
    if (k->producer == NULL)
        return;
    atomic_store_explicit(&k->is_closing, true, memory_order_relaxed);
    if (k->has_thread)
        pthread_join(k->delivery_thread, NULL);
    rd_kafka_topic_t *topics[] = {k->produce_to[0], k->produce_to[1], k->produce_to[2], k->dlq,
                                  k->tokens};
    rd_kafka_flush(k->producer, FLUSH_MS);
    throw_away(k, k->producer, topics);
    k->producer = NULL;
}

/* ---- append ---- */

static struct bf_kafka_done *make_done(const struct bf_log_entry *entry, bf_log_done_fn fn,
                                       void *arg)
{
    size_t key_len = entry->idem != NULL ? entry->idem->key.len : 0;
    size_t answer_len = entry->idem != NULL ? entry->idem->answer.len : 0;
    struct bf_kafka_done *done = malloc(sizeof(*done) + key_len + answer_len);
    if (done == NULL)
        return NULL;
    *done = (struct bf_kafka_done){.done = fn, .arg = arg, .has_idem = entry->idem != NULL};
    if (entry->idem == NULL)
        return done;
    done->idem = *entry->idem;
    memcpy(done->bytes, entry->idem->key.at, key_len);
    if (answer_len > 0)
        memcpy(done->bytes + key_len, entry->idem->answer.at, answer_len);
    done->idem.key.at = done->bytes;
    done->idem.answer.at = done->bytes + key_len;
    return done;
}

static int produce_error(rd_kafka_resp_err_t err)
{
    switch (err) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return 0;
    case RD_KAFKA_RESP_ERR__QUEUE_FULL:
        return BF_ERR_FULL;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
        return BF_ERR_TOO_LARGE;
    default:
        return BF_ERR_LOG;
    }
}

int bf_kafka_append(struct bf_log *log, const struct bf_log_entry *entry, bf_log_done_fn done,
                    void *arg)
{
    struct bf_kafka *k = (struct bf_kafka *)log;
    BF_BUG_ON((unsigned)entry->lane >= BF_LANE_COUNT);
    if (atomic_load_explicit(&k->is_away, memory_order_relaxed) ||
        (atomic_load_explicit(&k->missing, memory_order_relaxed) & 1u << entry->lane) != 0 ||
        atomic_load_explicit(&k->producer_dead_ms, memory_order_relaxed) != 0) {
        bf_count(BF_CM_M_log_append_errors, 1);
        return BF_ERR_LOG;
    }
    struct bf_kafka_done *call = make_done(entry, done, arg);
    if (call == NULL)
        return -ENOMEM;
    call->deadline_ms = bf_mono_ms() + k->conf->kafka_append_timeout_ms;
    /* the list and Kafka take it in one step: its report may come, and free it, at once */
    pthread_mutex_lock(&k->producer_lock);
    if (bf_fault_is_due(&producer_fault))
        rd_kafka_test_fatal_error(k->producer, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
                                  "injected");
    link_waiting(k, call);
    int rc = produce_error(rd_kafka_producev(
        k->producer, RD_KAFKA_V_RKT(k->produce_to[entry->lane]),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY((void *)(uintptr_t)entry->key.at, entry->key.len),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)entry->body.at, entry->body.len),
        RD_KAFKA_V_HEADER(BF_KAFKA_HEADER_META, entry->meta.at, (ssize_t)entry->meta.len),
        RD_KAFKA_V_OPAQUE(call), RD_KAFKA_V_END));
    if (rc != 0)
        unlink_waiting(k, call);
    pthread_mutex_unlock(&k->producer_lock);
    if (rc != 0) {
        free(call);
        bf_count(BF_CM_M_log_append_errors, 1);
    }
    return rc;
}

/* The reason, and what the producer's headers said of a CloudEvent: without them nobody can read
 * it. */
static rd_kafka_headers_t *letter_headers(struct bf_bytes reason, struct bf_bytes ce_headers)
{
    struct bf_bytes name, value;
    rd_kafka_headers_t *headers = rd_kafka_headers_new(1);
    rd_kafka_header_add(headers, BF_KAFKA_HEADER_REASON, -1, reason.at, (ssize_t)reason.len);
    while (bf_cloudevent_next_header(&ce_headers, &name, &value))
        rd_kafka_header_add(headers, name.at, (ssize_t)name.len, value.at, (ssize_t)value.len);
    return headers;
}

void bf_kafka_dead_letter(struct bf_log *log, struct bf_bytes key, struct bf_bytes body,
                          struct bf_bytes reason, struct bf_bytes ce_headers)
{
    struct bf_kafka *k = (struct bf_kafka *)log;
    if (atomic_load_explicit(&k->is_away, memory_order_relaxed))
        return; /* best effort: the row in the store is the record */
    rd_kafka_headers_t *headers = letter_headers(reason, ce_headers);
    pthread_mutex_lock(&k->producer_lock);
    rd_kafka_resp_err_t err = rd_kafka_producev(
        k->producer, RD_KAFKA_V_RKT(k->dlq), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY((void *)(uintptr_t)key.at, key.len),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)body.at, body.len), RD_KAFKA_V_HEADERS(headers),
        RD_KAFKA_V_OPAQUE(NULL), RD_KAFKA_V_END);
    pthread_mutex_unlock(&k->producer_lock);
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    rd_kafka_headers_destroy(headers); /* it was not taken over */
    bf_count(BF_CM_M_log_append_errors, 1);
}

void bf_kafka_token_event(struct bf_log *log, struct bf_bytes key, struct bf_bytes body)
{
    struct bf_kafka *k = (struct bf_kafka *)log;
    if (atomic_load_explicit(&k->is_away, memory_order_relaxed))
        return;
    pthread_mutex_lock(&k->producer_lock);
    rd_kafka_resp_err_t err = rd_kafka_producev(
        k->producer, RD_KAFKA_V_RKT(k->tokens), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY((void *)(uintptr_t)key.at, key.len),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)body.at, body.len), RD_KAFKA_V_OPAQUE(NULL),
        RD_KAFKA_V_END);
    pthread_mutex_unlock(&k->producer_lock);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
        bf_count(BF_CM_M_log_append_errors, 1);
}
