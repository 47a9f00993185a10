/* Proven against real rings in plain memory: commands reach their connections; damaged slots are
 * counted and skipped whatever their bytes; bulk is not starved; broadcasts are walked in slices,
 * in one send when several wait, under the prev/bseq rule with topics and losses; the census
 * answers with every connection and every held block; a drain is paced; receipts that find no room
 * come later, none lost. */
#include "core_fixture.h"

static void run_jobs(void)
{
    for (uint32_t i = 0; i < 100 && bf_commands_jobs(&fx.commands, 4); i++)
        continue;
}

Test(commands, notify_reaches_all_devices_of_a_user)
{
    fixture_start();
    uint32_t a = live_user("a", 0), b = live_user("a", 1), c = live_user("c", 0);
    (void)take_returns();
    notify("a", 1, 0, 1, "hello");
    notify("nobody", 1, 0, 1, "lost");
    (void)bf_commands_turn(&fx.commands);
    cr_assert_str_eq(take_sent(a, ALL), "hello");
    cr_assert_str_eq(take_sent(b, ALL), "hello");
    cr_assert_str_eq(take_sent(c, ALL), "");
    cr_assert_eq(metric(BF_M_commands_no_user), 1);
    cr_assert_eq(take_returns(), 2);
}

Test(commands, damaged_slots_are_skipped)
{
    fixture_start();
    uint32_t a = live_user("a", 0);
    unsigned seed = 3;
    notify("a", 1, 0, 1, "one");
    notify("a", 1, 1, 2, "two");
    notify("a", 1, 2, 3, "three");
    struct bf_ring_producer *p = &fx.producers[0][1];
    uint8_t *slot = (uint8_t *)bf_ring_slot(p, p->head - 2);
    for (uint32_t i = 0; i < BF_SLOT_BYTES; i++)
        slot[i] = (uint8_t)rand_r(&seed);
    (void)bf_commands_turn(&fx.commands);
    cr_assert_eq(metric(BF_M_commands_bad_slot), 1);
    cr_assert_str_eq(take_sent(a, ALL), "one");
    cr_assert_eq(take_receipt(), BF_RCPT_BEHIND, "what was lost is asked for");
}

/* The quick way and the general one, mixed in one burst, against what the rule says. */
Test(commands, bursts_of_everything_agree_with_the_rule)
{
    fixture_start();
    enum { USERS = 12 };
    char expected[USERS][512];
    uint64_t sent[USERS] = {0};
    uint32_t conns[USERS], twins[USERS] = {0};
    unsigned seed = 7;
    for (uint32_t u = 0; u < USERS; u++) {
        char name[2] = {(char)('a' + u), '\0'};
        conns[u] = live_user(name, u % 2);
        if (u % 4 == 3) /* two devices: never the quick way */
            twins[u] = live_user(name, 0);
    }
    for (uint32_t round = 0; round < 400; round++) {
        uint32_t waiting[USERS] = {0};
        memset(expected, 0, sizeof(expected));
        for (uint32_t n = (uint32_t)rand_r(&seed) % 80; n > 0; n--) {
            uint32_t u = (uint32_t)rand_r(&seed) % USERS, what = (uint32_t)rand_r(&seed) % 8;
            char name[2] = {(char)('a' + u), '\0'}, text[32];
            snprintf(text, sizeof(text), "%u.%u;", u, (unsigned)sent[u] + 1);
            if (what == 0) {
                notify("nobody", 1, 0, 1, "x");
            } else if (what == 1) { /* a repeat */
                notify(name, 1, sent[u] ? sent[u] - 1 : 0, sent[u], "repeat");
            } else if (what == 2) { /* damaged */
                notify(name, 1, sent[u], sent[u] + 1, "damaged");
                bf_ring_slot(&fx.producers[0][1], fx.producers[0][1].head - 1)->payload[9] ^= 4;
            } else if (waiting[u] < fx.core.limits.conn_queue_frames) {
                notify(name, 1, sent[u], sent[u] + 1, text);
                strcat(expected[u], text);
                sent[u]++;
                waiting[u]++;
            }
        }
        (void)bf_commands_turn(&fx.commands);
        for (uint32_t u = 0; u < USERS; u++) {
            cr_assert_str_eq(take_sent(conns[u], ALL), expected[u]);
            if (twins[u])
                cr_assert_str_eq(take_sent(twins[u], ALL), expected[u]);
        }
        while (bf_ready_take(&fx.core) != BF_SLOT_NONE)
            continue;
        (void)take_returns();
    }
    cr_assert_gt(metric(BF_M_frames_duplicate), 0);
    cr_assert_gt(metric(BF_M_commands_bad_slot), 0);
    cr_assert_eq(metric(BF_M_frames_gap), 0);
    cr_assert_eq(fx.core.holds.held, 0);
    cr_assert_eq(fx.core.nodes.used, 0);
}

