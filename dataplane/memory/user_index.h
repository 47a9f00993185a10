/*
 * From a user's key to the first of the user's connections, which leads to the others. Open
 * addressing, 4 bytes an entry: slot + 1 in the low 24 bits, 8 bits of the key as a tag; the key
 * itself is in the connection's hot line, which the caller needs anyway. Keys are hashes under a
 * secret (shm/user_key.h), so they are used as they come. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/hash.h"
#include "memory/conn.h"

struct bf_users {
    uint32_t *entries; /* 0 = empty */
    uint32_t mask;
};

/* Entries for |connections|: a power of two with at least a third free, so that probes stay short.
 */
uint32_t bf_users_entries(uint32_t connections);

static inline uint32_t bf_users_tag(struct bf_user_key key)
{
    return (uint32_t)(key.hi >> 56) << 24;
}

static inline void bf_users_prefetch(const struct bf_users *u, struct bf_user_key key)
{
    __builtin_prefetch(&u->entries[key.lo & u->mask]);
}

/* First entry with the key's tag: a guess whose lines are worth fetching. BF_SLOT_NONE: no such. */
static inline uint32_t bf_users_guess(const struct bf_users *u, struct bf_user_key key)
{
    bf_hash_walk (at, key.lo, u->mask) {
        uint32_t e = u->entries[at];
        if (e == 0)
            return BF_SLOT_NONE;
        if ((e & 0xff000000u) == bf_users_tag(key))
            return (e & 0x00ffffffu) - 1u;
    }
}

static inline uint32_t bf_users_slot(uint32_t entry)
{
    return (entry & 0x00ffffffu) - 1u;
}

/* Position of the key's entry. False: there is none, and *ret_at is the empty place where the
 * search ended. */
static inline bool bf_users_look(const struct bf_users *u, const struct bf_conns *conns,
                                 struct bf_user_key key, uint32_t *ret_at)
{
    uint32_t tag = bf_users_tag(key);
    bf_hash_walk (at, key.lo, u->mask) {
        uint32_t e = u->entries[at];
        *ret_at = at;
        if (e == 0)
            return false;
        if ((e & 0xff000000u) == tag &&
            bf_user_key_is_equal(conns->hot[bf_users_slot(e)].user, key))
            return true;
    }
}

/* First connection of the user, or BF_SLOT_NONE. */
static inline uint32_t bf_users_find(const struct bf_users *u, const struct bf_conns *conns,
                                     struct bf_user_key key)
{
    uint32_t at;
    return bf_users_look(u, conns, key, &at) ? bf_users_slot(u->entries[at]) : BF_SLOT_NONE;
}

/* Puts |slot| (its hot.user is set) in front of the user's connections. There is always room,
 * because there are more entries than connections. */
void bf_users_link(struct bf_users *u, struct bf_conns *conns, uint32_t slot);
/* Takes a linked |slot| out. */
void bf_users_unlink(struct bf_users *u, struct bf_conns *conns, uint32_t slot);
