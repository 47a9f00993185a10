/*
 * Whether a leg pushes, and when: at once, behind its in-app message, or not at all (FAN-7, FAN-8).
 * See shard.h for the routes.
 */
#include "fanout/shard.h"

#include <string.h>

#include "admin/metrics.h"
#include "channels/push/push_note.h"
#include "fanout/core_state.h"
#include "store/devices.h"

enum route {
    ROUTE_NONE = 0,
    ROUTE_NOW = 1,      /* whoever is connected, whatever is acknowledged */
    ROUTE_PRESENCE = 2, /* at once when nobody is connected, else behind the in-app message */
};

static enum route route_of(const struct bf_leg *leg)
{
    const struct bf_event *event = leg->open->event;
    const uint8_t inapp = 1u << BF_CHANNEL_INAPP, push = 1u << BF_CHANNEL_PUSH;
    if (event->transient || event->target == BF_TARGET_BROADCAST || !(event->channel_mask & push))
        return ROUTE_NONE;
    if (leg->channel_mask) /* the subscriber's own choice */
        return !(leg->channel_mask & push)    ? ROUTE_NONE
               : !(leg->channel_mask & inapp) ? ROUTE_NOW
                                              : ROUTE_PRESENCE;
    if (!event->channels_named)
        return event->is_critical ? ROUTE_NOW : ROUTE_PRESENCE;
    bool is_behind = event->is_fallback && event->channel_mask & inapp &&
                     event->first_channel == BF_CHANNEL_INAPP;
    return is_behind ? ROUTE_PRESENCE : ROUTE_NOW;
}

/* An event so old (DESIGN 4.14) is news for the inbox, not for a phone in somebody's pocket: what
 * waited in the log while a node was away must not go off at once. Only its letters' redrive sends
 * it. */
#define STALE "stale: older than fanout.event_max_age when it was worked on; the inbox has it"

static bool is_stale(const struct bf_shard *shard, const struct bf_event *event)
{
    uint64_t now = shard->turn.now_ms;
    uint64_t max_ms = (uint64_t)bf_core_conf(shard->core)->event_max_age_s * 1000;
    return now > event->created_ms && now - event->created_ms > max_ms;
}

/* ---- one leg --------------------------------------------------------------------------------- */

struct push_leg {
    struct bf_shard *shard;
    struct bf_user *user;
    struct bf_leg *leg;
    struct bf_leg_row row; /* what all devices' pushes share */
    const struct bf_channel_ops *ops;
    struct bf_channel_state *channel; /* NULL: it does not run */
    struct bf_content *content; /* what the event says, once it was needed; NULL: not yet, or not
                                 * readable */
    enum bf_suppress reason;    /* of the preferences */
    bool is_repeat;             /* the log gives the event again: what was done is not done again */
    bool is_stale; /* older than fanout.event_max_age: dead letters instead of pushes */
    bool is_bad;   /* not readable */
    uint32_t live;
    uint32_t rows;
};

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

static struct bf_offer offer_of(const struct push_leg *p)
{
    return (struct bf_offer){.row = p->row, .open = p->leg->open};
}

/* Reads the notification once for all devices. */
static bool open_content(struct push_leg *p)
{
    const struct bf_event *event = p->leg->open->event;
    char why[BF_WHY_BYTES] = "";
    const struct bf_content_source source = {.message_id = p->row.message_id,
                                             .lane = event->lane,
                                             .tenant = p->row.uid.tenant,
                                             .now_ms = p->shard->turn.now_ms,
                                             .expires_ms = p->row.expires_ms,
                                             .fragment = event->fragment,
                                             .overrides = event->overrides};
    if (p->content || p->is_bad)
        return p->content != NULL;
    p->is_bad = p->ops->open(p->channel, &source, &p->content, why) != 0;
    if (p->is_bad) {
        struct bf_offer offer = offer_of(p);
        bf_offer_dead_letter(&p->shard->outbound, &offer, why);
        return false;
    }
    p->content->has_unread = true;
    p->content->unread = bf_shard_badge(p->shard, p->user);
    return true;
}

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
    if (device->dead_ms < p->row.created_ms || p->reason != BF_PASS || was_suppressed(p))
        return; /* it was no target the first time either */
    name_device(p, &device->id);
    struct bf_offer offer = offer_of(p);
    if (!bf_outbound_is_known(&p->shard->outbound, &offer, device))
        bf_offer_end(&p->shard->outbound, &offer, BF_STATUS_FAILED, "dead_token");
}

