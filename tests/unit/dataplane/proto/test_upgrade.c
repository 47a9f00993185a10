/*
 * Upgrade request parser: one row a rule of RFC 6455 4.2, RFC 9112 and PROVIDERS 7. Each row is
 * also fed byte by byte: no cut may change the verdict, and a verdict once given does not change.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "proto/http1/upgrade.h"

#define LINE  "GET /v1/ws HTTP/1.1\r\n"
#define HOST  "Host: belfry.example\r\n"
#define UP    "Upgrade: websocket\r\n"
#define CONN  "Connection: Upgrade\r\n"
#define KEY   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VER   "Sec-WebSocket-Version: 13\r\n"
#define REST  HOST UP CONN KEY VER
#define END   "\r\n"
#define TAKEN 1 /* the whole text is consumed */

struct row {
    const char *name;
    int verdict; /* TAKEN, or the negated status */
    const char *text;
};

static const struct row rows[] = {
    /* taken */
    {"RFC 6455 1.2", TAKEN,
     "GET /v1/ws HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n"
     "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
     "Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n"
     "Sec-WebSocket-Version: 13\r\n\r\n"},
    {"smallest", TAKEN, LINE REST END},
    {"names in any case", TAKEN,
     LINE "hOST: x\r\nuPGRADE: WebSocket\r\ncONNECTION: uPGRADE\r\nsec-websocket-key: "
          "dGhlIHNhbXBsZSBub25jZQ==\r\nSEC-WEBSOCKET-VERSION: 13\r\n\r\n"},
    {"connection list", TAKEN, LINE HOST UP "Connection: keep-alive, Upgrade\r\n" KEY VER END},
    {"connection over two lines", TAKEN,
     LINE HOST UP "Connection: keep-alive\r\n" CONN KEY VER END},
    {"upgrade list", TAKEN, LINE HOST "Upgrade: h2c, websocket\r\n" CONN KEY VER END},
    {"empty list elements", TAKEN, LINE HOST UP "Connection: ,, Upgrade ,\r\n" KEY VER END},
    {"white space around values", TAKEN, LINE "Host:  \t x \t \r\n" UP CONN KEY VER END},
    {"no white space", TAKEN, LINE "Host:x\r\nUpgrade:websocket\r\n" CONN KEY VER END},
    {"query", TAKEN, "GET /v1/ws?a=b&c=%20d?e HTTP/1.1\r\n" REST END},
    {"empty query", TAKEN, "GET /v1/ws? HTTP/1.1\r\n" REST END},
    {"absolute form", TAKEN, "GET http://other.example:80/v1/ws?q HTTP/1.1\r\n" REST END},
    {"absolute form, https", TAKEN, "GET HTTPS://other.example/v1/ws HTTP/1.1\r\n" REST END},
    {"later minor version", TAKEN, "GET /v1/ws HTTP/1.2\r\n" REST END},
    {"unknown header", TAKEN, LINE REST "X-Anything: \xc3\xa9 \"(),/\r\n" END},
    {"cookies and extensions", TAKEN,
     LINE REST "Cookie: a=b; c=d\r\nSec-WebSocket-Extensions: permessage-deflate; "
               "client_max_window_bits\r\n" END},
    {"two extension lines", TAKEN,
     LINE REST "Sec-WebSocket-Extensions: a\r\nSec-WebSocket-Extensions: b\r\n" END},
    {"content-length 0", TAKEN, LINE REST "Content-Length: 0\r\n" END},
    {"host with port", TAKEN, LINE "Host: [::1]:8090\r\n" UP CONN KEY VER END},
    {"key with loose last digit", TAKEN,
     LINE HOST UP CONN "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\n" VER END},
    {"basic credentials are not ours", TAKEN, LINE REST "Authorization: Basic YTpi\r\n" END},
    {"bearer", TAKEN, LINE REST "Authorization: Bearer aa.bb.cc\r\n" END},
    {"same token twice over", TAKEN,
     LINE REST "Authorization: Bearer a.b.c\r\nSec-WebSocket-Protocol: bearer.a.b.c\r\n" END},
    {"plain request", TAKEN, LINE HOST END},
    {"upgrade to something else", TAKEN, LINE HOST "Upgrade: h2c\r\n" CONN END},
    {"empty unknown header", TAKEN, LINE REST "X-Empty:\r\n" END},
    /* request line */
    {"post", -405, "POST /v1/ws HTTP/1.1\r\n" REST END},
    {"method in lower case", -405, "get /v1/ws HTTP/1.1\r\n" REST END},
    {"unknown method", -405, "BREW /v1/ws HTTP/1.1\r\n" REST END},
    {"method with a control", -400, "G\tET /v1/ws HTTP/1.1\r\n" REST END},
    {"no method", -400, " /v1/ws HTTP/1.1\r\n" REST END},
    {"long method", -400, "GETGETGETGETGETGETGETGETGETGETGETGET /v1/ws HTTP/1.1\r\n" REST END},
    {"other path", -404, "GET / HTTP/1.1\r\n" REST END},
    {"trailing slash", -404, "GET /v1/ws/ HTTP/1.1\r\n" REST END},
    {"path in capitals", -404, "GET /V1/WS HTTP/1.1\r\n" REST END},
    {"path prefix", -404, "GET /v1/wsx HTTP/1.1\r\n" REST END},
    {"escaped path", -404, "GET /v1%2fws HTTP/1.1\r\n" REST END},
    {"dots", -404, "GET /v1/../v1/ws HTTP/1.1\r\n" REST END},
    {"asterisk", -404, "GET * HTTP/1.1\r\n" REST END},
    {"path goes before method", -404, "POST /nope HTTP/1.1\r\n" REST END},
    {"absolute form without host", -400, "GET http:///v1/ws HTTP/1.1\r\n" REST END},
    {"absolute form, user info", -400, "GET http://a@b/v1/ws HTTP/1.1\r\n" REST END},
    {"fragment", -400, "GET /v1/ws#x HTTP/1.1\r\n" REST END},
    {"no target", -400, "GET  HTTP/1.1\r\n" REST END},
    {"two spaces", -400, "GET  /v1/ws HTTP/1.1\r\n" REST END},
    {"three spaces in line", -400, "GET /v1/ws x HTTP/1.1\r\n" REST END},
    {"non-ASCII target", -400, "GET /v1/ws?\xc3\xa9 HTTP/1.1\r\n" REST END},
    {"no version", -400, "GET /v1/ws\r\n" REST END},
    {"trailing space", -400, "GET /v1/ws HTTP/1.1 \r\n" REST END},
    {"http/1.0", -505, "GET /v1/ws HTTP/1.0\r\n" REST END},
    {"http/2.0", -505, "GET /v1/ws HTTP/2.0\r\n" REST END},
    {"version in lower case", -400, "GET /v1/ws http/1.1\r\n" REST END},
    {"version of two digits", -400, "GET /v1/ws HTTP/1.10\r\n" REST END},
    {"version of letters", -400, "GET /v1/ws HTTP/a.b\r\n" REST END},
    {"http/2 preface", -505, "PRI * HTTP/2.0\r\n\r\n"},
    {"empty line first", -400, "\r\n" LINE REST END},
    {"garbage", -400, "\x16\x03\x01\x02\r\n\r\n"},
    /* framing */
    {"bare LF", -400, "GET /v1/ws HTTP/1.1\nHost: x\n\n"},
    {"bare LF in headers", -400, LINE "Host: x\nUpgrade: websocket\r\n" END},
    {"bare CR", -400, LINE "Host: x\rUpgrade: websocket\r\n" END},
    {"CR CR LF", -400, LINE "Host: x\r\r\n" END},
    {"obs-fold", -400, LINE HOST "X-A: b\r\n c\r\n" UP CONN KEY VER END},
    {"obs-fold with tab", -400, LINE HOST "X-A: b\r\n\tc: d\r\n" UP CONN KEY VER END},
    {"space before colon", -400, LINE "Host : x\r\n" UP CONN KEY VER END},
    {"no colon", -400, LINE HOST "Upgrade websocket\r\n" END},
    {"empty name", -400, LINE HOST ": x\r\n" END},
    {"name with separator", -400, LINE HOST "X(y): z\r\n" END},
    {"control in value", -400, LINE HOST "X-A: a\x01z\r\n" END},
    {"DEL in value", -400, LINE HOST "X-A: a\x7fz\r\n" END},
    {"chunked body", -400, LINE REST "Transfer-Encoding: chunked\r\n" END},
    {"body", -400, LINE REST "Content-Length: 5\r\n" END "hello"},
    {"content-length list", -400, LINE REST "Content-Length: 0, 0\r\n" END},
    {"content-length -0", -400, LINE REST "Content-Length: -0\r\n" END},
    {"content-length empty", -400, LINE REST "Content-Length:\r\n" END},
    {"two content-lengths", -400, LINE REST "Content-Length: 0\r\nContent-Length: 0\r\n" END},
    /* headers that decide */
    {"no host", -400, LINE UP CONN KEY VER END},
    {"no host, absolute form", -400, "GET http://x/v1/ws HTTP/1.1\r\n" UP CONN KEY VER END},
    {"empty host", -400, LINE "Host:\r\n" UP CONN KEY VER END},
    {"two hosts", -400, LINE HOST HOST UP CONN KEY VER END},
    {"host with a path", -400, LINE "Host: a/b\r\n" UP CONN KEY VER END},
    {"host list", -400, LINE "Host: a b\r\n" UP CONN KEY VER END},
    {"no connection", -400, LINE HOST UP KEY VER END},
    {"connection without upgrade", -400, LINE HOST UP "Connection: close\r\n" KEY VER END},
    {"connection has upgrade in a word", -400, LINE HOST UP "Connection: Upgrades\r\n" KEY VER END},
    {"no key", -400, LINE HOST UP CONN VER END},
    {"empty key", -400, LINE HOST UP CONN "Sec-WebSocket-Key:\r\n" VER END},
    {"short key", -400, LINE HOST UP CONN "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub24=\r\n" VER END},
    {"long key", -400, LINE HOST UP CONN "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA\r\n" VER END},
    {"key not base64", -400,
     LINE HOST UP CONN "Sec-WebSocket-Key: dGhlIHNhbXBs!SBub25jZQ==\r\n" VER END},
    {"two keys", -400, LINE REST KEY END},
    {"no version header", -400, LINE HOST UP CONN KEY END},
    {"version 8", -426, LINE HOST UP CONN KEY "Sec-WebSocket-Version: 8\r\n" END},
    {"version 13, 8", -426, LINE HOST UP CONN KEY "Sec-WebSocket-Version: 13, 8\r\n" END},
    {"version 013", -426, LINE HOST UP CONN KEY "Sec-WebSocket-Version: 013\r\n" END},
    {"two versions", -400, LINE REST VER END},
    {"two origins", -400, LINE REST "Origin: a\r\nOrigin: a\r\n" END},
    {"empty origin", -400, LINE REST "Origin:\r\n" END},
    {"two authorizations", -400,
     LINE REST "Authorization: Bearer a\r\nAuthorization: Bearer a\r\n" END},
    {"bearer without token", -400, LINE REST "Authorization: Bearer\r\n" END},
    {"bearer with two tokens", -400, LINE REST "Authorization: Bearer a b\r\n" END},
    {"bearer with a quote", -400, LINE REST "Authorization: Bearer \"a\"\r\n" END},
    {"sub-protocol not a token", -400, LINE REST "Sec-WebSocket-Protocol: a b\r\n" END},
    {"empty bearer sub-protocol", -400, LINE REST "Sec-WebSocket-Protocol: bearer.\r\n" END},
    {"two bearer sub-protocols", -400,
     LINE REST "Sec-WebSocket-Protocol: bearer.a, bearer.b\r\n" END},
    {"two different tokens", -400,
     LINE REST "Authorization: Bearer a.b.c\r\nSec-WebSocket-Protocol: bearer.x.y.z\r\n" END},
};

