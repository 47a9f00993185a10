/* CloudEvents 1.0 in both modes become the same event as a plain one (ING-4, PROVIDERS 8). */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "belfry/base/err.h"
#include "ingest/cloudevents.h"

#define HEADERS(text) ((struct bf_bytes){(text), sizeof(text)}) /* the last zero is needed */
#define STRUCTURED    HEADERS("content-type\0application/cloudevents+json")
#define DATA          "{\"user_id\":\"u\",\"title\":\"x\",\"data\":{\"n\":1.50}}"

static int convert(struct bf_bytes headers, const char *body, char **json,
                   struct bf_problem *problem)
{
    size_t len;
    *json = NULL;
    *problem = (struct bf_problem){0};
    return bf_cloudevent_convert(headers, (struct bf_bytes){body, strlen(body)}, json, &len,
                                 problem);
}

static const char wanted[] =
    "{\"user_id\":\"u\",\"title\":\"x\",\"data\":{\"n\":1.50},\"id\":\"e1\","
    "\"source\":\"/s\",\"type\":\"t\"}";

Test(cloudevents, structured)
{
    char *json;
    struct bf_problem problem;
    int rc = convert(STRUCTURED,
                     "{\"specversion\":\"1.0\",\"id\":\"e1\",\"source\":\"/s\",\"type\":\"t\","
                     "\"time\":\"2026-01-01T00:00:00Z\",\"ext\":\"ignored\",\"data\":" DATA "}",
                     &json, &problem);
    cr_assert_eq(rc, 0, "%s", problem.detail);
    cr_assert_str_eq(json, wanted);
    free(json);
}

Test(cloudevents, binary_with_either_separator)
{
    static const char kafka[] = "ce_specversion\0"
                                "1.0\0ce_id\0e1\0ce_source\0/s\0ce_type\0t\0"
                                "content-type\0application/json";
    static const char http[] = "ce-specversion\0"
                               "1.0\0ce-id\0e1\0ce-source\0/s\0ce-type\0t";
    char *json;
    struct bf_problem problem;
    cr_assert_eq(convert(HEADERS(kafka), DATA, &json, &problem), 0, "%s", problem.detail);
    cr_assert_str_eq(json, wanted);
    free(json);
    cr_assert_eq(convert(HEADERS(http), DATA, &json, &problem), 0, "%s", problem.detail);
    cr_assert_str_eq(json, wanted);
    free(json);
}

Test(cloudevents, expirytime_becomes_expires_at)
{
    char *json;
    struct bf_problem problem;
    int rc = convert(STRUCTURED,
                     "{\"specversion\":\"1.0\",\"id\":\"e1\",\"source\":\"/s\",\"type\":\"t\","
                     "\"expirytime\":\"2030-01-01T00:00:00Z\",\"data\":{}}",
                     &json, &problem);
    cr_assert_eq(rc, 0);
    cr_assert(strstr(json, "\"expires_at\":\"2030-01-01T00:00:00Z\""));
    free(json);
}

Test(cloudevents, recognised)
{
    cr_assert(bf_cloudevent_is(STRUCTURED));
    cr_assert(
        bf_cloudevent_is(HEADERS("content-type\0Application/CloudEvents+json; charset=utf-8")));
    cr_assert(bf_cloudevent_is(HEADERS("ce_specversion\0"
                                       "1.0")));
    cr_assert_not(bf_cloudevent_is(HEADERS("content-type\0application/json")));
    cr_assert_not(bf_cloudevent_is(HEADERS("ce_specversion")), "cut short");
    cr_assert_not(bf_cloudevent_is((struct bf_bytes){"", 0}));
}

static const struct {
    const char *body;
    const char *field;
} refused[] = {
    {"{\"id\":\"e\",\"source\":\"s\",\"type\":\"t\",\"data\":{}}", "specversion"},
    {"{\"specversion\":\"0.3\",\"id\":\"e\",\"source\":\"s\",\"type\":\"t\",\"data\":{}}",
     "specversion"},
    {"{\"specversion\":\"1.0\",\"source\":\"s\",\"type\":\"t\",\"data\":{}}", "id"},
    {"{\"specversion\":\"1.0\",\"id\":\"e\",\"type\":\"t\",\"data\":{}}", "source"},
    {"{\"specversion\":\"1.0\",\"id\":\"e\",\"source\":\"s\",\"data\":{}}", "type"},
    {"{\"specversion\":\"1.0\",\"id\":\"e\",\"source\":\"s\",\"type\":\"t\"}", "data"},
    {"{\"specversion\":\"1.0\",\"id\":\"e\",\"source\":\"s\",\"type\":\"t\",\"data\":\"x\"}",
     "data"},
    {"{\"specversion\":\"1.0\",\"id\":\"e\",\"source\":\"s\",\"type\":\"t\",\"data_base64\":\"eA=="
     "\"}",
     "data_base64"},
    {"{\"specversion\":\"1.0\",\"id\":\"e\",\"source\":\"s\",\"type\":\"t\",\"time\":\"now\","
     "\"data\":{}}",
     "time"},
    {"{\"specversion\":\"1.0\",\"id\":\"e\",\"source\":\"s\",\"type\":\"t\",\"datacontenttype\":"
     "\"text/xml\",\"data\":{}}",
     "datacontenttype"},
    {"{\"specversion\":\"1.0\",\"id\":\"e\",\"source\":\"s\",\"type\":\"t\",\"data\":{\"id\":\"f\"}"
     "}",
     "id"},
    {"[]", ""},
    {"{", ""},
    {"", "data"},
};

Test(cloudevents, each_refusal_names_the_attribute)
{
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        char *json;
        struct bf_problem problem;
        int rc = convert(STRUCTURED, refused[i].body, &json, &problem);
        cr_assert_eq(rc, BF_ERR_MALFORMED, "%s", refused[i].body);
        cr_assert_str_eq(problem.field, refused[i].field, "%s", refused[i].body);
    }
    char *json;
    struct bf_problem problem;
    cr_assert_eq(
        convert(HEADERS("content-type\0application/cloudevents-batch+json"), "[]", &json, &problem),
        BF_ERR_MALFORMED);
    cr_assert_eq(convert(STRUCTURED, "{\"a\":\"\xc0\"}", &json, &problem), BF_ERR_UTF8);
}
