/*
 * The push queue as its time comes: whatever leaves it passes opt-out, erasure, preferences, expiry
 * and acknowledgement again (DESIGN 4.3, 4.7), then goes the way of any push. See push.h.
 */
#include "fanout/push.h"

#include <string.h>

#include "admin/metrics.h"
#include "belfry/base/time.h"
#include "fanout/core_state.h"

/* An empty look costs a seek a lane: so often at most. */
#define LOOK_MS 50u
/* Flights are looked at for lost receipts so often. */
#define SWEEP_MS 1000u

/* ---- what may have been done already --------------------------------------------------------- */

static int is_message(void *arg, const struct bf_leg_row *row)
{
    return bf_id_is_equal(arg, &row->message_id);
}

bool bf_push_is_queued(struct bf_shard *shard, const struct bf_leg_row *row)
{
    struct bf_id id = row->message_id;
    return bf_store_walk_legs_of(shard->core->store, row->uid, &row->event_id, is_message, &id) ==
           1;
}

/* A worker that outlived our predecessor has it: we wait for its receipt. */
static bool adopt(struct bf_shard *shard, struct bf_push_case *what,
                  const struct bf_device_row *device)
{
    struct bf_push_flight *flight = bf_push_flight_add(shard, what);
    if (!flight)
        return false;
    flight->kind = (enum bf_push_kind)device->kind;
    flight->registered_ms = device->registered_ms;
    memcpy(flight->token_hash, device->token_hash, sizeof(flight->token_hash));
    bf_push_census_forget(&shard->core->push_census, flight->push_id);
    if (what->open) /* relaxed: our own leg holds the count above 0 meanwhile */
        atomic_fetch_add_explicit(&what->open->legs_open, 1, memory_order_relaxed);
    return true;
}

bool bf_push_is_known(struct bf_shard *shard, struct bf_push_case *what,
                      const struct bf_device_row *device)
{
    struct bf_store *store = shard->core->store;
    uint64_t push_id = bf_push_id_of(&what->row);
    struct bf_id orphan;
    bf_push_orphan_id(push_id, &orphan);
    if (bf_push_flight_find(&shard->push, push_id))
        return true;
    if (bf_store_is_leg_done(store, &orphan)) { /* answered before anybody knew whose it was */
        what->row.attempts++;
        bf_push_case_end(shard, what, BF_STATUS_SENT, "");
        return true;
    }
    if (bf_store_is_leg_done(store, &what->row.message_id)) {
        if (what->is_row)
            bf_batch_delete_leg(shard->batch, &what->row);
        return true;
    }
    if (!what->is_row && bf_push_is_queued(shard, &what->row))
        return true;
    return bf_push_census_has(&shard->core->push_census, push_id) && adopt(shard, what, device);
}

/* ---- conditions ------------------------------------------------------------------------------ */

/* A row that is due, and what is looked at with it. */
struct due {
    struct bf_shard *shard;
    struct bf_user *user;
    struct bf_push_case what;
    struct bf_push_note note;
    uint64_t now_ms;
    bool is_stuck; /* too much flies: the row stays where it is */
};

/* Acknowledged, or dealt with otherwise: read, seen, archived, deleted. */
static bool is_taken(const struct due *d)
{
    struct bf_store *store = d->shard->core->store;
    const struct bf_leg_row *row = &d->what.row;
    struct bf_item_copy copy;
    if (bf_push_is_channel(row))
        return false;
    if (row->seq == 0) /* a broadcast's fallback: who is connected by now has had it there. What
                        * somebody redrives goes out */
        return bf_push_is_fallback(row) && row->redrive == 0 && d->user->conns;
    if (bf_store_is_acked(store, row->uid, &d->user->state, row->lane, row->seq) ||
        bf_store_get_item(store, row->uid, row->lane, row->seq, &copy) != 0)
        return true;
    bool is_touched = copy.item.flags != 0;
    bf_item_free(&copy);
    return is_touched;
}

