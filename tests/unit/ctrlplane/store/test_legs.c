/*
 * Devices and the queue on a real RocksDB: a token has one holder; what is due comes in order;
 * replaced, cancelled and erased rows leave nothing behind; all of it survives reopening.
 */
#include "store_fixture.h"

#include <unistd.h>

#include "channels/table/channels.h"
#include "store/devices.h"
#include "store/legs.h"
#include "store/store_impl.h"

TestSuite(legs, .init = setup, .fini = teardown, .timeout = 120);

#define NOW UINT64_C(1700000000000)

/* ---- devices ---- */

static struct bf_device_row device_of(const char *user, uint64_t n, uint8_t token)
{
    struct bf_device_row row = {
        .uid = uid("t", user),
        .id = id_of(n),
        .kind = 1,
        .platform = 2,
        .created_ms = NOW,
        .registered_ms = NOW + 1,
        .seen_ms = NOW + 2,
        .app = text("app"),
        .locale = text("de-AT"),
        .name = text("phone"),
        .sealed = text("sealed bytes"),
    };
    memset(row.token_hash, token, sizeof(row.token_hash));
    return row;
}

static void put_device(struct bf_device_row row)
{
    struct bf_batch *b = bf_batch_create(store);
    bf_batch_put_device(b, &row);
    write_batch(b);
    bf_batch_destroy(b);
}

struct devices {
    int count;
    struct bf_device_row rows[40];
    char reason[40][40];
};

static int keep_device(void *arg, const struct bf_device_row *row)
{
    struct devices *d = arg;
    d->rows[d->count] = *row;
    snprintf(d->reason[d->count], 40, "%.*s", (int)row->reason.len,
             row->reason.at ? row->reason.at : "");
    cr_expect(bf_bytes_is_equal(row->sealed, text("sealed bytes")));
    cr_expect(bf_bytes_is_equal(row->locale, text("de-AT")));
    d->count++;
    return 0;
}

static struct devices devices_of(const char *user)
{
    struct devices d = {0};
    cr_assert_eq(bf_store_walk_devices(store, uid("t", user), keep_device, &d), 0);
    return d;
}

static int holder(uint8_t token, struct devices *d)
{
    uint8_t hash[16];
    memset(hash, token, sizeof(hash));
    *d = (struct devices){0};
    return bf_store_find_device(store, hash, keep_device, d);
}

Test(legs, devices_come_back)
{
    struct devices d;
    put_device(device_of("ann", 1, 0xaa));
    put_device(device_of("ann", 2, 0xbb));
    put_device(device_of("bob", 1, 0xcc));
    reopen();
    cr_assert_eq(devices_of("ann").count, 2);
    cr_assert_eq(devices_of("bob").count, 1);
    cr_assert_eq(devices_of("an").count, 0);
    cr_assert_eq(holder(0xbb, &d), 0);
    cr_assert(bf_id_is_equal(&d.rows[0].id, &(struct bf_id){0}) == false);
    struct bf_id two = id_of(2);
    cr_assert(bf_id_is_equal(&d.rows[0].id, &two));
    cr_assert_eq(d.rows[0].kind, 1);
    cr_assert_eq(d.rows[0].platform, 2);
    cr_assert_eq(d.rows[0].registered_ms, NOW + 1);
    cr_assert_eq(d.rows[0].seen_ms, NOW + 2);
    cr_assert_eq(holder(0xdd, &d), BF_ERR_NOT_FOUND);
}

Test(legs, a_token_has_one_holder)
{
    struct devices d;
    put_device(device_of("ann", 1, 0xaa));
    put_device(device_of("ann", 1, 0xbb)); /* refreshed: the old token is nobody's */
    cr_assert_eq(holder(0xaa, &d), BF_ERR_NOT_FOUND);
    cr_assert_eq(holder(0xbb, &d), 0);
    cr_assert_eq(devices_of("ann").count, 1);
    put_device(device_of("bob", 7, 0xbb)); /* the phone has changed hands */
    cr_assert_eq(devices_of("ann").count, 0);
    cr_assert_eq(devices_of("bob").count, 1);
    put_device(device_of("bob", 8, 0xbb)); /* the same person, under another name */
    cr_assert_eq(devices_of("bob").count, 1);
    struct bf_id eight = id_of(8);
    cr_assert(bf_id_is_equal(&devices_of("bob").rows[0].id, &eight));
    put_device(device_of("bob", 8, 0xbb)); /* again: nothing changes */
    cr_assert_eq(holder(0xbb, &d), 0);
}

