/* Web Push answers: see sim_webpush.h. */
#include "sim_webpush.h"

#include <stdio.h>

#include "sim_answer.h"
#include "sim_text.h"

#define RESOURCE "/push/"

void sim_webpush_fail(struct sim_answer *a, uint16_t status, const char *reason)
{
    a->status = status;
    a->reason = reason;
    sim_answer_body(a, "application/json", "{\"code\":%u,\"message\":\"%s\"}", status, reason);
}

/* NULL when the sender may push, else the reason; a missing token is 401, a wrong one 403 (RFC
 * 8292 4.2). */
static const char *check_vapid(const struct sim_ctx *c, const struct sim_request *q,
                               uint16_t *ret_status)
{
    const struct sim_claims *cl = q->claims;
    int64_t now_s = c->now_ms / 1000;
    struct sim_slice host = q->field[SIM_F_AUTHORITY];
    struct sim_slice origin = {cl->aud, (uint32_t)strlen(cl->aud)};
    *ret_status = cl->kind == SIM_AUTH_NONE ? 401 : 403;
    if (cl->kind == SIM_AUTH_NONE)
        return "MissingVapid";
    if (cl->kind == SIM_AUTH_MALFORMED)
        return "MalformedVapid";
    if (cl->kind == SIM_AUTH_BAD)
        return "VapidSignature";
    if (cl->exp <= now_s || cl->exp > now_s + SIM_WEBPUSH_VAPID_S_MAX)
        return "VapidExpiry";
    if (!sim_slice_begins(origin, "https://") || origin.n - 8 != host.n ||
        memcmp(origin.p + 8, host.p, host.n) != 0)
        return "VapidAudience";
    if (cl->sub[0] && strncmp(cl->sub, "mailto:", 7) != 0 && strncmp(cl->sub, "https:", 6) != 0)
        return "VapidSubject";
    return NULL;
}

static bool urgency_ok(struct sim_slice u)
{
    return sim_slice_is(u, "very-low") || sim_slice_is(u, "low") || sim_slice_is(u, "normal") ||
           sim_slice_is(u, "high");
}

static const char *check_fields(const struct sim_request *q, uint64_t *ret_ttl)
{
    struct sim_slice topic = q->field[SIM_F_TOPIC];
    if (!sim_request_has(q, SIM_F_TTL))
        return "MissingTTL";
    if (!sim_text_number(q->field[SIM_F_TTL], UINT32_MAX, ret_ttl))
        return "BadTTL";
    if (sim_request_has(q, SIM_F_URGENCY) && !urgency_ok(q->field[SIM_F_URGENCY]))
        return "BadUrgency"; /* a list is refused too: one value only */
    if (sim_request_has(q, SIM_F_TOPIC) &&
        (topic.n > SIM_WEBPUSH_TOPIC_CHARS_MAX || !sim_text_is_base64url(topic)))
        return "BadTopic";
    if (q->repeated & (1u << SIM_F_TTL | 1u << SIM_F_URGENCY | 1u << SIM_F_TOPIC))
        return "DuplicateHeaders";
    return NULL;
}

/* The aes128gcm header: salt, record size, key id length 65, an uncompressed P-256 point. */
static const char *check_body(const struct sim_request *q)
{
    const uint8_t *b = (const uint8_t *)q->body;
    if (q->body_bytes_total == 0)
        return NULL; /* a push without data needs no encryption */
    if (!sim_slice_is(q->field[SIM_F_CONTENT_ENCODING], "aes128gcm"))
        return "BadContentEncoding";
    if (q->body_bytes < SIM_WEBPUSH_BODY_BYTES_MIN || b[20] != 65 || b[21] != 4)
        return "BadEncryption";
    uint32_t rs = (uint32_t)b[16] << 24 | (uint32_t)b[17] << 16 | (uint32_t)b[18] << 8 | b[19];
    return rs < 18 ? "BadEncryption" : NULL;
}

static void accept_push(const struct sim_ctx *c, const struct sim_request *q, uint64_t ttl,
                        struct sim_answer *a)
{
    char text[SIM_ID_BYTES_MAX];
    struct sim_slice host = q->field[SIM_F_AUTHORITY];
    bool receipt = sim_text_has_word(q->field[SIM_F_PREFER], "respond-async");
    uint32_t kept = ttl > c->world->webpush_ttl_max_s ? c->world->webpush_ttl_max_s : (uint32_t)ttl;
    sim_text_uuid(sim_rng_next(c->rng), sim_rng_next(c->rng), a->id);
    int host_chars = host.n > 100 ? 100 : (int)host.n;
    snprintf(text, sizeof(text), "https://%.*s/m/%.36s", host_chars, host.p, a->id);
    sim_answer_add(a, "location", text);
    snprintf(text, sizeof(text), "%u", kept);
    sim_answer_add(a, "ttl", text);
    if (receipt) {
        snprintf(text, sizeof(text), "<https://%.*s/r/%.36s>; rel=\"urn:ietf:params:push:receipt\"",
                 host_chars, host.p, a->id);
        sim_answer_add(a, "link", text);
    }
    a->status = receipt ? 202 : 201;
}

void sim_webpush_answer(const struct sim_ctx *c, const struct sim_request *q, struct sim_answer *a)
{
    uint64_t ttl = 0;
    uint16_t status = 400;
    struct sim_slice path = q->field[SIM_F_PATH];
    sim_answer_init(a);
    if (!sim_slice_begins(path, RESOURCE) || path.n == sizeof(RESOURCE) - 1) {
        sim_webpush_fail(a, 404, "NotFound");
        return;
    }
    a->token =
        (struct sim_slice){path.p + sizeof(RESOURCE) - 1, path.n - (uint32_t)sizeof(RESOURCE) + 1};
    a->topic = q->field[SIM_F_TOPIC];
    if (!sim_slice_is(q->field[SIM_F_METHOD], "POST")) {
        sim_webpush_fail(a, 405, "MethodNotAllowed");
        return;
    }
    const char *bad = check_vapid(c, q, &status);
    a->authenticated = !bad;
    if (!bad) {
        status = 400;
        bad = check_fields(q, &ttl);
    }
    if (!bad && q->body_bytes_total > SIM_WEBPUSH_BODY_BYTES_MAX) {
        status = 413;
        bad = "PayloadTooLarge";
    }
    if (!bad)
        bad = check_body(q);
    if (bad)
        sim_webpush_fail(a, status, bad);
    else
        accept_push(c, q, ttl, a);
}
