/* --memory: how much memory the connections of a configuration will take, before any of them is
 * opened. Main thread; no EAL. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct bf_conf;

struct bf_memory_wish {
    uint32_t connections; /* a worker; 0: as configured */
    bool tls;
    bool json;
};

/* Prints on stdout the sum that a worker logs at its start, the shared region and the kernel's
 * part. 0, or 1 after saying why not on stderr. |conf| is changed to the wish. */
int bf_memory_print(struct bf_conf *conf, const struct bf_memory_wish *wish);
