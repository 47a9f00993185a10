/*
 * The record of a connection, in parallel arrays indexed by slot: one hot cache line (all that a
 * targeted frame touches until it is sent) and two cold ones, the first of them for sending and for
 * broadcasts. 192 bytes in all, touched when a slot is first used. Slots are
 * grouped by the io_uring that holds the socket, so that a walk over slots submits to one ring at a
 * time. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/bug.h"
#include "belfry/shm/command.h"
#include "belfry/shm/receipt.h"
#include "belfry/shm/user_key.h"

/* No slot, no connection. */
#define BF_SLOT_NONE UINT32_MAX
/* user_data of io_uring names a slot with 24 bits (io/io_op.h). */
#define BF_SLOTS_MAX (1u << 24)
/* The ring of a slot is one byte. 255 rings of 19,000 are 4.8 M sockets: more than a worker serves.
 */
#define BF_CONN_GROUPS_MAX 255u

enum bf_conn_state {
    BF_CONN_FREE = 0,
    BF_CONN_HTTP = 1,    /* accepted; the upgrade request is being read */
    BF_CONN_OPEN = 2,    /* WebSocket; no connect frame yet */
    BF_CONN_AUTH = 3,    /* connect accepted; waits for its WELCOME */
    BF_CONN_LIVE = 4,    /* welcomed */
    BF_CONN_CLOSING = 5, /* our close frame is queued; after it the socket is shut for writing */
    BF_CONN_LINGER = 6,  /* shut for writing; waits for the peer's end so that it reads our close */
    BF_CONN_CLOSED = 7,  /* nothing is sent or read any more; operations and receipts run out */
};

/* bf_conn_hot.flags */
#define BF_CF_READY  (1u << 0) /* in a ready list */
#define BF_CF_DIRTY  (1u << 1) /* in the list of receipts */
#define BF_CF_MASKED (1u << 2) /* the person opted out or is erased: notifications are withdrawn   \
                                */
#define BF_CF_LINKED      (1u << 3)  /* in the user index */
#define BF_CF_ANNOUNCED   (1u << 4)  /* CONNECT was sent, so GONE has to follow */
#define BF_CF_SOCKET_DONE (1u << 5)  /* the descriptor is closed */
#define BF_CF_TIMED       (1u << 6)  /* in the timer wheel */
#define BF_CF_RX_AGAIN    (1u << 7)  /* readable again while a receive was under way */
#define BF_CF_RX_BLOCKED  (1u << 8)  /* received bytes wait for a reception context */
#define BF_CF_URGENT      (1u << 9)  /* in the urgent ready list */
#define BF_CF_CENSUS_DUE  (1u << 10) /* CONNECT is sent again after a census */
#define BF_CF_PARTIAL     (1u << 11) /* the first queued frame has left in part */
#define BF_CF_INFLIGHT    (1u << 12) /* a send of the first queued frame is under way */
#define BF_CF_INFLIGHT_N  (1u << 13) /* with it: of the first cold.inflight frames */
#define BF_CF_TLS         (1u << 14) /* its bytes go through worker/secure.h */
#define BF_CF_DEFLATE     (1u << 15) /* permessage-deflate is agreed: cold.deflate */

/* bf_conn_hot.ops: requests of this connection that the kernel holds */
#define BF_OP_POLL       (1u << 0)
#define BF_OP_SEND       (1u << 1)
#define BF_OP_RECV       (1u << 2)
#define BF_OP_POLLOUT    (1u << 3)
#define BF_OP_SHUTDOWN   (1u << 4)
#define BF_OP_CLOSE      (1u << 5)
#define BF_OP_CANCEL     (1u << 6)
#define BF_OP_CANCEL_OUT (1u << 7)

/* bf_conn_hot.streams: a bit a stream in each nibble */
#define BF_STREAM_OPEN(s)   (uint16_t)(1u << (s))
#define BF_STREAM_BEHIND(s) (uint16_t)(1u << (4u + (s)))
#define BF_STREAM_TOLD(s)   (uint16_t)(1u << (8u + (s)))
/* above the nibbles: frames leave as server-sent events (channel/sse_client.h) */
#define BF_STREAMS_AS_EVENTS (1u << 12)

