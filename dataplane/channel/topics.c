/* See topics.h. */
#include "channel/topics.h"

#include <errno.h>

#include "belfry/base/err.h"
#include "belfry/base/hash.h"
#include "belfry/base/limits.h"

static struct bf_sub *sub_at(const struct bf_topics *t, uint32_t index)
{
    return bf_slab_at(&t->subs, index);
}

static uint32_t place_of(const struct bf_topics *t, uint64_t hash)
{
    bf_hash_walk (at, hash, t->mask) {
        if (t->table[at].hash == 0 || t->table[at].hash == hash)
            return at;
    }
}

static bool is_free(const void *topics, uint32_t at)
{
    return ((const struct bf_topics *)topics)->table[at].hash == 0;
}

static uint32_t hash_at(const void *topics, uint32_t at)
{
    return (uint32_t)((const struct bf_topics *)topics)->table[at].hash;
}

static void move_topic(void *topics, uint32_t to, uint32_t from)
{
    struct bf_topic *table = ((struct bf_topics *)topics)->table;
    table[to] = table[from];
}

static void erase_topic(struct bf_topics *t, uint32_t at)
{
    static const struct bf_hash_ops ops = {is_free, hash_at, move_topic};
    t->table[bf_hash_close(t, &ops, t->mask, at)] = (struct bf_topic){0};
    t->used--;
}

/* Subscription of a connection to a topic, 0 = none; *ret_prev: the one before it in the
 * connection's list. Bounded by BF_CONN_TOPICS_MAX; *ret_count: how many were looked at. */
static uint32_t find_sub(const struct bf_topics *t, const struct bf_conns *conns, uint32_t slot,
                         uint64_t hash, uint32_t *ret_prev, uint32_t *ret_count)
{
    uint32_t prev = 0;
    *ret_count = 0;
    for (uint32_t at = conns->cold[slot].topics; at != 0; at = sub_at(t, at)->conn_next) {
        if (sub_at(t, at)->hash == hash) {
            *ret_prev = prev;
            return at;
        }
        prev = at;
        ++*ret_count;
    }
    return 0;
}

bool bf_topics_has(const struct bf_topics *t, const struct bf_conns *conns, uint32_t slot,
                   uint64_t hash)
{
    uint32_t prev, count;
    return find_sub(t, conns, slot, hash, &prev, &count) != 0;
}

int bf_topics_sub(struct bf_topics *t, struct bf_conns *conns, uint32_t slot, uint64_t hash)
{
    uint32_t prev, count;
    if (find_sub(t, conns, slot, hash, &prev, &count) != 0)
        return -EEXIST;
    if (count >= BF_CONN_TOPICS_MAX)
        return BF_ERR_FULL;
    uint32_t at = place_of(t, hash);
    if (t->table[at].hash == 0 && t->used >= t->mask - t->mask / 4)
        return BF_ERR_NO_MEMORY;
    uint32_t index = bf_slab_take(&t->subs);
    if (index == 0)
        return BF_ERR_NO_MEMORY;
    struct bf_topic *topic = &t->table[at];
    if (topic->hash == 0) {
        *topic = (struct bf_topic){.hash = hash};
        t->used++;
    }
    *sub_at(t, index) = (struct bf_sub){
        .next = topic->first, .conn_next = conns->cold[slot].topics, .slot = slot, .hash = hash};
    if (topic->first != 0)
        sub_at(t, topic->first)->prev = index;
    topic->first = index;
    topic->count++;
    conns->cold[slot].topics = index;
    return 0;
}

/* Takes a subscription out of its topic and gives it back. */
static void end_sub(struct bf_topics *t, uint32_t index)
{
    struct bf_sub *sub = sub_at(t, index);
    uint32_t at = place_of(t, sub->hash);
    struct bf_topic *topic = &t->table[at];
    if (t->cursor == index)
        t->cursor = sub->next;
    if (sub->prev != 0)
        sub_at(t, sub->prev)->next = sub->next;
    else
        topic->first = sub->next;
    if (sub->next != 0)
        sub_at(t, sub->next)->prev = sub->prev;
    if (--topic->count == 0)
        erase_topic(t, at);
    bf_slab_put(&t->subs, index);
}

int bf_topics_unsub(struct bf_topics *t, struct bf_conns *conns, uint32_t slot, uint64_t hash)
{
    uint32_t prev = 0, count;
    uint32_t index = find_sub(t, conns, slot, hash, &prev, &count);
    if (index == 0)
        return BF_ERR_NOT_FOUND;
    uint32_t *link = prev ? &sub_at(t, prev)->conn_next : &conns->cold[slot].topics;
    *link = sub_at(t, index)->conn_next;
    end_sub(t, index);
    return 0;
}

void bf_topics_drop(struct bf_topics *t, struct bf_conns *conns, uint32_t slot)
{
    uint32_t index = conns->cold[slot].topics;
    conns->cold[slot].topics = 0;
    while (index != 0) {
        uint32_t next = sub_at(t, index)->conn_next;
        end_sub(t, index);
        index = next;
    }
}

void bf_topics_walk(struct bf_topics *t, uint64_t hash)
{
    const struct bf_topic *topic = &t->table[place_of(t, hash)];
    t->cursor = topic->hash == hash ? topic->first : 0;
}

uint32_t bf_topics_next(struct bf_topics *t)
{
    uint32_t index = t->cursor;
    if (index == 0)
        return BF_SLOT_NONE;
    t->cursor = sub_at(t, index)->next;
    return sub_at(t, index)->slot;
}
