/*
 * Inbox: one row a message under (user, lane, seq), one id row that finds it, and the acknowledged
 * intervals beyond the latest one.
 */
#include <errno.h>
#include <stdlib.h>

#include "belfry/base/err.h"
#include "store/gather.h"
#include "store/store_impl.h"

/* Two ids, three times, flags and collapse hash, length of the fragment. */
#define ITEM_BYTES 80u
/* uid hash, lane, seq. */
#define ID_BYTES 17u

/* The place of the message; after it, if the event has no other recipient, the event (status.c). */
static void put_id_row(struct bf_batch *b, struct bf_uid uid, const struct bf_item *item,
                       const struct bf_event_row *event)
{
    struct bf_key key;
    uint64_t expires_ms = item->expires_ms;
    bf_key_id(&key, BF_T_ID, &item->id);
    if (event && expires_ms != 0 && event->expires_ms > expires_ms)
        expires_ms = event->expires_ms;
    struct bf_writer w =
        bf_batch_expiring_value(b, expires_ms, ID_BYTES + (event ? bf_sole_event_bytes(event) : 0));
    bf_put_u64(&w, bf_uid_hash(uid));
    bf_put_u8(&w, (uint8_t)item->lane);
    bf_put_u64(&w, item->seq);
    if (event)
        bf_put_sole_event(&w, event, uid.user);
    bf_batch_put(b, &key, &w);
}

void bf_batch_put_flags(struct bf_batch *b, struct bf_uid uid, const struct bf_item *item)
{
    struct bf_key key;
    bf_key_item(&key, uid, item->lane, item->seq);
    struct bf_writer w =
        bf_batch_expiring_value(b, item->expires_ms, ITEM_BYTES + item->fragment.len);
    bf_put_raw(&w, item->id.bytes, sizeof(item->id.bytes));
    bf_put_raw(&w, item->event_id.bytes, sizeof(item->event_id.bytes));
    bf_put_u64(&w, item->prev);
    bf_put_u64(&w, item->created_ms);
    bf_put_u64(&w, item->changed_ms);
    bf_put_u32(&w, item->flags);
    bf_put_u32(&w, item->collapse);
    bf_put_str32(&w, item->fragment);
    bf_batch_put(b, &key, &w);
}

void bf_batch_put_item(struct bf_batch *b, struct bf_uid uid, const struct bf_item *item,
                       const struct bf_event_row *event)
{
    bf_batch_put_flags(b, uid, item);
    put_id_row(b, uid, item, event);
}

static void get_id(struct bf_reader *r, struct bf_id *ret)
{
    const uint8_t *at = bf_get_raw(r, sizeof(ret->bytes));
    if (at != NULL)
        memcpy(ret->bytes, at, sizeof(ret->bytes));
}

/* Fills all but lane and seq, which are in the key. */
static bool decode_item(struct bf_bytes value, struct bf_item *item)
{
    struct bf_reader r = bf_value_reader(value, &item->expires_ms);
    get_id(&r, &item->id);
    get_id(&r, &item->event_id);
    item->prev = bf_get_u64(&r);
    item->created_ms = bf_get_u64(&r);
    item->changed_ms = bf_get_u64(&r);
    item->flags = bf_get_u32(&r);
    item->collapse = bf_get_u32(&r);
    item->fragment = bf_get_str32(&r);
    return bf_value_is_read(&r);
}

static bool decode_item_key(struct bf_bytes key, struct bf_item *item)
{
    struct bf_reader r = bf_key_reader(key);
    bf_key_get_uid(&r);
    uint8_t lane = bf_get_u8(&r);
    item->seq = bf_get_be64(&r);
    item->lane = (enum bf_lane)lane;
    return bf_value_is_read(&r) && lane < BF_LANE_COUNT;
}

/* Next item of a scan that decodes; false at the end. */
static bool next_item(struct bf_scan *scan, struct bf_item *item)
{
    while (bf_scan_next(scan)) {
        *item = (struct bf_item){0};
        if (decode_item_key(scan->key, item) && decode_item(scan->value, item))
            return true;
        bf_store_corrupt("inbox", scan->key.at, scan->key.len);
    }
    return false;
}

