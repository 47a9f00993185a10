/* See pf_heap.h. The count is one word in a file that both sides map. */
#include "pf_heap.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pf_node.h"
#include "pf_report.h"

#define LIBRARY "pf_malloc_count.so"

static _Atomic uint64_t *calls;

/* Beside this very program. */
static bool library_path(char out[PF_PATH_BYTES])
{
    ssize_t n = readlink("/proc/self/exe", out, PF_PATH_BYTES - sizeof(LIBRARY));
    out[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(out, '/');
    if (!slash)
        return false;
    memcpy(slash + 1, LIBRARY, sizeof(LIBRARY));
    return access(out, R_OK) == 0;
}

bool pf_heap_watch(void)
{
    char library[PF_PATH_BYTES], path[] = "/dev/shm/belfry-perf-heap-XXXXXX";
    if (!library_path(library)) {
        pf_say("heap calls are not counted: no " LIBRARY " beside the program");
        return false;
    }
    int fd = mkstemp(path);
    if (fd < 0 || ftruncate(fd, sizeof(uint64_t)) != 0)
        pf_die("no file in /dev/shm");
    void *at = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        pf_die("out of memory");
    calls = at;
    setenv("PF_MALLOC_COUNT", path, 1);
    setenv("LD_PRELOAD", library, 1);
    return true;
}

void pf_heap_watched(void)
{
    const char *path = getenv("PF_MALLOC_COUNT");
    if (path)
        unlink(path); /* the mappings stay */
    unsetenv("PF_MALLOC_COUNT");
    unsetenv("LD_PRELOAD");
}

uint64_t pf_heap_calls(void)
{
    /* relaxed: a number, read while nothing is under way */
    return calls ? atomic_load_explicit(calls, memory_order_relaxed) : 0;
}
