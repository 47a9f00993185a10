/*
 * Client frames: a table of texts with what must come out of each; then the limits, and the
 * answers. The pool is of its contract size and is filled with rubbish before each parse.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "belfry/base/err.h"
#include "session/client_msg.h"

static uint8_t pool[BF_CLIENT_MSG_POOL_BYTES];

struct result {
    int rc;
    struct bf_client_msg msg;
    const char *code, *why;
};

static struct result parse_n(const char *text, size_t len)
{
    static struct result r;
    memset(pool, 0xa5, sizeof(pool));
    memset(&r, 0xa5, sizeof(r));
    struct bf_bytes bytes = {.at = text, .len = len};
    r.rc = bf_client_msg_parse(pool, sizeof(pool), bytes, &r.msg, &r.code, &r.why);
    return r;
}

static struct result parse(const char *text)
{
    return parse_n(text, strlen(text));
}

static void expect_text(struct bf_bytes got, const char *want)
{
    cr_expect(got.len == strlen(want) && (got.len == 0 || memcmp(got.at, want, got.len) == 0),
              "'%.*s', not '%s'", (int)got.len, got.len ? got.at : "", want);
}

Test(client_msg, kinds)
{
    static const struct {
        const char *text;
        enum bf_client_kind kind;
    } rows[] = {
        {"{\"t\":\"connect\"}", BF_CM_CONNECT},
        {"{\"t\":\"ack\",\"seq\":1}", BF_CM_ACK},
        {"{\"t\":\"read\",\"id\":\"x\"}", BF_CM_READ},
        {"{\"t\":\"seen\",\"id\":\"x\"}", BF_CM_SEEN},
        {"{\"t\":\"archive\",\"id\":\"x\"}", BF_CM_ARCHIVE},
        {"{\"t\":\"sub\",\"topic\":\"x\"}", BF_CM_SUB},
        {"{\"t\":\"unsub\",\"topic\":\"x\"}", BF_CM_UNSUB},
        {"{\"t\":\"refresh\",\"token\":\"x\"}", BF_CM_REFRESH},
        {" { \"t\" : \"ping\" } ", BF_CM_PING},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct result r = parse(rows[i].text);
        cr_expect_eq(r.rc, 0, "%s: %s", rows[i].text, r.why);
        cr_expect_eq(r.msg.kind, rows[i].kind, "%s", rows[i].text);
        cr_expect_eq(r.msg.ref.len, 0);
    }
}

Test(client_msg, refusals)
{
    static const struct {
        const char *text, *code;
    } rows[] = {
        {"", "bad_json"},
        {" ", "bad_json"},
        {"{", "bad_json"},
        {"null", "bad_json"},
        {"[]", "bad_json"},
        {"\"t\"", "bad_json"},
        {"{\"t\":\"ping\"}x", "bad_json"},
        {"{\"t\":\"ping\",}", "bad_json"},
        {"{t:\"ping\"}", "bad_json"},
        {"{\"t\":\"ping\"} {}", "bad_json"},
        {"{\"t\":\"\xff\"}", "bad_json"},
        {"{}", "unknown_type"},
        {"{\"t\":null}", "unknown_type"},
        {"{\"t\":1}", "unknown_type"},
        {"{\"t\":\"PING\"}", "unknown_type"},
        {"{\"t\":\"pings\"}", "unknown_type"},
        {"{\"T\":\"ping\"}", "unknown_type"},
        {"{\"t\":\"n\"}", "unknown_type"},
        {"{\"t\":\"ack\"}", "bad_field"},
        {"{\"t\":\"ack\",\"seq\":null}", "bad_field"},
        {"{\"t\":\"ack\",\"seq\":\"1\"}", "bad_field"},
        {"{\"t\":\"ack\",\"seq\":-1}", "bad_field"},
        {"{\"t\":\"ack\",\"seq\":1.5}", "bad_field"},
        {"{\"t\":\"ack\",\"seq\":1e3}", "bad_field"},
        {"{\"t\":\"ack\",\"seq\":true}", "bad_field"},
        {"{\"t\":\"ack\",\"seq\":18446744073709551615}", "bad_field"},
        {"{\"t\":\"ack\",\"seq\":18446744073709551616}", "bad_field"},
        {"{\"t\":\"ack\",\"seq\":99999999999999999999999}", "bad_field"},
        {"{\"t\":\"ack\",\"seq\":1,\"lane\":\"fast\"}", "bad_field"},
        {"{\"t\":\"ack\",\"seq\":1,\"lane\":1}", "bad_field"},
        {"{\"t\":\"ack\",\"seq\":1,\"lane\":\"\"}", "bad_field"},
        {"{\"t\":\"read\"}", "bad_field"},
        {"{\"t\":\"read\",\"id\":5}", "bad_field"},
        {"{\"t\":\"seen\",\"id\":\"\"}", "bad_field"},
        {"{\"t\":\"archive\",\"id\":null}", "bad_field"},
        {"{\"t\":\"sub\"}", "bad_field"},
        {"{\"t\":\"sub\",\"topic\":[\"a\"]}", "bad_field"},
        {"{\"t\":\"unsub\",\"topic\":\"\"}", "bad_field"},
        {"{\"t\":\"refresh\"}", "bad_field"},
        {"{\"t\":\"refresh\",\"token\":7}", "bad_field"},
        {"{\"t\":\"connect\",\"token\":{}}", "bad_field"},
        {"{\"t\":\"connect\",\"device\":\"\"}", "bad_field"},
        {"{\"t\":\"connect\",\"device\":1}", "bad_field"},
        {"{\"t\":\"connect\",\"topics\":\"a\"}", "bad_field"},
        {"{\"t\":\"connect\",\"topics\":{}}", "bad_field"},
        {"{\"t\":\"connect\",\"topics\":[1]}", "bad_field"},
        {"{\"t\":\"connect\",\"topics\":[\"\"]}", "bad_field"},
        {"{\"t\":\"connect\",\"resume\":true}", "bad_field"},
        {"{\"t\":\"connect\",\"resume\":{}}", "bad_field"},
        {"{\"t\":\"connect\",\"resume\":{\"epoch\":\"e\"}}", "bad_field"},
        {"{\"t\":\"connect\",\"resume\":{\"seq\":1}}", "bad_field"},
        {"{\"t\":\"connect\",\"resume\":{\"epoch\":1,\"seq\":1}}", "bad_field"},
        {"{\"t\":\"connect\",\"resume\":{\"epoch\":\"e\",\"seq\":\"1\"}}", "bad_field"},
        {"{\"t\":\"connect\",\"resume\":{\"epoch\":\"e\",\"seq\":1,\"lanes\":[]}}", "bad_field"},
        {"{\"t\":\"connect\",\"resume\":{\"epoch\":\"e\",\"seq\":1,\"lanes\":{\"bulk\":-1}}}",
         "bad_field"},
        {"{\"t\":\"connect\",\"resume\":{\"epoch\":\"e\",\"seq\":1,\"b\":\"x\"}}", "bad_field"},
        {"{\"t\":\"ping\",\"ref\":{}}", "bad_field"},
        {"{\"t\":\"ping\",\"ref\":[1]}", "bad_field"},
        {"{\"t\":\"ping\",\"ref\":true}", "bad_field"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct result r = parse(rows[i].text);
        cr_expect_eq(r.rc, BF_ERR_MALFORMED, "%s", rows[i].text);
        cr_expect_str_eq(r.code, rows[i].code, "%s: %s", rows[i].text, r.code);
        cr_expect_gt(strlen(r.why), 0);
    }
}

Test(client_msg, connect_whole)
{
    struct result r = parse(
        "{\"t\":\"connect\",\"token\":\"a.b.c\",\"device\":\"phone \\u00e9\",\"unknown\":[1,{}],"
        "\"resume\":{\"epoch\":\"s:1\",\"seq\":7,\"lanes\":{\"critical\":2,\"bulk\":0},\"b\":99},"
        "\"topics\":[\"news\",\"a\\/b\"],\"ref\":1}");
    cr_assert_eq(r.rc, 0, "%s", r.why);
    expect_text(r.msg.token, "a.b.c");
    expect_text(r.msg.device, "phone \xc3\xa9");
    expect_text(r.msg.resume_epoch, "s:1");
    cr_expect(r.msg.has_resume);
    cr_expect(r.msg.has_resume_b);
    cr_expect_eq(r.msg.resume_seq[BF_LANE_NORMAL], 7);
    cr_expect_eq(r.msg.resume_seq[BF_LANE_CRITICAL], 2);
    cr_expect_eq(r.msg.resume_seq[BF_LANE_BULK], 0);
    cr_expect_eq(r.msg.resume_b, 99);
    cr_expect_eq(r.msg.topic_count, 2);
    expect_text(r.msg.topics[0], "news");
    expect_text(r.msg.topics[1], "a/b");
    expect_text(r.msg.ref, "1");
}

Test(client_msg, absent_and_null_are_the_same)
{
    static const char *const rows[] = {
        "{\"t\":\"connect\"}",
        "{\"t\":\"connect\",\"token\":null,\"device\":null,\"resume\":null,\"topics\":null,"
        "\"ref\":null}",
    };
    for (size_t i = 0; i < 2; i++) {
        struct result r = parse(rows[i]);
        cr_assert_eq(r.rc, 0);
        cr_expect_eq(r.msg.token.len + r.msg.device.len + r.msg.ref.len, 0);
        cr_expect_not(r.msg.has_resume);
        cr_expect_not(r.msg.has_resume_b);
        cr_expect_eq(r.msg.topic_count, 0);
    }
    struct result r = parse("{\"t\":\"connect\",\"resume\":{\"epoch\":\"e\",\"seq\":0,"
                            "\"lanes\":{\"bulk\":null},\"b\":null}}");
    cr_assert_eq(r.rc, 0);
    cr_expect_eq(r.msg.resume_seq[BF_LANE_NORMAL], 0);
    cr_expect_eq(r.msg.resume_seq[BF_LANE_BULK], UINT64_MAX);
    cr_expect_eq(r.msg.resume_seq[BF_LANE_CRITICAL], UINT64_MAX);
    cr_expect_not(r.msg.has_resume_b);
}

Test(client_msg, ack_lanes)
{
    static const char *const names[] = {"critical", "normal", "bulk"};
    for (unsigned i = 0; i < BF_LANE_COUNT; i++) {
        char text[128];
        snprintf(text, sizeof(text), "{\"lane\":\"%s\",\"seq\":18446744073709551614,\"t\":\"ack\"}",
                 names[i]);
        struct result r = parse(text);
        cr_assert_eq(r.rc, 0);
        cr_expect_eq(r.msg.lane, i);
        cr_expect_eq(r.msg.seq, UINT64_MAX - 1);
    }
    cr_expect_eq(parse("{\"t\":\"ack\",\"seq\":0}").msg.lane, BF_LANE_NORMAL);
}

Test(client_msg, ref_is_echoed_as_it_came)
{
    static const char *const refs[] = {
        "0",
        "-1",
        "1.50",
        "1e400",
        "123456789012345678901234567890",
        "\"\"",
        "\"a\"",
        "\"\\\"quoted\\\"\"",
        "\"\\\\\"",
        "\"\\u00e9\\n\\/\"",
        "\"\xc3\xa9\"",
        "\"\\ud83d\\udd14\"",
        "\"12345678901234567890123456789012345678901234567890123456789012\"",
    };
    for (size_t i = 0; i < sizeof(refs) / sizeof(refs[0]); i++) {
        char text[256];
        snprintf(text, sizeof(text), "{\"ref\":%s,\"t\":\"ping\"}", refs[i]);
        struct result r = parse(text);
        cr_expect_eq(r.rc, 0, "%s", refs[i]);
        expect_text(r.msg.ref, refs[i]);
        snprintf(text, sizeof(text), "{\"t\" : \"ping\" , \"ref\" : %s }", refs[i]);
        expect_text(parse(text).msg.ref, refs[i]);
        /* and from frames that are refused, when it can be read */
        snprintf(text, sizeof(text), "{\"t\":\"nonsense\",\"ref\":%s}", refs[i]);
        r = parse(text);
        cr_expect_eq(r.rc, BF_ERR_MALFORMED);
        expect_text(r.msg.ref, refs[i]);
    }
    struct result r = parse("{\"t\":\"ping\",\"ref\":"
                            "\"123456789012345678901234567890123456789012345678901234567890123\"}");
    cr_expect_str_eq(r.code, "bad_field");
    cr_expect_eq(r.msg.ref.len, 0);
}

