/*
 * The record: one JSON line for each request that a provider decided on, in a file, for the ledger
 * checker. Workers put entries into a byte ring of their own (SPSC), a writer thread formats and
 * writes them. Nothing is dropped: a worker whose ring is full waits, and so does its client.
 * Memory is bounded by the rings.
 */
#pragma once

#include "sim_types.h"

#define SIM_RECORD_RING_BYTES (8u << 20) /* per worker: 20,000 entries without payload */
#define SIM_RECORD_TAIL_MAX                                                                        \
    (4u << 20) /* bytes of the file that a GET /record?tail=N looks through */

struct sim_entry {
    int64_t time_us; /* since 1970, when the answer was decided */
    enum sim_provider_id provider;
    uint64_t conn;
    int32_t stream;
    uint16_t status; /* 0: not processed */
    const char *reason;
    uint64_t latency_us; /* drawn: the answer leaves that much later */
    const struct sim_request *q;
    const struct sim_answer *a; /* token, topic, id; NULL when not processed */
};

struct sim_record;

/* Starts the writer. NULL after a line on stderr. */
struct sim_record *sim_record_create(const char *path, unsigned workers, bool with_payload);
/* Writes what is left, stops the writer. */
void sim_record_destroy(struct sim_record *r);

/* Worker |worker|'s thread alone. */
void sim_record_put(struct sim_record *r, unsigned worker, const struct sim_entry *e);

/* Waits until everything put before is in the file. Returns the lines in it. Any thread. */
uint64_t sim_record_flush(struct sim_record *r);
/* Times that a worker found its ring full. */
uint64_t sim_record_waits(const struct sim_record *r);
const char *sim_record_path(const struct sim_record *r);
