/* See frames.h. Texts that come from people are JSON-escaped here or were by the fragment's writer.
 */
#include "publish/frames.h"

#include <inttypes.h>
#include <stdio.h>

#include "belfry/base/ws_frame.h"

/* Everything of an n or b that is neither fragment nor header: keys, two 20-digit numbers, a UUID.
 */
#define ENVELOPE_BYTES_MAX 160u

/* Text is written after room for the largest header, then moved down to the end of the real one. */
struct text {
    char *at;
    size_t cap;
    size_t len;
};

static void put(struct text *t, const char *bytes, size_t len)
{
    if (t->len + len <= t->cap)
        memcpy(t->at + t->len, bytes, len);
    t->len += len;
}

#define PUT_LITERAL(t, s) put((t), (s), sizeof(s) - 1)

static void put_u64(struct text *t, uint64_t value)
{
    char digits[20];
    size_t n = sizeof(digits);
    do {
        digits[--n] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    put(t, digits + n, sizeof(digits) - n);
}

static void put_id(struct text *t, const struct bf_id *id)
{
    char text[BF_UUID_TEXT_BYTES];
    bf_id_text(id, text);
    put(t, text, sizeof(text));
}

static void put_json_string(struct text *t, const char *s, size_t len)
{
    static const char hex[] = "0123456789abcdef";
    PUT_LITERAL(t, "\"");
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\') {
            char two[2] = {'\\', (char)c};
            put(t, two, 2);
        } else if (c < 0x20) {
            char six[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
            put(t, six, 6);
        } else {
            put(t, &s[i], 1);
        }
    }
    PUT_LITERAL(t, "\"");
}

static struct text text_begin(uint8_t *out, size_t cap)
{
    size_t room = cap > BF_WS_HEADER_BYTES_MAX ? cap - BF_WS_HEADER_BYTES_MAX : 0;
    return (struct text){.at = (char *)out + BF_WS_HEADER_BYTES_MAX, .cap = room};
}

static size_t text_end(uint8_t *out, const struct text *t)
{
    if (t->len > t->cap)
        return t->len + BF_WS_HEADER_BYTES_MAX;
    size_t header = bf_ws_header_write(out, BF_WS_TEXT, t->len);
    memmove(out + header, t->at, t->len);
    return header + t->len;
}

size_t bf_frame_n_max(size_t fragment_bytes)
{
    return fragment_bytes + ENVELOPE_BYTES_MAX;
}

size_t bf_frame_n(uint8_t *out, size_t cap, enum bf_lane lane, uint64_t seq, const struct bf_id *id,
                  struct bf_bytes fragment)
{
    struct text t = text_begin(out, cap);
    PUT_LITERAL(&t, "{\"t\":\"n\"");
    if (seq) {
        PUT_LITERAL(&t, ",\"seq\":");
        put_u64(&t, seq);
    }
    if (lane == BF_LANE_CRITICAL)
        PUT_LITERAL(&t, ",\"lane\":\"critical\"");
    else if (lane == BF_LANE_BULK)
        PUT_LITERAL(&t, ",\"lane\":\"bulk\"");
    PUT_LITERAL(&t, ",\"id\":\"");
    put_id(&t, id);
    PUT_LITERAL(&t, "\",");
    put(&t, fragment.at, fragment.len);
    PUT_LITERAL(&t, "}");
    return text_end(out, &t);
}

size_t bf_frame_b(uint8_t *out, size_t cap, uint64_t bseq, const struct bf_id *id,
                  struct bf_bytes fragment)
{
    struct text t = text_begin(out, cap);
    PUT_LITERAL(&t, "{\"t\":\"b\",\"bseq\":");
    put_u64(&t, bseq);
    PUT_LITERAL(&t, ",\"id\":\"");
    put_id(&t, id);
    PUT_LITERAL(&t, "\",");
    put(&t, fragment.at, fragment.len);
    PUT_LITERAL(&t, "}");
    return text_end(out, &t);
}

