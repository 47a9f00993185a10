/*
 * Faults on request, for tests: BELFRY_FAULT=<point>:<n> kills this process (SIGKILL, as the kernel
 * would) when it passes the named point for the n-th time. Where the variable is not set, a point
 * costs one load.
 */
#pragma once

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct bf_fault {
    const char *point;
    _Atomic long left; /* 0: off */
};

static inline void bf_fault_arm(struct bf_fault *fault)
{
    const char *spec = getenv("BELFRY_FAULT");
    size_t len = strlen(fault->point);
    if (spec && strncmp(spec, fault->point, len) == 0 && spec[len] == ':')
        atomic_store_explicit(&fault->left, strtol(spec + len + 1, NULL, 10), memory_order_relaxed);
}

/* True at the n-th pass: for faults that are not deaths. */
static inline bool bf_fault_is_due(struct bf_fault *fault)
{
    /* relaxed: a counter of passes, it orders nothing */
    return atomic_load_explicit(&fault->left, memory_order_relaxed) != 0 &&
           atomic_fetch_sub_explicit(&fault->left, 1, memory_order_relaxed) == 1;
}

static inline void bf_fault_pass(struct bf_fault *fault)
{
    /* relaxed: a counter of passes, it orders nothing */
    if (atomic_load_explicit(&fault->left, memory_order_relaxed) == 0)
        return;
    if (atomic_fetch_sub_explicit(&fault->left, 1, memory_order_relaxed) == 1)
        kill(getpid(), SIGKILL);
}
