/*
 * Reads shared by all tables: one row, a range of rows, the head of a value. Any thread; a scan
 * belongs to one and sees the store as it was when it began.
 */
#include "belfry/base/err.h"
#include "store/store_impl.h"

/* A scan of a whole table reads in steps of this size. */
#define BULK_READAHEAD_BYTES (2u * 1024u * 1024u)

int bf_store_get(const struct bf_store *s, const struct bf_key *key, struct bf_row *ret)
{
    return bf_row_get(&s->rocks, bf_table_cf((enum bf_table)key->at[0]), key->at, key->len, ret);
}

struct bf_reader bf_value_reader(struct bf_bytes value, uint64_t *ret_expires_ms)
{
    struct bf_reader r = {.buf = (const uint8_t *)value.at, .len = value.len};
    if (bf_get_u8(&r) != BF_ROW_VERSION)
        r.failed = true;
    if (ret_expires_ms != NULL)
        *ret_expires_ms = bf_get_u64(&r);
    return r;
}

void bf_scan_open(struct bf_scan *scan, const struct bf_store *s, const struct bf_key *prefix,
                  const struct bf_key *from, unsigned flags)
{
    scan->backwards = flags & BF_SCAN_BACKWARDS;
    scan->is_late = flags & BF_SCAN_LATE;
    BF_BUG_ON(scan->is_late && (from != NULL || scan->backwards));
    scan->from = *prefix;
    bf_key_end(&scan->end, prefix);
    scan->read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_iterate_upper_bound(scan->read, (const char *)scan->end.at,
                                                scan->end.len);
    /* the lower bound also keeps a backward step from walking through a neighbour's deleted rows */
    rocksdb_readoptions_set_iterate_lower_bound(scan->read, (const char *)scan->from.at,
                                                scan->from.len);
    if (flags & BF_SCAN_BULK) {
        rocksdb_readoptions_set_readahead_size(scan->read, BULK_READAHEAD_BYTES);
        rocksdb_readoptions_set_fill_cache(scan->read, 0);
    }
    enum bf_store_cf cf = bf_table_cf((enum bf_table)prefix->at[0]);
    scan->it = rocksdb_create_iterator_cf(s->rocks.db, scan->read, s->rocks.cfs[cf]);
    scan->key = scan->value = (struct bf_bytes){0};
    if (flags & BF_SCAN_LATE)
        return;
    if (from != NULL && scan->backwards)
        rocksdb_iter_seek_for_prev(scan->it, (const char *)from->at, from->len);
    else if (scan->backwards)
        rocksdb_iter_seek_to_last(scan->it);
    else if (from != NULL)
        rocksdb_iter_seek(scan->it, (const char *)from->at, from->len);
    else
        rocksdb_iter_seek_to_first(scan->it);
}

bool bf_scan_next(struct bf_scan *scan)
{
    if (scan->is_late) {
        scan->is_late = false;
        rocksdb_iter_seek_to_first(scan->it);
    } else if (scan->key.at != NULL && rocksdb_iter_valid(scan->it)) {
        if (scan->backwards)
            rocksdb_iter_prev(scan->it);
        else
            rocksdb_iter_next(scan->it);
    }
    if (!rocksdb_iter_valid(scan->it))
        return false;
    scan->key.at = rocksdb_iter_key(scan->it, &scan->key.len);
    scan->value.at = rocksdb_iter_value(scan->it, &scan->value.len);
    return true;
}

int bf_scan_close(struct bf_scan *scan)
{
    char *problem = NULL;
    int rc = 0;
    rocksdb_iter_get_error(scan->it, &problem);
    if (problem != NULL) {
        rocksdb_free(problem);
        rc = bf_rocks_corrupt("unreadable", scan->from.at, scan->from.len);
    }
    rocksdb_iter_destroy(scan->it);
    rocksdb_readoptions_destroy(scan->read);
    return rc;
}
