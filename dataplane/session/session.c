/* See session.h. */
#include "session/session.h"

#include <errno.h>
#include <string.h>

#include "belfry/base/err.h"
#include "channel/channel.h"
#include "channel/sse_client.h"
#include "session/grant.h"
#include "session/life.h"

/* JSON that fits a local frame with its header. */
#define ANSWER_BYTES_MAX (BF_LOCAL_BYTES_MAX - 4u)
/* Twice the allowed rate within a second: the client ignores the error that it was sent. */
#define RATE_ABUSE_FACTOR 2u
#define RATE_COUNT_MAX    0x00ffffffu
#define TICKS_PER_SECOND  (1000u / BF_TICK_MS)

void bf_session_init(struct bf_session *s, struct bf_worker_core *core, void *json_pool)
{
    *s = (struct bf_session){.core = core, .json_pool = json_pool};
}

void bf_session_fini(struct bf_session *s)
{
    bf_jwt_keys_destroy(s->keys);
    s->keys = NULL;
}

/* ---- answers ---- */

static void push_text(struct bf_session *s, uint32_t slot, const char *json, size_t len,
                      uint8_t flags)
{
    uint8_t frame[BF_LOCAL_BYTES_MAX];
    if (len == 0)
        return;
    len = bf_ws_text_write(frame, sizeof(frame), (struct bf_bytes){.at = json, .len = len});
    if (len > 0)
        (void)bf_channel_push_local(s->core, slot, frame, len, BF_RANK_CONTROL, flags);
}

static void answer_error(struct bf_session *s, uint32_t slot, const char *code, const char *why,
                         bool temporary)
{
    char json[ANSWER_BYTES_MAX];
    bf_worker_count(s->core, BF_M_client_errors, 1);
    push_text(s, slot, json, bf_msg_error(json, sizeof(json), code, why, temporary, s->msg.ref), 0);
}

/* Answers a client that asked for it. The answer to a connect is queued after the WELCOME. */
static void answer_ok(struct bf_session *s, uint32_t slot)
{
    char json[ANSWER_BYTES_MAX];
    if (s->msg.ref.len == 0)
        return;
    push_text(s, slot, json, bf_msg_ok(json, sizeof(json), s->msg.ref), BF_NF_HELD);
}

static void close_with(struct bf_session *s, uint32_t slot, uint16_t code, const char *why)
{
    bf_worker_count(s->core, BF_M_client_errors, 1);
    bf_life_close(s->core, slot, code, why, false);
}

/* ---- upgrade ---- */

void bf_session_refuse(struct bf_session *s, uint32_t slot, int status, const char *why)
{
    char out[BF_UPGRADE_RESPONSE_BYTES_MAX];
    size_t len = bf_upgrade_refuse(status, why, out);
    bf_worker_count(s->core, BF_M_upgrades_bad, 1);
    if (len > 0 && len <= BF_LOCAL_BYTES_MAX)
        (void)bf_channel_push_local(s->core, slot, out, len, BF_RANK_FIRST, 0);
    bf_life_close(s->core, slot, 0, "", true);
}

static bool is_origin_allowed(const struct bf_session *s, struct bf_bytes origin)
{
    if (s->origin_count == 0 || origin.len == 0)
        return true;
    for (uint32_t i = 0; i < s->origin_count; i++) {
        struct bf_bytes allowed = {.at = s->origins[i].text, .len = s->origins[i].len};
        if (bf_bytes_is_equal(allowed, origin))
            return true;
    }
    return false;
}

/* Verifies a token into s->claims. 0, or the close code. */
static uint16_t verify(struct bf_session *s, struct bf_bytes token, const char **ret_why)
{
    if (!s->keys) {
        *ret_why = "no keys are configured yet";
        return BF_CLOSE_OVERLOADED;
    }
    enum bf_jwt_verdict verdict =
        bf_jwt_verify(s->keys, token, s->core->wall_ms / 1000u, &s->claims);
    if (verdict == BF_JWT_OK)
        return 0;
    *ret_why = bf_jwt_verdict_text(verdict);
    return BF_CLOSE_TOKEN;
}

