/*
 * Requests for APNs (PROVIDERS 1.2): one row a push type, so that a rule is a column and not a
 * branch. Broadcast channels (Live Activities) go to /4/broadcasts and take a request id instead of
 * an apns-id.
 */
#include <stdio.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "channels/push/push_build.h"
#include "json/json.h"

/* Rules of a push type. */
#define TOKEN_ONLY (1u << 0) /* not with a client certificate */
#define NO_ALERT                                                                                   \
    (1u << 1) /* nothing for people to see: title and body are refused by leaving them out */
#define ONE_ATTEMPT (1u << 2) /* expiration 0 only */
#define OWN_TOPIC   (1u << 3) /* overrides.push.apns.topic says it */

enum content {
    CONTENT_ALERT,
    CONTENT_BACKGROUND,
    CONTENT_LIVE,
    CONTENT_CHANGED,
    CONTENT_PLAIN,
    CONTENT_MDM
};

struct push_type {
    const char *name;
    const char *suffix; /* of the topic, after the bundle id */
    uint32_t payload_max;
    uint8_t priority; /* the only one allowed; 0: 10, 5 for the bulk lane */
    uint8_t rules;
    enum content content;
};

#define SMALL BF_APNS_PAYLOAD_BYTES_MAX
#define LARGE BF_APNS_PAYLOAD_VOIP_BYTES_MAX

static const struct push_type push_types[] = {
    {"alert", "", SMALL, 0, 0, CONTENT_ALERT},
    {"background", "", SMALL, 5, NO_ALERT, CONTENT_BACKGROUND},
    {"voip", ".voip", LARGE, 0, NO_ALERT, CONTENT_PLAIN},
    {"complication", ".complication", SMALL, 0, NO_ALERT, CONTENT_PLAIN},
    {"fileprovider", ".pushkit.fileprovider", SMALL, 0, NO_ALERT, CONTENT_PLAIN},
    {"mdm", "", SMALL, 0, NO_ALERT | OWN_TOPIC, CONTENT_MDM},
    {"location", ".location-query", SMALL, 0, NO_ALERT | TOKEN_ONLY, CONTENT_PLAIN},
    {"liveactivity", ".push-type.liveactivity", SMALL, 0, TOKEN_ONLY, CONTENT_LIVE},
    {"pushtotalk", ".voip-ptt", SMALL, 10, NO_ALERT | ONE_ATTEMPT, CONTENT_PLAIN},
    {"widgets", ".push-type.widgets", SMALL, 0, NO_ALERT | TOKEN_ONLY, CONTENT_CHANGED},
    {"controls", ".push-type.controls", SMALL, 0, NO_ALERT | TOKEN_ONLY, CONTENT_CHANGED},
};

static const struct push_type *find_type(struct bf_bytes name)
{
    for (size_t i = 0; i < sizeof(push_types) / sizeof(push_types[0]); i++)
        if (bf_bytes_is_equal(name,
                              (struct bf_bytes){push_types[i].name, strlen(push_types[i].name)}))
            return &push_types[i];
    return NULL;
}

/* What the overrides ask for, checked against the type. */
struct asked {
    const struct push_type *type;
    uint64_t priority, expiration_s;
    bool has_expiration;
    struct bf_bytes collapse, topic, mdm;
    yyjson_val *aps, *payload;
};

static int read_type(struct bf_push_build *b, struct asked *a)
{
    struct bf_bytes name = BF_BYTES("alert");
    if (b->target->is_broadcast)
        name = BF_BYTES("liveactivity");
    int rc = bf_push_option_text(b, "push_type", &name);
    a->type = rc == 0 ? find_type(name) : NULL;
    if (rc == 0 && !a->type)
        return bf_push_refuse(b, BF_ERR_MALFORMED, "bad_override: no APNs push type %.*s",
                              (int)bf_utf8_cut(name.at, name.len, 40), name.at);
    if (rc == 0 && b->target->is_certificate && (a->type->rules & TOKEN_ONLY))
        return bf_push_refuse(b, BF_ERR_MALFORMED,
                              "bad_override: push type %s needs a pool with an APNs "
                              "key; this one has a certificate",
                              a->type->name);
    if (rc == 0 && b->target->is_broadcast && a->type->content != CONTENT_LIVE)
        return bf_push_refuse(b, BF_ERR_MALFORMED,
                              "bad_override: a broadcast channel takes push type "
                              "liveactivity, not %s",
                              a->type->name);
    return rc;
}

