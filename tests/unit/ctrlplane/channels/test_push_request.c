/*
 * Requests as they leave for APNs, FCM and Web Push: header fields and bodies, byte for byte where
 * a person would write them down; and what is refused before it is sent, each with its reason.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <yyjson.h>

#include "belfry/base/err.h"
#include "channels/push/push_request.h"

#define NOW   UINT64_C(1700000000000)
#define TOKEN "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef"
#define APP   "com.example.app"
#define P256DH                                                                                     \
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
#define ID "00010203-0405-8607-8809-0a0b0c0d0e0f"

static struct bf_bytes text(const char *s)
{
    return (struct bf_bytes){s, strlen(s)};
}

static struct bf_push_target target_of(enum bf_push_kind kind)
{
    struct bf_push_target t = {.kind = kind, .app_topic = text(APP), .token = text(TOKEN)};
    if (kind == BF_PUSH_FCM) {
        t.platform = BF_PLATFORM_ANDROID;
        t.app_topic = text("my-project");
        t.token = text("fcm:Token_1");
    } else if (kind == BF_PUSH_WEBPUSH) {
        t.platform = BF_PLATFORM_WEB;
        t.token = text("https://push.example.net:8443/push/abc?x=1");
        t.p256dh = text(P256DH);
        t.auth = text("BTBZMqHH6r4Tts7J_aSIgg");
    }
    return t;
}

struct made {
    int rc;
    char why[BF_WHY_BYTES];
    uint8_t bytes[BF_PUSH_REQUEST_BYTES_MAX];
    size_t len;
    struct bf_bytes path, body;
    uint8_t count;
    struct bf_bytes names[16], values[16];
};

static void decode(struct made *m)
{
    struct bf_reader r = {.buf = m->bytes, .len = m->len};
    m->path = bf_get_str16(&r);
    m->count = bf_get_u8(&r);
    cr_assert_leq(m->count, 16);
    for (unsigned i = 0; i < m->count; i++) {
        m->names[i] = bf_get_bytes(&r, bf_get_u8(&r));
        m->values[i] = bf_get_str16(&r);
        for (size_t k = 0; k < m->names[i].len; k++)
            cr_assert(m->names[i].at[k] < 'A' || m->names[i].at[k] > 'Z', "lower case");
    }
    m->body = bf_get_str32(&r);
    cr_assert(!r.failed);
    cr_assert_eq(r.at, r.len);
}

static struct made make_at(enum bf_lane lane, uint64_t expires_ms, const char *fragment,
                           const char *overrides, const struct bf_push_target *target)
{
    static struct made m;
    struct bf_push_note note;
    struct bf_content_source source = {.lane = lane,
                                       .now_ms = NOW,
                                       .expires_ms = expires_ms,
                                       .fragment = text(fragment),
                                       .overrides = text(overrides)};
    for (unsigned i = 0; i < 16; i++)
        source.message_id.bytes[i] = (uint8_t)i;
    bf_id_seal(&source.message_id);
    memset(&m, 0, sizeof(m));
    m.rc = bf_push_note_open(&source, &note, m.why);
    if (m.rc != 0)
        return m;
    m.rc = bf_push_request_build(&note, target, m.bytes, sizeof(m.bytes), &m.len, m.why);
    bf_push_note_close(&note);
    if (m.rc == 0)
        decode(&m);
    return m;
}

static struct made make(const char *fragment, const char *overrides,
                        const struct bf_push_target *target)
{
    return make_at(BF_LANE_NORMAL, NOW + 3600000, fragment, overrides, target);
}

static void expect_field(const struct made *m, const char *name, const char *value)
{
    for (unsigned i = 0; i < m->count; i++) {
        if (!bf_bytes_is_equal(m->names[i], text(name)))
            continue;
        cr_expect(value != NULL, "%s is there", name);
        cr_expect(value && bf_bytes_is_equal(m->values[i], text(value)), "%s: %.*s, not %s", name,
                  (int)m->values[i].len, m->values[i].at, value);
        return;
    }
    cr_expect(value == NULL, "%s is missing", name);
}

static void expect_body(const struct made *m, const char *body)
{
    cr_assert_eq(m->rc, 0, "%s", m->why);
    cr_expect(bf_bytes_is_equal(m->body, text(body)), "got  %.*s\nwant %s", (int)m->body.len,
              m->body.at, body);
}

static void expect_part(const struct made *m, const char *part)
{
    cr_expect_not_null(memmem(m->body.at, m->body.len, part, strlen(part)), "no %s in %.*s", part,
                       (int)m->body.len, m->body.at);
}

static void expect_why(const struct made *m, int rc, const char *why)
{
    cr_expect_eq(m->rc, rc, "%s: %d", why, m->rc);
    cr_expect_eq(strncmp(m->why, why, strlen(why)), 0, "got %s, want %s", m->why, why);
}

/* ---- APNs ---- */

