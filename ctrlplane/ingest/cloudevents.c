/* CloudEvents conversion; see cloudevents.h. */
#include "ingest/cloudevents.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <yyjson.h>

#include "belfry/base/err.h"
#include "belfry/base/utf8.h"
#include "time/rfc3339.h"

/* An attribute longer than this is no name or address. */
#define ATTRIBUTE_BYTES_MAX 1024u

struct attributes {
    struct bf_bytes id, source, type, specversion, time, expirytime, datacontenttype;
};

bool bf_cloudevent_next_header(struct bf_bytes *rest, struct bf_bytes *ret_name,
                               struct bf_bytes *ret_value)
{
    struct bf_bytes *parts[2] = {ret_name, ret_value};
    for (int i = 0; i < 2; i++) {
        const char *end = rest->len > 0 ? memchr(rest->at, 0, rest->len) : NULL;
        if (!end)
            return false;
        *parts[i] = (struct bf_bytes){rest->at, (size_t)(end - rest->at)};
        rest->len -= parts[i]->len + 1;
        rest->at = end + 1;
    }
    return true;
}

static bool is_text(struct bf_bytes bytes, const char *text)
{
    return bytes.len == strlen(text) && memcmp(bytes.at, text, bytes.len) == 0;
}

/* "ce_id" or "ce-id" -> "id"; else an empty name. */
static struct bf_bytes attribute_name(struct bf_bytes header)
{
    if (header.len > 3 && memcmp(header.at, "ce", 2) == 0 &&
        (header.at[2] == '_' || header.at[2] == '-'))
        return (struct bf_bytes){header.at + 3, header.len - 3};
    return (struct bf_bytes){"", 0};
}

static struct bf_bytes find_header(struct bf_bytes headers, const char *wanted)
{
    struct bf_bytes name;
    struct bf_bytes value;
    while (bf_cloudevent_next_header(&headers, &name, &value)) {
        if (is_text(name, wanted))
            return value;
    }
    return (struct bf_bytes){"", 0};
}

static bool has_prefix(struct bf_bytes text, const char *prefix)
{
    size_t len = strlen(prefix);
    return text.len >= len && strncasecmp(text.at, prefix, len) == 0;
}

static bool is_structured(struct bf_bytes headers)
{
    return has_prefix(find_header(headers, "content-type"), "application/cloudevents");
}

bool bf_cloudevent_is(struct bf_bytes headers)
{
    struct bf_bytes name;
    struct bf_bytes value;
    if (is_structured(headers))
        return true;
    while (bf_cloudevent_next_header(&headers, &name, &value)) {
        if (is_text(attribute_name(name), "specversion"))
            return true;
    }
    return false;
}

static int refuse(struct bf_problem *problem, const char *type, const char *field,
                  const char *detail)
{
    bf_problem_set(problem, 400, type, field, "%s", detail);
    return BF_ERR_MALFORMED;
}

/* Keeps the attributes that mean something here; extensions are for others. */
static void take_attribute(struct attributes *a, struct bf_bytes name, struct bf_bytes value)
{
    if (is_text(name, "id"))
        a->id = value;
    else if (is_text(name, "source"))
        a->source = value;
    else if (is_text(name, "type"))
        a->type = value;
    else if (is_text(name, "specversion"))
        a->specversion = value;
    else if (is_text(name, "time"))
        a->time = value;
    else if (is_text(name, "expirytime"))
        a->expirytime = value;
    else if (is_text(name, "datacontenttype"))
        a->datacontenttype = value;
}

static int check_attributes(const struct attributes *a, struct bf_problem *problem)
{
    if (!is_text(a->specversion, "1.0"))
        return refuse(problem, "cloudevent", "specversion", "specversion must be 1.0");
    if (a->id.len == 0 || a->id.len > ATTRIBUTE_BYTES_MAX)
        return refuse(problem, "cloudevent", "id", "id is required, 1..1024 bytes");
    if (a->source.len == 0 || a->source.len > ATTRIBUTE_BYTES_MAX)
        return refuse(problem, "cloudevent", "source", "source is required, 1..1024 bytes");
    if (a->type.len == 0 || a->type.len > ATTRIBUTE_BYTES_MAX)
        return refuse(problem, "cloudevent", "type", "type is required, 1..1024 bytes");
    if (a->time.len > 0 && !bf_rfc3339_is_valid(a->time)) /* not used: 0001-01-01 is as good */
        return refuse(problem, "cloudevent", "time", "time is an RFC 3339 time");
    if (a->datacontenttype.len > 0 && !has_prefix(a->datacontenttype, "application/json"))
        return refuse(problem, "cloudevent", "datacontenttype",
                      "datacontenttype must be application/json");
    return 0;
}

/* Puts an attribute into the event; |data| may hold the same value already. */
static int join(yyjson_mut_doc *doc, yyjson_mut_val *event, const char *field,
                struct bf_bytes value, struct bf_problem *problem)
{
    yyjson_mut_val *have = yyjson_mut_obj_get(event, field);
    if (value.len == 0)
        return 0;
    if (have && !yyjson_mut_equals_strn(have, value.at, value.len)) {
        bf_problem_set(problem, 400, "cloudevent", field,
                       "data has another %s than the CloudEvent's attribute", field);
        return BF_ERR_MALFORMED;
    }
    if (!have && !yyjson_mut_obj_add_strncpy(doc, event, field, value.at, value.len))
        return -ENOMEM;
    return 0;
}

