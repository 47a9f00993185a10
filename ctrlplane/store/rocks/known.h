/*
 * Which users exist: a set of 64-bit keyed hashes of the keys of their rows. The API's threads ask
 * it for each recipient of each request, which so costs no read of the store. Exact but for a
 * collision of two hashes (1 in 10^13 at a million users; then an event for nobody is dead-lettered
 * instead of refused). After a start, until a walk over the rows has filled it, it answers
 * "perhaps" for every key that it does not have. Any thread; striped locks, held for one probe.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

/* Locks, each for a share of the users, so that threads rarely wait for each other. */
#define BF_KNOWN_STRIPES 64u

/* 0 = free. */
struct bf_known_set {
    uint64_t *hashes; /* NULL: empty */
    uint32_t mask;
    uint32_t count;
};

struct bf_known_stripe {
    pthread_mutex_t lock;
    struct bf_known_set has;
    struct bf_known_set
        gone; /* until it is filled: keys removed meanwhile, which the walk must not add */
};

struct bf_known {
    uint64_t seed; /* so that nobody outside can make hashes collide */
    struct bf_known_stripe stripes[BF_KNOWN_STRIPES];
    /* Release by the walk, acquire by who asks: then all that the walk added is seen. */
    _Atomic bool is_complete;
    _Atomic bool is_lossy; /* relaxed: memory ran out once; from then on it answers "perhaps" */
};

enum bf_known_answer { BF_KNOWN_NO = 0, BF_KNOWN_YES = 1, BF_KNOWN_PERHAPS = 2 };

/* 0 or -errno. */
int bf_known_init(struct bf_known *known);
void bf_known_fini(struct bf_known *known);
void bf_known_add(struct bf_known *known, struct bf_bytes key);
void bf_known_remove(struct bf_known *known, struct bf_bytes key);
/* A key that the walk has met. */
void bf_known_fill(struct bf_known *known, struct bf_bytes key);
/* The walk has met them all. */
void bf_known_complete(struct bf_known *known);
enum bf_known_answer bf_known_has(struct bf_known *known, struct bf_bytes key);
