/* What the API's handlers share; see calls.h. */
#include "api/calls.h"

#include <stdlib.h>
#include <string.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "belfry/base/err.h"
#include "belfry/base/plain_text.h"
#include "belfry/base/text.h"
#include "belfry/base/utf8.h"
#include "ingest/near.h"

void bf_fresh_id(struct bf_api *api, struct bf_id *ret_id)
{
    uint8_t parts[sizeof(api->id_seed) + sizeof(uint64_t)];
    XXH128_canonical_t hash;
    /* relaxed: each value is taken once, that is all */
    uint64_t count = atomic_fetch_add_explicit(&api->id_count, 1, memory_order_relaxed);
    memcpy(parts, api->id_seed, sizeof(api->id_seed));
    memcpy(parts + sizeof(api->id_seed), &count, sizeof(count));
    struct bf_bytes text = {(const char *)parts, sizeof(parts)};
    XXH128_canonicalFromHash(&hash, XXH3_128bits(text.at, text.len));
    memcpy(ret_id->bytes, hash.digest, sizeof(ret_id->bytes));
    bf_id_seal(ret_id);
}

struct bf_bytes bf_tenant_of(struct bf_request *r)
{
    const struct bf_principal *who = &bf_state_of(r)->who;
    const char *tenant =
        who->who == BF_WHO_KEY ? who->key->row.tenant : bf_state_of(r)->who.claims.tenant;
    return (struct bf_bytes){tenant, strlen(tenant)};
}

struct bf_bytes bf_caller_of(struct bf_request *r)
{
    const struct bf_principal *who = &bf_state_of(r)->who;
    if (who->who == BF_WHO_KEY)
        return (struct bf_bytes){who->key->row.id, strlen(who->key->row.id)};
    return BF_BYTES("user");
}

struct bf_uid bf_path_uid(struct bf_request *r)
{
    return (struct bf_uid){.tenant = bf_tenant_of(r), .user = r->user};
}

/* Whether the user is known; the one whom a token names is made now (ING-11), as by a first socket.
 * False with the answer set when that fails, without one when there is no such user. */
static bool is_known(struct bf_request *r, struct bf_uid uid)
{
    struct bf_core *core = bf_services_of(r)->core;
    if (bf_core_has_user(core, uid))
        return true;
    if (bf_state_of(r)->who.who != BF_WHO_USER)
        return false;
    int rc = bf_core_admit_user(core, uid);
    if (rc != 0)
        bf_answer_error(r, rc);
    return rc == 0;
}

bool bf_known_path_uid(struct bf_request *r, struct bf_uid *ret)
{
    struct bf_uid uid = bf_path_uid(r);
    if (!is_known(r, uid)) {
        if (r->answer.status != 0)
            return false;
        bf_answer_fail(r, 404, "unknown-user", "user_id",
                       "no user '%.*s'; PUT /v1/users/{id} makes one", (int)uid.user.len,
                       uid.user.at);
        return false;
    }
    *ret = uid;
    return true;
}

/* |user_id| as an API key gives it: in the query, else in the body. */
static bool named_user(struct bf_request *r, yyjson_val *root, char room[BF_USER_ID_BYTES_MAX],
                       struct bf_bytes *ret)
{
    if (!bf_request_query(r, "user_id", room, BF_USER_ID_BYTES_MAX, ret))
        return false;
    yyjson_val *val = root ? yyjson_obj_get(root, "user_id") : NULL;
    if (!ret->at && val && yyjson_is_str(val))
        *ret = (struct bf_bytes){yyjson_get_str(val), yyjson_get_len(val)};
    return true;
}

bool bf_mine_uid(struct bf_request *r, yyjson_val *root, char room[BF_USER_ID_BYTES_MAX],
                 struct bf_uid *ret)
{
    const struct bf_principal *who = &bf_state_of(r)->who;
    struct bf_bytes named;
    if (!named_user(r, root, room, &named))
        return false;
    struct bf_bytes user = named;
    if (who->who == BF_WHO_USER) {
        user = (struct bf_bytes){who->claims.user, who->claims.user_len};
        if (named.at && !bf_bytes_is_equal(named, user)) {
            bf_answer_fail(r, 403, "not-yours", "user_id",
                           "a user's token reaches their own data only");
            return false;
        }
    }
    if (bf_text_has_control(user.at, user.len)) {
        bf_answer_fail(r, 400, "bad-character", "user_id", "a user id holds no control characters");
        return false;
    }
    if (user.len == 0 || user.len > BF_USER_ID_BYTES_MAX) {
        bf_answer_fail(r, 400, "missing-field", "user_id",
                       "with an API key, say whose: user_id in the query or body");
        return false;
    }
    struct bf_uid uid = {.tenant = bf_tenant_of(r), .user = user};
    if (!is_known(r, uid)) {
        if (r->answer.status == 0)
            bf_answer_fail(r, 404, "unknown-user", "user_id", "no user '%.*s'", (int)user.len,
                           user.at);
        return false;
    }
    *ret = uid;
    return true;
}

