/*
 * Finds out whether a topic was deleted and created again. Its name, its partitions and, soon, its
 * offsets look the same afterwards, and librdkafka before 2.5 does not know topic ids: a consumer
 * that stood at offset 12 would go on at offset 12 of the new topic and skip twelve events. So a
 * mark is left with each topic: an offset committed for a group that nobody joins, which Kafka
 * deletes with the topic. If a mark was there before and is gone, the topic is a new one.
 *
 * Each node has marks of its own: a node that finds its mark gone leaves a new one, and other nodes
 * must still see that theirs is gone. One thread uses a watch; bf_kafka_watch_start gives it one of
 * its own.
 */
#pragma once

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BF_KAFKA_WATCH_TOPICS 3

struct bf_conf;

struct bf_kafka_watch {
    const char *topics[BF_KAFKA_WATCH_TOPICS];
    int topic_count;
    bool is_marked[BF_KAFKA_WATCH_TOPICS]; /* seen by this process */
    uint64_t asked_ms, marked_ms;
    void *arg;
    void (*on_anew)(void *arg, int topic); /* on the thread that looks */

    rd_kafka_t *own; /* of the thread below */
    pthread_t thread;
    _Atomic bool is_closing; /* relaxed: only ends the thread's loop */
};

/* The group that the marks belong to, of |conf|'s node. */
void bf_kafka_watch_group(const struct bf_conf *conf, char *out, size_t out_len);
/* Looks when it is due: waits for the broker, two seconds at most. |rk|: a consumer of that group.
 */
void bf_kafka_watch_turn(struct bf_kafka_watch *watch, rd_kafka_t *rk, uint64_t now_ms);
/* A client and a thread of its own. Returns 0 or BF_ERR_LOG, worded. */
int bf_kafka_watch_start(struct bf_kafka_watch *watch, const struct bf_conf *conf, char *err,
                         size_t err_len);
void bf_kafka_watch_stop(struct bf_kafka_watch *watch);
