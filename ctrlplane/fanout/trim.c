/*
 * The limit of an inbox (INB-1): beyond fanout.inbox_user_max the oldest messages are deleted. The
 * count of stored messages says when to look; it does not know what has expired since, so the
 * messages are counted again then. Id rows stay until they expire, so that an old event that comes
 * again is recognised.
 */
#include "fanout/shard.h"

#include "stats/metrics.h"
#include "fanout/core_state.h"

/* A trim makes room for this share of the cap at once, so that it happens every so many messages.
 */
#define ROOM_PART 20u

struct count {
    uint32_t items;
};

static int count_item(void *arg, const struct bf_item *item)
{
    (void)item;
    ((struct count *)arg)->items++;
    return 0;
}

void bf_shard_trim(struct bf_shard *shard, struct bf_user *user)
{
    uint32_t cap = bf_core_conf(shard->core)->inbox_user_max;
    struct bf_inbox_cursor cursor = {.before = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    struct count kept = {0};
    uint32_t dropped = 0;
    bool more = false;
    if (BF_LIKELY(user->state.stored <= cap))
        return;
    bf_shard_commit(shard); /* the list reads the store */
    /* |cursor| ends at the oldest message that stays */
    if (bf_store_list_inbox(shard->core->store, bf_user_uid(user), &cursor, false,
                            cap - cap / ROOM_PART, shard->turn.now_ms, count_item, &kept,
                            &more) != 0)
        return;
    if (more && bf_batch_drop_below(shard->batch, bf_user_uid(user), &cursor, &dropped) != 0)
        return;
    user->state.stored = kept.items;
    bf_count(BF_CM_M_inbox_trimmed, dropped);
    bf_shard_mark_dirty(shard, user);
    bf_shard_commit(shard);
    uint32_t before = user->state.unread;
    user->state.version++;
    user->state.is_rounded = true; /* some of them may have been unread: the sockets hear of it */
    bf_shard_recount_unread(shard, user, shard->turn.now_ms);
    if (user->state.unread != before)
        bf_shard_begin_telling(shard, user);
}
