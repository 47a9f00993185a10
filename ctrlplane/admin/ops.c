/* What belfryctl changes on a node: drain, reload, API keys. Each is told to the log (OPS-6: who
 * did what; a key's text is in its answer only). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yyjson.h>

#include "admin/admin_impl.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/text.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf.h"

#define DRAIN_RATE_MAX      1000000u
#define DRAIN_RECONNECT_MS  5000u
#define DRAIN_RECONNECT_MAX 3600000u
#define NAME_BYTES_MAX      64u
/* Ten years: a key that is to live longer has no end. */
#define KEY_TTL_MAX_S 315360000u

/* Reads the body as an object; an absent one is {}. NULL: the answer is set. */
static yyjson_doc *read_body(struct bf_request *r)
{
    yyjson_doc *doc = yyjson_read(r->body_len ? r->body : "{}", r->body_len ? r->body_len : 2, 0);
    if (doc && yyjson_is_obj(yyjson_doc_get_root(doc)))
        return doc;
    yyjson_doc_free(doc);
    bf_answer_fail(r, 400, "bad-json", "", "the body must be a JSON object");
    return NULL;
}

/* A whole number of the body, |fallback| when absent; false (answer set) outside 0..|max|. */
static bool get_uint(struct bf_request *r, yyjson_val *root, const char *name, uint64_t max,
                     uint64_t fallback, uint32_t *ret)
{
    yyjson_val *val = yyjson_obj_get(root, name);
    uint64_t value = val ? yyjson_get_uint(val) : fallback;
    if (val && (!yyjson_is_uint(val) || value > max)) {
        bf_answer_fail(r, 400, "out-of-range", name, "%s is a whole number, 0..%llu", name,
                       (unsigned long long)max);
        return false;
    }
    *ret = (uint32_t)value;
    return true;
}

bool bf_admin_read_number(struct bf_request *r, const char *name, uint64_t max, uint64_t fallback,
                          uint32_t *ret)
{
    yyjson_doc *doc = read_body(r);
    bool ok = doc && get_uint(r, yyjson_doc_get_root(doc), name, max, fallback, ret);
    yyjson_doc_free(doc);
    return ok;
}

void bf_admin_drain(struct bf_request *r)
{
    struct bf_out o = {0};
    uint32_t rate = 0;
    uint32_t after_ms = 0;
    if (!bf_admin_is_operator(r))
        return;
    yyjson_doc *doc = read_body(r);
    if (!doc)
        return;
    yyjson_val *root = yyjson_doc_get_root(doc);
    bool ok =
        get_uint(r, root, "rate", DRAIN_RATE_MAX, 0, &rate) &&
        get_uint(r, root, "reconnect_after_ms", DRAIN_RECONNECT_MAX, DRAIN_RECONNECT_MS, &after_ms);
    yyjson_doc_free(doc);
    if (!ok)
        return;
    int rc = bf_core_drain(bf_admin_of(r)->services->core, rate, after_ms);
    if (rc != 0) {
        bf_answer_error(r, rc);
        return;
    }
    BF_INFO("ctrlplane", "drain: %u connections/s, reconnect after %u ms", rate, after_ms);
    bf_out_print(&o, "{\"rate\":%u,\"reconnect_after_ms\":%u}", rate, after_ms);
    bf_answer_json(r, 200, &o);
}

/* ---- API keys ---- */

struct key_wish {
    char name[NAME_BYTES_MAX + 1];
    char tenant[BF_TENANT_BYTES_MAX + 1];
    uint32_t scopes, rate, ttl_s;
};

