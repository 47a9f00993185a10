/* Compressed copies: one for all who agreed to the same window, another for each other window; a
 * new use of a block gets a new copy; small frames, replays, noise and what is over a bound leave
 * as they are; a copy is held as long as it is queued, through short sends, and given back once. */
#include "core_fixture.h"

#include "belfry/base/ws_frame.h"
#include "proto/ws/deflate.h"

static struct bf_packed copies[BF_PACKED_COPIES];

static void packs_start(void)
{
    fixture_start();
    fx.core.packs =
        (struct bf_packs){.deflater = bf_deflater_create(),
                          .copies = copies,
                          .bytes = malloc((size_t)BF_PACKED_COPIES * BF_PACKED_BYTES_MAX),
                          .payload_min = 128};
    bf_packs_turn(&fx.core.packs);
}

static uint32_t live_with(const char *user, uint8_t bits)
{
    uint32_t slot = live_user(user, 0);
    bf_conn_set_deflate(&fx.core.conns, slot, bits);
    return slot;
}

/* A block with one text frame of |len| bytes of |letter|, ' ' for noise; |frames| of them. */
static struct bf_block_ref block_of(size_t len, char letter, unsigned frames)
{
    struct bf_block_ref ref = block_of_text("");
    struct bf_block *block = &bf_blocks(fx.region)[ref.index];
    uint8_t *out = bf_block_data(fx.region, block);
    uint32_t seed = 1;
    cr_assert_leq((len + 4) * frames, block->cap);
    for (unsigned f = 0; f < frames; f++) {
        out += bf_ws_header_write(out, BF_WS_TEXT, len);
        for (size_t i = 0; i < len; i++)
            *out++ = letter == ' ' ? (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24)
                                   : (uint8_t)letter;
    }
    block->len = (uint32_t)(out - (uint8_t *)bf_block_data(fx.region, block));
    return ref;
}

static void offer(uint32_t slot, struct bf_block_ref ref, uint64_t seq)
{
    const struct bf_frame frame = {.block = ref.index, .stream = 1, .prev = seq - 1, .seq = seq};
    cr_assert_not_null(bf_holds_take(&fx.core.holds, ref));
    cr_assert_eq(bf_channel_offer(&fx.core, slot, &frame), BF_OFFER_QUEUED);
    bf_holds_drop(&fx.core.holds, ref.index);
}

/* First byte of what leaves next, and all of it is taken. */
static uint8_t first_sent(uint32_t slot)
{
    static uint8_t buffer[16384];
    struct bf_send batch = bf_channel_batch(&fx.core, slot, buffer, sizeof(buffer));
    uint8_t first = batch.len > 0 ? batch.bytes[0] : 0;
    (void)bf_channel_sent(&fx.core, slot, batch.len);
    return first;
}

#define PACKED (0x80u | BF_WS_RSV1 | BF_WS_TEXT)
#define PLAIN  (0x80u | BF_WS_TEXT)

Test(packed, one_copy_for_a_window)
{
    packs_start();
    uint32_t a = live_with("a", 15), b = live_with("b", 15), c = live_with("c", 9);
    uint32_t d = live_with("d", 0);
    struct bf_block_ref ref = block_of(200, 'x', 1);
    const uint32_t slots[] = {a, b, c, d};
    (void)take_returns();
    cr_assert_not_null(bf_holds_take(&fx.core.holds, ref));
    for (unsigned i = 0; i < 4; i++) {
        const struct bf_frame frame = {.block = ref.index, .stream = 1, .prev = 0, .seq = 1};
        cr_assert_eq(bf_channel_offer(&fx.core, slots[i], &frame), BF_OFFER_QUEUED);
    }
    bf_holds_drop(&fx.core.holds, ref.index);
    cr_assert_eq(metric(BF_M_blocks_packed), 2);
    cr_assert_eq(metric(BF_M_frames_packed), 3);
    cr_assert_eq(fx.core.holds.by_block[ref.index].count, 1, "only d needs the block itself");
    cr_assert_eq(first_sent(d), PLAIN);
    cr_assert_eq(take_returns(), 1);
    cr_assert_eq(first_sent(a), PACKED);
    cr_assert_eq(first_sent(b), PACKED);
    cr_assert_eq(first_sent(c), PACKED);
    for (unsigned i = 0; i < BF_PACKED_COPIES; i++)
        cr_assert_eq(copies[i].holders, 0);
    cr_assert_eq(fx.core.nodes.used, 0);
}