Test(legs, devices_deleted_and_erased)
{
    struct devices d;
    struct bf_batch *b = bf_batch_create(store);
    struct bf_id one = id_of(1);
    put_device(device_of("ann", 1, 0xaa));
    put_device(device_of("ann", 2, 0xbb));
    put_device(device_of("bob", 1, 0xcc));
    cr_assert_eq(bf_batch_delete_device(b, uid("t", "ann"), &one), 0);
    write_batch(b);
    cr_assert_eq(holder(0xaa, &d), BF_ERR_NOT_FOUND);
    cr_assert_eq(bf_batch_delete_device(b, uid("t", "ann"), &one), BF_ERR_NOT_FOUND);
    cr_assert_eq(bf_batch_erase_user(b, uid("t", "ann"), NOW, text("test")), 0);
    write_batch(b);
    bf_batch_destroy(b);
    reopen();
    cr_assert_eq(devices_of("ann").count, 0);
    cr_assert_eq(holder(0xbb, &d), BF_ERR_NOT_FOUND);
    cr_assert_eq(devices_of("bob").count, 1);
}

static int mark_dead(uint8_t token, uint64_t at, const char *reason)
{
    struct bf_batch *b = bf_batch_create(store);
    uint8_t hash[16];
    struct bf_id one = id_of(1);
    memset(hash, token, sizeof(hash));
    int rc = bf_batch_mark_device_dead(b, uid("t", "ann"), &one, hash, at, text(reason));
    write_batch(b);
    bf_batch_destroy(b);
    return rc;
}

Test(legs, dead_tokens)
{
    put_device(device_of("ann", 1, 0xaa));
    cr_assert_eq(mark_dead(0xbb, NOW, "Unregistered"), BF_ERR_NOT_FOUND, "another token by now");
    cr_assert_eq(devices_of("ann").rows[0].state, BF_DEVICE_LIVE);
    cr_assert_eq(mark_dead(0xaa, NOW + 9, "Unregistered"), 0);
    struct devices d = devices_of("ann");
    cr_assert_eq(d.rows[0].state, BF_DEVICE_DEAD);
    cr_assert_eq(d.rows[0].dead_ms, NOW + 9);
    cr_assert_str_eq(d.reason[0], "Unregistered");
    cr_assert_eq(mark_dead(0xaa, NOW + 99, "again"), 0);
    cr_assert_eq(devices_of("ann").rows[0].dead_ms, NOW + 9, "dead once");
    put_device(device_of("ann", 1, 0xaa));
    cr_assert_eq(devices_of("ann").rows[0].state, BF_DEVICE_LIVE, "the app says it has it");
}

Test(legs, device_encoding)
{
    uint8_t bytes[BF_DEVICE_ROW_BYTES_MAX];
    struct bf_device_row row = device_of("ann", 5, 0x77), got;
    size_t len = bf_device_encode(&row, bytes);
    cr_assert(bf_device_decode((struct bf_bytes){(char *)bytes, len}, &got));
    cr_assert(bf_id_is_equal(&got.id, &row.id));
    cr_assert(bf_bytes_is_equal(got.name, text("phone")));
    for (size_t n = 0; n < len; n++)
        cr_assert_not(bf_device_decode((struct bf_bytes){(char *)bytes, n}, &got), "cut at %zu", n);
}

struct names {
    char text[256];
    int stop_after;
};

static int note_name(void *arg, struct bf_bytes user)
{
    struct names *names = arg;
    size_t len = strlen(names->text);
    snprintf(names->text + len, sizeof(names->text) - len, "%.*s ", (int)user.len, user.at);
    return --names->stop_after == 0;
}

