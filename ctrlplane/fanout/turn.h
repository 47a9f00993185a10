/*
 * What a turn of a shard has from outside, read once at its beginning and passed on as values: the
 * clock, the dice, the rules to decide by. The same inputs in the same turn give the same result.
 * Owner: the shard's thread.
 */
#pragma once

#include <stdint.h>

#include "decide/decide.h"

struct bf_turn {
    uint64_t now_ms; /* wall; not before the turn's inputs were taken from the queue */
    uint64_t mono_ms;
    uint64_t random; /* state of the dice; never 0 */
    struct bf_rules rules;
};

/* xorshift64*: jitter, nothing that must not be guessed. Below |below|, which is not 0. */
static inline uint64_t bf_turn_dice(struct bf_turn *turn, uint64_t below)
{
    turn->random ^= turn->random >> 12;
    turn->random ^= turn->random << 25;
    turn->random ^= turn->random >> 27;
    return (turn->random * UINT64_C(0x2545f4914f6cdd1d) >> 11) % below;
}
