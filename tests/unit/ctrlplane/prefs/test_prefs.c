/* Preferences: the decision by level and precedence, and what a PUT body may hold (PRF-1). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "belfry/base/err.h"
#include "prefs/prefs.h"

static int compile(const char *json, struct bf_prefs **prefs, char **stored,
                   struct bf_problem *problem)
{
    *prefs = NULL;
    *problem = (struct bf_problem){0};
    return bf_prefs_compile((struct bf_bytes){json, strlen(json)}, prefs, stored, problem);
}

static struct bf_bytes text(const char *s)
{
    return (struct bf_bytes){s, strlen(s)};
}

struct decision {
    const char *prefs; /* NULL: none stored */
    const char *type, *category, *topic;
    enum bf_channel channel;
    enum bf_reason want;
};

#define INAPP BF_CHANNEL_INAPP
#define EMAIL BF_CHANNEL_EMAIL

static const struct decision decisions[] = {
    /* defaults: everything on */
    {NULL, "t", "c", "p", INAPP, BF_REASON_NONE},
    {"{}", "t", "c", "p", INAPP, BF_REASON_NONE},
    {"{\"opt_out\":false}", "t", "", "", INAPP, BF_REASON_NONE},
    /* global opt-out beats everything, type included */
    {"{\"opt_out\":true}", "t", "", "", INAPP, BF_REASON_OPT_OUT},
    {"{\"opt_out\":true,\"types\":{\"t\":true}}", "t", "", "", INAPP, BF_REASON_OPT_OUT},
    {"{\"opt_out\":true,\"topics\":{\"p\":\"mute\"}}", "t", "", "p", INAPP, BF_REASON_OPT_OUT},
    /* channel */
    {"{\"channels\":{\"inapp\":false}}", "t", "c", "", INAPP, BF_REASON_CHANNEL},
    {"{\"channels\":{\"inapp\":true}}", "t", "c", "", INAPP, BF_REASON_NONE},
    {"{\"channels\":{\"inapp\":false}}", "t", "c", "", EMAIL, BF_REASON_NONE},
    {"{\"channels\":{\"email\":false}}", "t", "c", "", EMAIL, BF_REASON_CHANNEL},
    {"{\"channels\":{\"email\":false}}", "t", "c", "", INAPP, BF_REASON_NONE},
    /* category, all channels or one */
    {"{\"categories\":{\"c\":false}}", "t", "c", "", INAPP, BF_REASON_CATEGORY},
    {"{\"categories\":{\"c\":{\"inapp\":false}}}", "t", "c", "", INAPP, BF_REASON_CATEGORY},
    {"{\"categories\":{\"c\":{\"email\":false}}}", "t", "c", "", INAPP, BF_REASON_NONE},
    {"{\"categories\":{\"c\":false}}", "t", "d", "", INAPP, BF_REASON_NONE},
    {"{\"categories\":{\"c\":false}}", "t", "", "", INAPP, BF_REASON_NONE},
    {"{\"categories\":{\"c\":false}}", "t", "cc", "", INAPP, BF_REASON_NONE},
    /* category over channel, both ways */
    {"{\"categories\":{\"c\":true},\"channels\":{\"inapp\":false}}", "t", "c", "", INAPP,
     BF_REASON_NONE},
    {"{\"categories\":{\"c\":{\"email\":true}},\"channels\":{\"inapp\":false}}", "t", "c", "",
     INAPP, BF_REASON_CHANNEL},
    {"{\"categories\":{\"c\":false},\"channels\":{\"inapp\":true}}", "t", "c", "", INAPP,
     BF_REASON_CATEGORY},
    /* type over category and channel, both ways */
    {"{\"types\":{\"t\":false}}", "t", "c", "", INAPP, BF_REASON_TYPE},
    {"{\"types\":{\"t\":false},\"categories\":{\"c\":true},\"channels\":{\"inapp\":true}}", "t",
     "c", "", INAPP, BF_REASON_TYPE},
    {"{\"types\":{\"t\":true},\"categories\":{\"c\":false},\"channels\":{\"inapp\":false}}", "t",
     "c", "", INAPP, BF_REASON_NONE},
    {"{\"types\":{\"t\":{\"inapp\":true}},\"categories\":{\"c\":false}}", "t", "c", "", INAPP,
     BF_REASON_NONE},
    {"{\"types\":{\"t\":{\"inapp\":true}},\"categories\":{\"c\":false}}", "t", "c", "", EMAIL,
     BF_REASON_CATEGORY},
    {"{\"types\":{\"t\":{\"email\":false}}}", "t", "c", "", EMAIL, BF_REASON_TYPE},
    {"{\"types\":{\"c\":false}}", "t", "c", "", INAPP, BF_REASON_NONE},
    /* a topic mute covers every channel and beats type and category */
    {"{\"topics\":{\"p\":\"mute\"}}", "t", "c", "p", INAPP, BF_REASON_TOPIC_MUTE},
    {"{\"topics\":{\"p\":false}}", "t", "c", "p", EMAIL, BF_REASON_TOPIC_MUTE},
    {"{\"topics\":{\"p\":\"mute\"},\"types\":{\"t\":true}}", "t", "c", "p", INAPP,
     BF_REASON_TOPIC_MUTE},
    {"{\"topics\":{\"p\":true}}", "t", "c", "p", INAPP, BF_REASON_NONE},
    {"{\"topics\":{\"p\":true},\"channels\":{\"inapp\":false}}", "t", "c", "p", INAPP,
     BF_REASON_CHANNEL},
    {"{\"topics\":{\"p\":\"mute\"}}", "t", "c", "q", INAPP, BF_REASON_NONE},
    {"{\"topics\":{\"p\":\"mute\"}}", "t", "c", "", INAPP, BF_REASON_NONE},
};

