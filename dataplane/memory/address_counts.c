/* See address_counts.h. */
#include "memory/address_counts.h"

#include "belfry/base/err.h"

#define ROW_CELLS_MIN 64u

int bf_address_counts_init(struct bf_address_counts *counts, struct bf_arena *arena,
                           uint64_t connections)
{
    uint64_t cells = ROW_CELLS_MIN;
    while (cells < 2 * connections)
        cells *= 2;
    counts->mask = cells - 1;
    counts->cells =
        bf_arena_take(arena, "addresses", BF_ADDRESS_ROWS * cells, sizeof(*counts->cells));
    return counts->cells ? 0 : BF_ERR_NO_MEMORY;
}

/* Two halves of one hash make the hashes of all rows. */
static _Atomic uint32_t *cell_of(struct bf_address_counts *counts, uint64_t key, uint32_t row)
{
    uint64_t at = (uint32_t)key + row * ((key >> 32) | 1u);
    return &counts->cells[row * (counts->mask + 1) + (at & counts->mask)];
}

bool bf_address_counts_take(struct bf_address_counts *counts, uint64_t key, uint32_t limit)
{
    uint32_t least = UINT32_MAX;
    /* seq_cst for both: of two workers that count at once at least one reads what the other has
     * added to every row, so the last place is not given twice. An accept, not a message: it may
     * cost */
    for (uint32_t row = 0; row < BF_ADDRESS_ROWS; row++)
        atomic_fetch_add_explicit(cell_of(counts, key, row), 1, memory_order_seq_cst);
    for (uint32_t row = 0; row < BF_ADDRESS_ROWS; row++) {
        uint32_t count = atomic_load_explicit(cell_of(counts, key, row), memory_order_seq_cst);
        least = count < least ? count : least;
    }
    if (least <= limit)
        return true;
    bf_address_counts_put(counts, key);
    return false;
}

void bf_address_counts_put(struct bf_address_counts *counts, uint64_t key)
{
    /* relaxed: a place becomes free a moment earlier or later; nothing else is told by it */
    for (uint32_t row = 0; row < BF_ADDRESS_ROWS; row++)
        atomic_fetch_sub_explicit(cell_of(counts, key, row), 1, memory_order_relaxed);
}
