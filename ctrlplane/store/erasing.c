/*
 * What is left to do after an erasure: its rows are deleted, but their bytes are in data files
 * until those are rewritten. A row that is written together with the deletion says which; it is
 * deleted when the files are clean, and is the last place where the user's id was.
 */
#include <errno.h>

#include "belfry/base/err.h"
#include "store/scrub.h"
#include "store/store_impl.h"

/* In order of time: the keys begin with it. */
static void open_scan(struct bf_scan *scan, const struct bf_store *s)
{
    struct bf_key prefix;
    bf_key_begin(&prefix, BF_T_ERASING);
    bf_scan_open(scan, s, &prefix, NULL, 0);
}

static bool decode(const struct bf_scan *scan, struct bf_erasing_row *row,
                   struct bf_bytes *ret_keys)
{
    struct bf_reader r = bf_value_reader(scan->value, NULL);
    row->erased_ms = bf_get_u64(&r);
    row->uid.tenant = bf_get_str16(&r);
    row->uid.user = bf_get_str16(&r);
    *ret_keys = bf_get_bytes(&r, r.failed ? 0 : scan->value.len - r.at);
    if (!r.failed)
        return true;
    bf_store_corrupt("erasure", scan->key.at, scan->key.len);
    return false;
}

int bf_store_walk_erasing(struct bf_store *s,
                          int (*each)(void *arg, const struct bf_erasing_row *row), void *arg)
{
    struct bf_scan scan;
    struct bf_bytes keys;
    int rc = 0;
    open_scan(&scan, s);
    while (rc == 0 && bf_scan_next(&scan)) {
        struct bf_erasing_row row;
        if (decode(&scan, &row, &keys))
            rc = each(arg, &row);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}

static struct bf_bytes bytes_of(const struct bf_key *key)
{
    return (struct bf_bytes){(const char *)key->at, key->len};
}

/* Whatever begins with the user in any table: by this, files of former versions are found too. */
static void add_user(struct bf_spans *spans, struct bf_uid uid)
{
    struct bf_key prefix, end;
    for (unsigned table = 1; table < BF_T_COUNT; table++) {
        bf_key_uid(&prefix, (enum bf_table)table, uid);
        bf_key_end(&end, &prefix);
        bf_spans_add(spans, bytes_of(&prefix), bytes_of(&end));
    }
}

static void add_keys(struct bf_spans *spans, struct bf_bytes keys)
{
    struct bf_reader r = {.buf = (const uint8_t *)keys.at, .len = keys.len};
    while (r.at < r.len) {
        uint8_t low = bf_get_u8(&r);
        struct bf_bytes key = bf_get_bytes(&r, low | (size_t)bf_get_u8(&r) << 8);
        if (r.failed || key.len == 0 || (uint8_t)key.at[0] >= BF_T_COUNT)
            return;
        bf_spans_add(spans, key, key);
    }
}

int bf_store_scrub(struct bf_store *s, uint64_t until_ms, const struct bf_pace *pace)
{
    struct bf_spans spans = {0};
    struct bf_scan scan;
    struct bf_bytes keys;
    open_scan(&scan, s);
    while (bf_scan_next(&scan)) {
        struct bf_erasing_row row;
        if (!decode(&scan, &row, &keys) || row.erased_ms > until_ms)
            continue;
        add_user(&spans, row.uid);
        add_keys(&spans, keys);
    }
    int rc = bf_scan_close(&scan);
    if (rc == 0)
        rc = s->engine->ops->scrub(s->engine, &spans, pace);
    bf_spans_free(&spans);
    return rc;
}

/* The rows name the users: they go as thoroughly as what they stood for. */
int bf_store_end_erasing(struct bf_store *s, uint64_t until_ms, const struct bf_pace *pace)
{
    struct bf_spans spans = {0};
    struct bf_scan scan;
    struct bf_bytes keys;
    struct bf_batch *b = bf_batch_create(s);
    open_scan(&scan, s);
    while (bf_scan_next(&scan)) {
        struct bf_erasing_row row;
        if (decode(&scan, &row, &keys) && row.erased_ms > until_ms)
            continue;
        bf_spans_add(&spans, scan.key, scan.key);
        bf_batch_delete(b, scan.key.at, scan.key.len);
    }
    int rc = bf_scan_close(&scan);
    if (rc == 0)
        rc = bf_batch_write(b, true);
    if (rc == 0)
        rc = s->engine->ops->scrub(s->engine, &spans, pace);
    bf_batch_destroy(b);
    bf_spans_free(&spans);
    return rc;
}

void bf_store_stop_scrub(struct bf_store *s)
{
    s->engine->ops->stop_scrub(s->engine);
}
