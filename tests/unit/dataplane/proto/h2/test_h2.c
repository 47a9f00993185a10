/*
 * The HTTP/2 client against a server that is a line of text: RFC 9113 section by section. A row
 * says what the peer does, frame by frame, and what must come of it: events, and the frames that we
 * answer with. Each row runs with every frame whole and in pieces of four bytes; both must tell the
 * same. (Not byte by byte: nghttp2 takes each piece of a CONTINUATION's header for one more of
 * them.)
 *
 * Steps, separated by blanks:
 *   qN            we send a request with a body of N bytes      cN   we forget our Nth request
 *   o             what we have to say is taken                  p    we send a PING      g   a
 * GOAWAY [nx]t.f.s:p   the peer sends a frame (n times): type, flags, stream in hex digits;
 * payload: hex pairs, or ^N for N bytes 'a'. t.f.s/L:p claims L bytes Events: settings(max)
 * end(stream,status,code[,refused|away][,bad][,retry=N],body) goaway(last,code,debug) pong fail.
 * Frames of ours: rst(stream,code) away(code) ack pingack ping; requests and window updates are
 * left out.
 */
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "proto/h2/h2.h"

#define MEMORY_BYTES  (4u << 20)
#define REQUESTS_MAX  32u
#define LOG_BYTES     8192u
#define PAYLOAD_BYTES 70000u

struct peer {
    struct bf_h2_memory memory;
    struct bf_h2 *h2;
    struct bf_h2_stream streams[REQUESTS_MAX];
    uint32_t requests;
    bool in_pieces;
    bool preface_seen;
    uint32_t acks;
    uint32_t settings;
    uint8_t out[1 << 17];
    size_t out_len;
    char log[LOG_BYTES];
    size_t log_len;
};

static struct peer *peer;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (peer->log_len > 0 && peer->log_len < LOG_BYTES - 1)
        peer->log[peer->log_len++] = ' ';
    int n = vsnprintf(peer->log + peer->log_len, LOG_BYTES - peer->log_len, format, args);
    va_end(args);
    cr_assert_lt(peer->log_len + (size_t)n, LOG_BYTES, "too many events");
    peer->log_len += (size_t)n;
}

static void on_event(void *context, const struct bf_h2_event *event)
{
    const struct bf_h2_stream *s = event->stream;
    char retry[32] = "";
    (void)context;
    switch (event->kind) {
    case BF_H2_SETTINGS:
        if (peer->settings++ < 4)
            say("settings(%u)", bf_h2_streams_max(peer->h2));
        return;
    case BF_H2_GOAWAY:
        say("goaway(%d,%u,%.*s)", event->last_stream_id, event->error_code, (int)event->debug.len,
            event->debug.len ? event->debug.at : "");
        return;
    case BF_H2_PONG:
        say("pong");
        return;
    default:
        break;
    }
    if (s->retry_after_s != BF_PUSH_NO_RETRY_AFTER)
        snprintf(retry, sizeof(retry), ",retry=%u", s->retry_after_s);
    say("end(%d,%u,%u%s%s%s%s,%.*s)", s->id, s->is_answered ? s->status : 0, event->error_code,
        event->is_refused ? ",refused" : "", event->is_goaway ? ",away" : "",
        s->is_bad ? ",bad" : "", retry, s->answer_len < 20 ? (int)s->answer_len : 20,
        (const char *)s->answer);
}

static void start(bool in_pieces)
{
    peer = calloc(1, sizeof(*peer));
    peer->in_pieces = in_pieces;
    void *base = aligned_alloc(4096, MEMORY_BYTES);
    memset(base, 0, MEMORY_BYTES);
    bf_h2_memory_init(&peer->memory, base, MEMORY_BYTES);
    cr_assert_eq(bf_h2_create(&peer->memory, on_event, NULL, &peer->h2), 0);
}

/* ---- what we send ---- */

static uint32_t be(const uint8_t *at, int n)
{
    uint32_t v = 0;
    for (int i = 0; i < n; i++)
        v = v << 8 | at[i];
    return v;
}

static void saw_frame(uint8_t type, uint8_t flags, uint32_t stream, const uint8_t *payload)
{
    switch (type) {
    case 3:
        say("rst(%u,%u)", stream, be(payload, 4));
        break;
    case 4:
        if ((flags & 1) && peer->acks++ < 4)
            say("ack");
        break;
    case 6:
        if (!(flags & 1) || !strstr(peer->log, "pingack")) /* once is enough */
            say(flags & 1 ? "pingack" : "ping");
        break;
    case 7:
        say("away(%u)", be(payload + 4, 4));
        break;
    default:
        break;
    }
}

