/* See known_users.h. Removal shifts back what follows, so there are no tombstones. */
#include "fanout/known_users.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

/* A stripe of an empty node; doubles as it fills. */
#define STRIPE_SLOTS_START 64u

static uint64_t hash_of(const struct bf_known_users *known, struct bf_uid uid)
{
    uint64_t tenant_hash = XXH3_64bits_withSeed(uid.tenant.at, uid.tenant.len, known->seed);
    uint64_t hash = XXH3_64bits_withSeed(uid.user.at, uid.user.len, tenant_hash);
    return hash ? hash : 1;
}

static struct bf_known_stripe *lock_stripe(struct bf_known_users *known, uint64_t hash)
{
    struct bf_known_stripe *stripe = &known->stripes[hash >> 32 & (BF_KNOWN_STRIPES - 1)];
    pthread_mutex_lock(&stripe->lock);
    return stripe;
}

/* Where the hash is, or the free slot where it would be. */
static uint32_t probe(const struct bf_known_stripe *stripe, uint64_t hash)
{
    uint32_t i = (uint32_t)hash & stripe->mask;
    while (stripe->hashes[i] != 0 && stripe->hashes[i] != hash)
        i = (i + 1) & stripe->mask;
    return i;
}

static bool grow(struct bf_known_stripe *stripe)
{
    struct bf_known_stripe bigger = {.mask = stripe->mask * 2 + 1};
    bigger.hashes = calloc(bigger.mask + (size_t)1, sizeof(uint64_t));
    if (!bigger.hashes)
        return false;
    for (uint32_t i = 0; i <= stripe->mask; i++)
        if (stripe->hashes[i] != 0)
            bigger.hashes[probe(&bigger, stripe->hashes[i])] = stripe->hashes[i];
    free(stripe->hashes);
    stripe->hashes = bigger.hashes;
    stripe->mask = bigger.mask;
    return true;
}

int bf_known_users_init(struct bf_known_users *known)
{
    memset(known, 0, sizeof(*known));
    if (getrandom(&known->seed, sizeof(known->seed), 0) != (ssize_t)sizeof(known->seed))
        return -errno;
    for (uint32_t i = 0; i < BF_KNOWN_STRIPES; i++) {
        struct bf_known_stripe *stripe = &known->stripes[i];
        pthread_mutex_init(&stripe->lock, NULL);
        stripe->mask = STRIPE_SLOTS_START - 1;
        stripe->hashes = calloc(STRIPE_SLOTS_START, sizeof(uint64_t));
        if (!stripe->hashes)
            return -ENOMEM;
    }
    return 0;
}

void bf_known_users_fini(struct bf_known_users *known)
{
    for (uint32_t i = 0; i < BF_KNOWN_STRIPES; i++) {
        free(known->stripes[i].hashes);
        pthread_mutex_destroy(&known->stripes[i].lock);
    }
}

bool bf_known_users_add(struct bf_known_users *known, struct bf_uid uid)
{
    uint64_t hash = hash_of(known, uid);
    struct bf_known_stripe *stripe = lock_stripe(known, hash);
    bool has_room = (stripe->count + 1) * UINT64_C(4) <= (stripe->mask + UINT64_C(1)) * 3 ||
                    grow(stripe);
    if (has_room) {
        uint32_t i = probe(stripe, hash);
        stripe->count += stripe->hashes[i] == 0;
        stripe->hashes[i] = hash;
    }
    pthread_mutex_unlock(&stripe->lock);
    return has_room;
}

/* Closes the hole at |hole|: whatever was pushed past it moves back. */
static void shift_back(struct bf_known_stripe *stripe, uint32_t hole)
{
    for (uint32_t i = (hole + 1) & stripe->mask; stripe->hashes[i] != 0;
         i = (i + 1) & stripe->mask) {
        uint32_t home = (uint32_t)stripe->hashes[i] & stripe->mask;
        if (((i - home) & stripe->mask) < ((i - hole) & stripe->mask))
            continue; /* would leave its probe path */
        stripe->hashes[hole] = stripe->hashes[i];
        hole = i;
    }
    stripe->hashes[hole] = 0;
}

void bf_known_users_remove(struct bf_known_users *known, struct bf_uid uid)
{
    uint64_t hash = hash_of(known, uid);
    struct bf_known_stripe *stripe = lock_stripe(known, hash);
    uint32_t i = probe(stripe, hash);
    if (stripe->hashes[i] == hash) {
        stripe->count--;
        shift_back(stripe, i);
    }
    pthread_mutex_unlock(&stripe->lock);
}

bool bf_known_users_has(struct bf_known_users *known, struct bf_uid uid)
{
    uint64_t hash = hash_of(known, uid);
    struct bf_known_stripe *stripe = lock_stripe(known, hash);
    bool has = stripe->hashes[probe(stripe, hash)] == hash;
    pthread_mutex_unlock(&stripe->lock);
    return has;
}
