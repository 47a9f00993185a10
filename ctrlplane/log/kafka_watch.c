/* See kafka_watch.h. */
#include "log/kafka_watch.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "log/kafka.h"

/* Between two looks: what a topic made anew may hold when it is found out. */
#define LOOK_MS 1000u
#define ASK_MS  2000
/* Kafka forgets offsets of groups that nobody joins after a week (offsets.retention.minutes). */
#define MARK_AGAIN_MS (3600u * 1000u)
/* The place of a mark says nothing; any offset would do. */
#define MARK 1
/* The thread's sleep: what a stop waits for it. */
#define NAP_NS 50000000L

void bf_kafka_watch_group(const struct bf_conf *conf, char *out, size_t out_len)
{
    snprintf(out, out_len, "%s.%s.topic-marks", conf->kafka_group, conf->node_id);
}

static rd_kafka_topic_partition_list_t *list_topics(const struct bf_kafka_watch *watch)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(watch->topic_count);
    for (int i = 0; i < watch->topic_count; i++)
        rd_kafka_topic_partition_list_add(list, watch->topics[i], 0);
    return list;
}

static void leave_mark(struct bf_kafka_watch *watch, rd_kafka_t *rk, int topic)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, watch->topics[topic], 0)->offset = MARK;
    rd_kafka_resp_err_t err = rd_kafka_commit(rk, list, 0);
    /* of a topic that is not there it is refused: the next look tries again */
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR && err != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
        bf_kafka_say("a topic's mark cannot be left", rd_kafka_err2str(err));
    rd_kafka_topic_partition_list_destroy(list);
}

void bf_kafka_watch_turn(struct bf_kafka_watch *watch, rd_kafka_t *rk, uint64_t now_ms)
{
    if (now_ms - watch->asked_ms < LOOK_MS)
        return;
    watch->asked_ms = now_ms;
    rd_kafka_topic_partition_list_t *list = list_topics(watch);
    rd_kafka_resp_err_t err = rd_kafka_committed(rk, list, ASK_MS);
    bool is_due = now_ms - watch->marked_ms >= MARK_AGAIN_MS;
    if (err == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
        bf_kafka_say("marks of topics cannot be read", rd_kafka_err2str(err));
    for (int i = 0; err == RD_KAFKA_RESP_ERR_NO_ERROR && i < list->cnt; i++) {
        if (list->elems[i].err != RD_KAFKA_RESP_ERR_NO_ERROR)
            continue;
        bool is_there = list->elems[i].offset >= 0;
        if (!is_there && watch->is_marked[i])
            watch->on_anew(watch->arg, i);
        watch->is_marked[i] = is_there;
        if (!is_there || is_due)
            leave_mark(watch, rk, i);
    }
    if (is_due && err == RD_KAFKA_RESP_ERR_NO_ERROR)
        watch->marked_ms = now_ms;
    rd_kafka_topic_partition_list_destroy(list);
}

static void *watch_main(void *arg)
{
    struct bf_kafka_watch *watch = arg;
    prctl(PR_SET_NAME, "bf-kafka-marks");
    while (!atomic_load_explicit(&watch->is_closing, memory_order_relaxed)) {
        bf_kafka_watch_turn(watch, watch->own, bf_mono_ms());
        nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    }
    return NULL;
}

int bf_kafka_watch_start(struct bf_kafka_watch *watch, const struct bf_conf *conf, char *err,
                         size_t err_len)
{
    char group[BF_KAFKA_TEXT_BYTES];
    bf_kafka_watch_group(conf, group, sizeof(group));
    const struct bf_kafka_setting settings[] = {
        {"bootstrap.servers", conf->kafka_brokers},
        {"client.id", conf->node_id},
        {"group.id", group},
        {"enable.auto.commit", "false"},
        {"reconnect.backoff.max.ms", "1000"},
        {NULL, NULL},
    };
    rd_kafka_conf_t *rk_conf = rd_kafka_conf_new();
    int rc = bf_kafka_configure(rk_conf, settings, err, err_len);
    if (rc == 0)
        rc = bf_kafka_secure(conf, rk_conf, err, err_len);
    if (rc != 0) {
        rd_kafka_conf_destroy(rk_conf);
        return rc;
    }
    watch->own = bf_kafka_client(RD_KAFKA_CONSUMER, rk_conf, err, err_len);
    if (watch->own == NULL)
        return BF_ERR_LOG;
    int made = pthread_create(&watch->thread, NULL, watch_main, watch);
    BF_BUG_ON(made != 0); /* start-up only */
    return 0;
}

void bf_kafka_watch_stop(struct bf_kafka_watch *watch)
{
    if (watch->own == NULL)
        return;
    atomic_store_explicit(&watch->is_closing, true, memory_order_relaxed);
    pthread_join(watch->thread, NULL);
    rd_kafka_destroy(watch->own);
    watch->own = NULL;
}
