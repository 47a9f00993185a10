/*
 * `state` frames at a connection: they carry the unread count, so the last one reaches every
 * socket, also when the queue is full, and none that is older than the welcome reaches a fresh one.
 */
#include "core_fixture.h"

static void state(const char *user, uint32_t except_slot, const char *text)
{
    struct bf_cmd_frame cmd = {.user = user_of(user), .block = block_of_text(text)};
    if (except_slot != BF_SLOT_NONE)
        cmd.seq = bf_conn_id_of(&fx.core.conns, except_slot);
    put_command(0, BF_LANE_NORMAL, BF_CMD_STATE, &cmd);
}

static void answer(uint32_t slot, const char *text)
{
    struct bf_cmd_conn_frame cmd = {.conn = bf_conn_id_of(&fx.core.conns, slot),
                                    .block = block_of_text(text),
                                    .flags = BF_REPLY_IN_ORDER};
    put_command(0, BF_LANE_NORMAL, BF_CMD_REPLY, &cmd);
}

static const char *tail_of(const char *text, size_t len)
{
    size_t all = strlen(text);
    return all > len ? text + all - len : text;
}

Test(state, a_full_queue_keeps_the_last_one)
{
    fixture_start();
    uint32_t a = live_user("u", 0), b = live_user("u", 0);
    for (uint64_t i = 1; i <= 8; i++)
        notify("u", BF_LANE_NORMAL, i - 1, i, "n;");
    for (unsigned i = 0; i < 300; i++) {
        char text[16];
        snprintf(text, sizeof(text), "s%03u;", i);
        state("u", a, text);
        (void)bf_commands_turn(&fx.commands);
    }
    cr_assert_leq(bf_hot(&fx.core, b)->queue_count, fx.core.limits.conn_queue_frames + 1);
    cr_assert_str_eq(take_sent(a, ALL), "n;n;n;n;n;n;n;n;", "the acting socket is left out");
    cr_assert_str_eq(tail_of(take_sent(b, ALL), 5), "s299;");
    (void)take_returns();
    cr_assert_eq(fx.core.holds.held, 0);
    cr_assert_eq(fx.core.nodes.used, 0);
}

Test(state, a_flood_of_them_ends_with_the_last)
{
    fixture_start();
    uint32_t s = live_user("u", 0);
    for (unsigned i = 0; i < 300; i++) {
        char text[16];
        snprintf(text, sizeof(text), "s%03u;", i);
        state("u", BF_SLOT_NONE, text);
        (void)bf_commands_turn(&fx.commands);
    }
    const char *sent = take_sent(s, ALL);
    cr_assert_eq(strlen(sent), 5 * fx.core.limits.conn_queue_frames, "as many as the queue holds");
    cr_assert_str_eq(tail_of(sent, 5), "s299;");
}

Test(state, what_is_begun_is_finished)
{
    fixture_start();
    uint32_t s = live_user("u", 0);
    state("u", BF_SLOT_NONE, "s000;");
    (void)bf_commands_turn(&fx.commands);
    cr_assert_str_eq(take_sent(s, 2), "s0");
    for (uint64_t i = 1; i <= 7; i++)
        notify("u", BF_LANE_NORMAL, i - 1, i, "n;");
    state("u", BF_SLOT_NONE, "s001;");
    state("u", BF_SLOT_NONE, "s002;");
    (void)bf_commands_turn(&fx.commands);
    cr_assert_str_eq(take_sent(s, ALL), "00;n;n;n;n;n;n;n;s002;");
}

Test(state, an_answer_does_not_overtake_older_counts)
{
    fixture_start();
    uint32_t s = live_user("u", 0);
    state("u", BF_SLOT_NONE, "4 unread;");
    answer(s, "ok, 3 unread;");
    (void)bf_commands_turn(&fx.commands);
    cr_assert_str_eq(take_sent(s, ALL), "4 unread;ok, 3 unread;");
}

/* The lanes' rings are read one after the other: a worker may see the state before the welcome that
 * was sent first. */
Test(state, behind_the_marker_it_waits_for_the_welcome)
{
    fixture_start();
    uint32_t s = connect_user("u", 0);
    while (take_receipt() != BF_RCPT_NONE)
        continue;
    state("u", BF_SLOT_NONE, "older;");
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        conn_command(s, lane, BF_CMD_OPEN, 0, 0, 0, NULL);
    state("u", BF_SLOT_NONE, "newer;");
    (void)bf_commands_turn(&fx.commands);
    cr_assert_str_eq(take_sent(s, ALL), "", "nothing leaves before the welcome");
    conn_command(s, BF_LANE_CRITICAL, BF_CMD_WELCOME, 0, 0, 0, "welcome;");
    (void)bf_commands_turn(&fx.commands);
    cr_assert_str_eq(take_sent(s, ALL), "welcome;newer;");
}

Test(state, without_nodes_the_socket_comes_again)
{
    fixture_start();
    uint32_t s = live_user("u", 0);
    state("u", BF_SLOT_NONE, "s;");
    uint32_t used = fx.core.nodes.used;
    fx.core.nodes.used = 0; /* the low mark does not keep the command in its ring */
    fx.core.nodes.free_head = 0;
    fx.core.nodes.bump = fx.core.nodes.cap;
    (void)bf_commands_turn(&fx.commands);
    fx.core.nodes.used += used;
    cr_assert_eq(bf_hot(&fx.core, s)->state, BF_CONN_CLOSING);
    cr_assert_eq(bf_cold(&fx.core, s)->close_code, BF_CLOSE_OVERLOADED);
}
