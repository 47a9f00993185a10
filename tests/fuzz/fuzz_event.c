/*
 * Events on any bytes, as HTTP and as Kafka; and, when the first byte says so, as a CloudEvent in
 * either mode. What is accepted must be sound: within its limits, its fragment one JSON object that
 * reads back, its meta unchanged by the log form.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "ingest/cloudevents.h"
#include "ingest/event.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW_MS UINT64_C(1767225600000)

static void require(int holds)
{
    if (!holds)
        abort();
}

static void check_fragment(const struct bf_event *e)
{
    size_t len = e->fragment.len + 2;
    char *object = malloc(len);
    require(object != NULL);
    object[0] = '{';
    memcpy(object + 1, e->fragment.at, e->fragment.len);
    object[len - 1] = '}';
    yyjson_doc *doc = yyjson_read_opts(object, len, YYJSON_READ_NUMBER_AS_RAW, NULL, NULL);
    require(doc != NULL);
    yyjson_val *title = yyjson_obj_get(yyjson_doc_get_root(doc), "title");
    require(!title || (yyjson_get_len(title) == e->title.len &&
                       memcmp(yyjson_get_str(title), e->title.at, e->title.len) == 0));
    yyjson_doc_free(doc);
    free(object);
}

static void check_overrides(const struct bf_event *e)
{
    if (e->overrides.len == 0)
        return;
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)e->overrides.at, e->overrides.len,
                                       YYJSON_READ_NUMBER_AS_RAW, NULL, NULL);
    require(doc != NULL && yyjson_is_obj(yyjson_doc_get_root(doc)));
    yyjson_doc_free(doc);
}

static void check_meta(const struct bf_event *e)
{
    uint8_t bytes[BF_EVENT_META_BYTES_MAX];
    struct bf_event_meta back;
    size_t len = bf_event_meta_encode(&e->meta, bytes);
    require(bf_event_meta_decode(bytes, len, &back) == 0);
    require(strcmp(back.tenant, e->meta.tenant) == 0);
}

static void check_event(const struct bf_event *e)
{
    require(e->recipient_count <= BF_RECIPIENTS_MAX);
    require((e->target == BF_TARGET_USERS) == (e->recipient_count > 0));
    require(e->target != BF_TARGET_TOPIC || e->topic.len > 0);
    for (uint32_t i = 0; i < e->recipient_count; i++)
        require(e->recipients[i].len > 0 && e->recipients[i].len <= BF_USER_ID_BYTES_MAX);
    require(e->type.len > 0 && e->type.len <= BF_TYPE_BYTES_MAX);
    const uint8_t known = 1u << BF_CHANNEL_INAPP | 1u << BF_CHANNEL_PUSH;
    require(e->lane < BF_LANE_COUNT && e->channel_mask != 0 && (e->channel_mask & ~known) == 0);
    require(!e->is_fallback || e->channels_named);
    require(!e->is_critical || e->meta.critical_allowed);
    check_fragment(e);
    check_overrides(e);
    check_meta(e);
}

static void parse(struct bf_bytes json, enum bf_event_source source)
{
    struct bf_event_meta meta = {
        .source = source, .topic_lane = BF_LANE_NORMAL, .accepted_ms = NOW_MS, .producer = "p"};
    struct bf_event *event = NULL;
    struct bf_problem problem;
    int rc = bf_event_parse(json, &meta, &event, &problem);
    require((rc == 0) == (event != NULL));
    if (rc == 0)
        check_event(event);
    else
        require(problem.status >= 400 && problem.detail[0] != '\0');
    bf_event_unref(event);
}

/* First line: the headers, '|' standing for the zeros between names and values. */
static void convert(const uint8_t *data, size_t size)
{
    const uint8_t *end = memchr(data, '\n', size);
    size_t head = end ? (size_t)(end - data) : size;
    char *headers = malloc(head + 1);
    char *json = NULL;
    size_t len;
    struct bf_problem problem;
    require(headers != NULL);
    for (size_t i = 0; i < head; i++)
        headers[i] = data[i] == '|' ? '\0' : (char)data[i];
    headers[head] = '\0';
    struct bf_bytes h = {headers, head + 1};
    struct bf_bytes body = {(const char *)data + head + (end != NULL), size - head - (end != NULL)};
    if (bf_cloudevent_is(h) && bf_cloudevent_convert(h, body, &json, &len, &problem) == 0)
        parse((struct bf_bytes){json, len}, BF_SOURCE_KAFKA);
    free(json);
    free(headers);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bf_event_meta meta;
    bf_event_meta_decode(data, size, &meta);
    if (size > 0 && data[0] == '!') {
        convert(data + 1, size - 1);
        return 0;
    }
    parse((struct bf_bytes){(const char *)data, size}, BF_SOURCE_HTTP);
    parse((struct bf_bytes){(const char *)data, size}, BF_SOURCE_KAFKA);
    return 0;
}