/* To one device. A topic's subscribers, or everybody, are many: their pushes go by the queue, so
 * that a slow provider holds no chunk of them. */
static int push_to(void *arg, const struct bf_endpoint *device)
{
    struct push_leg *p = arg;
    p->rows++;
    if (p->is_repeat && device->state == BF_ENDPOINT_DEAD)
        end_of_dead(p, device);
    if (device->state != BF_ENDPOINT_LIVE)
        return 0;
    p->live++;
    if (p->reason != BF_PASS)
        return 0;
    name_device(p, &device->id);
    struct bf_offer offer = offer_of(p);
    if (p->is_repeat && bf_outbound_is_known(&p->shard->outbound, &offer, device))
        return 0;
    bf_funnel_count(BF_FUNNEL_FANNED_OUT, p->row.lane, BF_CHANNEL_PUSH, 1);
    if (p->is_stale) {
        bf_offer_dead_letter(&p->shard->outbound, &offer, STALE);
        return 0;
    }
    if (p->leg->open->event->target != BF_TARGET_USERS)
        bf_offer_postpone(&p->shard->outbound, &offer, p->shard->turn.now_ms, "");
    else if (open_content(p))
        (void)bf_outbound_send(&p->shard->outbound, &offer, device, p->content);
    return 0;
}

static void suppress(struct push_leg *p, const char *reason)
{
    struct bf_offer offer = offer_of(p);
    bf_offer_end(&p->shard->outbound, &offer, BF_STATUS_SUPPRESSED, reason);
}

static void push_now(struct push_leg *p, bool is_named)
{
    struct bf_user *user = p->user;
    struct bf_core *core = p->shard->core;
    bool is_off = bf_core_conf(core)->push_app_count == 0;
    if (!is_off && user->devices != BF_USER_DEVICES_NONE && p->channel)
        p->ops->endpoints(p->channel, &p->shard->turn, bf_user_uid(user), push_to, p);
    if (!is_off)
        user->devices = p->rows > 0 ? BF_USER_DEVICES_SOME : BF_USER_DEVICES_NONE;
    name_person(p);
    if (p->live > 0 && p->reason != BF_PASS)
        suppress(p, bf_suppress_name(p->reason));
    else if (p->live == 0 && is_named && !p->is_repeat)
        suppress(p, is_off ? "no_app" : "no_device");
    if (p->content)
        p->ops->close(p->content);
}

/* ---- behind the in-app message
 * --------------------------------------------------------------------- */

static int count_device(void *arg, const struct bf_device_row *device)
{
    *(uint32_t *)arg += device->state == BF_DEVICE_LIVE;
    return 0;
}

static bool has_devices(struct bf_shard *shard, struct bf_user *user)
{
    uint32_t live = 0;
    if (user->devices == BF_USER_DEVICES_UNKNOWN) {
        bf_store_walk_devices(shard->core->store, bf_user_uid(user), count_device, &live);
        user->devices = live > 0 ? BF_USER_DEVICES_SOME : BF_USER_DEVICES_NONE;
    }
    return user->devices == BF_USER_DEVICES_SOME;
}

