/* Server-sent events: frames become events, whatever the window that they are written through; line
 * ends in JSON become spaces; ids read back as they were written and nothing else is taken for one;
 * the query's parameters decode or are refused. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/ws_frame.h"
#include "proto/http1/query.h"
#include "proto/http1/sse.h"

static struct bf_bytes text_of(const char *text)
{
    return (struct bf_bytes){.at = text, .len = strlen(text)};
}

static size_t add_frame(uint8_t *out, const char *json)
{
    size_t n = bf_ws_header_write(out, BF_WS_TEXT, strlen(json));
    memcpy(out + n, json, strlen(json));
    return n + strlen(json);
}

static const struct bf_sse_id some_id = {.epoch_len = 3,
                                         .epoch = "e-1",
                                         .from = {[BF_LANE_NORMAL] = 1},
                                         .to = {7, 5, UINT64_MAX},
                                         .b = 9};
#define ID_TEXT "e-1;n=1-5;c=0-7;k=0-18446744073709551615;b=9"

/* Writes the same through every window. */
static void expect(struct bf_bytes frames, const struct bf_sse_id *id, const char *want)
{
    size_t len = strlen(want);
    char got[2048];
    for (size_t skip = 0; skip <= len + 1; skip++) {
        for (size_t cap = 0; cap <= len - (skip < len ? skip : len) + 1; cap += 1 + cap / 7) {
            struct bf_sse_out out = {.at = (uint8_t *)got, .cap = cap, .skip = skip};
            bf_sse_write(&out, frames, id);
            size_t left = skip < len ? len - skip : 0;
            cr_assert_eq(out.total, len, "%zu of %zu", out.total, len);
            cr_assert_eq(out.len, left < cap ? left : cap);
            cr_assert_eq(memcmp(got, want + (skip < len ? skip : 0), out.len), 0);
        }
    }
}

Test(sse, frames_become_events)
{
    uint8_t frames[1024];
    size_t n = add_frame(frames, "{\"t\":\"n\",\"seq\":4}");
    n += add_frame(frames + n, "{\"t\":\"n\",\r\n\"seq\":5}");
    expect((struct bf_bytes){.at = (char *)frames, .len = n}, &some_id,
           "event: n\ndata: {\"t\":\"n\",\"seq\":4}\n\n"
           "id: " ID_TEXT "\nevent: n\ndata: {\"t\":\"n\",  \"seq\":5}\n\n");
    char long_json[400] = "{\"t\":\"welcome\",\"x\":\"";
    memset(long_json + strlen(long_json), 'y', 200);
    strcat(long_json, "\"}");
    char want[600];
    snprintf(want, sizeof(want), "event: welcome\ndata: %s\n\n", long_json);
    n = add_frame(frames, long_json);
    expect((struct bf_bytes){.at = (char *)frames, .len = n}, NULL, want);
}

Test(sse, what_is_no_frame_goes_as_it_is)
{
    expect(text_of("HTTP/1.1 200 OK\r\n\r\n"), &some_id, "HTTP/1.1 200 OK\r\n\r\n");
    uint8_t frame[64];
    size_t n = add_frame(frame, "[1]");
    expect((struct bf_bytes){.at = (char *)frame, .len = n}, NULL, "event: message\ndata: [1]\n\n");
}

Test(sse, heartbeat)
{
    char got[200];
    struct bf_sse_out out = {.at = (uint8_t *)got, .cap = sizeof(got)};
    bf_sse_heartbeat(&out, NULL);
    bf_sse_heartbeat(&out, &some_id);
    static const char want[] = ":\n\n:\nid: " ID_TEXT "\n\n";
    cr_assert(out.len == sizeof(want) - 1 && memcmp(got, want, out.len) == 0);
}

