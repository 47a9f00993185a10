/* SHA-1 and base64 against published vectors (FIPS 180-4 examples, RFC 4648 section 10). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "proto/http1/sha1.h"

static void expect_sha1(const char *text, size_t len, const char *hex)
{
    uint8_t digest[BF_SHA1_BYTES];
    char got[2 * BF_SHA1_BYTES + 1];
    bf_sha1(text, len, digest);
    for (unsigned i = 0; i < BF_SHA1_BYTES; i++)
        snprintf(got + 2 * i, 3, "%02x", digest[i]);
    cr_expect_str_eq(got, hex, "%zu bytes: %s", len, got);
}

Test(sha1, vectors)
{
    expect_sha1("", 0, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    expect_sha1("abc", 3, "a9993e364706816aba3e25717850c26c9cd0d89d");
    const char *two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    expect_sha1(two, strlen(two), "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
}

Test(sha1, a_million_letters)
{
    static char text[1000000];
    memset(text, 'a', sizeof(text));
    expect_sha1(text, sizeof(text), "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
}

Test(sha1, padding_at_every_length)
{
    /* lengths around the one-block and two-block tails; digests by coreutils sha1sum */
    static const struct {
        size_t len;
        const char *hex;
    } rows[] = {
        {55, "c1c8bbdc22796e28c0e15163d20899b65621d65a"},
        {56, "c2db330f6083854c99d4b5bfb6e8f29f201be699"},
        {63, "03f09f5b158a7a8cdad920bddc29b81c18a551f5"},
        {64, "0098ba824b5c16427bd7a1122a5a442a25ec644d"},
        {65, "11655326c708d70319be2610e8a57d9a5b959d3b"},
    };
    char text[65];
    memset(text, 'a', sizeof(text));
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        expect_sha1(text, rows[i].len, rows[i].hex);
}

Test(base64, vectors)
{
    static const char *const rows[][2] = {{"", ""},
                                          {"f", "Zg=="},
                                          {"fo", "Zm8="},
                                          {"foo", "Zm9v"},
                                          {"foob", "Zm9vYg=="},
                                          {"fooba", "Zm9vYmE="},
                                          {"foobar", "Zm9vYmFy"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[16] = "";
        size_t n = bf_base64_write((const uint8_t *)rows[i][0], strlen(rows[i][0]), out);
        cr_expect_eq(n, BF_BASE64_BYTES(strlen(rows[i][0])));
        cr_expect_eq(n, strlen(rows[i][1]));
        cr_expect_eq(memcmp(out, rows[i][1], n), 0, "%s", rows[i][0]);
    }
}
