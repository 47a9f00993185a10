/*
 * The eraser: makes an erasure physical (docs/ERASURE.md). The answer to DELETE comes when the
 * person's rows are deleted and nothing reaches them any more; their bytes are then still in data
 * files and in the log. A pass takes all erasures that are old enough for what was under way to
 * have ended, deletes what that left, rewrites the log's records and every data file that held any
 * of it. It takes at most a fifth of the time that passes, so that erasing all day long leaves the
 * disk to deliveries. One thread.
 */
#pragma once

#include "fanout/core_state.h"

struct bf_eraser;

/* NULL: no memory. Erasures that an earlier process left are gone on with. */
struct bf_eraser *bf_eraser_start(struct bf_core *core);
/* Ends a pass between two files. Erasures that wait get a last pass of a few seconds; what does not
 * fit goes on after the next start. Before the core is destroyed. NULL is fine. */
void bf_eraser_stop(struct bf_eraser *eraser);
