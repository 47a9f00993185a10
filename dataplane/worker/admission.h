/*
 * Which connections are let in. It is decided at accept, before any TLS work: by a rate for the
 * node, shared evenly among its workers, and by the number of connections that one address has on
 * all workers together (memory/address_counts.h). A refused connection is reset, so that nothing of
 * it is left here, and counted. The limit of all connections is io's: beyond it nothing is accepted
 * and the backlog fills.
 *
 * The address of a direct descriptor is asked of the kernel (io_uring socket command), only while
 * the limit for addresses is on; that of an ordinary one is known at once. Owner: the worker.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "io/io.h"
#include "memory/slab.h"

struct bf_worker;

/* Connections that may come at once after a pause: a share of a second's. */
#define BF_ADMISSION_BURST_DIVISOR 4u
#define BF_ADMISSION_BURST_MIN     16u
/* Requests for an address that are under way at most: twice the accepts of a turn. */
#define BF_ADMISSION_QUESTIONS 512u

struct bf_admission {
    uint64_t milli_tokens; /* a connection costs 1,000 */
    uint64_t filled_ms;    /* when they were counted last */
    uint64_t
        *keys; /* by slot: keyed hash of the IPv4 address, or of an IPv6 /64; 0 = not counted */
    struct bf_slab questions; /* socket addresses that the kernel writes */
    uint32_t counted;         /* connections here that opts.addresses counts */
    bool is_deaf;             /* the kernel cannot tell addresses; logged once */
};

/* Start of the worker. 0 or BF_ERR_NO_MEMORY. */
int bf_admission_init(struct bf_worker *w, uint32_t slots);
/* Whether the rate has room for one more; takes it. */
bool bf_admission_may_accept(struct bf_worker *w);
/* Asks the kernel for the address of a new connection. False: addresses have no limit, or the
 * kernel need not be asked; then bf_admission_look decides. */
bool bf_admission_ask(struct bf_worker *w, uint32_t slot);
/* Decides at once where the address can be had at once. Returns whether the connection may stay; if
 * not, it is being reset. */
bool bf_admission_look(struct bf_worker *w, uint32_t slot);
/* The answer. Returns whether the connection may stay; if not, it is being reset. */
bool bf_admission_answer(struct bf_worker *w, const struct bf_io_event *event);
/* The connection ends. */
void bf_admission_release(struct bf_worker *w, uint32_t slot);
