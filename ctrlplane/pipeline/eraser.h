/*
 * The eraser: makes an erasure physical (docs/ERASURE.md). DELETE is answered when the person's
 * rows are deleted and nothing can reach the person any more. Their bytes are then still in data
 * files and in the log. A pass of the eraser takes all erasures that are so old that work which was
 * under way has ended, deletes what that work left, and rewrites the records of the log and every
 * data file that held any of it. It runs at most a fifth of the time, so that constant erasing does
 * not slow deliveries down. One thread.
 */
#pragma once

#include "fanout/core_state.h"

struct bf_eraser;

/* NULL: no memory. Continues with erasures that an earlier process did not finish. */
struct bf_eraser *bf_eraser_start(struct bf_core *core);
/* Ends a pass between two files. Waiting erasures get a last pass of a few seconds; the rest is
 * done after the next start. Call it before the core is destroyed. NULL is fine. */
void bf_eraser_stop(struct bf_eraser *eraser);
