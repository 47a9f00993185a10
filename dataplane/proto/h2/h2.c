/* See h2.h. nghttp2 does framing, flow control and the rules of messages (RFC 9113 section 8), and
 * decodes answers. Requests' header blocks are ours (hpack.h): nghttp2 builds a HEADERS frame with
 * two fields of the static table in it, whose block is replaced when the frame is given out. */
#include "proto/h2/h2.h"

#include <nghttp2/nghttp2.h>
#include <string.h>
#include <time.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "proto/h2/hpack.h"

/* A fixed number of names: fields whose value differs with each request. They shall not drive the
 * constant ones out of the table. */
static const struct bf_bytes unique_names[] = {
    {"apns-id", 7}, {"apns-expiration", 15}, {"apns-collapse-id", 16}, {"topic", 5}};

/* RFC 9113 section 4.1. */
#define FRAME_HEADER_BYTES 9u
/* NGHTTP2_ERR_TOO_MANY_CONTINUATIONS: of 1.61, and of older ones that distributions have mended;
 * their headers do not all name it. */
#define ERR_TOO_MANY_CONTINUATIONS (-905)
/* A header block with all its frames; an honest one has 1 KB. */
#define BLOCK_BYTES_MAX (2u * BF_H2_HEADER_LIST_MAX)

struct bf_h2 {
    nghttp2_session *session;
    bf_h2_event_fn on_event;
    void *context;
    const uint8_t *rest; /* of the frame that nghttp2 has built, not yet given out */
    size_t rest_len;
    uint64_t written;
    uint64_t second; /* of idle_frames */
    uint32_t idle_frames;
    /* The peer's frames by their heads, read beside nghttp2, which tells of no frame that it
     * ignores: those of a stream that is over. */
    uint8_t head[FRAME_HEADER_BYTES];
    uint8_t head_len;
    bool is_block;        /* between HEADERS and END_HEADERS */
    uint32_t frame_left;  /* bytes of a frame's payload still to come */
    uint32_t block_bytes; /* of the header block */
    uint32_t continuations;
    uint32_t frames_unseen; /* heads read, less frames that nghttp2 has told of */
    uint32_t error_code;    /* of our GOAWAY, where we end the session and not nghttp2 */
    uint32_t streams;
    int32_t goaway_last; /* -1: no GOAWAY */
    int failed;
    bool has_settings;
    const char *error_text;
    struct bf_hpack hpack;
    struct bf_h2_memory *memory;
};

/* ---- what nghttp2 tells ---- */

static void fail(struct bf_h2 *h, int rc, const char *text)
{
    if (h->failed == 0)
        h->error_text = text;
    h->failed = h->failed != 0 ? h->failed : rc;
}

