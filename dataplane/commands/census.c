/* See census.h. The answer is read by a control process that starts: what it must know to go on. */
#include "commands/census.h"

#include <string.h>

#include "channel/channel.h"
#include "session/life.h"

void bf_census_start(struct bf_commands *in, uint64_t ticket)
{
    struct bf_census *census = &in->census;
    *census = (struct bf_census){.active = true, .draining = true, .ticket = ticket};
    for (uint32_t p = 0; p < in->producers; p++) {
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
            census->until[p][lane] = bf_ring_load(&in->rings[p][lane].ring->prod.tail);
    }
}

static bool are_rings_taken(struct bf_commands *in)
{
    for (uint32_t p = 0; p < in->producers; p++) {
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++) {
            if ((int32_t)(in->rings[p][lane].next - in->census.until[p][lane]) < 0)
                return false;
        }
    }
    return true;
}

static bool report(struct bf_worker_core *core, uint64_t ticket, uint32_t slot)
{
    struct bf_conn_hot *hot = bf_hot(core, slot);
    const struct bf_conn_cold *cold = bf_cold(core, slot);
    struct bf_rcpt_census_conn rcpt = {
        .ticket = ticket,
        .user = hot->user,
        .conn = bf_conn_id_of(&core->conns, slot),
        .device = cold->device,
        .flags = (hot->streams & 0xfu) | (hot->state == BF_CONN_LIVE ? BF_CENSUS_WELCOMED : 0) |
                 (hot->flags & BF_CF_MASKED ? BF_CENSUS_MASKED : 0),
    };
    memcpy(rcpt.opened, cold->opened, sizeof(rcpt.opened));
    memcpy(rcpt.sent, hot->lane_sent, sizeof(hot->lane_sent));
    memcpy(rcpt.acked, cold->acked, sizeof(rcpt.acked));
    rcpt.sent[BF_STREAM_BROADCAST] = bf_channel_b_sent(core, slot);
    if (!bf_rcpt_put(&core->receipts, BF_RCPT_CENSUS_CONN, &rcpt, sizeof(rcpt), 0))
        return false;
    /* the control process does not know of it yet: GONE is sent again, and so is a connect that was
     * not answered */
    hot->flags |= BF_CF_ANNOUNCED;
    if (hot->state == BF_CONN_AUTH)
        bf_rcpt_mark(&core->receipts, slot, BF_DIRTY_CONNECT);
    /* what the asker's predecessor was told of gaps died with it */
    hot->streams &= (uint16_t)~0x0f00u;
    return true;
}

static bool finish(struct bf_commands *in)
{
    struct bf_worker_core *core = in->core;
    struct bf_census *census = &in->census;
    struct bf_rcpt_census_done rcpt = {
        .ticket = census->ticket, .worker = core->worker, .connections = census->reported};
    rcpt.blocks_held = bf_holds_bitmap(&core->holds, bf_census_bitmap(core->region, core->worker));
    if (!bf_rcpt_put(&core->receipts, BF_RCPT_CENSUS_DONE, &rcpt, sizeof(rcpt), 0))
        return false;
    census->active = false;
    return true;
}

bool bf_census_slice(struct bf_commands *in)
{
    struct bf_worker_core *core = in->core;
    struct bf_census *census = &in->census;
    if (!census->active)
        return false;
    if (census->draining) {
        if (!are_rings_taken(in))
            return true;
        census->draining = false;
    }
    for (uint32_t i = 0; i < BF_CENSUS_PER_TURN; i++, census->cursor++) {
        census->cursor = bf_conns_skip(&core->conns, census->cursor);
        if (census->cursor == core->conns.cap)
            break;
        if (!(bf_hot(core, census->cursor)->flags & BF_CF_LINKED))
            continue;
        if (!report(core, census->ticket, census->cursor))
            return false; /* full: the next turn, after ctrlplane has read */
        census->reported++;
    }
    if (census->cursor < core->conns.cap)
        return true;
    if (in->push && !bf_push_census(in->push, census->ticket, &census->push_cursor))
        return false;
    (void)finish(in);
    return false;
}

/* ---- drain ---- */

/* xorshift32: jitter, not secrecy. */
static uint32_t next_random(struct bf_drain *drain)
{
    uint32_t x = drain->random;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    return drain->random = x;
}

void bf_commands_drain(struct bf_commands *in, uint64_t rate, uint32_t reconnect_after_ms)
{
    in->drain.rate = rate;
    in->drain.reconnect_after_ms = reconnect_after_ms;
    in->drain.cursor = 0;
    in->drain.credit_milli = 1000;
    in->drain.last_ms = in->core->mono_ms;
}

bool bf_drain_slice(struct bf_commands *in)
{
    struct bf_worker_core *core = in->core;
    struct bf_drain *drain = &in->drain;
    if (drain->rate == 0)
        return false;
    uint64_t burst_milli = BF_DRAIN_PER_TURN * 1000u;
    uint64_t elapsed_ms = core->mono_ms - drain->last_ms;
    drain->credit_milli += elapsed_ms < 1000 ? elapsed_ms * drain->rate : burst_milli;
    if (drain->credit_milli > burst_milli)
        drain->credit_milli = burst_milli;
    drain->last_ms = core->mono_ms;
    for (uint32_t i = 0; i < BF_DRAIN_SCAN_PER_TURN && drain->credit_milli >= 1000; i++) {
        uint32_t slot = bf_conns_skip(&core->conns, drain->cursor);
        drain->cursor = slot + 1;
        if (slot == core->conns.cap) {
            drain->cursor = 0; /* round again: connections may come while the drain lasts */
            return false;
        }
        uint8_t state = bf_hot(core, slot)->state;
        if (state < BF_CONN_HTTP || state > BF_CONN_LIVE)
            continue;
        uint32_t jitter =
            drain->reconnect_after_ms ? next_random(drain) % drain->reconnect_after_ms : 0;
        bf_life_goaway(core, slot, BF_CLOSE_DRAIN, "drain",
                       drain->reconnect_after_ms / 2u + jitter);
        drain->credit_milli -= 1000;
    }
    return false;
}

bool bf_commands_jobs(struct bf_commands *in, uint32_t sends_max)
{
    bool more = false;
    if (sends_max > 0)
        more = bf_broadcast_slice(&in->broadcasts, in->core, sends_max);
    else
        more = in->broadcasts.head != in->broadcasts.tail;
    more |= bf_census_slice(in);
    more |= bf_drain_slice(in);
    return more;
}
