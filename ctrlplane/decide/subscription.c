/* Step "subscription": channels that the person's own subscription leaves out. Who denied a topic,
 * or never subscribed, is none of its people and never comes here (pipeline/jobs.c). */
#include "decide/steps.h"

void bf_step_subscription(const struct bf_facts *facts, struct bf_plan *plan)
{
    if (facts->subscribed)
        bf_legs_off(plan, (uint8_t)~facts->subscribed & BF_MASK_ALL, BF_REASON_SUBSCRIPTION);
}
