/* See eal.h. */
#include "main/eal.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <mntent.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_log.h>
#include <rte_memzone.h>

#include "belfry/base/err.h"
#include "belfry/base/explain.h"
#include "belfry/base/log.h"
#include "belfry/base/log_stream.h"
#include "belfry/conf/conf.h"
#include "belfry/plane.h"
#include "belfry/shm/layout.h"
#include "belfry/shm/own.h"

/* EAL heap that one start of the control process takes and never gives back (measured: 156 KB). */
#define ATTACH_BYTES (160u * 1024u)
/* EAL's own tables and the rounding of its heap to pages. */
#define EAL_SLACK_BYTES (32u << 20)
#define EAL_ARGS_MAX    24u
#define PATH_LEN        BF_PATH_BYTES_MAX

static char eal_prefix[BF_EAL_PREFIX_BYTES_MAX]; /* one EAL a process, so one prefix */

/* ---- files of a prefix ---- */

/* The configured hugetlbfs directory, or the first one that is mounted. */
static bool find_huge_dir(const struct bf_conf *conf, char out[PATH_LEN])
{
    if (conf->huge_dir[0] != '\0') {
        snprintf(out, PATH_LEN, "%s", conf->huge_dir);
        return true;
    }
    FILE *mounts = setmntent("/proc/mounts", "r");
    bool found = false;
    for (struct mntent *m; mounts && !found && (m = getmntent(mounts));) {
        if (strcmp(m->mnt_type, "hugetlbfs") == 0) {
            snprintf(out, PATH_LEN, "%s", m->mnt_dir);
            found = true;
        }
    }
    if (mounts)
        endmntent(mounts);
    return found;
}

/* Removes |dir|'s entries whose names begin with |prefix|. */
static void remove_files(const char *dir_path, const char *prefix)
{
    char path[PATH_LEN * 2];
    size_t len = strlen(prefix);
    DIR *dir = opendir(dir_path);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (e->d_name[0] == '.' || strncmp(e->d_name, prefix, len) != 0)
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir_path, e->d_name);
        (void)unlink(path);
    }
    if (dir)
        closedir(dir);
}

/* Where DPDK keeps a prefix's run-time files (lib/eal/unix: eal_create_runtime_dir). */
static void runtime_dir(const char *prefix, char out[PATH_LEN])
{
    const char *base = getenv("RUNTIME_DIRECTORY");
    if (!base && getuid() == 0)
        base = "/var/run";
    if (!base)
        base = getenv("XDG_RUNTIME_DIR");
    snprintf(out, PATH_LEN, "%s/dpdk/%s", base ? base : "/tmp", prefix);
}

static void remove_prefix(const struct bf_conf *conf, const char *prefix)
{
    char dir[PATH_LEN];
    char map[BF_EAL_PREFIX_BYTES_MAX + 8];
    snprintf(map, sizeof(map), "%smap_", prefix);
    if (find_huge_dir(conf, dir))
        remove_files(dir, map);
    runtime_dir(prefix, dir);
    remove_files(dir, "");
    (void)rmdir(dir);
}

/* ---- generations of this run directory ---- */

static void prefixes_path(const struct bf_conf *conf, char out[PATH_LEN])
{
    snprintf(out, PATH_LEN, "%s/prefixes", conf->run_dir);
}

/* Whether a line of the list is a prefix that we once made: nothing else is ever removed. */
static bool is_our_prefix(const char *prefix)
{
    const char *head = "belfry-";
    return strncmp(prefix, head, strlen(head)) == 0 &&
           strspn(prefix + strlen(head), "0123456789abcdef") == strlen(prefix) - strlen(head);
}

/* Earlier starts in this run directory are dead: we hold their lock. */
static void remove_earlier(const struct bf_conf *conf)
{
    char path[PATH_LEN];
    char prefix[BF_EAL_PREFIX_BYTES_MAX];
    prefixes_path(conf, path);
    FILE *list = fopen(path, "re");
    while (list && fscanf(list, "%63s", prefix) == 1) {
        if (is_our_prefix(prefix))
            remove_prefix(conf, prefix);
    }
    if (list)
        fclose(list);
    (void)unlink(path);
}

