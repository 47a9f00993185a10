/* Readings from /proc and /sys: CPU, memory, slab. Each reads at the moment of the call. Any
 * thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* First line of a small file without its newline, "" when it cannot be read. */
void pf_proc_file(const char *path, char *out, size_t cap);

void pf_proc_cpu_model(char *out, size_t cap);

/* Ticks of all cores since boot: wanted (anything but idle), and of them those that the host of a
 * virtual machine gave to somebody else. */
struct pf_ticks {
    uint64_t wanted, stolen;
};
void pf_proc_ticks(struct pf_ticks *ret);

/* A kB field of /proc/meminfo ("Slab", "MemTotal"); 0 when absent. */
uint64_t pf_proc_meminfo_kb(const char *field);

/* A kB field of /proc/<pid>/status ("VmRSS", "HugetlbPages"); 0 when absent. */
uint64_t pf_proc_status_kb(pid_t pid, const char *field);

/* CPU time of all of a process's threads that live, in nanoseconds (schedstat: not in ticks). */
uint64_t pf_proc_cpu_ns(pid_t pid);

/*
 * Bytes in slab objects in use, of the whole machine, caches of processes and files left out: Σ
 * active objects × object size of slabinfo, which unlike meminfo's Slab does not count partly used
 * pages twice over. Where slabinfo cannot be read: meminfo's Slab. Frees what can be freed first
 * (dentries of /proc), so that two readings compare.
 */
uint64_t pf_proc_slab_bytes(void);
/* The same when nothing is under way: the least of some readings within 1.2 s. */
uint64_t pf_proc_slab_settled(void);

/* Descriptors that a process has open. */
uint32_t pf_proc_descriptors(pid_t pid);

/* Kernel memory outside slabs that sockets use: pages of TCP buffers (sockstat), bytes. */
uint64_t pf_proc_tcp_bytes(void);
