/* The inbox over the API (INB-1, INB-2): list with an opaque cursor, one item, marks. Reads go to
 * the store on the server thread; changes go through the user's shard, which tells their devices.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/calls.h"
#include "belfry/base/base64url.h"
#include "belfry/base/err.h"
#include "belfry/base/time.h"

#define LIST_LIMIT_DEFAULT 20u
#define LIST_LIMIT_MAX     100u
/* A cursor is the three lanes' positions and a check, base64url. */
#define CURSOR_BYTES (BF_LANE_COUNT * sizeof(uint64_t) + sizeof(uint32_t))
#define CURSOR_TEXT  ((CURSOR_BYTES * 4 + 2) / 3)

/* ---- cursor ---- */

/* FNV-1a: a cursor that was cut or typed is told apart; it guards nothing. */
static uint32_t check_of(const uint8_t *bytes, size_t len)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ bytes[i]) * 16777619u;
    return hash;
}

static void put_cursor(struct bf_out *o, const struct bf_inbox_cursor *cursor)
{
    uint8_t bytes[CURSOR_BYTES];
    char text[CURSOR_TEXT];
    struct bf_writer w = {.buf = bytes, .cap = sizeof(bytes)};
    for (unsigned i = 0; i < BF_LANE_COUNT; i++)
        bf_put_u64(&w, cursor->before[i]);
    bf_put_u32(&w, check_of(bytes, w.len));
    size_t len = bf_base64url_encode(bytes, sizeof(bytes), text);
    bf_out_str(o, (struct bf_bytes){text, len});
}

static bool read_cursor(struct bf_request *r, struct bf_inbox_cursor *ret)
{
    char text[CURSOR_TEXT];
    uint8_t bytes[CURSOR_BYTES];
    struct bf_bytes value;
    for (unsigned i = 0; i < BF_LANE_COUNT; i++)
        ret->before[i] = UINT64_MAX;
    if (!bf_request_query(r, "cursor", text, sizeof(text), &value))
        return false;
    if (!value.at || value.len == 0)
        return true;
    long n = bf_base64url_decode(value, bytes, sizeof(bytes));
    struct bf_reader reader = {.buf = bytes, .len = sizeof(bytes)};
    for (unsigned i = 0; i < BF_LANE_COUNT; i++)
        ret->before[i] = bf_get_u64(&reader);
    uint32_t check = bf_get_u32(&reader);
    if (n == (long)sizeof(bytes) && check == check_of(bytes, sizeof(bytes) - 4))
        return true;
    bf_answer_fail(r, 400, "bad-query", "cursor", "not a cursor of this list; use next_cursor");
    return false;
}

/* ---- items ---- */

static void put_item(struct bf_out *o, const struct bf_item *item)
{
    bf_out_text(o, "{\"id\":");
    bf_out_id(o, &item->id);
    bf_out_text(o, ",\"notification_id\":");
    bf_out_id(o, &item->event_id);
    bf_out_text(o, ",\"seq\":");
    bf_out_uint(o, item->seq);
    bf_out_text(o, ",\"lane\":");
    bf_out_cstr(o, bf_lane_name(item->lane));
    bf_out_text(o, ",\"created_at\":");
    bf_out_time(o, item->created_ms);
    if (item->expires_ms > 0) {
        bf_out_text(o, ",\"expires_at\":");
        bf_out_time(o, item->expires_ms);
    }
    bf_out_text(o, ",\"read\":");
    bf_out_bool(o, (item->flags & BF_ITEM_READ) != 0);
    bf_out_text(o, ",\"seen\":");
    bf_out_bool(o, (item->flags & BF_ITEM_SEEN) != 0);
    bf_out_text(o, ",\"archived\":");
    bf_out_bool(o, (item->flags & BF_ITEM_ARCHIVED) != 0);
    bf_out_text(o, ",");
    bf_out_bytes(o, item->fragment);
    bf_out_text(o, "}");
}

struct page {
    struct bf_out o;
    uint32_t limit, count;
};

