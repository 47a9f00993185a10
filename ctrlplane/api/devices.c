/*
 * The device registry over the API (PSH-5): an app registers the token that its push provider gave
 * it, and again whenever that token changes or the app starts. Tokens go in and never come out.
 */
#include <stdio.h>
#include <string.h>

#include "api/calls.h"
#include "belfry/base/err.h"
#include "belfry/base/plain_text.h"
#include "belfry/base/text.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf.h"
#include "channels/push/push_canon.h"
#include "channels/push/push_creds.h"
#include "channels/push/push_device.h"
#include "channels/push/push_egress.h"
#include "log/log.h"
#include "stats/metrics.h"

static const char *const members[] = {"user_id", "platform", "provider", "app",
                                      "token",   "keys",     "locale",   "device"};

struct given {
    struct bf_device_row row;
    struct bf_push_target target;
    struct bf_push_canon canon; /* the texts of target, each in its canonical form */
};

static bool fail(struct bf_request *r, const char *type, const char *field, const char *detail)
{
    bf_answer_fail(r, 400, type, field, "%s", detail);
    return false;
}

/* A text member; absent: |ret| untouched, and false if it must be there. */
static bool take_text(struct bf_request *r, yyjson_val *root, const char *name, size_t max,
                      bool is_needed, struct bf_bytes *ret)
{
    yyjson_val *val = yyjson_obj_get(root, name);
    if (!val && !is_needed)
        return true;
    if (!val)
        return fail(r, "missing-field", name, "must be given");
    if (!yyjson_is_str(val) || yyjson_get_len(val) == 0 ||
        memchr(yyjson_get_str(val), 0, yyjson_get_len(val)))
        return fail(r, "wrong-type", name, "takes a text");
    bool is_id = strcmp(name, "app") == 0 || strcmp(name, "device") == 0;
    if (is_id && bf_text_has_control(yyjson_get_str(val), yyjson_get_len(val)))
        return fail(r, "bad-character", name, "holds a control character");
    if (yyjson_get_len(val) > max) {
        bf_answer_fail(r, 400, "too-long", name, "at most %zu bytes", max);
        return false;
    }
    *ret = (struct bf_bytes){yyjson_get_str(val), yyjson_get_len(val)};
    return true;
}

/* Platform, and the provider that it has unless another is named. */
static bool take_kind(struct bf_request *r, yyjson_val *root, struct bf_device_row *row)
{
    static const enum bf_push_kind usual[BF_PLATFORM_COUNT] = {BF_PUSH_APNS, BF_PUSH_FCM,
                                                               BF_PUSH_WEBPUSH};
    struct bf_bytes platform, provider = {0};
    if (!take_text(r, root, "platform", 16, true, &platform) ||
        !take_text(r, root, "provider", 16, false, &provider))
        return false;
    int found = bf_platform_find(platform);
    if (found < 0)
        return fail(r, "bad-value", "platform", "platform is ios, android or web");
    int kind = provider.len ? bf_push_kind_find(provider) : (int)usual[found];
    bool is_pair = kind == BF_PUSH_FCM || kind == (int)usual[found];
    if (kind < 0 || !is_pair)
        return fail(r, "bad-value", "provider",
                    "provider is apns for ios, webpush for web, or fcm");
    row->platform = (uint8_t)found;
    row->kind = (uint8_t)kind;
    return true;
}

static bool take_keys(struct bf_request *r, yyjson_val *root, struct bf_push_target *target)
{
    yyjson_val *keys = yyjson_obj_get(root, "keys");
    bool is_wanted = target->kind == BF_PUSH_WEBPUSH;
    if (!is_wanted && keys)
        return fail(r, "bad-value", "keys", "keys belong to Web Push subscriptions");
    if (is_wanted && (!yyjson_is_obj(keys) || yyjson_obj_size(keys) != 2))
        return fail(r, "missing-field", "keys", "a Web Push subscription has keys {p256dh, auth}");
    return !is_wanted ||
           (take_text(r, keys, "p256dh", BF_PUSH_KEY_GIVEN_MAX, true, &target->p256dh) &&
            take_text(r, keys, "auth", BF_PUSH_KEY_GIVEN_MAX, true, &target->auth));
}

static bool is_locale(struct bf_bytes text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.at[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_letter && !(c >= '0' && c <= '9') && c != '-' && c != '_')
            return false;
    }
    return true;
}

