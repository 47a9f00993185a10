/*
 * Heap allocations of a process under test (P20): a small library is preloaded into what is started
 * between _watch and _watched, and counts. One process at a time; the benchmark's thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* From now on what this program executes is counted. False, after saying why, where it cannot be.
 */
bool pf_heap_watch(void);
/* Whatever is executed from now on is not. */
void pf_heap_watched(void);
/* malloc, calloc, realloc and aligned calls so far, of all threads; 0 when nothing is watched. */
uint64_t pf_heap_calls(void);
