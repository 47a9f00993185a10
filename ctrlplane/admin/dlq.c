/* Dead letters for belfryctl (REL-3): list, put back in front, throw away. One call handles a
 * bounded number; belfryctl repeats. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <yyjson.h>

#include "admin/admin_impl.h"
#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "belfry/base/utf8.h"
#include "channels/table/channels.h"
#include "outbound/letter.h"
#include "ingest/cloudevents.h"

#define LIST_LIMIT_DEFAULT 100u
#define LIST_LIMIT_MAX     1000u
/* Letters that one redrive or purge call takes. */
#define CHUNK_MAX 1000u
/* Of a body in a list; the whole is in the store. */
#define BODY_SHOWN_BYTES 4096u

const char *bf_dlq_channel_name(uint8_t channel)
{
    return channel < BF_CHANNEL_COUNT ? bf_channel_name((enum bf_channel)channel) : "ingest";
}

int bf_dlq_channel_find(struct bf_bytes name)
{
    if (bf_bytes_is_equal(name, BF_BYTES("ingest")))
        return (int)BF_DLQ_INGEST;
    for (int i = 0; i < BF_CHANNEL_COUNT; i++) {
        const char *known = bf_channel_name((enum bf_channel)i);
        if (strlen(known) == name.len && memcmp(known, name.at, name.len) == 0)
            return i;
    }
    return -1;
}

/* Which letters a call is about. */
struct selection {
    int channel; /* -1: all */
    bool has_id;
    struct bf_id id;
    struct bf_bytes tenant; /* at NULL: all */
};

/* The i-th channel that letters may have; false past the end. */
static bool channel_at(unsigned i, uint8_t *ret)
{
    if (i > BF_CHANNEL_COUNT)
        return false;
    *ret = i < BF_CHANNEL_COUNT ? (uint8_t)i : (uint8_t)BF_DLQ_INGEST;
    return true;
}

/* A letter is its event's tenant's. What could not be read names none: operators see it. */
static bool is_of_tenant(struct bf_bytes tenant, const struct bf_dlq_row *row)
{
    struct bf_event_meta meta;
    return bf_event_meta_decode((const uint8_t *)row->meta.at, row->meta.len, &meta) == 0 &&
           bf_bytes_is_equal((struct bf_bytes){meta.tenant, strlen(meta.tenant)}, tenant);
}

static bool is_selected(const struct selection *sel, const struct bf_dlq_row *row)
{
    return (sel->channel < 0 || sel->channel == row->channel) &&
           (!sel->has_id || bf_id_is_equal(&sel->id, &row->event_id)) &&
           (!sel->tenant.at || is_of_tenant(sel->tenant, row));
}

/* ---- list ---- */

struct letter_list {
    struct bf_out o;
    struct selection sel;
    uint32_t limit, count;
};

/* What producers sent may be anything: bytes that are no UTF-8 become '?'. */
static void put_lossy(struct bf_out *o, struct bf_bytes text)
{
    char shown[BODY_SHOWN_BYTES];
    size_t len = bf_utf8_cut(text.at, text.len, sizeof(shown));
    if (len > 0)
        memcpy(shown, text.at, len);
    for (;;) {
        size_t valid = bf_utf8_valid_bytes((struct bf_bytes){shown, len});
        if (valid == len)
            break;
        shown[valid] = '?';
    }
    bf_out_str(o, (struct bf_bytes){shown, len});
}

/* What people ask first of a leg that died: a member of its channel's name. */
static void put_leg(struct bf_out *o, const struct bf_dlq_row *row)
{
    struct bf_letter letter;
    if (!bf_channel_ops_of(row->channel) || bf_letter_read(row->body, &letter) != 0)
        return;
    bf_out_print(o, ",\"%s\":{\"tenant\":", bf_channel_name((enum bf_channel)row->channel));
    bf_out_str(o, letter.tenant);
    bf_out_text(o, ",\"user_id\":");
    bf_out_str(o, letter.user);
    bf_out_text(o, ",\"device_id\":");
    bf_out_id(o, &letter.endpoint_id);
    bf_out_print(o, ",\"lane\":\"%s\",\"redrive\":%u,\"expires_at\":", bf_lane_name(letter.lane),
                 letter.redrive);
    bf_out_time(o, letter.expires_ms);
    bf_out_text(o, ",\"title\":");
    bf_out_str(o, letter.title);
    bf_out_text(o, "}");
    bf_letter_close(&letter);
}

