/* Kafka log engine: opening, closing, health, and what both clients share. */
#include "log/kafka.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"

/* syslog's warning: librdkafka's notices are for people who debug it. */
#define LOG_LEVEL 4
/* Reading that stops for less than this leaves the node ready. */
#define READY_GRACE_MS 2000u

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
    rd_kafka_conf_set_log_cb(conf, bf_kafka_log_line);
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
        bool may_not = error == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
                       error == RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED ||
                       error == RD_KAFKA_RESP_ERR_POLICY_VIOLATION;
        bool is_there =
            error == RD_KAFKA_RESP_ERR_NO_ERROR || error == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS;
        if (is_there || may_not) /* others make it where we may not: asking again changes nothing */
            rc = 0;
        if (!is_there)
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

void bf_kafka_note_why(struct bf_kafka *k, const char *who, const char *text)
{
    pthread_mutex_lock(&k->why_lock);
    snprintf(k->why, sizeof(k->why), "%s: %s", who, text);
    pthread_mutex_unlock(&k->why_lock);
}

void bf_kafka_renewal_plan(struct bf_kafka_renewal *renewal, uint64_t now)
{
    bool is_soon = renewal->made_ms != 0 && now - renewal->made_ms < BF_KAFKA_RENEW_SOON_MS;
    uint32_t longer = renewal->wait_ms * 2;
    renewal->wait_ms = !is_soon                         ? 0
                       : longer < BF_KAFKA_RENEW_MIN_MS ? BF_KAFKA_RENEW_MIN_MS
                       : longer > BF_KAFKA_RENEW_MAX_MS ? BF_KAFKA_RENEW_MAX_MS
                                                        : longer;
    renewal->at_ms = now + renewal->wait_ms;
}

/* relaxed, here and below: flags and numbers that stand alone */
static bool is_set(const _Atomic bool *flag)
{
    return atomic_load_explicit(flag, memory_order_relaxed);
}

static uint64_t number(const _Atomic uint64_t *at)
{
    return atomic_load_explicit(at, memory_order_relaxed);
}

static uint32_t missing(const struct bf_kafka *k)
{
    return atomic_load_explicit(&k->missing, memory_order_relaxed);
}

bool bf_kafka_reads(struct bf_kafka *k)
{
    return number(&k->consumer_dead_ms) == 0 && !is_set(&k->is_away) &&
           is_set(&k->has_assignment) && !is_set(&k->is_restarting) &&
           missing(k) != BF_KAFKA_ALL_LANES;
}

static void word_trouble(struct bf_kafka *k, char *out, size_t out_len)
{
    char why[BF_KAFKA_WHY_BYTES];
    bool is_refused = is_set(&k->is_refused);
    bool is_dead = number(&k->consumer_dead_ms) != 0 || number(&k->producer_dead_ms) != 0;
    pthread_mutex_lock(&k->why_lock);
    snprintf(why, sizeof(why), "%s", k->why);
    pthread_mutex_unlock(&k->why_lock);
    if (is_dead)
        snprintf(out, out_len, "a fatal error, the client is made anew: %s", why);
    else if (is_refused)
        snprintf(out, out_len, "the broker refuses us: %s", why);
    else if (is_set(&k->is_away))
        snprintf(out, out_len, "no Kafka broker answers");
    else if (missing(k) != 0)
        snprintf(out, out_len, "a topic is not there: %s", why);
    else if (is_set(&k->is_restarting))
        snprintf(out, out_len,
                 "a partition is read from its beginning as soon as Kafka says where "
                 "that is");
    else if (!is_set(&k->has_assignment))
        snprintf(out, out_len, "the group has not said yet what this node reads");
    else
        snprintf(out, out_len, "kafka");
}

static bool is_stuck(uint64_t dead_ms, uint64_t now)
{
    return dead_ms != 0 && now > dead_ms && now - dead_ms >= BF_KAFKA_STUCK_MS;
}

static void health(struct bf_log *log, struct bf_log_health *ret)
{
    struct bf_kafka *k = (struct bf_kafka *)log;
    uint64_t now = bf_mono_ms(), since = number(&k->not_reading_ms), lag = number(&k->lag);
    uint64_t consumer_dead = number(&k->consumer_dead_ms);
    uint64_t producer_dead = number(&k->producer_dead_ms);
    bool reads = bf_kafka_reads(k);
    bool is_pause = is_set(&k->has_read) && (since == 0 || now < since + READY_GRACE_MS);
    *ret = (struct bf_log_health){
        .can_append =
            producer_dead == 0 && !is_set(&k->is_away) && missing(k) != BF_KAFKA_ALL_LANES,
        .can_consume = reads || is_pause,
        .reads = reads,
        .is_stuck = is_stuck(consumer_dead, now) || is_stuck(producer_dead, now),
        .is_lag_known = reads && missing(k) == 0 && lag != BF_KAFKA_LAG_UNKNOWN,
        .lag_events = reads && lag != BF_KAFKA_LAG_UNKNOWN ? lag : 0,
    };
    word_trouble(k, ret->detail, sizeof(ret->detail));
}

/* A lane's topic, on the watch's thread. */
static void on_anew(void *arg, int topic)
{
    struct bf_kafka *k = arg;
    for (int lane = 0; lane < (int)BF_LANE_COUNT; lane++) {
        /* relaxed: the bits say it all */
        if (strcmp(k->topics[lane], k->watch.topics[topic]) == 0)
            atomic_fetch_or_explicit(&k->anew, 1u << lane, memory_order_relaxed);
    }
}

static int open_watch(struct bf_kafka *k, char *err, size_t err_len)
{
    for (int lane = 0; lane < (int)BF_LANE_COUNT; lane++) {
        bool is_known = false; /* two lanes may be one topic */
        for (int i = 0; i < k->watch.topic_count; i++)
            is_known = is_known || strcmp(k->watch.topics[i], k->topics[lane]) == 0;
        if (!is_known)
            k->watch.topics[k->watch.topic_count++] = k->topics[lane];
    }
    k->watch.on_anew = on_anew;
    k->watch.arg = k;
    return bf_kafka_watch_start(&k->watch, k->conf, err, err_len);
}

static void close_engine(struct bf_log *log)
{
    struct bf_kafka *k = (struct bf_kafka *)log;
    bf_kafka_watch_stop(&k->watch);
    bf_kafka_consumer_close(k);
    bf_kafka_producer_close(k);
    bf_batch_destroy(k->idem_batch);
    pthread_mutex_destroy(&k->producer_lock);
    pthread_mutex_destroy(&k->why_lock);
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
    pthread_mutex_init(&k->producer_lock, NULL);
    pthread_mutex_init(&k->why_lock, NULL);
    atomic_init(&k->lag, BF_KAFKA_LAG_UNKNOWN);
    k->idem_batch = bf_batch_create(store);
    int rc = bf_kafka_producer_open(k, err, err_len);
    if (rc == 0)
        rc = bf_kafka_consumer_open(k, err, err_len);
    if (rc == 0)
        rc = open_watch(k, err, err_len);
    if (rc != 0) {
        close_engine(&k->log);
        return rc;
    }
    *ret = &k->log;
    return 0;
}
