/*
 * A connection that takes server-sent events: its queue holds the same frames as a WebSocket's, and
 * they become events when a send is built, in the worker's copy arena (proto/http1/sse.h). What it
 * needs beyond its connection record is where it stands, for the id of each event. Owner: one
 * worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "channel/worker_core.h"
#include "proto/http1/sse.h"

struct bf_send;
struct bf_node;

struct bf_sse_client {
    struct bf_sse_id at;     /* what has left, whole */
    struct bf_sse_id resume; /* what Last-Event-ID said; epoch_len 0: nothing */
    uint8_t opened;          /* a bit a stream */
    bool resumed;            /* the WELCOME said so: |resume| holds */
};

/* Makes the connection an event stream. False: no room. */
bool bf_sse_client_start(struct bf_worker_core *core, uint32_t slot,
                         const struct bf_sse_id *resume);
/* With the slot's end. */
void bf_sse_client_drop(struct bf_worker_core *core, uint32_t slot);

/* The WELCOME's frame: epoch, and whether the resume holds. */
void bf_sse_client_welcome(struct bf_worker_core *core, uint32_t slot, struct bf_bytes frame);
/* A stream has opened at |seq|. A lane that resumed where Last-Event-ID stands acknowledges it. */
void bf_sse_client_open(struct bf_worker_core *core, uint32_t slot, uint32_t stream, uint64_t seq);

/* As bf_channel_batch: as much as fits |cap|, from where the last send ended. */
struct bf_send bf_sse_client_batch(struct bf_worker_core *core, uint32_t slot, uint8_t *buffer,
                                   size_t cap);
/* Bytes of the queue's first node as events. */
size_t bf_sse_client_bytes(struct bf_worker_core *core, uint32_t slot, const struct bf_node *node);
/* The first node has left whole. */
void bf_sse_client_passed(struct bf_worker_core *core, uint32_t slot, const struct bf_node *node);
