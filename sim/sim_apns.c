/* APNs answers: see sim_apns.h. */
#include "sim_apns.h"

#include <inttypes.h>
#include <stdlib.h>
#include <yyjson.h>

#include "sim_answer.h"
#include "sim_channels.h"
#include "sim_text.h"

static const struct {
    const char *reason;
    uint16_t status;
} reasons[] = {
    {"BadCollapseId", 400},
    {"BadDeviceToken", 400},
    {"BadExpirationDate", 400},
    {"BadMessageId", 400},
    {"BadPriority", 400},
    {"BadTopic", 400},
    {"DeviceTokenNotForTopic", 400},
    {"DuplicateHeaders", 400},
    {"IdleTimeout", 400},
    {"InvalidPushType", 400},
    {"MissingDeviceToken", 400},
    {"MissingTopic", 400},
    {"PayloadEmpty", 400},
    {"TopicDisallowed", 400},
    {"BadChannelId", 400},
    {"ChannelNotRegistered", 400},
    {"CannotCreateChannelConfig", 400},
    {"MissingChannelId", 400},
    {"MissingPushType", 400},
    {"BadCertificate", 403},
    {"BadCertificateEnvironment", 403},
    {"BadEnvironmentKeyIdInToken", 403},
    {"ExpiredProviderToken", 403},
    {"FeatureNotEnabled", 403},
    {"Forbidden", 403},
    {"InvalidProviderToken", 403},
    {"MissingProviderToken", 403},
    {"UnrelatedKeyIdInToken", 403},
    {"BadPath", 404},
    {"MethodNotAllowed", 405},
    {"ExpiredToken", 410},
    {"Unregistered", 410},
    {"PayloadTooLarge", 413},
    {"TooManyProviderTokenUpdates", 429},
    {"TooManyRequests", 429},
    {"InternalServerError", 500},
    {"ServiceUnavailable", 503},
    {"Shutdown", 503},
};

uint16_t sim_apns_status_of(const char *reason)
{
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (strcmp(reasons[i].reason, reason) == 0)
            return reasons[i].status;
    return 0;
}

void sim_apns_fail(struct sim_answer *a, uint16_t status, const char *reason, int64_t timestamp_ms)
{
    a->status = status ? status : sim_apns_status_of(reason);
    a->reason = reason;
    if (a->status == 410)
        sim_answer_body(a, "application/json", "{\"reason\":\"%s\",\"timestamp\":%" PRId64 "}",
                        reason, timestamp_ms);
    else
        sim_answer_body(a, "application/json", "{\"reason\":\"%s\"}", reason);
}

/* ---- push types ---- */

struct push_type {
    const char *name, *suffix; /* of the topic, after the bundle id */
    uint32_t payload_max;
    bool token_only; /* not with a certificate */
};

static const struct push_type push_types[] = {
    {"alert", "", SIM_APNS_PAYLOAD_BYTES_MAX, false},
    {"background", "", SIM_APNS_PAYLOAD_BYTES_MAX, false},
    {"voip", ".voip", SIM_APNS_VOIP_BYTES_MAX, false},
    {"complication", ".complication", SIM_APNS_PAYLOAD_BYTES_MAX, false},
    {"fileprovider", ".pushkit.fileprovider", SIM_APNS_PAYLOAD_BYTES_MAX, false},
    {"mdm", "", SIM_APNS_PAYLOAD_BYTES_MAX, false},
    {"location", ".location-query", SIM_APNS_PAYLOAD_BYTES_MAX, true},
    {"liveactivity", ".push-type.liveactivity", SIM_APNS_PAYLOAD_BYTES_MAX, true},
    {"pushtotalk", ".voip-ptt", SIM_APNS_PAYLOAD_BYTES_MAX, false},
    {"widgets", ".push-type.widgets", SIM_APNS_PAYLOAD_BYTES_MAX, true},
    {"controls", ".push-type.controls", SIM_APNS_PAYLOAD_BYTES_MAX, true},
};

static const struct push_type *push_type_of(struct sim_slice name)
{
    for (size_t i = 0; i < sizeof(push_types) / sizeof(push_types[0]); i++)
        if (sim_slice_is(name, push_types[i].name))
            return &push_types[i];
    return NULL;
}

/* ---- credentials: NULL when good, else the reason ---- */

