/*
 * Requests for FCM HTTP v1 (PROVIDERS 2). Only the part of the device's own platform is written:
 * the others would spend the 4,096 bytes on nobody.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "channels/push/push_build.h"
#include "json/json.h"

/* Values of data that are not texts travel as their JSON text; what does not fit here fits no
 * message. */
#define VALUE_BYTES_MAX (BF_FCM_PAYLOAD_BYTES_MAX + 1u)

struct asked {
    bool data_only, is_high;
    yyjson_val *notification, *android, *apns, *webpush, *fcm_options;
};

static int read_asked(struct bf_push_build *b, struct asked *a)
{
    static const char *const names[] = {"priority", "data_only", "notification", "android",
                                        "apns",     "webpush",   "fcm_options"};
    struct bf_bytes priority = {0};
    int rc = bf_push_check_options(b, names, sizeof(names) / sizeof(names[0]));
    yyjson_val *data_only = yyjson_obj_get(b->options, "data_only");
    if (rc == 0 && data_only && !yyjson_is_bool(data_only))
        rc = bf_push_refuse(b, BF_ERR_MALFORMED,
                            "bad_override: overrides.push.fcm.data_only takes a bool");
    if (rc == 0)
        rc = bf_push_option_text(b, "priority", &priority);
    a->data_only = yyjson_get_bool(data_only);
    a->is_high = b->note->lane != BF_LANE_BULK;
    if (rc == 0 && priority.len > 0) {
        a->is_high = bf_bytes_is_equal(priority, BF_BYTES("high"));
        if (!a->is_high && !bf_bytes_is_equal(priority, BF_BYTES("normal")))
            rc = bf_push_refuse(b, BF_ERR_MALFORMED,
                                "bad_override: an FCM priority is normal or high");
    }
    yyjson_val **const objects[] = {&a->notification, &a->android, &a->apns, &a->webpush,
                                    &a->fcm_options};
    for (size_t i = 0; rc == 0 && i < sizeof(objects) / sizeof(objects[0]); i++)
        rc = bf_push_option_object(b, names[i + 2], objects[i]);
    return rc;
}

/* ---- data: texts only ---- */

static bool begins(struct bf_bytes key, const char *prefix)
{
    size_t len = strlen(prefix);
    return key.len >= len && memcmp(key.at, prefix, len) == 0;
}

static bool is_reserved(struct bf_bytes key)
{
    return bf_bytes_is_equal(key, BF_BYTES("from")) ||
           bf_bytes_is_equal(key, BF_BYTES("message_type")) || begins(key, "gcm") ||
           begins(key, "google") || begins(key, "belfry_");
}

/* A value as the text that FCM takes: a text itself, anything else as JSON. */
static void put_as_text(struct bf_push_object *o, struct bf_bytes key, yyjson_val *val)
{
    uint8_t json[VALUE_BYTES_MAX];
    struct bf_writer w = {.buf = json, .cap = sizeof(json)};
    bf_push_key(o, key);
    if (yyjson_is_str(val)) {
        bf_json_put_str(o->w, (struct bf_bytes){yyjson_get_str(val), yyjson_get_len(val)});
        return;
    }
    if (!bf_json_put_value(&w, val) || w.failed)
        o->w->failed = true;
    else
        bf_json_put_str(o->w, (struct bf_bytes){(char *)json, w.len});
}

static int put_data(struct bf_push_build *b, struct bf_push_object *message)
{
    struct bf_push_object data;
    size_t i, max;
    yyjson_val *key, *val;
    bf_push_key(message, BF_BYTES("data"));
    bf_push_object_begin(&data, &b->w);
    yyjson_obj_foreach (b->note->data, i, max, key, val) {
        struct bf_bytes name = {yyjson_get_str(key), yyjson_get_len(key)};
        if (is_reserved(name))
            return bf_push_refuse(
                b, BF_ERR_MALFORMED,
                "reserved_key: data.%.*s: FCM keeps from, "
                "message_type, gcm... and google... for itself, Belfry belfry_...",
                BF_CUT(name.at, 60));
        put_as_text(&data, name, val);
    }
    bf_push_put_id(&data, "belfry_id", &b->note->message_id);
    bf_push_put_text(&data, "belfry_type", b->note->type);
    bf_push_put_text(&data, "belfry_action_url", b->note->action_url);
    if (b->note->actions)
        put_as_text(&data, BF_BYTES("belfry_actions"), b->note->actions);
    bf_push_object_end(&data);
    return 0;
}

/* ---- parts by platform ---- */