static size_t repeat(char *out, char c, size_t n)
{
    memset(out, c, n);
    return n;
}

/* A text of {"t":..,"field":"xxx"} with n bytes of x. */
static struct result with_field(const char *head, size_t n)
{
    static char text[BF_CLIENT_FRAME_BYTES_MAX + 1];
    size_t len = (size_t)snprintf(text, sizeof(text), "%s", head);
    len += repeat(text + len, 'x', n);
    text[len++] = '"';
    text[len++] = '}';
    return parse_n(text, len);
}

Test(client_msg, limits)
{
    cr_expect_eq(with_field("{\"t\":\"connect\",\"device\":\"", 64).rc, 0);
    cr_expect_str_eq(with_field("{\"t\":\"connect\",\"device\":\"", 65).code, "bad_field");
    cr_expect_eq(with_field("{\"t\":\"sub\",\"topic\":\"", 128).rc, 0);
    cr_expect_str_eq(with_field("{\"t\":\"sub\",\"topic\":\"", 129).code, "bad_field");
    cr_expect_eq(with_field("{\"t\":\"read\",\"id\":\"", 64).rc, 0);
    cr_expect_str_eq(with_field("{\"t\":\"read\",\"id\":\"", 65).code, "bad_field");
    const char *head = "{\"t\":\"refresh\",\"token\":\"";
    size_t most = BF_CLIENT_FRAME_BYTES_MAX - strlen(head) - 2;
    struct result r = with_field(head, most);
    cr_expect_eq(r.rc, 0);
    cr_expect_eq(r.msg.token.len, most);
    cr_expect_str_eq(with_field(head, most + 1).code, "bad_json");
}

