/*
 * Rows of a batch put aside and handed to RocksDB in key order: its memtables are skip lists, and an
 * insert next to the one before it needs no search from the top. Rows of equal keys keep their order. One thread.
 */
#pragma once

#include <stdint.h>

#include "store/rocks.h"

struct bf_sorted_row {
    uint32_t at; /* key bytes, then value bytes, in .bytes */
    uint32_t number;
    uint32_t value_len;
    uint16_t key_len;
    uint8_t cf;
};

struct bf_sorted {
    uint8_t *bytes;
    size_t len, cap;
    struct bf_sorted_row *rows;
    uint32_t count, rows_cap;
};

void bf_sorted_fini(struct bf_sorted *s);
void bf_sorted_clear(struct bf_sorted *s);
void bf_sorted_put(struct bf_sorted *s, uint8_t cf, const void *key, size_t key_len,
                   const void *value, size_t value_len);
/* Appends all rows to |batch| in key order and forgets them. */
void bf_sorted_flush(struct bf_sorted *s, const struct bf_rocks *rocks, rocksdb_writebatch_t *batch);