/* Keeps the claims in a pending record. 0, or the close code. */
static uint16_t keep_claims(struct bf_session *s, uint32_t slot)
{
    struct bf_worker_core *core = s->core;
    struct bf_conn_cold *cold = bf_cold(core, slot);
    uint32_t grant = 0;
    uint32_t index = bf_slab_take(&core->pendings);
    if (index == 0 || bf_grant_store(core, &s->claims, &grant) != 0) {
        if (index != 0)
            bf_slab_put(&core->pendings, index);
        bf_worker_count(core, BF_M_rejected_overload, 1);
        return BF_CLOSE_OVERLOADED;
    }
    struct bf_pending *p = bf_slab_at(&core->pendings, index);
    *p = (struct bf_pending){
        .token_expires_ms = s->claims.expires_s * 1000u,
        .grant = grant,
        .user_len = (uint16_t)s->claims.user_len,
        .tenant_len = (uint16_t)s->claims.tenant_len,
    };
    memcpy(p->user, s->claims.user, s->claims.user_len);
    memcpy(p->tenant, s->claims.tenant, s->claims.tenant_len);
    bf_pending_drop(core, cold->aux, false);
    cold->aux = index;
    return 0;
}

void bf_session_upgrade(struct bf_session *s, uint32_t slot, const struct bf_upgrade *up)
{
    struct bf_worker_core *core = s->core;
    char out[BF_UPGRADE_RESPONSE_BYTES_MAX];
    const char *why = "";
    if (!up->is_upgrade) {
        bf_session_refuse(s, slot, 426, "this is a WebSocket endpoint");
        return;
    }
    if (up->offers_other && !up->offers_v1_json) {
        bf_session_refuse(s, slot, 400, "sub-protocol belfry.v1.json is the one spoken here");
        return;
    }
    if (!is_origin_allowed(s, up->origin)) {
        bf_session_refuse(s, slot, 403, "this origin is not allowed");
        return;
    }
    bool deflate = core->packs.deflater && up->deflate.is_offered;
    size_t len = bf_upgrade_accept(up, deflate, out);
    if (len == 0 || !bf_channel_push_local(core, slot, out, len, BF_RANK_FIRST, 0)) {
        bf_life_gone(core, slot, 0);
        return;
    }
    bf_hot(core, slot)->state = BF_CONN_OPEN;
    bf_conn_set_deflate(&core->conns, slot, deflate ? up->deflate.server_bits : 0);
    bf_worker_count(core, BF_M_upgrades_ok, 1);
    bf_worker_count(core, BF_M_upgrades_deflate, deflate);
    if (up->bearer.len == 0)
        return;
    /* a bad token is answered by a close code, the same way wherever the token came from: a browser
     * does not show the status of a failed upgrade */
    uint16_t code = verify(s, up->bearer, &why);
    if (code == 0)
        code = keep_claims(s, slot);
    if (code != 0)
        close_with(s, slot, code, why);
}

/* ---- connect ---- */

/* The older connection of a device gives way to the newer one (DESIGN 5: 4003). */
static void evict_device(struct bf_worker_core *core, uint32_t slot)
{
    uint64_t device = bf_cold(core, slot)->device;
    uint32_t at = bf_users_find(&core->users, &core->conns, bf_hot(core, slot)->user);
    while (device != 0 && at != BF_SLOT_NONE) {
        uint32_t next = bf_hot(core, at)->user_next;
        if (at != slot && bf_cold(core, at)->device == device) {
            bf_worker_count(core, BF_M_closes_replaced, 1);
            bf_life_close(core, at, BF_CLOSE_REPLACED, "replaced by a newer connection", false);
        }
        at = next;
    }
}

