/* See known.h. */
#include "store/rocks/known.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "belfry/base/hash.h"

/* A stripe of an empty node; doubles as it fills. */
#define SLOTS_START 64u

static uint64_t hash_of(const struct bf_known *known, struct bf_bytes key)
{
    uint64_t hash = XXH3_64bits_withSeed(key.at, key.len, known->seed);
    return hash ? hash : 1;
}

static struct bf_known_stripe *lock_stripe(struct bf_known *known, uint64_t hash)
{
    struct bf_known_stripe *stripe = &known->stripes[hash >> 32 & (BF_KNOWN_STRIPES - 1)];
    pthread_mutex_lock(&stripe->lock);
    return stripe;
}

/* ---- a set ---- */

/* Where the hash is, or the free place where it would be. */
static uint32_t probe(const struct bf_known_set *set, uint64_t hash)
{
    bf_hash_walk (at, hash, set->mask) {
        if (set->hashes[at] == 0 || set->hashes[at] == hash)
            return at;
    }
}

static bool is_free(const void *set, uint32_t at)
{
    return ((const struct bf_known_set *)set)->hashes[at] == 0;
}

static uint32_t hash_at(const void *set, uint32_t at)
{
    return (uint32_t)((const struct bf_known_set *)set)->hashes[at];
}

static void move(void *set, uint32_t to, uint32_t from)
{
    uint64_t *hashes = ((struct bf_known_set *)set)->hashes;
    hashes[to] = hashes[from];
}

static const struct bf_hash_ops set_ops = {is_free, hash_at, move};

static bool grow(struct bf_known_set *set)
{
    struct bf_known_set bigger = {.mask = set->hashes ? set->mask * 2 + 1 : SLOTS_START - 1,
                                  .count = set->count};
    bigger.hashes = calloc(bigger.mask + (size_t)1, sizeof(uint64_t));
    if (!bigger.hashes)
        return false;
    for (uint32_t i = 0; set->hashes && i <= set->mask; i++)
        if (set->hashes[i] != 0)
            bigger.hashes[probe(&bigger, set->hashes[i])] = set->hashes[i];
    free(set->hashes);
    *set = bigger;
    return true;
}

static bool set_has(const struct bf_known_set *set, uint64_t hash)
{
    return set->hashes && set->hashes[probe(set, hash)] == hash;
}

/* False: no memory. */
static bool set_add(struct bf_known_set *set, uint64_t hash)
{
    bool has_room = set->hashes && !bf_hash_is_full(set->count, set->mask);
    if (!has_room && !grow(set))
        return false;
    uint32_t i = probe(set, hash);
    set->count += set->hashes[i] == 0;
    set->hashes[i] = hash;
    return true;
}

static void set_remove(struct bf_known_set *set, uint64_t hash)
{
    if (!set_has(set, hash))
        return;
    set->count--;
    set->hashes[bf_hash_close(set, &set_ops, set->mask, probe(set, hash))] = 0;
}

static void set_free(struct bf_known_set *set)
{
    free(set->hashes);
    *set = (struct bf_known_set){0};
}

/* ---- the stripes ---- */

int bf_known_init(struct bf_known *known)
{
    memset(known, 0, sizeof(*known));
    for (uint32_t i = 0; i < BF_KNOWN_STRIPES; i++)
        pthread_mutex_init(&known->stripes[i].lock, NULL);
    ssize_t n = getrandom(&known->seed, sizeof(known->seed), 0);
    return n == (ssize_t)sizeof(known->seed) ? 0 : -errno;
}

void bf_known_fini(struct bf_known *known)
{
    for (uint32_t i = 0; i < BF_KNOWN_STRIPES; i++) {
        set_free(&known->stripes[i].has);
        set_free(&known->stripes[i].gone);
        pthread_mutex_destroy(&known->stripes[i].lock);
    }
}

static bool is_complete(struct bf_known *known)
{
    return atomic_load_explicit(&known->is_complete, memory_order_acquire) &&
           !atomic_load_explicit(&known->is_lossy, memory_order_relaxed);
}

static void note_lack_of_memory(struct bf_known *known, bool is_added)
{
    if (!is_added)
        atomic_store_explicit(&known->is_lossy, true, memory_order_relaxed);
}

void bf_known_add(struct bf_known *known, struct bf_bytes key)
{
    uint64_t hash = hash_of(known, key);
    struct bf_known_stripe *stripe = lock_stripe(known, hash);
    note_lack_of_memory(known, set_add(&stripe->has, hash));
    set_remove(&stripe->gone, hash);
    pthread_mutex_unlock(&stripe->lock);
}

void bf_known_remove(struct bf_known *known, struct bf_bytes key)
{
    uint64_t hash = hash_of(known, key);
    struct bf_known_stripe *stripe = lock_stripe(known, hash);
    set_remove(&stripe->has, hash);
    if (!is_complete(known))
        note_lack_of_memory(known, set_add(&stripe->gone, hash));
    pthread_mutex_unlock(&stripe->lock);
}

void bf_known_fill(struct bf_known *known, struct bf_bytes key)
{
    uint64_t hash = hash_of(known, key);
    struct bf_known_stripe *stripe = lock_stripe(known, hash);
    if (!set_has(&stripe->gone, hash))
        note_lack_of_memory(known, set_add(&stripe->has, hash));
    pthread_mutex_unlock(&stripe->lock);
}

void bf_known_complete(struct bf_known *known)
{
    atomic_store_explicit(&known->is_complete, true, memory_order_release);
    for (uint32_t i = 0; i < BF_KNOWN_STRIPES; i++) {
        pthread_mutex_lock(&known->stripes[i].lock);
        set_free(&known->stripes[i].gone);
        pthread_mutex_unlock(&known->stripes[i].lock);
    }
}

enum bf_known_answer bf_known_has(struct bf_known *known, struct bf_bytes key)
{
    uint64_t hash = hash_of(known, key);
    bool is_sure = is_complete(known); /* before the look: the walk may add it in between */
    struct bf_known_stripe *stripe = lock_stripe(known, hash);
    bool has = set_has(&stripe->has, hash);
    pthread_mutex_unlock(&stripe->lock);
    return has ? BF_KNOWN_YES : is_sure ? BF_KNOWN_NO : BF_KNOWN_PERHAPS;
}
