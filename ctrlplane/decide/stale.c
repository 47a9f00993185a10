/*
 * Step "stale": an event this old may go into the inbox, but must not ring a phone (DESIGN 4.14).
 * Events that waited in the log while a node was away would otherwise all go out at once; their
 * dead letters can be sent by a redrive.
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
