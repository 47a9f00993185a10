/*
 * belfry-dev: both planes in one process (EAL without hugepages, no root), for a laptop's first
 * look, sanitizers and simulation. Same code, same rings; what it cannot show is one process
 * outliving the other.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <rte_eal.h>
#include <rte_errno.h>

#include "belfry/conf/conf_load.h"
#include "belfry/plane.h"

static _Atomic int stop_flag;

static void on_signal(int sig)
{
    (void)sig;
    stop_flag = 1;
}

static void *dataplane_thread(void *arg)
{
    int rc = bf_dataplane_run(arg);
    stop_flag = 1;
    return (void *)(intptr_t)rc;
}

/* EAL is up for its services (per-core ids, timers); the region itself is plain memory. */
static int start_eal(void)
{
    char name[] = "belfry-dev", huge[] = "--no-huge", conf[] = "--no-shconf", pci[] = "--no-pci";
    char telemetry[] = "--no-telemetry", level[] = "--log-level=error", mem[] = "-m64";
    char *argv[] = {name, huge, conf, pci, telemetry, level, mem, NULL};
    return rte_eal_init(7, argv);
}

int main(int argc, char **argv)
{
    const char *path = argc == 3 && strcmp(argv[1], "--config") == 0 ? argv[2] : NULL;
    char err[BF_CONF_ERROR_BYTES_MAX];
    struct bf_conf *conf;
    struct bf_region *region;
    pthread_t thread;
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        puts("belfry-dev " BELFRY_VERSION);
        return 0;
    }
    if (!path) {
        fputs("belfry-dev - both planes in one process, without hugepages or root\n\n"
              "usage: belfry-dev --config FILE\n",
              stderr);
        return 2;
    }
    if (bf_conf_load(path, &conf, err, sizeof(err)) != 0) {
        fprintf(stderr, "belfry-dev: %s\n", err);
        return 1;
    }
    bf_log_configure(conf->log_level, conf->log_format);
    unsigned long bytes = bf_region_bytes(conf);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr,
                "belfry-dev: no %lu MiB of memory for the rings: lower shm.* in the "
                "configuration\n",
                bytes >> 20);
        return 1;
    }
    if (start_eal() < 0 || bf_region_create(memory, bytes, conf, &region) != 0) {
        fprintf(stderr, "belfry-dev: DPDK's EAL does not start: %s\n", rte_strerror(rte_errno));
        return 1;
    }
    (void)umask(BF_UMASK);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    struct bf_plane_args args = {
        .conf = conf, .config_path = path, .stop = &stop_flag, .region = region};
    if (pthread_create(&thread, NULL, dataplane_thread, &args) != 0)
        return 1;
    int rc = bf_ctrlplane_run(&args);
    void *dataplane_rc;
    stop_flag = 1;
    pthread_join(thread, &dataplane_rc);
    return rc ? rc : (int)(intptr_t)dataplane_rc;
}
