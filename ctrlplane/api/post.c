/*
 * POST /v1/notifications and /v1/events: how events come in (ING-1, ING-3, ING-5). One parse, no
 * lock over I/O:
 *
 *   parse -> idempotency (running set, then the log's row) -> users known -> append, suspended
 *   ... the log says durable (its thread) -> resumed on the server thread -> 202
 *
 * The parsed event is freed: the pipeline reads it from the log like any other.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "api/calls.h"
#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "channels/push/push_check.h"
#include "ingest/cloudevents.h"
#include "ingest/identity.h"
#include "log/log.h"
#include "stats/metrics.h"

/* As events' idempotency_key. */
#define IDEM_KEY_BYTES_MAX 255u
/* Tenant, API key id and key, joined by zeros. */
#define IDEM_JOINED_BYTES_MAX (BF_TENANT_BYTES_MAX + 33u + IDEM_KEY_BYTES_MAX + 2u)
/* CloudEvents headers of one request, decoded. */
#define CE_HEADERS_BYTES_MAX 8192u
#define UNAVAILABLE_RETRY_S  2u
#define DISK_FULL_RETRY_S    30u

/* One post while it is looked at; what outlives the append is in bf_post. */
struct incoming {
    struct bf_request *r;
    struct bf_post *post;
    bool is_notification; /* else an event for a topic */
    struct bf_bytes json; /* the body, or what a CloudEvent became */
    char *converted;
    struct bf_event *event;
    struct bf_problem problem;
    uint8_t body_hash[16];
    char idem_key[IDEM_KEY_BYTES_MAX + 1];
    size_t idem_key_len; /* 0: none */
    char joined[IDEM_JOINED_BYTES_MAX];
    size_t joined_len;
};

/* ---- headers ---- */

/* The header's key: an RFC 8941 string in quotes, or bare. */
static bool take_header_key(struct incoming *in)
{
    struct bf_bytes raw = bf_request_header(in->r, "Idempotency-Key");
    if (!raw.at)
        return true;
    bool is_quoted = raw.len >= 2 && raw.at[0] == '"' && raw.at[raw.len - 1] == '"';
    size_t end = is_quoted ? raw.len - 1 : raw.len;
    for (size_t i = is_quoted; i < end; i++) {
        if (is_quoted && raw.at[i] == '\\' && i + 1 < end)
            i++;
        bool is_visible = raw.at[i] >= 0x20 && raw.at[i] < 0x7f;
        if (!is_visible || in->idem_key_len == IDEM_KEY_BYTES_MAX)
            break;
        in->idem_key[in->idem_key_len++] = raw.at[i];
        if (i + 1 == end)
            return true;
    }
    bf_answer_fail(in->r, 400, "bad-header", "Idempotency-Key",
                   "Idempotency-Key has 1..255 visible characters, in quotes or not");
    return false;
}

/* "00-<32 hex>-<16 hex>-<2 hex>", lower case, ids not zero (PROVIDERS 8). */
static bool is_traceparent(struct bf_bytes text)
{
    const size_t bytes = 55;
    bool has_trace = false;
    bool has_parent = false;
    if (text.len != bytes || memcmp(text.at, "00-", 3) != 0)
        return false;
    for (size_t i = 3; i < bytes; i++) {
        char c = text.at[i];
        if (i == 35 || i == 52) {
            if (c != '-')
                return false;
            continue;
        }
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        has_trace |= i < 35 && c != '0';
        has_parent |= i > 35 && i < 52 && c != '0';
    }
    return has_trace && has_parent;
}

/* traceparent; without one, an X-Request-Id that is a UUID becomes the trace id. */
static void take_trace(struct bf_request *r, struct bf_event_meta *meta)
{
    struct bf_bytes trace = bf_request_header(r, "traceparent");
    struct bf_bytes request = bf_request_header(r, "X-Request-Id");
    struct bf_id id;
    if (trace.at && is_traceparent(trace)) {
        memcpy(meta->traceparent, trace.at, trace.len);
    } else if (request.at && bf_id_parse(request.at, request.len, &id)) {
        char *at = meta->traceparent;
        at += snprintf(at, 4, "00-");
        for (unsigned i = 0; i < sizeof(id.bytes); i++)
            at += snprintf(at, 3, "%02x", id.bytes[i]);
        *at++ = '-';
        for (unsigned i = 0; i < 8; i++)
            at += snprintf(at, 3, "%02x", id.bytes[i + 8]);
        snprintf(at, 4, "-01");
    }
}

