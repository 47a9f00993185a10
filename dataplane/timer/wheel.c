/* See wheel.h. */
#include "timer/wheel.h"

void bf_wheel_init(struct bf_wheel *w, uint32_t now)
{
    w->now = now;
    w->filed = 0;
    for (uint32_t i = 0; i < BF_WHEEL_BUCKETS; i++)
        w->bucket[i] = BF_SLOT_NONE;
}

void bf_wheel_remove(struct bf_wheel *w, struct bf_conns *conns, uint32_t slot)
{
    struct bf_conn_cold *cold = &conns->cold[slot];
    if (!(conns->hot[slot].flags & BF_CF_TIMED))
        return;
    if (cold->wheel_prev == BF_SLOT_NONE)
        w->bucket[cold->wheel_tick % BF_WHEEL_BUCKETS] = cold->wheel_next;
    else
        conns->cold[cold->wheel_prev].wheel_next = cold->wheel_next;
    if (cold->wheel_next != BF_SLOT_NONE)
        conns->cold[cold->wheel_next].wheel_prev = cold->wheel_prev;
    conns->hot[slot].flags &= (uint16_t)~BF_CF_TIMED;
    w->filed--;
}

void bf_wheel_file(struct bf_wheel *w, struct bf_conns *conns, uint32_t slot, uint32_t tick)
{
    struct bf_conn_cold *cold = &conns->cold[slot];
    /* signed distances: ticks wrap after 6.8 years, and the comparison survives it */
    int32_t ahead = (int32_t)(tick - w->now);
    if (ahead < 1)
        ahead = 1;
    if (ahead > (int32_t)BF_WHEEL_BUCKETS - 1)
        ahead = (int32_t)BF_WHEEL_BUCKETS - 1;
    tick = w->now + (uint32_t)ahead;
    if (conns->hot[slot].flags & BF_CF_TIMED) {
        if ((int32_t)(cold->wheel_tick - tick) <= 0)
            return;
        bf_wheel_remove(w, conns, slot);
    }
    uint32_t *bucket = &w->bucket[tick % BF_WHEEL_BUCKETS];
    cold->wheel_tick = tick;
    cold->wheel_prev = BF_SLOT_NONE;
    cold->wheel_next = *bucket;
    if (*bucket != BF_SLOT_NONE)
        conns->cold[*bucket].wheel_prev = slot;
    *bucket = slot;
    conns->hot[slot].flags |= BF_CF_TIMED;
    w->filed++;
}

uint32_t bf_wheel_take(struct bf_wheel *w, struct bf_conns *conns, uint32_t now)
{
    if (w->filed == 0) {
        w->now = now;
        return BF_SLOT_NONE;
    }
    while ((int32_t)(now - w->now) >= 0) {
        uint32_t slot = w->bucket[w->now % BF_WHEEL_BUCKETS];
        if (slot != BF_SLOT_NONE) {
            bf_wheel_remove(w, conns, slot);
            return slot;
        }
        if (w->now == now)
            return BF_SLOT_NONE;
        w->now++;
    }
    return BF_SLOT_NONE;
}
