/*
 * Characters, tokens and lists of HTTP (RFC 9110 section 5.6) for belfry/http1. Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "belfry/base/cursor.h"

static inline bool bf_http1_is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static inline bool bf_http1_is_hex(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* One bit for each character below 0x80 that is a tchar (RFC 9110 5.6.2): a table, because every
 * byte of every name is looked up. */
static inline bool bf_http1_is_tchar(char c)
{
    static const uint64_t bits[2] = {
        /* !#$%&'*+-. and digits */
        UINT64_C(1) << '!' | UINT64_C(1) << '#' | UINT64_C(1) << '$' | UINT64_C(1) << '%' |
            UINT64_C(1) << '&' | UINT64_C(1) << '\'' | UINT64_C(1) << '*' | UINT64_C(1) << '+' |
            UINT64_C(1) << '-' | UINT64_C(1) << '.' | UINT64_C(0x3ff) << '0',
        /* ^_`|~ and letters */
        UINT64_C(1) << ('^' - 64) | UINT64_C(1) << ('_' - 64) | UINT64_C(1) << ('`' - 64) |
            UINT64_C(1) << ('|' - 64) | UINT64_C(1) << ('~' - 64) |
            UINT64_C(0x3ffffff) << ('A' - 64) | UINT64_C(0x3ffffff) << ('a' - 64),
    };
    uint8_t u = (uint8_t)c;
    return u < 0x80 && (bits[u >> 6] >> (u & 63) & 1) != 0;
}

static inline bool bf_http1_is_token(struct bf_bytes b)
{
    for (size_t i = 0; i < b.len; i++)
        if (!bf_http1_is_tchar(b.at[i]))
            return false;
    return b.len > 0;
}

/* No control character but tab: no CR, no LF, no NUL. */
static inline bool bf_http1_is_field_value(struct bf_bytes v)
{
    for (size_t i = 0; i < v.len; i++) {
        uint8_t c = (uint8_t)v.at[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static inline char bf_http1_lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c;
}

/* Whether the two are equal, ignoring case; |small| is in lower case. */
static inline bool bf_http1_is_equal(struct bf_bytes b, struct bf_bytes small)
{
    if (b.len != small.len)
        return false;
    for (size_t i = 0; i < b.len; i++)
        if (bf_http1_lower(b.at[i]) != small.at[i])
            return false;
    return true;
}

static inline bool bf_http1_has_prefix(struct bf_bytes b, struct bf_bytes small)
{
    return b.len >= small.len &&
           bf_http1_is_equal((struct bf_bytes){.at = b.at, .len = small.len}, small);
}

static inline struct bf_bytes bf_http1_skip(struct bf_bytes b, size_t n)
{
    return (struct bf_bytes){.at = b.at + n, .len = b.len - n};
}

static inline struct bf_bytes bf_http1_trim(struct bf_bytes b)
{
    while (b.len > 0 && (b.at[0] == ' ' || b.at[0] == '\t'))
        b = bf_http1_skip(b, 1);
    while (b.len > 0 && (b.at[b.len - 1] == ' ' || b.at[b.len - 1] == '\t'))
        b.len--;
    return b;
}

/* Takes the next element of a comma separated list; false at its end. Empty elements are skipped.
 */
static inline bool bf_http1_list_next(struct bf_bytes *list, struct bf_bytes *ret_element)
{
    while (list->len > 0) {
        const char *comma = memchr(list->at, ',', list->len);
        size_t n = comma ? (size_t)(comma - list->at) : list->len;
        struct bf_bytes element = bf_http1_trim((struct bf_bytes){.at = list->at, .len = n});
        *list = bf_http1_skip(*list, comma ? n + 1 : n);
        if (element.len > 0) {
            *ret_element = element;
            return true;
        }
    }
    return false;
}

static inline bool bf_http1_list_has(struct bf_bytes list, struct bf_bytes small)
{
    struct bf_bytes element;
    while (bf_http1_list_next(&list, &element))
        if (bf_http1_is_equal(element, small))
            return true;
    return false;
}