#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

static int expected(const struct row *row)
{
    return row->verdict == TAKEN ? (int)strlen(row->text) : row->verdict;
}

Test(upgrade, table)
{
    cr_assert_geq(ROW_COUNT, 60);
    for (size_t i = 0; i < ROW_COUNT; i++) {
        struct bf_upgrade up;
        int rc = bf_upgrade_parse(rows[i].text, strlen(rows[i].text), &up);
        cr_expect_eq(rc, expected(&rows[i]), "%s: %d", rows[i].name, rc);
    }
}

Test(upgrade, every_cut_gives_more_or_the_same_verdict)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        size_t len = strlen(rows[i].text);
        bool decided = false;
        for (size_t n = 0; n <= len; n++) {
            struct bf_upgrade up;
            int rc = bf_upgrade_parse(rows[i].text, n, &up);
            if (rc == 0 && !decided)
                continue;
            decided = true;
            cr_expect_eq(rc, expected(&rows[i]), "%s at %zu: %d", rows[i].name, n, rc);
        }
        cr_expect(decided, "%s", rows[i].name);
    }
}

static struct bf_upgrade parsed(const char *text)
{
    struct bf_upgrade up;
    int rc = bf_upgrade_parse(text, strlen(text), &up);
    cr_assert_gt(rc, 0, "%d", rc);
    return up;
}