/* Archived items have left the list; they are found by id. */
static int add_to_page(void *arg, const struct bf_item *item)
{
    struct page *page = arg;
    if ((item->flags & BF_ITEM_ARCHIVED) != 0)
        return 0;
    if (page->count++ > 0)
        bf_out_text(&page->o, ",");
    put_item(&page->o, item);
    return 0;
}

/* Fills the page; archived items may make it take several reads. */
static int fill_page(struct bf_store *store, struct bf_uid uid, bool unread_only, struct page *page,
                     struct bf_inbox_cursor *cursor, bool *ret_more)
{
    uint64_t now_ms = bf_wall_ms();
    *ret_more = true;
    while (*ret_more && page->count < page->limit) {
        int rc = bf_store_list_inbox(store, uid, cursor, unread_only, page->limit - page->count,
                                     now_ms, add_to_page, page, ret_more);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* How often a page is read again because the inbox changed while it was read. */
#define LIST_TRIES 4u

/* Page and count are of one moment: if the inbox changed while its page was read, it is read again.
 * If it keeps changing, the last page and count are returned. */
static int read_list(struct bf_request *r, struct bf_uid uid, bool unread_only,
                     const struct bf_inbox_cursor *from, struct page *page,
                     struct bf_inbox_cursor *cursor, bool *ret_more, uint32_t *ret_unread)
{
    struct bf_services *services = bf_services_of(r);
    struct bf_user_state before, after = {0};
    int rc = bf_core_state(services->core, uid, &before);
    for (unsigned i = 0; rc == 0 && i < LIST_TRIES; i++) {
        bf_out_free(&page->o);
        page->count = 0;
        *cursor = *from;
        bf_out_text(&page->o, "{\"notifications\":[");
        rc = fill_page(services->store, uid, unread_only, page, cursor, ret_more);
        if (rc == 0)
            rc = bf_core_state(services->core, uid, &after);
        *ret_unread = after.unread;
        if (after.version == before.version)
            break;
        before = after;
    }
    return rc;
}

void bf_list_inbox(struct bf_request *r)
{
    struct bf_uid uid;
    struct bf_inbox_cursor from, cursor;
    struct page page = {.limit = LIST_LIMIT_DEFAULT};
    bool unread_only = false;
    bool more = false;
    uint32_t unread = 0;
    if (!bf_query_uint(r, "limit", 1, LIST_LIMIT_MAX, LIST_LIMIT_DEFAULT, &page.limit) ||
        !bf_query_bool(r, "unread_only", &unread_only) || !read_cursor(r, &from) ||
        !bf_known_path_uid(r, &uid))
        return;
    int rc = read_list(r, uid, unread_only, &from, &page, &cursor, &more, &unread);
    if (rc != 0) {
        bf_out_free(&page.o);
        bf_answer_error(r, rc);
        return;
    }
    bf_out_text(&page.o, "],\"next_cursor\":");
    if (more)
        put_cursor(&page.o, &cursor);
    else
        bf_out_text(&page.o, "null");
    bf_out_text(&page.o, ",\"unread_count\":");
    bf_out_uint(&page.o, unread);
    bf_out_text(&page.o, "}");
    bf_answer_json(r, 200, &page.o);
}

static void no_such_item(struct bf_request *r)
{
    bf_answer_fail(r, 404, "not-found", "id", "the user has no such notification");
}

void bf_get_inbox_item(struct bf_request *r)
{
    struct bf_services *services = bf_services_of(r);
    struct bf_uid uid;
    struct bf_item_copy copy = {.memory = NULL};
    struct bf_out o = {0};
    enum bf_lane lane;
    uint64_t seq;
    if (!bf_known_path_uid(r, &uid))
        return;
    int rc = bf_core_locate(services->core, uid, &r->id, &lane, &seq);
    if (rc == 0)
        rc = bf_store_get_item(services->store, uid, lane, seq, &copy);
    if (rc == 0 && bf_item_is_shown(&copy.item, bf_wall_ms())) {
        put_item(&o, &copy.item);
        bf_answer_json(r, 200, &o);
    } else if (rc == 0 || rc == BF_ERR_NOT_FOUND) {
        no_such_item(r);
    } else {
        bf_answer_error(r, rc);
    }
    bf_item_free(&copy);
}

/* ---- marks ---- */

/* Applies and answers {"id","unread_count"}; false: the answer is set to an error. */
static bool mark(struct bf_request *r, struct bf_uid uid, enum bf_mark what, uint32_t *ret_unread)
{
    int rc = bf_core_mark(bf_services_of(r)->core, uid, &r->id, what, ret_unread);
    if (rc == BF_ERR_NOT_FOUND || rc == BF_ERR_UNKNOWN_USER)
        no_such_item(r);
    else if (rc != 0)
        bf_answer_error(r, rc);
    return rc == 0;
}

static void answer_marked(struct bf_request *r, uint32_t unread)
{
    struct bf_out o = {0};
    bf_out_text(&o, "{\"id\":");
    bf_out_id(&o, &r->id);
    bf_out_text(&o, ",\"unread_count\":");
    bf_out_uint(&o, unread);
    bf_out_text(&o, "}");
    bf_answer_json(r, 200, &o);
}

struct mark_member {
    const char *name;
    int when_true, when_false; /* enum bf_mark, or -1: cannot be taken back */
};

static const struct mark_member mark_members[] = {
    {"read", BF_MARK_READ, BF_MARK_UNREAD},
    {"seen", BF_MARK_SEEN, -1},
    {"archived", BF_MARK_ARCHIVED, BF_MARK_UNARCHIVED},
};
#define MARK_MEMBERS (sizeof(mark_members) / sizeof(mark_members[0]))

/* The marks that the body asks for; checked whole before any is made. */
static bool read_marks(struct bf_request *r, yyjson_val *root, enum bf_mark *marks,
                       unsigned *ret_count)
{
    unsigned count = 0;
    for (unsigned i = 0; i < MARK_MEMBERS; i++) {
        yyjson_val *val = yyjson_obj_get(root, mark_members[i].name);
        if (!val)
            continue;
        int what = yyjson_is_true(val) ? mark_members[i].when_true : mark_members[i].when_false;
        if (!yyjson_is_bool(val) || what < 0) {
            bf_answer_fail(r, 400, "wrong-type", mark_members[i].name, "%s must be %s",
                           mark_members[i].name,
                           mark_members[i].when_false < 0 ? "true" : "true or false");
            return false;
        }
        marks[count++] = (enum bf_mark)what;
    }
    if (count == 0)
        bf_answer_fail(r, 400, "missing-field", "read", "nothing to change: read, seen, archived");
    *ret_count = count;
    return count > 0;
}

void bf_patch_item(struct bf_request *r)
{
    static const char *const members[] = {"read", "seen", "archived", "user_id"};
    char room[BF_USER_ID_BYTES_MAX];
    enum bf_mark marks[MARK_MEMBERS];
    unsigned count = 0;
    uint32_t unread = 0;
    struct bf_uid uid;
    yyjson_doc *doc;
    yyjson_val *root;
    if (!bf_read_object(r, members, 4, false, &doc, &root))
        return;
    bool ok = bf_mine_uid(r, root, room, &uid) && read_marks(r, root, marks, &count);
    for (unsigned i = 0; ok && i < count; i++)
        ok = mark(r, uid, marks[i], &unread);
    yyjson_doc_free(doc);
    if (ok)
        answer_marked(r, unread);
}

/* One mark, the user from token, query or body. */
static void mark_one(struct bf_request *r, enum bf_mark what)
{
    static const char *const members[] = {"user_id"};
    char room[BF_USER_ID_BYTES_MAX];
    uint32_t unread = 0;
    struct bf_uid uid;
    yyjson_doc *doc;
    yyjson_val *root;
    if (!bf_read_object(r, members, 1, true, &doc, &root))
        return;
    bool ok = bf_mine_uid(r, root, room, &uid) && mark(r, uid, what, &unread);
    yyjson_doc_free(doc);
    if (ok)
        answer_marked(r, unread);
}

void bf_read_item(struct bf_request *r)
{
    mark_one(r, BF_MARK_READ);
}

/* Two paths: /v1/notifications/{id}, and below the user's inbox. */
void bf_delete_item(struct bf_request *r)
{
    struct bf_uid uid;
    uint32_t unread = 0;
    if (!r->user.at)
        mark_one(r, BF_MARK_DELETED);
    else if (bf_known_path_uid(r, &uid) && mark(r, uid, BF_MARK_DELETED, &unread))
        answer_marked(r, unread);
}

void bf_read_all(struct bf_request *r)
{
    static const char *const members[] = {"user_id"};
    char room[BF_USER_ID_BYTES_MAX];
    uint32_t changed = 0, unread = 0;
    struct bf_out o = {0};
    struct bf_uid uid;
    yyjson_doc *doc;
    yyjson_val *root;
    if (!bf_read_object(r, members, 1, true, &doc, &root))
        return;
    bool ok = bf_mine_uid(r, root, room, &uid);
    int rc = ok ? bf_core_read_all(bf_services_of(r)->core, uid, &changed, &unread) : 0;
    yyjson_doc_free(doc);
    if (!ok)
        return;
    if (rc != 0) {
        bf_answer_error(r, rc);
        return;
    }
    bf_out_print(&o, "{\"changed\":%u,\"unread_count\":%u}", changed, unread);
    bf_answer_json(r, 200, &o);
}

/* ---- what a device tells ---- */

/* "received" is no inbox state: an outcome row says that the device has it. */
static int note_received(struct bf_request *r, struct bf_uid uid)
{
    struct bf_services *services = bf_services_of(r);
    struct bf_item_copy copy;
    enum bf_lane lane;
    uint64_t seq;
    int rc = bf_core_locate(services->core, uid, &r->id, &lane, &seq);
    if (rc == 0)
        rc = bf_store_get_item(services->store, uid, lane, seq, &copy);
    if (rc != 0)
        return rc;
    uint64_t now_ms = bf_wall_ms();
    if (!bf_item_is_shown(&copy.item, now_ms)) {
        bf_item_free(&copy);
        return BF_ERR_NOT_FOUND;
    }
    struct bf_outcome outcome = {
        .event_id = copy.item.event_id,
        .uid = uid,
        .channel = BF_CHANNEL_INAPP,
        .attempt = 1,
        .status = BF_STATUS_DELIVERED,
        .at_ms = now_ms,
        .expires_ms = now_ms + (uint64_t)bf_conf_of(r)->status_ttl_s * 1000,
        .reason = BF_BYTES("received"),
    };
    bf_item_free(&copy);
    struct bf_batch *batch = bf_batch_create(services->store);
    if (!batch)
        return BF_ERR_NO_MEMORY;
    bf_batch_put_outcome(batch, &outcome);
    rc = bf_batch_write(batch, false);
    bf_batch_destroy(batch);
    return rc;
}

static bool apply_event(struct bf_request *r, struct bf_uid uid, yyjson_val *event)
{
    uint32_t unread = 0;
    if (yyjson_equals_str(event, "opened") || yyjson_equals_str(event, "clicked"))
        return mark(r, uid, BF_MARK_READ, &unread);
    if (yyjson_equals_str(event, "dismissed"))
        return mark(r, uid, BF_MARK_SEEN, &unread);
    if (!yyjson_equals_str(event, "received")) {
        bf_answer_fail(r, 400, "bad-value", "event",
                       "event is received, opened, clicked or dismissed");
        return false;
    }
    int rc = note_received(r, uid);
    if (rc == BF_ERR_NOT_FOUND || rc == BF_ERR_UNKNOWN_USER)
        no_such_item(r);
    else if (rc != 0)
        bf_answer_error(r, rc);
    return rc == 0;
}

void bf_post_item_event(struct bf_request *r)
{
    static const char *const members[] = {"event", "user_id"};
    char room[BF_USER_ID_BYTES_MAX];
    struct bf_out o = {0};
    struct bf_uid uid;
    yyjson_doc *doc;
    yyjson_val *root;
    if (!bf_read_object(r, members, 2, false, &doc, &root))
        return;
    bool ok =
        bf_mine_uid(r, root, room, &uid) && apply_event(r, uid, yyjson_obj_get(root, "event"));
    yyjson_doc_free(doc);
    if (!ok)
        return;
    bf_out_text(&o, "{\"id\":");
    bf_out_id(&o, &r->id);
    bf_out_text(&o, "}");
    bf_answer_json(r, 200, &o);
}
