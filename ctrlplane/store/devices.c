/* See devices.h. */
#include "store/devices.h"

#include "belfry/base/err.h"
#include "store/store_impl.h"

/* Numbers and lengths of a row without its texts. */
#define FIXED_BYTES 96u
_Static_assert(FIXED_BYTES + BF_DEVICE_APP_BYTES_MAX + BF_DEVICE_LOCALE_BYTES_MAX +
                       BF_DEVICE_BYTES_MAX + BF_DEVICE_SEALED_BYTES_MAX +
                       BF_DEVICE_REASON_BYTES_MAX <=
                   BF_DEVICE_ROW_BYTES_MAX,
               "a whole row fits its encoding");

static void device_key(struct bf_key *key, struct bf_uid uid, const struct bf_id *id)
{
    bf_key_uid(key, BF_T_DEVICE, uid);
    bf_key_raw(key, id->bytes, sizeof(id->bytes));
}

static void token_key(struct bf_key *key, const uint8_t hash[16])
{
    bf_key_begin(key, BF_T_DEVICE_TOKEN);
    bf_key_raw(key, hash, 16);
}

static void put_row(struct bf_writer *w, const struct bf_device_row *row)
{
    bf_put_raw(w, row->id.bytes, sizeof(row->id.bytes));
    bf_put_u8(w, row->kind);
    bf_put_u8(w, row->platform);
    bf_put_u8(w, row->state);
    bf_put_u64(w, row->created_ms);
    bf_put_u64(w, row->registered_ms);
    bf_put_u64(w, row->seen_ms);
    bf_put_u64(w, row->dead_ms);
    bf_put_raw(w, row->token_hash, sizeof(row->token_hash));
    bf_put_str16(w, row->app);
    bf_put_str16(w, row->locale);
    bf_put_str16(w, row->name);
    bf_put_str16(w, row->sealed);
    bf_put_str16(w, row->reason);
}

static bool get_row(struct bf_reader *r, struct bf_device_row *row)
{
    const uint8_t *id = bf_get_raw(r, sizeof(row->id.bytes));
    row->kind = bf_get_u8(r);
    row->platform = bf_get_u8(r);
    row->state = bf_get_u8(r);
    row->created_ms = bf_get_u64(r);
    row->registered_ms = bf_get_u64(r);
    row->seen_ms = bf_get_u64(r);
    row->dead_ms = bf_get_u64(r);
    const uint8_t *hash = bf_get_raw(r, sizeof(row->token_hash));
    row->app = bf_get_str16(r);
    row->locale = bf_get_str16(r);
    row->name = bf_get_str16(r);
    row->sealed = bf_get_str16(r);
    row->reason = bf_get_str16(r);
    if (!bf_value_is_read(r))
        return false;
    memcpy(row->id.bytes, id, sizeof(row->id.bytes));
    memcpy(row->token_hash, hash, sizeof(row->token_hash));
    return true;
}

size_t bf_device_encode(const struct bf_device_row *row, uint8_t out[BF_DEVICE_ROW_BYTES_MAX])
{
    struct bf_writer w = {.buf = out, .cap = BF_DEVICE_ROW_BYTES_MAX};
    put_row(&w, row);
    BF_BUG_ON(w.failed); /* the API bounds every text */
    return w.len;
}

bool bf_device_decode(struct bf_bytes bytes, struct bf_device_row *ret)
{
    struct bf_reader r = {.buf = (const uint8_t *)bytes.at, .len = bytes.len};
    *ret = (struct bf_device_row){0};
    return get_row(&r, ret);
}

static bool decode_value(struct bf_bytes value, struct bf_uid uid, struct bf_device_row *row)
{
    struct bf_reader r = bf_value_reader(value, NULL);
    *row = (struct bf_device_row){.uid = uid};
    return get_row(&r, row);
}

/* ---- reads ---- */

int bf_store_get_device(struct bf_store *s, struct bf_uid uid, const struct bf_id *id,
                        bf_device_fn use, void *arg)
{
    struct bf_key key;
    struct bf_row stored;
    struct bf_device_row row;
    device_key(&key, uid, id);
    int rc = bf_store_get(s, &key, &stored);
    if (rc != 0)
        return rc;
    rc = decode_value(stored.value, uid, &row) ? use(arg, &row)
                                               : bf_store_corrupt("device", key.at, key.len);
    bf_row_put(&stored);
    return rc;
}

/* The content of a token's index row, borrowed from |stored|, which the caller puts if 0 is
 * returned. */
