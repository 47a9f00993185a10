/*
 * UTF-8 check (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF). Pure; any
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

bool bf_utf8_is_valid(const char *text, size_t len);
