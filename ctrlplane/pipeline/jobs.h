/*
 * Jobs: bring a topic's event to its subscribers, or a broadcast that asks for push to everyone who
 * has devices (of a broadcast topic: to its subscribers), however many there are, in chunks with a
 * checkpoint each (DESIGN 4.2, FAN-2, FAN-3). The event settles when its job is a durable row;
 * after a restart the job goes on at its cursor. One thread; lanes in priority order, each lane in
 * order of arrival, so that order per (user, topic, lane) holds.
 */
#pragma once

#include "fanout/core_state.h"

struct bf_jobs;

int bf_jobs_create(struct bf_core *core, struct bf_jobs **ret);
/* Loads unfinished jobs of earlier runs and starts the thread; runs while core->ready. */
int bf_jobs_start(struct bf_jobs *jobs);
/* Writes the job's row and takes over the event's one reference. |is_push_only|: the broadcast log
 * has the event for in-app already. Pipeline thread. */
int bf_jobs_add(struct bf_jobs *jobs, struct bf_event *event, struct bf_bytes meta,
                struct bf_bytes body, bool is_push_only);
void bf_jobs_stop(struct bf_jobs *jobs);
void bf_jobs_destroy(struct bf_jobs *jobs);
