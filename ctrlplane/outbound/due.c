/*
 * The queue as its time comes: whatever leaves it is decided again (DESIGN 4.3, 4.7), by the same
 * function as on arrival (decide/decide.h), then goes the way of any offer. See outbound.h.
 */
#include "outbound/impl.h"

#include <string.h>

#include "stats/metrics.h"
#include "belfry/base/err.h"

/* An empty look costs a seek: so often at most, a partition and lane. */
#define LOOK_MS 50u
/* A channel that the table of this node does not have, or that has not started. */
#define NO_CHANNEL_MS 60000u
/* Attempts are looked at for lost receipts so often. */
#define SWEEP_MS 1000u

/* ---- what may have been done already ---- */

static int is_message(void *arg, const struct bf_leg_row *row)
{
    return bf_id_is_equal(arg, &row->message_id);
}

bool bf_outbound_is_queued(struct bf_outbound *o, const struct bf_leg_row *row)
{
    struct bf_id id = row->message_id;
    return bf_store_walk_legs_of(o->turn->store, row->uid, &row->event_id, is_message, &id) == 1;
}

/* A worker that outlived our predecessor has it: we wait for its receipt. */
static bool adopt(struct bf_outbound *o, struct bf_offer *offer, const struct bf_endpoint *endpoint)
{
    struct bf_outstanding *out = bf_outstanding_add(o, offer, endpoint);
    if (!out)
        return false;
    bf_attempt_census_forget(o->node.census, out->attempt.id);
    if (offer->open) /* relaxed: our own leg holds the count above 0 meanwhile */
        atomic_fetch_add_explicit(&offer->open->legs_open, 1, memory_order_relaxed);
    return true;
}

bool bf_outbound_is_known(struct bf_outbound *o, struct bf_offer *offer,
                          const struct bf_endpoint *endpoint)
{
    struct bf_store *store = o->turn->store;
    uint64_t id = bf_attempt_id(&offer->row);
    struct bf_id orphan;
    bf_attempt_orphan_id(id, &orphan);
    if (bf_outstanding_find(o, id))
        return true;
    if (bf_store_is_leg_done(store, &orphan)) { /* answered before its message was known */
        offer->row.attempts++;
        bf_offer_end(o, offer, BF_STATUS_SENT, "");
        return true;
    }
    if (bf_store_is_leg_done(store, &offer->row.message_id)) {
        if (offer->is_row)
            bf_batch_delete_leg(o->turn->batch, &offer->row);
        return true;
    }
    if (!offer->is_row && bf_outbound_is_queued(o, &offer->row))
        return true;
    return bf_attempt_census_has(o->node.census, id) && adopt(o, offer, endpoint);
}

/* ---- a row that is due ---- */

/* A row that is due, and what is looked at with it. */
struct due {
    struct bf_outbound *o;
    const struct bf_channel_ops *ops;
    struct bf_channel_state *channel;
    struct bf_offer offer;
    struct bf_content *content;
    bool is_stuck; /* too much is out: the row stays where it is */
    struct bf_due_facts known;
    struct bf_plan plan;
    char why[BF_WHY_BYTES]; /* its content cannot be read, or names no place */
};

/* An acknowledged message needs no entry for push in the status: its in-app channel shows it. */
static void cancel(struct due *d)
{
    struct bf_turn *turn = d->o->turn;
    struct bf_leg_row *row = &d->offer.row;
    bf_leg_count(BF_LM_cancelled, row->channel, 1);
    if (row->kind != BF_LEG_FALLBACK) {
        bf_offer_end(d->o, &d->offer, BF_STATUS_SUPPRESSED, bf_reason_name(BF_REASON_ACKNOWLEDGED));
        return;
    }
    bf_batch_put_leg_done(turn->batch, &row->message_id, turn->now_ms + BF_LEG_DONE_MS);
    bf_batch_delete_leg(turn->batch, row);
}

