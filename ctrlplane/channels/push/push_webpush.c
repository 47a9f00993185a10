/* Requests for Web Push (RFC 8030, 8291; PROVIDERS 3). VAPID comes with the pool of the origin. */
#include <string.h>

#include "belfry/base/err.h"
#include "channels/push/push_build.h"
#include "crypto/webpush.h"
#include "json/json.h"

static int read_urgency(struct bf_push_build *b, struct bf_bytes *urgency)
{
    static const char *const known[] = {"very-low", "low", "normal", "high"};
    *urgency = b->note->lane == BF_LANE_BULK       ? BF_BYTES("low")
               : b->note->lane == BF_LANE_CRITICAL ? BF_BYTES("high")
                                                   : BF_BYTES("normal");
    int rc = bf_push_option_text(b, "urgency", urgency);
    for (size_t i = 0; rc == 0 && i < sizeof(known) / sizeof(known[0]); i++)
        if (bf_bytes_is_equal(*urgency, (struct bf_bytes){known[i], strlen(known[i])}))
            return 0;
    return rc != 0 ? rc
                   : bf_push_refuse(b, BF_ERR_MALFORMED,
                                    "bad_override: an urgency is very-low, low, "
                                    "normal or high");
}

/* What the service worker gets, the members of a client's `n` frame (DESIGN 5). */
static int write_plain(struct bf_push_build *b, struct bf_writer *plain)
{
    static const char *const ours[] = {"id",         "type",    "category", "title", "body",
                                       "action_url", "actions", "image",    "badge", "data"};
    struct bf_push_object o;
    yyjson_val *payload;
    int rc = bf_push_option_object(b, "payload", &payload);
    for (size_t i = 0; rc == 0 && i < sizeof(ours) / sizeof(ours[0]); i++)
        if (yyjson_obj_get(payload, ours[i]))
            rc = bf_push_refuse(b, BF_ERR_MALFORMED,
                                "reserved_key: overrides.push.webpush.payload.%s is "
                                "Belfry's own",
                                ours[i]);
    if (rc != 0)
        return rc;
    bf_push_object_begin(&o, plain);
    bf_push_put_id(&o, "id", &b->note->message_id);
    bf_push_put_text(&o, "type", b->note->type);
    bf_push_put_text(&o, "category", b->note->category);
    bf_push_put_text(&o, "title", b->note->title);
    bf_push_put_text(&o, "body", b->note->body);
    bf_push_put_text(&o, "action_url", b->note->action_url);
    bf_push_put_value(&o, "actions", b->note->actions);
    bf_push_put_text(&o, "image", b->note->image);
    if (b->note->content.has_unread) {
        bf_push_key(&o, BF_BYTES("badge"));
        bf_json_put_uint(plain, b->note->content.unread);
    }
    bf_push_put_value(&o, "data", b->note->data);
    bf_push_put_members(&o, payload);
    bf_push_object_end(&o);
    return 0;
}

static int put_fields(struct bf_push_build *b)
{
    static const char *const names[] = {"urgency", "topic", "ttl", "payload"};
    struct bf_bytes urgency, topic = b->note->collapse_key, authority, path;
    char id[BF_WEBPUSH_TOPIC_CHARS_MAX + 1];
    uint64_t ttl_s = bf_push_ttl_s(b->note);
    bool is_given;
    int rc = bf_push_check_options(b, names, sizeof(names) / sizeof(names[0]));
    if (rc == 0)
        rc = read_urgency(b, &urgency);
    if (rc == 0)
        rc = bf_push_option_text(b, "topic", &topic);
    if (rc == 0)
        rc = bf_push_option_uint(b, "ttl", UINT32_MAX, &ttl_s, &is_given);
    if (rc != 0)
        return rc;
    (void)bf_push_endpoint_split(b->target->token, &authority, &path); /* checked already */
    bf_push_begin(b, "", path, "");
    bf_push_field_uint(b, "ttl", ttl_s < BF_WEBPUSH_TTL_S_MAX ? ttl_s : BF_WEBPUSH_TTL_S_MAX);
    bf_push_field(b, "urgency", urgency);
    if (topic.len > 0) {
        bf_push_collapse_id(topic, BF_WEBPUSH_TOPIC_CHARS_MAX, true, id);
        bf_push_field_text(b, "topic", id);
    }
    bf_push_field_text(b, "content-encoding", "aes128gcm");
    bf_push_field_text(b, "content-type", "application/octet-stream");
    return 0;
}

int bf_push_build_webpush(struct bf_push_build *b)
{
    uint8_t text[BF_WEBPUSH_PLAIN_BYTES_MAX];
    struct bf_writer plain = {.buf = text, .cap = sizeof(text)};
    struct bf_webpush_keys keys;
    int rc = put_fields(b);
    if (rc == 0)
        rc = write_plain(b, &plain);
    if (rc != 0)
        return rc;
    if (plain.failed)
        return bf_push_refuse(b, BF_ERR_TOO_LARGE,
                              "payload_too_large: Web Push takes %u bytes before "
                              "encryption; shorten body or data",
                              BF_WEBPUSH_PLAIN_BYTES_MAX);
    if (b->is_trial)
        return 0;
    bf_push_body_begin(b);
    size_t body = BF_WEBPUSH_BODY_BYTES(plain.len);
    if (b->w.failed || body > b->w.cap - b->w.len) {
        b->w.failed = true;
        return 0;
    }
    rc = bf_webpush_keys_read(b->target->p256dh, b->target->auth, &keys);
    if (rc == 0)
        rc = bf_webpush_seal(&keys, (struct bf_bytes){(char *)text, plain.len}, NULL,
                             b->w.buf + b->w.len);
    if (rc != 0)
        return bf_push_refuse(b, rc, "bad_keys: the subscription's keys do not encrypt");
    b->w.len += body;
    return 0;
}
