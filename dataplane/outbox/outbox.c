/* See outbox.h. Order per connection: CONNECT, acknowledgements, behind, GONE. */
#include "outbox/outbox.h"

#include <string.h>

#include "channel/core.h"

void bf_outbox_init(struct bf_core *core)
{
    struct bf_region *region = core->region;
    core->outbox = (struct bf_outbox){0};
    bf_ring_producer_attach(&core->outbox.ring, bf_receipt_ring(region, core->worker),
                            bf_receipt_control(region, core->worker),
                            (uint32_t)region->generation | 1u);
}

void bf_outbox_mark(struct bf_core *core, uint32_t slot, uint16_t bits)
{
    struct bf_outbox *out = &core->outbox;
    struct bf_conn_hot *hot = bf_hot(core, slot);
    bf_cold(core, slot)->dirty |= bits;
    if (hot->flags & BF_CF_DIRTY)
        return;
    hot->flags |= BF_CF_DIRTY;
    bf_cold(core, slot)->dirty_next = BF_SLOT_NONE;
    if (out->dirty_count == 0)
        out->dirty_head = slot;
    else
        bf_cold(core, out->dirty_tail)->dirty_next = slot;
    out->dirty_tail = slot;
    out->dirty_count++;
}

bool bf_outbox_put(struct bf_core *core, enum bf_rcpt_kind kind, const void *bytes, uint32_t len,
                   uint32_t reserve)
{
    struct bf_outbox *out = &core->outbox;
    uint32_t slots = (len + BF_SLOT_PAYLOAD_BYTES - 1) / BF_SLOT_PAYLOAD_BYTES;
    if (bf_ring_free(&out->ring, slots + reserve) < slots + reserve ||
        !bf_ring_put_message(&out->ring, (uint16_t)kind, bytes, len)) {
        bf_count(core, BF_M_receipts_full, 1);
        return false;
    }
    bf_count(core, BF_M_receipts, 1);
    out->publish_due = true;
    return true;
}

static bool put_connect(struct bf_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    uint8_t *m = core->outbox.message;
    uint32_t aux = bf_cold(core, slot)->aux;
    if (hot->state != BF_CONN_AUTH || aux == 0)
        return true; /* gone or welcomed meanwhile */
    const struct bf_pending *p = bf_slab_at(&core->pendings, aux);
    struct bf_rcpt_connect rcpt = {
        .user = hot->user,
        .conn = bf_conn_id_of(&core->conns, slot),
        .device = bf_cold(core, slot)->device,
        .resume_b = p->resume_b,
        .resume_epoch_hash = p->resume_epoch_hash,
        .token_expires_ms = p->token_expires_ms,
        .connected_ms = p->connected_ms,
        .flags = p->flags,
        .user_len = p->user_len,
        .device_len = p->device_len,
        .tenant_len = p->tenant_len,
    };
    memcpy(rcpt.resume_seq, p->resume_seq, sizeof(rcpt.resume_seq));
    size_t len = sizeof(rcpt);
    memcpy(m, &rcpt, len);
    memcpy(m + len, p->user, p->user_len);
    len += p->user_len;
    memcpy(m + len, p->device, p->device_len);
    len += p->device_len;
    memcpy(m + len, p->tenant, p->tenant_len);
    len += p->tenant_len;
    if (!bf_outbox_put(core, BF_RCPT_CONNECT, m, (uint32_t)len, 0))
        return false;
    hot->flags |= BF_CF_ANNOUNCED;
    return true;
}

static bool put_ack(struct bf_core *core, uint32_t slot, uint32_t lane)
{
    const struct bf_conn_cold *cold = bf_cold(core, slot);
    struct bf_rcpt_ack rcpt = {
        .user = bf_hot(core, slot)->user,
        .conn = bf_conn_id_of(&core->conns, slot),
        .from = cold->opened[lane],
        .to = cold->acked[lane],
        .lane = lane,
    };
    return bf_outbox_put(core, BF_RCPT_ACK, &rcpt, sizeof(rcpt), 0);
}

static bool put_behind(struct bf_core *core, uint32_t slot, uint32_t stream)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    /* healed or dead meanwhile: nothing to say */
    if (hot->state == BF_CONN_CLOSED || !(hot->streams & BF_STREAM_BEHIND(stream)))
        return true;
    struct bf_rcpt_behind rcpt = {
        .user = hot->user,
        .conn = bf_conn_id_of(&core->conns, slot),
        .sent = *bf_conn_sent(&core->conns, slot, stream),
        .stream = stream,
    };
    if (!bf_outbox_put(core, BF_RCPT_BEHIND, &rcpt, sizeof(rcpt), 0))
        return false;
    hot->streams |= BF_STREAM_TOLD(stream);
    return true;
}

static bool put_gone(struct bf_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    if (!(hot->flags & BF_CF_ANNOUNCED))
        return true;
    struct bf_rcpt_gone rcpt = {
        .user = hot->user,
        .conn = bf_conn_id_of(&core->conns, slot),
        .close_code = bf_cold(core, slot)->close_code,
    };
    return bf_outbox_put(core, BF_RCPT_GONE, &rcpt, sizeof(rcpt), 0);
}

static bool put_bit(struct bf_core *core, uint32_t slot, uint16_t bit)
{
    switch (bit) {
    case BF_DIRTY_CONNECT:
        return put_connect(core, slot);
    case BF_DIRTY_GONE:
        return put_gone(core, slot);
    default:
        if (bit < BF_DIRTY_BEHIND(0))
            return put_ack(core, slot, (uint32_t)__builtin_ctz(bit) - 1u);
        return put_behind(core, slot, (uint32_t)__builtin_ctz(bit) - 4u);
    }
}

/* Writes a connection's due receipts, lowest bit first. False: no room, the rest stays due. */
static bool put_conn(struct bf_core *core, uint32_t slot)
{
    struct bf_conn_cold *cold = bf_cold(core, slot);
    while (cold->dirty != 0) {
        uint16_t bit = (uint16_t)(cold->dirty & -cold->dirty);
        if (!put_bit(core, slot, bit))
            return false;
        cold->dirty &= (uint16_t)~bit;
    }
    return true;
}

static void put_masked(struct bf_core *core)
{
    struct bf_outbox *out = &core->outbox;
    while (out->masked_count > 0) {
        const struct bf_outbox_masked *masked = &out->masked[out->masked_count - 1];
        struct bf_rcpt_masked rcpt = {
            .ticket = masked->ticket, .worker = core->worker, .lane = masked->lane};
        if (!bf_outbox_put(core, BF_RCPT_MASKED, &rcpt, sizeof(rcpt), 0))
            return;
        out->masked_count--;
    }
}

bool bf_outbox_flush(struct bf_core *core)
{
    struct bf_outbox *out = &core->outbox;
    put_masked(core);
    for (uint32_t i = 0; i < BF_OUTBOX_DIRTY_PER_TURN && out->dirty_count > 0; i++) {
        uint32_t slot = out->dirty_head;
        if (!put_conn(core, slot))
            break;
        out->dirty_head = bf_cold(core, slot)->dirty_next;
        out->dirty_count--;
        bf_hot(core, slot)->flags &= (uint16_t)~BF_CF_DIRTY;
        bf_core_try_free(core, slot);
    }
    if (out->publish_due) {
        out->publish_due = false;
        bf_ring_publish(&out->ring);
        (void)bf_doorbell_ring(&core->region->receipts_bell);
    }
    return out->dirty_count > 0 || out->masked_count > 0;
}