static void fill_pending(struct bf_session *s, struct bf_pending *p)
{
    const struct bf_client_msg *m = &s->msg;
    const uint8_t *secret = s->core->region->user_secret;
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        p->resume_seq[lane] = m->has_resume ? m->resume_seq[lane] : UINT64_MAX;
    p->resume_b = m->has_resume_b ? m->resume_b : 0;
    p->resume_epoch_hash =
        m->has_resume ? bf_name_hash(secret, m->resume_epoch.at, m->resume_epoch.len) : 0;
    p->connected_ms = s->core->wall_ms;
    p->flags = (m->has_resume ? BF_CONNECT_RESUME : 0) |
               (m->has_resume_b ? BF_CONNECT_RESUME_B : 0) |
               (m->device.len > 0 ? BF_CONNECT_HAS_DEVICE : 0);
    p->device_len = (uint16_t)m->device.len;
    if (m->device.len > 0)
        memcpy(p->device, m->device.at, m->device.len);
}

static void subscribe(struct bf_session *s, uint32_t slot, uint32_t grant, struct bf_bytes topic)
{
    struct bf_worker_core *core = s->core;
    if (topic.len == 0 || topic.len > BF_TOPIC_BYTES_MAX) {
        answer_error(s, slot, "bad_field", "topic must have 1 to 128 bytes", false);
        return;
    }
    if (!bf_grant_allows(s, grant, topic)) {
        answer_error(s, slot, "forbidden", "the token does not allow this topic", false);
        return;
    }
    uint64_t hash = bf_topic_hash(core->region->user_secret, bf_conn_tenant(&core->conns, slot),
                                  topic.at, topic.len);
    int rc = bf_topics_sub(&core->topics, &core->conns, slot, hash);
    if (rc == BF_ERR_FULL)
        answer_error(s, slot, "too_many_topics", "64 topics a connection", false);
    else if (rc == BF_ERR_NO_MEMORY)
        answer_error(s, slot, "overloaded", "no room for another subscription", true);
    else if (s->msg.kind == BF_CM_SUB)
        answer_ok(s, slot);
}

/* From here on the connection belongs to its user: evict, announce, wait for the WELCOME. */
static void enter_auth(struct bf_session *s, uint32_t slot)
{
    struct bf_worker_core *core = s->core;
    struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_conn_cold *cold = bf_cold(core, slot);
    struct bf_pending *p = bf_slab_at(&core->pendings, cold->aux);
    const uint8_t *secret = core->region->user_secret;
    fill_pending(s, p);
    hot->user = bf_user_key_of(secret, p->tenant, p->tenant_len, p->user, p->user_len);
    cold->tenant = (uint32_t)bf_tenant_hash(secret, p->tenant, p->tenant_len);
    cold->device = p->device_len > 0 ? bf_name_hash(secret, p->device, p->device_len) : 0;
    evict_device(core, slot);
    bf_users_link(&core->users, &core->conns, slot);
    hot->flags |= BF_CF_LINKED;
    hot->state = BF_CONN_AUTH;
    cold->deadline = core->tick + bf_ticks_of(BF_WELCOME_DEADLINE_MS);
    bf_life_file(core, slot);
    bf_rcpt_mark(&core->receipts, slot, BF_DIRTY_CONNECT);
    bf_worker_count(core, BF_M_connects_ok, 1);
    for (uint32_t i = 0; i < s->msg.topic_count; i++)
        subscribe(s, slot, p->grant, s->msg.topics[i]);
    answer_ok(s, slot);
}

