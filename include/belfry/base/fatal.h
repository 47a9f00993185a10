/*
 * The end of a process that cannot go on: what it would do next could lose or double a message, and
 * the next process recovers from disk, from the log or from shared memory (DESIGN 4.15). For faults
 * of the world (a disk that is full, memory that is none); our own mistakes are BF_BUG_ON.
 */
#pragma once

#include <stdarg.h>
#include <unistd.h>

#include "belfry/base/log.h"

/* Logs the reason, which says what happened and what becomes of what was under way, and ends the
 * process at once with code 1: no destructor runs, because closing would write, and a write may be
 * what failed. Any thread. */
__attribute__((format(printf, 2, 3))) static inline _Noreturn void bf_fatal(const char *plane,
                                                                            const char *reason, ...)
{
    va_list args;
    va_start(args, reason);
    bf_log_write(BF_LOG_ERROR, plane, reason, args);
    va_end(args);
    _exit(1);
}
