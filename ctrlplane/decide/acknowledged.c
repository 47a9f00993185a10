/* Step "acknowledged": the person has already taken the message for which a row waits. */
#include "decide/steps.h"

void bf_step_acknowledged(const struct bf_facts *facts, struct bf_plan *plan)
{
    const struct bf_subject *subject = facts->subject;
    bool has_it =
        subject->is_fallback && subject->is_broadcast && facts->presence == BF_PRESENCE_ONLINE;
    if (facts->is_settled)
        bf_legs_off(plan, BF_MASK_ALL, BF_REASON_ACKNOWLEDGED);
    else if (has_it) /* a broadcast is not acknowledged: whoever is connected by now got it */
        bf_legs_off(plan, BF_MASK_ALL, BF_REASON_ONLINE);
}
