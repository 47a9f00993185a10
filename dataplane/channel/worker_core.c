/* Slot release, and the receipts of the core. See worker_core.h. */
#include "channel/worker_core.h"

#include "channel/sse_client.h"

void bf_worker_core_try_free(struct bf_worker_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    const uint16_t busy = BF_CF_READY | BF_CF_URGENT | BF_CF_DIRTY | BF_CF_TIMED | BF_CF_RX_BLOCKED;
    if (hot->state == BF_CONN_CLOSED && hot->ops == 0 && (hot->flags & BF_CF_SOCKET_DONE) &&
        !(hot->flags & busy) && hot->queue_head == 0) {
        if (BF_UNLIKELY(hot->streams & BF_STREAMS_AS_EVENTS))
            bf_sse_client_drop(core, slot);
        bf_conn_put(&core->conns, slot);
    }
}

void bf_worker_core_open_outbox(struct bf_worker_core *core)
{
    const struct bf_rcpt_out_of of = {.region = core->region,
                                      .stats = core->stats,
                                      .conns = &core->conns,
                                      .pendings = &core->pendings,
                                      .worker = core->worker};
    bf_rcpt_out_init(&core->receipts, &of);
}

static void try_free(void *arg, uint32_t slot)
{
    bf_worker_core_try_free(arg, slot);
}

bool bf_worker_core_flush_outbox(struct bf_worker_core *core)
{
    return bf_rcpt_flush(&core->receipts, try_free, core);
}
