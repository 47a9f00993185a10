/*
 * The decision alone (decide/decide.h): a row for each rule, and some thousands of generated facts,
 * each compared with a plain reading of the same rules. The reading is no list of steps: it says
 * for each channel what speaks against it, each by itself, and the order of precedence picks one.
 *   BELFRY_SEED=N         the first facts (printed)
 *   BELFRY_DECIDE_ROWS=N  how many (default 20,000)
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "decide/decide.h"

#define INAPP  ((uint8_t)(1u << BF_CHANNEL_INAPP))
#define PUSH   ((uint8_t)(1u << BF_CHANNEL_PUSH))
#define BOTH   ((uint8_t)(INAPP | PUSH))
#define NOW    UINT64_C(1790000000000)
#define HOUR   UINT64_C(3600000)
#define DAY    (24 * HOUR)
#define ACK_MS 12000u

static const struct bf_rules rules = {
    .version = 1,
    .channels = BOTH,
    .max_age_ms = DAY,
    .ttl_ms = DAY,
    .ack_ms = ACK_MS,
    .attached_ms = NOW - 3000,
    .hold_until_ms = NOW + 7000,
};

static struct bf_bytes text(const char *s)
{
    return (struct bf_bytes){s, strlen(s)};
}

static struct bf_prefs *compiled(const char *json)
{
    struct bf_prefs *prefs = NULL;
    struct bf_problem problem = {0};
    if (json)
        cr_assert_eq(bf_prefs_compile(text(json), &prefs, NULL, &problem), 0, "%s: %s", json,
                     problem.detail);
    return prefs;
}

/* ---- a row a rule ---- */

struct outcome {
    enum bf_when when;
    enum bf_reason reason;
};

struct row {
    const char *says;
    struct bf_subject subject; /* created_ms 0: now */
    enum bf_moment moment;     /* 0: arrives */
    enum bf_presence presence;
    uint8_t subscribed, unreachable;
    bool is_stranger, is_known, is_settled, no_app;
    const char *prefs;
    struct outcome inapp, push;
};

#define NEVER(why)                                                                                 \
    {                                                                                              \
        BF_NEVER, BF_REASON_##why                                                                  \
    }
#define GOES                                                                                       \
    {                                                                                              \
        BF_NOW, BF_REASON_NONE                                                                     \
    }
#define FOLLOWS                                                                                    \
    {                                                                                              \
        BF_CHAINED, BF_REASON_NONE                                                                 \
    }
#define ASIDE                                                                                      \
    {                                                                                              \
        BF_NEVER, BF_REASON_NONE                                                                   \
    }
#define OFFLINE  .presence = BF_PRESENCE_OFFLINE
#define ONLINE   .presence = BF_PRESENCE_ONLINE
#define DEFAULTS .subject = {.channels = BOTH}
#define NAMED    .channels = PUSH, .is_named = true, .first = BF_CHANNEL_PUSH
#define ROW      .channels = PUSH, .is_named = true, .expires_ms = NOW + HOUR, .due_ms = NOW - 1
#define ORDERED  .channels = BOTH, .is_named = true, .is_ordered = true

