/*
 * SP/SC ring of 64-byte slots between the two processes: rte_ring's memory (initialised by
 * rte_ring_init in the primary, at a fixed offset of the region) with in-place access, which
 * rte_ring's own API does not offer over several batches.
 *
 *   producer:  reserve slots (prod.head moves) -> fill in place -> publish (prod.tail moves)
 *   consumer:  peek slots in place -> check each -> act -> release (cons.tail moves)
 *
 * Indexes are free-running 32-bit, as rte_ring has them; slot of position p is p & mask. Writer of
 * prod.*: the producer alone. Writer of cons.*: the consumer alone. Ordering: publish is a release
 * store of prod.tail, matched by the consumer's acquire load, so slot bytes are seen whole; release
 * is a release store of cons.tail, matched by the producer's acquire load, so no slot is
 * overwritten while it is still read.
 *
 * Any bytes in a slot are harmless: its check covers payload, header, position (lap) and the
 * producer's generation. A producer that takes over calls bf_ring_producer_attach, which sets head
 * to tail: a predecessor that was killed between reserve and publish leaves no half-written slot.
 * Slots that earlier generations published stay valid up to the position of the take-over, so
 * accepted work is not dropped; everything else fails the check, and the caller counts it.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nmmintrin.h>

#include <rte_ring_core.h>

#include "belfry/base/bug.h"

#define BF_SLOT_BYTES         64u
#define BF_SLOT_PAYLOAD_BYTES 48u
/* A message of several slots (a connect with long ids) is at most this long. */
#define BF_SLOT_PARTS_MAX 64u

struct bf_slot {
    uint32_t check;
    uint32_t generation; /* of the producer */
    uint16_t kind;       /* enum bf_cmd_kind or bf_rcpt_kind */
    uint8_t part;        /* 0-based */
    uint8_t parts;       /* count, the same in each part; parts of a message are neighbours */
    uint32_t len;        /* of the whole message's payload, bytes */
    uint8_t payload[BF_SLOT_PAYLOAD_BYTES];
};

_Static_assert(sizeof(struct bf_slot) == BF_SLOT_BYTES, "one slot, one cache line");

/* Beside each rte_ring in the region. Written by the producer at take-over, read by the consumer.
 */
struct bf_ring_control {
    _Atomic uint32_t generation;  /* of the producer that owns the ring */
    _Atomic uint32_t takeover_at; /* position at which it took over */
    uint8_t _pad[56];
} __attribute__((aligned(64)));

/* ---- process-private views ---- */

struct bf_ring_producer {
    struct rte_ring *ring;
    struct bf_slot *slots;
    uint32_t mask;
    uint32_t capacity;
    uint32_t generation;
    uint32_t head;      /* = ring->prod.head */
    uint32_t cons_seen; /* cons.tail when last looked at */
};

struct bf_ring_consumer {
    struct rte_ring *ring;
    struct bf_slot *slots;
    struct bf_ring_control *control;
    uint32_t mask;
    uint32_t next; /* first position not yet peeked; cons.tail lags until release */
    uint32_t prod_seen;
};

