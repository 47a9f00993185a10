/* Preferences over the API (PRF-1): the stored object with updated_at. An opt-out is answered after
 * the hard stop holds (DESIGN 4.13), which the core waits for. */
#include <stdlib.h>
#include <string.h>

#include "api/calls.h"
#include "belfry/base/err.h"
#include "belfry/base/time.h"

void bf_get_preferences(struct bf_request *r)
{
    struct bf_uid uid;
    struct bf_out o = {0};
    char *json = NULL;
    size_t len = 0;
    if (!bf_known_path_uid(r, &uid))
        return;
    int rc = bf_store_get_prefs(bf_services_of(r)->store, uid, &json, &len);
    if (rc == 0)
        bf_out_raw(&o, json, len);
    else if (rc == BF_ERR_NOT_FOUND) /* nothing said: all on */
        bf_out_text(&o, "{\"opt_out\":false,\"updated_at\":null}");
    free(json);
    if (rc == 0 || rc == BF_ERR_NOT_FOUND)
        bf_answer_json(r, 200, &o);
    else
        bf_answer_error(r, rc);
}

/* Canonical object without updated_at, and the new one. */
static void stamp(struct bf_out *o, const char *stored)
{
    size_t len = strlen(stored);
    bf_out_raw(o, stored, len - 1);
    bf_out_text(o, len > 2 ? ",\"updated_at\":" : "\"updated_at\":");
    bf_out_time(o, bf_wall_ms());
    bf_out_text(o, "}");
}

void bf_put_preferences(struct bf_request *r)
{
    struct bf_uid uid;
    struct bf_prefs *prefs = NULL;
    struct bf_problem problem;
    struct bf_out o = {0};
    char *stored = NULL;
    if (!bf_known_path_uid(r, &uid))
        return;
    if (bf_prefs_compile((struct bf_bytes){r->body, r->body_len}, &prefs, &stored, &problem) != 0) {
        bf_answer_problem(r, &problem);
        return;
    }
    stamp(&o, stored);
    free(stored);
    int rc = BF_ERR_NO_MEMORY;
    if (o.failed)
        bf_prefs_free(prefs);
    else
        rc = bf_core_put_prefs(bf_services_of(r)->core, uid, prefs, (struct bf_bytes){o.at, o.len});
    if (rc == 0) {
        bf_answer_json(r, 200, &o);
        return;
    }
    bf_out_free(&o);
    if (rc == BF_ERR_UNKNOWN_USER)
        bf_answer_fail(r, 404, "unknown-user", "user_id", "no such user");
    else
        bf_answer_error(r, rc);
}