struct ce_headers {
    char text[CE_HEADERS_BYTES_MAX];
    size_t len;
    bool failed;
};

static void add_ce(struct ce_headers *ce, const char *name, const char *value)
{
    size_t name_len = strlen(name) + 1;
    if (ce->len + name_len >= sizeof(ce->text)) {
        ce->failed = true;
        return;
    }
    for (size_t i = 0; i < name_len; i++)
        ce->text[ce->len + i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    ce->len += name_len;
    size_t room = sizeof(ce->text) - ce->len - 1;
    long n = bf_percent_decode(value, strlen(value), ce->text + ce->len, room);
    if (n < 0 || memchr(ce->text + ce->len, 0, (size_t)n)) {
        ce->failed = true;
        return;
    }
    ce->len += (size_t)n;
    ce->text[ce->len++] = '\0';
}

static void visit_ce(void *arg, const char *name, const char *value)
{
    add_ce(arg, name, value);
}

static bool is_plain_json(struct bf_bytes content_type)
{
    return !content_type.at ||
           (content_type.len >= 16 && strncasecmp(content_type.at, "application/json", 16) == 0);
}

static bool convert_cloudevent(struct incoming *in, struct bf_bytes content_type)
{
    struct ce_headers ce; /* 8 KB: only what is used of it is written */
    size_t len;
    ce.len = 0;
    ce.failed = false;
    add_ce(&ce, "content-type", content_type.at ? content_type.at : "application/json");
    bf_request_headers(in->r, "ce-", visit_ce, &ce);
    struct bf_bytes headers = {ce.text, ce.len};
    if (ce.failed) {
        bf_answer_fail(in->r, 400, "cloudevent", "",
                       "CloudEvents headers are too long or malformed");
        return false;
    }
    if (!bf_cloudevent_is(headers))
        return true; /* read as JSON whatever its content type says, and refused if it is not */
    if (bf_cloudevent_convert(headers, in->json, &in->converted, &len, &in->problem) != 0) {
        bf_answer_problem(in->r, &in->problem);
        return false;
    }
    in->json = (struct bf_bytes){in->converted, len};
    return true;
}

/* Sets in->json: the body, or the plain event that a CloudEvent in either mode becomes. */
static bool take_body(struct incoming *in)
{
    struct bf_bytes content_type = bf_request_header(in->r, "Content-Type");
    in->json = (struct bf_bytes){in->r->body, in->r->body_len};
    if (is_plain_json(content_type) && !bf_request_header(in->r, "ce-specversion").at)
        return true;
    return convert_cloudevent(in, content_type);
}

/* ---- the event ---- */

static bool parse(struct incoming *in)
{
    struct bf_request *r = in->r;
    const struct bf_principal *who = &bf_state_of(r)->who;
    struct bf_event_meta *meta = &in->post->meta;
    *meta = (struct bf_event_meta){
        .source = BF_SOURCE_HTTP,
        .topic_lane = BF_LANE_CRITICAL,
        .critical_allowed = bf_auth_has_scope(who, BF_SCOPE_CRITICAL),
        .accepted_ms = bf_wall_ms(),
    };
    memcpy(meta->tenant, who->key->row.tenant, sizeof(meta->tenant));
    snprintf(meta->producer, sizeof(meta->producer), "%s", who->key->row.id);
    take_trace(r, meta);
    if (bf_event_parse(in->json, meta, &in->event, &in->problem) != 0) {
        bf_answer_problem(r, &in->problem);
        return false;
    }
    if (bf_push_check_event(bf_conf_of(r), bf_services_of(r)->store, in->event, &in->problem) !=
        0) {
        bf_answer_problem(r, &in->problem);
        return false;
    }
    in->post->lane = in->event->lane;
    if (in->event->target == BF_TARGET_BROADCAST && !bf_auth_has_scope(who, BF_SCOPE_BROADCAST)) {
        bf_answer_fail(r, 403, "scope", "broadcast",
                       "this API key lacks the scope '%s', which a notification to everyone needs",
                       bf_scope_name(BF_SCOPE_BROADCAST));
        return false;
    }
    if (!in->is_notification && in->event->target != BF_TARGET_TOPIC) {
        bf_answer_fail(r, 400, "target", "topic",
                       "an event is published to a topic; for users or everyone, POST "
                       "/v1/notifications");
        return false;
    }
    return true;
}

/* The key of header and body, which agree if both are there. */
static bool join_key(struct incoming *in)
{
    const struct bf_event *e = in->event;
    if (e->idempotency_key.len > 0) {
        struct bf_bytes header = {in->idem_key, in->idem_key_len};
        if (in->idem_key_len > 0 && !bf_bytes_is_equal(header, e->idempotency_key)) {
            bf_answer_fail(in->r, 400, "conflicting-fields", "idempotency_key",
                           "the header Idempotency-Key and idempotency_key differ");
            return false;
        }
        memcpy(in->idem_key, e->idempotency_key.at, e->idempotency_key.len);
        in->idem_key_len = e->idempotency_key.len;
    }
    struct bf_writer w = {.buf = (uint8_t *)in->joined, .cap = sizeof(in->joined)};
    bf_put_raw(&w, e->meta.tenant, strlen(e->meta.tenant) + 1);
    bf_put_raw(&w, e->meta.producer, strlen(e->meta.producer) + 1);
    bf_put_raw(&w, in->idem_key, in->idem_key_len);
    in->joined_len = w.len;
    return true;
}

static void hash_body(struct incoming *in)
{
    XXH128_canonical_t hash;
    XXH128_canonicalFromHash(
        &hash, XXH3_128bits_withSeed(in->json.at, in->json.len, in->is_notification ? 1 : 2));
    memcpy(in->body_hash, hash.digest, sizeof(in->body_hash));
}

/* A finished request had this key: its answer again, or 422 for another body. */
static int use_stored(void *arg, const struct bf_idem_row *row)
{
    struct incoming *in = arg;
    struct bf_out o = {0};
    if (memcmp(row->body_hash, in->body_hash, sizeof(in->body_hash)) != 0) {
        bf_answer_fail(in->r, 422, "idempotency-key-reused", "Idempotency-Key",
                       "this key was used with another body; a new request needs a new key");
        return 0;
    }
    bf_count(BF_CM_M_idempotency_replays, 1);
    bf_answer_header(in->r, "Idempotency-Replay", "true");
    bf_out_bytes(&o, row->answer);
    bf_answer_json(in->r, row->status, &o);
    return 0;
}

/* False: the answer is set. Order matters: marked as running first, so that a request that ends in
 * between is found in one of the two places. */
static bool begin_idempotent(struct incoming *in)
{
    struct bf_request *r = in->r;
    struct bf_bytes key = {in->joined, in->joined_len};
    hash_body(in);
    if (!bf_idem_begin(bf_api_of(r)->idem, &in->post->mark, key)) {
        bf_answer_fail(r, 409, "still-running", "Idempotency-Key",
                       "a request with this key is still running; try again in a moment");
        return false;
    }
    in->post->is_marked = true;
    int rc = bf_log_get_idem(bf_services_of(r)->log, key, bf_wall_ms(), use_stored, in);
    if (rc != 0 && rc != BF_ERR_NOT_FOUND)
        bf_answer_error(r, rc);
    return r->answer.status == 0;
}

/* Refuses unknown users by name, as many as fit the message. */
static bool check_users(struct incoming *in)
{
    struct bf_services *services = bf_services_of(in->r);
    const struct bf_event *e = in->event;
    struct bf_bytes tenant = {e->meta.tenant, strlen(e->meta.tenant)};
    char names[200] = "";
    size_t used = 0;
    uint32_t unknown = 0;
    bool have[BF_RECIPIENTS_MAX];
    if (atomic_load(&services->conf)->users_auto_create)
        return true;
    bf_store_have_users(services->store, tenant, e->recipients, e->recipient_count, have);
    for (uint32_t i = 0; i < e->recipient_count; i++) {
        struct bf_bytes user = e->recipients[i];
        if (have[i])
            continue;
        if (used + user.len + 3 < sizeof(names))
            used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%.*s", used ? ", " : "",
                                     (int)user.len, user.at);
        unknown++;
    }
    if (unknown == 0)
        return true;
    bf_answer_fail(in->r, 400, "unknown-user",
                   in->event->recipient_count > 1 ? "recipients" : "user_id", "%u unknown: %s",
                   unknown, names);
    return false;
}

