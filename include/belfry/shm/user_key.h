/*
 * A user as shared memory knows one: 128 bits of XXH3 under a secret drawn at each dataplane start
 * (DESIGN 2), so nobody outside can aim collisions at the workers' tables. Both planes compute it;
 * ctrlplane compares the full id at connect, so a collision is refused, never misdelivered.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

/* |secret| is the region's user_secret. Tenants do not share users: |tenant| is hashed first. The low
 * byte of .hi is the shard byte, so that a receipt that carries only the key finds its shard. */
static inline struct bf_user_key bf_user_key_of(const uint8_t secret[BF_USER_SECRET_BYTES],
                                                const char *tenant, size_t tenant_len,
                                                const char *user, size_t user_len)
{
    uint64_t seed = tenant_len ? XXH3_64bits(tenant, tenant_len) : 0;
    XXH3_state_t state;
    XXH3_128bits_reset_withSecret(&state, secret, BF_USER_SECRET_BYTES);
    XXH3_128bits_update(&state, &seed, sizeof(seed));
    XXH3_128bits_update(&state, user, user_len);
    XXH128_hash_t h = XXH3_128bits_digest(&state);
    uint8_t shard = bf_user_shard_byte(tenant, tenant_len, user, user_len);
    return (struct bf_user_key){.hi = (h.high64 & ~UINT64_C(0xff)) | shard, .lo = h.low64};
}

/* 64-bit name of a device or a topic inside shared memory; 0 is kept for "none". */
static inline uint64_t bf_name_hash(const uint8_t secret[BF_USER_SECRET_BYTES], const char *name,
                                    size_t len)
{
    uint64_t h = XXH3_64bits_withSecret(name, len, secret, BF_USER_SECRET_BYTES);
    return h ? h : 1;
}