/* Each person of the tenant once, however many devices; a walk goes on after where it ended. */
Test(legs, people_with_devices)
{
    const char *const users[] = {"ann", "ann", "bob", "christopher", "cy", "ann"};
    struct names all = {.stop_after = 100}, part = {.stop_after = 2}, rest = {.stop_after = 100};
    for (uint8_t i = 0; i < 6; i++) {
        struct bf_device_row row = device_of(users[i], 1000u + i, i);
        put_device(row);
    }
    struct bf_device_row other = device_of("zoe", 2000, 77);
    other.uid = uid("elsewhere", "zoe");
    put_device(other);
    cr_assert_eq(bf_store_walk_device_users(store, text("t"), text(""), note_name, &all), 0);
    cr_assert_str_eq(all.text, "cy ann bob christopher ", "by length, then by name");
    cr_assert_eq(bf_store_walk_device_users(store, text("t"), text(""), note_name, &part), 1);
    cr_assert_str_eq(part.text, "cy ann ");
    cr_assert_eq(bf_store_walk_device_users(store, text("t"), text("ann"), note_name, &rest), 0);
    cr_assert_str_eq(rest.text, "bob christopher ");
}

/* ---- the queue ---- */

static struct bf_leg_row row_of(uint64_t n, const char *user, enum bf_lane lane, uint64_t due)
{
    return (struct bf_leg_row){
        .partition = 1,
        .lane = lane,
        .not_before_ms = due,
        .channel = BF_CHANNEL_PUSH,
        .message_id = id_of(n),
        .uid = uid("", user),
        .event_id = id_of(n / 10),
        .endpoint_id = id_of(99),
        .created_ms = NOW,
        .expires_ms = NOW + 100000,
        .attempts = 3,
        .flags = BF_LEG_MAY_BE_OUT,
        .type = text("order.shipped"),
        .category = text("orders"),
        .topic = text("shop"),
        .meta = text("meta"),
        .fragment = text("\"title\":\"x\""),
        .overrides = text(""),
        .reason = text("http_503"),
    };
}

static void put_push(struct bf_leg_row row)
{
    struct bf_batch *b = bf_batch_create(store);
    bf_batch_put_leg(b, &row);
    write_batch(b);
    bf_batch_destroy(b);
}

static void delete_push(struct bf_leg_row row)
{
    struct bf_batch *b = bf_batch_create(store);
    bf_batch_delete_leg(b, &row);
    write_batch(b);
    bf_batch_destroy(b);
}

struct queue {
    int count, stop_at;
    uint64_t due[64];
    struct bf_id ids[64];
};

static int keep_push(void *arg, const struct bf_leg_row *row)
{
    struct queue *q = arg;
    cr_expect(bf_bytes_is_equal(row->fragment, text("\"title\":\"x\"")));
    cr_expect(bf_bytes_is_equal(row->meta, text("meta")));
    cr_expect(bf_bytes_is_equal(row->reason, text("http_503")));
    cr_expect_eq(row->overrides.len, 0);
    cr_expect_eq(row->attempts, 3);
    cr_expect_eq(row->channel, BF_CHANNEL_PUSH);
    cr_expect_eq(row->kind, BF_LEG_SEND);
    cr_expect_eq(row->flags, BF_LEG_MAY_BE_OUT);
    cr_expect(bf_bytes_is_equal(row->type, text("order.shipped")));
    cr_expect(bf_bytes_is_equal(row->category, text("orders")));
    cr_expect(bf_bytes_is_equal(row->topic, text("shop")));
    cr_expect_eq(row->created_ms, NOW);
    cr_expect_eq(row->expires_ms, NOW + 100000);
    q->due[q->count] = row->not_before_ms;
    q->ids[q->count++] = row->message_id;
    return q->count == q->stop_at ? 42 : 0;
}

static struct queue due(uint8_t partition, enum bf_lane lane, uint64_t from, uint64_t until)
{
    struct queue q = {0};
    uint64_t next;
    cr_assert_eq(bf_store_walk_due(store, partition, lane, from, until, keep_push, &q, &next), 0);
    return q;
}

static int rows_below(uint8_t table)
{
    struct bf_key prefix;
    struct bf_scan scan;
    int n = 0;
    bf_key_begin(&prefix, (enum bf_table)table);
    bf_scan_open(&scan, store, &prefix, NULL, 0);
    while (bf_scan_next(&scan))
        n++;
    cr_assert_eq(bf_scan_close(&scan), 0);
    return n;
}

