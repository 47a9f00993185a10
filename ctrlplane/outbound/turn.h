/*
 * What a part of the control process may use of a shard's turn: the batch that the turn writes, its
 * clocks and dice, which are read once and passed on, and the way to the workers. fanout/ owns the
 * shard, lends this for the shard's life, and fills it anew at the beginning of each turn; nobody
 * else sees struct bf_shard. The shard's thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "store/legs.h"

struct bf_conf;
struct bf_launches;
struct bf_log;
struct bf_open_event;
struct bf_turn;

/* What becomes of a row that is due, as it is decided when its time has come. */
enum bf_due_end {
    BF_DUE_GOES = 0,
    BF_DUE_GONE = 1, /* its person was erased: nothing of it is written any more */
    BF_DUE_EXPIRED = 2,
    BF_DUE_TAKEN = 3,      /* the in-app message was acknowledged, or dealt with otherwise */
    BF_DUE_SUPPRESSED = 4, /* |reason| */
};

struct bf_due_plan {
    enum bf_due_end end;
    const char *reason; /* of a table that stays */
    uint32_t unread;    /* BF_DUE_GOES: what the person has not read, for a badge */
};

/* What fanout/ does for whoever has the turn. */
struct bf_turn_ops {
    /* Writes the batch; then what waits for it leaves, and events settle. */
    void (*commit)(struct bf_turn *turn);
    /* One leg of |open| less, once the batch is written. True: many have gathered, commit before more
     * do. */
    bool (*settle)(struct bf_turn *turn, struct bf_open_event *open);
    /* Decides about a row whose time has come. */
    void (*look)(struct bf_turn *turn, const struct bf_leg_row *row, struct bf_due_plan *ret);
};

struct bf_turn {
    uint64_t now_ms, mono_ms; /* wall and monotonic, of the beginning of the turn */
    uint64_t random;
    const struct bf_conf *conf;
    struct bf_store *store; /* shows what was written before the turn's batch */
    struct bf_batch *batch;
    struct bf_log *log;
    struct bf_launches *launches;
    const uint8_t *user_secret; /* of the region: makes user keys (shm/user_key.h) */
    const struct bf_turn_ops *ops;
};

/* xorshift64*: jitter, nothing that must not be guessed. Below |below|; 0 gives 0. */
static inline uint64_t bf_turn_dice(struct bf_turn *turn, uint64_t below)
{
    turn->random |= turn->random == 0;
    turn->random ^= turn->random >> 12;
    turn->random ^= turn->random << 25;
    turn->random ^= turn->random >> 27;
    return below ? (turn->random * UINT64_C(0x2545f4914f6cdd1d) >> 11) % below : 0;
}
