/*
 * Ends: what becomes of an offer that was answered, refused, given back, or that waits. Everything
 * goes into the turn's batch; the event of an attempt settles when it is written. See outbound.h.
 */
#include "outbound/impl.h"

#include <stdlib.h>
#include <string.h>

#include "stats/metrics.h"
#include "belfry/base/bug.h"
#include "belfry/base/text.h"
#include "belfry/conf/conf.h"
#include "log/log.h"
#include "outbound/letter.h"

/* The text of a dead letter beside the notification and its overrides. */
#define LETTER_BYTES 2048u

/* ---- settling and rows ---- */

bool bf_offer_settle(struct bf_outbound *o, struct bf_offer *offer)
{
    struct bf_open_event *open = offer->open;
    offer->open = NULL;
    return open && o->node.host->settle(o->turn, open);
}

static int exists(void *arg, const struct bf_leg_row *row)
{
    (void)arg, (void)row;
    return 0;
}

static void delete_row(struct bf_outbound *o, const struct bf_offer *offer)
{
    /* an acknowledgement or an erasure may have taken it meanwhile */
    if (offer->is_row && bf_store_get_leg(o->turn->store, &offer->row, exists, NULL) == 0)
        bf_batch_delete_leg(o->turn->batch, &offer->row);
}

void bf_offer_note(struct bf_outbound *o, const struct bf_leg_row *row, enum bf_status status,
                   const char *reason)
{
    uint64_t now = o->turn->now_ms;
    const struct bf_outcome outcome = {
        .event_id = row->event_id,
        .uid = row->uid,
        .channel = row->channel,
        .endpoint = row->endpoint_id, /* attempts at several endpoints stand beside each other */
        .attempt = (uint16_t)row->attempts,
        .status = (uint8_t)status,
        .at_ms = now,
        .expires_ms = now + (uint64_t)o->turn->conf->status_ttl_s * 1000,
        .reason = {reason, strlen(reason)},
    };
    bf_batch_put_outcome(o->turn->batch, &outcome);
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
        bf_funnel_count((enum bf_funnel)stages[status], row->lane, (enum bf_channel)row->channel,
                        1);
}

void bf_offer_end(struct bf_outbound *o, struct bf_offer *offer, enum bf_status status,
                  const char *reason)
{
    bf_offer_note(o, &offer->row, status, reason);
    bf_batch_put_leg_done(o->turn->batch, &offer->row.message_id, o->turn->now_ms + BF_LEG_DONE_MS);
    delete_row(o, offer);
    count_end(&offer->row, status);
}

/* ---- the queue ---- */

void bf_outbound_put(struct bf_outbound *o, const struct bf_leg_row *row)
{
    struct bf_leg_row placed = *row;
    placed.partition = bf_store_partition_of(o->turn->store, row->uid);
    BF_BUG_ON(placed.partition % o->node.shards != o->index);
    bf_batch_put_leg(o->turn->batch, &placed);
    o->wants_commit |= row->collapse != 0;
    bf_due_note(o, &placed);
}

/* A row as it lies in the store, put again with another time. */
struct again {
    struct bf_outbound *o;
    struct bf_offer *offer;
    uint64_t not_before_ms;
    struct bf_bytes reason;
};

static uint32_t flags_of(struct bf_bytes reason)
{
    return bf_bytes_is_equal(reason, BF_BYTES(BF_NO_RECEIPT)) ? BF_LEG_MAY_BE_OUT : 0;
}

static int put_again(void *arg, const struct bf_leg_row *stored)
{
    const struct again *again = arg;
    struct bf_leg_row row = *stored;
    row.not_before_ms = again->not_before_ms;
    row.attempts = again->offer->row.attempts;
    row.reason = again->reason;
    row.flags = (row.flags & ~BF_LEG_MAY_BE_OUT) | flags_of(again->reason);
    bf_outbound_put(again->o, &row);
    return 0;
}

/* The row of an offer that an event keeps says all that the event said. Its meta goes into |meta|.
 */
static struct bf_leg_row row_of_event(const struct bf_offer *offer,
                                      uint8_t meta[BF_EVENT_META_BYTES_MAX])
{
    const struct bf_event *event = offer->open->event;
    struct bf_leg_row row = offer->row;
    row.type = event->type;
    row.category = event->category;
    row.topic = event->topic;
    row.meta = (struct bf_bytes){(const char *)meta, bf_event_meta_encode(&event->meta, meta)};
    row.fragment = event->fragment;
    row.overrides = event->overrides;
    return row;
}

static void put_first(const struct again *again)
{
    uint8_t meta[BF_EVENT_META_BYTES_MAX];
    struct bf_leg_row row = row_of_event(again->offer, meta);
    row.not_before_ms = again->not_before_ms;
    row.reason = again->reason;
    row.flags = flags_of(again->reason);
    bf_outbound_put(again->o, &row);
    bf_leg_count(BF_LM_queued, row.channel, 1);
}

void bf_offer_postpone(struct bf_outbound *o, struct bf_offer *offer, uint64_t not_before_ms,
                       const char *reason)
{
    struct again again = {
        .o = o, .offer = offer, .not_before_ms = not_before_ms, .reason = {reason, strlen(reason)}};
    struct bf_store *store = o->turn->store;
    char full[BF_WHY_BYTES];
    if (not_before_ms >= offer->row.expires_ms) {
        bf_offer_end(o, offer, BF_STATUS_EXPIRED, reason);
    } else if (offer->is_row) {
        (void)bf_store_get_leg(store, &offer->row, put_again, &again); /* gone: cancelled */
    } else if (bf_store_leg_depth(store, offer->row.channel, offer->row.lane) >=
               BF_QUEUE_ROWS_MAX) {
        bf_format(full, sizeof(full), "queue_full: the %s queue of this lane is full",
                  bf_channel_name((enum bf_channel)offer->row.channel));
        bf_offer_dead_letter(o, offer, full);
    } else {
        put_first(&again);
    }
}

/* ---- dead letters ---- */

struct letter {
    struct bf_outbound *o;
    const char *reason;
};

static int put_letter(void *arg, const struct bf_leg_row *row)
{
    const struct letter *letter = arg;
    struct bf_turn *turn = letter->o->turn;
    size_t cap = row->fragment.len + row->overrides.len + LETTER_BYTES;
    uint8_t *text = malloc(cap);
    if (!text)
        return 0; /* its outcome says as much */
    struct bf_dlq_row dead = {
        .at_ms = turn->now_ms,
        .event_id = row->event_id,
        .channel = row->channel,
        .reason = {letter->reason, strlen(letter->reason)},
        .meta = row->meta,
        .body = {(const char *)text, bf_letter_write(row, text, cap)},
    };
    dead.tag = bf_dlq_tag(dead.body);
    bf_batch_put_dlq(turn->batch, &dead);
    bf_log_dead_letter(turn->log, row->uid.user, dead.body, dead.reason, (struct bf_bytes){0});
    bf_leg_count(BF_LM_dead_lettered, row->channel, 1);
    free(text);
    return 0;
}

void bf_offer_dead_letter(struct bf_outbound *o, struct bf_offer *offer, const char *reason)
{
    struct letter letter = {.o = o, .reason = reason};
    if (offer->is_row) {
        (void)bf_store_get_leg(o->turn->store, &offer->row, put_letter, &letter);
    } else {
        uint8_t meta[BF_EVENT_META_BYTES_MAX];
        struct bf_leg_row row = row_of_event(offer, meta);
        (void)put_letter(&letter, &row);
    }
    bf_offer_end(o, offer, BF_STATUS_FAILED, reason);
}
