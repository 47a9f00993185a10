/*
 * The last step of a shard's turn for what goes in-app: the frame is encoded once into a block, and
 * each worker that has a connection of the person gets a command. Only after the batch was written.
 */
#include "fanout/shard.h"

#include "stats/metrics.h"
#include "belfry/base/time.h"
#include "fanout/core_state.h"
#include "publish/frames.h"

/* Connections on |worker| take the frame; those that lag already wait for their replay. */
static void note_published(struct bf_shard *shard, const struct bf_outgoing *out, uint32_t worker,
                           uint64_t now_ms)
{
    for (struct bf_conn *conn = out->user->conns; conn; conn = conn->next) {
        if (conn->worker != worker || conn->sent[out->lane] < out->prev ||
            conn->sent[out->lane] >= out->seq)
            continue;
        conn->sent[out->lane] = out->seq;
        bf_shard_start_deadline(shard, conn, out->lane, now_ms);
    }
}

static void want_replays(struct bf_shard *shard, const struct bf_outgoing *out, uint64_t workers)
{
    if (out->seq == 0)
        return; /* transient: what does not fit is not sent (DESIGN 4.5) */
    for (struct bf_conn *conn = out->user->conns; conn; conn = conn->next)
        if (workers >> conn->worker & 1u)
            bf_shard_want_replay(shard, conn, out->lane);
}

static uint64_t workers_of(const struct bf_user *user)
{
    uint64_t workers = 0;
    for (const struct bf_conn *conn = user->conns; conn; conn = conn->next)
        workers |= UINT64_C(1) << conn->worker;
    return workers;
}

static void send_frame(struct bf_shard *shard, const struct bf_outgoing *out, uint64_t now_ms)
{
    const struct bf_event *event = out->open->event;
    uint64_t workers = workers_of(out->user);
    struct bf_block_ref ref;
    uint32_t bytes = (uint32_t)bf_frame_n_max(event->fragment.len);
    uint8_t *data = workers ? bf_publisher_alloc(&shard->pub, bytes, &ref) : NULL;
    if (!data) {
        want_replays(shard, out, workers);
        return;
    }
    size_t len = bf_frame_n(data, bytes, out->lane, out->seq, &out->id, event->fragment);
    BF_BUG_ON(len > bytes);
    bf_publisher_set_len(&shard->pub, ref, (uint32_t)len);
    struct bf_cmd_frame cmd = {.user = out->user->key,
                               .block = ref,
                               .prev = out->prev,
                               .seq = out->seq,
                               .collapse = out->collapse,
                               .flags = out->seq == 0 ? BF_FRAME_TRANSIENT : 0};
    for (uint64_t left = workers; left; left &= left - 1) {
        uint32_t w = (uint32_t)__builtin_ctzll(left);
        if (bf_publisher_send(&shard->pub, w, out->lane, BF_CMD_NOTIFY, &cmd, ref)) {
            note_published(shard, out, w, now_ms);
            bf_funnel_count(BF_FUNNEL_DISPATCHED, out->lane, BF_CHANNEL_INAPP, 1);
        } else {
            want_replays(shard, out, UINT64_C(1) << w);
        }
    }
    bf_publisher_drop(&shard->pub, ref); /* nobody took it: free; else its holders do that */
    bf_stage_add(BF_STAGE_FANOUT, out->lane, bf_mono_ns() / 1000 - out->open->opened_us);
}

void bf_shard_send(struct bf_shard *shard)
{
    /* newer than the turn's clock: the write may have taken long, and the time to acknowledge
     * begins when the frame leaves */
    uint64_t now_ms = bf_mono_ms();
    bf_outbound_flush(&shard->outbound);
    for (uint32_t i = 0; i < shard->outgoing_count; i++)
        send_frame(shard, &shard->outgoing[i], now_ms);
    shard->outgoing_count = 0;
    bf_publisher_flush(&shard->pub);
}
