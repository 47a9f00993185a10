/*
 * What a store counts and collects from its rows behind the start, on a thread of its own: how many
 * messages are queued, which message ids are known. A start that waited for these walks would take
 * the longer the more was ever queued, also for what is long deleted: marks of deletion are stepped
 * over one by one.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct bf_store;

struct bf_warm {
    /* relaxed: the thread only needs to see it some time, bf_warm_stop() joins it */
    _Atomic bool stop;
    bool is_running;
    pthread_t thread;
};

/* Begins, before anyone else writes: the walks see the store as it is now. BF_ERR_*. */
int bf_warm_start(struct bf_store *s);
/* Ends it, finished or not. */
void bf_warm_stop(struct bf_store *s);
