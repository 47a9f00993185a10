/* Proven: a filed slot is looked at at its tick and not before, an earlier deadline re-files and a
 * later one does not, far ticks are clamped to a turn, removal from any place of a bucket keeps the
 * rest. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "timer/wheel.h"

static struct bf_wheel wheel;
static struct bf_conns conns;

static void start(uint32_t now)
{
    bf_conns_init(&conns, calloc(16, sizeof(struct bf_conn_hot)),
                  calloc(16, sizeof(struct bf_conn_cold)), 1, 16, 16);
    bf_wheel_init(&wheel, now);
}

Test(wheel, looks_at_its_tick)
{
    start(100);
    bf_wheel_file(&wheel, &conns, 3, 110);
    cr_assert_eq(bf_wheel_take(&wheel, &conns, 109), BF_SLOT_NONE);
    cr_assert_eq(bf_wheel_take(&wheel, &conns, 110), 3);
    cr_assert_eq(bf_wheel_take(&wheel, &conns, 400), BF_SLOT_NONE);
    cr_assert_eq(wheel.filed, 0);
}

Test(wheel, earlier_refiles_later_does_not)
{
    start(0);
    bf_wheel_file(&wheel, &conns, 1, 50);
    bf_wheel_file(&wheel, &conns, 1, 90);
    cr_assert_eq(conns.cold[1].wheel_tick, 50);
    bf_wheel_file(&wheel, &conns, 1, 20);
    cr_assert_eq(bf_wheel_take(&wheel, &conns, 20), 1);
    cr_assert_eq(bf_wheel_take(&wheel, &conns, 100), BF_SLOT_NONE);
}

Test(wheel, far_is_clamped_and_past_is_next)
{
    start(1000);
    bf_wheel_file(&wheel, &conns, 1, 1000000);
    cr_assert_eq(conns.cold[1].wheel_tick, 1000 + BF_WHEEL_BUCKETS - 1);
    bf_wheel_file(&wheel, &conns, 2, 10);
    cr_assert_eq(bf_wheel_take(&wheel, &conns, 1001), 2);
}

Test(wheel, removal_keeps_the_others)
{
    start(0);
    for (uint32_t i = 0; i < 5; i++)
        bf_wheel_file(&wheel, &conns, i, 7);
    bf_wheel_remove(&wheel, &conns, 2); /* middle */
    bf_wheel_remove(&wheel, &conns, 4); /* first of the bucket */
    bf_wheel_remove(&wheel, &conns, 0); /* last */
    bf_wheel_remove(&wheel, &conns, 0); /* not filed: nothing */
    uint32_t a = bf_wheel_take(&wheel, &conns, 7);
    uint32_t b = bf_wheel_take(&wheel, &conns, 7);
    cr_assert_eq(a + b, 4);
    cr_assert_eq(bf_wheel_take(&wheel, &conns, 7), BF_SLOT_NONE);
}

Test(wheel, ticks_wrap)
{
    start(UINT32_MAX - 3);
    bf_wheel_file(&wheel, &conns, 1, 5);
    cr_assert_eq(bf_wheel_take(&wheel, &conns, 4), BF_SLOT_NONE);
    cr_assert_eq(bf_wheel_take(&wheel, &conns, 5), 1);
}
