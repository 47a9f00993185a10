/* See life.h. */
#include "session/life.h"

#include <string.h>

#include "channel/channel.h"
#include "proto/ws/ws_rx.h"
#include "session/client_msg.h"

/* Longest a deadline may lie ahead (1 year): keeps tick arithmetic far from wrapping. */
#define DEADLINE_MS_MAX (UINT64_C(365) * 86400u * 1000u)

/* Width of the spread of ages: a fifth of the limit. */
#define AGE_JITTER_PART 5u
/* Ages are spread already; this only keeps a client from knocking while its close is on the way. */
#define AGED_RECONNECT_MS 1000u

static bool is_due(const struct bf_worker_core *core, uint32_t tick)
{
    return (int32_t)(core->tick - tick) >= 0;
}

static uint32_t earlier(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0 ? a : b;
}

uint32_t bf_life_tick_of_wall(const struct bf_worker_core *core, uint64_t wall_ms)
{
    uint64_t ahead = wall_ms > core->wall_ms ? wall_ms - core->wall_ms : 0;
    if (ahead > DEADLINE_MS_MAX)
        ahead = DEADLINE_MS_MAX;
    return core->tick + (uint32_t)(ahead / BF_TICK_MS) + 1u;
}

/* ---- what a connection holds ---- */

void bf_grant_drop(struct bf_worker_core *core, uint32_t grant)
{
    while (grant != 0) {
        uint32_t next = ((struct bf_grant *)bf_slab_at(&core->grants, grant))->next;
        bf_slab_put(&core->grants, grant);
        grant = next;
    }
}

void bf_pending_drop(struct bf_worker_core *core, uint32_t pending, bool keep_grant)
{
    if (pending == 0)
        return;
    if (!keep_grant)
        bf_grant_drop(core, ((struct bf_pending *)bf_slab_at(&core->pendings, pending))->grant);
    bf_slab_put(&core->pendings, pending);
}

/* Nobody finds the connection any more: no frames, no topics, presence ends. */
static void leave(struct bf_worker_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_conn_cold *cold = bf_cold(core, slot);
    if (hot->state == BF_CONN_LIVE) {
        core->welcomed--;
        bf_grant_drop(core, cold->aux);
    } else if (hot->state < BF_CONN_LIVE) {
        bf_pending_drop(core, cold->aux, false);
    }
    cold->aux = 0;
    bf_topics_drop(&core->topics, &core->conns, slot);
    if (hot->flags & BF_CF_LINKED) {
        bf_users_unlink(&core->users, &core->conns, slot);
        hot->flags &= (uint16_t)~BF_CF_LINKED;
        bf_rcpt_mark(&core->receipts, slot, BF_DIRTY_GONE);
    }
}

/* ---- ends ---- */

/* An event stream has no close codes: an event carries the code, from which the client knows
 * whether to come back. */
static size_t write_close_event(uint8_t *out, size_t cap, uint16_t code, const char *reason)
{
    char json[256];
    size_t len = bf_msg_close(json, sizeof(json), code, reason);
    return bf_ws_text_write(out, cap, (struct bf_bytes){.at = json, .len = len});
}

static void start_closing(struct bf_worker_core *core, uint32_t slot, uint16_t code,
                          const char *reason)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_conn_cold *cold = bf_cold(core, slot);
    uint8_t frame[BF_LOCAL_BYTES_MAX];
    cold->close_code = code;
    bool is_websocket = hot->state != BF_CONN_HTTP;
    leave(core, slot);
    hot->state = BF_CONN_CLOSING;
    if (is_websocket) {
        size_t len = hot->streams & BF_STREAMS_AS_EVENTS
                         ? write_close_event(frame, sizeof(frame), code, reason)
                         : bf_ws_close_write(frame, sizeof(frame), code, reason);
        /* without a buffer the peer sees the end of the stream instead of a code */
        if (len > 0 && bf_channel_push_local(core, slot, frame, len, BF_RANK_LAST, 0))
            bf_worker_count(core, BF_M_closes_sent, 1);
    }
    cold->deadline = core->tick + bf_ticks_of(BF_CLOSE_LINGER_MS);
    bf_life_file(core, slot);
    bf_ready_add(core, slot, true);
}