static int read_priority(struct bf_push_build *b, struct asked *a)
{
    bool is_given;
    a->priority = a->type->priority ? a->type->priority : b->note->lane == BF_LANE_BULK ? 5 : 10;
    uint64_t wanted = a->priority;
    int rc = bf_push_option_uint(b, "priority", 10, &wanted, &is_given);
    if (rc == 0 && wanted != 1 && wanted != 5 && wanted != 10)
        return bf_push_refuse(b, BF_ERR_MALFORMED, "bad_override: an APNs priority is 1, 5 or 10");
    if (rc == 0 && a->type->priority && wanted != a->type->priority)
        return bf_push_refuse(b, BF_ERR_MALFORMED,
                              "bad_override: push type %s takes priority %u only", a->type->name,
                              a->type->priority);
    a->priority = wanted;
    return rc;
}

static int read_expiration(struct bf_push_build *b, struct asked *a)
{
    bool is_given;
    uint64_t ttl_s = bf_push_ttl_s(b->note);
    if (ttl_s > BF_APNS_STORED_S_MAX)
        ttl_s = BF_APNS_STORED_S_MAX;
    bool is_once = (a->type->rules & ONE_ATTEMPT) || b->target->is_broadcast;
    /* a channel that stores nothing takes 0 alone, and we do not know its policy: others say so */
    a->expiration_s = is_once ? 0 : b->note->now_ms / 1000 + ttl_s;
    int rc = bf_push_option_uint(b, "expiration", UINT32_MAX, &a->expiration_s, &is_given);
    uint64_t latest_s = b->note->now_ms / 1000 + BF_APNS_STORED_S_MAX;
    if (a->expiration_s > latest_s)
        a->expiration_s = latest_s;
    if (rc == 0 && (a->type->rules & ONE_ATTEMPT) && a->expiration_s != 0)
        return bf_push_refuse(b, BF_ERR_MALFORMED,
                              "bad_override: push type %s takes expiration 0 only", a->type->name);
    return rc;
}

static int read_payload(struct bf_push_build *b, struct asked *a)
{
    static const char *const ours[] = {"aps", "belfry", "data", "mdm"};
    int rc = bf_push_option_object(b, "aps", &a->aps);
    if (rc == 0)
        rc = bf_push_option_object(b, "payload", &a->payload);
    for (size_t i = 0; rc == 0 && i < sizeof(ours) / sizeof(ours[0]); i++)
        if (yyjson_obj_get(a->payload, ours[i]))
            rc = bf_push_refuse(b, BF_ERR_MALFORMED,
                                "reserved_key: overrides.push.apns.payload.%s is "
                                "Belfry's own",
                                ours[i]);
    static const char *const seen[] = {"alert", "badge", "sound"};
    for (size_t i = 0; rc == 0 && a->type->content == CONTENT_BACKGROUND && i < 3; i++)
        if (yyjson_obj_get(a->aps, seen[i]))
            rc = bf_push_refuse(b, BF_ERR_MALFORMED, "bad_override: a background push has no %s",
                                seen[i]);
    if (rc == 0 && a->type->content == CONTENT_LIVE) {
        const char *event = yyjson_get_str(yyjson_obj_get(a->aps, "event"));
        bool is_end = event && strcmp(event, "end") == 0;
        if (!is_end && !yyjson_is_obj(yyjson_obj_get(a->aps, "content-state")))
            rc = bf_push_refuse(b, BF_ERR_MALFORMED,
                                "bad_override: a Live Activity needs "
                                "overrides.push.apns.aps.content-state");
    }
    return rc;
}

