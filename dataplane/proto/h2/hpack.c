/* See hpack.h. Sections are those of RFC 7541. */
#include "proto/h2/hpack.h"

#include <string.h>

#include "belfry/base/bug.h"

/* Names of the static table (appendix A) that requests have; and two of its fields. */
static const struct {
    struct bf_bytes name, value; /* no value: the name alone */
    uint8_t index;
} statics[] = {
    {{":method", 7}, {"POST", 4}, 3},
    {{":scheme", 7}, {"https", 5}, 7},
    {{":path", 5}, {0}, 4},
    {{":authority", 10}, {0}, 1},
    {{"authorization", 13}, {0}, 23},
    {{"content-type", 12}, {0}, 31},
    {{"content-encoding", 16}, {0}, 26},
};
#define STATIC_COUNT 61u

/* First bytes of the representations (section 6), with the bits of the number after them. */
enum { INDEX = 0x80, INCREMENTAL = 0x40, SIZE_UPDATE = 0x20, WITHOUT = 0x00 };
enum { INDEX_BITS = 7, INCREMENTAL_BITS = 6, SIZE_BITS = 5, WITHOUT_BITS = 4, LENGTH_BITS = 7 };

/* ---- numbers and strings (section 5) ---- */

static uint8_t *put_number(uint8_t *to, uint8_t first, unsigned bits, size_t n)
{
    size_t most = (1u << bits) - 1u;
    if (n < most) {
        *to = (uint8_t)(first | n);
        return to + 1;
    }
    *to++ = (uint8_t)(first | most);
    for (n -= most; n >= 128; n >>= 7)
        *to++ = (uint8_t)(n | 0x80);
    *to = (uint8_t)n;
    return to + 1;
}

static uint8_t *put_string(uint8_t *to, struct bf_bytes s)
{
    to = put_number(to, 0, LENGTH_BITS, s.len);
    memcpy(to, s.at, s.len);
    return to + s.len;
}

/* ---- the table (sections 2.3 and 4) ---- */

/* |age| 0: the newest. */
static struct bf_hpack_entry *entry_at(const struct bf_hpack *h, uint32_t age)
{
    return &h->entries[(h->oldest + h->count - 1u - age) % BF_HPACK_ENTRIES_MAX];
}

static void evict(struct bf_hpack *h, uint32_t room)
{
    while (h->used + room > h->capacity && h->count > 0) {
        const struct bf_hpack_entry *e = entry_at(h, h->count - 1u);
        h->used -= e->name_len + e->value_len + BF_HPACK_ENTRY_EXTRA;
        h->oldest = (h->oldest + 1u) % BF_HPACK_ENTRIES_MAX;
        h->count--;
    }
}

/* Memory for an entry of so many bytes; false: there is none. */
static bool prepare(struct bf_hpack *h, size_t bytes)
{
    size_t live = h->used - h->count * BF_HPACK_ENTRY_EXTRA;
    size_t cap = live + bytes <= BF_HPACK_TEXT_BYTES ? BF_HPACK_TEXT_BYTES : BF_HPACK_TABLE_BYTES;
    if (!h->entries)
        h->entries = bf_h2_malloc(BF_HPACK_ENTRIES_MAX * sizeof(*h->entries), h->memory);
    if (h->entries && h->text_cap < cap) {
        uint8_t *text = bf_h2_realloc(h->text, cap, h->memory);
        h->text = text ? text : h->text;
        h->text_cap = text ? (uint32_t)cap : h->text_cap;
    }
    return h->entries && h->text_cap >= cap;
}

/* Where the next entry's strings go: after the newest, or all are moved to the front first. */
static uint32_t text_room(struct bf_hpack *h, uint32_t bytes)
{
    if (h->count == 0)
        return 0;
    const struct bf_hpack_entry *newest = entry_at(h, 0);
    uint32_t begin = entry_at(h, h->count - 1u)->at;
    uint32_t end = (uint32_t)newest->at + newest->name_len + newest->value_len;
    if (end + bytes <= h->text_cap)
        return end;
    memmove(h->text, h->text + begin, end - begin);
    for (uint32_t age = 0; age < h->count; age++)
        entry_at(h, age)->at = (uint16_t)(entry_at(h, age)->at - begin);
    return end - begin;
}