void bf_life_close(struct bf_worker_core *core, uint32_t slot, uint16_t code, const char *reason,
                   bool flush)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    if (hot->state >= BF_CONN_CLOSING || hot->state == BF_CONN_FREE)
        return;
    if (!flush || (hot->state != BF_CONN_LIVE && hot->state != BF_CONN_HTTP))
        bf_channel_drop(core, slot);
    start_closing(core, slot, code, reason);
}

void bf_life_goaway(struct bf_worker_core *core, uint32_t slot, uint16_t code, const char *reason,
                    uint32_t reconnect_after_ms)
{
    uint8_t frame[BF_LOCAL_BYTES_MAX];
    char text[256];
    const struct bf_conn_hot *hot = bf_hot(core, slot);
    if (hot->state >= BF_CONN_CLOSING || hot->state == BF_CONN_FREE)
        return;
    if (hot->state >= BF_CONN_OPEN) {
        size_t len = bf_msg_goaway(text, sizeof(text), reconnect_after_ms, reason);
        len = bf_ws_text_write(frame, sizeof(frame), (struct bf_bytes){.at = text, .len = len});
        if (hot->state != BF_CONN_LIVE)
            bf_channel_drop(core, slot);
        if (len > 0)
            (void)bf_channel_push_local(core, slot, frame, len, BF_RANK_LAST, 0);
    }
    start_closing(core, slot, code, reason);
}

void bf_life_gone(struct bf_worker_core *core, uint32_t slot, uint16_t code)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_conn_cold *cold = bf_cold(core, slot);
    if (hot->state == BF_CONN_CLOSED || hot->state == BF_CONN_FREE)
        return;
    if (cold->close_code == 0)
        cold->close_code = code;
    leave(core, slot);
    hot->state = BF_CONN_CLOSED;
    bf_channel_drop(core, slot);
    bf_wheel_remove(&core->wheel, &core->conns, slot);
    bf_ready_add(core, slot, true);
}

/* ---- states ---- */

void bf_life_start(struct bf_worker_core *core, uint32_t slot)
{
    struct bf_conn_cold *cold = bf_cold(core, slot);
    bf_hot(core, slot)->state = BF_CONN_HTTP;
    cold->last_rx = core->tick;
    cold->last_tx = core->tick;
    cold->deadline = core->tick + bf_ticks_of(BF_CONNECT_DEADLINE_MS);
    bf_life_file(core, slot);
}

/* Age at which a connection is told to go away: nine to eleven tenths of the limit, chosen by a
 * hash of values of the connection, so that clients who connected at the same time do not come back
 * at the same time. */
static uint32_t ticks_of_age(const struct bf_worker_core *core, uint32_t slot)
{
    uint32_t hash = (slot ^ core->conns.cold[slot].generation << 16) * 2654435761u;
    uint64_t ms = (uint64_t)core->limits.lifetime_s * 1000u;
    uint64_t fifth = ms / AGE_JITTER_PART;
    uint64_t age = ms - fifth / 2 + fifth * (hash >> 16) / UINT16_MAX;
    return (uint32_t)(age / BF_TICK_MS) + 1u;
}

void bf_life_set_end(struct bf_worker_core *core, uint32_t slot, uint64_t token_expires_ms)
{
    struct bf_conn_cold *cold = bf_cold(core, slot);
    uint32_t token_end = bf_life_tick_of_wall(core, token_expires_ms);
    /* a refreshed token does not make a connection younger */
    uint32_t age_end = cold->is_aged ? cold->deadline : core->tick + ticks_of_age(core, slot);
    bool is_aged = core->limits.lifetime_s != 0 && (int32_t)(age_end - token_end) < 0;
    cold->is_aged = is_aged;
    cold->deadline = is_aged ? age_end : token_end;
}

void bf_life_welcome(struct bf_worker_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_conn_cold *cold = bf_cold(core, slot);
    BF_BUG_ON(hot->state != BF_CONN_AUTH || cold->aux == 0);
    const struct bf_pending *pending = bf_slab_at(&core->pendings, cold->aux);
    uint64_t expires_ms = pending->token_expires_ms;
    uint32_t grant = pending->grant;
    /* accepted within the leeway although expired: it lasts as long as the leeway does */
    if (expires_ms < core->wall_ms)
        expires_ms += (uint64_t)BF_JWT_LEEWAY_S * 1000u;
    bf_pending_drop(core, cold->aux, true);
    cold->aux = grant;
    bf_life_set_end(core, slot, expires_ms);
    hot->state = BF_CONN_LIVE;
    core->welcomed++;
    bf_worker_count(core, BF_M_welcomes, 1);
    bf_life_file(core, slot);
}

