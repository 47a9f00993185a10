/* Idempotency rows as both databases keep them (the store for Kafka, the embedded log its own). */
#pragma once

#include "store/keys.h"
#include "store/value.h"

/* Bytes that the row's value takes at most. */
size_t bf_idem_bytes(const struct bf_idem_row *row);
/* Writes the value into |w|, format byte and expiry included. */
void bf_idem_encode(struct bf_writer *w, const struct bf_idem_row *row);
/* Hands the row of |key|, of which |stored| is the value, to |use|, whose result is returned.
 * BF_ERR_NOT_FOUND: it has expired. */
int bf_idem_use(struct bf_bytes key, struct bf_bytes stored, uint64_t now_ms,
                int (*use)(void *arg, const struct bf_idem_row *row), void *arg);