static void read_out(void)
{
    size_t at = 0;
    if (!peer->preface_seen && peer->out_len >= 24) {
        cr_assert_eq(memcmp(peer->out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24), 0);
        peer->preface_seen = true;
        at = 24;
    }
    while (peer->out_len - at >= 9) {
        const uint8_t *f = peer->out + at;
        uint32_t len = be(f, 3);
        if (peer->out_len - at < 9 + len)
            break;
        saw_frame(f[3], f[4], be(f + 5, 4), f + 9);
        at += 9 + len;
    }
    cr_assert_eq(at, peer->out_len, "half a frame");
    peer->out_len = 0;
}

static void pull(void)
{
    size_t n;
    while ((n = bf_h2_pull(peer->h2, peer->out + peer->out_len,
                           peer->in_pieces ? 7 : sizeof(peer->out) - peer->out_len)) > 0)
        peer->out_len += n;
    read_out();
}

static void request(uint32_t body)
{
    static uint8_t bytes[BF_PUSH_REQUEST_BYTES_MAX];
    static const struct bf_h2_field fields[] = {
        {BF_BYTES("apns-topic"), BF_BYTES("com.example.app")},
        {BF_BYTES("apns-id"), BF_BYTES("00000000-0000-4000-8000-000000000001")},
    };
    const struct bf_h2_request r = {.authority = BF_BYTES("push.example"),
                                    .path = BF_BYTES("/3/device/00"),
                                    .authorization = BF_BYTES("bearer abc"),
                                    .fields = fields,
                                    .fields_count = 2};
    struct bf_h2_stream *s = &peer->streams[peer->requests];
    memset(bytes, 'x', sizeof(bytes));
    s->body = bytes;
    s->body_len = body;
    int n = bf_h2_request(peer->h2, &r, s, peer->out + peer->out_len,
                          sizeof(peer->out) - peer->out_len);
    if (n > 0) {
        peer->requests++;
        peer->out_len += (size_t)n;
        read_out();
    } else {
        say(n == 0 ? "no" : "error");
    }
}

/* ---- what the peer sends ---- */

static void feed(const uint8_t *bytes, size_t len)
{
    int rc = 0;
    size_t step = peer->in_pieces && len > 4 ? 4 : len;
    for (size_t at = 0; at < len && rc == 0; at += step)
        rc = bf_h2_feed(peer->h2, bytes + at, step < len - at ? step : len - at, 1000);
    if (rc != 0) {
        cr_assert_neq(bf_h2_error_text(peer->h2)[0], '\0', "no reason given");
        if (!strstr(peer->log, "fail"))
            say("fail");
    }
}

static size_t payload_of(const char *text, const char *end, uint8_t *to)
{
    size_t n = 0;
    while (text < end) {
        if (*text == '^') {
            char *after;
            unsigned long count = strtoul(text + 1, &after, 10);
            memset(to + n, 'a', count);
            n += count;
            text = after;
        } else {
            char pair[3] = {text[0], text[1], '\0'};
            to[n++] = (uint8_t)strtoul(pair, NULL, 16);
            text += 2;
        }
        cr_assert_lt(n, PAYLOAD_BYTES);
    }
    return n;
}

static const char empty_settings[] = "4.0.0:";

static void frame(const char *token, const char *end)
{
    static uint8_t bytes[9 + PAYLOAD_BYTES];
    char *at = NULL;
    unsigned long times = 1;
    const char *x = memchr(token, 'x', (size_t)(end - token));
    if (x) {
        times = strtoul(token, NULL, 10);
        token = x + 1;
    }
    unsigned long type = strtoul(token, &at, 16);
    unsigned long flags = strtoul(at + 1, &at, 16);
    unsigned long stream = strtoul(at + 1, &at, 16);
    unsigned long claim = *at == '/' ? strtoul(at + 1, &at, 10) : ULONG_MAX;
    cr_assert_eq(*at, ':', "%s", token);
    size_t len = payload_of(at + 1, end, bytes + 9);
    if (claim == ULONG_MAX)
        claim = len;
    const uint8_t head[9] = {
        (uint8_t)(claim >> 16),  (uint8_t)(claim >> 8),  (uint8_t)claim,
        (uint8_t)type,           (uint8_t)flags,         (uint8_t)(stream >> 24),
        (uint8_t)(stream >> 16), (uint8_t)(stream >> 8), (uint8_t)stream};
    memcpy(bytes, head, sizeof(head));
    for (unsigned long i = 0; i < times; i++)
        feed(bytes, 9 + len);
}

static void step(const char *token, const char *end)
{
    switch (*token) {
    case 'q':
        request((uint32_t)strtoul(token + 1, NULL, 10));
        break;
    case 'c':
        bf_h2_forget(peer->h2, &peer->streams[strtoul(token + 1, NULL, 10)]);
        break;
    case 'o':
        pull();
        break;
    case 'p':
        bf_h2_ping(peer->h2);
        break;
    case 'f':
        peer->out_len +=
            bf_h2_farewell(peer->h2, peer->out + peer->out_len, sizeof(peer->out) - peer->out_len);
        read_out();
        break;
    case 'g':
        bf_h2_close(peer->h2);
        break;
    default:
        frame(token, end);
        break;
    }
}

