/* See changes.h. */
#include "store/changes.h"

#include <stdlib.h>
#include <string.h>

#include "belfry/base/bug.h"

#define BYTES_START (64u * 1024u)
#define LIST_START  1024u

void bf_changes_fini(struct bf_changes *c)
{
    free(c->bytes);
    free(c->list);
    *c = (struct bf_changes){0};
}

void bf_changes_clear(struct bf_changes *c)
{
    c->len = 0;
    c->count = 0;
}

/* Grows to the size of the largest batch, once; a store without memory for a batch cannot go on. */
static void make_room(struct bf_changes *c, size_t bytes)
{
    if (c->len + bytes > c->cap) {
        c->cap = (c->len + bytes) * 2 > BYTES_START ? (c->len + bytes) * 2 : BYTES_START;
        c->bytes = realloc(c->bytes, c->cap);
    }
    if (c->count == c->list_cap) {
        c->list_cap = c->list_cap ? c->list_cap * 2 : LIST_START;
        c->list = realloc(c->list, c->list_cap * sizeof(*c->list));
    }
    BF_BUG_ON(c->bytes == NULL || c->list == NULL);
}

void bf_changes_add(struct bf_changes *c, enum bf_change_kind kind, const void *key, size_t key_len,
                    const void *value, size_t value_len)
{
    make_room(c, key_len + value_len);
    c->list[c->count] = (struct bf_change){.at = (uint32_t)c->len,
                                           .number = c->count,
                                           .value_len = (uint32_t)value_len,
                                           .key_len = (uint16_t)key_len,
                                           .kind = (uint8_t)kind};
    c->count++;
    memcpy(c->bytes + c->len, key, key_len);
    if (value_len > 0)
        memcpy(c->bytes + c->len + key_len, value, value_len);
    c->len += key_len + value_len;
}

static int compare(const void *left, const void *right, void *arg)
{
    const struct bf_change *a = left, *b = right;
    const uint8_t *bytes = arg;
    size_t len = a->key_len < b->key_len ? a->key_len : b->key_len;
    int order = memcmp(bytes + a->at, bytes + b->at, len);
    if (order == 0 && a->key_len != b->key_len)
        order = a->key_len < b->key_len ? -1 : 1;
    if (order == 0) /* the later one of the same key stays the later one */
        order = a->number < b->number ? -1 : 1;
    return order;
}

uint32_t bf_changes_sort(struct bf_changes *c, uint32_t from)
{
    uint32_t to = from;
    while (to < c->count && c->list[to].kind != BF_CHANGE_DELETE_PREFIX)
        to++;
    if (to > from + 1)
        qsort_r(c->list + from, to - from, sizeof(*c->list), compare, c->bytes);
    return to;
}