/* An acknowledged message needs no line of its own in the status: its in-app channel says so. */
static void cancel(struct due *d)
{
    struct bf_push_case *what = &d->what;
    bf_count(BF_CM_M_push_cancelled, 1);
    if (!bf_push_is_fallback(&what->row)) {
        bf_push_case_end(d->shard, what, BF_STATUS_SUPPRESSED, "acknowledged");
        return;
    }
    bf_batch_put_leg_done(d->shard->batch, &what->row.message_id, d->now_ms + BF_PUSH_DONE_MS);
    bf_batch_delete_leg(d->shard->batch, &what->row);
}

static bool is_wanted(struct due *d)
{
    const struct bf_event said = {
        .type = d->note.type, .category = d->note.category, .topic = d->note.topic};
    enum bf_suppress reason = bf_prefs_decide(d->user->prefs, &said, BF_CHANNEL_PUSH);
    if (reason != BF_PASS)
        bf_push_case_end(d->shard, &d->what, BF_STATUS_SUPPRESSED, bf_suppress_name(reason));
    return reason == BF_PASS;
}

/* ---- a fallback becomes a row for each device ------------------------------------------------ */

static int queue_device(void *arg, const struct bf_device_row *device)
{
    struct due *d = arg;
    struct bf_leg_row row = d->what.row;
    if (device->state != BF_DEVICE_LIVE || bf_push_is_stale(d->shard, device))
        return 0;
    row.kind = BF_LEG_SEND;
    row.endpoint_id = device->id;
    row.not_before_ms = d->now_ms;
    bf_leg_message_id(&row);
    bf_shard_queue_push(d->shard, &row);
    bf_count(BF_CM_M_push_queued, 1);
    bf_funnel_count(BF_FUNNEL_FANNED_OUT, row.lane, BF_CHANNEL_PUSH, 1);
    return 0;
}

static void expand(struct due *d)
{
    struct bf_shard *shard = d->shard;
    struct bf_leg_row *row = &d->what.row;
    uint64_t until_ms = shard->push.attached_ms + BF_PUSH_ATTACH_HOLD_MS;
    if (row->not_before_ms <= shard->push.attached_ms && d->now_ms < until_ms) {
        uint64_t jitter = bf_push_dice(&shard->push, BF_PUSH_ATTACH_HOLD_MS);
        bf_push_case_postpone(shard, &d->what, until_ms + jitter, "");
        return;
    }
    bf_batch_put_leg_done(shard->batch, &row->message_id, d->now_ms + BF_PUSH_DONE_MS);
    bf_batch_delete_leg(shard->batch, row);
    bf_store_walk_devices(shard->core->store, row->uid, queue_device, d);
    bf_count(BF_CM_M_push_fallbacks, 1);
}

/* ---- to its device --------------------------------------------------------------------------- */

static int send_to(void *arg, const struct bf_device_row *device)
{
    struct due *d = arg;
    struct bf_leg_row *row = &d->what.row;
    bool may_fly = row->not_before_ms <= d->shard->push.attached_ms || row->flags & BF_LEG_MAY_FLY;
    if (device->state != BF_DEVICE_LIVE)
        bf_push_case_end(d->shard, &d->what, BF_STATUS_FAILED, "dead_token");
    else if (bf_push_is_stale(d->shard, device))
        bf_push_case_end(d->shard, &d->what, BF_STATUS_SUPPRESSED, "stale_device");
    else if (!may_fly || !bf_push_is_known(d->shard, &d->what, device))
        d->is_stuck = !bf_shard_push_send(d->shard, &d->what, device, &d->note);
    return 0;
}

static void to_person(struct due *d)
{
    struct bf_shard *shard = d->shard;
    struct bf_leg_row *row = &d->what.row;
    d->note.has_badge = true;
    bf_shard_recount_unread(shard, d->user, d->now_ms); /* no inbox row waits in a push's batch */
    d->note.badge = d->user->state.unread;
    if (!is_wanted(d))
        return;
    if (bf_push_is_fallback(row))
        expand(d);
    else if (bf_store_get_device(shard->core->store, row->uid, &row->endpoint_id, send_to, d) != 0)
        bf_push_case_end(shard, &d->what, BF_STATUS_SUPPRESSED, "device_deleted");
}

