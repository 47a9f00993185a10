/*
 * WebSocket receive side: RFC 6455 section by section. Each row is a byte stream and the events it
 * must give; each is fed whole, cut at every position, and byte by byte: the events must be the
 * same.
 */
#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/ws_frame.h"
#include "proto/ws/ws_rx.h"

#define MESSAGE_MAX 1000u
#define STREAM_MAX  4096u
#define EVENTS_MAX  4096u

/* ---- building streams ---- */

struct stream {
    uint8_t bytes[STREAM_MAX];
    size_t len;
};

static void put(struct stream *s, const void *bytes, size_t n)
{
    cr_assert_leq(s->len + n, sizeof(s->bytes));
    memcpy(s->bytes + s->len, bytes, n);
    s->len += n;
}

/* |first| is FIN, RSV and opcode. */
static void frame_n(struct stream *s, uint8_t first, const void *payload, size_t n)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d};
    uint8_t head[BF_WS_HEADER_BYTES_MAX];
    uint8_t body[STREAM_MAX];
    size_t header = bf_ws_header_write(head, BF_WS_TEXT, n);
    head[0] = first;
    head[1] |= 0x80;
    put(s, head, header);
    put(s, mask, sizeof(mask));
    for (size_t i = 0; i < n; i++)
        body[i] = ((const uint8_t *)payload)[i] ^ mask[i % 4];
    put(s, body, n);
}

static void frame(struct stream *s, uint8_t first, const char *payload)
{
    frame_n(s, first, payload, strlen(payload));
}

/* ---- what came out, as text: "text:abc ping: close:1000:bye error:1002" ---- */

struct events {
    char text[EVENTS_MAX];
    size_t len;
};

static void note(struct events *e, const struct bf_ws_event *ev)
{
    static const char *const kinds[] = {"text", "binary", "ping", "pong", "close", "error"};
    char *at = e->text + e->len;
    size_t left = sizeof(e->text) - e->len;
    int n;
    if (ev->kind == BF_WS_EV_ERROR)
        n = snprintf(at, left, "error:%u ", ev->code);
    else if (ev->kind == BF_WS_EV_CLOSE)
        n = snprintf(at, left, "close:%u:%.*s ", ev->code, (int)ev->data.len,
                     ev->data.len ? ev->data.at : "");
    else
        n = snprintf(at, left, "%s:%.*s ", kinds[ev->kind], (int)ev->data.len,
                     ev->data.len ? ev->data.at : "");
    e->len += (size_t)n;
    cr_assert_lt(e->len, sizeof(e->text));
}

/* Feeds one piece. Returns false once the connection is over. */
static bool feed(struct bf_ws_rx_pool *pool, struct bf_ws_rx **rx, const uint8_t *p, size_t n,
                 struct events *out)
{
    uint8_t *copy = malloc(n ? n : 1); /* exact size, so that a sanitizer sees an overrun */
    size_t at = 0;
    bool alive = true;
    memcpy(copy, p, n);
    while (alive) {
        struct bf_ws_event ev;
        size_t used = 0;
        int rc = bf_ws_rx_feed(pool, rx, false, copy + at, n - at, &used, &ev);
        cr_assert_leq(used, n - at);
        at += used;
        if (rc == 0) {
            cr_assert_eq(at, n, "all bytes are taken");
            break;
        }
        cr_assert_eq(rc, 1, "%d", rc);
        note(out, &ev);
        alive = ev.kind != BF_WS_EV_ERROR && ev.kind != BF_WS_EV_CLOSE;
    }
    free(copy);
    return alive;
}

enum cutting { WHOLE, TWO, SINGLE };

