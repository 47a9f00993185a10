/* What parent and children of a load client share: private to pf_load*.c. */
#pragma once

#include "pf_load.h"

/* One mapping, made before the forks. Writer of orders: the parent; of counters: each child its
 * own. */
struct pf_load_shared {
    _Atomic uint32_t stop;
    _Atomic uint32_t round;       /* id; published after the fields below (release) */
    _Atomic uint32_t churn_milli; /* connections a second and process that leave, in thousandths */
    uint64_t trigger_ns;
    uint32_t marker_len;
    char marker[PF_LOAD_MARKER_BYTES_MAX];
    struct pf_load_counters counters[PF_LOAD_PROCESSES_MAX];
};

struct pf_load {
    struct pf_load_spec spec;
    struct pf_load_shared *shared;
    uint32_t process_count;
    uint32_t process_connections;
    uint32_t instance; /* of the clients of one program: source addresses 127.0.<instance>.x */
    pid_t pids[PF_LOAD_PROCESSES_MAX];
};

/* A child's whole life: connections [first, first + count). Does not return. */
_Noreturn void pf_load_child(const struct pf_load *load, uint32_t process, uint32_t first,
                             uint32_t count);
