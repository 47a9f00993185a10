/*
 * An engine with one fault around a good one: what the conformance test has to notice.
 */
#pragma once

#include "memory_engine.h"

#define FAULTS(X)                                                                                  \
    X(NONE)                                                                                        \
    X(LOSES_THE_LAST_PUT)                                                                          \
    X(LOSES_A_DELETION)                                                                            \
    X(FIRST_PUT_OF_A_KEY_WINS)                                                                     \
    X(COMMITS_ROW_BY_ROW)                                                                          \
    X(PREFIX_DELETION_TAKES_ONE_KEY)                                                               \
    X(PREFIX_DELETION_TAKES_WHAT_FOLLOWS)                                                          \
    X(FORGETS_THE_LAST_BATCH_AT_A_STOP)                                                            \
    X(VALUE_IS_CUT)                                                                                \
    X(SCAN_IS_NO_SNAPSHOT)                                                                         \
    X(SCAN_ENDS_ONE_EARLY)                                                                         \
    X(BACKWARDS_LEAVES_OUT_ITS_FIRST)                                                              \
    X(AFTER_IS_FROM)                                                                               \
    X(TEXTS_SORT_BY_BYTES)                                                                         \
    X(GATHER_SWAPS_TWO)                                                                            \
    X(GATHER_IGNORES_THE_LIMIT)                                                                    \
    X(HAS_WHAT_IT_HAD)                                                                             \
    X(COUNTS_EVERY_PUT)                                                                            \
    X(NEW_EPOCH_AT_EACH_START)

enum fault {
#define X(name) FAULT_##name,
    FAULTS(X)
#undef X
        FAULT_COUNT
};

static const char *const fault_names[] = {
#define X(name) #name,
    FAULTS(X)
#undef X
};

struct faulty_engine {
    struct bf_engine engine; /* first */
    struct bf_engine *inner;
    uint64_t puts[BF_T_COUNT][BF_GROUPS]; /* COUNTS_EVERY_PUT */
};

struct faulty_committer {
    struct bf_committer head;
    struct bf_committer *inner;
    struct bf_changes kept;
};

static enum fault fault;
/* FORGETS_THE_LAST_BATCH_AT_A_STOP: what undoes it. */
static struct bf_changes undo;

static inline struct bf_engine *inner_of(struct bf_engine *engine)
{
    return ((struct faulty_engine *)engine)->inner;
}

/* ---- commits ---- */

static inline bool is_put_before(const struct bf_changes *c, uint32_t i)
{
    struct bf_bytes key = bf_change_key(c, &c->list[i]);
    for (uint32_t k = 0; k < i; k++)
        if (c->list[k].kind == BF_CHANGE_PUT &&
            bf_bytes_is_equal(bf_change_key(c, &c->list[k]), key))
            return true;
    return false;
}

static inline bool is_lost(const struct bf_changes *c, uint32_t i)
{
    uint8_t kind = c->list[i].kind;
    switch (fault) {
    case FAULT_LOSES_THE_LAST_PUT:
        return i + 1 == c->count && kind == BF_CHANGE_PUT;
    case FAULT_LOSES_A_DELETION:
        return c->count > 3 && i == c->count / 2 && kind == BF_CHANGE_DELETE;
    case FAULT_FIRST_PUT_OF_A_KEY_WINS:
        return kind == BF_CHANGE_PUT && is_put_before(c, i);
    default:
        return false;
    }
}

static inline void add_faultily(struct bf_changes *to, const struct bf_changes *c, uint32_t i)
{
    struct bf_bytes key = bf_change_key(c, &c->list[i]);
    struct bf_bytes value = bf_change_value(c, &c->list[i]);
    enum bf_change_kind kind = (enum bf_change_kind)c->list[i].kind;
    struct cells cells;
    if (kind == BF_CHANGE_DELETE_PREFIX && fault == FAULT_PREFIX_DELETION_TAKES_ONE_KEY) {
        bool is_key = split_key(key, &cells);
        cells_free(&cells);
        if (!is_key)
            return;
        kind = BF_CHANGE_DELETE;
    }
    if (!is_lost(c, i))
        bf_changes_add(to, kind, key.at, key.len, value.at, value.len);
}

/* Deletions of prefixes come last. */
static inline void reorder(struct bf_changes *to, const struct bf_changes *c)
{
    for (unsigned late = 0; late < 2; late++)
        for (uint32_t i = 0; i < c->count; i++)
            if ((c->list[i].kind == BF_CHANGE_DELETE_PREFIX) == late)
                add_faultily(to, c, i);
}

