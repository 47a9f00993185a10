/*
 * The ledger (ledger.h). Each partition has a ring of slots, one per offset of its window: slot =
 * offset mod size. The consumer thread opens slots and moves the low watermark over settled ones;
 * any thread settles with one compare-and-swap. A slot's word names the state, the assignment and
 * the lap of the ring, so that a ticket of an earlier assignment changes nothing and a ticket
 * settled twice is seen even after its slot serves a later event.
 */
#include "ledger/ledger.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "belfry/base/bug.h"
#include "belfry/base/time.h"

enum slot_state { SLOT_NONE = 0, SLOT_OPEN = 1, SLOT_SETTLED = 2 };

/* lap (32 bits) | assignment (30 bits) | state (2 bits). Two laps that differ by 2^32 or
 * assignments by 2^30 look alike; a ticket does not live that long. */
#define ASSIGNMENT_MASK 0x3fffffffu

struct partition {
    /* Consumer thread; read by settlers only through a ticket, which was handed over after them. */
    _Atomic uint64_t *slots; /* made at the first assignment, kept until the ledger goes */
    uint32_t *opened_ms;     /* consumer thread only: mono clock, modulo 2^32 */
    bool is_assigned;
    uint32_t assignment;
    int64_t low;  /* first offset not settled */
    int64_t next; /* first offset not opened */
    /* Opened and not yet below the watermark. Consumer thread writes, health reads: relaxed. */
    _Atomic uint32_t held;
    /* When the event at the watermark was opened, +1 so that 0 means "none". Relaxed: a number for
     * people, it orders nothing. */
    _Atomic uint64_t oldest_ms;
};

struct bf_ledger {
    uint32_t size; /* slots a partition; power of two */
    uint32_t lap_shift;
    _Atomic uint32_t partition_count; /* relaxed: grows only, readers tolerate one too few */
    struct partition partitions[BF_LEDGER_PARTITIONS_MAX];
};

/* 4 ms resolution is enough for an age and costs a quarter of the exact clock. */
static uint64_t coarse_ms(void)
{
    return bf_clock_ns(CLOCK_MONOTONIC_COARSE) / 1000000u;
}

struct bf_ledger *bf_ledger_create(uint32_t inflight_max)
{
    BF_BUG_ON(inflight_max == 0);
    BF_BUG_ON((inflight_max & (inflight_max - 1)) != 0);
    struct bf_ledger *ledger = calloc(1, sizeof(*ledger));
    if (ledger == NULL)
        return NULL;
    ledger->size = inflight_max;
    ledger->lap_shift = (uint32_t)__builtin_ctz(inflight_max);
    return ledger;
}

void bf_ledger_destroy(struct bf_ledger *ledger)
{
    if (ledger == NULL)
        return;
    for (uint32_t i = 0; i < BF_LEDGER_PARTITIONS_MAX; i++) {
        free((void *)ledger->partitions[i].slots);
        free(ledger->partitions[i].opened_ms);
    }
    free(ledger);
}

/* Single writer: load and store need no read-modify-write. */
static uint32_t hold(struct partition *p, int32_t by)
{
    uint32_t held = atomic_load_explicit(&p->held, memory_order_relaxed) + (uint32_t)by;
    atomic_store_explicit(&p->held, held, memory_order_relaxed);
    return held;
}

static struct partition *partition_at(struct bf_ledger *ledger, uint32_t partition)
{
    BF_BUG_ON(partition >= BF_LEDGER_PARTITIONS_MAX);
    return &ledger->partitions[partition];
}

static uint64_t slot_word(const struct bf_ledger *ledger, uint32_t assignment, int64_t offset,
                          enum slot_state state)
{
    uint64_t lap = ((uint64_t)offset >> ledger->lap_shift) & UINT32_MAX;
    return lap << 32 | (uint64_t)(assignment & ASSIGNMENT_MASK) << 2 | (uint64_t)state;
}

