/*
 * Ends: what becomes of a push that was answered, refused, given back, or that waits. Everything
 * goes into the shard's batch; the event of a flight settles when it is written. See push.h.
 */
#include "fanout/push.h"

#include <string.h>

#include "admin/metrics.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "fanout/core_state.h"
#include "ingest/render.h"

/* The text of a dead letter beside the notification and its overrides. */
#define LETTER_BYTES 2048u
/* People are told of what needs them at most so often, a shard. */
#define PAGE_MS 10000u
/* A credential refused for good is tried again after an hour (channels/push/push.h). */
#define STOP_MS 3600000u

/* ---- settling and rows ----------------------------------------------------------------------- */

static void settle(struct bf_shard *shard, struct bf_push_case *what)
{
    if (!what->open)
        return;
    BF_BUG_ON(shard->settling_count >= BF_SHARD_BATCH_MAX);
    shard->settling[shard->settling_count++] = what->open;
    what->open = NULL;
}

static int exists(void *arg, const struct bf_leg_row *row)
{
    (void)arg, (void)row;
    return 0;
}

static void delete_row(struct bf_shard *shard, const struct bf_push_case *what)
{
    /* an acknowledgement or an erasure may have taken it meanwhile */
    if (what->is_row && bf_store_get_leg(shard->core->store, &what->row, exists, NULL) == 0)
        bf_batch_delete_leg(shard->batch, &what->row);
}

static void put_outcome(struct bf_shard *shard, const struct bf_leg_row *row, enum bf_status status,
                        const char *reason)
{
    uint64_t now = bf_wall_ms();
    const struct bf_outcome outcome = {
        .event_id = row->event_id,
        .uid = row->uid,
        .channel = BF_CHANNEL_PUSH,
        .endpoint = row->endpoint_id, /* attempts of several devices stand beside each other */
        .attempt = (uint16_t)row->attempts,
        .status = (uint8_t)status,
        .at_ms = now,
        .expires_ms = now + (uint64_t)bf_core_conf(shard->core)->status_ttl_s * 1000,
        .reason = {reason, strlen(reason)},
    };
    bf_batch_put_outcome(shard->batch, &outcome);
}

static void count_end(const struct bf_leg_row *row, enum bf_status status)
{
    static const int8_t stages[BF_STATUS_COUNT] = {
        [BF_STATUS_QUEUED] = -1,
        [BF_STATUS_SENT] = BF_FUNNEL_SENT,
        [BF_STATUS_DELIVERED] = BF_FUNNEL_DELIVERED,
        [BF_STATUS_SEEN] = -1,
        [BF_STATUS_OPENED] = -1,
        [BF_STATUS_SUPPRESSED] = BF_FUNNEL_SUPPRESSED,
        [BF_STATUS_FAILED] = BF_FUNNEL_FAILED,
        [BF_STATUS_EXPIRED] = BF_FUNNEL_EXPIRED,
    };
    if (stages[status] >= 0)
        bf_funnel_count((enum bf_funnel)stages[status], row->lane, BF_CHANNEL_PUSH, 1);
}

void bf_push_case_end(struct bf_shard *shard, struct bf_push_case *what, enum bf_status status,
                      const char *reason)
{
    put_outcome(shard, &what->row, status, reason);
    bf_batch_put_leg_done(shard->batch, &what->row.message_id, bf_wall_ms() + BF_PUSH_DONE_MS);
    delete_row(shard, what);
    count_end(&what->row, status);
}

/* ---- the queue ------------------------------------------------------------------------------- */

void bf_shard_queue_push(struct bf_shard *shard, const struct bf_leg_row *row)
{
    struct bf_leg_row placed = *row;
    placed.partition = bf_store_partition_of(shard->core->store, row->uid);
    BF_BUG_ON(placed.partition % shard->core->shard_count != shard->index);
    bf_batch_put_leg(shard->batch, &placed);
    shard->push.wants_commit |= row->collapse != 0;
    bf_push_note_row(&shard->push, &placed);
}

