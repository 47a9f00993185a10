/*
 * One RocksDB database with column families: opening with our options, closing, pinned reads.
 * Shared by the store's engine and the embedded log (the only users of rocksdb/c.h). Rows whose end
 * has passed are dropped here: a table of which that may be done has the expiry at a fixed place in
 * each value, so one compaction filter serves all of them.
 */
#pragma once

#include <rocksdb/c.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "store/engine.h"

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

/* A row that keeps |pin|. */
void bf_rocks_hold(rocksdb_pinnableslice_t *pin, struct bf_row *ret);
/* 0, BF_ERR_NOT_FOUND, BF_ERR_CORRUPT (counted, logged once) when the read itself fails. */
int bf_rocks_get(const struct bf_rocks *rocks, uint32_t cf, const void *key, size_t key_len,
                 struct bf_row *ret);