static _Atomic uint64_t *slot_of(const struct bf_ledger *ledger, struct partition *p,
                                 int64_t offset)
{
    return &p->slots[(uint64_t)offset & (ledger->size - 1)];
}

void bf_ledger_assign(struct bf_ledger *ledger, uint32_t partition, uint32_t assignment,
                      int64_t offset)
{
    struct partition *p = partition_at(ledger, partition);
    BF_BUG_ON(offset < 0);
    BF_BUG_ON(p->is_assigned && p->assignment == assignment);
    if (p->slots == NULL) {
        p->slots = calloc(ledger->size, sizeof(*p->slots));
        p->opened_ms = calloc(ledger->size, sizeof(*p->opened_ms));
        BF_BUG_ON(p->slots == NULL || p->opened_ms == NULL);
    }
    /* relaxed: late settlers of an earlier assignment fail their compare whatever they see */
    for (uint32_t i = 0; i < ledger->size; i++)
        atomic_store_explicit(&p->slots[i], SLOT_NONE, memory_order_relaxed);
    p->is_assigned = true;
    p->assignment = assignment;
    p->low = p->next = offset;
    atomic_store_explicit(&p->held, 0, memory_order_relaxed);
    atomic_store_explicit(&p->oldest_ms, 0, memory_order_relaxed);
    if (partition + 1 > atomic_load_explicit(&ledger->partition_count, memory_order_relaxed))
        atomic_store_explicit(&ledger->partition_count, partition + 1, memory_order_relaxed);
}

void bf_ledger_revoke(struct bf_ledger *ledger, uint32_t partition, uint32_t assignment)
{
    struct partition *p = partition_at(ledger, partition);
    if (!p->is_assigned || p->assignment != assignment)
        return;
    p->is_assigned = false;
    atomic_store_explicit(&p->held, 0, memory_order_relaxed);
    atomic_store_explicit(&p->oldest_ms, 0, memory_order_relaxed);
}

bool bf_ledger_is_current(struct bf_ledger *ledger, uint32_t partition, uint32_t assignment)
{
    const struct partition *p = partition_at(ledger, partition);
    return p->is_assigned && p->assignment == assignment;
}

/* Moves the watermark over what is settled. */
static void advance(struct bf_ledger *ledger, struct partition *p)
{
    while (p->low < p->next) {
        /* acquire: pairs with the settler's release, so that the store writes of a settled event
         * come before the sync that the consumer makes next */
        uint64_t word = atomic_load_explicit(slot_of(ledger, p, p->low), memory_order_acquire);
        if (word == slot_word(ledger, p->assignment, p->low, SLOT_OPEN))
            break;
        if (p->opened_ms[(uint64_t)p->low & (ledger->size - 1)] != 0)
            hold(p, -1);
        p->low++;
    }
}

static void note_oldest(struct bf_ledger *ledger, struct partition *p)
{
    uint64_t at = 0;
    if (p->low < p->next)
        at = p->opened_ms[(uint64_t)p->low & (ledger->size - 1)];
    atomic_store_explicit(&p->oldest_ms, at, memory_order_relaxed);
}

/* Offsets that the log skipped: settled from the start, never held. */
static void skip_to(struct bf_ledger *ledger, struct partition *p, int64_t offset)
{
    for (; p->next < offset; p->next++) {
        p->opened_ms[(uint64_t)p->next & (ledger->size - 1)] = 0;
        /* relaxed: only this thread reads a slot that no ticket names */
        atomic_store_explicit(slot_of(ledger, p, p->next),
                              slot_word(ledger, p->assignment, p->next, SLOT_SETTLED),
                              memory_order_relaxed);
    }
}

