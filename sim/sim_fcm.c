/* FCM HTTP v1 answers: see sim_fcm.h. */
#include "sim_fcm.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <yyjson.h>

#include "sim_answer.h"
#include "sim_text.h"

#define JSON_TYPE "application/json; charset=UTF-8"

static const struct {
    const char *code, *rpc, *text;
    uint16_t status;
} errors[] = {
    {"INVALID_ARGUMENT", "INVALID_ARGUMENT",
     "The registration token is not a valid FCM registration token", 400},
    {"THIRD_PARTY_AUTH_ERROR", "UNAUTHENTICATED", "Auth error from APNS or Web Push Service", 401},
    {"APNS_AUTH_ERROR", "UNAUTHENTICATED", "Auth error from APNS", 401}, /* older name of it */
    {"SENDER_ID_MISMATCH", "PERMISSION_DENIED", "SenderId mismatch", 403},
    {"UNREGISTERED", "NOT_FOUND", "Requested entity was not found.", 404},
    {"QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED",
     "Quota exceeded for quota metric 'Send requests' and limit 'Send requests per minute'", 429},
    {"INTERNAL", "INTERNAL", "Internal error encountered.", 500},
    {"UNAVAILABLE", "UNAVAILABLE", "The service is currently unavailable.", 503},
    {"UNSPECIFIED_ERROR", "UNKNOWN", "Unspecified error.", 500},
};

static size_t row_of(const char *code)
{
    size_t i = 0, last = sizeof(errors) / sizeof(errors[0]) - 1;
    while (i < last && strcmp(errors[i].code, code) != 0)
        i++;
    return i;
}

uint16_t sim_fcm_status_of(const char *code)
{
    size_t i = row_of(code);
    return strcmp(errors[i].code, code) == 0 ? errors[i].status : 0;
}

/* A failure that FCM itself names. */
static void fail_fcm(struct sim_answer *a, uint16_t status, size_t row, const char *text)
{
    a->status = status ? status : errors[row].status;
    a->reason = errors[row].code;
    sim_answer_body(
        a, JSON_TYPE,
        "{\"error\":{\"code\":%u,\"message\":\"%s\",\"status\":\"%s\",\"details\":[{\"@type\":"
        "\"type.googleapis.com/google.firebase.fcm.v1.FcmError\",\"errorCode\":\"%s\"}]}}",
        a->status, text, errors[row].rpc, errors[row].code);
}

/* A failure of Google's front end or of credentials: no FcmError. */
static void fail_rpc(struct sim_answer *a, uint16_t status, const char *rpc, const char *text)
{
    a->status = status;
    a->reason = rpc;
    sim_answer_body(a, JSON_TYPE, "{\"error\":{\"code\":%u,\"message\":\"%s\",\"status\":\"%s\"}}",
                    status, text, rpc);
}

void sim_fcm_fail(struct sim_answer *a, uint16_t status, const char *code)
{
    size_t row = row_of(code);
    if (strcmp(code, "UNAUTHENTICATED") == 0) { /* the front end's: it knows no FcmError */
        fail_rpc(a, 401, "UNAUTHENTICATED", "Request had invalid authentication credentials.");
        return;
    }
    fail_fcm(a, status, row, errors[row].text);
}

/* A malformed field: our sender's bug, told by google.rpc.BadRequest. */
static void fail_field(struct sim_answer *a, const char *field, const char *text)
{
    a->status = 400;
    a->reason = "BAD_REQUEST";
    sim_answer_body(
        a, JSON_TYPE,
        "{\"error\":{\"code\":400,\"message\":\"Invalid value at '%s': %s\",\"status\":"
        "\"INVALID_ARGUMENT\",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.BadRequest"
        "\",\"fieldViolations\":[{\"field\":\"%s\",\"description\":\"%s\"}]}]}}",
        field, text, field, text);
}

/* ---- the message ---- */

/* Texts of the notification and of data, as the payload limit counts them. */
static size_t text_bytes(yyjson_val *object)
{
    size_t bytes = 0, i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach (object, i, n, key, value) {
        bytes += yyjson_get_len(key);
        bytes += yyjson_is_str(value) ? yyjson_get_len(value) : 0;
    }
    return bytes;
}

