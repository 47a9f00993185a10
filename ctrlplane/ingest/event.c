/*
 * Event parsing: one scratch area (on the stack for usual sizes) holds the JSON, its values and the
 * rendered fragment; the event that outlives the call is one allocation of exactly its size.
 *
 *   read -> collect (fields.c: table checks) -> meaning (this file) -> render -> assemble
 *
 * Pure apart from malloc; any thread.
 */
#include "ingest/event.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/plain_text.h"
#include "belfry/base/text.h"
#include "belfry/base/utf8.h"
#include "ingest/fields.h"
#include "ingest/identity.h"
#include "ingest/near.h"
#include "json/json.h"
#include "time/rfc3339.h"

/* Scratch on the stack: an event of up to about 2.2 KB needs no second allocation. */
#define SCRATCH_BYTES 32768u
/* Zeros that yyjson needs after the text that it parses in place. */
#define JSON_PADDING 4u
/* The fragment is no longer than the body (json/json.c) but for "expires" and "ts". */
#define FRAGMENT_EXTRA_BYTES 128u
/* Twice the recipients, so that probing stays short. Power of two. */
#define DEDUP_SLOTS 2048u

_Static_assert(DEDUP_SLOTS >= 2 * BF_RECIPIENTS_MAX && (DEDUP_SLOTS & (DEDUP_SLOTS - 1)) == 0,
               "recipients are told apart in one table");

/* An event under construction: its bytes point into the scratch area. */
struct draft {
    struct bf_fields fields;
    struct bf_event event;
    struct bf_bytes recipients[BF_RECIPIENTS_MAX];
    struct bf_writer fragment;
    struct bf_writer overrides; /* after it in the same buffer */
};

void bf_event_ref(struct bf_event *event)
{
    /* relaxed: whoever takes a reference holds one already */
    atomic_fetch_add_explicit(&event->refs, 1, memory_order_relaxed);
}

void bf_event_unref(struct bf_event *event)
{
    if (!event)
        return;
    /* acq_rel: the last one sees everything that the others did with the event before it frees it
     */
    uint32_t before = atomic_fetch_sub_explicit(&event->refs, 1, memory_order_acq_rel);
    BF_BUG_ON(before == 0);
    if (before == 1)
        free(event);
}

/* ---- meaning, field by field ---- */

static int refuse(struct bf_problem *problem, const char *type, const char *field,
                  const char *detail)
{
    bf_problem_set(problem, 400, type, field, "%s", detail);
    return BF_ERR_MALFORMED;
}

static int refuse_item(struct bf_problem *problem, const char *type, const char *list, size_t index,
                       const char *detail)
{
    char field[64];
    snprintf(field, sizeof(field), "%s[%zu]", list, index);
    bf_problem_set(problem, 400, type, field, "%s: %s", field, detail);
    return BF_ERR_MALFORMED;
}

static int check_user_id(yyjson_val *val, size_t index, struct bf_problem *problem)
{
    const char *text = yyjson_get_str(val);
    size_t len = yyjson_get_len(val);
    if (!text)
        return refuse_item(problem, "wrong-type", "recipients", index, "a user id is a string");
    if (len == 0 || len > BF_USER_ID_BYTES_MAX)
        return refuse_item(problem, "too-long", "recipients", index,
                           "a user id has 1..128 bytes of UTF-8");
    if (bf_text_has_control(text, len))
        return refuse_item(problem, "bad-character", "recipients", index,
                           "a user id holds no control characters");
    return 0;
}

/* Adds a recipient unless the table has it already. */
static void add_recipient(struct draft *d, uint16_t *slots, struct bf_bytes user)
{
    unsigned at = (unsigned)XXH3_64bits(user.at, user.len) & (DEDUP_SLOTS - 1);
    while (slots[at] != 0) {
        if (bf_bytes_is_equal(d->recipients[slots[at] - 1], user))
            return;
        at = (at + 1) & (DEDUP_SLOTS - 1);
    }
    d->recipients[d->event.recipient_count++] = user;
    slots[at] = (uint16_t)d->event.recipient_count;
}

