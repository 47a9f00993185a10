/* Devices of a user, written on the user's shard: no registration outlives an erasure that came
 * after it. */
#include "store/devices.h"

#include "belfry/base/err.h"
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

static int do_put_device(struct bf_shard *shard, struct bf_call *call)
{
    struct bf_device_row row;
    struct census census = {.row = &row};
    struct bf_user *user = bf_user_find(&shard->users, call->uid);
    if (!user)
        return BF_ERR_UNKNOWN_USER;
    if (!bf_device_decode(call->json, &row))
        return BF_ERR_CORRUPT;
    row.uid = call->uid;
    int rc = bf_store_walk_devices(shard->core->store, call->uid, count_one, &census);
    if (rc != 0)
        return rc;
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

static int do_delete_device(struct bf_shard *shard, struct bf_call *call)
{
    if (!bf_user_find(&shard->users, call->uid))
        return BF_ERR_UNKNOWN_USER;
    return bf_batch_delete_device(shard->batch, call->uid, &call->id);
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