static const struct row rows[] = {
    /* who is there */
    {"offline: in-app and push at once", DEFAULTS, OFFLINE, .inapp = GOES, .push = GOES},
    {"online: push follows what nobody acknowledges", DEFAULTS, ONLINE, .inapp = GOES,
     .push = FOLLOWS},
    {"presence not known is not offline", DEFAULTS, .inapp = GOES, .push = FOLLOWS},
    {"critical: both at once", .subject = {.channels = BOTH, .is_critical = true}, ONLINE,
     .inapp = GOES, .push = GOES},
    {"push named: at once, and the inbox has it", .subject = {NAMED}, ONLINE, .inapp = GOES,
     .push = GOES},
    {"in-app and push named, no order: at once", .subject = {.channels = BOTH, .is_named = true},
     ONLINE, .inapp = GOES, .push = GOES},
    {"in-app named alone: no push", .subject = {.channels = INAPP, .is_named = true}, OFFLINE,
     .inapp = GOES, .push = ASIDE},
    {"in order, in-app first: push follows", .subject = {ORDERED}, ONLINE, .inapp = GOES,
     .push = FOLLOWS},
    {"in order, in-app first, offline: at once", .subject = {ORDERED}, OFFLINE, .inapp = GOES,
     .push = GOES},
    {"in order, push first: at once", .subject = {ORDERED, .first = BF_CHANNEL_PUSH}, ONLINE,
     .inapp = GOES, .push = GOES},
    {"transient: to who is connected", .subject = {.channels = BOTH, .is_transient = true}, ONLINE,
     .inapp = GOES, .push = ASIDE},
    {"transient, offline: nobody", .subject = {.channels = BOTH, .is_transient = true}, OFFLINE,
     .inapp = NEVER(OFFLINE), .push = ASIDE},
    {"transient, presence not known: nobody", .subject = {.channels = BOTH, .is_transient = true},
     .inapp = NEVER(OFFLINE), .push = ASIDE},
    /* known */
    {"nobody of this id", DEFAULTS, OFFLINE, .is_stranger = true, .inapp = NEVER(UNKNOWN_USER),
     .push = NEVER(UNKNOWN_USER)},
    {"nobody of this id, expired", .subject = {.channels = BOTH, .expires_ms = NOW - 1}, OFFLINE,
     .is_stranger = true, .inapp = NEVER(UNKNOWN_USER), .push = NEVER(UNKNOWN_USER)},
    {"again, all has its end", DEFAULTS, OFFLINE, .is_known = true, .is_settled = true,
     .inapp = NEVER(DUPLICATE), .push = NEVER(DUPLICATE)},
    {"again, a push has no end: it goes on, online or not", DEFAULTS, ONLINE, .is_known = true,
     .inapp = NEVER(DUPLICATE), .push = GOES},
    {"again, opted out since", DEFAULTS, OFFLINE, .is_known = true, .prefs = "{\"opt_out\":true}",
     .inapp = NEVER(DUPLICATE), .push = NEVER(OPT_OUT)},
    {"again, expired since: its pushes end where they are",
     .subject = {.channels = BOTH, .expires_ms = NOW - 1}, OFFLINE, .is_known = true,
     .inapp = NEVER(DUPLICATE), .push = GOES},
    /* expired, stale */
    {"expired", .subject = {.channels = BOTH, .expires_ms = NOW}, OFFLINE, .inapp = NEVER(EXPIRED),
     .push = NEVER(EXPIRED)},
    {"not expired yet", .subject = {.channels = BOTH, .expires_ms = NOW + 1}, OFFLINE,
     .inapp = GOES, .push = GOES},
    {"expired before preferences", .subject = {.channels = BOTH, .expires_ms = NOW}, OFFLINE,
     .prefs = "{\"opt_out\":true}", .inapp = NEVER(EXPIRED), .push = NEVER(EXPIRED)},
    {"stale: the inbox takes it, push does not",
     .subject = {.channels = BOTH, .created_ms = NOW - DAY - 1}, ONLINE, .inapp = GOES,
     .push = NEVER(STALE)},
    {"a day old is not stale", .subject = {.channels = BOTH, .created_ms = NOW - DAY}, OFFLINE,
     .inapp = GOES, .push = GOES},
    {"made in the future is not stale", .subject = {.channels = BOTH, .created_ms = NOW + DAY},
     OFFLINE, .inapp = GOES, .push = GOES},
    {"stale and not wanted: no dead letter", .subject = {NAMED, .created_ms = NOW - 2 * DAY},
     OFFLINE, .prefs = "{\"channels\":{\"push\":false}}", .inapp = GOES, .push = NEVER(CHANNEL)},
    {"stale and no device: no dead letter", .subject = {NAMED, .created_ms = NOW - 2 * DAY},
     OFFLINE, .unreachable = PUSH, .inapp = GOES, .push = NEVER(NO_DEVICE)},
    /* subscription */
    {"subscribed by push alone", DEFAULTS, ONLINE, .subscribed = PUSH, .inapp = NEVER(SUBSCRIPTION),
     .push = GOES},
    {"subscribed in-app alone", DEFAULTS, OFFLINE, .subscribed = INAPP, .inapp = GOES,
     .push = NEVER(SUBSCRIPTION)},
    {"subscribed by both: push follows, whatever was named", .subject = {NAMED}, ONLINE,
     .subscribed = BOTH, .inapp = GOES, .push = FOLLOWS},
    {"subscribed by push alone, expired", .subject = {NAMED, .expires_ms = NOW - 1}, ONLINE,
     .subscribed = PUSH, .inapp = NEVER(SUBSCRIPTION), .push = GOES},
    /* stopped */
    {"named, no device", .subject = {NAMED}, OFFLINE, .unreachable = PUSH, .inapp = GOES,
     .push = NEVER(NO_DEVICE)},
    {"named, the node has no app", .subject = {NAMED}, OFFLINE, .unreachable = PUSH, .no_app = true,
     .inapp = GOES, .push = NEVER(NO_APP)},
    {"not named, no device: nothing to say", DEFAULTS, OFFLINE, .unreachable = PUSH, .inapp = GOES,
     .push = ASIDE},
    {"no device before preferences", .subject = {NAMED}, OFFLINE, .unreachable = PUSH,
     .prefs = "{\"opt_out\":true}", .inapp = NEVER(OPT_OUT), .push = NEVER(NO_DEVICE)},
    /* preference: the first level that says something */
    {"opted out", DEFAULTS, OFFLINE, .prefs = "{\"opt_out\":true,\"types\":{\"t\":true}}",
     .inapp = NEVER(OPT_OUT), .push = NEVER(OPT_OUT)},
    {"topic muted", .subject = {.channels = BOTH, .topic = {"p", 1}}, OFFLINE,
     .prefs = "{\"topics\":{\"p\":\"mute\"},\"types\":{\"t\":true}}", .inapp = NEVER(TOPIC_MUTE),
     .push = NEVER(TOPIC_MUTE)},
    {"type before category", .subject = {.channels = BOTH, .category = {"c", 1}}, OFFLINE,
     .prefs = "{\"types\":{\"t\":{\"push\":false}},\"categories\":{\"c\":{\"push\":true}}}",
     .inapp = GOES, .push = NEVER(TYPE)},
    {"category before channel", .subject = {.channels = BOTH, .category = {"c", 1}}, OFFLINE,
     .prefs =
         "{\"categories\":{\"c\":{\"push\":true,\"inapp\":false}},\"channels\":{\"push\":false}}",
     .inapp = NEVER(CATEGORY), .push = GOES},
    {"channel", DEFAULTS, ONLINE, .prefs = "{\"channels\":{\"push\":false}}", .inapp = GOES,
     .push = NEVER(CHANNEL)},
    {"in-app off: push follows nothing", DEFAULTS, ONLINE,
     .prefs = "{\"channels\":{\"inapp\":false}}", .inapp = NEVER(CHANNEL), .push = GOES},
    {"named does not widen a preference", .subject = {NAMED}, OFFLINE,
     .prefs = "{\"channels\":{\"push\":false}}", .inapp = GOES, .push = NEVER(CHANNEL)},
    /* content */
    {"nothing that push could send", .subject = {NAMED, .unreadable = PUSH}, OFFLINE, .inapp = GOES,
     .push = NEVER(NO_CONTENT)},
    /* broadcasts: in-app is not a matter of the decision */
    {"broadcast, offline", .subject = {NAMED, .is_broadcast = true}, OFFLINE, .inapp = ASIDE,
     .push = GOES},
    {"broadcast, online: has it", .subject = {NAMED, .is_broadcast = true}, ONLINE, .inapp = ASIDE,
     .push = NEVER(ONLINE)},
    {"broadcast, presence not known: in a while", .subject = {NAMED, .is_broadcast = true},
     .inapp = ASIDE, .push = FOLLOWS},
    {"broadcast topic, subscribed by push alone", .subject = {NAMED, .is_broadcast = true}, ONLINE,
     .subscribed = PUSH, .inapp = ASIDE, .push = GOES},
    {"broadcast topic, subscribed in-app alone", .subject = {NAMED, .is_broadcast = true}, OFFLINE,
     .subscribed = INAPP, .inapp = ASIDE, .push = NEVER(SUBSCRIPTION)},
    {"broadcast, its fallback waits already", .subject = {NAMED, .is_broadcast = true},
     .is_settled = true, .inapp = ASIDE, .push = NEVER(DUPLICATE)},
    {"broadcast, a push is worth sending for a day",
     .subject = {NAMED, .is_broadcast = true, .created_ms = NOW - DAY}, OFFLINE, .inapp = ASIDE,
     .push = NEVER(EXPIRED)},
    {"broadcast, stale", .subject = {NAMED, .is_broadcast = true, .created_ms = NOW - 2 * DAY},
     OFFLINE, .inapp = ASIDE, .push = NEVER(STALE)},
    {"broadcast, stale, presence not known",
     .subject = {NAMED, .is_broadcast = true, .created_ms = NOW - 2 * DAY}, .inapp = ASIDE,
     .push = NEVER(STALE)},
    {"a provider's channel is nobody's",
     .subject = {NAMED, .is_broadcast = true, .is_nobodys = true}, OFFLINE, .is_stranger = true,
     .unreachable = PUSH, .inapp = ASIDE, .push = GOES},
    {"a provider's channel, stale",
     .subject = {NAMED, .is_broadcast = true, .is_nobodys = true, .created_ms = NOW - 2 * DAY},
     OFFLINE, .is_stranger = true, .inapp = ASIDE, .push = NEVER(STALE)},
    /* a row that is due */
    {"due", .moment = BF_DUE, .subject = {ROW}, OFFLINE, .push = GOES},
    {"due, erased", .moment = BF_DUE, .subject = {ROW}, OFFLINE, .is_stranger = true,
     .push = NEVER(UNKNOWN_USER)},
    {"due, expired", .moment = BF_DUE, .subject = {.channels = PUSH, .expires_ms = NOW}, OFFLINE,
     .push = NEVER(EXPIRED)},
    {"due, expired and acknowledged", .moment = BF_DUE,
     .subject = {.channels = PUSH, .expires_ms = NOW}, OFFLINE, .is_settled = true,
     .push = NEVER(EXPIRED)},
    {"due, acknowledged", .moment = BF_DUE, .subject = {ROW}, OFFLINE, .is_settled = true,
     .push = NEVER(ACKNOWLEDGED)},
    {"due, acknowledged and opted out", .moment = BF_DUE, .subject = {ROW}, OFFLINE,
     .is_settled = true, .prefs = "{\"opt_out\":true}", .push = NEVER(ACKNOWLEDGED)},
    {"due, opted out", .moment = BF_DUE, .subject = {ROW}, OFFLINE, .prefs = "{\"opt_out\":true}",
     .push = NEVER(OPT_OUT)},
    {"due, muted since", .moment = BF_DUE, .subject = {ROW, .topic = {"p", 1}}, OFFLINE,
     .prefs = "{\"topics\":{\"p\":false}}", .push = NEVER(TOPIC_MUTE)},
    {"due, online: a retry goes", .moment = BF_DUE, .subject = {ROW}, ONLINE, .push = GOES},
    {"due, old: not stale any more", .moment = BF_DUE,
     .subject = {ROW, .created_ms = NOW - 3 * DAY}, OFFLINE, .push = GOES},
    {"due, a broadcast's fallback, connected by now", .moment = BF_DUE,
     .subject = {ROW, .is_fallback = true, .is_broadcast = true}, ONLINE, .push = NEVER(ONLINE)},
    {"due, a broadcast's fallback, still away", .moment = BF_DUE,
     .subject = {ROW, .is_fallback = true, .is_broadcast = true}, OFFLINE, .push = GOES},
    {"due, a fallback, online and not acknowledged", .moment = BF_DUE,
     .subject = {ROW, .is_fallback = true}, ONLINE, .push = GOES},
    {"due, a fallback of before the attach", .moment = BF_DUE,
     .subject =
         {.channels = PUSH, .expires_ms = NOW + HOUR, .due_ms = NOW - 3000, .is_fallback = true},
     ONLINE, .push = {BF_LATER, BF_REASON_NONE}},
    {"due, a device's row of before the attach", .moment = BF_DUE,
     .subject = {.channels = PUSH, .expires_ms = NOW + HOUR, .due_ms = NOW - 3000}, ONLINE,
     .push = GOES},
    {"due, the device is gone", .moment = BF_DUE,
     .subject = {ROW, .endpoint = BF_REASON_DEVICE_DELETED}, OFFLINE,
     .push = NEVER(DEVICE_DELETED)},
    {"due, its text cannot be read", .moment = BF_DUE, .subject = {ROW, .unreadable = PUSH},
     OFFLINE, .push = NEVER(NO_CONTENT)},
    {"due, a provider's channel", .moment = BF_DUE, .subject = {ROW, .is_nobodys = true}, OFFLINE,
     .is_stranger = true, .push = GOES},
    /* redrive */
    {"redriven", .moment = BF_REDRIVEN, .subject = {ROW}, OFFLINE, .push = GOES},
    {"redriven, erased", .moment = BF_REDRIVEN, .subject = {ROW}, OFFLINE, .is_stranger = true,
     .push = NEVER(UNKNOWN_USER)},
    {"redriven, expired", .moment = BF_REDRIVEN, .subject = {.channels = PUSH, .expires_ms = NOW},
     OFFLINE, .push = NEVER(EXPIRED)},
    {"redriven, opted out: decided when it is due", .moment = BF_REDRIVEN, .subject = {ROW},
     OFFLINE, .prefs = "{\"opt_out\":true}", .push = GOES},
    {"redriven, acknowledged long ago", .moment = BF_REDRIVEN, .subject = {ROW}, OFFLINE,
     .is_settled = true, .push = GOES},
};

