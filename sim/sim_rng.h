/* Seeded random numbers (splitmix64) and the latency distributions drawn from them. One thread
 * each. */
#pragma once

#include <math.h>
#include <stdint.h>

struct sim_rng {
    uint64_t state;
};

static inline uint64_t sim_rng_next(struct sim_rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* In [0, 1). */
static inline double sim_rng_unit(struct sim_rng *r)
{
    return (double)(sim_rng_next(r) >> 11) * 0x1p-53;
}

enum sim_latency_kind {
    SIM_LATENCY_NONE = 0,
    SIM_LATENCY_FIXED,     /* always a_ms */
    SIM_LATENCY_UNIFORM,   /* from a_ms to b_ms */
    SIM_LATENCY_LOGNORMAL, /* median a_ms, 99th percentile b_ms */
};

struct sim_latency {
    enum sim_latency_kind kind;
    double a_ms, b_ms;
};

#define SIM_LATENCY_MS_MAX                                                                         \
    600000.0 /* ten minutes: the tail of a lognormal never waits for ever                          \
              */

/* Draws one latency in nanoseconds. */
static inline uint64_t sim_latency_draw_ns(const struct sim_latency *l, struct sim_rng *r)
{
    double ms = 0;
    if (l->kind == SIM_LATENCY_FIXED)
        ms = l->a_ms;
    else if (l->kind == SIM_LATENCY_UNIFORM)
        ms = l->a_ms + (l->b_ms - l->a_ms) * sim_rng_unit(r);
    else if (l->kind == SIM_LATENCY_LOGNORMAL) {
        const double z99 = 2.3263478740408408; /* 99th percentile of the standard normal */
        double u1 = 1.0 - sim_rng_unit(r), u2 = sim_rng_unit(r);
        double z = sqrt(-2.0 * log(u1)) * cos(6.283185307179586 * u2);
        ms = l->a_ms * pow(l->b_ms / l->a_ms, z / z99);
    }
    if (ms > SIM_LATENCY_MS_MAX)
        ms = SIM_LATENCY_MS_MAX;
    return ms > 0 ? (uint64_t)(ms * 1e6) : 0;
}