/* ,"headers":{..}: without them nobody can tell what is wrong with a CloudEvent. */
static void put_headers(struct bf_out *o, struct bf_bytes headers)
{
    struct bf_bytes name, value;
    bool is_first = true;
    if (headers.len == 0)
        return;
    bf_out_text(o, ",\"headers\":{");
    while (bf_cloudevent_next_header(&headers, &name, &value)) {
        if (!is_first)
            bf_out_text(o, ",");
        put_lossy(o, name);
        bf_out_text(o, ":");
        put_lossy(o, value);
        is_first = false;
    }
    bf_out_text(o, "}");
}

static int add_letter(void *arg, const struct bf_dlq_row *row)
{
    struct letter_list *list = arg;
    if (!is_selected(&list->sel, row))
        return 0;
    if (list->count == list->limit)
        return 1;
    if (list->count++ > 0)
        bf_out_text(&list->o, ",");
    bf_out_print(&list->o,
                 "{\"channel\":\"%s\",\"at_ms\":%llu,\"at\":", bf_dlq_channel_name(row->channel),
                 (unsigned long long)row->at_ms);
    bf_out_time(&list->o, row->at_ms);
    bf_out_text(&list->o, ",\"event_id\":");
    bf_out_id(&list->o, &row->event_id);
    bf_out_text(&list->o, ",\"reason\":");
    put_lossy(&list->o, row->reason);
    put_leg(&list->o, row);
    put_headers(&list->o, row->headers);
    bf_out_text(&list->o, ",\"body\":");
    put_lossy(&list->o, row->body);
    bf_out_text(&list->o, "}");
    return 0;
}

static bool query_selection(struct bf_request *r, struct selection *sel)
{
    char room[BF_UUID_TEXT_BYTES];
    struct bf_bytes value;
    *sel = (struct selection){.channel = -1, .tenant = bf_admin_tenant(r)};
    if (!bf_request_query(r, "channel", room, sizeof(room), &value))
        return false;
    if (value.at)
        sel->channel = bf_dlq_channel_find(value);
    if (value.at && sel->channel < 0) {
        bf_answer_fail(r, 400, "bad-query", "channel", "no such channel");
        return false;
    }
    if (!bf_request_query(r, "event_id", room, sizeof(room), &value))
        return false;
    sel->has_id = value.at != NULL;
    if (value.at && !bf_id_parse(value.at, value.len, &sel->id)) {
        bf_answer_fail(r, 400, "bad-query", "event_id", "not an id");
        return false;
    }
    return true;
}

void bf_admin_list_dlq(struct bf_request *r)
{
    struct letter_list list = {.limit = LIST_LIMIT_DEFAULT};
    char room[12];
    struct bf_bytes limit;
    uint8_t channel;
    int rc = 0;
    if (!query_selection(r, &list.sel) ||
        !bf_request_query(r, "limit", room, sizeof(room) - 1, &limit))
        return;
    if (limit.at) {
        char *end = room;
        room[limit.len] = '\0';
        unsigned long number = room[0] >= '0' && room[0] <= '9' ? strtoul(room, &end, 10) : 0;
        if (number == 0 || *end != '\0') {
            bf_answer_fail(r, 400, "bad-query", "limit", "limit must be a whole number from 1 on");
            return;
        }
        list.limit = number < LIST_LIMIT_MAX ? (uint32_t)number : LIST_LIMIT_MAX;
    }
    bf_out_text(&list.o, "{\"letters\":[");
    for (unsigned i = 0; rc == 0 && channel_at(i, &channel); i++)
        rc = bf_store_walk_dlq(bf_admin_of(r)->services->store, channel, 0, add_letter, &list);
    if (rc < 0) {
        bf_out_free(&list.o);
        bf_answer_error(r, rc);
        return;
    }
    bf_out_print(&list.o, "],\"more\":%s}", rc > 0 ? "true" : "false");
    bf_answer_json(r, 200, &list.o);
}

/* ---- redrive and purge ---- */

struct letter_keys {
    struct selection sel;
    struct bf_dlq_row *keys; /* without texts */
    uint32_t count;
    bool more;
};