static void check_leg(const struct row *row, const char *name, const struct bf_leg_plan *got,
                      const struct outcome *want)
{
    cr_expect(got->when == want->when && got->reason == want->reason, "%s: %s is %d %s, not %d %s",
              row->says, name, got->when, bf_reason_name(got->reason), want->when,
              bf_reason_name(want->reason));
}

Test(decide, a_row_for_each_rule)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *row = &rows[i];
        struct bf_subject subject = row->subject;
        struct bf_rules own = rules;
        struct bf_prefs *prefs = compiled(row->prefs);
        struct bf_person person = {.prefs = prefs};
        struct bf_plan plan;
        if (subject.created_ms == 0)
            subject.created_ms = NOW;
        subject.type = text("t");
        own.channels = row->no_app ? INAPP : BOTH;
        struct bf_facts facts = {.moment = row->moment ? row->moment : BF_ARRIVES,
                                 .now_ms = NOW,
                                 .subject = &subject,
                                 .rules = &own,
                                 .person = row->is_stranger ? NULL : &person,
                                 .presence = row->presence,
                                 .subscribed = row->subscribed,
                                 .reachable = (uint8_t)~row->unreachable,
                                 .is_known = row->is_known,
                                 .is_settled = row->is_settled};
        bf_decide(&facts, &plan);
        check_leg(row, "in-app", &plan.leg[BF_CHANNEL_INAPP], &row->inapp);
        check_leg(row, "push", &plan.leg[BF_CHANNEL_PUSH], &row->push);
        bf_prefs_free(prefs);
    }
}

