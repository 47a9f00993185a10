/*
 * 128-bit ids. An event id and a message id are hashes (DESIGN 4.4) shown as UUIDs: version 8
 * ("custom", RFC 9562 section 5.8) with the RFC variant. The bits are set when the id is made, so
 * text and bytes convert without loss.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "belfry/base/limits.h"

struct bf_id {
    uint8_t bytes[16];
};

/* A message id begins with these bytes of its event's id, so that messages are found by their
 * event. The other 62 bits tell the messages of one event apart. */
#define BF_MESSAGE_PREFIX_BYTES 8u

static inline bool bf_id_is_equal(const struct bf_id *a, const struct bf_id *b)
{
    return memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

/* Makes any 16 bytes a well-formed UUIDv8. */
static inline void bf_id_seal(struct bf_id *id)
{
    id->bytes[6] = (uint8_t)((id->bytes[6] & 0x0f) | 0x80);
    id->bytes[8] = (uint8_t)((id->bytes[8] & 0x3f) | 0x80);
}

/* Writes 36 characters, no terminator. */
static inline void bf_id_text(const struct bf_id *id, char out[BF_UUID_TEXT_BYTES])
{
    static const char hex[] = "0123456789abcdef";
    unsigned at = 0;
    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            out[at++] = '-';
        out[at++] = hex[id->bytes[i] >> 4];
        out[at++] = hex[id->bytes[i] & 15];
    }
}

static inline int bf_hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* Parses 8-4-4-4-12. Returns false, *ret_id untouched, on anything else. */
static inline bool bf_id_parse(const char *text, size_t len, struct bf_id *ret_id)
{
    struct bf_id id;
    unsigned at = 0;
    if (len != BF_UUID_TEXT_BYTES)
        return false;
    for (unsigned i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            if (text[at++] != '-')
                return false;
        }
        int hi = bf_hex_digit(text[at]);
        int lo = bf_hex_digit(text[at + 1]);
        if (hi < 0 || lo < 0)
            return false;
        id.bytes[i] = (uint8_t)(hi << 4 | lo);
        at += 2;
    }
    *ret_id = id;
    return true;
}
