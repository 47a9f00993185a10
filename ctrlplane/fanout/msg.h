/*
 * What reaches a shard, and its queue: many producers (log consumer, receipts thread, API threads),
 * one consumer (the shard). Intrusive stack taken whole and reversed, so each producer's order is
 * kept. It has no bound of its own because every source has one: events are capped by the ledger,
 * receipts by their ring, calls by the API's threads.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/err.h"
#include "belfry/shm/doorbell.h"
#include "belfry/shm/user_key.h"
#include "ingest/event.h"
#include "ledger/ledger.h"
#include "store/store.h"

struct bf_shard;

enum bf_msg_kind { BF_MSG_LEG = 0, BF_MSG_RECEIPT = 1, BF_MSG_CALL = 2 };

struct bf_msg {
    struct bf_msg *next;
    enum bf_msg_kind kind;
};

/* An event being delivered; settles when its last leg did. */
struct bf_open_event {
    struct bf_event *event; /* one reference */
    struct bf_ledger_ticket ticket;
    uint64_t opened_us; /* mono */
    _Atomic uint32_t legs_open;
    void (*settled)(struct bf_open_event *open); /* on the shard of the last leg; frees it */
    void *owner;
    bool is_push_only;                  /* in-app it is on the broadcast log */
    bool write_row;                     /* leg 0 writes the event's status row */
    struct bf_bytes raw_meta, raw_body; /* as logged, for dead letters; live with this struct */
};

/* User of a leg that is for nobody: a push to an APNs broadcast channel. */
#define BF_PUSH_CHANNEL_USER ((struct bf_bytes){"", 0})

/* One recipient of it. */
struct bf_leg {
    struct bf_msg msg;
    struct bf_open_event *open;
    struct bf_uid uid;      /* bytes live as long as the open event, or behind the leg */
    struct bf_user_key key; /* filled by the shard ahead of the decision, with the message id */
    struct bf_id id;
    uint32_t index;
    uint8_t channel_mask; /* of a subscription; 0 = the event's */
};

struct bf_receipts;
struct bf_receipt_msg {
    struct bf_msg msg;
    struct bf_receipts *reader;
    uint64_t serial; /* of the worker's messages: for the release in order */
    uint32_t worker;
    uint32_t len;
    uint16_t kind;
    uint8_t bytes[] __attribute__((aligned(8)));
};

struct bf_msgq {
    _Atomic(struct bf_msg *) top;
    struct bf_doorbell bell;
};

static inline void bf_msgq_push(struct bf_msgq *q, struct bf_msg *msg)
{
    struct bf_msg *top = atomic_load_explicit(&q->top, memory_order_relaxed);
    do {
        msg->next = top;
        /* release: the consumer's acquire sees the message's content */
    } while (!atomic_compare_exchange_weak_explicit(&q->top, &top, msg, memory_order_release,
                                                    memory_order_relaxed));
    bf_doorbell_ring(&q->bell);
}

static inline bool bf_msgq_is_empty(struct bf_msgq *q)
{
    return atomic_load_explicit(&q->top, memory_order_relaxed) == NULL;
}

/* All messages, oldest first. */
static inline struct bf_msg *bf_msgq_take(struct bf_msgq *q)
{
    /* acquire: pairs with push's release */
    struct bf_msg *msg = atomic_exchange_explicit(&q->top, NULL, memory_order_acquire);
    struct bf_msg *first = NULL;
    while (msg) {
        struct bf_msg *next = msg->next;
        msg->next = first;
        first = msg;
        msg = next;
    }
    return first;
}
