/*
 * One recipient of one event, in the order of FAN-1: de-duplication, subscription, preferences,
 * [consent, quiet hours, frequency caps, digest: their steps stand between preferences and
 * presence], presence, [template], route. The result goes into the shard's batch; sending waits for
 * the commit.
 */
#include "fanout/shard.h"

#include <string.h>

#include "admin/metrics.h"
#include "belfry/base/time.h"
#include "fanout/core_state.h"
#include "publish/frames.h"

static void settle_leg(struct bf_shard *shard, struct bf_leg *leg)
{
    BF_BUG_ON(shard->settling_count >= BF_SHARD_BATCH_MAX);
    shard->settling[shard->settling_count++] = leg->open;
}

static void put_outcome(struct bf_shard *shard, const struct bf_leg *leg, enum bf_status status,
                        const char *reason)
{
    const struct bf_event *event = leg->open->event;
    uint64_t now = bf_wall_ms();
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
        .expires_ms = bf_wall_ms() + (uint64_t)bf_core_conf(shard->core)->status_ttl_s * 1000,
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

/* Whether the id came up in this batch already; notes it. The set is twice the batch: never full.
 */
static bool is_in_batch(struct bf_shard *shard, const struct bf_id *id)
{
    static const struct bf_id none;
    uint32_t mask = BF_SHARD_BATCH_MAX * 2 - 1;
    uint32_t at;
    memcpy(&at, id->bytes + BF_MESSAGE_PREFIX_BYTES + 4, sizeof(at)); /* differs within an event */
    for (at &= mask;; at = (at + 1) & mask) {
        if (bf_id_is_equal(&shard->fresh_ids[at], &none))
            break;
        if (bf_id_is_equal(&shard->fresh_ids[at], id))
            return true;
    }
    shard->fresh_ids[at] = *id;
    shard->fresh_used = true;
    return false;
}

static bool is_duplicate(struct bf_shard *shard, struct bf_uid uid, const struct bf_id *id)
{
    enum bf_lane lane;
    uint64_t seq;
    return is_in_batch(shard, id) ||
           bf_store_find_message(shard->core->store, uid, id, &lane, &seq);
}

static struct bf_user *find_or_create(struct bf_shard *shard, const struct bf_leg *leg)
{
    struct bf_uid uid = leg->uid;
    struct bf_user *user = bf_user_find_with(&shard->users, uid, leg->key);
    if (user || !bf_core_conf(shard->core)->users_auto_create)
        return user;
    /* an erasure overtakes what was accepted before it (lanes, the log): nobody comes back by that
     */
    if (bf_store_is_erased_since(shard->core->store, uid, leg->open->event->created_ms))
        return NULL;
    user = bf_user_add(&shard->users, uid);
    if (user)
        bf_batch_put_user(shard->batch, uid, BF_BYTES("{}"));
    return user;
}

static void dead_letter_unknown(struct bf_shard *shard, struct bf_leg *leg)
{
    const struct bf_event *event = leg->open->event;
    if (bf_store_is_erased_since(shard->core->store, leg->uid, event->created_ms)) {
        /* nothing is written of somebody who is gone, not even that they got nothing */
        atomic_fetch_add_explicit(&bf_ctrl_stats.suppressed[BF_REASON_UNKNOWN_USER], 1,
                                  memory_order_relaxed);
        bf_funnel_count(BF_FUNNEL_SUPPRESSED, event->lane, BF_CHANNEL_INAPP, 1);
        if (has_sole_recipient(leg->open))
            leg->open->write_row = false;
        return;
    }
    suppress(shard, leg, BF_REASON_UNKNOWN_USER);
    if (event->meta.source != BF_SOURCE_KAFKA || event->target != BF_TARGET_USERS)
        return; /* HTTP was told at the door; a topic's subscriber may have been erased since */
    struct bf_dlq_row row = {
        .at_ms = bf_wall_ms(),
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
    if (!user->conns) {
        suppress(shard, leg, BF_REASON_OFFLINE);
        return;
    }
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
    if (bf_item_is_unread(item, bf_wall_ms())) /* an old event may have outlived the inbox's ttl */
        bf_shard_add_unread(user, item->expires_ms);
    user->state.version++;
    user->state.stored++;
    put_item(shard, leg, item);
    /* the first of a step, whose row covers the others; the first since the start, because a clean
     * stop left a row that says nothing follows; or one that may be gone when heads are sought */
    if (item->seq % BF_SEQ_STEP == 1 || !user->is_behind_store ||
        item->expires_ms < bf_wall_ms() + BF_SHORT_TTL_MS)
        bf_shard_mark_dirty(shard, user);
    user->is_behind_store = true;
    bf_funnel_count(BF_FUNNEL_STORED, event->lane, BF_CHANNEL_INAPP, 1);
    if (user->conns)
        add_outgoing(shard, user, leg, item);
}

/* Every check of the chain that says no. */
static enum bf_reason decide(struct bf_shard *shard, struct bf_user *user, const struct bf_leg *leg,
                             const struct bf_id *id)
{
    const struct bf_event *event = leg->open->event;
    if (!event->transient && is_duplicate(shard, leg->uid, id))
        return BF_REASON_DUPLICATE;
    if (leg->channel_mask && !(leg->channel_mask & 1u << BF_CHANNEL_INAPP))
        return BF_REASON_SUBSCRIPTION;
    if (event->expires_ms && event->expires_ms <= bf_wall_ms())
        return BF_REASON_EXPIRED;
    return bf_prefs_decide(user->prefs, event->type, event->category, event->topic,
                           BF_CHANNEL_INAPP);
}

void bf_shard_prepare(struct bf_shard *shard, struct bf_leg **legs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct bf_leg *leg = legs[i];
        leg->key = bf_user_key_in(&shard->users, leg->uid);
        bf_user_prefetch_slot(&shard->users, leg->key);
        bf_message_id(&leg->open->event->id, leg->uid.tenant, leg->uid.user, BF_CHANNEL_INAPP,
                      (struct bf_bytes){0}, 0, &leg->id);
        bf_store_prefetch_message(shard->core->store, &leg->id);
    }
    for (uint32_t i = 0; i < count; i++)
        bf_user_prefetch_record(&shard->users, legs[i]->key);
}

/* In-app it is on the broadcast log already (DESIGN 4.9). */
static void deliver_broadcast(struct bf_shard *shard, struct bf_leg *leg)
{
    bf_shard_push_broadcast(shard, leg);
    if (leg->index == 0 && leg->open->write_row)
        put_event_row(shard, leg->open->event);
    settle_leg(shard, leg);
}

void bf_shard_deliver(struct bf_shard *shard, struct bf_leg *leg)
{
    const struct bf_event *event = leg->open->event;
    struct bf_item item = {.event_id = event->id,
                           .created_ms = event->created_ms,
                           .changed_ms = event->created_ms,
                           .collapse = collapse_hash(event),
                           .id = leg->id,
                           .fragment = event->fragment};
    if (leg->open->is_push_only) {
        deliver_broadcast(shard, leg);
        return;
    }
    bf_funnel_count(BF_FUNNEL_FANNED_OUT, event->lane, BF_CHANNEL_INAPP, 1);
    struct bf_user *user = find_or_create(shard, leg);
    enum bf_reason reason = BF_REASON_NONE;
    if (user)
        bf_shard_settle_heads(shard, user);
    if (!user)
        dead_letter_unknown(shard, leg);
    else
        reason = decide(shard, user, leg, &item.id);
    if (reason == BF_REASON_DUPLICATE)
        bf_count(BF_CM_M_events_replayed, 1); /* done before a restart: its first outcome stands */
    else if (reason != BF_REASON_NONE)
        suppress(shard, leg, reason);
    else if (user && event->transient)
        deliver_transient(shard, user, leg, &item);
    else if (user)
        deliver_inbox(shard, user, leg, &item);
    if (user)
        bf_shard_push_leg(shard, user, leg, reason, item.seq);
    bool is_in_id_row = has_sole_recipient(leg->open) && !event->transient && user &&
                        (reason == BF_REASON_NONE || reason == BF_REASON_DUPLICATE);
    if (leg->index == 0 && leg->open->write_row && !is_in_id_row)
        put_event_row(shard, event);
    settle_leg(shard, leg);
    if (user)
        bf_shard_trim(shard, user);
}

/* Connections on |worker| take the frame; those that lag already wait for their replay. */
static void note_published(struct bf_shard *shard, const struct bf_outgoing *out, uint32_t worker,
                           uint64_t now_ms)
{
    for (struct bf_conn *conn = out->user->conns; conn; conn = conn->next) {
        if (conn->worker != worker || conn->sent[out->lane] < out->prev ||
            conn->sent[out->lane] >= out->seq)
            continue;
        conn->sent[out->lane] = out->seq;
        bf_shard_start_deadline(shard, conn, out->lane, now_ms);
    }
}

static void want_replays(struct bf_shard *shard, const struct bf_outgoing *out, uint64_t workers)
{
    if (out->seq == 0)
        return; /* transient: what does not fit is not sent (DESIGN 4.5) */
    for (struct bf_conn *conn = out->user->conns; conn; conn = conn->next)
        if (workers >> conn->worker & 1u)
            bf_shard_want_replay(shard, conn, out->lane);
}

static uint64_t workers_of(const struct bf_user *user)
{
    uint64_t workers = 0;
    for (const struct bf_conn *conn = user->conns; conn; conn = conn->next)
        workers |= UINT64_C(1) << conn->worker;
    return workers;
}

void bf_shard_dispatch(struct bf_shard *shard, const struct bf_outgoing *out)
{
    const struct bf_event *event = out->open->event;
    uint64_t workers = workers_of(out->user);
    uint64_t now_ms = bf_mono_ms();
    struct bf_block_ref ref;
    uint32_t bytes = (uint32_t)bf_frame_n_max(event->fragment.len);
    uint8_t *data = workers ? bf_publisher_alloc(&shard->pub, bytes, &ref) : NULL;
    if (!data) {
        want_replays(shard, out, workers);
        return;
    }
    size_t len = bf_frame_n(data, bytes, out->lane, out->seq, &out->id, event->fragment);
    BF_BUG_ON(len > bytes);
    bf_publisher_set_len(&shard->pub, ref, (uint32_t)len);
    struct bf_cmd_frame cmd = {.user = out->user->key,
                               .block = ref,
                               .prev = out->prev,
                               .seq = out->seq,
                               .collapse = out->collapse,
                               .flags = out->seq == 0 ? BF_FRAME_TRANSIENT : 0};
    for (uint64_t left = workers; left; left &= left - 1) {
        uint32_t w = (uint32_t)__builtin_ctzll(left);
        if (bf_publisher_send(&shard->pub, w, out->lane, BF_CMD_NOTIFY, &cmd, ref)) {
            note_published(shard, out, w, now_ms);
            bf_funnel_count(BF_FUNNEL_DISPATCHED, out->lane, BF_CHANNEL_INAPP, 1);
        } else {
            want_replays(shard, out, UINT64_C(1) << w);
        }
    }
    bf_publisher_drop(&shard->pub, ref); /* nobody took it: free; else its holders do that */
    bf_stage_add(BF_STAGE_FANOUT, out->lane, bf_mono_ns() / 1000 - out->open->opened_us);
}
