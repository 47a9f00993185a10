/* See legs.h. */
#include "store/legs.h"

#include "belfry/base/err.h"
#include "belfry/shm/user_key.h"
#include "store/store_impl.h"
#include "terms/channel.h"

/* Until somebody deletes it. */
#define NEVER 0u
/* Numbers, ids and lengths of a row. */
#define FIXED_BYTES 160u
/* Where the content of a row is. */
#define CONTENT_IN_ROW 0u
/* Rows of one user that one call deletes; a user with more has been flooded, the rest expires. */
#define CANCEL_ROWS_MAX 100000

static void row_key(struct bf_key *key, const struct bf_leg_row *row)
{
    bf_key_begin(key, BF_T_LEG);
    bf_key_u8(key, row->partition);
    bf_key_u8(key, row->lane);
    bf_key_be64(key, row->not_before_ms);
    bf_key_u8(key, row->channel);
    bf_key_raw(key, row->message_id.bytes, sizeof(row->message_id.bytes));
}

static void user_key(struct bf_key *key, const struct bf_leg_row *row)
{
    bf_key_uid(key, BF_T_LEG_USER, row->uid);
    bf_key_raw(key, row->event_id.bytes, sizeof(row->event_id.bytes));
    bf_key_raw(key, row->message_id.bytes, sizeof(row->message_id.bytes));
}

static void collapse_key(struct bf_key *key, const struct bf_leg_row *row)
{
    bf_key_uid(key, BF_T_LEG_COLLAPSE, row->uid);
    bf_key_u8(key, row->channel);
    bf_key_raw(key, row->endpoint_id.bytes, sizeof(row->endpoint_id.bytes));
    bf_key_be64(key, row->collapse);
}

/* An index row holds the key of its row. */
static void put_index(struct bf_batch *b, const struct bf_key *index, const struct bf_key *row)
{
    struct bf_writer w = bf_batch_expiring_value(b, NEVER, row->len);
    bf_put_raw(&w, row->at, row->len);
    bf_batch_put(b, index, &w);
}

static struct bf_bytes index_target(struct bf_bytes value)
{
    uint64_t kept_ms;
    struct bf_reader r = bf_value_reader(value, &kept_ms);
    return bf_get_bytes(&r, r.failed ? 0 : value.len - r.at);
}

static void read_id(struct bf_reader *r, struct bf_id *ret)
{
    const uint8_t *at = bf_get_raw(r, sizeof(ret->bytes));
    if (at != NULL)
        memcpy(ret->bytes, at, sizeof(ret->bytes));
}

static void read_value(struct bf_reader *r, struct bf_leg_row *row)
{
    row->uid = bf_key_get_uid(r);
    read_id(r, &row->event_id);
    read_id(r, &row->endpoint_id);
    row->created_ms = bf_get_u64(r);
    row->expires_ms = bf_get_u64(r);
    row->seq = bf_get_u64(r);
    row->attempts = bf_get_u32(r);
    row->redrive = bf_get_u32(r);
    row->collapse = bf_get_u64(r);
    row->type = bf_get_str16(r);
    row->category = bf_get_str16(r);
    row->topic = bf_get_str16(r);
    row->meta = bf_get_str16(r);
    row->fragment = bf_get_str32(r);
    row->overrides = bf_get_str32(r);
    row->reason = bf_get_str16(r);
}

static bool decode(struct bf_bytes key, struct bf_bytes value, struct bf_leg_row *row)
{
    uint64_t kept_ms;
    struct bf_reader k = bf_key_reader(key), r = bf_value_reader(value, &kept_ms);
    *row = (struct bf_leg_row){0};
    row->partition = bf_get_u8(&k);
    row->lane = (enum bf_lane)bf_get_u8(&k);
    row->not_before_ms = bf_get_be64(&k);
    row->channel = bf_get_u8(&k);
    read_id(&k, &row->message_id);
    row->kind = (enum bf_leg_kind)bf_get_u8(&r);
    uint8_t content = bf_get_u8(&r);
    row->flags = bf_get_u32(&r);
    read_value(&r, row);
    return bf_value_is_read(&k) && bf_value_is_read(&r) && row->lane < BF_LANE_COUNT &&
           row->channel < BF_CHANNEL_COUNT && row->kind < BF_LEG_KIND_COUNT &&
           content == CONTENT_IN_ROW;
}

