/* Topics and subscriptions over the API (ING-3): rows of the store, read by the expansion. */
#include <errno.h>
#include <fnmatch.h>
#include <string.h>

#include "api/calls.h"
#include "belfry/base/err.h"
#include "ingest/near.h"
#include "belfry/base/time.h"

#define TOPICS_LIMIT_DEFAULT 100u
#define TOPICS_LIMIT_MAX     1000u

static const char *carriage_name(enum bf_carriage carriage)
{
    return carriage == BF_CARRIAGE_BROADCAST ? "broadcast" : "inbox";
}

/* Whether the configuration declares the topic broadcast (names, or prefixes ending in *). */
static bool is_configured_broadcast(struct bf_request *r, struct bf_bytes topic)
{
    const struct bf_conf *conf = bf_conf_of(r);
    char name[BF_TOPIC_BYTES_MAX + 1];
    memcpy(name, topic.at, topic.len);
    name[topic.len] = '\0';
    for (uint32_t i = 0; i < conf->broadcast_topic_count; i++) {
        if (fnmatch(conf->broadcast_topics[i], name, 0) == 0)
            return true;
    }
    return false;
}

static void put_topic_json(struct bf_out *o, struct bf_bytes topic, enum bf_carriage carriage,
                           uint64_t created_ms)
{
    bf_out_text(o, "{\"topic\":");
    bf_out_str(o, topic);
    bf_out_text(o, ",\"carriage\":");
    bf_out_cstr(o, carriage_name(carriage));
    bf_out_text(o, ",\"created_at\":");
    if (created_ms > 0)
        bf_out_time(o, created_ms);
    else
        bf_out_text(o, "null");
    bf_out_text(o, "}");
}

/* The row, or what the configuration says. BF_ERR_NOT_FOUND: neither. */
static int look_up(struct bf_request *r, struct bf_topic_row *ret)
{
    int rc = bf_store_get_topic(bf_services_of(r)->store, bf_tenant_of(r), r->topic, ret);
    if (rc == BF_ERR_NOT_FOUND && is_configured_broadcast(r, r->topic)) {
        *ret = (struct bf_topic_row){.carriage = BF_CARRIAGE_BROADCAST};
        rc = 0;
    }
    return rc;
}

static int write_topic(struct bf_request *r, enum bf_carriage carriage, uint64_t created_ms)
{
    struct bf_batch *batch = bf_batch_create(bf_services_of(r)->store);
    if (!batch)
        return BF_ERR_NO_MEMORY;
    bf_batch_put_topic(batch, &(struct bf_topic_row){.tenant = bf_tenant_of(r),
                                                     .topic = r->topic,
                                                     .carriage = carriage,
                                                     .created_ms = created_ms});
    int rc = bf_batch_write(batch, true);
    bf_batch_destroy(batch);
    return rc;
}

/* "carriage" of the body; inbox when absent. */
static bool read_carriage(struct bf_request *r, enum bf_carriage *ret)
{
    static const char *const members[] = {"carriage"};
    yyjson_doc *doc;
    yyjson_val *root;
    if (!bf_read_object(r, members, 1, true, &doc, &root))
        return false;
    yyjson_val *val = yyjson_obj_get(root, "carriage");
    bool is_broadcast = val && yyjson_equals_str(val, "broadcast");
    bool is_good = !val || is_broadcast || yyjson_equals_str(val, "inbox");
    if (!is_good)
        bf_answer_fail(r, 400, "bad-value", "carriage", "carriage is inbox or broadcast");
    *ret = is_broadcast ? BF_CARRIAGE_BROADCAST : BF_CARRIAGE_INBOX;
    yyjson_doc_free(doc);
    return is_good;
}

void bf_put_topic(struct bf_request *r)
{
    enum bf_carriage carriage;
    struct bf_topic_row row;
    struct bf_out o = {0};
    if (!read_carriage(r, &carriage))
        return;
    int rc = look_up(r, &row);
    bool is_new = rc == BF_ERR_NOT_FOUND;
    uint64_t created_ms = rc == 0 && row.created_ms > 0 ? row.created_ms : bf_wall_ms();
    if (rc == 0 || is_new)
        rc = write_topic(r, carriage, created_ms);
    if (rc != 0) {
        bf_answer_error(r, rc);
        return;
    }
    put_topic_json(&o, r->topic, carriage, created_ms);
    bf_answer_json(r, is_new ? 201 : 200, &o);
}