static inline uint32_t bf_ring_load(volatile uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void bf_ring_store(volatile uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* Takes over the producing end (the caller owns the side's lock). */
static inline void bf_ring_producer_attach(struct bf_ring_producer *p, struct rte_ring *ring,
                                           struct bf_ring_control *control, uint32_t generation)
{
    uint32_t tail = bf_ring_load(&ring->prod.tail);
    *p = (struct bf_ring_producer){
        .ring = ring,
        .slots = (struct bf_slot *)(void *)(ring + 1),
        .mask = ring->mask,
        .capacity = ring->capacity,
        .generation = generation,
        .head = tail,
        .cons_seen = bf_ring_load(&ring->cons.tail),
    };
    bf_ring_store(&ring->prod.head, tail);
    atomic_store_explicit(&control->takeover_at, tail, memory_order_relaxed);
    /* release: whoever sees the generation sees the position that goes with it */
    atomic_store_explicit(&control->generation, generation, memory_order_release);
}

/* Takes over the consuming end. Slots that nobody has released are read again. */
static inline void bf_ring_consumer_attach(struct bf_ring_consumer *c, struct rte_ring *ring,
                                           struct bf_ring_control *control)
{
    uint32_t tail = bf_ring_load(&ring->cons.tail);
    bf_ring_store(&ring->cons.head, tail);
    *c = (struct bf_ring_consumer){
        .ring = ring,
        .slots = (struct bf_slot *)(void *)(ring + 1),
        .control = control,
        .mask = ring->mask,
        .next = tail,
        .prod_seen = bf_ring_load(&ring->prod.tail),
    };
}

/* Free slots as far as the producer knows; it reads the shared word only if its cached copy says
 * that there are too few. */
static inline uint32_t bf_ring_free(struct bf_ring_producer *p, uint32_t wanted)
{
    uint32_t free_slots = p->capacity - (p->head - p->cons_seen);
    if (free_slots < wanted) {
        p->cons_seen = bf_ring_load(&p->ring->cons.tail);
        free_slots = p->capacity - (p->head - p->cons_seen);
    }
    return free_slots;
}

/* Slot of a reserved position, offset from the first not yet published. */
static inline struct bf_slot *bf_ring_slot(struct bf_ring_producer *p, uint32_t position)
{
    return &p->slots[position & p->mask];
}

/*
 * Reserves |n| neighbouring positions. Returns false (nothing reserved) if they do not fit.
 * *ret_position is the first; fill each with bf_slot_seal and then publish.
 */
static inline bool bf_ring_reserve(struct bf_ring_producer *p, uint32_t n, uint32_t *ret_position)
{
    if (bf_ring_free(p, n) < n)
        return false;
    *ret_position = p->head;
    p->head += n;
    /* relaxed would do: only the next producer reads it, and it starts after our death */
    bf_ring_store(&p->ring->prod.head, p->head);
    return true;
}

/* Makes all that is reserved visible. Then ring the doorbell. */
static inline void bf_ring_publish(struct bf_ring_producer *p)
{
    bf_ring_store(&p->ring->prod.tail, p->head);
}

/*
 * CRC-32C over position, generation, the rest of the header and the payload, by the instruction
 * that x86-64-v2 has: 8 steps, and those of several slots overlap. The same bytes at another
 * position never match (a difference of at most 32 neighbouring bits is always seen); anything else
 * passes by chance once in 2^32, as with any check of this size.
 */
static inline uint32_t bf_slot_check(const struct bf_slot *slot, uint32_t position)
{
    const uint8_t *bytes = (const uint8_t *)slot + offsetof(struct bf_slot, kind);
    uint64_t crc = UINT32_MAX; /* so that a slot of zeros does not pass */
    crc = _mm_crc32_u64(crc, (uint64_t)slot->generation << 32 | position);
#pragma GCC unroll 7
    for (size_t at = 0; at < BF_SLOT_BYTES - offsetof(struct bf_slot, kind); at += 8) {
        uint64_t word;
        __builtin_memcpy(&word, bytes + at, sizeof(word));
        crc = _mm_crc32_u64(crc, word);
    }
    return (uint32_t)crc;
}

/* Fills the header around a payload already in place. */
static inline void bf_slot_seal(struct bf_ring_producer *p, uint32_t position, uint16_t kind,
                                uint8_t part, uint8_t parts, uint32_t len)
{
    struct bf_slot *slot = bf_ring_slot(p, position);
    slot->generation = p->generation;
    slot->kind = kind;
    slot->part = part;
    slot->parts = parts;
    slot->len = len;
    slot->check = bf_slot_check(slot, position);
}

/* Number of published slots not yet peeked. */
static inline uint32_t bf_ring_ready(struct bf_ring_consumer *c)
{
    if (c->prod_seen == c->next)
        c->prod_seen = bf_ring_load(&c->ring->prod.tail);
    return c->prod_seen - c->next;
}

/* As bf_ring_ready, always looking at the shared word (the re-check before sleeping). */
static inline uint32_t bf_ring_ready_now(struct bf_ring_consumer *c)
{
    c->prod_seen = bf_ring_load(&c->ring->prod.tail);
    return c->prod_seen - c->next;
}

static inline struct bf_slot *bf_ring_peek(struct bf_ring_consumer *c, uint32_t position)
{
    return &c->slots[position & c->mask];
}

/* Whether a slot was written for this position by the owner, or by a predecessor before take-over.
 */
static inline bool bf_slot_is_valid(struct bf_ring_consumer *c, uint32_t position)
{
    const struct bf_slot *slot = bf_ring_peek(c, position);
    if (BF_UNLIKELY(slot->check != bf_slot_check(slot, position)))
        return false;
    /* acquire pairs with attach: the position belongs to the generation that we see */
    uint32_t owner = atomic_load_explicit(&c->control->generation, memory_order_acquire);
    if (BF_LIKELY(slot->generation == owner))
        return true;
    uint32_t takeover = atomic_load_explicit(&c->control->takeover_at, memory_order_relaxed);
    return (int32_t)(slot->generation - owner) < 0 && (int32_t)(position - takeover) < 0;
}

/* Gives slots up to (not including) |position| back to the producer. */
static inline void bf_ring_release(struct bf_ring_consumer *c, uint32_t position)
{
    bf_ring_store(&c->ring->cons.head, position);
    bf_ring_store(&c->ring->cons.tail, position);
}

/*
 * Whole messages of several slots. Producer: copies |len| bytes over as many slots as needed,
 * reserved together (all or nothing), not yet published. Returns false when they do not fit.
 */
static inline bool bf_ring_put_message(struct bf_ring_producer *p, uint16_t kind, const void *bytes,
                                       uint32_t len)
{
    uint32_t parts = len == 0 ? 1 : (len + BF_SLOT_PAYLOAD_BYTES - 1) / BF_SLOT_PAYLOAD_BYTES;
    uint32_t position;
    BF_BUG_ON(parts > BF_SLOT_PARTS_MAX);
    if (!bf_ring_reserve(p, parts, &position))
        return false;
    for (uint32_t i = 0; i < parts; i++) {
        uint32_t at = i * BF_SLOT_PAYLOAD_BYTES;
        uint32_t n = len - at < BF_SLOT_PAYLOAD_BYTES ? len - at : BF_SLOT_PAYLOAD_BYTES;
        uint8_t *payload = bf_ring_slot(p, position + i)->payload;
        __builtin_memcpy(payload, (const uint8_t *)bytes + at, n);
        __builtin_memset(payload + n, 0, BF_SLOT_PAYLOAD_BYTES - n);
        bf_slot_seal(p, position + i, kind, (uint8_t)i, (uint8_t)parts, len);
    }
    return true;
}

/*
 * Consumer: reads the message at c->next into |out| (BF_SLOT_PARTS_MAX * payload bytes) and moves
 * c->next past it, releasing nothing. Returns the slots taken, 0 if none is ready, -n if the n
 * slots skipped are damaged (count them). *ret_kind and *ret_len are untouched unless the result is
 * > 0.
 */
static inline int bf_ring_get_message(struct bf_ring_consumer *c, uint8_t *out, uint16_t *ret_kind,
                                      uint32_t *ret_len)
{
    uint32_t ready = bf_ring_ready(c);
    if (ready == 0)
        return 0;
    const struct bf_slot *first = bf_ring_peek(c, c->next);
    uint32_t parts = first->parts;
    bool good = bf_slot_is_valid(c, c->next) && first->part == 0 && parts > 0 &&
                parts <= BF_SLOT_PARTS_MAX && parts <= ready &&
                first->len <= parts * BF_SLOT_PAYLOAD_BYTES;
    for (uint32_t i = 0; good && i < parts; i++) {
        const struct bf_slot *slot = bf_ring_peek(c, c->next + i);
        good = bf_slot_is_valid(c, c->next + i) && slot->part == i && slot->parts == parts &&
               slot->kind == first->kind && slot->len == first->len;
        if (good)
            __builtin_memcpy(out + i * BF_SLOT_PAYLOAD_BYTES, slot->payload, BF_SLOT_PAYLOAD_BYTES);
    }
    if (!good) {
        c->next += 1; /* goes on slot by slot until a valid first part is found */
        return -1;
    }
    *ret_kind = first->kind;
    *ret_len = first->len;
    c->next += parts;
    return (int)parts;
}
