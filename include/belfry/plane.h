/*
 * Entry points of the two planes. belfry-dataplane and belfry-ctrlplane call one each in a process
 * of their own; belfry-dev calls both in one process (no hugepages, no root), with the same rings.
 */
#pragma once

#include <stdatomic.h>

struct bf_conf;
struct bf_region;

/* Only their own user may read what the processes write (inboxes, keys, where sockets are): files
 * get mode 0600, directories 0700, whatever umask the processes were started with. */
#define BF_UMASK 0077

/* A plane runs until *stop is not 0 (set by a signal handler, hence only a flag). */
struct bf_plane_args {
    const struct bf_conf *conf;
    const char *config_path;
    const _Atomic int *stop;
    /* belfry-dev: the region both planes use, laid out by bf_region_create; else NULL. */
    struct bf_region *region;
};

/* Lays a region out over |bytes| of zeroed memory (bf_region_bytes(conf) of them). Dataplane side.
 */
unsigned long bf_region_bytes(const struct bf_conf *conf);
int bf_region_create(void *memory, unsigned long bytes, const struct bf_conf *conf,
                     struct bf_region **ret_region);

/* Both block until stopped and return an exit code: 0, or 1 after saying why on stderr. With
 * args->region NULL the dataplane starts EAL as primary, reserves the memzone, announces it in
 * <run>/current; the control process attaches as secondary and follows dataplane restarts. */
int bf_dataplane_run(const struct bf_plane_args *args);
int bf_ctrlplane_run(const struct bf_plane_args *args);
