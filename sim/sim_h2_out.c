/* HTTP/2 server side, output and streams: see sim_h2.h. Answers are literals without indexing: no
 * state. */
#include "sim_conn.h"

#include <stdio.h>
#include <stdlib.h>

#define FRAME_HEAD       9u
#define FLAG_END_STREAM  1u
#define FLAG_END_HEADERS 4u
#define DEFAULT_WINDOW   65535
/* :status and the fields of an answer, each with a name below 32 bytes */
#define BLOCK_BYTES_MAX (16u + (SIM_ANSWER_FIELDS_MAX + 3u) * (SIM_ID_BYTES_MAX + 40u))

/* ---- streams ---- */

void sim_h2_link(struct sim_conn *c, struct sim_stream *s)
{
    struct sim_h2 *h = &c->h2;
    struct sim_stream **bucket = &h->buckets[((uint32_t)s->id >> 1) % SIM_H2_BUCKETS];
    s->hash_next = *bucket;
    *bucket = s;
    s->live = &h->live;
    s->live_next = h->live;
    if (h->live)
        h->live->live = &s->live_next;
    h->live = s;
    s->send_window = h->peer_initial_window;
    h->open++;
}

void sim_h2_unlink(struct sim_conn *c, struct sim_stream *s)
{
    struct sim_h2 *h = &c->h2;
    struct sim_stream **at = &h->buckets[((uint32_t)s->id >> 1) % SIM_H2_BUCKETS];
    while (*at != s)
        at = &(*at)->hash_next;
    *at = s->hash_next;
    *s->live = s->live_next;
    if (s->live_next)
        s->live_next->live = s->live;
    h->open--;
    if (s->waiting)
        sim_count(&c->w->counters[c->provider].answers_late, 1);
    sim_stream_put(&c->w->streams, s);
}

/* ---- frames ---- */

static void put_u32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static void put_head(uint8_t *p, size_t bytes, uint8_t type, uint8_t flags, int32_t id)
{
    p[0] = (uint8_t)(bytes >> 16);
    p[1] = (uint8_t)(bytes >> 8);
    p[2] = (uint8_t)bytes;
    p[3] = type;
    p[4] = flags;
    put_u32(p + 5, (uint32_t)id);
}

void sim_h2_frame(struct sim_conn *c, uint8_t type, uint8_t flags, int32_t id,
                  const uint8_t *payload, size_t bytes)
{
    uint8_t *at = sim_conn_out(c, FRAME_HEAD + bytes);
    if (!at)
        return;
    put_head(at, bytes, type, flags, id);
    if (bytes)
        memcpy(at + FRAME_HEAD, payload, bytes);
}

void sim_h2_rst(struct sim_conn *c, int32_t id, enum sim_h2_error error)
{
    uint8_t code[4];
    put_u32(code, error);
    sim_h2_frame(c, SIM_H2_RST_STREAM, 0, id, code, 4);
}

void sim_h2_window_update(struct sim_conn *c, int32_t id, uint32_t more)
{
    uint8_t increment[4];
    put_u32(increment, more);
    sim_h2_frame(c, SIM_H2_WINDOW_UPDATE, 0, id, increment, 4);
}

static void put_setting(uint8_t *p, uint16_t id, uint32_t v)
{
    p[0] = (uint8_t)(id >> 8);
    p[1] = (uint8_t)id;
    put_u32(p + 2, v);
}

static void note_limit(struct sim_h2 *h, uint32_t limit)
{
    h->limit_announced = limit;
    h->limits_pending[h->pending_count++] = limit;
}

bool sim_h2_open(struct sim_conn *c, uint32_t limit)
{
    struct sim_h2 *h = &c->h2;
    uint8_t settings[18];
    sim_hpack_init(&h->hpack);
    h->send_window = h->peer_initial_window = DEFAULT_WINDOW;
    h->peer_frame_max = SIM_H2_FRAME_BYTES_MAX;
    h->limit_in_force = UINT32_MAX; /* until our first SETTINGS is acknowledged */
    h->part = malloc(FRAME_HEAD + SIM_H2_FRAME_BYTES_MAX);
    if (!h->part)
        return false;
    put_setting(settings, 3, limit);
    put_setting(settings + 6, 4, SIM_H2_STREAM_WINDOW);
    put_setting(settings + 12, 6, SIM_H2_LIST_BYTES_MAX);
    sim_h2_frame(c, SIM_H2_SETTINGS, 0, 0, settings, sizeof(settings));
    note_limit(h, limit);
    sim_h2_window_update(c, 0, SIM_H2_CONN_WINDOW - DEFAULT_WINDOW);
    return true;
}

void sim_h2_close(struct sim_conn *c)
{
    while (c->h2.live)
        sim_h2_unlink(c, c->h2.live);
    free(c->h2.part);
    free(c->h2.block);
    c->h2.part = c->h2.block = NULL;
}

void sim_h2_limit(struct sim_conn *c, uint32_t limit)
{
    struct sim_h2 *h = &c->h2;
    uint8_t setting[6];
    if (limit == h->limit_announced || h->pending_count == SIM_H2_SETTINGS_PENDING)
        return;
    put_setting(setting, 3, limit);
    sim_h2_frame(c, SIM_H2_SETTINGS, 0, 0, setting, sizeof(setting));
    note_limit(h, limit);
}