/* Counting goes on after the opening. */
static uint64_t counted(enum bf_lane lane, uint64_t wanted)
{
    for (int i = 0; i < 10000 && bf_store_leg_depth(store, BF_CHANNEL_PUSH, lane) != wanted; i++)
        usleep(1000);
    return bf_store_leg_depth(store, BF_CHANNEL_PUSH, lane);
}

Test(legs, due_in_order)
{
    struct queue q = {.stop_at = 2};
    put_push(row_of(10, "ann", BF_LANE_NORMAL, NOW + 300));
    put_push(row_of(20, "bob", BF_LANE_NORMAL, NOW + 100));
    put_push(row_of(30, "cid", BF_LANE_NORMAL, NOW + 200));
    put_push(row_of(40, "dan", BF_LANE_BULK, NOW));
    reopen();
    cr_assert_eq(due(1, BF_LANE_NORMAL, 0, NOW + 99).count, 0);
    cr_assert_eq(due(1, BF_LANE_NORMAL, 0, NOW + 200).count, 2);
    cr_assert_eq(due(1, BF_LANE_NORMAL, NOW + 150, UINT64_MAX).count, 2);
    cr_assert_eq(due(1, BF_LANE_CRITICAL, 0, UINT64_MAX).count, 0);
    cr_assert_eq(due(1, BF_LANE_BULK, 0, UINT64_MAX).count, 1);
    cr_assert_eq(due(2, BF_LANE_NORMAL, 0, UINT64_MAX).count, 0);
    cr_assert_eq(bf_store_walk_due(store, 1, BF_LANE_NORMAL, 0, UINT64_MAX, keep_push, &q, NULL),
                 42);
    cr_assert_eq(q.due[0], NOW + 100);
    cr_assert_eq(q.due[1], NOW + 200);
    cr_assert_eq(counted(BF_LANE_NORMAL, 3), 3, "counted again after reopening");
    cr_assert_eq(counted(BF_LANE_BULK, 1), 1);
}

/* What is written while the rows of before are being counted is counted once. */
Test(legs, depth_is_right_in_the_end)
{
    enum { OLD = 5000, GONE = 1000 };
    for (uint64_t n = 0; n < OLD; n++) {
        char user[16];
        snprintf(user, sizeof(user), "u%u", (unsigned)n);
        put_push(row_of(n * 10, user, BF_LANE_NORMAL, NOW + n));
    }
    reopen();
    for (uint64_t n = 0; n < GONE; n++) {
        char user[16];
        snprintf(user, sizeof(user), "u%u", (unsigned)n);
        delete_push(row_of(n * 10, user, BF_LANE_NORMAL, NOW + n));
    }
    put_push(row_of(OLD * 10, "new", BF_LANE_NORMAL, NOW));
    cr_assert_eq(counted(BF_LANE_NORMAL, OLD - GONE + 1), OLD - GONE + 1);
    cr_assert_eq(rows_below(BF_T_LEG), OLD - GONE + 1);
}

Test(legs, a_retry_moves_the_row)
{
    put_push(row_of(10, "ann", BF_LANE_NORMAL, NOW));
    put_push(row_of(10, "ann", BF_LANE_NORMAL, NOW + 5000));
    cr_assert_eq(due(1, BF_LANE_NORMAL, 0, NOW).count, 0);
    cr_assert_eq(due(1, BF_LANE_NORMAL, 0, NOW + 5000).count, 1);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_NORMAL), 1);
    delete_push(row_of(10, "ann", BF_LANE_NORMAL, NOW + 5000));
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_NORMAL), 0);
    cr_assert_eq(rows_below(BF_T_LEG), 0);
    cr_assert_eq(rows_below(BF_T_LEG_USER), 0);
}

Test(legs, a_newer_one_collapses)
{
    struct bf_leg_row first = row_of(10, "ann", BF_LANE_NORMAL, NOW),
                      second = row_of(20, "ann", BF_LANE_BULK, NOW),
                      other = row_of(30, "ann", BF_LANE_NORMAL, NOW);
    first.collapse = second.collapse = other.collapse = 77;
    other.endpoint_id = id_of(98);
    put_push(first);
    put_push(other);
    put_push(second);
    cr_assert_eq(due(1, BF_LANE_NORMAL, 0, NOW).count, 1, "another device's stays");
    cr_assert_eq(due(1, BF_LANE_BULK, 0, NOW).count, 1);
    second.not_before_ms += 10; /* its own retry finds itself by both indexes */
    put_push(second);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_BULK), 1);
    cr_assert_eq(rows_below(BF_T_LEG), 2);
    cr_assert_eq(rows_below(BF_T_LEG_COLLAPSE), 2);
    struct bf_batch *b = bf_batch_create(store);
    bf_batch_delete_leg(b, &second);
    bf_batch_delete_leg(b, &other);
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(rows_below(BF_T_LEG_COLLAPSE), 0);
}

