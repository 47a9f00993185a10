/* Step "content": there is nothing that this channel could send. */
#include "decide/steps.h"

void bf_step_content(const struct bf_facts *facts, struct bf_plan *plan)
{
    bf_legs_off(plan, facts->subject->unreadable & BF_MASK_ALL, BF_REASON_NO_CONTENT);
}
