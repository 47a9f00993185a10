/*
 * Kafka log engine, producer side: acks=all, idempotent. The delivery thread serves delivery
 * reports in rounds: the idempotency rows of a round go to the store in one write, then the done
 * functions are called in order. It also knows whether a broker answers; when none does, appends
 * are refused at once.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "admin/metrics.h"
#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "ingest/cloudevents.h"
#include "log/kafka.h"

#define SERVE_MS 100
/* At close, events on their way get as long as their own timeout. */
#define FLUSH_MS 12000

static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    struct bf_kafka *k = opaque;
    char why[BF_KAFKA_TEXT_BYTES];
    (void)reason; /* the probe says it once */
    k->is_suspect = true;
    if (err != RD_KAFKA_RESP_ERR__FATAL)
        return;
    rd_kafka_fatal_error(rk, why, sizeof(why));
    atomic_store_explicit(&k->is_dead, true, memory_order_relaxed);
    BF_ERROR("ctrlplane", "kafka: producer: fatal: %s; the process must be started again", why);
}

/* Delivery thread, inside rd_kafka_poll: only gathers. */
static void on_delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    struct bf_kafka *k = opaque;
    struct bf_kafka_done *done = m->_private;
    (void)rk;
    if (m->err == RD_KAFKA_RESP_ERR__MSG_TIMED_OUT || m->err == RD_KAFKA_RESP_ERR__TRANSPORT)
        k->is_suspect = true;
    if (done == NULL)
        return; /* a dead letter: the store's row is the one that counts */
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
        d->done(d->arg, d->rc);
        good += d->rc == 0;
        bad += d->rc != 0;
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

/* Asks for any answer of any broker. */
static void probe(struct bf_kafka *k)
{
    const rd_kafka_metadata_t *metadata = NULL;
    rd_kafka_resp_err_t err =
        rd_kafka_metadata(k->producer, 0, k->produce_to[0], &metadata, BF_KAFKA_PROBE_TIMEOUT_MS);
    bool is_away = err != RD_KAFKA_RESP_ERR_NO_ERROR;
    if (metadata != NULL)
        rd_kafka_metadata_destroy(metadata);
    bool was_away = atomic_exchange_explicit(&k->is_away, is_away, memory_order_relaxed);
    if (is_away && !was_away)
        BF_WARN("ctrlplane", "kafka: no broker answers (%s): ingest closes", rd_kafka_err2str(err));
    if (!is_away && was_away)
        BF_INFO("ctrlplane", "kafka: a broker answers");
    k->is_suspect = is_away;
    if (!is_away && !k->has_topics)
        ensure_topics(k);
}

static void *delivery_main(void *arg)
{
    struct bf_kafka *k = arg;
    prctl(PR_SET_NAME, "bf-kafka-done");
    while (!atomic_load_explicit(&k->is_closing, memory_order_relaxed)) {
        rd_kafka_poll(k->producer, SERVE_MS);
        finish_round(k);
        if (k->is_suspect)
            probe(k);
    }
    return NULL;
}

static int make_topics(struct bf_kafka *k, char *err, size_t err_len)
{
    const char *names[] = {k->topics[0], k->topics[1], k->topics[2], k->conf->kafka_topic_dlq,
                           k->conf->kafka_topic_tokens};
    for (int i = 0; i < (int)(sizeof(names) / sizeof(names[0])); i++) {
        rd_kafka_topic_t *topic = rd_kafka_topic_new(k->producer, names[i], NULL);
        if (topic == NULL) {
            snprintf(err, err_len, "kafka: topic %s: %s", names[i],
                     rd_kafka_err2str(rd_kafka_last_error()));
            return BF_ERR_LOG;
        }
        if (i < (int)BF_LANE_COUNT)
            k->produce_to[i] = topic;
        else if (i == (int)BF_LANE_COUNT)
            k->dlq = topic;
        else
            k->tokens = topic;
    }
    return 0;
}

int bf_kafka_producer_open(struct bf_kafka *k, char *err, size_t err_len)
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
        /* as the Java producers do: an event of one user lands in one partition, whoever sent it */
        {"partitioner", "murmur2_random"},
        {"socket.nagle.disable", "true"},
        {"reconnect.backoff.max.ms", "1000"},
        {NULL, NULL},
    };
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_opaque(conf, k);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivered);
    rd_kafka_conf_set_error_cb(conf, on_error);
    int rc = bf_kafka_configure(conf, settings, err, err_len);
    if (rc != 0) {
        rd_kafka_conf_destroy(conf);
        return rc;
    }
    k->producer = bf_kafka_client(RD_KAFKA_PRODUCER, conf, err, err_len);
    if (k->producer == NULL)
        return BF_ERR_LOG;
    rc = make_topics(k, err, err_len);
    if (rc != 0)
        return rc;
    probe(k); /* topics exist before the consumer asks for them; without a broker we start all the
                 same */
    int made = pthread_create(&k->delivery_thread, NULL, delivery_main, k);
    BF_BUG_ON(made != 0); /* start-up only */
    k->has_thread = true;
    return 0;
}

void bf_kafka_producer_close(struct bf_kafka *k)
{
    if (k->producer == NULL)
        return;
    atomic_store_explicit(&k->is_closing, true, memory_order_relaxed);
    if (k->has_thread)
        pthread_join(k->delivery_thread, NULL);
    rd_kafka_flush(k->producer, FLUSH_MS);
    rd_kafka_purge(k->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    rd_kafka_poll(k->producer, 0); /* reports of what was purged: nobody waits for ever */
    finish_round(k);
    for (int i = 0; i < (int)BF_LANE_COUNT; i++) {
        if (k->produce_to[i] != NULL)
            rd_kafka_topic_destroy(k->produce_to[i]);
    }
    if (k->dlq != NULL)
        rd_kafka_topic_destroy(k->dlq);
    if (k->tokens != NULL)
        rd_kafka_topic_destroy(k->tokens);
    rd_kafka_destroy(k->producer);
    k->producer = NULL;
}

/* ---- append
 * --------------------------------------------------------------------------------------- */

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
        atomic_load_explicit(&k->is_dead, memory_order_relaxed)) {
        bf_count(BF_CM_M_log_append_errors, 1);
        return BF_ERR_LOG;
    }
    struct bf_kafka_done *call = make_done(entry, done, arg);
    if (call == NULL)
        return -ENOMEM;
    int rc = produce_error(rd_kafka_producev(
        k->producer, RD_KAFKA_V_RKT(k->produce_to[entry->lane]),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY((void *)(uintptr_t)entry->key.at, entry->key.len),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)entry->body.at, entry->body.len),
        RD_KAFKA_V_HEADER(BF_KAFKA_HEADER_META, entry->meta.at, (ssize_t)entry->meta.len),
        RD_KAFKA_V_OPAQUE(call), RD_KAFKA_V_END));
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
    rd_kafka_resp_err_t err = rd_kafka_producev(
        k->producer, RD_KAFKA_V_RKT(k->dlq), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY((void *)(uintptr_t)key.at, key.len),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)body.at, body.len), RD_KAFKA_V_HEADERS(headers),
        RD_KAFKA_V_OPAQUE(NULL), RD_KAFKA_V_END);
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
    rd_kafka_resp_err_t err = rd_kafka_producev(
        k->producer, RD_KAFKA_V_RKT(k->tokens), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY((void *)(uintptr_t)key.at, key.len),
        RD_KAFKA_V_VALUE((void *)(uintptr_t)body.at, body.len), RD_KAFKA_V_OPAQUE(NULL),
        RD_KAFKA_V_END);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
        bf_count(BF_CM_M_log_append_errors, 1);
}
