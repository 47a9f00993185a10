/*
 * Rows of the broadcast log: by bseq, and by event id so that a replay appends nothing. The head is
 * a row of its own: the last broadcast may expire, its number must never be given again.
 */
#include "belfry/base/err.h"
#include "store/store_impl.h"

static void head_key(struct bf_key *key)
{
    bf_key_begin(key, BF_T_META);
    bf_key_raw(key, "bcast", 5);
}

static void base_key(struct bf_key *key)
{
    bf_key_begin(key, BF_T_META);
    bf_key_raw(key, "bcast_base", 10);
}

static void bseq_key(struct bf_key *key, uint64_t bseq)
{
    bf_key_begin(key, BF_T_BCAST);
    bf_key_be64(key, bseq);
}

static void put_head(struct bf_batch *b, uint64_t bseq)
{
    struct bf_key key;
    if (bseq <= b->bcast_head)
        return;
    b->bcast_head = bseq;
    head_key(&key);
    struct bf_writer w = bf_batch_value(b, 8);
    bf_put_u64(&w, bseq);
    bf_batch_put(b, &key, &w);
}

void bf_batch_put_bcast(struct bf_batch *b, const struct bf_bcast_row *row)
{
    struct bf_key key;
    BF_BUG_ON(row->bseq == 0); /* 0 means "none yet" everywhere */
    bseq_key(&key, row->bseq);
    struct bf_writer w = bf_batch_expiring_value(
        b, row->expires_ms, 64 + row->tenant.len + row->topic.len + row->fragment.len);
    bf_put_raw(&w, row->event_id.bytes, sizeof(row->event_id.bytes));
    bf_put_u64(&w, row->created_ms);
    bf_put_str16(&w, row->tenant);
    bf_put_str16(&w, row->topic);
    bf_put_str32(&w, row->fragment);
    bf_batch_put(b, &key, &w);
    bf_key_id(&key, BF_T_BCAST_ID, &row->event_id);
    w = bf_batch_expiring_value(b, row->expires_ms, 8);
    bf_put_u64(&w, row->bseq);
    bf_batch_put(b, &key, &w);
    put_head(b, row->bseq);
}

static int get_u64(struct bf_store *s, const struct bf_key *key, bool expires, uint64_t *ret)
{
    struct bf_row row;
    uint64_t expires_ms;
    int rc = bf_store_get(s, key, &row);
    if (rc != 0)
        return rc;
    struct bf_reader r = bf_value_reader(row.value, expires ? &expires_ms : NULL);
    uint64_t value = bf_get_u64(&r);
    if (bf_value_is_read(&r))
        *ret = value;
    else
        rc = bf_store_corrupt("broadcast", key->at, key->len);
    bf_row_put(&row);
    return rc;
}

bool bf_store_find_bcast(struct bf_store *s, const struct bf_id *event_id, uint64_t *ret_bseq)
{
    struct bf_key key;
    bf_key_id(&key, BF_T_BCAST_ID, event_id);
    return get_u64(s, &key, true, ret_bseq) == 0;
}

void bf_batch_put_bcast_base(struct bf_batch *b, int64_t base)
{
    struct bf_key key;
    base_key(&key);
    struct bf_writer w = bf_batch_value(b, 8);
    bf_put_u64(&w, (uint64_t)base);
    bf_batch_put(b, &key, &w);
}

int bf_store_bcast_base(struct bf_store *s, int64_t *ret_base)
{
    struct bf_key key;
    uint64_t base = 0;
    base_key(&key);
    int rc = get_u64(s, &key, false, &base);
    *ret_base = (int64_t)base;
    return rc == BF_ERR_NOT_FOUND ? 0 : rc;
}

uint64_t bf_store_bcast_head(struct bf_store *s)
{
    return atomic_load_explicit(&s->bcast_head, memory_order_relaxed);
}

int bf_store_load_bcast_head(struct bf_store *s)
{
    struct bf_key key;
    uint64_t head = 0;
    head_key(&key);
    int rc = get_u64(s, &key, false, &head);
    atomic_store_explicit(&s->bcast_head, head, memory_order_relaxed);
    return rc == BF_ERR_NOT_FOUND ? 0 : rc; /* a head that cannot be read must not become 0 */
}

static bool decode_bcast(const struct bf_scan *scan, struct bf_bcast_row *row)
{
    struct bf_reader k = bf_key_reader(scan->key);
    row->bseq = bf_get_be64(&k);
    struct bf_reader r = bf_value_reader(scan->value, &row->expires_ms);
    const uint8_t *id = bf_get_raw(&r, sizeof(row->event_id.bytes));
    row->created_ms = bf_get_u64(&r);
    row->tenant = bf_get_str16(&r);
    row->topic = bf_get_str16(&r);
    row->fragment = bf_get_str32(&r);
    if (!bf_value_is_read(&k) || !bf_value_is_read(&r))
        return false;
    memcpy(row->event_id.bytes, id, sizeof(row->event_id.bytes));
    return true;
}

int bf_store_walk_bcast(struct bf_store *s, uint64_t from, uint64_t to,
                        int (*each)(void *arg, const struct bf_bcast_row *row), void *arg)
{
    struct bf_key prefix, first;
    struct bf_scan scan;
    int rc = 0;
    if (from >= to)
        return 0;
    bf_key_begin(&prefix, BF_T_BCAST);
    bseq_key(&first, from + 1);
    bf_scan_open(&scan, s, &prefix, &first, 0);
    while (rc == 0 && bf_scan_next(&scan)) {
        struct bf_bcast_row row;
        if (!decode_bcast(&scan, &row)) {
            bf_store_corrupt("broadcast", scan.key.at, scan.key.len);
            continue;
        }
        if (row.bseq > to)
            break;
        rc = each(arg, &row);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}
