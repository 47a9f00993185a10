/*
 * HTTP/2 of a connection, by an nghttp2 server session: requests in, answers out, and the faults
 * that a stream or a connection suffers on the way. nghttp2 does framing, HPACK and flow control;
 * no I/O here.
 */
#include "sim_conn.h"

#include <stdio.h>
#include <stdlib.h>

#include "sim_provider.h"

#define WINDOW_STREAM_BYTES (1 << 20)  /* a body never waits for a WINDOW_UPDATE */
#define WINDOW_CONN_BYTES   (64 << 20) /* nor a connection */
#define HEADER_LIST_MAX     8000u      /* as APNs announces */
#define GOAWAY_WAIT_NS      50000000ull

/* ---- limits of the peer
 * -------------------------------------------------------------------------------- */

/* What the peer may have open now: APNs gives one stream until it has seen good credentials. */
static uint32_t streams_wanted(struct sim_conn *c)
{
    struct sim_fault *f = sim_conn_fault(c, SIM_STREAM_LIMIT);
    if (f && c->streams >= f->after_streams)
        return f->limit;
    bool locked =
        c->provider == SIM_APNS && !c->peer.authenticated && c->peer.cert == SIM_CERT_NONE;
    return locked ? 1 : c->w->sim->streams_max;
}

void sim_h2_announce(struct sim_conn *c)
{
    uint32_t wanted = streams_wanted(c);
    if (wanted == c->streams_limit)
        return;
    nghttp2_settings_entry entry = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, wanted};
    nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, &entry, 1);
    c->streams_limit = wanted;
}

/* ---- answers
 * --------------------------------------------------------------------------------------------- */

static ssize_t read_body(nghttp2_session *h2, int32_t id, uint8_t *out, size_t room,
                         uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)h2;
    (void)id;
    (void)user;
    struct sim_stream *s = source->ptr;
    size_t left = s->a.body_bytes - s->body_sent, n = left < room ? left : room;
    memcpy(out, s->a.body + s->body_sent, n);
    s->body_sent += (uint32_t)n;
    if (n == left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

/* Neither name nor value is copied: names are static, values live as long as the stream. */
static nghttp2_nv nv(const char *name, const char *value, size_t n, bool index)
{
    uint8_t flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), n,
                        index ? flags : flags | NGHTTP2_NV_FLAG_NO_INDEX};
}

static void submit(struct sim_conn *c, struct sim_stream *s)
{
    char status[4], retry[16], length[16];
    const struct sim_answer *a = &s->a;
    nghttp2_nv fields[4 + SIM_ANSWER_FIELDS_MAX];
    size_t count = 0;
    status[0] = (char)('0' + a->status / 100);
    status[1] = (char)('0' + a->status / 10 % 10);
    status[2] = (char)('0' + a->status % 10);
    fields[count] = nv(":status", status, 3, true);
    fields[count++].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME; /* |status| ends with this function */
    for (uint32_t i = 0; i < a->fields_count; i++)
        fields[count++] =
            nv(a->fields[i].name, a->fields[i].value, strlen(a->fields[i].value), false);
    if (a->retry_after_s) {
        int n = snprintf(retry, sizeof(retry), "%u", a->retry_after_s);
        fields[count] = nv("retry-after", retry, (size_t)n, true);
        fields[count++].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME;
    }
    if (a->content_type)
        fields[count++] = nv("content-type", a->content_type, strlen(a->content_type), true);
    if (a->body_bytes) {
        int n = snprintf(length, sizeof(length), "%u", a->body_bytes);
        fields[count] = nv("content-length", length, (size_t)n, true);
        fields[count++].flags = NGHTTP2_NV_FLAG_NO_COPY_NAME;
    }
    nghttp2_data_provider body = {.source.ptr = s, .read_callback = read_body};
    nghttp2_submit_response(c->h2, s->id, fields, count, a->body_bytes ? &body : NULL);
}

/* ---- faults
 * ------------------------------------------------------------------------------------------------
 */

static void hold(struct sim_conn *c, struct sim_stream *s, const char *why)
{
    s->held = true;
    sim_worker_unprocessed(c->w, s, why);
}