/* The end of a row that nobody wants any more. */
static void end(struct due *d, enum bf_reason reason)
{
    switch (reason) {
    case BF_REASON_UNKNOWN_USER: /* erased: nothing of it is written any more */
        bf_batch_delete_leg(d->o->turn->batch, &d->offer.row);
        break;
    case BF_REASON_ACKNOWLEDGED:
    case BF_REASON_ONLINE:
        cancel(d);
        break;
    case BF_REASON_NO_CONTENT:
        bf_offer_dead_letter(d->o, &d->offer, d->why);
        break;
    case BF_REASON_EXPIRED:
        bf_offer_end(d->o, &d->offer, BF_STATUS_EXPIRED, bf_reason_name(reason));
        break;
    case BF_REASON_DEAD_TOKEN:
        bf_offer_end(d->o, &d->offer, BF_STATUS_FAILED, bf_reason_name(reason));
        break;
    default:
        bf_offer_end(d->o, &d->offer, BF_STATUS_SUPPRESSED, bf_reason_name(reason));
        break;
    }
}

static const struct bf_leg_plan *plan_of(const struct due *d)
{
    return &d->plan.leg[d->offer.row.channel];
}

/* Decides by what is known by now. Whether the row has its end. */
static bool is_over(struct due *d)
{
    bf_decide(&d->known.facts, &d->plan);
    if (plan_of(d)->when == BF_NEVER)
        end(d, plan_of(d)->reason);
    return plan_of(d)->when == BF_NEVER;
}

/* After an attach all that was due meanwhile waits until one instant: spread from there. */
static void put_off(struct due *d)
{
    uint64_t jitter = bf_turn_dice(d->o->turn, BF_ATTACH_HOLD_MS);
    bf_offer_postpone(d->o, &d->offer, plan_of(d)->at_ms + jitter, "");
}

/* Its channel is not one of this node's, or not any more. */
static void wait_for_channel(struct due *d)
{
    bf_offer_postpone(d->o, &d->offer, d->o->turn->now_ms + NO_CHANNEL_MS,
                      "no_channel: this node does not have it");
}

/* ---- a fallback becomes a row for each endpoint ---- */

static int queue_endpoint(void *arg, const struct bf_endpoint *endpoint)
{
    struct due *d = arg;
    struct bf_leg_row row = d->offer.row;
    if (endpoint->state != BF_ENDPOINT_LIVE)
        return 0;
    row.kind = BF_LEG_SEND;
    row.endpoint_id = endpoint->id;
    row.not_before_ms = d->o->turn->now_ms;
    bf_leg_message_id(&row);
    bf_outbound_put(d->o, &row);
    bf_leg_count(BF_LM_queued, row.channel, 1);
    bf_funnel_count(BF_FUNNEL_FANNED_OUT, row.lane, (enum bf_channel)row.channel, 1);
    return 0;
}

static void expand(struct due *d)
{
    struct bf_turn *turn = d->o->turn;
    struct bf_leg_row *row = &d->offer.row;
    bf_batch_put_leg_done(turn->batch, &row->message_id, turn->now_ms + BF_LEG_DONE_MS);
    bf_batch_delete_leg(turn->batch, row);
    d->ops->endpoints(d->channel, turn, row->uid, queue_endpoint, d);
    bf_leg_count(BF_LM_fallbacks, row->channel, 1);
}

/* ---- to its endpoint ---- */

/* Why nothing may go to the endpoint; BF_REASON_NONE: it may. */
static enum bf_reason state_of(const struct bf_endpoint *endpoint)
{
    static const enum bf_reason reasons[] = {
        [BF_ENDPOINT_LIVE] = BF_REASON_NONE,
        [BF_ENDPOINT_DEAD] = BF_REASON_DEAD_TOKEN,
        [BF_ENDPOINT_STALE] = BF_REASON_STALE_DEVICE,
    };
    return reasons[endpoint->state];
}

static int send_to(void *arg, const struct bf_endpoint *endpoint)
{
    struct due *d = arg;
    struct bf_leg_row *row = &d->offer.row;
    bool may_be_out = row->not_before_ms <= d->o->attached_ms || row->flags & BF_LEG_MAY_BE_OUT;
    d->known.subject.endpoint = state_of(endpoint);
    if (d->known.subject.endpoint != BF_REASON_NONE && is_over(d))
        return 0;
    if (!may_be_out || !bf_outbound_is_known(d->o, &d->offer, endpoint))
        d->is_stuck = !bf_outbound_send(d->o, &d->offer, endpoint, d->content);
    return 0;
}

