/*
 * Inside of the Kafka log engine (librdkafka). A partition of the three lane topics has a dense
 * index for the rest of the process; each time it is assigned it gets a new generation.
 *
 * Threads: the consumer thread polls, and runs every rebalance callback while it does; any thread
 * appends; the delivery thread serves the producer: delivery reports, idempotency rows, and whether
 * there is a broker at all. librdkafka's own threads call nothing of ours.
 */
#pragma once

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>

#include "belfry/conf/conf.h"
#include "ledger/ledger.h"
#include "log/log_impl.h"
#include "store/store.h"

/* What Kafka's group coordinator waits before it gives our partitions away (DESIGN 4.14): a restart
 * of the control process keeps them. Shorter only where log.kafka.max_poll_interval is, which
 * bounds it. */
#define BF_KAFKA_SESSION_TIMEOUT_MS 30000u
/* A produced event that is not acknowledged by then is answered 503; its producer tries again. */
#define BF_KAFKA_DELIVERY_TIMEOUT_MS "10000"
/* An ask that the start, a rebalance or a probe waits for; then Kafka counts as away. */
#define BF_KAFKA_ASK_TIMEOUT_MS   5000
#define BF_KAFKA_PROBE_TIMEOUT_MS 2000
/* Names of headers. */
#define BF_KAFKA_HEADER_META   "belfry-meta"
#define BF_KAFKA_HEADER_REASON "belfry-reason"
#define BF_KAFKA_TEXT_BYTES    512u

struct bf_kafka_partition {
    bool is_assigned;
    bool is_paused;    /* by bf_kafka_keep; librdkafka remembers it beyond an assignment */
    uint8_t lane;      /* index of the topic */
    int32_t partition; /* Kafka's number */
    uint32_t assignment;
    int64_t next_offset; /* first offset not handed out */
    int64_t stored;      /* last offset given to librdkafka for commit */
};

/* A list of finished appends, newest last. */
struct bf_kafka_done {
    struct bf_kafka_done *next;
    bf_log_done_fn done;
    void *arg;
    int rc;
    bool has_idem;
    struct bf_idem_row idem; /* views into bytes */
    char bytes[];
};

struct bf_kafka {
    struct bf_log log; /* first */
    struct bf_store *store;
    struct bf_log_hooks hooks;
    const struct bf_conf *conf;
    const char *topics[BF_LANE_COUNT];

    /* ---- consumer thread ---- */
    rd_kafka_t *consumer;
    struct bf_kafka_partition partitions[BF_LEDGER_PARTITIONS_MAX];
    uint32_t partition_count;
    int16_t index_of[BF_LANE_COUNT][BF_LEDGER_PARTITIONS_MAX]; /* -1: not seen yet */
    const rd_kafka_topic_t *topic_handle[BF_LANE_COUNT]; /* librdkafka's, learnt from messages */
    uint32_t last_assignment;
    /* Assigned, but Kafka did not tell yet where to begin; asked again at |pending_at_ms|. */
    rd_kafka_topic_partition_list_t *pending;
    uint64_t pending_at_ms;
    bool is_idle;    /* kept without taking anything: partitions are paused */
    bool is_leaving; /* closing: what is assigned now is not read any more */
    bool rebalanced; /* during this poll: what it holds already is checked again */
    uint64_t lag_at_ms;
    rd_kafka_resp_err_t last_error;

    /* ---- any thread ---- */
    rd_kafka_t *producer;
    rd_kafka_topic_t *produce_to[BF_LANE_COUNT];
    rd_kafka_topic_t *dlq;
    rd_kafka_topic_t *tokens;
    /* Flags and numbers for health and the door; relaxed: each stands alone. */
    _Atomic bool is_dead;        /* fatal error of a client: only a restart helps */
    _Atomic bool is_away;        /* no broker answers */
    _Atomic bool is_offset_lost; /* a committed offset is not in the log any more */
    _Atomic bool is_closing;
    _Atomic uint64_t lag;

    /* ---- delivery thread ---- */
    pthread_t delivery_thread;
    bool has_thread, has_topics;
    bool is_suspect; /* something says that there is no broker: ask */
    struct bf_batch *idem_batch;
    struct bf_kafka_done *done_first, *done_last;
};

/* Sets one option; a refusal is our own mistake (or a broker string that librdkafka refuses) and is
 * worded into |err|. Returns 0 or BF_ERR_UNSUPPORTED. */
struct bf_kafka_setting {
    const char *name, *value;
};
int bf_kafka_configure(rd_kafka_conf_t *conf, const struct bf_kafka_setting *settings, char *err,
                       size_t err_len);
/* A client with our log callback; takes |conf| over, also on failure. */
rd_kafka_t *bf_kafka_client(rd_kafka_type_t type, rd_kafka_conf_t *conf, char *err, size_t err_len);
/* Creates the topic unless it is there. |partitions| 0: the broker's default. */
int bf_kafka_ensure_topic(rd_kafka_t *rk, const char *topic, int partitions);

/* ---- kafka_consume.c ---- */
int bf_kafka_consumer_open(struct bf_kafka *k, char *err, size_t err_len);
void bf_kafka_consumer_close(struct bf_kafka *k);
int bf_kafka_poll(struct bf_log *log, struct bf_log_record *records, int max, uint32_t timeout_ms);
void bf_kafka_free_records(struct bf_log *log, struct bf_log_record *records, int count);
void bf_kafka_keep(struct bf_log *log);
void bf_kafka_pause(struct bf_log *log, uint32_t partition, bool paused);
int bf_kafka_commit(struct bf_log *log, uint32_t partition, uint32_t assignment, int64_t offset);

/* ---- kafka_rebalance.c ---- */
void bf_kafka_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err,
                        rd_kafka_topic_partition_list_t *partitions, void *opaque);
/* Asks again for the starts of a pending assignment, when its time has come. */
void bf_kafka_retry_assign(struct bf_kafka *k);

/* ---- kafka_produce.c ---- */
int bf_kafka_producer_open(struct bf_kafka *k, char *err, size_t err_len);
void bf_kafka_producer_close(struct bf_kafka *k);
int bf_kafka_append(struct bf_log *log, const struct bf_log_entry *entry, bf_log_done_fn done,
                    void *arg);
void bf_kafka_token_event(struct bf_log *log, struct bf_bytes key, struct bf_bytes body);
void bf_kafka_dead_letter(struct bf_log *log, struct bf_bytes key, struct bf_bytes body,
                          struct bf_bytes reason, struct bf_bytes ce_headers);