static void spoil(struct sim_conn *c)
{
    /* one of the frames that RFC 9113 forbids, chosen by the worker's random numbers */
    static const struct {
        uint8_t bytes[24];
        uint8_t n;
    } frames[] = {
        {{0, 0, 4, NGHTTP2_DATA, 1, 0, 0, 0, 0, 'o', 'o', 'p', 's'}, 13},  /* DATA on stream 0 */
        {{0, 0, 5, NGHTTP2_SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0}, 14},   /* SETTINGS of 5 bytes */
        {{0xff, 0xff, 0xff, NGHTTP2_DATA, 0, 0, 0, 0, 1, 0}, 10},          /* frame of 16 MB */
        {{0, 0, 4, NGHTTP2_WINDOW_UPDATE, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 13}, /* increment 0 */
        {{0, 0, 3, NGHTTP2_HEADERS, 4, 0, 0, 0, 1, 0xff, 0xff, 0xff},
         12},                                                       /* HPACK index beyond all */
        {{0, 0, 1, NGHTTP2_CONTINUATION, 4, 0, 0, 0, 1, 0x88}, 10}, /* CONTINUATION of nothing */
        {{0, 0, 4, NGHTTP2_PUSH_PROMISE, 4, 0, 0, 0, 1, 0, 0, 0, 2}, 13}, /* push, never allowed */
        {{'H', 'T', 'T', 'P', '/', '1', '.', '1', ' ', '2', '0', '0', ' ', 'O', 'K', '\r', '\n',
          '\r', '\n'},
         19},
    };
    unsigned which = (unsigned)(sim_rng_next(&c->w->rng) % (sizeof(frames) / sizeof(frames[0])));
    if (c->out_bytes + frames[which].n <= SIM_OUT_BYTES) {
        memcpy(c->out + c->out_bytes, frames[which].bytes, frames[which].n);
        c->out_bytes += frames[which].n;
    }
    c->state = SIM_CONN_SPOILT;
}

static void begin_endless(struct sim_conn *c)
{
    const uint8_t head[10] = {0,
                              0,
                              1,
                              NGHTTP2_HEADERS,
                              0,
                              (uint8_t)(c->newest_id >> 24),
                              (uint8_t)(c->newest_id >> 16),
                              (uint8_t)(c->newest_id >> 8),
                              (uint8_t)c->newest_id,
                              0x88 /* :status 200 */};
    if (c->out_bytes + sizeof(head) <= SIM_OUT_BYTES) {
        memcpy(c->out + c->out_bytes, head, sizeof(head));
        c->out_bytes += sizeof(head);
    }
    c->state = SIM_CONN_ENDLESS;
}

static bool fires(struct sim_conn *c, enum sim_fault_kind kind)
{
    struct sim_fault *f = sim_conn_fault(c, kind);
    if (!f || c->streams <= f->after_streams || (kind == SIM_RESET && f->how[0]))
        return false;
    atomic_fetch_add_explicit(&f->fired, 1, memory_order_relaxed); /* a statistic */
    sim_count(&c->w->counters[c->provider].faults, 1);
    return true;
}

/* Faults that end the connection as a connection. True when this request is lost to one. */
static bool conn_faults(struct sim_conn *c, struct sim_stream *s)
{
    const uint32_t kinds =
        1u << SIM_RESET | 1u << SIM_HALF_OPEN | 1u << SIM_NONSENSE | 1u << SIM_ENDLESS_HEADERS;
    if (!(c->w->script->kinds & kinds))
        return false;
    if (fires(c, SIM_RESET)) {
        hold(c, s, "reset");
        sim_conn_close(c, true);
    } else if (fires(c, SIM_HALF_OPEN)) {
        hold(c, s, "half_open");
        sim_conn_freeze(c);
    } else if (fires(c, SIM_NONSENSE)) {
        hold(c, s, "nonsense");
        spoil(c);
    } else if (fires(c, SIM_ENDLESS_HEADERS)) {
        hold(c, s, "endless_headers");
        begin_endless(c);
    } else {
        return false;
    }
    return true;
}

static void send_goaway(struct sim_conn *c)
{
    char debug[128] = "";
    if (c->goaway_sent)
        return;
    if (c->provider == SIM_APNS)
        snprintf(debug, sizeof(debug), "{\"reason\":\"%s\"}", c->goaway_reason);
    c->goaway_sent = true;
    nghttp2_submit_goaway(c->h2, NGHTTP2_FLAG_NONE, c->goaway_last, NGHTTP2_NO_ERROR,
                          (uint8_t *)debug, strlen(debug));
}

static void plan_goaway(struct sim_conn *c, struct sim_fault *f, int32_t last)
{
    struct sim_delay_row row = {c->w->now_ns + GOAWAY_WAIT_NS, c->slot, c->w->generations[c->slot],
                                0, SIM_DELAY_GOAWAY};
    c->goaway_last = last;
    c->goaway_drop = f->drop;
    snprintf(c->goaway_reason, sizeof(c->goaway_reason), "%s",
             f->reason[0] ? f->reason : "Shutdown");
    atomic_fetch_add_explicit(&f->fired, 1, memory_order_relaxed); /* a statistic */
    sim_count(&c->w->counters[c->provider].faults, 1);
    if (f->drop == 0 || !sim_delay_push(&c->w->delay, row))
        send_goaway(c);
}

/* GOAWAY with unprocessed streams: what comes above the last stream is held, never looked at. */
static bool goaway_takes(struct sim_conn *c, struct sim_stream *s)
{
    if (c->goaway_last == 0 || s->id <= c->goaway_last)
        return false;
    hold(c, s, "goaway");
    if (++c->goaway_held >= c->goaway_drop)
        send_goaway(c);
    return true;
}

/* Faults of one stream. True when it gets no answer of a provider. */
static bool stream_faults(struct sim_conn *c, struct sim_stream *s)
{
    struct sim_worker *w = c->w;
    struct sim_script *sc = w->script;
    const uint32_t kinds = 1u << SIM_REFUSE_STREAM | 1u << SIM_STALL | 1u << SIM_RESET;
    if (!(sc->kinds & kinds))
        return false;
    if (sim_script_draw(sc, SIM_REFUSE_STREAM, c->provider, w->ctx.now_ms, &w->rng)) {
        hold(c, s, "refuse_stream");
        nghttp2_submit_rst_stream(c->h2, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_REFUSED_STREAM);
        return true;
    }
    if (sim_script_draw(sc, SIM_STALL, c->provider, w->ctx.now_ms, &w->rng)) {
        hold(c, s, "stall");
        return true;
    }
    struct sim_fault *f = sim_script_active(sc, SIM_RESET, c->provider, w->ctx.now_ms);
    if (!f || !f->how[0] || sim_rng_unit(&w->rng) >= f->rate)
        return false;
    atomic_fetch_add_explicit(&f->fired, 1, memory_order_relaxed); /* a statistic */
    hold(c, s, "reset");
    if (strcmp(f->how, "mid") == 0) { /* an answer that breaks off behind its header */
        nghttp2_nv ok = nv(":status", "200", 3, true);
        nghttp2_submit_headers(c->h2, NGHTTP2_FLAG_NONE, s->id, NULL, &ok, 1, NULL);
    }
    nghttp2_submit_rst_stream(c->h2, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_INTERNAL_ERROR);
    return true;
}

/* ---- requests
 * -----------------------------------------------------------------------------------------------
 */

static void on_request(struct sim_conn *c, struct sim_stream *s)
{
    c->streams++;
    c->newest_id = s->id;
    if (c->state != SIM_CONN_H2) { /* spoilt while this batch was read */
        hold(c, s, "after_fault");
        return;
    }
    if (goaway_takes(c, s) || conn_faults(c, s) || stream_faults(c, s))
        return;
    uint64_t wait_ns = sim_worker_decide(c->w, s);
    if (s->a.authenticated)
        c->peer.authenticated = true;
    struct sim_fault *f = sim_conn_fault(c, SIM_GOAWAY);
    if (f && c->goaway_last == 0 && c->streams >= f->after_streams)
        plan_goaway(c, f, s->id);
    struct sim_delay_row row = {c->w->now_ns + wait_ns, c->slot, c->w->generations[c->slot], s->id,
                                SIM_DELAY_ANSWER};
    s->waiting = wait_ns > 0 && sim_delay_push(&c->w->delay, row);
    if (!s->waiting)
        submit(c, s);
}

static void link_live(struct sim_conn *c, struct sim_stream *s)
{
    s->live = &c->live;
    s->live_next = c->live;
    if (c->live)
        c->live->live = &s->live_next;
    c->live = s;
}

static void put_live(struct sim_conn *c, struct sim_stream *s)
{
    *s->live = s->live_next;
    if (s->live_next)
        s->live_next->live = s->live;
    if (s->waiting)
        sim_count(&c->w->counters[c->provider].answers_late, 1);
    sim_stream_put(&c->w->streams, s);
}

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    struct sim_conn *c = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct sim_stream *s = sim_stream_take(&c->w->streams, c, frame->hd.stream_id);
    if (!s)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    link_live(c, s);
    nghttp2_session_set_stream_user_data(h2, frame->hd.stream_id, s);
    return 0;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags, void *user)
{
    (void)flags;
    (void)user;
    struct sim_stream *s = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    if (s)
        sim_stream_field(s, (struct sim_slice){(const char *)name, (uint32_t)name_n},
                         (struct sim_slice){(const char *)value, (uint32_t)value_n});
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
                   void *user)
{
    (void)flags;
    struct sim_conn *c = user;
    struct sim_stream *s = nghttp2_session_get_stream_user_data(h2, id);
    if (s)
        sim_stream_body(&c->w->streams, s, data, n);
    return 0;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    struct sim_conn *c = user;
    bool ends = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
                (frame->hd.flags & NGHTTP2_FLAG_END_STREAM);
    struct sim_stream *s =
        ends ? nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id) : NULL;
    if (s)
        on_request(c, s);
    return 0;
}

