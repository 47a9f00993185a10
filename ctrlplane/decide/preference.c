/* Step "preference": what the person wants on which channel (PRF-1). */
#include "decide/steps.h"

void bf_step_preference(const struct bf_facts *facts, struct bf_plan *plan)
{
    const struct bf_subject *subject = facts->subject;
    if (!facts->person || !facts->person->prefs)
        return;
    for (uint32_t channel = 0; channel < BF_CHANNEL_COUNT; channel++) {
        if (!bf_leg_is_on(plan, (enum bf_channel)channel))
            continue;
        enum bf_reason reason =
            bf_prefs_decide(facts->person->prefs, subject->type, subject->category, subject->topic,
                            (enum bf_channel)channel);
        if (reason != BF_REASON_NONE)
            bf_legs_off(plan, (uint8_t)(1u << channel), reason);
    }
}
