/* RFC 3339 time stamps, as events and CloudEvents write them, to epoch milliseconds. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

/* Date, T, time, optional fraction, Z or offset; years 1970..9999. A leap second counts as the second
 * before. False on anything else; *ret_ms is then untouched. */
bool bf_rfc3339_parse(struct bf_bytes text, uint64_t *ret_ms);

#define BF_RFC3339_BYTES_MAX 25u
/* "2026-01-02T03:04:05.678Z", terminated. */
void bf_rfc3339_format(uint64_t ms, char out[BF_RFC3339_BYTES_MAX]);
