/* HPACK decoder: see sim_hpack.h. */
#include "sim_hpack.h"

/* One look gives two short symbols: digits, lower case, most of a token's. Between refills there
 * are four looks: four times twelve bits of the 56 that are there at least. */
#define FAST_BITS  12
#define FAST_LOOKS 4
#define BITS_MAX   30
#define EOS        256

static const struct {
    uint32_t code;
    uint8_t bits;
} codes[257] = {
#define H(code, bits) {code, bits},
#include "sim_hpack.def"
#undef H
};

static const struct {
    struct sim_slice name, value;
} static_table[SIM_HPACK_STATIC_COUNT] = {
#define S(name, value) {{name, sizeof(name) - 1}, {value, sizeof(value) - 1}},
#include "sim_hpack.def"
#undef S
};

/* Built by setup, read-only afterwards. */
static int16_t static_tags[SIM_HPACK_STATIC_COUNT];
static sim_hpack_tag tag_of;
static struct {
    uint8_t symbols[2], bits, count; /* count 0: a longer code */
} fast[1 << FAST_BITS];
/* The code is canonical: of one length, codes and symbols rise together. */
static uint16_t by_length[257];
static uint32_t first_code[BITS_MAX + 1];
static uint16_t first_index[BITS_MAX + 1], count_of[BITS_MAX + 1];

/* All patterns that begin with the code of |symbol|. */
static void fill_fast(unsigned symbol)
{
    unsigned bits = codes[symbol].bits, spare = FAST_BITS - bits;
    if (bits > FAST_BITS)
        return;
    for (unsigned k = 0; k < 1u << spare; k++) {
        unsigned at = (codes[symbol].code << spare) + k;
        fast[at].symbols[0] = (uint8_t)symbol;
        fast[at].bits = (uint8_t)bits;
        fast[at].count = 1;
    }
}

/* A second symbol where it fits whole into what the first leaves of pattern |at|. */
static void pair_fast(unsigned at)
{
    unsigned bits = fast[at].bits;
    if (fast[at].count != 1)
        return;
    for (unsigned symbol = 0; symbol < EOS; symbol++) {
        unsigned both = bits + codes[symbol].bits;
        unsigned rest = at & ((1u << (FAST_BITS - bits)) - 1);
        if (both > FAST_BITS || rest >> (FAST_BITS - both) != codes[symbol].code)
            continue;
        fast[at].symbols[1] = (uint8_t)symbol;
        fast[at].bits = (uint8_t)both;
        fast[at].count = 2;
        return;
    }
}

void sim_hpack_setup(sim_hpack_tag tag)
{
    uint16_t at = 0;
    tag_of = tag;
    for (unsigned i = 0; i < SIM_HPACK_STATIC_COUNT; i++)
        static_tags[i] = (int16_t)tag(static_table[i].name);
    for (unsigned bits = 1; bits <= BITS_MAX; bits++) {
        first_index[bits] = at;
        count_of[bits] = 0;
        for (unsigned symbol = 0; symbol <= EOS; symbol++) {
            if (codes[symbol].bits != bits)
                continue;
            if (count_of[bits]++ == 0)
                first_code[bits] = codes[symbol].code;
            by_length[at++] = (uint16_t)symbol;
        }
    }
    for (unsigned symbol = 0; symbol < EOS; symbol++)
        fill_fast(symbol);
    for (unsigned bits = 0; bits < 1u << FAST_BITS; bits++)
        pair_fast(bits);
}

struct bits {
    uint64_t word; /* unread, at the top */
    unsigned have;
    const uint8_t *p, *end;
};

/* The bulk of a string: eight bytes at a time while that many are left, two symbols a look. */
static size_t huffman_bulk(struct bits *b, char *out, size_t size)
{
    size_t made = 0;
    while (b->end - b->p >= 8 && size - made >= 2 * FAST_LOOKS) {
        uint64_t next;
        memcpy(&next, b->p, 8);
        b->word |= __builtin_bswap64(next) >> b->have;
        unsigned taken = (63 - b->have) >> 3;
        b->p += taken;
        b->have += taken * 8;
        b->word &= ~0ull << (64 - b->have); /* the part of a byte that |have| does not count */
        for (unsigned i = 0; i < FAST_LOOKS; i++) {
            unsigned at = (unsigned)(b->word >> (64 - FAST_BITS));
            if (fast[at].count == 0)
                return made;
            memcpy(out + made, fast[at].symbols, 2);
            made += fast[at].count;
            b->word <<= fast[at].bits;
            b->have -= fast[at].bits;
        }
    }
    return made;
}