static void to_endpoint(struct due *d)
{
    struct bf_leg_row *row = &d->offer.row;
    int rc = d->ops->endpoint(d->channel, d->o->turn, row, d->content, send_to, d, d->why);
    if (rc == 0)
        return;
    if (rc == BF_ERR_MALFORMED)
        d->known.subject.unreadable = (uint8_t)(1u << row->channel);
    else
        d->known.subject.endpoint = BF_REASON_DEVICE_DELETED;
    (void)is_over(d);
}

static bool open_content(struct due *d)
{
    struct bf_turn *turn = d->o->turn;
    struct bf_leg_row *row = &d->offer.row;
    const struct bf_content_source source = {.message_id = row->message_id,
                                             .lane = row->lane,
                                             .tenant = row->uid.tenant,
                                             .now_ms = turn->now_ms,
                                             .expires_ms = row->expires_ms,
                                             .fragment = row->fragment,
                                             .overrides = row->overrides};
    if (d->ops->open(d->channel, &source, &d->content, d->why) != 0)
        return false;
    d->content->has_unread = !bf_leg_is_nobodys(row);
    if (d->content->has_unread)
        d->content->unread = d->o->node.host->unread(turn, row);
    return true;
}

/* What costs more than memory is looked at only of a row that is still wanted by then. */
static void take_row(struct due *d)
{
    struct bf_leg_row *row = &d->offer.row;
    d->o->node.host->gather(d->o->turn, row, &d->known);
    if (is_over(d)) /* whatever else is found out about it */
        return;
    if (plan_of(d)->when == BF_LATER) {
        put_off(d);
    } else if (!d->channel) {
        wait_for_channel(d);
    } else if (!open_content(d)) {
        d->known.subject.unreadable = (uint8_t)(1u << row->channel);
        (void)is_over(d);
    } else {
        if (row->kind == BF_LEG_FALLBACK)
            expand(d);
        else
            to_endpoint(d);
        d->ops->close(d->content);
    }
}

/* ---- the scan ---- */

struct walk {
    struct bf_outbound *o;
    struct bf_due_place *place;
    uint64_t now_ms;
    uint32_t rows; /* looked at, of all places of the lane */
};

static int take_due(void *arg, const struct bf_leg_row *row)
{
    struct walk *w = arg;
    struct bf_outbound *o = w->o;
    struct due d = {.o = o,
                    .ops = bf_channel_ops_of(row->channel),
                    .channel = bf_outbound_channel(o, row->channel),
                    .offer = {.row = *row, .is_row = true}};
    if (bf_outstanding_of(o, row)) {
        w->place->cursor_ms = row->not_before_ms; /* its end puts it elsewhere, or deletes it */
        return 0;
    }
    if (w->rows++ >= BF_DUE_ROWS_PER_TURN)
        return 1;
    take_row(&d);
    if (d.is_stuck)
        return 1;
    w->place->cursor_ms = row->not_before_ms;
    if (o->wants_commit)
        o->node.host->commit(o->turn);
    return 0;
}

void bf_due_note(struct bf_outbound *o, const struct bf_leg_row *row)
{
    struct bf_due_place *place = &o->places[row->lane][row->partition];
    uint64_t at_ms = row->not_before_ms;
    if (at_ms < place->cursor_ms)
        place->cursor_ms = at_ms;
    if (at_ms < place->low_ms)
        place->low_ms = at_ms;
    if (at_ms < place->look_ms)
        place->look_ms = at_ms;
    if (at_ms < o->look_ms[row->lane])
        o->look_ms[row->lane] = at_ms;
}

void bf_outbound_moved(struct bf_outbound *o, const struct bf_leg_row *was,
                       const struct bf_leg_row *is)
{
    struct bf_outstanding *out = bf_outstanding_of(o, was);
    bf_due_note(o, is);
    o->wants_commit |= is->collapse != 0;
    if (!out || !out->offer.is_row)
        return;
    out->offer.row.endpoint_id = is->endpoint_id;
    out->offer.row.message_id = is->message_id;
    o->renamed_count += !out->is_renamed;
    out->is_renamed = true;
}