void bf_get_topic(struct bf_request *r)
{
    struct bf_topic_row row;
    struct bf_out o = {0};
    int rc = look_up(r, &row);
    if (rc == BF_ERR_NOT_FOUND) {
        bf_answer_fail(r, 404, "not-found", "topic", "no such topic; PUT declares it");
    } else if (rc != 0) {
        bf_answer_error(r, rc);
    } else {
        put_topic_json(&o, r->topic, row.carriage, row.created_ms);
        bf_answer_json(r, 200, &o);
    }
}

struct topic_page {
    struct bf_out o;
    uint32_t limit, count;
    char last[BF_TOPIC_BYTES_MAX];
    size_t last_len;
};

/* Non-zero ends the walk: the page is full and there is one more. */
static int add_topic(void *arg, const struct bf_topic_row *row)
{
    struct topic_page *page = arg;
    if (page->count == page->limit)
        return 1;
    if (page->count++ > 0)
        bf_out_text(&page->o, ",");
    put_topic_json(&page->o, row->topic, row->carriage, row->created_ms);
    memcpy(page->last, row->topic.at, row->topic.len);
    page->last_len = row->topic.len;
    return 0;
}

/* The cursor is the name of the last topic: names sort, and sorted is how they are listed. */
void bf_list_topics(struct bf_request *r)
{
    struct topic_page page = {.limit = TOPICS_LIMIT_DEFAULT};
    char after[BF_TOPIC_BYTES_MAX];
    struct bf_bytes cursor;
    if (!bf_query_uint(r, "limit", 1, TOPICS_LIMIT_MAX, TOPICS_LIMIT_DEFAULT, &page.limit) ||
        !bf_request_query(r, "cursor", after, sizeof(after), &cursor))
        return;
    bf_out_text(&page.o, "{\"topics\":[");
    int rc = bf_store_walk_topics(bf_services_of(r)->store, bf_tenant_of(r),
                                  cursor.at ? cursor : BF_BYTES(""), add_topic, &page);
    if (rc < 0) {
        bf_out_free(&page.o);
        bf_answer_error(r, rc);
        return;
    }
    bf_out_text(&page.o, "],\"next_cursor\":");
    if (rc > 0)
        bf_out_str(&page.o, (struct bf_bytes){page.last, page.last_len});
    else
        bf_out_text(&page.o, "null");
    bf_out_text(&page.o, "}");
    bf_answer_json(r, 200, &page.o);
}

/* ---- subscriptions ---- */

static void put_subscription_json(struct bf_out *o, const struct bf_subscription *sub)
{
    bf_out_text(o, "{\"topic\":");
    bf_out_str(o, sub->topic);
    bf_out_text(o, ",\"user_id\":");
    bf_out_str(o, sub->uid.user);
    bf_out_text(o, ",\"allow\":");
    bf_out_bool(o, !sub->deny);
    bf_out_text(o, ",\"channels\":[");
    unsigned count = 0;
    for (unsigned i = 0; i < BF_CHANNEL_COUNT; i++) {
        if (sub->channel_mask != 0 && (sub->channel_mask & 1u << i) == 0)
            continue;
        if (count++ > 0)
            bf_out_text(o, ",");
        bf_out_cstr(o, bf_channel_name((enum bf_channel)i));
    }
    bf_out_text(o, "]}");
}

static bool read_channels(struct bf_request *r, yyjson_val *list, uint8_t *ret_mask)
{
    size_t i;
    size_t max;
    yyjson_val *val;
    *ret_mask = 0;
    if (!list)
        return true;
    if (!yyjson_is_arr(list) || yyjson_arr_size(list) == 0) {
        bf_answer_fail(r, 400, "wrong-type", "channels", "channels is a list of at least one");
        return false;
    }
    yyjson_arr_foreach (list, i, max, val) {
        unsigned channel = 0;
        while (channel < BF_CHANNEL_COUNT &&
               !yyjson_equals_str(val, bf_channel_name((enum bf_channel)channel)))
            channel++;
        if (channel == BF_CHANNEL_COUNT) {
            struct bf_bytes name = {yyjson_get_str(val), yyjson_get_len(val)};
            const char *near = bf_near_channel(name);
            bf_answer_fail(r, 400, "unknown-channel", "channels",
                           near ? "'%.*s' is no channel; did you mean %s?"
                                : "'%.*s' is no channel; inapp, push, email, sms, webhook are",
                           name.len > 32 ? 32 : (int)name.len, name.at ? name.at : "", near);
            return false;
        }
        if (channel != BF_CHANNEL_INAPP && channel != BF_CHANNEL_PUSH) {
            bf_answer_fail(r, 400, "unsupported-channel", "channels",
                           "'%s' is not done by this node yet: the subscription would reach nobody "
                           "by it. Subscribe to inapp, push or both",
                           bf_channel_name((enum bf_channel)channel));
            return false;
        }
        *ret_mask |= (uint8_t)(1u << channel);
    }
    return true;
}

