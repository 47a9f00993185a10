/* The table of simulated providers: a row each. A new one takes a row and its two functions. */
#pragma once

#include "sim_world.h"

struct sim_provider {
    const char *name;
    bool http1; /* speaks HTTP/1.1 too */
    bool h2;
    /* Pure: request in, answer out. |target| holds what a->token may name. */
    void (*answer)(const struct sim_ctx *c, struct sim_peer *peer, const struct sim_request *q,
                   struct sim_answer *a, char target[SIM_TOKEN_BYTES_MAX]);
    /* Makes |a| a failure in this provider's form; status 0 or reason "" take the usual one. */
    void (*fail)(struct sim_answer *a, uint16_t status, const char *reason, int64_t timestamp_ms);
    const char *throttled, *dead; /* reasons */
};

extern const struct sim_provider sim_providers[SIM_PROVIDER_COUNT];

/* Row by name, or -1. */
int sim_provider_find(const char *name);
