/*
 * A worker: one thread with its own listeners (SO_REUSEPORT), connections, streams, timers and
 * caches. It shares with other workers only what struct sim says.
 */
#pragma once

#include "sim.h"
#include "sim_auth.h"
#include "sim_delay.h"
#include "sim_stream.h"

#define SIM_IN_BYTES  (32u << 10) /* read at once: two TLS records */
#define SIM_CONNS_MAX 18000u /* below the usual limit of 20,000 descriptors; more are refused */
#define SIM_TICK_NS   20000000ull /* faults that begin or end without traffic are seen within it */

struct sim_conn;

struct sim_listener {
    int reserved; /* bound, never listening: keeps the port while the fault says "refused" */
    int fd;       /* listening, or -1 */
};

struct sim_worker {
    struct sim *sim;
    unsigned index;
    pthread_t thread;
    int epoll;
    struct sim_listener listeners[SIM_PROVIDER_COUNT];
    struct sim_script *script; /* own reference */
    uint32_t script_version;
    _Atomic uint32_t
        script_seen; /* the same for the control thread; release: listeners and connections obey */
    struct sim_rng rng;
    struct sim_ctx ctx;
    struct sim_auth *auth;
    struct sim_stream_pool streams;
    struct sim_delay delay;
    struct sim_conn **conns; /* by slot */
    uint32_t *generations;
    uint32_t slots_count, conns_count;
    struct sim_conn *dead; /* freed at the end of the turn */
    uint64_t now_ns;
    int64_t now_us;
    uint8_t *in;
    struct sim_counters counters[SIM_PROVIDER_COUNT];
};

/* Makes a worker and its sockets on the ports of |sim|. A port of 0 is chosen and written back by
 * the first worker. NULL after a line on stderr. */
struct sim_worker *sim_worker_create(struct sim *sim, unsigned index);
bool sim_worker_start(struct sim_worker *w);
/* After sim->stop is set: waits for the thread and frees everything. */
void sim_worker_destroy(struct sim_worker *w);

/* True once the worker acts by script |version| or a later one. Any thread. */
bool sim_worker_has_script(const struct sim_worker *w, uint32_t version);

/* Decides on the whole request |s|: faults, provider, record. The answer is in s->a; returns the
 * latency in nanoseconds after which it leaves. */
uint64_t sim_worker_decide(struct sim_worker *w, struct sim_stream *s);
/* Records a request that nobody looked at. */
void sim_worker_unprocessed(struct sim_worker *w, const struct sim_stream *s, const char *why);
