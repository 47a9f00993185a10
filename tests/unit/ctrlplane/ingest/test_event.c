/* bf_event_parse: what is taken, what each refusal says, identity, lanes, the fragment (ING-1,
 * ING-7). */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <yyjson.h>

#include "belfry/base/err.h"
#include "ingest/event.h"
#include "ingest/fields.h"
#include "ingest/identity.h"
#include "json/json.h"

#define NOW_MS UINT64_C(1767225600000) /* 2026-01-01T00:00:00Z */

static struct bf_event_meta http_meta(void)
{
    return (struct bf_event_meta){.source = BF_SOURCE_HTTP,
                                  .topic_lane = BF_LANE_CRITICAL,
                                  .accepted_ms = NOW_MS,
                                  .producer = "key-1"};
}

static struct bf_event_meta kafka_meta(enum bf_lane lane)
{
    return (struct bf_event_meta){.source = BF_SOURCE_KAFKA,
                                  .topic_lane = lane,
                                  .accepted_ms = NOW_MS,
                                  .producer = "belfry.events.social",
                                  .partition = 3,
                                  .offset = 42};
}

static int parse(const char *json, const struct bf_event_meta *meta, struct bf_event **event,
                 struct bf_problem *problem)
{
    *problem = (struct bf_problem){0};
    return bf_event_parse((struct bf_bytes){json, strlen(json)}, meta, event, problem);
}

static struct bf_event *parse_ok(const char *json, struct bf_event_meta meta)
{
    struct bf_event *event = NULL;
    struct bf_problem problem;
    int rc = parse(json, &meta, &event, &problem);
    cr_assert_eq(rc, 0, "%s: %s", json, problem.detail);
    return event;
}

static void expect_bytes(struct bf_bytes got, const char *want)
{
    cr_assert(got.len == strlen(want) && memcmp(got.at, want, got.len) == 0, "got '%.*s' want '%s'",
              (int)got.len, got.at, want);
}

