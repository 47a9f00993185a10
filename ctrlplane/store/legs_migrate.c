/*
 * How many partitions the store has, and the queue of a former version brought to them. That
 * version kept waiting pushes in three tables, ordered by the shard of their person, so a changed
 * fanout.shards moved rows; a partition never changes.
 *
 * Runs when the store is opened, before anybody else writes. A kill at any point is nothing: a
 * batch moves some rows whole, with their indexes; the number of partitions is written last, and
 * until it is there the next start goes on with what is left. The former version writes the number
 * of its shards at each start: where that is found again, it has run once more and may have queued
 * rows.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "belfry/base/err.h"
#include "belfry/base/fault.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "store/legs.h"
#include "store/scrub.h"
#include "store/store_impl.h"
#include "terms/channel.h"

#define PARTITIONS ((struct bf_bytes){"outbound.partitions", 19})
#define OLD_SHARDS ((struct bf_bytes){"push.queue_shards", 17})
/* Rows moved in one batch. */
#define BATCH_ROWS 512u
/* Tests: killed after each step. */
static struct bf_fault fault = {.point = "legs_migrate"};

/* Reason of an old row whose push may have been sent. */
#define OLD_MAY_FLY "no_receipt"

/* ---- a row of the former version ---- */

struct old_row {
    uint8_t shard;
    struct bf_leg_row leg; /* type, category, topic: not yet read */
};

static void read_id(struct bf_reader *r, struct bf_id *ret)
{
    const uint8_t *at = bf_get_raw(r, sizeof(ret->bytes));
    if (at != NULL)
        memcpy(ret->bytes, at, sizeof(ret->bytes));
}

static bool decode_old(struct bf_bytes key, struct bf_bytes value, struct old_row *ret)
{
    static const struct bf_id none;
    uint64_t kept_ms;
    struct bf_reader k = bf_key_reader(key), r = bf_value_reader(value, &kept_ms);
    struct bf_leg_row *leg = &ret->leg;
    *leg = (struct bf_leg_row){.channel = BF_CHANNEL_PUSH};
    ret->shard = bf_get_u8(&k);
    leg->lane = (enum bf_lane)bf_get_u8(&k);
    leg->not_before_ms = bf_get_be64(&k);
    read_id(&k, &leg->message_id);
    leg->uid = bf_key_get_uid(&r);
    read_id(&r, &leg->event_id);
    read_id(&r, &leg->endpoint_id);
    leg->created_ms = bf_get_u64(&r);
    leg->expires_ms = bf_get_u64(&r);
    leg->seq = bf_get_u64(&r);
    leg->attempts = bf_get_u32(&r);
    leg->redrive = bf_get_u32(&r);
    leg->collapse = bf_get_u64(&r);
    leg->meta = bf_get_str16(&r);
    leg->fragment = bf_get_str32(&r);
    leg->overrides = bf_get_str32(&r);
    leg->reason = bf_get_str16(&r);
    leg->kind = bf_id_is_equal(&leg->endpoint_id, &none) ? BF_LEG_FALLBACK : BF_LEG_SEND;
    if (bf_bytes_is_equal(leg->reason, BF_BYTES(OLD_MAY_FLY)))
        leg->flags |= BF_LEG_MAY_BE_OUT;
    return bf_value_is_read(&k) && bf_value_is_read(&r) && leg->lane < BF_LANE_COUNT;
}

static void delete_old(struct bf_batch *b, const struct bf_scan *scan, const struct bf_leg_row *leg)
{
    struct bf_key key;
    bf_batch_delete(b, scan->key.at, scan->key.len);
    bf_key_uid(&key, BF_T_OLD_PUSH_USER, leg->uid);
    bf_key_raw(&key, leg->event_id.bytes, sizeof(leg->event_id.bytes));
    bf_key_raw(&key, leg->message_id.bytes, sizeof(leg->message_id.bytes));
    bf_batch_delete(b, key.at, key.len);
    if (leg->collapse == 0)
        return;
    bf_key_uid(&key, BF_T_OLD_PUSH_COLLAPSE, leg->uid);
    bf_key_raw(&key, leg->endpoint_id.bytes, sizeof(leg->endpoint_id.bytes));
    bf_key_be64(&key, leg->collapse);
    bf_batch_delete(b, key.at, key.len);
}

/* ---- moving ---- */

static struct bf_bytes text_of(yyjson_val *root, const char *name)
{
    yyjson_val *val = yyjson_obj_get(root, name);
    return (struct bf_bytes){yyjson_get_str(val), yyjson_get_len(val)};
}

/* What preferences are about stood in the notification alone. Nothing of it where that is no JSON:
 * the row becomes a dead letter when it is due, as it would have. Borrowed from what is returned.
 */
static yyjson_doc *read_subject(struct bf_leg_row *leg)
{
    char *json = malloc(leg->fragment.len + 2);
    if (json == NULL)
        return NULL;
    json[0] = '{';
    if (leg->fragment.len > 0)
        memcpy(json + 1, leg->fragment.at, leg->fragment.len);
    json[leg->fragment.len + 1] = '}';
    yyjson_doc *doc = yyjson_read(json, leg->fragment.len + 2, YYJSON_READ_NUMBER_AS_RAW);
    yyjson_val *root = yyjson_doc_get_root(doc);
    leg->type = text_of(root, "type");
    leg->category = text_of(root, "category");
    leg->topic = text_of(root, "topic");
    free(json);
    return doc;
}

