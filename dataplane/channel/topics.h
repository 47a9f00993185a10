/*
 * Topic -> subscribers of this worker, and connection -> its topics. A topic is known by its
 * bf_name_hash, which is a hash keyed with the region's secret and so needs no further hashing.
 * Subscriptions come from one pool. There is at most one walk at a time; when the subscription at
 * its cursor ends, the cursor moves on. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "memory/conn.h"
#include "memory/slab.h"

/* First subscriptions share the table, so a load above 3/4 refuses a new topic. */
struct bf_topic {
    uint64_t hash;  /* 0 = empty */
    uint32_t first; /* subscription */
    uint32_t count;
};

struct bf_sub {
    uint32_t next;      /* of the topic */
    uint32_t prev;      /* 0 = first */
    uint32_t conn_next; /* of the connection */
    uint32_t slot;
    uint64_t hash;
};

struct bf_topics {
    struct bf_topic *table;
    uint32_t mask;
    uint32_t used;
    struct bf_slab subs;
    uint32_t cursor; /* next subscription of the walk, 0 = none */
};

/* Subscribes. 0, -EEXIST (already), BF_ERR_FULL (the connection's limit), BF_ERR_NO_MEMORY. */
int bf_topics_sub(struct bf_topics *t, struct bf_conns *conns, uint32_t slot, uint64_t hash);
/* 0 or BF_ERR_NOT_FOUND. */
int bf_topics_unsub(struct bf_topics *t, struct bf_conns *conns, uint32_t slot, uint64_t hash);
/* Ends all subscriptions of a connection (at most BF_CONN_TOPICS_MAX). */
void bf_topics_drop(struct bf_topics *t, struct bf_conns *conns, uint32_t slot);
bool bf_topics_has(const struct bf_topics *t, const struct bf_conns *conns, uint32_t slot,
                   uint64_t hash);

/* Starts a walk over a topic's subscribers; then bf_topics_next until BF_SLOT_NONE. */
void bf_topics_walk(struct bf_topics *t, uint64_t hash);
uint32_t bf_topics_next(struct bf_topics *t);
