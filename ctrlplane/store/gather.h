/*
 * One read of many rows: first everything that will be needed is noted, then all of it is read at
 * once, in one round trip if the database is on another machine. Rows of any tables, whether rows
 * exist, and ranges of rows. The answers are no snapshot of one moment. Memory grows to the largest
 * read and stays. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/engine.h"

enum bf_want_kind {
    BF_WANT_ROW = 1,
    BF_WANT_HAS = 2, /* whether there is such a row, not what it says */
    BF_WANT_RANGE = 3,
};

struct bf_want {
    /* asked */
    uint32_t key_at, from_at; /* of .keys */
    uint32_t limit;           /* of BF_WANT_RANGE: rows at most */
    uint16_t key_len, from_len;
    uint8_t kind;  /* enum bf_want_kind */
    uint8_t flags; /* enum bf_scan_flags */
    /* answered: 0, BF_ERR_NOT_FOUND (also for a range without a row), BF_ERR_CORRUPT */
    int rc;
    struct bf_row row;             /* of BF_WANT_ROW, if rc is 0; until the clear */
    uint32_t first_row, row_count; /* of BF_WANT_RANGE: in .rows */
};

/* A row of a range: key bytes, then value bytes, in .bytes. */
struct bf_gathered {
    size_t at;
    uint32_t value_len;
    uint16_t key_len;
};

struct bf_gather {
    struct bf_engine *engine;
    struct bf_want *wants;
    uint32_t want_count, want_cap;
    uint8_t *keys;
    size_t keys_len, keys_cap;
    struct bf_gathered *rows;
    uint32_t row_count, row_cap;
    uint8_t *bytes;
    size_t bytes_len, bytes_cap;
    void *scratch; /* the engine's; freed with free() */
    size_t scratch_cap;
};

void bf_gather_init(struct bf_gather *g, struct bf_engine *engine);
void bf_gather_fini(struct bf_gather *g);
/* Forgets what was asked and answered. */
void bf_gather_clear(struct bf_gather *g);

/* Each returns the number by which the answer is found. */
uint32_t bf_want_row(struct bf_gather *g, const struct bf_key *key);
uint32_t bf_want_has(struct bf_gather *g, const struct bf_key *key);
/* |from| NULL: from the first, or from the last backwards. |flags|: enum bf_scan_flags. */
uint32_t bf_want_range(struct bf_gather *g, const struct bf_key *prefix, const struct bf_key *from,
                       unsigned flags, uint32_t limit);
/* Reads all that is wanted. 0, or BF_ERR_STORE if nothing could be read; what is wrong with one row
 * is its own answer. */
int bf_gather_read(struct bf_gather *g);

static inline const struct bf_want *bf_gather_got(const struct bf_gather *g, uint32_t want)
{
    return &g->wants[want];
}
/* Row |i| of a range's answer; until the clear. */
static inline void bf_gather_row(const struct bf_gather *g, uint32_t want, uint32_t i,
                                 struct bf_bytes *ret_key, struct bf_bytes *ret_value)
{
    const struct bf_gathered *row = &g->rows[g->wants[want].first_row + i];
    const char *at = (const char *)g->bytes + row->at;
    *ret_key = (struct bf_bytes){at, row->key_len};
    *ret_value = (struct bf_bytes){at + row->key_len, row->value_len};
}

/* ---- for engines ---- */

static inline void bf_want_key(const struct bf_gather *g, const struct bf_want *want,
                               struct bf_key *ret)
{
    ret->len = 0;
    bf_key_raw(ret, g->keys + want->key_at, want->key_len);
}
/* The answer of a range by an ordinary scan: for an engine to which it costs nothing more. */
void bf_gather_range_by_scan(struct bf_gather *g, struct bf_want *want);
/* Memory for the engine's own use during a read. */
void *bf_gather_scratch(struct bf_gather *g, size_t bytes);
