/* UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF. Pure. */
#pragma once

#include <stdbool.h>

#include "belfry/base/cursor.h"

/* Offset of the first byte that does not belong, or text.len when all is well. */
size_t bf_utf8_valid_bytes(struct bf_bytes text);

static inline bool bf_utf8_is_valid(struct bf_bytes text)
{
    return bf_utf8_valid_bytes(text) == text.len;
}
