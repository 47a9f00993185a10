/* Proves the simulator's HPACK decoder: RFC 7541's examples, Huffman of every symbol, eviction,
 * broken blocks. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>

#include "sim_hpack.h"
#include "sim_stream.h"

static struct sim_hpack h;

static void set_up(void)
{
    sim_hpack_setup(sim_stream_tag);
    sim_hpack_init(&h);
}

/* "name: value\n" for each field, or "error". */
static void decode(const char *hex, char *out, size_t size)
{
    uint8_t block[512];
    size_t n = strlen(hex) / 2, at = 0;
    struct sim_hpack_field f;
    int rc;
    for (size_t i = 0; i < n; i++)
        block[i] = (uint8_t)strtoul((char[3]){hex[2 * i], hex[2 * i + 1], 0}, NULL, 16);
    const uint8_t *p = block;
    out[0] = '\0';
    while ((rc = sim_hpack_next(&h, &p, block + n, &f)) > 0)
        at += (size_t)snprintf(out + at, size - at, "%.*s: %.*s\n", (int)f.name.n, f.name.p,
                               (int)f.value.n, f.value.p);
    if (rc < 0)
        snprintf(out, size, "error");
}

static void expect(const char *hex, const char *wanted)
{
    char got[1024];
    decode(hex, got, sizeof(got));
    cr_assert_str_eq(got, wanted, "%s", hex);
}

TestSuite(hpack, .init = set_up);

Test(hpack, rfc_c4_requests_with_huffman)
{
    const char *first = ":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n";
    expect("828684418cf1e3c2e5f23a6ba0ab90f4ff", first);
    expect("828684be5886a8eb10649cbf", ":method: GET\n:scheme: http\n:path: /\n:authority: "
                                       "www.example.com\ncache-control: no-cache\n");
    expect("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
           ":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\n"
           "custom-key: custom-value\n");
    cr_assert_eq(h.size, 164);
    cr_assert_eq(h.count, 3);
}

Test(hpack, rfc_c2_literals)
{
    expect("400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key: custom-header\n");
    cr_assert_eq(h.size, 55);
    expect("040c2f73616d706c652f70617468", ":path: /sample/path\n");
    expect("100870617373776f726406736563726574", "password: secret\n");
    cr_assert_eq(h.count, 1);
}

Test(hpack, smaller_table_evicts)
{
    expect("400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key: custom-header\n");
    expect("3f1b", ""); /* size 58: it stays */
    cr_assert_eq(h.count, 1);
    expect("36be", "error"); /* size 22: it is gone, index 62 names nothing */
}

Test(hpack, table_turns_over_many_times)
{
    for (unsigned i = 0; i < 5000; i++) {
        char hex[64], wanted[64];
        snprintf(hex, sizeof(hex), "4003782d%02x04%02x%02x%02x%02x", 'a' + i % 26,
                 '0' + i / 1000 % 10, '0' + i / 100 % 10, '0' + i / 10 % 10, '0' + i % 10);
        snprintf(wanted, sizeof(wanted), "x-%c: %04u\n", 'a' + i % 26, i);
        expect(hex, wanted);
        expect("be", wanted); /* newest */
    }
    cr_assert_leq(h.size, SIM_HPACK_TABLE_BYTES);
    cr_assert_eq(h.count, SIM_HPACK_TABLE_BYTES / (3 + 4 + 32));
}

Test(hpack, name_of_an_evicted_entry)
{
    expect("400a637573746f6d2d6b65790d637573746f6d2d686561646572", "custom-key: custom-header\n");
    expect("3f18", ""); /* size 55: the next entry pushes the one out that has its name */
    expect("7e0b6161616161616161616161", "custom-key: aaaaaaaaaaa\n");
    expect("be", "custom-key: aaaaaaaaaaa\n");
    cr_assert_eq(h.count, 1);
}

Test(hpack, broken_blocks)
{
    static const char *const blocks[] = {
        "80",             /* index 0 */
        "be",             /* beyond the table */
        "ffffffffff0f",   /* integer without bounds */
        "40",             /* no name */
        "4005782d",       /* name cut */
        "400378797a",     /* no value */
        "3fe21f",         /* table larger than announced */
        "0082ffff00",     /* Huffman: eight ones of padding */
        "00810000",       /* Huffman: padding of zeros */
        "0084ffffffff00", /* Huffman: EOS */
    };
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++)
        expect(blocks[i], "error");
}

static const struct {
    uint32_t code;
    unsigned bits;
} codes[257] = {
#define H(code, bits) {code, bits},
#include "sim_hpack.def"
#undef H
};

static size_t encode(const uint8_t *text, size_t n, uint8_t *out)
{
    size_t bit = 0;
    memset(out, 0, n * 4 + 1);
    for (size_t i = 0; i < n; i++)
        for (unsigned k = codes[text[i]].bits; k-- > 0; bit++)
            if (codes[text[i]].code >> k & 1u)
                out[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
    for (; bit % 8; bit++)
        out[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
    return bit / 8;
}

Test(hpack, huffman_of_anything)
{
    uint8_t text[300], coded[1201];
    char back[300];
    srandom(7);
    for (unsigned turn = 0; turn < 20000; turn++) {
        size_t n = (size_t)random() % sizeof(text);
        for (size_t i = 0; i < n; i++)
            text[i] =
                turn % 2 ? (uint8_t)random() : (uint8_t) "0123456789abcdefXYZ_-."[random() % 22];
        size_t bytes = encode(text, n, coded);
        cr_assert_eq(sim_hpack_huffman(coded, bytes, back, sizeof(back)), (int)n);
        cr_assert_arr_eq(back, text, n);
        if (n > 0)
            cr_assert_eq(sim_hpack_huffman(coded, bytes, back, n - 1), -1);
    }
}
