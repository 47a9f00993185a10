/* Growing answer buffer; see out.h. */
#include "json/out.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "json/json.h"
#include "time/rfc3339.h"

/* Most answers fit at once. */
#define FIRST_BYTES 512u
/* The longest escape of one byte: backslash, u, four digits. */
#define ESCAPE_BYTES_MAX 6u

/* Room for |more| bytes and a terminator. */
static bool make_room(struct bf_out *o, size_t more)
{
    if (o->failed)
        return false;
    if (o->cap - o->len > more)
        return true;
    size_t cap = o->cap ? o->cap : FIRST_BYTES;
    while (cap - o->len <= more)
        cap *= 2;
    char *at = realloc(o->at, cap);
    if (!at) {
        o->failed = true;
        return false;
    }
    o->at = at;
    o->cap = cap;
    return true;
}

void bf_out_raw(struct bf_out *o, const void *bytes, size_t len)
{
    if (len == 0 || !make_room(o, len))
        return;
    memcpy(o->at + o->len, bytes, len);
    o->len += len;
}

void bf_out_bytes(struct bf_out *o, struct bf_bytes bytes)
{
    bf_out_raw(o, bytes.at, bytes.len);
}

void bf_out_text(struct bf_out *o, const char *text)
{
    bf_out_raw(o, text, strlen(text));
}

void bf_out_print(struct bf_out *o, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || !make_room(o, (size_t)n))
        return;
    va_start(args, format);
    vsnprintf(o->at + o->len, (size_t)n + 1, format, args);
    va_end(args);
    o->len += (size_t)n;
}

void bf_out_str(struct bf_out *o, struct bf_bytes bytes)
{
    if (!make_room(o, bytes.len * ESCAPE_BYTES_MAX + 2))
        return;
    struct bf_writer w = {.buf = (uint8_t *)o->at + o->len, .cap = o->cap - o->len};
    bf_json_put_str(&w, bytes);
    o->len += w.len;
}

void bf_out_cstr(struct bf_out *o, const char *text)
{
    bf_out_str(o, (struct bf_bytes){text, strlen(text)});
}

void bf_out_uint(struct bf_out *o, uint64_t value)
{
    uint8_t digits[20]; /* of 2^64 */
    struct bf_writer w = {.buf = digits, .cap = sizeof(digits)};
    bf_json_put_uint(&w, value);
    bf_out_raw(o, digits, w.len);
}

void bf_out_bool(struct bf_out *o, bool value)
{
    bf_out_text(o, value ? "true" : "false");
}

void bf_out_id(struct bf_out *o, const struct bf_id *id)
{
    char text[BF_UUID_TEXT_BYTES + 2];
    text[0] = '"';
    bf_id_text(id, text + 1);
    text[sizeof(text) - 1] = '"';
    bf_out_raw(o, text, sizeof(text));
}

void bf_out_time(struct bf_out *o, uint64_t ms)
{
    char text[BF_RFC3339_BYTES_MAX];
    bf_rfc3339_format(ms, text);
    bf_out_cstr(o, text);
}

char *bf_out_take(struct bf_out *o, size_t *ret_len)
{
    if (!make_room(o, 1)) {
        bf_out_free(o);
        return NULL;
    }
    char *at = o->at;
    at[o->len] = '\0';
    *ret_len = o->len;
    *o = (struct bf_out){0};
    return at;
}

void bf_out_free(struct bf_out *o)
{
    free(o->at);
    *o = (struct bf_out){0};
}