Test(commands, a_close_counts_for_what_follows_it_in_the_burst)
{
    fixture_start();
    uint32_t a = live_user("a", 0);
    struct bf_cmd_close close = {.user = user_of("a"), .code = 4000};
    (void)take_returns();
    notify("a", 1, 0, 1, "before");
    put_command(0, 1, BF_CMD_CLOSE, &close);
    notify("a", 1, 1, 2, "after");
    (void)bf_commands_turn(&fx.commands);
    cr_assert_gt(bf_hot(&fx.core, a)->state, BF_CONN_LIVE);
    const char *text = take_sent(a, ALL);
    cr_assert_eq(strstr(text, "after"), NULL);
    cr_assert_eq(take_returns(), 2);
}

Test(commands, what_must_wait_stops_the_burst_where_it_is)
{
    fixture_start();
    uint32_t a = live_user("a", 0), b = live_user("b", 0);
    struct bf_cmd_mask mask = {.user = user_of("b"), .op = BF_MASK_HOLD};
    (void)take_returns();
    for (uint32_t i = 0; i < BF_RCPT_OUT_MASKED_MAX + 3; i++) {
        mask.ticket = i + 1;
        put_command(0, 1, BF_CMD_MASK, &mask);
        notify("a", 1, i, i + 1, "n");
    }
    cr_assert_eq(bf_commands_turn(&fx.commands), 2 * BF_RCPT_OUT_MASKED_MAX);
    cr_assert(fx.commands.work_due);
    cr_assert_eq(bf_hot(&fx.core, a)->lane_sent[1], fx.core.limits.conn_queue_frames,
                 "its queue is full");
    while (take_receipt() != BF_RCPT_NONE)
        continue;
    cr_assert_eq(bf_commands_turn(&fx.commands), 6);
    cr_assert(!fx.commands.work_due);
    cr_assert(bf_hot(&fx.core, b)->flags & BF_CF_MASKED);
    (void)take_sent(a, ALL);
    cr_assert_eq(take_returns(), BF_RCPT_OUT_MASKED_MAX + 3);
}

Test(commands, impossible_content_is_counted)
{
    fixture_start();
    struct bf_cmd_frame cmd = {.user = user_of("a"), .block = {.index = UINT32_MAX, .lap = 1}};
    put_command(0, 1, BF_CMD_NOTIFY, &cmd);
    put_command(0, 1, (enum bf_cmd_kind)999, &cmd);
    cmd.block.lap = 0;
    put_command(0, 1, BF_CMD_NOTIFY, &cmd);
    (void)bf_commands_turn(&fx.commands);
    cr_assert_eq(metric(BF_M_commands_bad), 3);
    cr_assert_eq(fx.core.holds.held, 0);
}

Test(commands, bulk_has_its_share)
{
    fixture_start();
    struct bf_cmd_close nothing = {.conn = UINT64_MAX};
    for (uint32_t i = 0; i < 1000; i++) {
        put_command(0, BF_LANE_CRITICAL, BF_CMD_CLOSE, &nothing);
        if (i < 500)
            put_command(0, BF_LANE_BULK, BF_CMD_CLOSE, &nothing);
    }
    cr_assert_eq(bf_commands_turn(&fx.commands), BF_COMMANDS_PER_TURN + BF_COMMANDS_BULK_SHARE);
    cr_assert_eq(bf_ring_ready_now(&fx.commands.rings[0][BF_LANE_BULK]),
                 500 - BF_COMMANDS_BULK_SHARE);
}

Test(commands, broadcasts_that_wait_leave_together)
{
    fixture_start();
    uint32_t conns[10];
    for (uint32_t i = 0; i < 10; i++)
        conns[i] = live_user(&"abcdefghij"[i], i % 2);
    (void)take_returns();
    broadcast(0, 1, 0, "b1;");
    broadcast(1, 2, 0, "b2;");
    (void)bf_commands_turn(&fx.commands);
    cr_assert(bf_commands_jobs(&fx.commands, 4), "a slice does not reach all");
    run_jobs();
    for (uint32_t i = 0; i < 10; i++)
        cr_assert_str_eq(take_sent(conns[i], ALL), "b1;b2;");
    cr_assert_eq(metric(BF_M_broadcasts), 2);
    cr_assert_eq(fx.core.b_pos, 2);
    cr_assert_eq(take_returns(), 2);
}

