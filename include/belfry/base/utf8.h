/*
 * Whether bytes are UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above
 * U+10FFFF. One check for all that comes in: bodies, records, frames. Texts are JSON and mostly
 * ASCII, so runs of ASCII go 8 bytes at a time. Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "belfry/base/cursor.h"

/* Bytes of the well-formed sequence at |p| that begins with a byte above 0x7f; 0: there is none. */
static inline size_t bf_utf8_sequence_bytes(const uint8_t *p, size_t left)
{
    uint8_t lead = p[0];
    size_t n = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (n == 0 || n > left)
        return 0;
    /* the second byte carries the exclusions: overlong (e0, f0), surrogates (ed), top (f4) */
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

/* Offset of the first byte that is not part of well-formed UTF-8, or text.len if all of it is. */
static inline size_t bf_utf8_valid_bytes(struct bf_bytes text)
{
    const uint8_t *p = (const uint8_t *)text.at;
    size_t i = 0;
    while (i < text.len) {
        uint64_t word;
        if (text.len - i >= sizeof(word)) {
            memcpy(&word, p + i, sizeof(word));
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof(word);
                continue;
            }
        }
        size_t n = p[i] < 0x80 ? 1 : bf_utf8_sequence_bytes(p + i, text.len - i);
        if (n == 0)
            return i;
        i += n;
    }
    return i;
}

static inline bool bf_utf8_is_valid(struct bf_bytes text)
{
    return bf_utf8_valid_bytes(text) == text.len;
}
