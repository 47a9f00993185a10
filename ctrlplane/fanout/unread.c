/*
 * The unread count of a user, and how sockets learn of it. The count changes with each arrival and
 * mark; it is counted again when an unread item may have expired, and after a kill. Sockets are
 * told by `state` frames. What they were not told because a ring was full or this process was
 * killed, and what changed by itself (expiry, the limit of the inbox), is told by a sweep over the
 * open connections: the state row of such a user has a flag, which is written with the change and
 * cleared once the sockets were told.
 */
#include "fanout/shard.h"

#include "stats/metrics.h"
#include "belfry/base/time.h"
#include "fanout/core_state.h"

/* Connections that the sweep looks at in one turn, and how often it takes one: a look costs 0.1 us,
 * and 100,000 connections of a shard are seen within 8 s. */
#define SWEEP_CONNS   256u
#define SWEEP_TURN_MS BF_SHARD_TICK_MS
/* A turn that counts inboxes ends after this time: events wait no longer. After a kill every inbox
 * is counted once. */
#define SWEEP_COUNT_US 1000u

/* An item as state frames speak of it. */
struct told_as {
    const char *member;
    bool value;
};

static bool is_due(const struct bf_user *user, uint64_t now_ms)
{
    if (user->state.is_rounded)
        return true;
    return user->state.unread_due_ms == 0 ? user->state.unread > 0
                                          : user->state.unread_due_ms <= now_ms;
}

void bf_shard_add_unread(struct bf_user *user, uint64_t expires_ms)
{
    if (user->state.unread_due_ms == 0 && user->state.unread == 0 && !user->state.is_rounded)
        user->state.unread_due_ms = UINT64_MAX;
    if (user->state.unread_due_ms != 0 && expires_ms != 0 && expires_ms < user->state.unread_due_ms)
        user->state.unread_due_ms = expires_ms;
    user->state.unread++;
}

void bf_shard_drop_unread(struct bf_user *user)
{
    if (user->state.unread > 0)
        user->state.unread--;
    else
        user->state.is_rounded = true; /* the count is wrong: count again at the next look */
}

void bf_shard_recount_unread(struct bf_shard *shard, struct bf_user *user, uint64_t now_ms)
{
    struct bf_user_state *state = &user->state;
    struct bf_unread n;
    if (!is_due(user, now_ms) ||
        bf_store_count_unread(shard->core->store, bf_user_uid(user), now_ms, &n) != 0)
        return;
    /* a count that a killed process wrote was told to nobody; nobody was told of what has expired
     * since, and compaction may have dropped its row */
    bool is_expired =
        n.has_expired || (state->unread_due_ms != 0 && state->unread_due_ms <= now_ms);
    bool is_news = state->is_rounded ? is_expired : n.count != state->unread;
    bool is_changed = n.count != state->unread || state->is_rounded;
    user->state.unread_due_ms = n.due_ms;
    state->is_rounded = false;
    if (n.count != state->unread)
        state->version++;
    state->unread = n.count;
    if (is_news && user->conns)
        state->is_telling = true;
    if (is_changed || (is_news && user->conns))
        bf_shard_mark_dirty(shard, user);
}

uint32_t bf_shard_badge(struct bf_shard *shard, struct bf_user *user)
{
    uint64_t now_ms = shard->turn.now_ms;
    if (is_due(user, now_ms)) {
        if (bf_batch_count(shard->batch) > 0)
            bf_shard_commit(shard); /* counting reads the store */
        bf_shard_recount_unread(shard, user, now_ms);
    }
    return user->state.unread;
}

/* ---- telling ---- */

void bf_shard_begin_telling(struct bf_shard *shard, struct bf_user *user)
{
    /* without a census nobody knows who is there */
    if (!user->conns && shard->presence_known)
        return;
    user->state.is_telling = true;
    bf_shard_mark_dirty(shard, user);
}

void bf_shard_end_telling(struct bf_shard *shard, struct bf_user *user, bool is_told)
{
    if (!user->state.is_telling || !is_told || !shard->presence_known)
        return;
    /* frames are with the workers before the next write says that they were sent */
    bf_publisher_flush(&shard->pub);
    user->state.is_telling = false;
    bf_shard_mark_dirty(shard, user);
    shard->batched++; /* a turn ends with a commit */
}

static struct told_as state_of(const struct bf_item *item, uint64_t now_ms)
{
    if (!bf_item_is_shown(item, now_ms) || item->flags & BF_ITEM_ARCHIVED)
        return (struct told_as){"archived", true}; /* it has left the list */
    if (!(item->flags & BF_ITEM_READ) && item->flags & BF_ITEM_SEEN)
        return (struct told_as){"seen", true};
    return (struct told_as){"read", (item->flags & BF_ITEM_READ) != 0};
}

/* One frame to all of the user's sockets: what the item is now that changed last, and the count. */
static void tell(struct bf_shard *shard, struct bf_user *user, uint64_t now_ms)
{
    struct bf_unread n;
    bf_shard_recount_unread(shard, user, now_ms);
    if (bf_store_count_unread(shard->core->store, bf_user_uid(user), now_ms, &n) != 0)
        return;
    struct told_as as = state_of(&n.latest, now_ms);
    /* without any row the frame names an item that nobody has: its count is what matters */
    bool is_told = bf_shard_send_state(shard, user, &n.latest.id, as.member, as.value, 0, 0);
    if (is_told)
        bf_count(BF_CM_M_state_told_again, 1);
    bf_shard_end_telling(shard, user, is_told);
}

/* Looks at one connection's user. */
static void look(struct bf_shard *shard, struct bf_user *user, uint64_t now_ms)
{
    bf_shard_recount_unread(shard, user, now_ms);
    if (user->state.is_telling)
        tell(shard, user, now_ms);
}

void bf_shard_sweep_unread(struct bf_shard *shard)
{
    uint64_t began_ns =
        bf_mono_ns(); /* what a turn may cost is measured, not decided by its clock */
    if (!shard->presence_known || began_ns / 1000000u - shard->sweep_ms < SWEEP_TURN_MS)
        return;
    shard->sweep_ms = began_ns / 1000000u;
    const struct bf_conn_table *conns = &shard->conns;
    uint64_t now_ms = shard->turn.now_ms;
    uint32_t passed = 0;
    for (uint32_t n = 0; n < SWEEP_CONNS && passed <= conns->workers;) {
        uint32_t w = shard->sweep_worker % conns->workers;
        if (shard->sweep_slot >= conns->slot_used[w]) {
            shard->sweep_worker = w + 1;
            shard->sweep_slot = 0;
            passed++; /* once around is enough for a turn */
            continue;
        }
        struct bf_conn *conn = conns->slots[w][shard->sweep_slot++];
        n++;
        if (!conn || (!is_due(conn->user, now_ms) && !conn->user->state.is_telling))
            continue;
        look(shard, conn->user, now_ms);
        if (bf_mono_ns() - began_ns > SWEEP_COUNT_US * 1000u)
            break;
    }
    if (shard->dirty_count > 0 || shard->batched > 0)
        bf_shard_commit(shard);
}