/* A device of an app that the node cannot send to would never get anything, and nobody would
 * notice. Where no app is configured yet, devices may come first. */
static bool is_app_known(struct bf_request *r, const struct bf_device_row *row)
{
    const struct bf_conf *conf = atomic_load(&bf_services_of(r)->conf);
    char known[160] = "";
    size_t len = 0;
    for (uint32_t i = 0; i < conf->push_app_count; i++) {
        const struct bf_conf_push_app *app = &conf->push_apps[i];
        if ((uint8_t)app->kind != row->kind)
            continue;
        if (bf_bytes_is_equal(row->app, (struct bf_bytes){app->name, strlen(app->name)}))
            return true;
        if (len < sizeof(known))
            len += (size_t)snprintf(known + len, sizeof(known) - len, "%s%s", len ? ", " : "",
                                    app->name);
    }
    if (conf->push_app_count == 0)
        return true;
    bf_answer_fail(r, 422, "unknown-app", "app",
                   "push.apps names no app '%.*s' for %s; it has %s%s", (int)row->app.len,
                   row->app.at, bf_push_kind_name((enum bf_push_kind)row->kind),
                   known[0] ? known : "none", len >= sizeof(known) ? ".." : "");
    return false;
}

/* What could never be sent to is refused here, not at each push. */
static bool may_send_to(struct bf_request *r, const struct given *g)
{
    const struct bf_conf *conf = atomic_load(&bf_services_of(r)->conf);
    struct bf_bytes authority, path;
    struct bf_host host;
    unsigned port;
    if (g->target.kind != BF_PUSH_WEBPUSH)
        return true;
    (void)bf_push_endpoint_split(g->target.token, &authority, &path); /* checked already */
    bf_authority_read(authority, &host, &port);
    for (uint32_t i = 0; i < conf->push_app_count; i++) {
        const struct bf_conf_push_app *app = &conf->push_apps[i];
        if (app->kind != BF_PUSH_WEBPUSH ||
            !bf_bytes_is_equal(g->row.app, (struct bf_bytes){app->name, strlen(app->name)}))
            continue;
        if (bf_push_serves(app, conf->egress_allow, &host, port))
            return true;
        if (!app->host[0])
            break;
        bf_answer_fail(r, 422, "endpoint-not-allowed", "token",
                       "app '%s' serves the push service %s:%u alone (push.apps: host, port)",
                       app->name, app->host, app->port);
        return false;
    }
    if (!bf_egress_host(conf->egress_allow, &host)) {
        bf_answer_fail(r, 422, "endpoint-not-allowed", "token",
                       "%.*s is of a private network, and a push service is not: the endpoint of a "
                       "browser's subscription names a public host. egress.allow lists exceptions",
                       BF_CUT(host.text, 100));
        return false;
    }
    if (conf->push_app_count == 0)
        return true; /* devices may come before apps */
    bf_answer_fail(r, 422, "endpoint-not-allowed", "token",
                   "%.*s is no push service of a browser that is known (Google's, Mozilla's, "
                   "Apple's, Microsoft's). Name it as host of the app in push.apps, or in "
                   "egress.allow",
                   BF_CUT(host.text, 100));
    return false;
}

static bool take_device(struct bf_request *r, yyjson_val *root, struct given *g)
{
    char why[BF_WHY_BYTES];
    if (!take_kind(r, root, &g->row) ||
        !take_text(r, root, "app", BF_DEVICE_APP_BYTES_MAX, true, &g->row.app) ||
        !is_app_known(r, &g->row) ||
        !take_text(r, root, "locale", BF_DEVICE_LOCALE_BYTES_MAX, false, &g->row.locale) ||
        !take_text(r, root, "device", BF_DEVICE_BYTES_MAX, false, &g->row.name) ||
        !take_text(r, root, "token", BF_PUSH_TOKEN_GIVEN_MAX, true, &g->target.token))
        return false;
    if (!is_locale(g->row.locale))
        return fail(r, "bad-value", "locale", "a language tag such as de-AT");
    g->target.kind = (enum bf_push_kind)g->row.kind;
    g->target.platform = (enum bf_platform)g->row.platform;
    g->target.app_topic = BF_BYTES("app"); /* checked where apps are configured */
    if (!take_keys(r, root, &g->target))
        return false;
    bf_push_target_canon(&g->target, &g->canon);
    if (bf_push_target_check(&g->target, why) == 0)
        return may_send_to(r, g);
    const char *detail = strchr(why, ' '); /* after the word */
    return fail(r, "bad-value", strncmp(why, "bad_keys", 8) == 0 ? "keys" : "token",
                detail ? detail + 1 : why);
}

