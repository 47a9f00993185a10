/*
 * Ownership (DESIGN 2 "Ownership and death"): the process that holds the flock on <run>/<side>.lock
 * owns that side's ends of everything shared; the kernel releases the lock when the process dies. A
 * late heartbeat raises an alarm but never changes the owner. <run>/current, replaced by rename,
 * announces the living region.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/err.h"

#define BF_OWN_DATAPLANE        "dataplane"
#define BF_OWN_CTRLPLANE        "ctrlplane"
#define BF_PATH_BYTES_MAX       512u
#define BF_EAL_PREFIX_BYTES_MAX 64u
/* Whoever tests the lock holds it shared for microseconds; a start that meets such a test tries
 * again. */
#define BF_OWN_TRIES    20
#define BF_OWN_RETRY_NS 5000000L

struct bf_current {
    uint64_t generation;
    char prefix[BF_EAL_PREFIX_BYTES_MAX]; /* EAL file prefix: belfry-<generation in hex> */
    int64_t pid;
    uint64_t layout_hash;
};

/* Takes ownership of a side for as long as the returned descriptor is open (close-on-exec is set).
 * Returns the descriptor, BF_ERR_OWNED if another process lives, or -errno. */
static inline int bf_own_take(const char *run_dir, const char *side)
{
    char path[BF_PATH_BYTES_MAX];
    snprintf(path, sizeof(path), "%s/%s.lock", run_dir, side);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    for (int i = 0; i < BF_OWN_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return fd;
        nanosleep(&(struct timespec){.tv_nsec = BF_OWN_RETRY_NS}, NULL);
    }
    close(fd);
    return BF_ERR_OWNED;
}

/* Whether a living process owns the side. Any process; does not disturb the owner. */
static inline bool bf_own_is_held(const char *run_dir, const char *side)
{
    char path[BF_PATH_BYTES_MAX];
    snprintf(path, sizeof(path), "%s/%s.lock", run_dir, side);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd); /* drops the shared lock */
    return held;
}

/* Announces a region that is ready. Called by the dataplane only, which holds its lock. Returns 0
 * or -errno. */
static inline int bf_current_write(const char *run_dir, const struct bf_current *current)
{
    char path[BF_PATH_BYTES_MAX];
    char fresh[BF_PATH_BYTES_MAX];
    snprintf(path, sizeof(path), "%s/current", run_dir);
    snprintf(fresh, sizeof(fresh), "%s/current.new", run_dir);
    FILE *file = fopen(fresh, "we");
    if (!file)
        return -errno;
    fprintf(file, "%016" PRIx64 " %s %" PRId64 " %016" PRIx64 "\n", current->generation,
            current->prefix, current->pid, current->layout_hash);
    int rc = fflush(file) == 0 ? 0 : -errno;
    fclose(file);
    if (rc == 0 && rename(fresh, path) != 0)
        rc = -errno;
    return rc;
}

/* Reads the announcement. Returns 0, -ENOENT before the first start, BF_ERR_MALFORMED on nonsense.
 */
static inline int bf_current_read(const char *run_dir, struct bf_current *ret_current)
{
    char path[BF_PATH_BYTES_MAX];
    struct bf_current current = {0};
    snprintf(path, sizeof(path), "%s/current", run_dir);
    FILE *file = fopen(path, "re");
    if (!file)
        return -errno;
    int n = fscanf(file, "%16" SCNx64 " %63s %" SCNd64 " %16" SCNx64, &current.generation,
                   current.prefix, &current.pid, &current.layout_hash);
    fclose(file);
    if (n != 4)
        return BF_ERR_MALFORMED;
    *ret_current = current;
    return 0;
}
