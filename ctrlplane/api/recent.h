/*
 * Events accepted a moment ago, whose status row the pipeline has yet to write: so that the status of an
 * id that was just given in a 202 is "queued", not 404. A fixed table; a newer event may take an older
 * one's place, by then its row is written. Any server thread.
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
