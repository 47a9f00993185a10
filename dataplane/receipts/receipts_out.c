/* See receipts_out.h. Order per connection: CONNECT, acknowledgements, behind, GONE. */
#include "receipts/receipts_out.h"

#include <string.h>

#include "memory/pending.h"

static struct bf_conn_hot *hot_of(const struct bf_rcpt_out *out, uint32_t slot)
{
    return &out->of.conns->hot[slot];
}

static struct bf_conn_cold *cold_of(const struct bf_rcpt_out *out, uint32_t slot)
{
    return &out->of.conns->cold[slot];
}

void bf_rcpt_out_init(struct bf_rcpt_out *out, const struct bf_rcpt_out_of *of)
{
    *out = (struct bf_rcpt_out){.of = *of};
    bf_ring_producer_attach(&out->ring, bf_receipt_ring(of->region, of->worker),
                            bf_receipt_control(of->region, of->worker),
                            (uint32_t)of->region->generation | 1u);
}

void bf_rcpt_mark(struct bf_rcpt_out *out, uint32_t slot, uint16_t bits)
{
    struct bf_conn_hot *hot = hot_of(out, slot);
    cold_of(out, slot)->dirty |= bits;
    if (hot->flags & BF_CF_DIRTY)
        return;
    hot->flags |= BF_CF_DIRTY;
    cold_of(out, slot)->dirty_next = BF_SLOT_NONE;
    if (out->dirty_count == 0)
        out->dirty_head = slot;
    else
        cold_of(out, out->dirty_tail)->dirty_next = slot;
    out->dirty_tail = slot;
    out->dirty_count++;
}

bool bf_rcpt_put(struct bf_rcpt_out *out, enum bf_rcpt_kind kind, const void *bytes, uint32_t len,
                 uint32_t reserve)
{
    uint32_t slots = (len + BF_SLOT_PAYLOAD_BYTES - 1) / BF_SLOT_PAYLOAD_BYTES;
    if (bf_ring_free(&out->ring, slots + reserve) < slots + reserve ||
        !bf_ring_put_message(&out->ring, (uint16_t)kind, bytes, len)) {
        bf_metric_add(out->of.stats, BF_M_receipts_full, 1);
        return false;
    }
    bf_metric_add(out->of.stats, BF_M_receipts, 1);
    out->publish_due = true;
    return true;
}

static bool put_connect(struct bf_rcpt_out *out, uint32_t slot)
{
    struct bf_conn_hot *hot = hot_of(out, slot);
    uint8_t *m = out->message;
    uint32_t aux = cold_of(out, slot)->aux;
    if (hot->state != BF_CONN_AUTH || aux == 0)
        return true; /* gone or welcomed meanwhile */
    const struct bf_pending *p = bf_slab_at(out->of.pendings, aux);
    struct bf_rcpt_connect rcpt = {
        .user = hot->user,
        .conn = bf_conn_id_of(out->of.conns, slot),
        .device = cold_of(out, slot)->device,
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
    if (!bf_rcpt_put(out, BF_RCPT_CONNECT, m, (uint32_t)len, 0))
        return false;
    hot->flags |= BF_CF_ANNOUNCED;
    return true;
}

static bool put_ack(struct bf_rcpt_out *out, uint32_t slot, uint32_t lane)
{
    const struct bf_conn_cold *cold = cold_of(out, slot);
    struct bf_rcpt_ack rcpt = {
        .user = hot_of(out, slot)->user,
        .conn = bf_conn_id_of(out->of.conns, slot),
        .from = cold->opened[lane],
        .to = cold->acked[lane],
        .lane = lane,
    };
    return bf_rcpt_put(out, BF_RCPT_ACK, &rcpt, sizeof(rcpt), 0);
}

static bool put_behind(struct bf_rcpt_out *out, uint32_t slot, uint32_t stream)
{
    struct bf_conn_hot *hot = hot_of(out, slot);
    /* healed or dead meanwhile: nothing to say */
    if (hot->state == BF_CONN_CLOSED || !(hot->streams & BF_STREAM_BEHIND(stream)))
        return true;
    struct bf_rcpt_behind rcpt = {
        .user = hot->user,
        .conn = bf_conn_id_of(out->of.conns, slot),
        .sent = *bf_conn_sent(out->of.conns, slot, stream),
        .stream = stream,
    };
    if (!bf_rcpt_put(out, BF_RCPT_BEHIND, &rcpt, sizeof(rcpt), 0))
        return false;
    hot->streams |= BF_STREAM_TOLD(stream);
    return true;
}

static bool put_gone(struct bf_rcpt_out *out, uint32_t slot)
{
    struct bf_conn_hot *hot = hot_of(out, slot);
    if (!(hot->flags & BF_CF_ANNOUNCED))
        return true;
    struct bf_rcpt_gone rcpt = {
        .user = hot->user,
        .conn = bf_conn_id_of(out->of.conns, slot),
        .close_code = cold_of(out, slot)->close_code,
    };
    return bf_rcpt_put(out, BF_RCPT_GONE, &rcpt, sizeof(rcpt), 0);
}

static bool put_bit(struct bf_rcpt_out *out, uint32_t slot, uint16_t bit)
{
    switch (bit) {
    case BF_DIRTY_CONNECT:
        return put_connect(out, slot);
    case BF_DIRTY_GONE:
        return put_gone(out, slot);
    default:
        if (bit < BF_DIRTY_BEHIND(0))
            return put_ack(out, slot, (uint32_t)__builtin_ctz(bit) - 1u);
        return put_behind(out, slot, (uint32_t)__builtin_ctz(bit) - 4u);
    }
}

/* Writes a connection's due receipts, lowest bit first. False: no room, the rest stays due. */
static bool put_conn(struct bf_rcpt_out *out, uint32_t slot)
{
    struct bf_conn_cold *cold = cold_of(out, slot);
    while (cold->dirty != 0) {
        uint16_t bit = (uint16_t)(cold->dirty & -cold->dirty);
        if (!put_bit(out, slot, bit))
            return false;
        cold->dirty &= (uint16_t)~bit;
    }
    return true;
}

static void put_masked(struct bf_rcpt_out *out)
{
    while (out->masked_count > 0) {
        const struct bf_rcpt_out_masked *masked = &out->masked[out->masked_count - 1];
        struct bf_rcpt_masked rcpt = {
            .ticket = masked->ticket, .worker = out->of.worker, .lane = masked->lane};
        if (!bf_rcpt_put(out, BF_RCPT_MASKED, &rcpt, sizeof(rcpt), 0))
            return;
        out->masked_count--;
    }
}

bool bf_rcpt_flush(struct bf_rcpt_out *out, void (*through)(void *arg, uint32_t slot), void *arg)
{
    put_masked(out);
    for (uint32_t i = 0; i < BF_RCPT_OUT_DIRTY_PER_TURN && out->dirty_count > 0; i++) {
        uint32_t slot = out->dirty_head;
        if (!put_conn(out, slot))
            break;
        out->dirty_head = cold_of(out, slot)->dirty_next;
        out->dirty_count--;
        hot_of(out, slot)->flags &= (uint16_t)~BF_CF_DIRTY;
        through(arg, slot);
    }
    if (out->publish_due) {
        out->publish_due = false;
        bf_ring_publish(&out->ring);
        (void)bf_doorbell_ring(&out->of.region->receipts_bell);
    }
    return out->dirty_count > 0 || out->masked_count > 0;
}
