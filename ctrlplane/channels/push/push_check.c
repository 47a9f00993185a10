/* See push_check.h. */
#include "channels/push/push_check.h"

#include <stdio.h>
#include <string.h>

#include "belfry/base/err.h"
#include "channels/push/push_note.h"
#include "channels/push/push_request.h"
#include "store/devices.h"

/* An event below fits every provider: the least of them takes 3,993 bytes, ids and names are 400,
 * and FCM's texts of JSON may double what is in data. */
#define FITS_BYTES 1400u

struct check {
    const struct bf_conf *conf;
    struct bf_store *store;
    const struct bf_event *event;
    struct bf_push_note note;
    struct bf_problem *problem;
    bool is_named; /* push is one of `channels` */
    /* providers and platforms of the people's devices, and what is too large for each */
    bool has[BF_PUSH_KIND_COUNT][BF_PLATFORM_COUNT];
};

/* "bad_override: why" as a problem: its word is the type, with dashes. */
static int refuse(struct check *c, int status, int rc, const char *field, const char *why)
{
    char type[40];
    const char *colon = strchr(why, ':');
    size_t len = colon ? (size_t)(colon - why) : 0;
    len = len < sizeof(type) - 1 ? len : sizeof(type) - 1;
    for (size_t i = 0; i < len; i++)
        type[i] = why[i] == '_' ? '-' : why[i];
    type[len] = '\0';
    bf_problem_set(c->problem, status, type, field, "%s", colon ? colon + 2 : why);
    return rc;
}

static int build(struct check *c, enum bf_push_kind kind, enum bf_platform platform,
                 char why[BF_WHY_BYTES])
{
    return bf_push_request_try(&c->note, kind, platform, c->event->is_push_channel, why);
}

/* ---- overrides and reserved keys ---- */

static int check_kind(struct check *c, enum bf_push_kind kind)
{
    char why[BF_WHY_BYTES] = "", field[48];
    int rc = build(c, kind, kind == BF_PUSH_FCM ? BF_PLATFORM_ANDROID : BF_PLATFORM_IOS, why);
    if (rc != BF_ERR_MALFORMED)
        return 0; /* its size is looked at beside the others' */
    bool is_data = strncmp(why, "reserved_key: data.", strlen("reserved_key: data.")) == 0;
    snprintf(field, sizeof(field), "overrides.push.%s", bf_push_kind_name(kind));
    return refuse(c, 400, rc, is_data ? "data" : field, why);
}

static bool has_app(const struct bf_conf *conf, enum bf_push_kind kind)
{
    for (uint32_t i = 0; i < conf->push_app_count; i++)
        if (conf->push_apps[i].kind == kind)
            return true;
    return false;
}

static int check_overrides(struct check *c)
{
    bool may_be_fcm = c->note.data && c->event->channel_mask & 1u << BF_CHANNEL_PUSH &&
                      (c->is_named || has_app(c->conf, BF_PUSH_FCM));
    int rc = 0;
    for (unsigned kind = 0; rc == 0 && kind < BF_PUSH_KIND_COUNT; kind++)
        if (c->note.overrides[kind] || (kind == BF_PUSH_FCM && may_be_fcm))
            rc = check_kind(c, (enum bf_push_kind)kind);
    return rc;
}

/* ---- nothing to see ---- */

static bool has_member(yyjson_val *object, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (yyjson_obj_get(object, names[i]))
            return true;
    return false;
}

/* A title or a body, what an override shows instead, or a push that is meant to be silent. */
static bool is_of_use(const struct check *c)
{
    static const char *const apns[] = {"aps", "payload", "mdm", "channel"};
    static const char *const fcm[] = {"notification", "android", "apns", "webpush"};
    yyjson_val *const *over = c->note.overrides;
    const char *type = yyjson_get_str(yyjson_obj_get(over[BF_PUSH_APNS], "push_type"));
    if (c->note.title.len > 0 || c->note.body.len > 0 || (type && strcmp(type, "alert") != 0))
        return true;
    return has_member(over[BF_PUSH_APNS], apns, 4) || has_member(over[BF_PUSH_FCM], fcm, 4) ||
           yyjson_get_bool(yyjson_obj_get(over[BF_PUSH_FCM], "data_only")) ||
           yyjson_obj_get(over[BF_PUSH_WEBPUSH], "payload");
}

static int check_use(struct check *c)
{
    if (!c->is_named || is_of_use(c))
        return 0;
    bf_problem_set(
        c->problem, 400, "shows-nothing", "title",
        "channels names push, and the push would show nothing: give title or body, or "
        "make it a silent one (overrides.push: apns.push_type background, fcm.data_only, "
        "webpush.payload)");
    return BF_ERR_MALFORMED;
}