/* bf_conn_cold.dirty: receipts due */
#define BF_DIRTY_CONNECT   (1u << 0)
#define BF_DIRTY_ACK(l)    (uint8_t)(1u << (1u + (l)))
#define BF_DIRTY_BEHIND(s) (uint16_t)(1u << (4u + (s)))
#define BF_DIRTY_GONE      (1u << 8)

struct bf_conn_hot {
    struct bf_user_key user;
    uint64_t lane_sent[BF_LANE_COUNT]; /* last seq queued here */
    uint32_t user_next;  /* next connection of the user, BF_SLOT_NONE at the end; free list link */
    uint32_t queue_head; /* node, 0 = none */
    uint32_t queue_tail;
    uint32_t queue_bytes;
    uint16_t queue_count;
    uint16_t flags;
    uint16_t streams;
    uint8_t state;
    uint8_t ops;
};

struct bf_conn_cold {
    uint64_t b_sent;     /* last bseq queued here */
    uint32_t generation; /* of the slot; > 0 */
    uint32_t file;       /* direct descriptor in its ring's table */
    uint32_t last_rx;    /* tick */
    uint32_t last_tx;    /* tick of the last send that took something */
    uint16_t inflight;   /* with BF_CF_INFLIGHT_N: frames that the send under way carries */
    uint8_t ring;
    uint32_t deflate : 7; /* our window bits once permessage-deflate is agreed, 0: not agreed */
    uint32_t is_aged : 1; /* LIVE: its deadline is that of its age, not the token's */
    uint32_t rx;          /* reception under way, 0 = none */
    uint32_t tenant;      /* lower half of the tenant's hash; the upper one is in the user's key */
    uint32_t wheel_next;
    uint32_t wheel_prev;
    uint32_t wheel_tick; /* when the wheel looks at it next */
    uint32_t deadline;   /* tick. LIVE: the token's end; other states: the state's end */
    uint32_t dirty_next;
    uint16_t dirty;
    uint16_t close_code;
    uint32_t aux;                   /* before LIVE: pending connect; then: topic grant. 0 = none */
    uint32_t topics;                /* first subscription, 0 = none */
    uint32_t rate;                  /* second (8 bits) and frames in it (24 bits) */
    uint64_t opened[BF_LANE_COUNT]; /* `lane_sent` when the lane opened */
    uint64_t acked[BF_LANE_COUNT];
    uint64_t device; /* bf_name_hash, 0 = none */
};

_Static_assert(sizeof(struct bf_conn_hot) == 64, "hot part: one cache line");
_Static_assert(sizeof(struct bf_conn_cold) == 128, "cold part: two cache lines");
_Static_assert(offsetof(struct bf_conn_cold, dirty_next) <= 64,
               "sending and timers: the first line");

/* Slots of one ring: [first, first + cap). */
struct bf_conn_group {
    uint32_t first;
    uint32_t cap;
    uint32_t bump;
    uint32_t free_head;
};

struct bf_conns {
    struct bf_conn_hot *hot;
    struct bf_conn_cold *cold;
    uint32_t cap;   /* slots of all groups */
    uint32_t used;  /* slots not free */
    uint32_t limit; /* connections_max */
    uint32_t group_count;
    struct bf_conn_group groups[BF_CONN_GROUPS_MAX];
};

/* Lays out |groups| groups of |per_group| slots over the two arrays. Start only. */
static inline void bf_conns_init(struct bf_conns *t, struct bf_conn_hot *hot,
                                 struct bf_conn_cold *cold, uint32_t groups, uint32_t per_group,
                                 uint32_t limit)
{
    BF_BUG_ON(groups > BF_CONN_GROUPS_MAX);
    *t = (struct bf_conns){
        .hot = hot, .cold = cold, .cap = groups * per_group, .limit = limit, .group_count = groups};
    for (uint32_t i = 0; i < groups; i++)
        t->groups[i] = (struct bf_conn_group){
            .first = i * per_group, .cap = per_group, .free_head = BF_SLOT_NONE};
}

