/* JSON rendering; see render.h. Escapes only what RFC 8259 demands, so output is never longer than
 * the input that it was read from: callers size their buffers by that. */
#include "json/json.h"

#include <stdio.h>
#include <string.h>

static char short_escape(uint8_t c)
{
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return '\0';
    }
}

static void put_escaped(struct bf_writer *w, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    char short_form = short_escape(c);
    if (short_form) {
        const char two[2] = {'\\', short_form};
        bf_put_raw(w, two, sizeof(two));
    } else {
        const char six[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
        bf_put_raw(w, six, sizeof(six));
    }
}

/* Whether any of eight bytes must be escaped: below 0x20, a quote, a backslash (haszero/hasless
 * tricks; bytes of 0x80 and more never match). */
static bool has_escape(uint64_t eight)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    const uint64_t highs = ones << 7;
    uint64_t quote = eight ^ (ones * '"');
    uint64_t slash = eight ^ (ones * '\\');
    uint64_t low = (eight - ones * 0x20) & ~eight;
    uint64_t hit = ((quote - ones) & ~quote) | ((slash - ones) & ~slash) | low;
    return (hit & highs) != 0;
}

static bool is_plain(uint8_t c)
{
    return c >= 0x20 && c != '"' && c != '\\';
}

/* Copies from the start what needs no escape; returns how much. |out| has room for |len| bytes. */
static size_t copy_plain(uint8_t *out, const uint8_t *bytes, size_t len)
{
    size_t at = 0;
    uint64_t eight;
    for (; len - at >= sizeof(eight); at += sizeof(eight)) {
        memcpy(&eight, bytes + at, sizeof(eight));
        if (has_escape(eight))
            break;
        memcpy(out + at, &eight, sizeof(eight));
    }
    if (at > 0 && at < len && len - at < sizeof(eight)) {
        /* the last eight bytes, most of them for the second time: cheaper than one by one */
        memcpy(&eight, bytes + len - sizeof(eight), sizeof(eight));
        if (!has_escape(eight)) {
            memcpy(out + len - sizeof(eight), &eight, sizeof(eight));
            return len;
        }
    }
    for (; at < len && is_plain(bytes[at]); at++)
        out[at] = bytes[at];
    return at;
}

void bf_json_put_str(struct bf_writer *w, struct bf_bytes text)
{
    const uint8_t *bytes = (const uint8_t *)text.at;
    size_t at = 0;
    bf_put_u8(w, '"');
    for (;;) {
        if (w->failed || w->cap - w->len < text.len - at) {
            w->failed = true;
            return;
        }
        size_t plain = copy_plain(w->buf + w->len, bytes + at, text.len - at);
        w->len += plain;
        at += plain;
        if (at == text.len)
            break;
        put_escaped(w, bytes[at++]);
    }
    bf_put_u8(w, '"');
}

void bf_json_put_uint(struct bf_writer *w, uint64_t value)
{
    char text[20]; /* digits of 2^64 */
    unsigned at = sizeof(text);
    while (value >= 100) { /* two digits a division */
        unsigned pair = (unsigned)(value % 100);
        value /= 100;
        text[--at] = (char)('0' + pair % 10);
        text[--at] = (char)('0' + pair / 10);
    }
    if (value >= 10) {
        text[--at] = (char)('0' + value % 10);
        value /= 10;
    }
    text[--at] = (char)('0' + value);
    bf_put_raw(w, text + at, sizeof(text) - at);
}

static bool put_value(struct bf_writer *w, yyjson_val *val, unsigned depth);

static bool put_object(struct bf_writer *w, yyjson_val *object, unsigned depth)
{
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    bf_put_u8(w, '{');
    yyjson_obj_foreach (object, i, max, key, val) {
        if (i > 0)
            bf_put_u8(w, ',');
        bf_json_put_str(w, (struct bf_bytes){yyjson_get_str(key), yyjson_get_len(key)});
        bf_put_u8(w, ':');
        if (!put_value(w, val, depth))
            return false;
    }
    bf_put_u8(w, '}');
    return true;
}

static bool put_array(struct bf_writer *w, yyjson_val *array, unsigned depth)
{
    size_t i;
    size_t max;
    yyjson_val *val;
    bf_put_u8(w, '[');
    yyjson_arr_foreach (array, i, max, val) {
        if (i > 0)
            bf_put_u8(w, ',');
        if (!put_value(w, val, depth))
            return false;
    }
    bf_put_u8(w, ']');
    return true;
}

/* Recursion ends at BF_JSON_DEPTH_MAX. */
static bool put_value(struct bf_writer *w, yyjson_val *val, unsigned depth)
{
    switch (yyjson_get_type(val)) {
    case YYJSON_TYPE_STR:
        bf_json_put_str(w, (struct bf_bytes){yyjson_get_str(val), yyjson_get_len(val)});
        return true;
    case YYJSON_TYPE_RAW: /* a number as it was written: no digit is lost */
        bf_put_raw(w, yyjson_get_raw(val), yyjson_get_len(val));
        return true;
    case YYJSON_TYPE_BOOL:
        bf_put_bytes(w, yyjson_get_bool(val) ? BF_BYTES("true") : BF_BYTES("false"));
        return true;
    case YYJSON_TYPE_OBJ:
        return depth < BF_JSON_DEPTH_MAX && put_object(w, val, depth + 1);
    case YYJSON_TYPE_ARR:
        return depth < BF_JSON_DEPTH_MAX && put_array(w, val, depth + 1);
    default:
        bf_put_bytes(w, BF_BYTES("null"));
        return true;
    }
}

bool bf_json_put_value(struct bf_writer *w, yyjson_val *val)
{
    return put_value(w, val, 0);
}
