/* Step "expired": it has expired. */
#include "decide/steps.h"

/* In-app it is on the broadcast log already, so only its push can expire here. What is stale
 * without an expiry of its own becomes a dead letter, which has a day from now on. */
static bool is_broadcast_over(const struct bf_facts *facts)
{
    const struct bf_subject *subject = facts->subject;
    if (subject->expires_ms)
        return subject->expires_ms <= facts->now_ms;
    return !bf_facts_is_stale(facts) && subject->created_ms + facts->rules->ttl_ms <= facts->now_ms;
}

void bf_step_expired(const struct bf_facts *facts, struct bf_plan *plan)
{
    const struct bf_subject *subject = facts->subject;
    uint8_t wanted = facts->subscribed ? facts->subscribed : BF_MASK_ALL;
    bool is_over = subject->expires_ms && subject->expires_ms <= facts->now_ms;
    if (facts->moment != BF_ARRIVES) {
        if (subject->expires_ms <= facts->now_ms) /* rows and letters always say when */
            bf_legs_off(plan, BF_MASK_ALL, BF_REASON_EXPIRED);
        return;
    }
    if (subject->is_nobodys)
        return; /* the queue ends it, where its one row is */
    if (subject->is_broadcast)
        is_over = is_broadcast_over(facts);
    else if (!(wanted & BF_MASK_INAPP) || !bf_leg_is_on(plan, BF_CHANNEL_INAPP))
        return;  /* without a message in-app each endpoint has an end of its own, in the queue */
    if (is_over) /* what a subscription leaves out was never due */
        bf_legs_off(plan, wanted, BF_REASON_EXPIRED);
}
