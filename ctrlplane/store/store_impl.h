/*
 * Inside of the embedded store: what its files share. The column family of a table, rows of a
 * batch, range scans with bounds, and the rules for values: format byte first, expiry next where it
 * has one.
 */
#pragma once

#include <pthread.h>

#include "ingest/event.h"
#include "store/keys.h"
#include "store/rocks.h"
#include "store/seen.h"
#include "store/sorted.h"
#include "main/fault.h"
#include "store/store.h"
#include "store/warm.h"

/* Column families by access pattern, not by table: each costs memtables and flushes of its own. */
enum bf_store_cf {
    BF_CF_MAIN =
        0, /* small tables, rarely written: users, prefs, topics, keys, jobs, values, dlq */
    BF_CF_STATE = 1,    /* one small row a user, rewritten with every message */
    BF_CF_INBOX = 2,    /* messages and acks */
    BF_CF_ID = 3,       /* message id -> place; looked up for nearly every event, mostly in vain */
    BF_CF_STATUS = 4,   /* events, outcomes */
    BF_CF_EXPIRING = 5, /* broadcasts, idempotency, the push queue */
    BF_CF_COUNT
};

/* One counter per value of the u8 channel: enum bf_channel and BF_DLQ_INGEST. */
#define BF_DLQ_CHANNELS 256u

struct bf_store {
    struct bf_rocks rocks;
    char dir[512];
    char epoch[40]; /* 16 hex digits, '-', up to 10 digits */
    uint64_t epoch_id;
    uint32_t epoch_count;
    uint64_t start; /* random, of this start: rows and stamp name it (lineage.h) */
    char witness_dir[512];
    int witness_fd;     /* -1: none */
    uint64_t witnessed; /* sequence number that it says */
    /* Set once by the first failed write or sync, never cleared; relaxed: each caller only needs to
     * see it some time, the write that failed told its own caller. */
    _Atomic bool is_failed;
    struct bf_fault write_fault; /* BELFRY_FAULT=store_write:N */
    /* Written by the thread whose batch was written, read by any; relaxed: plain numbers. */
    _Atomic uint64_t bcast_head;
    _Atomic uint64_t dlq_depth[BF_DLQ_CHANNELS];
    /* Held while letters are looked for and written: shards may write the same one at once. */
    pthread_mutex_t dlq_lock;
    /* Below zero at times until |warm| has counted what was there before the start. */
    _Atomic uint64_t leg_depth[BF_CHANNEL_COUNT][BF_LANE_COUNT];
    uint32_t partitions; /* a power of two; set when opened (legs_migrate.c) */
    struct bf_seen seen; /* filter before the id rows */
    struct bf_warm warm; /* fills both behind the start */
};

/* Table, channel, time, event, tag. */
#define BF_DLQ_KEY_BYTES (1u + 1u + 8u + 16u + 8u)

/* A letter that a batch puts or deletes, by its key. */
struct bf_letter_change {
    uint8_t len;
    bool is_put;
    uint8_t key[BF_DLQ_KEY_BYTES];
};

struct bf_batch {
    struct bf_store *store;
    rocksdb_writebatch_t *rows;
    struct bf_sorted
        pending; /* puts not yet in |rows|: sorted when written, or before a deletion */
    uint32_t count;
    uint8_t *scratch; /* values are put together here; grows, is never shrunk */
    size_t scratch_cap;
    uint64_t bcast_head;              /* highest bseq put; 0 = none */
    struct bf_letter_change *letters; /* each key once: its last change. Grows, is never shrunk */
    uint32_t letter_count, letter_cap;
    /* Keys of rows deleted while it is set, each with its length before it: an erasure's. */
    bool is_noting;
    uint8_t *noted;
    size_t noted_len, noted_cap;
    bool has_legs;
    int32_t leg_delta[BF_CHANNEL_COUNT][BF_LANE_COUNT];
};

enum bf_store_cf bf_table_cf(enum bf_table table);

/* A writer over the batch's scratch with at least |bytes| of room, format byte written. */
struct bf_writer bf_batch_value(struct bf_batch *b, size_t bytes);
/* The same with the expiry behind the format byte. */
struct bf_writer bf_batch_expiring_value(struct bf_batch *b, uint64_t expires_ms, size_t bytes);
/* Puts the row; the writer must not have failed. */
void bf_batch_put(struct bf_batch *b, const struct bf_key *key, const struct bf_writer *value);
void bf_batch_delete(struct bf_batch *b, const void *key, size_t key_len);
/* Deletes all keys that begin with |prefix|. Costs every reader of the family a little until it is
 * compacted: for erasure only. */
void bf_batch_delete_prefix(struct bf_batch *b, const struct bf_key *prefix);

int bf_store_get(const struct bf_store *s, const struct bf_key *key, struct bf_row *ret);
/* A reader behind the format byte (and the expiry of expiring tables); failed if the format is not
 * ours. |ret_expires_ms| NULL: a table without expiry. */
struct bf_reader bf_value_reader(struct bf_bytes value, uint64_t *ret_expires_ms);
/* Whether everything was read and nothing failed. */
static inline bool bf_value_is_read(const struct bf_reader *r)
{
    return !r->failed && r->at == r->len;
}

/* A scan of [from, end) in key order, or backwards. Views are valid until the next step. */
struct bf_scan {
    rocksdb_iterator_t *it;
    rocksdb_readoptions_t *read;
    struct bf_key end; /* RocksDB keeps pointers to the bounds */
    struct bf_key from;
    struct bf_bytes key, value;
    bool backwards, is_late;
};
enum bf_scan_flags {
    BF_SCAN_BACKWARDS = 1u << 0,
    BF_SCAN_BULK = 1u << 1, /* a whole table: read ahead, leave the cache alone */
    /* The view is of now, but the first row is looked for by the first step, which may cross many
     * marks of deletion: by another thread, then. Forwards and from the beginning only. */
    BF_SCAN_LATE = 1u << 2,
};
/* All rows whose key begins with |prefix|, from |from| on (NULL: from the first). */
void bf_scan_open(struct bf_scan *scan, const struct bf_store *s, const struct bf_key *prefix,
                  const struct bf_key *from, unsigned flags);
/* Next row into key and value; false at the end. */
bool bf_scan_next(struct bf_scan *scan);
/* 0, or BF_ERR_CORRUPT if the scan ended because RocksDB could not read on. */
int bf_scan_close(struct bf_scan *scan);

/* status.c: an event with one recipient, kept behind the place in the id row of its message. */
size_t bf_sole_event_bytes(const struct bf_event_row *row);
void bf_put_sole_event(struct bf_writer *w, const struct bf_event_row *row, struct bf_bytes user);

/* epoch.c: which epoch begins or goes on with this start. */
int bf_store_load_epoch(struct bf_store *s, char *err, size_t err_len);
int bf_store_mark_clean(struct bf_store *s);
/* Counters that are kept in memory. */
int bf_store_load_bcast_head(struct bf_store *s);
int bf_store_load_dlq_depth(struct bf_store *s);
/* legs_migrate.c: how many partitions the store has; rows of a former version are brought to them
 * first. Before anything is counted or written otherwise. */
int bf_store_load_partitions(struct bf_store *s, char *err, size_t err_len);
/* dlq.c: how |b| changes the depth of each channel, by what lies in the store now. Under dlq_lock.
 */
void bf_batch_count_letters(const struct bf_batch *b, int32_t delta[BF_DLQ_CHANNELS]);
/* devices.c: all of the user's devices and their tokens. */
int bf_batch_erase_devices(struct bf_batch *b, struct bf_uid uid);
