/*
 * Which users exist, asked by the API's threads for each recipient of each request: a set of 64-bit
 * keyed hashes beside the shards' tables, so that the question costs neither a store read nor a visit
 * to the shard. Exact but for a collision of two hashes (1 in 10^13 at a million users; then the event
 * is dead-lettered as unknown instead of refused). Any thread; striped locks, held for one probe.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "terms/uid.h"

/* API threads meet in one stripe rarely; each holds a share of the users. */
#define BF_KNOWN_STRIPES 64u

struct bf_known_stripe {
    pthread_mutex_t lock;
    uint64_t *hashes; /* 0 = free; linear probing at a load below 3/4 */
    uint32_t mask;
    uint32_t count;
};

struct bf_known_users {
    uint64_t seed; /* hashes cannot be made to collide from outside */
    struct bf_known_stripe stripes[BF_KNOWN_STRIPES];
};

/* 0 or -errno. */
int bf_known_users_init(struct bf_known_users *known);
void bf_known_users_fini(struct bf_known_users *known);
/* False: no memory. */
bool bf_known_users_add(struct bf_known_users *known, struct bf_uid uid);
void bf_known_users_remove(struct bf_known_users *known, struct bf_uid uid);
bool bf_known_users_has(struct bf_known_users *known, struct bf_uid uid);