Test(sse, ids)
{
    char text[BF_SSE_ID_BYTES_MAX];
    struct bf_sse_id back;
    size_t n = bf_sse_id_write(&some_id, text);
    cr_assert(n == strlen(ID_TEXT) && memcmp(text, ID_TEXT, n) == 0);
    cr_assert_eq(bf_sse_id_parse((struct bf_bytes){.at = text, .len = n}, &back), 0);
    cr_assert(back.b == 9 && back.to[BF_LANE_BULK] == UINT64_MAX && back.from[BF_LANE_NORMAL] == 1);
    for (size_t cut = 0; cut + 1 < n; cut++)
        cr_assert_eq(bf_sse_id_parse((struct bf_bytes){.at = text, .len = cut}, &back),
                     BF_ERR_MALFORMED, "cut at %zu", cut);
    static const char *const bad[] = {
        ";n=0-0;c=0-0;k=0-0;b=0",
        "e;n=2-1;c=0-0;k=0-0;b=0",
        "e;c=0-0;n=0-0;k=0-0;b=0",
        "e;n=0-0;c=0-0;k=0-0;b=",
        "e;n=0-;c=0-0;k=0-0;b=0",
        "e;n=0-0;c=0-0;k=0-0;b=0 ",
        "e;n=0-0;c=0-0;k=0-0;b=-1",
        "e;n=0-18446744073709551616;c=0-0;k=0-0;b=0",
        "0123456789012345678901234567890123456789e;n=0-0;c=0-0;k=0-0;b=0"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_eq(bf_sse_id_parse(text_of(bad[i]), &back), BF_ERR_MALFORMED, "%s", bad[i]);
    struct bf_sse_id widest = {.epoch_len = BF_SSE_EPOCH_BYTES_MAX,
                               .from = {UINT64_MAX, UINT64_MAX, UINT64_MAX},
                               .to = {UINT64_MAX, UINT64_MAX, UINT64_MAX},
                               .b = UINT64_MAX};
    memset(widest.epoch, 'e', sizeof(widest.epoch));
    n = bf_sse_id_write(&widest, text);
    cr_assert_lt(n, sizeof(text));
    cr_assert_eq(bf_sse_id_parse((struct bf_bytes){.at = text, .len = n}, &back), 0);
}

Test(sse, accept_fits_or_says_so)
{
    char out[300];
    cr_assert_gt(bf_sse_accept((struct bf_bytes){0}, out, sizeof(out)), 0);
    char origin[300];
    memset(origin, 'o', sizeof(origin));
    cr_assert_eq(
        bf_sse_accept((struct bf_bytes){.at = origin, .len = sizeof(origin)}, out, sizeof(out)), 0);
}

Test(query, parameters)
{
    static const struct {
        const char *query, *name, *want; /* NULL: refused; "-": absent */
    } rows[] = {{"a=1&b=2", "b", "2"},
                {"a=1&b=2", "c", "-"},
                {"", "a", "-"},
                {"a", "a", ""},
                {"a=", "a", ""},
                {"a=x%20y+z", "a", "x y z"},
                {"a=%C3%a9", "a", "\xc3\xa9"},
                {"a=1&a=2", "a", "1"},
                {"ab=1&a=2", "a", "2"},
                {"a=%", "a", NULL},
                {"a=%4", "a", NULL},
                {"a=%4g", "a", NULL},
                {"a=%00", "a", NULL},
                {"a=123456789", "a", NULL},
                {"a=b=c", "a", "b=c"},
                {"&&a=1", "a", "1"},
                {"a=%2", "b", "-"},
                {"a=%41", "a", "A"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[8];
        struct bf_bytes value = {0};
        int rc =
            bf_query_get(text_of(rows[i].query), text_of(rows[i].name), out, sizeof(out), &value);
        int want = !rows[i].want ? -400 : strcmp(rows[i].want, "-") == 0 ? 0 : 1;
        cr_assert_eq(rc, want, "%s: %d", rows[i].query, rc);
        if (want == 1)
            cr_assert(value.len == strlen(rows[i].want) &&
                          (value.len == 0 || memcmp(value.at, rows[i].want, value.len) == 0),
                      "%s", rows[i].query);
    }
}