static void run(const char *script, bool in_pieces, char *ret_log)
{
    start(in_pieces);
    while (*script) {
        const char *end = script + strcspn(script, " ");
        step(script, end);
        script = *end ? end + 1 : end;
    }
    pull();
    if (bf_h2_error_text(peer->h2)[0] && !strstr(peer->log, "fail"))
        say("fail");
    strcpy(ret_log, peer->log);
    bf_h2_destroy(peer->h2);
    cr_assert_eq(peer->memory.live, 0, "leaked %zu bytes", peer->memory.live);
    free(peer->memory.base);
    free(peer);
}

struct row {
    const char *name;
    const char *script;
    const char *expected;
};

static void check(const struct row *rows, size_t count)
{
    char whole[LOG_BYTES], pieces[LOG_BYTES];
    uint32_t bad = 0;
    for (size_t i = 0; i < count; i++) {
        run(rows[i].script, false, whole);
        run(rows[i].script, true, pieces);
        if (strcmp(whole, rows[i].expected) != 0 || strcmp(pieces, rows[i].expected) != 0) {
            fprintf(stderr, "%s\n  expected %s\n  whole    %s\n  pieces   %s\n", rows[i].name,
                    rows[i].expected, whole, pieces);
            bad++;
        }
    }
    cr_assert_eq(bad, 0, "%u of %zu rows differ", bad, count);
}

#define CHECK(rows) check(rows, sizeof(rows) / sizeof((rows)[0]))
/* Each row begins so: our preface leaves, the peer's SETTINGS come. */
#define OPEN    "o 4.0.0: o "
#define OPENED  "settings(4294967295) ack"
#define OPEN1   "o 4.0.0:000300000001 o "
#define OPENED1 "settings(1) ack"

/* ---- the table ---- */

Test(h2, answers)
{
    static const struct row rows[] = {
        {"200 without a body", OPEN "q5 1.5.1:88", OPENED " end(1,200,0,)"},
        {"status and body", OPEN "q5 1.4.1:8c 0.1.1:7b7d", OPENED " end(1,400,0,{})"},
        {"body in pieces, an empty frame ends it",
         OPEN "q5 1.4.1:8e 0.0.1:7b 0.0.1:7d 0.1.1:", OPENED " end(1,500,0,{})"},
        {"a literal status", OPEN "q5 1.5.1:4803343130", OPENED " end(1,410,0,)"},
        {"retry-after in seconds", OPEN "q5 1.5.1:48033432390f2603313230",
         OPENED " end(1,429,0,retry=120,)"},
        {"retry-after: a date long gone",
         OPEN "q5 1.5.1:48033530330f261d53756e2c203036204e6f7620313939342030383a34393a333720474d54",
         OPENED " end(1,503,0,retry=0,)"},
        {"retry-after: nonsense is none", OPEN "q5 1.5.1:48033530330f2604736f6f6e",
         OPENED " end(1,503,0,)"},
        {"retry-after: far too large", OPEN "q5 1.5.1:48033530330f260b3939393939393939393939",
         OPENED " end(1,503,0,retry=4294967294,)"},
        {"a body above 512 is cut, its end is seen", OPEN "q5 1.4.1:88 0.1.1:^600",
         OPENED " end(1,200,0,aaaaaaaaaaaaaaaaaaaa)"},
        {"a body without end is cut off, its status counts", OPEN "q5 1.4.1:88 9x0.0.1:^8000 o",
         OPENED " end(1,200,8,aaaaaaaaaaaaaaaaaaaa) rst(1,8)"},
        {"trailers end the answer", OPEN "q5 1.4.1:88 0.0.1:6869 1.5.1:0003666f6f03626172",
         OPENED " end(1,200,0,hi)"},
        {"103 and 100 before the answer", OPEN "q5 1.4.1:4803313033 1.4.1:4803313030 1.5.1:88",
         OPENED " end(1,200,0,)"},
        {"retry-after of a 103 is not the answer's", OPEN "q5 1.4.1:48033130330f260139 1.5.1:88",
         OPENED " end(1,200,0,)"},
        {"two answers in the wrong order", OPEN "q5 q5 1.5.3:88 1.5.1:8c",
         OPENED " end(3,200,0,) end(1,400,0,)"},
        {"padding of HEADERS and DATA", OPEN "q5 1.c.1:048800000000 0.9.1:036869000000",
         OPENED " end(1,200,0,hi)"},
        {"HEADERS with priority", OPEN "q5 1.25.1:000000001088", OPENED " end(1,200,0,)"},
        {"header block in CONTINUATIONs", OPEN "q5 1.1.1:48 9.0.1:0334 9.4.1:3130",
         OPENED " end(1,410,0,)"},
        {"a Huffman-coded status", OPEN "q5 1.5.1:48826402", OPENED " end(1,302,0,)"},
        {"the dynamic table is kept over answers", OPEN "q5 q5 1.5.1:4803343130 1.5.3:be",
         OPENED " end(1,410,0,) end(3,410,0,)"},
        {"an answer before our body has left", "o 4.0.0:000400000001 o q5 1.5.1:8c o",
         "settings(4294967295) ack end(1,400,0,) rst(1,0)"},
    };
    CHECK(rows);
}