static void expect_text(struct bf_bytes got, const char *want)
{
    cr_expect(got.len == strlen(want) && memcmp(got.at, want, got.len) == 0, "%.*s, not %s",
              (int)got.len, got.len ? got.at : "", want);
}

Test(upgrade, fields)
{
    struct bf_upgrade up = parsed("GET /v1/ws?x=1 HTTP/1.1\r\n" REST "Origin: https://a.example\r\n"
                                  "Authorization: bearer  aa.bb.cc \r\n"
                                  "Sec-WebSocket-Protocol: belfry.v1.json\r\n" END);
    expect_text(up.path, "/v1/ws");
    expect_text(up.query, "x=1");
    expect_text(up.key, "dGhlIHNhbXBsZSBub25jZQ==");
    expect_text(up.origin, "https://a.example");
    expect_text(up.host, "belfry.example");
    expect_text(up.bearer, "aa.bb.cc");
    cr_expect(up.is_upgrade);
    cr_expect(up.offers_v1_json);
    cr_expect_not(up.offers_other);
}

Test(upgrade, absolute_form_names_the_host)
{
    expect_text(parsed("GET http://b.example:81/v1/ws HTTP/1.1\r\n" REST END).host, "b.example:81");
}

Test(upgrade, sub_protocols)
{
    struct bf_upgrade up = parsed(
        LINE REST "Sec-WebSocket-Protocol: other, belfry.v1.json, bearer.e30.e30.c2ln\r\n" END);
    cr_expect(up.offers_v1_json);
    cr_expect_not(up.offers_other);
    expect_text(up.bearer, "e30.e30.c2ln");
    up = parsed(LINE REST
                "Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: bearer.t\r\n" END);
    cr_expect_not(up.offers_v1_json);
    cr_expect(up.offers_other);
    expect_text(up.bearer, "t");
    up = parsed(LINE REST "Sec-WebSocket-Protocol: bearer.t\r\n" END);
    cr_expect_not(up.offers_other);
    up = parsed(LINE REST "Sec-WebSocket-Protocol: Belfry.v1.json\r\n" END);
    cr_expect_not(up.offers_v1_json);
    up = parsed(LINE REST END);
    cr_expect_eq(up.bearer.len, 0);
    cr_expect_not(up.offers_other);
}