static void to_channel(struct due *d)
{
    struct bf_device_row channel;
    if (bf_push_channel_device(&d->what.row, &d->note, &channel))
        (void)send_to(d, &channel);
    else
        bf_push_case_dead_letter(d->shard, &d->what,
                                 "bad_override: overrides.push.apns names no channel and app");
}

static void take_row(struct due *d)
{
    struct bf_shard *shard = d->shard;
    struct bf_leg_row *row = &d->what.row;
    char why[BF_PUSH_WHY_BYTES] = "";
    const struct bf_push_source source = {.message_id = row->message_id,
                                          .lane = row->lane,
                                          .tenant = row->uid.tenant,
                                          .now_ms = d->now_ms,
                                          .expires_ms = row->expires_ms,
                                          .fragment = row->fragment,
                                          .overrides = row->overrides};
    if (bf_push_note_open(&source, &d->note, why) != 0) {
        bf_push_case_dead_letter(shard, &d->what, why);
        return;
    }
    if (bf_push_is_channel(row))
        to_channel(d);
    else
        to_person(d);
    bf_push_note_close(&d->note);
}

/* ---- the walk -------------------------------------------------------------------------------- */

struct walk {
    struct bf_shard *shard;
    struct bf_push_place *place;
    uint64_t now_ms;
    uint32_t rows; /* looked at, of all places of the lane */
};

static int take_due(void *arg, const struct bf_leg_row *row)
{
    struct walk *w = arg;
    struct bf_shard *shard = w->shard;
    struct due d = {.shard = shard, .what = {.row = *row, .is_row = true}, .now_ms = w->now_ms};
    if (bf_push_flight_of(&shard->push, row)) {
        w->place->cursor_ms = row->not_before_ms; /* its end puts it elsewhere, or deletes it */
        return 0;
    }
    if (w->rows++ >= BF_PUSH_ROWS_PER_TURN)
        return 1;
    d.user = bf_user_find(&shard->users, row->uid);
    if (!d.user && !bf_push_is_channel(row)) {
        bf_batch_delete_leg(shard->batch, row); /* erased */
    } else if (row->expires_ms <= w->now_ms) {
        bf_push_case_end(shard, &d.what, BF_STATUS_EXPIRED, "expired");
    } else {
        if (d.user)
            bf_shard_settle_heads(shard, d.user);
        if (is_taken(&d))
            cancel(&d);
        else
            take_row(&d);
    }
    if (d.is_stuck)
        return 1;
    w->place->cursor_ms = row->not_before_ms;
    if (shard->push.wants_commit)
        bf_shard_commit(shard);
    return 0;
}

void bf_push_note_row(struct bf_shard_push *push, const struct bf_leg_row *row)
{
    struct bf_push_place *place = &push->places[row->lane][row->partition];
    uint64_t at_ms = row->not_before_ms;
    if (at_ms < place->cursor_ms)
        place->cursor_ms = at_ms;
    if (at_ms < place->low_ms)
        place->low_ms = at_ms;
    if (at_ms < place->look_ms)
        place->look_ms = at_ms;
    if (at_ms < push->look_ms[row->lane])
        push->look_ms[row->lane] = at_ms;
}

void bf_shard_push_moved(struct bf_shard *shard, const struct bf_leg_row *was,
                         const struct bf_leg_row *is)
{
    struct bf_shard_push *push = &shard->push;
    struct bf_push_flight *flight = bf_push_flight_of(push, was);
    bf_push_note_row(push, is);
    push->wants_commit |= is->collapse != 0;
    if (!flight || !flight->what.is_row)
        return;
    flight->what.row.endpoint_id = is->endpoint_id;
    flight->what.row.message_id = is->message_id;
    push->renamed_count += !flight->is_renamed;
    flight->is_renamed = true;
}

