/* See query.h. */
#include "proto/http1/query.h"

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes |in|. Returns the bytes written, or -400. */
static int decode(struct bf_bytes in, char *out, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < in.len; i++) {
        char c = in.at[i] == '+' ? ' ' : in.at[i];
        if (c == '%') {
            int high = in.len - i > 2 ? hex_value(in.at[i + 1]) : -1;
            int low = high >= 0 ? hex_value(in.at[i + 2]) : -1;
            if (low < 0)
                return -400;
            c = (char)(high << 4 | low);
            i += 2;
        }
        if (c == '\0' || n == cap)
            return -400;
        out[n++] = c;
    }
    return (int)n;
}

int bf_query_get(struct bf_bytes query, struct bf_bytes name, char *out, size_t cap,
                 struct bf_bytes *ret)
{
    while (query.len > 0) {
        const char *end = memchr(query.at, '&', query.len);
        size_t len = end ? (size_t)(end - query.at) : query.len;
        struct bf_bytes pair = {.at = query.at, .len = len};
        query.at += len + (end != NULL);
        query.len -= len + (end != NULL);
        const char *equals = memchr(pair.at, '=', pair.len);
        size_t name_len = equals ? (size_t)(equals - pair.at) : pair.len;
        if (!bf_bytes_is_equal((struct bf_bytes){.at = pair.at, .len = name_len}, name))
            continue;
        size_t skip = name_len + (equals != NULL);
        int n = decode((struct bf_bytes){.at = pair.at + skip, .len = pair.len - skip}, out, cap);
        if (n < 0)
            return n;
        *ret = (struct bf_bytes){.at = out, .len = (size_t)n};
        return 1;
    }
    return 0;
}