static const char full[] =
    "\"type\":\"order\",\"category\":\"ORDER\",\"topic\":\"orders\",\"title\":\"Hi \\\"A\\\"\","
    "\"body\":\"é\",\"data\":{\"n\":1.50,\"s\":\"x\"},\"action_url\":\"app://o/1\","
    "\"actions\":[{\"id\":\"a\"}],\"collapse_key\":\"o-1\",\"expires\":1700007200000,"
    "\"ts\":1";

Test(push_request, apns_alert)
{
    struct bf_push_target t = target_of(BF_PUSH_APNS);
    struct made m = make_at(BF_LANE_NORMAL, 0, full, "", &t);
    expect_body(
        &m, "{\"aps\":{\"alert\":{\"title\":\"Hi \\\"A\\\"\",\"body\":\"é\"},\"sound\":\"default\","
            "\"category\":\"ORDER\",\"thread-id\":\"orders\"},\"belfry\":{\"id\":\"" ID "\","
            "\"type\":\"order\",\"action_url\":\"app://o/1\",\"actions\":[{\"id\":\"a\"}]},"
            "\"data\":{\"n\":1.50,\"s\":\"x\"}}");
    cr_expect(bf_bytes_is_equal(m.path, text("/3/device/" TOKEN)));
    expect_field(&m, "apns-id", ID);
    expect_field(&m, "apns-topic", APP);
    expect_field(&m, "apns-push-type", "alert");
    expect_field(&m, "apns-priority", "10");
    expect_field(&m, "apns-expiration", "1700007200");
    expect_field(&m, "apns-collapse-id", "o-1");
    m = make_at(BF_LANE_BULK, 0, "\"title\":\"t\"", "", &t);
    expect_field(&m, "apns-priority", "5");
    expect_field(&m, "apns-collapse-id", NULL);
    expect_field(&m, "apns-expiration", "1700086400");
    m = make_at(BF_LANE_NORMAL, NOW + UINT64_C(90) * 86400000, "\"title\":\"t\"", "", &t);
    expect_field(&m, "apns-expiration", "1702592000");
}