size_t bf_frame_welcome(uint8_t *out, size_t cap, const struct bf_welcome *w)
{
    struct text t = text_begin(out, cap);
    char conn[40];
    int n = snprintf(conn, sizeof(conn), "%" PRIu32 "-%" PRIx64, w->worker, w->conn);
    PUT_LITERAL(&t, "{\"t\":\"welcome\",\"conn\":\"");
    put(&t, conn, (size_t)n);
    PUT_LITERAL(&t, "\",\"user\":");
    put_json_string(&t, w->user.at, w->user.len);
    PUT_LITERAL(&t, ",\"epoch\":");
    put_json_string(&t, w->epoch.at, w->epoch.len);
    PUT_LITERAL(&t, ",\"seq\":");
    put_u64(&t, w->head[BF_LANE_NORMAL]);
    PUT_LITERAL(&t, ",\"lanes\":{\"critical\":");
    put_u64(&t, w->head[BF_LANE_CRITICAL]);
    PUT_LITERAL(&t, ",\"bulk\":");
    put_u64(&t, w->head[BF_LANE_BULK]);
    PUT_LITERAL(&t, "},\"b\":");
    put_u64(&t, w->b);
    PUT_LITERAL(&t, ",\"resumed\":");
    if (w->resumed)
        PUT_LITERAL(&t, "true");
    else
        PUT_LITERAL(&t, "false");
    PUT_LITERAL(&t, ",\"unread\":");
    put_u64(&t, w->unread);
    PUT_LITERAL(&t, ",\"ping_ms\":");
    put_u64(&t, w->ping_ms);
    if (w->expires_ms) {
        PUT_LITERAL(&t, ",\"expires\":");
        put_u64(&t, w->expires_ms);
    }
    PUT_LITERAL(&t, "}");
    return text_end(out, &t);
}

size_t bf_frame_state(uint8_t *out, size_t cap, const struct bf_id *id, const char *member,
                      bool value, uint32_t unread)
{
    struct text t = text_begin(out, cap);
    PUT_LITERAL(&t, "{\"t\":\"state\",\"id\":\"");
    put_id(&t, id);
    PUT_LITERAL(&t, "\",\"");
    put(&t, member, strlen(member));
    if (value)
        PUT_LITERAL(&t, "\":true,\"unread\":");
    else
        PUT_LITERAL(&t, "\":false,\"unread\":");
    put_u64(&t, unread);
    PUT_LITERAL(&t, "}");
    return text_end(out, &t);
}

static void put_ref(struct text *t, struct bf_bytes ref)
{
    if (ref.len == 0)
        return;
    PUT_LITERAL(t, ",\"ref\":");
    put(t, ref.at, ref.len);
}

size_t bf_frame_ok(uint8_t *out, size_t cap, struct bf_bytes ref, uint32_t unread)
{
    struct text t = text_begin(out, cap);
    PUT_LITERAL(&t, "{\"t\":\"ok\"");
    put_ref(&t, ref);
    PUT_LITERAL(&t, ",\"unread\":");
    put_u64(&t, unread);
    PUT_LITERAL(&t, "}");
    return text_end(out, &t);
}

size_t bf_frame_error(uint8_t *out, size_t cap, const char *code, const char *message,
                      bool temporary, struct bf_bytes ref)
{
    struct text t = text_begin(out, cap);
    PUT_LITERAL(&t, "{\"t\":\"error\",\"code\":");
    put_json_string(&t, code, strlen(code));
    PUT_LITERAL(&t, ",\"message\":");
    put_json_string(&t, message, strlen(message));
    if (temporary)
        PUT_LITERAL(&t, ",\"temporary\":true");
    else
        PUT_LITERAL(&t, ",\"temporary\":false");
    put_ref(&t, ref);
    PUT_LITERAL(&t, "}");
    return text_end(out, &t);
}
