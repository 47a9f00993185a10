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
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "belfry/conf/conf.h"
#include "ledger/ledger.h"
#include "log/kafka_watch.h"
#include "log/log_impl.h"
#include "store/store.h"

/* What Kafka's group coordinator waits before it gives our partitions to another node (DESIGN
 * 4.14): a restart of the control process keeps them. Shorter only where
 * log.kafka.max_poll_interval is, which bounds it. */
#define BF_KAFKA_SESSION_TIMEOUT_MS 30000u
/* Dead letters, token events and broadcasts have this long to be acknowledged; events of the API,
 * for which somebody waits, have log.kafka.append_timeout. */
#define BF_KAFKA_DELIVERY_TIMEOUT_MS "10000"
/* How long the start, a rebalance or a probe waits for an answer; after that Kafka counts as
 * unreachable. */
#define BF_KAFKA_ASK_TIMEOUT_MS 5000
/* If a client is dead and could not be replaced for this long, the process ends, and its supervisor
 * starts it again. Longer than the longest wait between two tries. */
#define BF_KAFKA_STUCK_MS 60000u
/* A client that died again soon after it was made anew waits before the next try, twice as long
 * each time: two nodes with the same node.id would otherwise expel each other several times a
 * second. */
#define BF_KAFKA_RENEW_SOON_MS 60000u
#define BF_KAFKA_RENEW_MIN_MS  1000u
#define BF_KAFKA_RENEW_MAX_MS  30000u
#define BF_KAFKA_ALL_LANES     ((1u << BF_LANE_COUNT) - 1u)
/* The lag is not known. */
#define BF_KAFKA_LAG_UNKNOWN UINT64_MAX
/* Names of headers. */
#define BF_KAFKA_HEADER_META   "belfry-meta"
#define BF_KAFKA_HEADER_REASON "belfry-reason"
#define BF_KAFKA_TEXT_BYTES    512u
/* Bytes that a health line keeps of librdkafka's text of an error. */
#define BF_KAFKA_WHY_BYTES 160u

struct bf_kafka_partition {
    bool is_assigned;
    bool is_paused;    /* by bf_kafka_keep; librdkafka keeps the pause over a new assignment */
    uint8_t lane;      /* index of the topic */
    int32_t partition; /* Kafka's number */
    uint32_t assignment;
    int64_t next_offset; /* first offset not handed out */
    int64_t stored;      /* last offset given to librdkafka for commit */
    bool is_lost;        /* next_offset is not in the log any more: begins anew */
    /* From the last record that was handed out up to here there were only records that are no
     * events (of transactions). The ledger is told at the next poll. -1: nothing to tell. */
    int64_t skip_to;
};

/* One append: in the list of those that wait for an answer until it is acknowledged or answered
 * 503, then (or later, if Kafka took it all the same) in the list of those that are finished. */
struct bf_kafka_done {
    struct bf_kafka_done *next; /* finished, newest last */
    struct bf_kafka_done *older, *newer;
    uint64_t deadline_ms; /* mono: when it is answered 503 */
    bool is_waiting;
    bf_log_done_fn done; /* NULL: answered */
    void *arg;
    int rc;
    bool has_idem;
    struct bf_idem_row idem; /* borrowed from bytes */
    char bytes[];
};

