/*
 * Lazy timer wheel over connection slots. Each connection is in at most one bucket. The bucket says
 * when to look at the connection, not when something is due; each look decides when the next one
 * is. A deadline that moves later costs nothing, because the look that comes too early files the
 * connection again; one that moves earlier is filed again at once. Links live in the connection's
 * cold line. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "memory/conn.h"

/* A tick. The shortest interval that can be configured is 100 ms, and a worker wakes at least every
 * 100 ms. */
#define BF_TICK_MS 50u
/* 1,024 buckets of 50 ms: a look at least every 51 s, so a ping of 30 s is filed once. */
#define BF_WHEEL_BUCKETS 1024u

struct bf_wheel {
    uint32_t now; /* tick up to which buckets were emptied */
    uint32_t filed;
    uint32_t bucket[BF_WHEEL_BUCKETS]; /* first slot, BF_SLOT_NONE */
};

void bf_wheel_init(struct bf_wheel *w, uint32_t now);
/* Files |slot| to be looked at at |tick| (at the latest a wheel's turn from now, at the earliest
 * the next tick). If it is filed already: only when |tick| is earlier. */
void bf_wheel_file(struct bf_wheel *w, struct bf_conns *conns, uint32_t slot, uint32_t tick);
void bf_wheel_remove(struct bf_wheel *w, struct bf_conns *conns, uint32_t slot);
/* Takes one slot that is to be looked at at or before |now|; BF_SLOT_NONE: no more. */
uint32_t bf_wheel_take(struct bf_wheel *w, struct bf_conns *conns, uint32_t now);
