/*
 * The push leg of a plan: nothing, a row of the queue that follows the in-app message, or a push to
 * each device. Rows go into the turn's batch; requests leave once it is written. See
 * outbound/outbound.h for what becomes of them then.
 */
#include "fanout/shard.h"

#include <string.h>

#include "stats/metrics.h"
#include "channels/push/push_note.h"
#include "belfry/shm/push_wire.h"
#include "fanout/core_state.h"
#include "fanout/gather.h"

/* Why a stale event's pushes are dead letters (decide/stale.c). */
#define STALE "stale: older than fanout.event_max_age when it was worked on; the inbox has it"

struct push_leg {
    struct bf_shard *shard;
    const struct bf_gathered_leg *g;
    struct bf_leg_row row; /* what all devices' pushes share */
    enum bf_reason reason;
    bool is_repeat; /* nothing in-app tells the first time from a replay: what was done is not done
                     * again */
    bool has_badge;
    bool is_told; /* that the text cannot be read */
};

static struct bf_offer offer_of(const struct push_leg *p)
{
    return (struct bf_offer){.row = p->row, .open = p->g->leg->open};
}

/* The row is of the person from now on: a fallback, or an end that no device had a part in. */
static void name_person(struct push_leg *p)
{
    p->row.kind = BF_LEG_FALLBACK;
    p->row.endpoint_id = (struct bf_id){0};
    bf_leg_message_id(&p->row);
}

/* The row is one device's from now on. */
static void name_device(struct push_leg *p, const struct bf_id *device)
{
    p->row.kind = BF_LEG_SEND;
    p->row.endpoint_id = *device;
    bf_leg_message_id(&p->row);
}

static struct push_leg leg_of(struct bf_shard *shard, const struct bf_gathered_leg *g,
                              const struct bf_plan *plan, uint64_t seq)
{
    const struct bf_event *event = g->leg->open->event;
    uint64_t from_ms = event->created_ms;
    struct push_leg p = {.shard = shard,
                         .g = g,
                         .reason = plan->leg[BF_CHANNEL_PUSH].reason,
                         .is_repeat = !plan->in_inbox};
    if (bf_facts_is_stale(&g->facts))
        from_ms = g->facts.now_ms; /* the default has passed: a redrive has a day of its own */
    p.row = (struct bf_leg_row){
        .lane = event->lane,
        .channel = BF_CHANNEL_PUSH,
        .kind = BF_LEG_FALLBACK,
        .partition = bf_store_partition_of(shard->core->store, g->leg->uid),
        .uid = g->leg->uid,
        .event_id = event->id,
        .created_ms = event->created_ms,
        .expires_ms = event->expires_ms ? event->expires_ms : from_ms + BF_PUSH_TTL_DEFAULT_MS,
        .seq = bf_follows_inapp(&g->facts) ? seq : 0,
        .collapse = event->collapse_key.len > 0
                        ? XXH3_64bits(event->collapse_key.at, event->collapse_key.len) | 1u
                        : 0,
        .type = event->type,
        .category = event->category,
        .topic = event->topic,
    };
    bf_leg_message_id(&p.row);
    return p;
}

/* ---- one device ---- */

/* Whether the person's pushes were suppressed when the event came first: that was their end. */
static bool was_suppressed(struct push_leg *p)
{
    name_person(p);
    return bf_store_is_leg_done(p->shard->core->store, &p->row.message_id);
}

/* The event comes again, and the device has died since it was made: what was under way to it still
 * needs its end, `sent` if it was taken before a kill hid the answer. Nothing was under way if it
 * had died already when the event came first. */
static void end_of_dead(struct push_leg *p, const struct bf_endpoint *device)
{
    if (device->dead_ms < p->row.created_ms || was_suppressed(p))
        return; /* it was no target the first time either */
    name_device(p, &device->id);
    struct bf_offer offer = offer_of(p);
    if (!bf_outbound_is_known(&p->shard->outbound, &offer, device))
        bf_offer_end(&p->shard->outbound, &offer, BF_STATUS_FAILED,
                     bf_reason_name(BF_REASON_DEAD_TOKEN));
}

/* The count that the notification shows, this message with it; only now, because it may commit. */
static struct bf_content *with_badge(struct push_leg *p)
{
    struct bf_content *content = p->g->push->content;
    if (!p->has_badge)
        content->unread = bf_shard_badge(p->shard, p->g->user);
    content->has_unread = p->has_badge = true;
    return content;
}