static void insert(struct bf_hpack *h, struct bf_bytes name, struct bf_bytes value)
{
    uint32_t bytes = (uint32_t)(name.len + value.len);
    evict(h, bytes + BF_HPACK_ENTRY_EXTRA);
    uint32_t at = text_room(h, bytes);
    BF_BUG_ON(at + bytes > h->text_cap || h->count == BF_HPACK_ENTRIES_MAX);
    memcpy(h->text + at, name.at, name.len);
    memcpy(h->text + at + name.len, value.at, value.len);
    h->count++;
    h->used += bytes + BF_HPACK_ENTRY_EXTRA;
    *entry_at(h, 0) = (struct bf_hpack_entry){
        .at = (uint16_t)at, .name_len = (uint16_t)name.len, .value_len = (uint16_t)value.len};
}

/* Index of the field, or 0; then |*ret_name| is that of a field of this name, or 0. */
static uint32_t find(const struct bf_hpack *h, struct bf_bytes name, struct bf_bytes value,
                     uint32_t *ret_name)
{
    *ret_name = 0;
    for (uint32_t i = 0; i < sizeof(statics) / sizeof(statics[0]); i++) {
        if (!bf_bytes_is_equal(statics[i].name, name))
            continue;
        *ret_name = statics[i].index;
        if (statics[i].value.len > 0 && bf_bytes_is_equal(statics[i].value, value))
            return statics[i].index;
        break;
    }
    for (uint32_t age = 0; age < h->count; age++) {
        const struct bf_hpack_entry *e = entry_at(h, age);
        const uint8_t *text = h->text + e->at;
        if (e->name_len != name.len || memcmp(text, name.at, name.len) != 0)
            continue;
        if (e->value_len == value.len && memcmp(text + name.len, value.at, value.len) == 0)
            return STATIC_COUNT + 1u + age;
        if (*ret_name == 0)
            *ret_name = STATIC_COUNT + 1u + age;
    }
    return 0;
}

/* ---- blocks ---- */

void bf_hpack_init(struct bf_hpack *h, struct bf_h2_memory *memory)
{
    *h = (struct bf_hpack){.memory = memory,
                           .capacity = BF_HPACK_TABLE_BYTES,
                           .allowed = BF_HPACK_TABLE_BYTES,
                           .least = BF_HPACK_TABLE_BYTES};
}

void bf_hpack_fini(struct bf_hpack *h)
{
    bf_h2_free(h->entries, h->memory);
    bf_h2_free(h->text, h->memory);
    h->entries = NULL;
    h->text = NULL;
}

void bf_hpack_allow(struct bf_hpack *h, uint32_t bytes)
{
    h->allowed = bytes < BF_HPACK_TABLE_BYTES ? bytes : BF_HPACK_TABLE_BYTES;
    h->least = h->allowed < h->least ? h->allowed : h->least;
}

static uint8_t *resize(struct bf_hpack *h, uint32_t bytes, uint8_t *to)
{
    if (bytes == h->capacity)
        return to;
    h->capacity = bytes;
    evict(h, 0);
    return put_number(to, SIZE_UPDATE, SIZE_BITS, bytes);
}

/* Section 4.2: the smallest since the last block, then the one in force. */
size_t bf_hpack_begin(struct bf_hpack *h, uint8_t *to)
{
    uint8_t *at = to;
    if (h->least < h->capacity)
        at = resize(h, h->least, at);
    at = resize(h, h->allowed, at);
    h->least = h->allowed;
    return (size_t)(at - to);
}

size_t bf_hpack_field(struct bf_hpack *h, struct bf_bytes name, struct bf_bytes value,
                      enum bf_hpack_mode mode, uint8_t *to)
{
    uint32_t known_name;
    uint32_t known = find(h, name, value, &known_name);
    size_t size = name.len + value.len + BF_HPACK_ENTRY_EXTRA;
    if (known != 0)
        return (size_t)(put_number(to, INDEX, INDEX_BITS, known) - to);
    /* one that would drive out nearly all others is not worth its place */
    bool is_indexed = size <= h->capacity / 4u * 3u &&
                      (mode == BF_HPACK_INDEXED || (mode == BF_HPACK_UNIQUE && known_name == 0)) &&
                      prepare(h, name.len + value.len);
    uint8_t *at = is_indexed ? put_number(to, INCREMENTAL, INCREMENTAL_BITS, known_name)
                             : put_number(to, WITHOUT, WITHOUT_BITS, known_name);
    if (known_name == 0)
        at = put_string(at, name);
    at = put_string(at, value);
    if (is_indexed)
        insert(h, name, value);
    return (size_t)(at - to);
}
