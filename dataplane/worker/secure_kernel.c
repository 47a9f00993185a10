/*
 * TLS connections whose records the kernel makes (option tls.kernel). The key is offered when the
 * first data is to be sent: by then the last record of ours, the tickets, has been taken by the
 * socket, and nothing is sent until the kernel has answered, so that its sequence begins where ours
 * ends.
 *
 * The end of such a connection is told by an alert with a record type of its own. No FIN follows it
 * until the socket is closed: records for which the socket had no room wait in the kernel, and a
 * shutdown would overtake them.
 */
#include <errno.h>
#include <string.h>

#include "channel/channel.h"
#include "io/ktls.h"
#include "session/life.h"
#include "worker/worker.h"

/* Sent to a client whose key may not be used any longer: it may come back at once. */
#define WORN_RECONNECT_MS 1000u

static const uint8_t close_notify[2] = {1, 0};

static struct bf_secure_conn *conn_of(struct bf_worker *w, uint32_t slot)
{
    return &w->secure.conns[slot];
}

bool bf_secure_is_by_kernel(const struct bf_worker *w, uint32_t slot)
{
    return w->secure.conns[slot].flags & BF_SF_KERNEL;
}

int bf_secure_kernel_init(struct bf_worker *w)
{
    return bf_arena_slab(&w->arena, "keys for the kernel", BF_TLS_HANDOVERS,
                         sizeof(struct bf_ktls_info), &w->secure.handovers);
}

/* ---- the key ---- */

/* Describes the key for the kernel. 0: it is not to have it. */
static uint32_t describe(struct bf_worker *w, const struct bf_secure_conn *conn)
{
    struct bf_slab *handovers = &w->secure.handovers;
    struct bf_tls_kernel_keys keys;
    uint32_t index = 0;
    if (!bf_tls_kernel_offer(&conn->tls, &keys))
        return 0;
    if ((w->opts.ktls_suites & bf_ktls_bit(keys.suite)) && (index = bf_slab_take(handovers)) != 0) {
        const struct bf_ktls_keys plain = {
            .suite = keys.suite, .key = keys.key, .iv = keys.iv, .sequence = keys.sequence};
        if (!bf_ktls_info_set(bf_slab_at(handovers, index), &plain)) {
            bf_slab_put(handovers, index);
            index = 0;
        }
    }
    explicit_bzero(&keys, sizeof(keys));
    return index;
}

bool bf_secure_offer(struct bf_worker *w, uint32_t slot)
{
    struct bf_secure_conn *conn = conn_of(w, slot);
    conn->flags &= (uint8_t)~BF_SF_OFFER;
    uint32_t index = describe(w, conn);
    if (index == 0) {
        bf_worker_count(&w->core, BF_M_ktls_failed, 1);
        return false;
    }
    /* stands for the answer: nothing else is sent */
    bf_hot(&w->core, slot)->ops |= BF_OP_SEND;
    bf_io_ktls(w->io, bf_sock_of(w, slot), bf_slab_at(&w->secure.handovers, index),
               (uint16_t)index);
    return true;
}

void bf_secure_handed_over(struct bf_worker *w, const struct bf_io_event *event)
{
    struct bf_secure *s = &w->secure;
    struct bf_worker_core *core = &w->core;
    uint32_t slot = event->slot;
    struct bf_conn_hot *hot = bf_hot(core, slot);
    struct bf_secure_conn *conn = conn_of(w, slot);
    explicit_bzero(bf_slab_at(&s->handovers, event->aux), sizeof(struct bf_ktls_info));
    bf_slab_put(&s->handovers, event->aux);
    hot->ops &= (uint8_t)~BF_OP_SEND;
    if (hot->state == BF_CONN_CLOSED)
        return;
    if (event->res == 0) {
        bf_tls_kernel_taken(&conn->tls);
        conn->flags |= BF_SF_KERNEL;
        bf_metric_set(core->stats, BF_M_ktls_connections, ++s->by_kernel);
        bf_secure_kernel_look(w, slot); /* what was read since the offer */
    } else {
        bf_worker_count(core, BF_M_ktls_failed, 1);
    }
    if (hot->queue_head != 0 || hot->state == BF_CONN_CLOSING)
        bf_ready_add(core, slot, false);
}

