/* RFC 3339 time stamps, as events and CloudEvents write them, to epoch milliseconds. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

/* Date, T, time, optional fraction, Z or offset; years 1970..9999. A leap second counts as the
 * second before. False on anything else; *ret_ms is then untouched. */
bool bf_rfc3339_parse(struct bf_bytes text, uint64_t *ret_ms);

/* Of any year, 0000 to 9999: for times that are only passed on or left alone. */
bool bf_rfc3339_is_valid(struct bf_bytes text);

#define BF_RFC3339_BYTES_MAX 25u
/* The last instant that RFC 3339 has a date for: 9999-12-31T23:59:59.999Z. */
#define BF_RFC3339_MS_MAX 253402300799999u
/* "2026-01-02T03:04:05.678Z", terminated; later than the last instant: that one. */
void bf_rfc3339_format(uint64_t ms, char out[BF_RFC3339_BYTES_MAX]);
