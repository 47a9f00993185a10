/*
 * Instructions that a process executes in user mode (perf_event_open(2), as `perf stat -e
 * instructions:u`): P19. Threads that live when it is opened are counted. A virtual machine often
 * has no such counter.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PF_INSTR_THREADS_MAX 64u

struct pf_instr {
    int fds[PF_INSTR_THREADS_MAX];
    uint32_t count;
};

/* False: this machine, or this user, may not count them; *ret then reads as 0. */
bool pf_instr_open(struct pf_instr *ret, pid_t pid);
uint64_t pf_instr_read(const struct pf_instr *instr);
void pf_instr_close(struct pf_instr *instr);
