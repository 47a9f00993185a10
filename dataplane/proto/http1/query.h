/*
 * Parameters of a request's query (application/x-www-form-urlencoded, WHATWG URL section 5). Pure;
 * any thread.
 */
#pragma once

#include <stddef.h>

#include "belfry/base/cursor.h"

/*
 * Decodes the first parameter |name| into |out|. Returns 1 with *ret (empty if it has no value), 0
 * when it is not there, -400 when it does not decode (a broken escape, a NUL) or passes |cap|.
 */
int bf_query_get(struct bf_bytes query, struct bf_bytes name, char *out, size_t cap,
                 struct bf_bytes *ret);