static int read_asked(struct bf_push_build *b, struct asked *a)
{
    static const char *const names[] = {"push_type", "priority", "expiration", "collapse_id",
                                        "topic",     "mdm",      "aps",        "payload",
                                        "channel",   "app"};
    int rc = bf_push_check_options(b, names, sizeof(names) / sizeof(names[0]));
    a->collapse = b->note->collapse_key;
    if (rc == 0)
        rc = read_type(b, a);
    if (rc == 0)
        rc = read_priority(b, a);
    if (rc == 0)
        rc = read_expiration(b, a);
    if (rc == 0)
        rc = bf_push_option_text(b, "collapse_id", &a->collapse);
    if (rc == 0)
        rc = bf_push_option_text(b, "topic", &a->topic);
    if (rc == 0)
        rc = bf_push_option_text(b, "mdm", &a->mdm);
    if (rc == 0 && a->type->content == CONTENT_MDM && (a->mdm.len == 0 || a->topic.len == 0))
        return bf_push_refuse(b, BF_ERR_MALFORMED,
                              "bad_override: push type mdm needs "
                              "overrides.push.apns.mdm and .topic");
    for (size_t i = 0; rc == 0 && i < a->topic.len; i++)
        if (a->topic.at[i] <= ' ' || a->topic.at[i] > '~' || a->topic.len > BF_PUSH_APP_TOPIC_MAX)
            return bf_push_refuse(b, BF_ERR_MALFORMED,
                                  "bad_override: overrides.push.apns.topic is no topic");
    return rc == 0 ? read_payload(b, a) : rc;
}

/* ---- payload ---- */

static bool is_free(yyjson_val *over, const char *name)
{
    return !yyjson_obj_get(over, name);
}

void bf_push_put_aps_alert(struct bf_push_object *aps, const struct bf_push_note *note,
                           yyjson_val *over)
{
    if (is_free(over, "alert") && (note->title.len || note->body.len)) {
        struct bf_push_object alert;
        bf_push_key(aps, BF_BYTES("alert"));
        bf_push_object_begin(&alert, aps->w);
        bf_push_put_text(&alert, "title", note->title);
        bf_push_put_text(&alert, "body", note->body);
        bf_push_object_end(&alert);
    }
    if (is_free(over, "badge") && note->content.has_unread) {
        bf_push_key(aps, BF_BYTES("badge"));
        bf_json_put_uint(aps->w, note->content.unread);
    }
    if (is_free(over, "sound") && note->lane != BF_LANE_BULK)
        bf_push_put_text(aps, "sound", BF_BYTES("default"));
    if (is_free(over, "category"))
        bf_push_put_text(aps, "category", note->category);
    if (is_free(over, "thread-id"))
        bf_push_put_text(aps, "thread-id", note->topic);
    if (is_free(over, "mutable-content") && note->image.len > 0) {
        bf_push_key(aps, BF_BYTES("mutable-content")); /* an extension of the app loads the image */
        bf_put_u8(aps->w, '1');
    }
}

static void put_aps(struct bf_push_build *b, const struct asked *a, struct bf_push_object *root)
{
    struct bf_push_object aps;
    bf_push_key(root, BF_BYTES("aps"));
    bf_push_object_begin(&aps, &b->w);
    switch (a->type->content) {
    case CONTENT_ALERT:
        bf_push_put_aps_alert(&aps, b->note, a->aps);
        break;
    case CONTENT_BACKGROUND:
        if (is_free(a->aps, "content-available")) {
            bf_push_key(&aps, BF_BYTES("content-available"));
            bf_put_u8(&b->w, '1');
        }
        break;
    case CONTENT_LIVE:
        if (is_free(a->aps, "timestamp")) {
            bf_push_key(&aps, BF_BYTES("timestamp"));
            bf_json_put_uint(&b->w, b->note->now_ms / 1000);
        }
        if (is_free(a->aps, "event"))
            bf_push_put_text(&aps, "event", BF_BYTES("update"));
        break;
    case CONTENT_CHANGED:
        if (is_free(a->aps, "content-changed")) {
            bf_push_key(&aps, BF_BYTES("content-changed"));
            bf_put_bytes(&b->w, BF_BYTES("true"));
        }
        break;
    case CONTENT_PLAIN:
    case CONTENT_MDM:
        break;
    }
    bf_push_put_members(&aps, a->aps);
    bf_push_object_end(&aps);
}

