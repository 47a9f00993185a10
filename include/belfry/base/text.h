/*
 * Text that meets a bound or a person's screen. A cut falls between characters, never inside one:
 * half a character makes JSON and frames invalid. What people send is shown with its control
 * characters escaped: a user id must not move a terminal's cursor, forge a log line or turn what
 * follows it around.
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Bytes of the character at |text| of which |len| > 0 are there; 0: no well-formed UTF-8.
 * *ret_code: its code point. */
static inline size_t bf_utf8_char(const char *text, size_t len, uint32_t *ret_code)
{
    const uint8_t *b = (const uint8_t *)text;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = b[0] < 0x80 ? 1 : b[0] >= 0xf0 ? 4 : b[0] >= 0xe0 ? 3 : 2;
    uint32_t code = n == 1 ? b[0] : b[0] & (0x7fu >> n);
    if ((b[0] >= 0x80 && b[0] < 0xc2) || b[0] > 0xf4 || n > len)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((b[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (b[i] & 0x3f);
    }
    if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        return 0;
    *ret_code = code;
    return n;
}

/* The most of |text| that |max| bytes hold without half a character at the end. Of what is no
 * UTF-8, at most |max| bytes all the same. */
static inline size_t bf_utf8_cut(const char *text, size_t len, size_t max)
{
    uint32_t code;
    if (len <= max)
        return len;
    for (size_t back = 0; back < 4 && back <= max; back++) {
        size_t at = max - back;
        if (((uint8_t)text[at] & 0xc0) == 0x80)
            continue; /* inside a character: its first byte is before */
        return back == 0 || bf_utf8_char(text + at, len - at, &code) > back ? at : max;
    }
    return max;
}

/* For "%.*s": at most |max| bytes of a text that ends with 0. Names its argument twice. */
#define BF_CUT(text, max) (int)bf_utf8_cut((text), strlen(text), (max)), (text)

/* As vsnprintf, but what does not fit is cut between characters. Returns the bytes written. */
__attribute__((format(printf, 3, 0))) static inline size_t
bf_vformat(char *out, size_t cap, const char *format, va_list args)
{
    if (cap == 0)
        return 0;
    int n = vsnprintf(out, cap, format, args);
    if (n < 0)
        out[0] = '\0';
    if (n < (int)cap)
        return n > 0 ? (size_t)n : 0;
    size_t len = cap - 1;
    size_t start = len; /* of the last character: is all of it there? */
    uint32_t code;
    while (start > 0 && len - start < 4 && ((uint8_t)out[start - 1] & 0xc0) == 0x80)
        start--;
    if (start > 0 && (uint8_t)out[start - 1] >= 0xc0 && len - start < 4 &&
        bf_utf8_char(out + start - 1, len - start + 1, &code) == 0)
        len = start - 1;
    out[len] = '\0';
    return len;
}

__attribute__((format(printf, 3, 4))) static inline size_t bf_format(char *out, size_t cap,
                                                                     const char *format, ...)
{
    va_list args;
    va_start(args, format);
    size_t len = bf_vformat(out, cap, format, args);
    va_end(args);
    return len;
}

/* Whether a terminal or a log must not get the character as it is: controls (C0, DEL, C1), line and
 * paragraph separators, marks that change the direction of text, and those that nobody sees. */
static inline int bf_text_is_hidden(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x61c ||
           (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
           (code >= 0x2060 && code <= 0x206f) || code == 0xfeff ||
           (code >= 0xe0000 && code <= 0xe007f);
}

/* Longest escape: \u{e007f}. */
#define BF_TEXT_ESCAPE_BYTES 9u

/* |text| as a person may see it: \n, \r, \t; \xNN for control characters and for bytes that are no
 * UTF-8; \u{NNNN} for the other hidden ones. Ends with 0, cut between characters where |cap| > 0 is
 * too small. Returns the bytes written. */
static inline size_t bf_text_escape(char *out, size_t cap, const char *text, size_t len)
{
    size_t at = 0;
    for (size_t i = 0; i < len;) {
        char piece[BF_TEXT_ESCAPE_BYTES + 4];
        uint32_t code = (uint8_t)text[i];
        size_t n = bf_utf8_char(text + i, len - i, &code);
        size_t size = n;
        if (n > 0 && !bf_text_is_hidden(code))
            memcpy(piece, text + i, n);
        else if (n == 1 && (code == '\n' || code == '\r' || code == '\t'))
            size = (size_t)snprintf(piece, sizeof(piece), "\\%c",
                                    code == '\n'   ? 'n'
                                    : code == '\r' ? 'r'
                                                   : 't');
        else if (n < 2)
            size = (size_t)snprintf(piece, sizeof(piece), "\\x%02x", (unsigned)code);
        else
            size = (size_t)snprintf(piece, sizeof(piece), "\\u{%x}", (unsigned)code);
        if (size >= cap - at)
            break;
        memcpy(out + at, piece, size);
        at += size;
        i += n > 0 ? n : 1;
    }
    out[at] = '\0';
    return at;
}
