/*
 * API keys over their life: revoke, rotate, and what has been over for long is thrown away. (Made
 * and listed in ops.c.) A change reaches every cached key at once: services->keys_changed.
 */
#include <pthread.h>
#include <string.h>

#include <yyjson.h>

#include "admin/admin_impl.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"

/* A key that has ended is listed this long, so that whoever looks for the reason of a refusal still
 * finds it. */
#define KEY_KEPT_MS (UINT64_C(90) * 24 * 3600 * 1000)
/* Keys of a node, ended ones among them: a list of them is one answer. */
#define KEYS_MAX 10000u
/* How long the former key stays valid if a rotation does not say: a day to deploy the new one. */
#define OVERLAP_DEFAULT_S 86400u
#define OVERLAP_MAX_S     7776000u

/* Rows are read, changed and written: one change at a time. */
static pthread_mutex_t change_lock = PTHREAD_MUTEX_INITIALIZER;

struct key_search {
    const char *id;
    size_t id_len;
    uint64_t over_before_ms;
    struct bf_batch *old; /* gets the deletions; may be NULL */
    struct bf_api_key_row row;
    uint32_t count;
    bool is_found;
};

static int look_at(void *arg, const struct bf_api_key_row *row)
{
    struct key_search *search = arg;
    if (search->id && strlen(row->id) == search->id_len &&
        memcmp(row->id, search->id, search->id_len) == 0) {
        search->row = *row;
        search->is_found = true;
    } else if (search->old && bf_api_key_end(row) < search->over_before_ms) {
        bf_batch_delete_api_key(search->old, row);
        return 0;
    }
    search->count++;
    return 0;
}

/* Writes |row| and, for a rotation, |second|; what is over for long goes with it. */
static int write_keys(struct bf_services *services, const struct bf_api_key_row *row,
                      const struct bf_api_key_row *second)
{
    uint64_t now_ms = bf_wall_ms();
    struct bf_batch *batch = bf_batch_create(services->store);
    if (!batch)
        return BF_ERR_NO_MEMORY;
    struct key_search search = {.old = batch,
                                .id = row->id,
                                .id_len = strlen(row->id),
                                .over_before_ms = now_ms > KEY_KEPT_MS ? now_ms - KEY_KEPT_MS : 0};
    int rc = bf_store_walk_api_keys(services->store, look_at, &search);
    if (rc == 0 && search.count + (second != NULL || !search.is_found) > KEYS_MAX)
        rc = BF_ERR_FULL;
    if (rc == 0) {
        bf_batch_put_api_key(batch, row);
        if (second)
            bf_batch_put_api_key(batch, second);
        rc = bf_batch_write(batch, true);
    }
    bf_batch_destroy(batch);
    if (rc == 0) /* release: pairs with the acquire of api/auth.c, which then reads the row again */
        atomic_fetch_add_explicit(&services->keys_changed, 1, memory_order_release);
    return rc;
}

int bf_admin_write_key(struct bf_services *services, const struct bf_api_key_row *row)
{
    pthread_mutex_lock(&change_lock);
    int rc = write_keys(services, row, NULL);
    pthread_mutex_unlock(&change_lock);
    return rc;
}

/* The key in the path, of the caller's tenant if the caller has one; false: the answer is set. */
static bool find_key(struct bf_request *r, struct bf_api_key_row *ret)
{
    struct key_search search = {.id = r->name.at, .id_len = r->name.len};
    struct bf_bytes own = bf_admin_tenant(r);
    int rc = bf_store_walk_api_keys(bf_admin_of(r)->services->store, look_at, &search);
    if (own.at && strcmp(search.row.tenant, own.at) != 0)
        search.is_found = false; /* another tenant's key is not even there for this caller */
    if (rc != 0)
        bf_answer_error(r, rc);
    else if (!search.is_found)
        bf_answer_fail(r, 404, "unknown-key", "id",
                       "no API key has the id '%.*s'; belfryctl key list shows them all",
                       (int)(r->name.len < 64 ? r->name.len : 64), r->name.at);
    *ret = search.row;
    return search.is_found && rc == 0;
}

