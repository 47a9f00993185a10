/*
 * Reads shared by all tables: one row, a range of rows. Any thread; a scan belongs to one and sees
 * the store as it was when it began.
 */
#include "stats/metrics.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "store/store_impl.h"

int bf_store_corrupt(const char *what, const void *key, size_t key_len)
{
    /* relaxed: only one line of log hangs on it */
    static _Atomic bool said;
    bf_count(BF_CM_M_store_corrupt, 1);
    if (atomic_exchange_explicit(&said, true, memory_order_relaxed))
        return BF_ERR_CORRUPT;
    /* the key may hold a user id: its table and length name the row without personal data */
    BF_ERROR("ctrlplane",
             "store: corrupt %s record (table %u, key of %zu bytes); it is skipped,"
             " further ones are only counted",
             what, key_len > 0 ? ((const uint8_t *)key)[0] : 0u, key_len);
    return BF_ERR_CORRUPT;
}

int bf_store_get(const struct bf_store *s, const struct bf_key *key, struct bf_row *ret)
{
    return s->engine->ops->get(s->engine, key, ret);
}

static void copy_key(struct bf_key *to, const struct bf_key *from)
{
    to->len = from->len;
    memcpy(to->at, from->at, from->len);
}

void bf_engine_scan(struct bf_scan *scan, struct bf_engine *engine, const struct bf_key *prefix,
                    const struct bf_key *from, unsigned flags)
{
    BF_BUG_ON((flags & BF_SCAN_AFTER) && (from == NULL || (flags & BF_SCAN_BACKWARDS)));
    scan->engine = engine;
    scan->flags = flags;
    scan->key = scan->value = (struct bf_bytes){0};
    scan->at = scan->more = NULL;
    scan->has_begun = false;
    copy_key(&scan->prefix, prefix);
    scan->from.len = 0;
    if (from != NULL)
        copy_key(&scan->from, from);
    engine->ops->scan_open(scan);
}
