/*
 * Receipts thread: the one consumer of all workers' receipts rings. Reads in order, hands each
 * message to the shard of its user, and releases ring slots up to the first message that its shard
 * has not made durable yet (DESIGN 2 "Receipts").
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fanout/core_state.h"

struct bf_receipts;

/* Takes over the consuming ends and starts the thread. Receipts that were not released are read
 * again. */
int bf_receipts_start(struct bf_core *core, struct bf_region *region, struct bf_receipts **ret);
/* Reads everything that is in the rings, waits until the shards have made it durable, then stops.
 */
void bf_receipts_drain_and_stop(struct bf_receipts *r);
/* Waits until every worker answered the census with this ticket; false after |timeout_ms|. */
bool bf_receipts_wait_census(struct bf_receipts *r, uint64_t ticket, uint32_t timeout_ms);