/* ---- what goes with it ---- */

struct sample {
    struct bf_subject subject;
    struct bf_person person;
    struct bf_facts facts;
    struct bf_plan plan;
};

static void arrive(struct sample *s, struct bf_subject subject, enum bf_presence presence)
{
    s->subject = subject;
    s->subject.created_ms = NOW;
    s->facts = (struct bf_facts){.moment = BF_ARRIVES,
                                 .now_ms = NOW,
                                 .subject = &s->subject,
                                 .rules = &rules,
                                 .person = &s->person,
                                 .presence = presence,
                                 .reachable = UINT8_MAX};
    bf_decide(&s->facts, &s->plan);
}

Test(decide, a_chain_says_its_steps_and_when)
{
    struct sample s = {0};
    arrive(&s, (struct bf_subject){.channels = BOTH}, BF_PRESENCE_ONLINE);
    cr_assert_eq(s.plan.leg[BF_CHANNEL_PUSH].at_ms, NOW + ACK_MS);
    cr_assert_eq(s.plan.chain.count, 2);
    cr_assert_eq(s.plan.chain.step[0].channel, BF_CHANNEL_INAPP);
    cr_assert_eq(s.plan.chain.step[0].deadline_ms, ACK_MS);
    cr_assert_eq(s.plan.chain.step[1].channel, BF_CHANNEL_PUSH);
    cr_assert_eq(s.plan.chain.step[1].deadline_ms, 0);
    arrive(&s, (struct bf_subject){.channels = BOTH}, BF_PRESENCE_OFFLINE);
    cr_assert_eq(s.plan.chain.count, 0, "push does not wait for who is not there");
    arrive(&s, (struct bf_subject){.channels = INAPP}, BF_PRESENCE_ONLINE);
    cr_assert_eq(s.plan.chain.count, 0, "nothing follows where nothing was asked for");
}

Test(decide, a_held_row_has_the_end_of_the_hold)
{
    struct sample s = {0};
    arrive(&s, (struct bf_subject){ROW, .is_fallback = true}, BF_PRESENCE_OFFLINE);
    s.facts.moment = BF_DUE;
    s.subject.due_ms = rules.attached_ms;
    bf_decide(&s.facts, &s.plan);
    cr_assert_eq(s.plan.leg[BF_CHANNEL_PUSH].when, BF_LATER);
    cr_assert_eq(s.plan.leg[BF_CHANNEL_PUSH].at_ms, rules.hold_until_ms);
    s.subject.due_ms = rules.attached_ms + 1;
    bf_decide(&s.facts, &s.plan);
    cr_assert_eq(s.plan.leg[BF_CHANNEL_PUSH].when, BF_NOW);
    s.subject.due_ms = rules.attached_ms;
    s.facts.now_ms = rules.hold_until_ms;
    bf_decide(&s.facts, &s.plan);
    cr_assert_eq(s.plan.leg[BF_CHANNEL_PUSH].when, BF_NOW);
}

