/*
 * The HPACK encoder of requests (RFC 7541), judged by nghttp2's decoder: whatever is encoded, with
 * whatever table sizes the peer allows in between, comes out as it went in, and the table never
 * costs more than a field as a literal.
 */
#include <criterion/criterion.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proto/h2/hpack.h"

#define BLOCK_BYTES  65536u
#define MEMORY_BYTES (1u << 18)

static struct bf_h2_memory memory;
static struct bf_hpack hpack;
static nghttp2_hd_inflater *inflater;
static uint8_t block[BLOCK_BYTES];
static size_t block_len;

static void start_with(size_t bytes)
{
    void *base = aligned_alloc(4096, MEMORY_BYTES);
    bf_h2_memory_init(&memory, memset(base, 0, MEMORY_BYTES), bytes);
    bf_hpack_init(&hpack, &memory);
    cr_assert_eq(nghttp2_hd_inflate_new(&inflater), 0);
}

static void start(void)
{
    start_with(MEMORY_BYTES);
}

static void stop(void)
{
    bf_hpack_fini(&hpack);
    cr_assert_eq(memory.live, 0, "leaked");
    nghttp2_hd_inflate_del(inflater);
    free(memory.base);
}

static void allow(uint32_t bytes)
{
    bf_hpack_allow(&hpack, bytes);
    cr_assert_eq(nghttp2_hd_inflate_change_table_size(inflater, bytes), 0);
}

static void begin(void)
{
    block_len = bf_hpack_begin(&hpack, block);
    cr_assert_leq(block_len, BF_HPACK_BEGIN_BYTES_MAX);
}

static size_t put(const char *name, const char *value, enum bf_hpack_mode mode)
{
    struct bf_bytes n = {name, strlen(name)}, v = {value, strlen(value)};
    size_t bytes = bf_hpack_field(&hpack, n, v, mode, block + block_len);
    cr_assert_leq(bytes, n.len + v.len + BF_HPACK_FIELD_EXTRA);
    block_len += bytes;
    return bytes;
}

/* The next field of the block is this. */
static void expect(const uint8_t **at, const char *name, const char *value)
{
    nghttp2_nv nv;
    int flags = 0;
    do {
        ssize_t n = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, *at,
                                           (size_t)(block + block_len - *at), 1);
        cr_assert_geq(n, 0, "%s", nghttp2_strerror((int)n));
        *at += n;
    } while (!(flags & (NGHTTP2_HD_INFLATE_EMIT | NGHTTP2_HD_INFLATE_FINAL)));
    cr_assert(flags & NGHTTP2_HD_INFLATE_EMIT);
    cr_assert_eq(nv.namelen, strlen(name));
    cr_assert_eq(nv.valuelen, strlen(value), "%s", name);
    cr_assert_eq(memcmp(nv.name, name, nv.namelen), 0);
    cr_assert_eq(memcmp(nv.value, value, nv.valuelen), 0, "%s", name);
}

static void expect_end(const uint8_t *at)
{
    nghttp2_nv nv;
    int flags = 0;
    cr_assert_geq(
        nghttp2_hd_inflate_hd2(inflater, &nv, &flags, at, (size_t)(block + block_len - at), 1), 0);
    cr_assert(flags & NGHTTP2_HD_INFLATE_FINAL);
    nghttp2_hd_inflate_end_headers(inflater);
}

/* A block of one field. Returns the bytes that it took. */
static size_t alone(const char *name, const char *value, enum bf_hpack_mode mode)
{
    const uint8_t *at = block;
    begin();
    put(name, value, mode);
    expect(&at, name, value);
    expect_end(at);
    return block_len;
}

Test(hpack, representations)
{
    start();
    cr_assert_eq(alone(":method", "POST", BF_HPACK_INDEXED), 1);
    cr_assert_eq(alone(":scheme", "https", BF_HPACK_INDEXED), 1);
    cr_assert_eq(alone(":path", "/x", BF_HPACK_LITERAL), 1 + 1 + 2, "the name by its index");
    cr_assert_eq(alone(":path", "/x", BF_HPACK_LITERAL), 1 + 1 + 2, "and never in the table");
    cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 1 + 2 + 2);
    cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 1);
    cr_assert_eq(alone("a", "c", BF_HPACK_INDEXED), 1 + 2);
    cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 1, "the older one is still there");
    cr_assert_eq(alone("apns-id", "1", BF_HPACK_UNIQUE), 1 + 8 + 2);
    cr_assert_eq(alone("apns-id", "2", BF_HPACK_UNIQUE), 2 + 2, "62 + : above four bits");
    cr_assert_eq(alone("apns-id", "2", BF_HPACK_UNIQUE), 2 + 2, "it was not indexed");
    cr_assert_eq(hpack.count, 3);
    cr_assert_eq(alone("empty", "", BF_HPACK_INDEXED), 1 + 6 + 1);
    cr_assert_eq(alone("empty", "", BF_HPACK_INDEXED), 1);
}

