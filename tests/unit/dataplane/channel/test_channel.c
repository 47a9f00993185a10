/* Proven: the sequence rule of shm/command.h case by case; rank order; nothing of a lane before its
 * marker and nothing of n before the WELCOME; a short send resumes at its byte; collapse, full
 * queue and behind; masks withdraw; acknowledgements cover only what was sent; blocks go back
 * exactly once. */
#include "core_fixture.h"

static enum bf_offer_result offer(uint32_t slot, uint32_t stream, uint64_t prev, uint64_t seq,
                                  const char *text, uint32_t collapse)
{
    struct bf_block_ref ref = block_of_text(text);
    struct bf_frame frame = {
        .block = ref.index, .stream = stream, .prev = prev, .seq = seq, .collapse = collapse};
    cr_assert_not_null(bf_holds_take(&fx.core.holds, ref));
    enum bf_offer_result result = bf_channel_offer(&fx.core, slot, &frame);
    bf_holds_drop(&fx.core.holds, ref.index);
    return result;
}

Test(channel, sequence_rule)
{
    fixture_start();
    uint32_t s = live_user("a", 0);
    cr_assert_eq(offer(s, 1, 0, 1, "1", 0), BF_OFFER_QUEUED);
    cr_assert_eq(offer(s, 1, 0, 1, "1", 0), BF_OFFER_DUPLICATE);
    cr_assert_eq(offer(s, 1, 1, 4, "4", 0), BF_OFFER_QUEUED, "gaps below prev are legal");
    cr_assert_eq(offer(s, 1, 5, 6, "6", 0), BF_OFFER_GAP);
    cr_assert_eq(offer(s, 2, 0, 7, "b7", 0), BF_OFFER_QUEUED, "lanes are apart");
    cr_assert_eq(offer(s, 1, 4, 6, "5,6", 0), BF_OFFER_QUEUED, "the replay heals");
    cr_assert_eq(offer(s, 1, 6, 7, "7", 0), BF_OFFER_QUEUED);
    cr_assert_str_eq(take_sent(s, ALL), "14b75,67");
    cr_assert_eq(take_receipt(), BF_RCPT_NONE, "healed before its queue had drained");
}

Test(channel, nothing_before_the_marker)
{
    fixture_start();
    uint32_t s = connect_user("a", 0);
    cr_assert_eq(offer(s, 1, 0, 1, "1", 0), BF_OFFER_NOT_OPEN);
}

Test(channel, welcome_goes_first)
{
    fixture_start();
    uint32_t s = connect_user("a", 0);
    bf_channel_open(&fx.core, s, 1, 0);
    cr_assert_eq(offer(s, 1, 0, 1, "n1", 0), BF_OFFER_QUEUED);
    cr_assert(bf_channel_push_local(&fx.core, s, "ok;", 3, BF_RANK_CONTROL, BF_NF_HELD));
    cr_assert(bf_channel_push_local(&fx.core, s, "error;", 6, BF_RANK_CONTROL, 0));
    cr_assert_str_eq(take_sent(s, ALL), "", "a held answer keeps its place before later ones");
    conn_command(s, 0, BF_CMD_WELCOME, 0, 0, 0, "welcome;");
    (void)bf_commands_turn(&fx.commands);
    cr_assert_str_eq(take_sent(s, ALL), "welcome;ok;error;n1");
}

/* Answers wait for the WELCOME; however many a hasty client has asked for, they leave it room. */
Test(channel, welcome_finds_room)
{
    fixture_start();
    uint32_t s = connect_user("a", 0);
    unsigned answers = 0;
    while (bf_channel_push_local(&fx.core, s, ".", 1, BF_RANK_CONTROL, BF_NF_HELD))
        answers++;
    cr_assert_eq(answers, fx.core.limits.conn_queue_frames + BF_QUEUE_CONTROL_EXTRA);
    conn_command(s, 0, BF_CMD_WELCOME, 0, 0, 0, "welcome;");
    (void)bf_commands_turn(&fx.commands);
    cr_assert_eq(bf_hot(&fx.core, s)->state, BF_CONN_LIVE);
    const char *sent = take_sent(s, ALL);
    cr_assert_eq(strncmp(sent, "welcome;.", 9), 0, "%s", sent);
    cr_assert_eq(strlen(sent), 8 + answers);
}

Test(channel, rank_order)
{
    fixture_start();
    uint32_t s = live_user("a", 0);
    (void)offer(s, 1, 0, 1, "n1;", 0);
    (void)offer(s, 2, 0, 1, "bulk1;", 0);
    (void)offer(s, 0, 0, 1, "c1;", 0);
    (void)bf_channel_push_local(&fx.core, s, "pong;", 5, BF_RANK_CONTROL, 0);
    (void)offer(s, 0, 1, 2, "c2;", 0);
    cr_assert_str_eq(take_sent(s, ALL), "pong;c1;c2;n1;bulk1;");
}