static void run(struct bf_ws_rx_pool *pool, const struct stream *s, enum cutting how, size_t cut,
                struct events *out)
{
    struct bf_ws_rx *rx = NULL;
    out->len = 0;
    out->text[0] = '\0';
    if (how == WHOLE) {
        feed(pool, &rx, s->bytes, s->len, out);
    } else if (how == TWO) {
        if (feed(pool, &rx, s->bytes, cut, out))
            feed(pool, &rx, s->bytes + cut, s->len - cut, out);
    } else {
        for (size_t i = 0; i < s->len; i++)
            if (!feed(pool, &rx, s->bytes + i, 1, out))
                break;
    }
    bf_ws_rx_drop(pool, &rx);
    cr_assert_eq(rx, NULL);
}

static void expect(const struct stream *s, const char *want, const char *name)
{
    /* one context: a leak of it would show as BF_ERR_FULL */
    struct bf_ws_rx_pool *pool = bf_ws_rx_pool_create(1, MESSAGE_MAX);
    struct events got;
    run(pool, s, WHOLE, 0, &got);
    cr_expect_str_eq(got.text, want, "%s whole: %s", name, got.text);
    run(pool, s, SINGLE, 0, &got);
    cr_expect_str_eq(got.text, want, "%s byte by byte: %s", name, got.text);
    for (size_t cut = 0; cut <= s->len; cut++) {
        run(pool, s, TWO, cut, &got);
        cr_expect_str_eq(got.text, want, "%s cut at %zu: %s", name, cut, got.text);
    }
    bf_ws_rx_pool_destroy(pool);
}

static void expect_raw(const char *bytes, size_t n, const char *want, const char *name)
{
    struct stream s = {.len = 0};
    put(&s, bytes, n);
    expect(&s, want, name);
}

#define RAW(literal, want) expect_raw(literal, sizeof(literal) - 1, want, #literal)

/* ---- RFC 6455 5.7 ---- */

