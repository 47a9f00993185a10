/* Proven: look-ups find what was linked whatever else was linked and unlinked (checked against a
 * plain list over random steps), all connections of a user hang together, and keys that share place
 * and tag are told apart. */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdlib.h>

#include "memory/user_index.h"

#define SLOTS 512u

static struct bf_users users;
static struct bf_conns conns;

static void start(void)
{
    users.mask = bf_users_entries(SLOTS) - 1;
    users.entries = calloc(users.mask + 1, sizeof(uint32_t));
    bf_conns_init(&conns, calloc(SLOTS, sizeof(struct bf_conn_hot)),
                  calloc(SLOTS, sizeof(struct bf_conn_cold)), 1, SLOTS, SLOTS);
}

static uint32_t count_chain(struct bf_user_key key)
{
    uint32_t n = 0;
    for (uint32_t at = bf_users_find(&users, &conns, key); at != BF_SLOT_NONE;
         at = conns.hot[at].user_next)
        n++;
    return n;
}

Test(user_table, room_for_all)
{
    cr_assert_geq(bf_users_entries(200000), 200001u);
    cr_assert_eq(bf_users_entries(200000) & (bf_users_entries(200000) - 1), 0u);
}

Test(user_table, random_steps_agree_with_a_list)
{
    bool linked[SLOTS] = {false};
    unsigned seed = 7;
    start();
    for (uint32_t step = 0; step < 200000; step++) {
        uint32_t slot = (uint32_t)rand_r(&seed) % SLOTS;
        if (linked[slot]) {
            bf_users_unlink(&users, &conns, slot);
        } else {
            /* few homes and few tags: long probes, shared ones, and keys that differ late */
            conns.hot[slot].user.lo = (uint64_t)(slot % 37) * 5;
            conns.hot[slot].user.hi = (uint64_t)(slot % 3) << 56 | slot % 101;
            bf_users_link(&users, &conns, slot);
        }
        linked[slot] = !linked[slot];
        if (step % 97 != 0)
            continue;
        struct bf_user_key key = conns.hot[slot].user;
        uint32_t expected = 0;
        for (uint32_t i = 0; i < SLOTS; i++)
            expected += linked[i] && bf_user_key_is_equal(conns.hot[i].user, key);
        cr_assert_eq(count_chain(key), expected);
    }
}

Test(user_table, guess_is_a_linked_slot_of_the_tag)
{
    start();
    conns.hot[5].user = (struct bf_user_key){.hi = UINT64_C(0xab) << 56, .lo = 3};
    bf_users_link(&users, &conns, 5);
    cr_assert_eq(bf_users_guess(&users, conns.hot[5].user), 5);
    cr_assert_eq(bf_users_guess(&users, (struct bf_user_key){.hi = 1, .lo = 3}), BF_SLOT_NONE);
}