static const struct {
    const char *json;
    int rc;
    int status;
    const char *type;
    const char *field;
} refused[] = {
    {"", BF_ERR_MALFORMED, 400, "bad-json", ""},
    {"{", BF_ERR_MALFORMED, 400, "bad-json", ""},
    {"[]", BF_ERR_MALFORMED, 400, "wrong-type", ""},
    {"{} x", BF_ERR_MALFORMED, 400, "bad-json", ""},
    {"{\"type\":\"t\",\"user_id\":\"u\",\"title\":\"\xff\"}", BF_ERR_UTF8, 400, "bad-utf8", ""},
    {"{\"type\":\"t\",\"user_id\":\"u\",\"title\":\"\\ud800\"}", BF_ERR_MALFORMED, 400, "bad-json",
     ""},
    {"{\"type\":\"t\",\"title\":\"x\"}", BF_ERR_MALFORMED, 400, "target", "user_id"},
    {"{\"type\":\"t\",\"title\":\"x\",\"broadcast\":false}", BF_ERR_MALFORMED, 400, "target",
     "user_id"},
    {"{\"type\":\"t\",\"title\":\"x\",\"user_id\":\"u\",\"recipients\":[\"v\"]}", BF_ERR_MALFORMED,
     400, "target", "recipients"},
    {"{\"type\":\"t\",\"title\":\"x\",\"user_id\":\"u\",\"broadcast\":true}", BF_ERR_MALFORMED, 400,
     "target", "broadcast"},
    {"{\"user_id\":\"u\",\"title\":\"x\"}", BF_ERR_MALFORMED, 400, "missing-field", "type"},
    {"{\"user_id\":\"u\",\"type\":\"t\"}", BF_ERR_MALFORMED, 400, "missing-field", "title"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"titel\":\"x\"}", BF_ERR_MALFORMED, 400, "unknown-field",
     "titel"},
    {"{\"user_id\":\"u\",\"user_id\":\"v\",\"type\":\"t\",\"title\":\"x\"}", BF_ERR_MALFORMED, 400,
     "duplicate-field", "user_id"},
    {"{\"user_id\":7,\"type\":\"t\",\"title\":\"x\"}", BF_ERR_MALFORMED, 400, "wrong-type",
     "user_id"},
    {"{\"user_id\":\"\",\"type\":\"t\",\"title\":\"x\"}", BF_ERR_MALFORMED, 400, "empty",
     "user_id"},
    {"{\"user_id\":\"a\\u0000b\",\"type\":\"t\",\"title\":\"x\"}", BF_ERR_MALFORMED, 400,
     "bad-character", "user_id"},
    {"{\"recipients\":[],\"type\":\"t\",\"title\":\"x\"}", BF_ERR_MALFORMED, 400, "empty",
     "recipients"},
    {"{\"recipients\":[\"a\",3],\"type\":\"t\",\"title\":\"x\"}", BF_ERR_MALFORMED, 400,
     "wrong-type", "recipients[1]"},
    {"{\"recipients\":[\"\"],\"type\":\"t\",\"title\":\"x\"}", BF_ERR_MALFORMED, 400, "too-long",
     "recipients[0]"},
    {"{\"recipients\":\"a\",\"type\":\"t\",\"title\":\"x\"}", BF_ERR_MALFORMED, 400, "wrong-type",
     "recipients"},
    {"{\"topic\":\"a*\",\"type\":\"t\",\"title\":\"x\"}", BF_ERR_MALFORMED, 400, "bad-character",
     "topic"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"channels\":[]}", BF_ERR_MALFORMED, 400,
     "empty", "channels"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"channels\":[\"fax\"]}", BF_ERR_MALFORMED,
     400, "unknown-channel", "channels[0]"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"channels\":[\"inapp\",\"sms\"]}",
     BF_ERR_MALFORMED, 400, "unsupported-channel", "channels[1]"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"channels\":[\"push\"],\"transient\":"
     "true}",
     BF_ERR_MALFORMED, 400, "conflicting-fields", "transient"},
    {"{\"broadcast\":true,\"type\":\"t\",\"title\":\"x\",\"channels\":[\"inapp\",\"push\"],"
     "\"overrides\":{\"push\":{\"apns\":{\"channel\":\"QQ==\",\"app\":\"a\"}}}}",
     BF_ERR_MALFORMED, 400, "conflicting-fields", "overrides.push.apns.channel"},
    {"{\"broadcast\":true,\"type\":\"t\",\"title\":\"x\",\"channels\":[\"push\"],"
     "\"overrides\":{\"push\":{\"apns\":{\"channel\":\"QQ==\"}}}}",
     BF_ERR_MALFORMED, 400, "missing-field", "overrides.push.apns.app"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"priority\":\"urgent\"}", BF_ERR_MALFORMED,
     400, "bad-value", "priority"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"priority\":\"critical\"}", BF_ERR_DENIED,
     403, "critical-not-allowed", "priority"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"tenant\":\"other\"}", BF_ERR_DENIED, 403,
     "tenant-not-allowed", "tenant"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"ttl\":0}", BF_ERR_MALFORMED, 400,
     "out-of-range", "ttl"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"ttl\":-1}", BF_ERR_MALFORMED, 400,
     "wrong-type", "ttl"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"ttl\":1.5}", BF_ERR_MALFORMED, 400,
     "wrong-type", "ttl"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"ttl\":99999999999}", BF_ERR_MALFORMED,
     400, "out-of-range", "ttl"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"ttl\":9,\"expires_at\":\"2030-01-01T00:"
     "00:00Z\"}",
     BF_ERR_MALFORMED, 400, "conflicting-fields", "expires_at"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"expires_at\":\"tomorrow\"}",
     BF_ERR_MALFORMED, 400, "bad-value", "expires_at"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"expires_at\":\"2020-01-01T00:00:00Z\"}",
     BF_ERR_MALFORMED, 400, "out-of-range", "expires_at"},
    {"{\"broadcast\":true,\"type\":\"t\",\"title\":\"x\",\"transient\":true}", BF_ERR_MALFORMED,
     400, "conflicting-fields", "transient"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"action_url\":\"javascript:alert(1)\"}",
     BF_ERR_MALFORMED, 400, "bad-value", "action_url"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"action_url\":\"//evil\"}",
     BF_ERR_MALFORMED, 400, "bad-value", "action_url"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"actions\":[1]}", BF_ERR_MALFORMED, 400,
     "wrong-type", "actions[0]"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"data\":[]}", BF_ERR_MALFORMED, 400,
     "wrong-type", "data"},
    {"{\"segment\":\"s\",\"type\":\"t\",\"title\":\"x\"}", BF_ERR_MALFORMED, 400,
     "unsupported-field", "segment"},
    {"{\"user_id\":\"u\",\"template_id\":\"x\"}", BF_ERR_MALFORMED, 400, "unsupported-field",
     "template_id"},
    {"{\"user_id\":\"u\",\"scheduled_at\":\"2030-01-01T00:00:00Z\"}", BF_ERR_MALFORMED, 400,
     "unsupported-field", "scheduled_at"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"overrides\":[]}", BF_ERR_MALFORMED, 400,
     "wrong-type", "overrides"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"overrides\":{\"push\":1}}",
     BF_ERR_MALFORMED, 400, "wrong-type", "overrides.push"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"overrides\":{\"email\":{}}}",
     BF_ERR_MALFORMED, 400, "unsupported-channel", "overrides"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"overrides\":{\"push\":{},\"push\":{}}}",
     BF_ERR_MALFORMED, 400, "duplicate-field", "overrides"},
    {"{\"user_id\":\"u\",\"type\":\"t\",\"title\":\"x\",\"fallback\":true}", BF_ERR_MALFORMED, 400,
     "missing-field", "channels"},
};

