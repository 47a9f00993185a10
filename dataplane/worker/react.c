/*
 * What completions mean. They are taken from the rings first and acted on here afterwards, so
 * nothing recurses. A completion for a slot that was reused is known by its generation and counted.
 */
#include <errno.h>

#include "session/life.h"
#include "worker/worker.h"

/* Requests without a connection (refused accepts) carry no slot. */
#define NO_SLOT ((1u << 24) - 1u)
/* Events between asking for a line and using it: ~20 ns each. */
#define PREFETCH_AHEAD 6u

static void arm_poll(struct bf_worker *w, uint32_t slot)
{
    bf_hot(&w->core, slot)->ops |= BF_OP_POLL;
    bf_io_poll(w->io, bf_sock_of(w, slot));
}

static void accepted(struct bf_worker *w, const struct bf_io_event *event)
{
    struct bf_worker_core *core = &w->core;
    const struct bf_io_sock sock = {
        .slot = NO_SLOT, .file = (uint32_t)event->res, .ring = event->ring};
    if (event->res < 0) {
        bf_worker_count(core, BF_M_accepts_refused, 1);
        return;
    }
    bool may = w->stop_ms == 0 && bf_admission_may_accept(w);
    uint32_t slot = may ? bf_conn_take(&core->conns, event->ring) : BF_SLOT_NONE;
    if (slot == BF_SLOT_NONE) {
        bf_worker_count(core, BF_M_accepts_refused, 1);
        bf_io_reset(w->io, sock);
        bf_io_close(w->io, sock);
        return;
    }
    bf_cold(core, slot)->file = (uint32_t)event->res;
    bf_life_start(core, slot);
    if (event->aux == BF_LISTENER_TLS)
        bf_secure_start(w, slot);
    if (BF_UNLIKELY(bf_admission_ask(w, slot)))
        bf_hot(core, slot)->ops |= BF_OP_POLL; /* stands for the question, until it is answered */
    else if (bf_admission_look(w, slot))
        arm_poll(w, slot);
    bf_worker_count(core, BF_M_accepts, 1);
}

static void told_address(struct bf_worker *w, const struct bf_io_event *event)
{
    bf_hot(&w->core, event->slot)->ops &= (uint8_t)~BF_OP_POLL;
    if (bf_admission_answer(w, event))
        arm_poll(w, event->slot);
}

static void readable(struct bf_worker *w, const struct bf_io_event *event)
{
    struct bf_conn_hot *hot = bf_hot(&w->core, event->slot);
    if (!event->more)
        hot->ops &= (uint8_t)~BF_OP_POLL;
    if (hot->state == BF_CONN_CLOSED)
        return;
    if (!event->more) {
        hot->ops |= BF_OP_POLL;
        bf_io_poll(w->io, bf_sock_of(w, event->slot));
    }
    bf_rx_readable(w, event->slot);
}

static void react_one(struct bf_worker *w, const struct bf_io_event *event)
{
    struct bf_worker_core *core = &w->core;
    struct bf_conn_hot *hot = bf_hot(core, event->slot);
    switch (event->op) {
    case BF_IO_POLL:
        readable(w, event);
        break;
    case BF_IO_RECV:
        bf_rx_received(w, event);
        break;
    case BF_IO_PEER:
        told_address(w, event);
        break;
    case BF_IO_SEND:
        bf_tx_sent(w, event);
        break;
    case BF_IO_KTLS:
        bf_secure_handed_over(w, event);
        break;
    case BF_IO_ALERT:
        bf_secure_alerted(w, event);
        break;
    case BF_IO_POLLOUT:
        hot->ops &= (uint8_t)~BF_OP_POLLOUT;
        bf_ready_add(core, event->slot, false);
        break;
    case BF_IO_SHUTDOWN:
        hot->ops &= (uint8_t)~BF_OP_SHUTDOWN;
        break;
    case BF_IO_CANCEL:
        hot->ops &= (uint8_t) ~(event->aux == BF_IO_POLL ? BF_OP_CANCEL : BF_OP_CANCEL_OUT);
        break;
    case BF_IO_CLOSE:
        hot->ops &= (uint8_t)~BF_OP_CLOSE;
        hot->flags |= BF_CF_SOCKET_DONE;
        bf_io_closed(w->io, event->ring);
        break;
    default:
        break;
    }
    if (hot->state == BF_CONN_CLOSED)
        bf_worker_core_try_free(core, event->slot);
}

void bf_react_event(struct bf_worker *w, const struct bf_io_event *event)
{
    struct bf_worker_core *core = &w->core;
    if (event->op == BF_IO_ACCEPT) {
        accepted(w, event);
    } else if (event->slot == NO_SLOT) {
        if (event->op == BF_IO_CLOSE)
            bf_io_closed(w->io, event->ring);
    } else if (event->slot >= core->conns.cap) {
        bf_provider_event(w, event);
    } else if ((bf_cold(core, event->slot)->generation & BF_IO_GENERATION_MASK) !=
                   event->generation ||
               bf_hot(core, event->slot)->state == BF_CONN_FREE) {
        bf_worker_count(core, BF_M_io_late, 1);
    } else {
        react_one(w, event);
    }
}

uint32_t bf_react(struct bf_worker *w)
{
    struct bf_worker_core *core = &w->core;
    uint32_t n = bf_io_reap(w->io, w->events, BF_REAP_PER_TURN);
    for (uint32_t i = 0; i < n; i++) {
        /* the sends in between have pushed the connections' lines out of the near caches */
        if (i + PREFETCH_AHEAD < n && w->events[i + PREFETCH_AHEAD].slot < core->conns.cap) {
            __builtin_prefetch(bf_hot(core, w->events[i + PREFETCH_AHEAD].slot), 1);
            __builtin_prefetch(bf_cold(core, w->events[i + PREFETCH_AHEAD].slot), 1);
        }
        bf_react_event(w, &w->events[i]);
    }
    return n;
}