static void on_connect(struct bf_session *s, uint32_t slot)
{
    struct bf_worker_core *core = s->core;
    const char *why = "no token was given";
    uint16_t code = bf_cold(core, slot)->aux ? 0 : BF_CLOSE_TOKEN;
    if (s->msg.token.len > 0) {
        code = verify(s, s->msg.token, &why);
        if (code == 0)
            code = keep_claims(s, slot);
    }
    if (code == 0 && core->welcomed >= core->limits.max_connections) {
        bf_worker_count(core, BF_M_rejected_overload, 1);
        code = BF_CLOSE_OVERLOADED;
        why = "no room for another connection";
    }
    if (code != 0) {
        bf_worker_count(core, BF_M_connects_refused, 1);
        close_with(s, slot, code, why);
        return;
    }
    enter_auth(s, slot);
}

/* ---- server-sent events ---- */

/* 0, or the HTTP status that refuses the request. */
static int events_check(struct bf_session *s, const struct bf_upgrade *up, const char **ret_why)
{
    *ret_why = "this origin is not allowed";
    if (!is_origin_allowed(s, up->origin))
        return 403;
    if (bf_sse_request_read(up, &s->events, ret_why) != 0)
        return 400;
    *ret_why = "a token is needed: Authorization: Bearer, or ?token=";
    if (s->events.token.len == 0)
        return 401;
    uint16_t code = verify(s, s->events.token, ret_why);
    return code == 0 ? 0 : code == BF_CLOSE_OVERLOADED ? 503 : 401;
}

void bf_session_events(struct bf_session *s, uint32_t slot, const struct bf_upgrade *up)
{
    struct bf_worker_core *core = s->core;
    char out[BF_LOCAL_BYTES_MAX];
    const char *why = "";
    int status = events_check(s, up, &why);
    size_t len = bf_sse_accept(up->origin, out, sizeof(out));
    if (status == 0 && len == 0) {
        status = 400;
        why = "the origin is too long";
    }
    if (status == 0 && !bf_sse_client_start(core, slot, &s->events.resume)) {
        status = 503;
        why = "no room for another event stream";
    }
    if (status != 0) {
        bf_session_refuse(s, slot, status, why);
        return;
    }
    if (!bf_channel_push_local(core, slot, out, len, BF_RANK_FIRST, 0)) {
        bf_life_gone(core, slot, 0);
        return;
    }
    bf_hot(core, slot)->state = BF_CONN_OPEN;
    bf_worker_count(core, BF_M_event_streams, 1);
    if (keep_claims(s, slot) != 0) {
        close_with(s, slot, BF_CLOSE_OVERLOADED, "no room for another connection");
        return;
    }
    s->msg = s->events.msg;
    on_connect(s, slot);
}

/* ---- other frames ---- */

static void on_ack(struct bf_session *s, uint32_t slot)
{
    if (bf_channel_ack(s->core, slot, s->msg.lane, s->msg.seq) != 0)
        close_with(s, slot, BF_CLOSE_PROTOCOL, "ack above the last seq sent");
    else
        answer_ok(s, slot);
}

/* read, seen, archive: ctrlplane stores it and answers by BF_CMD_REPLY. */
static void on_inbox_op(struct bf_session *s, uint32_t slot)
{
    struct bf_worker_core *core = s->core;
    const struct bf_client_msg *m = &s->msg;
    uint8_t *out = core->receipts.message;
    if (bf_hot(core, slot)->state != BF_CONN_LIVE) {
        answer_error(s, slot, "not_ready", "wait for the welcome", true);
        return;
    }
    struct bf_rcpt_client rcpt = {
        .user = bf_hot(core, slot)->user,
        .conn = bf_conn_id_of(&core->conns, slot),
        .op = (uint32_t)m->kind - BF_CM_READ + BF_CLIENT_READ,
        .ref_len = (uint16_t)m->ref.len,
        .id_len = (uint16_t)m->id.len,
    };
    size_t len = sizeof(rcpt);
    if (m->id.len == 0 || len + m->ref.len + m->id.len > BF_RCPT_BYTES_MAX) {
        answer_error(s, slot, "bad_field", "id is required", false);
        return;
    }
    memcpy(out, &rcpt, len);
    if (m->ref.len > 0)
        memcpy(out + len, m->ref.at, m->ref.len);
    len += m->ref.len;
    memcpy(out + len, m->id.at, m->id.len);
    len += m->id.len;
    if (!bf_rcpt_put(&core->receipts, BF_RCPT_CLIENT, out, (uint32_t)len, BF_RCPT_OUT_RESERVE))
        answer_error(s, slot, "overloaded", "try again shortly", true);
}

