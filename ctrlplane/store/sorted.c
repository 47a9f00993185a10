/* See sorted.h. */
#include "store/sorted.h"

#include <stdlib.h>
#include <string.h>

#include "belfry/base/bug.h"

#define BYTES_START (64u * 1024u)
#define ROWS_START  1024u

void bf_sorted_fini(struct bf_sorted *s)
{
    free(s->bytes);
    free(s->rows);
    *s = (struct bf_sorted){0};
}

void bf_sorted_clear(struct bf_sorted *s)
{
    s->len = 0;
    s->count = 0;
}

/* Grows to the size of the largest batch, once; a store without memory for a batch cannot go on. */
static void make_room(struct bf_sorted *s, size_t bytes)
{
    if (s->len + bytes > s->cap) {
        s->cap = (s->len + bytes) * 2 > BYTES_START ? (s->len + bytes) * 2 : BYTES_START;
        s->bytes = realloc(s->bytes, s->cap);
    }
    if (s->count == s->rows_cap) {
        s->rows_cap = s->rows_cap ? s->rows_cap * 2 : ROWS_START;
        s->rows = realloc(s->rows, s->rows_cap * sizeof(*s->rows));
    }
    BF_BUG_ON(s->bytes == NULL || s->rows == NULL);
}

void bf_sorted_put(struct bf_sorted *s, uint8_t cf, const void *key, size_t key_len,
                   const void *value, size_t value_len)
{
    make_room(s, key_len + value_len);
    s->rows[s->count] = (struct bf_sorted_row){.at = (uint32_t)s->len,
                                               .number = s->count,
                                               .value_len = (uint32_t)value_len,
                                               .key_len = (uint16_t)key_len,
                                               .cf = cf};
    s->count++;
    memcpy(s->bytes + s->len, key, key_len);
    memcpy(s->bytes + s->len + key_len, value, value_len);
    s->len += key_len + value_len;
}

static int compare(const void *left, const void *right, void *arg)
{
    const struct bf_sorted_row *a = left, *b = right;
    const uint8_t *bytes = arg;
    if (a->cf != b->cf)
        return a->cf < b->cf ? -1 : 1;
    size_t len = a->key_len < b->key_len ? a->key_len : b->key_len;
    int order = memcmp(bytes + a->at, bytes + b->at, len);
    if (order == 0 && a->key_len != b->key_len)
        order = a->key_len < b->key_len ? -1 : 1;
    if (order == 0) /* the later one of the same key stays the later one */
        order = a->number < b->number ? -1 : 1;
    return order;
}

void bf_sorted_flush(struct bf_sorted *s, const struct bf_rocks *rocks, rocksdb_writebatch_t *batch)
{
    if (s->count > 1)
        qsort_r(s->rows, s->count, sizeof(*s->rows), compare, s->bytes);
    for (uint32_t i = 0; i < s->count; i++) {
        const struct bf_sorted_row *row = &s->rows[i];
        const char *key = (const char *)s->bytes + row->at;
        rocksdb_writebatch_put_cf(batch, rocks->cfs[row->cf], key, row->key_len,
                                  key + row->key_len, row->value_len);
    }
    bf_sorted_clear(s);
}
