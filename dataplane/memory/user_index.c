/* See user_index.h. */
#include "memory/user_index.h"

#include "belfry/base/hash.h"

uint32_t bf_users_entries(uint32_t connections)
{
    uint32_t entries = 64;
    while (entries - entries / 4u < connections + 1u)
        entries *= 2;
    return entries;
}

void bf_users_link(struct bf_users *u, struct bf_conns *conns, uint32_t slot)
{
    struct bf_conn_hot *hot = &conns->hot[slot];
    uint32_t at;
    hot->user_next =
        bf_users_look(u, conns, hot->user, &at) ? bf_users_slot(u->entries[at]) : BF_SLOT_NONE;
    u->entries[at] = bf_users_tag(hot->user) | (slot + 1u);
}

/* The table, and the connections that have the keys. */
struct keyed {
    struct bf_users *users;
    const struct bf_conns *conns;
};

static bool is_free(const void *table, uint32_t at)
{
    return ((const struct keyed *)table)->users->entries[at] == 0;
}

static uint32_t hash_at(const void *table, uint32_t at)
{
    const struct keyed *k = table;
    return (uint32_t)k->conns->hot[bf_users_slot(k->users->entries[at])].user.lo;
}

static void move_entry(void *table, uint32_t to, uint32_t from)
{
    uint32_t *entries = ((struct keyed *)table)->users->entries;
    entries[to] = entries[from];
}

static void erase_entry(struct bf_users *u, const struct bf_conns *conns, uint32_t at)
{
    static const struct bf_hash_ops ops = {is_free, hash_at, move_entry};
    struct keyed table = {u, conns};
    u->entries[bf_hash_close(&table, &ops, u->mask, at)] = 0;
}

void bf_users_unlink(struct bf_users *u, struct bf_conns *conns, uint32_t slot)
{
    struct bf_conn_hot *hot = &conns->hot[slot];
    uint32_t at;
    bool found = bf_users_look(u, conns, hot->user, &at);
    BF_BUG_ON(!found);
    uint32_t first = bf_users_slot(u->entries[at]);
    if (first == slot && hot->user_next == BF_SLOT_NONE) {
        erase_entry(u, conns, at);
    } else if (first == slot) {
        u->entries[at] = bf_users_tag(hot->user) | (hot->user_next + 1u);
    } else {
        uint32_t prev = first;
        while (conns->hot[prev].user_next != slot) {
            prev = conns->hot[prev].user_next;
            BF_BUG_ON(prev == BF_SLOT_NONE);
        }
        conns->hot[prev].user_next = hot->user_next;
    }
    hot->user_next = BF_SLOT_NONE;
}