static bool read_subscription(struct bf_request *r, struct bf_subscription *sub)
{
    static const char *const members[] = {"channels", "allow", "filter"};
    yyjson_doc *doc;
    yyjson_val *root;
    if (!bf_read_object(r, members, 3, true, &doc, &root))
        return false;
    yyjson_val *allow = yyjson_obj_get(root, "allow");
    bool is_good = read_channels(r, yyjson_obj_get(root, "channels"), &sub->channel_mask);
    if (is_good && allow && !yyjson_is_bool(allow)) {
        bf_answer_fail(r, 400, "wrong-type", "allow", "allow is true or false");
        is_good = false;
    }
    if (is_good && yyjson_obj_get(root, "filter")) {
        bf_answer_fail(r, 400, "unsupported-field", "filter",
                       "this node does not filter by content yet; send without it");
        is_good = false;
    }
    sub->deny = allow && yyjson_is_false(allow);
    yyjson_doc_free(doc);
    return is_good;
}

/* Subscribing declares the topic. A broadcast topic's events reach sockets that subscribe to it
 * themselves; a subscription kept here is for push to who is not connected. */
static bool declare_topic(struct bf_request *r)
{
    struct bf_topic_row row;
    int rc = look_up(r, &row);
    if (rc == BF_ERR_NOT_FOUND)
        rc = write_topic(r, BF_CARRIAGE_INBOX, bf_wall_ms());
    if (rc != 0) {
        bf_answer_error(r, rc);
        return false;
    }
    return true;
}

static int write_subscription(struct bf_request *r, const struct bf_subscription *sub, bool keep)
{
    struct bf_batch *batch = bf_batch_create(bf_services_of(r)->store);
    if (!batch)
        return BF_ERR_NO_MEMORY;
    if (keep)
        bf_batch_put_subscription(batch, sub);
    else
        bf_batch_delete_subscription(batch, sub->uid, sub->topic);
    int rc = bf_batch_write(batch, true);
    bf_batch_destroy(batch);
    return rc;
}

void bf_put_subscription(struct bf_request *r)
{
    struct bf_subscription sub = {.topic = r->topic, .filter_json = BF_BYTES("")};
    struct bf_out o = {0};
    if (!read_subscription(r, &sub) || !bf_known_path_uid(r, &sub.uid) || !declare_topic(r))
        return;
    int rc = write_subscription(r, &sub, true);
    if (rc != 0) {
        bf_answer_error(r, rc);
        return;
    }
    put_subscription_json(&o, &sub);
    bf_answer_json(r, 200, &o);
}

void bf_delete_subscription(struct bf_request *r)
{
    struct bf_subscription sub = {.topic = r->topic};
    if (!bf_known_path_uid(r, &sub.uid))
        return;
    int rc = write_subscription(r, &sub, false);
    if (rc == 0)
        bf_answer_empty(r, 204);
    else
        bf_answer_error(r, rc);
}

struct sub_list {
    struct bf_out o;
    uint32_t count;
};

static int add_subscription(void *arg, const struct bf_subscription *sub)
{
    struct sub_list *list = arg;
    if (list->count++ > 0)
        bf_out_text(&list->o, ",");
    put_subscription_json(&list->o, sub);
    return 0;
}

void bf_list_subscriptions(struct bf_request *r)
{
    struct sub_list list = {.count = 0};
    struct bf_uid uid;
    if (!bf_known_path_uid(r, &uid))
        return;
    bf_out_text(&list.o, "{\"subscriptions\":[");
    int rc =
        bf_store_walk_user_subscriptions(bf_services_of(r)->store, uid, add_subscription, &list);
    if (rc != 0) {
        bf_out_free(&list.o);
        bf_answer_error(r, rc);
        return;
    }
    bf_out_text(&list.o, "]}");
    bf_answer_json(r, 200, &list.o);
}