/* ---- size ---- */

static int note_device(void *arg, const struct bf_device_row *row)
{
    struct check *c = arg;
    if (row->state == BF_DEVICE_LIVE && row->kind < BF_PUSH_KIND_COUNT &&
        row->platform < BF_PLATFORM_COUNT)
        c->has[row->kind][row->platform] = true;
    return 0;
}

/* For a topic or a broadcast the followers are not looked up: the providers of the configured apps
 * are checked instead. */
static void find_providers(struct check *c)
{
    static const enum bf_platform usual[BF_PUSH_KIND_COUNT] = {BF_PLATFORM_IOS, BF_PLATFORM_ANDROID,
                                                               BF_PLATFORM_WEB};
    const struct bf_event *e = c->event;
    struct bf_bytes tenant = {e->meta.tenant, strlen(e->meta.tenant)};
    if (e->is_push_channel) {
        c->has[BF_PUSH_APNS][BF_PLATFORM_IOS] = true;
    } else if (e->target == BF_TARGET_USERS) {
        for (uint32_t i = 0; i < e->recipient_count; i++)
            (void)bf_store_walk_devices(c->store, (struct bf_uid){tenant, e->recipients[i]},
                                        note_device, c);
    } else {
        for (unsigned kind = 0; kind < BF_PUSH_KIND_COUNT; kind++)
            c->has[kind][usual[kind]] = has_app(c->conf, (enum bf_push_kind)kind);
    }
}

static int check_size(struct check *c)
{
    char all[2 * BF_WHY_BYTES] = "payload_too_large: ", why[BF_WHY_BYTES];
    size_t len = strlen(all), words = len;
    const struct bf_event *e = c->event;
    if (!c->is_named || e->fragment.len + e->overrides.len <= FITS_BYTES)
        return 0;
    find_providers(c);
    for (unsigned i = 0; i < BF_PUSH_KIND_COUNT * BF_PLATFORM_COUNT; i++) {
        enum bf_push_kind kind = (enum bf_push_kind)(i / BF_PLATFORM_COUNT);
        enum bf_platform platform = (enum bf_platform)(i % BF_PLATFORM_COUNT);
        if (!c->has[kind][platform])
            continue;
        if (build(c, kind, platform, why) != BF_ERR_TOO_LARGE)
            return 0; /* one takes it */
        const char *said = strchr(why, ' ');
        if (said && !strstr(all, said + 1) && len < sizeof(all) - 1)
            len += (size_t)snprintf(all + len, sizeof(all) - len, "%s%s", len > words ? ". " : "",
                                    said + 1);
    }
    return len == words ? 0 : refuse(c, 413, BF_ERR_TOO_LARGE, "body", all);
}

/* ---- the whole ---- */

/* Most events: nothing in them can fail. */
static bool is_plain(const struct bf_event *e, bool is_named)
{
    static const char data[] = ",\"data\":{"; /* within a text its quotes would be escaped */
    bool has_text = e->title.len > 0 || e->body.len > 0;
    return e->overrides.len == 0 && (has_text || !is_named) && e->fragment.len <= FITS_BYTES &&
           !memmem(e->fragment.at, e->fragment.len, data, sizeof(data) - 1);
}

int bf_push_check_event(const struct bf_conf *conf, struct bf_store *store,
                        const struct bf_event *event, struct bf_problem *problem)
{
    bool is_push = event->channel_mask & 1u << BF_CHANNEL_PUSH;
    struct check c = {.conf = conf,
                      .store = store,
                      .event = event,
                      .problem = problem,
                      .is_named = event->channels_named && is_push};
    char why[BF_WHY_BYTES] = "";
    const struct bf_content_source source = {.lane = event->lane,
                                             .now_ms = event->created_ms,
                                             .expires_ms = event->expires_ms,
                                             .fragment = event->fragment,
                                             .overrides = event->overrides};
    if ((event->overrides.len == 0 && !is_push) || is_plain(event, c.is_named))
        return 0;
    int rc = bf_push_note_open(&source, &c.note, why);
    if (rc != 0)
        return refuse(&c, rc == BF_ERR_TOO_LARGE ? 413 : 400, rc, "overrides.push", why);
    c.note.content.has_unread = true; /* as long as any that a person has */
    c.note.content.unread = UINT16_MAX;
    rc = check_overrides(&c);
    if (rc == 0)
        rc = check_use(&c);
    if (rc == 0)
        rc = check_size(&c);
    bf_push_note_close(&c.note);
    return rc;
}