Test(upgrade, plain_request_is_no_upgrade)
{
    cr_expect_not(parsed(LINE HOST END).is_upgrade);
    cr_expect_not(parsed(LINE HOST "Upgrade: h2c\r\n" CONN END).is_upgrade);
}

Test(upgrade, what_follows_the_head_is_left)
{
    const char text[] = LINE REST END "\x81\x80....";
    struct bf_upgrade up;
    int rc = bf_upgrade_parse(text, sizeof(text) - 1, &up);
    cr_expect_eq(rc, (int)strlen(LINE REST END));
}

Test(upgrade, nul_bytes_are_refused)
{
    const char in_value[] = LINE "Host: a\0b\r\n" END;
    const char in_name[] = LINE "Ho\0st: a\r\n" END;
    const char in_target[] = "GET /v1/ws\0 HTTP/1.1\r\n";
    const char in_token[] = LINE REST "Authorization: Bearer a\0b\r\n" END;
    struct bf_upgrade up;
    cr_expect_eq(bf_upgrade_parse(in_value, sizeof(in_value) - 1, &up), -400);
    cr_expect_eq(bf_upgrade_parse(in_name, sizeof(in_name) - 1, &up), -400);
    cr_expect_eq(bf_upgrade_parse(in_target, sizeof(in_target) - 1, &up), -400);
    cr_expect_eq(bf_upgrade_parse(in_token, sizeof(in_token) - 1, &up), -400);
}

