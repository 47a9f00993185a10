/* What a shard remembers of what providers have: attempts found by id under churn, oldest first;
 * pools; the census. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/shm/push_wire.h"
#include "outbound/impl.h"

static struct bf_outbound o;
static struct bf_turn turn;
static struct bf_attempt_census none;
static const struct bf_endpoint phone = {.kind = 2, .registered_ms = 77, .hash = {1, 2}};

static void setup(void)
{
    const struct bf_outbound_node node = {.census = &none, .shards = 2, .partitions = 64};
    cr_assert_eq(bf_outbound_init(&o, &node, 1, &turn), 0);
}

static void teardown(void)
{
    bf_outbound_fini(&o);
}

TestSuite(attempts, .init = setup, .fini = teardown, .timeout = 60);

static struct bf_offer offer_of(uint64_t n, uint32_t attempts)
{
    struct bf_offer offer = {.row = {.partition = 1,
                                     .attempts = attempts,
                                     .uid = {.tenant = BF_BYTES("t"), .user = BF_BYTES("ann")},
                                     .fragment = BF_BYTES("\"title\":\"x\"")}};
    memcpy(offer.row.message_id.bytes, &n, sizeof(n));
    return offer;
}

static uint64_t id_of(uint64_t n, uint32_t attempts)
{
    struct bf_offer offer = offer_of(n, attempts);
    return bf_attempt_id(&offer.row);
}

Test(attempts, an_id_is_of_a_message_and_an_attempt)
{
    cr_assert_eq(id_of(7, 0), id_of(7, 0));
    cr_assert_neq(id_of(7, 0), id_of(7, 1));
    cr_assert_neq(id_of(7, 0), id_of(8, 0));
    cr_assert_eq(id_of(7, 3) & 0xff, 1, "the partition, for its receipt");
    cr_assert_gt(id_of(7, 3), 1);
}

Test(attempts, they_come_and_go)
{
    /* more ends than there are places: tombstones must not fill them */
    for (uint64_t n = 0; n < 100000; n++) {
        struct bf_offer offer = offer_of(n, 0);
        struct bf_outstanding *out = bf_outstanding_add(&o, &offer, &phone);
        cr_assert_not_null(out);
        cr_assert_eq(out->offer.row.fragment.len, 0, "texts are not kept");
        cr_assert_eq(out->attempt.row, &out->offer.row);
        cr_assert_eq(out->attempt.registered_ms, 77);
        cr_assert(bf_bytes_is_equal(out->offer.row.uid.user, BF_BYTES("ann")));
        cr_assert_neq((const void *)out->offer.row.uid.user.at,
                      (const void *)offer.row.uid.user.at);
        cr_assert_eq(bf_outstanding_find(&o, id_of(n, 0)), out);
        if (n < 1000)
            continue;
        cr_assert_eq(o.oldest->attempt.id, id_of(n - 1000, 0));
        bf_outstanding_drop(&o, o.oldest);
        cr_assert_null(bf_outstanding_find(&o, id_of(n - 1000, 0)));
    }
    cr_assert_eq(o.attempt_count, 1000);
    cr_assert_not_null(bf_outstanding_find(&o, id_of(99999, 0)));
}

/* A former version put the shard's number where the partition is: its answers are found. */
Test(attempts, the_low_byte_tells_none_apart)
{
    struct bf_offer offer = offer_of(7, 0);
    struct bf_outstanding *out = bf_outstanding_add(&o, &offer, &phone);
    cr_assert_eq(bf_outstanding_find(&o, (id_of(7, 0) & ~UINT64_C(0xff)) | 5), out);
}

/* A phone gets another name while a push is on its way: the row, under its new id, is still out,
 * and the answer comes by the old one. */
Test(attempts, a_renamed_row_is_still_out)
{
    struct bf_offer offer = offer_of(7, 2);
    struct bf_leg_row renamed = offer.row;
    offer.is_row = true;
    offer.row.lane = renamed.lane = BF_LANE_NORMAL;
    offer.row.not_before_ms = renamed.not_before_ms = 500;
    memset(renamed.message_id.bytes, 9, sizeof(renamed.message_id.bytes));
    memset(renamed.endpoint_id.bytes, 8, sizeof(renamed.endpoint_id.bytes));
    struct bf_outstanding *out = bf_outstanding_add(&o, &offer, &phone);
    cr_assert_null(bf_outstanding_of(&o, &renamed));
    o.places[BF_LANE_NORMAL][1] = (struct bf_due_place){.cursor_ms = 900, .look_ms = 1000};
    bf_outbound_moved(&o, &offer.row, &renamed);
    cr_assert_eq(bf_outstanding_of(&o, &renamed), out);
    cr_assert_eq(bf_outstanding_find(&o, id_of(7, 2)), out, "for the answer");
    cr_assert(bf_id_is_equal(&out->offer.row.message_id, &renamed.message_id));
    cr_assert(bf_id_is_equal(&out->offer.row.endpoint_id, &renamed.endpoint_id));
    cr_assert_eq(o.places[BF_LANE_NORMAL][1].cursor_ms, 500, "the scan begins with it");
    cr_assert_eq(o.places[BF_LANE_NORMAL][1].look_ms, 500);
    bf_outstanding_drop(&o, out);
    cr_assert_null(bf_outstanding_of(&o, &renamed));
    cr_assert_eq(o.renamed_count, 0);
}

