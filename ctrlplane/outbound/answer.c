/*
 * What a provider's answer means: its verdict, and what follows for message, endpoint and pool. See
 * outbound.h.
 */
#include "outbound/impl.h"

#include <string.h>

#include "admin/metrics.h"
#include "belfry/base/log.h"
#include "log/log.h"

/* People are told of what needs them at most so often, a shard. */
#define PAGE_MS 10000u
/* A credential refused for good is tried again after an hour (channels/push/push.h). */
#define STOP_MS 3600000u

struct dead {
    struct bf_outbound *o;
    const struct bf_attempt *attempt;
    const char *reason;
};

static int tell_dead(void *arg, const struct bf_device_row *stored)
{
    const struct dead *dead = arg;
    char text[BF_PUSH_EVENT_BYTES_MAX];
    struct bf_device_row row = *stored;
    row.uid = dead->attempt->offer.row.uid;
    row.reason = (struct bf_bytes){dead->reason, strlen(dead->reason)};
    size_t len = bf_push_device_event(&row, "dead", dead->o->turn->now_ms, text);
    bf_log_token_event(dead->o->turn->log, row.uid.user, (struct bf_bytes){text, len});
    return 0;
}

static void forget_token(struct bf_outbound *o, struct bf_attempt *attempt, const char *reason)
{
    struct bf_leg_row *row = &attempt->offer.row;
    struct dead dead = {.o = o, .attempt = attempt, .reason = reason};
    if (bf_batch_mark_device_dead(o->turn->batch, row->uid, &row->endpoint_id, attempt->token_hash,
                                  o->turn->now_ms, (struct bf_bytes){reason, strlen(reason)}) != 0)
        return; /* gone, or another token by now */
    (void)bf_store_get_device(o->turn->store, row->uid, &row->endpoint_id, tell_dead, &dead);
    bf_count(BF_CM_M_push_dead_tokens, 1);
}

static void page(struct bf_outbound *o, const struct bf_attempt *attempt,
                 const struct bf_push_verdict *verdict)
{
    bf_count(BF_CM_M_push_alarms, 1);
    if (o->turn->mono_ms - o->paged_ms < PAGE_MS)
        return;
    o->paged_ms = o->turn->mono_ms;
    BF_ERROR("ctrlplane",
             "push: %s refuses (%s, %s): look at the app's credential and at the dead "
             "letters (belfryctl status, belfryctl dlq list --channel push)",
             bf_push_kind_name(attempt->kind), bf_push_class_name(verdict->class), verdict->reason);
}

/* What a verdict means for pool, credential and token. */
static void take_flags(struct bf_outbound *o, struct bf_attempt *attempt,
                       const struct bf_push_verdict *verdict)
{
    struct bf_pool *pool = attempt->pool;
    struct bf_push_creds *creds = o->push;
    if (pool)
        bf_breaker_note(&pool->breaker, o->turn->mono_ms, verdict->flags & BF_PUSH_F_FAULT);
    if (pool && verdict->flags & BF_PUSH_F_CUT_RATE)
        bf_bucket_cut(&pool->bucket, o->turn->mono_ms);
    if (pool && verdict->flags & BF_PUSH_F_RENEW)
        bf_push_creds_renew(creds, pool->id);
    if (pool && verdict->flags & BF_PUSH_F_KEEP_TOKEN)
        bf_push_creds_keep(creds, pool->id);
    if (pool && verdict->flags & BF_PUSH_F_STOP_POOL)
        pool->stopped_until_ms = o->turn->now_ms + STOP_MS;
    if (verdict->flags & BF_PUSH_F_FORGET_TOKEN)
        forget_token(o, attempt, verdict->reason);
    if (verdict->flags & BF_PUSH_F_SLOW_DEVICE)
        bf_endpoint_slow(o, &attempt->offer.row.endpoint_id, o->turn->now_ms + verdict->delay_ms);
    if (verdict->flags & BF_PUSH_F_PAGE)
        page(o, attempt, verdict);
}

static void drop(struct bf_outbound *o, struct bf_offer *offer,
                 const struct bf_push_verdict *verdict)
{
    bool is_letter = verdict->class == BF_PUSH_CLASS_BAD || verdict->class == BF_PUSH_CLASS_AUTH;
    if (is_letter)
        bf_offer_dead_letter(o, offer, verdict->reason);
    else
        bf_offer_end(o, offer, BF_STATUS_FAILED, verdict->reason);
}

static void retry(struct bf_outbound *o, struct bf_offer *offer,
                  const struct bf_push_verdict *verdict)
{
    const struct bf_retry again = {.attempts = offer->row.attempts,
                                   .now_ms = o->turn->now_ms,
                                   .expires_ms = offer->row.expires_ms,
                                   .floor_ms = verdict->delay_ms,
                                   .random = bf_turn_dice(o->turn, UINT64_MAX)};
    uint64_t at_ms = bf_retry_at(&again);
    if (offer->row.attempts >= BF_ATTEMPTS_MAX) {
        bf_offer_dead_letter(o, offer, "too_many_attempts: the provider refused it every time");
    } else if (at_ms == 0) {
        bf_offer_end(o, offer, BF_STATUS_EXPIRED, verdict->reason);
    } else {
        bf_offer_note(o, &offer->row, BF_STATUS_QUEUED, verdict->reason);
        bf_offer_postpone(o, offer, at_ms, verdict->reason);
        bf_count(BF_CM_M_push_retries, 1);
    }
}