Test(channel, short_send_resumes_at_its_byte)
{
    fixture_start();
    uint32_t s = live_user("a", 0);
    (void)offer(s, 1, 0, 1, "abcdef", 0);
    (void)offer(s, 1, 1, 2, "ghi", 0);
    cr_assert_str_eq(take_sent(s, 2), "ab");
    (void)offer(s, 0, 0, 1, "C", 0);
    cr_assert_str_eq(take_sent(s, ALL), "cdefCghi", "a begun frame ends before a critical one");
    cr_assert_eq(take_returns(), 4, "the WELCOME's and three more");
    cr_assert_eq(fx.core.holds.held, 0);
    cr_assert_eq(fx.core.nodes.used, 0);
}

Test(channel, full_queue_leaves_to_the_inbox)
{
    fixture_start();
    uint32_t s = live_user("a", 0);
    for (uint64_t i = 1; i <= 8; i++)
        cr_assert_eq(offer(s, 1, i - 1, i, "x", 0), BF_OFFER_QUEUED);
    cr_assert_eq(offer(s, 1, 8, 9, "y", 0), BF_OFFER_FULL);
    cr_assert_eq(offer(s, 1, 9, 10, "z", 0), BF_OFFER_GAP);
    cr_assert_eq(take_receipt(), BF_RCPT_NONE, "no room yet, nothing to replay into");
    (void)take_sent(s, ALL);
    cr_assert_eq(take_receipt(), BF_RCPT_BEHIND);
    const struct bf_rcpt_behind *rcpt = (const void *)fx.message;
    cr_assert_eq(rcpt->sent, 8);
    cr_assert_eq(rcpt->stream, 1);
    (void)offer(s, 1, 10, 11, "w", 0);
    cr_assert_eq(take_receipt(), BF_RCPT_NONE, "told once");
    cr_assert_eq(offer(s, 1, 8, 11, "9..11", 0), BF_OFFER_QUEUED);
    cr_assert_eq(offer(s, 1, 11, 12, "12", 0), BF_OFFER_QUEUED);
}

Test(channel, collapse_over_half_full)
{
    fixture_start();
    uint32_t s = live_user("a", 0);
    (void)offer(s, 1, 0, 1, "a1;", 7);
    (void)offer(s, 1, 1, 2, "a2;", 7);
    cr_assert_eq(metric(BF_M_frames_collapsed), 0, "there is room: both go");
    for (uint64_t i = 3; i <= 5; i++)
        (void)offer(s, 1, i - 1, i, "x;", 0);
    (void)offer(s, 1, 5, 6, "a6;", 7);
    cr_assert_eq(metric(BF_M_frames_collapsed), 1);
    cr_assert_str_eq(take_sent(s, ALL), "a2;x;x;x;a6;");
}

Test(channel, collapse_spares_what_has_begun)
{
    fixture_start();
    fx.core.limits.conn_queue_frames = 2;
    uint32_t s = live_user("a", 0);
    (void)offer(s, 1, 0, 1, "abc", 7);
    cr_assert_str_eq(take_sent(s, 1), "a");
    (void)offer(s, 1, 1, 2, "d", 0);
    cr_assert_eq(offer(s, 1, 2, 3, "e", 7), BF_OFFER_FULL);
    cr_assert_str_eq(take_sent(s, ALL), "bcd");
}

Test(channel, mask_withdraws_n_only)
{
    fixture_start();
    uint32_t s = live_user("a", 0);
    (void)offer(s, 1, 0, 1, "secret", 0);
    (void)bf_channel_push_local(&fx.core, s, "pong", 4, BF_RANK_CONTROL, 0);
    struct bf_cmd_mask cmd = {.user = user_of("a"), .ticket = 5, .op = BF_MASK_HOLD};
    put_command(1, 0, BF_CMD_MASK, &cmd);
    notify("a", 1, 1, 2, "later");
    (void)bf_commands_turn(&fx.commands);
    cr_assert_str_eq(take_sent(s, ALL), "pong");
    cr_assert_eq(take_receipt(), BF_RCPT_MASKED);
    cr_assert_eq(((const struct bf_rcpt_masked *)(const void *)fx.message)->ticket, 5);
    cr_assert_eq(metric(BF_M_frames_masked), 2);
    cmd.op = BF_MASK_LIFT;
    put_command(1, 0, BF_CMD_MASK, &cmd);
    notify("a", 1, 2, 3, "again");
    (void)bf_commands_turn(&fx.commands);
    cr_assert_str_eq(take_sent(s, ALL), "again");
}

