/*
 * Proves that the push queue of a former version comes over whole: each of 10,000 waiting pushes
 * is found once, with all that it was, in the partition of its person; its indexes find it; the old
 * tables are empty. A kill behind any step, and the former version run once more in between, lose
 * and double nothing.
 */
#include "store_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "channels/table/channels.h"
#include "old_pushes.h"
#include "store/legs.h"
#include "writers.h"

#define NOW    UINT64_C(1700000000000)
#define PUSHES 10000u
#define PEOPLE 700u
#define SHARDS 3u

/* Opens the store with a death behind step |order.from|. */
static void open_and_die(struct writer_order order, int fd)
{
    char spec[40], err[512];
    struct bf_store_options options = {.dir = dir, .cache_mb = 8, .write_buffer_mb = 4};
    (void)fd;
    snprintf(spec, sizeof(spec), "legs_migrate:%u", order.from);
    setenv("BELFRY_FAULT", spec, 1);
    (void)bf_store_open(&options, &store, err, sizeof(err));
    _exit(7); /* it should be dead */
}

static void begin(void)
{
    tmp_dir_make(dir, sizeof(dir));
    writers_start(open_and_die);
    store_open();
}

static void end(void)
{
    teardown();
    writers_stop();
}

TestSuite(legs_migrate, .init = begin, .fini = end, .timeout = 300);

/* ---- what the former version left ---- */

struct texts {
    char user[32], fragment[200], overrides[64];
};

/* Push |n|: every third a fallback, every seventh with a collapse key, some without category. */
static struct old_push old_row(uint32_t n, struct texts *t)
{
    bool is_fallback = n % 3 == 0;
    snprintf(t->user, sizeof(t->user), "person-%u", n % PEOPLE);
    snprintf(t->fragment, sizeof(t->fragment),
             "\"type\":\"order.%u\",%s\"topic\":\"shop\",\"title\":\"caf\\u00e9 %u\",\"data\":"
             "{\"type\":\"inner\",\"n\":12345678901234567890123}",
             n % 5, n % 2 ? "\"category\":\"orders\"," : "", n);
    snprintf(t->overrides, sizeof(t->overrides), "%s", n % 4 ? "" : "{\"apns\":{\"n\":1}}");
    struct old_push row = {
        .lane = (enum bf_lane)(n % BF_LANE_COUNT),
        .not_before_ms = NOW + n,
        .uid = uid(n % 10 ? "" : "acme", t->user),
        .event_id = id_of(1000000 + n / 2),
        .created_ms = NOW - n,
        .expires_ms = NOW + 86400000 + n,
        .seq = is_fallback ? n + 1 : 0,
        .redrive = n % 11 == 0,
        .attempts = is_fallback ? 0 : n % 6,
        .collapse = n % 7 ? 0 : n + 1,
        .meta = text("meta bytes"),
        .fragment = text(t->fragment),
        .overrides = text(t->overrides),
        .reason = text(n % 5 ? "http_503" : "no_receipt"),
    };
    if (!is_fallback)
        row.device_id = id_of(5000000 + n);
    old_name_push(&row, SHARDS);
    return row;
}

static void plant(uint32_t from, uint32_t to)
{
    struct bf_batch *b = bf_batch_create(store);
    for (uint32_t n = from; n < to; n++) {
        struct texts t;
        struct old_push row = old_row(n, &t);
        old_put_push(b, &row);
        if (n % 1000 == 999)
            write_batch(b);
    }
    old_run(b, SHARDS);
    write_batch(b);
    bf_batch_destroy(b);
}

/* A store that the former version alone has written. */
static void plant_all(void)
{
    struct bf_batch *b = bf_batch_create(store);
    plant(0, PUSHES);
    old_forget_partitions(b);
    write_batch(b);
    bf_batch_destroy(b);
}

/* ---- what is there now ---- */

static int rows_below(unsigned table)
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

