/* JSON text of values that were read (numbers raw), compact and minimally escaped. Pure. */
#pragma once

#include <yyjson.h>

#include "belfry/base/cursor.h"

/* How deep JSON that is passed on to apps may nest: deeper nesting breaks their parsers before
 * ours. */
#define BF_JSON_DEPTH_MAX 32u

/* Appends "text" with quotes and escapes. */
void bf_json_put_str(struct bf_writer *w, struct bf_bytes text);
void bf_json_put_uint(struct bf_writer *w, uint64_t value);
/* Appends a value. False if it nests deeper than BF_JSON_DEPTH_MAX (then |w| holds a part of it).
 */
bool bf_json_put_value(struct bf_writer *w, yyjson_val *val);