Test(legs, cancelled_and_erased)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_id event = id_of(1);
    put_push(row_of(10, "ann", BF_LANE_NORMAL, NOW)); /* event 1, two devices */
    put_push(row_of(11, "ann", BF_LANE_NORMAL, NOW));
    put_push(row_of(20, "ann", BF_LANE_NORMAL, NOW)); /* event 2 */
    put_push(row_of(12, "bob", BF_LANE_NORMAL, NOW)); /* event 1 */
    cr_assert_eq(bf_batch_cancel_legs(b, uid("", "ann"), &event), 2);
    write_batch(b);
    cr_assert_eq(bf_batch_cancel_legs(b, uid("", "ann"), &event), 0);
    cr_assert_eq(due(1, BF_LANE_NORMAL, 0, NOW).count, 2);
    cr_assert_eq(bf_batch_erase_user(b, uid("", "ann"), NOW, text("test")), 0);
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(due(1, BF_LANE_NORMAL, 0, NOW).count, 1);
    cr_assert_eq(rows_below(BF_T_LEG_USER), 1);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_NORMAL), 1);
}

/* A walk that ends says when the next row is due: nobody need look until then. */
Test(legs, a_walk_tells_when_to_look_again)
{
    struct queue q = {0};
    uint64_t next = 7;
    put_push(row_of(10, "ann", BF_LANE_NORMAL, NOW));
    put_push(row_of(20, "ann", BF_LANE_NORMAL, NOW + 50));
    put_push(row_of(30, "ann", BF_LANE_NORMAL, NOW + 90));
    cr_assert_eq(bf_store_walk_due(store, 1, BF_LANE_NORMAL, 0, NOW, keep_push, &q, &next), 0);
    cr_assert_eq(next, NOW + 50);
    cr_assert_eq(bf_store_walk_due(store, 1, BF_LANE_NORMAL, 0, NOW + 90, keep_push, &q, &next), 0);
    cr_assert_eq(next, UINT64_MAX, "nothing more");
    next = 7;
    q = (struct queue){.stop_at = 1};
    cr_assert_eq(bf_store_walk_due(store, 1, BF_LANE_NORMAL, 0, NOW, keep_push, &q, &next), 42);
    cr_assert_eq(next, 7, "a walk that was ended knows nothing");
}

/* A person of one channel has the other's rows neither replaced nor counted. */
Test(legs, channels_stand_beside_each_other)
{
    struct bf_leg_row push = row_of(10, "ann", BF_LANE_NORMAL, NOW), hook = push;
    push.collapse = hook.collapse = 77;
    hook.channel = BF_CHANNEL_WEBHOOK;
    hook.message_id = id_of(11);
    put_push(push);
    put_push(hook);
    cr_assert_eq(rows_below(BF_T_LEG), 2);
    cr_assert_eq(rows_below(BF_T_LEG_COLLAPSE), 2);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_NORMAL), 1);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_WEBHOOK, BF_LANE_NORMAL), 1);
    reopen();
    cr_assert_eq(counted(BF_LANE_NORMAL, 1), 1);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_WEBHOOK, BF_LANE_NORMAL), 1);
}

/* The ids that messages had before rows had a channel and a kind: a repeated event finds them. */
Test(legs, message_ids)
{
    struct bf_leg_row row = row_of(10, "ann", BF_LANE_NORMAL, NOW);
    struct bf_bytes endpoint = {(const char *)row.endpoint_id.bytes, 16};
    struct bf_id wanted;
    row.redrive = 2;
    bf_leg_message_id(&row);
    bf_message_id(&row.event_id, text(""), text("ann"), BF_CHANNEL_PUSH, endpoint, 2, &wanted);
    cr_assert(bf_id_is_equal(&row.message_id, &wanted));
    row.kind = BF_LEG_FALLBACK;
    bf_leg_message_id(&row);
    bf_message_id(&row.event_id, text(""), text("ann"), BF_CHANNEL_PUSH, text(""), 2, &wanted);
    cr_assert(bf_id_is_equal(&row.message_id, &wanted));
}