Test(event, each_refusal_names_its_field)
{
    struct bf_event_meta meta = http_meta();
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct bf_event *event = NULL;
        struct bf_problem problem;
        int rc = parse(refused[i].json, &meta, &event, &problem);
        cr_assert_eq(rc, refused[i].rc, "%s -> %d", refused[i].json, rc);
        cr_assert_null(event);
        cr_assert_eq(problem.status, refused[i].status, "%s", refused[i].json);
        cr_assert_str_eq(problem.type, refused[i].type, "%s", refused[i].json);
        cr_assert_str_eq(problem.field, refused[i].field, "%s", refused[i].json);
        cr_assert_gt(strlen(problem.detail), 0);
    }
}

Test(event, fields_of_a_full_event)
{
    struct bf_event *e = parse_ok(
        "{\"type\":\"order.shipped\",\"user_id\":\"u-1\",\"title\":\"Ship \\\"it\\\"\","
        "\"body\":\"tab\\t and \\u00e9\",\"data\":{ \"n\" : 12345678901234567890123, "
        "\"l\":[1.50, true,null]},\"category\":\"orders\",\"topic\":\"t/1\","
        "\"action_url\":\"myapp://o/1\",\"actions\":[{\"id\":\"a\"}],\"ttl\":60,"
        "\"collapse_key\":\"k\",\"channels\":[\"inapp\"],\"priority\":\"high\",\"id\":null}",
        http_meta());
    cr_assert_eq(e->target, BF_TARGET_USERS);
    cr_assert_eq(e->recipient_count, 1);
    expect_bytes(e->recipients[0], "u-1");
    expect_bytes(e->title, "Ship \"it\"");
    expect_bytes(e->topic, "t/1");
    cr_assert_eq(e->lane, BF_LANE_CRITICAL);
    cr_assert_not(e->is_critical);
    cr_assert(e->channels_named);
    cr_assert_eq(e->channel_mask, 1);
    cr_assert_eq(e->expires_ms, NOW_MS + 60000);
    expect_bytes(e->fragment,
                 "\"type\":\"order.shipped\",\"category\":\"orders\",\"topic\":\"t/1\","
                 "\"title\":\"Ship \\\"it\\\"\",\"body\":\"tab\\t and \xc3\xa9\","
                 "\"data\":{\"n\":12345678901234567890123,\"l\":[1.50,true,null]},"
                 "\"action_url\":\"myapp://o/1\",\"actions\":[{\"id\":\"a\"}],"
                 "\"collapse_key\":\"k\",\"expires\":1767225660000,\"ts\":1767225600000");
    bf_event_ref(e);
    bf_event_unref(e);
    bf_event_unref(e);
    bf_event_unref(NULL);
}

