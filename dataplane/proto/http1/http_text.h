/* Characters of HTTP (RFC 9110 section 5.6.2). Private to proto/http1. Pure; any thread. */
#pragma once

#include <stdbool.h>
#include <string.h>

static inline bool bf_http_is_alnum(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static inline bool bf_http_is_tchar(char c)
{
    return bf_http_is_alnum(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}
