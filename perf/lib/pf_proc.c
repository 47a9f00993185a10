/* Readings from /proc and /sys: see pf_proc.h. */
#include "pf_proc.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 512
/* Readings of the slabs, of which the least counts. */
#define SLAB_READINGS 8u
#define SLAB_GAP_NS   150000000L

void pf_proc_file(const char *path, char *out, size_t cap)
{
    FILE *file = fopen(path, "re");
    out[0] = '\0';
    if (!file)
        return;
    if (!fgets(out, (int)cap, file))
        out[0] = '\0';
    fclose(file);
    out[strcspn(out, "\n")] = '\0';
}

void pf_proc_cpu_model(char *out, size_t cap)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[LINE_BYTES];
    snprintf(out, cap, "unknown");
    while (file && fgets(line, sizeof(line), file)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, "model name", 10) != 0)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(out, cap, "%s", colon + 2);
        break;
    }
    if (file)
        fclose(file);
}

static uint64_t field_kb(const char *path, const char *field)
{
    FILE *file = fopen(path, "re");
    char line[LINE_BYTES];
    uint64_t value = 0;
    size_t len = strlen(field);
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, field, len) == 0 && line[len] == ':') {
            sscanf(line + len + 1, "%" SCNu64, &value);
            break;
        }
    }
    if (file)
        fclose(file);
    return value;
}

void pf_proc_ticks(struct pf_ticks *ret)
{
    /* user nice system idle iowait irq softirq steal (guest is in user already) */
    unsigned long long t[8] = {0};
    FILE *file = fopen("/proc/stat", "re");
    *ret = (struct pf_ticks){0};
    if (!file)
        return;
    if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3],
               &t[4], &t[5], &t[6], &t[7]) == 8) {
        ret->stolen = t[7];
        ret->wanted = t[0] + t[1] + t[2] + t[5] + t[6] + t[7];
    }
    fclose(file);
}

uint64_t pf_proc_meminfo_kb(const char *field)
{
    return field_kb("/proc/meminfo", field);
}

uint64_t pf_proc_status_kb(pid_t pid, const char *field)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    return field_kb(path, field);
}

uint64_t pf_proc_cpu_ns(pid_t pid)
{
    char path[64], text[128];
    uint64_t total = 0;
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;) {
        char file[400];
        uint64_t ns = 0;
        if (entry->d_name[0] == '.')
            continue;
        snprintf(file, sizeof(file), "%s/%s/schedstat", path, entry->d_name);
        pf_proc_file(file, text, sizeof(text));
        sscanf(text, "%" SCNu64, &ns);
        total += ns;
    }
    if (dir)
        closedir(dir);
    return total;
}

static void drop_caches(void)
{
    int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = write(fd, "2\n", 2); /* dentries and inodes; not allowed: the reading is rougher */
    (void)n;
    close(fd);
}

/* Caches of processes, their memory and files: they come and go with whatever else runs, and no
 * socket or ring takes from them. Prefixes. */
static const char *const foreign_caches[] = {
    "vm_area_struct",
    "vma_",
    "anon_vma",
    "maple_node",
    "mm_struct",
    "task_",
    "files_cache",
    "signal_cache",
    "sighand_cache",
    "cred",
    "pid",
    "fs_cache",
    "radix_tree_node",
    "buffer_head",
    "ext4",
    "jbd2",
    "overlay",
    "ovl",
    "shmem_inode",
    "inode_cache",
    "proc_",
    "kernfs",
    "xfs",
    "btrfs",
    "fuse",
    "names_cache",
    "bio",
    "blk",
    "taskstats",
    "fsnotify",
    "nsproxy",
    "vmap_area",
    "pde_",
    "erofs",
    "squashfs",
};

static bool is_foreign(const char *cache)
{
    for (size_t i = 0; i < sizeof(foreign_caches) / sizeof(foreign_caches[0]); i++)
        if (strncmp(cache, foreign_caches[i], strlen(foreign_caches[i])) == 0)
            return true;
    return false;
}

uint64_t pf_proc_slab_bytes(void)
{
    char cache[64];
    drop_caches();
    FILE *file = fopen("/proc/slabinfo", "re");
    char line[LINE_BYTES];
    uint64_t total = 0;
    while (file && fgets(line, sizeof(line), file)) {
        uint64_t active, objects, size;
        if (sscanf(line, "%63s %" SCNu64 " %" SCNu64 " %" SCNu64, cache, &active, &objects,
                   &size) == 4 &&
            !is_foreign(cache))
            total += active * size;
    }
    if (file)
        fclose(file);
    return total ? total : pf_proc_meminfo_kb("Slab") * 1024;
}

uint64_t pf_proc_slab_settled(void)
{
    uint64_t least = UINT64_MAX;
    for (unsigned i = 0; i < SLAB_READINGS; i++) {
        uint64_t now = pf_proc_slab_bytes();
        least = now < least ? now : least;
        nanosleep(&(struct timespec){.tv_nsec = SLAB_GAP_NS}, NULL);
    }
    return least;
}

uint32_t pf_proc_descriptors(pid_t pid)
{
    char path[64];
    uint32_t count = 0;
    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    DIR *dir = opendir(path);
    while (dir && readdir(dir))
        count++;
    if (dir)
        closedir(dir);
    return count > 2 ? count - 2 : 0; /* . and .. */
}

uint64_t pf_proc_tcp_bytes(void)
{
    FILE *file = fopen("/proc/net/sockstat", "re");
    char line[LINE_BYTES];
    uint64_t pages = 0;
    while (file && fgets(line, sizeof(line), file)) {
        const char *mem = strncmp(line, "TCP:", 4) == 0 ? strstr(line, " mem ") : NULL;
        if (mem)
            sscanf(mem + 5, "%" SCNu64, &pages);
    }
    if (file)
        fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}
