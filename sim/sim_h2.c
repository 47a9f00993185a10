/* HTTP/2 server side: see sim_h2.h. Output is in sim_h2_out.c. */
#include "sim_conn.h"

#include <stdlib.h>

#include "sim_text.h"

#define FLAG_END_STREAM  1u
#define FLAG_ACK         1u
#define FLAG_END_HEADERS 4u
#define FLAG_PADDED      8u
#define FLAG_PRIORITY    32u
#define FRAME_HEAD       9u
#define WINDOW_MAX       0x7fffffffll

static const char preface[24] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

struct frame {
    uint8_t type, flags;
    int32_t id;
    const uint8_t *p, *end; /* payload */
};

static uint32_t read_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Counts a connection once, for what it has done. */
static void count_once(bool *is_counted, _Atomic uint64_t *counter)
{
    sim_count(counter, !*is_counted);
    *is_counted = true;
}

/* The connection broke a rule: GOAWAY says so, and it is over. Always false. */
static bool lost(struct sim_conn *c, enum sim_h2_error error)
{
    sim_count(&c->w->counters[c->provider].protocol_errors, 1);
    sim_h2_goaway(c, c->h2.last_id, error, "");
    c->h2.over = true;
    return false;
}

struct sim_stream *sim_h2_find(struct sim_conn *c, int32_t id)
{
    struct sim_stream *s = c->h2.buckets[((uint32_t)id >> 1) % SIM_H2_BUCKETS];
    while (s && s->id != id)
        s = s->hash_next;
    return s;
}

static bool take_padding(struct frame *f)
{
    if (!(f->flags & FLAG_PADDED))
        return true;
    if (f->p == f->end || *f->p >= f->end - f->p)
        return false;
    f->end -= *f->p;
    f->p++;
    return true;
}

/* ---- requests ---- */

/* Whole: its body is here. A wrong content-length is a malformed request (RFC 9113 8.1.1). */
static bool stream_ends(struct sim_conn *c, struct sim_stream *s)
{
    s->ended = true;
    if (s->length_given && s->length != s->q.body_bytes_total) {
        sim_h2_reset(c, s, SIM_H2_PROTOCOL_ERROR, false);
        return true;
    }
    count_once(&c->h2.is_used, &c->w->counters[c->provider].conns_used);
    sim_on_request(c, s);
    return true;
}

/* One decoded field of a request. False: the request is malformed (RFC 9113 8.2, 8.3). */
static bool take_field(struct sim_stream *s, const struct sim_hpack_field *f)
{
    bool pseudo = f->name.n > 0 && f->name.p[0] == ':';
    if (f->tag == SIM_TAG_FORBIDDEN || (pseudo && (s->regular_seen || f->tag == SIM_TAG_NONE)))
        return false;
    s->regular_seen = s->regular_seen || !pseudo;
    s->list_bytes += f->name.n + f->value.n + SIM_HPACK_ENTRY_EXTRA;
    if (f->tag == SIM_TAG_LENGTH) {
        s->length_given = true;
        return sim_text_number(f->value, UINT32_MAX, &s->length);
    }
    if (f->tag == SIM_TAG_SCHEME)
        s->scheme_seen = true;
    else if (f->tag >= 0) {
        if (pseudo && sim_request_has(&s->q, (enum sim_field)f->tag))
            return false;
        sim_stream_field(s, (enum sim_field)f->tag, f->value);
    }
    return true;
}

