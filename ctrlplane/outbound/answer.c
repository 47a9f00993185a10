/*
 * What a provider's answer means: its verdict, and what follows for message, endpoint and pool. See
 * outbound.h.
 */
#include "outbound/impl.h"

#include <string.h>

#include "stats/metrics.h"
#include "belfry/base/log.h"

/* People are told of what needs them at most so often, a shard. */
#define PAGE_MS 10000u
/* A credential that was refused for good is tried again after so long. */
#define STOP_MS 3600000u

static void page(struct bf_outbound *o, const struct bf_outstanding *out,
                 const struct bf_verdict *verdict)
{
    uint8_t channel = out->offer.row.channel;
    const char *name = bf_channel_name((enum bf_channel)channel);
    bf_leg_count(BF_LM_alarms, channel, 1);
    if (o->turn->mono_ms - o->paged_ms < PAGE_MS)
        return;
    o->paged_ms = o->turn->mono_ms;
    BF_ERROR("ctrlplane",
             "%s: %s refuses (%s, %s): look at the app's credential and at the dead "
             "letters (belfryctl status, belfryctl dlq list --channel %s)",
             name, bf_channel_ops_of(channel)->kind_name(out->attempt.kind),
             bf_class_name(verdict->class), verdict->reason, name);
}

/* What a verdict means for pool and endpoint. */
static void take_flags(struct bf_outbound *o, struct bf_outstanding *out,
                       const struct bf_verdict *verdict)
{
    struct bf_turn *turn = o->turn;
    struct bf_pool *pool = out->pool;
    const struct bf_channel_ops *ops = bf_channel_ops_of(out->offer.row.channel);
    if (pool)
        bf_breaker_note(&pool->breaker, turn->mono_ms, verdict->flags & BF_VERDICT_FAULT);
    if (pool && verdict->flags & BF_VERDICT_CUT_RATE)
        bf_bucket_cut(&pool->bucket, turn->mono_ms);
    if (pool && verdict->flags & BF_VERDICT_STOP_POOL)
        pool->stopped_until_ms = turn->now_ms + STOP_MS;
    if (ops->heed)
        ops->heed(bf_outbound_channel(o, out->offer.row.channel), turn, &out->attempt, verdict);
    if (verdict->flags & BF_VERDICT_SLOW_ENDPOINT)
        bf_endpoint_slow(o, &out->offer.row.endpoint_id, turn->now_ms + verdict->delay_ms);
    if (verdict->flags & BF_VERDICT_PAGE)
        page(o, out, verdict);
}

static void drop(struct bf_outbound *o, struct bf_offer *offer, const struct bf_verdict *verdict)
{
    bool is_letter = verdict->class == BF_CLASS_BAD || verdict->class == BF_CLASS_AUTH;
    if (is_letter)
        bf_offer_dead_letter(o, offer, verdict->reason);
    else
        bf_offer_end(o, offer, BF_STATUS_FAILED, verdict->reason);
}

static void retry(struct bf_outbound *o, struct bf_offer *offer, const struct bf_verdict *verdict)
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
        bf_leg_count(BF_LM_retries, offer->row.channel, 1);
    }
}

static void take_action(struct bf_outbound *o, struct bf_offer *offer,
                        const struct bf_verdict *verdict)
{
    uint64_t wait_ms = verdict->delay_ms + bf_turn_dice(o->turn, verdict->delay_ms + 1000u);
    if (verdict->action != BF_ACTION_HOLD)
        offer->row.attempts++;
    switch (verdict->action) {
    case BF_ACTION_DONE:
        bf_offer_end(o, offer, BF_STATUS_SENT, "");
        break;
    case BF_ACTION_RETRY:
        retry(o, offer, verdict);
        break;
    case BF_ACTION_RETRY_ONCE:
        if (offer->row.attempts <= 1)
            retry(o, offer, verdict);
        else
            drop(o, offer, verdict);
        break;
    case BF_ACTION_HOLD:
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
static void take_orphan(struct bf_outbound *o, const struct bf_provider_answer *answer)
{
    struct bf_id id;
    bool is_accepted = answer->end == BF_ANSWERED && answer->status >= 200 && answer->status < 300;
    bf_attempt_census_forget(o->node.census, answer->attempt);
    bf_leg_count(BF_LM_orphans, answer->channel, 1);
    if (!is_accepted)
        return;
    bf_attempt_orphan_id(answer->attempt, &id);
    bf_batch_put_leg_done(o->turn->batch, &id, o->turn->now_ms + BF_LEG_DONE_MS);
}

void bf_outbound_answer(struct bf_outbound *o, const struct bf_provider_answer *answer)
{
    struct bf_verdict verdict;
    struct bf_outstanding *out = bf_outstanding_find(o, answer->attempt);
    if (!out) {
        take_orphan(o, answer);
        return;
    }
    const struct bf_leg_row *row = &out->offer.row;
    bf_channel_ops_of(row->channel)->classify(&out->attempt, answer, &verdict);
    take_flags(o, out, &verdict);
    take_action(o, &out->offer, &verdict);
    if (answer->end == BF_ANSWERED)
        bf_answer_add((enum bf_channel)row->channel, row->lane, answer->answer_us);
    (void)bf_offer_settle(o, &out->offer); /* one a message of the shard: there is room */
    bf_outstanding_drop(o, out);
}

/* ---- without an answer ---- */

/* What it came to is found out when the row is due: by its done mark, by a census, or by sending.
 */
static void give_back(struct bf_outbound *o, struct bf_outstanding *out, bool is_end)
{
    if (out->offer.open || !is_end) /* at the end a row may stay where it is */
        bf_offer_postpone(o, &out->offer, o->turn->now_ms, BF_NO_RECEIPT);
    bool is_full = bf_offer_settle(o, &out->offer);
    bf_outstanding_drop(o, out);
    if (is_full)
        o->node.host->commit(o->turn);
}

void bf_outbound_requeue(struct bf_outbound *o)
{
    o->node.host->commit(o->turn); /* what was decided leaves first */
    while (o->oldest)
        give_back(o, o->oldest, true);
    o->is_stopping = true;
    o->node.host->commit(o->turn);
}

void bf_outbound_sweep(struct bf_outbound *o)
{
    while (o->oldest && o->turn->mono_ms - o->oldest->sent_ms > BF_ATTEMPT_MS) {
        bf_leg_count(BF_LM_lost_receipts, o->oldest->offer.row.channel, 1);
        give_back(o, o->oldest, false);
    }
}

void bf_outbound_forget(struct bf_outbound *o, struct bf_uid uid)
{
    struct bf_outstanding *next;
    for (struct bf_outstanding *out = o->oldest; out; out = next) {
        next = out->next;
        if (!bf_bytes_is_equal(out->offer.row.uid.user, uid.user) ||
            !bf_bytes_is_equal(out->offer.row.uid.tenant, uid.tenant))
            continue;
        bool is_full = bf_offer_settle(o, &out->offer);
        bf_outstanding_drop(o, out);
        if (is_full)
            o->node.host->commit(o->turn);
    }
}
