/*
 * What every engine of the store has to do (store/engine.h), as a test with the engine's
 * constructor for a parameter. Random changes, reads, scans and stops of the engine from a seed,
 * beside a model that is nothing but a sorted list of keys and values; then what random steps find
 * seldom, step by step; then threads. A run ends at the first difference, says what it was, and
 * gives back false, so that a test can also show that a broken engine does not pass.
 */
#pragma once

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "columns.h"
#include "store/engine.h"
#include "store/gather.h"
#include "store/store.h"

typedef int (*engine_open_fn)(const struct bf_store_options *options, struct bf_engine **ret,
                              char *err, size_t err_len);

struct model_row {
    struct bf_bytes key, value;
};

struct model {
    struct model_row *rows;
    size_t count, cap;
};

struct run {
    engine_open_fn open;
    char dir[256];
    uint64_t seed, random;
    unsigned steps; /* of the random part */
    struct bf_engine *engine;
    struct bf_committer *committer;
    struct bf_changes changes;
    struct bf_gather gather;
    struct model model; /* what was committed */
    char epoch[40];
    char why[600]; /* it failed */
};

static inline bool differs(struct run *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static inline bool differs(struct run *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->why, sizeof(r->why), format, args);
    va_end(args);
    return false;
}

/* ---- chance ---- */