/* Push type, topic, priority, expiration: one row a type of PROVIDERS 1.2. */
Test(push_request, apns_push_types)
{
    static const struct {
        const char *overrides, *topic, *type, *priority, *expiration, *aps;
    } rows[] = {
        {"{\"apns\":{\"push_type\":\"background\"}}", APP, "background", "5", "1700003600",
         "{\"content-available\":1}"},
        {"{\"apns\":{\"push_type\":\"voip\"}}", APP ".voip", "voip", "10", "1700003600", "{}"},
        {"{\"apns\":{\"push_type\":\"complication\"}}", APP ".complication", "complication", "10",
         "1700003600", "{}"},
        {"{\"apns\":{\"push_type\":\"fileprovider\"}}", APP ".pushkit.fileprovider", "fileprovider",
         "10", "1700003600", "{}"},
        {"{\"apns\":{\"push_type\":\"location\"}}", APP ".location-query", "location", "10",
         "1700003600", "{}"},
        {"{\"apns\":{\"push_type\":\"pushtotalk\"}}", APP ".voip-ptt", "pushtotalk", "10", "0",
         "{}"},
        {"{\"apns\":{\"push_type\":\"widgets\"}}", APP ".push-type.widgets", "widgets", "10",
         "1700003600", "{\"content-changed\":true}"},
        {"{\"apns\":{\"push_type\":\"controls\"}}", APP ".push-type.controls", "controls", "10",
         "1700003600", "{\"content-changed\":true}"},
        {"{\"apns\":{\"push_type\":\"liveactivity\",\"priority\":5,\"aps\":{\"content-state\":{"
         "\"s\":2}}}}",
         APP ".push-type.liveactivity", "liveactivity", "5", "1700003600",
         "{\"timestamp\":1700000000,\"event\":\"update\",\"content-state\":{\"s\":2}}"},
        {"{\"apns\":{\"push_type\":\"alert\",\"priority\":1,\"expiration\":0,\"topic\":\"com."
         "other\","
         "\"aps\":{\"alert\":\"own\",\"sound\":\"x.caf\"}}}",
         "com.other", "alert", "1", "0", "{\"alert\":\"own\",\"sound\":\"x.caf\"}"},
    };
    struct bf_push_target t = target_of(BF_PUSH_APNS);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct made m = make("\"title\":\"t\",\"type\":\"k\"", rows[i].overrides, &t);
        char begin[300];
        cr_assert_eq(m.rc, 0, "%s: %s", rows[i].type, m.why);
        expect_field(&m, "apns-topic", rows[i].topic);
        expect_field(&m, "apns-push-type", rows[i].type);
        expect_field(&m, "apns-priority", rows[i].priority);
        expect_field(&m, "apns-expiration", rows[i].expiration);
        snprintf(begin, sizeof(begin), "{\"aps\":%s", rows[i].aps);
        cr_expect_eq(strncmp(m.body.at, begin, strlen(begin)), 0, "%.*s", (int)m.body.len,
                     m.body.at);
    }
    struct made m = make("\"title\":\"t\"",
                         "{\"apns\":{\"push_type\":\"mdm\",\"mdm\":\"magic\",\"topic\":"
                         "\"com.apple.mgmt.1\"}}",
                         &t);
    expect_body(&m, "{\"mdm\":\"magic\"}");
    expect_field(&m, "apns-topic", "com.apple.mgmt.1");
}

Test(push_request, apns_broadcast_channel)
{
    struct bf_push_target t = target_of(BF_PUSH_APNS);
    t.is_broadcast = true;
    t.token = text("dHN0LXNyY2gtY2hubA==");
    struct made m = make("\"title\":\"t\"", "{\"apns\":{\"aps\":{\"content-state\":{}}}}", &t);
    expect_body(&m,
                "{\"aps\":{\"timestamp\":1700000000,\"event\":\"update\",\"content-state\":{}}}");
    cr_expect(bf_bytes_is_equal(m.path, text("/4/broadcasts/apps/" APP)));
    expect_field(&m, "apns-channel-id", "dHN0LXNyY2gtY2hubA==");
    expect_field(&m, "apns-request-id", ID);
    expect_field(&m, "apns-push-type", "liveactivity");
    expect_field(&m, "apns-expiration", "0");
    expect_field(&m, "apns-topic", NULL);
    expect_field(&m, "apns-id", NULL);
    m = make("\"title\":\"t\"", "{\"apns\":{\"push_type\":\"alert\"}}", &t);
    expect_why(&m, BF_ERR_MALFORMED, "bad_override: a broadcast channel");
}