static void put_payload(struct bf_push_build *b, const struct asked *a)
{
    struct bf_push_object root, own;
    bf_push_object_begin(&root, &b->w);
    if (a->type->content == CONTENT_MDM) {
        bf_push_put_text(&root, "mdm", a->mdm); /* PushMagic and nothing else */
        bf_push_object_end(&root);
        return;
    }
    put_aps(b, a, &root);
    if (a->type->content != CONTENT_LIVE) { /* the system takes these; no app code sees them */
        bf_push_key(&root, BF_BYTES("belfry"));
        bf_push_object_begin(&own, &b->w);
        bf_push_put_id(&own, "id", &b->note->message_id);
        bf_push_put_text(&own, "type", b->note->type);
        bf_push_put_text(&own, "action_url", b->note->action_url);
        bf_push_put_value(&own, "actions", b->note->actions);
        bf_push_put_text(&own, "image", b->note->image);
        bf_push_object_end(&own);
        bf_push_put_value(&root, "data", b->note->data);
    }
    bf_push_put_members(&root, a->payload);
    bf_push_object_end(&root);
}

/* ---- the request ---- */

static void put_fields(struct bf_push_build *b, const struct asked *a)
{
    char id[BF_UUID_TEXT_BYTES], topic[2 * BF_PUSH_APP_TOPIC_MAX];
    char collapse[BF_APNS_COLLAPSE_BYTES_MAX + 1];
    bf_id_text(&b->note->message_id, id);
    struct bf_bytes id_text = {id, sizeof(id)};
    if (b->target->is_broadcast) {
        bf_push_begin(b, "/4/broadcasts/apps/", b->target->app_topic, "");
        bf_push_field(b, "apns-channel-id", b->target->token);
        bf_push_field(b, "apns-request-id", id_text);
    } else {
        bf_push_begin(b, "/3/device/", b->target->token, "");
        bf_push_field(b, "apns-id", id_text);
        snprintf(topic, sizeof(topic), "%.*s%s", (int)b->target->app_topic.len,
                 b->target->app_topic.at, a->type->suffix);
        bf_push_field(b, "apns-topic",
                      a->topic.len ? a->topic : (struct bf_bytes){topic, strlen(topic)});
    }
    bf_push_field_text(b, "apns-push-type", a->type->name);
    bf_push_field_uint(b, "apns-priority", a->priority);
    bf_push_field_uint(b, "apns-expiration", a->expiration_s);
    if (a->collapse.len > 0 && !b->target->is_broadcast) {
        bf_push_collapse_id(a->collapse, BF_APNS_COLLAPSE_BYTES_MAX, false, collapse);
        bf_push_field_text(b, "apns-collapse-id", collapse);
    }
}

int bf_push_build_apns(struct bf_push_build *b)
{
    struct asked a = {0};
    int rc = read_asked(b, &a);
    if (rc != 0)
        return rc;
    put_fields(b, &a);
    bf_push_body_begin(b);
    put_payload(b, &a);
    uint32_t max = b->target->is_broadcast ? LARGE : a.type->payload_max;
    if (b->w.failed || bf_push_body_len(b) > max)
        return bf_push_refuse(b, BF_ERR_TOO_LARGE,
                              "payload_too_large: APNs takes %u bytes for %s%s", max, a.type->name,
                              b->w.failed ? "" : "; shorten body or data");
    return 0;
}