Test(commands, topic_broadcast_reaches_its_subscribers)
{
    fixture_start();
    uint32_t a = live_user("a", 0), b = live_user("b", 0);
    cr_assert_eq(bf_topics_sub(&fx.core.topics, &fx.core.conns, a, 77), 0);
    broadcast(0, 1, 77, "t1;");
    broadcast(1, 2, 0, "b2;");
    broadcast(2, 3, 78, "t3;");
    broadcast(3, 4, 0, "b4;");
    (void)bf_commands_turn(&fx.commands);
    run_jobs();
    cr_assert_str_eq(take_sent(a, ALL), "t1;b2;b4;");
    cr_assert_str_eq(take_sent(b, ALL), "b2;b4;");
    cr_assert_eq(take_receipt(), BF_RCPT_NONE, "what a filter left out is not missing");
}

Test(commands, lost_broadcast_makes_everyone_behind)
{
    fixture_start();
    uint32_t a = live_user("a", 0), b = live_user("b", 1);
    broadcast(0, 1, 0, "b1;");
    (void)bf_commands_turn(&fx.commands);
    run_jobs();
    (void)take_sent(a, ALL);
    (void)take_sent(b, ALL);
    cr_assert_eq(bf_topics_sub(&fx.core.topics, &fx.core.conns, a, 77), 0);
    broadcast(2, 3, 77, "t3;");
    (void)bf_commands_turn(&fx.commands);
    run_jobs();
    cr_assert_str_eq(take_sent(a, ALL), "");
    cr_assert_eq(take_receipt(), BF_RCPT_BEHIND);
    cr_assert_eq(((const struct bf_rcpt_behind *)(const void *)fx.message)->sent, 1);
    cr_assert_eq(take_receipt(), BF_RCPT_BEHIND, "the one the topic is not for as well");
    conn_command(a, 1, BF_CMD_REPLAY_B, 1, 3, 1, "b2,t3;");
    conn_command(b, 1, BF_CMD_REPLAY_B, 1, 2, 0, "b2;");
    conn_command(b, 1, BF_CMD_REPLAY_B, 2, 3, 1, NULL);
    broadcast(3, 4, 0, "b4;");
    (void)bf_commands_turn(&fx.commands);
    run_jobs();
    cr_assert_str_eq(take_sent(a, ALL), "b2,t3;b4;");
    cr_assert_str_eq(take_sent(b, ALL), "b2;b4;");
    cr_assert_eq(take_receipt(), BF_RCPT_NONE);
}

Test(commands, opened_during_a_walk_is_not_passed_over)
{
    fixture_start();
    uint32_t c = connect_user("c", 0), a = live_user("a", 0), b = live_user("b", 0);
    uint32_t d = connect_user("d", 1);
    while (take_receipt() != BF_RCPT_NONE)
        continue;
    broadcast(0, 1, 0, "b1;");
    (void)bf_commands_turn(&fx.commands);
    cr_assert(bf_commands_jobs(&fx.commands, 1)); /* past c and a */
    conn_command(d, 0, BF_CMD_WELCOME, 0, 0, 0, "w;");
    conn_command(d, 0, BF_CMD_OPEN_B, 0, 0, 0, NULL);
    conn_command(c, 0, BF_CMD_WELCOME, 0, 0, 0, "w;");
    conn_command(c, 0, BF_CMD_OPEN_B, 0, 0, 0, NULL);
    (void)bf_commands_turn(&fx.commands);
    run_jobs();
    cr_assert_str_eq(take_sent(a, ALL), "b1;");
    cr_assert_str_eq(take_sent(b, ALL), "b1;");
    cr_assert_str_eq(take_sent(c, ALL), "w;");
    cr_assert_str_eq(take_sent(d, ALL), "w;b1;", "the walk still came by");
    cr_assert_eq(take_receipt(), BF_RCPT_BEHIND);
    cr_assert_eq(((const struct bf_rcpt_behind *)(const void *)fx.message)->conn,
                 bf_conn_id_of(&fx.core.conns, c));
    cr_assert_eq(((const struct bf_rcpt_behind *)(const void *)fx.message)->sent, 0);
    cr_assert_eq(take_receipt(), BF_RCPT_NONE);
}