Test(h2, streams)
{
    static const struct row rows[] = {
        /* RFC 9113 section 5.4.2 and 7 */
        {"RST_STREAM NO_ERROR without an answer", OPEN "q5 3.0.1:00000000", OPENED " end(1,0,0,)"},
        {"RST_STREAM INTERNAL_ERROR", OPEN "q5 3.0.1:00000002", OPENED " end(1,0,2,)"},
        {"RST_STREAM REFUSED_STREAM", OPEN "q5 3.0.1:00000007", OPENED " end(1,0,7,refused,)"},
        {"RST_STREAM CANCEL", OPEN "q5 3.0.1:00000008", OPENED " end(1,0,8,)"},
        {"RST_STREAM ENHANCE_YOUR_CALM", OPEN "q5 3.0.1:0000000b", OPENED " end(1,0,11,)"},
        {"RST_STREAM with a code nobody knows", OPEN "q5 3.0.1:deadbeef",
         OPENED " end(1,0,3735928559,)"},
        {"RST_STREAM behind the status: no answer", OPEN "q5 1.4.1:88 3.0.1:00000002",
         OPENED " end(1,0,2,)"},
        {"REFUSED_STREAM behind the whole answer: answered",
         "o 4.0.0:000400000001 o q5 1.5.1:88 3.0.1:00000007 o",
         "settings(4294967295) ack end(1,200,7,) rst(1,0)"},
        {"RST_STREAM for a stream that ended is ignored",
         OPEN "q5 1.5.1:88 3.0.1:00000008 q5 1.5.3:88", OPENED " end(1,200,0,) end(3,200,0,)"},
        {"RST_STREAM on stream 0", OPEN "q5 3.0.0:00000008", OPENED " fail away(1)"},
        {"RST_STREAM for a stream never opened", OPEN "q5 3.0.9:00000008", OPENED " fail away(1)"},
        {"RST_STREAM of 5 bytes", OPEN "q5 3.0.1:0000000800", OPENED " fail away(6)"},
        {"we forget a stream: no event, and CANCEL", OPEN "q5 c0 o 1.5.1:88 q5 1.5.3:88",
         OPENED " rst(1,8) end(3,200,0,)"},
        {"we forget a stream whose answer comes at once", OPEN "q5 c0 1.5.1:88 o q5 1.5.3:88",
         OPENED " rst(1,8) end(3,200,0,)"},
        {"we forget a stream whose body waits for a window",
         "o 4.0.0:000400000001 o q50 c0 o 8.0.1:00010000 4.0.0:000400010000 o q5 1.5.3:88",
         "settings(4294967295) ack rst(1,8) settings(4294967295) ack end(3,200,0,)"},
        /* section 8.1: malformed answers are stream errors */
        {"an answer without :status, a field only", OPEN "q5 1.5.1:0003666f6f03626172 o",
         OPENED " end(1,0,1,) rst(1,1)"},
        {":status twice", OPEN "q5 1.5.1:8888 o", OPENED " end(1,0,1,) rst(1,1)"},
        {":status of two digits", OPEN "q5 1.5.1:48023230 o", OPENED " end(1,0,1,) rst(1,1)"},
        {":status that is no number", OPEN "q5 1.5.1:4803782020 o", OPENED " end(1,0,1,) rst(1,1)"},
        {"a pseudo field of requests", OPEN "q5 1.5.1:8882 o", OPENED " end(1,0,1,) rst(1,1)"},
        {"a pseudo field behind others", OPEN "q5 1.5.1:0003666f6f0362617288 o",
         OPENED " end(1,0,1,) rst(1,1)"},
        {"an upper-case name", OPEN "q5 1.5.1:880003466f6f03626172 o",
         OPENED " end(1,0,1,) rst(1,1)"},
        {"connection: keep-alive", OPEN "q5 1.5.1:88000a636f6e6e656374696f6e0161 o",
         OPENED " end(1,0,1,) rst(1,1)"},
        {"content-length larger than the body", OPEN "q5 1.4.1:880f0d0139 0.1.1:6869 o",
         OPENED " end(1,0,1,hi) rst(1,1)"},
        {"content-length smaller than the body", OPEN "q5 1.4.1:880f0d0131 0.1.1:6869 o",
         OPENED " end(1,0,1,) rst(1,1)"},
        {"content-length that fits", OPEN "q5 1.4.1:880f0d0132 0.1.1:6869",
         OPENED " end(1,200,0,hi)"},
        {"DATA before HEADERS", OPEN "q5 0.1.1:6869 o", OPENED " fail away(1)"},
        {"a 1xx that ends the stream", OPEN "q5 1.5.1:4803313030 o",
         OPENED " end(1,0,1,) rst(1,1)"},
        {"trailers without END_STREAM", OPEN "q5 1.4.1:88 1.4.1:0003666f6f03626172 o",
         OPENED " end(1,0,1,) rst(1,1)"},
        {"trailers with a :status", OPEN "q5 1.4.1:88 1.5.1:88 o", OPENED " end(1,0,1,) rst(1,1)"},
        {"DATA behind END_STREAM is ignored", OPEN "q5 q5 1.5.1:88 0.0.1:6869 o 1.5.3:88",
         OPENED " end(1,200,0,) end(3,200,0,)"},
        {"HEADERS on a stream never opened", OPEN "q5 1.5.9:88 o", OPENED " fail away(1)"},
        {"HEADERS on a stream of the server's", OPEN "q5 1.5.2:88 o", OPENED " fail away(1)"},
    };
    CHECK(rows);
}