static const char *check_key(const struct sim_world *w, const struct sim_peer *peer,
                             const struct sim_claims *cl)
{
    const struct sim_apns_key *k = &w->keys[cl->key];
    if (k->revoked || strcmp(cl->iss, k->team) != 0)
        return "InvalidProviderToken";
    if (k->env == (w->sandbox ? SIM_ENV_PRODUCTION : SIM_ENV_SANDBOX))
        return "BadEnvironmentKeyIdInToken";
    if (peer->bound_key < 0)
        return NULL;
    const struct sim_apns_key *bound = &w->keys[peer->bound_key];
    if (strcmp(bound->team, k->team) != 0)
        return "InvalidProviderToken"; /* the first push bound its team to this connection */
    return bound->group == k->group ? NULL : "UnrelatedKeyIdInToken";
}

/* A token refreshed too early on this connection. The old one may go on. */
static const char *check_update(const struct sim_world *w, struct sim_peer *peer,
                                const struct sim_claims *cl, int64_t now_s)
{
    if (peer->token_fingerprint == cl->fingerprint)
        return NULL;
    bool early = now_s - peer->token_since_s < (int64_t)w->token_update_min_s;
    if (peer->token_fingerprint != 0 && early)
        return "TooManyProviderTokenUpdates";
    peer->token_fingerprint = cl->fingerprint;
    peer->token_since_s = now_s;
    return NULL;
}

static const char *check_token(const struct sim_ctx *c, struct sim_peer *peer,
                               const struct sim_claims *cl)
{
    const int64_t clock_skew_s = 60; /* a sender's clock may run ahead a little */
    int64_t now_s = c->now_ms / 1000;
    if (cl->kind == SIM_AUTH_NONE)
        return "MissingProviderToken";
    if (cl->kind != SIM_AUTH_GOOD || cl->key < 0 || cl->iat <= 0)
        return "InvalidProviderToken";
    if (cl->iat > now_s + clock_skew_s)
        return "InvalidProviderToken";
    if (cl->iat + (int64_t)c->world->token_age_max_s < now_s)
        return "ExpiredProviderToken";
    const char *bad = check_key(c->world, peer, cl);
    if (!bad)
        bad = check_update(c->world, peer, cl, now_s);
    if (!bad)
        peer->bound_key = cl->key;
    return bad;
}

/* With a client certificate, Authorization is ignored. */
static const char *check_auth(const struct sim_ctx *c, struct sim_peer *peer,
                              const struct sim_request *q)
{
    if (peer->cert == SIM_CERT_NONE)
        return check_token(c, peer, q->claims);
    if (peer->cert == SIM_CERT_UNTRUSTED)
        return "BadCertificate";
    if (peer->cert == SIM_CERT_SANDBOX && !c->world->sandbox)
        return "BadCertificateEnvironment";
    return NULL;
}

/* ---- fields ---- */

static bool topic_form_ok(struct sim_slice t)
{
    for (uint32_t i = 0; i < t.n; i++) {
        char ch = t.p[i], lower = (char)(ch | 0x20);
        if (ch != '.' && ch != '-' && !(ch >= '0' && ch <= '9') && !(lower >= 'a' && lower <= 'z'))
            return false;
    }
    return t.n > 0 && t.n < SIM_TOPIC_BYTES_MAX;
}

static bool listed(struct sim_slice topic, const char (*list)[SIM_TOPIC_BYTES_MAX], uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (sim_slice_is(topic, list[i]))
            return true;
    return count == 0;
}

/* A topic is a bundle id and the suffix of its push type; a certificate names whole topics. */
static const char *check_topic(const struct sim_world *w, const struct sim_peer *peer,
                               const struct sim_request *q, const struct push_type *type)
{
    struct sim_slice t = q->field[SIM_F_APNS_TOPIC];
    if (!sim_request_has(q, SIM_F_APNS_TOPIC))
        return peer->cert != SIM_CERT_NONE && peer->cert_topics_count == 1 ? NULL : "MissingTopic";
    if (!topic_form_ok(t))
        return "BadTopic";
    uint32_t suffix = (uint32_t)strlen(type->suffix);
    if (t.n <= suffix || memcmp(t.p + t.n - suffix, type->suffix, suffix) != 0)
        return "BadTopic";
    struct sim_slice bundle = {t.p, t.n - suffix};
    if (peer->cert != SIM_CERT_NONE && !listed(t, peer->cert_topics, peer->cert_topics_count) &&
        !listed(bundle, peer->cert_topics, peer->cert_topics_count))
        return "TopicDisallowed";
    return listed(bundle, w->topics, w->topics_count) ? NULL : "TopicDisallowed";
}

