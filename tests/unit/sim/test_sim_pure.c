/* Proves the simulator's parts without I/O: text helpers, HTTP/1.1, latencies, delays, scripts,
 * answers. */
#include <criterion/criterion.h>

#include <stdio.h>

#include "sim_answer.h"
#include "sim_apns.h"
#include "sim_channels.h"
#include "sim_delay.h"
#include "sim_fcm.h"
#include "sim_h1.h"
#include "sim_oauth.h"
#include "sim_provider.h"
#include "sim_script.h"
#include "sim_text.h"
#include "sim_webpush.h"

static struct sim_slice S(const char *text) {
    return (struct sim_slice){text, (uint32_t)strlen(text)};
}

Test(text, numbers)
{
    uint64_t v = 0;
    cr_assert(sim_text_number(S("0"), 10, &v) && v == 0);
    cr_assert(sim_text_number(S("18446744073709551615"), UINT64_MAX, &v) && v == UINT64_MAX);
    cr_assert(!sim_text_number(S("18446744073709551616"), UINT64_MAX, &v));
    cr_assert(!sim_text_number(S("11"), 10, &v));
    cr_assert(!sim_text_number(S(""), 10, &v) && !sim_text_number(S("-1"), 10, &v));
}

Test(text, base64)
{
    uint8_t out[8];
    char text[16];
    cr_assert_eq(sim_text_base64(S("-_8"), false, out, 8), 2);
    cr_assert(out[0] == 0xfb && out[1] == 0xff);
    cr_assert_eq(sim_text_base64(S("+/8="), true, out, 8), 2);
    cr_assert_eq(sim_text_base64(S("+/8"), true, out, 8), -1);
    cr_assert_eq(sim_text_base64(S("A"), false, out, 8), -1);
    cr_assert_eq(sim_text_base64(S("AAAAAAAAAAAAAAAA"), false, out, 8), -1);
    cr_assert_eq(sim_text_base64url((const uint8_t *)"\xfb\xff\xfe\x01", 4, text), 6);
    cr_assert_str_eq(text, "-__-AQ");
}

Test(text, uuid)
{
    char id[37];
    sim_text_uuid(UINT64_MAX, 0, id);
    cr_assert_str_eq(id, "ffffffff-ffff-4fff-8000-000000000000");
    cr_assert(sim_text_is_uuid(S(id)));
    cr_assert(!sim_text_is_uuid(S("FFFFFFFF-ffff-4fff-8000-000000000000")));
    cr_assert(!sim_text_is_uuid(S("ffffffff-ffff-4fff-8000-00000000000")));
}

Test(latency, distributions)
{
    struct sim_rng rng = {1};
    const struct sim_latency fixed = {SIM_LATENCY_FIXED, 3, 3},
                             uniform = {SIM_LATENCY_UNIFORM, 5, 7},
                             lognormal = {SIM_LATENCY_LOGNORMAL, 20, 200};
    unsigned below_p50 = 0, above_p99 = 0;
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t u = sim_latency_draw_ns(&uniform, &rng), l = sim_latency_draw_ns(&lognormal, &rng);
        cr_assert_eq(sim_latency_draw_ns(&fixed, &rng), 3000000);
        cr_assert(u >= 5000000 && u <= 7000000);
        below_p50 += l < 20000000;
        above_p99 += l > 200000000;
    }
    cr_assert(below_p50 > 49000 && below_p50 < 51000, "%u", below_p50);
    cr_assert(above_p99 > 800 && above_p99 < 1200, "%u", above_p99);
}

Test(delay, comes_out_in_order)
{
    struct sim_delay d = {0};
    struct sim_delay_row row;
    struct sim_rng rng = {3};
    uint64_t last = 0;
    for (unsigned i = 0; i < 5000; i++)
        cr_assert(sim_delay_push(&d, (struct sim_delay_row){.due_ns = sim_rng_next(&rng) % 1000}));
    cr_assert(!sim_delay_pop(&d, 0, &row) || row.due_ns == 0);
    unsigned count = 5000 - d.count;
    while (sim_delay_pop(&d, 1000, &row)) {
        cr_assert_geq(row.due_ns, last);
        last = row.due_ns;
        count++;
    }
    cr_assert_eq(count, 5000);
    free(d.rows);
}

