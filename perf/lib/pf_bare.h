/*
 * Bare servers: processes that accept sockets, answer the upgrade and the connect, and then do
 * nothing but hold them. They are the floor that benchmarks compare with: kernel memory of a bare
 * socket, the cost of a plain send() or of a ping and its pong. Parent's thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "pf_load.h"

struct pf_bare;

/*
 * One process for each |process_connections| of |connections|, each with a port of its own (free
 * ones), pinned to |core| (-1: anywhere). |welcome|: the text sent after the first client frame, or
 * NULL.
 */
struct pf_bare *pf_bare_start(uint32_t connections, uint32_t process_connections, int core,
                              const char *welcome);

/* Ports by process, as pf_load_spec.ports wants them. */
const uint16_t *pf_bare_ports(const struct pf_bare *bare);

/* Sends |frame| (bytes as they are) to every socket by plain send(), and returns when all were
 * sent. */
void pf_bare_send(struct pf_bare *bare, const void *frame, uint32_t len);

/* Pings every socket and reads every pong. Returns CPU nanoseconds that it took, all processes. */
uint64_t pf_bare_ping(struct pf_bare *bare);

/* CPU nanoseconds of all processes so far; kernel work on behalf of their system calls included. */
uint64_t pf_bare_cpu_ns(const struct pf_bare *bare);

void pf_bare_stop(struct pf_bare *bare);