/* When a dead client may be made anew. Its own thread's. */
struct bf_kafka_renewal {
    uint64_t at_ms;   /* not before; 0: it lives */
    uint64_t made_ms; /* the last time it was made anew */
    uint32_t wait_ms;
};
/* |now|: it is found dead. */
void bf_kafka_renewal_plan(struct bf_kafka_renewal *renewal, uint64_t now);

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
    bool is_idle;             /* kept without taking anything: partitions are paused */
    bool is_leaving;          /* closing: what is assigned now is not read any more */
    bool rebalanced;          /* during this poll: what it holds already is checked again */
    bool has_lost, has_skips; /* some partition's is_lost, skip_to */
    uint64_t lost_at_ms;      /* when the next try is due */
    uint64_t lag_at_ms;
    uint64_t consumer_password_ms;
    uint32_t records_out; /* messages that the pipeline holds: their client must stay */
    struct bf_kafka_renewal consumer_renewal;

    /* ---- any thread, with the lock; the delivery thread, which replaces them, reads without ----
     */
    pthread_mutex_t producer_lock;
    rd_kafka_t *producer;
    rd_kafka_topic_t *produce_to[BF_LANE_COUNT];
    rd_kafka_topic_t *dlq;
    rd_kafka_topic_t *tokens;
    struct bf_kafka_done *waiting_oldest, *waiting_newest; /* appends without an answer */

    /* ---- any thread ---- */
    /* Flags and numbers for health and for accepting events. Relaxed: each stands alone. */
    _Atomic uint64_t consumer_dead_ms; /* mono, since when it is in a fatal state; 0: it lives */
    _Atomic uint64_t producer_dead_ms;
    _Atomic bool is_away;        /* no broker answers */
    _Atomic bool is_refused;     /* a broker answers, but refuses us */
    _Atomic uint32_t missing;    /* 1u << lane: its topic is not there */
    _Atomic bool has_assignment; /* the group has assigned partitions to us */
    _Atomic bool is_restarting;  /* a partition's place is not in the log any more */
    _Atomic bool is_closing;
    struct bf_kafka_watch watch; /* of the lane topics; its own thread */
    _Atomic uint32_t anew; /* 1u << lane: its topic was made anew; taken by the consumer thread */
    _Atomic uint64_t lag;
    _Atomic uint64_t not_reading_ms; /* mono, since when; 0: it reads. From the delivery thread */
    _Atomic bool has_read;           /* it did so once */
    pthread_mutex_t why_lock;
    char why[BF_KAFKA_WHY_BYTES]; /* the last refusal or fatal error, for people */

    /* ---- delivery thread ---- */
    pthread_t delivery_thread;
    bool has_thread, has_topics;
    bool is_suspect;     /* there may be no broker: a probe is due */
    uint64_t heard_ms;   /* mono, when a broker was heard last */
    uint64_t failing_ms; /* mono, since when nothing answers our asking; 0: it answers */
    uint64_t producer_password_ms;
    struct bf_kafka_renewal producer_renewal;
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
/* A client with our log callback, without SASL and TLS; takes |conf| over, also on failure. */
rd_kafka_t *bf_kafka_client(rd_kafka_type_t type, rd_kafka_conf_t *conf, char *err, size_t err_len);
/* Creates the topic unless it is there. |partitions| 0: the broker's default. */
int bf_kafka_ensure_topic(rd_kafka_t *rk, const char *topic, int partitions);

/* For health: words the last fatal error or refusal. Any thread. */
void bf_kafka_note_why(struct bf_kafka *k, const char *who, const char *text);
/* Whether events are read: see bf_log_health.reads. Any thread. */
bool bf_kafka_reads(struct bf_kafka *k);

/* ---- kafka_security.c ---- */

/* TLS and SASL of the configuration. Returns 0 or BF_ERR_UNSUPPORTED, worded. */
int bf_kafka_secure(const struct bf_conf *conf, rd_kafka_conf_t *rk, char *err, size_t err_len);
/* A broker refused us: a new password in the file is taken. |*at_ms| paces it. */
void bf_kafka_refresh_password(const struct bf_conf *conf, rd_kafka_t *rk, uint64_t *at_ms,
                               uint64_t now_ms);
bool bf_kafka_is_refusal(rd_kafka_resp_err_t err);

/* ---- kafka_lines.c: warnings, each at most once a minute. Any thread. ---- */
void bf_kafka_say(const char *who, const char *text);
void bf_kafka_log_line(const rd_kafka_t *rk, int level, const char *facility, const char *text);

/* ---- kafka_heal.c, consumer thread ---- */

/* False: the consumer is dead and cannot be made anew yet. */
bool bf_kafka_heal_consumer(struct bf_kafka *k);
/* The place of this partition is not in the log any more; found out by a fetch. */
void bf_kafka_lose_place(struct bf_kafka *k, struct bf_kafka_partition *p);
/* All partitions of topics that were found to be made anew lose theirs. */
void bf_kafka_take_anew(struct bf_kafka *k);
/* Begins those anew, when it is due. */
void bf_kafka_restart_lost(struct bf_kafka *k);
/* Tells the ledger of offsets after records that are no events. */
void bf_kafka_tell_skips(struct bf_kafka *k);

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
/* Ours by a new assignment from |from->offset| on. */
void bf_kafka_note_assigned(struct bf_kafka *k, const rd_kafka_topic_partition_t *from);
/* The consumer cannot go on: it is made anew. Any thread. */
void bf_kafka_consumer_dies(struct bf_kafka *k, const char *what, const char *why);

/* ---- kafka_produce.c ---- */
int bf_kafka_producer_open(struct bf_kafka *k, char *err, size_t err_len);
void bf_kafka_producer_close(struct bf_kafka *k);
int bf_kafka_append(struct bf_log *log, const struct bf_log_entry *entry, bf_log_done_fn done,
                    void *arg);
void bf_kafka_token_event(struct bf_log *log, struct bf_bytes key, struct bf_bytes body);
void bf_kafka_dead_letter(struct bf_log *log, struct bf_bytes key, struct bf_bytes body,
                          struct bf_bytes reason, struct bf_bytes ce_headers);