Test(h2, settings)
{
    static const struct row rows[] = {
        /* section 6.5 */
        {"no request before the peer's SETTINGS", "o q5 4.0.0: q5 o q5 1.5.1:88",
         "no settings(4294967295) no ack end(1,200,0,)"},
        {"one stream at a time", OPEN1 "q5 q5 1.5.1:88 q5 1.5.3:88",
         OPENED1 " no end(1,200,0,) end(3,200,0,)"},
        {"the limit rises while a stream is open",
         OPEN1 "q5 q5 4.0.0:0003000003e8 o q5 q5 1.5.1:88 1.5.3:88 1.5.5:88",
         OPENED1 " no settings(1000) ack end(1,200,0,) end(3,200,0,) end(5,200,0,)"},
        {"the limit drops below what is open: they end, no new one starts",
         "o 4.0.0:000300000003 o q5 q5 q5 4.0.0:000300000001 o q5 1.5.1:88 1.5.3:88 q5 1.5.5:88 q5 "
         "1.5.7:88",
         "settings(3) ack settings(1) ack no end(1,200,0,) end(3,200,0,) no end(5,200,0,) "
         "end(7,200,0,)"},
        {"the limit drops, the peer refuses those above",
         "o 4.0.0:000300000002 o q5 q5 4.0.0:000300000001 o 3.0.3:00000007 1.5.1:88",
         "settings(2) ack settings(1) ack end(3,0,7,refused,) end(1,200,0,)"},
        {"the limit drops to 0 and comes back",
         OPEN1 "4.0.0:000300000000 o q5 4.0.0:000300000001 o q5 1.5.1:88",
         OPENED1 " settings(0) ack no settings(1) ack end(1,200,0,)"},
        {"an unknown setting is ignored", "o 4.0.0:f00d00000001000300000007 o", "settings(7) ack"},
        {"the last value of a setting counts", "o 4.0.0:000300000007000300000002 o",
         "settings(2) ack"},
        {"SETTINGS of 5 bytes", "o 4.0.0:0003000000 o", "fail away(6)"},
        {"SETTINGS on a stream", "o 4.0.1: o", "fail away(1)"},
        {"SETTINGS ACK with a payload", OPEN "4.1.0:000300000001 o", OPENED " fail away(6)"},
        {"our SETTINGS are acknowledged", OPEN "4.1.0: q5 1.5.1:88", OPENED " end(1,200,0,)"},
        {"ENABLE_PUSH 2", "o 4.0.0:000200000002 o", "fail away(1)"},
        {"ENABLE_PUSH 1 from a server", "o 4.0.0:000200000001 o", "fail away(1)"},
        {"INITIAL_WINDOW_SIZE 2^31", "o 4.0.0:000480000000 o", "fail away(3)"},
        {"MAX_FRAME_SIZE 16,383", "o 4.0.0:000500003fff o", "fail away(1)"},
        {"MAX_FRAME_SIZE 2^24", "o 4.0.0:000501000000 o", "fail away(1)"},
        {"a header table of 0: requests go on", "o 4.0.0:000100000000 o q5 q5 1.5.1:88 1.5.3:88",
         "settings(4294967295) ack end(1,200,0,) end(3,200,0,)"},
        {"a flood of SETTINGS that we cannot answer", OPEN "1100x4.0.0:",
         OPENED " settings(4294967295) settings(4294967295) settings(4294967295) fail away(11)"},
        {"the first frame is not SETTINGS", "o 6.0.0:0000000000000000 o", "fail away(1)"},
    };
    CHECK(rows);
}