static void on_unsub(struct bf_session *s, uint32_t slot)
{
    struct bf_worker_core *core = s->core;
    uint64_t hash = bf_topic_hash(core->region->user_secret, bf_conn_tenant(&core->conns, slot),
                                  s->msg.topic.at, s->msg.topic.len);
    /* it is not subscribed, as wanted */
    (void)bf_topics_unsub(&core->topics, &core->conns, slot, hash);
    answer_ok(s, slot);
}

static void on_refresh(struct bf_session *s, uint32_t slot)
{
    struct bf_worker_core *core = s->core;
    struct bf_conn_cold *cold = bf_cold(core, slot);
    const char *why = "";
    uint32_t grant = 0;
    uint16_t code = verify(s, s->msg.token, &why);
    if (code == BF_CLOSE_OVERLOADED) {
        answer_error(s, slot, "overloaded", why, true);
        return;
    }
    if (code != 0) {
        close_with(s, slot, code, why);
        return;
    }
    struct bf_user_key user =
        bf_user_key_of(core->region->user_secret, s->claims.tenant, s->claims.tenant_len,
                       s->claims.user, s->claims.user_len);
    if (!bf_user_key_is_equal(user, bf_hot(core, slot)->user)) {
        close_with(s, slot, BF_CLOSE_FORBIDDEN, "the token names another user");
        return;
    }
    if (bf_grant_store(core, &s->claims, &grant) != 0) {
        answer_error(s, slot, "overloaded", "try again shortly", true);
        return;
    }
    if (bf_hot(core, slot)->state == BF_CONN_LIVE) {
        bf_grant_drop(core, cold->aux);
        cold->aux = grant;
        bf_life_set_end(core, slot, s->claims.expires_s * 1000u);
        bf_life_file(core, slot);
    } else {
        struct bf_pending *p = bf_slab_at(&core->pendings, cold->aux);
        bf_grant_drop(core, p->grant);
        p->grant = grant;
        p->token_expires_ms = s->claims.expires_s * 1000u;
    }
    answer_ok(s, slot);
}

static void on_ping(struct bf_session *s, uint32_t slot)
{
    char json[ANSWER_BYTES_MAX];
    push_text(s, slot, json, bf_msg_pong(json, sizeof(json), s->msg.ref), 0);
}

static uint32_t grant_of(struct bf_worker_core *core, uint32_t slot)
{
    uint32_t aux = bf_cold(core, slot)->aux;
    if (bf_hot(core, slot)->state == BF_CONN_LIVE || aux == 0)
        return aux;
    return ((struct bf_pending *)bf_slab_at(&core->pendings, aux))->grant;
}

static void dispatch(struct bf_session *s, uint32_t slot)
{
    bool is_open = bf_hot(s->core, slot)->state == BF_CONN_OPEN;
    if (is_open != (s->msg.kind == BF_CM_CONNECT)) {
        close_with(s, slot, BF_CLOSE_PROTOCOL,
                   is_open ? "the first frame must be connect" : "already connected");
        return;
    }
    switch (s->msg.kind) {
    case BF_CM_CONNECT:
        on_connect(s, slot);
        break;
    case BF_CM_ACK:
        on_ack(s, slot);
        break;
    case BF_CM_READ:
    case BF_CM_SEEN:
    case BF_CM_ARCHIVE:
        on_inbox_op(s, slot);
        break;
    case BF_CM_SUB:
        subscribe(s, slot, grant_of(s->core, slot), s->msg.topic);
        break;
    case BF_CM_UNSUB:
        on_unsub(s, slot);
        break;
    case BF_CM_REFRESH:
        on_refresh(s, slot);
        break;
    case BF_CM_PING:
        on_ping(s, slot);
        break;
    default:
        break;
    }
}