/* The peer has passed a limit: our GOAWAY says so. */
static void fail_calm(struct bf_h2 *h, const char *text)
{
    h->error_code = NGHTTP2_ENHANCE_YOUR_CALM;
    fail(h, BF_ERR_MALFORMED, text);
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *user)
{
    struct bf_h2 *h = user;
    (void)session;
    h->frames_unseen--;
    bool is_answer = hd->type == NGHTTP2_HEADERS || hd->type == NGHTTP2_CONTINUATION ||
                     hd->type == NGHTTP2_RST_STREAM || (hd->type == NGHTTP2_DATA && hd->length > 0);
    if (!is_answer && ++h->idle_frames > BF_H2_IDLE_FRAMES_MAX) {
        fail_calm(h, "a flood of frames that answer nothing");
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return 0;
}

static struct bf_h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

/* retry-after: seconds, or a date (RFC 9110 section 10.2.3). */
static uint32_t retry_after_of(const char *text, size_t len)
{
    char copy[40];
    struct tm tm = {0};
    uint64_t seconds = 0;
    size_t at = 0;
    for (; at < len && text[at] >= '0' && text[at] <= '9'; at++)
        seconds = seconds < UINT32_MAX ? seconds * 10 + (uint64_t)(text[at] - '0') : seconds;
    if (at == len)
        return len == 0 ? BF_PUSH_NO_RETRY_AFTER
                        : (uint32_t)(seconds < UINT32_MAX ? seconds : UINT32_MAX - 1);
    if (len >= sizeof(copy))
        return BF_PUSH_NO_RETRY_AFTER;
    memcpy(copy, text, len);
    copy[len] = '\0';
    const char *end = strptime(copy, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (!end || *end != '\0')
        return BF_PUSH_NO_RETRY_AFTER;
    int64_t left = (int64_t)timegm(&tm) - (int64_t)(bf_wall_ms() / 1000u);
    return left < 0 ? 0 : left >= UINT32_MAX ? UINT32_MAX - 1 : (uint32_t)left;
}

static bool is_text(const uint8_t *at, size_t len, const char *text)
{
    return len == strlen(text) && memcmp(at, text, len) == 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_len, const uint8_t *value, size_t value_len, uint8_t flags,
                     void *user)
{
    struct bf_h2_stream *s = stream_of(session, frame->hd.stream_id);
    (void)flags, (void)user;
    if (!s)
        return 0;
    s->header_bytes += (uint32_t)(name_len + value_len) + 32u;
    if (s->header_bytes > BF_H2_HEADER_LIST_MAX)
        s->is_bad = true; /* reset at the block's end: until then it is counted */
    else if (is_text(name, name_len, ":status")) /* three digits: nghttp2 has checked */
        s->status = (uint16_t)((value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0'));
    else if (is_text(name, name_len, "retry-after"))
        s->retry_after_s = retry_after_of((const char *)value, value_len);
    return 0;
}

static void reset(nghttp2_session *session, int32_t id, uint32_t code)
{
    (void)nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, code);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes,
                   size_t len, void *user)
{
    struct bf_h2_stream *s = stream_of(session, id);
    (void)flags, (void)user;
    if (!s)
        return 0;
    size_t room = sizeof(s->answer) - s->answer_len;
    size_t keep = len < room ? len : room;
    memcpy(s->answer + s->answer_len, bytes, keep);
    s->answer_len = (uint16_t)(s->answer_len + keep);
    s->answer_bytes += (uint32_t)len;
    if (s->answer_bytes > BF_H2_BODY_BYTES_MAX && !s->is_answered) {
        s->is_answered = true; /* what it says is known */
        reset(session, id, NGHTTP2_CANCEL);
    }
    return 0;
}

static void headers_ended(nghttp2_session *session, const nghttp2_frame *frame)
{
    struct bf_h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (s && s->is_bad)
        reset(session, frame->hd.stream_id, NGHTTP2_CANCEL);
    if (!s || s->is_bad || s->status >= 200)
        return;
    s->status = 0; /* 1xx: the answer is still to come (RFC 9110 section 15.2) */
    s->retry_after_s = BF_PUSH_NO_RETRY_AFTER;
}

/* END_STREAM: the answer is whole. A body that waits for flow control is not wanted any more. */
static void stream_ended(nghttp2_session *session, int32_t id)
{
    struct bf_h2_stream *s = stream_of(session, id);
    if (!s)
        return;
    s->is_answered = true;
    if (s->body_at < s->body_len)
        reset(session, id, NGHTTP2_NO_ERROR);
}

static void reset_came(nghttp2_session *session, int32_t id)
{
    struct bf_h2_stream *s = stream_of(session, id);
    if (s)
        s->is_reset = true;
}

static void goaway(struct bf_h2 *h, const nghttp2_goaway *frame)
{
    size_t len = frame->opaque_data_len;
    struct bf_h2_event event = {
        .kind = BF_H2_GOAWAY,
        .error_code = frame->error_code,
        .last_stream_id = frame->last_stream_id,
        .debug = {.at = (const char *)frame->opaque_data,
                  .len = len < BF_H2_DEBUG_MAX ? len : BF_H2_DEBUG_MAX},
    };
    h->goaway_last = frame->last_stream_id;
    h->on_event(h->context, &event);
}

static void settings_came(struct bf_h2 *h, const nghttp2_settings *frame)
{
    const struct bf_h2_event event = {.kind = BF_H2_SETTINGS};
    for (size_t i = 0; i < frame->niv; i++)
        if (frame->iv[i].settings_id == NGHTTP2_SETTINGS_HEADER_TABLE_SIZE)
            bf_hpack_allow(&h->hpack, frame->iv[i].value);
    h->has_settings = true;
    h->on_event(h->context, &event);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct bf_h2 *h = user;
    struct bf_h2_event event = {0};
    bool is_ack = frame->hd.flags & NGHTTP2_FLAG_ACK;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        headers_ended(session, frame);
        break;
    case NGHTTP2_SETTINGS:
        if (!is_ack)
            settings_came(h, &frame->settings);
        return 0;
    case NGHTTP2_PING:
        event.kind = BF_H2_PONG;
        if (is_ack)
            h->on_event(h->context, &event);
        return 0;
    case NGHTTP2_GOAWAY:
        goaway(h, &frame->goaway);
        return 0;
    case NGHTTP2_RST_STREAM:
        reset_came(session, frame->hd.stream_id);
        return 0;
    case NGHTTP2_DATA:
        break;
    default:
        return 0;
    }
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        stream_ended(session, frame->hd.stream_id);
    return 0;
}

static int on_invalid(nghttp2_session *session, const nghttp2_frame *frame, int code, void *user)
{
    struct bf_h2 *h = user;
    (void)session, (void)frame;
    if (h->failed == 0)
        h->error_text = nghttp2_strerror(code); /* counts only if the session ends of it */
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    struct bf_h2 *h = user;
    struct bf_h2_stream *s = stream_of(session, id);
    h->streams--;
    if (!s)
        return 0;
    (void)nghttp2_session_set_stream_user_data(session, id, NULL);
    bool above = h->goaway_last >= 0 && id > h->goaway_last;
    const struct bf_h2_event event = {
        .kind = BF_H2_STREAM_END,
        .stream = s,
        .error_code = code,
        .is_refused = code == NGHTTP2_REFUSED_STREAM && !s->is_answered,
        .is_goaway = above,
        .is_malformed = code == NGHTTP2_PROTOCOL_ERROR && !s->is_reset,
    };
    h->on_event(h->context, &event);
    return 0;
}

/* The request's body. */
static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *to, size_t room,
                         uint32_t *flags, nghttp2_data_source *source, void *user)
{
    struct bf_h2_stream *s = stream_of(session, id);
    (void)source, (void)user;
    if (!s)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* forgotten */
    size_t left = s->body_len - s->body_at;
    size_t n = left < room ? left : room;
    memcpy(to, s->body + s->body_at, n);
    s->body_at += (uint32_t)n;
    if (n == left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

/* A frame has been built; its bytes are given out next. */
static int on_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct bf_h2 *h = user;
    if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR)
        fail(h, BF_ERR_MALFORMED, h->error_text[0] ? h->error_text : "the peer broke HTTP/2");
    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM) ||
        (frame->hd.type != NGHTTP2_DATA && frame->hd.type != NGHTTP2_HEADERS))
        return 0;
    struct bf_h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (s) /* rounded up: the frame is counted whole */
        s->end_mark = h->written + h->rest_len + frame->hd.length + FRAME_HEADER_BYTES;
    return 0;
}