Test(h2, goaway)
{
    static const struct row rows[] = {
        /* section 6.8 */
        {"streams above the last one were not processed",
         OPEN "q5 q5 q5 7.0.0:0000000100000000 1.5.1:88 q5",
         OPENED " goaway(1,0,) end(3,0,7,refused,away,) end(5,0,7,refused,away,) end(1,200,0,) no"},
        {"none was processed", OPEN "q5 7.0.0:0000000000000000",
         OPENED " goaway(0,0,) end(1,0,7,refused,away,)"},
        {"debug data", OPEN "q5 7.0.0:00000001000000077b7d 1.5.1:88",
         OPENED " goaway(1,7,{}) end(1,200,0,)"},
        {"twice: first a warning with 2^31-1, then the last stream",
         OPEN "q5 q5 7.0.0:7fffffff00000000 q5 7.0.0:0000000100000000 1.5.1:88",
         OPENED " goaway(2147483647,0,) no goaway(1,0,) end(3,0,7,refused,away,) end(1,200,0,)"},
        {"a second one may not raise the last stream",
         OPEN "q5 q5 7.0.0:0000000100000000 7.0.0:0000000300000000",
         OPENED " goaway(1,0,) end(3,0,7,refused,away,) away(1) fail"},
        {"a last stream that is the server's", OPEN "q5 7.0.0:0000000200000000",
         OPENED " fail away(1)"},
        {"GOAWAY on a stream", OPEN "q5 7.0.1:0000000100000000", OPENED " fail away(1)"},
        {"GOAWAY of 7 bytes", OPEN "q5 7.0.0:00000001000000", OPENED " fail away(6)"},
        {"NO_ERROR, and the answers still come",
         OPEN "q5 q5 7.0.0:0000000300000000 1.5.3:88 1.5.1:8c",
         OPENED " goaway(3,0,) end(3,200,0,) end(1,400,0,)"},
        {"refused by RST behind GOAWAY", OPEN "q5 7.0.0:0000000100000000 3.0.1:00000007",
         OPENED " goaway(1,0,) end(1,0,7,refused,)"},
        {"we say good-bye", OPEN "g o", OPENED " away(0)"},
        {"our last words", OPEN "q5 f", OPENED " away(0)"},
        {"our last words after the connection's window overflowed", OPEN "q5 8.0.0:7fffffff f",
         OPENED " fail away(3)"},
    };
    CHECK(rows);
}

Test(h2, flow_control)
{
    static const struct row rows[] = {
        /* section 5.2, 6.9 */
        {"a window of 10 bytes, opened in steps",
         "o 4.0.0:00040000000a o q30 8.0.1:0000000a o 8.0.1:0000000a o 1.5.1:88",
         "settings(4294967295) ack end(1,200,0,)"},
        {"a window of 0, opened by SETTINGS",
         "o 4.0.0:000400000000 o q30 4.0.0:000400001000 o 1.5.1:88",
         "settings(4294967295) ack settings(4294967295) ack end(1,200,0,)"},
        {"a window of 0 is never opened: the answer resets the body",
         "o 4.0.0:000400000000 o q30 1.5.1:8c o",
         "settings(4294967295) ack end(1,400,0,) rst(1,0)"},
        {"the connection's window is used up: bodies wait",
         OPEN "q8000 q8000 q8000 q8000 q8000 q8000 q8000 q8000 q8000 8.0.0:00010000 o 1.5.11:88",
         OPENED " end(17,200,0,)"},
        {"WINDOW_UPDATE of 0 on a stream", OPEN "q5 8.0.1:00000000 o", OPENED " fail away(1)"},
        {"WINDOW_UPDATE of 0 on the connection", OPEN "q5 8.0.0:00000000 o",
         OPENED " fail away(1)"},
        {"a stream's window overflows", OPEN "q5 8.0.1:7fffffff o", OPENED " end(1,0,3,) rst(1,3)"},
        {"the connection's window overflows", OPEN "q5 8.0.0:7fffffff o", OPENED " fail away(3)"},
        {"INITIAL_WINDOW_SIZE makes a stream's window overflow",
         "o 4.0.0: o q5 8.0.1:7fff0000 4.0.0:00047fffffff o",
         "settings(4294967295) ack settings(4294967295) end(1,0,3,) ack rst(1,3)"},
        {"WINDOW_UPDATE of 3 bytes", OPEN "q5 8.0.1:000001 o", OPENED " fail away(6)"},
        {"WINDOW_UPDATE for a stream never opened", OPEN "q5 8.0.9:00000001 o",
         OPENED " fail away(1)"},
        {"WINDOW_UPDATE for a stream that ended", OPEN "q5 1.5.1:88 8.0.1:00000001 q5 1.5.3:88",
         OPENED " end(1,200,0,) end(3,200,0,)"},
        {"DATA beyond our stream window", OPEN "q5 4.1.0: 1.4.1:88 3x0.0.1:^16000 o",
         OPENED " end(1,0,3,aaaaaaaaaaaaaaaaaaaa) rst(1,3)"},
    };
    CHECK(rows);
}

