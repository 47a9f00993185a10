/*
 * Connections at once of each address, on all workers together: the one table that workers share,
 * and only while admission.per_address is on. A count-min sketch: an address has a counter in each
 * row, by its keyed hash, and its number is the smallest of them. That is never too low. It is too
 * high only if other addresses share all of its counters, which does not happen in practice: a row
 * has twice as many places as there are connections, and nobody outside can choose the hashes. No
 * locks, no places to free.
 *
 * Owner: the plane, which maps it before the workers start. Any worker counts.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "memory/arena.h"

#define BF_ADDRESS_ROWS 4u

struct bf_address_counts {
    _Atomic uint32_t *cells; /* BF_ADDRESS_ROWS rows of mask + 1 */
    uint64_t mask;
};

/* Room for |connections| at once on the node. 0 or BF_ERR_NO_MEMORY. Untouched pages cost nothing.
 */
int bf_address_counts_init(struct bf_address_counts *counts, struct bf_arena *arena,
                           uint64_t connections);
/* Counts one more of |key| if that makes at most |limit|. If two come for the last place at the
 * same instant both may be refused, but never are both taken. */
bool bf_address_counts_take(struct bf_address_counts *counts, uint64_t key, uint32_t limit);
/* One that was taken has ended. */
void bf_address_counts_put(struct bf_address_counts *counts, uint64_t key);