Test(decide, counted_once)
{
    struct sample s = {0};
    arrive(&s, (struct bf_subject){.channels = BOTH}, BF_PRESENCE_ONLINE);
    cr_assert_eq(s.plan.counts.legs, INAPP, "what follows is counted when it goes");
    arrive(&s, (struct bf_subject){.channels = BOTH}, BF_PRESENCE_OFFLINE);
    cr_assert_eq(s.plan.counts.legs, BOTH);
    s.facts.is_counted = true;
    bf_decide(&s.facts, &s.plan);
    cr_assert_eq(s.plan.counts.legs, 0);
}

Test(decide, inbox)
{
    struct sample s = {0};
    arrive(&s, (struct bf_subject){NAMED}, BF_PRESENCE_OFFLINE);
    cr_assert(s.plan.in_inbox, "whatever channels were named");
    arrive(&s, (struct bf_subject){.channels = BOTH, .is_transient = true}, BF_PRESENCE_ONLINE);
    cr_assert_not(s.plan.in_inbox);
    arrive(&s, (struct bf_subject){NAMED, .is_broadcast = true}, BF_PRESENCE_OFFLINE);
    cr_assert_not(s.plan.in_inbox, "it is on the broadcast log");
    cr_assert_not(s.plan.is_quiet);
}

static bool needs(struct sample *s)
{
    bf_decide(&s->facts, &s->plan);
    return bf_needs_endpoints(&s->facts, &s->plan, BF_CHANNEL_PUSH);
}

Test(decide, endpoints_are_looked_at_where_the_plan_turns_on_them)
{
    struct sample s = {0};
    struct bf_prefs *off = compiled("{\"channels\":{\"push\":false}}");
    arrive(&s, (struct bf_subject){NAMED}, BF_PRESENCE_OFFLINE);
    cr_assert(needs(&s), "it goes to them");
    s.person.prefs = off;
    cr_assert(needs(&s), "turned off: said only of who has a device");
    arrive(&s, (struct bf_subject){.channels = BOTH}, BF_PRESENCE_ONLINE);
    cr_assert_not(needs(&s), "turned off, and in-app stands for it");
    s.person.prefs = NULL;
    cr_assert_not(needs(&s), "what follows looks when it goes");
    arrive(&s, (struct bf_subject){NAMED, .expires_ms = NOW - 1}, BF_PRESENCE_OFFLINE);
    cr_assert_not(needs(&s), "expired");
    arrive(&s, (struct bf_subject){NAMED, .is_broadcast = true, .is_nobodys = true},
           BF_PRESENCE_OFFLINE);
    cr_assert_not(needs(&s), "nobody's");
    s.subject = (struct bf_subject){ROW};
    s.facts.moment = BF_DUE;
    cr_assert(needs(&s), "a device's row");
    s.subject.is_fallback = true;
    cr_assert_not(needs(&s), "a fallback becomes a row for each device");
    bf_prefs_free(off);
}

/* ---- generated facts ---- */

static uint64_t seed, rng;

static uint32_t dice(uint32_t sides)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)((rng >> 32) % sides);
}

static bool one_in(uint32_t sides)
{
    return dice(sides) == 0;
}

/* What a person wants, as PRF-1 says it; -1: says nothing. */
struct wishes {
    bool has_any, opt_out, mutes_p;
    int by_type[2], by_category[2], by_channel[2];
};

static int said(void)
{
    return one_in(2) ? -1 : (int)dice(2);
}

static void put(char *json, const char *format, const char *name, int value)
{
    size_t at = strlen(json);
    if (value >= 0)
        snprintf(json + at, 400 - at, format, name, value ? "true" : "false");
}

static void put_levels(char *json, const char *head, const char *tail, const int by[2])
{
    size_t at;
    bool both = by[0] >= 0 && by[1] >= 0;
    strncat(json, head, 400 - strlen(json) - 1);
    put(json, "\"%s\":%s", "inapp", by[0]);
    at = strlen(json);
    snprintf(json + at, 400 - at, "%s", both ? "," : "");
    put(json, "\"%s\":%s", "push", by[1]);
    strncat(json, tail, 400 - strlen(json) - 1);
}

static struct bf_prefs *want(struct wishes *w)
{
    char json[400] = "{";
    *w = (struct wishes){.has_any = !one_in(3),
                         .opt_out = one_in(8),
                         .mutes_p = one_in(4),
                         .by_type = {said(), said()},
                         .by_category = {said(), said()},
                         .by_channel = {said(), said()}};
    if (!w->has_any)
        return NULL;
    put(json, "\"%s\":%s,", "opt_out", w->opt_out);
    if (w->mutes_p)
        strncat(json, "\"topics\":{\"p\":\"mute\",\"q\":true},", 400 - strlen(json) - 1);
    put_levels(json, "\"types\":{\"t\":{", "}},", w->by_type);
    put_levels(json, "\"categories\":{\"c\":{", "}},", w->by_category);
    put_levels(json, "\"channels\":{", "}}", w->by_channel);
    return compiled(json);
}

struct generated {
    struct bf_subject subject;
    struct bf_rules rules;
    struct bf_person person;
    struct bf_facts facts;
    struct wishes wishes;
};

static uint64_t one_of_times(void)
{
    static const int64_t at[] = {
        -3 * (int64_t)DAY, -(int64_t)DAY - 1, -(int64_t)DAY, -(int64_t)HOUR, -1, 0, 1,
        (int64_t)DAY};
    return (uint64_t)((int64_t)NOW + at[dice(8)]);
}

