/* A worker's memory and its thread. See worker.h. */
#include "worker/worker.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf.h"
#include "channel/channel.h"
#include "channel/sse_client.h"
#include "proto/ws/deflate.h"
#include "worker/echo.h"
#include "worker/raw.h"

static void *take(struct bf_worker *w, const char *holder, uint64_t count, uint64_t item_bytes,
                  int *rc)
{
    void *at = bf_arena_take(&w->arena, holder, count, item_bytes);
    if (!at)
        *rc = BF_ERR_NO_MEMORY;
    return at;
}

/* As take, for what every command looks into. */
static void *take_wide(struct bf_worker *w, const char *holder, uint64_t count, uint64_t item_bytes,
                       int *rc)
{
    void *at = bf_arena_take_wide(&w->arena, holder, count, item_bytes);
    if (!at)
        *rc = BF_ERR_NO_MEMORY;
    return at;
}

static int take_slabs(struct bf_worker *w, const struct bf_memory_plan *b)
{
    const struct {
        const char *holder;
        uint32_t count;
        uint32_t bytes;
        struct bf_slab *slab;
    } slabs[] = {
        {"queued frames", b->nodes, sizeof(struct bf_node), &w->core.nodes},
        {"frames of ours", b->locals, sizeof(struct bf_local), &w->core.locals},
        {"pending connects", b->pendings, sizeof(struct bf_pending), &w->core.pendings},
        {"topic grants", b->grants, sizeof(struct bf_grant), &w->core.grants},
        {"event streams", b->streams, sizeof(struct bf_sse_client), &w->core.streams},
        {"subscriptions", b->subs, sizeof(struct bf_sub), &w->core.topics.subs},
        {"receive buffers", b->receive_buffers, BF_RECEIVE_BUFFER_BYTES, &w->buffers},
        {"receptions", b->receptions, sizeof(struct bf_reception), &w->receptions},
        {"stashes", b->stashes, BF_UPGRADE_BYTES_MAX, &w->stashes},
    };
    for (size_t i = 0; i < sizeof(slabs) / sizeof(slabs[0]); i++) {
        int rc = bf_arena_slab(&w->arena, slabs[i].holder, slabs[i].count, slabs[i].bytes,
                               slabs[i].slab);
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Compression of what is sent: a compressor and its copies. */
static int take_packs(struct bf_worker *w)
{
    struct bf_packs *packs = &w->core.packs;
    int rc = 0;
    if (!w->opts.conf->deflate)
        return 0;
    packs->payload_min = w->opts.conf->deflate_min;
    packs->deflater = bf_deflater_create();
    packs->copies = take(w, "compressed, index", BF_PACKED_COPIES, sizeof(*packs->copies), &rc);
    packs->bytes = take(w, "compressed copies", BF_PACKED_COPIES, BF_PACKED_BYTES_MAX, &rc);
    return packs->deflater ? rc : BF_ERR_NO_MEMORY;
}

static int take_memory(struct bf_worker *w)
{
    struct bf_worker_core *core = &w->core;
    const struct bf_io_plan *plan = &w->opts.plan;
    const struct bf_memory_plan_input in = {
        .connections = w->opts.conf->connections_max,
        .slots = plan->rings * plan->table,
        .blocks = core->region->block_count,
    };
    const struct bf_memory_plan b = bf_memory_plan_of(&in);
    int rc = 0;
    struct bf_conn_hot *hot = take_wide(w, "connections, hot", in.slots, sizeof(*hot), &rc);
    struct bf_conn_cold *cold = take(w, "connections, cold", in.slots, sizeof(*cold), &rc);
    core->users.entries = take_wide(w, "user table", b.user_entries, sizeof(uint32_t), &rc);
    core->users.mask = b.user_entries - 1;
    core->topics.table = take(w, "topic table", b.topics, sizeof(struct bf_topic), &rc);
    core->topics.mask = b.topics - 1;
    core->urgent.slots = take(w, "urgent list", BF_URGENT_MAX, sizeof(uint32_t), &rc);
    core->ready.slots = take(w, "ready list", in.slots, sizeof(uint32_t), &rc);
    core->ready.cap = in.slots;
    struct bf_hold *holds = take(w, "block counts", in.blocks, sizeof(*holds), &rc);
    w->rx_wait.slots = take(w, "readable, no buffer", in.slots, sizeof(uint32_t), &rc);
    w->rx_wait.cap = in.slots;
    w->blocked.slots = take(w, "receptions waiting", b.stashes, sizeof(uint32_t), &rc);
    w->blocked.cap = b.stashes;
    w->copies = take(w, "coalesced sends", BF_COPY_ARENA_BYTES, 1, &rc);
    if (rc != 0 || take_slabs(w, &b) != 0 || take_packs(w) != 0)
        return BF_ERR_NO_MEMORY;
    if (w->opts.echo && bf_echo_init(w) != 0)
        return BF_ERR_NO_MEMORY;
    w->rx_pool = w->opts.echo ? bf_ws_rx_pool_create(BF_ECHO_CONTEXTS, BF_ECHO_MESSAGE_BYTES_MAX)
                              : bf_ws_rx_pool_create(b.contexts, BF_CLIENT_FRAME_BYTES_MAX);
    if (!w->rx_pool || bf_secure_init(w, &b, in.slots) != 0 ||
        bf_admission_init(w, in.slots) != 0 || bf_provider_init(w, plan->outgoing, in.slots) != 0)
        return BF_ERR_NO_MEMORY;
    bf_conns_init(&core->conns, hot, cold, plan->rings, plan->table, in.connections);
    bf_holds_init(&core->holds, core->region, core->worker, holds);
    return 0;
}

static void set_defaults(struct bf_limits *limits, const struct bf_conf *conf)
{
    limits->ping_interval_ms = conf->ping_interval_ms;
    limits->presence_timeout_ms = conf->presence_timeout_ms;
    limits->conn_queue_frames = conf->conn_queue_frames;
    limits->conn_queue_bytes = conf->conn_queue_bytes;
    limits->slow_timeout_ms = conf->slow_timeout_ms;
    limits->max_connections = conf->connections_max;
    limits->client_frames_per_s = conf->client_frames_per_s;
    limits->accept_rate = conf->accept_rate;
    limits->per_address = conf->per_address;
    limits->lifetime_s = conf->lifetime_s;
}

int bf_worker_map(struct bf_worker *w, struct bf_worker_memory *ret)
{
    int rc = take_memory(w);
    if (rc == 0)
        ret->json_pool = take(w, "client frame parser", BF_CLIENT_MSG_POOL_BYTES, 1, &rc);
    if (rc == 0)
        ret->io = take(w, "rings", 1, bf_io_bytes(&w->opts.plan), &rc);
    return rc;
}

void bf_worker_unmap(struct bf_worker *w)
{
    bf_provider_fini(w);
    bf_secure_fini(w);
    bf_session_fini(&w->session);
    bf_ws_rx_pool_destroy(w->rx_pool);
    bf_deflater_destroy(w->core.packs.deflater);
    bf_arena_fini(&w->arena);
}

static int start(struct bf_worker *w)
{
    const struct bf_worker_opts *opts = &w->opts;
    struct bf_worker_core *core = &w->core;
    struct bf_worker_memory memory;
    core->region = opts->region;
    core->worker = opts->index;
    core->stats = bf_stats(opts->region, opts->index);
    w->start_ms = bf_mono_ms();
    set_defaults(&core->limits, opts->conf);
    int rc = bf_worker_map(w, &memory);
    if (rc != 0)
        return rc;
    bf_wheel_init(&core->wheel, 0);
    bf_worker_core_open_outbox(core);
    bf_session_init(&w->session, core, memory.json_pool);
    rc = bf_session_configure(&w->session, opts->first_config, opts->first_config_len);
    if (rc == 0)
        rc = bf_secure_configure(w, opts->first_config, opts->first_config_len);
    if (rc != 0)
        return rc;
    bf_commands_init(&w->commands, core);
    w->commands.push = &w->push;
    if (opts->raw && (rc = bf_raw_init(w)) != 0)
        return rc;
    bf_arena_log(&w->arena, opts->index);
    return bf_io_create(&opts->io, &opts->plan, opts->listen_fds, memory.io, &w->io);
}

static void pin(const struct bf_worker *w)
{
    cpu_set_t set;
    char name[16];
    snprintf(name, sizeof(name), "bf-worker-%u", w->opts.index);
    (void)pthread_setname_np(pthread_self(), name);
    if (w->opts.core < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET((unsigned)w->opts.core, &set);
    if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set) != 0)
        BF_DEBUG("dataplane", "worker %u: core %d is not available; it runs on any", w->opts.index,
                 w->opts.core);
}

void *bf_worker_main(void *arg)
{
    struct bf_worker *w = arg;
    pin(w);
    int rc = start(w);
    if (rc != 0) {
        BF_ERROR("dataplane", "worker %u: %s", w->opts.index, bf_err_text(rc));
        bf_worker_unmap(w);
        atomic_store_explicit(&w->status, rc, memory_order_release);
        return NULL;
    }
    /* release: whoever sees it sees what the start wrote */
    atomic_store_explicit(&w->status, 1, memory_order_release);
    bf_worker_loop(w);
    bf_io_destroy(w->io);
    bf_worker_unmap(w);
    atomic_store_explicit(&w->status, 2, memory_order_release);
    return NULL;
}
