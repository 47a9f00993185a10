/*
 * A push's dead letter back into the push queue, on its user's shard: row and letter change in one
 * batch, so a kill leaves one of them. What leaves the queue passes opt-out, erasure and expiry
 * again (DESIGN 4.3).
 */
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "channels/push/push_letter.h"
#include "fanout/calls.h"
#include "fanout/core.h"
#include "fanout/core_state.h"
#include "fanout/push.h"
#include "fanout/shard.h"
#include "store/legs.h"

/* The letter as the call carries it: u64 at_ms, u64 tag, str16 meta, str32 body. */
struct carried {
    uint64_t at_ms, tag;
    struct bf_bytes meta, body;
};

static bool open_carried(struct bf_bytes bytes, struct carried *ret)
{
    struct bf_reader r = {.buf = (const uint8_t *)bytes.at, .len = bytes.len};
    ret->at_ms = bf_get_u64(&r);
    ret->tag = bf_get_u64(&r);
    ret->meta = bf_get_str16(&r);
    ret->body = bf_get_str32(&r);
    return !r.failed;
}

static void delete_letter(struct bf_shard *shard, const struct bf_call *call,
                          const struct carried *c)
{
    struct bf_dlq_row letter = {
        .channel = BF_CHANNEL_PUSH, .at_ms = c->at_ms, .event_id = call->id, .tag = c->tag};
    bf_batch_delete_letter(shard->batch, &letter);
}

static void put_row(struct bf_shard *shard, const struct bf_call *call, const struct carried *c,
                    const struct bf_push_letter *letter)
{
    static const struct bf_id none;
    struct bf_event_meta meta;
    struct bf_leg_row row = {
        .lane = letter->lane,
        .channel = BF_CHANNEL_PUSH,
        .kind = bf_id_is_equal(&letter->device_id, &none) ? BF_LEG_FALLBACK : BF_LEG_SEND,
        .not_before_ms = bf_wall_ms(),
        .uid = call->uid,
        .event_id = call->id,
        .endpoint_id = letter->device_id,
        .created_ms = c->at_ms,
        .expires_ms = letter->expires_ms,
        .redrive = letter->redrive + 1,
        /* no seq and no collapse key: an acknowledgement of long ago does not cancel what somebody
         * asks for today, and it takes the place of nothing newer */
        .type = letter->type,
        .category = letter->category,
        .topic = letter->topic,
        .meta = c->meta,
        .fragment = letter->fragment,
        .overrides = letter->overrides,
    };
    if (bf_event_meta_decode((const uint8_t *)c->meta.at, c->meta.len, &meta) == 0)
        row.created_ms = meta.accepted_ms;
    bf_leg_message_id(&row);
    bf_shard_queue_push(shard, &row);
}

static int do_redrive(struct bf_shard *shard, struct bf_call *call)
{
    struct bf_store *store = shard->core->store;
    struct carried c;
    struct bf_push_letter letter;
    if (!open_carried(call->json, &c))
        return BF_ERR_CORRUPT;
    if (bf_store_is_erased_since(store, call->uid, c.at_ms)) {
        delete_letter(shard, call, &c); /* also where the id has been taken again since */
        return BF_ERR_UNKNOWN_USER;
    }
    bool is_channel = call->uid.user.len == 0; /* of an APNs broadcast channel: nobody's */
    if (!is_channel && !bf_user_find(&shard->users, call->uid))
        return BF_ERR_UNKNOWN_USER;
    int rc = bf_push_letter_read(c.body, &letter);
    if (rc != 0)
        return rc;
    if (letter.expires_ms <= bf_wall_ms())
        rc = BF_ERR_EXPIRED;
    else if (bf_store_leg_depth(store, BF_CHANNEL_PUSH, letter.lane) >= BF_PUSH_QUEUE_MAX)
        rc = BF_ERR_FULL;
    if (rc == 0) {
        put_row(shard, call, &c, &letter);
        delete_letter(shard, call, &c);
    }
    bf_push_letter_close(&letter);
    return rc;
}

/* ---- the caller's side --------------------------------------------------------------------------
 */

struct pick {
    uint64_t at_ms, tag;
    const struct bf_id *event_id;
    bool is_found;
    uint8_t *bytes; /* of struct carried */
    size_t len;
};

static int pick_letter(void *arg, const struct bf_dlq_row *row)
{
    struct pick *p = arg;
    if (row->at_ms != p->at_ms)
        return row->at_ms > p->at_ms;
    if (row->tag != p->tag || !bf_id_is_equal(&row->event_id, p->event_id))
        return 0;
    size_t cap = 8 + 8 + 2 + row->meta.len + 4 + row->body.len;
    p->is_found = true;
    p->bytes = malloc(cap);
    if (!p->bytes)
        return BF_ERR_NO_MEMORY;
    struct bf_writer w = {.buf = p->bytes, .cap = cap};
    bf_put_u64(&w, row->at_ms);
    bf_put_u64(&w, row->tag);
    bf_put_str16(&w, row->meta);
    bf_put_str32(&w, row->body);
    p->len = w.len;
    return 1;
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
    struct bf_push_letter letter;
    struct carried c;
    int rc =
        bf_store_walk_dlq(core->store, BF_CHANNEL_PUSH, at_ms ? at_ms - 1 : 0, pick_letter, &p);
    if (rc < 0)
        return rc;
    if (!p.is_found)
        return BF_ERR_NOT_FOUND;
    struct bf_bytes carried = {(const char *)p.bytes, p.len};
    rc = open_carried(carried, &c) ? bf_push_letter_read(c.body, &letter) : BF_ERR_CORRUPT;
    if (rc == 0) {
        rc = call_shard(core, event_id, carried,
                        (struct bf_uid){.tenant = letter.tenant, .user = letter.user});
        bf_push_letter_close(&letter);
    }
    free(p.bytes);
    return rc;
}
