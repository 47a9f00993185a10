/*
 * Every table of the store, on RocksDB (another program takes the same file with another engine,
 * port/test_tables_on_memory.c): what is put comes back, over a reopening too; walks
 * are in order and stop where asked; erasure leaves nothing; damage is refused or skipped.
 */
#include "store_fixture.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "store/legs.h"
#include "store/store_impl.h"
#ifdef STORE_ON_ROCKS
#include "store/rocks/engine.h"
#endif

TestSuite(store, .init = setup, .fini = teardown, .timeout = 120);

#define WALL bf_wall_ms()
#define NOW  1700000000000u

static struct bf_item item_of(uint64_t n, enum bf_lane lane, uint64_t seq, const char *fragment)
{
    return (struct bf_item){
        .id = id_of(n),
        .event_id = id_of(n + 1000000),
        .lane = lane,
        .seq = seq,
        .prev = seq - 1,
        .created_ms = NOW + n,
        .expires_ms = NOW + 1000000,
        .changed_ms = NOW + n + 1,
        .collapse = 7,
        .fragment = text(fragment),
    };
}

static void put_items(struct bf_uid u, enum bf_lane lane, uint64_t from, uint64_t to, uint64_t base)
{
    struct bf_batch *b = bf_batch_create(store);
    for (uint64_t seq = from; seq <= to; seq++) {
        struct bf_item item = item_of(base + seq, lane, seq, "\"type\":\"t\"");
        bf_batch_put_item(b, u, &item, NULL);
    }
    write_batch(b);
    bf_batch_destroy(b);
}

Test(store, users_prefs_state)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_user_state state = {.head = {1, 2, 3},
                                  .ack_from = {4, 5, 6},
                                  .ack_to = {7, 8, 9},
                                  .unread = 10,
                                  .stored = 11},
                         got;
    char *json;
    size_t len;
    bf_batch_put_user(b, uid("", "ann"), text("{\"email\":\"a\"}"));
    bf_batch_put_prefs(b, uid("", "ann"), text("{\"opt_out\":true}"));
    bf_batch_put_state(b, uid("", "ann"), &state, WALL, true);
    bf_batch_put_user(b, uid("t", "ann"), text("{}"));
    cr_assert_eq(bf_batch_count(b), 4);
    write_batch(b);
    bf_batch_destroy(b);
    reopen();
    cr_assert(bf_store_has_user(store, uid("", "ann")));
    cr_assert(!bf_store_has_user(store, uid("", "an")));
    cr_assert(!bf_store_has_user(store, uid("tann", "")));
    cr_assert_eq(bf_store_get_user(store, uid("", "ann"), &json, &len), 0);
    cr_assert_str_eq(json, "{\"email\":\"a\"}");
    free(json);
    cr_assert_eq(bf_store_get_prefs(store, uid("", "ann"), &json, &len), 0);
    cr_assert_eq(len, strlen("{\"opt_out\":true}"));
    free(json);
    cr_assert_eq(bf_store_get_prefs(store, uid("t", "ann"), &json, &len), BF_ERR_NOT_FOUND);
    cr_assert_eq(bf_store_get_state(store, uid("", "ann"), &got), 0);
    cr_assert_arr_eq(&got, &state, offsetof(struct bf_user_state, is_rounded));
    cr_assert(!got.is_rounded);
    cr_assert_eq(bf_store_get_state(store, uid("t", "ann"), &got), BF_ERR_NOT_FOUND);
}

/* After a kill a lane goes on after the step that its row was written for: no seq twice. */
Test(store, heads_round_up_unless_exact)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_user_state state = {.head = {0, 1, BF_SEQ_STEP}}, got;
    bf_batch_put_state(b, uid("", "ann"), &state, WALL, false);
    write_batch(b);
    cr_assert_eq(bf_store_get_state(store, uid("", "ann"), &got), 0);
    cr_assert(got.is_rounded);
    cr_assert_eq(got.head[0], 0, "a lane never used has no step");
    cr_assert_eq(got.head[1], BF_SEQ_STEP);
    cr_assert_eq(got.head[2], BF_SEQ_STEP);
    state.head[2]++;
    bf_batch_put_state(b, uid("", "ann"), &state, WALL, false);
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(bf_store_get_state(store, uid("", "ann"), &got), 0);
    cr_assert_eq(got.head[2], 2 * BF_SEQ_STEP);
}

/* What is there tells where a lane stood; a row too old to be sure of that leaves it at the step's
 * end. */
Test(store, rounded_heads_settle_on_the_last_message)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_user_state state = {.head = {0, 1, 33}}, got;
    put_items(uid("", "ann"), BF_LANE_NORMAL, 1, 9, 0);
    bf_batch_put_state(b, uid("", "ann"), &state, WALL, false);
    bf_batch_put_state(b, uid("", "old"), &state, WALL - BF_SHORT_TTL_MS - 1, false);
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(bf_store_get_state(store, uid("", "ann"), &got), 0);
    cr_assert(got.has_gap);
    bf_store_settle_heads(store, uid("", "ann"), &got);
    cr_assert_eq(got.head[0], 0);
    cr_assert_eq(got.head[1], 9);
    cr_assert_eq(got.head[2], 33, "never below what was written");
    got.head[1] = 10;
    bf_store_settle_heads(store, uid("", "ann"), &got);
    cr_assert_eq(got.head[1], 10, "once only");
    cr_assert_eq(bf_store_get_state(store, uid("", "old"), &got), 0);
    bf_store_settle_heads(store, uid("", "old"), &got);
    cr_assert_eq(got.head[1], BF_SEQ_STEP);
}

struct walked {
    int count, stop_at;
    char names[16][160];
    uint64_t heads[16];
    bool has_prefs[16];
};

static int note_user(void *arg, struct bf_uid u, const struct bf_user_state *state,
                     struct bf_bytes prefs)
{
    struct walked *w = arg;
    snprintf(w->names[w->count], sizeof(w->names[0]), "%.*s/%.*s", (int)u.tenant.len, u.tenant.at,
             (int)u.user.len, u.user.at);
    w->heads[w->count] = state->head[BF_LANE_NORMAL];
    w->has_prefs[w->count] = prefs.at != NULL;
    return ++w->count == w->stop_at ? 42 : 0;
}