/* A row as it lies in the store, put again with another time. */
struct again {
    struct bf_shard *shard;
    struct bf_push_case *what;
    uint64_t not_before_ms;
    struct bf_bytes reason;
};

static uint32_t flags_of(struct bf_bytes reason)
{
    return bf_bytes_is_equal(reason, BF_BYTES(BF_PUSH_NO_RECEIPT)) ? BF_LEG_MAY_FLY : 0;
}

static int put_again(void *arg, const struct bf_leg_row *stored)
{
    const struct again *again = arg;
    struct bf_leg_row row = *stored;
    row.not_before_ms = again->not_before_ms;
    row.attempts = again->what->row.attempts;
    row.reason = again->reason;
    row.flags = (row.flags & ~BF_LEG_MAY_FLY) | flags_of(again->reason);
    bf_shard_queue_push(again->shard, &row);
    return 0;
}

/* A case of an event: its row says all that the event said. */
static void put_first(const struct again *again)
{
    const struct bf_event *event = again->what->open->event;
    uint8_t meta[BF_EVENT_META_BYTES_MAX];
    struct bf_leg_row row = again->what->row;
    row.meta = (struct bf_bytes){(const char *)meta, bf_event_meta_encode(&event->meta, meta)};
    row.fragment = event->fragment;
    row.overrides = event->overrides;
    row.not_before_ms = again->not_before_ms;
    row.reason = again->reason;
    row.flags = flags_of(again->reason);
    bf_shard_queue_push(again->shard, &row);
    bf_count(BF_CM_M_push_queued, 1);
}

void bf_push_case_postpone(struct bf_shard *shard, struct bf_push_case *what,
                           uint64_t not_before_ms, const char *reason)
{
    struct again again = {.shard = shard,
                          .what = what,
                          .not_before_ms = not_before_ms,
                          .reason = {reason, strlen(reason)}};
    if (not_before_ms >= what->row.expires_ms) {
        bf_push_case_end(shard, what, BF_STATUS_EXPIRED, reason);
    } else if (what->is_row) {
        (void)bf_store_get_leg(shard->core->store, &what->row, put_again,
                               &again); /* gone: cancelled */
    } else if (bf_store_leg_depth(shard->core->store, what->row.channel, what->row.lane) >=
               BF_PUSH_QUEUE_MAX) {
        bf_push_case_dead_letter(shard, what, "queue_full: the push queue of this lane is full");
    } else {
        put_first(&again);
    }
}

/* ---- dead letters ---------------------------------------------------------------------------- */

struct letter {
    struct bf_shard *shard;
    struct bf_push_case *what;
    const char *reason;
};

static void put_text(struct bf_writer *w, const char *key, struct bf_bytes value)
{
    bf_put_raw(w, key, strlen(key));
    bf_json_put_str(w, value);
}

static void put_number(struct bf_writer *w, const char *key, uint64_t value)
{
    bf_put_raw(w, key, strlen(key));
    bf_json_put_uint(w, value);
}

/* What a person reads and a redrive needs (channels/push/push_letter.h). */
static size_t letter_text(const struct bf_leg_row *row, uint8_t *out, size_t cap)
{
    struct bf_writer w = {.buf = out, .cap = cap};
    char device[BF_UUID_TEXT_BYTES];
    const char *lane = bf_lane_name(row->lane);
    bf_id_text(&row->endpoint_id, device);
    put_text(&w, "{\"tenant\":", row->uid.tenant);
    put_text(&w, ",\"user_id\":", row->uid.user);
    put_text(&w, ",\"device_id\":", (struct bf_bytes){device, sizeof(device)});
    put_text(&w, ",\"lane\":", (struct bf_bytes){lane, strlen(lane)});
    put_number(&w, ",\"expires\":", row->expires_ms);
    put_number(&w, ",\"redrive\":", row->redrive);
    bf_put_bytes(&w, BF_BYTES(",\"notification\":{"));
    bf_put_bytes(&w, row->fragment);
    bf_put_u8(&w, '}');
    if (row->overrides.len > 0) {
        bf_put_bytes(&w, BF_BYTES(",\"overrides\":"));
        bf_put_bytes(&w, row->overrides);
    }
    bf_put_u8(&w, '}');
    BF_BUG_ON(w.failed);
    return w.len;
}

