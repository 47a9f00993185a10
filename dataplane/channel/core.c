/* Slot release. See core.h. */
#include "channel/core.h"

#include "channel/stream.h"

void bf_core_try_free(struct bf_core *core, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    const uint16_t busy = BF_CF_READY | BF_CF_URGENT | BF_CF_DIRTY | BF_CF_TIMED | BF_CF_RX_BLOCKED;
    if (hot->state == BF_CONN_CLOSED && hot->ops == 0 && (hot->flags & BF_CF_SOCKET_DONE) &&
        !(hot->flags & busy) && hot->queue_head == 0) {
        if (BF_UNLIKELY(hot->streams & BF_STREAMS_AS_EVENTS))
            bf_stream_drop(core, slot);
        bf_conn_put(&core->conns, slot);
    }
}
