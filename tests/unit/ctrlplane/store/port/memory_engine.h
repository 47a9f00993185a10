/*
 * A second engine: rows as columns in a sorted array, no bytes of a key or value kept. It answers
 * every question by looking at its rows, as an engine with other writers has to. What it holds
 * stays when it is closed, under the name of its directory. Any thread, one lock. Aborts on a row
 * that is not what its table's description says.
 */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "columns.h"
#include "store/engine.h"
#include "store/gather.h"
#include "store/store.h"

struct memory_row {
    uint8_t table;
    struct cells key, value;
    uint64_t expires_ms;
};

struct memory_disk {
    struct memory_disk *next;
    char dir[256];
    struct memory_row **rows; /* in order */
    size_t count, cap;
    unsigned epoch;
};

struct memory_engine {
    struct bf_engine engine; /* first */
    pthread_mutex_t lock;
    struct memory_disk *disk;
};

static struct memory_disk *memory_disks;

static inline struct memory_engine *memory_of(struct bf_engine *engine)
{
    return (struct memory_engine *)engine;
}

static inline void memory_row_free(struct memory_row *row)
{
    cells_free(&row->key);
    cells_free(&row->value);
    free(row);
}

/* ---- finding ---- */

static inline int memory_compare(const struct memory_row *row, uint8_t table,
                                 const struct cells *key)
{
    if (row->table != table)
        return row->table < table ? -1 : 1;
    for (unsigned i = 0; i < key->count; i++) {
        int order = compare_cell(&bf_tables[table].key[i], &row->key.at[i], &key->at[i]);
        if (order != 0)
            return order;
    }
    return 0;
}