/* ---- partitions ---- */

uint32_t bf_store_partitions(const struct bf_store *s)
{
    return s->partitions;
}

uint8_t bf_store_partition_of(const struct bf_store *s, struct bf_uid uid)
{
    uint8_t byte = bf_user_shard_byte(uid.tenant.at, uid.tenant.len, uid.user.at, uid.user.len);
    return (uint8_t)(byte & (s->partitions - 1));
}

/* ---- writes ---- */

void bf_batch_delete_leg(struct bf_batch *b, const struct bf_leg_row *row)
{
    struct bf_key key;
    row_key(&key, row);
    bf_batch_delete(b, key.at, key.len);
    user_key(&key, row);
    bf_batch_delete(b, key.at, key.len);
    if (row->collapse != 0) {
        collapse_key(&key, row);
        bf_batch_delete(b, key.at, key.len);
    }
}

/* Deletes the row that an index row points at. False: there is none any more. */
static bool delete_target(struct bf_batch *b, struct bf_bytes target)
{
    struct bf_key key = {.len = 0};
    struct bf_row stored;
    struct bf_leg_row row;
    if (target.len == 0 || target.len > sizeof(key.at) || (uint8_t)target.at[0] != BF_T_LEG)
        return false;
    bf_key_raw(&key, target.at, target.len);
    if (bf_store_get(b->store, &key, &stored) != 0)
        return false;
    bool is_read = decode((struct bf_bytes){(const char *)key.at, key.len}, stored.value, &row);
    if (is_read)
        bf_batch_delete_leg(b, &row);
    bf_row_put(&stored);
    return is_read;
}

/* Deletes what an index row points at, unless that is |but|: no row is deleted, and counted, twice.
 */
static bool delete_indexed(struct bf_batch *b, const struct bf_key *index, const struct bf_key *but,
                           struct bf_key *ret_target)
{
    struct bf_row stored;
    bool is_deleted = false;
    if (bf_store_get(b->store, index, &stored) != 0)
        return false;
    struct bf_bytes target = index_target(stored.value);
    if (!but || !bf_bytes_is_equal(target, (struct bf_bytes){(const char *)but->at, but->len}))
        is_deleted = delete_target(b, target);
    if (is_deleted && ret_target)
        bf_key_raw(ret_target, target.at, target.len);
    bf_row_put(&stored);
    return is_deleted;
}

/* The rows that |row| takes the place of. */
static void delete_replaced(struct bf_batch *b, const struct bf_leg_row *row)
{
    struct bf_key index, first = {.len = 0};
    user_key(&index, row);
    (void)delete_indexed(b, &index, NULL, &first);
    if (row->collapse == 0)
        return;
    collapse_key(&index, row);
    (void)delete_indexed(b, &index, &first, NULL);
}

bool bf_batch_drop_collapsed(struct bf_batch *b, const struct bf_leg_row *row)
{
    struct bf_key index;
    collapse_key(&index, row);
    return row->collapse != 0 && delete_indexed(b, &index, NULL, NULL);
}

static void put_uid(struct bf_writer *w, struct bf_uid uid)
{
    bf_put_u8(w, (uint8_t)uid.tenant.len);
    bf_put_bytes(w, uid.tenant);
    bf_put_u8(w, (uint8_t)uid.user.len);
    bf_put_bytes(w, uid.user);
}

