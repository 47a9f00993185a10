/* Kafka log engine: opening, closing, health, and what both clients share. */
#include "log/kafka.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"

/* syslog's warning: librdkafka's notices are for people who debug it. */
#define LOG_LEVEL 4

static void log_line(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk;
    BF_WARN("ctrlplane", "kafka: %s: %s (level %d)", facility, text, level);
}

int bf_kafka_configure(rd_kafka_conf_t *conf, const struct bf_kafka_setting *settings, char *err,
                       size_t err_len)
{
    char why[BF_KAFKA_TEXT_BYTES];
    for (; settings->name != NULL; settings++) {
        if (rd_kafka_conf_set(conf, settings->name, settings->value, why, sizeof(why)) ==
            RD_KAFKA_CONF_OK)
            continue;
        snprintf(err, err_len, "kafka option %s: %s", settings->name, why);
        return BF_ERR_UNSUPPORTED;
    }
    return 0;
}

rd_kafka_t *bf_kafka_client(rd_kafka_type_t type, rd_kafka_conf_t *conf, char *err, size_t err_len)
{
    char why[BF_KAFKA_TEXT_BYTES];
    rd_kafka_conf_set_log_cb(conf, log_line);
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof(why));
    if (rk == NULL) {
        rd_kafka_conf_destroy(conf);
        snprintf(err, err_len, "kafka: %s", why);
        return NULL;
    }
    rd_kafka_set_log_level(rk, LOG_LEVEL);
    return rk;
}

int bf_kafka_ensure_topic(rd_kafka_t *rk, const char *topic, int partitions)
{
    char why[BF_KAFKA_TEXT_BYTES];
    int rc = BF_ERR_LOG;
    /* -1: the broker's own default for partitions and for replication */
    rd_kafka_NewTopic_t *wanted =
        rd_kafka_NewTopic_new(topic, partitions > 0 ? partitions : -1, -1, why, sizeof(why));
    if (wanted == NULL)
        return rc;
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_request_timeout(options, BF_KAFKA_ASK_TIMEOUT_MS, why, sizeof(why));
    rd_kafka_CreateTopics(rk, &wanted, 1, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, BF_KAFKA_ASK_TIMEOUT_MS * 2);
    const rd_kafka_CreateTopics_result_t *result =
        event != NULL ? rd_kafka_event_CreateTopics_result(event) : NULL;
    size_t count = 0;
    const rd_kafka_topic_result_t **topics =
        result != NULL ? rd_kafka_CreateTopics_result_topics(result, &count) : NULL;
    if (count == 1) {
        rd_kafka_resp_err_t error = rd_kafka_topic_result_error(topics[0]);
        if (error == RD_KAFKA_RESP_ERR_NO_ERROR || error == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
            rc = 0;
        else
            BF_WARN("ctrlplane", "kafka: topic %s cannot be created: %s", topic,
                    rd_kafka_err2str(error));
    }
    if (event != NULL)
        rd_kafka_event_destroy(event);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    rd_kafka_NewTopic_destroy(wanted);
    return rc;
}

static int get_idem(struct bf_log *log, struct bf_bytes key, uint64_t now_ms,
                    int (*use)(void *arg, const struct bf_idem_row *row), void *arg)
{
    return bf_store_get_idem(((struct bf_kafka *)log)->store, key, now_ms, use, arg);
}

static const char *trouble(const struct bf_kafka *k)
{
    if (atomic_load_explicit(&k->is_dead, memory_order_relaxed))
        return "a fatal error of the Kafka client; the process must be started again";
    if (atomic_load_explicit(&k->is_away, memory_order_relaxed))
        return "no Kafka broker answers";
    if (atomic_load_explicit(&k->is_offset_lost, memory_order_relaxed))
        return "a committed offset is not in Kafka any more; set the group's offsets by hand";
    return "kafka";
}

static void health(struct bf_log *log, struct bf_log_health *ret)
{
    struct bf_kafka *k = (struct bf_kafka *)log;
    bool is_up = !atomic_load_explicit(&k->is_dead, memory_order_relaxed) &&
                 !atomic_load_explicit(&k->is_away, memory_order_relaxed);
    *ret = (struct bf_log_health){
        .can_append = is_up,
        .can_consume = is_up && !atomic_load_explicit(&k->is_offset_lost, memory_order_relaxed),
        .lag_events = atomic_load_explicit(&k->lag, memory_order_relaxed),
    };
    snprintf(ret->detail, sizeof(ret->detail), "%s", trouble(k));
}

static void close_engine(struct bf_log *log)
{
    struct bf_kafka *k = (struct bf_kafka *)log;
    bf_kafka_consumer_close(k);
    bf_kafka_producer_close(k);
    bf_batch_destroy(k->idem_batch);
    free(k);
}

static const struct bf_log_ops ops = {
    .close = close_engine,
    .append = bf_kafka_append,
    .get_idem = get_idem,
    .poll = bf_kafka_poll,
    .free_records = bf_kafka_free_records,
    .keep = bf_kafka_keep,
    .pause = bf_kafka_pause,
    .commit = bf_kafka_commit,
    .health = health,
    .dead_letter = bf_kafka_dead_letter,
    .token_event = bf_kafka_token_event,
};

int bf_log_kafka_open(const struct bf_conf *conf, struct bf_store *store,
                      const struct bf_log_hooks *hooks, struct bf_log **ret, char *err,
                      size_t err_len)
{
    if (conf->kafka_brokers[0] == 0) {
        snprintf(err, err_len, "log.engine is kafka, but log.kafka.brokers is empty");
        return BF_ERR_UNSUPPORTED;
    }
    struct bf_kafka *k = calloc(1, sizeof(*k));
    if (k == NULL)
        return -ENOMEM;
    k->log.ops = &ops;
    k->conf = conf;
    k->store = store;
    k->hooks = *hooks;
    k->topics[BF_LANE_CRITICAL] = conf->kafka_topic_transactional;
    k->topics[BF_LANE_NORMAL] = conf->kafka_topic_social;
    k->topics[BF_LANE_BULK] = conf->kafka_topic_marketing;
    memset(k->index_of, -1, sizeof(k->index_of));
    k->idem_batch = bf_batch_create(store);
    int rc = bf_kafka_producer_open(k, err, err_len);
    if (rc == 0)
        rc = bf_kafka_consumer_open(k, err, err_len);
    if (rc != 0) {
        close_engine(&k->log);
        return rc;
    }
    *ret = &k->log;
    return 0;
}
