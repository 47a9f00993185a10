/*
 * The third step of a shard's turn: what was decided about a leg becomes rows of the turn's batch
 * and deliveries that leave once it is written, and the person's record follows at once, so that
 * the next leg of this turn sees it. Push is in apply_push.c.
 */
#include "fanout/shard.h"

#include <string.h>

#include "stats/metrics.h"
#include "fanout/core_state.h"
#include "fanout/gather.h"

static void settle_leg(struct bf_shard *shard, struct bf_leg *leg)
{
    BF_BUG_ON(shard->settling_count >= BF_SHARD_BATCH_MAX);
    shard->settling[shard->settling_count++] = leg->open;
}

static void put_outcome(struct bf_shard *shard, const struct bf_leg *leg, enum bf_status status,
                        const char *reason)
{
    const struct bf_event *event = leg->open->event;
    uint64_t now = shard->turn.now_ms;
    struct bf_outcome outcome = {
        .event_id = event->id,
        .uid = leg->uid,
        .channel = BF_CHANNEL_INAPP,
        .status = (uint8_t)status,
        .at_ms = now,
        .expires_ms = now + (uint64_t)bf_core_conf(shard->core)->status_ttl_s * 1000,
        .reason = {.at = reason, .len = strlen(reason)},
    };
    bf_batch_put_outcome(shard->batch, &outcome);
}

static void suppress(struct bf_shard *shard, struct bf_leg *leg, enum bf_reason reason)
{
    const struct bf_event *event = leg->open->event;
    atomic_fetch_add_explicit(&bf_ctrl_stats.suppressed[reason], 1, memory_order_relaxed);
    bf_funnel_count(BF_FUNNEL_SUPPRESSED, event->lane, BF_CHANNEL_INAPP, 1);
    put_outcome(shard, leg, reason == BF_REASON_EXPIRED ? BF_STATUS_EXPIRED : BF_STATUS_SUPPRESSED,
                bf_reason_name(reason));
}

static struct bf_event_row event_row_of(struct bf_shard *shard, const struct bf_event *event)
{
    return (struct bf_event_row){
        .event_id = event->id,
        .accepted_ms = event->created_ms,
        .expires_ms = shard->turn.now_ms + (uint64_t)bf_core_conf(shard->core)->status_ttl_s * 1000,
        .target = (uint8_t)event->target,
        .lane = (uint8_t)event->lane,
        .transient = event->transient,
        .is_broadcast = event->target == BF_TARGET_BROADCAST,
        .tenant = {.at = event->meta.tenant, .len = strlen(event->meta.tenant)},
        .producer = {.at = event->meta.producer, .len = strlen(event->meta.producer)},
        .traceparent = {.at = event->meta.traceparent, .len = strlen(event->meta.traceparent)},
        .type = event->type,
        .topic = event->topic,
        .recipient_count = event->recipient_count,
        .recipients = event->recipients,
    };
}

static void put_event_row(struct bf_shard *shard, const struct bf_event *event)
{
    struct bf_event_row row = event_row_of(shard, event);
    bf_batch_put_event_row(shard->batch, &row);
}

/* An event with one recipient needs no row of its own if that recipient's inbox takes it. */
static bool has_sole_recipient(const struct bf_open_event *open)
{
    return open->write_row && open->event->target == BF_TARGET_USERS &&
           open->event->recipient_count == 1;
}

/* The event's person exists from now on. NULL: no memory. */
static struct bf_user *make_user(struct bf_shard *shard, const struct bf_leg *leg)
{
    struct bf_user *user = bf_user_add(&shard->users, leg->uid);
    if (user)
        bf_batch_put_user(shard->batch, leg->uid, BF_BYTES("{}"));
    return user;
}

static void dead_letter_unknown(struct bf_shard *shard, struct bf_leg *leg, bool is_erased)
{
    const struct bf_event *event = leg->open->event;
    if (is_erased) {
        /* nothing is written about an erased user, not even that nothing was delivered */
        atomic_fetch_add_explicit(&bf_ctrl_stats.suppressed[BF_REASON_UNKNOWN_USER], 1,
                                  memory_order_relaxed);
        bf_funnel_count(BF_FUNNEL_SUPPRESSED, event->lane, BF_CHANNEL_INAPP, 1);
        if (has_sole_recipient(leg->open))
            leg->open->write_row = false;
        return;
    }
    suppress(shard, leg, BF_REASON_UNKNOWN_USER);
    if (event->meta.source != BF_SOURCE_KAFKA || event->target != BF_TARGET_USERS)
        return; /* the API refuses unknown users; a subscriber may be erased since */
    struct bf_dlq_row row = {
        .at_ms = shard->turn.now_ms,
        .event_id = event->id,
        .channel = BF_CHANNEL_INAPP,
        .reason = BF_BYTES("unknown_user: the recipient does not exist; create the user or turn "
                           "users.auto_create on, then redrive"),
        .meta = leg->open->raw_meta,
        .body = leg->open->raw_body,
    };
    bf_batch_put_dlq(shard->batch, &row);
    bf_log_dead_letter(shard->core->log, leg->uid.user, row.body, row.reason, (struct bf_bytes){0});
    bf_count(BF_CM_M_ingest_dead_lettered, 1);
}

static void add_outgoing(struct bf_shard *shard, struct bf_user *user, struct bf_leg *leg,
                         const struct bf_item *item)
{
    const struct bf_event *event = leg->open->event;
    BF_BUG_ON(shard->outgoing_count >= BF_SHARD_BATCH_MAX);
    struct bf_outgoing *out = &shard->outgoing[shard->outgoing_count++];
    *out = (struct bf_outgoing){.user = user,
                                .open = leg->open,
                                .id = item->id,
                                .prev = item->prev,
                                .seq = item->seq,
                                .lane = event->lane,
                                .collapse = item->collapse};
}