static int record_prefix(const struct bf_conf *conf, const char *prefix)
{
    char path[PATH_LEN];
    prefixes_path(conf, path);
    FILE *list = fopen(path, "ae");
    if (!list)
        return -errno;
    fprintf(list, "%s\n", prefix);
    return fclose(list) == 0 ? 0 : -errno;
}

/* ---- EAL ---- */

static uint64_t memory_mb(const struct bf_conf *conf)
{
    uint64_t bytes =
        bf_region_bytes(conf) + (uint64_t)conf->attaches_max * ATTACH_BYTES + EAL_SLACK_BYTES;
    return (bytes + (1u << 20) - 1) >> 20;
}

static enum bf_log_level eal_level(void)
{
    int level = rte_log_cur_msg_loglevel();
    if (level <= (int)RTE_LOG_ERR)
        return BF_LOG_ERROR;
    return level == (int)RTE_LOG_WARNING ? BF_LOG_WARN : BF_LOG_DEBUG;
}

/* EAL's lines become lines of our log. */
static void open_eal_log(void)
{
    static struct bf_log_stream stream = {.plane = "dataplane", .level = eal_level};
    FILE *file = bf_log_stream_open(&stream);
    if (file) /* EAL keeps it until the process ends */
        (void)rte_openlog_stream(file);
}

static int init_eal(const struct bf_conf *conf, const char *huge_dir)
{
    char program[] = "belfry-dataplane";
    char core[24], prefix[BF_EAL_PREFIX_BYTES_MAX + 16], megabytes[24], huge[PATH_LEN + 16];
    char type[] = "--proc-type=primary", no_pci[] = "--no-pci", no_telemetry[] = "--no-telemetry";
    char quiet[] = "--log-level=lib.eal:warning", memory[] = "-m", lcores[] = "-l";
    char *argv[EAL_ARGS_MAX];
    int argc = 0;
    cpu_set_t cpus;
    (void)sched_getaffinity(0, sizeof(cpus), &cpus);
    uint32_t first = conf->first_core;
    /* EAL wants a core that exists; the workers pin themselves, so any will do */
    if (first >= CPU_SETSIZE || !CPU_ISSET(first, &cpus))
        for (first = 0; first < CPU_SETSIZE - 1 && !CPU_ISSET(first, &cpus);)
            first++;
    snprintf(core, sizeof(core), "%u", first);
    snprintf(prefix, sizeof(prefix), "--file-prefix=%s", eal_prefix);
    snprintf(megabytes, sizeof(megabytes), "%" PRIu64, memory_mb(conf));
    snprintf(huge, sizeof(huge), "--huge-dir=%s", huge_dir);
    char *const args[] = {program,   lcores, core,         prefix, type, memory,
                          megabytes, no_pci, no_telemetry, quiet,  huge};
    for (size_t i = 0; i < sizeof(args) / sizeof(args[0]); i++)
        argv[argc++] = args[i];
    argv[argc] = NULL;
    open_eal_log();
    int rc = rte_eal_init(argc, argv) < 0 ? -rte_errno : 0;
    /* EAL pins its caller to one core; our other threads and children should not inherit that */
    (void)sched_setaffinity(0, sizeof(cpus), &cpus);
    return rc;
}

static int reserve_region(const struct bf_conf *conf, struct bf_region **ret_region)
{
    unsigned long bytes = bf_region_bytes(conf);
    const struct rte_memzone *zone =
        rte_memzone_reserve_aligned(BF_SHM_MEMZONE, bytes, SOCKET_ID_ANY, 0, 4096);
    if (!zone) {
        BF_ERROR("dataplane", "no %lu MiB of hugepages in one piece: %s", bytes >> 20,
                 rte_strerror(rte_errno));
        return BF_ERR_NO_MEMORY;
    }
    memset(zone->addr, 0, bytes);
    return bf_region_create(zone->addr, bytes, conf, ret_region);
}

