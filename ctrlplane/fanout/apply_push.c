/*
 * The push leg of a plan: nothing, a row of the queue that follows the in-app message, or a push to
 * each device. Rows go into the turn's batch; requests leave once it is written. See push.h.
 */
#include "fanout/push.h"

#include <string.h>

#include "stats/metrics.h"
#include "fanout/core_state.h"
#include "fanout/gather.h"

bool bf_push_is_fallback(const struct bf_push_row *row)
{
    static const struct bf_id none;
    return bf_id_is_equal(&row->device_id, &none);
}

bool bf_push_is_channel(const struct bf_push_row *row)
{
    return row->uid.user.len == 0;
}

void bf_push_message_id(struct bf_push_row *row)
{
    struct bf_bytes target = {(const char *)row->device_id.bytes, sizeof(row->device_id.bytes)};
    if (bf_push_is_fallback(row))
        target.len = 0;
    bf_message_id(&row->event_id, row->uid.tenant, row->uid.user, BF_CHANNEL_PUSH, target, 0,
                  &row->message_id);
}

/* Why a stale event's pushes are dead letters (decide/stale.c). */
#define STALE "stale: older than fanout.event_max_age when it was worked on; the inbox has it"

struct push_leg {
    struct bf_shard *shard;
    const struct bf_gathered_leg *g;
    struct bf_push_row row; /* what all devices' pushes share */
    enum bf_reason reason;
    bool is_repeat; /* nothing in-app tells the first time from a replay: what was done is not done
                     * again */
    bool has_badge;
    bool is_told; /* that the text cannot be read */
};

static struct bf_push_case case_of(const struct push_leg *p)
{
    return (struct bf_push_case){.row = p->row, .open = p->g->leg->open};
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
    p.row = (struct bf_push_row){
        .lane = event->lane,
        .uid = g->leg->uid,
        .event_id = event->id,
        .created_ms = event->created_ms,
        .expires_ms = event->expires_ms ? event->expires_ms : from_ms + BF_PUSH_TTL_DEFAULT_MS,
        .seq = bf_follows_inapp(&g->facts) ? seq : 0,
        .collapse = event->collapse_key.len > 0
                        ? XXH3_64bits(event->collapse_key.at, event->collapse_key.len) | 1u
                        : 0,
    };
    bf_push_message_id(&p.row);
    return p;
}

/* ---- one device ------------------------------------------------------------------------------ */

/* Whether the person's pushes were suppressed when the event came first: that was their end. */
static bool was_suppressed(struct push_leg *p)
{
    p->row.device_id = (struct bf_id){0};
    bf_push_message_id(&p->row);
    return bf_store_is_push_done(p->shard->core->store, &p->row.message_id);
}

/* The event comes again, and the device has died since it was made: what was under way to it still
 * needs its end, `sent` if it was taken before a kill hid the answer. Nothing was under way if it
 * had died already when the event came first. */
static void end_of_dead(struct push_leg *p, const struct bf_device_row *device)
{
    if (device->dead_ms < p->row.created_ms || was_suppressed(p))
        return; /* it was no target the first time either */
    p->row.device_id = device->id;
    bf_push_message_id(&p->row);
    struct bf_push_case what = case_of(p);
    if (!bf_push_is_known(p->shard, &what, device))
        bf_push_case_end(p->shard, &what, BF_STATUS_FAILED, bf_reason_name(BF_REASON_DEAD_TOKEN));
}

/* The count that the notification shows, this message with it; only now, because it may commit. */
static struct bf_push_note *with_badge(struct push_leg *p)
{
    struct bf_push_note *note = &p->g->push->note;
    if (!p->has_badge)
        note->badge = bf_shard_badge(p->shard, p->g->user);
    note->has_badge = p->has_badge = true;
    return note;
}

static void push_to(struct push_leg *p, const struct bf_device_row *device)
{
    p->row.device_id = device->id;
    bf_push_message_id(&p->row);
    struct bf_push_case what = case_of(p);
    if (p->is_repeat && bf_push_is_known(p->shard, &what, device))
        return;
    bf_funnel_count(BF_FUNNEL_FANNED_OUT, p->row.lane, BF_CHANNEL_PUSH, 1);
    if (p->reason == BF_REASON_STALE) {
        bf_push_case_dead_letter(p->shard, &what, STALE);
    } else if (p->reason == BF_REASON_NO_CONTENT) {
        if (!p->is_told)
            bf_push_case_dead_letter(p->shard, &what, p->g->push->why);
        p->is_told = true;
    } else if (p->g->push->has_note) {
        (void)bf_shard_push_send(p->shard, &what, device, with_badge(p));
    } else {
        bf_push_case_postpone(p->shard, &what, p->g->facts.now_ms, "");
    }
}

static void push_to_each(struct push_leg *p)
{
    const struct bf_push_look *look = p->g->push;
    for (uint32_t i = 0; i < look->count; i++) {
        const struct bf_device_row *device = &look->devices[i];
        if (device->state == BF_DEVICE_LIVE && !bf_push_is_stale(p->shard, device))
            push_to(p, device);
        else if (device->state == BF_DEVICE_DEAD && p->is_repeat)
            end_of_dead(p, device);
    }
}

/* ---- one person ------------------------------------------------------------------------------ */

static void end(struct push_leg *p, enum bf_status status)
{
    struct bf_push_case what = case_of(p);
    bf_push_case_end(p->shard, &what, status, bf_reason_name(p->reason));
}

/* Push is off. What stands in the status is what somebody asked for or could have had. */
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
    default: /* not asked for, done before, nobody there to tell */
        break;
    }
}

/* ---- an APNs broadcast channel --------------------------------------------------------------- */

/* The row of the one push to whoever follows the channel: a place of no device, and not a
 * fallback's. */
static void place_channel(struct push_leg *p)
{
    XXH128_hash_t place = XXH3_128bits(p->row.event_id.bytes, sizeof(p->row.event_id.bytes));
    memcpy(p->row.device_id.bytes, &place, sizeof(place));
    p->row.collapse = 0; /* each state of a Live Activity is its own */
    bf_push_message_id(&p->row);
}

/* The queue gives it its retries. */
static void apply_channel(struct push_leg *p)
{
    const struct bf_device_row nobody = {.kind = BF_PUSH_APNS};
    place_channel(p);
    struct bf_push_case what = case_of(p);
    if (p->reason != BF_REASON_STALE) {
        if (!bf_push_is_known(p->shard, &what, &nobody))
            bf_push_case_postpone(p->shard, &what, p->g->facts.now_ms, "");
    } else if (!bf_store_is_push_done(p->shard->core->store, &p->row.message_id)) {
        bf_push_case_dead_letter(p->shard, &what, STALE);
    }
}

void bf_shard_apply_push(struct bf_shard *shard, const struct bf_gathered_leg *g,
                         const struct bf_plan *plan, uint64_t seq)
{
    const struct bf_leg_plan *leg = &plan->leg[BF_CHANNEL_PUSH];
    if (leg->when == BF_NEVER && (leg->reason == BF_REASON_NONE || plan->chain.count > 0))
        return; /* not asked for; or its in-app message stands for it */
    struct push_leg p = leg_of(shard, g, plan, seq ? seq : g->seq);
    struct bf_push_case what = case_of(&p);
    if (g->subject.is_nobodys)
        apply_channel(&p);
    else if (leg->when == BF_CHAINED)
        bf_push_case_postpone(shard, &what, leg->at_ms, "");
    else if (leg->when == BF_NOW)
        push_to_each(&p);
    else
        apply_never(&p);
}