Test(prefs, decision_table)
{
    for (size_t i = 0; i < sizeof(decisions) / sizeof(decisions[0]); i++) {
        const struct decision *d = &decisions[i];
        struct bf_prefs *prefs = NULL;
        struct bf_problem problem;
        if (d->prefs)
            cr_assert_eq(compile(d->prefs, &prefs, NULL, &problem), 0, "%s", problem.detail);
        enum bf_reason got =
            bf_prefs_decide(prefs, text(d->type), text(d->category), text(d->topic), d->channel);
        cr_assert_eq(got, d->want, "row %zu: %s, got %s", i, d->prefs ? d->prefs : "none",
                     bf_reason_name(got));
        bf_prefs_free(prefs);
    }
}

Test(prefs, opt_out_is_seen)
{
    struct bf_prefs *prefs;
    struct bf_problem problem;
    cr_assert_not(bf_prefs_is_opted_out(NULL));
    cr_assert_eq(compile("{\"opt_out\":true}", &prefs, NULL, &problem), 0);
    cr_assert(bf_prefs_is_opted_out(prefs));
    bf_prefs_free(prefs);
    bf_prefs_free(NULL);
}

Test(prefs, many_names_are_all_found)
{
    char json[32768];
    size_t at = (size_t)sprintf(json, "{\"types\":{");
    for (unsigned i = 0; i < 500; i++)
        at += (size_t)sprintf(json + at, "%s\"type-%u\":%s", i ? "," : "", i,
                              i % 3 ? "true" : "false");
    sprintf(json + at, "}}");
    struct bf_prefs *prefs;
    struct bf_problem problem;
    cr_assert_eq(compile(json, &prefs, NULL, &problem), 0, "%s", problem.detail);
    for (unsigned i = 0; i < 500; i++) {
        char name[16];
        int n = sprintf(name, "type-%u", i);
        cr_assert_eq(
            bf_prefs_decide(prefs, (struct bf_bytes){name, (size_t)n}, text(""), text(""), INAPP),
            i % 3 ? BF_REASON_NONE : BF_REASON_TYPE);
    }
    bf_prefs_free(prefs);
}

Test(prefs, stored_form_is_canonical)
{
    struct bf_prefs *prefs;
    struct bf_problem problem;
    char *stored = NULL;
    const char *body = "{ \"opt_out\" : false,\n \"channel_order\": [\"inapp\", \"email\"],"
                       " \"channels\": {\"inapp\": true} }";
    cr_assert_eq(compile(body, &prefs, &stored, &problem), 0, "%s", problem.detail);
    cr_assert_str_eq(stored, "{\"opt_out\":false,\"channel_order\":[\"inapp\",\"email\"],"
                             "\"channels\":{\"inapp\":true}}");
    free(stored);
    bf_prefs_free(prefs);
}

static const struct {
    const char *json;
    const char *type;
    const char *field;
} refused[] = {
    {"", "bad-json", ""},
    {"[]", "wrong-type", ""},
    {"{\"a\":\"\xff\"}", "bad-utf8", ""},
    {"{\"opt_out\":1}", "wrong-type", "opt_out"},
    {"{\"opt_out\":true,\"opt_out\":false}", "duplicate-field", "opt_out"},
    {"{\"channels\":[]}", "wrong-type", "channels"},
    {"{\"channels\":{\"fax\":true}}", "unknown-channel", "channels"},
    {"{\"channels\":{\"inapp\":\"no\"}}", "wrong-type", "channels"},
    {"{\"types\":{\"t\":\"x\"}}", "wrong-type", "types"},
    {"{\"types\":{\"t\":{\"fax\":true}}}", "unknown-channel", "types"},
    {"{\"types\":{\"\":true}}", "too-long", "types"},
    {"{\"types\":{\"a\":true,\"a\":false}}", "duplicate-field", "types"},
    {"{\"types\":3}", "wrong-type", "types"},
    {"{\"categories\":{\"c\":1}}", "wrong-type", "categories"},
    {"{\"topics\":{\"p\":\"loud\"}}", "wrong-type", "topics"},
    {"{\"topics\":[]}", "wrong-type", "topics"},
    {"{\"channel_order\":[\"inapp\",\"inapp\"]}", "unknown-channel", "channel_order"},
    {"{\"channel_order\":\"inapp\"}", "wrong-type", "channel_order"},
    {"{\"quiet_hours\":{\"start\":\"22:00\"}}", "unsupported-field", "quiet_hours"},
    {"{\"digest\":{}}", "unsupported-field", "digest"},
    {"{\"optout\":true}", "unknown-field", "optout"},
};

Test(prefs, each_refusal_names_its_field)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct bf_prefs *prefs;
        struct bf_problem problem;
        char *stored = NULL;
        cr_assert_eq(compile(refused[i].json, &prefs, &stored, &problem), BF_ERR_MALFORMED, "%s",
                     refused[i].json);
        cr_assert_str_eq(problem.type, refused[i].type, "%s", refused[i].json);
        cr_assert_str_eq(problem.field, refused[i].field, "%s", refused[i].json);
        cr_assert_null(prefs);
        cr_assert_null(stored);
    }
}
