/* permessage-deflate of whole messages: what is deflated for any window inflates again, with zlib's
 * own inflate of just that window; the RFC's examples; a bomb stops at the limit; no cut of a
 * message passes for a whole one; any bytes are survived. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "belfry/base/err.h"
#include "proto/ws/deflate.h"

#define MESSAGE_MAX 70000u

static uint8_t plain[MESSAGE_MAX];
static uint8_t packed[MESSAGE_MAX + 4];
static uint8_t out[MESSAGE_MAX + 1];

static struct bf_bytes bytes(const void *at, size_t len)
{
    return (struct bf_bytes){.at = at, .len = len};
}

/* Text with repetitions near and far; deterministic. */
static void fill(size_t len, uint32_t seed)
{
    for (size_t i = 0; i < len; i++) {
        seed = seed * 1664525u + 1013904223u;
        bool again = i > 300 && (seed >> 28) < 12;
        plain[i] = again ? plain[i - 1 - (seed >> 20) % 300] : (uint8_t)('a' + (seed >> 24) % 26);
    }
}

/* zlib knows no raw window of 8 bits for deflate; for inflate it does. */
static void check_window(unsigned bits, size_t len, size_t want)
{
    z_stream z = {0};
    cr_assert_eq(inflateInit2(&z, -(int)bits), Z_OK);
    memcpy(packed + len, "\0\0\xff\xff", 4);
    z.next_in = packed;
    z.avail_in = (uInt)len + 4;
    z.next_out = out;
    z.avail_out = sizeof(out);
    cr_assert_eq(inflate(&z, Z_SYNC_FLUSH), Z_OK, "window %u: %s", bits, z.msg ? z.msg : "");
    cr_assert_eq(sizeof(out) - z.avail_out, want);
    cr_assert_eq(memcmp(out, plain, want), 0);
    inflateEnd(&z);
}

Test(deflate, every_window_and_back)
{
    struct bf_deflater *d = bf_deflater_create();
    struct bf_inflater *z = bf_inflater_create();
    static const size_t sizes[] = {0, 1, 2, 100, 255, 256, 257, 600, 5000, 40000, MESSAGE_MAX};
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned bits = 15; bits >= 8; bits--) {
            for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                size_t ret = 0;
                fill(sizes[i], bits);
                size_t n = bf_deflate(d, bits, bytes(plain, sizes[i]), packed, MESSAGE_MAX);
                cr_assert_gt(n, 0, "%zu bytes, window %u", sizes[i], bits);
                cr_assert_eq(bf_inflate(z, bytes(packed, n), out, MESSAGE_MAX, &ret), 0);
                cr_assert_eq(ret, sizes[i]);
                cr_assert_eq(memcmp(out, plain, ret), 0);
                check_window(bits, n, sizes[i]);
            }
        }
    }
    bf_deflater_destroy(d);
    bf_inflater_destroy(z);
}

Test(deflate, no_room_is_zero_and_harmless)
{
    struct bf_deflater *d = bf_deflater_create();
    fill(5000, 1);
    size_t n = bf_deflate(d, 15, bytes(plain, 5000), packed, MESSAGE_MAX);
    for (size_t cap = 1; cap < n; cap += 97)
        cr_assert_eq(bf_deflate(d, 15, bytes(plain, 5000), packed, cap), 0);
    cr_assert_eq(bf_deflate(d, 15, bytes(plain, 5000), packed, MESSAGE_MAX), n, "nothing lingers");
    bf_deflater_destroy(d);
}

/* RFC 7692 section 7.2.3. */
Test(inflate, examples_of_the_rfc)
{
    static const struct {
        const char *name, *hex;
    } rows[] = {{"one block", "f248cdc9c90700"},
                {"stored", "000500faff48656c6c6f00"},
                {"BFINAL", "f348cdc9c9070000"},
                {"two blocks", "f24805000000ffffcac9c90700"}};
    struct bf_inflater *z = bf_inflater_create();
    for (size_t i = 0; i < 4; i++) {
        uint8_t in[32];
        size_t n = strlen(rows[i].hex) / 2, ret = 0;
        for (size_t k = 0; k < n; k++)
            cr_assert_eq(sscanf(rows[i].hex + 2 * k, "%2hhx", &in[k]), 1);
        cr_assert_eq(bf_inflate(z, bytes(in, n), out, 5, &ret), 0, "%s", rows[i].name);
        cr_assert(ret == 5 && memcmp(out, "Hello", 5) == 0, "%s", rows[i].name);
        cr_assert_eq(bf_inflate(z, bytes(in, n), out, 4, &ret), BF_ERR_TOO_LARGE, "%s",
                     rows[i].name);
    }
    bf_inflater_destroy(z);
}

Test(inflate, bomb_stops_at_the_limit)
{
    struct bf_deflater *d = bf_deflater_create();
    struct bf_inflater *z = bf_inflater_create();
    size_t ret = 0;
    memset(plain, '*', MESSAGE_MAX);
    size_t n = bf_deflate(d, 15, bytes(plain, MESSAGE_MAX), packed, MESSAGE_MAX);
    cr_assert_lt(n, 1000);
    cr_assert_eq(bf_inflate(z, bytes(packed, n), out, MESSAGE_MAX, &ret), 0);
    cr_assert_eq(bf_inflate(z, bytes(packed, n), out, MESSAGE_MAX - 1, &ret), BF_ERR_TOO_LARGE);
    cr_assert_eq(bf_inflate(z, bytes(packed, n), out, 10, &ret), BF_ERR_TOO_LARGE);
    cr_assert_eq(bf_inflate(z, bytes(packed, n), out, MESSAGE_MAX, &ret), 0, "nothing lingers");
    bf_deflater_destroy(d);
    bf_inflater_destroy(z);
}

Test(inflate, a_cut_message_is_malformed)
{
    struct bf_deflater *d = bf_deflater_create();
    struct bf_inflater *z = bf_inflater_create();
    size_t ret = 0;
    fill(3000, 7);
    size_t n = bf_deflate(d, 15, bytes(plain, 3000), packed, MESSAGE_MAX);
    for (size_t cut = 1; cut + 1 < n; cut++) {
        int rc = bf_inflate(z, bytes(packed, cut), out, MESSAGE_MAX, &ret);
        cr_assert_neq(rc, BF_ERR_TOO_LARGE);
        cr_assert(rc != 0 || ret < 3000, "cut at %zu", cut);
    }
    bf_deflater_destroy(d);
    bf_inflater_destroy(z);
}

Test(inflate, any_bytes)
{
    struct bf_inflater *z = bf_inflater_create();
    uint32_t seed = 1;
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t in[64];
        size_t ret = 0, len = round % sizeof(in);
        for (size_t i = 0; i < len; i++)
            in[i] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
        int rc = bf_inflate(z, bytes(in, len), out, 2000, &ret);
        cr_assert(rc == 0 ? ret <= 2000 : rc == BF_ERR_MALFORMED || rc == BF_ERR_TOO_LARGE);
    }
    bf_inflater_destroy(z);
}