/* ---- answers ---- */

static void put_member(struct bf_out *o, const char *key, struct bf_bytes value)
{
    if (value.len == 0)
        return;
    bf_out_text(o, key);
    bf_out_str(o, value);
}

static void put_device(struct bf_out *o, const struct bf_device_row *row)
{
    bf_out_text(o, "{\"id\":");
    bf_out_id(o, &row->id);
    bf_out_text(o, ",\"platform\":");
    bf_out_cstr(o, bf_platform_name((enum bf_platform)row->platform));
    bf_out_text(o, ",\"provider\":");
    bf_out_cstr(o, bf_push_kind_name((enum bf_push_kind)row->kind));
    put_member(o, ",\"app\":", row->app);
    put_member(o, ",\"locale\":", row->locale);
    put_member(o, ",\"device\":", row->name);
    bf_out_text(o, row->state == BF_DEVICE_LIVE ? ",\"state\":\"live\"" : ",\"state\":\"dead\"");
    bf_out_text(o, ",\"created_at\":");
    bf_out_time(o, row->created_ms);
    bf_out_text(o, ",\"last_seen_at\":");
    bf_out_time(o, row->seen_ms);
    if (row->state == BF_DEVICE_DEAD) {
        bf_out_text(o, ",\"dead_at\":");
        bf_out_time(o, row->dead_ms);
        put_member(o, ",\"reason\":", row->reason);
    }
    bf_out_text(o, "}");
}

static void tell(struct bf_request *r, const struct bf_device_row *row, const char *event)
{
    char body[BF_PUSH_EVENT_BYTES_MAX];
    size_t len = bf_push_device_event(row, event, bf_wall_ms(), body);
    bf_log_token_event(bf_services_of(r)->log, row->uid.user, (struct bf_bytes){body, len});
}

/* ---- calls ---- */

static void answer_put(struct bf_request *r, const struct bf_device_row *row, int rc,
                       bool is_created)
{
    struct bf_out o = {0};
    if (rc == BF_ERR_FULL) {
        bf_answer_fail(r, 409, "too-many-devices", "",
                       "%u devices are registered; DELETE one of them", BF_DEVICES_USER_MAX);
    } else if (rc == BF_ERR_UNKNOWN_USER) {
        bf_answer_fail(r, 404, "unknown-user", "user_id", "no such user");
    } else if (rc != 0) {
        bf_answer_error(r, rc);
    } else {
        bf_count(BF_CM_M_devices_registered, 1);
        tell(r, row, is_created ? "registered" : "refreshed");
        put_device(&o, row);
        bf_answer_json(r, is_created ? 201 : 200, &o);
    }
}

/* An unnamed device that is there already keeps its id, also one from before its token was written
 * in its one form. */
static int keep_id(void *arg, const struct bf_device_row *holder)
{
    struct bf_device_row *row = arg;
    if (holder->name.len == 0 && bf_bytes_is_equal(holder->uid.tenant, row->uid.tenant) &&
        bf_bytes_is_equal(holder->uid.user, row->uid.user) &&
        memcmp(holder->token_hash, row->token_hash, sizeof(row->token_hash)) == 0)
        row->id = holder->id;
    return 0;
}

static void put_given(struct bf_request *r, struct bf_uid uid, struct given *g)
{
    const struct bf_vault *vault = bf_services_of(r)->vault;
    uint8_t room[BF_DEVICE_SEALED_BYTES_MAX];
    bool is_created = false;
    g->row.uid = uid;
    g->row.created_ms = g->row.registered_ms = g->row.seen_ms = bf_wall_ms();
    bf_push_device_hash(vault, &g->row, g->target.token,
                        atomic_load(&bf_services_of(r)->conf)->push_tenant_tokens,
                        g->row.token_hash);
    bf_push_device_id(&g->row);
    if (g->row.name.len == 0)
        (void)bf_store_find_device(bf_services_of(r)->store, g->row.token_hash, keep_id, &g->row);
    int rc = bf_push_device_seal(vault, &g->row, &g->target, room);
    if (rc == 0)
        rc = bf_core_put_device(bf_services_of(r)->core, uid, &g->row, &is_created,
                                &g->row.created_ms);
    answer_put(r, &g->row, rc, is_created);
}

