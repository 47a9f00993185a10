/*
 * Reads of the RocksDB engine: one row, a range of rows. Any thread; a scan belongs to one and sees
 * the rows as they were when it was opened, because that is when its iterator is made.
 */
#include "belfry/base/err.h"
#include "store/gather.h"
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
    enum bf_known_answer known = bf_resident_has(&bf_rocks_of(engine)->resident, key);
    if (known != BF_KNOWN_PERHAPS)
        return known == BF_KNOWN_YES;
    if (bf_rocks_engine_get(engine, key, &row) != 0)
        return false;
    bf_row_put(&row);
    return true;
}

void bf_rocks_engine_expect(struct bf_engine *engine, const struct bf_key *key)
{
    bf_resident_prefetch(&bf_rocks_of(engine)->resident, key);
}

/* ---- many rows at once ---- */

/* Of a want that is still to be looked up. */
#define PENDING 1

/* What memory answers, and ranges: here a scan costs as much as a look-up. */
static void answer_by_itself(struct bf_rocks_engine *e, struct bf_gather *g, struct bf_want *want)
{
    struct bf_key key;
    if (want->kind == BF_WANT_RANGE) {
        bf_gather_range_by_scan(g, want);
        return;
    }
    bf_want_key(g, want, &key);
    enum bf_known_answer known = bf_resident_has(&e->resident, &key);
    bool is_answered = known == BF_KNOWN_NO || (known == BF_KNOWN_YES && want->kind == BF_WANT_HAS);
    want->rc = !is_answered ? PENDING : known == BF_KNOWN_YES ? 0 : BF_ERR_NOT_FOUND;
}

/* Arrays of one call, as RocksDB wants them. */
struct look_up {
    struct bf_want **wants;
    const char **keys;
    size_t *key_lens;
    rocksdb_pinnableslice_t **pins;
    char **problems;
    uint32_t count;
};

static struct look_up make_look_up(struct bf_gather *g)
{
    size_t n = g->want_count;
    char *at = bf_gather_scratch(g, n * 5 * sizeof(void *));
    _Static_assert(sizeof(size_t) == sizeof(void *), "five arrays of one size");
    return (struct look_up){
        .wants = (struct bf_want **)at,
        .keys = (const char **)(at + n * sizeof(void *)),
        .key_lens = (size_t *)(at + 2 * n * sizeof(void *)),
        .pins = (rocksdb_pinnableslice_t **)(at + 3 * n * sizeof(void *)),
        .problems = (char **)(at + 4 * n * sizeof(void *)),
    };
}

static void take_answer(struct bf_want *want, const char *key, rocksdb_pinnableslice_t *pin,
                        char *problem)
{
    want->rc = pin != NULL ? 0 : BF_ERR_NOT_FOUND;
    if (problem != NULL) {
        want->rc = bf_store_corrupt("unreadable", key, want->key_len);
        rocksdb_free(problem);
    }
    if (pin != NULL)
        bf_rocks_hold(pin, &want->row);
    if (want->rc != 0 || want->kind == BF_WANT_HAS)
        bf_row_put(&want->row);
}

static void look_up_family(struct bf_rocks_engine *e, struct bf_gather *g, struct look_up *l,
                           enum bf_family family)
{
    l->count = 0;
    for (uint32_t i = 0; i < g->want_count; i++) {
        struct bf_want *want = &g->wants[i];
        if (want->rc != PENDING || bf_family_of(g->keys[want->key_at]) != family)
            continue;
        l->wants[l->count] = want;
        l->keys[l->count] = (const char *)g->keys + want->key_at;
        l->key_lens[l->count] = want->key_len;
        l->pins[l->count] = NULL;
        l->problems[l->count++] = NULL;
    }
    if (l->count == 0)
        return;
    rocksdb_batched_multi_get_cf(e->rocks.db, e->rocks.read, e->rocks.cfs[family], l->count,
                                 l->keys, l->key_lens, l->pins, l->problems, false);
    for (uint32_t i = 0; i < l->count; i++)
        take_answer(l->wants[i], l->keys[i], l->pins[i], l->problems[i]);
}

int bf_rocks_gather(struct bf_engine *engine, struct bf_gather *g)
{
    struct bf_rocks_engine *e = bf_rocks_of(engine);
    struct look_up look_up = make_look_up(g);
    for (uint32_t i = 0; i < g->want_count; i++)
        answer_by_itself(e, g, &g->wants[i]);
    for (unsigned family = 0; family < BF_FAMILY_COUNT; family++)
        look_up_family(e, g, &look_up, (enum bf_family)family);
    return 0;
}

/* ---- ranges ---- */

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