/* One symbol. 1, 0 at the string's end, -1. */
static int huffman_one(struct bits *b, uint16_t *ret_symbol)
{
    while (b->have <= 56 && b->p < b->end) {
        b->word |= (uint64_t)*b->p++ << (56 - b->have);
        b->have += 8;
    }
    /* up to seven ones pad the last byte; a whole code of ones that short does not exist */
    if (b->have < 8 && b->word >> 56 == (0xff00u >> b->have & 0xff))
        return 0;
    for (unsigned bits = 1; bits <= BITS_MAX && bits <= b->have; bits++) {
        uint32_t code = (uint32_t)(b->word >> (64 - bits));
        if (code - first_code[bits] < count_of[bits]) { /* below first_code wraps and fails */
            *ret_symbol = by_length[first_index[bits] + code - first_code[bits]];
            b->word <<= bits;
            b->have -= bits;
            return *ret_symbol == EOS ? -1 : 1;
        }
    }
    return -1;
}

int sim_hpack_huffman(const uint8_t *p, size_t n, char *out, size_t size)
{
    struct bits b = {0, 0, p, p + n};
    size_t made = 0;
    for (;;) {
        uint16_t symbol = 0;
        made += huffman_bulk(&b, out + made, size - made);
        int got = huffman_one(&b, &symbol);
        if (got == 0)
            return (int)made;
        if (got < 0 || made == size)
            return -1;
        out[made++] = (char)symbol;
    }
}

void sim_hpack_init(struct sim_hpack *h)
{
    h->head = h->count = h->size = h->bytes_end = 0;
    h->size_max = SIM_HPACK_TABLE_BYTES;
}

/* ---- dynamic table ---- */

static struct sim_hpack_entry *entry_at(struct sim_hpack *h, uint32_t age)
{
    return &h->entries[(h->head + SIM_HPACK_ENTRIES_MAX - 1 - age) % SIM_HPACK_ENTRIES_MAX];
}

static uint32_t size_of(const struct sim_hpack_entry *e)
{
    return e->name_n + e->value_n + SIM_HPACK_ENTRY_EXTRA;
}

static void evict(struct sim_hpack *h, uint32_t size_max)
{
    while (h->size > size_max) {
        h->size -= size_of(entry_at(h, h->count - 1));
        h->count--;
    }
}

/* Moves what is left to the front when the end is reached: twice the table's size makes that rare.
 */
static void compact(struct sim_hpack *h)
{
    uint32_t at = 0;
    for (uint32_t age = h->count; age-- > 0;) {
        struct sim_hpack_entry *e = entry_at(h, age);
        memmove(h->bytes + at, h->bytes + e->at, (size_t)e->name_n + e->value_n);
        e->at = at;
        at += (uint32_t)e->name_n + e->value_n;
    }
    h->bytes_end = at;
}

/* The field's bytes must not lie in the table: what is evicted may be what it names. */
static void insert(struct sim_hpack *h, const struct sim_hpack_field *f)
{
    uint32_t bytes = f->name.n + f->value.n;
    if (bytes + SIM_HPACK_ENTRY_EXTRA > h->size_max) {
        evict(h, 0); /* RFC 7541 4.4: too large an entry empties the table, no error */
        return;
    }
    evict(h, h->size_max - bytes - SIM_HPACK_ENTRY_EXTRA);
    if (h->bytes_end + bytes > sizeof(h->bytes))
        compact(h);
    struct sim_hpack_entry *e = &h->entries[h->head];
    *e = (struct sim_hpack_entry){h->bytes_end, (uint16_t)f->name.n, (uint16_t)f->value.n,
                                  (int16_t)f->tag};
    memcpy(h->bytes + e->at, f->name.p, f->name.n);
    memcpy(h->bytes + e->at + f->name.n, f->value.p, f->value.n);
    h->bytes_end += bytes;
    h->head = (h->head + 1) % SIM_HPACK_ENTRIES_MAX;
    h->count++;
    h->size += bytes + SIM_HPACK_ENTRY_EXTRA;
}