/* ---- HTTP/1.1 ---- */

static long h1(struct sim_stream **ret, const char *text, size_t n, uint16_t *status)
{
    static struct sim_stream_pool pool;
    *ret = sim_stream_take(&pool, NULL, 0);
    return sim_h1_read(&pool, *ret, text, n, status);
}

Test(h1, whole_only_when_whole)
{
    static const char text[] =
        "POST /token HTTP/1.1\r\nHost: x:1\r\nContent-Length: 3\r\n\r\nabcGET";
    struct sim_stream *s;
    uint16_t status;
    for (size_t n = 0; n < sizeof(text) - 4; n++)
        cr_assert_eq(h1(&s, text, n, &status), 0, "at %zu", n);
    cr_assert_eq(h1(&s, text, sizeof(text) - 1, &status), (long)sizeof(text) - 4);
    cr_assert(sim_slice_is(s->q.field[SIM_F_METHOD], "POST") &&
              sim_slice_is(s->q.field[SIM_F_PATH], "/token"));
    cr_assert(sim_slice_is(s->q.field[SIM_F_AUTHORITY], "x:1") && s->q.body_bytes == 3);
}

Test(h1, refused)
{
    static const char *const bad[] = {
        "GET /\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
    };
    struct sim_stream *s;
    uint16_t status;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_eq(h1(&s, bad[i], strlen(bad[i]), &status), -1, "%s", bad[i]);
}

/* ---- scripts ---- */

static struct sim_script *parse(const char *json, char *error)
{
    return sim_script_parse(json, strlen(json), NULL, 1000, error);
}

Test(script, faults_in_their_time)
{
    char error[SIM_SCRIPT_ERROR_BYTES];
    struct sim_script *s =
        parse("{\"faults\":[{\"provider\":\"fcm\",\"kind\":\"storm\",\"start_s\":1,"
              "\"duration_s\":2}]}",
              error);
    cr_assert_not_null(s, "%s", error);
    cr_assert_null(sim_script_active(s, SIM_STORM, SIM_FCM, 1999));
    cr_assert_not_null(sim_script_active(s, SIM_STORM, SIM_FCM, 2000));
    cr_assert_not_null(sim_script_active(s, SIM_STORM, SIM_FCM, 3999));
    cr_assert_null(sim_script_active(s, SIM_STORM, SIM_FCM, 4000));
    cr_assert_null(sim_script_active(s, SIM_STORM, SIM_APNS, 2000));
    sim_script_unref(s);
}

Test(script, refused_with_a_reason)
{
    static const char *const bad[] = {
        "",
        "[]",
        "{\"faults\":[{}]}",
        "{\"faults\":[{\"kind\":\"storm\",\"rate\":2}]}",
        "{\"faults\":[{\"kind\":\"storm\",\"status\":99}]}",
        "{\"faults\":[{\"kind\":\"throttle\",\"per_s\":0}]}",
        "{\"latency\":{\"x\":{\"ms\":1}}}",
        "{\"tokens\":[{\"provider\":\"all\",\"token\":\"x\"}]}",
        "{\"what\":1}",
    };
    char error[SIM_SCRIPT_ERROR_BYTES];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_assert_null(parse(bad[i], error), "%s", bad[i]);
        cr_assert(error[0], "%s", bad[i]);
    }
}

static uint16_t after(struct sim_script *s, const char *token, int64_t now_ms)
{
    static struct sim_answer a;
    struct sim_rng rng = {1};
    struct sim_ctx c = {.rng = &rng, .now_ms = now_ms};
    sim_answer_init(&a);
    a.status = 200;
    a.token = S(token);
    sim_script_after(s, SIM_APNS, &c, &a);
    return a.status;
}

Test(script, throttle_counts_per_window)
{
    char error[SIM_SCRIPT_ERROR_BYTES];
    struct sim_script *s = parse("{\"faults\":[{\"kind\":\"throttle\",\"per_s\":50}]}", error);
    for (int64_t window = 0; window < 10; window++) {
        unsigned passed = 0;
        for (unsigned i = 0; i < 20; i++)
            passed += after(s, "t", 2000 + window * 100 + i) == 200;
        cr_assert_eq(passed, 5);
    }
    sim_script_unref(s);
}

