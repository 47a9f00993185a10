/*
 * Commits of the RocksDB engine: the changes of a batch become one write. They are handed over in
 * key order: memtables are skip lists, and an insert next to the one before it needs no search from
 * the top. A committer belongs to one thread and allocates only while it grows.
 */
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "store/rocks/engine.h"

struct committer {
    struct bf_committer head;
    rocksdb_writebatch_t *rows;
    struct bf_resident_commit resident;
};

struct bf_committer *bf_rocks_committer_create(struct bf_engine *engine)
{
    struct committer *c = calloc(1, sizeof(*c));
    if (c == NULL)
        return NULL;
    c->head.engine = engine;
    c->rows = rocksdb_writebatch_create();
    return &c->head;
}

void bf_rocks_committer_destroy(struct bf_committer *committer)
{
    struct committer *c = (struct committer *)committer;
    rocksdb_writebatch_destroy(c->rows);
    bf_resident_commit_fini(&c->resident);
    free(c);
}

/* Puts and deletions in key order, those of one key in theirs. */
static void feed_run(struct committer *c, const struct bf_changes *changes, uint32_t from,
                     uint32_t to)
{
    struct bf_rocks_engine *e = bf_rocks_of(c->head.engine);
    for (uint32_t i = from; i < to; i++) {
        const struct bf_change *change = &changes->list[i];
        struct bf_bytes key = bf_change_key(changes, change);
        struct bf_bytes value = bf_change_value(changes, change);
        uint8_t table = (uint8_t)key.at[0];
        rocksdb_column_family_handle_t *family = e->rocks.cfs[bf_family_of(table)];
        if (change->kind == BF_CHANGE_PUT)
            rocksdb_writebatch_put_cf(c->rows, family, key.at, key.len, value.at, value.len);
        else
            rocksdb_writebatch_delete_cf(c->rows, family, key.at, key.len);
        if (bf_resident_watches(table))
            bf_resident_note(&e->resident, &c->resident, changes, from, to, i);
    }
}

static void feed_prefix(struct committer *c, struct bf_bytes prefix)
{
    struct bf_rocks_engine *e = bf_rocks_of(c->head.engine);
    struct bf_key begin = {.len = 0}, end;
    bf_key_raw(&begin, prefix.at, prefix.len);
    bf_key_end(&end, &begin);
    rocksdb_writebatch_delete_range_cf(c->rows, e->rocks.cfs[bf_family_of(begin.at[0])], prefix.at,
                                       prefix.len, (const char *)end.at, end.len);
}

static void feed(struct committer *c, struct bf_changes *changes)
{
    for (uint32_t from = 0; from < changes->count;) {
        uint32_t to = bf_changes_sort(changes, from);
        feed_run(c, changes, from, to);
        if (to < changes->count)
            feed_prefix(c, bf_change_key(changes, &changes->list[to]));
        from = to + 1;
    }
}

static int fail(struct bf_engine *engine, char *problem)
{
    atomic_store_explicit(&engine->is_failed, true, memory_order_relaxed);
    BF_ERROR("ctrlplane", "store: write failed, nothing is written any more: %s", problem);
    rocksdb_free(problem);
    return BF_ERR_STORE;
}

int bf_rocks_commit(struct bf_committer *committer, struct bf_changes *changes, bool sync)
{
    struct committer *c = (struct committer *)committer;
    struct bf_rocks_engine *e = bf_rocks_of(committer->engine);
    char *problem = NULL;
    if (atomic_load_explicit(&e->engine.is_failed, memory_order_relaxed))
        return BF_ERR_STORE;
    rocksdb_writebatch_clear(c->rows);
    bf_resident_commit_clear(&c->resident);
    feed(c, changes);
    bf_resident_begin(&e->resident, &c->resident, &e->engine, changes);
    rocksdb_write(e->rocks.db, sync ? e->rocks.write_sync : e->rocks.write, c->rows, &problem);
    bf_resident_end(&e->resident, &c->resident, changes, problem == NULL);
    if (problem == NULL && bf_fault_is_due(&e->write_fault)) /* as if the disk had failed */
        problem = strdup("injected");
    return problem == NULL ? 0 : fail(&e->engine, problem);
}