Test(push_request, apns_limits)
{
    struct bf_push_target t = target_of(BF_PUSH_APNS);
    char fragment[7000];
    for (unsigned voip = 0; voip < 2; voip++) {
        size_t max = voip ? BF_APNS_PAYLOAD_VOIP_BYTES_MAX : BF_APNS_PAYLOAD_BYTES_MAX;
        const char *over = voip ? "{\"apns\":{\"push_type\":\"voip\"}}" : "";
        struct made empty = make("\"data\":{\"x\":\"\"}", over, &t);
        cr_assert_eq(empty.rc, 0, "%s", empty.why);
        int pad = (int)(max - empty.body.len);
        snprintf(fragment, sizeof(fragment), "\"data\":{\"x\":\"%0*d\"}", pad, 0);
        struct made m = make(fragment, over, &t);
        cr_expect_eq(m.rc, 0, "%s", m.why);
        cr_expect_eq(m.body.len, max);
        snprintf(fragment, sizeof(fragment), "\"data\":{\"x\":\"%0*d\"}", pad + 1, 0);
        m = make(fragment, over, &t);
        expect_why(&m, BF_ERR_TOO_LARGE, "payload_too_large: APNs takes");
        snprintf(fragment, sizeof(fragment), "\"data\":{\"x\":\"%0*d\"}", 6500, 0);
        m = make(fragment, over, &t);
        expect_why(&m, BF_ERR_TOO_LARGE, "payload_too_large: APNs takes");
    }
}

Test(push_request, apns_refused)
{
    static const struct {
        const char *overrides, *why;
    } rows[] = {
        {"{\"apns\":{\"push_type\":\"nonsense\"}}", "bad_override: no APNs push type nonsense"},
        {"{\"apns\":{\"push_type\":7}}",
         "bad_override: overrides.push.apns.push_type takes a text"},
        {"{\"apns\":{\"priority\":7}}", "bad_override: an APNs priority is 1, 5 or 10"},
        {"{\"apns\":{\"priority\":\"10\"}}",
         "bad_override: overrides.push.apns.priority takes a number"},
        {"{\"apns\":{\"priority\":-1}}",
         "bad_override: overrides.push.apns.priority takes a number"},
        {"{\"apns\":{\"priority\":5.5}}",
         "bad_override: overrides.push.apns.priority takes a number"},
        {"{\"apns\":{\"push_type\":\"background\",\"priority\":10}}",
         "bad_override: push type background takes priority 5 only"},
        {"{\"apns\":{\"push_type\":\"background\",\"aps\":{\"alert\":\"x\"}}}",
         "bad_override: a background push has no alert"},
        {"{\"apns\":{\"push_type\":\"pushtotalk\",\"priority\":5}}",
         "bad_override: push type pushtotalk takes priority 10 only"},
        {"{\"apns\":{\"push_type\":\"pushtotalk\",\"expiration\":9}}",
         "bad_override: push type pushtotalk takes expiration 0 only"},
        {"{\"apns\":{\"push_type\":\"mdm\"}}", "bad_override: push type mdm needs"},
        {"{\"apns\":{\"push_type\":\"liveactivity\"}}", "bad_override: a Live Activity needs"},
        {"{\"apns\":{\"payload\":{\"aps\":{}}}}", "reserved_key: overrides.push.apns.payload.aps"},
        {"{\"apns\":{\"payload\":{\"data\":{}}}}",
         "reserved_key: overrides.push.apns.payload.data"},
        {"{\"apns\":{\"aps\":[]}}", "bad_override: overrides.push.apns.aps takes an object"},
        {"{\"apns\":{\"topic\":\"a b\"}}", "bad_override: overrides.push.apns.topic"},
        {"{\"apns\":{\"sound\":\"x\"}}", "bad_override: overrides.push.apns.sound is not known"},
        {"{\"apns\":3}", "bad_override: overrides.push.apns"},
        {"{\"gcm\":{}}", "bad_override: overrides.push.gcm"},
        {"[]", "bad_override: overrides.push is not"},
        {"{", "bad_override: overrides.push is not"},
    };
    struct bf_push_target t = target_of(BF_PUSH_APNS);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct made m = make("\"title\":\"t\"", rows[i].overrides, &t);
        expect_why(&m, BF_ERR_MALFORMED, rows[i].why);
    }
    t.is_certificate = true;
    struct made m = make("\"title\":\"t\"", "{\"apns\":{\"push_type\":\"location\"}}", &t);
    expect_why(&m, BF_ERR_MALFORMED, "bad_override: push type location needs");
    t = target_of(BF_PUSH_APNS);
    m = make_at(BF_LANE_NORMAL, NOW, "\"title\":\"t\"", "", &t);
    expect_why(&m, BF_ERR_EXPIRED, "expired: ");
    m = make("\"title\":", "", &t);
    expect_why(&m, BF_ERR_MALFORMED, "bad_event: ");
}