Test(upgrade, a_head_above_the_limit)
{
    static char text[2 * BF_UPGRADE_BYTES_MAX];
    struct bf_upgrade up;
    int n = snprintf(text, sizeof(text), LINE REST "X-Long: ");
    memset(text + n, 'a', sizeof(text) - (size_t)n);
    cr_expect_eq(bf_upgrade_parse(text, BF_UPGRADE_BYTES_MAX - 1, &up), 0);
    cr_expect_eq(bf_upgrade_parse(text, BF_UPGRADE_BYTES_MAX, &up), -431);
    cr_expect_eq(bf_upgrade_parse(text, sizeof(text), &up), -431);
    memcpy(text + BF_UPGRADE_BYTES_MAX - 4, "\r\n\r\n", 4);
    cr_expect_eq(bf_upgrade_parse(text, sizeof(text), &up), (int)BF_UPGRADE_BYTES_MAX);
    memcpy(text + BF_UPGRADE_BYTES_MAX - 4, "a\r\n\r\n", 5);
    cr_expect_eq(bf_upgrade_parse(text, sizeof(text), &up), -431);
}

Test(upgrade, too_many_headers)
{
    static char text[BF_UPGRADE_BYTES_MAX];
    struct bf_upgrade up;
    size_t n = (size_t)snprintf(text, sizeof(text), LINE REST);
    for (unsigned i = 5; i < BF_UPGRADE_HEADERS_MAX; i++)
        n += (size_t)snprintf(text + n, sizeof(text) - n, "X-%u: y\r\n", i);
    size_t full = n + (size_t)snprintf(text + n, sizeof(text) - n, "\r\n");
    cr_expect_eq(bf_upgrade_parse(text, full, &up), (int)full);
    n += (size_t)snprintf(text + n, sizeof(text) - n, "X-More: y\r\n\r\n");
    cr_expect_eq(bf_upgrade_parse(text, n, &up), -431);
}

Test(upgrade, accept_of_the_rfc_key)
{
    char out[BF_UPGRADE_RESPONSE_BYTES_MAX];
    struct bf_upgrade up =
        parsed(LINE REST "Sec-WebSocket-Protocol: belfry.v1.json, bearer.secret\r\n" END);
    size_t n = bf_upgrade_accept(&up, false, out);
    const char *want = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                       "Connection: Upgrade\r\n"
                       "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                       "Sec-WebSocket-Protocol: belfry.v1.json\r\n\r\n";
    cr_expect_eq(n, strlen(want));
    cr_expect_eq(memcmp(out, want, n), 0, "%.*s", (int)n, out);
    cr_expect_eq(memmem(out, n, "secret", 6), NULL);
}

Test(upgrade, accept_names_no_sub_protocol_that_was_not_offered)
{
    char out[BF_UPGRADE_RESPONSE_BYTES_MAX];
    struct bf_upgrade up = parsed(LINE REST "Sec-WebSocket-Protocol: other\r\n" END);
    size_t n = bf_upgrade_accept(&up, false, out);
    cr_expect_eq(memmem(out, n, "Protocol:", 9), NULL);
    cr_expect_eq(memcmp(out + n - 4, "\r\n\r\n", 4), 0);
}

Test(upgrade, refusals)
{
    static const struct {
        int status;
        const char *must_have;
    } cases[] = {
        {400, "400 Bad Request"},
        {401, "WWW-Authenticate: Bearer"},
        {403, "403 Forbidden"},
        {404, "404 Not Found"},
        {405, "Allow: GET"},
        {408, "408 Request Timeout"},
        {426, "Sec-WebSocket-Version: 13"},
        {429, "429 Too Many Requests"},
        {431, "431 Request Header Fields Too Large"},
        {503, "503 Service Unavailable"},
        {505, "505 HTTP Version Not Supported"},
        {599, "599 Error"},
    };
    char why[600];
    memset(why, 'w', sizeof(why));
    why[sizeof(why) - 1] = '\0';
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char out[BF_UPGRADE_RESPONSE_BYTES_MAX];
        size_t n = bf_upgrade_refuse(cases[i].status, "because", out);
        cr_expect_neq(memmem(out, n, cases[i].must_have, strlen(cases[i].must_have)), NULL, "%d",
                      cases[i].status);
        cr_expect_neq(memmem(out, n, "close", 5), NULL, "%d", cases[i].status);
        cr_expect_eq(memcmp(out + n - 12, "\r\n\r\nbecause\n", 12), 0, "%d", cases[i].status);
        cr_expect_neq(memmem(out, n, "Content-Length: 8\r\n", 19), NULL);
        n = bf_upgrade_refuse(cases[i].status, why, out);
        cr_expect_lt(n, BF_UPGRADE_RESPONSE_BYTES_MAX, "%d: %zu", cases[i].status, n);
        cr_expect_eq(out[n - 1], '\n');
    }
}