static int keep_key(void *arg, const struct bf_dlq_row *row)
{
    struct letter_keys *keys = arg;
    if (!is_selected(&keys->sel, row))
        return 0;
    if (keys->count == CHUNK_MAX) {
        keys->more = true;
        return 1;
    }
    keys->keys[keys->count++] = (struct bf_dlq_row){
        .at_ms = row->at_ms, .event_id = row->event_id, .channel = row->channel, .tag = row->tag};
    return 0;
}

/* The body {"channel"?, "event_id"?}; both absent: all letters. */
static bool read_selection(struct bf_request *r, struct selection *sel)
{
    yyjson_doc *doc = yyjson_read(r->body_len ? r->body : "{}", r->body_len ? r->body_len : 2, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    yyjson_val *channel = yyjson_obj_get(root, "channel");
    yyjson_val *id = yyjson_obj_get(root, "event_id");
    bool is_good = yyjson_is_obj(root);
    *sel = (struct selection){.channel = -1, .has_id = id != NULL, .tenant = bf_admin_tenant(r)};
    if (channel) {
        sel->channel = yyjson_is_str(channel)
                           ? bf_dlq_channel_find((struct bf_bytes){yyjson_get_str(channel),
                                                                   yyjson_get_len(channel)})
                           : -1;
        is_good = is_good && sel->channel >= 0;
    }
    if (id)
        is_good = is_good && yyjson_is_str(id) &&
                  bf_id_parse(yyjson_get_str(id), yyjson_get_len(id), &sel->id);
    yyjson_doc_free(doc);
    if (!is_good)
        bf_answer_fail(r, 400, "bad-json", "",
                       "the body is {\"channel\"?, \"event_id\"?}: a channel that has dead letters "
                       "(inapp, push, email, sms, webhook, ingest), the id of an event");
    return is_good;
}

static int collect(struct bf_request *r, struct letter_keys *keys)
{
    uint8_t channel;
    int rc = 0;
    keys->keys = calloc(CHUNK_MAX, sizeof(*keys->keys));
    if (!keys->keys)
        return -ENOMEM;
    for (unsigned i = 0; rc == 0 && channel_at(i, &channel); i++)
        rc = bf_store_walk_dlq(bf_admin_of(r)->services->store, channel, 0, keep_key, keys);
    return rc > 0 ? 0 : rc;
}

static int redrive_one(struct bf_core *core, const struct bf_dlq_row *k)
{
    if (bf_channel_ops_of(k->channel))
        return bf_core_redrive_leg(core, k->channel, k->at_ms, &k->event_id, k->tag);
    return bf_core_redrive(core, k->channel, k->at_ms, &k->event_id);
}

void bf_admin_redrive(struct bf_request *r)
{
    struct bf_core *core = bf_admin_of(r)->services->core;
    struct letter_keys keys = {.count = 0};
    struct bf_out o = {0};
    uint32_t done = 0, expired = 0;
    if (!read_selection(r, &keys.sel))
        return;
    int rc = collect(r, &keys);
    for (uint32_t i = 0; rc == 0 && i < keys.count; i++) {
        int one = redrive_one(core, &keys.keys[i]);
        done += one == 0;
        expired += one == BF_ERR_EXPIRED;
    }
    if (rc == 0) {
        bf_out_print(&o, "{\"redriven\":%u,\"failed\":%u,\"expired\":%u,\"more\":%s}", done,
                     keys.count - done, expired, keys.more ? "true" : "false");
        bf_answer_json(r, 200, &o);
    } else {
        bf_answer_error(r, rc);
    }
    free(keys.keys);
}

static int delete_letters(struct bf_store *store, const struct letter_keys *keys)
{
    struct bf_batch *batch = bf_batch_create(store);
    if (!batch)
        return BF_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < keys->count; i++)
        bf_batch_delete_letter(batch, &keys->keys[i]);
    int rc = bf_batch_write(batch, true);
    bf_batch_destroy(batch);
    return rc;
}

void bf_admin_purge(struct bf_request *r)
{
    struct letter_keys keys = {.count = 0};
    struct bf_out o = {0};
    if (!read_selection(r, &keys.sel))
        return;
    int rc = collect(r, &keys);
    if (rc == 0 && keys.count > 0)
        rc = delete_letters(bf_admin_of(r)->services->store, &keys);
    if (rc == 0) {
        bf_out_print(&o, "{\"purged\":%u,\"more\":%s}", keys.count, keys.more ? "true" : "false");
        bf_answer_json(r, 200, &o);
    } else {
        bf_answer_error(r, rc);
    }
    free(keys.keys);
}