Test(store, walk_merges_three_tables)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_user_state state = {.head = {0, 9, 0}};
    struct walked w = {0};
    bf_batch_put_user(b, uid("", "b"), text("{}"));
    bf_batch_put_user(b, uid("", "a"), text("{}"));
    bf_batch_put_state(b, uid("", "c"), &state, WALL,
                       true); /* a head alone must not be forgotten */
    bf_batch_put_state(b, uid("", "a"), &state, WALL, true);
    bf_batch_put_prefs(b, uid("", "b"), text("{}"));
    bf_batch_put_user(b, uid("z", "aa"), text("{}"));
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(bf_store_walk_users(store, note_user, &w), 0);
    cr_assert_eq(w.count, 4);
    cr_assert_str_eq(w.names[0], "/a");
    cr_assert_str_eq(w.names[1], "/b");
    cr_assert_str_eq(w.names[2], "/c");
    cr_assert_str_eq(w.names[3], "z/aa");
    cr_assert(w.heads[0] == 9 && w.heads[1] == 0 && w.heads[2] == 9);
    cr_assert(!w.has_prefs[0] && w.has_prefs[1] && !w.has_prefs[2]);
    w = (struct walked){.stop_at = 2};
    cr_assert_eq(bf_store_walk_users(store, note_user, &w), 42);
    cr_assert_eq(w.count, 2);
}

Test(store, item_round_trip)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_item item = item_of(5, BF_LANE_BULK, 77, "\"title\":\"x\"");
    struct bf_item_copy copy;
    enum bf_lane lane;
    uint64_t seq;
    item.flags = BF_ITEM_READ | BF_ITEM_ARCHIVED;
    bf_batch_put_item(b, uid("t", "u"), &item, NULL);
    write_batch(b);
    bf_batch_destroy(b);
    reopen();
    cr_assert_eq(bf_store_get_item(store, uid("t", "u"), BF_LANE_BULK, 77, &copy), 0);
    cr_assert(bf_id_is_equal(&copy.item.id, &item.id));
    cr_assert(bf_id_is_equal(&copy.item.event_id, &item.event_id));
    cr_assert_eq(copy.item.lane, BF_LANE_BULK);
    cr_assert_eq(copy.item.seq, 77);
    cr_assert_eq(copy.item.prev, 76);
    cr_assert_eq(copy.item.created_ms, item.created_ms);
    cr_assert_eq(copy.item.expires_ms, item.expires_ms);
    cr_assert_eq(copy.item.changed_ms, item.changed_ms);
    cr_assert_eq(copy.item.flags, item.flags);
    cr_assert_eq(copy.item.collapse, 7);
    cr_assert(bf_bytes_is_equal(copy.item.fragment, item.fragment));
    bf_item_free(&copy);
    cr_assert_eq(bf_store_get_item(store, uid("t", "u"), BF_LANE_BULK, 78, &copy),
                 BF_ERR_NOT_FOUND);
    cr_assert(bf_store_find_message(store, uid("t", "u"), &item.id, &lane, &seq));
    cr_assert(lane == BF_LANE_BULK && seq == 77);
    cr_assert(!bf_store_find_message(store, uid("t", "v"), &item.id, &lane, &seq),
              "a message belongs to its user");
    struct bf_id other = id_of(6);
    cr_assert(!bf_store_find_message(store, uid("t", "u"), &other, &lane, &seq));
}

Test(store, large_fragment)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_item_copy copy;
    char *big = malloc(80000);
    memset(big, 'x', 80000);
    struct bf_item item = item_of(1, BF_LANE_NORMAL, 1, "");
    item.fragment = (struct bf_bytes){big, 80000};
    bf_batch_put_item(b, uid("", "u"), &item, NULL);
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(bf_store_get_item(store, uid("", "u"), BF_LANE_NORMAL, 1, &copy), 0);
    cr_assert(bf_bytes_is_equal(copy.item.fragment, item.fragment));
    bf_item_free(&copy);
    free(big);
}

struct listed {
    uint64_t seqs[64];
    enum bf_lane lanes[64];
    int count, stop_at;
};

static int note_item(void *arg, const struct bf_item *item)
{
    struct listed *l = arg;
    l->seqs[l->count] = item->seq;
    l->lanes[l->count] = item->lane;
    return ++l->count == l->stop_at ? -7 : 0;
}

Test(store, walk_lane_bounds_and_skips)
{
    struct bf_batch *b = bf_batch_create(store);
    put_items(uid("", "u"), BF_LANE_NORMAL, 1, 300, 0);
    put_items(uid("", "u"), BF_LANE_CRITICAL, 1, 3, 5000);
    put_items(uid("", "v"), BF_LANE_NORMAL, 11, 12, 9000);
    struct bf_item item = item_of(13, BF_LANE_NORMAL, 13, "x");
    item.flags = BF_ITEM_DELETED;
    bf_batch_put_item(b, uid("", "u"), &item, NULL);
    item = item_of(14, BF_LANE_NORMAL, 14, "x");
    item.expires_ms = NOW; /* past at NOW */
    bf_batch_put_item(b, uid("", "u"), &item, NULL);
    write_batch(b);
    bf_batch_destroy(b);
    struct listed l = {0};
    cr_assert_eq(
        bf_store_walk_lane(store, uid("", "u"), BF_LANE_NORMAL, 10, 16, NOW, note_item, &l), 0);
    cr_assert_eq(l.count, 4);
    cr_assert(l.seqs[0] == 11 && l.seqs[1] == 12 && l.seqs[2] == 15 && l.seqs[3] == 16);
    l = (struct listed){0};
    cr_assert_eq(bf_store_walk_lane(store, uid("", "u"), BF_LANE_NORMAL, 298, UINT64_MAX, NOW,
                                    note_item, &l),
                 0);
    cr_assert_eq(l.count, 2);
    l = (struct listed){.stop_at = 1};
    cr_assert_eq(
        bf_store_walk_lane(store, uid("", "u"), BF_LANE_NORMAL, 0, 300, NOW, note_item, &l), -7);
    l = (struct listed){0};
    cr_assert_eq(bf_store_walk_lane(store, uid("", "u"), BF_LANE_NORMAL, 5, 5, NOW, note_item, &l),
                 0);
    cr_assert_eq(l.count, 0);
}

