/*
 * The smallest control plane: a dataplane process of its own and, in the benchmark, the producing
 * ends of its rings. Benchmarks of the dataplane alone use it: they enqueue exactly what they want
 * to measure (also the --raw triggers, worker/raw.h), with no log, store or API in between. It
 * attaches as EAL secondary, as belfry-ctrlplane does, and answers every connect with an empty
 * welcome.
 *
 * One a process (EAL initialises once). All calls from the benchmark's thread; a thread of its own
 * takes receipts and answers connects.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "belfry/shm/layout.h"

struct pf_plane;

/* Messages of one burst. */
#define PF_BURST_MAX 64u

/* Starts belfry-dataplane from this YAML (nested maps; the sections node and websocket are ours),
 * with
 * --raw or not, and attaches. |reader_core|: where this program and its thread run from now on.
 * Ends the program on failure. */
struct pf_plane *pf_plane_start(const char *yaml, bool raw, int reader_core);
void pf_plane_stop(struct pf_plane *plane);

/* Further entries of websocket.jwt_keys (", {kid: ..}"), to be set before the start; NULL: none. */
extern const char *pf_plane_more_keys;

pid_t pf_plane_pid(const struct pf_plane *plane);
uint16_t pf_plane_port(const struct pf_plane *plane);
/* 0 without tls.certificates. */
uint16_t pf_plane_tls_port(const struct pf_plane *plane);
/* Raw HS256 secret of kid "dev". */
const char *pf_plane_secret(const struct pf_plane *plane, size_t *ret_len);
/* Connects answered so far. */
uint32_t pf_plane_welcomed(const struct pf_plane *plane);

/* A dataplane counter, summed over workers. */
uint64_t pf_plane_metric(const struct pf_plane *plane, enum bf_metric metric);
/* Histograms of worker 0. */
struct bf_worker_stats *pf_plane_stats(const struct pf_plane *plane);

/*
 * Sends a text frame with this payload to everyone (topic 0), or as the raw trigger that |topic|
 * names. Returns false when a ring is full or no block is free.
 */
bool pf_plane_broadcast(struct pf_plane *plane, const void *payload, size_t len, uint64_t topic);

/* Sends a transient, stamped text frame to one user; the worker records the time until its submit.
 */
bool pf_plane_notify_stamped(struct pf_plane *plane, struct bf_user_key user, const void *payload,
                             size_t len);
struct bf_user_key pf_plane_user(const struct pf_plane *plane, const char *user);

/*
 * Bursts: |count| texts of |len| bytes each, back to back in |payloads|, published together, so
 * that the worker finds them together. To everyone; as one raw trigger (topic as in worker/raw.h)
 * whose bytes are all the frames; or transient to one user. Returns false, with nothing sent, while
 * a ring is full or blocks are short: try again.
 */
bool pf_plane_broadcast_burst(struct pf_plane *plane, const void *payloads, size_t len,
                              uint32_t count);
bool pf_plane_raw_burst(struct pf_plane *plane, const void *payloads, size_t len, uint32_t count,
                        uint64_t topic);
bool pf_plane_notify_burst(struct pf_plane *plane, struct bf_user_key user, const void *payloads,
                           size_t len, uint32_t count);

/* ---- push ---- */

/* Publishes a snapshot of these records (TLV, shm/snapshot.h). */
void pf_plane_snapshot(struct pf_plane *plane, const uint8_t *content, size_t len);
/* Sends one request (shm/push_wire.h) to worker 0; |fill| writes its block of |len| bytes. False:
 * no room in the ring, or no block. Visible to the worker after pf_plane_flush. */
bool pf_plane_push(struct pf_plane *plane, const struct bf_cmd_push *cmd, enum bf_lane lane,
                   size_t len, void (*fill)(void *context, uint8_t *at), void *context);
void pf_plane_flush(struct pf_plane *plane);
/* From now on every receipt goes there too, in the plane's own thread. */
void pf_plane_on_receipt(struct pf_plane *plane,
                         void (*take)(void *context, uint16_t kind, const uint8_t *bytes,
                                      uint32_t len),
                         void *context);
