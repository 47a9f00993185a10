/*
 * Erasure (PRF-5): everything of one user's out of every table, and a proof that it was done under
 * a hash of the id. Finds rows that lie elsewhere (ids, outcomes, subscribers, event rows) through
 * those that lie under the user; runs on the user's shard, whose batch must hold no rows of the
 * user's yet.
 */
#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "store/legs.h"
#include "store/store_impl.h"

struct only_recipient {
    struct bf_uid uid;
    bool is_only;
};

static int check_only(void *arg, const struct bf_event_row *row)
{
    struct only_recipient *only = arg;
    only->is_only = row->recipient_count == 1 &&
                    bf_bytes_is_equal(row->recipients[0], only->uid.user) &&
                    bf_bytes_is_equal(row->tenant, only->uid.tenant);
    return 0;
}

/* An event to this user alone is the user's; one to many keeps its row, the name hidden on read. */
static void erase_event(struct bf_batch *b, struct bf_uid uid, const struct bf_id *event_id)
{
    struct bf_key key;
    struct only_recipient only = {.uid = uid};
    if (bf_store_get_event_row(b->store, event_id, check_only, &only) != 0 || !only.is_only)
        return;
    bf_key_id(&key, BF_T_EVENT, event_id);
    bf_batch_delete(b, key.at, key.len);
}

static void read_id(struct bf_reader *r, struct bf_id *ret)
{
    const uint8_t *at = bf_get_raw(r, sizeof(ret->bytes));
    if (at != NULL)
        memcpy(ret->bytes, at, sizeof(ret->bytes));
}

static void erase_message(struct bf_batch *b, struct bf_uid uid, const struct bf_scan *scan)
{
    struct bf_key key;
    struct bf_id id = {0}, event_id = {0};
    uint64_t expires_ms;
    struct bf_reader r = bf_value_reader(scan->value, &expires_ms);
    read_id(&r, &id);
    read_id(&r, &event_id);
    if (r.failed)
        return; /* goes with the range all the same */
    bf_key_id(&key, BF_T_ID, &id);
    bf_batch_delete(b, key.at, key.len);
    erase_event(b, uid, &event_id);
}

static void erase_outcome(struct bf_batch *b, struct bf_uid uid, const struct bf_scan *scan)
{
    struct bf_key key;
    struct bf_id event_id = {0};
    struct bf_reader r = bf_key_reader(scan->key);
    bf_key_get_uid(&r);
    read_id(&r, &event_id);
    uint8_t channel = bf_get_u8(&r);
    struct bf_attempt_key attempt;
    bf_key_get_attempt(&r, &attempt);
    if (r.failed)
        return;
    bf_key_outcome(&key, &event_id, uid, channel, &attempt);
    bf_batch_delete(b, key.at, key.len);
    erase_event(b, uid, &event_id);
}

static void erase_subscriber(struct bf_batch *b, struct bf_uid uid, const struct bf_scan *scan)
{
    struct bf_key key;
    struct bf_reader r = bf_key_reader(scan->key);
    bf_key_get_uid(&r);
    struct bf_bytes topic = bf_key_get_part(&r);
    if (r.failed)
        return;
    bf_key_topic(&key, BF_T_SUBSCRIBER, uid.tenant, topic);
    bf_key_part(&key, uid.user);
    bf_batch_delete(b, key.at, key.len);
}

/* Handles each row below the user in one table, then deletes them all. */
static int erase_table(struct bf_batch *b, struct bf_uid uid, enum bf_table table,
                       void (*each)(struct bf_batch *, struct bf_uid, const struct bf_scan *))
{
    struct bf_key prefix;
    struct bf_scan scan;
    bf_key_uid(&prefix, table, uid);
    bf_scan_open(&scan, b->store, &prefix, NULL, 0);
    while (bf_scan_next(&scan))
        each(b, uid, &scan);
    bf_batch_delete_prefix(b, &prefix);
    return bf_scan_close(&scan);
}

static void erase_nothing_else(struct bf_batch *b, struct bf_uid uid, const struct bf_scan *scan)
{
    (void)b, (void)uid, (void)scan;
}

