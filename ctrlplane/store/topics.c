/* Topics, and subscriptions from both sides: by topic for expansion, by user for the API and
 * erasure. */
#include "belfry/base/err.h"
#include "store/store_impl.h"

void bf_batch_put_topic(struct bf_batch *b, const struct bf_topic_row *row)
{
    struct bf_key key;
    bf_key_topic(&key, BF_T_TOPIC, row->tenant, row->topic);
    struct bf_writer w = bf_batch_value(b, 16);
    bf_put_u8(&w, (uint8_t)row->carriage);
    bf_put_u64(&w, row->created_ms);
    bf_batch_put(b, &key, &w);
}

static bool decode_topic(struct bf_bytes value, struct bf_topic_row *row)
{
    struct bf_reader r = bf_value_reader(value, NULL);
    uint8_t carriage = bf_get_u8(&r);
    row->created_ms = bf_get_u64(&r);
    row->carriage = (enum bf_carriage)carriage;
    return bf_value_is_read(&r) && carriage <= BF_CARRIAGE_BROADCAST;
}

int bf_store_get_topic(struct bf_store *s, struct bf_bytes tenant, struct bf_bytes topic,
                       struct bf_topic_row *ret)
{
    struct bf_key key;
    struct bf_row stored;
    struct bf_topic_row row = {.tenant = tenant, .topic = topic};
    bf_key_topic(&key, BF_T_TOPIC, tenant, topic);
    int rc = bf_store_get(s, &key, &stored);
    if (rc != 0)
        return rc;
    if (decode_topic(stored.value, &row))
        *ret = row;
    else
        rc = bf_store_corrupt("topic", key.at, key.len);
    bf_row_put(&stored);
    return rc;
}

/* A scan of |prefix| that begins after the row of |after|; "": from the first. */
static void scan_after(struct bf_scan *scan, const struct bf_store *s, const struct bf_key *prefix,
                       struct bf_bytes after)
{
    struct bf_key from = *prefix;
    bf_key_part(&from, after);
    if (after.len > 0)
        bf_scan_open(scan, s, prefix, &from, BF_SCAN_AFTER);
    else
        bf_scan_open(scan, s, prefix, NULL, 0);
}

int bf_store_walk_topics(struct bf_store *s, struct bf_bytes tenant, struct bf_bytes after,
                         int (*each)(void *arg, const struct bf_topic_row *row), void *arg)
{
    struct bf_key prefix;
    struct bf_scan scan;
    int rc = 0;
    bf_key_begin(&prefix, BF_T_TOPIC);
    bf_key_part(&prefix, tenant);
    scan_after(&scan, s, &prefix, after);
    while (rc == 0 && bf_scan_next(&scan)) {
        struct bf_reader k = bf_key_reader(scan.key);
        struct bf_topic_row row = {.tenant = bf_key_get_part(&k)};
        row.topic = bf_key_get_part(&k);
        if (bf_value_is_read(&k) && decode_topic(scan.value, &row))
            rc = each(arg, &row);
        else
            bf_store_corrupt("topic", scan.key.at, scan.key.len);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}

/* ---- subscriptions ---- */

static void subscriber_key(struct bf_key *key, struct bf_uid uid, struct bf_bytes topic)
{
    bf_key_topic(key, BF_T_SUBSCRIBER, uid.tenant, topic);
    bf_key_part(key, uid.user);
}

static void subscription_key(struct bf_key *key, struct bf_uid uid, struct bf_bytes topic)
{
    bf_key_uid(key, BF_T_SUBSCRIPTION, uid);
    bf_key_part(key, topic);
}

void bf_batch_put_subscription(struct bf_batch *b, const struct bf_subscription *sub)
{
    struct bf_key key;
    struct bf_writer w = bf_batch_value(b, 8 + sub->filter_json.len);
    bf_put_u8(&w, sub->channel_mask);
    bf_put_u8(&w, sub->deny);
    bf_put_str32(&w, sub->filter_json);
    subscriber_key(&key, sub->uid, sub->topic);
    bf_batch_put(b, &key, &w);
    subscription_key(&key, sub->uid, sub->topic);
    bf_batch_put(b, &key, &w);
}

void bf_batch_delete_subscription(struct bf_batch *b, struct bf_uid uid, struct bf_bytes topic)
{
    struct bf_key key;
    subscriber_key(&key, uid, topic);
    bf_batch_delete(b, key.at, key.len);
    subscription_key(&key, uid, topic);
    bf_batch_delete(b, key.at, key.len);
}

static bool decode_subscription(struct bf_bytes value, struct bf_subscription *sub)
{
    struct bf_reader r = bf_value_reader(value, NULL);
    sub->channel_mask = bf_get_u8(&r);
    sub->deny = bf_get_u8(&r) != 0;
    sub->filter_json = bf_get_str32(&r);
    return bf_value_is_read(&r);
}

/* Walks one of the two sides; |by_topic| says which part of the key is where. */
static int walk_subscriptions(struct bf_store *s, const struct bf_key *prefix,
                              struct bf_bytes after, bool by_topic, bf_sub_fn each, void *arg)
{
    struct bf_scan scan;
    int rc = 0;
    scan_after(&scan, s, prefix, after);
    while (rc == 0 && bf_scan_next(&scan)) {
        struct bf_reader k = bf_key_reader(scan.key);
        struct bf_subscription sub = {.uid.tenant = bf_key_get_part(&k)};
        struct bf_bytes second = bf_key_get_part(&k);
        struct bf_bytes third = bf_key_get_part(&k);
        sub.topic = by_topic ? second : third;
        sub.uid.user = by_topic ? third : second;
        if (bf_value_is_read(&k) && decode_subscription(scan.value, &sub))
            rc = each(arg, &sub);
        else
            bf_store_corrupt("subscription", scan.key.at, scan.key.len);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}

int bf_store_walk_subscribers(struct bf_store *s, struct bf_bytes tenant, struct bf_bytes topic,
                              struct bf_bytes after, bf_sub_fn each, void *arg)
{
    struct bf_key prefix;
    bf_key_topic(&prefix, BF_T_SUBSCRIBER, tenant, topic);
    return walk_subscriptions(s, &prefix, after, true, each, arg);
}

int bf_store_walk_user_subscriptions(struct bf_store *s, struct bf_uid uid, bf_sub_fn each,
                                     void *arg)
{
    struct bf_key prefix;
    bf_key_uid(&prefix, BF_T_SUBSCRIPTION, uid);
    return walk_subscriptions(s, &prefix, (struct bf_bytes){0}, false, each, arg);
}
