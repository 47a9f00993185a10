/*
 * Base64url without padding (RFC 7515 section 2): JWTs, VAPID, keys of Web Push. Pure; any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

static inline int bf_base64url_digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/* Returns the bytes written to |out|, or -1: foreign characters, too long for |cap|, or left-over
 * bits that are not zero (so that one signature has one spelling). */
static inline long bf_base64url_decode(struct bf_bytes in, void *out, size_t cap)
{
    uint8_t *at = out;
    uint32_t bits = 0;
    unsigned have = 0;
    size_t n = 0;
    if (in.len % 4 == 1 || in.len / 4 * 3 + in.len % 4 * 3 / 4 > cap)
        return -1;
    for (size_t i = 0; i < in.len; i++) {
        int digit = bf_base64url_digit(in.at[i]);
        if (digit < 0)
            return -1;
        bits = bits << 6 | (uint32_t)digit;
        have += 6;
        if (have >= 8) {
            have -= 8;
            at[n++] = (uint8_t)(bits >> have);
        }
    }
    return (bits & ((1u << have) - 1u)) != 0 ? -1 : (long)n;
}

/* Writes at most (len * 4 + 2) / 3 characters, no terminator. Returns how many. */
static inline size_t bf_base64url_encode(const uint8_t *in, size_t len, char *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint32_t bits = 0;
    unsigned have = 0;
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        bits = bits << 8 | in[i];
        for (have += 8; have >= 6; have -= 6)
            out[n++] = digits[bits >> (have - 6) & 63];
    }
    if (have > 0)
        out[n++] = digits[bits << (6 - have) & 63];
    return n;
}
