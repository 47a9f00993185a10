/* See echo.h. */
#include "worker/echo.h"

#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/ws_frame.h"
#include "belfry/conf/conf.h"
#include "channel/channel.h"
#include "proto/ws/deflate.h"
#include "session/life.h"
#include "worker/worker.h"

/* One of the largest messages with its header. */
#define CHUNKS_PER_MESSAGE_MAX                                                                     \
    ((BF_ECHO_MESSAGE_BYTES_MAX + BF_WS_HEADER_BYTES_MAX) / BF_CHUNK_BYTES_MAX + 1u)
/* No token, so nothing expires: as good as never (10 years). */
#define FOREVER_MS (UINT64_C(3650) * 86400u * 1000u)

_Static_assert(CHUNKS_PER_MESSAGE_MAX + BF_ECHO_QUEUE_CHUNKS < UINT16_MAX,
               "bf_conn_hot.queue_count counts them");
_Static_assert(BF_ECHO_CHUNKS > 2u * CHUNKS_PER_MESSAGE_MAX, "one slow reader stops nobody else");

int bf_echo_init(struct bf_worker *w)
{
    BF_INFO("dataplane", "worker %u: --echo: messages are answered with themselves", w->opts.index);
    w->echo_packed = bf_arena_take(&w->arena, "echo compressed", BF_ECHO_PACKED_BYTES, 1);
    if (!w->echo_packed)
        return BF_ERR_NO_MEMORY;
    return bf_arena_slab(&w->arena, "echo answers", BF_ECHO_CHUNKS, sizeof(struct bf_chunk),
                         &w->core.chunks);
}

void bf_echo_upgrade(struct bf_worker *w, uint32_t slot, const struct bf_upgrade *up)
{
    struct bf_worker_core *core = &w->core;
    char out[BF_UPGRADE_RESPONSE_BYTES_MAX];
    if (!up->is_upgrade) {
        bf_session_refuse(&w->session, slot, 426, "this is a WebSocket endpoint");
        return;
    }
    bool deflate = core->packs.deflater && up->deflate.is_offered;
    size_t len = bf_upgrade_accept(up, deflate, out);
    if (len == 0 || !bf_channel_push_local(core, slot, out, len, BF_RANK_FIRST, 0)) {
        bf_life_gone(core, slot, 0);
        return;
    }
    bf_hot(core, slot)->state = BF_CONN_LIVE;
    bf_conn_set_deflate(&core->conns, slot, deflate ? up->deflate.server_bits : 0);
    bf_cold(core, slot)->deadline = bf_life_tick_of_wall(core, core->wall_ms + FOREVER_MS);
    core->welcomed++;
    bf_worker_count(core, BF_M_upgrades_ok, 1);
    bf_worker_count(core, BF_M_upgrades_deflate, deflate);
    bf_life_file(core, slot);
}

bool bf_echo_has_room(const struct bf_worker *w, uint32_t slot)
{
    const struct bf_slab *chunks = &w->core.chunks;
    return w->core.conns.hot[slot].queue_count < BF_ECHO_QUEUE_CHUNKS &&
           chunks->cap - chunks->used >= CHUNKS_PER_MESSAGE_MAX;
}

/* Queues a frame as chunks. |rsv1|: BF_WS_RSV1 if it is compressed. */
static void answer(struct bf_worker *w, uint32_t slot, enum bf_ws_opcode opcode, uint8_t rsv1,
                   struct bf_bytes payload)
{
    struct bf_worker_core *core = &w->core;
    uint32_t index = bf_slab_take(&core->chunks);
    struct bf_chunk *chunk = bf_slab_at(&core->chunks, index);
    chunk->len = (uint32_t)bf_ws_header_write(chunk->bytes, opcode, payload.len);
    chunk->bytes[0] |= rsv1;
    for (size_t at = 0;;) {
        size_t n = payload.len - at;
        if (n > BF_CHUNK_BYTES_MAX - chunk->len)
            n = BF_CHUNK_BYTES_MAX - chunk->len;
        if (n > 0)
            memcpy(chunk->bytes + chunk->len, payload.at + at, n);
        chunk->len += (uint32_t)n;
        at += n;
        if (!bf_channel_push_chunk(core, slot, index)) {
            bf_life_gone(core, slot, 0); /* half a frame is queued: nothing can follow it */
            return;
        }
        if (at == payload.len)
            return;
        index = bf_slab_take(&core->chunks);
        BF_BUG_ON(index == 0); /* bf_echo_has_room was asked */
        chunk = bf_slab_at(&core->chunks, index);
        chunk->len = 0;
    }
}

/* A message goes back compressed where that was agreed and pays. */
static void answer_message(struct bf_worker *w, uint32_t slot, enum bf_ws_opcode opcode,
                           struct bf_bytes payload)
{
    uint8_t bits = bf_cold(&w->core, slot)->deflate;
    size_t cap = payload.len < BF_ECHO_PACKED_BYTES ? payload.len : BF_ECHO_PACKED_BYTES;
    bf_worker_count(&w->core, BF_M_frames_received, 1);
    if (bits != 0 && payload.len >= w->opts.conf->deflate_min) {
        struct bf_bytes packed = {.at = (const char *)w->echo_packed};
        packed.len = bf_deflate(w->core.packs.deflater, bits, payload, w->echo_packed, cap);
        if (packed.len > 0) {
            bf_worker_count(&w->core, BF_M_frames_packed, 1);
            answer(w, slot, opcode, BF_WS_RSV1, packed);
            return;
        }
    }
    answer(w, slot, opcode, 0, payload);
}

void bf_echo_event(struct bf_worker *w, uint32_t slot, const struct bf_ws_event *event)
{
    struct bf_worker_core *core = &w->core;
    switch (event->kind) {
    case BF_WS_EV_TEXT:
    case BF_WS_EV_BINARY:
        answer_message(w, slot, event->kind == BF_WS_EV_TEXT ? BF_WS_TEXT : BF_WS_BINARY,
                       event->data);
        break;
    case BF_WS_EV_PING:
        answer(w, slot, BF_WS_PONG, 0, event->data);
        break;
    case BF_WS_EV_PONG:
        bf_worker_count(core, BF_M_pongs_received, 1);
        break;
    case BF_WS_EV_CLOSE:
        /* an empty close is answered by an empty close: code 0 stands for no body */
        bf_life_close(core, slot, event->code, "", true);
        break;
    case BF_WS_EV_ERROR:
        bf_worker_count(core, BF_M_client_errors, 1);
        bf_life_close(core, slot, event->code, event->data.at, true);
        break;
    }
}
