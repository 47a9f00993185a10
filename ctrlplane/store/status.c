/*
 * Delivery status: one row an accepted event, and the outcomes that the inbox does not show. An
 * event whose only recipient got it in the inbox has no row of its own: it is stored in the id row
 * of its message.
 */
#include "belfry/base/err.h"
#include "store/gather.h"
#include "store/store_impl.h"

/* Fixed parts and the five lengths of a row; names are bounded by limits.h. */
#define EVENT_BYTES 64u

/* Flags of an event. */
#define FLAG_TRANSIENT (1u << 0)
#define FLAG_BROADCAST (1u << 1)

static size_t event_bytes(const struct bf_event_row *row)
{
    size_t bytes = EVENT_BYTES + row->tenant.len + row->producer.len + row->type.len +
                   row->topic.len + row->traceparent.len;
    for (uint32_t i = 0; i < row->recipient_count; i++)
        bytes += 2 + row->recipients[i].len;
    return bytes;
}

/* What both forms of an event have. */
static void put_event(struct bf_writer *w, const struct bf_event_row *row)
{
    bf_put_u64(w, row->accepted_ms);
    bf_put_u64(w, row->bseq);
    bf_put_u8(w, row->target);
    bf_put_u8(w, row->lane);
    bf_put_u8(w, (row->transient ? FLAG_TRANSIENT : 0) | (row->is_broadcast ? FLAG_BROADCAST : 0));
    bf_put_str16(w, row->tenant);
    bf_put_str16(w, row->producer);
    bf_put_str16(w, row->type);
    bf_put_str16(w, row->topic);
    bf_put_str16(w, row->traceparent);
}

static void get_event(struct bf_reader *r, struct bf_event_row *row)
{
    row->accepted_ms = bf_get_u64(r);
    row->bseq = bf_get_u64(r);
    row->target = bf_get_u8(r);
    row->lane = bf_get_u8(r);
    uint8_t flags = bf_get_u8(r);
    row->transient = (flags & FLAG_TRANSIENT) != 0;
    row->is_broadcast = (flags & FLAG_BROADCAST) != 0;
    row->tenant = bf_get_str16(r);
    row->producer = bf_get_str16(r);
    row->type = bf_get_str16(r);
    row->topic = bf_get_str16(r);
    row->traceparent = bf_get_str16(r);
}

size_t bf_sole_event_bytes(const struct bf_event_row *row)
{
    return event_bytes(row) + BF_USER_ID_BYTES_MAX;
}

void bf_put_sole_event(struct bf_writer *w, const struct bf_event_row *row, struct bf_bytes user)
{
    bf_put_raw(w, row->event_id.bytes, sizeof(row->event_id.bytes));
    bf_put_u64(w, row->expires_ms);
    bf_put_str16(w, user);
    put_event(w, row);
}

void bf_batch_put_event_row(struct bf_batch *b, const struct bf_event_row *row)
{
    struct bf_key key;
    BF_BUG_ON(row->recipient_count > BF_RECIPIENTS_MAX);
    bf_key_id(&key, BF_T_EVENT, &row->event_id);
    struct bf_writer w = bf_batch_expiring_value(b, row->expires_ms, event_bytes(row));
    put_event(&w, row);
    bf_put_u32(&w, row->recipient_count);
    for (uint32_t i = 0; i < row->recipient_count; i++)
        bf_put_str16(&w, row->recipients[i]);
    bf_batch_put(b, &key, &w);
}

/* |recipients| has room for BF_RECIPIENTS_MAX; row->recipients points to it. */
static bool decode_event(struct bf_bytes value, struct bf_event_row *row,
                         struct bf_bytes *recipients)
{
    struct bf_reader r = bf_value_reader(value, &row->expires_ms);
    get_event(&r, row);
    row->recipient_count = bf_get_u32(&r);
    if (row->recipient_count > BF_RECIPIENTS_MAX)
        return false;
    for (uint32_t i = 0; i < row->recipient_count; i++)
        recipients[i] = bf_get_str16(&r);
    row->recipients = recipients;
    return bf_value_is_read(&r);
}

/* Recipients erased after the event do not appear any more, though the row keeps their bytes until
 * it expires: rewriting it for each of up to 1,000 would make an erasure unbounded. */
static void hide_erased(struct bf_store *s, struct bf_event_row *row, struct bf_bytes *recipients)
{
    struct bf_gather g;
    struct bf_key key;
    uint32_t kept = 0;
    bf_gather_init(&g, s->engine);
    for (uint32_t i = 0; i < row->recipient_count; i++) {
        bf_key_erased(&key, (struct bf_uid){row->tenant, recipients[i]});
        bf_want_row(&g, &key);
    }
    (void)bf_gather_read(&g); /* what cannot be read counts as not erased, as for one alone */
    for (uint32_t i = 0; i < row->recipient_count; i++) {
        const struct bf_want *got = bf_gather_got(&g, i);
        if (got->rc != 0 || bf_erased_ms(got->row.value) < row->accepted_ms)
            recipients[kept++] = recipients[i];
    }
    bf_gather_fini(&g);
    row->recipient_count = kept;
}

