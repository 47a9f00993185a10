/* Slots in a circle. Owner: the worker. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "memory/conn.h"

struct bf_slot_queue {
    uint32_t *slots;
    uint32_t cap;
    uint32_t head;
    uint32_t count;
};

/* False: full. */
static inline bool bf_slot_queue_push(struct bf_slot_queue *q, uint32_t slot)
{
    if (q->count == q->cap)
        return false;
    if (q->count == 0)
        q->head = 0; /* stay in the pages that are touched */
    q->slots[(q->head + q->count++) % q->cap] = slot;
    return true;
}

/* BF_SLOT_NONE: empty. */
static inline uint32_t bf_slot_queue_pop(struct bf_slot_queue *q)
{
    if (q->count == 0)
        return BF_SLOT_NONE;
    uint32_t slot = q->slots[q->head];
    q->head = (q->head + 1) % q->cap;
    q->count--;
    return slot;
}
