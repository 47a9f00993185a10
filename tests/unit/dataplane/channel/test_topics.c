/* Proven: subscriptions of a connection and of a topic stay consistent in any order of ending, a
 * walk survives the end of the subscription it stands on, and the limits answer as documented. */
#include "core_fixture.h"

static uint32_t walk_count(uint64_t hash)
{
    uint32_t n = 0;
    bf_topics_walk(&fx.core.topics, hash);
    while (bf_topics_next(&fx.core.topics) != BF_SLOT_NONE)
        n++;
    return n;
}

Test(topics, sub_unsub_walk)
{
    fixture_start();
    struct bf_topics *t = &fx.core.topics;
    struct bf_conns *c = &fx.core.conns;
    for (uint32_t slot = 0; slot < 5; slot++) {
        cr_assert_eq(bf_topics_sub(t, c, slot, 100), 0);
        cr_assert_eq(bf_topics_sub(t, c, slot, 100 + 256), 0); /* same place of the table */
    }
    cr_assert_eq(bf_topics_sub(t, c, 2, 100), -EEXIST);
    cr_assert_eq(walk_count(100), 5);
    cr_assert_eq(bf_topics_unsub(t, c, 2, 100), 0);
    cr_assert_eq(bf_topics_unsub(t, c, 2, 100), BF_ERR_NOT_FOUND);
    cr_assert_eq(walk_count(100), 4);
    cr_assert_eq(walk_count(100 + 256), 5);
    for (uint32_t slot = 0; slot < 5; slot++)
        bf_topics_drop(t, c, slot);
    cr_assert_eq(walk_count(100), 0);
    cr_assert_eq(t->used, 0);
    cr_assert_eq(t->subs.used, 0);
}

Test(topics, walk_survives_an_end_under_its_cursor)
{
    fixture_start();
    struct bf_topics *t = &fx.core.topics;
    struct bf_conns *c = &fx.core.conns;
    for (uint32_t slot = 0; slot < 4; slot++)
        (void)bf_topics_sub(t, c, slot, 9);
    bf_topics_walk(t, 9);
    cr_assert_eq(bf_topics_next(t), 3); /* newest first */
    bf_topics_drop(t, c, 2);            /* the one that would come next */
    cr_assert_eq(bf_topics_next(t), 1);
    bf_topics_drop(t, c, 0);
    cr_assert_eq(bf_topics_next(t), BF_SLOT_NONE);
}

Test(topics, limit_of_a_connection)
{
    fixture_start();
    for (uint64_t i = 1; i <= BF_CONN_TOPICS_MAX; i++)
        cr_assert_eq(bf_topics_sub(&fx.core.topics, &fx.core.conns, 0, i), 0);
    cr_assert_eq(bf_topics_sub(&fx.core.topics, &fx.core.conns, 0, 1000), BF_ERR_FULL);
}