void bf_admin_answer_key_error(struct bf_request *r, int rc)
{
    if (rc == BF_ERR_FULL)
        bf_answer_fail(r, 409, "too-many-keys", "",
                       "this node holds %u API keys, which is its limit; "
                       "keys that ended go by themselves after 90 days",
                       KEYS_MAX);
    else
        bf_answer_error(r, rc);
}

void bf_admin_revoke_key(struct bf_request *r)
{
    struct bf_api_key_row row;
    struct bf_out o = {0};
    int rc = 0;
    pthread_mutex_lock(&change_lock);
    if (find_key(r, &row) && row.revoked_ms == 0) { /* a second time changes nothing */
        row.revoked_ms = bf_wall_ms();
        rc = write_keys(bf_admin_of(r)->services, &row, NULL);
        if (rc == 0)
            BF_INFO("ctrlplane", "API key %s revoked", row.id);
    }
    pthread_mutex_unlock(&change_lock);
    if (rc != 0)
        bf_admin_answer_key_error(r, rc);
    if (r->answer.status != 0)
        return;
    bf_admin_put_key(&o, bf_admin_of(r)->services->store, &row);
    bf_out_text(&o, "}");
    bf_answer_json(r, 200, &o);
}

/* Whether |row| can have a successor; false: the answer is set. */
static bool may_rotate(struct bf_request *r, const struct bf_api_key_row *row)
{
    if (bf_api_key_taken_until(row) <= bf_wall_ms())
        bf_answer_fail(r, 409, "key-ended", "id",
                       "the key %s was revoked or is over: create a new one", row->id);
    else if (row->replaced_by[0])
        bf_answer_fail(r, 409, "key-rotated", "id",
                       "the key %s was rotated before and goes on until its end: rotate its "
                       "successor %s",
                       row->id, row->replaced_by);
    return r->answer.status == 0;
}

static int rotate(struct bf_services *services, struct bf_api_key_row *old, uint32_t overlap_s,
                  char text[BF_API_KEY_BYTES], struct bf_api_key_row *ret_new)
{
    uint64_t now_ms = bf_wall_ms();
    uint64_t end_ms = now_ms + (uint64_t)overlap_s * 1000;
    bf_auth_make_key(old->name, old->tenant, old->scopes, old->rate_per_min, text, ret_new);
    if (old->expires_ms != 0) /* the new one lives as long as the old one was made for */
        ret_new->expires_ms = ret_new->created_ms + (old->expires_ms - old->created_ms);
    if (old->expires_ms == 0 || end_ms < old->expires_ms)
        old->expires_ms = end_ms;
    memcpy(old->replaced_by, ret_new->id, sizeof(old->replaced_by));
    return write_keys(services, old, ret_new);
}

void bf_admin_rotate_key(struct bf_request *r)
{
    struct bf_services *services = bf_admin_of(r)->services;
    struct bf_api_key_row old, fresh;
    char text[BF_API_KEY_BYTES] = "";
    struct bf_out o = {0};
    uint32_t overlap_s = OVERLAP_DEFAULT_S;
    int rc = 0;
    if (!bf_admin_read_number(r, "overlap_s", OVERLAP_MAX_S, OVERLAP_DEFAULT_S, &overlap_s))
        return;
    pthread_mutex_lock(&change_lock);
    if (find_key(r, &old) && may_rotate(r, &old)) {
        rc = rotate(services, &old, overlap_s, text, &fresh);
        if (rc == 0)
            BF_INFO("ctrlplane", "API key %s rotated to %s, both are valid for %u s", old.id,
                    fresh.id, overlap_s);
    }
    pthread_mutex_unlock(&change_lock);
    if (rc != 0)
        bf_admin_answer_key_error(r, rc);
    if (r->answer.status == 0) {
        bf_admin_put_key(&o, services->store, &fresh);
        bf_out_print(&o, ",\"key\":\"%s\",\"replaces\":\"%s\",\"replaced_expires_at\":", text,
                     old.id);
        bf_out_time(&o, old.expires_ms);
        bf_out_text(&o, "}");
        bf_answer_json(r, 201, &o);
    }
    explicit_bzero(text, sizeof(text));
}