Test(event, smallest_event)
{
    struct bf_event *e = parse_ok("{\"type\":\"t\",\"broadcast\":true,\"body\":\"\"}", http_meta());
    cr_assert_eq(e->target, BF_TARGET_BROADCAST);
    cr_assert_eq(e->lane, BF_LANE_NORMAL);
    cr_assert_eq(e->expires_ms, 0);
    expect_bytes(e->fragment, "\"type\":\"t\",\"body\":\"\",\"ts\":1767225600000");
    bf_event_unref(e);
}

Test(event, recipients_are_a_set)
{
    struct bf_event *e =
        parse_ok("{\"type\":\"t\",\"title\":\"x\",\"recipients\":[\"a\",\"b\",\"a\",\"c\",\"b\"]}",
                 http_meta());
    cr_assert_eq(e->recipient_count, 3);
    expect_bytes(e->recipients[0], "a");
    expect_bytes(e->recipients[2], "c");
    bf_event_unref(e);
}

/* A list of |count| ids of |len| bytes as an event. Caller frees. */
static char *many_recipients(unsigned count, unsigned len)
{
    char *json = malloc(count * (len + 3u) + 100u);
    size_t at = (size_t)sprintf(json, "{\"type\":\"t\",\"title\":\"x\",\"recipients\":[");
    for (unsigned i = 0; i < count; i++)
        at += (size_t)sprintf(json + at, "%s\"%0*u\"", i ? "," : "", (int)len, i);
    sprintf(json + at, "]}");
    return json;
}

Test(event, recipients_up_to_a_thousand)
{
    struct bf_event_meta meta = http_meta();
    struct bf_event *event = NULL;
    struct bf_problem problem;
    char *json = many_recipients(1000, 40);
    event = parse_ok(json, meta);
    cr_assert_eq(event->recipient_count, 1000);
    expect_bytes(event->recipients[999], "0000000000000000000000000000000000000999");
    bf_event_unref(event);
    free(json);
    json = many_recipients(1001, 8);
    cr_assert_eq(parse(json, &meta, &event, &problem), BF_ERR_MALFORMED);
    cr_assert_str_eq(problem.field, "recipients");
    free(json);
}

Test(event, size_limits)
{
    struct bf_event_meta meta = http_meta();
    struct bf_event *event = NULL;
    struct bf_problem problem;
    char *json = malloc(BF_EVENT_BYTES_MAX + 1000);
    size_t at = (size_t)sprintf(json, "{\"type\":\"t\",\"user_id\":\"u\",\"body\":\"");
    memset(json + at, 'x', 16384);
    strcpy(json + at + 16384, "\"}");
    bf_event_unref(parse_ok(json, meta));
    memset(json + at, 'x', 16385);
    strcpy(json + at + 16385, "\"}");
    cr_assert_eq(parse(json, &meta, &event, &problem), BF_ERR_TOO_LARGE);
    cr_assert_str_eq(problem.field, "body");
    memset(json, ' ', BF_EVENT_BYTES_MAX + 1);
    json[BF_EVENT_BYTES_MAX + 1] = '\0';
    cr_assert_eq(parse(json, &meta, &event, &problem), BF_ERR_TOO_LARGE);
    cr_assert_eq(problem.status, 413);
    free(json);
}