static bool data_ok(yyjson_val *data, const char *field, struct sim_answer *a)
{
    size_t i, n;
    yyjson_val *key, *value;
    if (data && !yyjson_is_obj(data)) {
        fail_field(a, field, "a map of strings is wanted");
        return false;
    }
    yyjson_obj_foreach (data, i, n, key, value) {
        const char *k = yyjson_get_str(key);
        if (!yyjson_is_str(value)) {
            fail_field(a, field, "values are strings");
            return false;
        }
        if (strcmp(k, "from") == 0 || strncmp(k, "gcm", 3) == 0 || strncmp(k, "google", 6) == 0) {
            fail_fcm(a, 400, 0, "Invalid data payload key");
            return false;
        }
    }
    return true;
}

/* "3.5s": seconds with at most nine decimals. */
static bool ttl_ok(yyjson_val *ttl)
{
    const char *s = yyjson_get_str(ttl);
    if (!ttl)
        return true;
    if (!s || strspn(s, "0123456789.") != strlen(s) - 1 || s[strlen(s) - 1] != 's')
        return false;
    char *end = NULL;
    double seconds = strtod(s, &end);
    return end != s && *end == 's' && seconds >= 0 && seconds <= SIM_FCM_TTL_S_MAX;
}

static bool android_ok(yyjson_val *android, struct sim_answer *a)
{
    const char *priority = yyjson_get_str(yyjson_obj_get(android, "priority"));
    if (priority && strcasecmp(priority, "normal") != 0 && strcasecmp(priority, "high") != 0) {
        fail_field(a, "message.android.priority", "normal or high");
        return false;
    }
    if (!ttl_ok(yyjson_obj_get(android, "ttl"))) {
        fail_field(a, "message.android.ttl", "Illegal duration format; 0s to 2419200s");
        return false;
    }
    return data_ok(yyjson_obj_get(android, "data"), "message.android.data", a);
}

/* Exactly one target. Copies it to |target| and tells whether it is a registration token. */
static bool target_of(yyjson_val *message, struct sim_answer *a, char target[SIM_TOKEN_BYTES_MAX],
                      bool *ret_is_token)
{
    static const char *const names[] = {"token", "topic", "condition"};
    yyjson_val *found = NULL;
    unsigned count = 0;
    for (unsigned i = 0; i < 3; i++) {
        yyjson_val *value = yyjson_obj_get(message, names[i]);
        if (value) {
            found = value;
            *ret_is_token = i == 0;
            count++;
        }
    }
    if (count != 1 || !yyjson_is_str(found)) {
        fail_field(a, "message", "exactly one of token, topic or condition is required");
        return false;
    }
    struct sim_slice s = {yyjson_get_str(found), (uint32_t)yyjson_get_len(found)};
    sim_text_copy(target, SIM_TOKEN_BYTES_MAX, s);
    a->token = (struct sim_slice){target, (uint32_t)strlen(target)};
    return true;
}

static bool token_form_ok(struct sim_slice t)
{
    for (uint32_t i = 0; i < t.n; i++) {
        char ch = t.p[i];
        if (ch != ':' && !sim_text_is_base64url((struct sim_slice){&ch, 1}))
            return false;
    }
    return t.n >= SIM_FCM_TOKEN_CHARS_MIN;
}

static bool message_ok(yyjson_val *message, struct sim_answer *a, char target[SIM_TOKEN_BYTES_MAX])
{
    bool is_token = false;
    yyjson_val *data = yyjson_obj_get(message, "data");
    if (!target_of(message, a, target, &is_token) || !data_ok(data, "message.data", a) ||
        !android_ok(yyjson_obj_get(message, "android"), a))
        return false;
    size_t bytes = text_bytes(data) + text_bytes(yyjson_obj_get(message, "notification"));
    if (bytes > (is_token ? SIM_FCM_PAYLOAD_BYTES_MAX : SIM_FCM_TOPIC_BYTES_MAX)) {
        fail_fcm(a, 400, 0, "Message is too big");
        return false;
    }
    if (is_token && !token_form_ok(a->token)) {
        sim_fcm_fail(a, 0, "INVALID_ARGUMENT");
        return false;
    }
    return true;
}