/* Decodes a block for |s|; NULL: only to keep the table in step. False: the connection is lost. */
static bool decode(struct sim_conn *c, struct sim_stream *s, const uint8_t *p, const uint8_t *end)
{
    struct sim_hpack_field field;
    bool good = true;
    int n;
    while ((n = sim_hpack_next(&c->h2.hpack, &p, end, &field)) > 0)
        good = good && (!s || take_field(s, &field));
    if (n < 0)
        return lost(c, SIM_H2_COMPRESSION_ERROR);
    if (!s)
        return true;
    good = good && sim_request_has(&s->q, SIM_F_METHOD) && sim_request_has(&s->q, SIM_F_PATH) &&
           s->scheme_seen;
    if (s->list_bytes > SIM_H2_LIST_BYTES_MAX)
        s->q.fields_too_big = true;
    if (!good)
        sim_h2_reset(c, s, SIM_H2_PROTOCOL_ERROR, false);
    return true;
}

/* The most that the peer may take for allowed: announcements that it has not acknowledged count
 * too. */
static uint32_t limit_believed(const struct sim_h2 *h)
{
    uint32_t limit = h->limit_in_force;
    for (uint32_t i = 0; i < h->pending_count; i++)
        if (h->limits_pending[i] > limit)
            limit = h->limits_pending[i];
    return limit;
}

/* A stream above the limit: refused while the peer cannot know better, an offence afterwards. */
static bool refuse(struct sim_conn *c, int32_t id)
{
    struct sim_h2 *h = &c->h2;
    sim_count(&c->w->counters[c->provider].unprocessed, 1);
    if (h->open >= limit_believed(h) || ++h->refusals > SIM_H2_REFUSALS_MAX) {
        /* error 7 with these words is what APNs was seen to send */
        sim_h2_goaway(c, h->last_id, SIM_H2_REFUSED_STREAM, "Maximum active streams violated");
        sim_count(&c->w->counters[c->provider].protocol_errors, 1);
        h->over = true;
        return false;
    }
    sim_h2_rst(c, id, SIM_H2_REFUSED_STREAM);
    return true;
}

/* A header block is whole: a new request, trailers, or something that came too late. */
static bool block_whole(struct sim_conn *c, int32_t id, bool ends, const uint8_t *p,
                        const uint8_t *end)
{
    struct sim_h2 *h = &c->h2;
    struct sim_stream *s = sim_h2_find(c, id);
    if (s) { /* trailers: nothing in them is looked at */
        if (!ends || s->ended)
            return lost(c, s->ended ? SIM_H2_STREAM_CLOSED : SIM_H2_PROTOCOL_ERROR);
        return decode(c, NULL, p, end) && stream_ends(c, s);
    }
    bool is_new = id > h->last_id;
    if (is_new)
        h->last_id = id;
    if (!is_new || h->goaway_sent) /* ended by us, or beyond our GOAWAY */
        return decode(c, NULL, p, end);
    if (h->open >= h->limit_announced)
        return decode(c, NULL, p, end) && refuse(c, id);
    s = sim_stream_take(&c->w->streams, c, id);
    if (!s)
        return lost(c, SIM_H2_INTERNAL_ERROR);
    sim_h2_link(c, s);
    if (!decode(c, s, p, end))
        return false;
    if (sim_h2_find(c, id) != s) /* malformed: reset already */
        return true;
    return !ends || stream_ends(c, s);
}

/* ---- frames ---- */

static bool keep_block(struct sim_conn *c, const struct frame *f)
{
    struct sim_h2 *h = &c->h2;
    size_t n = (size_t)(f->end - f->p);
    if (n > SIM_H2_BLOCK_BYTES_MAX - h->block_bytes)
        return lost(c, SIM_H2_ENHANCE_YOUR_CALM);
    if (!h->block && !(h->block = malloc(SIM_H2_BLOCK_BYTES_MAX)))
        return lost(c, SIM_H2_INTERNAL_ERROR);
    memcpy(h->block + h->block_bytes, f->p, n);
    h->block_bytes += (uint32_t)n;
    return true;
}