/* The largest number of values that the bytes can hold: what sizes yyjson's pool. */
Test(event, densest_data_fits_the_scratch)
{
    char *json = malloc(BF_EVENT_BYTES_MAX);
    size_t at = (size_t)sprintf(json, "{\"type\":\"t\",\"user_id\":\"u\",\"data\":{\"a\":[0");
    while (at < 32700) {
        memcpy(json + at, ",0", 2);
        at += 2;
    }
    strcpy(json + at, "]}}");
    bf_event_unref(parse_ok(json, http_meta()));
    free(json);
}

Test(event, depth_is_bounded)
{
    struct bf_event_meta meta = http_meta();
    struct bf_event *event = NULL;
    struct bf_problem problem;
    char json[512];
    for (unsigned depth = BF_JSON_DEPTH_MAX - 1; depth <= BF_JSON_DEPTH_MAX; depth++) {
        size_t at = (size_t)sprintf(json, "{\"type\":\"t\",\"user_id\":\"u\",\"data\":{\"a\":");
        memset(json + at, '[', depth);
        memset(json + at + depth, ']', depth);
        strcpy(json + at + 2 * depth, "}}");
        int rc = parse(json, &meta, &event, &problem);
        cr_assert_eq(rc, depth < BF_JSON_DEPTH_MAX ? 0 : BF_ERR_MALFORMED, "%u", depth);
        if (rc == 0)
            bf_event_unref(event);
    }
    cr_assert_str_eq(problem.type, "too-deep");
}

static const struct {
    enum bf_event_source source;
    enum bf_lane topic;
    const char *priority;
    enum bf_lane lane;
} lanes[] = {
    {BF_SOURCE_HTTP, BF_LANE_CRITICAL, "", BF_LANE_NORMAL},
    {BF_SOURCE_HTTP, BF_LANE_CRITICAL, ",\"priority\":\"critical\"", BF_LANE_CRITICAL},
    {BF_SOURCE_HTTP, BF_LANE_CRITICAL, ",\"priority\":\"high\"", BF_LANE_CRITICAL},
    {BF_SOURCE_HTTP, BF_LANE_CRITICAL, ",\"priority\":\"normal\"", BF_LANE_NORMAL},
    {BF_SOURCE_HTTP, BF_LANE_CRITICAL, ",\"priority\":\"low\"", BF_LANE_BULK},
    {BF_SOURCE_KAFKA, BF_LANE_CRITICAL, "", BF_LANE_CRITICAL},
    {BF_SOURCE_KAFKA, BF_LANE_NORMAL, "", BF_LANE_NORMAL},
    {BF_SOURCE_KAFKA, BF_LANE_BULK, "", BF_LANE_BULK},
    {BF_SOURCE_KAFKA, BF_LANE_NORMAL, ",\"priority\":\"high\"", BF_LANE_NORMAL},
    {BF_SOURCE_KAFKA, BF_LANE_BULK, ",\"priority\":\"critical\"", BF_LANE_BULK},
    {BF_SOURCE_KAFKA, BF_LANE_CRITICAL, ",\"priority\":\"low\"", BF_LANE_BULK},
    {BF_SOURCE_KAFKA, BF_LANE_CRITICAL, ",\"priority\":\"normal\"", BF_LANE_NORMAL},
};

Test(event, lane_is_the_lower_of_priority_and_topic)
{
    for (size_t i = 0; i < sizeof(lanes) / sizeof(lanes[0]); i++) {
        struct bf_event_meta meta =
            lanes[i].source == BF_SOURCE_HTTP ? http_meta() : kafka_meta(lanes[i].topic);
        char json[200];
        meta.critical_allowed = true;
        snprintf(json, sizeof(json), "{\"type\":\"t\",\"user_id\":\"u\",\"title\":\"x\"%s}",
                 lanes[i].priority);
        struct bf_event *e = parse_ok(json, meta);
        cr_assert_eq(e->lane, lanes[i].lane, "row %zu", i);
        cr_assert_eq(e->is_critical, strstr(lanes[i].priority, "critical") != NULL);
        bf_event_unref(e);
    }
}

