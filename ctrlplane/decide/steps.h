/* What the steps of a decision share: their prototypes and how they turn legs off. Only decide/
 * includes it. */
#pragma once

#include "decide/decide.h"

#define X(name, moments) void bf_step_##name(const struct bf_facts *facts, struct bf_plan *plan);
#include "decide/steps.def"
#undef X

#define BF_MASK_ALL   ((uint8_t)((1u << BF_CHANNEL_COUNT) - 1u))
#define BF_MASK_INAPP ((uint8_t)(1u << BF_CHANNEL_INAPP))
/* Everything that goes to endpoints of a person outside this node's sockets. */
#define BF_MASK_OUTBOUND ((uint8_t)(BF_MASK_ALL & ~BF_MASK_INAPP))

static inline bool bf_leg_is_on(const struct bf_plan *plan, enum bf_channel channel)
{
    return plan->leg[channel].when != BF_NEVER;
}

/* Those of |channels| that are on. */
static inline void bf_legs_off(struct bf_plan *plan, uint8_t channels, enum bf_reason reason)
{
    for (uint32_t left = channels; left; left &= left - 1) {
        struct bf_leg_plan *leg = &plan->leg[__builtin_ctz(left)];
        if (leg->when != BF_NEVER)
            *leg = (struct bf_leg_plan){.when = BF_NEVER, .reason = reason};
    }
}

/* Whether a leg that is off for |reason| would have gone to endpoints but for this. */
static inline bool bf_is_off_by_choice(enum bf_reason reason)
{
    switch (reason) {
    case BF_REASON_OPT_OUT:
    case BF_REASON_CHANNEL:
    case BF_REASON_CATEGORY:
    case BF_REASON_TYPE:
    case BF_REASON_TOPIC_MUTE:
    case BF_REASON_STALE:
        return true;
    default:
        return false;
    }
}