/* |is_mine|: the user comes with the token or body, not with the path. */
static void post_device(struct bf_request *r, bool is_mine)
{
    struct given g = {0};
    char whose[BF_USER_ID_BYTES_MAX];
    struct bf_uid uid;
    yyjson_doc *doc;
    yyjson_val *root;
    unsigned skipped = is_mine ? 0 : 1; /* user_id is no field where the path says it */
    if (!bf_read_object(r, members + skipped, sizeof(members) / sizeof(members[0]) - skipped, false,
                        &doc, &root))
        return;
    bool is_known = is_mine ? bf_mine_uid(r, root, whose, &uid) : bf_known_path_uid(r, &uid);
    if (is_known && take_device(r, root, &g))
        put_given(r, uid, &g);
    yyjson_doc_free(doc);
}

static int list_one(void *arg, const struct bf_device_row *row)
{
    struct bf_out *o = arg;
    if (o->at[o->len - 1] != '[')
        bf_out_text(o, ",");
    put_device(o, row);
    return o->failed ? BF_ERR_NO_MEMORY : 0;
}

static void list_devices(struct bf_request *r, struct bf_uid uid)
{
    struct bf_out o = {0};
    bf_out_text(&o, "{\"devices\":[");
    int rc = o.failed ? BF_ERR_NO_MEMORY
                      : bf_store_walk_devices(bf_services_of(r)->store, uid, list_one, &o);
    bf_out_text(&o, "]}");
    if (rc == 0) {
        bf_answer_json(r, 200, &o);
    } else {
        bf_out_free(&o);
        bf_answer_error(r, rc);
    }
}

static int show_one(void *arg, const struct bf_device_row *row)
{
    put_device(arg, row);
    return 0;
}

static void not_found(struct bf_request *r)
{
    bf_answer_fail(r, 404, "not-found", "id", "the user has no device of that id");
}

static void get_device(struct bf_request *r, struct bf_uid uid)
{
    struct bf_out o = {0};
    int rc = bf_store_get_device(bf_services_of(r)->store, uid, &r->id, show_one, &o);
    if (rc == 0) {
        bf_answer_json(r, 200, &o);
        return;
    }
    bf_out_free(&o);
    if (rc == BF_ERR_NOT_FOUND)
        not_found(r);
    else
        bf_answer_error(r, rc);
}

static void delete_device(struct bf_request *r, struct bf_uid uid)
{
    int rc = bf_core_delete_device(bf_services_of(r)->core, uid, &r->id);
    if (rc == BF_ERR_NOT_FOUND || rc == BF_ERR_UNKNOWN_USER) {
        not_found(r);
    } else if (rc != 0) {
        bf_answer_error(r, rc);
    } else {
        tell(r, &(struct bf_device_row){.uid = uid, .id = r->id}, "deleted");
        bf_answer_empty(r, 204);
    }
}

void bf_post_device(struct bf_request *r)
{
    post_device(r, false);
}

void bf_post_my_device(struct bf_request *r)
{
    post_device(r, true);
}

void bf_list_devices(struct bf_request *r)
{
    struct bf_uid uid;
    if (bf_known_path_uid(r, &uid))
        list_devices(r, uid);
}

void bf_list_my_devices(struct bf_request *r)
{
    char whose[BF_USER_ID_BYTES_MAX];
    struct bf_uid uid;
    if (bf_mine_uid(r, NULL, whose, &uid))
        list_devices(r, uid);
}

void bf_get_device(struct bf_request *r)
{
    struct bf_uid uid;
    if (bf_known_path_uid(r, &uid))
        get_device(r, uid);
}

void bf_delete_device(struct bf_request *r)
{
    struct bf_uid uid;
    if (bf_known_path_uid(r, &uid))
        delete_device(r, uid);
}

void bf_delete_my_device(struct bf_request *r)
{
    char whose[BF_USER_ID_BYTES_MAX];
    struct bf_uid uid;
    if (bf_mine_uid(r, NULL, whose, &uid))
        delete_device(r, uid);
}