static struct result with_topics(unsigned count)
{
    static char text[BF_CLIENT_FRAME_BYTES_MAX];
    size_t n = (size_t)snprintf(text, sizeof(text), "{\"t\":\"connect\",\"topics\":[");
    for (unsigned i = 0; i < count; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s\"topic-%u\"", i ? "," : "", i);
    n += (size_t)snprintf(text + n, sizeof(text) - n, "]}");
    return parse_n(text, n);
}

Test(client_msg, topic_count)
{
    struct result r = with_topics(BF_CONN_TOPICS_MAX);
    cr_expect_eq(r.rc, 0);
    cr_expect_eq(r.msg.topic_count, BF_CONN_TOPICS_MAX);
    expect_text(r.msg.topics[63], "topic-63");
    cr_expect_str_eq(with_topics(BF_CONN_TOPICS_MAX + 1).code, "too_many_topics");
    cr_expect_eq(with_topics(0).rc, 0);
}

/* The densest JSON there is takes the most memory a byte: it must fit the pool's contract size. */
Test(client_msg, the_pool_is_enough_for_the_worst_frame)
{
    static char text[BF_CLIENT_FRAME_BYTES_MAX];
    size_t n = (size_t)snprintf(text, sizeof(text), "{\"t\":\"ping\",\"x\":[1");
    while (n + 4 <= sizeof(text)) {
        text[n++] = ',';
        text[n++] = '1';
    }
    text[n++] = ']';
    text[n++] = '}';
    cr_expect_eq(parse_n(text, n).rc, 0);
    n = (size_t)snprintf(text, sizeof(text), "{\"t\":\"ping\",\"x\":");
    size_t depth = (sizeof(text) - n - 1) / 2;
    n += repeat(text + n, '[', depth);
    n += repeat(text + n, ']', depth);
    text[n++] = '}';
    cr_expect_eq(parse_n(text, n).rc, 0);
}

