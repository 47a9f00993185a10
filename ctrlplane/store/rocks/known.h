/*
 * Which users there are, asked by the API's threads for each recipient of each request: a set of
 * 64-bit keyed hashes of the keys of their rows, so that the question costs no look-up. Exact but
 * for a collision of two hashes (1 in 10^13 at a million users; then an event for nobody is
 * dead-lettered instead of refused). After a start it says "perhaps" to whatever it does not have,
 * until a walk over the rows has filled it. Any thread; striped locks, held for one probe.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"

/* Threads meet in one stripe rarely; each holds a share of the users. */
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
    struct bf_known_set gone; /* until it is filled: removed since, whatever the walk still meets */
};

struct bf_known {
    uint64_t seed; /* hashes cannot be made to collide from outside */
    struct bf_known_stripe stripes[BF_KNOWN_STRIPES];
    /* Release by the walk, acquire by who asks: then all that the walk added is seen. */
    _Atomic bool is_complete;
    _Atomic bool is_lossy; /* relaxed: there was no memory once, it says "perhaps" for good */
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