Test(store, list_merges_lanes_newest_first)
{
    struct bf_inbox_cursor cursor = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    struct listed l = {0};
    bool more;
    put_items(uid("", "u"), BF_LANE_NORMAL, 1, 5, 0);   /* created NOW+1..5 */
    put_items(uid("", "u"), BF_LANE_CRITICAL, 1, 3, 2); /* created NOW+3..5, ids of their own */
    put_items(uid("", "u"), BF_LANE_BULK, 1, 1, 100);   /* created NOW+101 */
    cr_assert_eq(
        bf_store_list_inbox(store, uid("", "u"), &cursor, false, 4, NOW, note_item, &l, &more), 0);
    cr_assert(more);
    cr_assert_eq(l.count, 4);
    cr_assert(l.lanes[0] == BF_LANE_BULK && l.seqs[0] == 1);
    cr_assert(l.lanes[1] == BF_LANE_CRITICAL && l.seqs[1] == 3, "the lower lane wins a tie");
    cr_assert(l.lanes[2] == BF_LANE_NORMAL && l.seqs[2] == 5);
    cr_assert(l.lanes[3] == BF_LANE_CRITICAL && l.seqs[3] == 2);
    cr_assert(cursor.before[BF_LANE_NORMAL] == 5 && cursor.before[BF_LANE_CRITICAL] == 2);
    cr_assert_eq(
        bf_store_list_inbox(store, uid("", "u"), &cursor, false, 10, NOW, note_item, &l, &more), 0);
    cr_assert(!more);
    cr_assert_eq(l.count, 9);
    cr_assert(l.lanes[4] == BF_LANE_NORMAL && l.seqs[4] == 4);
    cr_assert(l.lanes[8] == BF_LANE_NORMAL && l.seqs[8] == 1);
    struct bf_inbox_cursor end = {{0, 0, 0}};
    l = (struct listed){0};
    cr_assert_eq(
        bf_store_list_inbox(store, uid("", "u"), &end, false, 10, NOW, note_item, &l, &more), 0);
    cr_assert(l.count == 0 && !more);
}

Test(store, list_unread_only)
{
    struct bf_inbox_cursor cursor = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    struct bf_batch *b = bf_batch_create(store);
    struct listed l = {0};
    bool more;
    put_items(uid("", "u"), BF_LANE_NORMAL, 1, 4, 0);
    for (uint64_t seq = 1; seq <= 4; seq += 3) {
        struct bf_item item = item_of(seq, BF_LANE_NORMAL, seq, "x");
        item.flags = BF_ITEM_READ;
        bf_batch_put_item(b, uid("", "u"), &item, NULL);
    }
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(
        bf_store_list_inbox(store, uid("", "u"), &cursor, true, 2, NOW, note_item, &l, &more), 0);
    cr_assert(l.count == 2 && l.seqs[0] == 3 && l.seqs[1] == 2);
    cr_assert(!more, "the rest is read");
}

Test(store, acks)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_user_state state = {.ack_from = {0, 20, 0}, .ack_to = {0, 30, 0}};
    bf_batch_put_ack(b, uid("", "u"), BF_LANE_NORMAL, 2, 5);
    bf_batch_put_ack(b, uid("", "u"), BF_LANE_NORMAL, 10, 15);
    write_batch(b);
    bf_batch_destroy(b);
    const struct {
        uint64_t seq;
        bool acked;
    } rows[] = {{1, false},  {2, false}, {3, true},  {5, true},   {6, false},
                {10, false}, {11, true}, {15, true}, {16, false}, {20, false},
                {21, true},  {30, true}, {31, false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect_eq(bf_store_is_acked(store, uid("", "u"), &state, BF_LANE_NORMAL, rows[i].seq),
                     rows[i].acked, "seq %d", (int)rows[i].seq);
    state.ack_to[BF_LANE_BULK] = 9;
    state.ack_from[BF_LANE_BULK] = 8;
    cr_expect(!bf_store_is_acked(store, uid("", "u"), &state, BF_LANE_BULK, 3));
}

/* ---- status ---- */

static int check_event(void *arg, const struct bf_event_row *row)
{
    const struct bf_event_row *want = arg;
    cr_assert(bf_id_is_equal(&row->event_id, &want->event_id));
    cr_assert_eq(row->accepted_ms, want->accepted_ms);
    cr_assert_eq(row->target, want->target);
    cr_assert_eq(row->lane, want->lane);
    cr_assert_eq(row->transient, want->transient);
    cr_assert_eq(row->bseq, want->bseq);
    cr_assert(bf_bytes_is_equal(row->tenant, want->tenant));
    cr_assert(bf_bytes_is_equal(row->producer, want->producer));
    cr_assert(bf_bytes_is_equal(row->type, want->type));
    cr_assert(bf_bytes_is_equal(row->topic, want->topic));
    cr_assert(bf_bytes_is_equal(row->traceparent, want->traceparent));
    cr_assert_eq(row->recipient_count, want->recipient_count);
    for (uint32_t i = 0; i < row->recipient_count; i++)
        cr_assert(bf_bytes_is_equal(row->recipients[i], want->recipients[i]));
    return 5;
}

static struct bf_event_row event_of(uint64_t n, const struct bf_bytes *recipients, uint32_t count)
{
    return (struct bf_event_row){
        .event_id = id_of(n),
        .accepted_ms = NOW,
        .expires_ms = NOW + 1000,
        .target = 1,
        .lane = 2,
        .transient = true,
        .tenant = text("t"),
        .producer = text("key-1"),
        .type = text("order.shipped"),
        .topic = text("orders"),
        .traceparent = text("00-aa"),
        .recipient_count = count,
        .recipients = recipients,
        .bseq = 12,
    };
}

static int note_outcome(void *arg, const struct bf_outcome *o)
{
    int *mask = arg;
    cr_assert_eq(o->status, BF_STATUS_SUPPRESSED);
    cr_assert_eq(o->at_ms, NOW + 1);
    cr_assert(bf_bytes_is_equal(o->reason, text("opt_out")));
    *mask |= 1 << (o->channel * 4 + o->attempt);
    return 0;
}

static void put_outcome(struct bf_batch *b, uint64_t event, struct bf_uid u, uint8_t channel,
                        uint16_t attempt)
{
    struct bf_outcome o = {.event_id = id_of(event),
                           .uid = u,
                           .channel = channel,
                           .attempt = attempt,
                           .status = BF_STATUS_SUPPRESSED,
                           .at_ms = NOW + 1,
                           .expires_ms = NOW + 1000,
                           .reason = text("opt_out")};
    bf_batch_put_outcome(b, &o);
}

Test(store, event_rows_and_outcomes)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_bytes recipients[] = {text("a"), text("bb")};
    struct bf_event_row row = event_of(1, recipients, 2);
    struct bf_id id = id_of(1), other = id_of(2);
    int mask = 0;
    bf_batch_put_event_row(b, &row);
    put_outcome(b, 1, uid("t", "a"), 0, 0);
    put_outcome(b, 1, uid("t", "a"), 1, 2);
    put_outcome(b, 2, uid("t", "a"), 1, 3);
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(bf_store_get_event_row(store, &id, check_event, &row), 5);
    cr_assert_eq(bf_store_get_event_row(store, &other, check_event, &row), BF_ERR_NOT_FOUND);
    cr_assert_eq(bf_store_walk_outcomes(store, &id, note_outcome, &mask), 0);
    cr_assert_eq(mask, 1 | 1 << 6);
    cr_assert_str_eq(bf_status_name(BF_STATUS_SUPPRESSED), "suppressed");
    cr_assert_str_eq(bf_status_name(BF_STATUS_COUNT), "unknown");
}

