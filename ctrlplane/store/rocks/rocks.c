/*
 * RocksDB with the settings of the store and the embedded log: a WAL that is synced only on
 * request, a recovery that accepts a torn tail and no other damage, bounded memory, two background
 * jobs, a small info log. Any thread may read; opening and closing belong to one.
 */
#include "store/rocks/rocks.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "store/value.h"

#define MIB (1024u * 1024u)

/* One flush and one compaction at a time: the node's cores belong to deliveries. */
#define BACKGROUND_JOBS 2
/* RocksDB's own log is for a post-mortem only: two files of 1 MiB, warnings and worse. */
#define INFO_LOG_BYTES (1u * MIB)
#define INFO_LOG_FILES 2u
#define INFO_LOG_LEVEL 2
/* A start after a kill replays the WAL at 100K to 200K rows a second: 64 MiB of it are a few
 * seconds, and /readyz has ten. */
#define WAL_BYTES_PER_WRITE_BUFFER 1u
/* The manifest holds the first and last key of each file. It is rewritten with every change of
 * files, so that it does not keep keys of files that are gone; that costs 200 bytes for each file
 * at each flush or compaction. */
#define MANIFEST_BYTES 1u
/* Files of this size keep the number of open ones (all of them stay open: a look-up must not pay
 * for the table cache's lock) below 2,000 for 100 GB. */
#define FILE_BYTES (64u * MIB)
/* 10 bits a key: 1 in 100 look-ups of unknown ids reads a block. */
#define BLOOM_BITS       10.0
#define INDEX_PART_BYTES 4096u
/* Share of a memtable for its own bloom filter: ~16 bits a row at the size of an id row. */
#define MEMTABLE_BLOOM_SHARE 0.03
/* Expired rows go at the latest when their file is this old (a compaction is made for it). */
#define PERIODIC_COMPACTION "periodic_compaction_seconds=86400"
/*
 * A memtable's share is written as several small ones that are flushed as one file: a row is found
 * its place in a skip list of 4 MiB, which the caches hold better than one of 32. Writing an
 * event's rows took 14.5 us with one, 11.1 with eight, 9.7 with sixteen (perf/run fanout), which a
 * look-up in what is not flushed pays for.
 */
#define MEMTABLE_PARTS 8
/* Memory for rows until a stalled disk stops the writers, in memtables' shares: RocksDB's default
 * is 2, and two more let a burst pass while a flush is under way. */
#define WRITE_BUFFERS_PER_CF 4

static unsigned char filter_expired(void *state, int level, const char *key, size_t key_len,
                                    const char *value, size_t value_len, char **new_value,
                                    size_t *new_value_len, unsigned char *value_changed)
{
    (void)state, (void)level, (void)new_value, (void)new_value_len;
    *value_changed = 0;
    if (key_len == 0 || !bf_table_drops_expired((uint8_t)key[0]))
        return 0;
    return bf_value_is_expired((struct bf_bytes){value, value_len}, bf_wall_ms());
}

static const char *filter_name(void *state)
{
    (void)state;
    return "belfry-expiry";
}

static void filter_destroy(void *state)
{
    (void)state;
}

int bf_rocks_make_dir(const char *dir)
{
    char path[512];
    int n = snprintf(path, sizeof(path), "%s", dir);
    if (n <= 0 || (size_t)n >= sizeof(path))
        return -ENAMETOOLONG;
    for (char *p = path + 1; *p != 0; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        if (mkdir(path, 0700) != 0 && errno != EEXIST)
            return -errno;
        *p = '/';
    }
    return mkdir(path, 0700) != 0 && errno != EEXIST ? -errno : 0;
}

static rocksdb_block_based_table_options_t *make_table(const struct bf_rocks_cf *cf,
                                                       rocksdb_cache_t *cache)
{
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_block_based_options_set_format_version(table, 5);
    rocksdb_block_based_options_set_filter_policy(
        table, rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS));
    /* Filters of id rows stay with their open files: a look-up through the cache costs twice as
     * much, and they are small (10 bits a message). All others compete for the cache. */
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, !cf->is_point);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(table, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(table, 1);
    if (!cf->is_point) {
        /* in parts of 4 KiB: the whole index of a 64 MiB file is a megabyte, and reading that again
         * after it left the cache made one list of an inbox cost 3 ms */
        rocksdb_block_based_options_set_index_type(
            table, rocksdb_block_based_table_index_type_two_level_index_search);
        rocksdb_block_based_options_set_partition_filters(table, 1);
        rocksdb_block_based_options_set_metadata_block_size(table, INDEX_PART_BYTES);
        rocksdb_block_based_options_set_pin_top_level_index_and_filter(table, 1);
    }
    return table;
}

