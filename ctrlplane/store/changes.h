/*
 * The changes of a batch, in the order in which they were made: rows to put, rows to delete,
 * prefixes to delete. Memory of its own, which grows to the largest batch and stays. One thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

enum bf_change_kind {
    BF_CHANGE_PUT = 1,
    BF_CHANGE_DELETE = 2,
    BF_CHANGE_DELETE_PREFIX = 3, /* all rows whose key begins with the key */
};

struct bf_change {
    uint32_t at; /* key bytes, then value bytes, in .bytes */
    uint32_t number;
    uint32_t value_len;
    uint16_t key_len;
    uint8_t kind; /* enum bf_change_kind */
};

struct bf_changes {
    uint8_t *bytes;
    size_t len, cap;
    struct bf_change *list;
    uint32_t count, list_cap;
};

void bf_changes_fini(struct bf_changes *c);
void bf_changes_clear(struct bf_changes *c);
/* |value| is of a put; NULL for the two others. Copies. */
void bf_changes_add(struct bf_changes *c, enum bf_change_kind kind, const void *key, size_t key_len,
                    const void *value, size_t value_len);

static inline struct bf_bytes bf_change_key(const struct bf_changes *c,
                                            const struct bf_change *change)
{
    return (struct bf_bytes){(const char *)c->bytes + change->at, change->key_len};
}

static inline struct bf_bytes bf_change_value(const struct bf_changes *c,
                                              const struct bf_change *change)
{
    return (struct bf_bytes){(const char *)c->bytes + change->at + change->key_len,
                             change->value_len};
}

/* Sorts the changes from |from| up to the next deletion of a prefix, or the end, by key; changes of
 * one key keep their order. Returns the index after the last of them. */
uint32_t bf_changes_sort(struct bf_changes *c, uint32_t from);
