/*
 * Step "stale": an event so old is news for the inbox, not for a phone in somebody's pocket (DESIGN
 * 4.14). What waited in the log while a node was away must not go off at once: only the redrive of
 * its dead letters sends it.
 */
#include "decide/steps.h"

bool bf_facts_is_stale(const struct bf_facts *facts)
{
    uint64_t created_ms = facts->subject->created_ms;
    return facts->now_ms > created_ms && facts->now_ms - created_ms > facts->rules->max_age_ms;
}

void bf_step_stale(const struct bf_facts *facts, struct bf_plan *plan)
{
    if (bf_facts_is_stale(facts))
        bf_legs_off(plan, BF_MASK_OUTBOUND, BF_REASON_STALE);
}