static bool on_headers(struct sim_conn *c, struct frame *f)
{
    struct sim_h2 *h = &c->h2;
    bool ends = f->flags & FLAG_END_STREAM;
    if (f->id % 2 == 0 || !take_padding(f))
        return lost(c, SIM_H2_PROTOCOL_ERROR);
    if (f->flags & FLAG_PRIORITY) {
        if (f->end - f->p < 5)
            return lost(c, SIM_H2_FRAME_SIZE_ERROR);
        f->p += 5;
    }
    if (f->flags & FLAG_END_HEADERS)
        return block_whole(c, f->id, ends, f->p, f->end);
    h->block_id = f->id;
    h->block_ends = ends;
    h->block_bytes = 0;
    return keep_block(c, f);
}

static bool on_continuation(struct sim_conn *c, struct frame *f)
{
    struct sim_h2 *h = &c->h2;
    int32_t id = h->block_id;
    if (id == 0)
        return lost(c, SIM_H2_PROTOCOL_ERROR);
    if (!keep_block(c, f))
        return false;
    if (!(f->flags & FLAG_END_HEADERS))
        return true;
    h->block_id = 0;
    return block_whole(c, id, h->block_ends, h->block, h->block + h->block_bytes);
}

static bool on_data(struct sim_conn *c, struct frame *f)
{
    struct sim_h2 *h = &c->h2;
    uint32_t flow = (uint32_t)(f->end - f->p);
    if (f->id == 0 || f->id > h->last_id || !take_padding(f))
        return lost(c, SIM_H2_PROTOCOL_ERROR);
    h->conn_unreported += flow;
    if (h->conn_unreported > SIM_H2_CONN_WINDOW)
        return lost(c, SIM_H2_FLOW_CONTROL_ERROR);
    if (h->conn_unreported > SIM_H2_CONN_WINDOW / 2) {
        sim_h2_window_update(c, 0, h->conn_unreported);
        h->conn_unreported = 0;
    }
    struct sim_stream *s = sim_h2_find(c, f->id);
    if (!s)
        return true; /* reset or answered: what was under way is thrown away */
    if (s->ended)
        return lost(c, SIM_H2_STREAM_CLOSED);
    s->received += flow;
    if (s->received > SIM_H2_STREAM_WINDOW) { /* we never widen it: no push is that large */
        sim_h2_reset(c, s, SIM_H2_FLOW_CONTROL_ERROR, false);
        return true;
    }
    sim_stream_body(&c->w->streams, s, f->p, (size_t)(f->end - f->p));
    return !(f->flags & FLAG_END_STREAM) || stream_ends(c, s);
}

static bool on_rst_stream(struct sim_conn *c, struct frame *f)
{
    if (f->end - f->p != 4)
        return lost(c, SIM_H2_FRAME_SIZE_ERROR);
    if (f->id == 0 || f->id > c->h2.last_id)
        return lost(c, SIM_H2_PROTOCOL_ERROR);
    struct sim_stream *s = sim_h2_find(c, f->id);
    if (s)
        sim_h2_unlink(c, s);
    return true;
}

static bool apply_setting(struct sim_conn *c, unsigned id, uint32_t v)
{
    struct sim_h2 *h = &c->h2;
    if (id == 2 && v > 1) /* ENABLE_PUSH */
        return lost(c, SIM_H2_PROTOCOL_ERROR);
    if (id == 4) { /* INITIAL_WINDOW_SIZE: open streams move by the difference */
        if (v > WINDOW_MAX)
            return lost(c, SIM_H2_FLOW_CONTROL_ERROR);
        for (struct sim_stream *s = h->live; s; s = s->live_next) {
            s->send_window += (int64_t)v - h->peer_initial_window;
            if (s->send_window > WINDOW_MAX)
                return lost(c, SIM_H2_FLOW_CONTROL_ERROR);
        }
        h->peer_initial_window = v;
    }
    if (id == 5) { /* MAX_FRAME_SIZE */
        if (v < 16384 || v > 0xffffff)
            return lost(c, SIM_H2_PROTOCOL_ERROR);
        h->peer_frame_max = v;
    }
    return true;
}