/* ---- out ---- */

bool bf_secure_alert(struct bf_worker *w, uint32_t slot, const uint8_t bytes[2])
{
    struct bf_conn_hot *hot = bf_hot(&w->core, slot);
    size_t room = (sizeof(struct bf_ktls_alert) + 63u) & ~(size_t)63u;
    if ((hot->ops & BF_OP_SEND) || w->copied + room > BF_COPY_ARENA_BYTES)
        return false;
    struct bf_ktls_alert *alert = (struct bf_ktls_alert *)(void *)(w->copies + w->copied);
    w->copied += room;
    bf_ktls_alert_set(alert, bytes);
    hot->ops |= BF_OP_SEND;
    bf_io_alert(w->io, bf_sock_of(w, slot), alert);
    bf_worker_count(&w->core, BF_M_sends, 1);
    return true;
}

void bf_secure_alerted(struct bf_worker *w, const struct bf_io_event *event)
{
    struct bf_worker_core *core = &w->core;
    uint32_t slot = event->slot;
    struct bf_conn_hot *hot = bf_hot(core, slot);
    hot->ops &= (uint8_t)~BF_OP_SEND;
    bf_worker_count(core, BF_M_bytes_sent, event->res > 0 ? (uint64_t)event->res : 0);
    if (hot->state == BF_CONN_CLOSED)
        return;
    if (event->res == -EAGAIN || event->res == -EINTR) {
        bf_worker_count(core, BF_M_sends_short, 1);
        conn_of(w, slot)->flags &= (uint8_t)~BF_SF_CLOSED; /* said again */
        bf_tx_wait(w, slot);
    } else if (event->res < 0) {
        bf_worker_count(core, BF_M_sends_failed, 1);
        bf_life_gone(core, slot, 0);
    } else {
        bf_tx_stamp(w, slot);
        bf_ready_add(core, slot, false);
    }
}

/* Returns whether it is being said: once. */
static bool say_close(struct bf_worker *w, uint32_t slot)
{
    struct bf_secure_conn *conn = conn_of(w, slot);
    if ((conn->flags & BF_SF_CLOSED) || !bf_secure_alert(w, slot, close_notify))
        return false;
    conn->flags |= BF_SF_CLOSED;
    return true;
}

/* The peer has asked for a key that the kernel cannot change to. Until the key has changed no data
 * may be sent, not even a close frame (RFC 8446 section 4.6.3), so the peer only sees that TLS ends
 * the stream. */
static bool end_mute(struct bf_worker *w, uint32_t slot)
{
    if (say_close(w, slot))
        return true;
    bf_life_gone(&w->core, slot, 0);
    return false;
}

bool bf_secure_kernel_send(struct bf_worker *w, uint32_t slot)
{
    struct bf_worker_core *core = &w->core;
    struct bf_secure_conn *conn = conn_of(w, slot);
    const struct bf_conn_hot *hot = bf_hot(core, slot);
    enum bf_tls_kernel_state state = bf_tls_kernel_state(w->secure.engine, &conn->tls);
    if (state == BF_TLS_KERNEL_MUTE)
        return end_mute(w, slot);
    if (state == BF_TLS_KERNEL_WORN && hot->state < BF_CONN_CLOSING) {
        bf_worker_count(core, BF_M_ktls_renewals, 1);
        bf_life_goaway(core, slot, BF_CLOSE_LIFETIME, "lifetime", WORN_RECONNECT_MS);
    }
    size_t len = bf_tx_queued(w, slot);
    if (len > 0) {
        bf_tls_kernel_sent(&conn->tls, len);
        return true;
    }
    return hot->state == BF_CONN_CLOSING && hot->queue_head == 0 && say_close(w, slot);
}

void bf_secure_kernel_look(struct bf_worker *w, uint32_t slot)
{
    struct bf_worker_core *core = &w->core;
    if (bf_tls_kernel_state(w->secure.engine, &conn_of(w, slot)->tls) != BF_TLS_KERNEL_MUTE ||
        bf_hot(core, slot)->state >= BF_CONN_CLOSING)
        return;
    bf_worker_count(core, BF_M_ktls_renewals, 1);
    bf_life_close(core, slot, BF_CLOSE_LIFETIME, "lifetime", false);
}