/* H(tenant, API key, key); else the producer's own id; else a fresh one (DESIGN 4.4). */
static void give_id(struct incoming *in)
{
    struct bf_event_meta *meta = &in->post->meta;
    const struct bf_event *e = in->event;
    if (in->idem_key_len > 0) {
        bf_identity_of_key((struct bf_bytes){meta->tenant, strlen(meta->tenant)},
                           (struct bf_bytes){meta->producer, strlen(meta->producer)},
                           (struct bf_bytes){in->idem_key, in->idem_key_len}, &meta->event_id);
    } else if (e->ext_id.len > 0) {
        meta->event_id = e->id;
    } else {
        bf_fresh_id(bf_api_of(in->r), &meta->event_id);
    }
    meta->has_event_id = true;
}

/* ---- append ---- */

/* On a thread of the log. */
static void on_durable(void *arg, int rc)
{
    struct bf_request *r = arg;
    bf_state_of(r)->post.rc = rc;
    bf_request_resume(r);
}

static int append(struct incoming *in)
{
    struct bf_post *post = in->post;
    const struct bf_conf *conf = bf_conf_of(in->r);
    uint8_t meta[BF_EVENT_META_BYTES_MAX];
    size_t meta_len = bf_event_meta_encode(&post->meta, meta);
    bool is_single = in->event->recipient_count == 1;
    struct bf_idem_row idem = {
        .key = {in->joined, in->joined_len},
        .expires_ms = post->meta.accepted_ms + (uint64_t)conf->idempotency_ttl_s * 1000,
        .status = 202,
        .answer = {post->answer, strlen(post->answer)},
    };
    memcpy(idem.body_hash, in->body_hash, sizeof(idem.body_hash));
    struct bf_log_entry entry = {
        .lane = post->lane,
        .key = is_single ? in->event->recipients[0]
                         : (struct bf_bytes){(const char *)post->meta.event_id.bytes,
                                             sizeof(post->meta.event_id.bytes)},
        .meta = {(const char *)meta, meta_len},
        .body = in->json,
        .idem = in->idem_key_len > 0 ? &idem : NULL,
    };
    return bf_log_append(bf_services_of(in->r)->log, &entry, on_durable, in->r);
}