Test(h2, frames)
{
    static const struct row rows[] = {
        /* section 4, 5.5, 6 */
        {"an unknown frame type is ignored", OPEN "q5 bb.ff.1:010203 1.5.1:88",
         OPENED " end(1,200,0,)"},
        {"PRIORITY is ignored", OPEN "q5 2.0.1:0000000010 1.5.1:88", OPENED " end(1,200,0,)"},
        {"PRIORITY of 4 bytes", OPEN "q5 2.0.1:00000000 o", OPENED " fail away(6)"},
        {"PRIORITY on stream 0", OPEN "q5 2.0.0:0000000010 o", OPENED " fail away(1)"},
        {"PING is answered", OPEN "6.0.0:0102030405060708 o", OPENED " pingack"},
        {"PING of ours", OPEN "p o 6.1.0:0000000000000000", OPENED " ping pong"},
        {"PING of 7 bytes", OPEN "6.0.0:01020304050607 o", OPENED " fail away(6)"},
        {"PING on a stream", OPEN "q5 6.0.1:0102030405060708 o", OPENED " fail away(1)"},
        {"PUSH_PROMISE although push is off", OPEN "4.1.0: q5 5.4.1:0000000282 o",
         OPENED " fail away(1)"},
        {"DATA on stream 0", OPEN "q5 0.1.0:6869 o", OPENED " fail away(1)"},
        {"HEADERS on stream 0", OPEN "q5 1.5.0:88 o", OPENED " fail away(1)"},
        {"CONTINUATION without HEADERS", OPEN "q5 9.4.1:88 o", OPENED " fail away(1)"},
        {"a frame between HEADERS and CONTINUATION", OPEN "q5 1.1.1:48 6.0.0:0102030405060708 o",
         OPENED " fail away(1)"},
        {"CONTINUATION of another stream", OPEN "q5 q5 1.1.1:48 9.4.3:0334 o",
         OPENED " fail away(1)"},
        {"a frame of 16 MB", OPEN "q5 0.0.1/16777215:00 o", OPENED " fail away(6)"},
        {"HEADERS of 16,385 bytes", OPEN "q5 1.4.1/16385:88 o", OPENED " fail away(6)"},
        {"padding as long as the frame", OPEN "q5 1.4.1:88 0.9.1:04686900 o",
         OPENED " fail away(1)"},
        {"HPACK: an index beyond the table", OPEN "q5 1.5.1:ffff00 o", OPENED " fail away(9)"},
        {"HPACK: a string that ends too late", OPEN "q5 1.5.1:487f o", OPENED " fail away(9)"},
        {"HPACK: a table size above ours", OPEN "4.1.0: q5 1.5.1:3fe2ff0388 o",
         OPENED " fail away(9)"},
        {"HPACK: Huffman padding of zeros", OPEN "q5 1.5.1:48816488 o", OPENED " fail away(9)"},
        {"CONTINUATION without end", OPEN "q5 1.1.1:88 200x9.0.1:", OPENED " fail away(11)"},
        {"CONTINUATION without end for a stream we forgot", OPEN "q5 c0 o 1.1.1:88 200x9.0.1:^99",
         OPENED " rst(1,8) fail away(11)"},
        {"512 KiB of DATA on a stream that has ended",
         OPEN "q5 1.5.1:88 32x0.0.1:^16384 o q5 1.5.3:88", OPENED " end(1,200,0,) end(3,200,0,)"},
        {"512 KiB of DATA on a stream that we gave up",
         OPEN "q5 c0 o 32x0.0.1:^16384 o q5 1.5.3:88", OPENED " rst(1,8) end(3,200,0,)"},
        {"a flood of DATA on a stream that has ended", OPEN "q5 1.5.1:88 70000x0.0.1:61",
         OPENED " end(1,200,0,) fail away(11)"},
        {"endless header fields", OPEN "q5 1.0.1:88^16000 9.0.1:^16000 9.4.1:^76 o",
         OPENED " end(1,0,8,bad,) rst(1,8)"},
        {"a flood of PINGs without our reading", OPEN "1100x6.0.0:0102030405060708",
         OPENED " fail away(11)"},
        {"a flood of frames that say nothing", OPEN "q5 70000x2.0.1:0000000010",
         OPENED " fail away(11)"},
        {"a flood of empty DATA", OPEN "q5 1.4.1:88 70000x0.0.1:", OPENED " fail away(11)"},
        {"HTTP/1.1 answers", "o 50.2f.312e3120/4740180: o", "fail away(1)"},
    };
    CHECK(rows);
}

/* ---- memory and bytes ---- */

