/*
 * Jobs: expansion of a topic event to its subscribers, or of a broadcast that asks for push to
 * those who have devices (a broadcast topic: to its subscribers), however many, in chunks with a
 * checkpoint (DESIGN 4.2, FAN-2, FAN-3). The event settles when its job row is durable; the job
 * goes on after any restart at its cursor. One thread; lanes in priority order, each lane in order
 * of arrival, so that order per (user, topic, lane) holds.
 */
#pragma once

#include "fanout/core_state.h"

struct bf_jobs;

int bf_jobs_create(struct bf_core *core, struct bf_jobs **ret);
/* Loads unfinished jobs of earlier runs and starts the thread; runs while core->ready. */
int bf_jobs_start(struct bf_jobs *jobs);
/* Writes the job row; the event's one reference is the job's from then on. |is_push_only|: in-app
 * the event is on the broadcast log already. Pipeline thread. */
int bf_jobs_add(struct bf_jobs *jobs, struct bf_event *event, struct bf_bytes meta,
                struct bf_bytes body, bool is_push_only);
void bf_jobs_stop(struct bf_jobs *jobs);
void bf_jobs_destroy(struct bf_jobs *jobs);