/* ---- topics ---- */

static int note_topic(void *arg, const struct bf_topic_row *row)
{
    char *out = arg;
    strncat(out, row->topic.at, row->topic.len);
    strcat(out, row->carriage == BF_CARRIAGE_BROADCAST ? "!" : ",");
    return 0;
}

static int note_sub(void *arg, const struct bf_subscription *sub)
{
    char *out = arg;
    strncat(out, sub->uid.user.at, sub->uid.user.len);
    strcat(out, "@");
    strncat(out, sub->topic.at, sub->topic.len);
    strcat(out, sub->deny ? "-" : "+");
    return 0;
}

Test(store, topics_and_subscriptions)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_topic_row topic = {.tenant = text("t"),
                                 .topic = text("news"),
                                 .carriage = BF_CARRIAGE_BROADCAST,
                                 .created_ms = NOW},
                        got;
    char out[256] = "";
    bf_batch_put_topic(b, &topic);
    topic.topic = text("a");
    topic.carriage = BF_CARRIAGE_INBOX;
    bf_batch_put_topic(b, &topic);
    topic.tenant = text("");
    topic.topic = text("other");
    bf_batch_put_topic(b, &topic);
    const char *users[] = {"u3", "u1", "u2", "u10"};
    for (int i = 0; i < 4; i++) {
        struct bf_subscription sub = {.uid = uid("t", users[i]),
                                      .topic = text("news"),
                                      .channel_mask = 3,
                                      .deny = i == 2,
                                      .filter_json = text("{}")};
        bf_batch_put_subscription(b, &sub);
    }
    struct bf_subscription sub = {.uid = uid("t", "u1"), .topic = text("new")};
    bf_batch_put_subscription(b, &sub);
    write_batch(b);
    cr_assert_eq(bf_store_get_topic(store, text("t"), text("news"), &got), 0);
    cr_assert(got.carriage == BF_CARRIAGE_BROADCAST && got.created_ms == NOW);
    cr_assert_eq(bf_store_get_topic(store, text(""), text("news"), &got), BF_ERR_NOT_FOUND);
    cr_assert_eq(bf_store_walk_topics(store, text("t"), text(""), note_topic, out), 0);
    cr_assert_str_eq(out, "a,news!");
    out[0] = 0;
    cr_assert_eq(bf_store_walk_topics(store, text("t"), text("a"), note_topic, out), 0);
    cr_assert_str_eq(out, "news!");
    out[0] = 0;
    cr_assert_eq(bf_store_walk_subscribers(store, text("t"), text("news"), text(""), note_sub, out),
                 0);
    cr_assert_str_eq(out, "u1@news+u2@news-u3@news+u10@news+");
    out[0] = 0;
    cr_assert_eq(
        bf_store_walk_subscribers(store, text("t"), text("news"), text("u2"), note_sub, out), 0);
    cr_assert_str_eq(out, "u3@news+u10@news+");
    out[0] = 0;
    cr_assert_eq(bf_store_walk_user_subscriptions(store, uid("t", "u1"), note_sub, out), 0);
    cr_assert_str_eq(out, "u1@new+u1@news+");
    bf_batch_delete_subscription(b, uid("t", "u1"), text("news"));
    write_batch(b);
    out[0] = 0;
    cr_assert_eq(bf_store_walk_user_subscriptions(store, uid("t", "u1"), note_sub, out), 0);
    cr_assert_str_eq(out, "u1@new+");
    bf_batch_destroy(b);
}

/* ---- jobs, broadcasts, dead letters, keys, values, idempotency ---- */

static int note_job(void *arg, const struct bf_job_row *job)
{
    cr_assert_eq(job->targeted, 99);
    cr_assert(bf_bytes_is_equal(job->meta, text("m")));
    cr_assert(bf_bytes_is_equal(job->body, text("{}")));
    cr_assert(bf_bytes_is_equal(job->cursor, text("u77")));
    struct bf_id second = id_of(2);
    cr_assert_eq(job->is_push_only, bf_id_is_equal(&job->id, &second));
    ++*(int *)arg;
    return 0;
}

Test(store, jobs)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_job_row job = {.id = id_of(1),
                             .meta = text("m"),
                             .body = text("{}"),
                             .cursor = text("u77"),
                             .targeted = 99};
    int count = 0;
    bf_batch_put_job(b, &job);
    job.id = id_of(2);
    job.is_push_only = true;
    bf_batch_put_job(b, &job);
    write_batch(b);
    cr_assert_eq(bf_store_walk_jobs(store, note_job, &count), 0);
    cr_assert_eq(count, 2);
    bf_batch_delete_job(b, &job.id);
    write_batch(b);
    count = 0;
    cr_assert_eq(bf_store_walk_jobs(store, note_job, &count), 0);
    cr_assert_eq(count, 1);
    bf_batch_destroy(b);
}

static int note_bcast(void *arg, const struct bf_bcast_row *row)
{
    uint64_t *sum = arg;
    cr_assert(bf_bytes_is_equal(row->fragment, text("f")));
    cr_assert(bf_bytes_is_equal(row->topic, text("news")));
    *sum = *sum * 100 + row->bseq;
    return 0;
}

Test(store, broadcasts)
{
    struct bf_batch *b = bf_batch_create(store);
    uint64_t bseq = 0, sum = 0;
    cr_assert_eq(bf_store_bcast_head(store), 0);
    for (uint64_t n = 3; n <= 9; n += 2) {
        struct bf_bcast_row row = {.bseq = n,
                                   .event_id = id_of(n),
                                   .created_ms = NOW,
                                   .expires_ms = NOW + 1,
                                   .tenant = text("t"),
                                   .topic = text("news"),
                                   .fragment = text("f")};
        bf_batch_put_bcast(b, &row);
    }
    cr_assert_eq(bf_store_bcast_head(store), 0, "not before it is written");
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(bf_store_bcast_head(store), 9);
    reopen();
    cr_assert_eq(bf_store_bcast_head(store), 9);
    struct bf_id id = id_of(5), other = id_of(6);
    cr_assert(bf_store_find_bcast(store, &id, &bseq) && bseq == 5);
    cr_assert(!bf_store_find_bcast(store, &other, &bseq));
    cr_assert_eq(bf_store_walk_bcast(store, 3, 8, note_bcast, &sum), 0);
    cr_assert_eq(sum, 507, "from is left out, to is in");
}

