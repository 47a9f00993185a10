/*
 * Events that were accepted a moment ago and whose status row the pipeline has not written yet, so
 * that the status of an id from a 202 is "queued" and not 404. A table of fixed size: a newer event
 * may replace an older one, whose row is written by then. Any server thread.
 */
#pragma once

#include <stdbool.h>

#include "ingest/event.h"

struct bf_recent;

struct bf_recent_row {
    struct bf_id id;
    uint64_t accepted_ms;
    char tenant[BF_TENANT_BYTES_MAX + 1];
    char producer[65];
    char traceparent[56];
};

struct bf_recent *bf_recent_create(void);
void bf_recent_destroy(struct bf_recent *recent); /* NULL is fine */
void bf_recent_put(struct bf_recent *recent, const struct bf_event_meta *meta);
bool bf_recent_get(struct bf_recent *recent, const struct bf_id *id, struct bf_recent_row *ret);