Test(push_request, tokens_are_checked)
{
    static const char *const bad_apns[] = {"", "0", "0g", "../../x", "00 0", "0\r\n0"};
    struct bf_push_target t = target_of(BF_PUSH_APNS);
    struct made m;
    for (size_t i = 0; i < sizeof(bad_apns) / sizeof(bad_apns[0]); i++) {
        t.token = text(bad_apns[i]);
        m = make("", "", &t);
        expect_why(&m, BF_ERR_MALFORMED, "bad_token: ");
    }
    static const char *const bad_web[] = {
        "http://a/b",    "https://a",     "https:///b",    "https://u@h/b",
        "https://h/b c", "https://h/b#f", "https://h?x/b", "x"};
    t = target_of(BF_PUSH_WEBPUSH);
    for (size_t i = 0; i < sizeof(bad_web) / sizeof(bad_web[0]); i++) {
        t.token = text(bad_web[i]);
        m = make("", "", &t);
        expect_why(&m, BF_ERR_MALFORMED, "bad_token: ");
    }
    t = target_of(BF_PUSH_WEBPUSH);
    t.auth = text("AAAA");
    m = make("", "", &t);
    expect_why(&m, BF_ERR_MALFORMED, "bad_keys: ");
    t = target_of(BF_PUSH_FCM);
    t.token = text("a\"b");
    m = make("", "", &t);
    expect_why(&m, BF_ERR_MALFORMED, "bad_token: ");
    t = target_of(BF_PUSH_FCM);
    t.app_topic = text("");
    m = make("", "", &t);
    expect_why(&m, BF_ERR_MALFORMED, "bad_app: ");
}

/* ---- collapse ids ---- */

