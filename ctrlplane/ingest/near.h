/*
 * Finds the name that was probably meant by an unknown one: what other products call the same
 * thing, and typing mistakes. Pure; any thread; only asked when something has been refused.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "belfry/base/cursor.h"

/* A name of |names| (count, NULL entries are skipped) that |given| may have meant; NULL: none. */
const char *bf_near_name(struct bf_bytes given, const char *const *names, size_t count);
/* The same of an event's fields; knows what other APIs call them. */
const char *bf_near_field(struct bf_bytes given);
const char *bf_near_channel(struct bf_bytes given);
/* The path that was meant ("/api/v1/users" is /v1/users), in |out|; false: no idea. |paths|:
 * patterns of the routes. */
bool bf_near_path(const char *given, const char *const *paths, size_t count, char *out, size_t cap);