/* The event of an id row, if it is this one's; |user| holds its recipient. */
static bool decode_sole_event(struct bf_bytes value, const struct bf_id *event_id,
                              struct bf_event_row *row, struct bf_bytes *user)
{
    uint64_t row_expires_ms;
    struct bf_reader r = bf_value_reader(value, &row_expires_ms);
    bf_get_raw(&r, 8 + 1 + 8); /* hash, lane, seq */
    const uint8_t *id = bf_get_raw(&r, sizeof(event_id->bytes));
    if (id == NULL || memcmp(id, event_id->bytes, sizeof(event_id->bytes)) != 0)
        return false;
    row->expires_ms = bf_get_u64(&r);
    *user = bf_get_str16(&r);
    get_event(&r, row);
    row->recipient_count = 1;
    row->recipients = user;
    return bf_value_is_read(&r);
}

/* Id rows of an event's messages begin with its first bytes. */
static int use_sole_event(struct bf_store *s, const struct bf_id *event_id,
                          int (*use)(void *arg, const struct bf_event_row *row), void *arg)
{
    struct bf_key prefix;
    struct bf_scan scan;
    struct bf_bytes user;
    int rc = BF_ERR_NOT_FOUND;
    bf_key_begin(&prefix, BF_T_ID);
    bf_key_raw(&prefix, event_id->bytes, BF_MESSAGE_PREFIX_BYTES);
    bf_scan_open(&scan, s, &prefix, NULL, 0);
    while (rc == BF_ERR_NOT_FOUND && bf_scan_next(&scan)) {
        struct bf_event_row row = {.event_id = *event_id};
        if (decode_sole_event(scan.value, event_id, &row, &user))
            rc = use(arg, &row);
    }
    int closed = bf_scan_close(&scan);
    return closed != 0 ? closed : rc;
}

int bf_store_get_event_row(struct bf_store *s, const struct bf_id *event_id,
                           int (*use)(void *arg, const struct bf_event_row *row), void *arg)
{
    struct bf_key key;
    struct bf_row stored;
    struct bf_event_row row = {.event_id = *event_id};
    struct bf_bytes recipients[BF_RECIPIENTS_MAX];
    bf_key_id(&key, BF_T_EVENT, event_id);
    int rc = bf_store_get(s, &key, &stored);
    if (rc == BF_ERR_NOT_FOUND)
        return use_sole_event(s, event_id, use, arg);
    if (rc != 0)
        return rc;
    if (decode_event(stored.value, &row, recipients)) {
        hide_erased(s, &row, recipients);
        rc = use(arg, &row);
    } else {
        rc = bf_store_corrupt("event", key.at, key.len);
    }
    bf_row_put(&stored);
    return rc;
}

void bf_batch_put_outcome(struct bf_batch *b, const struct bf_outcome *o)
{
    struct bf_key key;
    const struct bf_attempt_key attempt = {.endpoint = o->endpoint, .attempt = o->attempt};
    bf_key_outcome(&key, &o->event_id, o->uid, o->channel, &attempt);
    struct bf_writer w = bf_batch_expiring_value(b, o->expires_ms, 16 + o->reason.len);
    bf_put_u8(&w, o->status);
    bf_put_u64(&w, o->at_ms);
    bf_put_str16(&w, o->reason);
    bf_batch_put(b, &key, &w);
    bf_key_user_outcome(&key, o->uid, &o->event_id, o->channel, &attempt);
    w = bf_batch_expiring_value(b, o->expires_ms, 0);
    bf_batch_put(b, &key, &w);
}

static bool decode_outcome(const struct bf_scan *scan, struct bf_outcome *o)
{
    struct bf_reader k = bf_key_reader(scan->key);
    bf_get_raw(&k, sizeof(o->event_id.bytes));
    o->uid = bf_key_get_uid(&k);
    o->channel = bf_get_u8(&k);
    struct bf_attempt_key attempt;
    bf_key_get_attempt(&k, &attempt);
    o->endpoint = attempt.endpoint;
    o->attempt = attempt.attempt;
    struct bf_reader r = bf_value_reader(scan->value, &o->expires_ms);
    o->status = bf_get_u8(&r);
    o->at_ms = bf_get_u64(&r);
    o->reason = bf_get_str16(&r);
    return bf_value_is_read(&k) && bf_value_is_read(&r) && o->status < BF_STATUS_COUNT;
}

int bf_store_walk_outcomes(struct bf_store *s, const struct bf_id *event_id,
                           int (*each)(void *arg, const struct bf_outcome *outcome), void *arg)
{
    struct bf_key prefix;
    struct bf_scan scan;
    int rc = 0;
    bf_key_id(&prefix, BF_T_OUTCOME, event_id);
    bf_scan_open(&scan, s, &prefix, NULL, 0);
    while (rc == 0 && bf_scan_next(&scan)) {
        struct bf_outcome o = {.event_id = *event_id};
        if (decode_outcome(&scan, &o))
            rc = each(arg, &o);
        else
            bf_store_corrupt("outcome", scan.key.at, scan.key.len);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}