Test(client_msg, every_prefix_is_refused_without_harm)
{
    const char *text = "{\"t\":\"connect\",\"token\":\"a\\u00e9\",\"resume\":{\"epoch\":\"e\","
                       "\"seq\":12,\"lanes\":{\"bulk\":1}},\"topics\":[\"x\"],\"ref\":\"r\"}";
    for (size_t n = 0; n < strlen(text); n++)
        cr_expect_eq(parse_n(text, n).rc, BF_ERR_MALFORMED, "%zu", n);
    cr_expect_eq(parse(text).rc, 0);
}

Test(client_msg, a_small_pool_refuses)
{
    struct bf_client_msg msg;
    const char *code, *why;
    struct bf_bytes text = BF_BYTES("{\"t\":\"ping\"}");
    for (size_t n = 0; n < 300; n++)
        (void)bf_client_msg_parse(pool, n, text, &msg, &code, &why); /* no overrun, under ASan */
    cr_expect_eq(bf_client_msg_parse(pool, 16, text, &msg, &code, &why), BF_ERR_MALFORMED);
}

/* ---- answers ---- */

static void expect_out(size_t n, const char *out, const char *want)
{
    cr_expect(n == strlen(want) && memcmp(out, want, n) == 0, "%.*s", (int)n, out);
}

