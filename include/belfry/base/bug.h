/*
 * Assertions in grades (after HAProxy's bug.h). BF_BUG_ON stops the process: our own state is
 * wrong and going on could lose or double a message. What a peer or a producer does wrong is never
 * a bug: count it (shm/metrics.def) and answer it.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>

#define BF_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define BF_LIKELY(x)   __builtin_expect(!!(x), 1)

static inline _Noreturn void bf_bug(const char *cond, const char *file, int line)
{
    fprintf(stderr, "belfry: bug: %s at %s:%d\n", cond, file, line);
    abort();
}

#define BF_BUG_ON(cond)                                                                            \
    do {                                                                                           \
        if (BF_UNLIKELY(cond))                                                                     \
            bf_bug(#cond, __FILE__, __LINE__);                                                     \
    } while (0)
