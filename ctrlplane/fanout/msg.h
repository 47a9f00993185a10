/*
 * What reaches a shard, and its queue: many producers (log consumer, receipts thread, API threads),
 * one consumer (the shard). An intrusive stack a lane, taken whole and reversed, so each producer's
 * order is kept in a lane; the lanes overtake each other (FAN-4). It has no bound of its own
 * because every source has one: events are capped by the ledger, receipts by their ring, answers by
 * the attempts out, calls by the API's threads.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "belfry/base/err.h"
#include "belfry/shm/doorbell.h"
#include "belfry/shm/user_key.h"
#include "channels/channel.h"
#include "ledger/open_event.h"
#include "store/store.h"

struct bf_shard;

enum bf_msg_kind { BF_MSG_LEG = 0, BF_MSG_RECEIPT = 1, BF_MSG_CALL = 2, BF_MSG_ANSWER = 3 };

struct bf_msg {
    struct bf_msg *next;
    enum bf_msg_kind kind;
};

/* Order is kept for each (user, topic, lane of the event) and for events to one user (DESIGN 4.11):
 * all messages of one such order go through one lane here. */
enum bf_msgq_lane {
    BF_MSGQ_URGENT = 0, /* receipts, calls, events of the critical lane */
    BF_MSGQ_NORMAL = 1,
    BF_MSGQ_JOB = 2, /* chunks of a topic's or broadcast's people, whatever their lane */
    BF_MSGQ_BULK = 3,
    BF_MSGQ_LANES
};

/* The user of a leg that is not for a person: a push to an APNs broadcast channel. */
#define BF_PUSH_CHANNEL_USER ((struct bf_bytes){"", 0})

/* One recipient of it. */
struct bf_leg {
    struct bf_msg msg;
    struct bf_open_event *open;
    struct bf_uid uid;      /* bytes live as long as the open event, or follow the leg */
    struct bf_user_key key; /* filled by the shard ahead of the decision, with the message id */
    struct bf_id id;
    uint32_t index;
    uint8_t channel_mask; /* of a subscription; 0 = the event's */
};

/* A receipt on its way through a shard. Its slot in the ring is released once it is done. */
struct bf_receipt_msg {
    struct bf_msg msg;
    _Atomic uint8_t *done; /* where its reader finds it done (receipts/receipts.c) */
    uint32_t worker;
    uint32_t len;
    uint16_t kind;
    uint8_t bytes[] __attribute__((aligned(8)));
};

/* What the receipt said is durable; frees it. Any shard thread. */
static inline void bf_receipt_msg_done(struct bf_receipt_msg *msg)
{
    /* release: the store write happened before the slot can be released */
    atomic_store_explicit(msg->done, 1, memory_order_release);
    free(msg);
}
/* A provider's answer that came by no ring. */
struct bf_answer_msg {
    struct bf_msg msg;
    struct bf_provider_answer answer; /* body: below */
    char body[];
};

struct bf_msgq {
    _Atomic(struct bf_msg *) top[BF_MSGQ_LANES];
    struct bf_doorbell bell;
};

static inline enum bf_msgq_lane bf_msgq_lane_of(const struct bf_msg *msg)
{
    if (msg->kind != BF_MSG_LEG)
        return BF_MSGQ_URGENT;
    const struct bf_open_event *open = ((const struct bf_leg *)msg)->open;
    if (open->is_job)
        return BF_MSGQ_JOB;
    return open->event->lane == BF_LANE_CRITICAL ? BF_MSGQ_URGENT
           : open->event->lane == BF_LANE_NORMAL ? BF_MSGQ_NORMAL
                                                 : BF_MSGQ_BULK;
}

static inline void bf_msgq_push(struct bf_msgq *q, struct bf_msg *msg)
{
    _Atomic(struct bf_msg *) *at = &q->top[bf_msgq_lane_of(msg)];
    struct bf_msg *top = atomic_load_explicit(at, memory_order_relaxed);
    do {
        msg->next = top;
        /* release: the consumer's acquire sees the message's content */
    } while (!atomic_compare_exchange_weak_explicit(at, &top, msg, memory_order_release,
                                                    memory_order_relaxed));
    bf_doorbell_ring(&q->bell);
}

static inline bool bf_msgq_is_empty(struct bf_msgq *q)
{
    for (int lane = 0; lane < BF_MSGQ_LANES; lane++)
        if (atomic_load_explicit(&q->top[lane], memory_order_relaxed) != NULL)
            return false;
    return true;
}

/* All messages of a lane, oldest first; |*ret_last|: the newest. */
static inline struct bf_msg *bf_msgq_take(struct bf_msgq *q, enum bf_msgq_lane lane,
                                          struct bf_msg **ret_last)
{
    if (atomic_load_explicit(&q->top[lane], memory_order_relaxed) == NULL)
        return NULL; /* only looking does not take the cache line from the producers */

    /* acquire: pairs with push's release */
    struct bf_msg *msg = atomic_exchange_explicit(&q->top[lane], NULL, memory_order_acquire);
    struct bf_msg *first = NULL;
    *ret_last = msg;
    while (msg) {
        struct bf_msg *next = msg->next;
        msg->next = first;
        first = msg;
        msg = next;
    }
    return first;
}
