/* See gather.h. */
#include "fanout/gather.h"

#include <string.h>

#include "belfry/base/hash.h"
#include "stats/metrics.h"
#include "channels/push/push_note.h"
#include "fanout/core_state.h"
#include "fanout/shard.h"

#define PUSH ((uint8_t)(1u << BF_CHANNEL_PUSH))

#define CACHE_LINE_BYTES 64

void bf_shard_gather_ahead(struct bf_shard *shard, struct bf_leg **legs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        struct bf_leg *leg = legs[i];
        leg->key = bf_user_key_in(&shard->users, leg->uid);
        bf_user_prefetch_slot(&shard->users, leg->key);
        bf_message_id(&leg->open->event->id, leg->uid.tenant, leg->uid.user, BF_CHANNEL_INAPP,
                      (struct bf_bytes){0}, 0, &leg->id);
        bf_store_prefetch_message(shard->core->store, &leg->id);
    }
    for (uint32_t i = 0; i < count; i++)
        bf_user_prefetch_record(&shard->users, legs[i]->key);
}

enum bf_presence bf_shard_presence(const struct bf_shard *shard, const struct bf_user *user)
{
    bool is_known = shard->presence_known && shard->turn.now_ms >= shard->outbound.presence_from_ms;
    if (user && user->conns)
        return BF_PRESENCE_ONLINE;
    return is_known ? BF_PRESENCE_OFFLINE : BF_PRESENCE_UNKNOWN;
}

static void tell_subject(const struct bf_leg *leg, struct bf_subject *ret)
{
    const struct bf_open_event *open = leg->open;
    const struct bf_event *event = open->event;
    *ret = (struct bf_subject){
        .type = event->type,
        .category = event->category,
        .topic = event->topic,
        .lane = event->lane,
        .is_critical = event->is_critical,
        .channels = open->is_push_only ? PUSH : event->channel_mask,
        .is_named = event->channels_named,
        .is_ordered = event->is_fallback,
        .first = event->first_channel,
        .is_transient = event->transient && !open->is_push_only,
        .is_broadcast = open->is_push_only,
        .is_nobodys = open->is_push_only && leg->uid.user.len == 0,
        .created_ms = event->created_ms,
        .expires_ms = event->expires_ms,
    };
}

/* ---- known? ---- */

/* Whether the id came up in this batch already; notes it. The set is twice the batch: never full.
 */
static bool is_in_batch(struct bf_shard *shard, const struct bf_id *id)
{
    static const struct bf_id none;
    uint32_t mask = BF_SHARD_BATCH_MAX * 2 - 1;
    uint32_t hash;
    memcpy(&hash, id->bytes + BF_MESSAGE_PREFIX_BYTES + 4,
           sizeof(hash)); /* differs within an event */
    bf_hash_walk (at, hash, mask) {
        if (bf_id_is_equal(&shard->fresh_ids[at], &none)) {
            shard->fresh_ids[at] = *id;
            shard->fresh_used = true;
            return false;
        }
        if (bf_id_is_equal(&shard->fresh_ids[at], id))
            return true;
    }
}

static bool is_duplicate(struct bf_shard *shard, const struct bf_leg *leg)
{
    enum bf_lane lane;
    uint64_t seq;
    return is_in_batch(shard, &leg->id) ||
           bf_store_find_message(shard->core->store, leg->uid, &leg->id, &lane, &seq);
}

/* There is no such user: may the event create one? An event that was accepted before an erasure may
 * come after it (lanes, the log), and must not create the user again. */
static void meet_stranger(struct bf_shard *shard, struct bf_gathered_leg *g)
{
    const struct bf_leg *leg = g->leg;
    g->is_erased =
        bf_store_is_erased_since(shard->core->store, leg->uid, leg->open->event->created_ms);
    g->is_new = !g->is_erased && bf_core_conf(shard->core)->users_auto_create;
}

/* ---- push: an event that comes again ---- */

static bool is_fallback_known(struct bf_shard *shard, const struct bf_leg *leg)
{
    struct bf_leg_row row = {.channel = BF_CHANNEL_PUSH,
                             .kind = BF_LEG_FALLBACK,
                             .uid = leg->uid,
                             .event_id = leg->open->event->id};
    bf_leg_message_id(&row);
    return bf_store_is_leg_done(shard->core->store, &row.message_id) ||
           bf_outbound_is_queued(&shard->outbound, &row);
}

