/* Linear probing with backward-shift deletion: no tombstones, so look-ups never grow old. */
#include "pool/user_table.h"

#include <stdbool.h>

static uint32_t entry_slot(uint32_t entry)
{
    return (entry & 0x00ffffffu) - 1u;
}

uint32_t bf_users_entries(uint32_t connections)
{
    uint32_t entries = 64;
    while (entries - entries / 4u < connections + 1u)
        entries *= 2;
    return entries;
}

/* Position of the key's entry; false: *ret_at is the empty place that ends its probe. */
static bool find_entry(const struct bf_users *u, const struct bf_conns *conns,
                       struct bf_user_key key, uint32_t *ret_at)
{
    uint32_t at = (uint32_t)key.lo & u->mask;
    uint32_t tag = bf_users_tag(key);
    for (uint32_t e; (e = u->entries[at]) != 0; at = (at + 1) & u->mask) {
        if ((e & 0xff000000u) == tag && bf_user_key_is_equal(conns->hot[entry_slot(e)].user, key)) {
            *ret_at = at;
            return true;
        }
    }
    *ret_at = at;
    return false;
}

uint32_t bf_users_find(const struct bf_users *u, const struct bf_conns *conns,
                       struct bf_user_key key)
{
    uint32_t at;
    return find_entry(u, conns, key, &at) ? entry_slot(u->entries[at]) : BF_SLOT_NONE;
}

void bf_users_link(struct bf_users *u, struct bf_conns *conns, uint32_t slot)
{
    struct bf_conn_hot *hot = &conns->hot[slot];
    uint32_t at;
    hot->user_next =
        find_entry(u, conns, hot->user, &at) ? entry_slot(u->entries[at]) : BF_SLOT_NONE;
    u->entries[at] = bf_users_tag(hot->user) | (slot + 1u);
}

/* Empties a place and moves later members of the probe back over it. */
static void erase_entry(struct bf_users *u, const struct bf_conns *conns, uint32_t hole)
{
    uint32_t at = hole;
    for (;;) {
        at = (at + 1) & u->mask;
        uint32_t e = u->entries[at];
        if (e == 0)
            break;
        uint32_t home = (uint32_t)conns->hot[entry_slot(e)].user.lo & u->mask;
        /* an entry may move back to the hole only if its home is not between hole and itself */
        if (((at - home) & u->mask) >= ((at - hole) & u->mask)) {
            u->entries[hole] = e;
            hole = at;
        }
    }
    u->entries[hole] = 0;
}

void bf_users_unlink(struct bf_users *u, struct bf_conns *conns, uint32_t slot)
{
    struct bf_conn_hot *hot = &conns->hot[slot];
    uint32_t at;
    bool found = find_entry(u, conns, hot->user, &at);
    BF_BUG_ON(!found);
    uint32_t first = entry_slot(u->entries[at]);
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
