/*
 * The whole way of a message through --echo without sockets: bytes of a client -> receive side ->
 * echo -> queue -> batches, of which a socket takes pieces of any size. What leaves must be, frame
 * by frame, what the events said, compressed or not; at the end every node and chunk is back. The
 * first byte chooses the pieces and whether compression was agreed, the second our window.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/ws_frame.h"
#include "belfry/conf/conf_load.h"
#include "belfry/plane.h"
#include "channel/channel.h"
#include "proto/ws/deflate.h"
#include "session/life.h"
#include "worker/echo.h"
#include "worker/worker.h"

#define MESSAGE_MAX 2048u
#define OUT_MAX     (1u << 20)
#define DEFLATE_MIN 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct bf_worker *w;
static uint8_t out[OUT_MAX];
static size_t out_len;

static void slab(struct bf_slab *s, uint32_t count, uint32_t bytes)
{
    *s = (struct bf_slab){.base = calloc(count, bytes), .item_bytes = bytes, .cap = count};
}

static void start(void)
{
    static struct bf_conf conf;
    struct bf_worker_core *core;
    if (bf_conf_set_defaults(&conf) != 0)
        abort();
    conf.deflate_min = DEFLATE_MIN;
    conf.blocks_256 = conf.blocks_1k = 256;
    conf.blocks_4k = conf.blocks_16k = conf.blocks_80k = 8;
    conf.receipt_slots = 1024;
    conf.command_slots = 256;
    unsigned long bytes = (bf_region_bytes(&conf) + 4095) / 4096 * 4096;
    void *memory = aligned_alloc(4096, bytes);
    w = calloc(1, sizeof(*w));
    memset(memory, 0, bytes);
    core = &w->core;
    if (bf_region_create(memory, bytes, &conf, &core->region) != 0)
        abort();
    w->opts.conf = &conf;
    core->stats = bf_stats(core->region, 0);
    core->limits = (struct bf_limits){.ping_interval_ms = 30000, .presence_timeout_ms = 60000};
    core->limits.conn_queue_frames = 64;
    bf_conns_init(&core->conns, calloc(8, sizeof(struct bf_conn_hot)),
                  calloc(8, sizeof(struct bf_conn_cold)), 1, 8, 8);
    bf_wheel_init(&core->wheel, 0);
    bf_worker_core_open_outbox(core);
    core->urgent.slots = calloc(BF_URGENT_MAX, sizeof(uint32_t));
    core->ready = (struct bf_ready){.slots = calloc(8, sizeof(uint32_t)), .cap = 8};
    slab(&core->nodes, 20000, sizeof(struct bf_node));
    slab(&core->locals, 64, sizeof(struct bf_local));
    slab(&core->chunks, 4096, sizeof(struct bf_chunk));
    core->packs.deflater = bf_deflater_create();
    w->echo_packed = calloc(1, MESSAGE_MAX);
    w->rx_pool = bf_ws_rx_pool_create(1, MESSAGE_MAX);
}

/* The socket takes up to |piece| bytes of what is queued. */
static void take(uint32_t slot, size_t piece)
{
    static uint8_t buffer[BF_COALESCE_BYTES];
    struct bf_send batch = bf_channel_batch(&w->core, slot, buffer, sizeof(buffer));
    size_t n = batch.len < piece ? batch.len : piece;
    if (n > OUT_MAX - out_len)
        abort();
    if (n > 0)
        memcpy(out + out_len, batch.bytes, n);
    out_len += n;
    (void)bf_channel_sent(&w->core, slot, n);
}

