/* See user_table.h. */
#include "fanout/user_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "belfry/base/hash.h"

#define BF_CACHE_LINE_BYTES 64

int bf_user_table_init(struct bf_user_table *t, uint32_t capacity)
{
    uint32_t slots = 1024;
    while (slots < capacity / 2 * 3)
        slots *= 2;
    memset(t, 0, sizeof(*t));
    t->slots = calloc(slots, sizeof(struct bf_user *));
    if (!t->slots)
        return -ENOMEM;
    t->mask = slots - 1;
    if (getrandom(t->secret, sizeof(t->secret), 0) != (ssize_t)sizeof(t->secret))
        return -errno;
    return 0;
}

static void free_user(struct bf_user *user)
{
    bf_prefs_free(user->prefs);
    free(user);
}

void bf_user_table_fini(struct bf_user_table *t)
{
    for (uint32_t i = 0; t->slots && i <= t->mask; i++)
        if (t->slots[i])
            free_user(t->slots[i]);
    free(t->slots);
    memset(t, 0, sizeof(*t));
}

static struct bf_user_key key_of(const struct bf_user_table *t, struct bf_uid uid)
{
    return bf_user_key_of(t->secret, uid.tenant.at, uid.tenant.len, uid.user.at, uid.user.len);
}

/* Where the user of |key| is, or the free place where it would be. */
static struct bf_user **slot_of(const struct bf_user_table *t, struct bf_user_key key)
{
    bf_hash_walk (at, key.lo, t->mask) {
        if (!t->slots[at] || bf_user_key_is_equal(t->slots[at]->key, key))
            return &t->slots[at];
    }
}

static void place(struct bf_user **slots, uint32_t mask, struct bf_user *user)
{
    bf_hash_walk (at, user->key.lo, mask) {
        if (slots[at])
            continue;
        slots[at] = user;
        return;
    }
}

static bool is_free(const void *table, uint32_t at)
{
    return !((const struct bf_user_table *)table)->slots[at];
}

static uint32_t hash_at(const void *table, uint32_t at)
{
    return (uint32_t)((const struct bf_user_table *)table)->slots[at]->key.lo;
}

static void move_user(void *table, uint32_t to, uint32_t from)
{
    struct bf_user **slots = ((struct bf_user_table *)table)->slots;
    slots[to] = slots[from];
}

static int rebuild(struct bf_user_table *t, uint32_t slots)
{
    struct bf_user **fresh = calloc(slots, sizeof(struct bf_user *));
    if (!fresh)
        return -ENOMEM;
    for (uint32_t i = 0; i <= t->mask; i++)
        if (t->slots[i])
            place(fresh, slots - 1, t->slots[i]);
    free(t->slots);
    t->slots = fresh;
    t->mask = slots - 1;
    return 0;
}

int bf_user_table_rekey(struct bf_user_table *t, const uint8_t secret[BF_USER_SECRET_BYTES])
{
    memcpy(t->secret, secret, BF_USER_SECRET_BYTES);
    for (uint32_t i = 0; i <= t->mask; i++)
        if (t->slots[i])
            t->slots[i]->key = key_of(t, bf_user_uid(t->slots[i]));
    return rebuild(t, t->mask + 1);
}

struct bf_user *bf_user_find_key(struct bf_user_table *t, struct bf_user_key key)
{
    return *slot_of(t, key);
}

struct bf_user_key bf_user_key_in(const struct bf_user_table *t, struct bf_uid uid)
{
    return key_of(t, uid);
}

void bf_user_prefetch_slot(const struct bf_user_table *t, struct bf_user_key key)
{
    __builtin_prefetch(&t->slots[(uint32_t)key.lo & t->mask]);
}

void bf_user_prefetch_record(const struct bf_user_table *t, struct bf_user_key key)
{
    const struct bf_user *user = t->slots[(uint32_t)key.lo & t->mask];
    if (!user)
        return;
    __builtin_prefetch(user);
    __builtin_prefetch((const char *)user + BF_CACHE_LINE_BYTES);
    __builtin_prefetch((const char *)user + 2 * BF_CACHE_LINE_BYTES);
}

struct bf_user *bf_user_find_with(struct bf_user_table *t, struct bf_uid uid,
                                  struct bf_user_key key)
{
    struct bf_user *user = bf_user_find_key(t, key);
    if (!user)
        return NULL;
    struct bf_uid have = bf_user_uid(user);
    bool same =
        bf_bytes_is_equal(have.user, uid.user) && bf_bytes_is_equal(have.tenant, uid.tenant);
    return same ? user : NULL;
}

struct bf_user *bf_user_find(struct bf_user_table *t, struct bf_uid uid)
{
    return bf_user_find_with(t, uid, key_of(t, uid));
}

struct bf_user *bf_user_add(struct bf_user_table *t, struct bf_uid uid)
{
    struct bf_user_key key = key_of(t, uid);
    if (*slot_of(t, key))
        return NULL;
    if (bf_hash_is_full(t->count, t->mask) && rebuild(t, (t->mask + 1) * 2) != 0)
        return NULL;
    struct bf_user *user = calloc(1, sizeof(*user) + uid.tenant.len + uid.user.len);
    if (!user)
        return NULL;
    user->key = key;
    user->tenant_len = (uint8_t)uid.tenant.len;
    user->user_len = (uint16_t)uid.user.len;
    if (uid.tenant.len)
        memcpy(user->id, uid.tenant.at, uid.tenant.len);
    memcpy(user->id + uid.tenant.len, uid.user.at, uid.user.len);
    place(t->slots, t->mask, user);
    t->count++;
    return user;
}

void bf_user_remove(struct bf_user_table *t, struct bf_user *user)
{
    static const struct bf_hash_ops ops = {is_free, hash_at, move_user};
    struct bf_user **slot = slot_of(t, user->key);
    if (!*slot)
        return;
    t->slots[bf_hash_close(t, &ops, t->mask, (uint32_t)(slot - t->slots))] = NULL;
    t->count--;
    free_user(user);
}

void bf_user_table_walk(struct bf_user_table *t, bool (*each)(void *arg, struct bf_user *user),
                        void *arg)
{
    for (uint32_t i = 0; i <= t->mask; i++)
        if (t->slots[i] && !each(arg, t->slots[i]))
            return;
}