static int take_recipients(struct draft *d, yyjson_val *list, struct bf_problem *problem)
{
    uint16_t slots[DEDUP_SLOTS] = {0}; /* index + 1 into recipients; 0: free */
    size_t i;
    size_t max;
    yyjson_val *val;
    yyjson_arr_foreach (list, i, max, val) {
        int rc = check_user_id(val, i, problem);
        if (rc != 0)
            return rc;
        add_recipient(d, slots, bf_json_str(val));
    }
    return 0;
}

static int take_target(struct draft *d, struct bf_problem *problem)
{
    yyjson_val *const *f = d->fields.value;
    bool is_broadcast = f[BF_F_broadcast] && yyjson_get_bool(f[BF_F_broadcast]);
    int targets = (f[BF_F_user_id] != NULL) + (f[BF_F_recipients] != NULL) + is_broadcast;
    if (targets > 1)
        return refuse(problem, "target", is_broadcast ? "broadcast" : "recipients",
                      "exactly one target: user_id, recipients or broadcast");
    if (targets == 0 && !f[BF_F_topic])
        return refuse(problem, "target", "user_id",
                      "no target: give user_id, recipients, topic or broadcast: true");
    d->event.topic = bf_json_str(f[BF_F_topic]);
    if (d->event.topic.len > 0 && memchr(d->event.topic.at, '*', d->event.topic.len))
        return refuse(problem, "bad-character", "topic", "a topic's name holds no *");
    if (is_broadcast) {
        d->event.target = BF_TARGET_BROADCAST;
    } else if (f[BF_F_user_id]) {
        d->recipients[0] = bf_json_str(f[BF_F_user_id]);
        d->event.recipient_count = 1;
    } else if (f[BF_F_recipients]) {
        return take_recipients(d, f[BF_F_recipients], problem);
    } else {
        d->event.target = BF_TARGET_TOPIC;
    }
    return 0;
}

static int find_channel(struct bf_bytes name)
{
    for (int i = 0; i < BF_CHANNEL_COUNT; i++) {
        const char *known = bf_channel_name((enum bf_channel)i);
        if (strlen(known) == name.len && memcmp(known, name.at, name.len) == 0)
            return i;
    }
    return -1;
}

static int check_channel(yyjson_val *val, size_t index, enum bf_channel *ret,
                         struct bf_problem *problem)
{
    struct bf_bytes name = yyjson_is_str(val) ? bf_json_str(val) : BF_BYTES("?");
    int channel = find_channel(name);
    char detail[200];
    *ret = (enum bf_channel)channel;
    if (channel == BF_CHANNEL_INAPP || channel == BF_CHANNEL_PUSH)
        return 0;
    const char *near = channel < 0 ? bf_near_channel(name) : NULL;
    snprintf(detail, sizeof(detail),
             near          ? "'%.*s' is no channel; did you mean %s?"
             : channel < 0 ? "'%.*s' is no channel; inapp, push, email, sms, webhook are"
                           : "'%.*s' is not done by this node yet; it delivers inapp and push",
             (int)bf_utf8_cut(name.at, name.len, 32), name.at, near);
    return refuse_item(problem, channel < 0 ? "unknown-channel" : "unsupported-channel", "channels",
                       index, detail);
}

/* An APNs broadcast channel is a target of its own: Apple knows who follows it, nobody here does.
 */
