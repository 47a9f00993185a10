/*
 * Control producer: broadcasts in log order to every worker, census, drains. Main thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "fanout/core_state.h"

struct bf_control {
    struct bf_core *core;
    struct bf_publisher pub;
    uint64_t published; /* last bseq given to the workers */
    uint64_t census_ticket;
};

void bf_control_attach(struct bf_control *c, struct bf_core *core, struct bf_region *region,
                       uint32_t generation);
/* Asks every worker; the answers come as receipts. Returns the ticket. */
uint64_t bf_control_census(struct bf_control *c);
/* After the census: takes over the blocks, and goes on broadcasting after |from|. */
int bf_control_ready(struct bf_control *c, uint64_t from);
/* Publishes what is new; returns false when some had to wait for room. */
bool bf_control_broadcast(struct bf_control *c);
void bf_control_drain(struct bf_control *c, uint32_t rate, uint32_t reconnect_after_ms);