/* A LIVE connection whose socket takes nothing while frames wait. */
static bool is_stalled(const struct bf_conn_hot *hot)
{
    return hot->queue_count > 0 && (hot->ops & BF_OP_POLLOUT);
}

static uint32_t next_look(const struct bf_worker_core *core, uint32_t slot)
{
    const struct bf_conn_hot *hot = &core->conns.hot[slot];
    const struct bf_conn_cold *cold = &core->conns.cold[slot];
    uint32_t tick = cold->deadline;
    if (hot->state != BF_CONN_LIVE)
        return tick;
    tick = earlier(tick, cold->last_tx + bf_ticks_of(core->limits.ping_interval_ms));
    if (!(hot->streams & BF_STREAMS_AS_EVENTS))
        tick = earlier(tick, cold->last_rx + bf_ticks_of(core->limits.presence_timeout_ms));
    if (is_stalled(hot))
        tick = earlier(tick, cold->last_tx + bf_ticks_of(core->limits.slow_timeout_ms));
    return tick;
}

void bf_life_file(struct bf_worker_core *core, uint32_t slot)
{
    bf_wheel_file(&core->wheel, &core->conns, slot, next_look(core, slot));
}

/* The end of a state other than LIVE. */
static void end_state(struct bf_worker_core *core, uint32_t slot)
{
    switch (bf_hot(core, slot)->state) {
    case BF_CONN_HTTP:
        bf_worker_count(core, BF_M_closes_no_connect, 1);
        bf_life_gone(core, slot, 0);
        break;
    case BF_CONN_OPEN:
        bf_worker_count(core, BF_M_closes_no_connect, 1);
        bf_life_close(core, slot, BF_CLOSE_NO_CONNECT, "no connect in time", false);
        break;
    case BF_CONN_AUTH:
        bf_worker_count(core, BF_M_rejected_overload, 1);
        bf_life_close(core, slot, BF_CLOSE_OVERLOADED, "no welcome in time", false);
        break;
    default:
        bf_life_gone(core, slot, 0);
        break;
    }
}

static void look_live(struct bf_worker_core *core, uint32_t slot)
{
    const struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_conn_cold *cold = bf_cold(core, slot);
    const struct bf_limits *limits = &core->limits;
    if (is_due(core, cold->deadline) && cold->is_aged) {
        bf_worker_count(core, BF_M_closes_lifetime, 1);
        bf_life_goaway(core, slot, BF_CLOSE_LIFETIME, "lifetime", AGED_RECONNECT_MS);
    } else if (is_due(core, cold->deadline)) {
        bf_life_close(core, slot, BF_CLOSE_EXPIRED, "token expired", true);
    } else if (/* an event stream sends nothing: it lives as long as its socket takes bytes */
               !(hot->streams & BF_STREAMS_AS_EVENTS) &&
               is_due(core, cold->last_rx + bf_ticks_of(limits->presence_timeout_ms))) {
        bf_worker_count(core, BF_M_closes_no_life, 1);
        bf_life_close(core, slot, BF_CLOSE_NO_SIGN_OF_LIFE, "no sign of life", false);
    } else if (is_stalled(hot) &&
               is_due(core, cold->last_tx + bf_ticks_of(limits->slow_timeout_ms))) {
        bf_worker_count(core, BF_M_closes_slow, 1);
        bf_life_close(core, slot, BF_CLOSE_SLOW, "slow", false);
    } else if (is_due(core, cold->last_tx + bf_ticks_of(limits->ping_interval_ms)) &&
               hot->queue_count == 0) {
        if (bf_channel_push_ping(core, slot))
            bf_worker_count(core, BF_M_pings_sent, 1);
        cold->last_tx = core->tick; /* asked; the send's own stamp follows */
    }
}

void bf_life_look(struct bf_worker_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    if (hot->state == BF_CONN_LIVE)
        look_live(core, slot);
    else if (is_due(core, bf_cold(core, slot)->deadline))
        end_state(core, slot);
    if (hot->state != BF_CONN_CLOSED && hot->state != BF_CONN_FREE)
        bf_life_file(core, slot);
    else
        bf_worker_core_try_free(core, slot);
}