Test(attempts, no_more_than_may_be_out)
{
    struct bf_offer offer = offer_of(0, 0);
    for (uint64_t n = 0; n < BF_ATTEMPTS_OUT_MAX; n++) {
        offer = offer_of(n, 0);
        cr_assert_not_null(bf_outstanding_add(&o, &offer, &phone));
    }
    offer = offer_of(BF_ATTEMPTS_OUT_MAX, 0);
    cr_assert_null(bf_outstanding_add(&o, &offer, &phone));
    bf_outstanding_drop(&o, o.newest);
    o.is_stopping = true;
    cr_assert_null(bf_outstanding_add(&o, &offer, &phone), "the process is about to end");
}

Test(attempts, pools_have_their_share_of_a_limit)
{
    const struct bf_pool_info five = {.id = 5, .limit_per_min = 600000};
    struct bf_pool_info other = {.id = 5 + BF_POOLS_MAX};
    struct bf_pool *fcm = bf_pool_get(&o, BF_CHANNEL_PUSH, 1, &five);
    cr_assert_eq(fcm->bucket.limit_per_min, 300000, "600,000 over two shards");
    cr_assert_eq(bf_pool_get(&o, BF_CHANNEL_PUSH, 1, &five), fcm);
    cr_assert_neq(bf_pool_get(&o, BF_CHANNEL_PUSH, 0, &other), fcm);
    cr_assert_neq(bf_pool_get(&o, BF_CHANNEL_WEBHOOK, 1, &five), fcm, "another channel's");
    fcm->attempts_out = 1;
    for (other.id = 1000; other.id < 1000 + 2 * BF_POOLS_MAX; other.id++)
        cr_assert_not_null(bf_pool_get(&o, BF_CHANNEL_PUSH, 0, &other), "idle ones make room");
    cr_assert_eq(bf_pool_get(&o, BF_CHANNEL_PUSH, 1, &five), fcm, "something of it is out");
}

Test(attempts, the_census_knows_what_is_out)
{
    struct bf_attempt_census census = {0};
    struct bf_id a, b;
    cr_assert_not(bf_attempt_census_has(&census, id_of(1, 0)), "before any");
    cr_assert_eq(bf_attempt_census_init(&census, 1), 0);
    for (uint64_t n = 0; n < BF_PUSH_REQUESTS_MAX; n++)
        bf_attempt_census_add(&census, id_of(n, 0));
    bf_attempt_census_add(&census, 0); /* not an id */
    for (uint64_t n = 0; n < BF_PUSH_REQUESTS_MAX; n += 2)
        bf_attempt_census_forget(&census, id_of(n, 0));
    for (uint64_t n = 0; n < BF_PUSH_REQUESTS_MAX; n++)
        cr_assert_eq(bf_attempt_census_has(&census, id_of(n, 0)), n % 2 == 1);
    cr_assert_not(bf_attempt_census_has(&census, id_of(1, 1)), "another attempt");
    cr_assert_eq(bf_attempt_census_init(&census, 2), 0);
    cr_assert_not(bf_attempt_census_has(&census, id_of(1, 0)), "of an earlier region");
    bf_attempt_census_fini(&census);
    bf_attempt_orphan_id(id_of(1, 0), &a);
    bf_attempt_orphan_id(id_of(2, 0), &b);
    cr_assert_not(bf_id_is_equal(&a, &b));
}

Test(attempts, throttled_endpoints)
{
    struct bf_id slow = {{1, 2, 3}}, other = {{9}};
    bf_endpoint_slow(&o, &slow, 77);
    cr_assert_eq(bf_endpoint_slow_until(&o, &slow), 77);
    cr_assert_eq(bf_endpoint_slow_until(&o, &other), 0);
}
