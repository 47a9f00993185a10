/*
 * Rows as columns: a key and a value are split by the description of their table (store/tables.h)
 * and joined again, byte for byte. What an engine with typed columns would do. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "store/tables.h"
#include "store/value.h"

#define ROW_BYTES_MAX 8192u

/* The content of one column of one row. */
struct cell {
    bool is_null;
    uint64_t number; /* of numbers */
    size_t len;      /* of everything else */
    uint8_t *bytes;  /* own memory; of a list: its items, each with a length of two bytes */
};

struct cells {
    uint8_t count;
    struct cell at[BF_COLUMNS_MAX];
};

static inline void cells_free(struct cells *cells)
{
    for (unsigned i = 0; i < cells->count; i++)
        free(cells->at[i].bytes);
    cells->count = 0;
}

static inline bool is_number(const struct bf_column *c)
{
    return c->form <= BF_FORM_U64;
}

static inline size_t fixed_size(const struct bf_column *c)
{
    static const uint8_t sizes[] = {0, 1, 2, 4, 8};
    return is_number(c) ? sizes[c->form] : c->form == BF_FORM_RAW ? c->bytes : 0;
}

static inline uint64_t get_number(struct bf_reader *r, size_t size, bool is_key)
{
    const uint8_t *at = bf_get_raw(r, size);
    uint64_t v = 0;
    for (size_t i = 0; at && i < size; i++)
        v = is_key ? v << 8 | at[i] : v | (uint64_t)at[i] << 8 * i;
    return v;
}

static inline void put_number(struct bf_writer *w, uint64_t v, size_t size, bool is_key)
{
    for (size_t i = 0; i < size; i++)
        bf_put_u8(w, (uint8_t)(v >> 8 * (is_key ? size - 1 - i : i)));
}

/* The items of a list, checked one by one; their bytes, lengths included. */
static inline struct bf_bytes get_list(struct bf_reader *r)
{
    uint32_t count = bf_get_u32(r);
    size_t from = r->at;
    for (uint32_t i = 0; i < count && !r->failed; i++)
        bf_get_str16(r);
    return (struct bf_bytes){(const char *)r->buf + from, r->failed ? 0 : r->at - from};
}

static inline struct bf_bytes get_content(struct bf_reader *r, const struct bf_column *c)
{
    switch (c->form) {
    case BF_FORM_RAW:
        return bf_get_bytes(r, c->bytes);
    case BF_FORM_TEXT8:
        return bf_get_bytes(r, bf_get_u8(r));
    case BF_FORM_TEXT16:
        return bf_get_str16(r);
    case BF_FORM_TEXT32:
        return bf_get_str32(r);
    case BF_FORM_LIST:
        return get_list(r);
    default:
        return bf_get_bytes(r, r->failed ? 0 : r->len - r->at);
    }
}

static inline void get_cell(struct bf_reader *r, const struct bf_column *c, bool is_key,
                            struct cell *ret)
{
    *ret = (struct cell){0};
    if (is_number(c)) {
        ret->number = get_number(r, fixed_size(c), is_key);
        return;
    }
    struct bf_bytes content = get_content(r, c);
    ret->len = content.len;
    ret->bytes = malloc(content.len + 1);
    if (content.len > 0)
        memcpy(ret->bytes, content.at, content.len);
}

static inline uint32_t list_count(const struct cell *cell)
{
    struct bf_reader r = {.buf = cell->bytes, .len = cell->len};
    uint32_t count = 0;
    for (; r.at < r.len && !r.failed; count++)
        bf_get_str16(&r);
    return count;
}

static inline void put_cell(struct bf_writer *w, const struct bf_column *c, bool is_key,
                            const struct cell *cell)
{
    if (cell->is_null)
        return;
    if (is_number(c)) {
        put_number(w, cell->number, fixed_size(c), is_key);
        return;
    }
    if (c->form == BF_FORM_TEXT8)
        bf_put_u8(w, (uint8_t)cell->len);
    else if (c->form == BF_FORM_TEXT16)
        bf_put_u16(w, (uint16_t)cell->len);
    else if (c->form == BF_FORM_TEXT32)
        bf_put_u32(w, (uint32_t)cell->len);
    else if (c->form == BF_FORM_LIST)
        bf_put_u32(w, list_count(cell));
    bf_put_raw(w, cell->bytes, cell->len);
}

/* Whether an optional column is there: in a value if anything is left; in a key if more is left
 * than the columns behind it take. */
static inline bool is_there(const struct bf_reader *r, const struct bf_column *columns,
                            unsigned count, unsigned i, bool is_key)
{
    size_t behind = 0;
    for (unsigned k = i + 1; is_key && k < count; k++)
        behind += columns[k].is_optional ? 0 : fixed_size(&columns[k]);
    return !columns[i].is_optional || r->len - r->at > behind;
}

/* All columns, from a whole key or value. False: the bytes are not of that form. */
static inline bool split(struct bf_reader *r, const struct bf_column *columns, unsigned count,
                         bool is_key, struct cells *ret)
{
    for (unsigned i = 0; i < count && !r->failed; i++) {
        struct cell *cell = &ret->at[ret->count++];
        if (is_there(r, columns, count, i, is_key))
            get_cell(r, &columns[i], is_key, cell);
        else
            *cell = (struct cell){.is_null = true};
    }
    return !r->failed && r->at == r->len;
}

