/* Calls about what goes out by providers: what people see of it, and dead letters sent again. */
#include "fanout/core_outbound.h"

#include <stdlib.h>

#include "belfry/base/err.h"
#include "fanout/calls.h"
#include "fanout/core_state.h"
#include "outbound/letter.h"

/* ---- what people see ----------------------------------------------------------------------------
 */

bool bf_core_pool_report(struct bf_core *core, uint32_t pool, struct bf_pool_report *ret)
{
    return bf_pool_reports_get(core->pool_reports, pool, ret);
}

static int add_totals(struct bf_shard *shard, void *arg)
{
    bf_pool_totals_add(arg, shard->outbound.pools);
    return 0;
}

int bf_core_pool_totals(struct bf_core *core, struct bf_pool_totals *ret)
{
    int rc = 0;
    ret->count = 0;
    for (uint32_t i = 0; i < core->shard_count && rc == 0; i++)
        rc = bf_core_run_on(core, i, add_totals, ret);
    return rc;
}

/* ---- dead letters -------------------------------------------------------------------------------
 */

static int do_redrive(struct bf_shard *shard, struct bf_call *call)
{
    bool is_known = bf_user_find(&shard->users, call->uid) != NULL;
    return bf_outbound_redrive(&shard->outbound, &call->id, call->uid, call->json, is_known);
}

struct pick {
    uint64_t at_ms, tag;
    const struct bf_id *event_id;
    bool is_found;
    uint8_t *bytes; /* of struct bf_carried_letter */
    size_t len;
};

static int pick_letter(void *arg, const struct bf_dlq_row *row)
{
    struct pick *p = arg;
    if (row->at_ms != p->at_ms)
        return row->at_ms > p->at_ms;
    if (row->tag != p->tag || !bf_id_is_equal(&row->event_id, p->event_id))
        return 0;
    const struct bf_carried_letter letter = {
        .at_ms = row->at_ms, .tag = row->tag, .meta = row->meta, .body = row->body};
    p->is_found = true;
    int rc = bf_letter_carry(&letter, &p->bytes, &p->len);
    return rc == 0 ? 1 : rc;
}

static int call_shard(struct bf_core *core, const struct bf_id *event_id, struct bf_bytes carried,
                      struct bf_uid uid)
{
    struct bf_call *call = bf_call_create(uid, carried, do_redrive);
    if (!call)
        return BF_ERR_NO_MEMORY;
    call->id = *event_id;
    int rc = bf_call_wait(bf_core_shard_of(core, uid), call, BF_CORE_WAIT_MS);
    bf_call_release(call);
    return rc;
}

int bf_core_redrive_push(struct bf_core *core, uint64_t at_ms, const struct bf_id *event_id,
                         uint64_t tag)
{
    struct pick p = {.at_ms = at_ms, .tag = tag, .event_id = event_id};
    struct bf_carried_letter c;
    struct bf_letter letter;
    int rc =
        bf_store_walk_dlq(core->store, BF_CHANNEL_PUSH, at_ms ? at_ms - 1 : 0, pick_letter, &p);
    if (rc < 0)
        return rc;
    if (!p.is_found)
        return BF_ERR_NOT_FOUND;
    struct bf_bytes carried = {(const char *)p.bytes, p.len};
    rc = bf_letter_unpack(carried, &c) ? bf_letter_read(c.body, &letter) : BF_ERR_CORRUPT;
    if (rc == 0) {
        rc = call_shard(core, event_id, carried,
                        (struct bf_uid){.tenant = letter.tenant, .user = letter.user});
        bf_letter_close(&letter);
    }
    free(p.bytes);
    return rc;
}