static inline void count_puts(struct faulty_engine *e, const struct bf_changes *c)
{
    for (uint32_t i = 0; i < c->count; i++) {
        struct bf_bytes key = bf_change_key(c, &c->list[i]);
        int group = bf_table_group(key);
        if (group >= 0)
            e->puts[(uint8_t)key.at[0]][group] += c->list[i].kind == BF_CHANGE_PUT ? 1 : UINT64_MAX;
    }
}

static inline void prepare_undo(struct bf_engine *inner, const struct bf_changes *c)
{
    bf_changes_clear(&undo);
    for (uint32_t i = 0; i < c->count; i++) {
        struct bf_bytes bytes = bf_change_key(c, &c->list[i]);
        struct bf_key key = {.len = 0};
        struct bf_row row = {0};
        if (c->list[i].kind != BF_CHANGE_PUT)
            continue;
        bf_key_raw(&key, bytes.at, bytes.len);
        bool is = inner->ops->get(inner, &key, &row) == 0;
        bf_changes_add(&undo, is ? BF_CHANGE_PUT : BF_CHANGE_DELETE, key.at, key.len, row.value.at,
                       row.value.len);
        bf_row_put(&row);
    }
}

static inline int commit_row_by_row(struct faulty_committer *f, const struct bf_changes *c)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < c->count; i++) {
        bf_changes_clear(&f->kept);
        add_faultily(&f->kept, c, i);
        rc = f->inner->engine->ops->commit(f->inner, &f->kept, false);
    }
    return rc;
}

static inline int faulty_commit(struct bf_committer *committer, struct bf_changes *c, bool sync)
{
    struct faulty_committer *f = (struct faulty_committer *)committer;
    struct faulty_engine *e = (struct faulty_engine *)committer->engine;
    if (fault == FAULT_COMMITS_ROW_BY_ROW)
        return commit_row_by_row(f, c);
    bf_changes_clear(&f->kept);
    if (fault == FAULT_PREFIX_DELETION_TAKES_WHAT_FOLLOWS)
        reorder(&f->kept, c);
    else
        for (uint32_t i = 0; i < c->count; i++)
            add_faultily(&f->kept, c, i);
    count_puts(e, c);
    prepare_undo(e->inner, c);
    return e->inner->ops->commit(f->inner, &f->kept, sync);
}

static inline struct bf_committer *faulty_committer_create(struct bf_engine *engine)
{
    struct faulty_committer *f = calloc(1, sizeof(*f));
    f->head.engine = engine;
    f->inner = inner_of(engine)->ops->committer_create(inner_of(engine));
    return &f->head;
}

static inline void faulty_committer_destroy(struct bf_committer *committer)
{
    struct faulty_committer *f = (struct faulty_committer *)committer;
    f->inner->engine->ops->committer_destroy(f->inner);
    bf_changes_fini(&f->kept);
    free(f);
}

/* ---- reads ---- */

static inline int faulty_get(struct bf_engine *engine, const struct bf_key *key, struct bf_row *ret)
{
    int rc = inner_of(engine)->ops->get(inner_of(engine), key, ret);
    if (rc == 0 && fault == FAULT_VALUE_IS_CUT && ret->value.len > 200)
        ret->value.len = 200;
    return rc;
}

static inline bool faulty_has(struct bf_engine *engine, const struct bf_key *key)
{
    static struct bf_key had;
    bool has = inner_of(engine)->ops->has(inner_of(engine), key);
    if (has)
        had = *key;
    return has || (fault == FAULT_HAS_WHAT_IT_HAD && had.len > 0 && had.at[0] == key->at[0]);
}

static inline int faulty_gather(struct bf_engine *engine, struct bf_gather *g)
{
    for (uint32_t i = 0; fault == FAULT_GATHER_IGNORES_THE_LIMIT && i < g->want_count; i++)
        g->wants[i].limit = UINT32_MAX;
    int rc = inner_of(engine)->ops->gather(inner_of(engine), g);
    if (fault == FAULT_GATHER_SWAPS_TWO && g->want_count > 20) {
        struct bf_want *a = &g->wants[0], *b = &g->wants[g->want_count - 1], first = *a;
        a->rc = b->rc, a->row = b->row, a->first_row = b->first_row, a->row_count = b->row_count;
        b->rc = first.rc, b->row = first.row, b->first_row = first.first_row;
        b->row_count = first.row_count;
    }
    return rc;
}