/* ---- sessions ---- */

static void set_callbacks(nghttp2_session_callbacks *c)
{
    nghttp2_session_callbacks_set_on_begin_frame_callback(c, on_begin_frame);
    nghttp2_session_callbacks_set_on_header_callback(c, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(c, on_invalid);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, on_sent);
}

static int open_session(struct bf_h2 *h)
{
    nghttp2_mem mem = {h->memory, bf_h2_malloc, bf_h2_free, bf_h2_calloc, bf_h2_realloc};
    nghttp2_session_callbacks *callbacks = NULL;
    nghttp2_option *option = NULL;
    int rc = nghttp2_session_callbacks_new(&callbacks);
    if (rc == 0)
        rc = nghttp2_option_new(&option);
    if (rc == 0) {
        set_callbacks(callbacks);
        rc = nghttp2_session_client_new3(&h->session, callbacks, h, option, &mem);
    }
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(callbacks);
    return rc;
}

static int send_settings(struct bf_h2 *h)
{
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, BF_H2_WINDOW_STREAM},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, BF_H2_HEADER_LIST_MAX},
        {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, BF_H2_TABLE_BYTES},
    };
    int rc = nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings,
                                     sizeof(settings) / sizeof(settings[0]));
    if (rc == 0)
        rc = nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0,
                                                   BF_H2_WINDOW_CONN);
    return rc;
}

int bf_h2_create(struct bf_h2_memory *memory, bf_h2_event_fn on_event, void *context,
                 struct bf_h2 **ret)
{
    struct bf_h2 *h = bf_h2_calloc(1, sizeof(*h), memory);
    if (!h)
        return BF_ERR_NO_MEMORY;
    h->memory = memory;
    h->on_event = on_event;
    h->context = context;
    h->goaway_last = -1;
    h->error_text = "";
    bf_hpack_init(&h->hpack, memory);
    if (open_session(h) != 0 || send_settings(h) != 0) {
        bf_h2_destroy(h);
        return BF_ERR_NO_MEMORY;
    }
    *ret = h;
    return 0;
}

