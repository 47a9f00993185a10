/*
 * A dead letter of a leg back into the queue: row and letter change in one batch, so a kill leaves
 * one of them. What leaves the queue passes opt-out, erasure and expiry again (DESIGN 4.3).
 */
#include "outbound/impl.h"

#include "belfry/base/err.h"
#include "outbound/letter.h"

static void delete_letter(struct bf_outbound *o, const struct bf_id *event_id, uint8_t channel,
                          const struct bf_carried_letter *c)
{
    struct bf_dlq_row letter = {
        .channel = channel, .at_ms = c->at_ms, .event_id = *event_id, .tag = c->tag};
    bf_batch_delete_letter(o->turn->batch, &letter);
}

static void put_row(struct bf_outbound *o, uint8_t channel, const struct bf_id *event_id,
                    struct bf_uid uid, const struct bf_carried_letter *c,
                    const struct bf_letter *letter)
{
    static const struct bf_id none;
    struct bf_event_meta meta;
    struct bf_leg_row row = {
        .lane = letter->lane,
        .channel = channel,
        .kind = bf_id_is_equal(&letter->endpoint_id, &none) ? BF_LEG_FALLBACK : BF_LEG_SEND,
        .not_before_ms = o->turn->now_ms,
        .uid = uid,
        .event_id = *event_id,
        .endpoint_id = letter->endpoint_id,
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
    bf_outbound_put(o, &row);
}

int bf_outbound_redrive(struct bf_outbound *o, uint8_t channel, const struct bf_id *event_id,
                        struct bf_uid uid, struct bf_bytes carried, bool is_known)
{
    struct bf_store *store = o->turn->store;
    struct bf_carried_letter c;
    struct bf_letter letter;
    if (!bf_letter_unpack(carried, &c))
        return BF_ERR_CORRUPT;
    if (bf_store_is_erased_since(store, uid, c.at_ms)) {
        delete_letter(o, event_id, channel, &c); /* also where the id has been taken again */
        return BF_ERR_UNKNOWN_USER;
    }
    bool is_nobodys = uid.user.len == 0; /* of a provider's broadcast channel */
    if (!is_nobodys && !is_known)
        return BF_ERR_UNKNOWN_USER;
    int rc = bf_letter_read(c.body, &letter);
    if (rc != 0)
        return rc;
    if (letter.expires_ms <= o->turn->now_ms)
        rc = BF_ERR_EXPIRED;
    else if (bf_store_leg_depth(store, channel, letter.lane) >= BF_QUEUE_ROWS_MAX)
        rc = BF_ERR_FULL;
    if (rc == 0) {
        put_row(o, channel, event_id, uid, &c, &letter);
        delete_letter(o, event_id, channel, &c);
    }
    bf_letter_close(&letter);
    return rc;
}
