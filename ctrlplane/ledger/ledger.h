/*
 * Ledger (DESIGN 4.2): for each partition of the log, which events are still open, and the
 * watermark: the offset below which all events are settled. Events are opened in the order of their
 * offsets by the consumer thread, and settled by any thread in any order, without locks. How many
 * are open at once is limited for each partition.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BF_LEDGER_PARTITIONS_MAX 1024u

struct bf_ledger;

/* Names one open event. */
struct bf_ledger_ticket {
    uint32_t partition;
    uint32_t assignment;
    int64_t offset;
};

/* |inflight_max|: power of two. */
struct bf_ledger *bf_ledger_create(uint32_t inflight_max);
void bf_ledger_destroy(struct bf_ledger *ledger);

/* A partition (again) begins at |offset|; tickets of earlier assignments are void. Consumer thread.
 */
void bf_ledger_assign(struct bf_ledger *ledger, uint32_t partition, uint32_t assignment,
                      int64_t offset);
void bf_ledger_revoke(struct bf_ledger *ledger, uint32_t partition, uint32_t assignment);

/* Whether the partition is ours by this assignment: an event of another is not opened. Consumer
 * thread. */
bool bf_ledger_is_current(struct bf_ledger *ledger, uint32_t partition, uint32_t assignment);

/* Opens an event; offsets may have gaps (the skipped ones count as settled), never go back. Returns
 * false when the cap is reached: pause the partition, try again. Consumer thread. */
bool bf_ledger_open(struct bf_ledger *ledger, uint32_t partition, uint32_t assignment,
                    int64_t offset, struct bf_ledger_ticket *ret_ticket);
/* Offsets below |offset| that were never opened are no events and count as settled. False: no room
 * for so wide a gap while something is open; try again. Consumer thread. */
bool bf_ledger_skip(struct bf_ledger *ledger, uint32_t partition, uint32_t assignment,
                    int64_t offset);
/* Settled: delivered, suppressed, dead-lettered or written to the store. Any thread; void tickets
 * are ignored; settling twice is a bug. */
void bf_ledger_settle(struct bf_ledger *ledger, const struct bf_ledger_ticket *ticket);

/* First offset not yet settled (all below are). Returns false if the partition is not assigned.
 * Consumer thread. */
bool bf_ledger_watermark(struct bf_ledger *ledger, uint32_t partition, uint32_t *ret_assignment,
                         int64_t *ret_offset);
uint32_t bf_ledger_inflight(struct bf_ledger *ledger, uint32_t partition);
uint32_t bf_ledger_partitions(struct bf_ledger *ledger); /* highest assigned + 1 */
/* Age in ms (mono clock) of the oldest open event over all partitions; 0 = none open. */
uint64_t bf_ledger_oldest_ms(struct bf_ledger *ledger, uint64_t now_ms);
