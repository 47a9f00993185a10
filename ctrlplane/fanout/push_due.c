/*
 * The push queue as its time comes: whatever leaves it is decided again (DESIGN 4.3, 4.7), by the
 * same function as on arrival (decide/decide.h), then goes the way of any push. See push.h.
 */
#include "fanout/push.h"

#include <string.h>

#include "stats/metrics.h"
#include "belfry/base/text.h"
#include "fanout/core_state.h"
#include "fanout/gather.h"

/* An empty look costs a seek a lane: so often at most. */
#define LOOK_MS 50u
/* Flights are looked at for lost receipts so often. */
#define SWEEP_MS 1000u

/* ---- what may have been done already --------------------------------------------------------- */

static int is_message(void *arg, const struct bf_push_row *row)
{
    return bf_id_is_equal(arg, &row->message_id);
}

bool bf_push_is_queued(struct bf_shard *shard, const struct bf_push_row *row)
{
    struct bf_id id = row->message_id;
    return bf_store_walk_push_of(shard->core->store, row->uid, &row->event_id, is_message, &id) ==
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
    uint64_t push_id = bf_push_id_of(shard, &what->row);
    struct bf_id orphan;
    bf_push_orphan_id(push_id, &orphan);
    if (bf_push_flight_find(&shard->push, push_id))
        return true;
    if (bf_store_is_push_done(store, &orphan)) { /* answered before anybody knew whose it was */
        what->row.attempts++;
        bf_push_case_end(shard, what, BF_STATUS_SENT, "");
        return true;
    }
    if (bf_store_is_push_done(store, &what->row.message_id)) {
        if (what->is_row)
            bf_batch_delete_push(shard->batch, &what->row);
        return true;
    }
    if (!what->is_row && bf_push_is_queued(shard, &what->row))
        return true;
    return bf_push_census_has(&shard->core->push_census, push_id) && adopt(shard, what, device);
}

/* ---- the facts of a row ---------------------------------------------------------------------- */

/* A row that is due, and what is looked at with it. Not to be moved: facts point into it. */
struct due {
    struct bf_shard *shard;
    struct bf_user *user;
    struct bf_push_case what;
    struct bf_push_note note;
    uint64_t now_ms;
    bool is_stuck; /* too much flies: the row stays where it is */
    struct bf_subject subject;
    struct bf_person person;
    struct bf_facts facts;
    struct bf_plan plan;
    char why[BF_PUSH_WHY_BYTES]; /* its text cannot be read */
};

/* Acknowledged, or dealt with otherwise: read, seen, archived, deleted. */
static bool is_taken(const struct due *d)
{
    struct bf_store *store = d->shard->core->store;
    const struct bf_push_row *row = &d->what.row;
    struct bf_item_copy copy;
    if (!d->user || row->seq == 0 || row->expires_ms <= d->now_ms)
        return false; /* nothing to acknowledge, or decided without it */
    if (bf_store_is_acked(store, row->uid, &d->user->state, row->lane, row->seq) ||
        bf_store_get_item(store, row->uid, row->lane, row->seq, &copy) != 0)
        return true;
    bool is_touched = copy.item.flags != 0;
    bf_item_free(&copy);
    return is_touched;
}

/* What is resident. The text is read only of a row that is still wanted by then. */
static void gather(struct due *d)
{
    const struct bf_push_row *row = &d->what.row;
    d->user = bf_user_find(&d->shard->users, row->uid);
    if (d->user)
        bf_shard_settle_heads(d->shard, d->user);
    d->subject = (struct bf_subject){
        .lane = row->lane,
        .channels = 1u << BF_CHANNEL_PUSH,
        .is_named = true,
        /* what somebody redrives goes out, whoever is connected */
        .is_broadcast = row->seq == 0 && row->redrive == 0,
        .is_nobodys = bf_push_is_channel(row),
        .created_ms = row->created_ms,
        .expires_ms = row->expires_ms,
        .is_fallback = bf_push_is_fallback(row),
        .due_ms = row->not_before_ms,
    };
    d->facts = (struct bf_facts){
        .moment = BF_DUE,
        .now_ms = d->now_ms,
        .subject = &d->subject,
        .rules = &d->shard->turn.rules,
        .person = d->user ? &d->person : NULL,
        .presence = bf_shard_presence(d->shard, d->user),
        .reachable = UINT8_MAX,
        .is_settled = is_taken(d),
        .is_counted = true,
    };
}

/* The text of the row, and what the person wants of it. */
static void gather_text(struct due *d)
{
    const struct bf_push_row *row = &d->what.row;
    const struct bf_push_source source = {.message_id = row->message_id,
                                          .lane = row->lane,
                                          .tenant = row->uid.tenant,
                                          .now_ms = d->now_ms,
                                          .expires_ms = row->expires_ms,
                                          .fragment = row->fragment,
                                          .overrides = row->overrides};
    if (bf_push_note_open(&source, &d->note, d->why) != 0) {
        d->subject.unreadable = 1u << BF_CHANNEL_PUSH;
        return; /* nobody can say what they want of what cannot be read */
    }
    d->subject.type = d->note.type;
    d->subject.category = d->note.category;
    d->subject.topic = d->note.topic;
    if (!d->user)
        return;
    d->person.prefs = d->user->prefs;
    d->note.has_badge = true;
    bf_shard_recount_unread(d->shard, d->user,
                            d->now_ms); /* no inbox row waits in a push's batch */
    d->note.badge = d->user->state.unread;
}

