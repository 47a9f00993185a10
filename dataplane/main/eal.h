/*
 * EAL as primary process, and the removal of what earlier starts left: hugepage files and run
 * directories of prefixes whose owner is gone. Main thread, once a process.
 */
#pragma once

#include <stdint.h>

struct bf_conf;
struct bf_region;

/* Starts EAL under a fresh prefix belfry-<generation>, reserves and lays out the region. The caller
 * holds the dataplane lock of the run directory. 0, or negative after a log line. */
int bf_eal_start(const struct bf_conf *conf, struct bf_region **ret_region);
/* Announces the region in <run>/current; workers run. */
int bf_eal_announce(const struct bf_conf *conf, const struct bf_region *region);
/* Ends EAL and removes its files. Processes that still map the memory keep it. */
void bf_eal_stop(const struct bf_conf *conf);
