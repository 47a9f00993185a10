/*
 * What this machine gives whoever asks, taken in the run itself with nothing of Belfry at work: a
 * tail below these floors cannot be seen here, and an absolute figure is worth what the core gave.
 * Each call takes about a second. One thread at a time.
 */
#pragma once

#include "belfry/base/histogram.h"

struct pf_report;

struct pf_floor {
    struct bf_hist wake_ns; /* eventfd write on one core -> the sleeper on the other runs */
    struct bf_hist sync_ns; /* 4 KiB appended to a file beside the nodes' state, and fdatasync */
};

/* Adds samples of the machine as it is now: call it before and after what is measured. */
void pf_floor_wake(struct pf_floor *floor);
void pf_floor_sync(struct pf_floor *floor);
/* Of what was sampled: floor_wake_p50_ms, floor_wake_p99_ms, floor_sync_p50_ms, floor_sync_p99_ms.
 */
void pf_floor_report(const struct pf_floor *floor, struct pf_report *report);

/* Additions, each waiting for the one before, a nanosecond of CPU time: the clock that the core
 * really gives, in GHz. Takes 10 ms; the median of five. */
double pf_floor_core_ghz(void);