static int note_dlq(void *arg, const struct bf_dlq_row *row)
{
    uint64_t *sum = arg;
    cr_assert(bf_bytes_is_equal(row->reason, text("stale: too old")));
    cr_assert(bf_bytes_is_equal(row->body, text("{}")));
    *sum = *sum * 10 + row->at_ms;
    return 0;
}

Test(store, dead_letters)
{
    struct bf_batch *b = bf_batch_create(store);
    uint64_t sum = 0;
    for (uint64_t n = 1; n <= 4; n++) {
        struct bf_dlq_row row = {.at_ms = n,
                                 .event_id = id_of(n),
                                 .channel = n == 4 ? 255 : 2,
                                 .reason = text("stale: too old"),
                                 .body = text("{}")};
        bf_batch_put_dlq(b, &row);
    }
    cr_assert_eq(bf_store_dlq_depth(store, 2), 0);
    write_batch(b);
    cr_assert_eq(bf_store_dlq_depth(store, 2), 3);
    cr_assert_eq(bf_store_dlq_depth(store, 255), 1);
    struct bf_dlq_row again = {.at_ms = 2,
                               .event_id = id_of(2),
                               .channel = 2,
                               .reason = text("stale: too old"),
                               .body = text("{}")};
    bf_batch_put_dlq(b, &again);
    write_batch(b);
    cr_assert_eq(bf_store_dlq_depth(store, 2), 3, "the same letter counts once");
    cr_assert_eq(bf_store_walk_dlq(store, 2, 2, note_dlq, &sum), 0);
    cr_assert_eq(sum, 23);
    struct bf_id id = id_of(2);
    bf_batch_delete_dlq(b, 2, 2, &id);
    bf_batch_delete_dlq(b, 2, 77, &id);
    write_batch(b);
    cr_assert_eq(bf_store_dlq_depth(store, 2), 2);
    bf_batch_destroy(b);
    reopen();
    cr_assert_eq(bf_store_dlq_depth(store, 2), 2);
    cr_assert_eq(bf_store_dlq_depth(store, 3), 0);
}

/* Status and metrics must agree with the list: a letter counts once, however often one batch names
 * it. */
Test(store, a_letter_twice_in_one_batch_counts_once)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_dlq_row row = {.at_ms = 5,
                             .event_id = id_of(5),
                             .channel = 2,
                             .reason = text("stale: too old"),
                             .body = text("{}")};
    bf_batch_put_dlq(b, &row);
    bf_batch_put_dlq(b, &row);
    write_batch(b);
    cr_assert_eq(bf_store_dlq_depth(store, 2), 1);
    bf_batch_delete_letter(b, &row);
    bf_batch_delete_letter(b, &row);
    write_batch(b);
    cr_assert_eq(bf_store_dlq_depth(store, 2), 0);
    bf_batch_put_dlq(b, &row);
    bf_batch_delete_letter(b, &row);
    write_batch(b);
    cr_assert_eq(bf_store_dlq_depth(store, 2), 0);
    struct bf_batch *other = bf_batch_create(store); /* of another shard, at the same time */
    bf_batch_put_dlq(b, &row);
    bf_batch_put_dlq(other, &row);
    write_batch(b);
    write_batch(other);
    cr_assert_eq(bf_store_dlq_depth(store, 2), 1);
    bf_batch_put_dlq(b, &row);
    bf_batch_clear(b);
    write_batch(b);
    cr_assert_eq(bf_store_dlq_depth(store, 2), 1, "what is not written does not count");
    bf_batch_destroy(b);
    bf_batch_destroy(other);
    reopen();
    cr_assert_eq(bf_store_dlq_depth(store, 2), 1);
}

struct letters {
    uint32_t count;
    struct bf_dlq_row rows[4];
};

static int keep_letter(void *arg, const struct bf_dlq_row *row)
{
    struct letters *l = arg;
    l->rows[l->count++] = *row;
    return 0;
}

Test(store, an_event_has_a_dead_letter_for_each_push)
{
    struct bf_batch *b = bf_batch_create(store);
    struct letters l = {0};
    struct bf_dlq_row row = {
        .at_ms = 7, .event_id = id_of(1), .channel = 1, .reason = text("Bad: x")};
    const char *const bodies[] = {"{\"device_id\":1}", "{\"device_id\":2}"};
    for (int i = 0; i < 2; i++) {
        row.body = text(bodies[i]);
        bf_batch_put_dlq(b, &row);
    }
    write_batch(b);
    cr_assert_eq(bf_store_dlq_depth(store, 1), 2, "the same event in the same millisecond");
    cr_assert_eq(bf_store_walk_dlq(store, 1, 0, keep_letter, &l), 0);
    cr_assert_eq(l.count, 2);
    cr_assert_neq(l.rows[0].tag, l.rows[1].tag);
    bf_batch_delete_letter(b, &l.rows[0]);
    write_batch(b);
    uint64_t left = l.rows[1].tag;
    l.count = 0;
    cr_assert_eq(bf_store_walk_dlq(store, 1, 0, keep_letter, &l), 0);
    cr_assert_eq(l.count, 1);
    cr_assert_eq(l.rows[0].tag, left);
    bf_batch_destroy(b);
    reopen();
    cr_assert_eq(bf_store_dlq_depth(store, 1), 1);
}

static int note_key(void *arg, const struct bf_api_key_row *row)
{
    *(struct bf_api_key_row *)arg = *row;
    return 0;
}

Test(store, api_keys)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_api_key_row row = {.hash = {1, 2, 3},
                                 .id = "k1",
                                 .tenant = "t",
                                 .name = "n",
                                 .scopes = 5,
                                 .rate_per_min = UINT32_MAX,
                                 .created_ms = NOW},
                          got, walked = {0};
    uint8_t other[32] = {9};
    bf_batch_put_api_key(b, &row);
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(bf_store_get_api_key(store, row.hash, &got), 0);
    cr_assert_str_eq(got.id, "k1");
    cr_assert_str_eq(got.tenant, "t");
    cr_assert_str_eq(got.name, "n");
    cr_assert(got.scopes == 5 && got.rate_per_min == UINT32_MAX && got.created_ms == NOW);
    cr_assert_arr_eq(got.hash, row.hash, 32);
    cr_assert_eq(bf_store_get_api_key(store, other, &got), BF_ERR_NOT_FOUND);
    cr_assert_eq(bf_store_walk_api_keys(store, note_key, &walked), 0);
    cr_assert_str_eq(walked.id, "k1");
}

