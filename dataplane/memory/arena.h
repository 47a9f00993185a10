/*
 * All memory of a worker, mapped at the start and never later (TigerBeetle's rule). Each piece has
 * a named holder, and the sum is logged. Mappings are private and zeroed, and the system gives no
 * memory for pages that nobody has used, so a node that is configured for many connections pays
 * only for those that it holds. Thread: start of the worker.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "memory/slab.h"

/* One piece for each holder. The number of holders changes only with the design. */
#define BF_ARENA_PIECES_MAX 64u

struct bf_arena_piece {
    const char *holder;
    void *at;
    uint64_t count;
    uint64_t item_bytes;
    uint64_t mapped_bytes;
};

struct bf_arena {
    struct bf_arena_piece pieces[BF_ARENA_PIECES_MAX];
    uint32_t count;
    uint64_t bytes;
};

/* Maps |count| items of |item_bytes|, zeroed, aligned to a page. NULL when the system refuses. */
void *bf_arena_take(struct bf_arena *arena, const char *holder, uint64_t count,
                    uint64_t item_bytes);
/* As bf_arena_take, for a table that commands look into at random: if it is large, its whole 2 MB
 * are huge pages where the kernel has them, which saves a page walk a look-up. Such a table is
 * touched 2 MB at a time, so it is only for what a full node uses in full. */
void *bf_arena_take_wide(struct bf_arena *arena, const char *holder, uint64_t count,
                         uint64_t item_bytes);
/* As bf_arena_take, into a slab. Returns 0 or BF_ERR_NO_MEMORY. */
int bf_arena_slab(struct bf_arena *arena, const char *holder, uint32_t count, uint32_t item_bytes,
                  struct bf_slab *ret_slab);
/* Logs one line a holder and the sum. */
void bf_arena_log(const struct bf_arena *arena, uint32_t worker);
/* Unmaps everything. */
void bf_arena_fini(struct bf_arena *arena);