static int write_event(const struct attributes *a, yyjson_val *data, char **ret_json,
                       size_t *ret_len, struct bf_problem *problem)
{
    if (!yyjson_is_obj(data))
        return refuse(problem, "cloudevent", "data", "data must be an event: a JSON object");
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *event = doc ? yyjson_val_mut_copy(doc, data) : NULL;
    int rc = event ? 0 : -ENOMEM;
    if (rc == 0)
        rc = join(doc, event, "id", a->id, problem);
    if (rc == 0)
        rc = join(doc, event, "source", a->source, problem);
    if (rc == 0)
        rc = join(doc, event, "type", a->type, problem);
    if (rc == 0)
        rc = join(doc, event, "expires_at", a->expirytime, problem);
    if (rc == 0) {
        char *json = yyjson_mut_val_write(event, 0, ret_len);
        if (json)
            *ret_json = json;
        else
            rc = -ENOMEM;
    }
    yyjson_mut_doc_free(doc);
    return rc;
}

static int from_structured(yyjson_val *root, char **ret_json, size_t *ret_len,
                           struct bf_problem *problem)
{
    struct attributes a = {0};
    yyjson_val *data = NULL;
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    if (!yyjson_is_obj(root))
        return refuse(problem, "cloudevent", "", "a structured CloudEvent is a JSON object");
    yyjson_obj_foreach (root, i, max, key, val) {
        if (yyjson_equals_str(key, "data"))
            data = val;
        else if (yyjson_equals_str(key, "data_base64"))
            return refuse(problem, "cloudevent", "data_base64", "send data as a JSON object");
        else if (yyjson_is_str(val))
            take_attribute(&a, (struct bf_bytes){yyjson_get_str(key), yyjson_get_len(key)},
                           (struct bf_bytes){yyjson_get_str(val), yyjson_get_len(val)});
    }
    int rc = check_attributes(&a, problem);
    return rc == 0 ? write_event(&a, data, ret_json, ret_len, problem) : rc;
}

static int from_binary(struct bf_bytes headers, yyjson_val *root, char **ret_json, size_t *ret_len,
                       struct bf_problem *problem)
{
    struct attributes a = {0};
    struct bf_bytes name;
    struct bf_bytes value;
    while (bf_cloudevent_next_header(&headers, &name, &value)) {
        if (!bf_utf8_is_valid(value)) {
            bf_problem_set(problem, 400, "bad-utf8", "", "a CloudEvents header is not UTF-8");
            return BF_ERR_UTF8;
        }
        if (is_text(name, "content-type"))
            a.datacontenttype = value;
        else
            take_attribute(&a, attribute_name(name), value);
    }
    int rc = check_attributes(&a, problem);
    return rc == 0 ? write_event(&a, root, ret_json, ret_len, problem) : rc;
}

static int check_body(struct bf_bytes headers, struct bf_bytes body, struct bf_problem *problem)
{
    if (has_prefix(find_header(headers, "content-type"), "application/cloudevents-batch"))
        return refuse(problem, "cloudevent", "", "batches of CloudEvents are not taken; send one");
    if (body.len == 0)
        return refuse(problem, "cloudevent", "data", "a CloudEvent without data says nothing");
    if (body.len > BF_EVENT_BYTES_MAX) {
        bf_problem_set(problem, 413, "too-large", "", "the event has %zu bytes; at most %u",
                       body.len, BF_EVENT_BYTES_MAX);
        return BF_ERR_TOO_LARGE;
    }
    if (!bf_utf8_is_valid(body)) {
        bf_problem_set(problem, 400, "bad-utf8", "", "byte %zu of the body is not valid UTF-8",
                       bf_utf8_valid_bytes(body));
        return BF_ERR_UTF8;
    }
    return 0;
}

int bf_cloudevent_convert(struct bf_bytes headers, struct bf_bytes body, char **ret_json,
                          size_t *ret_len, struct bf_problem *problem)
{
    int rc = check_body(headers, body, problem);
    if (rc != 0)
        return rc;
    yyjson_read_err err = {0};
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)body.at, body.len,
                                       YYJSON_READ_NUMBER_AS_RAW, NULL, &err);
    if (!doc) {
        bf_problem_set(problem, 400, "bad-json", "", "not valid JSON at byte %zu: %s", err.pos,
                       err.msg ? err.msg : "unreadable");
        return BF_ERR_MALFORMED;
    }
    yyjson_val *root = yyjson_doc_get_root(doc);
    rc = is_structured(headers) ? from_structured(root, ret_json, ret_len, problem)
                                : from_binary(headers, root, ret_json, ret_len, problem);
    yyjson_doc_free(doc);
    if (rc == -ENOMEM)
        bf_problem_set(problem, 503, "out-of-memory", "", "out of memory; try again");
    return rc;
}
