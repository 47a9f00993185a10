/*
 * What people see of push: the last report of each worker on each pool (BF_RCPT_POOL), and what the
 * shards hold of a pool (breaker, rate, flights). For status and metrics only: nothing is decided
 * by it. One view a core, BF_PUSH_POOLS_MAX pools by BF_WORKERS_MAX workers. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/shm/push_wire.h"
#include "channels/push/push_breaker.h"

struct bf_core;
struct bf_push_pool_state;
struct bf_push_view;

/* NULL: no memory. */
struct bf_push_view *bf_push_view_create(void);
void bf_push_view_destroy(struct bf_push_view *view); /* NULL is fine */

/* Takes a receipt: struct bf_rcpt_pool and its text. False: malformed. A pool too many takes the
 * place of the one that was not heard of for longest. */
bool bf_push_view_take(struct bf_push_view *view, const void *bytes, uint32_t len, uint64_t now_ms);
/* Detached: no worker holds a connection any more. NULL is fine. */
void bf_push_view_forget(struct bf_push_view *view);

/* A pool on all workers together. */
struct bf_push_report {
    uint32_t workers; /* that reported; 0: nobody has */
    uint32_t connections, connecting;
    uint32_t streams, streams_max, waiting;
    uint64_t failures, goaways;           /* since the pool was made */
    uint64_t text_ms;                     /* wall: when the text below was first heard; 0: none */
    char text[BF_PUSH_POOL_TEXT_MAX + 1]; /* of the last failure or GOAWAY */
};
/* False: no worker has reported the pool; *ret is then empty. */
bool bf_push_view_get(struct bf_push_view *view, uint32_t pool, struct bf_push_report *ret);

/* A pool as the shards see it, together. */
struct bf_push_sight {
    uint32_t pool;
    enum bf_breaker_state breaker; /* the worst */
    uint32_t opened_count;         /* sum: each shard's breaker opens by itself */
    uint32_t flights;
    uint32_t cuts;
    uint64_t limit_per_min, rate_per_min; /* sum of the shares; 0: no limit */
    uint64_t stopped_until_ms;            /* wall, the latest; 0: not stopped */
    uint64_t failed_over, failed_over_ms; /* sum; wall, the latest, 0: none */
};
/* Sorted by nothing; found by bf_push_sight_find. 12 KB: keep it off a small stack. */
struct bf_push_sights {
    uint32_t count;
    struct bf_push_sight at[BF_PUSH_POOLS_MAX];
};
/* Adds a shard's pools (BF_PUSH_POOLS_MAX places, id 0: unused; NULL: push is off) to |sum|. */
void bf_push_sights_add(struct bf_push_sights *sum, const struct bf_push_pool_state *pools);
/* How much is wrong: 0 closed, 1 ramp, 2 probe, 3 open. */
unsigned bf_push_badness(enum bf_breaker_state state);
/* NULL: no shard has used the pool yet. */
const struct bf_push_sight *bf_push_sight_find(const struct bf_push_sights *sights, uint32_t pool);
/* As bf_push_view_get of the core's view. */
bool bf_core_push_report(struct bf_core *core, uint32_t pool, struct bf_push_report *ret);
/* Asks every shard in turn; waits as bf_core_run_on. Any thread but a shard's. */
int bf_core_look_at_push(struct bf_core *core, struct bf_push_sights *ret);