static void take_action(struct bf_outbound *o, struct bf_offer *offer,
                        const struct bf_push_verdict *verdict)
{
    uint64_t wait_ms = verdict->delay_ms + bf_turn_dice(o->turn, verdict->delay_ms + 1000u);
    if (verdict->action != BF_PUSH_HOLD)
        offer->row.attempts++;
    switch (verdict->action) {
    case BF_PUSH_DONE:
        bf_offer_end(o, offer, BF_STATUS_SENT, "");
        break;
    case BF_PUSH_RETRY:
        retry(o, offer, verdict);
        break;
    case BF_PUSH_RETRY_ONCE:
        if (offer->row.attempts <= 1)
            retry(o, offer, verdict);
        else
            drop(o, offer, verdict);
        break;
    case BF_PUSH_HOLD:
        bf_offer_note(o, &offer->row, BF_STATUS_QUEUED, verdict->reason);
        bf_offer_postpone(o, offer, o->turn->now_ms + wait_ms, verdict->reason);
        break;
    default:
        drop(o, offer, verdict);
        break;
    }
}

/* Nobody here sent it: our predecessor did. What was accepted must not be sent again when its
 * message comes up (due.c); everything else is tried again anyway. */
static void take_orphan(struct bf_outbound *o, const struct bf_rcpt_push *answer)
{
    struct bf_id id;
    bool is_accepted =
        answer->end == BF_PUSH_ANSWERED && answer->status >= 200 && answer->status < 300;
    bf_attempt_census_forget(o->census, answer->push_id);
    bf_count(BF_CM_M_push_orphans, 1);
    if (!is_accepted)
        return;
    bf_attempt_orphan_id(answer->push_id, &id);
    bf_batch_put_leg_done(o->turn->batch, &id, o->turn->now_ms + BF_LEG_DONE_MS);
}

void bf_outbound_answer(struct bf_outbound *o, const struct bf_rcpt_push *answer,
                        struct bf_bytes body)
{
    struct bf_push_verdict verdict;
    struct bf_attempt *attempt = bf_attempt_find(o, answer->push_id);
    if (!attempt) {
        take_orphan(o, answer);
        return;
    }
    struct bf_push_context context = {.kind = attempt->kind,
                                      .registered_ms = attempt->registered_ms};
    bf_push_classify(&context, answer, body, &verdict);
    take_flags(o, attempt, &verdict);
    take_action(o, &attempt->offer, &verdict);
    if (answer->end == BF_PUSH_ANSWERED)
        bf_stage_add(BF_STAGE_PUSH, attempt->offer.row.lane, answer->answer_us);
    (void)bf_offer_settle(o, &attempt->offer); /* one a message of the shard: there is room */
    bf_attempt_drop(o, attempt);
}

/* ---- without an answer ----------------------------------------------------------------------- */

/* What it came to is found out when the row is due: by its done mark, by a census, or by sending.
 */
static void give_back(struct bf_outbound *o, struct bf_attempt *attempt, bool is_end)
{
    if (attempt->offer.open || !is_end) /* at the end a row may stay where it is */
        bf_offer_postpone(o, &attempt->offer, o->turn->now_ms, BF_NO_RECEIPT);
    bool is_full = bf_offer_settle(o, &attempt->offer);
    bf_attempt_drop(o, attempt);
    if (is_full)
        o->turn->ops->commit(o->turn);
}

void bf_outbound_requeue(struct bf_outbound *o)
{
    o->turn->ops->commit(o->turn); /* what was decided leaves first */
    while (o->oldest)
        give_back(o, o->oldest, true);
    o->is_landing = true;
    o->turn->ops->commit(o->turn);
}

void bf_outbound_sweep(struct bf_outbound *o)
{
    while (o->oldest && o->turn->mono_ms - o->oldest->sent_ms > BF_ATTEMPT_MS) {
        bf_count(BF_CM_M_push_lost_receipts, 1);
        give_back(o, o->oldest, false);
    }
}

void bf_outbound_forget(struct bf_outbound *o, struct bf_uid uid)
{
    struct bf_attempt *next;
    for (struct bf_attempt *attempt = o->oldest; attempt; attempt = next) {
        next = attempt->next;
        if (!bf_bytes_is_equal(attempt->offer.row.uid.user, uid.user) ||
            !bf_bytes_is_equal(attempt->offer.row.uid.tenant, uid.tenant))
            continue;
        bool is_full = bf_offer_settle(o, &attempt->offer);
        bf_attempt_drop(o, attempt);
        if (is_full)
            o->turn->ops->commit(o->turn);
    }
}
