/*
 * Reads of the RocksDB engine: one row, a range of rows. Any thread; a scan belongs to one and sees
 * the rows as they were when it was opened, because that is when its iterator is made.
 */
#include "belfry/base/err.h"
#include "store/rocks/engine.h"

/* A scan of a whole table reads in steps of this size. */
#define BULK_READAHEAD_BYTES (2u * 1024u * 1024u)

int bf_rocks_engine_get(struct bf_engine *engine, const struct bf_key *key, struct bf_row *ret)
{
    struct bf_rocks_engine *e = bf_rocks_of(engine);
    if (!bf_resident_may_have(&e->resident, key))
        return BF_ERR_NOT_FOUND;
    return bf_rocks_get(&e->rocks, bf_family_of(key->at[0]), key->at, key->len, ret);
}

bool bf_rocks_engine_has(struct bf_engine *engine, const struct bf_key *key)
{
    struct bf_row row;
    if (bf_rocks_engine_get(engine, key, &row) != 0)
        return false;
    bf_row_put(&row);
    return true;
}

void bf_rocks_engine_expect(struct bf_engine *engine, const struct bf_key *key)
{
    bf_resident_prefetch(&bf_rocks_of(engine)->resident, key);
}

/* The first row is looked for by the first step, which may cross many marks of deletion: by another
 * thread, if the scan is handed to one. */
void bf_rocks_scan_open(struct bf_scan *scan)
{
    struct bf_rocks_engine *e = bf_rocks_of(scan->engine);
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    bf_key_end(&scan->end, &scan->prefix);
    /* RocksDB keeps pointers to the bounds. The lower one also keeps a backward step from walking
     * through a neighbour's deleted rows. */
    rocksdb_readoptions_set_iterate_upper_bound(read, (const char *)scan->end.at, scan->end.len);
    rocksdb_readoptions_set_iterate_lower_bound(read, (const char *)scan->prefix.at,
                                                scan->prefix.len);
    if (scan->flags & BF_SCAN_BULK) {
        rocksdb_readoptions_set_readahead_size(read, BULK_READAHEAD_BYTES);
        rocksdb_readoptions_set_fill_cache(read, 0);
    }
    scan->more = read;
    scan->at = rocksdb_create_iterator_cf(e->rocks.db, read,
                                          e->rocks.cfs[bf_family_of(scan->prefix.at[0])]);
}

static void seek(const struct bf_scan *scan)
{
    rocksdb_iterator_t *it = scan->at;
    bool is_backwards = scan->flags & BF_SCAN_BACKWARDS;
    const char *from = (const char *)scan->from.at;
    struct bf_key after;
    if (scan->flags & BF_SCAN_AFTER) {
        bf_key_end(&after, &scan->from);
        rocksdb_iter_seek(it, (const char *)after.at, after.len);
    } else if (scan->from.len > 0 && is_backwards) {
        rocksdb_iter_seek_for_prev(it, from, scan->from.len);
    } else if (is_backwards) {
        rocksdb_iter_seek_to_last(it);
    } else if (scan->from.len > 0) {
        rocksdb_iter_seek(it, from, scan->from.len);
    } else {
        rocksdb_iter_seek_to_first(it);
    }
}

bool bf_rocks_scan_next(struct bf_scan *scan)
{
    rocksdb_iterator_t *it = scan->at;
    if (!scan->has_begun) {
        scan->has_begun = true;
        seek(scan);
    } else if (rocksdb_iter_valid(it)) {
        if (scan->flags & BF_SCAN_BACKWARDS)
            rocksdb_iter_prev(it);
        else
            rocksdb_iter_next(it);
    }
    if (!rocksdb_iter_valid(it))
        return false;
    scan->key.at = rocksdb_iter_key(it, &scan->key.len);
    scan->value.at = rocksdb_iter_value(it, &scan->value.len);
    return true;
}

int bf_rocks_scan_close(struct bf_scan *scan)
{
    char *problem = NULL;
    int rc = 0;
    rocksdb_iter_get_error(scan->at, &problem);
    if (problem != NULL) {
        rocksdb_free(problem);
        rc = bf_store_corrupt("unreadable", scan->prefix.at, scan->prefix.len);
    }
    rocksdb_iter_destroy(scan->at);
    rocksdb_readoptions_destroy(scan->more);
    return rc;
}
