/*
 * What a part of the control process may use of a shard's turn: its clocks, dice and rules, which
 * are read once and passed on as values, so that the same inputs in the same turn give the same
 * result; the batch that the turn writes; the way to the workers. fanout/ owns the shard, lends
 * this for the shard's life, and fills it anew at the beginning of each turn; nobody else sees
 * struct bf_shard. The shard's thread.
 */
#pragma once

#include <stdint.h>

struct bf_batch;
struct bf_conf;
struct bf_launches;
struct bf_log;
struct bf_rules;
struct bf_store;

struct bf_turn {
    uint64_t now_ms, mono_ms;     /* wall and monotonic, of the beginning of the turn */
    uint64_t random;              /* state of the dice */
    const struct bf_rules *rules; /* to decide by (decide/decide.h) */
    const struct bf_conf *conf;
    struct bf_store *store; /* shows what was written before the turn's batch */
    struct bf_batch *batch;
    struct bf_log *log;
    struct bf_launches *launches; /* commands that leave once the batch is written */
    const uint8_t *user_secret;   /* of the region: makes user keys (shm/user_key.h) */
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