/* True for {"aps":{"content-available":1, ...}} with nothing that a person would see or hear. */
static bool is_content_available_only(const struct sim_request *q)
{
    if (!memmem(q->body, q->body_bytes, "content-available", 17))
        return false;
    yyjson_doc *doc = yyjson_read(q->body, q->body_bytes, 0);
    yyjson_val *aps = yyjson_obj_get(yyjson_doc_get_root(doc), "aps");
    bool only = yyjson_get_int(yyjson_obj_get(aps, "content-available")) == 1 &&
                !yyjson_obj_get(aps, "alert") && !yyjson_obj_get(aps, "badge") &&
                !yyjson_obj_get(aps, "sound");
    yyjson_doc_free(doc);
    return only;
}

static const char *check_priority(const struct sim_request *q, const struct push_type *type)
{
    uint64_t priority = 10;
    if (sim_request_has(q, SIM_F_APNS_PRIORITY) &&
        !sim_text_number(q->field[SIM_F_APNS_PRIORITY], 10, &priority))
        return "BadPriority";
    if (priority != 1 && priority != 5 && priority != 10)
        return "BadPriority";
    if (strcmp(type->name, "background") == 0 && priority != 5)
        return "BadPriority";
    if (strcmp(type->name, "pushtotalk") == 0 && priority != 10)
        return "BadPriority";
    return priority == 10 && is_content_available_only(q) ? "BadPriority" : NULL;
}

static const char *check_expiration(const struct sim_request *q, const struct push_type *type)
{
    uint64_t at = 0;
    if (sim_request_has(q, SIM_F_APNS_EXPIRATION) &&
        !sim_text_number(q->field[SIM_F_APNS_EXPIRATION], SIM_APNS_EXPIRATION_MAX, &at))
        return "BadExpirationDate";
    return strcmp(type->name, "pushtotalk") == 0 && at != 0 ? "BadExpirationDate" : NULL;
}

static const char *check_fields(const struct sim_ctx *c, const struct sim_peer *peer,
                                const struct sim_request *q, const struct push_type **ret_type)
{
    static const struct push_type untyped = {"", "", SIM_APNS_PAYLOAD_BYTES_MAX, false};
    const struct push_type *type = &untyped;
    if (q->repeated)
        return "DuplicateHeaders";
    if (sim_request_has(q, SIM_F_APNS_ID) && !sim_text_is_uuid(q->field[SIM_F_APNS_ID]))
        return "BadMessageId";
    if (q->field[SIM_F_APNS_COLLAPSE_ID].n > SIM_APNS_COLLAPSE_BYTES_MAX)
        return "BadCollapseId";
    if (sim_request_has(q, SIM_F_APNS_PUSH_TYPE))
        type = push_type_of(q->field[SIM_F_APNS_PUSH_TYPE]);
    if (!type || (type->token_only && peer->cert != SIM_CERT_NONE))
        return "InvalidPushType";
    *ret_type = type;
    const char *bad = check_expiration(q, type);
    if (!bad)
        bad = check_priority(q, type);
    return bad ? bad : check_topic(c->world, peer, q, type);
}

static const char *check_payload(const struct sim_request *q, uint32_t max)
{
    if (q->body_bytes_total == 0)
        return "PayloadEmpty";
    return q->body_bytes_total > max ? "PayloadTooLarge" : NULL;
}

/* ---- the two request kinds ---- */

static void set_id(const struct sim_ctx *c, const struct sim_request *q, enum sim_field f,
                   struct sim_answer *a)
{
    if (q->field[f].n == 36)
        sim_text_copy(a->id, sizeof(a->id), q->field[f]);
    else
        sim_text_uuid(sim_rng_next(c->rng), sim_rng_next(c->rng), a->id);
}