void bf_item_free(struct bf_item_copy *copy)
{
    free(copy->memory);
    *copy = (struct bf_item_copy){0};
}

int bf_store_get_item(struct bf_store *s, struct bf_uid uid, enum bf_lane lane, uint64_t seq,
                      struct bf_item_copy *ret)
{
    struct bf_key key;
    struct bf_row row;
    bf_key_item(&key, uid, lane, seq);
    int rc = bf_store_get(s, &key, &row);
    if (rc != 0)
        return rc;
    struct bf_item_copy copy = {.memory = malloc(row.value.len + 1)};
    if (copy.memory == NULL) {
        bf_row_put(&row);
        return -ENOMEM;
    }
    memcpy(copy.memory, row.value.at, row.value.len);
    struct bf_bytes value = {copy.memory, row.value.len};
    bf_row_put(&row);
    if (!decode_item(value, &copy.item)) {
        bf_item_free(&copy);
        return bf_store_corrupt("inbox", key.at, key.len);
    }
    copy.item.lane = lane;
    copy.item.seq = seq;
    *ret = copy;
    return 0;
}

void bf_store_prefetch_message(struct bf_store *s, const struct bf_id *id)
{
    struct bf_key key;
    bf_key_id(&key, BF_T_ID, id);
    s->engine->ops->expect(s->engine, &key);
}

bool bf_store_find_message(struct bf_store *s, struct bf_uid uid, const struct bf_id *id,
                           enum bf_lane *ret_lane, uint64_t *ret_seq)
{
    struct bf_key key;
    struct bf_row row;
    uint64_t expires_ms;
    bf_key_id(&key, BF_T_ID, id);
    if (BF_LIKELY(bf_store_get(s, &key, &row) != 0))
        return false;
    struct bf_reader r = bf_value_reader(row.value, &expires_ms);
    uint64_t hash = bf_get_u64(&r);
    uint8_t lane = bf_get_u8(&r);
    uint64_t seq = bf_get_u64(&r);
    bool is_good = !r.failed && lane < BF_LANE_COUNT;
    bf_row_put(&row);
    if (!is_good) {
        bf_store_corrupt("message id", key.at, key.len);
        return false;
    }
    if (hash != bf_uid_hash(uid))
        return false; /* somebody else's message */
    *ret_lane = (enum bf_lane)lane;
    *ret_seq = seq;
    return true;
}

static void lane_prefix(struct bf_key *key, enum bf_table table, struct bf_uid uid,
                        enum bf_lane lane)
{
    bf_key_uid(key, table, uid);
    bf_key_u8(key, lane);
}

int bf_store_walk_lane(struct bf_store *s, struct bf_uid uid, enum bf_lane lane, uint64_t from,
                       uint64_t to, uint64_t now_ms, bf_item_fn each, void *arg)
{
    struct bf_key prefix, first;
    struct bf_scan scan;
    struct bf_item item;
    int rc = 0;
    if (from >= to)
        return 0;
    lane_prefix(&prefix, BF_T_INBOX, uid, lane);
    bf_key_item(&first, uid, lane, from + 1);
    bf_scan_open(&scan, s, &prefix, &first, 0);
    while (rc == 0 && next_item(&scan, &item) && item.seq <= to) {
        if (bf_item_is_shown(&item, now_ms))
            rc = each(arg, &item);
    }
    int closed = bf_scan_close(&scan);
    return rc != 0 ? rc : closed;
}

static void count_item(struct bf_unread *n, const struct bf_item *item, uint64_t now_ms)
{
    const struct bf_item *last = &n->latest;
    bool is_expired = item->expires_ms != 0 && item->expires_ms <= now_ms;
    bool was_expired = last->expires_ms != 0 && last->expires_ms <= now_ms;
    uint64_t at_ms = is_expired ? item->expires_ms : item->changed_ms;
    if (bf_item_is_unread(item, now_ms)) {
        n->count++;
        if (item->expires_ms != 0 && item->expires_ms < n->due_ms)
            n->due_ms = item->expires_ms;
    } else if (is_expired && bf_item_is_unread(item, 0)) {
        n->has_expired = true;
    }
    if (n->has_latest && at_ms < (was_expired ? last->expires_ms : last->changed_ms))
        return;
    n->has_latest = true;
    n->latest = *item;
    n->latest.fragment = (struct bf_bytes){0};
}