static int on_stream_close(nghttp2_session *h2, int32_t id, uint32_t error, void *user)
{
    (void)error;
    struct sim_conn *c = user;
    struct sim_stream *s = nghttp2_session_get_stream_user_data(h2, id);
    if (s)
        put_live(c, s);
    return 0;
}

/* ---- session
 * -------------------------------------------------------------------------------------------------
 */

static int session_create(struct sim_conn *c)
{
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *option = NULL;
    int error = nghttp2_session_callbacks_new(&cb);
    if (error == 0)
        error = nghttp2_option_new(&option);
    if (error == 0) {
        nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
        nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
        nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
        nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
        nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
        nghttp2_option_set_no_closed_streams(option, 1);
        error = nghttp2_session_server_new2(&c->h2, cb, c, option);
    }
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    return error;
}

bool sim_h2_open(struct sim_conn *c)
{
    if (session_create(c) != 0)
        return false;
    c->streams_limit = streams_wanted(c);
    const nghttp2_settings_entry entries[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, c->streams_limit},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_STREAM_BYTES},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADER_LIST_MAX},
    };
    nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, entries,
                            sizeof(entries) / sizeof(entries[0]));
    nghttp2_session_set_local_window_size(c->h2, NGHTTP2_FLAG_NONE, 0, WINDOW_CONN_BYTES);
    return true;
}