static int check_push_channel(struct draft *d, struct bf_problem *problem)
{
    struct bf_event *e = &d->event;
    yyjson_val *push = yyjson_obj_get(d->fields.value[BF_F_overrides], "push");
    yyjson_val *apns = NULL, *key, *val;
    size_t i, max;
    yyjson_obj_foreach (push, i, max, key, val) /* providers are named in any case */
        apns = strcasecmp(yyjson_get_str(key), "apns") == 0 ? val : apns;
    yyjson_val *channel = yyjson_obj_get(apns, "channel"), *app = yyjson_obj_get(apns, "app");
    if (!channel)
        return 0;
    if (e->target != BF_TARGET_BROADCAST || !e->channels_named ||
        e->channel_mask != 1u << BF_CHANNEL_PUSH)
        return refuse(problem, "conflicting-fields", "overrides.push.apns.channel",
                      "an APNs broadcast channel is the only target of its event: give broadcast: "
                      "true and channels: [\"push\"]");
    if (yyjson_get_len(channel) == 0 || !yyjson_is_str(channel) || !yyjson_is_str(app) ||
        yyjson_get_len(app) == 0)
        return refuse(problem, "missing-field", "overrides.push.apns.app",
                      "channel is the id that APNs gave, app the name in push.apps: two texts");
    e->is_push_channel = true;
    return 0;
}

/* Who has no inbox gets no push: not acknowledged, not remembered. */
static int check_push(struct draft *d, struct bf_problem *problem)
{
    const struct bf_event *e = &d->event;
    if (e->channels_named && e->channel_mask & 1u << BF_CHANNEL_PUSH && e->transient)
        return refuse(problem, "conflicting-fields", "transient",
                      "transient is in-app only: leave push out of channels");
    if (e->is_fallback && !e->channels_named)
        return refuse(problem, "missing-field", "channels",
                      "fallback needs channels, in the order in which they are tried");
    return check_push_channel(d, problem);
}

static int take_channels(struct draft *d, struct bf_problem *problem)
{
    yyjson_val *list = d->fields.value[BF_F_channels];
    yyjson_val *fallback = d->fields.value[BF_F_fallback];
    size_t i;
    size_t max;
    yyjson_val *val;
    d->event.channel_mask = 1u << BF_CHANNEL_INAPP | 1u << BF_CHANNEL_PUSH;
    d->event.is_fallback = fallback && yyjson_get_bool(fallback);
    if (!list)
        return check_push(d, problem);
    d->event.channels_named = true;
    d->event.channel_mask = 0;
    yyjson_arr_foreach (list, i, max, val) {
        enum bf_channel channel;
        int rc = check_channel(val, i, &channel, problem);
        if (rc != 0)
            return rc;
        if (i == 0)
            d->event.first_channel = channel;
        d->event.channel_mask |= (uint8_t)(1u << channel);
    }
    return check_push(d, problem);
}

/* The lower of priority's lane and the topic's (DESIGN 4.12). Without a priority, HTTP means normal
 * and Kafka the lane of the topic. */
static int take_priority(struct draft *d, struct bf_problem *problem)
{
    struct bf_event *e = &d->event;
    yyjson_val *val = d->fields.value[BF_F_priority];
    enum bf_lane lane = e->meta.source == BF_SOURCE_KAFKA ? e->meta.topic_lane : BF_LANE_NORMAL;
    if (val) {
        if (yyjson_equals_str(val, "critical")) {
            lane = BF_LANE_CRITICAL;
            e->is_critical = true;
        } else if (yyjson_equals_str(val, "high")) {
            lane = BF_LANE_CRITICAL;
        } else if (yyjson_equals_str(val, "normal")) {
            lane = BF_LANE_NORMAL;
        } else if (yyjson_equals_str(val, "low")) {
            lane = BF_LANE_BULK;
        } else {
            return refuse(problem, "bad-value", "priority",
                          "priority is critical, high, normal or low");
        }
    }
    if (e->is_critical && !e->meta.critical_allowed) {
        bf_problem_set(problem, 403, "critical-not-allowed", "priority",
                       "priority critical needs an API key or topic with the scope critical; use "
                       "high, or a key that has it");
        return BF_ERR_DENIED;
    }
    e->lane = lane > e->meta.topic_lane ? lane : e->meta.topic_lane;
    return 0;
}

