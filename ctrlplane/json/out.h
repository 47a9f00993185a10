/*
 * A growing buffer for answers: JSON and text. It remembers a failed allocation, as base/cursor.h
 * does: every later call does nothing, and bf_out_take gives NULL. One owner, any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/base/id.h"

struct bf_out {
    char *at;
    size_t len, cap;
    bool failed;
};

void bf_out_raw(struct bf_out *o, const void *bytes, size_t len);
void bf_out_bytes(struct bf_out *o, struct bf_bytes bytes);
/* Text up to its zero. For JSON members too: bf_out_text(o, ",\"a\":"). */
void bf_out_text(struct bf_out *o, const char *text);
__attribute__((format(printf, 2, 3))) void bf_out_print(struct bf_out *o, const char *format, ...);
/* JSON string with quotes; |bytes| is UTF-8. */
void bf_out_str(struct bf_out *o, struct bf_bytes bytes);
void bf_out_cstr(struct bf_out *o, const char *text);
void bf_out_uint(struct bf_out *o, uint64_t value);
void bf_out_bool(struct bf_out *o, bool value);
/* JSON string of an id, and of a time as RFC 3339. */
void bf_out_id(struct bf_out *o, const struct bf_id *id);
void bf_out_time(struct bf_out *o, uint64_t ms);
/* The malloc'ed text (terminated; the terminator is not in *ret_len), or NULL. |o| is then empty.
 */
char *bf_out_take(struct bf_out *o, size_t *ret_len);
void bf_out_free(struct bf_out *o);
