/*
 * All state of one worker but its sockets, in one struct (after Knot and h2o: per-thread state is
 * one thing). channel, session, commands and receipts work on it; the worker owns it and joins it
 * with io. Nothing in it is shared: only the region at core->region is. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/shm/layout.h"
#include "channel/packed.h"
#include "channel/topics.h"
#include "receipts/receipts_out.h"
#include "memory/conn.h"
#include "memory/holds.h"
#include "memory/pending.h"
#include "memory/slab.h"
#include "memory/user_index.h"
#include "timer/wheel.h"

/* What the configuration snapshot says (reload class LIVE). */
struct bf_limits {
#define X(name) uint32_t name;
    BF_SNAP_LIMIT_LIST(X)
#undef X
};

/* A frame of ours that does not come from a block: handshake, control frames, errors, answers. */
#define BF_LOCAL_BYTES_MAX 510u
struct bf_local {
    uint16_t len;
    uint8_t bytes[BF_LOCAL_BYTES_MAX];
};

/* A piece of an answer of --echo, 16 KiB: 1,025 of them are the largest message. */
#define BF_CHUNK_BYTES_MAX 16380u
struct bf_chunk {
    uint32_t len;
    uint8_t bytes[BF_CHUNK_BYTES_MAX];
};

/* Topics a token allows: names, each a length byte and text, over a chain of chunks. */
#define BF_GRANT_BYTES_MAX 506u
struct bf_grant {
    uint32_t next;
    uint16_t len;
    uint8_t bytes[BF_GRANT_BYTES_MAX];
};

/* Slots with something to send or to close, in order of arrival. A slot is in it at most once
 * (BF_CF_READY), so one entry for each slot is enough. When it is empty it begins at its start
 * again, so no more of its memory is ever touched than slots have waited at one time. */
struct bf_ready {
    uint32_t *slots;
    uint32_t cap;
    uint32_t head; /* place of the first */
    uint32_t count;
};

/* Slots that overtake the ready list: a critical frame, or a socket to be closed. An array, because
 * a slot may wait in both; whoever comes second finds nothing to do. When it is full the slot waits
 * in the ready list like any other: it is served later, but it is served. Power of two. */
#define BF_URGENT_MAX 8192u
struct bf_urgent {
    uint32_t *slots;
    uint32_t head;
    uint32_t tail;
};

struct bf_worker_core {
    struct bf_region *region;
    struct bf_worker_stats *stats;
    uint32_t worker;
    uint32_t tick; /* now, in BF_TICK_MS since the worker's start */
    uint64_t mono_ms;
    uint64_t wall_ms;
    struct bf_limits limits;

    struct bf_conns conns;
    struct bf_users users;
    struct bf_holds holds;
    struct bf_wheel wheel;
    struct bf_rcpt_out receipts;
    struct bf_urgent urgent;
    struct bf_ready ready;

    struct bf_slab nodes;    /* struct bf_node (channel.h) */
    struct bf_slab locals;   /* struct bf_local */
    struct bf_slab pendings; /* struct bf_pending */
    struct bf_slab grants;   /* struct bf_grant */
    struct bf_slab streams;  /* struct bf_sse_client (sse_client.h) */
    struct bf_slab chunks;   /* struct bf_chunk; empty but in --echo */

    struct bf_packs packs;
    struct bf_topics topics;
    uint32_t welcomed;
    uint64_t b_pos;     /* bseq up to which broadcasts were walked to the end */
    uint64_t b_started; /* bseq up to which a walk has at least begun */
};

static inline void bf_worker_count(struct bf_worker_core *core, enum bf_metric metric, uint64_t by)
{
    bf_metric_add(core->stats, metric, by);
}

static inline struct bf_conn_hot *bf_hot(struct bf_worker_core *core, uint32_t slot)
{
    return &core->conns.hot[slot];
}

static inline struct bf_conn_cold *bf_cold(struct bf_worker_core *core, uint32_t slot)
{
    return &core->conns.cold[slot];
}

static inline uint32_t bf_ticks_of(uint32_t ms)
{
    return ms / BF_TICK_MS + 1u;
}

static inline void bf_ready_append(struct bf_ready *list, uint32_t slot)
{
    uint32_t at = list->head + list->count;
    BF_BUG_ON(list->count == list->cap);
    list->slots[at < list->cap ? at : at - list->cap] = slot;
    list->count++;
}

/* A slot that bf_ready_pop gives soon; BF_SLOT_NONE: none. */
static inline uint32_t bf_ready_peek(const struct bf_ready *list, uint32_t ahead)
{
    uint32_t at = list->head + ahead;
    return ahead < list->count && at < list->cap ? list->slots[at] : BF_SLOT_NONE;
}

/* The list is not empty. */
static inline uint32_t bf_ready_pop(struct bf_ready *list)
{
    uint32_t slot = list->slots[list->head++];
    list->count--;
    if (list->head == list->cap || list->count == 0)
        list->head = 0;
    return slot;
}

/* Puts a slot into a ready list, unless it is in one or a send is under way (whose completion puts
 * it there). A closed one is put in even while a send is under way. |urgent|: served before the
 * others. */
static inline void bf_ready_add(struct bf_worker_core *core, uint32_t slot, bool urgent)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_urgent *u = &core->urgent;
    if ((hot->ops & (BF_OP_SEND | BF_OP_POLLOUT)) && hot->state != BF_CONN_CLOSED)
        return;
    if (urgent && u->tail - u->head < BF_URGENT_MAX) {
        if (hot->flags & BF_CF_URGENT)
            return;
        hot->flags |= BF_CF_URGENT;
        u->slots[u->tail++ % BF_URGENT_MAX] = slot;
    } else if (!(hot->flags & (BF_CF_READY | BF_CF_URGENT))) {
        hot->flags |= BF_CF_READY;
        bf_ready_append(&core->ready, slot);
    }
}

/* Takes the next slot, urgent ones first; BF_SLOT_NONE: none. It may have nothing left to send. */
static inline uint32_t bf_ready_take(struct bf_worker_core *core)
{
    struct bf_urgent *u = &core->urgent;
    uint32_t slot;
    uint16_t flag;
    if (u->head != u->tail) {
        slot = u->slots[u->head++ % BF_URGENT_MAX];
        flag = BF_CF_URGENT;
    } else if (core->ready.count > 0) {
        slot = bf_ready_pop(&core->ready);
        flag = BF_CF_READY;
    } else {
        return BF_SLOT_NONE;
    }
    bf_hot(core, slot)->flags &= (uint16_t)~flag;
    return slot;
}

static inline uint32_t bf_ready_count(const struct bf_worker_core *core)
{
    return core->ready.count + (core->urgent.tail - core->urgent.head);
}

/* Frees the slot of a closed connection once socket, requests and receipts are through. */
void bf_worker_core_try_free(struct bf_worker_core *core, uint32_t slot);
/* Takes over the receipts ring of the core's worker. */
void bf_worker_core_open_outbox(struct bf_worker_core *core);
/* Sends the receipts that are due and fit; connections that have nothing more to report and are
 * closed are freed. Returns true if some must wait. */
bool bf_worker_core_flush_outbox(struct bf_worker_core *core);