static inline uint64_t draw(struct run *r)
{
    uint64_t z = (r->random += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline unsigned below(struct run *r, unsigned n)
{
    return (unsigned)(draw(r) % n);
}

static inline bool one_in(struct run *r, unsigned n)
{
    return below(r, n) == 0;
}

/* ---- the model ---- */

static inline int compare_keys(struct bf_bytes a, struct bf_bytes b)
{
    return compare_bytes((const uint8_t *)a.at, a.len, (const uint8_t *)b.at, b.len);
}

static inline struct bf_bytes copy_of(struct bf_bytes b)
{
    char *at = malloc(b.len + 1);
    if (b.len > 0)
        memcpy(at, b.at, b.len);
    return (struct bf_bytes){at, b.len};
}

static inline void free_bytes(struct bf_bytes b)
{
    free((void *)(uintptr_t)b.at);
}

/* The first row at or behind |key|. */
static inline size_t model_find(const struct model *m, struct bf_bytes key, bool *ret_is)
{
    size_t low = 0, high = m->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare_keys(m->rows[middle].key, key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *ret_is = low < m->count && compare_keys(m->rows[low].key, key) == 0;
    return low;
}

static inline void model_remove(struct model *m, size_t at)
{
    free_bytes(m->rows[at].key);
    free_bytes(m->rows[at].value);
    m->count--;
    memmove(&m->rows[at], &m->rows[at + 1], (m->count - at) * sizeof(*m->rows));
}

static inline void model_put(struct model *m, struct bf_bytes key, struct bf_bytes value)
{
    bool is;
    size_t at = model_find(m, key, &is);
    if (is)
        model_remove(m, at);
    if (m->count == m->cap) {
        m->cap = m->cap ? m->cap * 2 : 64;
        m->rows = realloc(m->rows, m->cap * sizeof(*m->rows));
    }
    memmove(&m->rows[at + 1], &m->rows[at], (m->count - at) * sizeof(*m->rows));
    m->rows[at] = (struct model_row){copy_of(key), copy_of(value)};
    m->count++;
}

static inline bool begins_with(struct bf_bytes key, struct bf_bytes prefix)
{
    return key.len >= prefix.len && memcmp(key.at, prefix.at, prefix.len) == 0;
}

static inline void model_delete(struct model *m, struct bf_bytes key, bool is_prefix)
{
    for (size_t i = m->count; i > 0; i--) {
        struct bf_bytes at = m->rows[i - 1].key;
        if (is_prefix ? begins_with(at, key) : compare_keys(at, key) == 0)
            model_remove(m, i - 1);
    }
}

static inline void model_free(struct model *m)
{
    while (m->count > 0)
        model_remove(m, m->count - 1);
    free(m->rows);
    *m = (struct model){0};
}

static inline struct model model_copy(const struct model *m)
{
    struct model copy = {0};
    for (size_t i = 0; i < m->count; i++)
        model_put(&copy, m->rows[i].key, m->rows[i].value);
    return copy;
}

/* ---- rows ---- */

static inline struct bf_bytes bytes_of(const struct bf_key *key)
{
    return (struct bf_bytes){(const char *)key->at, key->len};
}

static inline void key_of(struct bf_bytes bytes, struct bf_key *ret)
{
    ret->len = 0;
    bf_key_raw(ret, bytes.at, bytes.len);
}

static inline uint64_t random_number(struct run *r, size_t size)
{
    uint64_t top = size == 8 ? UINT64_MAX : (UINT64_C(1) << size * 8) - 1;
    switch (below(r, 8)) {
    case 0:
        return top;
    case 1:
        return draw(r) & top;
    default:
        return below(r, 6);
    }
}

/* Few different ones, some with a beginning in common: rows are to meet. */
static inline size_t random_raw(struct run *r, uint8_t *out, size_t size)
{
    unsigned which = below(r, 7);
    memset(out, (int)(which / 2 * 0x55), size);
    out[size - 1] = (uint8_t)(which % 2 ? 0xff : which);
    return size;
}

static inline size_t random_text(struct run *r, uint8_t *out, size_t most, bool is_key)
{
    static const char *const names[] = {"",   "a",  "b",       "ab", "ba",  "t",
                                        "tt", "zz", "user-17", "é",  "a b", "_"};
    if (is_key || one_in(r, 2)) {
        const char *name = names[below(r, sizeof(names) / sizeof(names[0]))];
        memcpy(out, name, strlen(name));
        return strlen(name);
    }
    size_t len = one_in(r, 4) ? below(r, (unsigned)most) : below(r, 20);
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)('a' + below(r, 26));
    return len;
}

static inline void random_cell(struct run *r, const struct bf_column *c, bool is_key,
                               struct cell *ret)
{
    uint8_t bytes[600];
    struct bf_writer w = {.buf = bytes, .cap = sizeof(bytes)};
    *ret = (struct cell){0};
    if (is_number(c)) {
        ret->number = random_number(r, fixed_size(c));
        return;
    }
    if (c->form == BF_FORM_RAW) {
        w.len = random_raw(r, bytes, c->bytes);
    } else if (c->form == BF_FORM_LIST) {
        for (unsigned i = below(r, 5); i > 0; i--)
            bf_put_str16(&w, BF_BYTES("name"));
    } else if (c->kind == BF_KIND_BYTES && !is_key) {
        w.len = below(r, 40);
        for (size_t i = 0; i < w.len; i++)
            bytes[i] = (uint8_t)draw(r);
    } else {
        w.len = random_text(r, bytes, c->form == BF_FORM_TEXT8 ? 255 : 500, is_key);
    }
    ret->len = w.len;
    ret->bytes = malloc(w.len + 1);
    memcpy(ret->bytes, bytes, w.len);
}

/* An optional column of a key is there or not by what stands before it: the order of rows that
 * differ in that alone is the engine's own. */
static inline bool leaves_out(struct run *r, const struct bf_column *c, bool is_key,
                              const struct cells *before)
{
    if (!c->is_optional)
        return false;
    if (!is_key)
        return one_in(r, 2);
    const struct cell *last = &before->at[before->count - 1];
    return (last->len > 0 ? last->bytes[last->len - 1] : last->number) % 2 == 0;
}

static inline void random_cells(struct run *r, const struct bf_column *columns, unsigned count,
                                bool is_key, struct cells *ret)
{
    bool is_over = false; /* in a value, all that follows an absent column is absent */
    *ret = (struct cells){0};
    for (unsigned i = 0; i < count; i++) {
        bool is_absent = is_over || leaves_out(r, &columns[i], is_key, ret);
        is_over = is_absent && !is_key;
        if (is_absent)
            ret->at[i] = (struct cell){.is_null = true};
        else
            random_cell(r, &columns[i], is_key, &ret->at[i]);
        ret->count++;
    }
}

/* Every table but the one in which engines and the store keep marks of their own. */
static inline uint8_t random_table(struct run *r)
{
    return (uint8_t)(BF_T_META + 1 + below(r, BF_T_COUNT - BF_T_META - 1));
}

static inline void random_key(struct run *r, uint8_t table, struct bf_key *ret)
{
    struct cells cells;
    struct bf_writer w = {.buf = ret->at, .cap = sizeof(ret->at)};
    random_cells(r, bf_tables[table].key, bf_tables[table].key_columns, true, &cells);
    join_key(table, &cells, &w);
    cells_free(&cells);
    ret->len = (uint32_t)w.len;
}

static inline struct bf_bytes random_value(struct run *r, uint8_t table, uint8_t *room)
{
    struct cells cells;
    struct bf_writer w = {.buf = room, .cap = ROW_BYTES_MAX};
    random_cells(r, bf_tables[table].value, bf_tables[table].value_columns, false, &cells);
    join_value(table, &cells, one_in(r, 2) ? 0 : UINT64_MAX, &w); /* never past its end */
    cells_free(&cells);
    return (struct bf_bytes){(const char *)room, w.len};
}

/* A key that is there, three times in four. */
static inline void some_key(struct run *r, const struct model *m, struct bf_key *ret)
{
    if (m->count == 0 || one_in(r, 4))
        random_key(r, random_table(r), ret);
    else
        key_of(m->rows[below(r, (unsigned)m->count)].key, ret);
}

/* Cuts a key behind one of its columns, or within a raw one. */
static inline void cut_prefix(struct run *r, struct bf_key *key)
{
    const struct bf_table_def *t = &bf_tables[key->at[0]];
    struct bf_reader k = {.buf = key->at, .len = key->len, .at = 1};
    unsigned columns = below(r, t->key_columns + 1u);
    struct cell cell;
    for (unsigned i = 0; i < columns && !t->key[i].is_optional; i++) {
        const struct bf_column *c = &t->key[i];
        size_t from = k.at;
        get_cell(&k, c, true, &cell);
        free(cell.bytes);
        if (c->form == BF_FORM_RAW && one_in(r, 4)) {
            key->len = (uint32_t)(from + c->bytes / 2);
            return;
        }
    }
    key->len = (uint32_t)k.at;
}

/* ---- changes ---- */

static inline void change(struct run *r, struct model *m, enum bf_change_kind kind,
                          struct bf_bytes key, struct bf_bytes value)
{
    bf_changes_add(&r->changes, kind, key.at, key.len, value.at, value.len);
    if (kind == BF_CHANGE_PUT)
        model_put(m, key, value);
    else
        model_delete(m, key, kind == BF_CHANGE_DELETE_PREFIX);
}

static inline void random_change(struct run *r, struct model *m)
{
    struct bf_key key;
    uint8_t room[ROW_BYTES_MAX];
    bool is_there;
    some_key(r, m, &key);
    const struct bf_table_def *t = &bf_tables[key.at[0]];
    unsigned what = below(r, 20);
    model_find(m, bytes_of(&key), &is_there);
    if (what == 0 && !t->is_whole_key_only) {
        cut_prefix(r, &key);
        if (key.len > 1 || one_in(r, 8)) /* a whole table, seldom */
            change(r, m, BF_CHANGE_DELETE_PREFIX, bytes_of(&key), (struct bf_bytes){0});
        return;
    }
    bool is_put = t->counting == BF_COUNTED_BLIND ? !is_there : what > 6;
    if (is_put)
        change(r, m, BF_CHANGE_PUT, bytes_of(&key), random_value(r, key.at[0], room));
    else
        change(r, m, BF_CHANGE_DELETE, bytes_of(&key), (struct bf_bytes){0});
}

static inline bool commit(struct run *r, bool sync)
{
    int rc = r->engine->ops->commit(r->committer, &r->changes, sync);
    bf_changes_clear(&r->changes);
    return rc == 0 || differs(r, "a commit failed: %s", bf_err_text(rc));
}

/* ---- reads against the model ---- */

static inline bool is_value(struct run *r, struct bf_bytes key, struct bf_bytes want,
                            struct bf_bytes got, const char *how)
{
    return bf_bytes_is_equal(want, got) ||
           differs(r, "%s: a row of %s has another value: %zu bytes instead of %zu", how,
                   bf_tables[(uint8_t)key.at[0]].name, got.len, want.len);
}

static inline bool check_key(struct run *r, const struct bf_key *key)
{
    const char *name = bf_tables[key->at[0]].name;
    bool is;
    size_t at = model_find(&r->model, bytes_of(key), &is);
    struct bf_row row = {0};
    if (one_in(r, 2))
        r->engine->ops->expect(r->engine, key);
    int rc = r->engine->ops->get(r->engine, key, &row);
    bool good = rc == (is ? 0 : BF_ERR_NOT_FOUND) ||
                differs(r, "get: a row of %s that is%s there gives %d", name, is ? "" : " not", rc);
    if (good && is)
        good = is_value(r, bytes_of(key), r->model.rows[at].value, row.value, "get");
    bf_row_put(&row);
    bool has = r->engine->ops->has(r->engine, key);
    return good && (has == is || differs(r, "has: says %d of a row of %s", has, name));
}

/* Rows of the model that a scan gives, in its order; indexes. */
static inline size_t model_scan(const struct model *m, const struct bf_key *prefix,
                                const struct bf_key *from, unsigned flags, size_t *out)
{
    size_t count = 0;
    for (size_t n = 0; n < m->count; n++) {
        size_t i = flags & BF_SCAN_BACKWARDS ? m->count - 1 - n : n;
        struct bf_bytes key = m->rows[i].key;
        int order = from ? compare_keys(key, bytes_of(from)) : 0;
        bool is_in = begins_with(key, bytes_of(prefix));
        if (from && flags & BF_SCAN_BACKWARDS)
            is_in = is_in && order <= 0;
        else if (from && flags & BF_SCAN_AFTER)
            is_in = is_in && order > 0 && !begins_with(key, bytes_of(from));
        else if (from)
            is_in = is_in && order >= 0;
        if (is_in)
            out[count++] = i;
    }
    return count;
}

struct asked {
    struct bf_key prefix, from;
    bool has_from;
    unsigned flags;
};

/* A key that begins with |prefix|, if chance finds one: of a row, three times in four. */
static inline void key_below(struct run *r, const struct bf_key *prefix, struct bf_key *ret)
{
    size_t *rows = malloc((r->model.count + 1) * sizeof(*rows));
    size_t count = model_scan(&r->model, prefix, NULL, 0, rows);
    if (count > 0 && !one_in(r, 4))
        key_of(r->model.rows[rows[below(r, (unsigned)count)]].key, ret);
    else
        random_key(r, prefix->at[0], ret);
    free(rows);
}

/* A range that an engine may be asked for: begins at a row, or a beginning of one, below the
 * prefix. */
static inline struct asked random_range(struct run *r)
{
    struct asked a = {0};
    some_key(r, &r->model, &a.prefix);
    cut_prefix(r, &a.prefix);
    a.flags = (one_in(r, 3) ? BF_SCAN_BACKWARDS : 0) | (one_in(r, 4) ? BF_SCAN_BULK : 0);
    if (one_in(r, 2))
        return a;
    key_below(r, &a.prefix, &a.from);
    if (one_in(r, 3) && !(a.flags & BF_SCAN_BACKWARDS))
        cut_prefix(r, &a.from);
    a.has_from = a.from.len > a.prefix.len && begins_with(bytes_of(&a.from), bytes_of(&a.prefix));
    if (a.has_from && !(a.flags & BF_SCAN_BACKWARDS) && one_in(r, 2))
        a.flags |= BF_SCAN_AFTER;
    return a;
}

static inline void open_range(struct run *r, struct bf_scan *scan, const struct asked *a)
{
    bf_engine_scan(scan, r->engine, &a->prefix, a->has_from ? &a->from : NULL, a->flags);
}

static inline bool is_row(struct run *r, const struct model_row *want, struct bf_bytes key,
                          struct bf_bytes value, const char *how)
{
    if (compare_keys(want->key, key) != 0)
        return differs(r, "%s: another row than the next of %s (table %u)", how,
                       bf_tables[(uint8_t)want->key.at[0]].name, (uint8_t)key.at[0]);
    return is_value(r, key, want->value, value, how);
}

/* The rest of a scan against rows |at|.. of |wanted|. */
static inline bool check_rest(struct run *r, struct bf_scan *scan, const struct model *m,
                              const size_t *wanted, size_t count, size_t at, const char *how)
{
    bool good = true;
    while (good && bf_scan_next(scan)) {
        good = at < count || differs(r, "%s: more rows than there are", how);
        if (good)
            good = is_row(r, &m->rows[wanted[at++]], scan->key, scan->value, how);
    }
    good = good && (at == count || differs(r, "%s: ends after %zu rows of %zu", how, at, count));
    int rc = bf_scan_close(scan);
    return good && (rc == 0 || differs(r, "%s: %s", how, bf_err_text(rc)));
}

static inline bool check_scan(struct run *r)
{
    struct asked a = random_range(r);
    struct bf_scan scan;
    size_t *wanted = malloc((r->model.count + 1) * sizeof(*wanted));
    size_t count = model_scan(&r->model, &a.prefix, a.has_from ? &a.from : NULL, a.flags, wanted);
    open_range(r, &scan, &a);
    bool good = check_rest(r, &scan, &r->model, wanted, count, 0,
                           a.flags & BF_SCAN_BACKWARDS ? "scan backwards"
                           : a.flags & BF_SCAN_AFTER   ? "scan after"
                                                       : "scan");
    free(wanted);
    return good;
}

#define WANTS_MAX 60u

static inline bool check_want(struct run *r, uint32_t want, const struct asked *a, uint32_t limit)
{
    const struct bf_want *got = bf_gather_got(&r->gather, want);
    bool is;
    size_t at = model_find(&r->model, bytes_of(&a->prefix), &is);
    if (got->kind != BF_WANT_RANGE) {
        if (got->rc != (is ? 0 : BF_ERR_NOT_FOUND))
            return differs(r, "gather: a row of %s that is%s there gives %d",
                           bf_tables[a->prefix.at[0]].name, is ? "" : " not", got->rc);
        return !is || got->kind == BF_WANT_HAS ||
               is_value(r, bytes_of(&a->prefix), r->model.rows[at].value, got->row.value, "gather");
    }
    size_t *wanted = malloc((r->model.count + 1) * sizeof(*wanted));
    size_t count =
        model_scan(&r->model, &a->prefix, a->has_from ? &a->from : NULL, a->flags, wanted);
    count = count < limit ? count : limit;
    bool good = got->row_count == count ||
                differs(r, "gather: a range has %u rows instead of %zu", got->row_count, count);
    good = good && (got->rc == (count > 0 ? 0 : BF_ERR_NOT_FOUND) ||
                    differs(r, "gather: a range gives %d", got->rc));
    for (uint32_t i = 0; good && i < count; i++) {
        struct bf_bytes key, value;
        bf_gather_row(&r->gather, want, i, &key, &value);
        good = is_row(r, &r->model.rows[wanted[i]], key, value, "gather of a range");
    }
    free(wanted);
    return good;
}

static inline bool check_gather(struct run *r)
{
    static struct asked asked[WANTS_MAX];
    uint32_t limits[WANTS_MAX], count = below(r, WANTS_MAX + 1);
    bf_gather_clear(&r->gather);
    for (uint32_t i = 0; i < count; i++) {
        unsigned kind = below(r, 3);
        limits[i] = 1 + below(r, 5);
        asked[i] = (struct asked){0};
        if (kind == 0) {
            asked[i] = random_range(r);
            bf_want_range(&r->gather, &asked[i].prefix, asked[i].has_from ? &asked[i].from : NULL,
                          asked[i].flags, limits[i]);
            continue;
        }
        some_key(r, &r->model, &asked[i].prefix);
        if (kind == 1)
            bf_want_row(&r->gather, &asked[i].prefix);
        else
            bf_want_has(&r->gather, &asked[i].prefix);
    }
    int rc = bf_gather_read(&r->gather);
    bool good = rc == 0 || differs(r, "gather: %s", bf_err_text(rc));
    for (uint32_t i = 0; good && i < count; i++)
        good = check_want(r, i, &asked[i], limits[i]);
    return good;
}

/* Every row of every table, in order, and nothing else. */
static inline bool check_all(struct run *r)
{
    bool good = true;
    size_t *wanted = malloc((r->model.count + 1) * sizeof(*wanted));
    for (unsigned table = BF_T_META + 1; good && table < BF_T_COUNT; table++) {
        struct bf_key prefix;
        struct bf_scan scan;
        bf_key_begin(&prefix, (enum bf_table)table);
        size_t count = model_scan(&r->model, &prefix, NULL, 0, wanted);
        bf_engine_scan(&scan, r->engine, &prefix, NULL, BF_SCAN_BULK);
        good = check_rest(r, &scan, &r->model, wanted, count, 0, "scan of a table");
    }
    free(wanted);
    return good;
}

/* An engine may take a while after its start. */
#define COUNT_TRIES   5000u
#define COUNT_WAIT_US 1000u

static inline bool check_count(struct run *r, enum bf_table table, uint8_t group, uint64_t want)
{
    uint64_t got = r->engine->ops->count(r->engine, table, group);
    for (unsigned i = 0; got != want && i < COUNT_TRIES; i++) {
        if (bf_tables[table].counting == BF_COUNTED_EACH)
            break;
        usleep(COUNT_WAIT_US);
        got = r->engine->ops->count(r->engine, table, group);
    }
    return got == want ||
           differs(r, "count: %llu rows of %s in group %u instead of %llu", (unsigned long long)got,
                   bf_tables[table].name, group, (unsigned long long)want);
}

static inline bool check_counts(struct run *r)
{
    bool good = true;
    for (unsigned table = 1; good && table < BF_T_COUNT; table++) {
        uint64_t want[BF_GROUPS] = {0};
        if (bf_tables[table].counting == BF_COUNTED_NOT)
            continue;
        for (size_t i = 0; i < r->model.count; i++)
            if ((uint8_t)r->model.rows[i].key.at[0] == table)
                want[bf_table_group(r->model.rows[i].key)]++;
        for (unsigned group = 0; good && group < BF_GROUPS; group++)
            good = check_count(r, (enum bf_table)table, (uint8_t)group, want[group]);
    }
    return good;
}

/* ---- the engine's life ---- */

static inline bool start_engine(struct run *r)
{
    char err[512] = "";
    struct bf_store_options options = {.dir = r->dir, .cache_mb = 8, .write_buffer_mb = 4};
    int rc = r->open(&options, &r->engine, err, sizeof(err));
    if (rc != 0)
        return differs(r, "the engine does not open: %s", err);
    r->committer = r->engine->ops->committer_create(r->engine);
    bf_gather_init(&r->gather, r->engine);
    if (r->epoch[0] == 0)
        snprintf(r->epoch, sizeof(r->epoch), "%s", r->engine->epoch);
    return strcmp(r->epoch, r->engine->epoch) == 0 ||
           differs(r, "another epoch after a stop: %s, then %s", r->epoch, r->engine->epoch);
}

static inline void stop_engine(struct run *r, bool is_clean)
{
    if (!r->engine)
        return;
    bf_gather_fini(&r->gather);
    r->engine->ops->committer_destroy(r->committer);
    r->engine->ops->close(r->engine, is_clean);
    r->engine = NULL;
}

static inline bool restart(struct run *r, bool is_clean)
{
    stop_engine(r, is_clean);
    return start_engine(r) && check_all(r) && check_counts(r);
}

/* ---- the random part ---- */

/* A batch, beside a scan that was opened before it was committed and does not see it. Some batches
 * are given up. */
static inline bool commit_beside_a_scan(struct run *r)
{
    struct asked a = random_range(r);
    struct bf_scan scan;
    struct model next = model_copy(&r->model);
    size_t *wanted = malloc((r->model.count + 1) * sizeof(*wanted));
    size_t count = model_scan(&r->model, &a.prefix, a.has_from ? &a.from : NULL, a.flags, wanted);
    size_t seen = 0, some = below(r, 4);
    bool good = true, is_given_up = one_in(r, 10);
    open_range(r, &scan, &a);
    for (; good && seen < some && bf_scan_next(&scan); seen++) {
        good = seen < count || differs(r, "scan: more rows than there are");
        if (good)
            good = is_row(r, &r->model.rows[wanted[seen]], scan.key, scan.value, "scan");
    }
    for (unsigned i = 1 + below(r, 40); i > 0; i--)
        random_change(r, &next);
    if (is_given_up)
        bf_changes_clear(&r->changes);
    else
        good = good && commit(r, one_in(r, 50));
    good = check_rest(r, &scan, &r->model, wanted, count, seen, "scan beside a commit") && good;
    free(wanted);
    if (is_given_up) {
        model_free(&next);
        return good;
    }
    model_free(&r->model);
    r->model = next;
    return good;
}

static inline bool random_step(struct run *r)
{
    struct bf_key key;
    switch (below(r, 10)) {
    case 0:
    case 1:
    case 2:
        return commit_beside_a_scan(r);
    case 3:
    case 4:
        return check_scan(r);
    case 5:
    case 6:
        return check_gather(r);
    case 7:
        return one_in(r, 8) ? check_all(r) : check_counts(r);
    case 8:
        return !one_in(r, 20) || restart(r, one_in(r, 2));
    default:
        some_key(r, &r->model, &key);
        return check_key(r, &key);
    }
}

/* ---- step by step: the order of changes within a batch ---- */

static inline void ack_key(struct bf_key *key, const char *user, uint64_t to)
{
    bf_key_ack(key, (struct bf_uid){BF_BYTES("t"), {user, strlen(user)}}, BF_LANE_NORMAL, to);
}

static inline void put_ack(struct run *r, const char *user, uint64_t to, uint64_t from)
{
    struct bf_key key;
    uint8_t value[9];
    struct bf_writer w = {.buf = value, .cap = sizeof(value)};
    ack_key(&key, user, to);
    bf_put_u8(&w, BF_ROW_VERSION);
    bf_put_u64(&w, from);
    change(r, &r->model, BF_CHANGE_PUT, bytes_of(&key), (struct bf_bytes){(char *)value, w.len});
}

static inline void delete_acks(struct run *r, const char *user, uint64_t to, bool all)
{
    struct bf_key key;
    ack_key(&key, user, to);
    if (all)
        key.len -= 8;
    change(r, &r->model, all ? BF_CHANGE_DELETE_PREFIX : BF_CHANGE_DELETE, bytes_of(&key),
           (struct bf_bytes){0});
}

static inline bool check_order_in_a_batch(struct run *r)
{
    for (unsigned way = 0; way < 6; way++) {
        put_ack(r, "stays", way, 1);
        if (way == 0) { /* the last put of a key is the one */
            put_ack(r, "u", 5, 1);
            put_ack(r, "u", 4, 2);
            put_ack(r, "u", 5, 3);
        } else if (way == 1) { /* put and deleted: there is none */
            put_ack(r, "u", 5, 4);
            delete_acks(r, "u", 5, false);
        } else if (way == 2) { /* deleted and put: there is one */
            delete_acks(r, "u", 4, false);
            put_ack(r, "u", 4, 5);
        } else if (way == 3) { /* a prefix takes what was put before it, in this batch too */
            put_ack(r, "u", 6, 6);
            delete_acks(r, "u", 0, true);
        } else if (way == 4) { /* and not what comes after it */
            put_ack(r, "u", 7, 7);
            delete_acks(r, "u", 0, true);
            put_ack(r, "u", 7, 8);
            put_ack(r, "u", 8, 9);
        } else { /* nothing is deleted twice, and nothing that is not there */
            delete_acks(r, "u", 8, false);
            delete_acks(r, "u", 8, false);
            delete_acks(r, "nobody", 0, true);
        }
        if (!commit(r, false) || !check_all(r))
            return false;
    }
    return true;
}

/* A letter counts once, however often a batch and the store name it. */
static inline bool check_counting(struct run *r)
{
    uint8_t room[ROW_BYTES_MAX];
    struct bf_key key;
    for (unsigned way = 0; way < 5; way++) {
        random_key(r, BF_T_DLQ, &key);
        for (unsigned i = 0; i < 2; i++)
            change(r, &r->model, BF_CHANGE_PUT, bytes_of(&key), random_value(r, BF_T_DLQ, room));
        if (way % 2)
            change(r, &r->model, BF_CHANGE_DELETE, bytes_of(&key), (struct bf_bytes){0});
        delete_acks(r, "nobody", 0, true);
        if (way > 2)
            change(r, &r->model, BF_CHANGE_PUT, bytes_of(&key), random_value(r, BF_T_DLQ, room));
        if (!commit(r, false) || !check_counts(r))
            return false;
        change(r, &r->model, BF_CHANGE_DELETE, bytes_of(&key), (struct bf_bytes){0});
        change(r, &r->model, BF_CHANGE_DELETE, bytes_of(&key), (struct bf_bytes){0});
        if (!commit(r, false) || !check_counts(r))
            return false;
    }
    return true;
}

/* ---- threads: a batch is seen whole or not at all ---- */

#define STAMPS      16u
#define STAMP_SCANS 3000u

/* Writes until it is told to stop: each batch gives all rows one stamp, one higher than before. */
struct stamper {
    struct bf_engine *engine;
    _Atomic bool stops;
    uint64_t stamp; /* of the last batch */
    int rc;
};

static inline void put_stamps(struct bf_changes *changes, uint64_t stamp)
{
    uint8_t value[9];
    struct bf_key key;
    struct bf_writer w = {.buf = value, .cap = sizeof(value)};
    bf_put_u8(&w, BF_ROW_VERSION);
    bf_put_u64(&w, stamp);
    for (uint64_t i = 0; i < STAMPS; i++) {
        ack_key(&key, "stamped", i);
        bf_changes_add(changes, BF_CHANGE_PUT, key.at, key.len, value, w.len);
    }
}

static inline void *stamp_rows(void *arg)
{
    struct stamper *s = arg;
    struct bf_changes changes = {0};
    struct bf_key key;
    struct bf_committer *c = s->engine->ops->committer_create(s->engine);
    ack_key(&key, "stamped", 0);
    while (s->rc == 0 && !atomic_load(&s->stops)) {
        bf_changes_clear(&changes);
        if (++s->stamp % 3 == 0)
            bf_changes_add(&changes, BF_CHANGE_DELETE_PREFIX, key.at, key.len - 8u, NULL, 0);
        put_stamps(&changes, s->stamp);
        s->rc = s->engine->ops->commit(c, &changes, false);
    }
    s->engine->ops->committer_destroy(c);
    bf_changes_fini(&changes);
    return NULL;
}

/* All rows of one batch, and none of an older one than before. */
static inline bool read_stamps(struct run *r, const struct bf_key *prefix, uint64_t *last)
{
    struct bf_scan scan;
    size_t count = 0;
    bool good = true;
    bf_engine_scan(&scan, r->engine, prefix, NULL, 0);
    for (; good && bf_scan_next(&scan); count++) {
        struct bf_reader v = bf_value_reader(scan.value, NULL);
        uint64_t stamp = bf_get_u64(&v);
        if (count == 0 && stamp < *last)
            good = differs(r, "a batch that was there is not any more");
        else if (count > 0 && stamp != *last)
            good = differs(r, "half of a batch was seen: row %zu is of another", count);
        *last = stamp;
    }
    int rc = bf_scan_close(&scan);
    if (good && rc != 0)
        return differs(r, "scan beside commits: %s", bf_err_text(rc));
    return good && (count == STAMPS || (count == 0 && *last == 0) ||
                    differs(r, "half of a batch was seen: %zu rows", count));
}

static inline bool check_batches_are_whole(struct run *r)
{
    struct stamper s = {.engine = r->engine};
    pthread_t thread;
    struct bf_key prefix;
    uint64_t last = 0;
    bool good = true;
    ack_key(&prefix, "stamped", 0);
    prefix.len -= 8;
    if (pthread_create(&thread, NULL, stamp_rows, &s) != 0)
        return differs(r, "no thread");
    for (unsigned i = 0; good && i<STAMP_SCANS; i += last> 0)
        good = read_stamps(r, &prefix, &last);
    atomic_store(&s.stops, true);
    pthread_join(thread, NULL);
    put_stamps(&r->changes, s.stamp);
    for (uint32_t i = 0; i < r->changes.count; i++)
        model_put(&r->model, bf_change_key(&r->changes, &r->changes.list[i]),
                  bf_change_value(&r->changes, &r->changes.list[i]));
    bf_changes_clear(&r->changes);
    return good && (s.rc == 0 || differs(r, "a commit failed: %s", bf_err_text(s.rc)));
}

/* ---- all of it ---- */

/* |dir| is empty and has to be removed by the caller. True, or r->why says what differed. */
static inline bool conforms(struct run *r)
{
    r->random = r->seed;
    bool good = start_engine(r);
    good = good && check_order_in_a_batch(r) && check_counting(r) && check_batches_are_whole(r);
    for (unsigned i = 0; good && i < r->steps; i++)
        good = random_step(r);
    good = good && restart(r, false) && restart(r, true);
    stop_engine(r, true);
    bf_changes_fini(&r->changes);
    model_free(&r->model);
    return good;
}