/* ---- the request ---- */

static bool credentials_ok(const struct sim_ctx *c, const struct sim_request *q,
                           struct sim_answer *a)
{
    if (q->claims->kind == SIM_AUTH_GOOD && q->claims->exp > c->now_ms / 1000)
        return true;
    fail_rpc(
        a, 401, "UNAUTHENTICATED",
        q->claims->kind == SIM_AUTH_NONE
            ? "Request is missing required authentication credential."
            : "Request had invalid authentication credentials. Expected OAuth 2 access token.");
    return false;
}

/* /v1/projects/{project}/messages:send; the project must be the account's own. */
static bool path_ok(const struct sim_ctx *c, const struct sim_request *q, struct sim_answer *a)
{
    static const char before[] = "/v1/projects/", after[] = "/messages:send";
    struct sim_slice path = q->field[SIM_F_PATH];
    uint32_t b = sizeof(before) - 1, e = sizeof(after) - 1;
    if (!sim_slice_begins(path, before) || path.n <= b + e ||
        memcmp(path.p + path.n - e, after, e) != 0) {
        fail_rpc(a, 404, "NOT_FOUND", "Method not found.");
        return false;
    }
    if (!sim_slice_is(q->field[SIM_F_METHOD], "POST")) {
        fail_rpc(a, 405, "UNIMPLEMENTED", "The HTTP method is not supported.");
        return false;
    }
    if (!credentials_ok(c, q, a))
        return false;
    a->topic = (struct sim_slice){path.p + b, path.n - b - e};
    if (!sim_slice_is(a->topic, c->world->fcm_project)) {
        fail_rpc(a, 403, "PERMISSION_DENIED", "Permission denied on resource project.");
        return false;
    }
    return true;
}

static void accept_message(const struct sim_ctx *c, bool validate_only, struct sim_answer *a)
{
    char *at = a->id;
    int n = snprintf(at, sizeof(a->id), "projects/%s/messages/", c->world->fcm_project);
    if (validate_only)
        snprintf(at + n, sizeof(a->id) - (size_t)n, "fake_message_id");
    else
        snprintf(at + n, sizeof(a->id) - (size_t)n, "0:%" PRIu64 "%%%016" PRIx64,
                 (uint64_t)c->now_ms * 1000, sim_rng_next(c->rng));
    a->status = 200;
    sim_answer_body(a, JSON_TYPE, "{\"name\":\"%s\"}", a->id);
}

void sim_fcm_answer(const struct sim_ctx *c, const struct sim_request *q, struct sim_answer *a,
                    char target[SIM_TOKEN_BYTES_MAX])
{
    /* values of one message: a pool on the stack instead of malloc for each request */
    char pool[65536];
    yyjson_alc alc;
    sim_answer_init(a);
    if (!path_ok(c, q, a))
        return;
    a->authenticated = true;
    if (!sim_slice_begins(q->field[SIM_F_CONTENT_TYPE], "application/json")) {
        fail_field(a, "body", "Content-Type is application/json");
        return;
    }
    if (q->body_bytes_total > q->body_bytes) {
        fail_rpc(a, 400, "INVALID_ARGUMENT", "Request payload size exceeds the limit.");
        return;
    }
    yyjson_alc_pool_init(&alc, pool, sizeof(pool));
    yyjson_doc *doc =
        yyjson_read_opts((char *)(uintptr_t)q->body, q->body_bytes, YYJSON_READ_NOFLAG, &alc, NULL);
    if (!doc) /* not JSON, or more values than the pool holds: the heap decides */
        doc = yyjson_read(q->body, q->body_bytes, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    yyjson_val *message = yyjson_obj_get(root, "message");
    if (!yyjson_is_obj(message))
        fail_field(a, "message", "Invalid JSON payload received.");
    else if (message_ok(message, a, target))
        accept_message(c, yyjson_get_bool(yyjson_obj_get(root, "validate_only")), a);
    yyjson_doc_free(doc);
}
