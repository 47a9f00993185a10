/*
 * The same logical event raised by several producers (ING-5): of all events with one dedup_key each
 * recipient gets the first within fanout.dedup_window; later ones are suppressed for that recipient
 * only. A topic, or everybody, counts as one recipient. The consumer thread decides, in the order
 * of the log. When the log gives the first event again it is recognised by its id.
 */
#pragma once

#include <stdbool.h>

#include "fanout/core_state.h"
#include "ingest/event.h"

/* Moves recipients who have had it already to the end of |event|'s list, after those who still get
 * it, and puts an outcome for each into |batch|, which the caller writes. Returns their number;
 * *ret_none: nobody is left. */
uint32_t bf_dedup_take(struct bf_core *core, struct bf_batch *batch, struct bf_event *event,
                       bool *ret_none);