static int take_expiry(struct draft *d, struct bf_problem *problem)
{
    struct bf_event *e = &d->event;
    yyjson_val *ttl = d->fields.value[BF_F_ttl];
    yyjson_val *at = d->fields.value[BF_F_expires_at];
    uint64_t seconds;
    if (ttl && at)
        return refuse(problem, "conflicting-fields", "expires_at",
                      "give ttl or expires_at, not both");
    if (ttl) {
        if (!bf_json_uint(ttl, &seconds) || seconds == 0)
            return refuse(problem, "out-of-range", "ttl", "ttl is at least 1 second");
        e->expires_ms = e->created_ms + seconds * 1000;
    }
    if (at && !bf_rfc3339_parse(bf_json_str(at), &e->expires_ms))
        return refuse(problem, "bad-value", "expires_at",
                      "expires_at is an RFC 3339 time, like 2030-01-31T12:00:00Z");
    /* a person posting a past time made a mistake; an event late on Kafka is only late */
    if (at && e->meta.source == BF_SOURCE_HTTP && e->expires_ms <= e->created_ms)
        return refuse(problem, "out-of-range", "expires_at", "expires_at has passed already");
    return 0;
}

static bool is_scheme_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '-' || c == '.';
}

/* A path, or a scheme that opens something instead of running it in the page that shows it. */
static bool is_safe_url(struct bf_bytes url)
{
    static const struct bf_bytes refused[] = {
        {"javascript", 10}, {"data", 4},  {"vbscript", 8},     {"blob", 4},
        {"file", 4},        {"about", 5}, {"view-source", 11}, {"filesystem", 10}};
    size_t len = 0;
    for (size_t i = 0; i < url.len; i++) {
        /* browsers read a backslash as a slash: "/\\host" leaves the site, as "//host" does */
        if ((uint8_t)url.at[i] <= 0x20 || url.at[i] == 0x7f || url.at[i] == '\\')
            return false;
    }
    if (url.at[0] == '/')
        return url.len < 2 || url.at[1] != '/';
    while (len < url.len && is_scheme_char(url.at[len]))
        len++;
    if (len == 0 || len == url.len || url.at[len] != ':')
        return false;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (refused[i].len == len && strncasecmp(refused[i].at, url.at, len) == 0)
            return false;
    }
    return true;
}

static int take_content(struct draft *d, struct bf_problem *problem)
{
    struct bf_event *e = &d->event;
    yyjson_val *const *f = d->fields.value;
    e->type = bf_json_str(f[BF_F_type]);
    e->category = bf_json_str(f[BF_F_category]);
    e->title = bf_json_str(f[BF_F_title]);
    e->body = bf_json_str(f[BF_F_body]);
    e->collapse_key = bf_json_str(f[BF_F_collapse_key]);
    e->dedup_key = bf_json_str(f[BF_F_dedup_key]);
    e->idempotency_key = bf_json_str(f[BF_F_idempotency_key]);
    e->source = bf_json_str(f[BF_F_source]);
    e->ext_id = bf_json_str(f[BF_F_id]);
    e->transient = f[BF_F_transient] && yyjson_get_bool(f[BF_F_transient]);
    if (!f[BF_F_type])
        return refuse(problem, "missing-field", "type", "type is required: a label of the kind");
    if (!f[BF_F_title] && !f[BF_F_body] && !f[BF_F_data])
        return refuse(problem, "missing-field", "title",
                      "no content: give title, body or data (no template is registered for a type "
                      "on this node)");
    if (e->transient && e->target == BF_TARGET_BROADCAST)
        return refuse(problem, "conflicting-fields", "transient",
                      "a broadcast has no inbox; transient is for named users and topics");
    if (f[BF_F_action_url] && !is_safe_url(bf_json_str(f[BF_F_action_url])))
        return refuse(problem, "bad-value", "action_url",
                      "action_url is a path of your own site (/orders/17, not //host), or an "
                      "absolute URL; without spaces and backslashes, and no script");
    return 0;
}