/* Free hugepages in MiB, of the size that the system gives by default. */
static uint64_t free_hugepages_mb(void)
{
    char line[128];
    unsigned long long pages = 0, kb = 0, value;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "HugePages_Free: %llu", &value) == 1)
            pages = value;
        if (sscanf(line, "Hugepagesize: %llu kB", &value) == 1)
            kb = value;
    }
    if (file)
        fclose(file);
    return pages * kb / 1024;
}

static void explain_eal(const struct bf_conf *conf, int rc)
{
    uint64_t needed = memory_mb(conf);
    uint64_t free_mb = free_hugepages_mb();
    if (rc == -EACCES || rc == -EPERM)
        BF_ERROR("dataplane",
                 "DPDK's EAL does not start: no permission (EACCES) for uid %u. Start as root, or "
                 "as a user that owns the hugetlbfs mount and /var/run/dpdk",
                 (unsigned)geteuid());
    else if (free_mb < needed)
        BF_ERROR("dataplane",
                 "%" PRIu64 " MiB of hugepages are needed and %" PRIu64
                 " are free: raise vm.nr_hugepages (scripts/setup does), stop another node, or "
                 "lower shm.* in the configuration",
                 needed, free_mb);
    else
        BF_ERROR("dataplane",
                 "DPDK's EAL does not start: %s; the lines above say more. %" PRIu64
                 " MiB of hugepages are needed, %" PRIu64 " are free",
                 rte_strerror(-rc), needed, free_mb);
}

/* EAL reports missing hugepages to a user who may not write to that directory. */
static int check_huge_dir(const char *huge_dir)
{
    char why[512];
    if (eaccess(huge_dir, W_OK | X_OK) == 0)
        return 0;
    int rc = -errno;
    bf_explain_path(rc, "node.huge_dir", huge_dir, why, sizeof(why));
    BF_ERROR("dataplane", "%s. It is the hugetlbfs mount that shared memory lies on", why);
    return rc;
}

int bf_eal_start(const struct bf_conf *conf, struct bf_region **ret_region)
{
    char huge_dir[PATH_LEN];
    struct timespec now;
    if (!find_huge_dir(conf, huge_dir)) {
        BF_ERROR("dataplane",
                 "no hugetlbfs is mounted: mount -t hugetlbfs none /dev/hugepages, and "
                 "set vm.nr_hugepages (scripts/setup does both)");
        return -ENOENT;
    }
    if (check_huge_dir(huge_dir) != 0)
        return -EACCES;
    remove_earlier(conf);
    clock_gettime(CLOCK_REALTIME, &now);
    /* fresh in this run directory: time, and the process beside it */
    uint64_t name = ((uint64_t)now.tv_sec << 32 | (uint64_t)now.tv_nsec) ^ (uint64_t)getpid() << 40;
    snprintf(eal_prefix, sizeof(eal_prefix), "belfry-%016" PRIx64, name);
    int rc = record_prefix(conf, eal_prefix);
    if (rc != 0) {
        BF_ERROR("dataplane", "%s/prefixes: %s", conf->run_dir, bf_err_text(rc));
        return rc;
    }
    rc = init_eal(conf, huge_dir);
    if (rc != 0) {
        explain_eal(conf, rc);
        remove_prefix(conf, eal_prefix);
        return rc;
    }
    struct bf_region *region = NULL;
    rc = reserve_region(conf, &region);
    if (rc != 0)
        return rc;
    region->generation = name;
    *ret_region = region;
    return 0;
}

int bf_eal_announce(const struct bf_conf *conf, const struct bf_region *region)
{
    struct bf_current current = {
        .generation = region->generation, .pid = getpid(), .layout_hash = region->layout_hash};
    snprintf(current.prefix, sizeof(current.prefix), "%s", eal_prefix);
    return bf_current_write(conf->run_dir, &current);
}

void bf_eal_stop(const struct bf_conf *conf)
{
    char path[PATH_LEN];
    (void)rte_eal_cleanup();
    remove_prefix(conf, eal_prefix);
    prefixes_path(conf, path);
    (void)unlink(path);
}
