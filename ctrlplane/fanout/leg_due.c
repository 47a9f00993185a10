/*
 * What is known about a row of the queue whose time has come, so that it is decided again: opt-out,
 * erasure, preferences, expiry and acknowledgement may have changed since it was put (DESIGN 4.3,
 * 4.7). outbound/due.c decides by it.
 */
#include "fanout/shard.h"

#include "fanout/core_state.h"
#include "fanout/gather.h"

/* Acknowledged, or dealt with otherwise: read, seen, archived, deleted. */
static bool is_taken(const struct bf_shard *shard, const struct bf_user *user,
                     const struct bf_leg_row *row)
{
    struct bf_store *store = shard->core->store;
    struct bf_item_copy copy;
    if (!user || row->seq == 0 || row->expires_ms <= shard->turn.now_ms)
        return false; /* nothing to acknowledge, or decided without it */
    if (bf_store_is_acked(store, row->uid, &user->state, row->lane, row->seq) ||
        bf_store_get_item(store, row->uid, row->lane, row->seq, &copy) != 0)
        return true;
    bool is_touched = copy.item.flags != 0;
    bf_item_free(&copy);
    return is_touched;
}

void bf_shard_gather_due(struct bf_shard *shard, const struct bf_leg_row *row,
                         struct bf_due_facts *ret)
{
    struct bf_user *user = bf_user_find(&shard->users, row->uid);
    if (user)
        bf_shard_settle_heads(shard, user);
    ret->person.prefs = user ? user->prefs : NULL;
    ret->subject = (struct bf_subject){
        .type = row->type,
        .category = row->category,
        .topic = row->topic,
        .lane = row->lane,
        .channels = (uint8_t)(1u << row->channel),
        .is_named = true,
        /* what somebody redrives goes out, whoever is connected */
        .is_broadcast = row->seq == 0 && row->redrive == 0,
        .is_nobodys = bf_leg_is_nobodys(row),
        .created_ms = row->created_ms,
        .expires_ms = row->expires_ms,
        .is_fallback = row->kind == BF_LEG_FALLBACK,
        .due_ms = row->not_before_ms,
    };
    ret->facts = (struct bf_facts){
        .moment = BF_DUE,
        .now_ms = shard->turn.now_ms,
        .subject = &ret->subject,
        .rules = shard->turn.rules,
        .person = user ? &ret->person : NULL,
        .presence = bf_shard_presence(shard, user),
        .reachable = UINT8_MAX,
        .is_settled = is_taken(shard, user, row),
        .is_counted = true,
    };
}

uint32_t bf_shard_unread_of(struct bf_shard *shard, struct bf_uid uid)
{
    struct bf_user *user = bf_user_find(&shard->users, uid);
    if (!user)
        return 0;
    bf_shard_recount_unread(shard, user, shard->turn.now_ms); /* no inbox row waits in this batch */
    return user->state.unread;
}