void sim_h2_goaway(struct sim_conn *c, int32_t last, enum sim_h2_error error, const char *debug)
{
    struct sim_h2 *h = &c->h2;
    uint8_t payload[256];
    size_t n = strlen(debug);
    if (h->goaway_sent && last >= h->goaway_last && error == SIM_H2_NO_ERROR)
        return;
    n = n < sizeof(payload) - 8 ? n : sizeof(payload) - 8;
    put_u32(payload, (uint32_t)last);
    put_u32(payload + 4, error);
    memcpy(payload + 8, debug, n);
    sim_h2_frame(c, SIM_H2_GOAWAY, 0, 0, payload, 8 + n);
    h->goaway_sent = true;
    h->goaway_last = last;
    for (struct sim_stream *s = h->live, *next; s; s = next) {
        next = s->live_next;
        if (s->id > last)
            sim_h2_unlink(c, s);
    }
}

bool sim_h2_is_done(const struct sim_conn *c)
{
    const struct sim_h2 *h = &c->h2;
    return h->over || ((h->goaway_sent || h->peer_leaves) && !h->live);
}

/* ---- answers ---- */

/* A string without Huffman: length below 127 + 128 * 128, then the bytes. */
static uint8_t *put_string(uint8_t *p, const char *text, size_t n)
{
    if (n < 127) {
        *p++ = (uint8_t)n;
    } else {
        *p++ = 127;
        *p++ = (uint8_t)((n - 127) & 0x7f) | (n - 127 > 0x7f ? 0x80 : 0);
        if (n - 127 > 0x7f)
            *p++ = (uint8_t)((n - 127) >> 7);
    }
    memcpy(p, text, n);
    return p + n;
}

static uint8_t *put_field(uint8_t *p, const char *name, const char *value, size_t value_n)
{
    *p++ = 0; /* literal without indexing, new name */
    p = put_string(p, name, strlen(name));
    return put_string(p, value, value_n);
}

static uint8_t *put_status(uint8_t *p, uint16_t status)
{
    if (status == 200) {
        *p++ = 0x88; /* static table */
        return p;
    }
    const char text[3] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10),
                          (char)('0' + status % 10)};
    *p++ = 0x08; /* literal without indexing, name :status of the static table */
    return put_string(p, text, 3);
}

static size_t put_block(uint8_t *block, const struct sim_answer *a)
{
    char number[16];
    uint8_t *p = put_status(block, a->status);
    for (uint32_t i = 0; i < a->fields_count; i++)
        p = put_field(p, a->fields[i].name, a->fields[i].value, strlen(a->fields[i].value));
    if (a->retry_after_s)
        p = put_field(p, "retry-after", number,
                      (size_t)snprintf(number, sizeof(number), "%u", a->retry_after_s));
    if (a->content_type)
        p = put_field(p, "content-type", a->content_type, strlen(a->content_type));
    if (a->body_bytes)
        p = put_field(p, "content-length", number,
                      (size_t)snprintf(number, sizeof(number), "%u", a->body_bytes));
    return (size_t)(p - block);
}

/* Sends as much of the body as both windows let. True when all of it has left. */
static bool send_body(struct sim_conn *c, struct sim_stream *s)
{
    struct sim_h2 *h = &c->h2;
    while (s->body_sent < s->a.body_bytes) {
        int64_t left = s->a.body_bytes - s->body_sent;
        int64_t window = s->send_window < h->send_window ? s->send_window : h->send_window;
        int64_t n = left < window ? left : window;
        if (n <= 0)
            return false;
        sim_h2_frame(c, SIM_H2_DATA, n == left ? FLAG_END_STREAM : 0, s->id,
                     (const uint8_t *)s->a.body + s->body_sent, (size_t)n);
        s->body_sent += (uint32_t)n;
        s->send_window -= n;
        h->send_window -= n;
    }
    return true;
}

void sim_h2_answer(struct sim_conn *c, struct sim_stream *s)
{
    uint8_t *at = sim_conn_out(c, FRAME_HEAD + BLOCK_BYTES_MAX);
    if (!at)
        return; /* the connection is lost: sim_conn_out has said so */
    size_t n = put_block(at + FRAME_HEAD, &s->a);
    put_head(at, n, SIM_H2_HEADERS, FLAG_END_HEADERS | (s->a.body_bytes ? 0 : FLAG_END_STREAM),
             s->id);
    sim_conn_out_less(c, BLOCK_BYTES_MAX - n);
    s->body_waits = !send_body(c, s);
    if (!s->body_waits)
        sim_h2_unlink(c, s);
}

void sim_h2_send_waiting(struct sim_conn *c)
{
    for (struct sim_stream *s = c->h2.live, *next; s; s = next) {
        next = s->live_next;
        if (s->body_waits && send_body(c, s))
            sim_h2_unlink(c, s);
    }
}

void sim_h2_reset(struct sim_conn *c, struct sim_stream *s, enum sim_h2_error error, bool header)
{
    static const uint8_t ok = 0x88; /* :status 200 */
    if (header)
        sim_h2_frame(c, SIM_H2_HEADERS, FLAG_END_HEADERS, s->id, &ok, 1);
    sim_h2_rst(c, s->id, error);
    sim_h2_unlink(c, s);
}