static void put_notification(struct bf_push_build *b, const struct asked *a,
                             struct bf_push_object *message)
{
    struct bf_push_object o;
    bool has_any = b->note->title.len || b->note->body.len || a->notification;
    if (a->data_only || !has_any)
        return;
    bf_push_key(message, BF_BYTES("notification"));
    bf_push_object_begin(&o, &b->w);
    if (!yyjson_obj_get(a->notification, "title"))
        bf_push_put_text(&o, "title", b->note->title);
    if (!yyjson_obj_get(a->notification, "body"))
        bf_push_put_text(&o, "body", b->note->body);
    if (!yyjson_obj_get(a->notification, "image"))
        bf_push_put_text(&o, "image", b->note->image);
    bf_push_put_members(&o, a->notification);
    bf_push_object_end(&o);
}

static void put_android(struct bf_push_build *b, const struct asked *a,
                        struct bf_push_object *message)
{
    struct bf_push_object o;
    char ttl[24];
    uint64_t ttl_s = bf_push_ttl_s(b->note);
    snprintf(ttl, sizeof(ttl), "%llus",
             (unsigned long long)(ttl_s < BF_FCM_TTL_S_MAX ? ttl_s : BF_FCM_TTL_S_MAX));
    bf_push_key(message, BF_BYTES("android"));
    bf_push_object_begin(&o, &b->w);
    if (!yyjson_obj_get(a->android, "collapse_key"))
        bf_push_put_text(&o, "collapse_key", b->note->collapse_key);
    if (!yyjson_obj_get(a->android, "priority"))
        bf_push_put_text(&o, "priority", a->is_high ? BF_BYTES("high") : BF_BYTES("normal"));
    if (!yyjson_obj_get(a->android, "ttl"))
        bf_push_put_text(&o, "ttl", (struct bf_bytes){ttl, strlen(ttl)});
    bf_push_put_members(&o, a->android);
    bf_push_object_end(&o);
}

static void put_number_text(struct bf_push_object *o, const char *key, uint64_t value)
{
    char digits[21];
    snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
    bf_push_put_text(o, key, (struct bf_bytes){digits, strlen(digits)});
}

static void put_apns(struct bf_push_build *b, const struct asked *a, struct bf_push_object *message)
{
    struct bf_push_object o, inner, aps;
    char collapse[BF_APNS_COLLAPSE_BYTES_MAX + 1];
    uint64_t ttl_s = bf_push_ttl_s(b->note);
    ttl_s = ttl_s < BF_APNS_STORED_S_MAX ? ttl_s : BF_APNS_STORED_S_MAX;
    bf_push_key(message, BF_BYTES("apns"));
    bf_push_object_begin(&o, &b->w);
    if (!yyjson_obj_get(a->apns, "headers")) {
        bf_push_key(&o, BF_BYTES("headers"));
        bf_push_object_begin(&inner, &b->w);
        bf_push_put_text(&inner, "apns-priority",
                         a->is_high && !a->data_only ? BF_BYTES("10") : BF_BYTES("5"));
        put_number_text(&inner, "apns-expiration", b->note->now_ms / 1000 + ttl_s);
        if (b->note->collapse_key.len > 0) {
            bf_push_collapse_id(b->note->collapse_key, BF_APNS_COLLAPSE_BYTES_MAX, false, collapse);
            bf_push_put_text(&inner, "apns-collapse-id",
                             (struct bf_bytes){collapse, strlen(collapse)});
        }
        bf_push_object_end(&inner);
    }
    if (!yyjson_obj_get(a->apns, "payload")) {
        bf_push_key(&o, BF_BYTES("payload"));
        bf_push_object_begin(&inner, &b->w);
        bf_push_key(&inner, BF_BYTES("aps"));
        bf_push_object_begin(&aps, &b->w);
        if (a->data_only) {
            bf_push_key(&aps, BF_BYTES("content-available"));
            bf_put_u8(&b->w, '1');
        } else {
            struct bf_push_note shown = *b->note; /* FCM makes the alert from notification */
            shown.title = shown.body = (struct bf_bytes){0};
            bf_push_put_aps_alert(&aps, &shown, NULL);
        }
        bf_push_object_end(&aps);
        bf_push_object_end(&inner);
    }
    bf_push_put_members(&o, a->apns);
    bf_push_object_end(&o);
}

