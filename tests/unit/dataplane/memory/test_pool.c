/* Proven: slabs hand out each item once and touch none that was never needed; connection slots keep
 * to their ring's range, change generation at reuse, and an old id is not found; the ready list
 * keeps its order around its end; a block goes back to its producer exactly once, when its last
 * holder lets go, and a reference of another lap is refused. */
#include "core_fixture.h"

#include "memory/arena.h"

Test(slab, hands_out_each_once)
{
    struct bf_slab slab;
    fixture_slab(&slab, 3, 8);
    uint32_t a = bf_slab_take(&slab), b = bf_slab_take(&slab), c = bf_slab_take(&slab);
    cr_assert(a != b && b != c && a != c);
    cr_assert_eq(bf_slab_take(&slab), 0);
    bf_slab_put(&slab, b);
    cr_assert_eq(bf_slab_take(&slab), b);
    cr_assert_eq(slab.used, 3);
}

Test(arena, is_zeroed_and_named)
{
    struct bf_arena arena = {0};
    struct bf_slab slab;
    uint64_t *at = bf_arena_take(&arena, "numbers", 1000, sizeof(uint64_t));
    cr_assert_eq(at[999], 0);
    cr_assert_eq(bf_arena_slab(&arena, "items", 10, 24, &slab), 0);
    cr_assert_eq(arena.count, 2);
    cr_assert_geq(arena.bytes, 8000 + 240);
    bf_arena_fini(&arena);
}

Test(arena, a_wide_piece_starts_on_its_pages_and_goes_whole)
{
    struct bf_arena arena = {0};
    const uint64_t wide = UINT64_C(2) << 20, items = 4 * wide + 4097;
    uint8_t *small = bf_arena_take_wide(&arena, "small", 100, 8);
    uint8_t *large = bf_arena_take_wide(&arena, "large", items, 2);
    cr_assert_neq(small, NULL);
    cr_assert_eq((uintptr_t)large % wide, 0);
    for (uint64_t i = 0; i < 2 * items; i += 4096)
        cr_assert_eq(large[i], 0);
    large[2 * items - 1] = 1;
    cr_assert_eq(arena.pieces[1].mapped_bytes, 8 * wide + 3 * 4096);
    bf_arena_fini(&arena);
    cr_assert_eq(arena.bytes, 0);
}

Test(ready, keeps_order_around_its_end)
{
    fixture_start();
    struct bf_ready *list = &fx.core.ready;
    uint32_t next_in = 0, next_out = 0;
    for (uint32_t round = 0; round < 200; round++) {
        uint32_t n = round % 7 == 0 ? list->cap - list->count : 5;
        for (; n > 0 && list->count < list->cap; n--)
            bf_ready_append(list, next_in++);
        for (uint32_t out = round % 5 == 0 ? list->count : 3; out > 0 && list->count > 0; out--)
            cr_assert_eq(bf_ready_pop(list), next_out++);
    }
    while (list->count > 0)
        cr_assert_eq(bf_ready_pop(list), next_out++);
    cr_assert_eq(next_in, next_out);
    cr_assert_eq(list->head, 0, "starts over when empty");
}

Test(conn, slots_keep_to_their_ring)
{
    fixture_start();
    struct bf_conns *conns = &fx.core.conns;
    uint32_t a = bf_conn_take(conns, 0);
    uint32_t b = bf_conn_take(conns, 1);
    cr_assert_eq(a, 0);
    cr_assert_eq(b, FIXTURE_CONNECTIONS / 2);
    cr_assert_eq(bf_conns_skip(conns, 1), b);
    cr_assert_eq(bf_conns_skip(conns, b + 1), conns->cap);
}

Test(conn, an_old_id_is_not_found)
{
    fixture_start();
    struct bf_conns *conns = &fx.core.conns;
    uint32_t slot = bf_conn_take(conns, 0);
    conns->hot[slot].state = BF_CONN_HTTP;
    bf_conn_id old = bf_conn_id_of(conns, slot);
    cr_assert_eq(bf_conn_find(conns, old), slot);
    bf_conn_put(conns, slot);
    cr_assert_eq(bf_conn_take(conns, 0), slot);
    conns->hot[slot].state = BF_CONN_HTTP;
    cr_assert_eq(bf_conn_find(conns, old), BF_SLOT_NONE);
    cr_assert_eq(bf_conn_find(conns, UINT64_MAX), BF_SLOT_NONE);
    cr_assert_eq(bf_conn_find(conns, 0), BF_SLOT_NONE);
}

Test(conn, a_full_ring_refuses)
{
    fixture_start();
    for (uint32_t i = 0; i < FIXTURE_CONNECTIONS / 2; i++)
        cr_assert_neq(bf_conn_take(&fx.core.conns, 0), BF_SLOT_NONE);
    cr_assert_eq(bf_conn_take(&fx.core.conns, 0), BF_SLOT_NONE);
    cr_assert_neq(bf_conn_take(&fx.core.conns, 1), BF_SLOT_NONE);
}

Test(holds, returned_once_by_the_last_holder)
{
    fixture_start();
    struct bf_holds *holds = &fx.core.holds;
    struct bf_block_ref ref = block_of_text("x");
    cr_assert_not_null(bf_holds_take(holds, ref));
    bf_holds_add(holds, ref.index);
    bf_holds_drop(holds, ref.index);
    cr_assert_eq(take_returns(), 0);
    bf_holds_drop(holds, ref.index);
    cr_assert_eq(take_returns(), 1);
    cr_assert_eq(holds->held, 0);
}

Test(holds, another_lap_is_refused)
{
    fixture_start();
    struct bf_holds *holds = &fx.core.holds;
    struct bf_block_ref ref = block_of_text("x");
    struct bf_block_ref wrong = {.index = ref.index, .lap = ref.lap + 1};
    cr_assert_null(bf_holds_take(holds, wrong));
    wrong.index = UINT32_MAX;
    cr_assert_null(bf_holds_take(holds, wrong));
    cr_assert_not_null(bf_holds_take(holds, ref));
    /* the owner must not reuse what we hold; a reference that says so is not believed */
    atomic_store(&bf_blocks(fx.region)[ref.index].lap, ref.lap + 1);
    wrong = (struct bf_block_ref){.index = ref.index, .lap = ref.lap + 1};
    cr_assert_null(bf_holds_take(holds, wrong));
}

Test(holds, bitmap_shows_what_is_held)
{
    fixture_start();
    struct bf_holds *holds = &fx.core.holds;
    struct bf_block_ref a = block_of_text("a");
    struct bf_block_ref b = block_of_text("b");
    (void)bf_holds_take(holds, a);
    (void)bf_holds_take(holds, b);
    bf_holds_drop(holds, a.index);
    _Atomic uint64_t *bitmap = bf_census_bitmap(fx.region, 0);
    cr_assert_eq(bf_holds_bitmap(holds, bitmap), 1);
    cr_assert_eq(atomic_load(&bitmap[b.index / 64]), UINT64_C(1) << b.index % 64);
}