Test(packed, a_new_use_of_a_block_is_a_new_copy)
{
    packs_start();
    uint32_t a = live_with("a", 15);
    struct bf_block_ref ref = block_of(200, 'x', 1);
    offer(a, ref, 1);
    cr_assert_eq(first_sent(a), PACKED);
    (void)take_returns();
    fx.next_block = ref.index;
    struct bf_block_ref again = block_of(200, 'y', 1);
    cr_assert(again.index == ref.index && again.lap == ref.lap + 1);
    offer(a, again, 2);
    cr_assert_eq(metric(BF_M_blocks_packed), 2);
}

Test(packed, what_leaves_as_it_is)
{
    packs_start();
    uint32_t a = live_with("a", 15);
    offer(a, block_of(100, 'x', 1), 1); /* small */
    cr_assert_eq(first_sent(a), PLAIN);
    offer(a, block_of(240, ' ', 1), 2); /* does not shrink */
    cr_assert_eq(first_sent(a), PLAIN);
    struct bf_block_ref replay = block_of(110, 'x', 2); /* two frames in a block */
    offer(a, replay, 3);
    cr_assert_eq(first_sent(a), PLAIN);
    fx.core.packs.turn_left = 10; /* this turn has compressed enough */
    offer(a, block_of(200, 'x', 1), 4);
    cr_assert_eq(first_sent(a), PLAIN);
    bf_packs_turn(&fx.core.packs);
    offer(a, block_of(200, 'x', 1), 5);
    cr_assert_eq(first_sent(a), PACKED);
    cr_assert_eq(metric(BF_M_blocks_packed), 1);
}

Test(packed, noise_is_tried_once)
{
    packs_start();
    uint32_t a = live_with("a", 15), b = live_with("b", 15);
    struct bf_block_ref ref = block_of(240, ' ', 1);
    cr_assert_not_null(bf_holds_take(&fx.core.holds, ref));
    uint32_t before = fx.core.packs.turn_left;
    const struct bf_frame frame = {.block = ref.index, .stream = 1, .prev = 0, .seq = 1};
    (void)bf_channel_offer(&fx.core, a, &frame);
    uint32_t after = fx.core.packs.turn_left;
    (void)bf_channel_offer(&fx.core, b, &frame);
    cr_assert_lt(after, before);
    cr_assert_eq(fx.core.packs.turn_left, after);
}

Test(packed, all_copies_held)
{
    packs_start();
    uint32_t a = live_with("a", 15);
    for (unsigned i = 0; i < BF_PACKED_COPIES; i++)
        copies[i] = (struct bf_packed){.block = 1u << 30, .lap = 1, .holders = 1, .len = 1};
    offer(a, block_of(200, 'x', 1), 1);
    cr_assert_eq(first_sent(a), PLAIN);
}

Test(packed, short_sends_and_drops)
{
    packs_start();
    uint32_t a = live_with("a", 15);
    static uint8_t buffer[4096];
    offer(a, block_of(200, 'x', 1), 1);
    offer(a, block_of(200, 'y', 1), 2);
    struct bf_send whole = bf_channel_batch(&fx.core, a, buffer, sizeof(buffer));
    uint8_t want[256];
    size_t want_len = whole.len;
    memcpy(want, whole.bytes, want_len);
    (void)bf_channel_sent(&fx.core, a, 3);
    struct bf_send rest = bf_channel_batch(&fx.core, a, buffer, sizeof(buffer));
    cr_assert_eq(rest.len, want_len - 3);
    cr_assert_eq(memcmp(rest.bytes, want + 3, rest.len), 0);
    (void)bf_channel_sent(&fx.core, a, 0);
    bf_life_gone(&fx.core, a, 0);
    for (unsigned i = 0; i < BF_PACKED_COPIES; i++)
        cr_assert_eq(copies[i].holders, 0);
    cr_assert_eq(fx.core.nodes.used, 0);
}
