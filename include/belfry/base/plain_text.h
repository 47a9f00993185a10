/* What an id may not hold, the same wherever one comes in: a path, a body, a record, a token's
 * claim, a frame. Control characters cut names short where people read them, forge lines in logs
 * and move cursors in terminals. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* U+0000 to U+001F, and U+007F. */
static inline bool bf_text_has_control(const char *at, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((uint8_t)at[i] < 0x20 || at[i] == 0x7f)
            return true;
    return false;
}
