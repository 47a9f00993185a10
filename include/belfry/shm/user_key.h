/*
 * A user as shared memory knows one: 128 bits of XXH3 under a secret drawn at each dataplane start
 * (DESIGN 2), so nobody outside can aim collisions at the workers' tables. Both planes compute it;
 * ctrlplane compares the full id at connect, so a collision is refused, never misdelivered.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#define BF_USER_SECRET_BYTES 192u

struct bf_user_key {
    uint64_t hi;
    uint64_t lo;
};

static inline bool bf_user_key_is_equal(struct bf_user_key a, struct bf_user_key b)
{
    return a.hi == b.hi && a.lo == b.lo;
}

/* A byte of an unkeyed hash, the same over all regions and restarts: it names the fan-out shard. */
static inline uint8_t bf_user_shard_byte(const char *tenant, size_t tenant_len, const char *user,
                                         size_t user_len)
{
    uint64_t h = XXH3_64bits(user, user_len);
    if (tenant_len)
        h ^= XXH3_64bits(tenant, tenant_len);
    return (uint8_t)(h >> 32);
}

/* 64-bit name of a tenant inside shared memory; 0 is the default tenant (""), and only that. */
static inline uint64_t bf_tenant_hash(const uint8_t secret[BF_USER_SECRET_BYTES],
                                      const char *tenant, size_t len)
{
    if (len == 0)
        return 0;
    uint64_t h = XXH3_64bits_withSecret(tenant, len, secret, BF_USER_SECRET_BYTES);
    return h ? h : 1;
}

/* Bits of .hi where the upper half of the tenant's hash lies. */
#define BF_USER_KEY_TENANT_SHIFT 8u

/*
 * |secret| is the region's user_secret. Tenants do not share users: the tenant's hash goes into the
 * user's. .hi holds, from the top: 24 bits of the user's hash, the upper 32 bits of the tenant's
 * hash (so that a walk over all connections tells tenants apart by what it reads anyway), and the
 * shard byte, so that a receipt that carries only the key finds its shard.
 */
static inline struct bf_user_key bf_user_key_of(const uint8_t secret[BF_USER_SECRET_BYTES],
                                                const char *tenant, size_t tenant_len,
                                                const char *user, size_t user_len)
{
    uint64_t seed = bf_tenant_hash(secret, tenant, tenant_len);
    XXH3_state_t state;
    XXH3_128bits_reset_withSecret(&state, secret, BF_USER_SECRET_BYTES);
    XXH3_128bits_update(&state, &seed, sizeof(seed));
    XXH3_128bits_update(&state, user, user_len);
    XXH128_hash_t h = XXH3_128bits_digest(&state);
    uint8_t shard = bf_user_shard_byte(tenant, tenant_len, user, user_len);
    uint64_t own = h.high64 & ~((UINT64_C(1) << (32u + BF_USER_KEY_TENANT_SHIFT)) - 1u);
    uint64_t theirs = (seed >> 32) << BF_USER_KEY_TENANT_SHIFT;
    return (struct bf_user_key){.hi = own | theirs | shard, .lo = h.low64};
}

/* The upper half of the hash of the user's tenant. */
static inline uint32_t bf_user_key_tenant(struct bf_user_key key)
{
    return (uint32_t)(key.hi >> BF_USER_KEY_TENANT_SHIFT);
}

/* 64-bit name of a device or a topic inside shared memory; 0 is kept for "none". */
static inline uint64_t bf_name_hash(const uint8_t secret[BF_USER_SECRET_BYTES], const char *name,
                                    size_t len)
{
    uint64_t h = XXH3_64bits_withSecret(name, len, secret, BF_USER_SECRET_BYTES);
    return h ? h : 1;
}

/* Longest topic that is hashed: BF_TOPIC_BYTES_MAX of base/limits.h. */
#define BF_TOPIC_HASH_BYTES_MAX 128u

/* A topic's name inside shared memory: topics of equal names in two tenants are two topics.
 * |tenant_hash| is bf_tenant_hash of the tenant. Never 0. */
static inline uint64_t bf_topic_hash(const uint8_t secret[BF_USER_SECRET_BYTES],
                                     uint64_t tenant_hash, const char *topic, size_t len)
{
    char text[sizeof(tenant_hash) + BF_TOPIC_HASH_BYTES_MAX];
    if (tenant_hash == 0)
        return bf_name_hash(secret, topic, len);
    if (len > BF_TOPIC_HASH_BYTES_MAX)
        len = BF_TOPIC_HASH_BYTES_MAX; /* longer ones are refused long before */
    memcpy(text, &tenant_hash, sizeof(tenant_hash));
    memcpy(text + sizeof(tenant_hash), topic, len);
    return bf_name_hash(secret, text, sizeof(tenant_hash) + len);
}
