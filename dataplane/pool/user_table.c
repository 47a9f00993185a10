/* Linear probing with backward-shift deletion: no tombstones, so look-ups never grow old. */
#include "pool/user_table.h"

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

/* Empties a place and moves later members of the probe back over it. */
static void erase_entry(struct bf_users *u, const struct bf_conns *conns, uint32_t hole)
{
    uint32_t at = hole;
    for (;;) {
        at = (at + 1) & u->mask;
        uint32_t e = u->entries[at];
        if (e == 0)
            break;
        uint32_t home = (uint32_t)conns->hot[bf_users_slot(e)].user.lo & u->mask;
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
