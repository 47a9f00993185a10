/* Clocks. wall = CLOCK_REALTIME for people and producers, mono = CLOCK_MONOTONIC for intervals. */
#pragma once

#include <stdint.h>
#include <time.h>

static inline uint64_t bf_clock_ns(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static inline uint64_t bf_wall_ms(void)
{
    return bf_clock_ns(CLOCK_REALTIME) / 1000000u;
}

static inline uint64_t bf_mono_ms(void)
{
    return bf_clock_ns(CLOCK_MONOTONIC) / 1000000u;
}

static inline uint64_t bf_mono_ns(void)
{
    return bf_clock_ns(CLOCK_MONOTONIC);
}
