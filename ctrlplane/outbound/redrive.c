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
        /* no seq and no collapse key: an old acknowledgement must not cancel what somebody asks for
         * today, and the row must not replace a newer one */
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

/* 0, or why the letter stays. */
static int decide(const struct bf_outbound *o, uint8_t channel, bool is_nobodys, bool is_there,
                  uint64_t expires_ms)
{
    static const struct bf_person person; /* preferences are asked when its row is due */
    const struct bf_subject subject = {
        .channels = (uint8_t)(1u << channel),
        .is_named = true,
        .is_nobodys = is_nobodys,
        .expires_ms = expires_ms,
    };
    const struct bf_facts facts = {
        .moment = BF_REDRIVEN,
        .now_ms = o->turn->now_ms,
        .subject = &subject,
        .rules = o->turn->rules,
        .person = is_there ? &person : NULL,
        .reachable = UINT8_MAX,
        .is_counted = true,
    };
    struct bf_plan plan;
    bf_decide(&facts, &plan);
    const struct bf_leg_plan *leg = &plan.leg[channel];
    if (leg->when == BF_NOW)
        return 0;
    return leg->reason == BF_REASON_EXPIRED ? BF_ERR_EXPIRED : BF_ERR_UNKNOWN_USER;
}

int bf_outbound_redrive(struct bf_outbound *o, uint8_t channel, const struct bf_id *event_id,
                        struct bf_uid uid, struct bf_bytes carried, bool is_known)
{
    struct bf_store *store = o->turn->store;
    struct bf_carried_letter c;
    struct bf_letter letter;
    if (!bf_letter_unpack(carried, &c))
        return BF_ERR_CORRUPT;
    bool is_erased = bf_store_is_erased_since(store, uid, c.at_ms);
    if (is_erased)
        delete_letter(o, event_id, channel, &c); /* also where the id has been taken again since */
    int read_rc = bf_letter_read(c.body, &letter);
    /* without a user: of a provider's broadcast channel */
    int rc = decide(o, channel, uid.user.len == 0 && !is_erased, is_known && !is_erased,
                    read_rc == 0 ? letter.expires_ms : UINT64_MAX);
    if (rc == 0)
        rc = read_rc;
    if (rc == 0 && bf_store_leg_depth(store, channel, letter.lane) >= BF_QUEUE_ROWS_MAX)
        rc = BF_ERR_FULL;
    if (rc == 0) {
        put_row(o, channel, event_id, uid, &c, &letter);
        delete_letter(o, event_id, channel, &c);
    }
    if (read_rc == 0)
        bf_letter_close(&letter);
    return rc;
}