/* What is due in one partition's lane. What is put meanwhile lowers the place, and stays below what
 * this scan, which does not see it, would make of it. */
static int look_at(struct bf_outbound *o, enum bf_lane lane, uint32_t partition, struct walk *w)
{
    struct bf_due_place *place = &o->places[lane][partition];
    uint64_t look_ms = w->now_ms + LOOK_MS, next_ms = 0;
    w->place = place;
    place->look_ms = place->low_ms = UINT64_MAX;
    int rc = bf_store_walk_due(o->turn->store, (uint8_t)partition, lane, place->cursor_ms,
                               w->now_ms, take_due, w, &next_ms);
    if (rc == 0) /* all that was due is on its way: the next walk need not step over its marks of
                  * deletion again */
        place->cursor_ms = w->now_ms;
    if (rc == 0 && next_ms > look_ms)
        look_ms = next_ms;
    if (rc > 0)
        look_ms = w->now_ms; /* there is more */
    if (place->low_ms < place->cursor_ms)
        place->cursor_ms = place->low_ms;
    if (look_ms < place->look_ms)
        place->look_ms = look_ms;
    return rc;
}

/* The partitions of the shard in turn, each beginning where the last turn ended: one that is full
 * of due rows keeps no other waiting. */
static void run_lane(struct bf_outbound *o, enum bf_lane lane)
{
    struct bf_turn *turn = o->turn;
    struct walk w = {.o = o, .now_ms = turn->now_ms};
    uint32_t partition = o->first[lane];
    bool is_full = false;
    if (w.now_ms < o->look_ms[lane])
        return;
    if (bf_batch_count(turn->batch) > 0)
        o->node.host->commit(turn); /* the scan must see what lowered its place */
    o->look_ms[lane] = UINT64_MAX;
    for (uint32_t p = o->index; p < o->node.partitions; p += o->node.shards) {
        struct bf_due_place *place = &o->places[lane][partition];
        uint32_t next =
            partition + o->node.shards < o->node.partitions ? partition + o->node.shards : o->index;
        if (!is_full && place->look_ms <= w.now_ms) {
            is_full = look_at(o, lane, partition, &w) > 0;
            o->first[lane] = next;
        }
        if (place->look_ms < o->look_ms[lane])
            o->look_ms[lane] = place->look_ms;
        partition = next;
    }
    if (w.rows > 0)
        o->node.host->commit(turn);
}

void bf_outbound_run(struct bf_outbound *o)
{
    uint64_t now = o->turn->mono_ms;
    if (o->is_stopping || !o->channels)
        return;
    if (now - o->swept_ms >= SWEEP_MS) {
        o->swept_ms = now;
        bf_outbound_sweep(o);
    }
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        run_lane(o, (enum bf_lane)lane);
}

void bf_outbound_attached(struct bf_outbound *o, bool is_new)
{
    o->attached_ms = o->turn->now_ms;
    o->presence_from_ms = is_new ? o->attached_ms + BF_ATTACH_HOLD_MS : 0;
    o->is_stopping = false;
    memset(o->places, 0, sizeof(o->places)); /* from the beginning: what was out may be there */
    memset(o->look_ms, 0, sizeof(o->look_ms));
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        o->first[lane] = o->index;
}

/* ---- fallbacks of who has gone ---- */

struct gone {
    struct bf_outbound *o;
    uint64_t due_ms;
};

static int hurry(void *arg, const struct bf_leg_row *row)
{
    const struct gone *gone = arg;
    struct bf_leg_row sooner = *row;
    if (row->kind != BF_LEG_FALLBACK || row->not_before_ms <= gone->due_ms)
        return 0;
    sooner.not_before_ms = gone->due_ms;
    bf_outbound_put(gone->o, &sooner);
    return 0;
}

void bf_outbound_hurry(struct bf_outbound *o, struct bf_uid uid)
{
    struct gone gone = {.o = o, .due_ms = o->turn->now_ms + BF_FALLBACK_GONE_MS};
    (void)bf_store_walk_legs_of(o->turn->store, uid, NULL, hurry, &gone);
}