bool bf_ledger_open(struct bf_ledger *ledger, uint32_t partition, uint32_t assignment,
                    int64_t offset, struct bf_ledger_ticket *ret_ticket)
{
    struct partition *p = partition_at(ledger, partition);
    BF_BUG_ON(!p->is_assigned || p->assignment != assignment);
    BF_BUG_ON(offset < p->next);
    if (offset - p->low >= (int64_t)ledger->size) {
        advance(ledger, p);
        note_oldest(ledger, p);
        if (p->low == p->next)
            p->low = p->next = offset; /* nothing open: a gap of any width is passed */
        else if (offset - p->low >= (int64_t)ledger->size)
            return false;
    }
    skip_to(ledger, p, offset);
    uint32_t now = (uint32_t)coarse_ms();
    p->opened_ms[(uint64_t)offset & (ledger->size - 1)] = now != 0 ? now : 1;
    /* relaxed: the ticket reaches other threads through a queue, which orders this store */
    atomic_store_explicit(slot_of(ledger, p, offset),
                          slot_word(ledger, assignment, offset, SLOT_OPEN), memory_order_relaxed);
    p->next = offset + 1;
    if (hold(p, 1) == 1)
        note_oldest(ledger, p);
    *ret_ticket = (struct bf_ledger_ticket){partition, assignment, offset};
    return true;
}

bool bf_ledger_skip(struct bf_ledger *ledger, uint32_t partition, uint32_t assignment,
                    int64_t offset)
{
    struct partition *p = partition_at(ledger, partition);
    if (!p->is_assigned || p->assignment != assignment || offset <= p->next)
        return true;
    advance(ledger, p);
    note_oldest(ledger, p);
    if (p->low == p->next) {
        p->low = p->next = offset; /* nothing open: a gap of any width is passed */
        return true;
    }
    if (offset - p->low > (int64_t)ledger->size)
        return false;
    skip_to(ledger, p, offset);
    return true;
}

void bf_ledger_settle(struct bf_ledger *ledger, const struct bf_ledger_ticket *ticket)
{
    struct partition *p = partition_at(ledger, ticket->partition);
    uint64_t open = slot_word(ledger, ticket->assignment, ticket->offset, SLOT_OPEN);
    uint64_t settled = slot_word(ledger, ticket->assignment, ticket->offset, SLOT_SETTLED);
    uint64_t seen = open;
    /* release: what was done for the event happens before the consumer sees it settled; relaxed on
     * failure: nothing is read on the strength of it */
    if (atomic_compare_exchange_strong_explicit(slot_of(ledger, p, ticket->offset), &seen, settled,
                                                memory_order_release, memory_order_relaxed))
        return;
    /* same assignment, not open: settled before; the offset would be counted for another event */
    BF_BUG_ON((seen >> 2 & ASSIGNMENT_MASK) == (ticket->assignment & ASSIGNMENT_MASK) &&
              (seen & 3) != SLOT_NONE);
}

bool bf_ledger_watermark(struct bf_ledger *ledger, uint32_t partition, uint32_t *ret_assignment,
                         int64_t *ret_offset)
{
    struct partition *p = partition_at(ledger, partition);
    if (!p->is_assigned)
        return false;
    advance(ledger, p);
    note_oldest(ledger, p);
    *ret_assignment = p->assignment;
    *ret_offset = p->low;
    return true;
}

uint32_t bf_ledger_inflight(struct bf_ledger *ledger, uint32_t partition)
{
    return atomic_load_explicit(&partition_at(ledger, partition)->held, memory_order_relaxed);
}

uint32_t bf_ledger_partitions(struct bf_ledger *ledger)
{
    return atomic_load_explicit(&ledger->partition_count, memory_order_relaxed);
}

uint64_t bf_ledger_oldest_ms(struct bf_ledger *ledger, uint64_t now_ms)
{
    uint64_t oldest = 0;
    uint32_t count = bf_ledger_partitions(ledger);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = atomic_load_explicit(&ledger->partitions[i].oldest_ms, memory_order_relaxed);
        if (at == 0)
            continue;
        /* modulo 2^32: an age of 49 days would be a different problem; a clock read before ours 0
         */
        uint32_t age = (uint32_t)now_ms - (uint32_t)at;
        if (age <= INT32_MAX && age + 1u > oldest)
            oldest = age + 1u;
    }
    return oldest;
}
