/* See sse.h. */
#include "proto/http1/sse.h"

#include <stdio.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/ws_frame.h"

/* Order of the lanes in an id: normal, critical, bulk, as resume names them. */
static const struct {
    enum bf_lane lane;
    char name;
} lanes[BF_LANE_COUNT] = {{BF_LANE_NORMAL, 'n'}, {BF_LANE_CRITICAL, 'c'}, {BF_LANE_BULK, 'k'}};

/* ---- id ---- */

size_t bf_sse_id_write(const struct bf_sse_id *id, char out[BF_SSE_ID_BYTES_MAX])
{
    int n = snprintf(out, BF_SSE_ID_BYTES_MAX, "%.*s", id->epoch_len, id->epoch);
    for (unsigned i = 0; i < BF_LANE_COUNT; i++)
        n += snprintf(out + n, BF_SSE_ID_BYTES_MAX - (size_t)n, ";%c=%llu-%llu", lanes[i].name,
                      (unsigned long long)id->from[lanes[i].lane],
                      (unsigned long long)id->to[lanes[i].lane]);
    n += snprintf(out + n, BF_SSE_ID_BYTES_MAX - (size_t)n, ";b=%llu", (unsigned long long)id->b);
    return (size_t)n;
}

static bool take_text(struct bf_bytes *left, const char *text)
{
    size_t n = strlen(text);
    if (left->len < n || memcmp(left->at, text, n) != 0)
        return false;
    left->at += n;
    left->len -= n;
    return true;
}

static bool take_number(struct bf_bytes *left, uint64_t *ret)
{
    uint64_t value = 0;
    size_t n = 0;
    for (; n < left->len && left->at[n] >= '0' && left->at[n] <= '9'; n++) {
        uint64_t digit = (uint64_t)(left->at[n] - '0');
        if (value > (UINT64_MAX - digit) / 10u)
            return false;
        value = value * 10u + digit;
    }
    left->at += n;
    left->len -= n;
    *ret = value;
    return n > 0;
}

int bf_sse_id_parse(struct bf_bytes text, struct bf_sse_id *ret)
{
    struct bf_sse_id id = {0};
    const char *end = text.len > 0 ? memchr(text.at, ';', text.len) : NULL;
    size_t n = end ? (size_t)(end - text.at) : 0;
    if (n == 0 || n > sizeof(id.epoch))
        return BF_ERR_MALFORMED;
    memcpy(id.epoch, text.at, n);
    id.epoch_len = (uint8_t)n;
    text.at += n;
    text.len -= n;
    for (unsigned i = 0; i < BF_LANE_COUNT; i++) {
        const char name[4] = {';', lanes[i].name, '=', '\0'};
        uint64_t *from = &id.from[lanes[i].lane], *to = &id.to[lanes[i].lane];
        if (!take_text(&text, name) || !take_number(&text, from) || !take_text(&text, "-") ||
            !take_number(&text, to) || *from > *to)
            return BF_ERR_MALFORMED;
    }
    if (!take_text(&text, ";b=") || !take_number(&text, &id.b) || text.len != 0)
        return BF_ERR_MALFORMED;
    *ret = id;
    return 0;
}

/* ---- answer ---- */

size_t bf_sse_accept(struct bf_bytes origin, char *out, size_t cap)
{
    int n =
        snprintf(out, cap,
                 "HTTP/1.1 200 OK\r\n"
                 "Content-Type: text/event-stream\r\n"
                 "Cache-Control: no-store\r\n"
                 "X-Accel-Buffering: no\r\n"
                 "%s%.*s%s"
                 "Connection: close\r\n"
                 "\r\n",
                 origin.len > 0 ? "Vary: Origin\r\nAccess-Control-Allow-Origin: " : "",
                 (int)origin.len, origin.len > 0 ? origin.at : "", origin.len > 0 ? "\r\n" : "");
    return n > 0 && (size_t)n < cap ? (size_t)n : 0;
}

/* ---- events ---- */

static void put(struct bf_sse_out *o, const char *bytes, size_t n)
{
    size_t skip = o->skip > o->total ? o->skip - o->total : 0;
    o->total += n;
    if (skip >= n)
        return;
    bytes += skip;
    n -= skip;
    if (n > o->cap - o->len)
        n = o->cap - o->len;
    if (n > 0)
        memcpy(o->at + o->len, bytes, n);
    o->len += n;
}

static void put_text(struct bf_sse_out *o, const char *text)
{
    put(o, text, strlen(text));
}

/* JSON has line ends only between its tokens, where a space means the same; a data line has none.
 */
static void put_line(struct bf_sse_out *o, struct bf_bytes json)
{
    while (json.len > 0) {
        size_t n = 0;
        while (n < json.len && json.at[n] != '\n' && json.at[n] != '\r')
            n++;
        put(o, json.at, n);
        if (n < json.len)
            put(o, " ", 1);
        n += n < json.len;
        json.at += n;
        json.len -= n;
    }
}

static void put_id(struct bf_sse_out *o, const struct bf_sse_id *id)
{
    char text[BF_SSE_ID_BYTES_MAX];
    put_text(o, "id: ");
    put(o, text, bf_sse_id_write(id, text));
    put_text(o, "\n");
}

/* The value of "t", which our frames begin with. */
static struct bf_bytes kind_of(struct bf_bytes json)
{
    static const char start[] = "{\"t\":\"";
    const size_t n = sizeof(start) - 1;
    if (json.len <= n || memcmp(json.at, start, n) != 0)
        return BF_BYTES("message");
    const char *end = memchr(json.at + n, '"', json.len - n);
    return (struct bf_bytes){.at = json.at + n, .len = end ? (size_t)(end - json.at) - n : 0};
}

static void put_event(struct bf_sse_out *o, struct bf_bytes json, const struct bf_sse_id *id)
{
    struct bf_bytes kind = kind_of(json);
    if (id)
        put_id(o, id);
    put_text(o, "event: ");
    put(o, kind.at, kind.len);
    put_text(o, "\ndata: ");
    put_line(o, json);
    put_text(o, "\n\n");
}

/* Takes the next frame's payload; false when what is there is not a whole text frame. */
static bool next_payload(struct bf_bytes *frames, struct bf_bytes *ret)
{
    const uint8_t *p = (const uint8_t *)frames->at;
    if (frames->len < 2 || p[0] != (0x80u | BF_WS_TEXT) || (p[1] & 0x80))
        return false;
    size_t width = p[1] == 127 ? 8 : p[1] == 126 ? 2 : 0;
    if (frames->len < 2 + width)
        return false;
    uint64_t n = width == 0 ? p[1] : 0;
    for (size_t i = 0; i < width; i++)
        n = n << 8 | p[2 + i];
    if (n > frames->len - 2 - width)
        return false;
    *ret = (struct bf_bytes){.at = frames->at + 2 + width, .len = (size_t)n};
    frames->at += 2 + width + n;
    frames->len -= 2 + width + (size_t)n;
    return true;
}

void bf_sse_write(struct bf_sse_out *out, struct bf_bytes frames, const struct bf_sse_id *id)
{
    struct bf_bytes json;
    while (next_payload(&frames, &json))
        put_event(out, json, frames.len == 0 ? id : NULL);
    put(out, frames.at, frames.len);
}

void bf_sse_heartbeat(struct bf_sse_out *out, const struct bf_sse_id *id)
{
    put_text(out, ":\n");
    if (id)
        put_id(out, id);
    put_text(out, "\n");
}
