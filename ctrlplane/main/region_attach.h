/*
 * How the control process uses the region: starts EAL as secondary process under the announced
 * prefix, once in its life; writes snapshots for the workers; sends control commands. Main thread
 * only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/shm/layout.h"
#include "belfry/shm/own.h"

struct bf_conf;

/* Initialises EAL and finds the region. Restores the CPU affinity that EAL narrows. Returns 0,
 * BF_ERR_CONTRACT (other version: say "restart the dataplane") or BF_ERR_AWAY. */
int bf_region_attach(const struct bf_conf *conf, const struct bf_current *current,
                     struct bf_region **ret, char *err, size_t err_len);

/* Writes conf's workers' part as the next snapshot and wakes the workers. Returns 0,
 * BF_ERR_TOO_LARGE, or BF_ERR_FULL when every slot is still in use (try again). */
struct bf_channels;
int bf_snapshot_publish(struct bf_region *region, const struct bf_conf *conf,
                        struct bf_channels *channels);