void bf_h2_destroy(struct bf_h2 *h)
{
    if (!h)
        return;
    nghttp2_session_del(h->session);
    bf_hpack_fini(&h->hpack);
    bf_h2_free(h, h->memory);
}

/* nghttp2 has decided to end the session: it ignores all input from here on. */
static bool is_terminated(const struct bf_h2 *h)
{
    return h->goaway_last < 0 && !nghttp2_session_check_request_allowed(h->session) &&
           nghttp2_session_get_next_stream_id(h->session) <= INT32_MAX;
}

/* The head of a frame is whole. */
static void take_head(struct bf_h2 *h)
{
    uint8_t type = h->head[3], flags = h->head[4];
    bool is_header = type == NGHTTP2_HEADERS || type == NGHTTP2_PUSH_PROMISE;
    h->frame_left = (uint32_t)h->head[0] << 16 | (uint32_t)h->head[1] << 8 | h->head[2];
    h->head_len = 0;
    h->frames_unseen++;
    if (is_header)
        h->block_bytes = h->continuations = 0;
    if (type == NGHTTP2_CONTINUATION)
        h->continuations++;
    h->is_block =
        (is_header || type == NGHTTP2_CONTINUATION) && !(flags & NGHTTP2_FLAG_END_HEADERS);
    if (is_header || type == NGHTTP2_CONTINUATION)
        h->block_bytes += h->frame_left;
}

/* Follows the frames through what has come. False: a header block that no answer has. */
static bool follow_frames(struct bf_h2 *h, const uint8_t *bytes, size_t len)
{
    for (size_t at = 0; at < len;) {
        if (h->frame_left > 0) {
            size_t n = h->frame_left < len - at ? h->frame_left : len - at;
            h->frame_left -= (uint32_t)n;
            at += n;
            continue;
        }
        h->head[h->head_len++] = bytes[at++];
        if (h->head_len < FRAME_HEADER_BYTES)
            continue;
        take_head(h);
        if (h->continuations > BF_H2_CONTINUATIONS_MAX)
            fail_calm(h, "too many CONTINUATION frames");
        else if (h->is_block && h->block_bytes > BLOCK_BYTES_MAX)
            fail_calm(h, "a header block without end");
        if (h->failed != 0)
            return false;
    }
    return true;
}

/* Frames that came whole and were not told of: their stream is over. They answer nothing. */
static void count_ignored(struct bf_h2 *h)
{
    bool is_inside = h->frame_left > 0; /* nghttp2 may tell of it yet */
    uint32_t ignored = h->frames_unseen > is_inside ? h->frames_unseen - is_inside : 0;
    h->frames_unseen -= ignored;
    h->idle_frames += ignored;
    if (h->idle_frames > BF_H2_IDLE_FRAMES_MAX)
        fail_calm(h, "a flood of frames that answer nothing");
}

/* Where we have ended the session and not nghttp2, its GOAWAY is ours to ask for. */
static void say_why(struct bf_h2 *h)
{
    uint32_t code = h->failed == BF_ERR_NO_MEMORY ? NGHTTP2_INTERNAL_ERROR
                    : h->error_code               ? h->error_code
                                                  : NGHTTP2_PROTOCOL_ERROR;
    (void)nghttp2_session_terminate_session(h->session, code); /* nothing, if it has one */
}

int bf_h2_feed(struct bf_h2 *h, const uint8_t *bytes, size_t len, uint64_t now_ms)
{
    if (h->failed != 0)
        return h->failed;
    if (now_ms / 1000u != h->second) {
        h->second = now_ms / 1000u;
        h->idle_frames = 0;
    }
    ssize_t n = nghttp2_session_mem_recv(h->session, bytes, len);
    if (n == NGHTTP2_ERR_NOMEM)
        fail(h, BF_ERR_NO_MEMORY, "out of the memory set aside for HTTP/2");
    else if (n == NGHTTP2_ERR_FLOODED || n == ERR_TOO_MANY_CONTINUATIONS)
        fail_calm(h, nghttp2_strerror((int)n));
    else if (n < 0)
        fail(h, BF_ERR_MALFORMED, nghttp2_strerror((int)n));
    else if (is_terminated(h))
        fail(h, BF_ERR_MALFORMED, h->error_text[0] ? h->error_text : "the peer broke HTTP/2");
    else if (follow_frames(h, bytes, len))
        count_ignored(h);
    if (h->failed != 0)
        say_why(h);
    return h->failed;
}