/* A broadcast is a notification as well; an answer is not. */
Test(channel, mask_withdraws_broadcasts_replays_and_copies)
{
    fixture_start();
    uint32_t s = live_user("a", 0), other = live_user("b", 0);
    struct bf_cmd_mask cmd = {.user = user_of("a"), .op = BF_MASK_HOLD};
    put_command(1, 0, BF_CMD_MASK, &cmd);
    broadcast(0, 1, 0, "to all;");
    (void)bf_commands_turn(&fx.commands);
    (void)bf_commands_jobs(&fx.commands, 100);
    conn_command(s, 1, BF_CMD_REPLAY, 0, 1, BF_REPLAY_HEAD, "replayed;");
    struct bf_cmd_conn_frame copy = {.conn = bf_conn_id_of(&fx.core.conns, s),
                                     .block = block_of_text("copy;"),
                                     .flags = BF_CONN_NOTICE};
    put_command(0, 1, BF_CMD_REPLY, &copy);
    conn_command(s, 1, BF_CMD_REPLY, 0, 0, 0, "answer;");
    (void)bf_commands_turn(&fx.commands);
    cr_assert_str_eq(take_sent(s, ALL), "answer;");
    cr_assert_str_eq(take_sent(other, ALL), "to all;", "another person gets it");
    cr_assert_eq(take_receipt(), BF_RCPT_NONE, "without a ticket nobody waits");
}

/* What waits in the queue at the opt-in, and broadcasts up to the head of that moment. */
Test(channel, unmask_lets_nothing_of_before_out)
{
    fixture_start();
    uint32_t s = live_user("a", 0);
    struct bf_cmd_mask cmd = {.user = user_of("a"), .op = BF_MASK_HOLD};
    put_command(1, 0, BF_CMD_MASK, &cmd);
    notify("a", 1, 0, 1, "old;");
    (void)bf_commands_turn(&fx.commands); /* queued; its socket has taken nothing since */
    cmd.op = BF_MASK_LIFT;
    cmd.bseq = 2;
    put_command(1, 0, BF_CMD_MASK, &cmd);
    (void)bf_commands_turn(&fx.commands);
    broadcast(0, 1, 0, "b1;"); /* they lay in another producer's ring */
    broadcast(1, 2, 0, "b2;");
    broadcast(2, 3, 0, "b3;");
    notify("a", 1, 1, 2, "new;");
    (void)bf_commands_turn(&fx.commands);
    (void)bf_commands_jobs(&fx.commands, 100);
    const char *sent = take_sent(s, ALL);
    cr_assert(strcmp(sent, "new;b3;") == 0 || strcmp(sent, "b3;new;") == 0, "%s", sent);
}

Test(channel, a_begun_frame_ends_though_masked)
{
    fixture_start();
    uint32_t s = live_user("a", 0);
    (void)offer(s, 1, 0, 1, "abcdef", 0);
    (void)offer(s, 1, 1, 2, "ghi", 0);
    cr_assert_str_eq(take_sent(s, 2), "ab");
    bf_channel_mask(&fx.core, s);
    cr_assert_str_eq(take_sent(s, ALL), "cdef");
}

/* The WELCOME says whether the person is out, whatever a mask said to the connection before. */
Test(channel, welcome_brings_the_mask)
{
    fixture_start();
    for (uint32_t masked = 0; masked < 2; masked++) {
        uint32_t s = connect_user(masked ? "out" : "in", 0);
        struct bf_cmd_mask cmd = {.user = user_of(masked ? "out" : "in"),
                                  .op = masked ? BF_MASK_LIFT : BF_MASK_HOLD};
        put_command(0, 0, BF_CMD_MASK, &cmd);
        struct bf_cmd_conn_frame hello = {.conn = bf_conn_id_of(&fx.core.conns, s),
                                          .block = block_of_text("welcome;"),
                                          .flags = masked ? BF_CONN_MASKED : 0};
        put_command(0, 0, BF_CMD_WELCOME, &hello);
        conn_command(s, 1, BF_CMD_OPEN, 0, 0, 0, NULL);
        notify(masked ? "out" : "in", 1, 0, 1, "n;");
        (void)bf_commands_turn(&fx.commands);
        cr_assert_str_eq(take_sent(s, ALL), masked ? "welcome;" : "welcome;n;");
    }
}