/* A row that is due when the message should have been acknowledged. */
static void push_behind(struct push_leg *p)
{
    uint64_t wait_ms = bf_core_conf(p->shard->core)->ack_deadline_ms + BF_FALLBACK_GRACE_MS;
    struct bf_offer offer = offer_of(p);
    if (p->reason == BF_PASS)
        bf_offer_postpone(&p->shard->outbound, &offer, p->shard->turn.now_ms + wait_ms, "");
}

/* ---- an event that comes again --------------------------------------------------------------- */

/* Its in-app message is known. The same record read from the log again after a restart: pushes that
 * had not come to their end are looked after. A producer's repetition: the first one does that. */
static bool is_replay(struct push_leg *p, enum route route)
{
    struct bf_store *store = p->shard->core->store;
    struct bf_item_copy copy;
    enum bf_lane lane;
    uint64_t seq;
    if (!bf_store_find_message(store, p->leg->uid, &p->leg->id, &lane, &seq))
        return false; /* in this very batch */
    if (bf_store_get_item(store, p->leg->uid, lane, seq, &copy) != 0)
        return true; /* expired or trimmed since: its pushes still need an end */
    bool is_same = copy.item.created_ms == p->leg->open->event->created_ms;
    bool is_read = copy.item.flags != 0;
    bf_item_free(&copy);
    if (route == ROUTE_PRESENCE)
        p->row.seq = seq;
    bool is_taken = is_read || bf_store_is_acked(store, p->leg->uid, &p->user->state, lane, seq);
    return is_same && !(route == ROUTE_PRESENCE && is_taken);
}

static bool is_fallback_known(struct push_leg *p)
{
    return bf_store_is_leg_done(p->shard->core->store, &p->row.message_id) ||
           bf_outbound_is_queued(&p->shard->outbound, &p->row);
}

static struct push_leg leg_of(struct bf_shard *shard, struct bf_user *user, struct bf_leg *leg)
{
    const struct bf_event *event = leg->open->event;
    struct push_leg p = {.shard = shard,
                         .user = user,
                         .leg = leg,
                         .ops = bf_channel_ops_of(BF_CHANNEL_PUSH),
                         .channel = bf_outbound_channel(&shard->outbound, BF_CHANNEL_PUSH)};
    p.reason = user ? bf_prefs_decide(user->prefs, event, BF_CHANNEL_PUSH) : BF_PASS;
    p.row = (struct bf_leg_row){
        .lane = event->lane,
        .channel = BF_CHANNEL_PUSH,
        .kind = BF_LEG_FALLBACK,
        .partition = bf_store_partition_of(shard->core->store, leg->uid),
        .uid = leg->uid,
        .event_id = event->id,
        .created_ms = event->created_ms,
        .expires_ms =
            event->expires_ms ? event->expires_ms : event->created_ms + BF_PUSH_TTL_DEFAULT_MS,
        .collapse = event->collapse_key.len > 0
                        ? XXH3_64bits(event->collapse_key.at, event->collapse_key.len) | 1u
                        : 0,
        .type = event->type,
        .category = event->category,
        .topic = event->topic,
    };
    p.is_stale = is_stale(shard, event);
    if (p.is_stale &&
        event->expires_ms == 0) /* the default has passed: a redrive has a day of its own */
        p.row.expires_ms = shard->turn.now_ms + BF_PUSH_TTL_DEFAULT_MS;
    bf_leg_message_id(&p.row);
    return p;
}

/* Presence not known is not offline (DESIGN 4.8). */
static bool is_presence_known(const struct bf_shard *shard)
{
    return shard->presence_known && shard->turn.now_ms >= shard->outbound.presence_from_ms;
}

