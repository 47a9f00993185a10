/* Between the files of outbound/. The shard's thread. */
#pragma once

#include "outbound/outbound.h"

/* Reason of a row whose last attempt may have arrived (BF_LEG_MAY_BE_OUT). */
#define BF_NO_RECEIPT "no_receipt"

/* attempts.c */
uint64_t bf_attempt_id(const struct bf_leg_row *row);
/* By the id that a worker knows; its low byte is not looked at. NULL: none. */
struct bf_outstanding *bf_outstanding_find(const struct bf_outbound *o, uint64_t id);
/* The attempt that |row| waits for. NULL: it is not out. */
struct bf_outstanding *bf_outstanding_of(const struct bf_outbound *o, const struct bf_leg_row *row);
/* NULL: no memory, or as many are out as may. */
struct bf_outstanding *bf_outstanding_add(struct bf_outbound *o, const struct bf_offer *offer,
                                          const struct bf_endpoint *endpoint);
void bf_outstanding_drop(struct bf_outbound *o, struct bf_outstanding *out);

/* pools.c. The pool, made at its first use. NULL: no room. */
struct bf_pool *bf_pool_get(struct bf_outbound *o, uint8_t channel, uint8_t kind,
                            const struct bf_pool_info *info);
void bf_endpoint_slow(struct bf_outbound *o, const struct bf_id *endpoint, uint64_t until_ms);
uint64_t bf_endpoint_slow_until(const struct bf_outbound *o, const struct bf_id *endpoint);

/* ends.c. An outcome of an attempt that is not the last. */
void bf_offer_note(struct bf_outbound *o, const struct bf_leg_row *row, enum bf_status status,
                   const char *reason);
/* The event of the offer, if it has one, has one leg less. True: commit before more settle. */
bool bf_offer_settle(struct bf_outbound *o, struct bf_offer *offer);

/* due.c. The scan sees |row|, whose batch is not written yet. */
void bf_due_note(struct bf_outbound *o, const struct bf_leg_row *row);
/* answer.c. Attempts that had no answer within BF_ATTEMPT_MS go back into the queue. */
void bf_outbound_sweep(struct bf_outbound *o);