Test(client_msg, answers)
{
    char out[512];
    struct bf_bytes none = {0};
    expect_out(bf_msg_ok(out, sizeof(out), BF_BYTES("\"r\"")), out, "{\"t\":\"ok\",\"ref\":\"r\"}");
    expect_out(bf_msg_ok(out, sizeof(out), none), out, "{\"t\":\"ok\"}");
    expect_out(bf_msg_pong(out, sizeof(out), BF_BYTES("7")), out, "{\"t\":\"pong\",\"ref\":7}");
    expect_out(bf_msg_error(out, sizeof(out), "bad_field", "a \"b\" \\ c\n", false, BF_BYTES("1")),
               out,
               "{\"t\":\"error\",\"code\":\"bad_field\",\"message\":\"a \\\"b\\\" \\\\ c\\u000a\","
               "\"temporary\":false,\"ref\":1}");
    expect_out(bf_msg_error(out, sizeof(out), "busy", "later", true, none), out,
               "{\"t\":\"error\",\"code\":\"busy\",\"message\":\"later\",\"temporary\":true}");
    expect_out(bf_msg_goaway(out, sizeof(out), 4294967295u, "drain"), out,
               "{\"t\":\"goaway\",\"reconnect_after_ms\":4294967295,\"reason\":\"drain\"}");
}

Test(client_msg, answers_that_do_not_fit_are_not_written)
{
    char out[64];
    for (size_t cap = 0; cap < sizeof("{\"t\":\"ok\",\"ref\":\"r\"}") - 1; cap++)
        cr_expect_eq(bf_msg_ok(out, cap, BF_BYTES("\"r\"")), 0);
    cr_expect_eq(bf_msg_error(out, 20, "code", "why", true, (struct bf_bytes){0}), 0);
    cr_expect_eq(bf_msg_goaway(out, 20, 1, "why"), 0);
}