static void submit(struct incoming *in)
{
    char id[BF_UUID_TEXT_BYTES + 1] = "";
    give_id(in);
    bf_id_text(&in->post->meta.event_id, id);
    snprintf(in->post->answer, sizeof(in->post->answer),
             in->is_notification ? "{\"notification_id\":\"%s\",\"status\":\"queued\"}"
                                 : "{\"event_id\":\"%s\"}",
             id);
    bf_request_suspend(in->r); /* before the append: it may be durable at once */
    int rc = append(in);
    if (rc != 0)
        on_durable(in->r, rc);
}

static void accept_post(struct bf_request *r, bool is_notification)
{
    struct incoming in = {
        .r = r, .post = &bf_state_of(r)->post, .is_notification = is_notification};
    bool go_on = take_header_key(&in) && take_body(&in) && parse(&in) && join_key(&in) &&
                 (in.idem_key_len == 0 || begin_idempotent(&in)) && check_users(&in);
    if (go_on) {
        submit(&in);
    } else if (in.post->is_marked) {
        in.post->is_marked = false;
        bf_idem_end(bf_api_of(r)->idem, &in.post->mark);
    }
    bf_event_unref(in.event);
    free(in.converted);
}

void bf_post_notification(struct bf_request *r)
{
    accept_post(r, true);
}

void bf_post_event(struct bf_request *r)
{
    accept_post(r, false);
}

static void refuse_append(struct bf_request *r, int rc)
{
    struct bf_problem problem;
    bool is_disk = rc == -ENOSPC;
    bf_problem_set(&problem, 503, "log-unavailable", "",
                   "the event was not accepted: %s; send it again later", bf_err_text(rc));
    problem.retry_after_s = is_disk ? DISK_FULL_RETRY_S : UNAVAILABLE_RETRY_S;
    bf_answer_problem(r, &problem);
}

/* On the server thread again, the log's verdict in hand. */
void bf_post_resumed(struct bf_request *r)
{
    struct bf_api *api = bf_api_of(r);
    struct bf_post *post = &bf_state_of(r)->post;
    struct bf_out o = {0};
    if (post->is_marked) /* after the row is durable: a repeat finds it there */
        bf_idem_end(api->idem, &post->mark);
    post->is_marked = false;
    if (post->rc != 0) {
        refuse_append(r, post->rc);
        return;
    }
    bf_recent_put(api->recent, &post->meta);
    bf_stage_add(BF_STAGE_ACCEPT, post->lane, bf_mono_ns() / 1000 - r->began_us);
    bf_out_text(&o, post->answer);
    bf_answer_json(r, 202, &o);
}