static int find_token(struct bf_store *s, const uint8_t hash[16], struct bf_row *stored,
                      struct bf_uid *ret_uid, struct bf_id *ret_id)
{
    struct bf_key key;
    token_key(&key, hash);
    int rc = bf_store_get(s, &key, stored);
    if (rc != 0)
        return rc;
    struct bf_reader r = bf_value_reader(stored->value, NULL);
    *ret_uid = bf_key_get_uid(&r);
    const uint8_t *bytes = bf_get_raw(&r, sizeof(ret_id->bytes));
    if (bf_value_is_read(&r)) {
        memcpy(ret_id->bytes, bytes, sizeof(ret_id->bytes));
        return 0;
    }
    bf_row_put(stored);
    return bf_store_corrupt("device token", key.at, 1); /* the hash stays out of the log */
}

int bf_store_find_device(struct bf_store *s, const uint8_t token_hash[16], bf_device_fn use,
                         void *arg)
{
    struct bf_row stored;
    struct bf_uid uid;
    struct bf_id id;
    int rc = find_token(s, token_hash, &stored, &uid, &id);
    if (rc != 0)
        return rc;
    rc = bf_store_get_device(s, uid, &id, use, arg);
    bf_row_put(&stored);
    return rc;
}

int bf_store_walk_devices(struct bf_store *s, struct bf_uid uid, bf_device_fn each, void *arg)
{
    struct bf_key prefix;
    struct bf_scan scan;
    int rc = 0;
    bf_key_uid(&prefix, BF_T_DEVICE, uid);
    bf_scan_open(&scan, s, &prefix, NULL, 0);
    while (rc == 0 && bf_scan_next(&scan)) {
        struct bf_device_row row;
        if (decode_value(scan.value, uid, &row))
            rc = each(arg, &row);
        else
            bf_store_corrupt("device", scan.key.at, scan.key.len);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}

int bf_store_walk_all_devices(struct bf_store *s, bf_device_fn each, void *arg)
{
    struct bf_key prefix;
    struct bf_scan scan;
    int rc = 0;
    bf_key_begin(&prefix, BF_T_DEVICE);
    bf_scan_open(&scan, s, &prefix, NULL, BF_SCAN_BULK);
    while (rc == 0 && bf_scan_next(&scan)) {
        struct bf_reader k = bf_key_reader(scan.key);
        struct bf_uid uid = bf_key_get_uid(&k);
        struct bf_device_row row;
        if (!k.failed && decode_value(scan.value, uid, &row))
            rc = each(arg, &row);
        else
            bf_store_corrupt("device", scan.key.at, scan.key.len);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}

int bf_store_walk_device_users(struct bf_store *s, struct bf_bytes tenant, struct bf_bytes after,
                               int (*each)(void *arg, struct bf_bytes user), void *arg)
{
    struct bf_key prefix, from;
    struct bf_scan scan;
    char last[UINT8_MAX];
    size_t last_len = 0;
    int rc = 0;
    bf_key_begin(&prefix, BF_T_DEVICE);
    bf_key_part(&prefix, tenant);
    from = prefix;
    bf_key_part(&from, after); /* all devices of |after| are left out */
    if (after.len > 0)
        bf_scan_open(&scan, s, &prefix, &from, BF_SCAN_AFTER);
    else
        bf_scan_open(&scan, s, &prefix, NULL, 0);
    while (rc == 0 && bf_scan_next(&scan)) {
        struct bf_reader k = bf_key_reader(scan.key);
        struct bf_bytes user = bf_key_get_uid(&k).user;
        if (k.failed)
            bf_store_corrupt("device", scan.key.at, scan.key.len);
        if (k.failed || bf_bytes_is_equal(user, (struct bf_bytes){last, last_len}))
            continue;
        memcpy(last, user.at, user.len); /* its length is a byte of the key */
        last_len = user.len;
        rc = each(arg, user);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}

/* ---- writes ---- */

static bool is_same_device(const struct bf_device_row *row, struct bf_uid uid,
                           const struct bf_id *id)
{
    return bf_id_is_equal(&row->id, id) && bf_bytes_is_equal(row->uid.tenant, uid.tenant) &&
           bf_bytes_is_equal(row->uid.user, uid.user);
}

/* The index row of the device's token, unless it names another device by now: whoever registered
 * the token later keeps it. */
static void delete_token(struct bf_batch *b, const struct bf_device_row *row)
{
    struct bf_key key;
    struct bf_row stored;
    struct bf_uid uid;
    struct bf_id id;
    if (find_token(b->store, row->token_hash, &stored, &uid, &id) != 0)
        return;
    token_key(&key, row->token_hash);
    if (is_same_device(row, uid, &id))
        bf_batch_delete(b, key.at, key.len);
    bf_row_put(&stored);
}

static bool is_same_token(const struct bf_device_row *a, const struct bf_device_row *b)
{
    return memcmp(a->token_hash, b->token_hash, sizeof(a->token_hash)) == 0;
}

struct put {
    struct bf_batch *batch;
    const struct bf_device_row *row;
};

/* This device had another token. */
static int drop_old_token(void *arg, const struct bf_device_row *old)
{
    const struct put *put = arg;
    if (!is_same_token(old, put->row))
        delete_token(put->batch, old);
    return 0;
}

/* Another device had this token. */
static int drop_old_holder(void *arg, const struct bf_device_row *old)
{
    const struct put *put = arg;
    struct bf_key key;
    if (is_same_device(old, put->row->uid, &put->row->id) || !is_same_token(old, put->row))
        return 0;
    device_key(&key, old->uid, &old->id);
    bf_batch_delete(put->batch, key.at, key.len);
    return 0;
}

static void write_row(struct bf_batch *b, const struct bf_device_row *row)
{
    struct bf_key key;
    device_key(&key, row->uid, &row->id);
    struct bf_writer w = bf_batch_value(b, BF_DEVICE_ROW_BYTES_MAX);
    put_row(&w, row);
    bf_batch_put(b, &key, &w);
}

void bf_batch_put_device(struct bf_batch *b, const struct bf_device_row *row)
{
    struct bf_key key;
    struct put put = {b, row};
    /* what cannot be read is written over */
    (void)bf_store_get_device(b->store, row->uid, &row->id, drop_old_token, &put);
    (void)bf_store_find_device(b->store, row->token_hash, drop_old_holder, &put);
    write_row(b, row);
    token_key(&key, row->token_hash);
    struct bf_writer w = bf_batch_value(b, row->uid.tenant.len + row->uid.user.len + 32);
    bf_put_u8(&w, (uint8_t)row->uid.tenant.len); /* as bf_key_part: read back by bf_key_get_uid */
    bf_put_bytes(&w, row->uid.tenant);
    bf_put_u8(&w, (uint8_t)row->uid.user.len);
    bf_put_bytes(&w, row->uid.user);
    bf_put_raw(&w, row->id.bytes, sizeof(row->id.bytes));
    bf_batch_put(b, &key, &w);
}

static int delete_found(void *arg, const struct bf_device_row *row)
{
    struct bf_batch *b = arg;
    struct bf_key key;
    device_key(&key, row->uid, &row->id);
    bf_batch_delete(b, key.at, key.len);
    delete_token(b, row);
    return 0;
}

int bf_batch_delete_device(struct bf_batch *b, struct bf_uid uid, const struct bf_id *id)
{
    return bf_store_get_device(b->store, uid, id, delete_found, b);
}

int bf_batch_erase_devices(struct bf_batch *b, struct bf_uid uid)
{
    struct bf_key prefix;
    int rc = bf_store_walk_devices(b->store, uid, delete_found, b);
    bf_key_uid(&prefix, BF_T_DEVICE, uid);
    bf_batch_delete_prefix(b, &prefix); /* those that do not decode too */
    return rc;
}

struct dying {
    struct bf_batch *batch;
    const uint8_t *token_hash;
    uint64_t dead_ms;
    struct bf_bytes reason;
};

static int mark_found(void *arg, const struct bf_device_row *row)
{
    const struct dying *dying = arg;
    struct bf_device_row dead = *row;
    if (memcmp(row->token_hash, dying->token_hash, sizeof(row->token_hash)) != 0)
        return BF_ERR_NOT_FOUND; /* the app has a new token since */
    if (row->state == BF_DEVICE_DEAD)
        return 0;
    dead.state = BF_DEVICE_DEAD;
    dead.dead_ms = dying->dead_ms;
    dead.reason = dying->reason;
    if (dead.reason.len > BF_DEVICE_REASON_BYTES_MAX)
        dead.reason.len = BF_DEVICE_REASON_BYTES_MAX;
    write_row(dying->batch, &dead);
    return 0;
}

int bf_batch_mark_device_dead(struct bf_batch *b, struct bf_uid uid, const struct bf_id *id,
                              const uint8_t token_hash[16], uint64_t dead_ms,
                              struct bf_bytes reason)
{
    struct dying dying = {b, token_hash, dead_ms, reason};
    return bf_store_get_device(b->store, uid, id, mark_found, &dying);
}
