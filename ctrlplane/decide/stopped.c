/* Step "stopped": there is no endpoint that may be used, or the one of a row may not be used any
 * more. */
#include "decide/steps.h"

void bf_step_stopped(const struct bf_facts *facts, struct bf_plan *plan)
{
    const struct bf_subject *subject = facts->subject;
    uint8_t unreachable = BF_MASK_OUTBOUND & (uint8_t)~facts->reachable;
    if (subject->endpoint != BF_REASON_NONE)
        bf_legs_off(plan, BF_MASK_OUTBOUND, subject->endpoint);
    if (subject->is_nobodys || facts->moment != BF_ARRIVES)
        return;
    bf_legs_off(plan, unreachable & (uint8_t)~facts->rules->channels, BF_REASON_NO_APP);
    bf_legs_off(plan, unreachable, BF_REASON_NO_DEVICE);
}
