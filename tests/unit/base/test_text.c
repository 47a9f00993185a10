/* Cuts and escapes of base/text.h: every position of texts of characters of one to four bytes. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "belfry/base/log.h"
#include "belfry/base/text.h"

static const char *const characters[] = {"a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x94\x94"};

/* Fills |out| with 12 characters by the digits of |pattern|; *ret_ends: where each ends. */
static size_t text_of(unsigned pattern, char *out, size_t ends[13])
{
    size_t len = 0;
    ends[0] = 0;
    for (unsigned i = 0; i < 12; i++) {
        const char *c = characters[pattern >> (2 * i % 8) & 3];
        memcpy(out + len, c, strlen(c));
        len += strlen(c);
        ends[i + 1] = len;
    }
    out[len] = '\0';
    return len;
}

static size_t last_end(const size_t ends[13], size_t max)
{
    size_t best = 0;
    for (unsigned i = 0; i < 13; i++)
        best = ends[i] <= max ? ends[i] : best;
    return best;
}

Test(text, every_cut_falls_between_characters)
{
    char text[64], out[64];
    size_t ends[13];
    for (unsigned pattern = 0; pattern < 256; pattern++) {
        size_t len = text_of(pattern, text, ends);
        for (size_t max = 0; max <= len + 2; max++) {
            cr_assert_eq(bf_utf8_cut(text, len, max), last_end(ends, max), "%u at %zu", pattern,
                         max);
            cr_assert_eq(bf_format(out, max + 1, "%s", text), last_end(ends, max));
            cr_assert_eq(strncmp(out, text, strlen(out)), 0);
            cr_assert_eq(strlen(out), last_end(ends, max));
            snprintf(out, sizeof(out), "%.*s|", BF_CUT(text, max));
            cr_assert_eq(strlen(out), last_end(ends, max) + 1);
            cr_assert_eq(bf_text_escape(out, max + 1, text, len), last_end(ends, max));
        }
    }
}

Test(text, no_utf8_is_cut_within_the_bound)
{
    unsigned char bytes[40];
    char out[200];
    srand(7);
    for (unsigned round = 0; round < 20000; round++) {
        size_t len = (size_t)rand() % sizeof(bytes);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (unsigned char)(rand() % 3 ? 0x80 + rand() % 128 : 1 + rand() % 255);
        size_t max = (size_t)rand() % sizeof(bytes);
        size_t cut = bf_utf8_cut((const char *)bytes, len, max);
        cr_assert_leq(cut, max < len ? max : len);
        cr_assert_geq(cut + 3, max < len ? max : len);
        cr_assert_lt(bf_text_escape(out, sizeof(out), (const char *)bytes, len), sizeof(out));
        for (const char *at = out; *at; at++)
            cr_assert((unsigned char)*at >= 0x20 && *at != 0x7f);
    }
}

static const char *shown(const char *text)
{
    static char out[200];
    bf_text_escape(out, sizeof(out), text, strlen(text));
    return out;
}

Test(text, what_moves_a_terminal_is_escaped)
{
    cr_assert_str_eq(shown("plain \xc3\xa9 \xf0\x9f\x94\x94 \\n"),
                     "plain \xc3\xa9 \xf0\x9f\x94\x94 \\n");
    cr_assert_str_eq(shown("\x1b[2J\x1b]0;x\x07"), "\\x1b[2J\\x1b]0;x\\x07");
    cr_assert_str_eq(shown("a\nb\rc\td\x7f"), "a\\nb\\rc\\td\\x7f");
    cr_assert_str_eq(shown("\xc2\x9b"
                           "31m"),
                     "\\u{9b}31m", "a C1 control introduces sequences too");
    cr_assert_str_eq(shown("\xe2\x80\xae"
                           "evil\xe2\x81\xa6"),
                     "\\u{202e}evil\\u{2066}");
    cr_assert_str_eq(shown("\xe2\x80\xa8\xef\xbb\xbf\xe2\x80\x8b"), "\\u{2028}\\u{feff}\\u{200b}");
    cr_assert_str_eq(shown("\xff\xc3(\xed\xa0\x80"), "\\xff\\xc3(\\xed\\xa0\\x80");
    char out[8];
    cr_assert_eq(bf_text_escape(out, sizeof(out), "ab\x1b\x1b", 4), 6, "no half escape");
    cr_assert_str_eq(out, "ab\\x1b");
}

Test(text, a_log_line_is_one_line)
{
    int ends[2];
    char line[2 * BF_LOG_LINE_BYTES_MAX] = "";
    char name[BF_LOG_LINE_BYTES_MAX];
    for (size_t i = 0; i < sizeof(name) - 4; i += 3)
        memcpy(name + i, characters[2], 4);
    cr_assert_eq(pipe(ends), 0);
    int kept = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    BF_WARN("test", "user %s is gone", "\x1b[1mann\n2026-01-01T00:00:00.000Z info test forged");
    BF_WARN("test", "%s", name);
    dup2(kept, STDERR_FILENO);
    cr_assert_gt(read(ends[0], line, sizeof(line) - 1), 0);
    char *second = strchr(line, '\n');
    cr_assert_not_null(second);
    *second++ = '\0';
    cr_assert_not_null(
        strstr(line, "user \\x1b[1mann\\n2026-01-01T00:00:00.000Z info test forged is gone"), "%s",
        line);
    size_t len = strlen(second);
    cr_assert_eq(second[len - 1], '\n');
    cr_assert_eq(strchr(second, '\n'), second + len - 1);
    cr_assert_eq(memcmp(second + len - 4, "\xe2\x82\xac\n", 4), 0, "cut between characters");
}
