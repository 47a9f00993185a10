/* Calls about what goes out by providers: what people see of it, and dead letters sent again. */
#include "fanout/core_outbound.h"

#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "fanout/calls.h"
#include "fanout/core_state.h"
#include "outbound/letter.h"

/* ---- what people see ---- */

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

/* ---- dead letters ---- */

static int do_redrive(struct bf_shard *shard, struct bf_call *call)
{
    bool is_known = bf_user_find(&shard->users, call->uid) != NULL;
    return bf_outbound_redrive(&shard->outbound, call->channel, &call->id, call->uid, call->json,
                               is_known);
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

static int call_shard(struct bf_core *core, uint8_t channel, const struct bf_id *event_id,
                      struct bf_bytes carried, struct bf_uid uid)
{
    struct bf_call *call = bf_call_create(uid, carried, do_redrive);
    if (!call)
        return BF_ERR_NO_MEMORY;
    call->id = *event_id;
    call->channel = channel;
    int rc = bf_call_wait(bf_core_shard_of(core, uid), call, BF_CORE_WAIT_MS);
    bf_call_release(call);
    return rc;
}

int bf_core_redrive_leg(struct bf_core *core, uint8_t channel, uint64_t at_ms,
                        const struct bf_id *event_id, uint64_t tag)
{
    struct pick p = {.at_ms = at_ms, .tag = tag, .event_id = event_id};
    struct bf_carried_letter c;
    struct bf_letter letter;
    int rc = bf_store_walk_dlq(core->store, channel, at_ms ? at_ms - 1 : 0, pick_letter, &p);
    if (rc < 0)
        return rc;
    if (!p.is_found)
        return BF_ERR_NOT_FOUND;
    struct bf_bytes carried = {(const char *)p.bytes, p.len};
    rc = bf_letter_unpack(carried, &c) ? bf_letter_read(c.body, &letter) : BF_ERR_CORRUPT;
    if (rc == 0) {
        rc = call_shard(core, channel, event_id, carried,
                        (struct bf_uid){.tenant = letter.tenant, .user = letter.user});
        bf_letter_close(&letter);
    }
    free(p.bytes);
    return rc;
}

/* ---- answers ---- */

void bf_core_answered(void *arg, const struct bf_provider_answer *answer)
{
    struct bf_core *core = arg;
    struct bf_answer_msg *msg = malloc(sizeof(*msg) + answer->body.len);
    if (!msg) {
        BF_WARN("ctrlplane", "no memory for an answer: its message is tried again");
        return; /* as if it had been lost on its way */
    }
    *msg = (struct bf_answer_msg){.msg = {.kind = BF_MSG_ANSWER}, .answer = *answer};
    if (answer->body.len > 0)
        memcpy(msg->body, answer->body.at, answer->body.len);
    msg->answer.body.at = msg->body;
    bf_shard_post(bf_core_shard_of_byte(core, (uint8_t)answer->attempt), &msg->msg);
}