static void set_database_options(rocksdb_options_t *o, const struct bf_rocks_options *options)
{
    uint64_t buffer = (uint64_t)options->write_buffer_mb * MIB;
    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_create_missing_column_families(o, 1);
    rocksdb_options_set_paranoid_checks(o, 1);
    /* The oldest mode is the one that fails on anything but an incomplete record at the end. */
    rocksdb_options_set_wal_recovery_mode(o, rocksdb_tolerate_corrupted_tail_records_recovery);
    rocksdb_options_set_max_background_jobs(o, BACKGROUND_JOBS);
    rocksdb_options_set_db_write_buffer_size(o, buffer * 2);
    rocksdb_options_set_max_total_wal_size(o, buffer * WAL_BYTES_PER_WRITE_BUFFER);
    rocksdb_options_set_max_open_files(o, -1);
    rocksdb_options_set_max_manifest_file_size(o, MANIFEST_BYTES);
    rocksdb_options_set_info_log_level(o, INFO_LOG_LEVEL);
    rocksdb_options_set_max_log_file_size(o, INFO_LOG_BYTES);
    rocksdb_options_set_keep_log_file_num(o, INFO_LOG_FILES);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_stats_persist_period_sec(o, 0);
    /* Data files reach the disk evenly, not all at the end of a flush beside our fdatasync. */
    rocksdb_options_set_bytes_per_sync(o, MIB);
}

/* Options that the C interface knows by text only. Before the database opens: setting them
 * afterwards writes and syncs a file of options for each family, at every start. */
static rocksdb_options_t *with_text(rocksdb_options_t *o, const char *text)
{
    char *problem = NULL;
    rocksdb_options_t *all = rocksdb_options_create();
    rocksdb_get_options_from_string(o, text, all, &problem);
    BF_BUG_ON(problem != NULL); /* the text is ours */
    rocksdb_options_destroy(o);
    return all;
}

static rocksdb_options_t *make_options(const struct bf_rocks_options *options,
                                       const struct bf_rocks_cf *cf, struct bf_rocks *rocks)
{
    rocksdb_options_t *o = rocksdb_options_create();
    size_t buffer = (size_t)options->write_buffer_mb * MIB;
    set_database_options(o, options);
    rocksdb_options_set_write_buffer_size(o,
                                          (cf->is_hot ? buffer / 2 : buffer / 4) / MEMTABLE_PARTS);
    rocksdb_options_set_min_write_buffer_number_to_merge(o, MEMTABLE_PARTS);
    rocksdb_options_set_max_write_buffer_number(o, WRITE_BUFFERS_PER_CF * MEMTABLE_PARTS);
    rocksdb_options_set_target_file_size_base(o, FILE_BYTES);
    rocksdb_options_set_compression(o, cf->is_point ? rocksdb_no_compression
                                                    : rocksdb_lz4_compression);
    rocksdb_options_set_level_compaction_dynamic_level_bytes(o, 1);
    if (cf->is_point) {
        rocksdb_options_set_memtable_prefix_bloom_size_ratio(o, MEMTABLE_BLOOM_SHARE);
        rocksdb_options_set_memtable_whole_key_filtering(o, 1);
        rocksdb_options_set_bloom_locality(o, 1);
    }
    if (cf->expires)
        rocksdb_options_set_compaction_filter(o, rocks->filter);
    rocksdb_block_based_table_options_t *table = make_table(cf, rocks->cache);
    rocksdb_options_set_block_based_table_factory(o, table);
    rocksdb_block_based_options_destroy(table);
    return cf->expires ? with_text(o, PERIODIC_COMPACTION) : o;
}

static void make_shared(const struct bf_rocks_options *options, struct bf_rocks *rocks)
{
    rocks->cf_count = options->cf_count;
    rocks->cache = rocksdb_cache_create_lru((size_t)options->cache_mb * MIB);
    rocks->filter =
        rocksdb_compactionfilter_create(NULL, filter_destroy, filter_expired, filter_name);
    rocks->read = rocksdb_readoptions_create();
    rocks->write = rocksdb_writeoptions_create();
    rocks->write_sync = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(rocks->write_sync, 1);
}

