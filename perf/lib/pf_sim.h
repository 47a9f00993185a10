/*
 * belfry-sim beside a benchmark, and what a plane needs to push to its APNs: the pool's record and
 * a provider token. Parent's thread only.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "belfry/base/cursor.h"

struct pf_sim;

/* Starts it on |core| with |streams| a connection; |faults|: a script in JSON, or NULL. Ends the
 * program on failure. */
struct pf_sim *pf_sim_start(int core, uint32_t streams, const char *faults);
void pf_sim_stop(struct pf_sim *sim);
pid_t pf_sim_pid(const struct pf_sim *sim);
uint16_t pf_sim_apns_port(const struct pf_sim *sim);
uint16_t pf_sim_control_port(const struct pf_sim *sim);
const char *pf_sim_dir(const struct pf_sim *sim);
/* Files, PEM: its CA, and the key that signs APNs' tokens, with its id and team. */
const char *pf_sim_ca_file(const struct pf_sim *sim);
const char *pf_sim_key_file(const struct pf_sim *sim);
#define PF_SIM_KEY_ID "BELFRYKEY1"
#define PF_SIM_TEAM   "BELFRYTEAM"

/* A counter of its APNs (GET /stats, sim/sim_stats.h). Ends the program if it does not answer.
 */
uint64_t pf_sim_stat(const struct pf_sim *sim, const char *name);

/* What of a pool differs between uses. */
struct pf_pool {
    uint32_t id;
    uint16_t port; /* 0: the simulator's APNs */
    uint16_t connections_min;
    uint16_t connections_max;
    uint32_t streams_first;
    uint32_t ping_idle_ms;
};
/* Appends BF_SNAP_PUSH_POOL: the simulator's CA, host name and a token signed with its key. */
void pf_sim_put_pool(const struct pf_sim *sim, struct bf_writer *w, const struct pf_pool *pool);
/* The `authorization` of a pool: "bearer <JWT>". */
const char *pf_sim_authorization(const struct pf_sim *sim);