static bool move_row(struct bf_store *s, struct bf_batch *b, const struct bf_scan *scan)
{
    struct old_row old;
    if (!decode_old(scan->key, scan->value, &old)) {
        bf_store_corrupt("queued push", scan->key.at, scan->key.len);
        bf_batch_delete(b, scan->key.at, scan->key.len);
        return false;
    }
    yyjson_doc *doc = read_subject(&old.leg);
    old.leg.partition = bf_store_partition_of(s, old.leg.uid);
    delete_old(b, scan, &old.leg);
    bf_batch_put_leg(b, &old.leg);
    yyjson_doc_free(doc);
    return true;
}

static int write_step(struct bf_batch *b, bool sync)
{
    int rc = bf_batch_write(b, sync);
    bf_fault_pass(&fault);
    return rc;
}

/* The scan sees the store as it was when it began. Count of rows, or an error. */
static int64_t move_rows(struct bf_store *s, struct bf_batch *b)
{
    struct bf_key prefix;
    struct bf_scan scan;
    int64_t moved = 0;
    uint32_t in_batch = 0;
    int rc = 0;
    bf_key_begin(&prefix, BF_T_OLD_PUSH);
    bf_scan_open(&scan, s, &prefix, NULL, BF_SCAN_BULK);
    while (rc == 0 && bf_scan_next(&scan)) {
        moved += move_row(s, b, &scan);
        if (++in_batch < BATCH_ROWS)
            continue;
        in_batch = 0;
        rc = write_step(b, false);
    }
    int closed = bf_scan_close(&scan);
    rc = rc != 0 ? rc : closed;
    rc = rc != 0 ? rc : write_step(b, false);
    return rc != 0 ? rc : moved;
}

static bool go_on(void *arg, uint64_t worked_ns)
{
    (void)arg, (void)worked_ns;
    return true;
}

/* Index rows that point nowhere name people: an erasure of the tables in use does not find them,
 * nor what the moved rows leave in data files. */
static int clear_old(struct bf_store *s, struct bf_batch *b)
{
    const struct bf_pace pace = {.go_on = go_on};
    struct bf_spans spans = {0};
    struct bf_key key;
    for (unsigned table = BF_T_OLD_PUSH; table <= BF_T_OLD_PUSH_COLLAPSE; table++) {
        struct bf_key end;
        bf_key_begin(&key, (enum bf_table)table);
        bf_key_end(&end, &key);
        bf_batch_delete_prefix(b, &key);
        bf_spans_add(&spans, (struct bf_bytes){(const char *)key.at, key.len},
                     (struct bf_bytes){(const char *)end.at, end.len});
    }
    int rc = write_step(b, false);
    if (rc == 0)
        rc = s->engine->ops->scrub(s->engine, &spans, &pace);
    bf_spans_free(&spans);
    return rc;
}

static int write_partitions(struct bf_store *s, struct bf_batch *b)
{
    struct bf_key key;
    const uint8_t bytes[2] = {(uint8_t)s->partitions, (uint8_t)(s->partitions >> 8)};
    bf_key_begin(&key, BF_T_VALUE);
    bf_key_raw(&key, OLD_SHARDS.at, OLD_SHARDS.len);
    bf_batch_delete(b, key.at, key.len);
    bf_batch_put_value(b, PARTITIONS, (struct bf_bytes){(const char *)bytes, sizeof(bytes)});
    return write_step(b, true);
}

static int migrate(struct bf_store *s, bool has_old_run)
{
    uint64_t began_ms = bf_mono_ms();
    struct bf_batch *b = bf_batch_create(s);
    bf_fault_arm(&fault);
    int64_t moved = move_rows(s, b);
    int rc = moved < 0 ? (int)moved : 0;
    if (rc == 0 && (moved > 0 || has_old_run)) /* not in a store that is new */
        rc = clear_old(s, b);
    if (rc == 0)
        rc = write_partitions(s, b);
    bf_batch_destroy(b);
    if (rc == 0 && moved > 0)
        BF_INFO("ctrlplane", "store: %lld queued pushes moved to %u partitions in %llu ms",
                (long long)moved, s->partitions, (unsigned long long)(bf_mono_ms() - began_ms));
    return rc;
}

/* ---- the number ---- */

static int read_partitions(struct bf_store *s, char *err, size_t err_len)
{
    uint8_t bytes[2];
    size_t len = 0;
    int rc = bf_store_get_value(s, PARTITIONS, bytes, sizeof(bytes), &len);
    uint32_t count = len == sizeof(bytes) ? bytes[0] | (uint32_t)bytes[1] << 8 : 0;
    bool is_power = count > 0 && (count & (count - 1)) == 0;
    if (rc == BF_ERR_NOT_FOUND)
        return rc;
    if (rc == 0 && is_power && count <= BF_PARTITIONS_MAX) {
        s->partitions = count;
        return 0;
    }
    snprintf(err, err_len,
             "the store says that it has %u partitions, which no version writes: it is damaged; "
             "restore a backup",
             count);
    return rc != 0 ? rc : BF_ERR_CORRUPT;
}

int bf_store_load_partitions(struct bf_store *s, char *err, size_t err_len)
{
    uint8_t shards;
    size_t len;
    s->partitions = BF_PARTITIONS_DEFAULT;
    int known = read_partitions(s, err, err_len);
    if (known != 0 && known != BF_ERR_NOT_FOUND)
        return known;
    bool has_old_run =
        bf_store_get_value(s, OLD_SHARDS, &shards, sizeof(shards), &len) != BF_ERR_NOT_FOUND;
    if (known == 0 && !has_old_run)
        return 0;
    return migrate(s, has_old_run);
}
