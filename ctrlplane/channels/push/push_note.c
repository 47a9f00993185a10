/* See push_note.h. */
#include "channels/push/push_note.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "belfry/base/base64url.h"
#include "crypto/hash.h"
#include "crypto/webpush.h"
#include "belfry/base/err.h"
#include "belfry/base/text.h"

static const char *const platform_names[BF_PLATFORM_COUNT] = {"ios", "android", "web"};
static const char *const kind_names[BF_PUSH_KIND_COUNT] = {"apns", "fcm", "webpush"};

static int find(const char *const *names, int count, struct bf_bytes name)
{
    for (int i = 0; i < count; i++)
        if (name.len == strlen(names[i]) && strncasecmp(name.at, names[i], name.len) == 0)
            return i;
    return -1;
}

const char *bf_platform_name(enum bf_platform platform)
{
    return (unsigned)platform < BF_PLATFORM_COUNT ? platform_names[platform] : "?";
}

int bf_platform_find(struct bf_bytes name)
{
    return find(platform_names, BF_PLATFORM_COUNT, name);
}

const char *bf_push_kind_name(enum bf_push_kind kind)
{
    return (unsigned)kind < BF_PUSH_KIND_COUNT ? kind_names[kind] : "?";
}

int bf_push_kind_find(struct bf_bytes name)
{
    return find(kind_names, BF_PUSH_KIND_COUNT, name);
}

/* ---- notes ---- */

static int refuse(char why[BF_WHY_BYTES], int rc, const char *text)
{
    bf_format(why, BF_WHY_BYTES, "%s", text);
    return rc;
}

static struct bf_bytes text_of(yyjson_val *object, const char *name)
{
    yyjson_val *val = yyjson_obj_get(object, name);
    return (struct bf_bytes){yyjson_get_str(val), yyjson_get_len(val)};
}

/* The members between braces, parsed; numbers stay as they were written. */
static yyjson_doc *parse_members(struct bf_bytes members)
{
    char *json = malloc(members.len + 3);
    if (!json)
        return NULL;
    json[0] = '{';
    if (members.len > 0)
        memcpy(json + 1, members.at, members.len);
    json[members.len + 1] = '}';
    json[members.len + 2] = '\0';
    yyjson_doc *doc = yyjson_read(json, members.len + 2, YYJSON_READ_NUMBER_AS_RAW);
    free(json);
    return doc;
}

static yyjson_val *member_of_type(yyjson_val *object, const char *name, yyjson_type type)
{
    yyjson_val *val = yyjson_obj_get(object, name);
    return val && yyjson_get_type(val) == type ? val : NULL;
}

static int read_overrides(struct bf_bytes json, struct bf_push_note *note, char why[BF_WHY_BYTES])
{
    size_t i, max;
    yyjson_val *key, *val;
    if (json.len == 0)
        return 0;
    note->docs[1] = yyjson_read(json.at, json.len, YYJSON_READ_NUMBER_AS_RAW);
    yyjson_val *root = yyjson_doc_get_root(note->docs[1]);
    if (!yyjson_is_obj(root))
        return refuse(why, BF_ERR_MALFORMED, "bad_override: overrides.push is not a JSON object");
    yyjson_obj_foreach (root, i, max, key, val) {
        struct bf_bytes name = {yyjson_get_str(key), yyjson_get_len(key)};
        int kind = bf_push_kind_find(name);
        if (kind >= 0 && note->overrides[kind]) {
            snprintf(why, BF_WHY_BYTES, "bad_override: overrides.push.%s is given twice",
                     kind_names[kind]);
            return BF_ERR_MALFORMED;
        }
        bool is_image = bf_bytes_is_equal(name, BF_BYTES("image")) && yyjson_is_str(val);
        if (kind >= 0 && yyjson_is_obj(val)) {
            note->overrides[kind] = val;
        } else if (is_image) {
            note->image = (struct bf_bytes){yyjson_get_str(val), yyjson_get_len(val)};
        } else {
            bf_format(why, BF_WHY_BYTES,
                      "bad_override: overrides.push.%.*s: takes objects apns, "
                      "fcm, webpush and the text image",
                      BF_CUT(name.at, 40));
            return BF_ERR_MALFORMED;
        }
    }
    return 0;
}

