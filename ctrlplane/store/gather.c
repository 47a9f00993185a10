/* See gather.h. */
#include "store/gather.h"

#include <stdlib.h>
#include <string.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"

#define WANTS_START 16u
#define BYTES_START 1024u

void bf_gather_init(struct bf_gather *g, struct bf_engine *engine)
{
    *g = (struct bf_gather){.engine = engine};
}

void bf_gather_fini(struct bf_gather *g)
{
    bf_gather_clear(g);
    free(g->wants);
    free(g->keys);
    free(g->rows);
    free(g->bytes);
    free(g->scratch);
    *g = (struct bf_gather){0};
}

void bf_gather_clear(struct bf_gather *g)
{
    for (uint32_t i = 0; i < g->want_count; i++)
        bf_row_put(&g->wants[i].row);
    g->want_count = 0;
    g->keys_len = 0;
    g->row_count = 0;
    g->bytes_len = 0;
}

/* A list with room for one more; a store without memory for a read cannot go on. */
static void *grown(void *list, uint32_t count, uint32_t *cap, size_t bytes)
{
    if (count < *cap)
        return list;
    *cap = *cap ? *cap * 2 : WANTS_START;
    list = realloc(list, *cap * bytes);
    BF_BUG_ON(list == NULL);
    return list;
}

static size_t append(uint8_t **bytes, size_t *len, size_t *cap, const void *at, size_t n)
{
    size_t where = *len;
    if (where + n > *cap) {
        *cap = (where + n) * 2 > BYTES_START ? (where + n) * 2 : BYTES_START;
        *bytes = realloc(*bytes, *cap);
        BF_BUG_ON(*bytes == NULL);
    }
    if (n > 0)
        memcpy(*bytes + where, at, n);
    *len += n;
    return where;
}

static uint32_t want(struct bf_gather *g, enum bf_want_kind kind, const struct bf_key *key)
{
    g->wants = grown(g->wants, g->want_count, &g->want_cap, sizeof(*g->wants));
    size_t at = append(&g->keys, &g->keys_len, &g->keys_cap, key->at, key->len);
    g->wants[g->want_count] = (struct bf_want){
        .kind = (uint8_t)kind, .key_at = (uint32_t)at, .key_len = (uint16_t)key->len};
    return g->want_count++;
}

uint32_t bf_want_row(struct bf_gather *g, const struct bf_key *key)
{
    return want(g, BF_WANT_ROW, key);
}

uint32_t bf_want_has(struct bf_gather *g, const struct bf_key *key)
{
    return want(g, BF_WANT_HAS, key);
}

uint32_t bf_want_range(struct bf_gather *g, const struct bf_key *prefix, const struct bf_key *from,
                       unsigned flags, uint32_t limit)
{
    uint32_t i = want(g, BF_WANT_RANGE, prefix);
    g->wants[i].flags = (uint8_t)flags;
    g->wants[i].limit = limit;
    if (from != NULL) {
        g->wants[i].from_at =
            (uint32_t)append(&g->keys, &g->keys_len, &g->keys_cap, from->at, from->len);
        g->wants[i].from_len = (uint16_t)from->len;
    }
    return i;
}

int bf_gather_read(struct bf_gather *g)
{
    return g->want_count > 0 ? g->engine->ops->gather(g->engine, g) : 0;
}

static void add_row(struct bf_gather *g, const struct bf_scan *scan)
{
    g->rows = grown(g->rows, g->row_count, &g->row_cap, sizeof(*g->rows));
    size_t at = append(&g->bytes, &g->bytes_len, &g->bytes_cap, scan->key.at, scan->key.len);
    append(&g->bytes, &g->bytes_len, &g->bytes_cap, scan->value.at, scan->value.len);
    g->rows[g->row_count++] = (struct bf_gathered){
        .at = at, .value_len = (uint32_t)scan->value.len, .key_len = (uint16_t)scan->key.len};
}

void bf_gather_range_by_scan(struct bf_gather *g, struct bf_want *w)
{
    struct bf_key prefix, from = {.len = 0};
    struct bf_scan scan;
    bf_want_key(g, w, &prefix);
    bf_key_raw(&from, g->keys + w->from_at, w->from_len);
    bf_engine_scan(&scan, g->engine, &prefix, w->from_len > 0 ? &from : NULL, w->flags);
    w->first_row = g->row_count;
    while (w->row_count < w->limit && bf_scan_next(&scan)) {
        add_row(g, &scan);
        w->row_count++;
    }
    w->rc = bf_scan_close(&scan);
    if (w->rc == 0 && w->row_count == 0)
        w->rc = BF_ERR_NOT_FOUND;
}

void *bf_gather_scratch(struct bf_gather *g, size_t bytes)
{
    if (bytes > g->scratch_cap) {
        free(g->scratch);
        g->scratch_cap = bytes * 2;
        g->scratch = malloc(g->scratch_cap);
        BF_BUG_ON(g->scratch == NULL);
    }
    return g->scratch;
}