static uint32_t collapse_hash(const struct bf_event *event)
{
    if (event->collapse_key.len == 0)
        return 0;
    uint32_t h = (uint32_t)XXH3_64bits(event->collapse_key.at, event->collapse_key.len);
    return h ? h : 1;
}

static void deliver_transient(struct bf_shard *shard, struct bf_user *user, struct bf_leg *leg,
                              struct bf_item *item)
{
    put_outcome(shard, leg, BF_STATUS_SENT, "transient");
    add_outgoing(shard, user, leg, item);
}

static void put_item(struct bf_shard *shard, const struct bf_leg *leg, const struct bf_item *item)
{
    struct bf_event_row row;
    bool is_sole = has_sole_recipient(leg->open);
    if (is_sole)
        row = event_row_of(shard, leg->open->event);
    bf_batch_put_item(shard->batch, leg->uid, item, is_sole ? &row : NULL);
}

static void deliver_inbox(struct bf_shard *shard, struct bf_user *user, struct bf_leg *leg,
                          struct bf_item *item)
{
    const struct bf_event *event = leg->open->event;
    uint64_t ttl_ms = (uint64_t)bf_core_conf(shard->core)->inbox_ttl_s * 1000;
    item->lane = event->lane;
    item->prev = user->state.head[event->lane];
    item->seq = ++user->state.head[event->lane];
    item->expires_ms = event->expires_ms ? event->expires_ms : event->created_ms + ttl_ms;
    if (bf_item_is_unread(item,
                          shard->turn.now_ms)) /* an old event may have outlived the inbox's ttl */
        bf_shard_add_unread(user, item->expires_ms);
    user->state.version++;
    user->state.stored++;
    put_item(shard, leg, item);
    /* a row is written for the first message of a step, which covers the others; for the first one
     * since the start, because a clean stop left an exact row; and for one that may have expired by
     * the time that heads are looked for */
    if (item->seq % BF_SEQ_STEP == 1 || !user->is_behind_store ||
        item->expires_ms < shard->turn.now_ms + BF_SHORT_TTL_MS)
        bf_shard_mark_dirty(shard, user);
    user->is_behind_store = true;
    bf_funnel_count(BF_FUNNEL_STORED, event->lane, BF_CHANNEL_INAPP, 1);
    if (user->conns)
        add_outgoing(shard, user, leg, item);
}

/* The in-app leg. Returns the seq of its message, 0: it has none. */
static uint64_t apply_inapp(struct bf_shard *shard, const struct bf_gathered_leg *g,
                            const struct bf_plan *plan)
{
    const struct bf_event *event = g->leg->open->event;
    enum bf_reason reason = plan->leg[BF_CHANNEL_INAPP].reason;
    struct bf_item item = {.event_id = event->id,
                           .created_ms = event->created_ms,
                           .changed_ms = event->created_ms,
                           .collapse = collapse_hash(event),
                           .id = g->leg->id,
                           .fragment = event->fragment};
    if (plan->in_inbox)
        deliver_inbox(shard, g->user, g->leg, &item);
    else if (plan->leg[BF_CHANNEL_INAPP].when == BF_NOW)
        deliver_transient(shard, g->user, g->leg, &item);
    else if (reason == BF_REASON_UNKNOWN_USER)
        dead_letter_unknown(shard, g->leg, g->is_erased);
    else if (reason == BF_REASON_DUPLICATE)
        bf_count(BF_CM_M_events_replayed, 1); /* decided before a restart: that outcome counts */
    else
        suppress(shard, g->leg, reason);
    return item.seq;
}

/* The event's row, with its first leg, unless it is in the inbox's id row. */
static void apply_event_row(struct bf_shard *shard, const struct bf_leg *leg,
                            const struct bf_plan *plan)
{
    bool is_in_id_row =
        has_sole_recipient(leg->open) &&
        (plan->in_inbox || plan->leg[BF_CHANNEL_INAPP].reason == BF_REASON_DUPLICATE);
    if (leg->index == 0 && leg->open->write_row && !is_in_id_row)
        put_event_row(shard, leg->open->event);
}

/* A broadcast: in-app it is on the broadcast log already (DESIGN 4.9). */
static void apply_broadcast(struct bf_shard *shard, const struct bf_gathered_leg *g,
                            const struct bf_plan *plan)
{
    bf_shard_apply_push(shard, g, plan, 0);
    apply_event_row(shard, g->leg, plan);
    settle_leg(shard, g->leg);
}

void bf_shard_apply(struct bf_shard *shard, struct bf_gathered_leg *g, struct bf_plan *plan)
{
    struct bf_leg *leg = g->leg;
    if (g->subject.is_broadcast) {
        apply_broadcast(shard, g, plan);
        return;
    }
    bf_funnel_count(BF_FUNNEL_FANNED_OUT, g->subject.lane, BF_CHANNEL_INAPP, 1);
    if (g->is_new && !(g->user = make_user(shard, leg))) {
        g->facts.person = NULL; /* as nobody, then */
        bf_decide(&g->facts, plan);
    }
    uint64_t seq = apply_inapp(shard, g, plan);
    if (g->user)
        bf_shard_apply_push(shard, g, plan, seq);
    apply_event_row(shard, leg, plan);
    settle_leg(shard, leg);
    if (g->user)
        bf_shard_trim(shard, g->user);
}
