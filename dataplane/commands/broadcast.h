/*
 * Broadcasts as jobs: a walk over all connections, or over a topic's subscribers, cut into slices
 * so that critical frames overtake it. Everyone-broadcasts that wait together are walked together:
 * each connection gets them in one send. A broadcast belongs to one tenant: the walk skips
 * connections of other tenants.
 *
 * Position. `core->b_pos` is the bseq up to which walks have ended. A connection that is open for
 * broadcasts and not behind has all that was for it up to there, whether it was visited or its
 * topics left it out; so only connections that are behind, or were opened further on, keep a
 * position of their own (bf_channel_b_sent). A job whose prev is above b_pos means that a broadcast
 * did not get into the ring: its walk visits everyone, and each connection that lacks the missing
 * one is marked as behind. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "channel/worker_core.h"

/* Broadcasts that may wait here; more wait in their ring. Power of two. */
#define BF_JOBS_MAX 64u
/* Everyone-broadcasts walked together: their frames should still fit one coalesced send. */
#define BF_JOB_GROUP_MAX 16u
/* Slots a slice looks at, sent to or not: bounds the time over empty stretches. */
#define BF_WALK_SCAN_MAX 1024u

struct bf_job {
    uint32_t block; /* index, held */
    uint32_t reserved;
    uint64_t prev;
    uint64_t bseq;
    uint64_t topic;  /* 0: everyone of the tenant */
    uint64_t tenant; /* bf_tenant_hash */
};

struct bf_broadcasts {
    struct bf_job jobs[BF_JOBS_MAX];
    uint32_t head;
    uint32_t tail;
    uint32_t group;  /* jobs of the walk under way, 0 = none */
    bool everyone;   /* it visits all slots (no topic, or a gap) */
    uint32_t cursor; /* slot */
};

/* Takes a broadcast whose block is held. False: no room, leave it in its ring. */
bool bf_broadcast_add(struct bf_broadcasts *b, struct bf_worker_core *core,
                      const struct bf_job *job);
/* One slice: at most |sends_max| connections get frames. Returns true if a walk is under way or
 * due. */
bool bf_broadcast_slice(struct bf_broadcasts *b, struct bf_worker_core *core, uint32_t sends_max);
