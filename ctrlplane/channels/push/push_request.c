/* See push_request.h: the parts that all providers share. */
#include "channels/push/push_request.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/base64url.h"
#include "crypto/hash.h"
#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "channels/push/push_build.h"
#include "json/json.h"

int bf_push_refuse(struct bf_push_build *b, int rc, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bf_vformat(b->why, BF_WHY_BYTES, format, args);
    va_end(args);
    return rc;
}

/* ---- the record of shm/push_wire.h ---- */

static struct bf_bytes cstr(const char *text)
{
    return (struct bf_bytes){text, strlen(text)};
}

void bf_push_begin(struct bf_push_build *b, const char *prefix, struct bf_bytes path,
                   const char *suffix)
{
    bf_put_u16(&b->w, (uint16_t)(strlen(prefix) + path.len + strlen(suffix)));
    bf_put_bytes(&b->w, cstr(prefix));
    bf_put_bytes(&b->w, path);
    bf_put_bytes(&b->w, cstr(suffix));
    b->count_at = b->w.len;
    bf_put_u8(&b->w, 0);
}

void bf_push_field(struct bf_push_build *b, const char *name, struct bf_bytes value)
{
    bf_put_u8(&b->w, (uint8_t)strlen(name));
    bf_put_bytes(&b->w, cstr(name));
    bf_put_str16(&b->w, value);
    if (!b->w.failed)
        b->w.buf[b->count_at]++;
}

void bf_push_field_text(struct bf_push_build *b, const char *name, const char *value)
{
    bf_push_field(b, name, cstr(value));
}

void bf_push_field_uint(struct bf_push_build *b, const char *name, uint64_t value)
{
    char digits[21];
    snprintf(digits, sizeof(digits), "%llu", (unsigned long long)value);
    bf_push_field_text(b, name, digits);
}

void bf_push_body_begin(struct bf_push_build *b)
{
    bf_put_u32(&b->w, 0);
    b->body_at = b->w.len;
}

size_t bf_push_body_len(const struct bf_push_build *b)
{
    return b->w.len - b->body_at;
}

static void patch_body_len(struct bf_push_build *b)
{
    struct bf_writer at = {.buf = b->w.buf + b->body_at - 4, .cap = 4};
    bf_put_u32(&at, (uint32_t)bf_push_body_len(b));
}

/* ---- JSON ---- */

void bf_push_object_begin(struct bf_push_object *o, struct bf_writer *w)
{
    *o = (struct bf_push_object){.w = w};
    bf_put_u8(w, '{');
}

void bf_push_object_end(struct bf_push_object *o)
{
    bf_put_u8(o->w, '}');
}

void bf_push_key(struct bf_push_object *o, struct bf_bytes key)
{
    if (o->has_members)
        bf_put_u8(o->w, ',');
    o->has_members = true;
    bf_json_put_str(o->w, key);
    bf_put_u8(o->w, ':');
}

void bf_push_put_text(struct bf_push_object *o, const char *key, struct bf_bytes value)
{
    if (value.len == 0)
        return;
    bf_push_key(o, cstr(key));
    bf_json_put_str(o->w, value);
}

void bf_push_put_id(struct bf_push_object *o, const char *key, const struct bf_id *id)
{
    char text[BF_UUID_TEXT_BYTES];
    bf_id_text(id, text);
    bf_push_put_text(o, key, (struct bf_bytes){text, sizeof(text)});
}

void bf_push_put_value(struct bf_push_object *o, const char *key, yyjson_val *val)
{
    if (!val)
        return;
    bf_push_key(o, cstr(key));
    if (!bf_json_put_value(o->w, val))
        o->w->failed = true; /* nested too deep: ingest refuses it long before */
}

void bf_push_put_members(struct bf_push_object *o, yyjson_val *object)
{
    size_t i, max;
    yyjson_val *key, *val;
    yyjson_obj_foreach (object, i, max, key, val) {
        bf_push_key(o, (struct bf_bytes){yyjson_get_str(key), yyjson_get_len(key)});
        if (!bf_json_put_value(o->w, val))
            o->w->failed = true;
    }
}

/* ---- overrides ---- */

int bf_push_check_options(struct bf_push_build *b, const char *const *names, size_t count)
{
    size_t i, max;
    yyjson_val *key, *val;
    yyjson_obj_foreach (b->options, i, max, key, val) {
        size_t at = 0;
        while (at < count && strcmp(names[at], yyjson_get_str(key)) != 0)
            at++;
        if (at == count)
            return bf_push_refuse(
                b, BF_ERR_MALFORMED, "bad_override: overrides.push.%s.%.*s is not known",
                bf_push_kind_name(b->target->kind), BF_CUT(yyjson_get_str(key), 60));
    }
    return 0;
}

static int wrong_kind(struct bf_push_build *b, const char *name, const char *wanted)
{
    return bf_push_refuse(b, BF_ERR_MALFORMED, "bad_override: overrides.push.%s.%s takes %s",
                          bf_push_kind_name(b->target->kind), name, wanted);
}