static int put_letter(void *arg, const struct bf_leg_row *row)
{
    const struct letter *letter = arg;
    struct bf_shard *shard = letter->shard;
    size_t cap = row->fragment.len + row->overrides.len + LETTER_BYTES;
    uint8_t *text = malloc(cap);
    if (!text)
        return 0; /* its outcome says as much */
    const struct bf_dlq_row dead = {
        .at_ms = bf_wall_ms(),
        .event_id = row->event_id,
        .channel = BF_CHANNEL_PUSH,
        .reason = {letter->reason, strlen(letter->reason)},
        .meta = row->meta,
        .body = {(const char *)text, letter_text(row, text, cap)},
    };
    bf_batch_put_dlq(shard->batch, &dead);
    bf_log_dead_letter(shard->core->log, row->uid.user, dead.body, dead.reason,
                       (struct bf_bytes){0});
    bf_count(BF_CM_M_push_dead_lettered, 1);
    free(text);
    return 0;
}

void bf_push_case_dead_letter(struct bf_shard *shard, struct bf_push_case *what, const char *reason)
{
    struct letter letter = {.shard = shard, .what = what, .reason = reason};
    if (what->is_row) {
        (void)bf_store_get_leg(shard->core->store, &what->row, put_letter, &letter);
    } else {
        const struct bf_event *event = what->open->event;
        uint8_t meta[BF_EVENT_META_BYTES_MAX];
        struct bf_leg_row row = what->row;
        row.meta = (struct bf_bytes){(const char *)meta, bf_event_meta_encode(&event->meta, meta)};
        row.fragment = event->fragment;
        row.overrides = event->overrides;
        (void)put_letter(&letter, &row);
    }
    bf_push_case_end(shard, what, BF_STATUS_FAILED, reason);
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static int tell_dead(void *arg, const struct bf_device_row *stored)
{
    const struct letter *letter = arg;
    char text[BF_PUSH_EVENT_BYTES_MAX];
    struct bf_device_row row = *stored;
    row.uid = letter->what->row.uid;
    row.reason = (struct bf_bytes){letter->reason, strlen(letter->reason)};
    size_t len = bf_push_device_event(&row, "dead", bf_wall_ms(), text);
    bf_log_token_event(letter->shard->core->log, row.uid.user, (struct bf_bytes){text, len});
    return 0;
}

static void forget_token(struct bf_shard *shard, struct bf_push_flight *flight, const char *reason)
{
    struct bf_leg_row *row = &flight->what.row;
    struct letter letter = {.shard = shard, .what = &flight->what, .reason = reason};
    if (bf_batch_mark_device_dead(shard->batch, row->uid, &row->endpoint_id, flight->token_hash,
                                  bf_wall_ms(), (struct bf_bytes){reason, strlen(reason)}) != 0)
        return; /* gone, or another token by now */
    (void)bf_store_get_device(shard->core->store, row->uid, &row->endpoint_id, tell_dead, &letter);
    bf_count(BF_CM_M_push_dead_tokens, 1);
}

static void page(struct bf_shard *shard, const struct bf_push_flight *flight,
                 const struct bf_push_verdict *verdict)
{
    bf_count(BF_CM_M_push_alarms, 1);
    if (bf_mono_ms() - shard->push.paged_ms < PAGE_MS)
        return;
    shard->push.paged_ms = bf_mono_ms();
    BF_ERROR("ctrlplane",
             "push: %s refuses (%s, %s): look at the app's credential and at the dead "
             "letters (belfryctl status, belfryctl dlq list --channel push)",
             bf_push_kind_name(flight->kind), bf_push_class_name(verdict->class), verdict->reason);
}

/* What a verdict means for pool, credential and token. */
static void take_flags(struct bf_shard *shard, struct bf_push_flight *flight,
                       const struct bf_push_verdict *verdict)
{
    struct bf_push_pool_state *pool = flight->pool;
    struct bf_push_creds *creds = shard->core->push;
    if (pool)
        bf_breaker_note(&pool->breaker, bf_mono_ms(), verdict->flags & BF_PUSH_F_FAULT);
    if (pool && verdict->flags & BF_PUSH_F_CUT_RATE)
        bf_bucket_cut(&pool->bucket, bf_mono_ms());
    if (pool && verdict->flags & BF_PUSH_F_RENEW)
        bf_push_creds_renew(creds, pool->id);
    if (pool && verdict->flags & BF_PUSH_F_KEEP_TOKEN)
        bf_push_creds_keep(creds, pool->id);
    if (pool && verdict->flags & BF_PUSH_F_STOP_POOL)
        pool->stopped_until_ms = bf_wall_ms() + STOP_MS;
    if (verdict->flags & BF_PUSH_F_FORGET_TOKEN)
        forget_token(shard, flight, verdict->reason);
    if (verdict->flags & BF_PUSH_F_SLOW_DEVICE)
        bf_push_device_slow(&shard->push, &flight->what.row.endpoint_id,
                            bf_wall_ms() + verdict->delay_ms);
    if (verdict->flags & BF_PUSH_F_PAGE)
        page(shard, flight, verdict);
}

static void drop(struct bf_shard *shard, struct bf_push_case *what,
                 const struct bf_push_verdict *verdict)
{
    bool is_letter = verdict->class == BF_PUSH_CLASS_BAD || verdict->class == BF_PUSH_CLASS_AUTH;
    if (is_letter)
        bf_push_case_dead_letter(shard, what, verdict->reason);
    else
        bf_push_case_end(shard, what, BF_STATUS_FAILED, verdict->reason);
}

static void retry(struct bf_shard *shard, struct bf_push_case *what,
                  const struct bf_push_verdict *verdict)
{
    const struct bf_push_retry again = {.attempts = what->row.attempts,
                                        .now_ms = bf_wall_ms(),
                                        .expires_ms = what->row.expires_ms,
                                        .floor_ms = verdict->delay_ms,
                                        .random = bf_push_dice(&shard->push, UINT64_MAX)};
    uint64_t at_ms = bf_push_retry_at(&again);
    if (what->row.attempts >= BF_PUSH_ATTEMPTS_MAX) {
        bf_push_case_dead_letter(shard, what,
                                 "too_many_attempts: the provider refused it every time");
    } else if (at_ms == 0) {
        bf_push_case_end(shard, what, BF_STATUS_EXPIRED, verdict->reason);
    } else {
        put_outcome(shard, &what->row, BF_STATUS_QUEUED, verdict->reason);
        bf_push_case_postpone(shard, what, at_ms, verdict->reason);
        bf_count(BF_CM_M_push_retries, 1);
    }
}

static void take_action(struct bf_shard *shard, struct bf_push_case *what,
                        const struct bf_push_verdict *verdict)
{
    uint64_t wait_ms = verdict->delay_ms + bf_push_dice(&shard->push, verdict->delay_ms + 1000u);
    if (verdict->action != BF_PUSH_HOLD)
        what->row.attempts++;
    switch (verdict->action) {
    case BF_PUSH_DONE:
        bf_push_case_end(shard, what, BF_STATUS_SENT, "");
        break;
    case BF_PUSH_RETRY:
        retry(shard, what, verdict);
        break;
    case BF_PUSH_RETRY_ONCE:
        if (what->row.attempts <= 1)
            retry(shard, what, verdict);
        else
            drop(shard, what, verdict);
        break;
    case BF_PUSH_HOLD:
        put_outcome(shard, &what->row, BF_STATUS_QUEUED, verdict->reason);
        bf_push_case_postpone(shard, what, bf_wall_ms() + wait_ms, verdict->reason);
        break;
    default:
        drop(shard, what, verdict);
        break;
    }
}

/* Nobody here sent it: our predecessor did. What was accepted must not be sent again when its
 * message comes up (push_due.c); everything else is tried again anyway. */
static void take_orphan(struct bf_shard *shard, const struct bf_rcpt_push *answer)
{
    struct bf_id id;
    bool is_accepted =
        answer->end == BF_PUSH_ANSWERED && answer->status >= 200 && answer->status < 300;
    bf_push_census_forget(&shard->core->push_census, answer->push_id);
    bf_count(BF_CM_M_push_orphans, 1);
    if (!is_accepted)
        return;
    bf_push_orphan_id(answer->push_id, &id);
    bf_batch_put_leg_done(shard->batch, &id, bf_wall_ms() + BF_PUSH_DONE_MS);
}

void bf_shard_push_result(struct bf_shard *shard, const struct bf_receipt_msg *msg)
{
    struct bf_rcpt_push answer;
    struct bf_push_verdict verdict;
    memcpy(&answer, msg->bytes, sizeof(answer));
    struct bf_bytes body = {(const char *)msg->bytes + sizeof(answer), msg->len - sizeof(answer)};
    if (body.len > answer.body_len)
        body.len = answer.body_len;
    struct bf_push_flight *flight = bf_push_flight_find(&shard->push, answer.push_id);
    if (!flight) {
        take_orphan(shard, &answer);
        return;
    }
    struct bf_push_context context = {.kind = flight->kind, .registered_ms = flight->registered_ms};
    bf_push_classify(&context, &answer, body, &verdict);
    take_flags(shard, flight, &verdict);
    take_action(shard, &flight->what, &verdict);
    if (answer.end == BF_PUSH_ANSWERED)
        bf_stage_add(BF_STAGE_PUSH, flight->what.row.lane, answer.answer_us);
    settle(shard, &flight->what);
    bf_push_flight_drop(shard, flight);
}

/* ---- landing --------------------------------------------------------------------------------- */

/* What it came to is found out when the row is due: by its done mark, by a census, or by sending.
 */
static void land(struct bf_shard *shard, struct bf_push_flight *flight, bool is_end)
{
    if (flight->what.open || !is_end) /* at the end a row may stay where it is */
        bf_push_case_postpone(shard, &flight->what, bf_wall_ms(), BF_PUSH_NO_RECEIPT);
    settle(shard, &flight->what);
    bf_push_flight_drop(shard, flight);
    if (shard->settling_count >= BF_SHARD_BATCH_MAX / 2)
        bf_shard_commit(shard);
}

void bf_shard_push_land(struct bf_shard *shard)
{
    struct bf_shard_push *push = &shard->push;
    bf_shard_commit(shard); /* what was decided leaves first */
    while (push->oldest)
        land(shard, push->oldest, true);
    push->is_landing = true;
    bf_shard_commit(shard);
}

void bf_shard_push_sweep(struct bf_shard *shard)
{
    struct bf_shard_push *push = &shard->push;
    uint64_t now = bf_mono_ms();
    while (push->oldest && now - push->oldest->sent_ms > BF_PUSH_FLIGHT_MS) {
        bf_count(BF_CM_M_push_lost_receipts, 1);
        land(shard, push->oldest, false);
    }
}

void bf_shard_push_forget(struct bf_shard *shard, struct bf_uid uid)
{
    struct bf_push_flight *next;
    for (struct bf_push_flight *flight = shard->push.oldest; flight; flight = next) {
        next = flight->next;
        if (!bf_bytes_is_equal(flight->what.row.uid.user, uid.user) ||
            !bf_bytes_is_equal(flight->what.row.uid.tenant, uid.tenant))
            continue;
        settle(shard, &flight->what);
        bf_push_flight_drop(shard, flight);
        if (shard->settling_count >= BF_SHARD_BATCH_MAX / 2)
            bf_shard_commit(shard);
    }
}
