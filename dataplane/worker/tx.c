/*
 * Bytes out: everything queued for a connection leaves in one send, one send of a socket at a time.
 * A send is MSG_DONTWAIT, so it is through when it was submitted and its copies are free; what it
 * did not take stays in the queue until the socket is writable. Ends of sockets are here too,
 * because they wait for the same completions.
 */
#include <errno.h>

#include "belfry/shm/layout.h"
#include "channel/channel.h"
#include "session/life.h"
#include "worker/worker.h"

/* Connections whose cache lines are prefetched before their send. */
#define PREFETCH_AHEAD 4u

/* Cancels what the kernel holds of the socket, then closes it; both are submitted in this order. */
static void close_socket(struct bf_worker *w, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(&w->core, slot);
    if ((hot->ops & BF_OP_CLOSE) || (hot->flags & BF_CF_SOCKET_DONE))
        return;
    bf_rx_drop(w, slot);
    if (BF_UNLIKELY(hot->flags & BF_CF_TLS))
        bf_secure_drop(w, slot);
    bf_admission_release(w, slot);
    if (hot->ops & BF_OP_POLL) {
        bf_io_cancel(w->io, bf_sock_of(w, slot), BF_IO_POLL);
        hot->ops |= BF_OP_CANCEL;
    }
    if (hot->ops & BF_OP_POLLOUT) {
        bf_io_cancel(w->io, bf_sock_of(w, slot), BF_IO_POLLOUT);
        hot->ops |= BF_OP_CANCEL_OUT;
    }
    bf_io_close(w->io, bf_sock_of(w, slot));
    hot->ops |= BF_OP_CLOSE;
}

/* The close frame has left: no more bytes from us; the peer's end follows, or the deadline. */
static void shut(struct bf_worker *w, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(&w->core, slot);
    hot->state = BF_CONN_LINGER;
    if (BF_UNLIKELY(hot->flags & BF_CF_TLS) && bf_secure_is_by_kernel(w, slot))
        return; /* a FIN would overtake records that the kernel has made and not passed on: close
                   does not */
    hot->ops |= BF_OP_SHUTDOWN;
    bf_io_shutdown(w->io, bf_sock_of(w, slot));
}

size_t bf_tx_queued(struct bf_worker *w, uint32_t slot)
{
    struct bf_send batch =
        bf_channel_batch(&w->core, slot, w->copies + w->copied, BF_COALESCE_BYTES);
    if (batch.len == 0)
        return 0;
    /* keep copies on their own cache lines */
    w->copied += (batch.copied + 63u) & ~(size_t)63u;
    bf_hot(&w->core, slot)->ops |= BF_OP_SEND;
    bf_io_send(w->io, bf_sock_of(w, slot), batch.bytes, batch.len);
    bf_worker_count(&w->core, BF_M_sends, 1);
    return batch.len;
}

/* Starts the next send of a connection. Returns whether one was started. */
static bool send_next(struct bf_worker *w, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(&w->core, slot);
    if (hot->ops & (BF_OP_SEND | BF_OP_POLLOUT))
        return false;
    if (BF_UNLIKELY(hot->flags & BF_CF_TLS)) {
        bool sent = bf_secure_send(w, slot);
        if (!sent && hot->state == BF_CONN_CLOSING && hot->queue_head == 0 &&
            bf_secure_is_drained(w, slot))
            shut(w, slot);
        return sent;
    }
    if (bf_tx_queued(w, slot) > 0)
        return true;
    if (hot->state == BF_CONN_CLOSING && hot->queue_head == 0)
        shut(w, slot);
    return false;
}

uint32_t bf_tx_run(struct bf_worker *w, uint32_t sends_max)
{
    uint32_t sends = 0;
    while (sends < sends_max && w->copied + BF_COALESCE_BYTES <= BF_COPY_ARENA_BYTES) {
        uint32_t slot = bf_ready_take(&w->core);
        if (slot == BF_SLOT_NONE)
            break;
        uint32_t soon = bf_ready_peek(&w->core.ready, PREFETCH_AHEAD);
        if (soon != BF_SLOT_NONE) {
            __builtin_prefetch(bf_hot(&w->core, soon), 1);
            __builtin_prefetch(bf_cold(&w->core, soon), 1);
        }
        if (bf_hot(&w->core, slot)->state == BF_CONN_CLOSED) {
            close_socket(w, slot);
            bf_worker_core_try_free(&w->core, slot);
        } else {
            sends += send_next(w, slot);
        }
    }
    return sends;
}

void bf_tx_stamp(struct bf_worker *w, uint32_t slot)
{
    bf_cold(&w->core, slot)->last_tx = w->core.tick;
}

void bf_tx_wait(struct bf_worker *w, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(&w->core, slot);
    hot->ops |= BF_OP_POLLOUT;
    bf_cold(&w->core, slot)->last_tx = w->core.tick; /* slow counts from here */
    bf_io_pollout(w->io, bf_sock_of(w, slot));
    bf_life_file(&w->core, slot);
}

void bf_tx_sent(struct bf_worker *w, const struct bf_io_event *event)
{
    struct bf_worker_core *core = &w->core;
    uint32_t slot = event->slot;
    struct bf_conn_hot *hot = bf_hot(core, slot);
    size_t bytes = event->res > 0 ? (size_t)event->res : 0;
    if (BF_UNLIKELY(hot->flags & BF_CF_TLS) && !bf_secure_is_by_kernel(w, slot)) {
        bf_secure_sent(w, event);
        return;
    }
    hot->ops &= (uint8_t)~BF_OP_SEND;
    (void)bf_channel_sent(core, slot, bytes);
    bf_worker_count(core, BF_M_bytes_sent, bytes);
    if (bytes > 0)
        bf_tx_stamp(w, slot);
    if (hot->state == BF_CONN_CLOSED) {
        bf_channel_drop(core, slot);
    } else if (event->res < 0 && event->res != -EAGAIN && event->res != -EINTR) {
        bf_worker_count(core, BF_M_sends_failed, 1);
        bf_life_gone(core, slot, 0);
    } else if (event->res < 0 || (hot->flags & BF_CF_PARTIAL)) {
        bf_worker_count(core, BF_M_sends_short, 1);
        bf_tx_wait(w, slot);
    } else if (hot->queue_head != 0 || hot->state == BF_CONN_CLOSING) {
        bf_ready_add(core, slot, false);
    }
}
