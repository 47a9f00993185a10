/* Making an event with its legs, in one allocation, and posting them. Pipeline and job threads. */
#pragma once

#include "fanout/core_state.h"

/* |event|: takes over one reference. raw_* are copied. NULL on no memory (the reference is
 * dropped). */
struct bf_open_event *bf_open_event_create(struct bf_event *event, uint32_t legs,
                                           struct bf_bytes raw_meta, struct bf_bytes raw_body);
/* Leg of recipient |index|; its uid must live as long as the open event. */
struct bf_leg *bf_open_event_leg(struct bf_open_event *open, uint32_t index);
/* Posts all legs to their users' shards. */
void bf_open_event_post(struct bf_core *core, struct bf_open_event *open, uint32_t legs);
void bf_open_event_free(struct bf_open_event *open);
