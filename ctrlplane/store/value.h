/*
 * The head of a stored value: a format byte, and in tables with an expiry a u64 of wall ms (0:
 * never). The rest is the table's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

#define BF_ROW_VERSION      1u
#define BF_ROW_EXPIRY_AT    1u
#define BF_ROW_EXPIRY_BYTES 9u

/* A reader after the format byte (and the expiry of expiring tables); it has failed if the format
 * is not ours. |ret_expires_ms| NULL: a table without expiry. */
static inline struct bf_reader bf_value_reader(struct bf_bytes value, uint64_t *ret_expires_ms)
{
    struct bf_reader r = {.buf = (const uint8_t *)value.at, .len = value.len};
    if (bf_get_u8(&r) != BF_ROW_VERSION)
        r.failed = true;
    if (ret_expires_ms != NULL)
        *ret_expires_ms = bf_get_u64(&r);
    return r;
}

/* Whether everything was read and nothing failed. */
static inline bool bf_value_is_read(const struct bf_reader *r)
{
    return !r->failed && r->at == r->len;
}

/* Whether the row of an expiring table is past its expiry. */
static inline bool bf_value_is_expired(struct bf_bytes value, uint64_t now_ms)
{
    if (value.len < BF_ROW_EXPIRY_BYTES)
        return false;
    struct bf_reader r = {.buf = (const uint8_t *)value.at + BF_ROW_EXPIRY_AT, .len = 8};
    uint64_t expires_ms = bf_get_u64(&r);
    return expires_ms != 0 && expires_ms <= now_ms;
}