static struct bf_id id_of(const char *json, struct bf_event_meta meta)
{
    struct bf_event *e = parse_ok(json, meta);
    struct bf_id id = e->id;
    bf_event_unref(e);
    return id;
}

#define IDENTITY(fields) "{\"type\":\"t\",\"user_id\":\"u\",\"title\":\"x\"" fields "}"

Test(event, identity)
{
    struct bf_event_meta http = http_meta();
    struct bf_event_meta other = http_meta();
    struct bf_event_meta kafka = kafka_meta(BF_LANE_NORMAL);
    strcpy(other.producer, "key-2");
    struct bf_id by_id = id_of(IDENTITY(",\"id\":\"e1\""), http);
    struct bf_id by_id_again = id_of(IDENTITY(",\"id\":\"e1\",\"body\":\"b\""), http);
    struct bf_id by_other = id_of(IDENTITY(",\"id\":\"e1\""), other);
    struct bf_id by_source = id_of(IDENTITY(",\"id\":\"e1\",\"source\":\"s\""), http);
    struct bf_id by_source_other = id_of(IDENTITY(",\"id\":\"e1\",\"source\":\"s\""), other);
    struct bf_id by_key = id_of(IDENTITY(",\"idempotency_key\":\"e1\""), http);
    struct bf_id by_place = id_of(IDENTITY(""), kafka);
    cr_assert(bf_id_is_equal(&by_id, &by_id_again));
    cr_assert_not(bf_id_is_equal(&by_id, &by_other), "two keys are two sources");
    cr_assert(bf_id_is_equal(&by_source, &by_source_other), "a named source is the same anywhere");
    cr_assert_not(bf_id_is_equal(&by_id, &by_key), "kinds of ids do not meet");
    kafka.offset++;
    struct bf_id next_place = id_of(IDENTITY(""), kafka);
    cr_assert_not(bf_id_is_equal(&by_place, &next_place));
    http.has_event_id = true;
    http.event_id = by_key;
    struct bf_id given = id_of(IDENTITY(",\"id\":\"e1\""), http);
    cr_assert(bf_id_is_equal(&given, &by_key), "the id of the 202 wins");
    cr_assert_eq(by_id.bytes[6] >> 4, 8, "UUID version 8");
}

Test(event, message_id_depends_on_every_part)
{
    struct bf_id event = {{1}};
    struct bf_id base, other;
    bf_message_id(&event, BF_BYTES("t"), BF_BYTES("u"), BF_CHANNEL_INAPP, BF_BYTES(""), 0, &base);
    bf_message_id(&event, BF_BYTES("t"), BF_BYTES("u"), BF_CHANNEL_INAPP, BF_BYTES(""), 0, &other);
    cr_assert(bf_id_is_equal(&base, &other));
    bf_message_id(&event, BF_BYTES("tu"), BF_BYTES(""), BF_CHANNEL_INAPP, BF_BYTES(""), 0, &other);
    cr_assert_not(bf_id_is_equal(&base, &other));
    bf_message_id(&event, BF_BYTES("t"), BF_BYTES("u"), BF_CHANNEL_PUSH, BF_BYTES(""), 0, &other);
    cr_assert_not(bf_id_is_equal(&base, &other));
    bf_message_id(&event, BF_BYTES("t"), BF_BYTES("u"), BF_CHANNEL_INAPP, BF_BYTES("d"), 0, &other);
    cr_assert_not(bf_id_is_equal(&base, &other));
    bf_message_id(&event, BF_BYTES("t"), BF_BYTES("u"), BF_CHANNEL_INAPP, BF_BYTES(""), 1, &other);
    cr_assert_not(bf_id_is_equal(&base, &other));
}

