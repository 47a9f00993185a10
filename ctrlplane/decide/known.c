/*
 * Step "known": is there such a person, and has this event been decided for them before? Legs that
 * an earlier arrival stored or ended stay as they are; those that it began and did not end go
 * through the other steps.
 */
#include "decide/steps.h"

void bf_step_known(const struct bf_facts *facts, struct bf_plan *plan)
{
    if (!facts->person && !facts->subject->is_nobodys)
        bf_legs_off(plan, BF_MASK_ALL, BF_REASON_UNKNOWN_USER);
    if (facts->moment != BF_ARRIVES)
        return;
    if (facts->is_known)
        bf_legs_off(plan, BF_MASK_INAPP, BF_REASON_DUPLICATE);
    if (facts->is_settled)
        bf_legs_off(plan, BF_MASK_OUTBOUND, BF_REASON_DUPLICATE);
}
