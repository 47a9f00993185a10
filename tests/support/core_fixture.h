/*
 * A worker's core without sockets, over a region in ordinary memory, and the other side of its
 * rings: a test plays ctrlplane. What a connection would send is taken with take_sent(). One test
 * process each (Criterion forks), so statics are fine and nothing is freed.
 */
#pragma once

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/time.h"
#include "belfry/conf/conf_load.h"
#include "belfry/plane.h"
#include "channel/channel.h"
#include "commands/commands.h"
#include "session/life.h"

#define FIXTURE_CONNECTIONS 64u
#define FIXTURE_GENERATION  9u

struct fixture {
    struct bf_conf conf;
    struct bf_region *region;
    struct bf_worker_core core;
    struct bf_commands commands;
    struct bf_ring_producer producers[BF_PRODUCERS_MAX][BF_LANE_COUNT];
    struct bf_ring_consumer receipts;
    struct bf_ring_consumer returns[BF_PRODUCERS_MAX];
    uint32_t next_block;
    uint8_t message[BF_RCPT_BYTES_MAX] __attribute__((aligned(8))); /* read as receipts */
};

static struct fixture fx;

static inline void fixture_slab(struct bf_slab *slab, uint32_t count, uint32_t bytes)
{
    *slab = (struct bf_slab){.base = calloc(count, bytes), .item_bytes = bytes, .cap = count};
}

static inline void fixture_pools(struct bf_worker_core *core)
{
    const uint32_t slots = FIXTURE_CONNECTIONS;
    bf_conns_init(&core->conns, calloc(slots, sizeof(struct bf_conn_hot)),
                  calloc(slots, sizeof(struct bf_conn_cold)), 2, slots / 2, slots);
    core->users.mask = bf_users_entries(slots) - 1;
    core->users.entries = calloc(core->users.mask + 1, sizeof(uint32_t));
    core->topics.mask = 255;
    core->topics.table = calloc(256, sizeof(struct bf_topic));
    core->urgent.slots = calloc(BF_URGENT_MAX, sizeof(uint32_t));
    core->ready = (struct bf_ready){.slots = calloc(slots, sizeof(uint32_t)), .cap = slots};
    fixture_slab(&core->nodes, 4096, sizeof(struct bf_node));
    fixture_slab(&core->locals, 256, sizeof(struct bf_local));
    fixture_slab(&core->pendings, slots, sizeof(struct bf_pending));
    fixture_slab(&core->grants, 64, sizeof(struct bf_grant));
    fixture_slab(&core->topics.subs, 256, sizeof(struct bf_sub));
}

static inline void fixture_other_side(void)
{
    const struct bf_region *r = fx.region;
    for (uint32_t p = 0; p < r->geometry.producers; p++) {
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
            bf_ring_producer_attach(&fx.producers[p][lane], bf_command_ring(r, p, 0, lane),
                                    bf_command_control(r, p, 0, lane), FIXTURE_GENERATION);
        bf_ring_consumer_attach(&fx.returns[p], bf_return_ring(r, p, 0),
                                bf_return_control(r, p, 0));
    }
    bf_ring_consumer_attach(&fx.receipts, bf_receipt_ring(r, 0), bf_receipt_control(r, 0));
}

/* Call first in each test. Small rings, so that their bounds are reached. */
static inline void fixture_start(void)
{
    struct bf_worker_core *core = &fx.core;
    cr_assert_eq(bf_conf_set_defaults(&fx.conf), 0);
    fx.conf.command_slots = 1024;
    fx.conf.receipt_slots = 1024;
    fx.conf.blocks_256 = 1024;
    fx.conf.blocks_1k = 256;
    fx.conf.blocks_4k = 64;
    fx.conf.blocks_16k = 16;
    fx.conf.blocks_80k = 8;
    unsigned long bytes = bf_region_bytes(&fx.conf);
    void *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    memset(memory, 0, bytes);
    cr_assert_eq(bf_region_create(memory, bytes, &fx.conf, &fx.region), 0);
    core->region = fx.region;
    core->stats = bf_stats(fx.region, 0);
    core->limits = (struct bf_limits){.ping_interval_ms = 30000,
                                      .presence_timeout_ms = 60000,
                                      .conn_queue_frames = 8,
                                      .conn_queue_bytes = 1u << 20,
                                      .slow_timeout_ms = 30000,
                                      .max_connections = FIXTURE_CONNECTIONS,
                                      .client_frames_per_s = 100,
                                      .lifetime_s = 0};
    fixture_pools(core);
    bf_holds_init(&core->holds, fx.region, 0,
                  calloc(fx.region->block_count, sizeof(struct bf_hold)));
    bf_wheel_init(&core->wheel, 0);
    bf_worker_core_open_outbox(core);
    bf_commands_init(&fx.commands, core);
    fixture_other_side();
}

static inline uint64_t metric(enum bf_metric m)
{
    return bf_metric_get(fx.core.stats, m);
}

/* ---- ctrlplane ---- */

/* A fresh block of producer 0 with this text, in the smallest class. */
static inline struct bf_block_ref block_of_text(const char *text)
{
    uint32_t index = fx.next_block++ % fx.conf.blocks_256;
    struct bf_block *block = &bf_blocks(fx.region)[index];
    uint32_t lap = atomic_load(&block->lap) + 1;
    atomic_store(&block->lap, lap);
    block->len = (uint32_t)strlen(text);
    memcpy(bf_block_data(fx.region, block), text, block->len);
    return (struct bf_block_ref){.index = index, .lap = lap};
}