/* Its in-app message is known. The same record read from the log again after a restart: pushes that
 * had not come to their end are looked after. A producer's repetition: the first one does that. */
static bool is_settled(struct bf_shard *shard, struct bf_gathered_leg *g)
{
    struct bf_store *store = shard->core->store;
    const struct bf_leg *leg = g->leg;
    bool is_following = bf_follows_inapp(&g->facts), is_same = true, is_taken = false;
    struct bf_item_copy copy;
    enum bf_lane lane;
    uint64_t seq;
    if (!g->user || !bf_store_find_message(store, leg->uid, &leg->id, &lane, &seq))
        return true; /* in this very batch */
    if (bf_store_get_item(store, leg->uid, lane, seq, &copy) == 0) {
        is_same = copy.item.created_ms == leg->open->event->created_ms;
        is_taken =
            copy.item.flags != 0 || bf_store_is_acked(store, leg->uid, &g->user->state, lane, seq);
        g->seq = is_following ? seq : 0;
        bf_item_free(&copy);
    } /* else expired or trimmed since: its pushes still need an end */
    return !is_same || (is_following && (is_taken || is_fallback_known(shard, leg)));
}

/* ---- push: endpoints and text ---- */

static int count_device(void *arg, const struct bf_device_row *device)
{
    *(uint32_t *)arg += device->state == BF_DEVICE_LIVE;
    return 0;
}

/* Whether the person has devices at all: read once, then remembered. */
static bool has_devices(struct bf_shard *shard, struct bf_user *user)
{
    uint32_t live = 0;
    if (user && user->devices == BF_USER_DEVICES_UNKNOWN) {
        bf_store_walk_devices(shard->core->store, bf_user_uid(user), count_device, &live);
        user->devices = live > 0 ? BF_USER_DEVICES_SOME : BF_USER_DEVICES_NONE;
    }
    return user && user->devices == BF_USER_DEVICES_SOME;
}

static struct bf_bytes keep(struct bf_push_look *look, struct bf_bytes text)
{
    char *at = look->bytes + look->bytes_used;
    if (text.len > 0)
        memcpy(at, text.at, text.len);
    look->bytes_used += text.len;
    return (struct bf_bytes){at, text.len};
}

static int keep_device(void *arg, const struct bf_endpoint *device)
{
    struct bf_push_look *look = arg;
    size_t room = sizeof(look->bytes) - look->bytes_used;
    if (look->count == BF_DEVICES_USER_MAX || device->account.len > room ||
        device->address.len > room - device->account.len)
        return 1; /* more than can be registered, or longer */
    struct bf_endpoint *kept = &look->devices[look->count];
    *kept = *device;
    kept->account = keep(look, device->account);
    kept->address = keep(look, device->address);
    look->count++;
    look->live += device->state == BF_ENDPOINT_LIVE;
    return 0;
}

/* An event that comes again may have been under way to a device that has died since. */
static bool has_died_since(const struct bf_push_look *look, uint64_t created_ms)
{
    for (uint32_t i = 0; i < look->count; i++)
        if (look->devices[i].state == BF_ENDPOINT_DEAD && look->devices[i].dead_ms >= created_ms)
            return true;
    return false;
}

static void look_at_devices(struct bf_shard *shard, struct bf_gathered_leg *g, bool is_repeat)
{
    struct bf_channel_state *channel = bf_outbound_channel(&shard->outbound, BF_CHANNEL_PUSH);
    struct bf_push_look *look = g->push = shard->push_look;
    struct bf_user *user = g->user;
    bool has_app = g->facts.rules->channels & PUSH;
    look->count = look->live = 0;
    look->bytes_used = 0;
    look->content = NULL;
    look->why[0] = '\0';
    if (user && has_app && channel && user->devices != BF_USER_DEVICES_NONE) {
        bf_channel_ops_of(BF_CHANNEL_PUSH)
            ->endpoints(channel, &shard->turn, bf_user_uid(user), keep_device, look);
        user->devices = look->count > 0 ? BF_USER_DEVICES_SOME : BF_USER_DEVICES_NONE;
    }
    if (look->live == 0 && !(is_repeat && has_died_since(look, g->subject.created_ms)))
        g->facts.reachable &= (uint8_t)~PUSH;
}

/* The subscribers of a topic, or all users, are many: their pushes go through the queue, and the
 * text is read when they are sent. */