/* What is due in one partition's lane. What is put meanwhile lowers the place, and stays below what
 * this scan, which does not see it, would make of it. */
static int look_at(struct bf_shard *shard, enum bf_lane lane, uint32_t partition, struct walk *w)
{
    struct bf_push_place *place = &shard->push.places[lane][partition];
    uint64_t look_ms = w->now_ms + LOOK_MS, next_ms = 0;
    w->place = place;
    place->look_ms = place->low_ms = UINT64_MAX;
    int rc = bf_store_walk_due(shard->core->store, (uint8_t)partition, lane, place->cursor_ms,
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
static void run_lane(struct bf_shard *shard, enum bf_lane lane)
{
    struct bf_shard_push *push = &shard->push;
    struct walk w = {.shard = shard, .now_ms = bf_wall_ms()};
    uint32_t step = shard->core->shard_count, count = shard->core->partitions;
    uint32_t partition = push->first[lane];
    bool is_full = false;
    if (w.now_ms < push->look_ms[lane])
        return;
    if (bf_batch_count(shard->batch) > 0)
        bf_shard_commit(shard); /* the scan must see what lowered its place */
    push->look_ms[lane] = UINT64_MAX;
    for (uint32_t left = (count - shard->index + step - 1) / step; left > 0; left--) {
        if (!is_full && push->places[lane][partition].look_ms <= w.now_ms) {
            is_full = look_at(shard, lane, partition, &w) > 0;
            push->first[lane] = partition + step < count ? partition + step : shard->index;
        }
        if (push->places[lane][partition].look_ms < push->look_ms[lane])
            push->look_ms[lane] = push->places[lane][partition].look_ms;
        partition = partition + step < count ? partition + step : shard->index;
    }
    if (w.rows > 0)
        bf_shard_commit(shard);
}

void bf_shard_run_pushes(struct bf_shard *shard)
{
    struct bf_shard_push *push = &shard->push;
    uint64_t now = bf_mono_ms();
    if (!shard->presence_known || push->is_landing || !shard->core->push)
        return;
    if (now - push->swept_ms >= SWEEP_MS) {
        push->swept_ms = now;
        bf_shard_push_sweep(shard);
    }
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        run_lane(shard, (enum bf_lane)lane);
}

void bf_shard_push_attached(struct bf_shard *shard, bool is_new)
{
    struct bf_shard_push *push = &shard->push;
    push->attached_ms = bf_wall_ms();
    push->presence_from_ms = is_new ? push->attached_ms + BF_PUSH_ATTACH_HOLD_MS : 0;
    push->is_landing = false;
    memset(push->places, 0, sizeof(push->places)); /* from the beginning: what flew may be there */
    memset(push->look_ms, 0, sizeof(push->look_ms));
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        push->first[lane] = shard->index;
}

struct gone {
    struct bf_shard *shard;
    uint64_t due_ms;
};

static int hurry(void *arg, const struct bf_leg_row *row)
{
    const struct gone *gone = arg;
    struct bf_leg_row sooner = *row;
    if (!bf_push_is_fallback(row) || row->not_before_ms <= gone->due_ms)
        return 0;
    sooner.not_before_ms = gone->due_ms;
    bf_shard_queue_push(gone->shard, &sooner);
    return 0;
}

void bf_shard_push_gone(struct bf_shard *shard, struct bf_user *user)
{
    struct gone gone = {.shard = shard, .due_ms = bf_wall_ms() + BF_PUSH_GONE_MS};
    if (user->conns || user->devices == BF_USER_DEVICES_NONE || !shard->core->push ||
        bf_core_conf(shard->core)->ack_deadline_ms <= BF_PUSH_GONE_MS)
        return;
    (void)bf_store_walk_legs_of(shard->core->store, bf_user_uid(user), NULL, hurry, &gone);
}