static inline void put_command(uint32_t producer, uint32_t lane, enum bf_cmd_kind kind,
                               const void *payload)
{
    struct bf_ring_producer *p = &fx.producers[producer][lane];
    uint32_t position = 0;
    cr_assert(bf_ring_reserve(p, 1, &position));
    memcpy(bf_ring_slot(p, position)->payload, payload, BF_SLOT_PAYLOAD_BYTES);
    bf_slot_seal(p, position, (uint16_t)kind, 0, 1, BF_SLOT_PAYLOAD_BYTES);
    bf_ring_publish(p);
}

static inline struct bf_user_key user_of(const char *name)
{
    return bf_user_key_of(fx.region->user_secret, "", 0, name, strlen(name));
}

static inline void notify(const char *user, uint32_t lane, uint64_t prev, uint64_t seq,
                          const char *text)
{
    struct bf_cmd_frame cmd = {
        .user = user_of(user), .block = block_of_text(text), .prev = prev, .seq = seq};
    put_command(0, lane, BF_CMD_NOTIFY, &cmd);
}

static inline void broadcast(uint64_t prev, uint64_t bseq, uint64_t topic, const char *text)
{
    struct bf_cmd_broadcast cmd = {
        .block = block_of_text(text), .prev = prev, .bseq = bseq, .topic = topic};
    put_command(1, BF_LANE_BULK, BF_CMD_BROADCAST, &cmd);
}

static inline void conn_command(uint32_t slot, uint32_t lane, enum bf_cmd_kind kind, uint64_t prev,
                                uint64_t seq, uint32_t last, const char *text)
{
    struct bf_cmd_conn_frame cmd = {
        .conn = bf_conn_id_of(&fx.core.conns, slot), .prev = prev, .seq = seq, .last = last};
    if (text)
        cmd.block = block_of_text(text);
    put_command(0, lane, kind, &cmd);
}

/* Next receipt, or BF_RCPT_NONE; bytes in fx.message. */
static inline enum bf_rcpt_kind take_receipt(void)
{
    uint16_t kind = BF_RCPT_NONE;
    uint32_t len;
    (void)bf_worker_core_flush_outbox(&fx.core);
    int n = bf_ring_get_message(&fx.receipts, fx.message, &kind, &len);
    cr_assert(n >= 0, "no damaged receipt");
    bf_ring_release(&fx.receipts, fx.receipts.next);
    return n == 0 ? BF_RCPT_NONE : (enum bf_rcpt_kind)kind;
}

/* References on the return rings. */
static inline uint32_t take_returns(void)
{
    uint32_t refs = 0;
    (void)bf_holds_flush(&fx.core.holds);
    for (uint32_t p = 0; p < fx.region->geometry.producers; p++) {
        uint16_t kind;
        uint32_t len;
        while (bf_ring_get_message(&fx.returns[p], fx.message, &kind, &len) > 0)
            refs += len / (uint32_t)sizeof(struct bf_block_ref);
        bf_ring_release(&fx.returns[p], fx.returns[p].next);
    }
    return refs;
}

/* ---- connections ---- */

/* A socket accepted on ring |group|, upgraded, its connect accepted; its CONNECT is taken off. */
static inline uint32_t connect_user(const char *user, uint32_t group)
{
    struct bf_worker_core *core = &fx.core;
    uint32_t slot = bf_conn_take(&core->conns, group);
    cr_assert_neq(slot, BF_SLOT_NONE);
    bf_life_start(core, slot);
    struct bf_conn_hot *hot = bf_hot(core, slot);
    hot->user = user_of(user);
    uint32_t pending = bf_slab_take(&core->pendings);
    struct bf_pending *p = bf_slab_at(&core->pendings, pending);
    *p = (struct bf_pending){.user_len = (uint16_t)strlen(user),
                             .token_expires_ms = core->wall_ms + 3600000};
    memcpy(p->user, user, strlen(user));
    bf_cold(core, slot)->aux = pending;
    bf_users_link(&core->users, &core->conns, slot);
    hot->flags |= BF_CF_LINKED;
    hot->state = BF_CONN_AUTH;
    bf_rcpt_mark(&core->receipts, slot, BF_DIRTY_CONNECT);
    return slot;
}

/* The whole of it: WELCOME, all streams open at 0, everything taken off again. */
static inline uint32_t live_user(const char *user, uint32_t group)
{
    uint32_t slot = connect_user(user, group);
    while (take_receipt() != BF_RCPT_NONE)
        continue;
    conn_command(slot, BF_LANE_CRITICAL, BF_CMD_WELCOME, 0, 0, 0, "welcome;");
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        conn_command(slot, lane, BF_CMD_OPEN, 0, 0, 0, NULL);
    conn_command(slot, BF_LANE_CRITICAL, BF_CMD_OPEN_B, 0, fx.core.b_pos, 0, NULL);
    (void)bf_commands_turn(&fx.commands);
    cr_assert_eq(bf_hot(&fx.core, slot)->state, BF_CONN_LIVE);
    struct bf_send batch;
    static uint8_t buffer[4096];
    batch = bf_channel_batch(&fx.core, slot, buffer, sizeof(buffer));
    (void)bf_channel_sent(&fx.core, slot, batch.len);
    return slot;
}

/* What the connection would send now, as text; the socket takes at most |max| bytes of it. */
static inline const char *take_sent(uint32_t slot, size_t max)
{
    static char text[65536];
    static uint8_t buffer[16384];
    size_t len = 0;
    for (;;) {
        struct bf_send batch = bf_channel_batch(&fx.core, slot, buffer, sizeof(buffer));
        size_t n = batch.len < max - len ? batch.len : max - len;
        memcpy(text + len, batch.bytes ? batch.bytes : buffer, n);
        (void)bf_channel_sent(&fx.core, slot, n);
        len += n;
        if (batch.len == 0 || n < batch.len)
            break;
    }
    text[len] = '\0';
    return text;
}

#define ALL 60000u
