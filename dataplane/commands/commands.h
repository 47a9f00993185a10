/*
 * The consuming ends of the command rings: three lanes of every producer. Lanes are served in
 * strict priority, except for a small share that bulk always gets. A command is read in place,
 * acted on, then released; a slot that fails its check is counted and skipped. A command that
 * cannot be taken now (too many broadcasts wait, or there is no room for its receipt) stays in its
 * ring; when the ring is full, its producer has to wait. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "channel/worker_core.h"
#include "commands/broadcast.h"
#include "push/pools.h"

/* Commands a turn: at 50 ns each the whole burst costs less than five sends. */
#define BF_COMMANDS_PER_TURN 512u
/* Of these, so many are kept for bulk however busy the other lanes are, so that bulk always moves
 * on. */
#define BF_COMMANDS_BULK_SHARE 32u
/* Connections one turn reports in a census: ~300 ns each. */
#define BF_CENSUS_PER_TURN 256u
/* Connections one turn of a drain looks at. */
#define BF_DRAIN_SCAN_PER_TURN 4096u
/* Most go-aways one turn of a drain writes: a close is two frames and a send. */
#define BF_DRAIN_PER_TURN 128u

struct bf_census {
    bool active;
    bool draining; /* what was in the rings when the census came is still being taken */
    bool conns_done;
    uint64_t ticket;
    uint32_t cursor;
    uint32_t push_cursor;
    uint32_t reported;
    uint32_t until[BF_PRODUCERS_MAX][BF_LANE_COUNT]; /* ring positions that arrived before it */
};

struct bf_drain {
    uint64_t rate; /* connections a second, 0 = no drain */
    uint32_t reconnect_after_ms;
    uint32_t cursor;
    uint64_t credit_milli; /* thousandths of a connection that may go now */
    uint64_t last_ms;
    uint32_t random;
};

struct bf_commands {
    struct bf_worker_core *core;
    uint32_t producers;
    uint32_t first; /* producer served first; rotates */
    struct bf_ring_consumer rings[BF_PRODUCERS_MAX][BF_LANE_COUNT];
    struct bf_broadcasts broadcasts;
    struct bf_census census;
    struct bf_drain drain;
    /* --raw (worker/raw.h): takes a broadcast that is a trigger; NULL in normal operation */
    bool (*raw)(void *context, const struct bf_cmd_broadcast *cmd);
    void *raw_context;
    struct bf_push *push; /* NULL: none here, its commands are refused as impossible */
    uint64_t stamp_ns;    /* enqueue time of a stamped frame taken this turn, 0 none */
    bool work_due;        /* something stayed in a ring */
};

/* Takes over the consuming ends of the core's worker. */
void bf_commands_init(struct bf_commands *in, struct bf_worker_core *core);

/* One turn's commands. Returns how many were taken. */
uint32_t bf_commands_turn(struct bf_commands *in);
/* Goes on with broadcasts, census and drain, bounded. Returns true if more is to do at once. */
bool bf_commands_jobs(struct bf_commands *in, uint32_t sends_max);

/* Whether any ring holds commands; looks at the shared words (before sleeping). */
bool bf_commands_has_waiting(struct bf_commands *in);

/* Starts a drain (also at stop). rate 0 ends it. */
void bf_commands_drain(struct bf_commands *in, uint64_t rate, uint32_t reconnect_after_ms);
