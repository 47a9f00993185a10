/*
 * Pipeline: the log's one consumer thread. Polls, parses, opens each event in the ledger, posts its
 * legs to the shards of their users, makes jobs of topic events, appends broadcasts to the
 * broadcast log, and, after syncing the store, tells the log up to where each partition is settled
 * (DESIGN 4.2).
 */
#pragma once

#include "fanout/core_state.h"

struct bf_pipeline;

/* Starts paused: nothing is polled until bf_pipeline_resume (the census is in). */
int bf_pipeline_create(struct bf_core *core, struct bf_pipeline **ret);
const struct bf_log_hooks *bf_pipeline_hooks(struct bf_pipeline *p); /* for bf_log_open */
int bf_pipeline_start(struct bf_pipeline *p);
void bf_pipeline_resume(struct bf_pipeline *p);
/* Stops polling, waits (bounded) for open events, commits, joins. */
void bf_pipeline_stop(struct bf_pipeline *p);
void bf_pipeline_destroy(struct bf_pipeline *p);