Test(event, kafka_counts_unknown_fields_and_names_its_tenant)
{
    struct bf_event *e =
        parse_ok(IDENTITY(",\"foo\":1,\"bar\":{},\"tenant\":\"acme\""), kafka_meta(BF_LANE_NORMAL));
    cr_assert_eq(e->unknown_fields, 2);
    cr_assert_str_eq(e->meta.tenant, "acme");
    bf_event_unref(e);
    struct bf_event *late =
        parse_ok(IDENTITY(",\"expires_at\":\"2020-01-01T00:00:00Z\""), kafka_meta(BF_LANE_NORMAL));
    cr_assert_lt(late->expires_ms, NOW_MS);
    bf_event_unref(late);
}

Test(event, meta_survives_the_log)
{
    struct bf_event_meta meta = kafka_meta(BF_LANE_BULK);
    struct bf_event_meta back;
    uint8_t bytes[BF_EVENT_META_BYTES_MAX];
    meta.critical_allowed = true;
    meta.has_event_id = true;
    meta.event_id.bytes[3] = 7;
    memset(meta.tenant, 't', BF_TENANT_BYTES_MAX);
    strcpy(meta.traceparent, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    size_t len = bf_event_meta_encode(&meta, bytes);
    cr_assert_eq(bf_event_meta_decode(bytes, len, &back), 0);
    cr_assert_str_eq(back.tenant, meta.tenant);
    cr_assert_str_eq(back.producer, meta.producer);
    cr_assert_str_eq(back.traceparent, meta.traceparent);
    cr_assert_eq(back.offset, 42);
    cr_assert_eq(back.partition, 3);
    cr_assert(back.critical_allowed && back.has_event_id);
    cr_assert(bf_id_is_equal(&back.event_id, &meta.event_id));
    for (size_t cut = 0; cut < len; cut++)
        cr_assert_eq(bf_event_meta_decode(bytes, cut, &back), BF_ERR_CORRUPT);
    bytes[0] = 9;
    cr_assert_eq(bf_event_meta_decode(bytes, len, &back), BF_ERR_CORRUPT);
}

/* Any text goes out as the text that came in: checked through yyjson, byte by byte. */
Test(event, fragment_is_json_for_every_character)
{
    char json[256];
    for (unsigned c = 1; c < 0x120; c++) {
        snprintf(json, sizeof(json), "{\"type\":\"t\",\"user_id\":\"u\",\"title\":\"a\\u%04xb\"}",
                 c);
        struct bf_event *e = parse_ok(json, http_meta());
        char back[512];
        int n = snprintf(back, sizeof(back), "{%.*s}", (int)e->fragment.len, e->fragment.at);
        yyjson_doc *doc = yyjson_read(back, (size_t)n, 0);
        cr_assert_not_null(doc, "%s", back);
        const char *title = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "title"));
        cr_assert_eq(strlen(title), e->title.len);
        cr_assert_eq(memcmp(title, e->title.at, e->title.len), 0);
        yyjson_doc_free(doc);
        bf_event_unref(e);
    }
}

Test(event, table_is_consistent)
{
    for (unsigned i = 0; i < BF_F_COUNT; i++) {
        for (unsigned j = i + 1; j < BF_F_COUNT; j++)
            cr_assert_str_neq(bf_field_rows[i].name, bf_field_rows[j].name);
        cr_assert_gt(strlen(bf_field_rows[i].doc), 5);
    }
}

Test(event, channels_and_what_push_gets)
{
    struct bf_event *e =
        parse_ok("{\"type\":\"t\",\"user_id\":\"u\",\"title\":\"x\"}", http_meta());
    cr_assert_not(e->channels_named);
    cr_assert_eq(e->channel_mask, 1u << BF_CHANNEL_INAPP | 1u << BF_CHANNEL_PUSH);
    cr_assert_eq(e->overrides.len, 0);
    bf_event_unref(e);
    e = parse_ok(
        "{\"type\":\"t\",\"user_id\":\"u\",\"title\":\"x\",\"channels\":[\"push\",\"inapp\"],"
        "\"fallback\":true,\"overrides\":{ \"push\": {\"apns\": {\"priority\": 5}} }}",
        http_meta());
    cr_assert(e->channels_named && e->is_fallback);
    cr_assert_eq(e->first_channel, BF_CHANNEL_PUSH);
    cr_assert(bf_bytes_is_equal(e->overrides, BF_BYTES("{\"apns\":{\"priority\":5}}")), "%.*s",
              (int)e->overrides.len, e->overrides.at);
    bf_event_unref(e);
}