/* The next frame of |out| must be this one. Returns where it ends. */
static size_t check_frame(size_t at, uint8_t opcode, const uint8_t *payload, size_t len)
{
    static struct bf_inflater *z;
    static uint8_t plain[MESSAGE_MAX + 1u];
    if (out_len - at < 2 || (out[at] & 0x0f) != opcode || !(out[at] & 0x80) || (out[at + 1] & 0x80))
        abort();
    size_t n = out[at + 1], head = 2;
    if (n == 126) {
        n = (size_t)out[at + 2] << 8 | out[at + 3];
        head = 4;
    }
    if (n > out_len - at - head || head != bf_ws_header_bytes(n))
        abort();
    const uint8_t *got = out + at + head;
    size_t got_len = n;
    if (out[at] & BF_WS_RSV1) {
        z = z ? z : bf_inflater_create();
        if (bf_inflate(z, (struct bf_bytes){.at = (const char *)got, .len = n}, plain, MESSAGE_MAX,
                       &got_len) != 0)
            abort();
        got = plain;
    }
    if (got_len != len || (len > 0 && memcmp(got, payload, len) != 0))
        abort();
    return at + head + n;
}

/* Feeds everything, taking pieces between events; notes what must come back. */
static size_t run(uint32_t slot, uint8_t *bytes, size_t len, size_t piece, uint8_t *want)
{
    struct bf_ws_rx *rx = NULL;
    size_t want_len = 0;
    while (len > 0 && bf_hot(&w->core, slot)->state == BF_CONN_LIVE) {
        struct bf_ws_event event;
        size_t used = 0;
        if (bf_ws_rx_feed(w->rx_pool, &rx, (bf_hot(&w->core, slot)->flags & BF_CF_DEFLATE) != 0,
                          bytes, len, &used, &event) != 1)
            break;
        bytes += used;
        len -= used;
        if (event.kind <= BF_WS_EV_PING) {
            const uint8_t opcodes[] = {BF_WS_TEXT, BF_WS_BINARY, BF_WS_PONG};
            want[want_len] = opcodes[event.kind];
            want[want_len + 1] = (uint8_t)(event.data.len >> 8);
            want[want_len + 2] = (uint8_t)event.data.len;
            if (event.data.len > 0)
                memcpy(want + want_len + 3, event.data.at, event.data.len);
            want_len += 3 + event.data.len;
        }
        bf_echo_event(w, slot, &event);
        take(slot, piece);
    }
    bf_ws_rx_drop(w->rx_pool, &rx);
    return want_len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t want[OUT_MAX];
    if (!w)
        start();
    if (size < 3 || size > 1024) /* inflated, 1 KiB is at most 170 messages of 2 KiB: fits |want| */
        return 0;
    struct bf_worker_core *core = &w->core;
    uint32_t slot = bf_conn_take(&core->conns, 0);
    struct bf_conn_hot *hot = bf_hot(core, slot);
    bf_life_start(core, slot);
    hot->state = BF_CONN_LIVE;
    core->welcomed++;
    bf_conn_set_deflate(&core->conns, slot, data[0] & 0x80 ? (uint8_t)(8u + data[1] % 8u) : 0);
    uint8_t *bytes = malloc(size - 2);
    memcpy(bytes, data + 2, size - 2);
    out_len = 0;
    size_t want_len = run(slot, bytes, size - 2, 1u + (data[0] & 0x7fu) * 7u, want);
    while (hot->queue_head != 0)
        take(slot, OUT_MAX);
    size_t at = 0;
    for (size_t i = 0; i < want_len;) {
        size_t n = (size_t)want[i + 1] << 8 | want[i + 2];
        at = check_frame(at, want[i], want + i + 3, n);
        i += 3 + n;
    }
    if (hot->state == BF_CONN_LIVE ? at != out_len : (out[at] & 0x0f) != BF_WS_CLOSE)
        abort();
    if (core->nodes.used != 0 || core->chunks.used != 0 || core->locals.used != 0)
        abort();
    bf_life_gone(core, slot, 0);
    while (bf_ready_take(core) != BF_SLOT_NONE)
        continue;
    hot->flags |= BF_CF_SOCKET_DONE;
    bf_worker_core_try_free(core, slot);
    if (hot->state != BF_CONN_FREE)
        abort();
    free(bytes);
    return 0;
}
