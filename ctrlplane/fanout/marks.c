/* Inbox state of one item or all: read, seen, archived, deleted; the unread count goes with it. */
#include "fanout/shard.h"

#include <stdlib.h>

#include "stats/metrics.h"
#include "fanout/core_state.h"

/* Items that one read-all rewrites between two store writes. */
#define READ_ALL_CHUNK 500u
/* How many items of a read-all are named to sockets: as many as a resume replays at most. A client
 * that shows more lists its inbox. */
#define READ_ALL_TOLD_MAX BF_REPLAY_MESSAGES_MAX

struct mark_rule {
    uint32_t set, clear;
    const char *member; /* of the state frame; NULL: none */
    bool value;
};

static const struct mark_rule rules[] = {
    [BF_MARK_READ] = {BF_ITEM_READ | BF_ITEM_SEEN, 0, "read", true},
    [BF_MARK_UNREAD] = {0, BF_ITEM_READ, "read", false},
    [BF_MARK_SEEN] = {BF_ITEM_SEEN, 0, "seen", true},
    [BF_MARK_ARCHIVED] = {BF_ITEM_ARCHIVED, 0, "archived", true},
    [BF_MARK_UNARCHIVED] = {0, BF_ITEM_ARCHIVED, "archived", false},
    [BF_MARK_DELETED] = {BF_ITEM_DELETED, 0, "archived", true},
};

/* Rewrites the row if the flags change; keeps the count. Returns whether they did. */
static bool rewrite(struct bf_shard *shard, struct bf_user *user, struct bf_item *item,
                    const struct mark_rule *rule, uint64_t now_ms)
{
    uint32_t flags = (item->flags | rule->set) & ~rule->clear;
    if (flags == item->flags)
        return false;
    if ((flags & BF_ITEM_READ) && !(item->flags & BF_ITEM_READ))
        bf_funnel_count(BF_FUNNEL_OPENED, item->lane, BF_CHANNEL_INAPP, 1);
    bool was_unread = bf_item_is_unread(item, now_ms);
    item->flags = flags;
    item->changed_ms = now_ms;
    bool is_unread = bf_item_is_unread(item, now_ms);
    if (is_unread && !was_unread)
        bf_shard_add_unread(user, item->expires_ms);
    else if (was_unread && !is_unread)
        bf_shard_drop_unread(user);
    user->state.version++;
    bf_batch_put_flags(shard->batch, bf_user_uid(user), item);
    bf_shard_mark_dirty(shard, user);
    return true;
}

/* By message id, or by the event's id of which this user has a message. */
static bool locate(struct bf_shard *shard, struct bf_user *user, const struct bf_id *id,
                   enum bf_lane *ret_lane, uint64_t *ret_seq)
{
    struct bf_uid uid = bf_user_uid(user);
    struct bf_id message;
    if (bf_store_find_message(shard->core->store, uid, id, ret_lane, ret_seq))
        return true;
    bf_message_id(id, uid.tenant, uid.user, BF_CHANNEL_INAPP, (struct bf_bytes){0}, 0, &message);
    return bf_store_find_message(shard->core->store, uid, &message, ret_lane, ret_seq);
}

int bf_shard_mark(struct bf_shard *shard, struct bf_user *user, const struct bf_id *id,
                  uint32_t mark, uint32_t worker, bf_conn_id except)
{
    enum bf_lane lane;
    uint64_t seq;
    struct bf_item_copy copy;
    const struct mark_rule *rule = &rules[mark];
    uint64_t now_ms = shard->turn.now_ms;
    bf_shard_recount_unread(shard, user, now_ms);
    if (!locate(shard, user, id, &lane, &seq) ||
        bf_store_get_item(shard->core->store, bf_user_uid(user), lane, seq, &copy) != 0)
        return BF_ERR_NOT_FOUND;
    bool is_shown = bf_item_is_shown(&copy.item, now_ms);
    bool changed = is_shown && rewrite(shard, user, &copy.item, rule, now_ms);
    struct bf_id message = copy.item.id;
    bf_item_free(&copy);
    if (!changed)
        return is_shown ? 0 : BF_ERR_NOT_FOUND;
    bf_shard_begin_telling(shard, user);
    bf_shard_commit(shard); /* answered and shown once durable */
    bool is_told =
        bf_shard_send_state(shard, user, &message, rule->member, rule->value, worker, except);
    bf_shard_end_telling(shard, user, is_told);
    return 0;
}

struct read_all {
    struct bf_shard *shard;
    struct bf_user *user;
    uint64_t now_ms;
    uint32_t changed;
    struct bf_id *told; /* the first READ_ALL_TOLD_MAX of them; NULL: nobody is told by name */
};

static int read_one(void *arg, const struct bf_item *item)
{
    struct read_all *all = arg;
    struct bf_item copy = *item;
    if (!rewrite(all->shard, all->user, &copy, &rules[BF_MARK_READ], all->now_ms))
        return 0;
    if (all->told && all->changed < READ_ALL_TOLD_MAX)
        all->told[all->changed] = copy.id;
    all->changed++;
    return 0;
}

/* Sent after everything is durable. Each frame carries the final count, so whichever of them is
 * lost to a full ring or queue, the last one that arrives is right. */
static void tell_read(struct read_all *all)
{
    uint32_t count = all->changed < READ_ALL_TOLD_MAX ? all->changed : READ_ALL_TOLD_MAX;
    bool is_told = all->told != NULL;
    for (uint32_t i = 0; i < count && all->told; i++)
        if (!bf_shard_send_state(all->shard, all->user, &all->told[i], "read", true, 0, 0))
            is_told = false;
    bf_shard_end_telling(all->shard, all->user, is_told);
}

int bf_shard_read_all(struct bf_shard *shard, struct bf_user *user, uint32_t *ret_changed)
{
    struct read_all all = {.shard = shard, .user = user, .now_ms = shard->turn.now_ms};
    struct bf_inbox_cursor cursor = {.before = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    bool more = true;
    int rc = 0;
    bf_shard_recount_unread(shard, user, all.now_ms);
    all.told = user->conns ? calloc(READ_ALL_TOLD_MAX, sizeof(*all.told)) : NULL;
    while (more && rc == 0) {
        rc = bf_store_list_inbox(shard->core->store, bf_user_uid(user), &cursor, true,
                                 READ_ALL_CHUNK, all.now_ms, read_one, &all, &more);
        if (all.changed > 0)
            bf_shard_begin_telling(shard, user);
        bf_shard_commit(shard);
    }
    if (all.changed > 0)
        tell_read(&all);
    free(all.told);
    *ret_changed = all.changed;
    return rc;
}