static void push_to(struct push_leg *p, const struct bf_endpoint *device)
{
    name_device(p, &device->id);
    struct bf_offer offer = offer_of(p);
    if (p->is_repeat && bf_outbound_is_known(&p->shard->outbound, &offer, device))
        return;
    bf_funnel_count(BF_FUNNEL_FANNED_OUT, p->row.lane, BF_CHANNEL_PUSH, 1);
    if (p->reason == BF_REASON_STALE) {
        bf_offer_dead_letter(&p->shard->outbound, &offer, STALE);
    } else if (p->reason == BF_REASON_NO_CONTENT) {
        if (!p->is_told)
            bf_offer_dead_letter(&p->shard->outbound, &offer, p->g->push->why);
        p->is_told = true;
    } else if (p->g->push->content) {
        (void)bf_outbound_send(&p->shard->outbound, &offer, device, with_badge(p));
    } else {
        bf_offer_postpone(&p->shard->outbound, &offer, p->g->facts.now_ms, "");
    }
}

static void push_to_each(struct push_leg *p)
{
    const struct bf_push_look *look = p->g->push;
    for (uint32_t i = 0; i < look->count; i++) {
        const struct bf_endpoint *device = &look->devices[i];
        if (device->state == BF_ENDPOINT_LIVE)
            push_to(p, device);
        else if (device->state == BF_ENDPOINT_DEAD && p->is_repeat)
            end_of_dead(p, device);
    }
}

/* ---- one person ---- */

static void end(struct push_leg *p, enum bf_status status)
{
    struct bf_offer offer = offer_of(p);
    bf_offer_end(&p->shard->outbound, &offer, status, bf_reason_name(p->reason));
}

/* Push is off. The status shows a reason only if push was asked for or would have been possible. */
static void apply_never(struct push_leg *p)
{
    const struct bf_subject *subject = &p->g->subject;
    switch (p->reason) {
    case BF_REASON_OPT_OUT:
    case BF_REASON_CHANNEL:
    case BF_REASON_CATEGORY:
    case BF_REASON_TYPE:
    case BF_REASON_TOPIC_MUTE:
        if (p->g->push->live > 0)
            end(p, BF_STATUS_SUPPRESSED);
        break;
    case BF_REASON_NO_APP:
    case BF_REASON_NO_DEVICE:
        if (subject->is_named && !p->is_repeat)
            end(p, BF_STATUS_SUPPRESSED);
        break;
    case BF_REASON_EXPIRED:
        if (!subject->is_broadcast)
            end(p, BF_STATUS_EXPIRED);
        break;
    case BF_REASON_STALE:
    case BF_REASON_NO_CONTENT:
        push_to_each(p);
        break;
    default: /* not asked for, done before, or nobody to show it to */
        break;
    }
}

/* ---- an APNs broadcast channel ---- */

/* The row of the one push to a broadcast channel: it belongs to no device and is no fallback. */
static void place_channel(struct push_leg *p)
{
    XXH128_hash_t hash = XXH3_128bits(p->row.event_id.bytes, sizeof(p->row.event_id.bytes));
    struct bf_id place;
    memcpy(place.bytes, &hash, sizeof(place.bytes));
    p->row.collapse = 0; /* each state of a Live Activity is its own */
    name_device(p, &place);
}

/* The queue gives it its retries. */
static void apply_channel(struct push_leg *p)
{
    const struct bf_endpoint nobody = {.kind = BF_PUSH_APNS};
    place_channel(p);
    struct bf_offer offer = offer_of(p);
    if (p->reason != BF_REASON_STALE) {
        if (!bf_outbound_is_known(&p->shard->outbound, &offer, &nobody))
            bf_offer_postpone(&p->shard->outbound, &offer, p->g->facts.now_ms, "");
    } else if (!bf_store_is_leg_done(p->shard->core->store, &p->row.message_id)) {
        bf_offer_dead_letter(&p->shard->outbound, &offer, STALE);
    }
}

void bf_shard_apply_push(struct bf_shard *shard, const struct bf_gathered_leg *g,
                         const struct bf_plan *plan, uint64_t seq)
{
    const struct bf_leg_plan *leg = &plan->leg[BF_CHANNEL_PUSH];
    if (leg->when == BF_NEVER && (leg->reason == BF_REASON_NONE || plan->chain.count > 0))
        return; /* not asked for; or its in-app message shows it */
    struct push_leg p = leg_of(shard, g, plan, seq ? seq : g->seq);
    struct bf_offer offer = offer_of(&p);
    if (g->subject.is_nobodys)
        apply_channel(&p);
    else if (leg->when == BF_CHAINED)
        bf_offer_postpone(&shard->outbound, &offer, leg->at_ms, "");
    else if (leg->when == BF_NOW)
        push_to_each(&p);
    else
        apply_never(&p);
}
