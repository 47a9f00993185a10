/* Small named values. */
#include "belfry/base/err.h"
#include "store/store_impl.h"

void bf_batch_put_value(struct bf_batch *b, struct bf_bytes name, struct bf_bytes value)
{
    struct bf_key key;
    bf_key_begin(&key, BF_T_VALUE);
    bf_key_raw(&key, name.at, name.len);
    struct bf_writer w = bf_batch_value(b, value.len);
    bf_put_bytes(&w, value);
    bf_batch_put(b, &key, &w);
}

int bf_store_get_value(struct bf_store *s, struct bf_bytes name, uint8_t *out, size_t cap,
                       size_t *ret_len)
{
    struct bf_key key;
    struct bf_row row;
    bf_key_begin(&key, BF_T_VALUE);
    bf_key_raw(&key, name.at, name.len);
    int rc = bf_store_get(s, &key, &row);
    if (rc != 0)
        return rc;
    struct bf_reader r = bf_value_reader(row.value, NULL);
    struct bf_bytes value = bf_get_bytes(&r, r.failed ? 0 : row.value.len - r.at);
    if (r.failed) {
        rc = bf_store_corrupt("value", key.at, key.len);
    } else if (value.len > cap) {
        rc = BF_ERR_TOO_LARGE;
    } else {
        if (value.len > 0)
            memcpy(out, value.at, value.len);
        *ret_len = value.len;
    }
    bf_row_put(&row);
    return rc;
}