/* Takes a slot of a ring's group; BF_SLOT_NONE at a limit. The record is zero but its generation.
 */
static inline uint32_t bf_conn_take(struct bf_conns *t, uint32_t group)
{
    struct bf_conn_group *g = &t->groups[group];
    uint32_t slot = g->free_head;
    if (t->used == t->limit)
        return BF_SLOT_NONE;
    if (slot != BF_SLOT_NONE) {
        g->free_head = t->hot[slot].user_next;
    } else {
        if (g->bump == g->cap)
            return BF_SLOT_NONE;
        slot = g->first + g->bump++;
    }
    uint32_t generation = t->cold[slot].generation + 1;
    t->hot[slot] = (struct bf_conn_hot){.user_next = BF_SLOT_NONE};
    t->cold[slot] =
        (struct bf_conn_cold){.generation = generation ? generation : 1, .ring = (uint8_t)group};
    t->used++;
    return slot;
}

static inline void bf_conn_put(struct bf_conns *t, uint32_t slot)
{
    struct bf_conn_hot *hot = &t->hot[slot];
    struct bf_conn_group *g = &t->groups[t->cold[slot].ring];
    BF_BUG_ON(hot->state == BF_CONN_FREE);
    BF_BUG_ON(hot->queue_head != 0);
    BF_BUG_ON(hot->ops != 0);
    hot->state = BF_CONN_FREE;
    hot->user_next = g->free_head;
    g->free_head = slot;
    t->used--;
}

/* bf_tenant_hash of the connection's tenant. Both halves lie in lines that a broadcast reads
 * anyway. */
static inline uint64_t bf_conn_tenant(const struct bf_conns *t, uint32_t slot)
{
    return (uint64_t)bf_user_key_tenant(t->hot[slot].user) << 32 | t->cold[slot].tenant;
}

/* Last sequence number of a stream that was queued to the connection. */
static inline uint64_t *bf_conn_sent(struct bf_conns *t, uint32_t slot, uint32_t stream)
{
    return stream < BF_LANE_COUNT ? &t->hot[slot].lane_sent[stream] : &t->cold[slot].b_sent;
}

/* Notes the window bits that were agreed for what we send; 0: none. */
static inline void bf_conn_set_deflate(struct bf_conns *t, uint32_t slot, uint8_t bits)
{
    t->cold[slot].deflate = bits & 0x7fu;
    if (bits)
        t->hot[slot].flags |= BF_CF_DEFLATE;
    else
        t->hot[slot].flags &= (uint16_t)~BF_CF_DEFLATE;
}

static inline bf_conn_id bf_conn_id_of(const struct bf_conns *t, uint32_t slot)
{
    return (uint64_t)t->cold[slot].generation << 32 | slot;
}

/* Slot of an id whose connection still lives (not CLOSED), else BF_SLOT_NONE. Any 64 bits are safe.
 */
static inline uint32_t bf_conn_find(const struct bf_conns *t, bf_conn_id id)
{
    uint32_t slot = (uint32_t)id;
    if (slot >= t->cap || t->cold[slot].generation != (uint32_t)(id >> 32))
        return BF_SLOT_NONE;
    uint8_t state = t->hot[slot].state;
    return state == BF_CONN_FREE || state == BF_CONN_CLOSED ? BF_SLOT_NONE : slot;
}

/* First slot from |cursor| on that was ever used; t->cap: none. Walks must not touch the others,
 * because that would allocate their pages. */
static inline uint32_t bf_conns_skip(const struct bf_conns *t, uint32_t cursor)
{
    uint32_t per_group = t->cap / t->group_count;
    while (cursor < t->cap) {
        const struct bf_conn_group *g = &t->groups[cursor / per_group];
        if (cursor - g->first < g->bump)
            return cursor;
        cursor = g->first + g->cap;
    }
    return t->cap;
}