static void read_fragment(yyjson_val *root, struct bf_push_note *note)
{
    note->type = text_of(root, "type");
    note->category = text_of(root, "category");
    note->topic = text_of(root, "topic");
    note->title = text_of(root, "title");
    note->body = text_of(root, "body");
    note->action_url = text_of(root, "action_url");
    note->collapse_key = text_of(root, "collapse_key");
    note->data = member_of_type(root, "data", YYJSON_TYPE_OBJ);
    note->actions = member_of_type(root, "actions", YYJSON_TYPE_ARR);
    yyjson_val *expires = member_of_type(root, "expires", YYJSON_TYPE_RAW);
    if (note->expires_ms == 0 && expires)
        note->expires_ms = strtoull(yyjson_get_raw(expires), NULL, 10);
    if (note->expires_ms == 0)
        note->expires_ms = note->now_ms + BF_PUSH_TTL_DEFAULT_MS;
}

bool bf_push_note_channel(const struct bf_push_note *note, struct bf_bytes *ret_channel,
                          struct bf_bytes *ret_app)
{
    *ret_channel = text_of(note->overrides[BF_PUSH_APNS], "channel");
    *ret_app = text_of(note->overrides[BF_PUSH_APNS], "app");
    return ret_channel->len > 0 && ret_app->len > 0;
}

static void own_collapse_key(struct bf_push_note *note, struct bf_bytes tenant)
{
    uint8_t both[2 * BF_SHA256_BYTES], hash[BF_SHA256_BYTES];
    char text[BF_SHA256_BYTES * 4 / 3 + 2];
    if (tenant.len == 0 || note->collapse_key.len == 0)
        return;
    bf_sha256(tenant, both);
    bf_sha256(note->collapse_key, both + BF_SHA256_BYTES);
    bf_sha256((struct bf_bytes){(const char *)both, sizeof(both)}, hash);
    (void)bf_base64url_encode(hash, sizeof(hash), text);
    memcpy(note->own_collapse, text, sizeof(note->own_collapse));
    note->collapse_key = (struct bf_bytes){note->own_collapse, sizeof(note->own_collapse)};
}

int bf_push_note_open(const struct bf_content_source *source, struct bf_push_note *ret,
                      char why[BF_WHY_BYTES])
{
    struct bf_push_note note = {.message_id = source->message_id,
                                .lane = source->lane,
                                .now_ms = source->now_ms,
                                .expires_ms = source->expires_ms};
    if (source->fragment.len > BF_PUSH_FRAGMENT_BYTES_MAX ||
        source->overrides.len > BF_PUSH_FRAGMENT_BYTES_MAX)
        return refuse(why, BF_ERR_TOO_LARGE, "payload_too_large: the event is larger than 64 KiB");
    note.docs[0] = parse_members(source->fragment);
    if (!note.docs[0])
        return refuse(why, BF_ERR_MALFORMED, "bad_event: its stored form is not JSON");
    read_fragment(yyjson_doc_get_root(note.docs[0]), &note);
    int rc = read_overrides(source->overrides, &note, why);
    if (rc != 0)
        bf_push_note_close(&note);
    else
        *ret = note;
    if (rc == 0)
        own_collapse_key(ret, source->tenant);
    return rc;
}

void bf_push_note_close(struct bf_push_note *note)
{
    yyjson_doc_free(note->docs[0]);
    yyjson_doc_free(note->docs[1]);
    note->docs[0] = note->docs[1] = NULL;
}

/* ---- targets ---- */

static bool is_hex(struct bf_bytes text)
{
    for (size_t i = 0; i < text.len; i++)
        if (bf_hex_digit(text.at[i]) < 0)
            return false;
    return text.len > 0;
}

