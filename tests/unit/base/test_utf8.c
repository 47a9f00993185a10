/* UTF-8 check against RFC 3629's table and a plain reference over every 1, 2 and 3 byte string. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#include "belfry/base/utf8.h"

static bool valid(const char *text)
{
    return bf_utf8_is_valid((struct bf_bytes){text, strlen(text)});
}

static bool is_valid_bytes(const uint8_t *bytes, size_t len)
{
    return bf_utf8_is_valid((struct bf_bytes){(const char *)bytes, len});
}

Test(utf8, table)
{
    static const struct {
        bool good;
        const char *text;
    } rows[] = {
        {true, ""},
        {true, "hello"},
        {true, "\xc2\x80"},
        {true, "\xdf\xbf"},
        {true, "\xe0\xa0\x80"},
        {true, "\xed\x9f\xbf"},
        {true, "\xee\x80\x80"},
        {true, "\xef\xbf\xbf"},
        {true, "\xf0\x90\x80\x80"},
        {true, "\xf4\x8f\xbf\xbf"},
        {true, "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"},
        {false, "\x80"},
        {false, "\xbf"},
        {false, "\xc0\x80"},
        {false, "\xc1\xbf"},
        {false, "\xc2"},
        {false, "\xc2 "},
        {false, "\xe0\x80\x80"},
        {false, "\xe0\x9f\xbf"},
        {false, "\xe1\x80"},
        {false, "\xed\xa0\x80"},
        {false, "\xed\xbf\xbf"},
        {false, "\xf0\x80\x80\x80"},
        {false, "\xf0\x8f\xbf\xbf"},
        {false, "\xf4\x90\x80\x80"},
        {false, "\xf5\x80\x80\x80"},
        {false, "\xf8\x88\x80\x80\x80"},
        {false, "\xfc\x84\x80\x80\x80\x80"},
        {false, "\xfe"},
        {false, "\xff"},
        {false, "abcdefgh\xf0\x90\x80"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect_eq(valid(rows[i].text), rows[i].good, "row %zu", i);
}

Test(utf8, nul_is_a_character)
{
    cr_expect(bf_utf8_is_valid((struct bf_bytes){"a\0b", 3}));
}

/* Decodes one code point the slow way; 0 bytes when it is none. */
static size_t reference(const uint8_t *p, size_t left)
{
    if (p[0] < 0x80)
        return 1;
    for (size_t n = 2; n <= 4; n++) {
        static const uint8_t leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
        static const uint8_t masks[] = {0, 0, 0xe0, 0xf0, 0xf8};
        static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
        if ((p[0] & masks[n]) != leads[n])
            continue;
        if (left < n)
            return 0;
        uint32_t code = p[0] & (uint8_t)~masks[n];
        for (size_t i = 1; i < n; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return 0;
            code = code << 6 | (p[i] & 0x3f);
        }
        bool good = code >= least[n] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
        return good ? n : 0;
    }
    return 0;
}

static bool reference_valid(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n = reference(p + i, len - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

Test(utf8, every_string_of_three_bytes)
{
    uint8_t text[3];
    unsigned wrong = 0;
    for (uint32_t v = 0; v < 1u << 24; v++) {
        text[0] = (uint8_t)(v >> 16);
        text[1] = (uint8_t)(v >> 8);
        text[2] = (uint8_t)v;
        wrong += is_valid_bytes(text, 3) != reference_valid(text, 3);
    }
    cr_expect_eq(wrong, 0, "%u", wrong);
}

Test(utf8, every_code_point_at_every_offset_of_the_wide_step)
{
    unsigned wrong = 0;
    for (uint32_t code = 0x10000; code <= 0x11ffff; code += 7) {
        uint8_t text[24];
        size_t at = code % 17;
        memset(text, 'a', sizeof(text));
        text[at] = (uint8_t)(0xf0 | code >> 18);
        text[at + 1] = (uint8_t)(0x80 | (code >> 12 & 63));
        text[at + 2] = (uint8_t)(0x80 | (code >> 6 & 63));
        text[at + 3] = (uint8_t)(0x80 | (code & 63));
        wrong += is_valid_bytes(text, sizeof(text)) != (code <= 0x10ffff);
    }
    cr_expect_eq(wrong, 0, "%u", wrong);
}

static const struct {
    const char *text;
    size_t valid; /* bytes before the first bad one */
} valid_rows[] = {
    {"", 0},
    {"plain ascii, longer than eight", 30},
    {"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 9},
    {"abcdefgh\x80", 8}, /* continuation without lead */
    {"a\xc0\xaf", 1},    /* overlong */
    {"a\xc1\xbf", 1},
    {"\xe0\x80\xaf", 0},
    {"\xe0\x9f\xbf", 0},
    {"\xf0\x8f\xbf\xbf", 0},
    {"\xed\xa0\x80", 0}, /* surrogate */
    {"\xed\x9f\xbf", 3},
    {"\xee\x80\x80", 3},
    {"\xf4\x8f\xbf\xbf", 4}, /* U+10FFFF */
    {"\xf4\x90\x80\x80", 0},
    {"\xf5\x80\x80\x80", 0},
    {"\xff", 0},
    {"\xe2\x82", 0}, /* cut short */
    {"\xe2\x28\xa1", 0},
    {"\xf0\x9f\x98", 0},
};

Test(utf8, bytes_before_the_first_bad_one)
{
    for (size_t i = 0; i < sizeof(valid_rows) / sizeof(valid_rows[0]); i++) {
        struct bf_bytes text = {valid_rows[i].text, strlen(valid_rows[i].text)};
        cr_assert_eq(bf_utf8_valid_bytes(text), valid_rows[i].valid, "row %zu", i);
    }
}