Test(hpack, the_oldest_goes_first)
{
    char value[1001];
    start();
    memset(value, 'v', 1000);
    value[1000] = '\0';
    for (char c = 'a'; c <= 'd'; c++) {
        value[0] = c;
        cr_assert_gt(alone("name", value, BF_HPACK_INDEXED), 1000);
    }
    cr_assert_eq(hpack.count, 3, "4 x 1,036 do not fit into 4,096");
    value[0] = 'b';
    cr_assert_leq(alone("name", value, BF_HPACK_INDEXED), 2);
    value[0] = 'a';
    cr_assert_gt(alone("name", value, BF_HPACK_INDEXED), 1000, "gone");
    value[0] = 'd';
    cr_assert_leq(alone("name", value, BF_HPACK_INDEXED), 2);
}

Test(hpack, a_field_too_large_for_the_table_is_a_literal)
{
    static char value[8193];
    start();
    alone("a", "b", BF_HPACK_INDEXED);
    memset(value, 'v', 3073);
    cr_assert_gt(alone("name", value, BF_HPACK_INDEXED), 3073);
    cr_assert_eq(hpack.count, 1);
    memset(value, 'v', 8192);
    cr_assert_gt(alone("name", value, BF_HPACK_INDEXED), 8192);
    cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 1);
}

/* Section 4.2. */
Test(hpack, the_peer_changes_the_tables_size)
{
    start();
    alone("a", "b", BF_HPACK_INDEXED);
    allow(65536);
    cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 1, "we use no more than the default");
    allow(0);
    cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 1 + 5, "the change, then a literal");
    cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 5);
    allow(4096);
    cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 3 + 5);
    cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 1);
    allow(0);
    allow(100);
    cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 1 + 2 + 5, "down and up: both are said");
    cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 1);
    cr_assert_gt(alone("c",
                       "0123456789012345678901234567890123456789012345678901234567890123456789",
                       BF_HPACK_INDEXED),
                 70);
    cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 1, "that one was too large");
}

static uint64_t seed;

static uint32_t draw(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

enum { DRAWN_FIELDS = 24 };

static void one_block(char names[][64], char values[][4200])
{
    uint32_t fields = 1 + draw(DRAWN_FIELDS - 1);
    const uint8_t *at = block;
    begin();
    for (uint32_t i = 0; i < fields; i++) {
        uint32_t len = draw(10) == 0 ? draw(4100) : draw(40);
        snprintf(names[i], 64, draw(4) ? "name-%u" : "n%u", draw(12));
        memset(values[i], 'a' + (int)draw(3), len);
        values[i][len] = '\0';
        put(names[i], values[i], (enum bf_hpack_mode)draw(3));
    }
    for (uint32_t i = 0; i < fields; i++)
        expect(&at, names[i], values[i]);
    expect_end(at);
}

Test(hpack, anything_comes_out_as_it_went_in)
{
    static const uint32_t sizes[] = {0, 31, 100, 500, 1000, 4095, 4096, 10000};
    static char names[DRAWN_FIELDS][64], values[DRAWN_FIELDS][4200];
    for (uint64_t run = 1; run <= 20; run++) {
        seed = run;
        start();
        for (uint32_t i = 0; i < 500; i++) {
            for (uint32_t n = draw(8) == 0 ? draw(4) : 0; n > 0; n--)
                allow(sizes[draw(sizeof(sizes) / sizeof(sizes[0]))]);
            one_block(names, values);
            cr_assert_leq(hpack.used, hpack.capacity, "seed %llu", (unsigned long long)run);
        }
        stop();
    }
}

/* Runs of 32 KB are what the memory is cut into: with none left each field is a literal, and what
 * is in the table already stays of use. */
Test(hpack, without_memory_fields_are_literals)
{
    static char value[1201];
    memset(value, 'v', 1200);
    for (size_t runs = 0; runs < 3; runs++) {
        start_with(runs * 32768u);
        cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), 5);
        cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), runs > 0 ? 1 : 5);
        cr_assert_gt(alone("name", value, BF_HPACK_INDEXED), 1200);
        cr_assert_eq(alone("name", value, BF_HPACK_INDEXED) < 5, runs > 1);
        cr_assert_eq(alone("a", "b", BF_HPACK_INDEXED), runs > 0 ? 1 : 5);
        stop();
    }
}
