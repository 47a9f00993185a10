/*
 * Inside of the embedded log engine. One partition, 0; offsets count from 0 and are never given
 * twice.
 *
 * Threads: any thread appends to a bounded queue; the commit thread turns the queue into one synced
 * write after another, hands the records to the consumer and calls the done functions, in offset
 * order; the consumer thread polls; the keeper thread watches the disk and drops old settled
 * events.
 *
 * Hand-off: entries that were just committed reach the consumer through memory. They have no gaps:
 * when the hand-off is full the commit thread adds none until it is empty, and what is missing
 * between the consumer's offset and its first entry is read from RocksDB.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "log/log_impl.h"
#include "store/idem.h"
#include "store/rocks/rocks.h"

/* Appends waiting for their commit; beyond it producers get BF_ERR_FULL (503). About one second of
 * work at 60K events/s, and memory stays bounded. */
#define BF_EMBEDDED_QUEUE_ENTRIES_MAX 65536u
#define BF_EMBEDDED_QUEUE_BYTES_MAX   (64u * 1024u * 1024u)
/* Bytes of one synced write: larger ones only add latency. */
#define BF_EMBEDDED_BATCH_BYTES_MAX (8u * 1024u * 1024u)
/* Committed entries that are kept in memory for the consumer. If it is slower than that it reads
 * them from RocksDB. */
#define BF_EMBEDDED_HANDOFF_ENTRIES_MAX 65536u
#define BF_EMBEDDED_HANDOFF_BYTES_MAX   (64u * 1024u * 1024u)

enum bf_embedded_cf { BF_EMBEDDED_EVENTS = 0, BF_EMBEDDED_IDEM = 1, BF_EMBEDDED_CFS };

/* One event, from its append until the consumer releases it: one allocation, with its bytes at the
 * end. */
struct bf_embedded_entry {
    struct bf_embedded_entry *next;
    int64_t offset; /* given at commit */
    bf_log_done_fn done;
    void *arg;
    uint32_t value_len;    /* the stored record, at bytes */
    uint32_t idem_key_len; /* 0: none; the key follows the record, its value the key */
    uint32_t idem_value_len;
    uint8_t bytes[];
};

struct bf_embedded_list {
    struct bf_embedded_entry *first, *last;
    uint32_t count;
    size_t bytes;
};

struct bf_embedded {
    struct bf_log log; /* first */
    struct bf_store *store;
    struct bf_log_hooks hooks;
    struct bf_rocks rocks;
    char dir[512];
    uint32_t batch_max;
    uint64_t retention_ms;
    uint64_t reserve_bytes;
    pthread_t commit_thread, keeper_thread;

    pthread_mutex_t queue_lock; /* queue, is_closing */
    pthread_cond_t queue_wake;
    struct bf_embedded_list queue;
    bool is_closing;

    pthread_mutex_t handoff_lock; /* handoff, consumer_waits */
    pthread_cond_t handoff_wake;
    struct bf_embedded_list handoff;
    bool consumer_waits;

    pthread_mutex_t keeper_lock; /* keeper_stops */
    pthread_cond_t keeper_wake;
    bool keeper_stops;

    /* Set after a failed write and never cleared. Relaxed: a thread that sees it late gets the
     * failure from the queue instead. */
    _Atomic bool is_dead;
    /* Free disk below the reserve. Relaxed: a limit checked once a second. */
    _Atomic bool is_disk_low;
    /* First offset not yet durable. Release by the commit thread after the write, with the
     * hand-off's lock held; acquire by the consumer before it reads RocksDB up to it. */
    _Atomic int64_t end;
    /* First offset that the consumer has not taken. Consumer writes; relaxed: health only reads it.
     */
    _Atomic int64_t next_read;
    /* First offset not settled. Consumer writes, the keeper deletes below it; relaxed: an old value
     * only deletes less. */
    _Atomic int64_t settled;

    /* Held by the keeper while it deletes, and while a checkpoint is made: in the checkpoint of the
     * store, events may be open that are settled by now. */
    pthread_mutex_t retention_lock;
    int64_t deleted; /* keeper only: everything below was deleted */

    /* Consumer thread only. */
    struct bf_batch *cursor_batch;
    bool is_assigned, is_paused;
    int64_t first_offset; /* where reading began */
};

/* ---- records: format byte, lane, timestamp, key, meta, body ---- */
size_t bf_embedded_record_bytes(const struct bf_log_entry *entry);
void bf_embedded_record_encode(struct bf_writer *w, const struct bf_log_entry *entry,
                               uint64_t now_ms);
/* Fills what is read from the value; borrowed from it. */
bool bf_embedded_record_decode(const uint8_t *at, size_t len, struct bf_log_record *record);
static inline void bf_embedded_key(uint8_t key[8], int64_t offset)
{
    uint64_t be = __builtin_bswap64((uint64_t)offset);
    memcpy(key, &be, sizeof(be));
}

/* ---- consumer side (embedded_read.c) ---- */
int bf_embedded_poll(struct bf_log *log, struct bf_log_record *records, int max,
                     uint32_t timeout_ms);
void bf_embedded_free_records(struct bf_log *log, struct bf_log_record *records, int count);
void bf_embedded_pause(struct bf_log *log, uint32_t partition, bool paused);
int bf_embedded_commit(struct bf_log *log, uint32_t partition, uint32_t assignment, int64_t offset);
int64_t bf_embedded_load_cursor(struct bf_embedded *e, int *ret_rc);

/* ---- erasure (embedded_erase.c) ---- */
/* A record that an erasure has overwritten. It is not an event any more. */
bool bf_embedded_is_erased(const struct bf_log_record *record);
int bf_embedded_erase(struct bf_log *log, bf_log_match_fn match, void *arg,
                      const struct bf_pace *pace);

void bf_embedded_stop_erase(struct bf_log *log);

/* ---- keeper (embedded_keep.c) ---- */
void *bf_embedded_keeper(void *arg);
void bf_embedded_check_disk(struct bf_embedded *e);
void bf_embedded_apply_retention(struct bf_embedded *e);
