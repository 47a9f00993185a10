/*
 * Filter of known message ids (split-block Bloom): nearly every event asks whether its message is
 * known, and nearly always it is not. The filter says "certainly not" in one cache miss; anything
 * else is looked up. It covers every id row once a scan of the store has filled it; until then it
 * never says no. Adding and asking: any thread (relaxed: a row is found by others only after its
 * batch was written, which orders it; one's own adds are seen at once).
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/id.h"

/* 16 bits an id for 16 M ids, 1 wrong "perhaps" in 1,000; at 64 M ids 1 in 10. Touched as used. */
#define BF_SEEN_BYTES (32u * 1024u * 1024u)

struct bf_seen {
    _Atomic uint64_t *words; /* NULL: no memory for it; everything is looked up */
    _Atomic bool is_complete;
};

/* Without memory for it everything is looked up. Whoever fills it (warm.h) says when it is
 * complete. */
void bf_seen_create(struct bf_seen *seen);
void bf_seen_complete(struct bf_seen *seen);
void bf_seen_destroy(struct bf_seen *seen);

#define BF_SEEN_BLOCK_WORDS 8u /* one cache line */

static inline _Atomic uint64_t *bf_seen_block(struct bf_seen *seen, const struct bf_id *id,
                                              uint64_t *ret_hash)
{
    uint64_t parts[2];
    memcpy(parts, id->bytes, sizeof(parts));
    /* ids are hashes; only their version and variant bits are fixed */
    uint64_t h = (parts[0] ^ (parts[1] << 32 | parts[1] >> 32)) * UINT64_C(0x9e3779b97f4a7c15);
    uint64_t blocks = BF_SEEN_BYTES / (BF_SEEN_BLOCK_WORDS * 8u);
    *ret_hash = parts[1] * UINT64_C(0xc2b2ae3d27d4eb4f) ^ parts[0];
    return seen->words + (h >> 32) * blocks / (UINT64_C(1) << 32) * BF_SEEN_BLOCK_WORDS;
}

/* always_inline: gcc takes a function that does nothing but prefetch for one without effect, and
 * drops the call. */
static inline __attribute__((always_inline)) void bf_seen_prefetch(struct bf_seen *seen,
                                                                   const struct bf_id *id)
{
    uint64_t hash;
    if (seen->words)
        __builtin_prefetch((const void *)bf_seen_block(seen, id, &hash));
}

static inline void bf_seen_add(struct bf_seen *seen, const struct bf_id *id)
{
    uint64_t hash;
    if (!seen->words)
        return;
    _Atomic uint64_t *block = bf_seen_block(seen, id, &hash);
    for (unsigned i = 0; i < BF_SEEN_BLOCK_WORDS; i++, hash = hash << 6 | hash >> 58)
        atomic_fetch_or_explicit(&block[i], UINT64_C(1) << (hash & 63), memory_order_relaxed);
}

static inline bool bf_seen_may_have(struct bf_seen *seen, const struct bf_id *id)
{
    uint64_t hash, missing = 0;
    /* acquire: complete means that the scan's adds are visible */
    if (!seen->words || !atomic_load_explicit(&seen->is_complete, memory_order_acquire))
        return true;
    _Atomic uint64_t *block = bf_seen_block(seen, id, &hash);
    for (unsigned i = 0; i < BF_SEEN_BLOCK_WORDS; i++, hash = hash << 6 | hash >> 58)
        missing |= ~atomic_load_explicit(&block[i], memory_order_relaxed) & UINT64_C(1)
                                                                                << (hash & 63);
    return missing == 0;
}