/* Frames a second. 0 allowed, 1 answer an error, 2 say nothing more, 3 close. */
static int check_rate(struct bf_session *s, uint32_t slot)
{
    struct bf_conn_cold *cold = bf_cold(s->core, slot);
    uint32_t limit = s->core->limits.client_frames_per_s;
    uint32_t second = (s->core->tick / TICKS_PER_SECOND) & 0xffu;
    uint32_t count = cold->rate & RATE_COUNT_MAX;
    if (cold->rate >> 24 != second)
        count = 0;
    count += count < RATE_COUNT_MAX;
    cold->rate = second << 24 | count;
    if (count <= limit)
        return 0;
    if (count > limit * RATE_ABUSE_FACTOR)
        return 3;
    return count == limit + 1 ? 1 : 2;
}

static void on_text(struct bf_session *s, uint32_t slot, struct bf_bytes text)
{
    const char *code = "";
    const char *why = "";
    s->msg.ref = (struct bf_bytes){0};
    bf_worker_count(s->core, BF_M_frames_received, 1);
    int rate = check_rate(s, slot);
    if (rate == 3)
        close_with(s, slot, BF_CLOSE_PROTOCOL, "too many frames");
    else if (rate == 1)
        answer_error(s, slot, "rate_limited", "too many frames a second", true);
    if (rate != 0)
        return;
    if (bf_client_msg_parse(s->json_pool, BF_CLIENT_MSG_POOL_BYTES, text, &s->msg, &code, &why) ==
        0) {
        dispatch(s, slot);
        return;
    }
    if (bf_hot(s->core, slot)->state == BF_CONN_OPEN)
        close_with(s, slot, BF_CLOSE_PROTOCOL, why);
    else
        answer_error(s, slot, code, why, false);
}

/* Pings and pongs count like messages, but above the rate they are only not answered. */
static bool is_control_allowed(struct bf_session *s, uint32_t slot)
{
    int rate = check_rate(s, slot);
    if (rate == 3)
        close_with(s, slot, BF_CLOSE_PROTOCOL, "too many frames");
    return rate == 0;
}

static void on_ws_ping(struct bf_session *s, uint32_t slot, struct bf_bytes payload)
{
    uint8_t frame[BF_LOCAL_BYTES_MAX];
    if (!is_control_allowed(s, slot))
        return;
    size_t len = bf_ws_control_write(frame, sizeof(frame), 0xa, payload);
    if (len > 0)
        (void)bf_channel_push_local(s->core, slot, frame, len, BF_RANK_CONTROL, 0);
}

void bf_session_event(struct bf_session *s, uint32_t slot, const struct bf_ws_event *event)
{
    if (bf_hot(s->core, slot)->state >= BF_CONN_CLOSING)
        return;
    switch (event->kind) {
    case BF_WS_EV_TEXT:
        on_text(s, slot, event->data);
        break;
    case BF_WS_EV_BINARY:
        close_with(s, slot, 1003, "text frames only");
        break;
    case BF_WS_EV_PING:
        on_ws_ping(s, slot, event->data);
        break;
    case BF_WS_EV_PONG:
        bf_worker_count(s->core, BF_M_pongs_received, 1);
        (void)is_control_allowed(s, slot);
        break;
    case BF_WS_EV_CLOSE:
        /* 1005 stands for "no code" and may not be sent: answer with 1000 */
        bf_life_close(s->core, slot, event->code ? event->code : 1000, "", false);
        break;
    case BF_WS_EV_ERROR:
        bf_worker_count(s->core, BF_M_client_errors, 1);
        bf_life_close(s->core, slot, event->code, "protocol error", false);
        break;
    }
}