Test(ws_rx, rfc_examples)
{
    RAW("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "text:Hello ");
    RAW("\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "pong:Hello ");
    RAW("\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "ping:Hello ");
    RAW("\x81\x05Hello", "error:1002 "); /* unmasked: a server must close (5.1) */
}

/* ---- single frames ---- */

Test(ws_rx, every_length_around_the_encodings)
{
    static const size_t lengths[] = {0,   1,   2,   7,   8,   9,   124, 125,
                                     126, 127, 128, 255, 256, 999, 1000};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        char payload[MESSAGE_MAX], want[MESSAGE_MAX + 16];
        struct stream s = {.len = 0};
        for (size_t j = 0; j < lengths[i]; j++)
            payload[j] = (char)('a' + j % 26);
        frame_n(&s, 0x81, payload, lengths[i]);
        snprintf(want, sizeof(want), "text:%.*s ", (int)lengths[i], payload);
        expect(&s, want, "length");
    }
}

Test(ws_rx, lengths_not_in_their_shortest_form)
{
    RAW("\x81\xfe\x00\x05\x00\x00\x00\x00Hello", "error:1002 ");
    RAW("\x81\xfe\x00\x7d\x00\x00\x00\x00", "error:1002 ");
    RAW("\x81\xff\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00Hello", "error:1002 ");
    RAW("\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x00\x00", "error:1002 ");
    RAW("\x81\xff\x80\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00", "error:1002 ");
}

Test(ws_rx, messages_too_big)
{
    char payload[MESSAGE_MAX + 1];
    struct stream s = {.len = 0};
    memset(payload, 'x', sizeof(payload));
    frame_n(&s, 0x82, payload, MESSAGE_MAX + 1);
    expect(&s, "error:1009 ", "one frame");
    s.len = 0;
    frame_n(&s, 0x02, payload, MESSAGE_MAX);
    frame_n(&s, 0x80, payload, 1);
    expect(&s, "error:1009 ", "two fragments");
    RAW("\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00", "error:1009 ");
    RAW("\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00\x00", "error:1009 ");
}

Test(ws_rx, every_reserved_opcode_and_bit)
{
    for (unsigned first = 0; first < 256; first++) {
        uint8_t opcode = first & 0x0f;
        bool known = opcode <= 2 || (opcode >= 8 && opcode <= 10);
        char name[32];
        struct stream s = {.len = 0};
        if (known && !(first & 0x70))
            continue;
        snprintf(name, sizeof(name), "first byte %02x", first);
        frame(&s, (uint8_t)first, "");
        expect(&s, "error:1002 ", name);
        s.len = 0;
        frame(&s, (uint8_t)first, "ab");
        expect(&s, "error:1002 ", name);
    }
}

Test(ws_rx, every_known_frame_unmasked)
{
    static const uint8_t first[] = {0x81, 0x82, 0x01, 0x00, 0x80, 0x88, 0x89, 0x8a};
    for (size_t i = 0; i < sizeof(first); i++) {
        char bytes[2] = {(char)first[i], 0};
        expect_raw(bytes, 2, "error:1002 ", "unmasked");
    }
}

Test(ws_rx, several_frames_in_one_read)
{
    struct stream s = {.len = 0};
    frame(&s, 0x81, "one");
    frame(&s, 0x89, "p");
    frame(&s, 0x82, "two");
    frame(&s, 0x8a, "");
    frame(&s, 0x81, "");
    expect(&s, "text:one ping:p binary:two pong: text: ", "several");
}

/* ---- control frames ---- */

Test(ws_rx, control_frames)
{
    char payload[126];
    struct stream s = {.len = 0};
    memset(payload, 'c', sizeof(payload));
    frame_n(&s, 0x89, payload, 125);
    struct events want = {.len = 0};
    want.len = (size_t)snprintf(want.text, sizeof(want.text), "ping:%.*s ", 125, payload);
    expect(&s, want.text, "125 bytes");
    static const uint8_t control[] = {8, 9, 10};
    for (size_t i = 0; i < sizeof(control); i++) {
        s.len = 0;
        frame_n(&s, 0x80 | control[i], payload, 126);
        expect(&s, "error:1002 ", "126 bytes");
        s.len = 0;
        frame(&s, control[i], "x");
        expect(&s, "error:1002 ", "without FIN");
    }
}

/* ---- close ---- */

static void close_frame(struct stream *s, unsigned code, const char *reason)
{
    char body[128] = {(char)(code >> 8), (char)code};
    size_t n = strlen(reason);
    memcpy(body + 2, reason, n);
    frame_n(s, 0x88, body, n + 2);
}

Test(ws_rx, every_close_code)
{
    for (unsigned code = 0; code < 65536; code += code < 5200 ? 1 : 997) {
        bool good = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                    (code >= 3000 && code <= 4999);
        char want[32];
        struct stream s = {.len = 0};
        struct events got;
        struct bf_ws_rx_pool *pool = bf_ws_rx_pool_create(1, 64);
        snprintf(want, sizeof(want), good ? "close:%u:x " : "error:1002 ", code);
        close_frame(&s, code, "x");
        run(pool, &s, WHOLE, 0, &got);
        cr_expect_str_eq(got.text, want, "%u: %s", code, got.text);
        run(pool, &s, SINGLE, 0, &got);
        cr_expect_str_eq(got.text, want, "%u: %s", code, got.text);
        bf_ws_rx_pool_destroy(pool);
    }
}

Test(ws_rx, close_bodies)
{
    struct stream s = {.len = 0};
    frame(&s, 0x88, "");
    expect(&s, "close:0: ", "empty");
    s.len = 0;
    frame(&s, 0x88, "\x03");
    expect(&s, "error:1002 ", "one byte");
    s.len = 0;
    close_frame(&s, 1000, "");
    expect(&s, "close:1000: ", "code alone");
    s.len = 0;
    close_frame(&s, 4000, "\xc3\xa9t\xc3\xa9");
    expect(&s, "close:4000:\xc3\xa9t\xc3\xa9 ", "UTF-8");
    s.len = 0;
    close_frame(&s, 1000, "a\xff");
    expect(&s, "error:1007 ", "reason not UTF-8");
    s.len = 0;
    close_frame(&s, 1000, "a\xc3");
    expect(&s, "error:1007 ", "reason cut inside a code point");
}

Test(ws_rx, nothing_after_close)
{
    struct stream s = {.len = 0};
    close_frame(&s, 1000, "");
    frame(&s, 0x81, "late");
    expect(&s, "close:1000: ", "late");
}

/* ---- fragments ---- */

Test(ws_rx, fragments)
{
    static const struct {
        const char *name, *want;
        struct {
            uint8_t first;
            const char *payload;
        } frames[8];
    } rows[] = {
        {"two", "text:Hello ", {{0x01, "Hel"}, {0x80, "lo"}}},
        {"three, binary", "binary:abc ", {{0x02, "a"}, {0x00, "b"}, {0x80, "c"}}},
        {"empty ones", "text: ", {{0x01, ""}, {0x00, ""}, {0x80, ""}}},
        {"empty last", "text:a ", {{0x01, "a"}, {0x80, ""}}},
        {"empty first", "text:a ", {{0x01, ""}, {0x80, "a"}}},
        {"two messages", "text:ab text:cd ", {{0x01, "a"}, {0x80, "b"}, {0x01, "c"}, {0x80, "d"}}},
        {"then a whole one", "text:ab text:cd ", {{0x01, "a"}, {0x80, "b"}, {0x81, "cd"}}},
        {"ping between", "ping:p text:ab ", {{0x01, "a"}, {0x89, "p"}, {0x80, "b"}}},
        {"controls between, in order",
         "ping:1 pong:2 ping:3 text:ab ",
         {{0x01, "a"}, {0x89, "1"}, {0x8a, "2"}, {0x89, "3"}, {0x80, "b"}}},
        {"close inside a message", "close:0: ", {{0x01, "a"}, {0x88, ""}}},
        {"continuation first", "error:1002 ", {{0x80, "a"}}},
        {"unfinished continuation first", "error:1002 ", {{0x00, "a"}}},
        {"continuation after the end",
         "text:ab error:1002 ",
         {{0x01, "a"}, {0x80, "b"}, {0x80, "c"}}},
        {"continuation after a whole one", "text:a error:1002 ", {{0x81, "a"}, {0x80, "c"}}},
        {"text inside text", "error:1002 ", {{0x01, "a"}, {0x81, "b"}}},
        {"fragment inside text", "error:1002 ", {{0x01, "a"}, {0x01, "b"}}},
        {"binary inside text", "error:1002 ", {{0x01, "a"}, {0x82, "b"}}},
        {"ping, then text inside text",
         "ping:p error:1002 ",
         {{0x01, "a"}, {0x89, "p"}, {0x81, "b"}}},
        {"RSV in a continuation", "error:1002 ", {{0x01, "a"}, {0xc0, "b"}}},
        {"split code point", "text:\xc3\xa9 ", {{0x01, "\xc3"}, {0x80, "\xa9"}}},
        {"split code point, ping between",
         "ping:p text:\xe2\x82\xac ",
         {{0x01, "\xe2"}, {0x89, "p"}, {0x00, "\x82"}, {0x80, "\xac"}}},
        {"four-byte code point in four",
         "text:\xf0\x9f\x94\x94 ",
         {{0x01, "\xf0"}, {0x00, "\x9f"}, {0x00, "\x94"}, {0x80, "\x94"}}},
        {"bad continuation byte", "error:1007 ", {{0x01, "\xc3"}, {0x80, "a"}}},
        {"code point not finished", "error:1007 ", {{0x01, "a"}, {0x80, "\xc3"}}},
        {"surrogate over fragments",
         "error:1007 ",
         {{0x01, "\xed"}, {0x00, "\xa0"}, {0x80, "\x80"}}},
        {"overlong over fragments", "error:1007 ", {{0x01, "\xc0"}, {0x80, "\x80"}}},
        {"binary may be anything", "binary:\xc3\x28 ", {{0x02, "\xc3"}, {0x80, "\x28"}}},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct stream s = {.len = 0};
        for (size_t j = 0; j < 8 && rows[i].frames[j].payload; j++)
            frame(&s, rows[i].frames[j].first, rows[i].frames[j].payload);
        expect(&s, rows[i].want, rows[i].name);
    }
}

Test(ws_rx, text_in_one_frame_must_be_utf8)
{
    static const char *const bad[] = {
        "\xff",
        "a\x80",
        "\xc0\xaf",
        "\xed\xa0\x80",
        "abcdefgh\xf4\x90\x80\x80",
        "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80 x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct stream s = {.len = 0};
        frame(&s, 0x81, bad[i]);
        expect(&s, "error:1007 ", "text");
        s.len = 0;
        frame(&s, 0x82, bad[i]);
        char want[64];
        snprintf(want, sizeof(want), "binary:%s ", bad[i]);
        expect(&s, want, "binary");
    }
}

Test(ws_rx, random_streams_do_not_depend_on_cuts)
{
    static const uint8_t firsts[] = {0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8a, 0x02};
    static const char *const bodies[] = {"", "a", "\xc3\xa9", "\xe2\x82", "\xac", "abcdefghijkl"};
    struct bf_ws_rx_pool *pool = bf_ws_rx_pool_create(1, MESSAGE_MAX);
    for (unsigned seed = 1; seed <= 2000; seed++) {
        struct stream s = {.len = 0};
        struct events whole, other;
        unsigned x = seed * 2654435761u;
        for (unsigned i = 0; i < 8; i++) {
            x = x * 1664525u + 1013904223u;
            frame(&s, firsts[x >> 13 & 7], bodies[(x >> 20) % 6]);
        }
        run(pool, &s, WHOLE, 0, &whole);
        run(pool, &s, SINGLE, 0, &other);
        cr_expect_str_eq(whole.text, other.text, "seed %u", seed);
        run(pool, &s, TWO, x % (s.len + 1), &other);
        cr_expect_str_eq(whole.text, other.text, "seed %u, cut", seed);
    }
    bf_ws_rx_pool_destroy(pool);
}

/* ---- the pool ---- */

Test(ws_rx, no_context_left_keeps_the_bytes)
{
    struct bf_ws_rx_pool *pool = bf_ws_rx_pool_create(1, MESSAGE_MAX);
    struct bf_ws_rx *first = NULL, *second = NULL;
    struct bf_ws_event ev;
    size_t used;
    struct stream s = {.len = 0};
    frame(&s, 0x81, "whole");
    size_t whole = s.len;
    frame(&s, 0x81, "cut");
    uint8_t head[2] = {0x81, 0x85};
    cr_expect_eq(bf_ws_rx_feed(pool, &first, false, head, 2, &used, &ev), 0);
    cr_expect_neq(first, NULL);
    cr_expect_eq(bf_ws_rx_feed(pool, &second, false, s.bytes, s.len - 1, &used, &ev), 1);
    cr_expect_eq(used, whole);
    cr_expect_eq(
        bf_ws_rx_feed(pool, &second, false, s.bytes + whole, s.len - whole - 1, &used, &ev),
        BF_ERR_FULL);
    cr_expect_eq(used, 0);
    cr_expect_eq(second, NULL);
    bf_ws_rx_drop(pool, &first);
    cr_expect_eq(first, NULL);
    cr_expect_eq(bf_ws_rx_feed(pool, &second, false, s.bytes + whole, s.len - whole, &used, &ev),
                 1);
    cr_expect_eq(ev.kind, BF_WS_EV_TEXT);
    bf_ws_rx_drop(pool, &second);
    bf_ws_rx_pool_destroy(pool);
}

Test(ws_rx, a_dropped_context_is_clean)
{
    struct bf_ws_rx_pool *pool = bf_ws_rx_pool_create(1, MESSAGE_MAX);
    struct events got = {.len = 0};
    struct stream half = {.len = 0}, whole = {.len = 0};
    frame(&half, 0x01, "\xe2\x82");
    frame(&whole, 0x01, "a");
    frame(&whole, 0x80, "b");
    for (unsigned i = 0; i < 3; i++) {
        struct bf_ws_rx *rx = NULL;
        feed(pool, &rx, half.bytes, half.len - i, &got);
        bf_ws_rx_drop(pool, &rx);
        feed(pool, &rx, whole.bytes, whole.len, &got);
        cr_expect_eq(rx, NULL);
    }
    cr_expect_str_eq(got.text, "text:ab text:ab text:ab ");
    bf_ws_rx_drop(pool, &(struct bf_ws_rx *){NULL});
    bf_ws_rx_pool_destroy(pool);
    bf_ws_rx_pool_destroy(NULL);
}

/* ---- frames of ours ---- */

Test(ws_tx, frames)
{
    uint8_t out[512];
    cr_expect_eq(bf_ws_close_write(out, sizeof(out), 1000, "bye"), 7);
    cr_expect_eq(memcmp(out,
                        "\x88\x05\x03\xe8"
                        "bye",
                        7),
                 0);
    cr_expect_eq(bf_ws_close_write(out, sizeof(out), 0, "ignored"), 2);
    cr_expect_eq(memcmp(out, "\x88\x00", 2), 0);
    cr_expect_eq(bf_ws_close_write(out, sizeof(out), 4000, NULL), 4);
    cr_expect_eq(bf_ws_control_write(out, sizeof(out), 9, (struct bf_bytes){0}), 2);
    cr_expect_eq(memcmp(out, "\x89\x00", 2), 0);
    cr_expect_eq(bf_ws_control_write(out, sizeof(out), 10, BF_BYTES("xy")), 4);
    cr_expect_eq(memcmp(out, "\x8a\x02xy", 4), 0);
    cr_expect_eq(bf_ws_text_write(out, sizeof(out), BF_BYTES("{}")), 4);
    cr_expect_eq(memcmp(out, "\x81\x02{}", 4), 0);
}

Test(ws_tx, long_texts_take_the_long_header)
{
    static uint8_t out[70100];
    static char text[70000];
    cr_expect_eq(bf_ws_text_write(out, sizeof(out), (struct bf_bytes){text, 126}), 130);
    cr_expect_eq(bf_ws_text_write(out, sizeof(out), (struct bf_bytes){text, 65535}), 65539);
    cr_expect_eq(bf_ws_text_write(out, sizeof(out), (struct bf_bytes){text, 65536}), 65546);
}

Test(ws_tx, room_and_limits)
{
    uint8_t out[130];
    char text[126];
    memset(text, 'r', sizeof(text));
    cr_expect_eq(bf_ws_text_write(out, 3, BF_BYTES("ab")), 0);
    cr_expect_eq(bf_ws_text_write(out, 4, BF_BYTES("ab")), 4);
    cr_expect_eq(bf_ws_text_write(out, 0, BF_BYTES("")), 0);
    cr_expect_eq(bf_ws_close_write(out, 3, 1000, NULL), 0);
    cr_expect_eq(bf_ws_control_write(out, sizeof(out), 9, (struct bf_bytes){text, 126}), 0);
    cr_expect_eq(bf_ws_control_write(out, sizeof(out), 1, (struct bf_bytes){text, 1}), 0);
}

Test(ws_tx, a_long_reason_is_cut_between_code_points)
{
    uint8_t out[200];
    char reason[200];
    memset(reason, 'r', sizeof(reason));
    memcpy(reason + 122, "\xe2\x82\xac", 3);
    reason[199] = '\0';
    cr_expect_eq(bf_ws_close_write(out, sizeof(out), 1000, reason), 2 + 2 + 122);
    memset(reason, 'r', 199);
    cr_expect_eq(bf_ws_close_write(out, sizeof(out), 1000, reason), 2 + 125);
}