size_t bf_h2_farewell(struct bf_h2 *h, uint8_t *to, size_t cap)
{
    if (h->failed == 0)
        (void)nghttp2_session_terminate_session(h->session, NGHTTP2_NO_ERROR);
    size_t len = bf_h2_pull(h, to, cap);
    return h->rest_len == 0 ? len : 0; /* a part of a frame says nothing */
}

/* ---- bytes out ---- */

size_t bf_h2_pull(struct bf_h2 *h, uint8_t *to, size_t cap)
{
    size_t len = 0;
    while (len < cap) {
        if (h->rest_len == 0) {
            ssize_t n = nghttp2_session_mem_send(h->session, &h->rest);
            if (n < 0)
                fail(h, n == NGHTTP2_ERR_NOMEM ? BF_ERR_NO_MEMORY : BF_ERR_MALFORMED,
                     nghttp2_strerror((int)n));
            if (n <= 0)
                break;
            h->rest_len = (size_t)n;
        }
        size_t n = h->rest_len < cap - len ? h->rest_len : cap - len;
        memcpy(to + len, h->rest, n);
        h->rest += n;
        h->rest_len -= n;
        h->written += n;
        len += n;
    }
    return len;
}

bool bf_h2_wants_write(const struct bf_h2 *h)
{
    return h->rest_len > 0 || nghttp2_session_want_write(h->session);
}

/* What the fields can take: BF_HPACK_FIELD_EXTRA and the strings of each. */
static size_t fields_bytes_max(const struct bf_h2_request *r)
{
    size_t bytes = BF_HPACK_BEGIN_BYTES_MAX + 5u * BF_HPACK_FIELD_EXTRA + sizeof(":method:scheme") +
                   sizeof("POSThttps") + sizeof(":authority:pathauthorization") + r->authority.len +
                   r->path.len + r->authorization.len;
    for (size_t i = 0; i < r->fields_count; i++)
        bytes += r->fields[i].name.len + r->fields[i].value.len + BF_HPACK_FIELD_EXTRA;
    return bytes;
}

static enum bf_hpack_mode mode_of(struct bf_bytes name)
{
    for (size_t i = 0; i < sizeof(unique_names) / sizeof(unique_names[0]); i++)
        if (bf_bytes_is_equal(unique_names[i], name))
            return BF_HPACK_UNIQUE;
    return BF_HPACK_INDEXED;
}

/* The token is the same for an hour and has more entropy than anybody can guess (RFC 7541 section
 * 7.1.3), so it is indexed, as Apple allows: it would be half of each request's fields. */
static size_t put_fields(struct bf_hpack *hpack, const struct bf_h2_request *r, uint8_t *to)
{
    size_t n = bf_hpack_begin(hpack, to);
    n += bf_hpack_field(hpack, BF_BYTES(":method"), BF_BYTES("POST"), BF_HPACK_INDEXED, to + n);
    n += bf_hpack_field(hpack, BF_BYTES(":scheme"), BF_BYTES("https"), BF_HPACK_INDEXED, to + n);
    n += bf_hpack_field(hpack, BF_BYTES(":authority"), r->authority, BF_HPACK_INDEXED, to + n);
    n += bf_hpack_field(hpack, BF_BYTES(":path"), r->path, BF_HPACK_LITERAL, to + n);
    if (r->authorization.len > 0)
        n += bf_hpack_field(hpack, BF_BYTES("authorization"), r->authorization, BF_HPACK_INDEXED,
                            to + n);
    for (uint32_t i = 0; i < r->fields_count; i++) {
        const struct bf_h2_field *f = &r->fields[i];
        n += bf_hpack_field(hpack, f->name, f->value, mode_of(f->name), to + n);
    }
    return n;
}

/* Opens a stream with a block of two bytes. Its id, or an error of nghttp2. */
static int32_t submit(struct bf_h2 *h, struct bf_h2_stream *stream)
{
    static const nghttp2_nv stand_in[] = {
        {(uint8_t *)(uintptr_t) ":method", (uint8_t *)(uintptr_t) "POST", 7, 4,
         NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE},
        {(uint8_t *)(uintptr_t) ":scheme", (uint8_t *)(uintptr_t) "https", 7, 5,
         NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE},
    };
    const nghttp2_data_provider body = {.read_callback = read_body};
    return nghttp2_submit_request(h->session, NULL, stand_in,
                                  sizeof(stand_in) / sizeof(stand_in[0]),
                                  stream->body_len > 0 ? &body : NULL, stream);
}

