/* API keys by the SHA-256 of their text (SEC-1): the text itself is never stored. */
#include "belfry/base/err.h"
#include "store/store_impl.h"

static void api_key_key(struct bf_key *key, const uint8_t hash[32])
{
    bf_key_begin(key, BF_T_API_KEY);
    bf_key_raw(key, hash, 32);
}

static struct bf_bytes text(const char *at, size_t cap)
{
    return (struct bf_bytes){at, strnlen(at, cap)};
}

void bf_batch_put_api_key(struct bf_batch *b, const struct bf_api_key_row *row)
{
    struct bf_key key;
    api_key_key(&key, row->hash);
    struct bf_writer w = bf_batch_value(b, sizeof(*row) + 16);
    bf_put_u32(&w, row->scopes);
    bf_put_u32(&w, row->rate_per_min);
    bf_put_u64(&w, row->created_ms);
    bf_put_str16(&w, text(row->id, sizeof(row->id)));
    bf_put_str16(&w, text(row->tenant, sizeof(row->tenant)));
    bf_put_str16(&w, text(row->name, sizeof(row->name)));
    bf_batch_put(b, &key, &w);
}

static void copy_text(struct bf_reader *r, char *out, size_t cap)
{
    struct bf_bytes from = bf_get_str16(r);
    if (from.len >= cap) {
        r->failed = true;
        return;
    }
    if (from.len > 0)
        memcpy(out, from.at, from.len);
    out[from.len] = 0;
}

static bool decode_api_key(struct bf_bytes key, struct bf_bytes value, struct bf_api_key_row *row)
{
    struct bf_reader k = bf_key_reader(key);
    const uint8_t *hash = bf_get_raw(&k, sizeof(row->hash));
    struct bf_reader r = bf_value_reader(value, NULL);
    row->scopes = bf_get_u32(&r);
    row->rate_per_min = bf_get_u32(&r);
    row->created_ms = bf_get_u64(&r);
    copy_text(&r, row->id, sizeof(row->id));
    copy_text(&r, row->tenant, sizeof(row->tenant));
    copy_text(&r, row->name, sizeof(row->name));
    if (!bf_value_is_read(&k) || !bf_value_is_read(&r))
        return false;
    memcpy(row->hash, hash, sizeof(row->hash));
    return true;
}

int bf_store_get_api_key(struct bf_store *s, const uint8_t hash[32], struct bf_api_key_row *ret)
{
    struct bf_key key;
    struct bf_row stored;
    struct bf_api_key_row row;
    api_key_key(&key, hash);
    int rc = bf_store_get(s, &key, &stored);
    if (rc != 0)
        return rc;
    if (decode_api_key((struct bf_bytes){(const char *)key.at, key.len}, stored.value, &row))
        *ret = row;
    else
        rc = bf_rocks_corrupt("API key", key.at, 1); /* the hash stays out of the log */
    bf_row_put(&stored);
    return rc;
}

int bf_store_walk_api_keys(struct bf_store *s,
                           int (*each)(void *arg, const struct bf_api_key_row *row), void *arg)
{
    struct bf_key prefix;
    struct bf_scan scan;
    int rc = 0;
    bf_key_begin(&prefix, BF_T_API_KEY);
    bf_scan_open(&scan, s, &prefix, NULL, 0);
    while (rc == 0 && bf_scan_next(&scan)) {
        struct bf_api_key_row row;
        if (decode_api_key(scan.key, scan.value, &row))
            rc = each(arg, &row);
        else
            bf_rocks_corrupt("API key", scan.key.at, 1);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}
