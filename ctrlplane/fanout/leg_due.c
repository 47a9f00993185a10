/*
 * A row of the queue whose time has come, decided again: opt-out, erasure, preferences, expiry and
 * acknowledgement may have changed since it was put (DESIGN 4.3, 4.7).
 */
#include "fanout/shard.h"

#include "fanout/core_state.h"

/* Acknowledged, or dealt with otherwise: read, seen, archived, deleted. */
static bool is_taken(const struct bf_shard *shard, const struct bf_user *user,
                     const struct bf_leg_row *row)
{
    struct bf_store *store = shard->core->store;
    struct bf_item_copy copy;
    if (bf_leg_is_nobodys(row))
        return false;
    if (row->seq == 0) /* a broadcast's fallback: who is connected by now has had it there. What
                        * somebody redrives goes out */
        return row->kind == BF_LEG_FALLBACK && row->redrive == 0 && user->conns;
    if (bf_store_is_acked(store, row->uid, &user->state, row->lane, row->seq) ||
        bf_store_get_item(store, row->uid, row->lane, row->seq, &copy) != 0)
        return true;
    bool is_touched = copy.item.flags != 0;
    bf_item_free(&copy);
    return is_touched;
}

void bf_shard_look_at_due(struct bf_shard *shard, const struct bf_leg_row *row,
                          struct bf_due_plan *ret)
{
    struct bf_user *user = bf_user_find(&shard->users, row->uid);
    const struct bf_event said = {
        .type = row->type, .category = row->category, .topic = row->topic};
    enum bf_suppress reason = BF_PASS;
    *ret = (struct bf_due_plan){.end = BF_DUE_GOES};
    if (user)
        bf_shard_settle_heads(shard, user);
    if (!user && !bf_leg_is_nobodys(row))
        ret->end = BF_DUE_GONE;
    else if (row->expires_ms <= shard->turn.now_ms)
        ret->end = BF_DUE_EXPIRED;
    else if (is_taken(shard, user, row))
        ret->end = BF_DUE_TAKEN;
    if (ret->end != BF_DUE_GOES || !user)
        return;
    bf_shard_recount_unread(shard, user, shard->turn.now_ms); /* no inbox row waits in this batch */
    ret->unread = user->state.unread;
    reason = bf_prefs_decide(user->prefs, &said, (enum bf_channel)row->channel);
    if (reason == BF_PASS)
        return;
    ret->end = BF_DUE_SUPPRESSED;
    ret->reason = bf_suppress_name(reason);
}