/* The HEADERS frame of the stream just opened, with our block in it. Returns its bytes, 0 after a
 * failure. It fits into one frame: BF_H2_REQUEST_OUT_MAX is below the least
 * SETTINGS_MAX_FRAME_SIZE.
 */
static size_t write_headers(struct bf_h2 *h, const struct bf_h2_request *request, uint8_t *to)
{
    const uint8_t ends = NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM;
    const uint8_t *frame;
    ssize_t n = nghttp2_session_mem_send(h->session, &frame);
    if (n == NGHTTP2_ERR_NOMEM) {
        fail(h, BF_ERR_NO_MEMORY, nghttp2_strerror(NGHTTP2_ERR_NOMEM));
        return 0;
    }
    if (n < (ssize_t)FRAME_HEADER_BYTES || frame[3] != NGHTTP2_HEADERS || (frame[4] & ~ends) != 0 ||
        !(frame[4] & NGHTTP2_FLAG_END_HEADERS)) {
        fail(h, BF_ERR_MALFORMED, "a request could not be built");
        return 0;
    }
    memcpy(to, frame, FRAME_HEADER_BYTES); /* flags and stream stay */
    size_t len = put_fields(&h->hpack, request, to + FRAME_HEADER_BYTES);
    to[0] = (uint8_t)(len >> 16);
    to[1] = (uint8_t)(len >> 8);
    to[2] = (uint8_t)len;
    h->written += FRAME_HEADER_BYTES + len;
    return FRAME_HEADER_BYTES + len;
}

static void stream_clear(struct bf_h2_stream *s)
{
    s->body_at = 0;
    s->end_mark = 0;
    s->header_bytes = s->answer_bytes = 0;
    s->retry_after_s = BF_PUSH_NO_RETRY_AFTER;
    s->status = s->answer_len = 0;
    s->is_answered = s->is_bad = s->is_reset = false;
}

int bf_h2_request(struct bf_h2 *h, const struct bf_h2_request *request, struct bf_h2_stream *stream,
                  uint8_t *to, size_t cap)
{
    BF_BUG_ON(cap < BF_H2_REQUEST_OUT_MAX);
    if (h->failed != 0)
        return h->failed;
    if (bf_h2_wants_write(h) || !bf_h2_is_usable(h) || h->streams >= bf_h2_streams_max(h))
        return 0;
    if (request->fields_count > BF_H2_FIELDS_MAX - 5u ||
        fields_bytes_max(request) + stream->body_len + 3u * FRAME_HEADER_BYTES >
            BF_H2_REQUEST_OUT_MAX)
        return BF_ERR_TOO_LARGE;
    stream_clear(stream);
    int32_t id = submit(h, stream);
    if (id < 0) {
        fail(h, BF_ERR_NO_MEMORY, nghttp2_strerror(id));
        return h->failed;
    }
    stream->id = id;
    h->streams++;
    size_t n = write_headers(h, request, to);
    if (n > 0 && stream->body_len == 0)
        stream->end_mark = h->written;
    else if (n > 0)
        n += bf_h2_pull(h, to + n, cap - n);
    return h->failed != 0 ? h->failed : (int)n;
}

void bf_h2_forget(struct bf_h2 *h, struct bf_h2_stream *stream)
{
    if (nghttp2_session_set_stream_user_data(h->session, stream->id, NULL) == 0 && h->failed == 0)
        reset(h->session, stream->id, NGHTTP2_CANCEL);
}

void bf_h2_ping(struct bf_h2 *h)
{
    (void)nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, NULL);
}

void bf_h2_close(struct bf_h2 *h)
{
    (void)nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE, 0, NGHTTP2_NO_ERROR, NULL, 0);
}

/* ---- state ---- */

uint32_t bf_h2_streams_max(const struct bf_h2 *h)
{
    return h->has_settings ? nghttp2_session_get_remote_settings(
                                 h->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS)
                           : 0;
}

uint32_t bf_h2_streams(const struct bf_h2 *h)
{
    return h->streams;
}

bool bf_h2_is_usable(const struct bf_h2 *h)
{
    return h->failed == 0 && nghttp2_session_check_request_allowed(h->session);
}

uint64_t bf_h2_written(const struct bf_h2 *h)
{
    return h->written;
}

const char *bf_h2_error_text(const struct bf_h2 *h)
{
    return h->failed != 0 ? h->error_text : "";
}