static void expect_equal(const struct bf_leg_row *is, const struct old_push *was, uint32_t n)
{
    char type[16];
    snprintf(type, sizeof(type), "order.%u", n % 5);
    cr_assert_eq(is->partition, bf_store_partition_of(store, was->uid));
    cr_assert_eq(is->lane, was->lane);
    cr_assert_eq(is->channel, BF_CHANNEL_PUSH);
    cr_assert_eq(is->kind, n % 3 == 0 ? BF_LEG_FALLBACK : BF_LEG_SEND);
    cr_assert_eq(is->flags, n % 5 ? 0 : BF_LEG_MAY_BE_OUT);
    cr_assert_eq(is->not_before_ms, was->not_before_ms);
    cr_assert(bf_id_is_equal(&is->message_id, &was->message_id));
    cr_assert(bf_id_is_equal(&is->event_id, &was->event_id));
    cr_assert(bf_id_is_equal(&is->endpoint_id, &was->device_id));
    cr_assert(bf_bytes_is_equal(is->uid.tenant, was->uid.tenant));
    cr_assert(bf_bytes_is_equal(is->uid.user, was->uid.user));
    cr_assert_eq(is->created_ms, was->created_ms);
    cr_assert_eq(is->expires_ms, was->expires_ms);
    cr_assert_eq(is->seq, was->seq);
    cr_assert_eq(is->redrive, was->redrive);
    cr_assert_eq(is->attempts, was->attempts);
    cr_assert_eq(is->collapse, was->collapse);
    cr_assert(bf_bytes_is_equal(is->type, text(type)));
    cr_assert(bf_bytes_is_equal(is->category, text(n % 2 ? "orders" : "")));
    cr_assert(bf_bytes_is_equal(is->topic, text("shop")));
    cr_assert(bf_bytes_is_equal(is->meta, was->meta));
    cr_assert(bf_bytes_is_equal(is->fragment, was->fragment));
    cr_assert(bf_bytes_is_equal(is->overrides, was->overrides));
    cr_assert(bf_bytes_is_equal(is->reason, was->reason));
    struct bf_leg_row again = *is;
    bf_leg_message_id(&again);
    cr_assert(bf_id_is_equal(&again.message_id, &is->message_id),
              "an event that comes again finds it");
}

struct seen {
    uint8_t times[PUSHES];
    uint32_t count;
};

static int see(void *arg, const struct bf_leg_row *row)
{
    struct seen *seen = arg;
    uint32_t n = (uint32_t)(row->not_before_ms - NOW);
    struct texts t;
    cr_assert_lt(n, PUSHES);
    struct old_push was = old_row(n, &t);
    expect_equal(row, &was, n);
    seen->times[n]++;
    seen->count++;
    return 0;
}

/* Each push once, found by its time and by its person; nothing of the former version. */
static void expect_all(void)
{
    static struct seen by_time, by_person;
    by_time = by_person = (struct seen){.count = 0};
    for (uint32_t p = 0; p < bf_store_partitions(store); p++)
        for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++)
            cr_assert_eq(bf_store_walk_due(store, (uint8_t)p, (enum bf_lane)lane, 0, UINT64_MAX,
                                           see, &by_time, NULL),
                         0);
    for (unsigned n = 0; n < PEOPLE; n++) {
        char user[32];
        snprintf(user, sizeof(user), "person-%u", n);
        cr_assert_eq(bf_store_walk_legs_of(store, uid("", user), NULL, see, &by_person), 0);
        cr_assert_eq(bf_store_walk_legs_of(store, uid("acme", user), NULL, see, &by_person), 0);
    }
    cr_assert_eq(by_time.count, PUSHES);
    cr_assert_eq(by_person.count, PUSHES);
    for (uint32_t n = 0; n < PUSHES; n++)
        cr_assert(by_time.times[n] == 1 && by_person.times[n] == 1, "push %u", n);
    for (unsigned table = 24; table <= 26; table++)
        cr_assert_eq(rows_below(table), 0, "table %u", table);
    cr_assert_eq(rows_below(BF_T_LEG_USER), PUSHES);
    cr_assert_eq(rows_below(BF_T_LEG_COLLAPSE), (PUSHES + 6) / 7);
    uint64_t depth = 0;
    for (int i = 0; i < 10000 && depth != PUSHES; i++) {
        usleep(1000); /* counting goes on after the opening */
        depth = bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_CRITICAL) +
                bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_NORMAL) +
                bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_BULK);
    }
    cr_assert_eq(depth, PUSHES);
}