/* ---- what is decided about it ---------------------------------------------------------------- */

/* An acknowledged message needs no line of its own in the status: its in-app channel says so. */
static void cancel(struct due *d)
{
    struct bf_push_case *what = &d->what;
    bf_count(BF_CM_M_push_cancelled, 1);
    if (!bf_push_is_fallback(&what->row)) {
        bf_push_case_end(d->shard, what, BF_STATUS_SUPPRESSED,
                         bf_reason_name(BF_REASON_ACKNOWLEDGED));
        return;
    }
    bf_batch_put_push_done(d->shard->batch, &what->row.message_id, d->now_ms + BF_PUSH_DONE_MS);
    bf_batch_delete_push(d->shard->batch, &what->row);
}

/* The end of a row that nobody wants any more. */
static void end(struct due *d, enum bf_reason reason)
{
    switch (reason) {
    case BF_REASON_UNKNOWN_USER:
        bf_batch_delete_push(d->shard->batch, &d->what.row); /* erased */
        break;
    case BF_REASON_ACKNOWLEDGED:
    case BF_REASON_ONLINE:
        cancel(d);
        break;
    case BF_REASON_NO_CONTENT:
        bf_push_case_dead_letter(d->shard, &d->what, d->why);
        break;
    case BF_REASON_EXPIRED:
        bf_push_case_end(d->shard, &d->what, BF_STATUS_EXPIRED, bf_reason_name(reason));
        break;
    case BF_REASON_DEAD_TOKEN:
        bf_push_case_end(d->shard, &d->what, BF_STATUS_FAILED, bf_reason_name(reason));
        break;
    default:
        bf_push_case_end(d->shard, &d->what, BF_STATUS_SUPPRESSED, bf_reason_name(reason));
        break;
    }
}

/* Decides by what is known by now. Whether the row has its end. */
static bool is_over(struct due *d)
{
    const struct bf_leg_plan *leg = &d->plan.leg[BF_CHANNEL_PUSH];
    bf_decide(&d->facts, &d->plan);
    if (leg->when == BF_NEVER)
        end(d, leg->reason);
    return leg->when == BF_NEVER;
}

/* After an attach all that was due meanwhile waits until one instant: spread from there. */
static void put_off(struct due *d)
{
    uint64_t jitter = bf_turn_dice(&d->shard->turn, BF_PUSH_ATTACH_HOLD_MS);
    bf_push_case_postpone(d->shard, &d->what, d->plan.leg[BF_CHANNEL_PUSH].at_ms + jitter, "");
}

/* ---- a fallback becomes a row for each device ------------------------------------------------ */

static int queue_device(void *arg, const struct bf_device_row *device)
{
    struct due *d = arg;
    struct bf_push_row row = d->what.row;
    if (device->state != BF_DEVICE_LIVE || bf_push_is_stale(d->shard, device))
        return 0;
    row.device_id = device->id;
    row.not_before_ms = d->now_ms;
    bf_push_message_id(&row);
    bf_shard_queue_push(d->shard, &row);
    bf_count(BF_CM_M_push_queued, 1);
    bf_funnel_count(BF_FUNNEL_FANNED_OUT, row.lane, BF_CHANNEL_PUSH, 1);
    return 0;
}

static void expand(struct due *d)
{
    struct bf_shard *shard = d->shard;
    struct bf_push_row *row = &d->what.row;
    bf_batch_put_push_done(shard->batch, &row->message_id, d->now_ms + BF_PUSH_DONE_MS);
    bf_batch_delete_push(shard->batch, row);
    bf_store_walk_devices(shard->core->store, row->uid, queue_device, d);
    bf_count(BF_CM_M_push_fallbacks, 1);
}

/* ---- to its device --------------------------------------------------------------------------- */

/* Why nothing may go to the device; BF_REASON_NONE: it may. */
static enum bf_reason state_of(const struct due *d, const struct bf_device_row *device)
{
    if (device->state != BF_DEVICE_LIVE)
        return BF_REASON_DEAD_TOKEN;
    return bf_push_is_stale(d->shard, device) ? BF_REASON_STALE_DEVICE : BF_REASON_NONE;
}

static int send_to(void *arg, const struct bf_device_row *device)
{
    struct due *d = arg;
    struct bf_push_row *row = &d->what.row;
    bool may_fly = row->not_before_ms <= d->shard->push.attached_ms ||
                   bf_bytes_is_equal(row->reason, BF_BYTES(BF_PUSH_NO_RECEIPT));
    d->subject.endpoint = state_of(d, device);
    if (d->subject.endpoint != BF_REASON_NONE && is_over(d))
        return 0;
    if (!may_fly || !bf_push_is_known(d->shard, &d->what, device))
        d->is_stuck = !bf_shard_push_send(d->shard, &d->what, device, &d->note);
    return 0;
}