/* A row as releases wrote it that knew no end of a key. */
static void put_former_key(struct bf_batch *b, const uint8_t hash[32])
{
    struct bf_key key;
    bf_key_begin(&key, BF_T_API_KEY);
    bf_key_raw(&key, hash, 32);
    struct bf_writer w = bf_batch_value(b, 128);
    bf_put_u32(&w, 3);
    bf_put_u32(&w, 60);
    bf_put_u64(&w, NOW);
    bf_put_str16(&w, text("old"));
    bf_put_str16(&w, text("acme"));
    bf_put_str16(&w, text("shop"));
    bf_batch_put(b, &key, &w);
}

Test(store, api_keys_end)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_api_key_row got, row = {.hash = {7}, .id = "k2", .name = "n", .scopes = 1};
    uint8_t former[32] = {8};
    put_former_key(b, former);
    row.expires_ms = NOW + 5;
    row.revoked_ms = NOW + 3;
    snprintf(row.replaced_by, sizeof(row.replaced_by), "k3");
    bf_batch_put_api_key(b, &row);
    bf_batch_put_api_key_use(b, "k2", NOW + 2);
    write_batch(b);
    cr_assert_eq(bf_store_get_api_key(store, former, &got), 0);
    cr_assert(got.scopes == 3 && got.rate_per_min == 60 && got.created_ms == NOW);
    cr_assert_str_eq(got.tenant, "acme");
    cr_assert_eq(bf_api_key_end(&got), UINT64_MAX);
    cr_assert_eq(bf_api_key_taken_until(&got), UINT64_MAX);
    cr_assert_eq(bf_store_get_api_key_use(store, "old"), 0);
    cr_assert_eq(bf_store_get_api_key(store, row.hash, &got), 0);
    cr_assert(got.expires_ms == NOW + 5 && got.revoked_ms == NOW + 3);
    cr_assert_str_eq(got.replaced_by, "k3");
    cr_assert_eq(bf_api_key_end(&got), NOW + 3);
    cr_assert_lt(bf_api_key_taken_until(&got), NOW, "also where the clock was set back since");
    cr_assert_eq(bf_store_get_api_key_use(store, "k2"), NOW + 2);
    bf_batch_delete_api_key(b, &row);
    write_batch(b);
    cr_assert_eq(bf_store_get_api_key(store, row.hash, &got), BF_ERR_NOT_FOUND);
    cr_assert_eq(bf_store_get_api_key_use(store, "k2"), 0);
    bf_batch_destroy(b);
}

Test(store, values)
{
    struct bf_batch *b = bf_batch_create(store);
    uint8_t out[8];
    size_t len = 99;
    bf_batch_put_value(b, text("cursor.0"), text("12345678"));
    bf_batch_put_value(b, text("empty"), text(""));
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(bf_store_get_value(store, text("cursor.0"), out, sizeof(out), &len), 0);
    cr_assert(len == 8 && memcmp(out, "12345678", 8) == 0);
    cr_assert_eq(bf_store_get_value(store, text("cursor.0"), out, 7, &len), BF_ERR_TOO_LARGE);
    cr_assert_eq(bf_store_get_value(store, text("empty"), out, sizeof(out), &len), 0);
    cr_assert_eq(len, 0);
    cr_assert_eq(bf_store_get_value(store, text("cursor.1"), out, 8, &len), BF_ERR_NOT_FOUND);
}

static int note_idem(void *arg, const struct bf_idem_row *row)
{
    cr_assert_eq(row->status, 202);
    cr_assert_eq(row->body_hash[15], 7);
    cr_assert(bf_bytes_is_equal(row->answer, text("{\"id\":1}")));
    return 1 + *(int *)arg;
}

Test(store, idempotency_rows)
{
    struct bf_batch *b = bf_batch_create(store);
    char long_key[900];
    int one = 1;
    memset(long_key, 'k', sizeof(long_key));
    struct bf_idem_row row = {.key = text("t\0k"),
                              .body_hash = {[15] = 7},
                              .expires_ms = NOW + 5,
                              .status = 202,
                              .answer = text("{\"id\":1}")};
    bf_batch_put_idem(b, &row);
    row.key = (struct bf_bytes){long_key, sizeof(long_key)};
    bf_batch_put_idem(b, &row);
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(bf_store_get_idem(store, text("t\0k"), NOW, note_idem, &one), 2);
    cr_assert_eq(bf_store_get_idem(store, row.key, NOW, note_idem, &one), 2);
    cr_assert_eq(bf_store_get_idem(store, text("t\0k"), NOW + 5, note_idem, &one), BF_ERR_NOT_FOUND,
                 "expired");
    cr_assert_eq(bf_store_get_idem(store, text("other"), NOW, note_idem, &one), BF_ERR_NOT_FOUND);
}

/* ---- erasure ---- */

static int count_outcome(void *arg, const struct bf_outcome *o)
{
    (void)o;
    ++*(int *)arg;
    return 0;
}

static int recipients_left(void *arg, const struct bf_event_row *row)
{
    *(uint32_t *)arg = row->recipient_count;
    return 0;
}

/* The event of one recipient lies in its message's id row: found by either id, erased with it. */
Test(store, sole_event_in_the_id_row)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_bytes ann[] = {text("ann")};
    struct bf_event_row row = event_of(77, ann, 1);
    struct bf_item item = item_of(1, BF_LANE_NORMAL, 9, "x");
    struct bf_id other = row.event_id;
    enum bf_lane lane;
    uint64_t seq;
    uint32_t left = 0;
    memcpy(item.id.bytes, row.event_id.bytes, BF_MESSAGE_PREFIX_BYTES);
    bf_batch_put_item(b, uid("t", "ann"), &item, &row);
    write_batch(b);
    cr_assert_eq(bf_store_get_event_row(store, &row.event_id, check_event, &row), 5);
    cr_assert(bf_store_find_message(store, uid("t", "ann"), &item.id, &lane, &seq));
    cr_assert_eq(seq, 9);
    other.bytes[15] ^= 1; /* same prefix, another event */
    cr_assert_eq(bf_store_get_event_row(store, &other, recipients_left, &left), BF_ERR_NOT_FOUND);
    cr_assert_eq(bf_batch_erase_user(b, uid("t", "ann"), NOW + 100, text("api")), 0);
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(bf_store_get_event_row(store, &row.event_id, recipients_left, &left),
                 BF_ERR_NOT_FOUND);
}

