/*
 * One RocksDB database with column families: opening with our options, closing, pinned reads.
 * Shared by the store and the embedded log (the only users of rocksdb/c.h). The expiry rule lives
 * here: a row of an expiring table has its expiry at a fixed place, so one compaction filter serves
 * all of them.
 */
#pragma once

#include <rocksdb/c.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

/* First byte of every key; the numbers are on disk: never reuse one. */
enum bf_table {
    BF_T_META = 1,
    BF_T_VALUE = 2,
    BF_T_USER = 3,
    BF_T_PREFS = 4,
    BF_T_STATE = 5,
    BF_T_INBOX = 6, /* expires */
    BF_T_ID = 7,    /* expires */
    BF_T_ACK = 8,
    BF_T_EVENT = 9,         /* expires */
    BF_T_OUTCOME = 10,      /* expires */
    BF_T_USER_OUTCOME = 11, /* expires; which outcomes name a user: erasure finds them */
    BF_T_TOPIC = 12,
    BF_T_SUBSCRIBER = 13,
    BF_T_SUBSCRIPTION = 14,
    BF_T_JOB = 15,
    BF_T_BCAST = 16,    /* expires */
    BF_T_BCAST_ID = 17, /* expires */
    BF_T_DLQ = 18,
    BF_T_API_KEY = 19,
    BF_T_IDEM = 20, /* expires */
    BF_T_ERASED = 21,
    BF_T_DEVICE = 22,
    BF_T_DEVICE_TOKEN = 23,
    BF_T_OLD_PUSH = 24, /* the queue of a former version, with its two indexes (legs_migrate.h) */
    BF_T_OLD_PUSH_USER = 25,
    BF_T_OLD_PUSH_COLLAPSE = 26,
    BF_T_LEG_DONE = 27, /* expires */
    BF_T_ERASING = 28,  /* erasures whose bytes are still to leave the disk */
    BF_T_LEG = 29,
    BF_T_LEG_USER = 30, /* which queued legs are a user's */
    BF_T_LEG_COLLAPSE = 31,
    BF_T_COUNT
};

/* Every value begins with a format byte; in expiring tables a u64 of wall ms follows it. */
#define BF_ROW_VERSION      1u
#define BF_ROW_EXPIRY_AT    1u
#define BF_ROW_EXPIRY_BYTES 9u

/* Column families of one database; the store has 6, the log 2. */
#define BF_ROCKS_CFS_MAX 8u

struct bf_rocks_cf {
    const char *name;
    bool is_point; /* looked up by whole key, mostly in vain: bloom filters, memtable's too */
    bool expires;  /* rows are dropped by the compaction filter */
    bool is_hot;   /* takes most of the writes: a full share of the write buffer */
};

struct bf_rocks_options {
    const char *dir;
    uint32_t cache_mb;
    uint32_t write_buffer_mb; /* all memtables together, before the flushing ones */
    uint32_t cf_count;
    const struct bf_rocks_cf *cfs; /* [0] must be "default" */
};

struct bf_rocks {
    rocksdb_t *db;
    uint32_t cf_count;
    rocksdb_column_family_handle_t *cfs[BF_ROCKS_CFS_MAX];
    rocksdb_options_t *options[BF_ROCKS_CFS_MAX];
    rocksdb_writeoptions_t *write;
    rocksdb_writeoptions_t *write_sync;
    rocksdb_readoptions_t *read;
    rocksdb_cache_t *cache;
    rocksdb_compactionfilter_t *filter;
};

/* Opens or creates. On failure *rocks is closed again and |err| holds one line for a person. */
int bf_rocks_open(const struct bf_rocks_options *options, struct bf_rocks *rocks, char *err,
                  size_t err_len);
/* Fine on a zeroed or half-opened one. */
void bf_rocks_close(struct bf_rocks *rocks);
/* Once on a thread that reads or writes much: RocksDB otherwise counts every key comparison of the
 * thread for itself (1 to 2% of a shard). */
static inline void bf_rocks_hush_thread(void)
{
    rocksdb_set_perf_level(rocksdb_disable);
}
/* The database as it is now into a new directory |dir|, by hard links where the file system is the
 * same: whatever was written before the call is in it. 0, or BF_ERR_STORE with a line in |err|. */
int bf_rocks_checkpoint(const struct bf_rocks *rocks, const char *dir, char *err, size_t err_len);
/* Makes |dir| and its parents. 0 or -errno. */
int bf_rocks_make_dir(const char *dir);

/* A value borrowed from RocksDB until bf_row_put. */
struct bf_row {
    rocksdb_pinnableslice_t *pin;
    struct bf_bytes value;
};

/* 0, BF_ERR_NOT_FOUND, BF_ERR_CORRUPT (counted, logged once) when the read itself fails. */
int bf_row_get(const struct bf_rocks *rocks, uint32_t cf, const void *key, size_t key_len,
               struct bf_row *ret);
void bf_row_put(struct bf_row *row);

/* Whether a row's value is past its expiry; rows without one never are. */
bool bf_row_is_expired(struct bf_bytes value, uint64_t now_ms);

/* A record that does not decode: counted, and named in the log the first time (DESIGN 4.15).
 * Returns BF_ERR_CORRUPT. Any thread. */
int bf_rocks_corrupt(const char *what, const void *key, size_t key_len);