static inline bool split_key(struct bf_bytes key, struct cells *ret)
{
    struct bf_reader r = {.buf = (const uint8_t *)key.at, .len = key.len};
    uint8_t table = bf_get_u8(&r);
    *ret = (struct cells){0};
    return table < BF_T_COUNT && bf_tables[table].name &&
           split(&r, bf_tables[table].key, bf_tables[table].key_columns, true, ret);
}

static inline bool split_value(uint8_t table, struct bf_bytes value, struct cells *ret,
                               uint64_t *ret_expires_ms)
{
    const struct bf_table_def *t = &bf_tables[table];
    bool has_expiry = t->expiry != BF_EXPIRY_NONE;
    struct bf_reader r = bf_value_reader(value, has_expiry ? ret_expires_ms : NULL);
    *ret = (struct cells){0};
    return split(&r, t->value, t->value_columns, false, ret);
}

static inline void join_key(uint8_t table, const struct cells *cells, struct bf_writer *w)
{
    bf_put_u8(w, table);
    for (unsigned i = 0; i < cells->count; i++)
        put_cell(w, &bf_tables[table].key[i], true, &cells->at[i]);
}

static inline void join_value(uint8_t table, const struct cells *cells, uint64_t expires_ms,
                              struct bf_writer *w)
{
    const struct bf_table_def *t = &bf_tables[table];
    bf_put_u8(w, BF_ROW_VERSION);
    if (t->expiry != BF_EXPIRY_NONE)
        bf_put_u64(w, expires_ms);
    for (unsigned i = 0; i < cells->count; i++)
        put_cell(w, &t->value[i], false, &cells->at[i]);
}

/* ---- order and prefixes ---- */

static inline int compare_bytes(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    size_t n = a_len < b_len ? a_len : b_len;
    int order = n > 0 ? memcmp(a, b, n) : 0;
    return order != 0 ? order : a_len < b_len ? -1 : a_len > b_len;
}

/* A fault, for those who test the test: texts lie in the order of their bytes alone. */
static bool texts_sort_by_bytes;

static inline int compare_cell(const struct bf_column *c, const struct cell *a,
                               const struct cell *b)
{
    if (a->is_null || b->is_null)
        return b->is_null - a->is_null;
    if (is_number(c))
        return a->number < b->number ? -1 : a->number > b->number;
    if (c->form == BF_FORM_TEXT8 && a->len != b->len && !texts_sort_by_bytes)
        return a->len < b->len ? -1 : 1;
    return compare_bytes(a->bytes, a->len, b->bytes, b->len);
}

/* The beginning of a key: some whole columns, then perhaps the first bytes of a raw one. */
struct beginning {
    uint8_t table;
    struct cells cells;
    struct cell part; /* len 0: none */
};

static inline bool split_beginning(struct bf_bytes key, struct beginning *ret)
{
    struct bf_reader r = {.buf = (const uint8_t *)key.at, .len = key.len};
    *ret = (struct beginning){.table = bf_get_u8(&r)};
    if (ret->table >= BF_T_COUNT || !bf_tables[ret->table].name)
        return false;
    const struct bf_table_def *t = &bf_tables[ret->table];
    for (unsigned i = 0; r.at < r.len && !r.failed && i < t->key_columns; i++) {
        const struct bf_column *c = &t->key[i];
        if (!is_there(&r, t->key, t->key_columns, i, true)) {
            ret->cells.at[ret->cells.count++] = (struct cell){.is_null = true};
        } else if (c->form == BF_FORM_REST || (c->form == BF_FORM_RAW && r.len - r.at < c->bytes)) {
            struct bf_column rest = {.form = BF_FORM_REST};
            get_cell(&r, &rest, true, &ret->part);
        } else {
            get_cell(&r, c, true, &ret->cells.at[ret->cells.count++]);
        }
    }
    return !r.failed && r.at == r.len;
}

static inline void beginning_free(struct beginning *b)
{
    cells_free(&b->cells);
    free(b->part.bytes);
}

/* Whether a row that begins so has nothing more. */
static inline bool is_all_of(const struct cells *row, const struct beginning *b)
{
    unsigned i = b->cells.count;
    if (b->part.len > 0 && row->at[i++].len != b->part.len)
        return false;
    while (i < row->count && row->at[i].is_null)
        i++;
    return i == row->count;
}

/* Below 0: the row lies before all rows that begin so; 0: it is one of them; above: behind. */
static inline int compare_beginning(const struct cells *row, const struct beginning *b)
{
    const struct bf_table_def *t = &bf_tables[b->table];
    for (unsigned i = 0; i < b->cells.count; i++) {
        int order = compare_cell(&t->key[i], &row->at[i], &b->cells.at[i]);
        if (order != 0)
            return order;
    }
    if (b->part.len == 0)
        return 0;
    const struct cell *cell = &row->at[b->cells.count];
    size_t n = cell->len < b->part.len ? cell->len : b->part.len;
    return compare_bytes(cell->bytes, n, b->part.bytes, b->part.len);
}