Test(legs_migrate, ten_thousand_pushes)
{
    plant_all();
    cr_assert_eq(rows_below(24), PUSHES);
    reopen();
    expect_all();
    reopen();
    expect_all(); /* once */
}

/* The steps: a batch of 512 rows each, what is left of the old tables, the number of partitions. */
Test(legs_migrate, killed_behind_each_step)
{
    static const uint32_t deaths[] = {1, 1, 5, 7, 6, 2, 3};
    plant_all();
    bf_store_close(store);
    for (size_t i = 0; i < sizeof(deaths) / sizeof(deaths[0]); i++) {
        struct writer *w = writer_order(deaths[i], 0);
        int status = 0;
        cr_assert_eq(waitpid(w->pid, &status, 0), w->pid);
        close(w->told);
        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "death %zu: status %x", i,
                  (unsigned)status);
    }
    store_open();
    expect_all();
}

/* Somebody went back to the former version for a while: it queued more, and knew nothing of the
 * rows that were moved. */
Test(legs_migrate, the_former_version_runs_again)
{
    struct bf_batch *b = bf_batch_create(store);
    plant(0, PUSHES / 2);
    old_forget_partitions(b);
    write_batch(b);
    bf_batch_destroy(b);
    reopen();
    cr_assert_eq(rows_below(BF_T_LEG), PUSHES / 2);
    plant(PUSHES / 2, PUSHES);
    reopen();
    expect_all();
}

/* Index rows without a row name people; what cannot be read is named and goes. */
Test(legs_migrate, what_points_nowhere_goes)
{
    struct bf_batch *b = bf_batch_create(store);
    struct texts t;
    struct old_push row = old_row(0, &t);
    struct bf_key key;
    bf_key_begin(&key, (enum bf_table)24);
    bf_key_raw(&key, "damaged", 7);
    struct bf_writer w = bf_batch_expiring_value(b, 0, 16);
    bf_batch_put(b, &key, &w);
    bf_key_uid(&key, (enum bf_table)25, row.uid);
    bf_key_raw(&key, row.event_id.bytes, 16);
    bf_key_raw(&key, row.message_id.bytes, 16);
    old_put_index(b, &key, &key);
    old_run(b, SHARDS);
    old_forget_partitions(b);
    write_batch(b);
    bf_batch_destroy(b);
    reopen();
    for (unsigned table = 24; table <= 26; table++)
        cr_assert_eq(rows_below(table), 0, "table %u", table);
    cr_assert_eq(rows_below(BF_T_LEG), 0);
}

Test(legs_migrate, the_number_of_partitions_stays)
{
    struct bf_batch *b = bf_batch_create(store);
    const char small[2] = {8, 0}, odd[2] = {9, 0};
    char err[512] = "";
    struct bf_store_options options = {.dir = dir, .cache_mb = 8, .write_buffer_mb = 4};
    cr_assert_eq(bf_store_partitions(store), 64);
    bf_batch_put_value(b, text("outbound.partitions"), (struct bf_bytes){small, 2});
    write_batch(b);
    bf_batch_destroy(b);
    reopen();
    cr_assert_eq(bf_store_partitions(store), 8, "what the store was made with");
    for (unsigned n = 0; n < 1000; n++) {
        char user[16];
        snprintf(user, sizeof(user), "u%u", n);
        cr_assert_lt(bf_store_partition_of(store, uid("t", user)), 8);
    }
    b = bf_batch_create(store);
    bf_batch_put_value(b, text("outbound.partitions"), (struct bf_bytes){odd, 2});
    write_batch(b);
    bf_batch_destroy(b);
    bf_store_close(store);
    cr_assert_eq(bf_store_open(&options, &store, err, sizeof(err)), BF_ERR_CORRUPT);
    cr_assert_not_null(strstr(err, "9 partitions"), "%s", err);
    store = NULL;
}
