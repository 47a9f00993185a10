/* API keys by the SHA-256 of their text (SEC-1): the text itself is never stored. */
#include <stdio.h>

#include "belfry/base/text.h"
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
    struct bf_writer w = bf_batch_value(b, sizeof(*row) + 32);
    bf_put_u32(&w, row->scopes);
    bf_put_u32(&w, row->rate_per_min);
    bf_put_u64(&w, row->created_ms);
    bf_put_str16(&w, text(row->id, sizeof(row->id)));
    bf_put_str16(&w, text(row->tenant, sizeof(row->tenant)));
    bf_put_str16(&w, text(row->name, sizeof(row->name)));
    /* a key without an end is written as it always was: an earlier release reads it too */
    if (row->expires_ms != 0 || row->revoked_ms != 0 || row->replaced_by[0] != '\0') {
        bf_put_u64(&w, row->expires_ms);
        bf_put_u64(&w, row->revoked_ms);
        bf_put_str16(&w, text(row->replaced_by, sizeof(row->replaced_by)));
    }
    bf_batch_put(b, &key, &w);
}

/* The name of the small value that holds a key's last use: "key_use." and its id. */
struct use_name {
    char at[48];
};

static struct bf_bytes name_use(struct use_name *name, const char *id)
{
    int len = snprintf(name->at, sizeof(name->at), "key_use.%.*s", BF_CUT(id, 32));
    return (struct bf_bytes){name->at, (size_t)len};
}

void bf_batch_put_api_key_use(struct bf_batch *b, const char *id, uint64_t used_ms)
{
    struct use_name name;
    uint8_t value[8];
    struct bf_writer w = {.buf = value, .cap = sizeof(value)};
    bf_put_u64(&w, used_ms);
    bf_batch_put_value(b, name_use(&name, id), (struct bf_bytes){(const char *)value, w.len});
}

uint64_t bf_store_get_api_key_use(struct bf_store *s, const char *id)
{
    struct use_name name;
    uint8_t value[8];
    size_t len = 0;
    if (bf_store_get_value(s, name_use(&name, id), value, sizeof(value), &len) != 0)
        return 0;
    struct bf_reader r = {.buf = value, .len = len};
    return bf_get_u64(&r);
}

void bf_batch_delete_api_key(struct bf_batch *b, const struct bf_api_key_row *row)
{
    struct bf_key key;
    struct use_name name;
    api_key_key(&key, row->hash);
    bf_batch_delete(b, key.at, key.len);
    bf_key_begin(&key, BF_T_VALUE);
    struct bf_bytes use = name_use(&name, row->id);
    bf_key_raw(&key, use.at, use.len);
    bf_batch_delete(b, key.at, key.len);
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
    row->expires_ms = row->revoked_ms = 0;
    row->replaced_by[0] = '\0';
    if (!r.failed && r.at < r.len) {
        row->expires_ms = bf_get_u64(&r);
        row->revoked_ms = bf_get_u64(&r);
        copy_text(&r, row->replaced_by, sizeof(row->replaced_by));
    }
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
        rc = bf_store_corrupt("API key", key.at, 1); /* the hash stays out of the log */
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
            bf_store_corrupt("API key", scan.key.at, 1);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}