/* The first row at or behind the key; *ret_is: it is that key's. */
static inline size_t memory_find(const struct memory_disk *d, uint8_t table,
                                 const struct cells *key, bool *ret_is)
{
    size_t low = 0, high = d->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memory_compare(d->rows[middle], table, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_is = low < d->count && memory_compare(d->rows[low], table, key) == 0;
    return low;
}

static inline struct bf_bytes memory_join(const struct memory_row *row, bool is_key)
{
    const struct cells *cells = is_key ? &row->key : &row->value;
    size_t most = ROW_BYTES_MAX;
    for (unsigned i = 0; i < cells->count; i++)
        most += cells->at[i].len;
    uint8_t *room = malloc(most);
    struct bf_writer w = {.buf = room, .cap = most};
    if (is_key)
        join_key(row->table, &row->key, &w);
    else
        join_value(row->table, &row->value, row->expires_ms, &w);
    BF_BUG_ON(w.failed);
    return (struct bf_bytes){(const char *)room, w.len};
}

static inline int memory_get(struct bf_engine *engine, const struct bf_key *key, struct bf_row *ret)
{
    struct memory_engine *e = memory_of(engine);
    struct cells cells;
    bool is = false;
    bool is_key = split_key((struct bf_bytes){(const char *)key->at, key->len}, &cells);
    BF_BUG_ON(!is_key);
    pthread_mutex_lock(&e->lock);
    size_t i = memory_find(e->disk, key->at[0], &cells, &is);
    if (is) {
        ret->value = memory_join(e->disk->rows[i], false);
        ret->held = (void *)(uintptr_t)ret->value.at;
        ret->release = free;
    }
    pthread_mutex_unlock(&e->lock);
    cells_free(&cells);
    return is ? 0 : BF_ERR_NOT_FOUND;
}

static inline bool memory_has(struct bf_engine *engine, const struct bf_key *key)
{
    struct bf_row row = {0};
    bool has = engine->ops->get(engine, key, &row) == 0;
    bf_row_put(&row);
    return has;
}

static inline void memory_expect(struct bf_engine *engine, const struct bf_key *key)
{
    (void)engine, (void)key;
}

static inline int memory_gather(struct bf_engine *engine, struct bf_gather *g)
{
    for (uint32_t i = 0; i < g->want_count; i++) {
        struct bf_want *want = &g->wants[i];
        struct bf_key key;
        bf_want_key(g, want, &key);
        if (want->kind == BF_WANT_RANGE)
            bf_gather_range_by_scan(g, want);
        else if (want->kind == BF_WANT_HAS)
            want->rc = engine->ops->has(engine, &key) ? 0 : BF_ERR_NOT_FOUND;
        else
            want->rc = engine->ops->get(engine, &key, &want->row);
    }
    return 0;
}

static inline uint64_t memory_count(struct bf_engine *engine, enum bf_table table, uint8_t group)
{
    struct memory_engine *e = memory_of(engine);
    const struct bf_table_def *t = &bf_tables[table];
    uint64_t count = 0;
    pthread_mutex_lock(&e->lock);
    for (size_t i = 0; i < e->disk->count; i++) {
        const struct memory_row *row = e->disk->rows[i];
        uint64_t first = row->key.at[t->group[0]].number, second = row->key.at[t->group[1]].number;
        uint8_t of = t->group_columns == 1 ? (uint8_t)first : BF_GROUP_OF_TWO(first, second);
        count += row->table == table && of == group;
    }
    pthread_mutex_unlock(&e->lock);
    return count;
}

/* ---- scans: a copy of all rows in question ---- */

struct memory_scan {
    size_t count, next;
    struct {
        struct bf_bytes key, value;
    } rows[];
};

static inline bool memory_is_in(const struct memory_row *row, const struct beginning *prefix,
                                const struct beginning *from, unsigned flags)
{
    if (row->table != prefix->table || compare_beginning(&row->key, prefix) != 0)
        return false;
    if (!from)
        return true;
    int order = compare_beginning(&row->key, from);
    if (flags & BF_SCAN_BACKWARDS) /* from a whole key on: what begins with it lies above it */
        return order < 0 || (order == 0 && is_all_of(&row->key, from));
    return flags & BF_SCAN_AFTER ? order > 0 : order >= 0;
}

static inline void memory_scan_open(struct bf_scan *scan)
{
    struct memory_engine *e = memory_of(scan->engine);
    struct beginning prefix, from = {0};
    struct bf_bytes at = {(const char *)scan->prefix.at, scan->prefix.len};
    bool is_good = split_beginning(at, &prefix);
    at = (struct bf_bytes){(const char *)scan->from.at, scan->from.len};
    BF_BUG_ON(!is_good || (at.len > 0 && !split_beginning(at, &from)));
    pthread_mutex_lock(&e->lock);
    struct memory_scan *found =
        malloc(sizeof(*found) + e->disk->count * sizeof(found->rows[0]) + 1);
    found->count = found->next = 0;
    for (size_t i = 0; i < e->disk->count; i++) {
        bool is_backwards = scan->flags & BF_SCAN_BACKWARDS;
        const struct memory_row *row = e->disk->rows[is_backwards ? e->disk->count - 1 - i : i];
        if (!memory_is_in(row, &prefix, at.len > 0 ? &from : NULL, scan->flags))
            continue;
        found->rows[found->count].key = memory_join(row, true);
        found->rows[found->count++].value = memory_join(row, false);
    }
    pthread_mutex_unlock(&e->lock);
    beginning_free(&prefix);
    beginning_free(&from);
    scan->at = found;
}

static inline bool memory_scan_next(struct bf_scan *scan)
{
    struct memory_scan *found = scan->at;
    if (found->next == found->count)
        return false;
    scan->key = found->rows[found->next].key;
    scan->value = found->rows[found->next++].value;
    return true;
}

static inline int memory_scan_close(struct bf_scan *scan)
{
    struct memory_scan *found = scan->at;
    for (size_t i = 0; i < found->count; i++) {
        free((void *)(uintptr_t)found->rows[i].key.at);
        free((void *)(uintptr_t)found->rows[i].value.at);
    }
    free(found);
    return 0;
}

/* ---- commits ---- */

static inline void memory_insert(struct memory_disk *d, size_t at, struct memory_row *row)
{
    if (d->count == d->cap) {
        d->cap = d->cap ? d->cap * 2 : 64;
        d->rows = realloc(d->rows, d->cap * sizeof(*d->rows));
    }
    memmove(&d->rows[at + 1], &d->rows[at], (d->count - at) * sizeof(*d->rows));
    d->rows[at] = row;
    d->count++;
}

static inline void memory_remove(struct memory_disk *d, size_t at)
{
    memory_row_free(d->rows[at]);
    d->count--;
    memmove(&d->rows[at], &d->rows[at + 1], (d->count - at) * sizeof(*d->rows));
}

static inline void memory_put(struct memory_disk *d, struct bf_bytes key, struct bf_bytes value)
{
    struct memory_row *row = calloc(1, sizeof(*row));
    bool is = false;
    row->table = (uint8_t)key.at[0];
    if (!split_key(key, &row->key) ||
        !split_value(row->table, value, &row->value, &row->expires_ms)) {
        fprintf(stderr, "a row of the table %s is not what its description says\n",
                bf_tables[row->table].name);
        abort();
    }
    size_t at = memory_find(d, row->table, &row->key, &is);
    if (is)
        memory_remove(d, at);
    memory_insert(d, at, row);
}

static inline void memory_delete(struct memory_disk *d, struct bf_bytes key)
{
    struct cells cells;
    bool is = false;
    bool is_key = split_key(key, &cells);
    BF_BUG_ON(!is_key);
    size_t at = memory_find(d, (uint8_t)key.at[0], &cells, &is);
    if (is)
        memory_remove(d, at);
    cells_free(&cells);
}

static inline void memory_delete_prefix(struct memory_disk *d, struct bf_bytes key)
{
    struct beginning prefix;
    bool is_prefix = split_beginning(key, &prefix);
    BF_BUG_ON(!is_prefix);
    for (size_t i = d->count; i > 0; i--)
        if (memory_is_in(d->rows[i - 1], &prefix, NULL, 0))
            memory_remove(d, i - 1);
    beginning_free(&prefix);
}

static inline int memory_commit(struct bf_committer *committer, struct bf_changes *changes,
                                bool sync)
{
    struct memory_engine *e = memory_of(committer->engine);
    (void)sync;
    if (atomic_load(&e->engine.is_failed))
        return BF_ERR_STORE;
    pthread_mutex_lock(&e->lock);
    for (uint32_t i = 0; i < changes->count; i++) {
        const struct bf_change *change = &changes->list[i];
        struct bf_bytes key = bf_change_key(changes, change);
        if (change->kind == BF_CHANGE_PUT)
            memory_put(e->disk, key, bf_change_value(changes, change));
        else if (change->kind == BF_CHANGE_DELETE)
            memory_delete(e->disk, key);
        else
            memory_delete_prefix(e->disk, key);
    }
    pthread_mutex_unlock(&e->lock);
    return 0;
}

static inline struct bf_committer *memory_committer_create(struct bf_engine *engine)
{
    struct bf_committer *c = malloc(sizeof(*c));
    c->engine = engine;
    return c;
}

static inline void memory_committer_destroy(struct bf_committer *committer)
{
    free(committer);
}

static inline int memory_sync(struct bf_engine *engine)
{
    return atomic_load(&engine->is_failed) ? BF_ERR_STORE : 0;
}

/* ---- the rest ---- */

static inline void memory_nothing(struct bf_engine *engine)
{
    (void)engine;
}

static inline int memory_checkpoint(struct bf_engine *engine, const char *dir, char *err,
                                    size_t err_len)
{
    (void)engine, (void)dir;
    snprintf(err, err_len, "memory has no checkpoints");
    return BF_ERR_UNSUPPORTED;
}

static inline int memory_space(struct bf_engine *engine, uint64_t *ret_free, uint64_t *ret_size)
{
    (void)engine, (void)ret_free, (void)ret_size;
    return -ENOTSUP;
}

static inline int memory_scrub(struct bf_engine *engine, struct bf_spans *spans,
                               const struct bf_pace *pace)
{
    (void)engine, (void)spans, (void)pace;
    return 0;
}

static inline void memory_close(struct bf_engine *engine, bool is_clean)
{
    (void)is_clean;
    pthread_mutex_destroy(&memory_of(engine)->lock);
    free(engine);
}

static const struct bf_engine_ops memory_ops = {
    .close = memory_close,
    .enter_thread = memory_nothing,
    .get = memory_get,
    .has = memory_has,
    .expect = memory_expect,
    .gather = memory_gather,
    .scan_open = memory_scan_open,
    .scan_next = memory_scan_next,
    .scan_close = memory_scan_close,
    .count = memory_count,
    .committer_create = memory_committer_create,
    .committer_destroy = memory_committer_destroy,
    .commit = memory_commit,
    .sync = memory_sync,
    .witness = memory_nothing,
    .checkpoint = memory_checkpoint,
    .disk = memory_space,
    .scrub = memory_scrub,
    .stop_scrub = memory_nothing,
};

static inline struct memory_disk *memory_disk_of(const char *dir)
{
    struct memory_disk *d = memory_disks;
    while (d && strcmp(d->dir, dir) != 0)
        d = d->next;
    if (d)
        return d;
    d = calloc(1, sizeof(*d));
    snprintf(d->dir, sizeof(d->dir), "%s", dir);
    d->epoch = 1;
    d->next = memory_disks;
    memory_disks = d;
    return d;
}

static inline int memory_engine_open(const struct bf_store_options *options, struct bf_engine **ret,
                                     char *err, size_t err_len)
{
    struct memory_engine *e = calloc(1, sizeof(*e));
    (void)err, (void)err_len;
    pthread_mutex_init(&e->lock, NULL);
    e->disk = memory_disk_of(options->dir);
    e->engine.ops = &memory_ops;
    snprintf(e->engine.epoch, sizeof(e->engine.epoch), "%016x-%u", 7u, e->disk->epoch);
    *ret = &e->engine;
    return 0;
}

/* As bf_store_open. */
static inline int memory_store_open(const struct bf_store_options *options, struct bf_store **ret,
                                    char *err, size_t err_len)
{
    struct bf_engine *engine;
    int rc = memory_engine_open(options, &engine, err, err_len);
    return rc == 0 ? bf_store_open_on(engine, ret, err, err_len) : rc;
}

/* What a run left behind. */
static inline void memory_forget(void)
{
    while (memory_disks) {
        struct memory_disk *d = memory_disks;
        memory_disks = d->next;
        for (size_t i = 0; i < d->count; i++)
            memory_row_free(d->rows[i]);
        free(d->rows);
        free(d);
    }
}
