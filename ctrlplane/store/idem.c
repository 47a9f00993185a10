/* Idempotency answers (DESIGN 4.16): what a repeated request is answered with, without doing it
 * again. */
#include "store/idem.h"

#include "belfry/base/err.h"
#include "store/store_impl.h"

size_t bf_idem_bytes(const struct bf_idem_row *row)
{
    return BF_ROW_EXPIRY_BYTES + sizeof(row->body_hash) + 2 + 4 + row->answer.len;
}

void bf_idem_encode(struct bf_writer *w, const struct bf_idem_row *row)
{
    bf_put_u8(w, BF_ROW_VERSION);
    bf_put_u64(w, row->expires_ms);
    bf_put_raw(w, row->body_hash, sizeof(row->body_hash));
    bf_put_u16(w, row->status);
    bf_put_str32(w, row->answer);
}

int bf_idem_use(struct bf_bytes key, struct bf_bytes stored, uint64_t now_ms,
                int (*use)(void *arg, const struct bf_idem_row *row), void *arg)
{
    struct bf_idem_row row = {.key = key};
    struct bf_reader r = bf_value_reader(stored, &row.expires_ms);
    const uint8_t *hash = bf_get_raw(&r, sizeof(row.body_hash));
    row.status = bf_get_u16(&r);
    row.answer = bf_get_str32(&r);
    if (!bf_value_is_read(&r)) {
        uint8_t table = BF_T_IDEM; /* the key stays out of the log */
        return bf_store_corrupt("idempotency", &table, sizeof(table));
    }
    if (row.expires_ms <= now_ms)
        return BF_ERR_NOT_FOUND;
    memcpy(row.body_hash, hash, sizeof(row.body_hash));
    return use(arg, &row);
}

void bf_batch_put_idem(struct bf_batch *b, const struct bf_idem_row *row)
{
    struct bf_key key;
    bf_key_idem(&key, row->key);
    struct bf_writer w = bf_batch_value(b, bf_idem_bytes(row));
    w.len = 0; /* the row writes its own format byte */
    bf_idem_encode(&w, row);
    bf_batch_put(b, &key, &w);
}

int bf_store_get_idem(struct bf_store *s, struct bf_bytes key, uint64_t now_ms,
                      int (*use)(void *arg, const struct bf_idem_row *row), void *arg)
{
    struct bf_key k;
    struct bf_row stored;
    bf_key_idem(&k, key);
    int rc = bf_store_get(s, &k, &stored);
    if (rc != 0)
        return rc;
    rc = bf_idem_use(key, stored.value, now_ms, use, arg);
    bf_row_put(&stored);
    return rc;
}
