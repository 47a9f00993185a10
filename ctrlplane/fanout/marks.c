/* Inbox state of one item or all: read, seen, archived, deleted; the unread count goes with it. */
#include "fanout/shard.h"

#include "admin/metrics.h"
#include "belfry/base/time.h"
#include "fanout/core_state.h"

/* Items that one read-all rewrites between two store writes. */
#define READ_ALL_CHUNK 500u

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

static bool is_unread(uint32_t flags)
{
    return !(flags & (BF_ITEM_READ | BF_ITEM_ARCHIVED | BF_ITEM_DELETED));
}

/* Rewrites the row if the flags change; keeps the count. Returns whether they did. */
static bool rewrite(struct bf_shard *shard, struct bf_user *user, struct bf_item *item,
                    const struct mark_rule *rule)
{
    uint32_t flags = (item->flags | rule->set) & ~rule->clear;
    if (flags == item->flags)
        return false;
    if (is_unread(item->flags) && !is_unread(flags) && user->state.unread > 0)
        user->state.unread--;
    else if (!is_unread(item->flags) && is_unread(flags))
        user->state.unread++;
    if ((flags & BF_ITEM_READ) && !(item->flags & BF_ITEM_READ))
        bf_funnel_count(BF_FUNNEL_OPENED, item->lane, BF_CHANNEL_INAPP, 1);
    item->flags = flags;
    item->changed_ms = bf_wall_ms();
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
    if (user->state.is_rounded)
        bf_shard_recount_unread(shard, user);
    if (!locate(shard, user, id, &lane, &seq) ||
        bf_store_get_item(shard->core->store, bf_user_uid(user), lane, seq, &copy) != 0)
        return BF_ERR_NOT_FOUND;
    bool changed = rewrite(shard, user, &copy.item, rule);
    struct bf_id message = copy.item.id;
    bf_item_free(&copy);
    if (!changed)
        return 0;
    bf_shard_commit(shard); /* answered and shown once durable */
    bf_shard_send_state(shard, user, &message, rule->member, rule->value, worker, except);
    return 0;
}

/* A longer unread list is counted as it is known: nobody reads "1,000 unread" to the unit. */
#define RECOUNT_MAX 1000u

struct recount {
    uint32_t unread;
    uint64_t due_ms;
};

static int count_unread(void *arg, const struct bf_item *item)
{
    struct recount *r = arg;
    r->unread++;
    if (item->expires_ms && item->expires_ms < r->due_ms)
        r->due_ms = item->expires_ms;
    return 0;
}

void bf_shard_recount_unread(struct bf_shard *shard, struct bf_user *user)
{
    struct recount r = {.due_ms = UINT64_MAX};
    struct bf_inbox_cursor cursor = {.before = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    uint64_t now = bf_wall_ms();
    bool more = false;
    bool is_sure = !user->state.is_rounded;
    if (is_sure && (user->state.unread == 0 || (user->unread_due_ms && now < user->unread_due_ms)))
        return;
    if (bf_store_list_inbox(shard->core->store, bf_user_uid(user), &cursor, true, RECOUNT_MAX, now,
                            count_unread, &r, &more) != 0)
        return;
    user->unread_due_ms = r.due_ms;
    user->state.is_rounded = false;
    if (more || r.unread == user->state.unread)
        return;
    user->state.unread = r.unread;
    bf_shard_mark_dirty(shard, user);
}

struct read_all {
    struct bf_shard *shard;
    struct bf_user *user;
    uint32_t changed;
};

static int read_one(void *arg, const struct bf_item *item)
{
    struct read_all *all = arg;
    struct bf_item copy = *item;
    if (!rewrite(all->shard, all->user, &copy, &rules[BF_MARK_READ]))
        return 0;
    all->changed++;
    bf_shard_send_state(all->shard, all->user, &copy.id, "read", true, 0, 0);
    return 0;
}

int bf_shard_read_all(struct bf_shard *shard, struct bf_user *user, uint32_t *ret_changed)
{
    struct read_all all = {.shard = shard, .user = user};
    struct bf_inbox_cursor cursor = {.before = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    bool more = true;
    while (more) {
        int rc = bf_store_list_inbox(shard->core->store, bf_user_uid(user), &cursor, true,
                                     READ_ALL_CHUNK, bf_wall_ms(), read_one, &all, &more);
        if (rc != 0)
            return rc;
        bf_shard_commit(shard);
    }
    *ret_changed = all.changed;
    return 0;
}
