/*
 * Step "route": decides by presence. In-app goes to those who are connected; push goes at once, or
 * follows the in-app message as the next step of a chain if nobody acknowledges it (FAN-7, FAN-8).
 */
#include "decide/steps.h"

bool bf_follows_inapp(const struct bf_facts *facts)
{
    const struct bf_subject *subject = facts->subject;
    if (facts->subscribed) /* the person's own choice */
        return facts->subscribed & BF_MASK_INAPP;
    if (subject->is_broadcast)
        return true;
    if (!subject->is_named)
        return !subject->is_critical;
    return subject->is_ordered && subject->channels & BF_MASK_INAPP &&
           subject->first == BF_CHANNEL_INAPP;
}

/* A push that was turned off keeps its place in the chain (see struct bf_chain). */
static void chain(const struct bf_facts *facts, struct bf_plan *plan)
{
    uint32_t wait_ms = facts->rules->ack_ms;
    struct bf_leg_plan *push = &plan->leg[BF_CHANNEL_PUSH];
    if (push->when != BF_NOW && !bf_is_off_by_choice(push->reason))
        return;
    plan->chain =
        (struct bf_chain){.count = 2, .step = {{BF_CHANNEL_INAPP, wait_ms}, {BF_CHANNEL_PUSH, 0}}};
    if (push->when == BF_NOW)
        *push = (struct bf_leg_plan){.when = BF_CHAINED, .at_ms = facts->now_ms + wait_ms};
}

/* Everybody connected has it on the socket; presence not known is not offline (DESIGN 4.8). */
static void route_broadcast(const struct bf_facts *facts, struct bf_plan *plan)
{
    bool is_there = facts->presence == BF_PRESENCE_ONLINE;
    if (!bf_follows_inapp(facts) || facts->presence == BF_PRESENCE_OFFLINE)
        return;
    if (is_there || !bf_facts_is_stale(facts))
        chain(facts, plan);
    if (is_there)
        bf_legs_off(plan, BF_MASK_OUTBOUND, BF_REASON_ONLINE);
}

static void route_arrival(const struct bf_facts *facts, struct bf_plan *plan)
{
    const struct bf_subject *subject = facts->subject;
    bool has_inapp = bf_leg_is_on(plan, BF_CHANNEL_INAPP);
    bool may_be_there = facts->presence != BF_PRESENCE_OFFLINE;
    if (subject->is_transient && facts->presence != BF_PRESENCE_ONLINE)
        bf_legs_off(plan, BF_MASK_INAPP, BF_REASON_OFFLINE);
    else if (has_inapp && may_be_there && bf_follows_inapp(facts) && !bf_facts_is_stale(facts))
        chain(facts, plan);
}

/* A chain that was due while its people could not acknowledge: they get the time they lacked. */
static void route_due(const struct bf_facts *facts, struct bf_plan *plan)
{
    const struct bf_rules *rules = facts->rules;
    bool is_held = facts->subject->is_fallback && facts->subject->due_ms <= rules->attached_ms &&
                   facts->now_ms < rules->hold_until_ms;
    for (uint32_t channel = 0; channel < BF_CHANNEL_COUNT && is_held; channel++)
        if (plan->leg[channel].when == BF_NOW)
            plan->leg[channel] =
                (struct bf_leg_plan){.when = BF_LATER, .at_ms = rules->hold_until_ms};
}

void bf_step_route(const struct bf_facts *facts, struct bf_plan *plan)
{
    if (facts->moment == BF_DUE)
        route_due(facts, plan);
    else if (facts->subject->is_nobodys)
        return;
    else if (facts->subject->is_broadcast)
        route_broadcast(facts, plan);
    else
        route_arrival(facts, plan);
}