int bf_rocks_open(const struct bf_rocks_options *options, struct bf_rocks *rocks, char *err,
                  size_t err_len)
{
    const char *names[BF_ROCKS_CFS_MAX];
    BF_BUG_ON(options->cf_count == 0 || options->cf_count > BF_ROCKS_CFS_MAX);
    *rocks = (struct bf_rocks){0};
    int rc = bf_rocks_make_dir(options->dir);
    if (rc != 0) {
        snprintf(err, err_len, "cannot make %s: %s", options->dir, bf_err_text(rc));
        return rc;
    }
    make_shared(options, rocks);
    for (uint32_t i = 0; i < options->cf_count; i++) {
        names[i] = options->cfs[i].name;
        rocks->options[i] = make_options(options, &options->cfs[i], rocks);
    }
    char *problem = NULL;
    rocks->db = rocksdb_open_column_families(
        rocks->options[0], options->dir, (int)options->cf_count, names,
        (const rocksdb_options_t *const *)rocks->options, rocks->cfs, &problem);
    if (problem != NULL) {
        snprintf(err, err_len, "cannot open %s: %s", options->dir, problem);
        rc = strstr(problem, "Corruption") ? BF_ERR_CORRUPT : BF_ERR_STORE;
        rocksdb_free(problem);
        bf_rocks_close(rocks);
    }
    return rc;
}

/* Writes the memtables out, so that the next start has no WAL to replay. */
static void flush_all(struct bf_rocks *rocks)
{
    rocksdb_flushoptions_t *flush = rocksdb_flushoptions_create();
    for (uint32_t i = 0; i < rocks->cf_count; i++) {
        char *problem = NULL;
        rocksdb_flush_cf(rocks->db, flush, rocks->cfs[i], &problem);
        if (problem != NULL)
            rocksdb_free(problem); /* the WAL has it all the same */
    }
    rocksdb_flushoptions_destroy(flush);
}

static void destroy_handles(struct bf_rocks *rocks)
{
    flush_all(rocks);
    for (uint32_t i = 0; i < rocks->cf_count; i++) {
        if (rocks->cfs[i] != NULL)
            rocksdb_column_family_handle_destroy(rocks->cfs[i]);
    }
    rocksdb_close(rocks->db);
}

void bf_rocks_close(struct bf_rocks *rocks)
{
    if (rocks->db != NULL)
        destroy_handles(rocks);
    for (uint32_t i = 0; i < rocks->cf_count; i++) {
        if (rocks->options[i] != NULL)
            rocksdb_options_destroy(rocks->options[i]);
    }
    if (rocks->filter != NULL)
        rocksdb_compactionfilter_destroy(rocks->filter);
    if (rocks->read != NULL)
        rocksdb_readoptions_destroy(rocks->read);
    if (rocks->write != NULL)
        rocksdb_writeoptions_destroy(rocks->write);
    if (rocks->write_sync != NULL)
        rocksdb_writeoptions_destroy(rocks->write_sync);
    if (rocks->cache != NULL)
        rocksdb_cache_destroy(rocks->cache);
    *rocks = (struct bf_rocks){0};
}

int bf_rocks_checkpoint(const struct bf_rocks *rocks, const char *dir, char *err, size_t err_len)
{
    char *problem = NULL;
    rocksdb_checkpoint_t *checkpoint = rocksdb_checkpoint_object_create(rocks->db, &problem);
    if (problem == NULL) {
        rocksdb_checkpoint_create(checkpoint, dir, 0, &problem); /* 0: memtables become files */
        rocksdb_checkpoint_object_destroy(checkpoint);
    }
    if (problem == NULL)
        return 0;
    snprintf(err, err_len, "cannot make a checkpoint in %s: %s", dir, problem);
    rocksdb_free(problem);
    return BF_ERR_STORE;
}

static void release_pin(void *pin)
{
    rocksdb_pinnableslice_destroy(pin);
}

void bf_rocks_hold(rocksdb_pinnableslice_t *pin, struct bf_row *ret)
{
    ret->held = pin;
    ret->release = release_pin;
    ret->value.at = rocksdb_pinnableslice_value(pin, &ret->value.len);
}

int bf_rocks_get(const struct bf_rocks *rocks, uint32_t cf, const void *key, size_t key_len,
                 struct bf_row *ret)
{
    char *problem = NULL;
    rocksdb_pinnableslice_t *pin =
        rocksdb_get_pinned_cf(rocks->db, rocks->read, rocks->cfs[cf], key, key_len, &problem);
    if (problem != NULL) {
        rocksdb_free(problem);
        return bf_store_corrupt("unreadable", key, key_len);
    }
    if (pin == NULL)
        return BF_ERR_NOT_FOUND;
    bf_rocks_hold(pin, ret);
    return 0;
}