static void put_webpush(struct bf_push_build *b, const struct asked *a,
                        struct bf_push_object *message)
{
    struct bf_push_object o, inner;
    char topic[BF_WEBPUSH_TOPIC_CHARS_MAX + 1];
    bf_push_key(message, BF_BYTES("webpush"));
    bf_push_object_begin(&o, &b->w);
    if (!yyjson_obj_get(a->webpush, "headers")) {
        bf_push_key(&o, BF_BYTES("headers"));
        bf_push_object_begin(&inner, &b->w);
        uint64_t ttl_s = bf_push_ttl_s(b->note);
        put_number_text(&inner, "TTL", ttl_s < BF_FCM_TTL_S_MAX ? ttl_s : BF_FCM_TTL_S_MAX);
        bf_push_put_text(&inner, "Urgency", a->is_high ? BF_BYTES("high") : BF_BYTES("normal"));
        if (b->note->collapse_key.len > 0) {
            bf_push_collapse_id(b->note->collapse_key, BF_WEBPUSH_TOPIC_CHARS_MAX, true, topic);
            bf_push_put_text(&inner, "Topic", (struct bf_bytes){topic, strlen(topic)});
        }
        bf_push_object_end(&inner);
    }
    if (!yyjson_obj_get(a->webpush, "fcm_options") && b->note->action_url.len > 8 &&
        memcmp(b->note->action_url.at, "https://", 8) == 0) {
        bf_push_key(&o, BF_BYTES("fcm_options"));
        bf_push_object_begin(&inner, &b->w);
        bf_push_put_text(&inner, "link", b->note->action_url);
        bf_push_object_end(&inner);
    }
    bf_push_put_members(&o, a->webpush);
    bf_push_object_end(&o);
}

/* A part's own data map is the caller's text: same rules. */
static int check_part_data(struct bf_push_build *b, yyjson_val *part, const char *name)
{
    size_t i, max;
    yyjson_val *key, *val;
    yyjson_obj_foreach (yyjson_obj_get(part, "data"), i, max, key, val) {
        struct bf_bytes text = {yyjson_get_str(key), yyjson_get_len(key)};
        if (!yyjson_is_str(val) || is_reserved(text))
            return bf_push_refuse(b, BF_ERR_MALFORMED,
                                  "reserved_key: overrides.push.fcm.%s.data.%.*s: "
                                  "values are texts, and the key may not be FCM's own",
                                  name, BF_CUT(text.at, 60));
    }
    return 0;
}

/* The caller's own lifetimes: what FCM refuses is refused before. */
static int check_lifetimes(struct bf_push_build *b, const struct asked *a)
{
    yyjson_val *ttl = yyjson_obj_get(a->android, "ttl");
    yyjson_val *web = yyjson_obj_get(yyjson_obj_get(a->webpush, "headers"), "TTL");
    char *end = NULL;
    double s = yyjson_is_str(ttl) ? strtod(yyjson_get_str(ttl), &end) : 0;
    bool is_good = !ttl || (end && strcmp(end, "s") == 0 && s >= 0 && s <= BF_FCM_TTL_S_MAX);
    if (!is_good)
        return bf_push_refuse(b, BF_ERR_MALFORMED,
                              "bad_override: overrides.push.fcm.android.ttl is a text like "
                              "\"3600s\", 0 to %u seconds",
                              BF_FCM_TTL_S_MAX);
    s = yyjson_is_str(web) ? strtod(yyjson_get_str(web), &end) : 0;
    is_good = !web || (yyjson_is_str(web) && *end == '\0' && s >= 0 && s <= BF_FCM_TTL_S_MAX);
    return is_good
               ? 0
               : bf_push_refuse(b, BF_ERR_MALFORMED,
                                "bad_override: overrides.push.fcm.webpush.headers.TTL is a text "
                                "of digits, 0 to %u seconds",
                                BF_FCM_TTL_S_MAX);
}

int bf_push_build_fcm(struct bf_push_build *b)
{
    struct asked a = {0};
    struct bf_push_object root, message;
    int rc = read_asked(b, &a);
    if (rc == 0)
        rc = check_part_data(b, a.android, "android");
    if (rc == 0)
        rc = check_part_data(b, a.webpush, "webpush");
    if (rc == 0)
        rc = check_lifetimes(b, &a);
    if (rc != 0)
        return rc;
    bf_push_begin(b, "/v1/projects/", b->target->app_topic, "/messages:send");
    bf_push_field_text(b, "content-type", "application/json");
    bf_push_body_begin(b);
    bf_push_object_begin(&root, &b->w);
    bf_push_key(&root, BF_BYTES("message"));
    bf_push_object_begin(&message, &b->w);
    bf_push_put_text(&message, "token", b->target->token);
    size_t before = b->w.len;
    rc = put_data(b, &message);
    if (rc != 0)
        return rc;
    put_notification(b, &a, &message);
    if (b->target->platform == BF_PLATFORM_IOS)
        put_apns(b, &a, &message);
    else if (b->target->platform == BF_PLATFORM_WEB)
        put_webpush(b, &a, &message);
    else
        put_android(b, &a, &message);
    bf_push_put_value(&message, "fcm_options", a.fcm_options);
    /* counted as written, keys and braces too: a little stricter than FCM, which counts the texts
     */
    if (b->w.failed || b->w.len - before > BF_FCM_PAYLOAD_BYTES_MAX)
        return bf_push_refuse(b, BF_ERR_TOO_LARGE,
                              "payload_too_large: FCM takes %u bytes; shorten body or "
                              "data",
                              BF_FCM_PAYLOAD_BYTES_MAX);
    bf_push_object_end(&message);
    bf_push_object_end(&root);
    return 0;
}