/* What is to leave the disk: keys of the deleted rows, and whose they were. Its own key tells
 * nobody. */
static void put_erasing(struct bf_batch *b, struct bf_uid uid, uint64_t erased_ms)
{
    struct bf_key key, of_user;
    bf_key_erased(&of_user, uid);
    bf_key_begin(&key, BF_T_ERASING);
    bf_key_be64(&key, erased_ms);
    bf_key_be64(&key, bf_wall_ms()); /* of a user who is found in several passes, one row each */
    bf_key_raw(&key, of_user.at + 1, of_user.len - 1);
    struct bf_writer w = bf_batch_value(b, 32 + uid.tenant.len + uid.user.len + b->noted_len);
    bf_put_u64(&w, erased_ms);
    bf_put_str16(&w, uid.tenant);
    bf_put_str16(&w, uid.user);
    bf_put_bytes(&w, (struct bf_bytes){(const char *)b->noted, b->noted_len});
    bf_batch_put(b, &key, &w);
    b->is_noting = false;
    b->noted_len = 0;
}

static int erase_rows(struct bf_batch *b, struct bf_uid uid)
{
    int rc = erase_table(b, uid, BF_T_INBOX, erase_message);
    if (rc == 0)
        rc = erase_table(b, uid, BF_T_USER_OUTCOME, erase_outcome);
    if (rc == 0)
        rc = erase_table(b, uid, BF_T_SUBSCRIPTION, erase_subscriber);
    if (rc == 0)
        rc = erase_table(b, uid, BF_T_ACK, erase_nothing_else);
    if (rc == 0)
        rc = bf_batch_erase_devices(b, uid);
    if (rc == 0)
        rc = bf_batch_cancel_legs(b, uid, NULL);
    return rc > 0 ? 0 : rc; /* a count */
}

int bf_batch_erase_user(struct bf_batch *b, struct bf_uid uid, uint64_t now_ms, struct bf_bytes by)
{
    static const enum bf_table single[] = {BF_T_USER, BF_T_PREFS, BF_T_STATE};
    struct bf_key key;
    b->is_noting = true;
    int rc = erase_rows(b, uid);
    if (rc != 0) { /* what cannot be read cannot be promised to be gone: nothing goes */
        bf_batch_clear(b);
        return rc;
    }
    for (size_t i = 0; i < sizeof(single) / sizeof(single[0]); i++) {
        bf_key_uid(&key, single[i], uid);
        bf_batch_delete(b, key.at, key.len);
    }
    put_erasing(b, uid, now_ms);
    bf_key_erased(&key, uid);
    struct bf_writer w = bf_batch_value(b, 16 + by.len);
    bf_put_u64(&w, now_ms);
    bf_put_str16(&w, by);
    bf_batch_put(b, &key, &w);
    return 0;
}

int bf_batch_erase_rest(struct bf_batch *b, struct bf_uid uid, uint64_t erased_ms)
{
    b->is_noting = true;
    int rc = erase_rows(b, uid);
    if (rc == 0 && b->noted_len > 0)
        put_erasing(b, uid, erased_ms);
    else
        bf_batch_clear(b); /* marks of deletion over nothing */
    return rc;
}

void bf_batch_erase_letter(struct bf_batch *b, struct bf_uid uid, uint64_t erased_ms,
                           const struct bf_dlq_row *row)
{
    b->is_noting = true;
    bf_batch_delete_letter(b, row);
    put_erasing(b, uid, erased_ms);
}

uint64_t bf_erased_ms(struct bf_bytes value)
{
    struct bf_reader r = bf_value_reader(value, NULL);
    return bf_get_u64(&r);
}

bool bf_store_is_erased_since(struct bf_store *s, struct bf_uid uid, uint64_t at_ms)
{
    struct bf_key key;
    struct bf_row row;
    bf_key_erased(&key, uid);
    if (bf_store_get(s, &key, &row) != 0)
        return false;
    uint64_t erased_ms = bf_erased_ms(row.value);
    bf_row_put(&row);
    return erased_ms >= at_ms;
}