static bool look_up(struct sim_hpack *h, uint32_t index, struct sim_hpack_field *ret)
{
    if (index == 0 || index > SIM_HPACK_STATIC_COUNT + h->count)
        return false;
    if (index <= SIM_HPACK_STATIC_COUNT) {
        ret->name = static_table[index - 1].name;
        ret->value = static_table[index - 1].value;
        ret->tag = static_tags[index - 1];
        return true;
    }
    const struct sim_hpack_entry *e = entry_at(h, index - SIM_HPACK_STATIC_COUNT - 1);
    ret->name = (struct sim_slice){h->bytes + e->at, e->name_n};
    ret->value = (struct sim_slice){h->bytes + e->at + e->name_n, e->value_n};
    ret->tag = e->tag;
    return true;
}

/* ---- representations ---- */

/* RFC 7541 5.1; false when it does not end, or is larger than anything we take. */
static bool integer(const uint8_t **p, const uint8_t *end, unsigned prefix, uint32_t *ret)
{
    uint32_t mask = (1u << prefix) - 1, v = *(*p)++ & mask;
    for (unsigned shift = 0; v >= mask && shift < 21; shift += 7) {
        if (*p == end)
            return false;
        uint8_t b = *(*p)++;
        v += (uint32_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) {
            *ret = v;
            return true;
        }
    }
    *ret = v;
    return v < mask;
}

static bool string(const uint8_t **p, const uint8_t *end, char *scratch, struct sim_slice *ret)
{
    uint32_t n = 0;
    if (*p == end)
        return false;
    bool coded = **p & 0x80;
    if (!integer(p, end, 7, &n) || n > (size_t)(end - *p))
        return false;
    const uint8_t *from = *p;
    *p += n;
    if (!coded) {
        *ret = (struct sim_slice){(const char *)from, n};
        return n <= SIM_HPACK_STRING_MAX;
    }
    int made = sim_hpack_huffman(from, n, scratch, SIM_HPACK_STRING_MAX);
    *ret = (struct sim_slice){scratch, (uint32_t)made};
    return made >= 0;
}

/* A literal; |prefix| bits of its first byte are the name's index. */
static int literal(struct sim_hpack *h, const uint8_t **p, const uint8_t *end, unsigned prefix,
                   bool keep, struct sim_hpack_field *ret)
{
    uint32_t index = 0;
    if (!integer(p, end, prefix, &index))
        return -1;
    if (index == 0) {
        if (!string(p, end, h->name, &ret->name))
            return -1;
        ret->tag = tag_of(ret->name);
    } else if (!look_up(h, index, ret)) {
        return -1;
    } else if (index > SIM_HPACK_STATIC_COUNT && keep) {
        memcpy(h->name, ret->name.p, ret->name.n); /* out of the table, see insert */
        ret->name.p = h->name;
    }
    if (!string(p, end, h->value, &ret->value))
        return -1;
    if (keep)
        insert(h, ret);
    return 1;
}

int sim_hpack_next(struct sim_hpack *h, const uint8_t **p, const uint8_t *end,
                   struct sim_hpack_field *ret)
{
    uint32_t v = 0;
    while (*p < end) {
        uint8_t first = **p;
        if (first & 0x80)
            return integer(p, end, 7, &v) && look_up(h, v, ret) ? 1 : -1;
        if (first & 0x40)
            return literal(h, p, end, 6, true, ret);
        if (!(first & 0x20))
            return literal(h, p, end, 4, false, ret);
        if (!integer(p, end, 5, &v) || v > SIM_HPACK_TABLE_BYTES)
            return -1;
        h->size_max = v;
        evict(h, v);
    }
    return 0;
}