void bf_shard_push_leg(struct bf_shard *shard, struct bf_user *user, struct bf_leg *leg,
                       enum bf_suppress inapp, uint64_t seq)
{
    const struct bf_event *event = leg->open->event;
    enum route route = route_of(leg);
    bool is_named = event->channels_named;
    if (route == ROUTE_NONE)
        return;
    if (!is_named && (bf_core_conf(shard->core)->push_app_count == 0 || !has_devices(shard, user)))
        return;
    struct push_leg p = leg_of(shard, user, leg);
    p.row.seq = route == ROUTE_PRESENCE ? seq : 0;
    if (inapp == BF_SUPPRESS_EXPIRED) { /* before anybody looked at it */
        struct bf_offer offer = offer_of(&p);
        bf_offer_end(&shard->outbound, &offer, BF_STATUS_EXPIRED, "expired");
        return;
    }
    /* replayed, or not to be told from it: nothing in-app stands for it */
    p.is_repeat = inapp != BF_PASS;
    if (inapp == BF_SUPPRESS_DUPLICATE) {
        if (!is_replay(&p, route) || (route == ROUTE_PRESENCE && is_fallback_known(&p)))
            return;
    }
    bool may_be_there = user->conns || !is_presence_known(shard);
    bool is_behind = route == ROUTE_PRESENCE && inapp == BF_PASS && seq > 0 && may_be_there;
    if (is_behind && !p.is_stale)
        push_behind(&p);
    else
        push_now(&p, is_named);
}

/* ---- broadcasts ------------------------------------------------------------------------------ */

/* The row of the one push to whoever follows the channel: a place of no device, and not a
 * fallback's. */
static void place_channel(struct push_leg *p)
{
    XXH128_hash_t hash = XXH3_128bits(p->row.event_id.bytes, sizeof(p->row.event_id.bytes));
    struct bf_id place;
    memcpy(place.bytes, &hash, sizeof(place.bytes));
    p->row.collapse = 0; /* each state of a Live Activity is its own */
    name_device(p, &place);
}

/* The queue gives it its retries. */
static void to_channel(struct push_leg *p)
{
    const struct bf_endpoint nobody = {.kind = BF_PUSH_APNS};
    place_channel(p);
    struct bf_offer offer = offer_of(p);
    if (!bf_outbound_is_known(&p->shard->outbound, &offer, &nobody))
        bf_offer_postpone(&p->shard->outbound, &offer, p->shard->turn.now_ms, "");
}

static void stale_channel(struct push_leg *p)
{
    place_channel(p);
    struct bf_offer offer = offer_of(p);
    if (!bf_store_is_leg_done(p->shard->core->store, &p->row.message_id))
        bf_offer_dead_letter(&p->shard->outbound, &offer, STALE);
}

/* Whose in-app is the broadcast itself: a subscriber of a broadcast topic may have chosen push
 * alone, wherever they are, or no push. Everybody's broadcast knows no choice but the preferences.
 */
static enum route broadcast_route(const struct bf_leg *leg)
{
    if (leg->channel_mask == 0)
        return ROUTE_PRESENCE;
    if (!(leg->channel_mask & 1u << BF_CHANNEL_PUSH))
        return ROUTE_NONE;
    return leg->channel_mask & 1u << BF_CHANNEL_INAPP ? ROUTE_PRESENCE : ROUTE_NOW;
}

void bf_shard_push_broadcast(struct bf_shard *shard, struct bf_leg *leg)
{
    struct bf_user *user = bf_user_find_with(&shard->users, leg->uid, leg->key);
    struct push_leg p = leg_of(shard, user, leg);
    enum route route = broadcast_route(leg);
    p.is_repeat = true; /* nothing in-app tells the first time from a replay */
    if (bf_leg_is_nobodys(&p.row) && p.is_stale)
        stale_channel(&p);
    else if (bf_leg_is_nobodys(&p.row))
        to_channel(&p);
    else if (!user || route == ROUTE_NONE || p.row.expires_ms <= shard->turn.now_ms)
        return; /* erased meanwhile; not wanted; nobody waits for it any more */
    else if (route == ROUTE_PRESENCE && user->conns)
        return; /* has it on the socket */
    else if (route == ROUTE_NOW || is_presence_known(shard) || p.is_stale)
        push_now(&p, false);
    else if (!is_fallback_known(&p))
        push_behind(&p);
}