/* The same place in a topic that was made anew is another event; the same record read again is not.
 */
Test(event, a_record_without_id_is_told_by_more_than_its_place)
{
    const struct bf_bytes topic = BF_BYTES("belfry.events.social");
    const struct bf_bytes body = BF_BYTES("{\"type\":\"t\"}"), other = BF_BYTES("{\"type\":\"u\"}");
    struct bf_id id, again, anew[5];
    bf_identity_of_record(topic, 3, 42, (int64_t)NOW_MS, body, &id);
    bf_identity_of_record(topic, 3, 42, (int64_t)NOW_MS, body, &again);
    cr_assert(bf_id_is_equal(&id, &again));
    bf_identity_of_record(topic, 3, 42, (int64_t)NOW_MS + 1, body, &anew[0]);
    bf_identity_of_record(topic, 3, 42, (int64_t)NOW_MS, other, &anew[1]);
    bf_identity_of_record(topic, 3, 43, (int64_t)NOW_MS, body, &anew[2]);
    bf_identity_of_record(topic, 2, 42, (int64_t)NOW_MS, body, &anew[3]);
    bf_identity_of_position(topic, 3, 42, &anew[4]);
    for (unsigned i = 0; i < 5; i++)
        cr_assert_not(bf_id_is_equal(&id, &anew[i]), "%u", i);
    bf_identity_of_record(topic, 0, 0, -1, (struct bf_bytes){NULL, 0}, &id); /* a tombstone */

    struct bf_event_meta meta = kafka_meta(BF_LANE_NORMAL);
    meta.has_record_id = true;
    bf_identity_of_record(topic, 3, 42, 7, body, &meta.record_id);
    struct bf_event *event = parse_ok("{\"type\":\"t\",\"user_id\":\"u\",\"title\":\"x\"}", meta);
    cr_assert(bf_id_is_equal(&event->id, &meta.record_id));
    bf_event_unref(event);
    event = parse_ok("{\"type\":\"t\",\"user_id\":\"u\",\"title\":\"x\",\"id\":\"own\"}", meta);
    cr_assert_not(bf_id_is_equal(&event->id, &meta.record_id), "an id of its own comes first");
    bf_event_unref(event);
}

/* What the node wrote before it knew record ids is read; what it writes for Kafka is as before. */
Test(event, meta_of_both_versions)
{
    uint8_t bytes[BF_EVENT_META_BYTES_MAX];
    struct bf_event_meta meta = kafka_meta(BF_LANE_NORMAL), got;
    size_t len = bf_event_meta_encode(&meta, bytes);
    cr_assert_eq(bytes[0], 1);
    cr_assert_eq(bf_event_meta_decode(bytes, len, &got), 0);
    cr_assert_not(got.has_record_id);
    meta.has_record_id = true;
    memset(meta.record_id.bytes, 0x5a, sizeof(meta.record_id.bytes));
    len = bf_event_meta_encode(&meta, bytes);
    cr_assert_eq(bytes[0], 2);
    cr_assert_eq(bf_event_meta_decode(bytes, len, &got), 0);
    cr_assert(got.has_record_id && bf_id_is_equal(&got.record_id, &meta.record_id));
    cr_assert_eq(bf_event_meta_decode(bytes, len - 1, &got), BF_ERR_CORRUPT);
    bytes[0] = 1;
    cr_assert_eq(bf_event_meta_decode(bytes, len, &got), BF_ERR_CORRUPT);
    bytes[0] = 3;
    cr_assert_eq(bf_event_meta_decode(bytes, len, &got), BF_ERR_CORRUPT);
}