void sim_h2_close(struct sim_conn *c)
{
    nghttp2_session_del(c->h2); /* without on_stream_close for the streams still open */
    c->h2 = NULL;
    while (c->live)
        put_live(c, c->live);
}

bool sim_h2_read(struct sim_conn *c, const uint8_t *data, size_t bytes)
{
    ssize_t n = nghttp2_session_mem_recv(c->h2, data, bytes);
    if (c->state == SIM_CONN_DEAD)
        return false;
    if (n < 0) {
        sim_count(&c->w->counters[c->provider].protocol_errors, 1);
        return false;
    }
    if (c->state == SIM_CONN_H2)
        sim_h2_announce(c);
    return true;
}

bool sim_h2_write(struct sim_conn *c)
{
    while (c->out_bytes < SIM_OUT_BYTES / 2) {
        const uint8_t *data = NULL;
        ssize_t n = nghttp2_session_mem_send(c->h2, &data);
        if (n < 0)
            return false;
        if (n == 0)
            break;
        memcpy(c->out + c->out_bytes, data,
               (size_t)n); /* a frame is 16 KB at most, half of |out| is free */
        c->out_bytes += (size_t)n;
    }
    return nghttp2_session_want_read(c->h2) || nghttp2_session_want_write(c->h2);
}

void sim_h2_on_delay(struct sim_conn *c, const struct sim_delay_row *row)
{
    if (row->kind == SIM_DELAY_GOAWAY) {
        send_goaway(c);
    } else if (row->kind == SIM_DELAY_ANSWER) {
        struct sim_stream *s = nghttp2_session_get_stream_user_data(c->h2, row->stream);
        if (!s || !s->waiting)
            return;
        s->waiting = false;
        submit(c, s);
    }
}