static size_t value_bytes(const struct bf_leg_row *row)
{
    return FIXED_BYTES + row->uid.tenant.len + row->uid.user.len + row->type.len +
           row->category.len + row->topic.len + row->meta.len + row->fragment.len +
           row->overrides.len + row->reason.len;
}

static void put_value(struct bf_writer *w, const struct bf_leg_row *row)
{
    bf_put_u8(w, (uint8_t)row->kind);
    bf_put_u8(w, CONTENT_IN_ROW);
    bf_put_u32(w, row->flags);
    put_uid(w, row->uid);
    bf_put_raw(w, row->event_id.bytes, sizeof(row->event_id.bytes));
    bf_put_raw(w, row->endpoint_id.bytes, sizeof(row->endpoint_id.bytes));
    bf_put_u64(w, row->created_ms);
    bf_put_u64(w, row->expires_ms);
    bf_put_u64(w, row->seq);
    bf_put_u32(w, row->attempts);
    bf_put_u32(w, row->redrive);
    bf_put_u64(w, row->collapse);
    bf_put_str16(w, row->type);
    bf_put_str16(w, row->category);
    bf_put_str16(w, row->topic);
    bf_put_str16(w, row->meta);
    bf_put_str32(w, row->fragment);
    bf_put_str32(w, row->overrides);
    bf_put_str16(w, row->reason);
}

void bf_batch_put_leg(struct bf_batch *b, const struct bf_leg_row *row)
{
    struct bf_key key, index;
    delete_replaced(b, row);
    row_key(&key, row);
    struct bf_writer w = bf_batch_expiring_value(b, NEVER, value_bytes(row));
    put_value(&w, row);
    bf_batch_put(b, &key, &w);
    user_key(&index, row);
    put_index(b, &index, &key);
    if (row->collapse != 0) {
        collapse_key(&index, row);
        put_index(b, &index, &key);
    }
}

int bf_batch_cancel_legs(struct bf_batch *b, struct bf_uid uid, const struct bf_id *event_id)
{
    struct bf_key prefix;
    struct bf_scan scan;
    int cancelled = 0;
    bf_key_uid(&prefix, BF_T_LEG_USER, uid);
    if (event_id != NULL)
        bf_key_raw(&prefix, event_id->bytes, sizeof(event_id->bytes));
    bf_scan_open(&scan, b->store, &prefix, NULL, 0);
    while (cancelled < CANCEL_ROWS_MAX && bf_scan_next(&scan)) {
        if (delete_target(b, index_target(scan.value)))
            cancelled++;
        else
            bf_batch_delete(b, scan.key.at, scan.key.len); /* its row has expired */
    }
    int rc = bf_scan_close(&scan);
    return rc != 0 ? rc : cancelled;
}

/* ---- walks ---- */

int bf_store_walk_due(struct bf_store *s, uint8_t partition, enum bf_lane lane, uint64_t from_ms,
                      uint64_t until_ms, bf_leg_fn each, void *arg, uint64_t *ret_next_ms)
{
    struct bf_key prefix, from;
    struct bf_scan scan;
    uint64_t next_ms = UINT64_MAX;
    int rc = 0;
    bf_key_begin(&prefix, BF_T_LEG);
    bf_key_u8(&prefix, partition);
    bf_key_u8(&prefix, lane);
    from = prefix;
    bf_key_be64(&from, from_ms);
    bf_scan_open(&scan, s, &prefix, &from, 0);
    while (rc == 0 && next_ms == UINT64_MAX && bf_scan_next(&scan)) {
        struct bf_leg_row row;
        if (!decode(scan.key, scan.value, &row))
            bf_store_corrupt("queued message", scan.key.at, scan.key.len);
        else if (row.not_before_ms > until_ms)
            next_ms = row.not_before_ms;
        else
            rc = each(arg, &row);
    }
    int closed = bf_scan_close(&scan);
    if (rc == 0 && closed == 0 && ret_next_ms)
        *ret_next_ms = next_ms;
    return rc != 0 ? rc : closed;
}