Test(push_request, collapse_ids)
{
    char out[65], again[65];
    char key[101];
    memset(key, 'k', sizeof(key));
    bf_push_collapse_id((struct bf_bytes){key, 64}, 64, false, out);
    cr_expect_eq(strlen(out), 64);
    cr_expect_eq(memcmp(out, key, 64), 0, "64 bytes fit");
    bf_push_collapse_id((struct bf_bytes){key, 65}, 64, false, out);
    bf_push_collapse_id((struct bf_bytes){key, 66}, 64, false, again);
    cr_expect_leq(strlen(out), 64);
    cr_expect_str_neq(out, again, "hashed, not cut");
    bf_push_collapse_id(text("a b"), 64, false, out);
    cr_expect_eq(strlen(out), 43, "a space is no header value's");
    bf_push_collapse_id(text("order.1"), 32, true, out);
    cr_expect_eq(strlen(out), 32, "a dot is not base64url");
    cr_expect_eq(strspn(out, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"),
                 32);
    bf_push_collapse_id(text("order-1_"), 32, true, out);
    cr_expect_str_eq(out, "order-1_");
    /* no base64url has 4n + 1 characters: services decode a topic, and refuse it */
    for (size_t n = 1; n <= 34; n++) {
        bf_push_collapse_id((struct bf_bytes){key, n}, 32, true, out);
        cr_expect_neq(strlen(out) % 4, 1, "%zu", n);
        cr_expect_leq(strlen(out), 32);
        cr_expect_eq(strncmp(out, "kk", 2) == 0, n <= 32 && n % 4 != 1 && n > 1, "%zu: %s", n, out);
    }
}

/* What providers keep at most, whatever an event asks for. */
Test(push_request, lifetimes_are_cut)
{
    struct bf_push_target t = target_of(BF_PUSH_WEBPUSH);
    const uint64_t year_ms = UINT64_C(365) * 86400000;
    struct made m = make_at(BF_LANE_NORMAL, NOW + year_ms, "\"title\":\"t\"", "", &t);
    expect_field(&m, "ttl", "2419200");
    m = make("\"title\":\"t\"", "{\"webpush\":{\"ttl\":4000000000}}", &t);
    expect_field(&m, "ttl", "2419200");
    t = target_of(BF_PUSH_FCM);
    t.platform = BF_PLATFORM_WEB;
    m = make_at(BF_LANE_NORMAL, NOW + year_ms, "\"title\":\"t\"", "", &t);
    expect_part(&m, "\"webpush\":{\"headers\":{\"TTL\":\"2419200\",");
    t.platform = BF_PLATFORM_ANDROID;
    m = make("\"title\":\"t\"", "{\"fcm\":{\"android\":{\"ttl\":\"2419201s\"}}}", &t);
    cr_expect_eq(m.rc, BF_ERR_MALFORMED);
    t = target_of(BF_PUSH_APNS);
    m = make("\"title\":\"t\"", "{\"apns\":{\"expiration\":4000000000}}", &t);
    char month[24];
    snprintf(month, sizeof(month), "%llu", (unsigned long long)(NOW / 1000 + BF_APNS_STORED_S_MAX));
    expect_field(&m, "apns-expiration", month);
}

/* ---- FCM ---- */

Test(push_request, fcm_android)
{
    struct bf_push_target t = target_of(BF_PUSH_FCM);
    struct made m = make(full, "", &t);
    expect_body(&m, "{\"message\":{\"token\":\"fcm:Token_1\",\"data\":{\"n\":\"1.50\",\"s\":\"x\","
                    "\"belfry_id\":\"" ID
                    "\",\"belfry_type\":\"order\",\"belfry_action_url\":\"app://o/1\","
                    "\"belfry_actions\":\"[{\\\"id\\\":\\\"a\\\"}]\"},\"notification\":{\"title\":"
                    "\"Hi \\\"A\\\"\","
                    "\"body\":\"é\"},\"android\":{\"collapse_key\":\"o-1\",\"priority\":\"high\","
                    "\"ttl\":\"3600s\"}}}");
    cr_expect(bf_bytes_is_equal(m.path, text("/v1/projects/my-project/messages:send")));
    expect_field(&m, "content-type", "application/json");
    m = make_at(BF_LANE_BULK, NOW + UINT64_C(60) * 86400000, "\"title\":\"t\"", "", &t);
    expect_body(&m, "{\"message\":{\"token\":\"fcm:Token_1\",\"data\":{\"belfry_id\":\"" ID "\"},"
                    "\"notification\":{\"title\":\"t\"},\"android\":{\"priority\":\"normal\","
                    "\"ttl\":\"2419200s\"}}}");
    m = make(
        "\"title\":\"t\"",
        "{\"image\":\"https://i/x.png\",\"fcm\":{\"priority\":\"normal\",\"notification\":"
        "{\"title\":\"own\"},\"android\":{\"ttl\":\"0s\",\"notification\":{\"channel_id\":\"c\"}},"
        "\"fcm_options\":{\"analytics_label\":\"l\"}}}",
        &t);
    expect_body(&m, "{\"message\":{\"token\":\"fcm:Token_1\",\"data\":{\"belfry_id\":\"" ID "\"},"
                    "\"notification\":{\"image\":\"https://i/"
                    "x.png\",\"title\":\"own\"},\"android\":{\"priority\":"
                    "\"normal\",\"ttl\":\"0s\",\"notification\":{\"channel_id\":\"c\"}},"
                    "\"fcm_options\":{\"analytics_label\":\"l\"}}}");
    m = make("\"title\":\"t\",\"data\":{\"o\":{\"a\":[true,null]},\"b\":false}",
             "{\"fcm\":{\"data_only\":true}}", &t);
    expect_body(
        &m,
        "{\"message\":{\"token\":\"fcm:Token_1\",\"data\":{\"o\":\"{\\\"a\\\":[true,null]}\",\"b\":"
        "\"false\",\"belfry_id\":\"" ID
        "\"},\"android\":{\"priority\":\"high\",\"ttl\":\"3600s\"}}}");
}

Test(push_request, fcm_other_platforms)
{
    struct bf_push_target t = target_of(BF_PUSH_FCM);
    t.platform = BF_PLATFORM_IOS;
    struct made m = make("\"title\":\"t\",\"collapse_key\":\"k\"", "", &t);
    expect_body(
        &m, "{\"message\":{\"token\":\"fcm:Token_1\",\"data\":{\"belfry_id\":\"" ID "\"},"
            "\"notification\":{\"title\":\"t\"},\"apns\":{\"headers\":{\"apns-priority\":\"10\","
            "\"apns-expiration\":\"1700003600\",\"apns-collapse-id\":\"k\"},\"payload\":{\"aps\":"
            "{\"sound\":\"default\"}}}}}");
    t.platform = BF_PLATFORM_WEB;
    m = make("\"title\":\"t\",\"collapse_key\":\"a.b\",\"action_url\":\"https://x/y\"", "", &t);
    cr_assert_eq(m.rc, 0, "%s", m.why);
    expect_part(&m, "\"webpush\":{\"headers\":{\"TTL\":\"3600\",\"Urgency\":\"high\",\"Topic\":\"");
    expect_part(&m, "\"fcm_options\":{\"link\":\"https://x/y\"}");
}

Test(push_request, fcm_refused)
{
    static const char *const reserved[] = {"from",   "message_type", "gcm",     "gcm.x",
                                           "google", "google.c",     "googlex", "belfry_id"};
    static const struct {
        const char *overrides, *why;
    } rows[] = {
        {"{\"fcm\":{\"priority\":\"urgent\"}}", "bad_override: an FCM priority is normal or high"},
        {"{\"fcm\":{\"data_only\":1}}", "bad_override: overrides.push.fcm.data_only takes a bool"},
        {"{\"fcm\":{\"android\":[]}}", "bad_override: overrides.push.fcm.android takes an object"},
        {"{\"fcm\":{\"topic\":\"t\"}}", "bad_override: overrides.push.fcm.topic is not known"},
        {"{\"fcm\":{\"android\":{\"data\":{\"n\":1}}}}",
         "reserved_key: overrides.push.fcm.android.data.n"},
        {"{\"fcm\":{\"webpush\":{\"data\":{\"from\":\"x\"}}}}",
         "reserved_key: overrides.push.fcm.webpush.data"},
    };
    struct bf_push_target t = target_of(BF_PUSH_FCM);
    char fragment[8000];
    struct made m;
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
        snprintf(fragment, sizeof(fragment), "\"data\":{\"%s\":\"x\"}", reserved[i]);
        m = make(fragment, "", &t);
        expect_why(&m, BF_ERR_MALFORMED, "reserved_key: data.");
    }
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        m = make("\"title\":\"t\"", rows[i].overrides, &t);
        expect_why(&m, BF_ERR_MALFORMED, rows[i].why);
    }
    snprintf(fragment, sizeof(fragment), "\"data\":{\"x\":\"%0*d\"}", 3900, 0);
    m = make(fragment, "", &t);
    cr_expect_eq(m.rc, 0, "%s", m.why);
    snprintf(fragment, sizeof(fragment), "\"data\":{\"x\":\"%0*d\"}", 4096, 0);
    m = make(fragment, "", &t);
    expect_why(&m, BF_ERR_TOO_LARGE, "payload_too_large: FCM");
    snprintf(fragment, sizeof(fragment), "\"data\":{\"x\":[\"%0*d\"]}", 7000, 0);
    m = make(fragment, "", &t);
    expect_why(&m, BF_ERR_TOO_LARGE, "payload_too_large: FCM");
}