/* Visible ASCII without what would end a JSON string or a header early. */
static bool is_plain(struct bf_bytes text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.at[i] <= ' ' || text.at[i] > '~' || text.at[i] == '"' || text.at[i] == '\\')
            return false;
    return text.len > 0;
}

bool bf_push_endpoint_split(struct bf_bytes endpoint, struct bf_bytes *ret_authority,
                            struct bf_bytes *ret_path)
{
    static const char scheme[] = "https://";
    const size_t begin = sizeof(scheme) - 1;
    if (endpoint.len <= begin || memcmp(endpoint.at, scheme, begin) != 0 || !is_plain(endpoint) ||
        memchr(endpoint.at, '#', endpoint.len) || memchr(endpoint.at, '<', endpoint.len))
        return false;
    const char *slash = memchr(endpoint.at + begin, '/', endpoint.len - begin);
    if (!slash || slash == endpoint.at + begin)
        return false;
    size_t host = (size_t)(slash - endpoint.at) - begin;
    if (memchr(endpoint.at + begin, '@', host) || memchr(endpoint.at + begin, '?', host))
        return false;
    *ret_authority = (struct bf_bytes){endpoint.at + begin, host};
    *ret_path = (struct bf_bytes){slash, endpoint.len - begin - host};
    return true;
}

static int check_apns(const struct bf_push_target *t, char why[BF_WHY_BYTES])
{
    if (t->app_topic.len == 0 || t->app_topic.len > BF_PUSH_APP_TOPIC_MAX ||
        !is_plain(t->app_topic))
        return refuse(why, BF_ERR_MALFORMED, "bad_app: an APNs app needs its bundle id");
    if (t->token.len > BF_PUSH_APNS_TOKEN_MAX)
        return refuse(why, BF_ERR_TOO_LARGE, "bad_token: more than 512 characters");
    if (t->is_broadcast)
        return is_plain(t->token)
                   ? 0
                   : refuse(why, BF_ERR_MALFORMED, "bad_token: a broadcast channel's id is base64");
    if (!is_hex(t->token) || t->token.len % 2 != 0)
        return refuse(why, BF_ERR_MALFORMED, "bad_token: an APNs device token is hex digits");
    return 0;
}

static int check_webpush(const struct bf_push_target *t, char why[BF_WHY_BYTES])
{
    struct bf_bytes authority, path;
    struct bf_webpush_keys keys;
    if (t->token.len > BF_PUSH_ENDPOINT_BYTES_MAX)
        return refuse(why, BF_ERR_TOO_LARGE, "bad_token: an endpoint has 1,024 bytes at most");
    if (!bf_push_endpoint_split(t->token, &authority, &path))
        return refuse(why, BF_ERR_MALFORMED,
                      "bad_token: the endpoint is not an https URL with a path");
    if (bf_webpush_keys_read(t->p256dh, t->auth, &keys) != 0)
        return refuse(why, BF_ERR_MALFORMED,
                      "bad_keys: p256dh is a P-256 point of 65 bytes, auth has 16, "
                      "both base64url without padding");
    return 0;
}

int bf_push_target_check(const struct bf_push_target *t, char why[BF_WHY_BYTES])
{
    if (t->kind == BF_PUSH_APNS)
        return check_apns(t, why);
    if (t->kind == BF_PUSH_WEBPUSH)
        return check_webpush(t, why);
    if (t->app_topic.len == 0 || t->app_topic.len > BF_PUSH_APP_TOPIC_MAX ||
        !is_plain(t->app_topic))
        return refuse(why, BF_ERR_MALFORMED, "bad_app: an FCM app needs its project id");
    if (t->token.len > BF_PUSH_TOKEN_BYTES_MAX)
        return refuse(why, BF_ERR_TOO_LARGE, "bad_token: more than 1,024 characters");
    if (!is_plain(t->token))
        return refuse(why, BF_ERR_MALFORMED, "bad_token: a registration token is visible ASCII");
    return 0;
}