static bool on_settings(struct sim_conn *c, struct frame *f)
{
    struct sim_h2 *h = &c->h2;
    size_t n = (size_t)(f->end - f->p);
    bool ack = f->flags & FLAG_ACK;
    if (f->id != 0)
        return lost(c, SIM_H2_PROTOCOL_ERROR);
    if (ack ? n != 0 : n % 6 != 0)
        return lost(c, SIM_H2_FRAME_SIZE_ERROR);
    if (ack) {
        count_once(&h->is_settled, &c->w->counters[c->provider].conns_settled);
        if (h->pending_count == 0)
            return true;
        h->limit_in_force = h->limits_pending[0];
        h->pending_count--;
        memmove(h->limits_pending, h->limits_pending + 1,
                h->pending_count * sizeof(h->limits_pending[0]));
        return true;
    }
    for (; f->p < f->end; f->p += 6)
        if (!apply_setting(c, (unsigned)f->p[0] << 8 | f->p[1], read_u32(f->p + 2)))
            return false;
    sim_h2_frame(c, SIM_H2_SETTINGS, FLAG_ACK, 0, NULL, 0);
    sim_h2_send_waiting(c);
    return true;
}

static bool on_window_update(struct sim_conn *c, struct frame *f)
{
    if (f->end - f->p != 4)
        return lost(c, SIM_H2_FRAME_SIZE_ERROR);
    if (f->id > c->h2.last_id)
        return lost(c, SIM_H2_PROTOCOL_ERROR);
    struct sim_stream *s = f->id ? sim_h2_find(c, f->id) : NULL;
    int64_t more = read_u32(f->p) & WINDOW_MAX;
    if (f->id && !s)
        return true; /* for a stream that we ended */
    int64_t *window = s ? &s->send_window : &c->h2.send_window;
    if (more == 0 || *window + more > WINDOW_MAX) {
        if (!s)
            return lost(c, more ? SIM_H2_FLOW_CONTROL_ERROR : SIM_H2_PROTOCOL_ERROR);
        sim_h2_reset(c, s, more ? SIM_H2_FLOW_CONTROL_ERROR : SIM_H2_PROTOCOL_ERROR, false);
        return true;
    }
    *window += more;
    sim_h2_send_waiting(c);
    return true;
}

static bool on_ping(struct sim_conn *c, const struct frame *f)
{
    if (f->id != 0)
        return lost(c, SIM_H2_PROTOCOL_ERROR);
    if (f->end - f->p != 8)
        return lost(c, SIM_H2_FRAME_SIZE_ERROR);
    if (f->flags & FLAG_ACK)
        return true;
    count_once(&c->h2.is_pinged, &c->w->counters[c->provider].conns_pinged);
    sim_count(&c->w->counters[c->provider].pings, 1);
    sim_h2_frame(c, SIM_H2_PING, FLAG_ACK, 0, f->p, 8);
    return true;
}

static bool on_frame(struct sim_conn *c, struct frame *f)
{
    struct sim_h2 *h = &c->h2;
    if (h->block_id && (f->type != SIM_H2_CONTINUATION || f->id != h->block_id))
        return lost(c, SIM_H2_PROTOCOL_ERROR);
    if (!h->settings_seen && f->type != SIM_H2_SETTINGS)
        return lost(c, SIM_H2_PROTOCOL_ERROR);
    h->settings_seen = true;
    switch (f->type) {
    case SIM_H2_DATA:
        return on_data(c, f);
    case SIM_H2_HEADERS:
        return on_headers(c, f);
    case SIM_H2_CONTINUATION:
        return on_continuation(c, f);
    case SIM_H2_RST_STREAM:
        return on_rst_stream(c, f);
    case SIM_H2_SETTINGS:
        return on_settings(c, f);
    case SIM_H2_WINDOW_UPDATE:
        return on_window_update(c, f);
    case SIM_H2_PING:
        return on_ping(c, f);
    case SIM_H2_GOAWAY:
        h->peer_leaves = true;
        return f->id == 0 && f->end - f->p >= 8 ? true : lost(c, SIM_H2_PROTOCOL_ERROR);
    case SIM_H2_PRIORITY: /* deprecated; only its form is looked at */
        return f->id && f->end - f->p == 5 ? true : lost(c, SIM_H2_FRAME_SIZE_ERROR);
    case SIM_H2_PUSH_PROMISE: /* a client may not */
        return lost(c, SIM_H2_PROTOCOL_ERROR);
    default:
        return true; /* unknown types are ignored (RFC 9113 5.5) */
    }
}