/* HTTP: the tenant is that of the API key. Kafka: that of the event, unless the topic belongs to
 * one tenant. */
static int take_tenant(struct draft *d, struct bf_problem *problem)
{
    struct bf_event_meta *meta = &d->event.meta;
    struct bf_bytes tenant = bf_json_str(d->fields.value[BF_F_tenant]);
    if (tenant.len == 0)
        return 0;
    bool is_free = meta->source == BF_SOURCE_KAFKA && meta->tenant[0] == '\0';
    if (is_free) {
        memcpy(meta->tenant, tenant.at, tenant.len);
        meta->tenant[tenant.len] = '\0';
        return 0;
    }
    if (strlen(meta->tenant) == tenant.len && memcmp(meta->tenant, tenant.at, tenant.len) == 0)
        return 0;
    bf_problem_set(problem, 403, "tenant-not-allowed", "tenant",
                   "this key or topic belongs to another tenant; leave tenant out");
    return BF_ERR_DENIED;
}

static void take_id(struct draft *d)
{
    struct bf_event *e = &d->event;
    struct bf_bytes tenant = {e->meta.tenant, strlen(e->meta.tenant)};
    struct bf_bytes producer = {e->meta.producer, strlen(e->meta.producer)};
    if (e->meta.has_event_id) {
        e->id = e->meta.event_id;
    } else if (e->ext_id.len > 0) {
        /* two API keys that number their events alike are two sources */
        bool is_unnamed = e->source.len == 0 && e->meta.source == BF_SOURCE_HTTP;
        bf_identity_of_source(tenant, is_unnamed ? producer : e->source, e->ext_id, &e->id);
    } else if (e->idempotency_key.len > 0) {
        bf_identity_of_key(tenant, producer, e->idempotency_key, &e->id);
    } else if (e->meta.has_record_id) {
        e->id = e->meta.record_id;
    } else {
        bf_identity_of_position(producer, e->meta.partition, e->meta.offset, &e->id);
    }
}

/* A number is passed on as it was written, and readers make a double of it. One that does not fit a
 * double ("1e400") would become infinite there, or the parse would fail. */
static int check_numbers(const struct draft *d, struct bf_problem *problem)
{
    static const enum bf_field given[] = {BF_F_data, BF_F_actions, BF_F_overrides};
    const size_t digits_max = 300; /* 10^300 is a double, whatever the digits */
    for (size_t i = 0; i < sizeof(given) / sizeof(given[0]); i++) {
        yyjson_val *root = d->fields.value[given[i]];
        /* the values of a tree follow each other in memory */
        yyjson_val *end = root ? unsafe_yyjson_get_next(root) : NULL;
        for (yyjson_val *val = root; val < end; val++) {
            const char *text = yyjson_get_raw(val);
            if (!text || (yyjson_get_len(val) < digits_max && !strpbrk(text, "eE")) ||
                isfinite(strtod(text, NULL)))
                continue;
            const char *name = bf_field_rows[given[i]].name;
            bf_problem_set(problem, 400, "out-of-range", name,
                           "%s holds the number %.*s, which is beyond what a 64-bit float holds; "
                           "send it as a string",
                           name, BF_CUT(text, 40));
            return BF_ERR_MALFORMED;
        }
    }
    return 0;
}

static int take_meaning(struct draft *d, struct bf_problem *problem)
{
    int rc = check_numbers(d, problem);
    if (rc == 0)
        rc = take_target(d, problem);
    if (rc == 0)
        rc = take_content(d, problem);
    if (rc == 0)
        rc = take_channels(d, problem);
    if (rc == 0)
        rc = take_priority(d, problem);
    if (rc == 0)
        rc = take_expiry(d, problem);
    if (rc == 0)
        rc = take_tenant(d, problem);
    if (rc == 0)
        take_id(d);
    return rc;
}

/* ---- fragment ---- */

