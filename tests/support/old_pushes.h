/*
 * The push queue as a former version wrote it: rows ordered by the shard of their person, an index
 * by person and one by collapse key, and the number of shards that the rows lie in. Kept as it was,
 * so that what is brought to today's form is what that version left, and not what today's code
 * believes that it left.
 */
#pragma once

#include "belfry/shm/user_key.h"
#include "ingest/event.h"
#include "store/store_impl.h"

struct old_push {
    uint8_t shard;
    enum bf_lane lane;
    uint64_t not_before_ms;
    struct bf_id message_id;
    struct bf_uid uid;
    struct bf_id event_id;
    struct bf_id device_id; /* all zero: for every device, unless the message is acknowledged */
    uint64_t created_ms, expires_ms;
    uint64_t seq;
    uint32_t redrive, attempts;
    uint64_t collapse;
    struct bf_bytes meta, fragment, overrides, reason;
};

static inline void old_put_id(struct bf_writer *w, const struct bf_id *id)
{
    bf_put_raw(w, id->bytes, sizeof(id->bytes));
}

static inline void old_put_index(struct bf_batch *b, const struct bf_key *index,
                                 const struct bf_key *row)
{
    struct bf_writer w = bf_batch_expiring_value(b, 0, row->len);
    bf_put_raw(&w, row->at, row->len);
    bf_batch_put(b, index, &w);
}

static inline void old_put_push(struct bf_batch *b, const struct old_push *row)
{
    struct bf_key key, index;
    bf_key_begin(&key, (enum bf_table)24);
    bf_key_u8(&key, row->shard);
    bf_key_u8(&key, row->lane);
    bf_key_be64(&key, row->not_before_ms);
    bf_key_raw(&key, row->message_id.bytes, sizeof(row->message_id.bytes));
    struct bf_writer w =
        bf_batch_expiring_value(b, 0,
                                140 + row->uid.tenant.len + row->uid.user.len + row->meta.len +
                                    row->fragment.len + row->overrides.len + row->reason.len);
    bf_put_u8(&w, (uint8_t)row->uid.tenant.len);
    bf_put_bytes(&w, row->uid.tenant);
    bf_put_u8(&w, (uint8_t)row->uid.user.len);
    bf_put_bytes(&w, row->uid.user);
    old_put_id(&w, &row->event_id);
    old_put_id(&w, &row->device_id);
    bf_put_u64(&w, row->created_ms);
    bf_put_u64(&w, row->expires_ms);
    bf_put_u64(&w, row->seq);
    bf_put_u32(&w, row->attempts);
    bf_put_u32(&w, row->redrive);
    bf_put_u64(&w, row->collapse);
    bf_put_str16(&w, row->meta);
    bf_put_str32(&w, row->fragment);
    bf_put_str32(&w, row->overrides);
    bf_put_str16(&w, row->reason);
    bf_batch_put(b, &key, &w);
    bf_key_uid(&index, (enum bf_table)25, row->uid);
    bf_key_raw(&index, row->event_id.bytes, sizeof(row->event_id.bytes));
    bf_key_raw(&index, row->message_id.bytes, sizeof(row->message_id.bytes));
    old_put_index(b, &index, &key);
    if (row->collapse == 0)
        return;
    bf_key_uid(&index, (enum bf_table)26, row->uid);
    bf_key_raw(&index, row->device_id.bytes, sizeof(row->device_id.bytes));
    bf_key_be64(&index, row->collapse);
    old_put_index(b, &index, &key);
}

/* The ids and the shard that the version gave a row of |uid|. */
static inline void old_name_push(struct old_push *row, unsigned shards)
{
    static const struct bf_id none;
    struct bf_bytes device = {(const char *)row->device_id.bytes, sizeof(row->device_id.bytes)};
    if (bf_id_is_equal(&row->device_id, &none))
        device.len = 0;
    bf_message_id(&row->event_id, row->uid.tenant, row->uid.user, BF_CHANNEL_PUSH, device,
                  row->redrive, &row->message_id);
    row->shard = (uint8_t)(bf_user_shard_byte(row->uid.tenant.at, row->uid.tenant.len,
                                              row->uid.user.at, row->uid.user.len) %
                           shards);
}

/* What the version wrote at each start, and what it did not know. The batch is the caller's. */
static inline void old_run(struct bf_batch *b, uint8_t shards)
{
    bf_batch_put_value(b, BF_BYTES("push.queue_shards"),
                       (struct bf_bytes){(const char *)&shards, 1});
}

static inline void old_forget_partitions(struct bf_batch *b)
{
    struct bf_key key;
    struct bf_bytes name = BF_BYTES("outbound.partitions");
    bf_key_begin(&key, BF_T_VALUE);
    bf_key_raw(&key, name.at, name.len);
    bf_batch_delete(b, key.at, key.len);
}
