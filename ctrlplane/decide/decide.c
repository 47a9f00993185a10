/* See decide.h. */
#include "decide/decide.h"

#include "decide/steps.h"

/* The channels that are asked for. A channel that was not named counts only if it can reach the
 * person; otherwise the status would show a missing endpoint of a channel that nobody asked for. */
static uint8_t asked_for(const struct bf_facts *facts)
{
    const struct bf_subject *subject = facts->subject;
    uint8_t outbound = subject->channels & BF_MASK_OUTBOUND;
    if (facts->moment != BF_ARRIVES || subject->is_broadcast)
        return outbound;
    if (subject->is_transient)
        return BF_MASK_INAPP;
    if (!subject->is_named)
        outbound &= facts->reachable;
    return outbound | BF_MASK_INAPP;
}

void bf_decide(const struct bf_facts *facts, struct bf_plan *ret)
{
    *ret = (struct bf_plan){0};
    for (uint32_t left = asked_for(facts); left; left &= left - 1)
        ret->leg[__builtin_ctz(left)].when = BF_NOW;
#define X(name, moments)                                                                           \
    if ((moments)&facts->moment)                                                                   \
        bf_step_##name(facts, ret);
#include "decide/steps.def"
#undef X
    ret->in_inbox = bf_leg_is_on(ret, BF_CHANNEL_INAPP) && !facts->subject->is_transient;
    for (uint32_t channel = 0; channel < BF_CHANNEL_COUNT && !facts->is_counted; channel++)
        if (ret->leg[channel].when == BF_NOW)
            ret->counts.legs |= (uint8_t)(1u << channel);
}

bool bf_needs_endpoints(const struct bf_facts *facts, const struct bf_plan *plan,
                        enum bf_channel channel)
{
    const struct bf_leg_plan *leg = &plan->leg[channel];
    if (facts->subject->is_nobodys || facts->subject->is_fallback || plan->chain.count > 0)
        return false;
    return leg->when == BF_NOW || (facts->moment == BF_ARRIVES && bf_is_off_by_choice(leg->reason));
}