/* ---- bytes to frames ---- */

static uint32_t payload_bytes(const uint8_t *head)
{
    return (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
}

static bool frame_whole(struct sim_conn *c, const uint8_t *p)
{
    struct frame f = {p[3], p[4], (int32_t)(read_u32(p + 5) & 0x7fffffff), p + FRAME_HEAD,
                      p + FRAME_HEAD + payload_bytes(p)};
    return on_frame(c, &f);
}

static bool take_preface(struct sim_conn *c, const uint8_t **data, size_t *bytes)
{
    struct sim_h2 *h = &c->h2;
    size_t n = sizeof(preface) - h->preface;
    n = n < *bytes ? n : *bytes;
    if (memcmp(*data, preface + h->preface, n) != 0)
        return lost(c, SIM_H2_PROTOCOL_ERROR);
    h->preface += (uint32_t)n;
    *data += n;
    *bytes -= n;
    return true;
}

/* Completes the frame in |part| as far as |data| goes. Returns the bytes taken, -1 when the frame
 * is too large. */
static long take_part(struct sim_conn *c, const uint8_t *data, size_t bytes, bool *ret_whole)
{
    struct sim_h2 *h = &c->h2;
    size_t taken = 0;
    *ret_whole = false;
    for (;;) {
        size_t wanted = FRAME_HEAD;
        if (h->part_bytes >= FRAME_HEAD) {
            if (payload_bytes(h->part) > SIM_H2_FRAME_BYTES_MAX)
                return -1;
            wanted += payload_bytes(h->part);
        }
        size_t n = wanted - h->part_bytes < bytes - taken ? wanted - h->part_bytes : bytes - taken;
        memcpy(h->part + h->part_bytes, data + taken, n);
        h->part_bytes += (uint32_t)n;
        taken += n;
        *ret_whole =
            h->part_bytes >= FRAME_HEAD && h->part_bytes == FRAME_HEAD + payload_bytes(h->part);
        if (*ret_whole || taken == bytes)
            return (long)taken;
    }
}

bool sim_h2_read(struct sim_conn *c, const uint8_t *data, size_t bytes)
{
    struct sim_h2 *h = &c->h2;
    if (h->preface < sizeof(preface) && !take_preface(c, &data, &bytes))
        return false;
    while (bytes > 0 && !h->over && c->state == SIM_CONN_H2) {
        size_t whole = bytes >= FRAME_HEAD ? FRAME_HEAD + payload_bytes(data) : SIZE_MAX;
        if (h->part_bytes == 0 && whole <= bytes && whole <= FRAME_HEAD + SIM_H2_FRAME_BYTES_MAX) {
            const uint8_t *at = data;
            data += whole;
            bytes -= whole;
            if (!frame_whole(c, at))
                return false;
            continue;
        }
        bool is_whole = false;
        long n = take_part(c, data, bytes, &is_whole);
        if (n < 0)
            return lost(c, SIM_H2_FRAME_SIZE_ERROR);
        data += n;
        bytes -= (size_t)n;
        if (is_whole) {
            h->part_bytes = 0;
            if (!frame_whole(c, h->part))
                return false;
        }
    }
    return !h->over && c->state != SIM_CONN_DEAD;
}