Test(script, dead_by_hash_and_rules_before_it)
{
    char error[SIM_SCRIPT_ERROR_BYTES], token[32];
    struct sim_script *s =
        parse("{\"seed\":5,\"faults\":[{\"kind\":\"dead\",\"rate\":0.2}],\"tokens\":["
              "{\"provider\":\"apns\",\"token\":\"alive\"},"
              "{\"provider\":\"apns\",\"token\":\"gone\",\"reason\":\"ExpiredToken\"}]}",
              error);
    unsigned dead = 0;
    cr_assert_not_null(s, "%s", error);
    for (unsigned i = 0; i < 10000; i++) {
        snprintf(token, sizeof(token), "%u", i);
        uint16_t status = after(s, token, 2000);
        cr_assert_eq(status, after(s, token, 999999));
        dead += status == 410;
    }
    cr_assert(dead > 1800 && dead < 2200, "%u", dead);
    cr_assert_eq(after(s, "alive", 2000), 200);
    cr_assert_eq(after(s, "gone", 2000), 410);
    sim_script_unref(s);
}

/* ---- answers ---- */

Test(answers, every_documented_reason_has_its_status)
{
    static const struct {
        const char *reason;
        uint16_t status;
    } rows[] = {{"BadDeviceToken", 400},   {"Forbidden", 403},           {"BadPath", 404},
                {"MethodNotAllowed", 405}, {"ExpiredToken", 410},        {"PayloadTooLarge", 413},
                {"TooManyRequests", 429},  {"InternalServerError", 500}, {"Shutdown", 503},
                {"NoSuchReason", 0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_assert_eq(sim_apns_status_of(rows[i].reason), rows[i].status, "%s", rows[i].reason);
    cr_assert_eq(sim_fcm_status_of("UNREGISTERED"), 404);
    cr_assert_eq(sim_fcm_status_of("UNSPECIFIED_ERROR"), 500);
    cr_assert_eq(sim_fcm_status_of("NO_SUCH_CODE"), 0);
}

Test(answers, oauth_form)
{
    char out[64];
    struct sim_request q = {.body = "a=1&assertion=x%2By+z%zz&b=2", .body_bytes = 28};
    cr_assert(sim_slice_is(sim_oauth_assertion(&q, out, sizeof(out)), "x+y z%zz"));
    q.body_bytes = 4;
    cr_assert_eq(sim_oauth_assertion(&q, out, sizeof(out)).n, 0);
}

Test(answers, long_ones_are_cut_not_overrun)
{
    static struct sim_answer a;
    static char text[3000];
    memset(text, 'x', sizeof(text) - 1);
    sim_answer_init(&a);
    sim_answer_body(&a, "text/plain", "%s", text);
    cr_assert_eq(a.body_bytes, SIM_ANSWER_BODY_BYTES_MAX - 1);
    for (unsigned i = 0; i < SIM_ANSWER_FIELDS_MAX + 2; i++)
        sim_answer_add(&a, "x", text);
    cr_assert_eq(a.fields_count, SIM_ANSWER_FIELDS_MAX);
    cr_assert_eq(strlen(a.fields[0].value), SIM_ID_BYTES_MAX - 1);
}

Test(channels, added_found_removed)
{
    static const uint8_t raw[16] = {1};
    char id[SIM_CHANNEL_ID_BYTES + 1], list[64];
    struct sim_channels *t = sim_channels_create();
    cr_assert(sim_channels_add(t, S("com.a"), 1, raw, id));
    cr_assert_eq(sim_channels_find(t, S("com.a"), S(id)), 1);
    cr_assert_eq(sim_channels_find(t, S("com.b"), S(id)), -1);
    cr_assert_eq(sim_channels_list(t, S("com.a"), list, sizeof(list)), SIM_CHANNEL_ID_BYTES + 2);
    cr_assert(sim_channels_remove(t, S("com.a"), S(id)) &&
              !sim_channels_remove(t, S("com.a"), S(id)));
    sim_channels_destroy(t);
}