/* |name| is `,"name":`; the first member goes without the comma. */
static void put_name(struct bf_writer *w, struct bf_bytes name)
{
    size_t skip = w->len == 0;
    bf_put_raw(w, name.at + skip, name.len - skip);
}

static void put_text(struct bf_writer *w, struct bf_bytes name, yyjson_val *val)
{
    if (!val)
        return;
    put_name(w, name);
    bf_json_put_str(w, bf_json_str(val));
}

/* Objects and lists that apps get as they are. */
static int put_tree(struct bf_writer *w, enum bf_field field, struct bf_bytes name, yyjson_val *val,
                    struct bf_problem *problem)
{
    const char *field_name = bf_field_rows[field].name;
    if (!val)
        return 0;
    put_name(w, name);
    size_t before = w->len;
    if (!bf_json_put_value(w, val)) {
        bf_problem_set(problem, 400, "too-deep", field_name, "%s nests deeper than %u levels",
                       field_name, BF_JSON_DEPTH_MAX);
        return BF_ERR_MALFORMED;
    }
    if (w->len - before > BF_EVENT_BYTES_MAX / 2) {
        bf_problem_set(problem, 413, "too-large", field_name, "%s is larger than %u bytes",
                       field_name, BF_EVENT_BYTES_MAX / 2);
        return BF_ERR_TOO_LARGE;
    }
    return 0;
}

/* What an action opens is held to the same rule. */
static bool is_safe_action(yyjson_val *action)
{
    static const char *const names[] = {"action_url", "url"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        yyjson_val *url = yyjson_obj_get(action, names[i]);
        if (yyjson_is_str(url) && yyjson_get_len(url) > 0 && !is_safe_url(bf_json_str(url)))
            return false;
    }
    return true;
}

static int check_actions(yyjson_val *list, struct bf_problem *problem)
{
    size_t i;
    size_t max;
    yyjson_val *val;
    yyjson_arr_foreach (list, i, max, val) {
        if (!yyjson_is_obj(val))
            return refuse_item(problem, "wrong-type", "actions", i, "an action is an object");
        if (!is_safe_action(val))
            return refuse_item(problem, "bad-value", "actions", i,
                               "its url is a path of your own site or an absolute URL, and no "
                               "script");
    }
    return 0;
}

static int render_fragment(struct draft *d, struct bf_problem *problem)
{
    struct bf_writer *w = &d->fragment;
    yyjson_val *const *f = d->fields.value;
    int rc = check_actions(f[BF_F_actions], problem);
    put_text(w, BF_BYTES(",\"type\":"), f[BF_F_type]);
    put_text(w, BF_BYTES(",\"category\":"), f[BF_F_category]);
    put_text(w, BF_BYTES(",\"topic\":"), f[BF_F_topic]);
    put_text(w, BF_BYTES(",\"title\":"), f[BF_F_title]);
    put_text(w, BF_BYTES(",\"body\":"), f[BF_F_body]);
    if (rc == 0)
        rc = put_tree(w, BF_F_data, BF_BYTES(",\"data\":"), f[BF_F_data], problem);
    put_text(w, BF_BYTES(",\"action_url\":"), f[BF_F_action_url]);
    if (rc == 0)
        rc = put_tree(w, BF_F_actions, BF_BYTES(",\"actions\":"), f[BF_F_actions], problem);
    put_text(w, BF_BYTES(",\"collapse_key\":"), f[BF_F_collapse_key]);
    if (d->event.expires_ms > 0) {
        put_name(w, BF_BYTES(",\"expires\":"));
        bf_json_put_uint(w, d->event.expires_ms);
    }
    put_name(w, BF_BYTES(",\"ts\":"));
    bf_json_put_uint(w, d->event.created_ms);
    if (rc == 0 && w->failed) {
        bf_problem_set(problem, 413, "too-large", "", "the event is too large once rendered");
        rc = BF_ERR_TOO_LARGE;
    }
    return rc;
}