int bf_push_option_object(struct bf_push_build *b, const char *name, yyjson_val **ret)
{
    yyjson_val *val = yyjson_obj_get(b->options, name);
    *ret = NULL;
    if (val && !yyjson_is_obj(val))
        return wrong_kind(b, name, "an object");
    *ret = val;
    return 0;
}

int bf_push_option_text(struct bf_push_build *b, const char *name, struct bf_bytes *ret)
{
    yyjson_val *val = yyjson_obj_get(b->options, name);
    if (!val)
        return 0;
    if (!yyjson_is_str(val) || yyjson_get_len(val) == 0)
        return wrong_kind(b, name, "a text");
    *ret = (struct bf_bytes){yyjson_get_str(val), yyjson_get_len(val)};
    return 0;
}

int bf_push_option_uint(struct bf_push_build *b, const char *name, uint64_t max, uint64_t *ret,
                        bool *ret_is_given)
{
    char wanted[48];
    yyjson_val *val = yyjson_obj_get(b->options, name);
    *ret_is_given = false;
    if (!val)
        return 0;
    const char *text = yyjson_get_raw(val); /* numbers are kept as they were written */
    char *end = NULL;
    uint64_t value = text ? strtoull(text, &end, 10) : 0;
    bool is_number = text && text[0] != '-' && (size_t)(end - text) == yyjson_get_len(val);
    if (!is_number || value > max) {
        snprintf(wanted, sizeof(wanted), "a number of 0..%llu", (unsigned long long)max);
        return wrong_kind(b, name, wanted);
    }
    *ret = value;
    *ret_is_given = true;
    return 0;
}

uint64_t bf_push_ttl_s(const struct bf_push_note *note)
{
    return note->expires_ms > note->now_ms ? (note->expires_ms - note->now_ms + 999) / 1000 : 0;
}

/* ---- collapse key ---- */

static bool is_base64url(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

void bf_push_collapse_id(struct bf_bytes key, size_t max, bool is_base64url_only, char *out)
{
    bool is_fit = key.len <= max && !(is_base64url_only && key.len % 4 == 1);
    for (size_t i = 0; is_fit && i < key.len; i++)
        is_fit = is_base64url_only ? is_base64url(key.at[i]) : key.at[i] > ' ' && key.at[i] <= '~';
    if (is_fit) {
        if (key.len > 0)
            memcpy(out, key.at, key.len);
        out[key.len] = '\0';
        return;
    }
    uint8_t hash[BF_SHA256_BYTES];
    char text[BF_SHA256_BYTES * 4 / 3 + 2];
    bf_sha256(key, hash);
    size_t len = bf_base64url_encode(hash, sizeof(hash), text); /* 43 characters, 258 bits */
    len = len < max ? len : max;                                /* 32 of them are still 192 bits */
    memcpy(out, text, len);
    out[len] = '\0';
}

/* ---- the whole ---- */

static int (*const builders[BF_PUSH_KIND_COUNT])(struct bf_push_build *) = {
    [BF_PUSH_APNS] = bf_push_build_apns,
    [BF_PUSH_FCM] = bf_push_build_fcm,
    [BF_PUSH_WEBPUSH] = bf_push_build_webpush,
};

int bf_push_request_try(const struct bf_push_note *note, enum bf_push_kind kind,
                        enum bf_platform platform, bool is_channel, char why[BF_WHY_BYTES])
{
    uint8_t out[BF_PUSH_REQUEST_BYTES_MAX];
    const struct bf_push_target target = {
        .kind = kind,
        .platform = platform,
        .is_broadcast = is_channel && kind == BF_PUSH_APNS,
        .app_topic = BF_BYTES("app"),
        .token = kind == BF_PUSH_WEBPUSH ? BF_BYTES("https://push.example/x") : BF_BYTES("00"),
    };
    struct bf_push_build b = {.note = note,
                              .target = &target,
                              .options = note->overrides[kind],
                              .why = why,
                              .is_trial = true,
                              .w = {.buf = out, .cap = sizeof(out)}};
    return builders[kind](&b);
}

int bf_push_request_build(const struct bf_push_note *note, const struct bf_push_target *target,
                          uint8_t *out, size_t cap, size_t *ret_len, char why[BF_WHY_BYTES])
{
    struct bf_push_build b = {
        .note = note, .target = target, .why = why, .w = {.buf = out, .cap = cap}};
    int rc = (unsigned)target->kind < BF_PUSH_KIND_COUNT
                 ? bf_push_target_check(target, why)
                 : bf_push_refuse(&b, BF_ERR_MALFORMED, "bad_device: unknown provider");
    if (rc == 0 && note->expires_ms <= note->now_ms)
        rc = bf_push_refuse(&b, BF_ERR_EXPIRED, "expired: it is of no use any more");
    if (rc != 0)
        return rc;
    b.options = note->overrides[target->kind];
    rc = builders[target->kind](&b);
    if (rc == 0 && b.w.failed)
        rc = bf_push_refuse(&b, BF_ERR_TOO_LARGE,
                            "payload_too_large: the request would have more than "
                            "%zu bytes",
                            cap);
    if (rc != 0)
        return rc;
    patch_body_len(&b);
    *ret_len = b.w.len;
    return 0;
}
