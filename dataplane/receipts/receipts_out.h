/*
 * Receipts to the control process (shm/receipt.h). Nothing is dropped when the ring is full:
 * acknowledgement, "behind", connect and gone are states of the connection, noted here by a dirty
 * bit and sent when there is room, so that several changes become one receipt; a client command
 * that does not fit is answered with a temporary error. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/shm/layout.h"
#include "belfry/shm/receipt.h"
#include "belfry/shm/ring.h"
#include "memory/conn.h"
#include "memory/slab.h"

/* MASK confirmations that may wait for room; beyond it the worker leaves MASKs in their ring. */
#define BF_RCPT_OUT_MASKED_MAX 64u
/* Connections whose states one turn writes: ~100 ns each, so at most 100 us of a turn. */
#define BF_RCPT_OUT_DIRTY_PER_TURN 1024u
/* Slots that a client command must leave free, so that there is always room for states. */
#define BF_RCPT_OUT_RESERVE 64u

/* A mask's confirmation that is due. */
struct bf_rcpt_out_masked {
    uint64_t ticket;
    uint32_t lane;
};

/* What receipts report on. All of it lives longer than struct bf_rcpt_out. */
struct bf_rcpt_out_of {
    struct bf_region *region;
    struct bf_worker_stats *stats;
    struct bf_conns *conns;
    const struct bf_slab *pendings; /* struct bf_pending (memory/pending.h) */
    uint32_t worker;
};

struct bf_rcpt_out {
    struct bf_rcpt_out_of of;
    struct bf_ring_producer ring;
    uint32_t dirty_head; /* slot */
    uint32_t dirty_tail;
    uint32_t dirty_count;
    uint32_t masked_count;
    struct bf_rcpt_out_masked masked[BF_RCPT_OUT_MASKED_MAX];
    bool publish_due;
    uint8_t message[BF_RCPT_BYTES_MAX];
};

/* Takes over the receipts ring of the worker; |of| is copied. */
void bf_rcpt_out_init(struct bf_rcpt_out *out, const struct bf_rcpt_out_of *of);

/* Notes that receipts |bits| (BF_DIRTY_*) of a connection are due. */
void bf_rcpt_mark(struct bf_rcpt_out *out, uint32_t slot, uint16_t bits);

/* Writes one message now, leaving |reserve| slots free. False: no room (nothing written). */
bool bf_rcpt_put(struct bf_rcpt_out *out, enum bf_rcpt_kind kind, const void *bytes, uint32_t len,
                 uint32_t reserve);

/* Writes what is due and fits, publishes, rings ctrlplane's bell. |through| is told of each slot
 * that has nothing due any more, and may free it. Returns true if some must wait. */
bool bf_rcpt_flush(struct bf_rcpt_out *out, void (*through)(void *arg, uint32_t slot), void *arg);