/* ---- Web Push ---- */

Test(push_request, webpush)
{
    struct bf_push_target t = target_of(BF_PUSH_WEBPUSH);
    struct made m = make(full, "", &t);
    cr_assert_eq(m.rc, 0, "%s", m.why);
    cr_expect(bf_bytes_is_equal(m.path, text("/push/abc?x=1")));
    expect_field(&m, "ttl", "3600");
    expect_field(&m, "urgency", "normal");
    expect_field(&m, "topic", "o-1");
    expect_field(&m, "content-encoding", "aes128gcm");
    const char *plain =
        "{\"id\":\"" ID "\",\"type\":\"order\",\"category\":\"ORDER\",\"title\":\"Hi \\\"A\\\"\","
        "\"body\":\"é\",\"action_url\":\"app://o/1\",\"actions\":[{\"id\":\"a\"}],"
        "\"data\":{\"n\":1.50,\"s\":\"x\"}}";
    cr_expect_eq(m.body.len, 86 + strlen(plain) + 1 + 16, "header, text, delimiter, tag");
    cr_expect_eq((uint8_t)m.body.at[20], 65);
    cr_expect_null(memmem(m.body.at, m.body.len, "order", 5), "encrypted");
    m = make_at(BF_LANE_CRITICAL, NOW + 1, "\"title\":\"t\"", "", &t);
    expect_field(&m, "urgency", "high");
    expect_field(&m, "ttl", "1");
    m = make("\"collapse_key\":\"a.b\"",
             "{\"webpush\":{\"urgency\":\"very-low\",\"ttl\":0,\"payload\":{\"k\":1}}}", &t);
    expect_field(&m, "urgency", "very-low");
    expect_field(&m, "ttl", "0");
    cr_expect_eq(m.values[2].len, 32);
}

