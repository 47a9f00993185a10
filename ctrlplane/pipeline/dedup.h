/*
 * The same logical event from several producers (ING-5): of events with one dedup_key each
 * recipient gets the first within fanout.dedup_window, and later ones are suppressed for that
 * recipient alone. A topic, or everybody, counts as one recipient. The one consumer thread decides,
 * in the order of the log; a replay of the first finds its own id.
 */
#pragma once

#include <stdbool.h>

#include "fanout/core_state.h"
#include "ingest/event.h"

/* Takes recipients who have had it out of |event|, behind those who are left in its list, and puts
 * an outcome for each into |batch|, which the caller writes. Their number; *ret_none: nobody is
 * left. */
uint32_t bf_dedup_take(struct bf_core *core, struct bf_batch *batch, struct bf_event *event,
                       bool *ret_none);
