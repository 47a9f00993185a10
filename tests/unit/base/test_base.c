/* Proves the small things below everything: cursors, ids, frame headers, histogram, error texts. */
#include <criterion/criterion.h>

#include <string.h>

#include "belfry/base/cursor.h"
#include "belfry/base/err.h"
#include "belfry/base/histogram.h"
#include "belfry/base/id.h"
#include "belfry/base/log.h"
#include "belfry/base/ws_frame.h"

Test(cursor, what_is_put_is_got)
{
    uint8_t buf[64];
    struct bf_writer w = {.buf = buf, .cap = sizeof(buf)};
    bf_put_u8(&w, 200);
    bf_put_u16(&w, 60000);
    bf_put_u32(&w, 4000000000u);
    bf_put_u64(&w, UINT64_MAX - 5);
    bf_put_be64(&w, 77);
    bf_put_str16(&w, BF_BYTES("abc"));
    bf_put_str32(&w, BF_BYTES(""));
    cr_assert(!w.failed);
    struct bf_reader r = {.buf = buf, .len = w.len};
    cr_assert_eq(bf_get_u8(&r), 200);
    cr_assert_eq(bf_get_u16(&r), 60000);
    cr_assert_eq(bf_get_u32(&r), 4000000000u);
    cr_assert_eq(bf_get_u64(&r), UINT64_MAX - 5);
    cr_assert_eq(bf_get_be64(&r), 77);
    cr_assert(bf_bytes_is_equal(bf_get_str16(&r), BF_BYTES("abc")));
    cr_assert_eq(bf_get_str32(&r).len, 0);
    cr_assert(!r.failed && r.at == r.len);
}

Test(cursor, an_error_sticks)
{
    uint8_t buf[4];
    struct bf_writer w = {.buf = buf, .cap = sizeof(buf)};
    bf_put_u64(&w, 1);
    cr_assert(w.failed);
    size_t len = w.len;
    bf_put_u8(&w, 1);
    cr_assert_eq(w.len, len);
    struct bf_reader r = {.buf = buf, .len = 3};
    cr_assert_eq(bf_get_u32(&r), 0);
    cr_assert(r.failed);
    cr_assert_eq(bf_get_u8(&r), 0);
}

Test(cursor, every_truncation_fails)
{
    uint8_t buf[64];
    struct bf_writer w = {.buf = buf, .cap = sizeof(buf)};
    bf_put_u32(&w, 7);
    bf_put_str16(&w, BF_BYTES("hello"));
    for (size_t n = 0; n < w.len; n++) {
        struct bf_reader r = {.buf = buf, .len = n};
        bf_get_u32(&r);
        bf_get_str16(&r);
        cr_assert(r.failed, "length %zu", n);
    }
}

Test(id, text_round_trip)
{
    struct bf_id id, back;
    char text[BF_UUID_TEXT_BYTES];
    for (unsigned i = 0; i < 16; i++)
        id.bytes[i] = (uint8_t)(i * 17 + 1);
    bf_id_seal(&id);
    bf_id_text(&id, text);
    cr_assert(bf_id_parse(text, sizeof(text), &back));
    cr_assert(bf_id_is_equal(&id, &back));
    cr_assert_eq(text[14], '8');
    for (unsigned i = 0; i < sizeof(text); i++) {
        char bad[BF_UUID_TEXT_BYTES];
        memcpy(bad, text, sizeof(bad));
        bad[i] = 'g';
        cr_assert(!bf_id_parse(bad, sizeof(bad), &back));
    }
    cr_assert(!bf_id_parse(text, sizeof(text) - 1, &back));
}

Test(ws_frame, minimal_lengths)
{
    static const struct {
        size_t payload, header;
    } rows[] = {{0, 2}, {125, 2}, {126, 4}, {65535, 4}, {65536, 10}};
    uint8_t out[BF_WS_HEADER_BYTES_MAX];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_assert_eq(bf_ws_header_bytes(rows[i].payload), rows[i].header);
        cr_assert_eq(bf_ws_header_write(out, BF_WS_TEXT, rows[i].payload), rows[i].header);
        cr_assert_eq(out[0], 0x81);
    }
}

Test(histogram, buckets_cover_and_order)
{
    unsigned last = 0;
    for (uint64_t v = 0; v < (UINT64_C(1) << 41); v = v * 9 / 8 + 1) {
        unsigned at = bf_hist_index(v);
        cr_assert_lt(at, BF_HIST_BUCKETS);
        cr_assert_geq(at, last);
        if (v < (UINT64_C(1) << 40)) {
            cr_assert_geq(bf_hist_value(at), v);
            cr_assert_leq((double)(bf_hist_value(at) - v), (double)v * 0.033 + 1);
        }
        last = at;
    }
}

Test(histogram, quantiles_of_a_known_series)
{
    static struct bf_hist h;
    for (uint64_t v = 1; v <= 10000; v++)
        bf_hist_add(&h, v);
    cr_assert_eq(h.count, 10000);
    cr_assert_eq(h.max, 10000);
    double p50 = (double)bf_hist_quantile(&h, 0.50), p99 = (double)bf_hist_quantile(&h, 0.99);
    cr_assert(p50 > 4900 && p50 < 5200, "%f", p50);
    cr_assert(p99 > 9800 && p99 <= 10000, "%f", p99);
    cr_assert_eq(bf_hist_quantile(&h, 1.0), 10000);
}

Test(err, each_code_has_a_text)
{
    cr_assert_str_eq(bf_err_text(0), "ok");
    cr_assert_str_eq(bf_err_text(BF_ERR_FULL), "the queue is full");
    cr_assert_str_eq(bf_err_text(-2), strerror(2));
}

/* ---- log ---- */

static const char *escaped(const char *text, size_t cap)
{
    static char out[256];
    size_t len = bf_log_escape(text, strlen(text), out, 0, cap);
    cr_assert_leq(len, cap);
    out[len] = '\0';
    return out;
}

Test(log, a_message_is_a_json_string_whatever_is_in_it)
{
    cr_assert_str_eq(escaped("plain", 100), "plain");
    cr_assert_str_eq(escaped("a\"b\\c\nd\x1b[0m\x7f", 100), "a\\\"b\\\\c\\u000ad\\u001b[0m\\u007f");
    cr_assert_str_eq(escaped("gr\xc3\xbc\xc3\x9f \xf0\x9f\x94\x94", 100),
                     "gr\xc3\xbc\xc3\x9f \xf0\x9f\x94\x94");
    cr_assert_str_eq(escaped("x\xffy\xc3", 100), "x\\ufffdy\\ufffd", "no UTF-8");
    cr_assert_str_eq(escaped("ab\xc3\xbc", 3), "ab", "cut before a character, never inside it");
    cr_assert_str_eq(escaped("ab\n", 7), "ab");
}

Test(log, levels)
{
    for (int i = 0; i < BF_LOG_LEVEL_COUNT; i++)
        cr_assert_eq(bf_log_level_find(bf_log_level_name((enum bf_log_level)i)), i);
    cr_assert_eq(bf_log_level_find("loud"), -1);
    bf_log_configure("debug", "text");
    bf_log_configure("loud", "json");
    cr_assert_eq(atomic_load(&bf_log_level_now), BF_LOG_DEBUG, "no such level: as before");
    cr_assert(atomic_load(&bf_log_is_json));
    bf_log_configure("info", "text");
}