Test(push_request, webpush_refused)
{
    struct bf_push_target t = target_of(BF_PUSH_WEBPUSH);
    char fragment[8000];
    struct made m = make("\"data\":{\"x\":\"\"}", "", &t);
    int pad = (int)(3993 - (m.body.len - 86 - 17));
    snprintf(fragment, sizeof(fragment), "\"data\":{\"x\":\"%0*d\"}", pad, 0);
    m = make(fragment, "", &t);
    cr_expect_eq(m.rc, 0, "%s", m.why);
    cr_expect_eq(m.body.len, 4096);
    snprintf(fragment, sizeof(fragment), "\"data\":{\"x\":\"%0*d\"}", pad + 1, 0);
    m = make(fragment, "", &t);
    expect_why(&m, BF_ERR_TOO_LARGE, "payload_too_large: Web Push takes 3993 bytes");
    m = make("", "{\"webpush\":{\"urgency\":\"now\"}}", &t);
    expect_why(&m, BF_ERR_MALFORMED, "bad_override: an urgency");
    m = make("", "{\"webpush\":{\"payload\":{\"title\":1}}}", &t);
    expect_why(&m, BF_ERR_MALFORMED, "reserved_key: ");
}

/* No buffer is too small to be told so. */
Test(push_request, every_capacity)
{
    struct bf_push_note note;
    struct bf_content_source source = {.now_ms = NOW, .fragment = text(full)};
    char why[BF_WHY_BYTES];
    cr_assert_eq(bf_push_note_open(&source, &note, why), 0);
    for (int kind = 0; kind < BF_PUSH_KIND_COUNT; kind++) {
        struct bf_push_target t = target_of((enum bf_push_kind)kind);
        uint8_t whole[BF_PUSH_REQUEST_BYTES_MAX];
        size_t len = 0;
        cr_assert_eq(bf_push_request_build(&note, &t, whole, sizeof(whole), &len, why), 0);
        for (size_t cap = 0; cap <= len; cap++) {
            uint8_t *out = malloc(cap ? cap : 1);
            size_t got;
            int rc = bf_push_request_build(&note, &t, out, cap, &got, why);
            cr_assert_eq(rc, cap < len ? BF_ERR_TOO_LARGE : 0, "kind %d, cap %zu: %d", kind, cap,
                         rc);
            free(out);
        }
    }
    bf_push_note_close(&note);
}
