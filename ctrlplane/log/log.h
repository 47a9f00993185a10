/*
 * The log (DESIGN 1, 4.1, 4.2): keeps accepted events until they are settled. Two engines implement
 * it: embedded (a RocksDB database of its own, group commit, fdatasync) and kafka (librdkafka).
 * Producers append and are told when the event is durable; one consumer thread polls records in the
 * order of each partition and later says up to where each partition is settled.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/base/limits.h"

struct bf_conf;
struct bf_store;
struct bf_log;

/* Told once per append, on a thread of the engine: 0 = durable, BF_ERR_LOG, BF_ERR_FULL. Must not
 * block. */
typedef void (*bf_log_done_fn)(void *arg, int rc);

struct bf_log_entry {
    enum bf_lane lane;    /* kafka: which topic */
    struct bf_bytes key;  /* user id or event id: kafka partitions by it */
    struct bf_bytes meta; /* encoded struct bf_event_meta; kafka: header "belfry-meta" */
    struct bf_bytes body; /* the event's JSON */
    /* idempotency row written with the event (embedded: same batch; kafka: after the append) */
    const struct bf_idem_row *idem; /* NULL = none */
};

struct bf_log_record {
    uint32_t partition;  /* dense index of the engine; embedded: 0 */
    uint32_t assignment; /* generation of the partition's assignment */
    int64_t offset;
    enum bf_lane topic_lane;
    uint64_t timestamp_ms; /* a plausible one (time/record_time.h) */
    int64_t written_at;    /* kafka: as it stands in the record */
    bool has_meta;         /* false: a foreign producer wrote it */
    struct bf_bytes key, meta, body;
    struct bf_bytes ce_headers; /* CloudEvents binary mode: "name\0value\0..." of ce_* and
                                   content-type; else "" */
    const char *topic;          /* name, for people */
    int32_t topic_partition;    /* kafka's own partition number (identity of events without id) */
    void *opaque;               /* the engine's */
};

struct bf_log_health {
    bool can_append;
    bool can_consume; /* reads, or did so a moment ago: short pauses refuse nobody */
    bool reads;       /* events are read now, or there are none to read */
    bool is_stuck;    /* only a restart of this process may help */
    bool is_lag_known;
    uint64_t lag_events; /* not read yet, all partitions */
    char detail[256];
};

/* Called on the polling thread during bf_log_poll. on_assign: reading starts at |offset|.
 * on_revoke: must return soon; after it results of that assignment are dropped. */
struct bf_log_hooks {
    void *arg;
    void (*on_assign)(void *arg, uint32_t partition, uint32_t assignment, int64_t offset);
    void (*on_revoke)(void *arg, uint32_t partition, uint32_t assignment);
    /* Says that no more events come below |offset|: what lies there are aborted and control records
     * of transactions. False: say it again later. NULL: not wanted. */
    bool (*on_skip)(void *arg, uint32_t partition, uint32_t assignment, int64_t offset);
};

/* Whether what the configuration names for the engine can be used: files, password, certificates.
 */
int bf_log_check(const struct bf_conf *conf, char *err, size_t err_len);

/* Engine by conf->log_engine. The store keeps the embedded cursor and kafka's idempotency rows. */
int bf_log_open(const struct bf_conf *conf, struct bf_store *store,
                const struct bf_log_hooks *hooks, struct bf_log **ret, char *err, size_t err_len);
void bf_log_close(struct bf_log *log);

/* Copies the entry's bytes. Returns 0 (|done| will be called) or BF_ERR_FULL / BF_ERR_LOG /
 * -ENOSPC (not called). Any thread. */
int bf_log_append(struct bf_log *log, const struct bf_log_entry *entry, bf_log_done_fn done,
                  void *arg);
/* As bf_store_get_idem, from wherever this engine keeps the rows. Any thread. */
struct bf_idem_row;
int bf_log_get_idem(struct bf_log *log, struct bf_bytes key, uint64_t now_ms,
                    int (*use)(void *arg, const struct bf_idem_row *row), void *arg);

/* Up to |max| records in order; waits up to |timeout_ms| when there is none. Returns the count or
 * an error. Records stay valid until bf_log_free_records. One consumer thread. */
int bf_log_poll(struct bf_log *log, struct bf_log_record *records, int max, uint32_t timeout_ms);
void bf_log_free_records(struct bf_log *log, struct bf_log_record *records, int count);
/* Called instead of a poll while no event can be taken: tells the group that the consumer lives, so
 * that it keeps its partitions. Does not wait and gives no records; rebalances are handled (hooks).
 * The next poll continues after the records of the last one. librdkafka throws away what it has
 * fetched ahead, so do not use this for short pauses. Consumer thread. */
void bf_log_keep(struct bf_log *log);
/* Stops (kafka: pauses) or resumes reading of a partition: its in-flight cap is reached. Consumer
 * thread. */
void bf_log_pause(struct bf_log *log, uint32_t partition, bool paused);

/* All events of the partition below |offset| are settled and their store writes synced: reading
 * will never start below it again. Asynchronous for kafka. Consumer thread. */
int bf_log_commit(struct bf_log *log, uint32_t partition, uint32_t assignment, int64_t offset);
void bf_log_health(struct bf_log *log, struct bf_log_health *ret);

/* Whether a record is to be erased. |record| NULL: it was erased before, and |*tag| is what was
 * left. Otherwise sets |*tag|, which is left in its place and says nothing about a person. */
typedef bool (*bf_log_match_fn)(void *arg, const struct bf_log_record *record, uint64_t *tag);
/* Removes matching records from the disk by rewriting every data file that held one. After a kill
 * it can be called again. Kafka: does nothing, because the log is on the brokers. Slow; one thread
 * at a time, any (store/scrub.h). */
struct bf_pace;
int bf_log_erase(struct bf_log *log, bf_log_match_fn match, void *arg, const struct bf_pace *pace);
/* Stops an erasure that is running, before closing; its pace must already refuse to go on. */
void bf_log_stop_erase(struct bf_log *log);

/* Calls |first|, then copies the log into a new directory |dir|. In between nothing is deleted from
 * the log, so every event that was open in the copy made by |first| is in the log's copy. Kafka
 * only calls |first| and does not make |dir|. Any thread. */
int bf_log_checkpoint(struct bf_log *log, const char *dir, int (*first)(void *arg), void *arg,
                      char *err, size_t err_len);

/* Writes a dead letter to the engine's own topic, in addition to the row in the store (kafka:
 * belfry.dlq with a reason header and |ce_headers|, as in the record; embedded: nothing). Any
 * thread. */
void bf_log_dead_letter(struct bf_log *log, struct bf_bytes key, struct bf_bytes body,
                        struct bf_bytes reason, struct bf_bytes ce_headers);
/* Writes what happened to a device to the engine's own topic (kafka: belfry.tokens; embedded:
 * nothing). It may get lost: what counts is the registry in the store. Any thread. */
void bf_log_token_event(struct bf_log *log, struct bf_bytes key, struct bf_bytes body);