/* Words why a body is not JSON. */
static void refuse_body(struct bf_request *r, const yyjson_read_err *err)
{
    struct bf_bytes body = {r->body, r->body_len};
    size_t valid = bf_utf8_valid_bytes(body);
    if (valid < body.len)
        bf_answer_fail(r, 400, "bad-utf8", "", "byte %zu of the body is not valid UTF-8", valid);
    else
        bf_answer_fail(r, 400, "bad-json", "", "not valid JSON at byte %zu: %s", err->pos,
                       err->msg ? err->msg : "unreadable");
}

static bool check_members(struct bf_request *r, yyjson_val *root, const char *const *members,
                          unsigned count)
{
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    uint32_t seen = 0;
    yyjson_obj_foreach (root, i, max, key, val) {
        unsigned at = 0;
        while (at < count && !yyjson_equals_str(key, members[at]))
            at++;
        if (at == count) {
            const char *near = bf_near_name(
                (struct bf_bytes){yyjson_get_str(key), yyjson_get_len(key)}, members, count);
            bf_answer_fail(r, 400, "unknown-field", yyjson_get_str(key),
                           near ? "'%.*s' is no field here; did you mean %s?"
                                : "'%.*s' is no field here",
                           BF_CUT(yyjson_get_str(key), 64), near);
            return false;
        }
        if ((seen & 1u << at) != 0) {
            bf_answer_fail(r, 400, "duplicate-field", members[at], "%s is given twice",
                           members[at]);
            return false;
        }
        seen |= 1u << at;
    }
    return true;
}

bool bf_read_object(struct bf_request *r, const char *const *members, unsigned count,
                    bool may_be_empty, yyjson_doc **ret_doc, yyjson_val **ret_root)
{
    yyjson_read_err err = {0};
    bool is_absent = r->body_len == 0 && may_be_empty;
    char *text = is_absent ? (char[]){"{}"} : r->body;
    size_t len = is_absent ? 2 : r->body_len;
    yyjson_doc *doc = len > 0 ? yyjson_read_opts(text, len, 0, NULL, &err) : NULL;
    if (!doc) {
        refuse_body(r, &err);
        return false;
    }
    yyjson_val *root = yyjson_doc_get_root(doc);
    bool is_good = yyjson_is_obj(root);
    if (!is_good)
        bf_answer_fail(r, 400, "wrong-type", "", "the body must be a JSON object");
    else
        is_good = check_members(r, root, members, count);
    if (!is_good) {
        yyjson_doc_free(doc);
        return false;
    }
    *ret_doc = doc;
    *ret_root = root;
    return true;
}

bool bf_query_uint(struct bf_request *r, const char *name, uint32_t min, uint32_t max,
                   uint32_t fallback, uint32_t *ret)
{
    char text[16];
    struct bf_bytes value;
    if (!bf_request_query(r, name, text, sizeof(text) - 1, &value))
        return false;
    *ret = fallback;
    if (!value.at)
        return true;
    char *end = text;
    text[value.len] = '\0';
    unsigned long number =
        value.len > 0 && text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;
    if (end == text || *end != '\0' || number < min || number > max) {
        bf_answer_fail(r, 400, "bad-query", name, "%s must be a whole number, %u..%u", name, min,
                       max);
        return false;
    }
    *ret = (uint32_t)number;
    return true;
}

bool bf_query_bool(struct bf_request *r, const char *name, bool *ret)
{
    char text[8];
    struct bf_bytes value;
    if (!bf_request_query(r, name, text, sizeof(text), &value))
        return false;
    *ret = bf_bytes_is_equal(value, BF_BYTES("true")) || bf_bytes_is_equal(value, BF_BYTES("1"));
    if (*ret || !value.at || bf_bytes_is_equal(value, BF_BYTES("false")) ||
        bf_bytes_is_equal(value, BF_BYTES("0")))
        return true;
    bf_answer_fail(r, 400, "bad-query", name, "%s must be true or false", name);
    return false;
}