static void generate_subject(struct generated *g, bool is_arrival)
{
    static const enum bf_reason endpoints[] = {BF_REASON_DEVICE_DELETED, BF_REASON_DEAD_TOKEN,
                                               BF_REASON_STALE_DEVICE};
    struct bf_subject *s = &g->subject;
    *s = (struct bf_subject){
        .type = text(one_in(2) ? "t" : "other"),
        .category = text(one_in(2) ? "c" : ""),
        .topic = text(one_in(2)   ? "p"
                      : one_in(2) ? "q"
                                  : ""),
        .lane = (enum bf_lane)dice(BF_LANE_COUNT),
        .is_critical = one_in(4),
        .channels = is_arrival ? (uint8_t)dice(4) : PUSH,
        .is_named = one_in(2),
        .is_ordered = one_in(3),
        .first = one_in(2) ? BF_CHANNEL_INAPP : BF_CHANNEL_PUSH,
        .is_transient = is_arrival && one_in(6),
        .is_broadcast = one_in(4),
        .created_ms = one_in(2) ? NOW - HOUR : one_of_times(),
        .expires_ms = is_arrival && one_in(2) ? 0
                      : one_in(2)             ? NOW + HOUR
                                              : one_of_times(),
        .unreadable = one_in(12) ? PUSH : 0,
    };
    if (s->is_broadcast) {
        s->channels = PUSH;
        s->is_transient = false;
    }
    s->is_nobodys = (s->is_broadcast || !is_arrival) && one_in(6);
    if (is_arrival)
        return;
    s->is_fallback = !s->is_nobodys && one_in(2);
    s->due_ms = one_in(2) ? rules.attached_ms - dice(2) : NOW - dice(2000);
    s->endpoint = one_in(8) ? endpoints[dice(3)] : BF_REASON_NONE;
}

static void generate(struct generated *g)
{
    static const enum bf_moment moments[] = {BF_ARRIVES, BF_ARRIVES, BF_ARRIVES,
                                             BF_DUE,     BF_DUE,     BF_REDRIVEN};
    enum bf_moment moment = moments[dice(6)];
    generate_subject(g, moment == BF_ARRIVES);
    g->rules = rules;
    g->rules.channels = one_in(6) ? INAPP : BOTH;
    g->rules.max_age_ms = one_in(4) ? 2 * DAY : DAY;
    if (one_in(3))
        g->rules.attached_ms = g->rules.hold_until_ms = 0;
    g->person.prefs = want(&g->wishes);
    bool is_kept = !g->subject.is_broadcast && !g->subject.is_transient;
    g->facts = (struct bf_facts){
        .moment = moment,
        .now_ms = NOW,
        .subject = &g->subject,
        .rules = &g->rules,
        .person = g->subject.is_nobodys || one_in(10) ? NULL : &g->person,
        .presence = (enum bf_presence)dice(3),
        .subscribed = one_in(2) ? 0 : (uint8_t)(1 + dice(3)),
        .reachable = one_in(4) ? INAPP : BOTH,
        .is_known = moment == BF_ARRIVES && is_kept && one_in(4),
        .is_settled = one_in(4),
        .is_counted = one_in(3),
    };
    if (moment == BF_ARRIVES && !g->facts.is_known && is_kept)
        g->facts.is_settled = false; /* nothing was begun */
}

/* ---- the plain reading ---- */

/* Which words come first where several things speak against a leg (steps.def, in words). */
static const enum bf_reason precedence[] = {
    BF_REASON_UNKNOWN_USER, BF_REASON_DUPLICATE,    BF_REASON_EXPIRED,    BF_REASON_ACKNOWLEDGED,
    BF_REASON_SUBSCRIPTION, BF_REASON_NO_APP,       BF_REASON_NO_DEVICE,  BF_REASON_DEVICE_DELETED,
    BF_REASON_DEAD_TOKEN,   BF_REASON_STALE_DEVICE, BF_REASON_OPT_OUT,    BF_REASON_TOPIC_MUTE,
    BF_REASON_TYPE,         BF_REASON_CATEGORY,     BF_REASON_CHANNEL,    BF_REASON_STALE,
    BF_REASON_OFFLINE,      BF_REASON_ONLINE,       BF_REASON_NO_CONTENT,
};

static enum bf_reason first_of(uint32_t objections)
{
    for (size_t i = 0; i < sizeof(precedence) / sizeof(precedence[0]); i++)
        if (objections >> precedence[i] & 1u)
            return precedence[i];
    return BF_REASON_NONE;
}

static uint32_t if_(bool is_so, enum bf_reason reason)
{
    return is_so ? 1u << reason : 0;
}

static bool is(struct bf_bytes a, const char *b)
{
    return bf_bytes_is_equal(a, text(b));
}

/* PRF-1: the first level that says something. */
static uint32_t against_wishes(const struct generated *g, enum bf_channel channel)
{
    const struct wishes *w = &g->wishes;
    int type = is(g->subject.type, "t") ? w->by_type[channel] : -1;
    int category = is(g->subject.category, "c") ? w->by_category[channel] : -1;
    if (!g->facts.person || !w->has_any)
        return 0;
    if (w->opt_out)
        return if_(true, BF_REASON_OPT_OUT);
    if (w->mutes_p && is(g->subject.topic, "p"))
        return if_(true, BF_REASON_TOPIC_MUTE);
    if (type >= 0)
        return if_(type == 0, BF_REASON_TYPE);
    if (category >= 0)
        return if_(category == 0, BF_REASON_CATEGORY);
    return if_(w->by_channel[channel] == 0, BF_REASON_CHANNEL);
}

static bool is_stranger(const struct generated *g)
{
    return !g->facts.person && !g->subject.is_nobodys;
}