Test(store, erasure_leaves_nothing)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_uid ann = uid("t", "ann"), bob = uid("t", "bob");
    struct bf_bytes both[] = {text("ann"), text("bob")};
    struct bf_user_state state = {.head = {1, 1, 1}};
    put_items(ann, BF_LANE_NORMAL, 1, 20, 0);
    put_items(bob, BF_LANE_NORMAL, 1, 20, 500);
    bf_batch_put_user(b, ann, text("{}"));
    bf_batch_put_prefs(b, ann, text("{}"));
    bf_batch_put_state(b, ann, &state, WALL, true);
    bf_batch_put_ack(b, ann, BF_LANE_NORMAL, 1, 2);
    bf_batch_put_user(b, bob, text("{}"));
    struct bf_event_row alone = event_of(1000001, both, 1), shared = event_of(1000002, both, 2);
    bf_batch_put_event_row(b, &alone);
    bf_batch_put_event_row(b, &shared);
    put_outcome(b, 1000002, ann, 1, 1);
    put_outcome(b, 1000002, bob, 1, 1);
    struct bf_subscription sub = {.uid = ann, .topic = text("news")};
    bf_batch_put_subscription(b, &sub);
    sub.uid = bob;
    bf_batch_put_subscription(b, &sub);
    write_batch(b);
    cr_assert_eq(bf_batch_erase_user(b, ann, NOW + 100, text("api")), 0);
    write_batch(b);
    bf_batch_destroy(b);
    reopen();

    struct walked w = {0};
    enum bf_lane lane;
    uint64_t seq;
    struct listed l = {0};
    char out[64] = "";
    int outcomes = 0;
    uint32_t left = 99;
    cr_assert_eq(bf_store_walk_users(store, note_user, &w), 0);
    cr_assert_eq(w.count, 1);
    cr_assert_str_eq(w.names[0], "t/bob");
    for (uint64_t n = 1; n <= 20; n++) {
        struct bf_id id = id_of(n);
        cr_assert(!bf_store_find_message(store, ann, &id, &lane, &seq));
        id = id_of(500 + n);
        cr_assert(bf_store_find_message(store, bob, &id, &lane, &seq));
    }
    cr_assert_eq(bf_store_walk_lane(store, ann, BF_LANE_NORMAL, 0, 100, NOW, note_item, &l), 0);
    cr_assert_eq(l.count, 0);
    cr_assert(!bf_store_is_acked(
        store, ann, &(struct bf_user_state){.ack_to = {9, 9, 9}, .ack_from = {8, 8, 8}},
        BF_LANE_NORMAL, 2));
    cr_assert_eq(bf_store_walk_subscribers(store, text("t"), text("news"), text(""), note_sub, out),
                 0);
    cr_assert_str_eq(out, "bob@news+");
    cr_assert_eq(bf_store_walk_outcomes(store, &shared.event_id, count_outcome, &outcomes), 0);
    cr_assert_eq(outcomes, 1);
    cr_assert_eq(bf_store_get_event_row(store, &alone.event_id, recipients_left, &left),
                 BF_ERR_NOT_FOUND);
    cr_assert_eq(bf_store_get_event_row(store, &shared.event_id, recipients_left, &left), 0);
    cr_assert_eq(left, 1, "the erased recipient is not named any more");
}

#ifdef STORE_ON_ROCKS
/* ---- expiry, epoch, damage ---- */

Test(store, compaction_drops_expired_rows)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_item item = item_of(1, BF_LANE_NORMAL, 1, "x");
    struct bf_item_copy copy;
    struct bf_id id = id_of(1);
    enum bf_lane lane;
    uint64_t seq;
    item.expires_ms = NOW; /* long ago */
    bf_batch_put_item(b, uid("", "u"), &item, NULL);
    item = item_of(2, BF_LANE_NORMAL, 2, "x");
    item.expires_ms = 0; /* never */
    bf_batch_put_item(b, uid("", "u"), &item, NULL);
    item = item_of(3, BF_LANE_NORMAL, 3, "x");
    item.expires_ms = UINT64_MAX;
    bf_batch_put_item(b, uid("", "u"), &item, NULL);
    bf_batch_put_ack(b, uid("", "u"), BF_LANE_NORMAL, 0, 1); /* a table without expiry */
    struct bf_id ended = id_of(4), fresh = id_of(5);
    bf_batch_put_leg_done(b, &ended, NOW);
    bf_batch_put_leg_done(b, &fresh, UINT64_MAX);
    write_batch(b);
    bf_batch_destroy(b);
    const struct bf_rocks *rocks = &bf_rocks_of(store->engine)->rocks;
    for (int family = 0; family < BF_FAMILY_COUNT; family++)
        rocksdb_compact_range_cf(rocks->db, rocks->cfs[family], NULL, 0, NULL, 0);
    cr_assert_eq(bf_store_get_item(store, uid("", "u"), BF_LANE_NORMAL, 1, &copy),
                 BF_ERR_NOT_FOUND);
    cr_assert(!bf_store_find_message(store, uid("", "u"), &id, &lane, &seq));
    for (uint64_t n = 2; n <= 3; n++) {
        cr_assert_eq(bf_store_get_item(store, uid("", "u"), BF_LANE_NORMAL, n, &copy), 0);
        bf_item_free(&copy);
    }
    cr_assert(bf_store_is_acked(store, uid("", "u"),
                                &(struct bf_user_state){.ack_to = {9, 9, 9}, .ack_from = {8, 8, 8}},
                                BF_LANE_NORMAL, 1));
    cr_assert(!bf_store_is_leg_done(store, &ended));
    cr_assert(bf_store_is_leg_done(store, &fresh));
}

static void put_epoch_row(const char *boot_id, bool clean)
{
    struct bf_key key;
    struct bf_batch *b = bf_batch_create(store);
    bf_key_begin(&key, BF_T_META);
    bf_key_raw(&key, "epoch", 5);
    struct bf_writer w = bf_batch_value(b, 64);
    bf_put_u64(&w, 0xabcdef);
    bf_put_u32(&w, 6);
    bf_put_u8(&w, clean);
    bf_put_raw(&w, boot_id, 36);
    bf_batch_put(b, &key, &w);
    write_batch(b);
    bf_batch_destroy(b);
}