static bool take_text(struct bf_request *r, yyjson_val *root, const char *member, size_t max,
                      char *out)
{
    yyjson_val *val = yyjson_obj_get(root, member);
    if (!val)
        return true;
    const char *text = yyjson_get_str(val);
    if (!text || yyjson_get_len(val) > max || strlen(text) != yyjson_get_len(val)) {
        bf_answer_fail(r, 400, "wrong-type", member, "%s is a string of at most %zu bytes", member,
                       max);
        return false;
    }
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool take_scopes(struct bf_request *r, yyjson_val *list, uint32_t *ret_scopes)
{
    size_t i;
    size_t max;
    yyjson_val *val;
    *ret_scopes = 0;
    yyjson_arr_foreach (list, i, max, val) {
        int scope = yyjson_is_str(val)
                        ? bf_scope_find((struct bf_bytes){yyjson_get_str(val), yyjson_get_len(val)})
                        : -1;
        if (scope < 0) {
            bf_answer_fail(r, 400, "unknown-scope", "scopes",
                           "scopes are send, broadcast, events, bulk, templates, users, status, "
                           "critical, admin");
            return false;
        }
        *ret_scopes |= 1u << scope;
    }
    if (*ret_scopes == 0)
        bf_answer_fail(r, 400, "missing-field", "scopes", "a key has at least one scope");
    return *ret_scopes != 0;
}

/* A limit that is misspelt would be none: what is no member is refused. */
static bool has_known_members(struct bf_request *r, yyjson_val *root)
{
    static const char *const members[] = {"name", "tenant", "scopes", "rate_per_min", "ttl_s"};
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    yyjson_obj_foreach (root, i, max, key, val) {
        size_t at = 0;
        while (at < sizeof(members) / sizeof(members[0]) && !yyjson_equals_str(key, members[at]))
            at++;
        if (at < sizeof(members) / sizeof(members[0]))
            continue;
        bf_answer_fail(r, 400, "unknown-field", yyjson_get_str(key),
                       "'%.*s' is no member of a key; name, tenant, scopes, rate_per_min and ttl_s "
                       "are",
                       BF_CUT(yyjson_get_str(key), 64));
        return false;
    }
    return true;
}

static bool read_wish(struct bf_request *r, struct key_wish *wish)
{
    yyjson_doc *doc = read_body(r);
    if (!doc)
        return false;
    yyjson_val *root = yyjson_doc_get_root(doc);
    bool ok = has_known_members(r, root) &&
              take_text(r, root, "name", NAME_BYTES_MAX, wish->name) &&
              take_text(r, root, "tenant", BF_TENANT_BYTES_MAX, wish->tenant) &&
              get_uint(r, root, "rate_per_min", UINT32_MAX, 0, &wish->rate) &&
              get_uint(r, root, "ttl_s", KEY_TTL_MAX_S, 0, &wish->ttl_s) &&
              take_scopes(r, yyjson_obj_get(root, "scopes"), &wish->scopes);
    yyjson_doc_free(doc);
    return ok;
}

static void put_scopes(struct bf_out *o, uint32_t scopes)
{
    unsigned count = 0;
    bf_out_text(o, ",\"scopes\":[");
    for (unsigned i = 0; i < BF_SCOPE_COUNT; i++) {
        if ((scopes & 1u << i) != 0)
            bf_out_print(o, "%s\"%s\"", count++ ? "," : "", bf_scope_name((enum bf_scope)i));
    }
    bf_out_text(o, "]");
}

/* A member with a time, where there is one. */
static void put_time(struct bf_out *o, const char *member, uint64_t at_ms)
{
    if (at_ms == 0)
        return;
    bf_out_print(o, ",\"%s\":", member);
    bf_out_time(o, at_ms);
}

void bf_admin_put_key(struct bf_out *o, struct bf_store *store, const struct bf_api_key_row *row)
{
    uint64_t now_ms = bf_wall_ms();
    bf_out_print(o, "{\"id\":\"%s\",\"name\":", row->id);
    bf_out_cstr(o, row->name);
    bf_out_text(o, ",\"tenant\":");
    bf_out_cstr(o, row->tenant);
    put_scopes(o, row->scopes);
    bf_out_print(o, ",\"rate_per_min\":%u,\"created_at\":", row->rate_per_min);
    bf_out_time(o, row->created_ms);
    bf_out_print(o, ",\"state\":\"%s\"",
                 row->revoked_ms != 0            ? "revoked"
                 : bf_api_key_end(row) <= now_ms ? "expired"
                                                 : "valid");
    put_time(o, "expires_at", row->expires_ms);
    put_time(o, "revoked_at", row->revoked_ms);
    put_time(o, "last_used_at", bf_store_get_api_key_use(store, row->id));
    if (row->replaced_by[0])
        bf_out_print(o, ",\"replaced_by\":\"%s\"", row->replaced_by);
}

void bf_admin_create_key(struct bf_request *r)
{
    struct key_wish wish = {.scopes = 0};
    struct bf_api_key_row row;
    char text[BF_API_KEY_BYTES];
    struct bf_out o = {0};
    if (!read_wish(r, &wish))
        return;
    struct bf_bytes own = bf_admin_tenant(r);
    if (own.at && wish.tenant[0] && strcmp(wish.tenant, own.at) != 0) {
        bf_answer_fail(r, 403, "tenant-not-allowed", "tenant",
                       "an admin key of a tenant makes keys of that tenant; leave tenant out");
        return;
    }
    if (own.at)
        snprintf(wish.tenant, sizeof(wish.tenant), "%s", own.at);
    bf_auth_make_key(wish.name, wish.tenant, wish.scopes, wish.rate, text, &row);
    if (wish.ttl_s != 0)
        row.expires_ms = row.created_ms + (uint64_t)wish.ttl_s * 1000;
    int rc = bf_admin_write_key(bf_admin_of(r)->services, &row);
    if (rc != 0) {
        bf_admin_answer_key_error(r, rc);
        return;
    }
    BF_INFO("ctrlplane", "API key %s created, scopes 0x%x", row.id, row.scopes);
    bf_admin_put_key(&o, bf_admin_of(r)->services->store, &row);
    bf_out_print(&o, ",\"key\":\"%s\"}", text);
    bf_answer_json(r, 201, &o);
    explicit_bzero(text, sizeof(text));
}

struct key_list {
    struct bf_out o;
    struct bf_store *store;
    struct bf_bytes tenant; /* at NULL: all */
    uint32_t count;
};

static int add_key(void *arg, const struct bf_api_key_row *row)
{
    struct key_list *list = arg;
    if (list->tenant.at && strcmp(row->tenant, list->tenant.at) != 0)
        return 0;
    if (list->count++ > 0)
        bf_out_text(&list->o, ",");
    bf_admin_put_key(&list->o, list->store, row);
    bf_out_text(&list->o, "}");
    return 0;
}

void bf_admin_list_keys(struct bf_request *r)
{
    struct key_list list = {.store = bf_admin_of(r)->services->store, .tenant = bf_admin_tenant(r)};
    bf_out_text(&list.o, "{\"keys\":[");
    int rc = bf_store_walk_api_keys(bf_admin_of(r)->services->store, add_key, &list);
    bf_out_text(&list.o, "]}");
    if (rc == 0)
        bf_answer_json(r, 200, &list.o);
    else
        bf_answer_error(r, rc);
    bf_out_free(&list.o);
}