/* Requests and answers without end take nothing new once the first few have been. */
Test(h2, a_steady_state_takes_no_memory)
{
    static const char window[] = "8.0.0:00004000";
    static const char answer[] = "\0\0\1\1\5\0\0\0\0\x88";
    uint8_t bytes[10];
    size_t used = 0;
    start(false);
    pull();
    frame(empty_settings, empty_settings + sizeof(empty_settings) - 1);
    pull();
    for (uint32_t i = 0; i < 5000; i++) {
        peer->requests = 0;
        peer->log_len = 0;
        request(200);
        memcpy(bytes, answer, sizeof(bytes));
        bytes[7] = (uint8_t)((2 * i + 1) >> 8);
        bytes[8] = (uint8_t)(2 * i + 1);
        feed(bytes, sizeof(bytes));
        if (i % 32 == 31) { /* windows, as a server gives them */
            frame(window, window + sizeof(window) - 1);
            pull();
        }
        if (i == 100)
            used = peer->memory.used;
        cr_assert_eq(bf_h2_streams(peer->h2), 0);
    }
    cr_assert_eq(peer->memory.used, used);
    cr_assert_eq(peer->memory.refused, 0);
}

static size_t touched_pages(const struct bf_h2_memory *m)
{
    static const uint8_t zeros[4096];
    size_t pages = 0;
    for (size_t at = 0; at < m->used; at += sizeof(zeros))
        pages += memcmp(m->base + at, zeros, sizeof(zeros)) != 0;
    return pages;
}

/* What an idle session costs, of memory that was ever written to. nghttp2 over malloc: 25.6 KB. */
Test(h2, an_idle_session_is_small)
{
    enum { SESSIONS = 64 };
    struct bf_h2 *sessions[SESSIONS];
    start(false);
    size_t before = touched_pages(&peer->memory);
    for (uint32_t i = 0; i < SESSIONS; i++) {
        static const uint8_t settings[9] = {0, 0, 0, 4};
        cr_assert_eq(bf_h2_create(&peer->memory, on_event, NULL, &sessions[i]), 0);
        while (bf_h2_pull(sessions[i], peer->out, sizeof(peer->out)) > 0)
            ;
        peer->settings = 9; /* says nothing */
        cr_assert_eq(bf_h2_feed(sessions[i], settings, sizeof(settings), 0), 0);
        (void)bf_h2_pull(sessions[i], peer->out, sizeof(peer->out));
    }
    size_t each = (touched_pages(&peer->memory) - before) * 4096u / SESSIONS;
    cr_log_info("%zu bytes touched of an idle session", each);
    cr_assert_lt(each, 14000, "%zu bytes", each);
    for (uint32_t i = 0; i < SESSIONS; i++)
        bf_h2_destroy(sessions[i]);
}

/* The pool runs out at each allocation in turn: the session ends, nothing leaks, nothing crashes.
 */
Test(h2, memory_runs_out)
{
    for (size_t pages = 8; pages < 160; pages += 8) {
        start(false);
        bf_h2_destroy(peer->h2);
        struct bf_h2 *h = NULL;
        bf_h2_memory_init(&peer->memory, memset(peer->memory.base, 0, MEMORY_BYTES), pages * 4096u);
        int rc = bf_h2_create(&peer->memory, on_event, NULL, &h);
        cr_assert(rc == 0 || rc == BF_ERR_NO_MEMORY);
        if (rc == 0) {
            peer->h2 = h;
            pull();
            for (uint32_t i = 0; i < 20 && bf_h2_error_text(h)[0] == '\0'; i++) {
                frame(empty_settings, empty_settings + sizeof(empty_settings) - 1);
                pull();
                if (bf_h2_error_text(h)[0] == '\0')
                    request(100);
                peer->log_len = 0;
            }
            bf_h2_destroy(h);
        }
        cr_assert_eq(peer->memory.live, 0, "%zu pages", pages);
        free(peer->memory.base);
        free(peer);
    }
}

/* Bytes of the hundredth request but its body: HPACK has the constant fields in its table. */
Test(h2, fields_are_indexed)
{
    start(false);
    pull();
    frame(empty_settings, empty_settings + sizeof(empty_settings) - 1);
    pull();
    uint64_t before = 0;
    for (uint32_t i = 0; i < 10; i++) {
        before = bf_h2_written(peer->h2);
        request(5);
    }
    /* two frame headers; indexed: method, scheme, authority, authorization, apns-topic and, being
     * the same here, apns-id; path as a literal */
    cr_assert_eq(bf_h2_written(peer->h2) - before - 5, 18 + 6 + 2 + 12);
}

Test(h2, a_request_that_is_too_large)
{
    static char value[BF_H2_REQUEST_OUT_MAX];
    const struct bf_h2_field field = {BF_BYTES("x"), {value, sizeof(value)}};
    const struct bf_h2_request r = {
        .authority = BF_BYTES("a"), .path = BF_BYTES("/"), .fields = &field, .fields_count = 1};
    start(false);
    pull();
    frame(empty_settings, empty_settings + sizeof(empty_settings) - 1);
    pull();
    cr_assert_eq(bf_h2_request(peer->h2, &r, &peer->streams[0], peer->out, sizeof(peer->out)),
                 BF_ERR_TOO_LARGE);
    cr_assert(bf_h2_is_usable(peer->h2));
}