static void note_move(void *arg, const struct bf_leg_row *was, struct bf_leg_row *is)
{
    bf_leg_message_id(is);
    cr_expect_not(bf_id_is_equal(&was->message_id, &is->message_id));
    cr_expect_eq(was->not_before_ms, is->not_before_ms);
    (*(int *)arg)++;
}

Test(legs, another_endpoint_takes_over)
{
    struct bf_id from = id_of(99), to = id_of(98);
    struct bf_batch *b = bf_batch_create(store);
    struct bf_leg_row other = row_of(30, "ann", BF_LANE_NORMAL, NOW);
    int told = 0;
    other.endpoint_id = id_of(97);
    put_push(row_of(10, "ann", BF_LANE_NORMAL, NOW));
    put_push(row_of(20, "bob", BF_LANE_NORMAL, NOW));
    put_push(other);
    cr_assert_eq(bf_batch_move_legs(b, uid("", "ann"), &from, &to, note_move, &told), 1);
    write_batch(b);
    cr_assert_eq(told, 1);
    cr_assert_eq(bf_batch_move_legs(b, uid("", "ann"), &from, &to, note_move, &told), 0);
    bf_batch_destroy(b);
    cr_assert_eq(rows_below(BF_T_LEG), 3);
    cr_assert_eq(rows_below(BF_T_LEG_USER), 3);
}

static int keep_one(void *arg, const struct bf_leg_row *row)
{
    *(struct bf_leg_row *)arg = *row;
    return 0;
}

Test(legs, found_by_place_and_by_event)
{
    struct bf_leg_row row = row_of(10, "ann", BF_LANE_NORMAL, NOW), got = {0};
    struct queue q = {0};
    struct bf_id event = id_of(1), other = id_of(7);
    row.seq = 41;
    put_push(row);
    put_push(row_of(11, "ann", BF_LANE_BULK, NOW + 9));
    put_push(row_of(20, "ann", BF_LANE_NORMAL, NOW));
    cr_assert_eq(bf_store_get_leg(store, &row, keep_one, &got), 0);
    cr_assert_eq(got.seq, 41);
    row.not_before_ms++;
    cr_assert_eq(bf_store_get_leg(store, &row, keep_one, &got), BF_ERR_NOT_FOUND);
    cr_assert_eq(bf_store_walk_legs_of(store, uid("", "ann"), &event, keep_push, &q), 0);
    cr_assert_eq(q.count, 2);
    cr_assert_eq(bf_store_walk_legs_of(store, uid("", "ann"), &other, keep_push, &q), 0);
    cr_assert_eq(bf_store_walk_legs_of(store, uid("", "bob"), &event, keep_push, &q), 0);
    cr_assert_eq(q.count, 2);
}

Test(legs, one_that_goes_at_once_drops_what_waits)
{
    struct bf_leg_row waits = row_of(10, "ann", BF_LANE_NORMAL, NOW),
                      goes = row_of(20, "ann", BF_LANE_BULK, NOW);
    struct bf_batch *b = bf_batch_create(store);
    cr_assert_not(bf_batch_drop_collapsed(b, &goes), "it has no collapse key");
    waits.collapse = goes.collapse = 77;
    cr_assert_not(bf_batch_drop_collapsed(b, &goes));
    put_push(waits);
    cr_assert(bf_batch_drop_collapsed(b, &goes));
    write_batch(b);
    bf_batch_destroy(b);
    cr_assert_eq(rows_below(BF_T_LEG) + rows_below(BF_T_LEG_USER) + rows_below(BF_T_LEG_COLLAPSE),
                 0);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_NORMAL), 0);
}

Test(legs, done_marks)
{
    struct bf_batch *b = bf_batch_create(store);
    struct bf_id done = id_of(1), open = id_of(2);
    bf_batch_put_leg_done(b, &done, UINT64_MAX);
    write_batch(b);
    bf_batch_destroy(b);
    reopen();
    cr_assert(bf_store_is_leg_done(store, &done));
    cr_assert_not(bf_store_is_leg_done(store, &open));
}