/* Reopens as if the process had died: the clean mark is not written over our row. */
static void reopen_dirty(void)
{
    store->engine->ops->close(store->engine, false);
    free(store);
    store_open();
}

Test(store, epoch_rules)
{
    char first[40], path[300];
    snprintf(first, sizeof(first), "%s", bf_store_epoch(store));
    cr_assert_eq(strlen(first), 18, "%s", first);
    reopen();
    cr_assert_str_eq(bf_store_epoch(store), first, "clean restart");
    reopen_dirty();
    cr_assert_str_eq(bf_store_epoch(store), first, "killed, same boot");
    put_epoch_row("00000000-0000-0000-0000-000000000000", true);
    reopen_dirty();
    cr_assert_str_eq(bf_store_epoch(store), "0000000000abcdef-6", "clean before the reboot");
    put_epoch_row("00000000-0000-0000-0000-000000000000", false);
    reopen_dirty();
    cr_assert_str_eq(bf_store_epoch(store), "0000000000abcdef-7", "not clean before the reboot");
    snprintf(path, sizeof(path), "%s/RESTORED", dir);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    reopen();
    cr_assert_str_eq(bf_store_epoch(store), "0000000000abcdef-8", "restored");
    cr_assert(access(path, F_OK) != 0);
    reopen();
    cr_assert_str_eq(bf_store_epoch(store), "0000000000abcdef-8");
}

Test(store, corrupt_records_are_skipped_by_name)
{
    struct bf_key key;
    struct bf_batch *b = bf_batch_create(store);
    struct bf_user_state state;
    struct listed l = {0};
    put_items(uid("", "u"), BF_LANE_NORMAL, 1, 3, 0);
    bf_key_item(&key, uid("", "u"), BF_LANE_NORMAL, 2);
    struct bf_writer w = bf_batch_expiring_value(b, 0, 8);
    bf_put_u32(&w, 1); /* a record cut short */
    bf_batch_put(b, &key, &w);
    bf_key_uid(&key, BF_T_STATE, uid("", "u"));
    w = bf_batch_value(b, 4);
    w.buf[0] = 77; /* a format of another release */
    bf_batch_put(b, &key, &w);
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(bf_store_walk_lane(store, uid("", "u"), BF_LANE_NORMAL, 0, 9, NOW, note_item, &l),
                 0);
    cr_assert(l.count == 2 && l.seqs[1] == 3);
    cr_assert_eq(bf_store_get_state(store, uid("", "u"), &state), BF_ERR_CORRUPT);
    struct walked walk = {0};
    cr_assert_eq(bf_store_walk_users(store, note_user, &walk), 0);
    cr_assert_eq(walk.count, 0);
}

Test(store, disk_is_reported)
{
    uint64_t free_bytes = 0, size = 0;
    cr_assert_eq(bf_store_disk(store, &free_bytes, &size), 0);
    cr_assert(free_bytes > 0 && size >= free_bytes);
}

#endif /* what an engine does in its own way */

Test(store, empty_batches)
{
    struct bf_batch *b = bf_batch_create(store);
    cr_assert_eq(bf_batch_write(b, false), 0);
    cr_assert_eq(bf_batch_write(b, true), 0);
    bf_batch_put_user(b, uid("", "u"), text("{}"));
    bf_batch_clear(b);
    cr_assert_eq(bf_batch_write(b, true), 0);
    cr_assert(!bf_store_has_user(store, uid("", "u")));
    bf_batch_destroy(b);
    bf_batch_destroy(NULL);
}

Test(store, failure_is_for_good)
{
    struct bf_batch *b = bf_batch_create(store);
    atomic_store(&store->engine->is_failed, true);
    bf_batch_put_user(b, uid("", "u"), text("{}"));
    cr_assert_eq(bf_batch_write(b, false), BF_ERR_STORE);
    cr_assert_eq(bf_store_sync(store), BF_ERR_STORE);
    atomic_store(&store->engine->is_failed, false);
    bf_batch_destroy(b);
}

Test(store, the_filter_never_hides_a_known_message)
{
    enum bf_lane lane;
    uint64_t seq;
    put_items(uid("", "u"), BF_LANE_NORMAL, 1, 2000, 0);
    for (int round = 0; round < 2; round++) {
        for (uint64_t i = 1; i <= 2000; i++) {
            struct bf_item_copy copy;
            cr_assert_eq(bf_store_get_item(store, uid("", "u"), BF_LANE_NORMAL, i, &copy), 0);
            cr_assert(bf_store_find_message(store, uid("", "u"), &copy.item.id, &lane, &seq));
            cr_assert_eq(seq, i);
            copy.item.id.bytes[3] ^= 0x55;
            cr_assert(!bf_store_find_message(store, uid("", "u"), &copy.item.id, &lane, &seq));
            bf_item_free(&copy);
        }
        reopen(); /* the second round finds them by the scan, or before it, by the rows */
    }
}

/* Before the walk over them has ended, and after it; whatever is put and erased meanwhile. */
Test(store, known_users_follow_the_rows)
{
    enum { USERS = 3000 };
    struct bf_batch *b = bf_batch_create(store);
    char names[USERS][24];
    struct bf_bytes users[USERS];
    bool have[USERS];
    for (int i = 0; i < USERS; i++) {
        snprintf(names[i], sizeof(names[i]), "user-%d", i);
        users[i] = text(names[i]);
        bf_batch_put_user(b, uid(i % 2 ? "acme" : "", names[i]), text("{}"));
    }
    write_batch(b);
    bf_batch_destroy(b);
    for (int round = 0; round < 3; round++) {
        reopen();
        b = bf_batch_create(store);
        for (int i = round; i < USERS; i += 10) {
            cr_assert_eq(bf_batch_erase_user(b, uid(i % 2 ? "acme" : "", names[i]), NOW, text("x")),
                         0);
            write_batch(b);
        }
        bf_batch_put_user(b, uid("acme", names[1]), text("{}")); /* is back, or was never away */
        write_batch(b);
        bf_batch_destroy(b);
        bf_store_have_users(store, text("acme"), users, USERS, have);
        for (int i = 0; i < USERS; i++) {
            bool is_erased = i % 10 <= round && i != 1;
            cr_assert_eq(bf_store_has_user(store, uid(i % 2 ? "acme" : "", names[i])), !is_erased,
                         "user %d in round %d", i, round);
            cr_assert_not(bf_store_has_user(store, uid(i % 2 ? "" : "acme", names[i])));
            cr_assert_eq(have[i], i % 2 && !is_erased);
        }
    }
}