/* A transient one that was queued before the connection was there is not for it. */
Test(channel, transient_waits_for_the_lane)
{
    fixture_start();
    uint32_t s = connect_user("a", 0);
    conn_command(s, 0, BF_CMD_WELCOME, 0, 0, 0, "welcome;");
    struct bf_cmd_frame cmd = {
        .user = user_of("a"), .block = block_of_text("early;"), .flags = BF_FRAME_TRANSIENT};
    put_command(0, 1, BF_CMD_NOTIFY, &cmd);
    conn_command(s, 1, BF_CMD_OPEN, 0, 0, 0, NULL);
    cmd.block = block_of_text("now;");
    put_command(0, 1, BF_CMD_NOTIFY, &cmd);
    (void)bf_commands_turn(&fx.commands);
    cr_assert_str_eq(take_sent(s, ALL), "welcome;now;");
}

/* One walk, four tenants that differ in either half of the hash: each gets its own. */
Test(channel, broadcasts_stay_in_their_tenant)
{
    fixture_start();
    static const uint64_t tenants[] = {0, UINT64_C(0x0000000500000007),
                                       UINT64_C(0x0000000500000008), UINT64_C(0x0000000600000007)};
    static const char *const names[] = {"a", "b", "c", "d"};
    uint32_t slots[4];
    for (uint32_t i = 0; i < 4; i++) {
        slots[i] = live_user(names[i], 0);
        struct bf_conn_hot *hot = bf_hot(&fx.core, slots[i]);
        hot->user.hi = (hot->user.hi & ~(UINT64_C(0xffffffff) << BF_USER_KEY_TENANT_SHIFT)) |
                       (tenants[i] >> 32) << BF_USER_KEY_TENANT_SHIFT;
        bf_cold(&fx.core, slots[i])->tenant = (uint32_t)tenants[i];
        cr_assert_eq(bf_conn_tenant(&fx.core.conns, slots[i]), tenants[i]);
    }
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < 4; i++) {
            uint64_t bseq = round * 4 + i;
            struct bf_cmd_broadcast cmd = {.block = block_of_text(names[i]),
                                           .prev = bseq,
                                           .bseq = bseq + 1,
                                           .tenant = tenants[i]};
            put_command(1, BF_LANE_BULK, BF_CMD_BROADCAST, &cmd);
        }
        (void)bf_commands_turn(&fx.commands);
        while (bf_commands_jobs(&fx.commands, 100))
            continue;
        for (uint32_t i = 0; i < 4; i++)
            cr_assert_str_eq(take_sent(slots[i], ALL), names[i]);
    }
    cr_assert_eq(take_receipt(), BF_RCPT_NONE, "nobody is behind for what was not theirs");
}

Test(channel, ack_covers_only_what_was_sent)
{
    fixture_start();
    uint32_t s = live_user("a", 0);
    cr_assert_eq(bf_channel_ack(&fx.core, s, BF_LANE_NORMAL, 1), BF_ERR_DENIED);
    (void)offer(s, 1, 0, 1, "1", 0);
    (void)offer(s, 1, 1, 3, "3", 0);
    cr_assert_eq(bf_channel_ack(&fx.core, s, BF_LANE_NORMAL, 1), BF_ERR_DENIED, "still queued");
    (void)take_sent(s, ALL);
    cr_assert_eq(bf_channel_ack(&fx.core, s, BF_LANE_NORMAL, 2), 0);
    cr_assert_eq(bf_channel_ack(&fx.core, s, BF_LANE_NORMAL, 3), 0);
    cr_assert_eq(bf_channel_ack(&fx.core, s, BF_LANE_NORMAL, 1), 0, "a repeat is no offence");
    cr_assert_eq(bf_channel_ack(&fx.core, s, BF_LANE_NORMAL, 4), BF_ERR_DENIED);
    cr_assert_eq(bf_channel_ack(&fx.core, s, BF_LANE_BULK, 1), BF_ERR_DENIED);
    cr_assert_eq(take_receipt(), BF_RCPT_ACK);
    const struct bf_rcpt_ack *rcpt = (const void *)fx.message;
    cr_assert_eq(rcpt->from, 0);
    cr_assert_eq(rcpt->to, 3, "two acknowledgements are one receipt");
    cr_assert_eq(take_receipt(), BF_RCPT_NONE);
}

Test(channel, close_drops_and_returns_everything)
{
    fixture_start();
    uint32_t s = live_user("a", 0);
    (void)take_returns();
    (void)offer(s, 1, 0, 1, "1", 0);
    (void)offer(s, 0, 0, 1, "2", 0);
    bf_life_gone(&fx.core, s, 0);
    cr_assert_eq(take_returns(), 2);
    cr_assert_eq(take_receipt(), BF_RCPT_GONE);
    cr_assert_eq(bf_users_find(&fx.core.users, &fx.core.conns, user_of("a")), BF_SLOT_NONE);
    cr_assert_eq(fx.core.nodes.used, 0);
}
