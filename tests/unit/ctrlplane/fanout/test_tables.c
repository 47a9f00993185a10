/*
 * Proves the shard's tables: users are found by id and key through growth, removal and re-keying;
 * connections are told apart by generation and leave their user's list.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <string.h>

#include "fanout/conn_table.h"
#include "fanout/user_table.h"

#define USERS 20000

static struct bf_uid uid_of(char *text, int i, const char *tenant)
{
    int n = snprintf(text, 32, "user-%d", i);
    return (struct bf_uid){.tenant = {tenant, strlen(tenant)}, .user = {text, (size_t)n}};
}

Test(user_table, finds_all_through_growth_removal_and_rekey)
{
    struct bf_user_table t;
    char text[32];
    uint8_t secret[BF_USER_SECRET_BYTES];
    memset(secret, 7, sizeof(secret));
    cr_assert_eq(bf_user_table_init(&t, 16), 0);
    for (int i = 0; i < USERS; i++)
        cr_assert_not_null(bf_user_add(&t, uid_of(text, i, i % 2 ? "acme" : "")));
    cr_assert_eq(t.count, USERS);
    cr_assert_null(bf_user_add(&t, uid_of(text, 5, "acme")), "it is there already");
    for (int i = 0; i < USERS; i += 3)
        bf_user_remove(&t, bf_user_find(&t, uid_of(text, i, i % 2 ? "acme" : "")));
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < USERS; i++) {
            struct bf_user *user = bf_user_find(&t, uid_of(text, i, i % 2 ? "acme" : ""));
            cr_assert_eq(user != NULL, i % 3 != 0, "user %d round %d", i, round);
            if (user)
                cr_assert_eq(bf_user_find_key(&t, user->key), user);
        }
        cr_assert_eq(bf_user_table_rekey(&t, secret), 0);
    }
    cr_assert_null(bf_user_find(&t, uid_of(text, 1, "")), "a tenant's user is not another's");
    bf_user_table_fini(&t);
}

Test(user_table, key_is_the_one_workers_compute)
{
    struct bf_user_table t;
    char text[32];
    bf_user_table_init(&t, 16);
    struct bf_uid uid = uid_of(text, 1, "acme");
    struct bf_user *user = bf_user_add(&t, uid);
    struct bf_user_key key = bf_user_key_of(t.secret, "acme", 4, uid.user.at, uid.user.len);
    cr_assert(bf_user_key_is_equal(user->key, key));
    cr_assert_eq(key.hi & 0xff, bf_user_shard_byte("acme", 4, uid.user.at, uid.user.len));
    bf_user_table_fini(&t);
}

Test(conn_table, generation_tells_connections_apart)
{
    struct bf_user_table t;
    struct bf_conn_table conns;
    char text[32];
    bf_user_table_init(&t, 16);
    cr_assert_eq(bf_conn_table_init(&conns, 2), 0);
    struct bf_user *user = bf_user_add(&t, uid_of(text, 1, ""));
    bf_conn_id first = UINT64_C(1) << 32 | 42, second = UINT64_C(2) << 32 | 42;
    struct bf_conn *conn = bf_conn_add(&conns, 1, first, user);
    cr_assert_eq(bf_conn_find(&conns, 1, first), conn);
    cr_assert_null(bf_conn_find(&conns, 0, first));
    cr_assert_null(bf_conn_find(&conns, 1, second));
    cr_assert_not_null(bf_conn_add(&conns, 1, second, user), "the slot's next life");
    cr_assert_null(bf_conn_find(&conns, 1, first));
    cr_assert_eq(conns.count, 1);
    cr_assert_null(bf_conn_add(&conns, 1, BF_CONN_SLOTS_MAX, user), "no worker has that slot");
    cr_assert_not_null(bf_conn_add(&conns, 1, 70000, user), "the index grows");
    bf_conn_unlink(&conns, bf_conn_find(&conns, 1, 70000));
    cr_assert_null(bf_conn_add(&conns, 2, 1, user), "no such worker");
    bf_conn_unlink(&conns, bf_conn_find(&conns, 1, second));
    cr_assert_null(user->conns);
    cr_assert_eq(conns.count, 0);
    bf_conn_table_fini(&conns);
    bf_user_table_fini(&t);
}