int bf_store_count_unread(struct bf_store *s, struct bf_uid uid, uint64_t now_ms,
                          struct bf_unread *ret)
{
    int rc = 0;
    *ret = (struct bf_unread){.due_ms = UINT64_MAX};
    for (unsigned lane = 0; lane < BF_LANE_COUNT && rc == 0; lane++) {
        struct bf_key prefix;
        struct bf_scan scan;
        struct bf_item item;
        lane_prefix(&prefix, BF_T_INBOX, uid, (enum bf_lane)lane);
        bf_scan_open(&scan, s, &prefix, NULL, 0);
        while (next_item(&scan, &item))
            count_item(ret, &item, now_ms);
        rc = bf_scan_close(&scan);
    }
    return rc;
}

/* The highest seq of a lane at or below |upto| is wanted. */
static uint32_t want_last_seq(struct bf_gather *g, struct bf_uid uid, enum bf_lane lane,
                              uint64_t upto)
{
    struct bf_key prefix, from;
    lane_prefix(&prefix, BF_T_INBOX, uid, lane);
    bf_key_item(&from, uid, lane, upto);
    return bf_want_range(g, &prefix, &from, BF_SCAN_BACKWARDS, 1);
}

/* 0: there is none. */
static uint64_t got_last_seq(const struct bf_gather *g, uint32_t want, uint64_t upto)
{
    struct bf_bytes key, value;
    struct bf_item item;
    int rc = bf_gather_got(g, want)->rc;
    if (rc == BF_ERR_NOT_FOUND)
        return 0;
    if (rc != 0)
        return upto; /* what cannot be read may be there */
    bf_gather_row(g, want, 0, &key, &value);
    return decode_item_key(key, &item) ? item.seq : 0;
}

void bf_store_settle_heads(struct bf_store *s, struct bf_uid uid, struct bf_user_state *state)
{
    struct bf_gather g;
    uint32_t wants[BF_LANE_COUNT] = {0};
    if (!state->has_gap)
        return;
    bf_gather_init(&g, s->engine);
    for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++)
        if (state->gap[lane] > 0)
            wants[lane] = want_last_seq(&g, uid, (enum bf_lane)lane, state->head[lane]);
    int rc = bf_gather_read(&g);
    for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++) {
        if (state->gap[lane] == 0)
            continue;
        uint64_t written = state->head[lane] - state->gap[lane];
        uint64_t last =
            rc == 0 ? got_last_seq(&g, wants[lane], state->head[lane]) : state->head[lane];
        state->head[lane] = last > written ? last : written;
    }
    bf_gather_fini(&g);
    state->has_gap = false;
}

/* ---- the list: newest first over all lanes ---- */

struct lane_head {
    struct bf_scan scan;
    struct bf_item item;
    bool is_open, has_item;
};

static void advance(struct lane_head *head, bool unread_only, uint64_t now_ms)
{
    do {
        head->has_item = next_item(&head->scan, &head->item);
    } while (head->has_item && !(unread_only ? bf_item_is_unread(&head->item, now_ms)
                                             : bf_item_is_shown(&head->item, now_ms)));
}

static void open_lane(struct lane_head *head, struct bf_store *s, struct bf_uid uid,
                      enum bf_lane lane, uint64_t before)
{
    struct bf_key prefix, last;
    head->has_item = false;
    head->is_open = before > 0;
    if (!head->is_open)
        return;
    lane_prefix(&prefix, BF_T_INBOX, uid, lane);
    bf_key_item(&last, uid, lane, before - 1);
    bf_scan_open(&head->scan, s, &prefix, &last, BF_SCAN_BACKWARDS);
}