static void open_content(struct bf_shard *shard, struct bf_gathered_leg *g)
{
    const struct bf_event *event = g->leg->open->event;
    struct bf_push_look *look = g->push;
    const struct bf_content_source source = {
        .lane = event->lane,
        .tenant = g->leg->uid.tenant,
        .now_ms = shard->turn.now_ms,
        .expires_ms =
            event->expires_ms ? event->expires_ms : event->created_ms + BF_PUSH_TTL_DEFAULT_MS,
        .fragment = event->fragment,
        .overrides = event->overrides};
    if (event->target != BF_TARGET_USERS)
        return;
    struct bf_channel_state *channel = bf_outbound_channel(&shard->outbound, BF_CHANNEL_PUSH);
    if (bf_channel_ops_of(BF_CHANNEL_PUSH)->open(channel, &source, &look->content, look->why) == 0)
        return;
    look->content = NULL;
    g->subject.unreadable |= PUSH;
}

/* Whether push is wanted of this leg at all. */
static bool asks_for_push(const struct bf_gathered_leg *g)
{
    const struct bf_subject *subject = &g->subject;
    uint8_t subscribed = g->facts.subscribed;
    return !subject->is_transient && !subject->is_nobodys && g->facts.person &&
           subject->channels & PUSH && (!subscribed || subscribed & PUSH);
}

/* What costs a read is read only where the plan turns on it (decide.h). */
static void gather_push(struct bf_shard *shard, struct bf_gathered_leg *g)
{
    const struct bf_subject *subject = &g->subject;
    struct bf_facts *facts = &g->facts;
    struct bf_plan plan;
    bool may_reach = subject->is_named || subject->is_broadcast ||
                     (facts->rules->channels & PUSH && has_devices(shard, g->user));
    if (!may_reach) {
        facts->reachable &= (uint8_t)~PUSH;
        return;
    }
    if (facts->is_known)
        facts->is_settled = is_settled(shard, g);
    bf_decide(facts, &plan);
    if (subject->is_broadcast && plan.leg[BF_CHANNEL_PUSH].when == BF_CHAINED)
        facts->is_settled = is_fallback_known(shard, g->leg);
    if (!bf_needs_endpoints(facts, &plan, BF_CHANNEL_PUSH))
        return;
    look_at_devices(shard, g, !plan.in_inbox);
    if (plan.leg[BF_CHANNEL_PUSH].when == BF_NOW && facts->reachable & PUSH)
        open_content(shard, g);
}

/* Small ones have two lines: they are on their way while the store is asked about the message. */
static void prefetch_prefs(const struct bf_prefs *prefs)
{
    if (!prefs)
        return;
    __builtin_prefetch(prefs);
    __builtin_prefetch((const char *)prefs + CACHE_LINE_BYTES);
}

void bf_shard_gather(struct bf_shard *shard, struct bf_leg *leg, struct bf_gathered_leg *ret)
{
    struct bf_gathered_leg *g = ret;
    g->leg = leg;
    g->user = bf_user_find_with(&shard->users, leg->uid, leg->key);
    g->is_new = g->is_erased = false;
    g->seq = 0;
    g->push = NULL;
    g->person.prefs = g->user ? g->user->prefs : NULL;
    prefetch_prefs(g->person.prefs);
    tell_subject(leg, &g->subject);
    bool is_kept = !g->subject.is_broadcast && !g->subject.is_transient;
    if (!g->user && !g->subject.is_broadcast)
        meet_stranger(shard, g);
    g->facts = (struct bf_facts){
        .moment = BF_ARRIVES,
        .now_ms = shard->turn.now_ms,
        .subject = &g->subject,
        .rules = shard->turn.rules,
        .person = g->user || g->is_new ? &g->person : NULL,
        .presence = bf_shard_presence(shard, g->user),
        .subscribed = leg->channel_mask,
        .reachable = UINT8_MAX,
    };
    if (g->user && !g->subject.is_broadcast)
        bf_shard_settle_heads(shard, g->user);
    if (g->facts.person && is_kept)
        g->facts.is_known = is_duplicate(shard, leg);
    if (asks_for_push(g))
        gather_push(shard, g);
}

void bf_shard_gather_close(struct bf_gathered_leg *gathered)
{
    if (gathered->push && gathered->push->content)
        bf_channel_ops_of(BF_CHANNEL_PUSH)->close(gathered->push->content);
}