/* DESIGN 4.14: by the age of the event. */
static bool is_old(const struct generated *g)
{
    return (int64_t)(NOW - g->subject.created_ms) > (int64_t)g->rules.max_age_ms;
}

static bool wants(const struct generated *g, uint8_t channel)
{
    return g->facts.subscribed == 0 || g->facts.subscribed & channel;
}

/* FAN-7, FAN-8: push only for who does not take it in-app. */
static bool is_second_choice(const struct generated *g)
{
    const struct bf_subject *s = &g->subject;
    if (g->facts.subscribed != 0)
        return wants(g, INAPP);
    bool is_first_in_order = s->is_ordered && s->channels & INAPP && s->first == BF_CHANNEL_INAPP;
    return s->is_broadcast || (s->is_named ? is_first_in_order : !s->is_critical);
}

static struct outcome read_inapp(const struct generated *g)
{
    const struct bf_subject *s = &g->subject;
    if (g->facts.moment != BF_ARRIVES || s->is_broadcast)
        return (struct outcome)ASIDE;
    uint32_t against =
        if_(is_stranger(g), BF_REASON_UNKNOWN_USER) | if_(g->facts.is_known, BF_REASON_DUPLICATE) |
        if_(s->expires_ms != 0 && s->expires_ms <= NOW && wants(g, INAPP), BF_REASON_EXPIRED) |
        if_(!wants(g, INAPP), BF_REASON_SUBSCRIPTION) | against_wishes(g, BF_CHANNEL_INAPP) |
        if_(s->is_transient && g->facts.presence != BF_PRESENCE_ONLINE, BF_REASON_OFFLINE);
    return against ? (struct outcome){BF_NEVER, first_of(against)} : (struct outcome)GOES;
}

/* When nobody wants the push of an arrival any more. */
static bool is_push_over(const struct generated *g)
{
    const struct bf_subject *s = &g->subject;
    bool has_passed = s->expires_ms != 0 && s->expires_ms <= NOW;
    if (s->is_nobodys)
        return false; /* its one row says it */
    if (s->is_broadcast)
        return s->expires_ms != 0 ? has_passed : !is_old(g) && s->created_ms + DAY <= NOW;
    /* with the in-app message; of an event that comes again each device says it */
    return has_passed && wants(g, INAPP) && !g->facts.is_known;
}

/* Whether it waits for the message in-app (on the socket of a broadcast). */
static bool is_waiting(const struct generated *g)
{
    bool may_be_there = g->facts.presence != BF_PRESENCE_OFFLINE;
    if (g->subject.is_nobodys || is_old(g) || !is_second_choice(g) || !may_be_there)
        return false;
    return g->subject.is_broadcast || read_inapp(g).when == BF_NOW;
}

static struct outcome read_push_arrival(const struct generated *g)
{
    const struct bf_subject *s = &g->subject;
    bool can_reach = g->facts.reachable & PUSH;
    bool is_asked =
        s->is_broadcast || (!s->is_transient && s->channels & PUSH && (s->is_named || can_reach));
    bool has_it = s->is_broadcast && !s->is_nobodys && is_second_choice(g) &&
                  g->facts.presence == BF_PRESENCE_ONLINE;
    bool has_app = g->rules.channels & PUSH;
    if (!is_asked)
        return (struct outcome)ASIDE;
    uint32_t against = if_(is_stranger(g), BF_REASON_UNKNOWN_USER) |
                       if_(g->facts.is_settled, BF_REASON_DUPLICATE) |
                       if_(is_push_over(g) && wants(g, PUSH), BF_REASON_EXPIRED) |
                       if_(!wants(g, PUSH), BF_REASON_SUBSCRIPTION) |
                       if_(!can_reach && !s->is_nobodys && !has_app, BF_REASON_NO_APP) |
                       if_(!can_reach && !s->is_nobodys, BF_REASON_NO_DEVICE) |
                       against_wishes(g, BF_CHANNEL_PUSH) | if_(is_old(g), BF_REASON_STALE) |
                       if_(has_it, BF_REASON_ONLINE) | if_(s->unreadable, BF_REASON_NO_CONTENT);
    if (against)
        return (struct outcome){BF_NEVER, first_of(against)};
    return is_waiting(g) ? (struct outcome)FOLLOWS : (struct outcome)GOES;
}

/* DESIGN 4.3, 4.8: what leaves the queue passes opt-out, erasure, preferences, expiry again. */
static struct outcome read_push_row(const struct generated *g)
{
    const struct bf_subject *s = &g->subject;
    bool is_due = g->facts.moment == BF_DUE;
    bool is_held =
        s->is_fallback && s->due_ms <= g->rules.attached_ms && NOW < g->rules.hold_until_ms;
    bool has_it = s->is_fallback && s->is_broadcast && g->facts.presence == BF_PRESENCE_ONLINE;
    uint32_t against =
        if_(is_stranger(g), BF_REASON_UNKNOWN_USER) | if_(s->expires_ms <= NOW, BF_REASON_EXPIRED);
    if (is_due && !first_of(against) && g->facts.is_settled)
        return (struct outcome)NEVER(ACKNOWLEDGED);
    if (is_due && !first_of(against) && has_it)
        return (struct outcome)NEVER(ONLINE);
    if (is_due)
        against |= if_(s->endpoint != BF_REASON_NONE, s->endpoint) |
                   against_wishes(g, BF_CHANNEL_PUSH) | if_(s->unreadable, BF_REASON_NO_CONTENT);
    if (against)
        return (struct outcome){BF_NEVER, first_of(against)};
    return is_due && is_held ? (struct outcome){BF_LATER, BF_REASON_NONE} : (struct outcome)GOES;
}

