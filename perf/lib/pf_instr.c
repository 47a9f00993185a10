/* See pf_instr.h. */
#include "pf_instr.h"

#include <dirent.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int open_thread(pid_t tid)
{
    struct perf_event_attr attr = {.type = PERF_TYPE_HARDWARE,
                                   .size = sizeof(attr),
                                   .config = PERF_COUNT_HW_INSTRUCTIONS,
                                   .exclude_kernel = 1,
                                   .exclude_hv = 1};
    return (int)syscall(SYS_perf_event_open, &attr, tid, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

bool pf_instr_open(struct pf_instr *ret, pid_t pid)
{
    char path[64];
    bool is_whole = true;
    *ret = (struct pf_instr){0};
    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    for (struct dirent *entry; tasks && is_whole && (entry = readdir(tasks)) != NULL;) {
        pid_t tid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (tid <= 0)
            continue;
        int fd = ret->count < PF_INSTR_THREADS_MAX ? open_thread(tid) : -1;
        is_whole = fd >= 0;
        if (is_whole)
            ret->fds[ret->count++] = fd;
    }
    if (tasks)
        closedir(tasks);
    if (!is_whole || ret->count == 0) {
        pf_instr_close(ret);
        return false;
    }
    return true;
}

uint64_t pf_instr_read(const struct pf_instr *instr)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < instr->count; i++) {
        uint64_t value = 0;
        if (read(instr->fds[i], &value, sizeof(value)) == (ssize_t)sizeof(value))
            sum += value;
    }
    return sum;
}

void pf_instr_close(struct pf_instr *instr)
{
    for (uint32_t i = 0; i < instr->count; i++)
        close(instr->fds[i]);
    instr->count = 0;
}
