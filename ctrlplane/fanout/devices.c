/* Devices of a user, written on the user's shard: no registration outlives an erasure that came
 * after it. */
#include "store/devices.h"

#include <string.h>

#include "stats/metrics.h"
#include "belfry/base/err.h"
#include "channels/push/push_device.h"
#include "fanout/calls.h"
#include "fanout/core.h"
#include "fanout/core_state.h"
#include "fanout/shard.h"

struct census {
    const struct bf_device_row *row;
    uint32_t count;
    bool is_known;
    uint64_t created_ms;
    bool has_dead;
    struct bf_id dead;
    uint64_t dead_ms;
};

static int count_one(void *arg, const struct bf_device_row *row)
{
    struct census *c = arg;
    c->count++;
    if (bf_id_is_equal(&row->id, &c->row->id)) {
        c->is_known = true;
        c->created_ms = row->created_ms;
    } else if (row->state == BF_DEVICE_DEAD && (!c->has_dead || row->dead_ms < c->dead_ms)) {
        c->has_dead = true;
        c->dead = row->id;
        c->dead_ms = row->dead_ms;
    }
    return 0;
}

/* Who had the token until now. */
struct hand_over {
    struct bf_shard *shard;
    const struct bf_device_row *row;
    bool is_own; /* another device of this very user */
    struct bf_id own;
};

/* The outside learns that the former user's device is gone (belfry.tokens). */
static void tell_taken(struct bf_shard *shard, const struct bf_device_row *old)
{
    char text[BF_PUSH_EVENT_BYTES_MAX];
    struct bf_device_row told = *old;
    told.reason = BF_BYTES("registered_by_another_user");
    size_t len = bf_push_device_event(&told, "deleted", shard->turn.now_ms, text);
    bf_log_token_event(shard->core->log, told.uid.user, (struct bf_bytes){text, len});
    bf_count(BF_CM_M_push_devices_taken, 1);
}

static int look_at_holder(void *arg, const struct bf_device_row *old)
{
    struct hand_over *h = arg;
    bool is_user = bf_bytes_is_equal(old->uid.tenant, h->row->uid.tenant) &&
                   bf_bytes_is_equal(old->uid.user, h->row->uid.user);
    if (memcmp(old->token_hash, h->row->token_hash, sizeof(old->token_hash)) != 0)
        return 0; /* it has had another token since */
    if (!is_user)
        tell_taken(h->shard, old);
    h->is_own = is_user && !bf_id_is_equal(&old->id, &h->row->id);
    h->own = old->id;
    return 0;
}

static void follow(void *arg, const struct bf_leg_row *was, struct bf_leg_row *is)
{
    bf_leg_message_id(is);
    bf_outbound_moved(arg, was, is);
}

/* A phone of this user under another name stays one phone: what waits for it is not lost. What
 * waits for another user's ends when it is due, because the device is gone. */
static void take_over(struct bf_shard *shard, struct hand_over *h)
{
    int rc = bf_store_find_device(shard->core->store, h->row->token_hash, look_at_holder, h);
    if (rc == 0 && h->is_own)
        (void)bf_batch_move_legs(shard->batch, h->row->uid, &h->own, &h->row->id, follow,
                                 &shard->outbound);
}

static int put_device(struct bf_shard *shard, struct bf_call *call)
{
    struct bf_device_row row;
    struct census census = {.row = &row};
    struct bf_user *user = bf_user_find(&shard->users, call->uid);
    if (!user)
        return BF_ERR_UNKNOWN_USER;
    if (!bf_device_decode(call->json, &row))
        return BF_ERR_CORRUPT;
    row.uid = call->uid;
    struct hand_over h = {.shard = shard, .row = &row};
    int rc = bf_store_walk_devices(shard->core->store, call->uid, count_one, &census);
    if (rc != 0)
        return rc;
    take_over(shard, &h);
    census.count -= h.is_own; /* it becomes the new one */
    if (!census.is_known && census.count >= BF_DEVICES_USER_MAX) {
        if (!census.has_dead)
            return BF_ERR_FULL;
        rc = bf_batch_delete_device(shard->batch, call->uid, &census.dead);
        if (rc != 0)
            return rc;
    }
    if (census.is_known)
        row.created_ms = census.created_ms;
    bf_batch_put_device(shard->batch, &row);
    user->devices = BF_USER_DEVICES_SOME;
    call->flag = !census.is_known;
    call->number = row.created_ms;
    return 0;
}

/*
 * Which device has a token is decided and written by one shard at a time: two users of two shards
 * who register one phone at once would each miss the other, and the phone would belong to both.
 * Held over a write that is not synced; devices are registered a few times a day.
 */
static int with_devices_locked(struct bf_shard *shard, struct bf_call *call,
                               int (*run)(struct bf_shard *shard, struct bf_call *call))
{
    pthread_mutex_lock(&shard->core->devices_lock);
    int rc = run(shard, call);
    bf_shard_commit(shard);
    pthread_mutex_unlock(&shard->core->devices_lock);
    return rc;
}

static int do_put_device(struct bf_shard *shard, struct bf_call *call)
{
    return with_devices_locked(shard, call, put_device);
}

int bf_core_put_device(struct bf_core *core, struct bf_uid uid, const struct bf_device_row *row,
                       bool *ret_created, uint64_t *ret_created_ms)
{
    uint8_t bytes[BF_DEVICE_ROW_BYTES_MAX];
    struct bf_bytes encoded = {(char *)bytes, bf_device_encode(row, bytes)};
    struct bf_call *call = bf_call_create(uid, encoded, do_put_device);
    if (!call)
        return BF_ERR_NO_MEMORY;
    int rc = bf_call_wait(bf_core_shard_of(core, uid), call, BF_CORE_WAIT_MS);
    if (rc == 0) {
        *ret_created = call->flag;
        *ret_created_ms = call->number;
    }
    bf_call_release(call);
    return rc;
}

static int delete_device(struct bf_shard *shard, struct bf_call *call)
{
    if (!bf_user_find(&shard->users, call->uid))
        return BF_ERR_UNKNOWN_USER;
    return bf_batch_delete_device(shard->batch, call->uid, &call->id);
}

static int do_delete_device(struct bf_shard *shard, struct bf_call *call)
{
    return with_devices_locked(shard, call, delete_device);
}

int bf_core_delete_device(struct bf_core *core, struct bf_uid uid, const struct bf_id *id)
{
    struct bf_call *call = bf_call_create(uid, (struct bf_bytes){0}, do_delete_device);
    if (!call)
        return BF_ERR_NO_MEMORY;
    call->id = *id;
    int rc = bf_call_wait(bf_core_shard_of(core, uid), call, BF_CORE_WAIT_MS);
    bf_call_release(call);
    return rc;
}
