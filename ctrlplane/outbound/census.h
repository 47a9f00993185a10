/*
 * Ids of attempts that workers held when they were asked (BF_RCPT_CENSUS_PUSH), of all shards.
 * Written by the receipts thread before the census is complete, read and cleared by shards after
 * it; a shard clears its own.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/id.h"

struct bf_attempt_census {
    _Atomic uint64_t *ids; /* open addressing; 0: free, 1: cleared */
    uint32_t mask;
};

/* Room for what |workers| can hold; forgets an earlier census. 0 or BF_ERR_NO_MEMORY. */
int bf_attempt_census_init(struct bf_attempt_census *census, uint32_t workers);
void bf_attempt_census_fini(struct bf_attempt_census *census);
void bf_attempt_census_add(struct bf_attempt_census *census, uint64_t id);
bool bf_attempt_census_has(const struct bf_attempt_census *census, uint64_t id);
void bf_attempt_census_forget(struct bf_attempt_census *census, uint64_t id);
/* The done mark of an answer whose message was not known when it came. */
void bf_attempt_orphan_id(uint64_t id, struct bf_id *ret);