/* {"push": {...}}: what adapters read is checked by them, per provider (push_request.h). */
static int render_overrides(struct draft *d, struct bf_problem *problem)
{
    yyjson_val *object = d->fields.value[BF_F_overrides];
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    if (!object)
        return 0;
    yyjson_obj_foreach (object, i, max, key, val) {
        if (!yyjson_equals_str(key, "push"))
            return refuse(problem, "unsupported-channel", "overrides",
                          "overrides of push alone are known on this node");
        if (!yyjson_is_obj(val))
            return refuse(problem, "wrong-type", "overrides.push", "overrides.push is an object");
        if (i > 0)
            return refuse(problem, "duplicate-field", "overrides", "push is given twice");
        if (!bf_json_put_value(&d->overrides, val) || d->overrides.failed)
            return refuse(problem, "too-deep", "overrides", "overrides nest too deep");
        if (d->overrides.len > bf_field_rows[BF_F_overrides].limit) {
            bf_problem_set(problem, 413, "too-large", "overrides",
                           "overrides are larger than %u bytes",
                           bf_field_rows[BF_F_overrides].limit);
            return BF_ERR_TOO_LARGE;
        }
    }
    return 0;
}

/* ---- assembly ---- */

#define KEPT_COUNT 9u

/* Every run of bytes of the event apart from recipients and fragment. */
static void list_kept(struct bf_event *e, struct bf_bytes *kept[KEPT_COUNT])
{
    struct bf_bytes *all[KEPT_COUNT] = {&e->topic,  &e->type,         &e->category,
                                        &e->source, &e->ext_id,       &e->title,
                                        &e->body,   &e->collapse_key, &e->dedup_key};
    memcpy(kept, all, sizeof(all));
}

static char *keep(char *at, struct bf_bytes *bytes)
{
    if (bytes->len > 0)
        memcpy(at, bytes->at, bytes->len);
    bytes->at = at;
    return at + bytes->len;
}

static struct bf_event *assemble(struct draft *d)
{
    struct bf_event *draft = &d->event;
    struct bf_bytes *kept[KEPT_COUNT];
    size_t recipients_bytes = draft->recipient_count * sizeof(struct bf_bytes);
    size_t bytes = sizeof(struct bf_event) + recipients_bytes + d->fragment.len + d->overrides.len +
                   draft->idempotency_key.len;
    list_kept(draft, kept);
    for (unsigned i = 0; i < KEPT_COUNT; i++)
        bytes += kept[i]->len;
    for (uint32_t i = 0; i < draft->recipient_count; i++)
        bytes += d->recipients[i].len;
    struct bf_event *event = malloc(bytes);
    if (!event)
        return NULL;
    memcpy(event, draft, sizeof(*event));
    atomic_init(&event->refs, 1);
    event->recipients = (struct bf_bytes *)(void *)(event + 1);
    char *at = (char *)event->recipients + recipients_bytes;
    event->fragment = (struct bf_bytes){(char *)d->fragment.buf, d->fragment.len};
    at = keep(at, &event->fragment);
    event->overrides = (struct bf_bytes){(char *)d->overrides.buf, d->overrides.len};
    at = keep(at, &event->overrides);
    at = keep(at, &event->idempotency_key);
    list_kept(event, kept);
    for (unsigned i = 0; i < KEPT_COUNT; i++)
        at = keep(at, kept[i]);
    for (uint32_t i = 0; i < draft->recipient_count; i++) {
        event->recipients[i] = d->recipients[i];
        at = keep(at, &event->recipients[i]);
    }
    BF_BUG_ON(at != (char *)event + bytes);
    return event;
}

/* ---- reading ---- */