/* Gives the row of |key| to |use|. */
static int use_row(struct bf_store *s, const struct bf_key *key, bf_leg_fn use, void *arg)
{
    struct bf_row stored;
    struct bf_leg_row row;
    int rc = bf_store_get(s, key, &stored);
    if (rc != 0)
        return rc;
    rc = decode((struct bf_bytes){(const char *)key->at, key->len}, stored.value, &row)
             ? use(arg, &row)
             : bf_store_corrupt("queued message", key->at, key->len);
    bf_row_put(&stored);
    return rc;
}

int bf_store_get_leg(struct bf_store *s, const struct bf_leg_row *place, bf_leg_fn use, void *arg)
{
    struct bf_key key;
    row_key(&key, place);
    return use_row(s, &key, use, arg);
}

int bf_store_walk_legs_of(struct bf_store *s, struct bf_uid uid, const struct bf_id *event_id,
                          bf_leg_fn each, void *arg)
{
    struct bf_key prefix;
    struct bf_scan scan;
    int rc = 0;
    bf_key_uid(&prefix, BF_T_LEG_USER, uid);
    if (event_id != NULL)
        bf_key_raw(&prefix, event_id->bytes, sizeof(event_id->bytes));
    bf_scan_open(&scan, s, &prefix, NULL, 0);
    while (rc == 0 && bf_scan_next(&scan)) {
        struct bf_key key = {.len = 0};
        struct bf_bytes target = index_target(scan.value);
        if (target.len == 0 || target.len > sizeof(key.at))
            continue;
        bf_key_raw(&key, target.at, target.len);
        rc = use_row(s, &key, each, arg);
        rc = rc == BF_ERR_NOT_FOUND ? 0 : rc; /* it has expired */
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}

struct move {
    struct bf_batch *batch;
    const struct bf_id *from, *to;
    bf_leg_rename_fn rename;
    void *arg;
    int count;
};

static int move_one(void *arg, const struct bf_leg_row *row)
{
    struct move *move = arg;
    struct bf_leg_row is = *row;
    if (!bf_id_is_equal(&row->endpoint_id, move->from))
        return 0;
    is.endpoint_id = *move->to;
    move->rename(move->arg, row, &is);
    bf_batch_delete_leg(move->batch, row);
    bf_batch_put_leg(move->batch, &is);
    return ++move->count < CANCEL_ROWS_MAX ? 0 : 1;
}

int bf_batch_move_legs(struct bf_batch *b, struct bf_uid uid, const struct bf_id *from,
                       const struct bf_id *to, bf_leg_rename_fn rename, void *arg)
{
    struct move move = {.batch = b, .from = from, .to = to, .rename = rename, .arg = arg};
    int rc = bf_store_walk_legs_of(b->store, uid, NULL, move_one, &move);
    return rc < 0 ? rc : move.count;
}

/* ---- what is done ---- */

void bf_batch_put_leg_done(struct bf_batch *b, const struct bf_id *id, uint64_t expires_ms)
{
    struct bf_key key;
    bf_key_id(&key, BF_T_LEG_DONE, id);
    struct bf_writer w = bf_batch_expiring_value(b, expires_ms, 0);
    bf_batch_put(b, &key, &w);
}

bool bf_store_is_leg_done(struct bf_store *s, const struct bf_id *id)
{
    struct bf_key key;
    struct bf_row stored;
    bf_key_id(&key, BF_T_LEG_DONE, id);
    if (bf_store_get(s, &key, &stored) != 0)
        return false;
    bf_row_put(&stored);
    return true;
}

uint64_t bf_store_leg_depth(struct bf_store *s, uint8_t channel, enum bf_lane lane)
{
    return s->engine->ops->count(s->engine, BF_T_LEG, BF_GROUP_OF_TWO(lane, channel));
}
