/*
 * Other people's APNs clients, to compare with in the same run: npm `apns2`, and sideshow/apns2 as
 * a Go module. Each sends pushes to belfry-sim when told to; its CPU is read by its pid. gorush
 * itself: when the module proxy does not give it, its absence is said. Parent's thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pf_pusher;
struct pf_sim;

/* Whether there is such a peer: "apns2", "gorush", "sideshow". */
bool pf_pusher_is_known(const char *name);
/* Pinned to |core|. NULL when it cannot be had: |why| says the reason. */
struct pf_pusher *pf_pusher_start(const char *name, int core, const struct pf_sim *sim,
                                  uint64_t payload, uint64_t under_way, char *why, size_t why_len);
pid_t pf_pusher_pid(const struct pf_pusher *pusher);
/* Makes the tokens |first| .. |first| + |count|. False: it has ended. */
bool pf_pusher_prepare(struct pf_pusher *pusher, uint64_t first, uint64_t count);
/* Pushes to them; returns when all are answered, with the number of those answered 200. */
uint64_t pf_pusher_run(struct pf_pusher *pusher);
void pf_pusher_stop(struct pf_pusher *pusher);