Test(commands, too_many_broadcasts_wait_in_their_ring)
{
    fixture_start();
    (void)live_user("a", 0);
    (void)take_returns();
    for (uint64_t i = 1; i <= BF_JOBS_MAX + 5; i++)
        broadcast(i - 1, i, 0, "b;");
    (void)bf_commands_turn(&fx.commands);
    cr_assert(fx.commands.work_due);
    cr_assert_eq(bf_ring_ready_now(&fx.commands.rings[1][BF_LANE_BULK]), 5);
    run_jobs();
    (void)bf_commands_turn(&fx.commands);
    run_jobs();
    cr_assert_eq(metric(BF_M_broadcasts), BF_JOBS_MAX + 5);
}

Test(commands, census_tells_everything)
{
    fixture_start();
    uint32_t a = live_user("a", 0), b = connect_user("b", 1);
    while (take_receipt() != BF_RCPT_NONE)
        continue;
    struct bf_cmd_census census = {.ticket = 42};
    put_command(1, 0, BF_CMD_CENSUS, &census);
    notify("a", 1, 0, 1, "held"); /* in a ring when the census comes: taken before the answer */
    (void)bf_commands_turn(&fx.commands);
    run_jobs();
    cr_assert_eq(take_receipt(), BF_RCPT_CENSUS_CONN);
    struct bf_rcpt_census_conn conn;
    memcpy(&conn, fx.message, sizeof(conn));
    cr_assert_eq(conn.ticket, 42);
    cr_assert_eq(conn.conn, bf_conn_id_of(&fx.core.conns, a));
    cr_assert_eq(conn.sent[1], 1);
    cr_assert_eq(conn.flags, 0xfu | BF_CENSUS_WELCOMED);
    cr_assert_eq(take_receipt(), BF_RCPT_CENSUS_CONN);
    memcpy(&conn, fx.message, sizeof(conn));
    cr_assert_eq(conn.flags, 0);
    cr_assert_eq(take_receipt(), BF_RCPT_CENSUS_DONE);
    struct bf_rcpt_census_done done;
    memcpy(&done, fx.message, sizeof(done));
    cr_assert_eq(done.connections, 2);
    cr_assert_eq(done.blocks_held, 1);
    cr_assert_eq(take_receipt(), BF_RCPT_CONNECT, "who waits for a welcome asks again");
    cr_assert_eq(((const struct bf_rcpt_connect *)(const void *)fx.message)->conn,
                 bf_conn_id_of(&fx.core.conns, b));
}

Test(commands, drain_is_paced)
{
    fixture_start();
    for (uint32_t i = 0; i < 20; i++)
        (void)live_user(&"abcdefghijklmnopqrst"[i], 0);
    struct bf_cmd_drain drain = {.rate = 100, .reconnect_after_ms = 1000};
    put_command(1, 0, BF_CMD_DRAIN, &drain);
    (void)bf_commands_turn(&fx.commands);
    for (uint32_t ms = 0; ms < 100; ms += 10) {
        fx.core.mono_ms += 10;
        (void)bf_commands_jobs(&fx.commands, 0);
    }
    cr_assert_eq(fx.core.welcomed, 20 - 11, "100 a second are ten in 100 ms, and one at once");
    drain.rate = 0;
    put_command(1, 0, BF_CMD_DRAIN, &drain);
    (void)bf_commands_turn(&fx.commands);
    fx.core.mono_ms += 1000;
    (void)bf_commands_jobs(&fx.commands, 0);
    cr_assert_eq(fx.core.welcomed, 9);
}

Test(commands, full_receipts_ring_loses_nothing)
{
    fixture_start();
    uint32_t slots[20];
    for (uint32_t i = 0; i < 20; i++)
        slots[i] = live_user(&"abcdefghijklmnopqrst"[i], 0);
    while (bf_rcpt_put(&fx.core.receipts, BF_RCPT_MASKED, fx.message, sizeof(struct bf_rcpt_masked),
                       0))
        continue;
    for (uint32_t i = 0; i < 20; i++)
        bf_life_gone(&fx.core, slots[i], 0);
    cr_assert(bf_worker_core_flush_outbox(&fx.core), "they wait");
    uint32_t gone = 0;
    for (uint32_t i = 0; i < 4000; i++)
        gone += take_receipt() == BF_RCPT_GONE;
    cr_assert_eq(gone, 20);
}