static uint64_t read_time(const struct generated *g, struct outcome push)
{
    return push.when == BF_CHAINED ? NOW + ACK_MS
           : push.when == BF_LATER ? g->rules.hold_until_ms
                                   : 0;
}

static bool is_choice(enum bf_reason reason)
{
    return reason == BF_REASON_OPT_OUT || reason == BF_REASON_TOPIC_MUTE ||
           reason == BF_REASON_TYPE || reason == BF_REASON_CATEGORY ||
           reason == BF_REASON_CHANNEL || reason == BF_REASON_STALE;
}

/* Whether an in-app message, or a broadcast on the socket, stands for the push or for its absence.
 */
static bool is_stood_for(const struct generated *g, struct outcome push)
{
    const struct bf_subject *s = &g->subject;
    bool is_on_socket = s->is_broadcast && !s->is_nobodys && is_second_choice(g) &&
                        g->facts.presence == BF_PRESENCE_ONLINE;
    bool is_push = push.when == BF_CHAINED || push.reason == BF_REASON_ONLINE ||
                   push.reason == BF_REASON_NO_CONTENT || is_choice(push.reason);
    return g->facts.moment == BF_ARRIVES && is_push && (is_on_socket || is_waiting(g));
}

static bool needs_look(const struct generated *g, struct outcome push)
{
    if (g->subject.is_nobodys || g->subject.is_fallback || is_stood_for(g, push))
        return false;
    return push.when == BF_NOW || (g->facts.moment == BF_ARRIVES && is_choice(push.reason));
}

/* How often each came out: a generator that never makes a case proves nothing about it. */
static uint32_t seen_when[2][BF_IN_DIGEST + 1], seen_reason[2][BF_REASON_COUNT];

static void compare(const struct generated *g, uint64_t number, enum bf_channel channel,
                    const struct bf_leg_plan *got, struct outcome wanted, uint64_t at_ms)
{
    seen_when[channel][wanted.when]++;
    seen_reason[channel][wanted.reason]++;
    cr_assert(got->when == wanted.when && got->reason == wanted.reason && got->at_ms == at_ms,
              "BELFRY_SEED=%" PRIu64 " row %" PRIu64 ", moment %d, %s: %d %s, not %d %s", seed,
              number, g->facts.moment, bf_channel_name(channel), got->when,
              bf_reason_name(got->reason), wanted.when, bf_reason_name(wanted.reason));
}

static void compare_row(uint64_t number)
{
    struct generated g;
    struct bf_plan plan;
    generate(&g);
    bf_decide(&g.facts, &plan);
    bool is_arrival = g.facts.moment == BF_ARRIVES;
    struct outcome inapp = read_inapp(&g);
    struct outcome push = is_arrival ? read_push_arrival(&g) : read_push_row(&g);
    compare(&g, number, BF_CHANNEL_INAPP, &plan.leg[BF_CHANNEL_INAPP], inapp, 0);
    compare(&g, number, BF_CHANNEL_PUSH, &plan.leg[BF_CHANNEL_PUSH], push, read_time(&g, push));
    for (unsigned channel = BF_CHANNEL_EMAIL; channel < BF_CHANNEL_COUNT; channel++)
        cr_assert_eq(plan.leg[channel].when, BF_NEVER, "nobody asked for it");
    uint8_t going =
        (uint8_t)((inapp.when == BF_NOW ? INAPP : 0) | (push.when == BF_NOW ? PUSH : 0));
    cr_assert_eq(plan.counts.legs, g.facts.is_counted ? 0 : going);
    cr_assert_eq(plan.in_inbox, inapp.when == BF_NOW && !g.subject.is_transient);
    cr_assert_eq(plan.chain.count, is_stood_for(&g, push) ? 2 : 0,
                 "BELFRY_SEED=%" PRIu64 " row %" PRIu64, seed, number);
    cr_assert_eq(bf_needs_endpoints(&g.facts, &plan, BF_CHANNEL_PUSH), needs_look(&g, push),
                 "BELFRY_SEED=%" PRIu64 " row %" PRIu64, seed, number);
    bf_prefs_free((struct bf_prefs *)(uintptr_t)g.person.prefs);
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *value = getenv(name);
    return value ? strtoull(value, NULL, 10) : otherwise;
}

Test(decide, generated_facts_beside_a_plain_reading, .timeout = 120)
{
    uint64_t count = setting("BELFRY_DECIDE_ROWS", 20000), drawn = 1;
    cr_assert_eq(getrandom(&drawn, sizeof(drawn), 0), (ssize_t)sizeof(drawn));
    seed = setting("BELFRY_SEED", drawn);
    rng = seed * UINT64_C(0x9e3779b97f4a7c15) | 1u;
    for (uint64_t i = 0; i < count; i++)
        compare_row(i);
    fprintf(stderr,
            "decide: %" PRIu64 " generated rows compared, %zu by hand, BELFRY_SEED=%" PRIu64 "\n",
            count, sizeof(rows) / sizeof(rows[0]), seed);
    if (count < 10000)
        return;
    /* from breaker_open on they are of sending, which comes after the decision */
    for (enum bf_reason reason = BF_REASON_NONE; reason < BF_REASON_BREAKER_OPEN; reason++)
        cr_assert_gt(seen_reason[0][reason] + seen_reason[1][reason], 0, "%s never came out",
                     bf_reason_name(reason));
    for (enum bf_when when = BF_NEVER; when < BF_IN_DIGEST; when++)
        cr_assert_gt(seen_when[BF_CHANNEL_PUSH][when], 0, "%d never came out", when);
}