/* Words why yyjson refused the text. */
static int explain(struct bf_bytes json, const yyjson_read_err *err, struct bf_problem *problem)
{
    size_t valid = bf_utf8_valid_bytes(json);
    if (valid < json.len) {
        bf_problem_set(problem, 400, "bad-utf8", "", "byte %zu of the body is not valid UTF-8",
                       valid);
        return BF_ERR_UTF8;
    }
    if (err->code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
        return -ENOMEM;
    bf_problem_set(problem, 400, "bad-json", "", "not valid JSON at byte %zu: %s", err->pos,
                   err->msg ? err->msg : "unreadable");
    return BF_ERR_MALFORMED;
}

/* What |json| needs of scratch: a padded copy, yyjson's values, the fragment. */
static size_t scratch_bytes(size_t len, size_t *ret_pool)
{
    *ret_pool = yyjson_read_max_memory_usage(len, YYJSON_READ_INSITU);
    return len + JSON_PADDING + *ret_pool + len + FRAGMENT_EXTRA_BYTES;
}

static int parse_draft(struct bf_bytes json, char *scratch, size_t pool_bytes, struct draft *d,
                       struct bf_problem *problem)
{
    yyjson_alc alc;
    yyjson_read_err err = {0};
    char *copy = scratch + pool_bytes; /* the pool comes first: it wants alignment */
    memcpy(copy, json.at, json.len);
    memset(copy + json.len, 0, JSON_PADDING);
    yyjson_alc_pool_init(&alc, scratch, pool_bytes);
    yyjson_doc *doc = yyjson_read_opts(copy, json.len,
                                       YYJSON_READ_INSITU | YYJSON_READ_NUMBER_AS_RAW, &alc, &err);
    if (!doc)
        return explain(json, &err, problem);
    yyjson_val *root = yyjson_doc_get_root(doc);
    if (!yyjson_is_obj(root))
        return refuse(problem, "wrong-type", "", "an event is a JSON object");
    int rc = bf_fields_collect(root, d->event.meta.source, &d->fields, problem);
    if (rc == 0)
        rc = take_meaning(d, problem);
    d->event.unknown_fields = d->fields.unknown;
    d->fragment = (struct bf_writer){.buf = (uint8_t *)copy + json.len + JSON_PADDING,
                                     .cap = json.len + FRAGMENT_EXTRA_BYTES};
    if (rc == 0)
        rc = render_fragment(d, problem);
    /* both are parts of the text and no longer than it */
    d->overrides = (struct bf_writer){.buf = d->fragment.buf + d->fragment.len,
                                      .cap = d->fragment.cap - d->fragment.len};
    return rc == 0 ? render_overrides(d, problem) : rc;
}

static int check_size(struct bf_bytes json, struct bf_problem *problem)
{
    if (json.len == 0)
        return refuse(problem, "bad-json", "", "the body is empty; an event is a JSON object");
    if (json.len > BF_EVENT_BYTES_MAX) {
        bf_problem_set(problem, 413, "too-large", "", "the event has %zu bytes; at most %u",
                       json.len, BF_EVENT_BYTES_MAX);
        return BF_ERR_TOO_LARGE;
    }
    return 0;
}

int bf_event_parse(struct bf_bytes json, const struct bf_event_meta *meta,
                   struct bf_event **ret_event, struct bf_problem *problem)
{
    _Alignas(max_align_t) char small[SCRATCH_BYTES];
    struct draft d; /* 16 KB of recipients: set field by field */
    size_t pool_bytes;
    int rc = check_size(json, problem);
    if (rc != 0)
        return rc;
    d.event = (struct bf_event){.meta = *meta, .created_ms = meta->accepted_ms};
    size_t bytes = scratch_bytes(json.len, &pool_bytes);
    char *scratch = bytes <= sizeof(small) ? small : malloc(bytes);
    if (!scratch)
        rc = -ENOMEM;
    else
        rc = parse_draft(json, scratch, pool_bytes, &d, problem);
    if (rc == 0) {
        struct bf_event *event = assemble(&d);
        if (event)
            *ret_event = event;
        else
            rc = -ENOMEM;
    }
    if (scratch != small)
        free(scratch);
    if (rc == -ENOMEM)
        bf_problem_set(problem, 503, "out-of-memory", "", "out of memory; try again");
    return rc;
}
