/* The running simulator: what all its threads share. Options and credentials are read-only after
 * start. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "sim_channels.h"
#include "sim_creds.h"
#include "sim_record.h"
#include "sim_script.h"
#include "sim_stats.h"

#define SIM_WORKERS_MAX        64u
#define SIM_STREAMS_CONCURRENT 1000u /* APNs in good times; the others alike unless --streams */

struct sim_worker;

struct sim {
    struct sim_world world;
    struct sim_creds creds;
    struct sim_channels *channels;
    struct sim_record *record; /* NULL = fast mode */
    SSL_CTX *tls[SIM_PROVIDER_COUNT];
    char address[64]; /* to listen on */
    uint16_t port[SIM_PROVIDER_COUNT], control_port;
    uint32_t streams_max;
    uint64_t seed;

    pthread_mutex_t script_lock; /* of |script| */
    struct sim_script *script;
    _Atomic uint32_t
        script_version; /* release after the swap; workers look at it each turn, acquire */

    struct sim_worker *workers[SIM_WORKERS_MAX];
    unsigned workers_count;
    _Atomic uint64_t conn_ids; /* relaxed: only uniqueness */
    _Atomic bool stop;         /* relaxed: seen within a turn, nothing is published by it */
};

/* Takes a new script into force. Owns |s| from here on. Returns its version. Any thread. */
uint32_t sim_script_install(struct sim *sim, struct sim_script *s);
/* A reference to the script in force. Any thread. */
struct sim_script *sim_script_current(struct sim *sim);

/* Wall clock, monotonic clock. */
int64_t sim_now_us(void);
uint64_t sim_mono_ns(void);
