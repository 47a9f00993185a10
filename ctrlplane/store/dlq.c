/* Dead letters, oldest first a channel. The engine counts them: /metrics asks often. */
#include "belfry/base/err.h"
#include "terms/channel.h"
#include "store/store_impl.h"

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

/* An event has a leg an endpoint: several may die in the same millisecond, and each is a letter. */
uint64_t bf_dlq_tag(struct bf_bytes body)
{
    return XXH3_64bits(body.at, body.len) | 1u;
}

static uint64_t tag_of(const struct bf_dlq_row *row)
{
    return row->tag == 0 && row->channel == BF_CHANNEL_PUSH ? bf_dlq_tag(row->body) : row->tag;
}

static void letter_key(struct bf_key *key, const struct bf_dlq_row *row, uint64_t tag)
{
    bf_key_dlq(key, row->channel, row->at_ms, &row->event_id);
    if (tag != 0)
        bf_key_be64(key, tag);
}

void bf_batch_put_dlq(struct bf_batch *b, const struct bf_dlq_row *row)
{
    struct bf_key key;
    letter_key(&key, row, tag_of(row));
    struct bf_writer w =
        bf_batch_value(b, 16 + row->reason.len + row->meta.len + row->body.len + row->headers.len);
    bf_put_str16(&w, row->reason);
    bf_put_str16(&w, row->meta);
    bf_put_str32(&w, row->body);
    bf_put_str32(&w, row->headers);
    bf_batch_put(b, &key, &w);
}

void bf_batch_delete_dlq(struct bf_batch *b, uint8_t channel, uint64_t at_ms,
                         const struct bf_id *event_id)
{
    bf_batch_delete_letter(
        b, &(struct bf_dlq_row){.channel = channel, .at_ms = at_ms, .event_id = *event_id});
}

void bf_batch_delete_letter(struct bf_batch *b, const struct bf_dlq_row *row)
{
    struct bf_key key;
    letter_key(&key, row, row->tag);
    bf_batch_delete(b, key.at, key.len);
}

static bool decode_dlq(const struct bf_scan *scan, struct bf_dlq_row *row)
{
    struct bf_reader k = bf_key_reader(scan->key);
    row->channel = bf_get_u8(&k);
    row->at_ms = bf_get_be64(&k);
    const uint8_t *id = bf_get_raw(&k, sizeof(row->event_id.bytes));
    row->tag = k.at < k.len ? bf_get_be64(&k) : 0;
    struct bf_reader r = bf_value_reader(scan->value, NULL);
    row->reason = bf_get_str16(&r);
    row->meta = bf_get_str16(&r);
    row->body = bf_get_str32(&r);
    /* a letter of an earlier version ends here */
    row->headers = r.at < r.len ? bf_get_str32(&r) : (struct bf_bytes){0};
    if (!bf_value_is_read(&k) || !bf_value_is_read(&r))
        return false;
    memcpy(row->event_id.bytes, id, sizeof(row->event_id.bytes));
    return true;
}

int bf_store_walk_dlq(struct bf_store *s, uint8_t channel, uint64_t after_ms,
                      int (*each)(void *arg, const struct bf_dlq_row *row), void *arg)
{
    struct bf_key prefix, from;
    struct bf_scan scan;
    int rc = 0;
    bf_key_begin(&prefix, BF_T_DLQ);
    bf_key_u8(&prefix, channel);
    from = prefix;
    bf_key_be64(&from, after_ms);
    bf_scan_open(&scan, s, &prefix, &from, 0);
    while (rc == 0 && bf_scan_next(&scan)) {
        struct bf_dlq_row row;
        if (decode_dlq(&scan, &row))
            rc = each(arg, &row);
        else
            bf_store_corrupt("dead letter", scan.key.at, scan.key.len);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}

uint64_t bf_store_dlq_depth(struct bf_store *s, uint8_t channel)
{
    return s->engine->ops->count(s->engine, BF_T_DLQ, channel);
}