static void answer_device(const struct sim_ctx *c, struct sim_peer *peer,
                          const struct sim_request *q, struct sim_answer *a)
{
    const struct push_type *type = NULL;
    a->topic = q->field[SIM_F_APNS_TOPIC];
    const char *bad = a->token.n == 0 ? "MissingDeviceToken" : check_auth(c, peer, q);
    if (bad) {
        sim_apns_fail(a, 0, bad, 0);
        return;
    }
    a->authenticated = true;
    bad = check_fields(c, peer, q, &type);
    if (!bad)
        bad = check_payload(q, type->payload_max);
    if (!bad && (a->token.n < SIM_APNS_TOKEN_DIGITS_MIN || a->token.n > SIM_APNS_TOKEN_DIGITS_MAX ||
                 a->token.n % 2 != 0 || !sim_text_is_hex(a->token)))
        bad = "BadDeviceToken";
    if (bad) {
        sim_apns_fail(a, 0, bad, 0);
        return;
    }
    a->status = 200;
    if (c->world->sandbox) {
        char unique[37];
        sim_text_uuid(sim_rng_next(c->rng), sim_rng_next(c->rng), unique);
        sim_answer_add(a, "apns-unique-id", unique);
    }
}

/* The channel id of a request, checked; |ret_policy| gets its storage policy. */
static const char *check_channel(const struct sim_ctx *c, const struct sim_request *q,
                                 struct sim_slice app, int *ret_policy)
{
    uint8_t raw[64];
    struct sim_slice id = q->field[SIM_F_APNS_CHANNEL_ID];
    if (id.n == 0)
        return "MissingChannelId";
    if (sim_text_base64(id, true, raw, sizeof(raw)) < 0)
        return "BadChannelId";
    *ret_policy = sim_channels_find(c->channels, app, id);
    return *ret_policy < 0 ? "ChannelNotRegistered" : NULL;
}

static const char *check_broadcast(const struct sim_ctx *c, const struct sim_request *q,
                                   struct sim_slice app)
{
    static const struct push_type live = {"liveactivity", "", SIM_APNS_VOIP_BYTES_MAX, true};
    int policy = 0;
    if (q->repeated)
        return "DuplicateHeaders";
    if (!sim_request_has(q, SIM_F_APNS_PUSH_TYPE))
        return "MissingPushType";
    if (!sim_text_is_nocase(q->field[SIM_F_APNS_PUSH_TYPE], live.name))
        return "InvalidPushType";
    const char *bad = check_channel(c, q, app, &policy);
    if (!bad && !sim_request_has(q, SIM_F_APNS_EXPIRATION))
        bad = "BadExpirationDate";
    if (!bad)
        bad = check_expiration(q, &live);
    if (!bad && policy == 0 && !sim_slice_is(q->field[SIM_F_APNS_EXPIRATION], "0"))
        bad = "BadExpirationDate"; /* a channel that stores nothing takes 0 only */
    if (!bad)
        bad = check_priority(q, &live);
    return bad ? bad : check_payload(q, live.payload_max);
}

static void answer_broadcast(const struct sim_ctx *c, struct sim_peer *peer,
                             const struct sim_request *q, struct sim_slice app,
                             struct sim_answer *a)
{
    a->topic = app;
    a->token = q->field[SIM_F_APNS_CHANNEL_ID];
    const char *bad = check_auth(c, peer, q);
    a->authenticated = !bad;
    if (!bad && !listed(app, c->world->topics, c->world->topics_count))
        bad = "TopicDisallowed";
    if (!bad)
        bad = check_broadcast(c, q, app);
    if (bad)
        sim_apns_fail(a, 0, bad, 0);
    else
        a->status = 200;
}

