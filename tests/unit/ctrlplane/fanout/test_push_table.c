/* What a shard remembers of its pushes: flights found by id under churn, oldest first; pools; the
 * census. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "fanout/core_state.h"
#include "fanout/push.h"

static struct bf_core core;
static struct bf_shard shard;

static void setup(void)
{
    core.shard_count = 2;
    shard.core = &core;
    shard.index = 1;
    cr_assert_eq(bf_push_table_init(&shard.push), 0);
}

static void teardown(void)
{
    bf_push_table_fini(&shard.push);
}

TestSuite(push_table, .init = setup, .fini = teardown, .timeout = 60);

static struct bf_push_case case_of(uint64_t n, uint32_t attempts)
{
    struct bf_push_case what = {.row = {.partition = 1,
                                        .attempts = attempts,
                                        .uid = {.tenant = BF_BYTES("t"), .user = BF_BYTES("ann")},
                                        .fragment = BF_BYTES("\"title\":\"x\"")}};
    memcpy(what.row.message_id.bytes, &n, sizeof(n));
    return what;
}

static uint64_t id_of(uint64_t n, uint32_t attempts)
{
    struct bf_push_case what = case_of(n, attempts);
    return bf_push_id_of(&what.row);
}

Test(push_table, an_id_is_of_a_message_and_an_attempt)
{
    cr_assert_eq(id_of(7, 0), id_of(7, 0));
    cr_assert_neq(id_of(7, 0), id_of(7, 1));
    cr_assert_neq(id_of(7, 0), id_of(8, 0));
    cr_assert_eq(id_of(7, 3) & 0xff, 1, "the partition, for its receipt");
    cr_assert_gt(id_of(7, 3), 1);
}

Test(push_table, flights_come_and_go)
{
    /* more ends than there are places: tombstones must not fill them */
    for (uint64_t n = 0; n < 100000; n++) {
        struct bf_push_case what = case_of(n, 0);
        struct bf_push_flight *flight = bf_push_flight_add(&shard, &what);
        cr_assert_not_null(flight);
        cr_assert_eq(flight->what.row.fragment.len, 0, "texts are not kept");
        cr_assert(bf_bytes_is_equal(flight->what.row.uid.user, BF_BYTES("ann")));
        cr_assert_neq((const void *)flight->what.row.uid.user.at,
                      (const void *)what.row.uid.user.at);
        cr_assert_eq(bf_push_flight_find(&shard.push, id_of(n, 0)), flight);
        if (n < 1000)
            continue;
        cr_assert_eq(shard.push.oldest->push_id, id_of(n - 1000, 0));
        bf_push_flight_drop(&shard, shard.push.oldest);
        cr_assert_null(bf_push_flight_find(&shard.push, id_of(n - 1000, 0)));
    }
    cr_assert_eq(shard.push.flight_count, 1000);
    cr_assert_not_null(bf_push_flight_find(&shard.push, id_of(99999, 0)));
}

Test(push_table, no_more_than_may_fly)
{
    struct bf_push_case what = case_of(0, 0);
    for (uint64_t n = 0; n < BF_PUSH_FLIGHTS_MAX; n++) {
        what = case_of(n, 0);
        cr_assert_not_null(bf_push_flight_add(&shard, &what));
    }
    what = case_of(BF_PUSH_FLIGHTS_MAX, 0);
    cr_assert_null(bf_push_flight_add(&shard, &what));
    bf_push_flight_drop(&shard, shard.push.newest);
    shard.push.is_landing = true;
    cr_assert_null(bf_push_flight_add(&shard, &what), "the process is about to end");
}

Test(push_table, pools_have_their_share_of_a_limit)
{
    struct bf_push_pool_state *fcm = bf_push_pool_state(&shard, 5, BF_PUSH_FCM);
    cr_assert_eq(fcm->bucket.limit_per_min, 300000, "600,000 over two shards");
    cr_assert_eq(bf_push_pool_state(&shard, 5, BF_PUSH_FCM), fcm);
    cr_assert_neq(bf_push_pool_state(&shard, 5 + BF_PUSH_POOLS_MAX, BF_PUSH_APNS), fcm);
    fcm->flights = 1;
    for (uint32_t id = 1000; id < 1000 + 2 * BF_PUSH_POOLS_MAX; id++)
        cr_assert_not_null(bf_push_pool_state(&shard, id, BF_PUSH_APNS), "idle ones make room");
    cr_assert_eq(bf_push_pool_state(&shard, 5, BF_PUSH_FCM), fcm, "something flies in it");
}

Test(push_table, the_census_knows_what_flies)
{
    struct bf_push_census census = {0};
    struct bf_id a, b;
    cr_assert_not(bf_push_census_has(&census, id_of(1, 0)), "before any");
    cr_assert_eq(bf_push_census_init(&census, 1), 0);
    for (uint64_t n = 0; n < BF_PUSH_REQUESTS_MAX; n++)
        bf_push_census_add(&census, id_of(n, 0));
    bf_push_census_add(&census, 0); /* not an id */
    for (uint64_t n = 0; n < BF_PUSH_REQUESTS_MAX; n += 2)
        bf_push_census_forget(&census, id_of(n, 0));
    for (uint64_t n = 0; n < BF_PUSH_REQUESTS_MAX; n++)
        cr_assert_eq(bf_push_census_has(&census, id_of(n, 0)), n % 2 == 1);
    cr_assert_not(bf_push_census_has(&census, id_of(1, 1)), "another attempt");
    cr_assert_eq(bf_push_census_init(&census, 2), 0);
    cr_assert_not(bf_push_census_has(&census, id_of(1, 0)), "of an earlier region");
    bf_push_census_fini(&census);
    bf_push_orphan_id(id_of(1, 0), &a);
    bf_push_orphan_id(id_of(2, 0), &b);
    cr_assert_not(bf_id_is_equal(&a, &b));
}

Test(push_table, throttled_devices)
{
    struct bf_id phone = {{1, 2, 3}}, other = {{9}};
    bf_push_device_slow(&shard.push, &phone, 77);
    cr_assert_eq(bf_push_device_slow_until(&shard.push, &phone), 77);
    cr_assert_eq(bf_push_device_slow_until(&shard.push, &other), 0);
}
