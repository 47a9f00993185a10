/*
 * An accepted event while its legs are delivered: the log may forget it when the last of them has
 * its end or is durable in the store (DESIGN 4.2).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "ingest/event.h"
#include "ledger/ledger.h"

/* Settles when its last leg did. */
struct bf_open_event {
    struct bf_event *event; /* one reference */
    struct bf_ledger_ticket ticket;
    uint64_t opened_us; /* mono */
    _Atomic uint32_t legs_open;
    void (*settled)(struct bf_open_event *open); /* on the shard of the last leg; frees it */
    void *owner;
    bool is_job;                        /* one of the many chunks of an expansion */
    bool is_push_only;                  /* in-app it is on the broadcast log */
    bool write_row;                     /* leg 0 writes the event's status row */
    struct bf_bytes raw_meta, raw_body; /* as logged, for dead letters; live with this struct */
};