static inline uint64_t faulty_count(struct bf_engine *engine, enum bf_table table, uint8_t group)
{
    if (fault == FAULT_COUNTS_EVERY_PUT)
        return ((struct faulty_engine *)engine)->puts[table][group];
    return inner_of(engine)->ops->count(inner_of(engine), table, group);
}

struct faulty_scan {
    struct bf_scan inner;
    struct bf_key at; /* of the row that it stands at; length 0: it has not begun */
    unsigned given;
};

static inline void open_inner(struct bf_scan *scan)
{
    struct faulty_scan *f = scan->more;
    unsigned flags = scan->flags;
    const struct bf_key *from = scan->from.len > 0 ? &scan->from : NULL;
    if (fault == FAULT_AFTER_IS_FROM)
        flags &= ~(unsigned)BF_SCAN_AFTER;
    if (f->at.len > 0) {
        flags = BF_SCAN_AFTER;
        from = &f->at;
    }
    bf_engine_scan(&f->inner, inner_of(scan->engine), &scan->prefix, from, flags);
}

static inline void faulty_scan_open(struct bf_scan *scan)
{
    struct faulty_scan *f = malloc(sizeof(*f));
    f->at.len = 0;
    f->given = 0;
    scan->more = f;
    open_inner(scan);
    if (fault == FAULT_BACKWARDS_LEAVES_OUT_ITS_FIRST && scan->flags & BF_SCAN_BACKWARDS &&
        scan->from.len > 0)
        bf_scan_next(&f->inner);
}

static inline bool faulty_scan_next(struct bf_scan *scan)
{
    struct faulty_scan *f = scan->more;
    if (fault == FAULT_SCAN_IS_NO_SNAPSHOT && !(scan->flags & BF_SCAN_BACKWARDS)) {
        bf_scan_close(&f->inner);
        open_inner(scan);
    }
    bool has = bf_scan_next(&f->inner);
    if (!has || (fault == FAULT_SCAN_ENDS_ONE_EARLY && ++f->given > 7))
        return false;
    scan->key = f->inner.key;
    scan->value = f->inner.value;
    f->at.len = 0;
    bf_key_raw(&f->at, scan->key.at, scan->key.len);
    return true;
}

static inline int faulty_scan_close(struct bf_scan *scan)
{
    struct faulty_scan *f = scan->more;
    int rc = bf_scan_close(&f->inner);
    free(f);
    return rc;
}

/* ---- the rest ---- */

static inline void faulty_close(struct bf_engine *engine, bool is_clean)
{
    struct bf_engine *inner = inner_of(engine);
    if (fault == FAULT_FORGETS_THE_LAST_BATCH_AT_A_STOP) {
        struct bf_committer *c = inner->ops->committer_create(inner);
        inner->ops->commit(c, &undo, false);
        inner->ops->committer_destroy(c);
    }
    bf_changes_fini(&undo);
    inner->ops->close(inner, is_clean);
    free(engine);
}

static const struct bf_engine_ops faulty_ops = {
    .close = faulty_close,
    .enter_thread = memory_nothing,
    .get = faulty_get,
    .has = faulty_has,
    .expect = memory_expect,
    .gather = faulty_gather,
    .scan_open = faulty_scan_open,
    .scan_next = faulty_scan_next,
    .scan_close = faulty_scan_close,
    .count = faulty_count,
    .committer_create = faulty_committer_create,
    .committer_destroy = faulty_committer_destroy,
    .commit = faulty_commit,
    .sync = memory_sync,
    .witness = memory_nothing,
    .checkpoint = memory_checkpoint,
    .disk = memory_space,
    .scrub = memory_scrub,
    .stop_scrub = memory_nothing,
};

static inline int faulty_engine_open(const struct bf_store_options *options, struct bf_engine **ret,
                                     char *err, size_t err_len)
{
    static unsigned starts;
    struct faulty_engine *e = calloc(1, sizeof(*e));
    texts_sort_by_bytes = fault == FAULT_TEXTS_SORT_BY_BYTES;
    int rc = memory_engine_open(options, &e->inner, err, err_len);
    e->engine.ops = &faulty_ops;
    snprintf(e->engine.epoch, sizeof(e->engine.epoch), "%u",
             fault == FAULT_NEW_EPOCH_AT_EACH_START ? ++starts : 1);
    *ret = &e->engine;
    return rc;
}