/* The lane whose head is newest; the lower lane number wins a tie. -1: all are at their end. */
static int newest_lane(const struct lane_head heads[BF_LANE_COUNT])
{
    int best = -1;
    for (int lane = 0; lane < (int)BF_LANE_COUNT; lane++) {
        if (heads[lane].has_item &&
            (best < 0 || heads[lane].item.created_ms > heads[best].item.created_ms))
            best = lane;
    }
    return best;
}

int bf_store_list_inbox(struct bf_store *s, struct bf_uid uid, struct bf_inbox_cursor *cursor,
                        bool unread_only, uint32_t limit, uint64_t now_ms, bf_item_fn each,
                        void *arg, bool *ret_more)
{
    struct lane_head heads[BF_LANE_COUNT];
    uint32_t count = 0;
    int rc = 0, lane;
    for (int i = 0; i < (int)BF_LANE_COUNT; i++) {
        open_lane(&heads[i], s, uid, (enum bf_lane)i, cursor->before[i]);
        if (heads[i].is_open)
            advance(&heads[i], unread_only, now_ms);
    }
    while (rc == 0 && (lane = newest_lane(heads)) >= 0 && count < limit) {
        rc = each(arg, &heads[lane].item);
        cursor->before[lane] = heads[lane].item.seq;
        count++;
        advance(&heads[lane], unread_only, now_ms);
    }
    *ret_more = newest_lane(heads) >= 0;
    for (int i = 0; i < (int)BF_LANE_COUNT; i++) {
        int closed = heads[i].is_open ? bf_scan_close(&heads[i].scan) : 0;
        rc = rc != 0 ? rc : closed;
    }
    return rc;
}

int bf_batch_drop_below(struct bf_batch *b, struct bf_uid uid, const struct bf_inbox_cursor *cursor,
                        uint32_t *ret_dropped)
{
    int rc = 0;
    *ret_dropped = 0;
    for (unsigned lane = 0; lane < BF_LANE_COUNT && rc == 0; lane++) {
        struct bf_key prefix;
        struct bf_scan scan;
        struct bf_item item = {0};
        lane_prefix(&prefix, BF_T_INBOX, uid, (enum bf_lane)lane);
        bf_scan_open(&scan, b->store, &prefix, NULL, 0);
        while (bf_scan_next(&scan) && decode_item_key(scan.key, &item) &&
               item.seq < cursor->before[lane]) {
            bf_batch_delete(b, scan.key.at, scan.key.len);
            (*ret_dropped)++;
        }
        rc = bf_scan_close(&scan);
    }
    return rc;
}

/* ---- acknowledgements ---- */

void bf_batch_put_ack(struct bf_batch *b, struct bf_uid uid, enum bf_lane lane, uint64_t from,
                      uint64_t to)
{
    struct bf_key key;
    bf_key_ack(&key, uid, lane, to);
    struct bf_writer w = bf_batch_value(b, 8);
    bf_put_u64(&w, from);
    bf_batch_put(b, &key, &w);
}

bool bf_store_is_acked(struct bf_store *s, struct bf_uid uid, const struct bf_user_state *state,
                       enum bf_lane lane, uint64_t seq)
{
    struct bf_key prefix, first;
    struct bf_scan scan;
    bool is_acked = false;
    if (seq > state->ack_to[lane])
        return false;
    if (seq > state->ack_from[lane])
        return true;
    lane_prefix(&prefix, BF_T_ACK, uid, lane);
    bf_key_ack(&first, uid, lane, seq);
    bf_scan_open(&scan, s, &prefix, &first, 0);
    /* intervals do not overlap: the first one that ends at or above seq is the only candidate */
    if (bf_scan_next(&scan)) {
        struct bf_reader r = bf_value_reader(scan.value, NULL);
        uint64_t from = bf_get_u64(&r);
        if (!bf_value_is_read(&r))
            bf_store_corrupt("ack", scan.key.at, scan.key.len);
        else
            is_acked = from < seq;
    }
    (void)bf_scan_close(&scan); /* counted there; "not acknowledged" only repeats a message */
    return is_acked;
}