static void create_channel(const struct sim_ctx *c, const struct sim_request *q,
                           struct sim_slice app, struct sim_answer *a)
{
    yyjson_doc *doc = yyjson_read(q->body, q->body_bytes, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    yyjson_val *policy = yyjson_obj_get(root, "message-storage-policy");
    const char *type = yyjson_get_str(yyjson_obj_get(root, "push-type"));
    const char *bad = !type ? "MissingPushType" : NULL;
    if (!bad &&
        !sim_text_is_nocase((struct sim_slice){type, (uint32_t)strlen(type)}, "LiveActivity"))
        bad = "InvalidPushType";
    char id[SIM_CHANNEL_ID_BYTES + 1];
    uint64_t raw[2] = {sim_rng_next(c->rng), sim_rng_next(c->rng)};
    if (!bad &&
        !sim_channels_add(c->channels, app, yyjson_get_int(policy) == 1, (uint8_t *)raw, id))
        bad = "CannotCreateChannelConfig";
    yyjson_doc_free(doc);
    if (bad) {
        sim_apns_fail(a, 0, bad, 0);
        return;
    }
    a->status = 201;
    sim_answer_add(a, "apns-channel-id", id);
}

static void list_channels(const struct sim_ctx *c, const struct sim_request *q,
                          struct sim_slice app, struct sim_answer *a)
{
    char list[SIM_ANSWER_BODY_BYTES_MAX - 64];
    if (!sim_slice_is(q->field[SIM_F_METHOD], "GET")) {
        sim_apns_fail(a, 0, "MethodNotAllowed", 0);
        return;
    }
    sim_channels_list(c->channels, app, list, sizeof(list));
    a->status = 200;
    sim_answer_body(a, "application/json", "{\"channels\":[%s]}", list);
}

static void manage_channel(const struct sim_ctx *c, const struct sim_request *q,
                           struct sim_slice app, struct sim_answer *a)
{
    struct sim_slice method = q->field[SIM_F_METHOD];
    int policy = 0;
    if (sim_slice_is(method, "POST")) {
        create_channel(c, q, app, a);
        return;
    }
    bool get = sim_slice_is(method, "GET");
    const char *bad = get || sim_slice_is(method, "DELETE") ? NULL : "MethodNotAllowed";
    if (!bad)
        bad = check_channel(c, q, app, &policy);
    if (bad) {
        sim_apns_fail(a, 0, bad, 0);
    } else if (get) {
        a->status = 200;
        sim_answer_body(a, "application/json",
                        "{\"message-storage-policy\":%d,\"push-type\":\"LiveActivity\"}", policy);
    } else {
        sim_channels_remove(c->channels, app, q->field[SIM_F_APNS_CHANNEL_ID]);
        a->status = 204;
    }
}

/* /1/apps/{app}/channels and /1/apps/{app}/all-channels */
static void answer_management(const struct sim_ctx *c, struct sim_peer *peer,
                              const struct sim_request *q, struct sim_slice rest,
                              struct sim_answer *a)
{
    const char *slash = memchr(rest.p, '/', rest.n);
    struct sim_slice app = {rest.p, slash ? (uint32_t)(slash - rest.p) : rest.n};
    struct sim_slice what = {rest.p + app.n, rest.n - app.n};
    bool all = sim_slice_is(what, "/all-channels");
    a->topic = app;
    a->token = q->field[SIM_F_APNS_CHANNEL_ID];
    if (!topic_form_ok(app) || (!all && !sim_slice_is(what, "/channels"))) {
        sim_apns_fail(a, 0, "BadPath", 0);
        return;
    }
    const char *bad = check_auth(c, peer, q);
    if (bad) {
        sim_apns_fail(a, 0, bad, 0);
        return;
    }
    a->authenticated = true;
    if (all)
        list_channels(c, q, app, a);
    else
        manage_channel(c, q, app, a);
}

static struct sim_slice past_prefix(struct sim_slice path, const char *prefix)
{
    uint32_t n = (uint32_t)strlen(prefix);
    return (struct sim_slice){path.p + n, path.n - n};
}

void sim_apns_answer(const struct sim_ctx *c, struct sim_peer *peer, const struct sim_request *q,
                     struct sim_answer *a)
{
    static const char device[] = "/3/device/", broadcast[] = "/4/broadcasts/apps/",
                      management[] = "/1/apps/";
    struct sim_slice path = q->field[SIM_F_PATH];
    bool is_device = sim_slice_begins(path, device);
    bool is_channel = sim_slice_begins(path, broadcast) || sim_slice_begins(path, management);
    sim_answer_init(a);
    set_id(c, q, is_channel ? SIM_F_APNS_REQUEST_ID : SIM_F_APNS_ID, a);
    sim_answer_add(a, is_channel ? "apns-request-id" : "apns-id", a->id);
    if (sim_slice_begins(path, management)) {
        answer_management(c, peer, q, past_prefix(path, management), a);
        return;
    }
    if (!is_device && !sim_slice_begins(path, broadcast) && !sim_slice_is(path, "/3/device"))
        sim_apns_fail(a, 0, "BadPath", 0);
    else if (!sim_slice_is(q->field[SIM_F_METHOD], "POST"))
        sim_apns_fail(a, 0, "MethodNotAllowed", 0);
    else if (is_device) {
        a->token = past_prefix(path, device);
        answer_device(c, peer, q, a);
    } else if (sim_slice_begins(path, broadcast))
        answer_broadcast(c, peer, q, past_prefix(path, broadcast), a);
    else
        sim_apns_fail(a, 0, "MissingDeviceToken", 0);
}