static void to_device(struct due *d)
{
    const struct bf_push_row *row = &d->what.row;
    if (bf_store_get_device(d->shard->core->store, row->uid, &row->device_id, send_to, d) == 0)
        return;
    d->subject.endpoint = BF_REASON_DEVICE_DELETED;
    (void)is_over(d);
}

/* Where the broadcast channel is that the row goes to. */
static void gather_channel(struct due *d, struct bf_device_row *ret)
{
    if (!d->subject.is_nobodys || d->subject.unreadable ||
        bf_push_channel_device(&d->what.row, &d->note, ret))
        return;
    bf_format(d->why, sizeof(d->why), "%s",
              "bad_override: overrides.push.apns names no channel and app");
    d->subject.unreadable = 1u << BF_CHANNEL_PUSH;
}

static void take_row(struct due *d)
{
    struct bf_device_row channel;
    gather(d);
    if (is_over(d)) /* whatever else is found out about it */
        return;
    gather_text(d);
    gather_channel(d, &channel);
    if (!is_over(d)) {
        if (d->plan.leg[BF_CHANNEL_PUSH].when == BF_LATER)
            put_off(d);
        else if (d->subject.is_nobodys)
            (void)send_to(d, &channel);
        else if (d->subject.is_fallback)
            expand(d);
        else
            to_device(d);
    }
    bf_push_note_close(&d->note);
}

/* ---- the walk -------------------------------------------------------------------------------- */

struct walk {
    struct bf_shard *shard;
    uint64_t now_ms;
    uint32_t rows;
};

static int take_due(void *arg, const struct bf_push_row *row)
{
    struct walk *w = arg;
    struct bf_shard *shard = w->shard;
    struct due d = {.shard = shard, .what = {.row = *row, .is_row = true}, .now_ms = w->now_ms};
    if (bf_push_flight_find(&shard->push, bf_push_id_of(shard, row))) {
        shard->push.cursor_ms[row->lane] =
            row->not_before_ms; /* its end puts it elsewhere, or deletes it */
        return 0;
    }
    if (w->rows++ >= BF_PUSH_ROWS_PER_TURN)
        return 1;
    take_row(&d);
    if (d.is_stuck)
        return 1;
    shard->push.cursor_ms[row->lane] = row->not_before_ms;
    if (shard->push.wants_commit)
        bf_shard_commit(shard);
    return 0;
}

static void run_lane(struct bf_shard *shard, enum bf_lane lane)
{
    struct bf_shard_push *push = &shard->push;
    struct walk w = {.shard = shard, .now_ms = shard->turn.now_ms};
    if (w.now_ms < push->look_ms[lane])
        return;
    push->look_ms[lane] = w.now_ms + LOOK_MS;
    int rc = bf_store_walk_push(shard->core->store, (uint8_t)shard->index, lane,
                                push->cursor_ms[lane], w.now_ms, take_due, &w);
    if (rc == 1)
        push->look_ms[lane] = w.now_ms; /* there is more */
    else if (rc == 0) /* all that was due is on its way: the next walk need not step over its marks
                       * of deletion again */
        push->cursor_ms[lane] = w.now_ms;
    if (w.rows > 0)
        bf_shard_commit(shard);
}

void bf_shard_run_pushes(struct bf_shard *shard)
{
    struct bf_shard_push *push = &shard->push;
    uint64_t now = shard->turn.mono_ms;
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
    push->attached_ms = shard->turn.now_ms;
    push->presence_from_ms = is_new ? push->attached_ms + BF_PUSH_ATTACH_HOLD_MS : 0;
    push->is_landing = false;
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        push->cursor_ms[lane] = push->look_ms[lane] = 0;
}

struct gone {
    struct bf_shard *shard;
    uint64_t due_ms;
};

static int hurry(void *arg, const struct bf_push_row *row)
{
    const struct gone *gone = arg;
    struct bf_push_row sooner = *row;
    if (!bf_push_is_fallback(row) || row->not_before_ms <= gone->due_ms)
        return 0;
    sooner.not_before_ms = gone->due_ms;
    bf_shard_queue_push(gone->shard, &sooner);
    return 0;
}

void bf_shard_push_gone(struct bf_shard *shard, struct bf_user *user)
{
    struct gone gone = {.shard = shard, .due_ms = shard->turn.now_ms + BF_PUSH_GONE_MS};
    if (user->conns || user->devices == BF_USER_DEVICES_NONE || !shard->core->push ||
        bf_core_conf(shard->core)->ack_deadline_ms <= BF_PUSH_GONE_MS)
        return;
    (void)bf_store_walk_push_of(shard->core->store, bf_user_uid(user), NULL, hurry, &gone);
}
