/* The state of the core, which the files of fanout/, receipts/, pipeline/ and main/ share. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "belfry/conf/conf.h"
#include "fanout/core.h"
#include "fanout/shard.h"
#include "ledger/ledger.h"
#include "log/blog.h"
#include "log/log.h"
#include "outbound/reports.h"

/* Opt-outs and erasures that may wait for the workers at one time; further ones are answered 503.
 */
#define BF_MASK_WAITS_MAX 64u
/* No caller waits this long, for the shard and then for the workers. An older ticket was left by a
 * caller who gave up before the shard could remove it. */
#define BF_MASK_ABANDONED_MS (4u * BF_CORE_WAIT_MS)

struct bf_mask_wait {
    uint64_t ticket;                      /* 0: free */
    uint64_t claimed_ms;                  /* mono */
    uint64_t workers_left[BF_LANE_COUNT]; /* bitmaps: who has not confirmed, by ring */
};

struct bf_core {
    _Atomic(const struct bf_conf *) conf;
    _Atomic uint32_t conf_version; /* rises with each reload */
    struct bf_store *store;
    /* Set once the log is open, when the shards run already and look at it each turn; the plain
     * (seq_cst) store and load let who sees it see an open log. */
    struct bf_log *_Atomic log;
    struct bf_blog *blog;
    struct bf_ledger *ledger;
    struct bf_attempt_census attempt_census;
    bool has_lost_dataplane; /* this process began because a dataplane died. Before the attach */
    struct bf_shard *shards;
    uint32_t shard_count;
    uint32_t partitions; /* of all people: of the store, see store/legs.h */
    struct bf_bytes epoch;
    /* Connections from before this process were welcomed with another epoch, so their positions and
     * acknowledgements refer to messages of that epoch. Set by the attach, before receipts are
     * read. */
    bool is_other_epoch;
    struct bf_pool_reports *pool_reports; /* what workers say of their pools; main makes it */

    _Atomic(struct bf_region *) region; /* NULL while detached. Writer: main */
    _Atomic bool ready;                 /* census in: fan-out runs. Writer: main */
    _Atomic uint64_t generation;
    _Atomic uint32_t attaches;
    _Atomic uint64_t control_blocks_free; /* gauge; writer: main */
    _Atomic uint32_t jobs;
    _Atomic uint32_t drain_rate, drain_after_ms; /* asked for by the API, sent by main */
    _Atomic bool drain_asked;
    _Atomic bool config_changed; /* main writes a new snapshot */

    pthread_mutex_t devices_lock; /* which device has which token (devices.c): read, decided and
                                   * written under it */
    pthread_mutex_t mask_lock;    /* guards the table below; held for nothing but that */
    pthread_cond_t mask_done;
    uint64_t mask_next_ticket;
    struct bf_mask_wait masks[BF_MASK_WAITS_MAX];
    void (*wake_main)(void *arg);
    void *wake_main_arg;
};

static inline const struct bf_conf *bf_core_conf(struct bf_core *core)
{
    /* acquire: the fields of a conf published by reload */
    return atomic_load_explicit(&core->conf, memory_order_acquire);
}

/* Shard of the partition that a shard byte, or a partition's number, stands for: the same over
 * restarts and regions while fanout.shards is the same. */
static inline struct bf_shard *bf_core_shard_of_byte(struct bf_core *core, uint8_t byte)
{
    return &core->shards[(byte & (core->partitions - 1)) % core->shard_count];
}

/* Shard of a user, by the byte that its key carries. */
static inline struct bf_shard *bf_core_shard_of(struct bf_core *core, struct bf_uid uid)
{
    return bf_core_shard_of_byte(
        core, bf_user_shard_byte(uid.tenant.at, uid.tenant.len, uid.user.at, uid.user.len));
}

static inline struct bf_shard *bf_core_shard_of_key(struct bf_core *core, struct bf_user_key key)
{
    return bf_core_shard_of_byte(core, (uint8_t)key.hi);
}

int bf_core_create(const struct bf_conf *conf, struct bf_store *store, struct bf_log *log,
                   struct bf_core **ret);
/* Log and broadcast log are opened after the core (their hooks point at it). */
void bf_core_set_log(struct bf_core *core, struct bf_log *log, struct bf_blog *blog,
                     struct bf_ledger *ledger);
/* The channels that run; before any event is delivered. */
int bf_core_set_channels(struct bf_core *core, struct bf_channels *channels);
/* Before a stop: pushes that have no answer yet are put into the push queue, so that no event waits
 * for a provider. */
void bf_core_requeue_pushes(struct bf_core *core);
void bf_core_destroy(struct bf_core *core);
/* Runs |run| on a shard's thread and waits without bound (start, attach, stop). Main thread. */
int bf_core_run_on(struct bf_core *core, uint32_t shard,
                   int (*run)(struct bf_shard *shard, void *arg), void *arg);

/* Attach steps, each on every shard in turn (main thread). */
int bf_core_attach(struct bf_core *core, struct bf_region *region, uint32_t generation);
/* After all workers' census. Returns the lowest broadcast seq that an open connection has, via
 * *ret_b_min (UINT64_MAX: no connection). */
int bf_core_census_complete(struct bf_core *core, uint64_t *ret_b_min);
/* The dead region's receipts are drained: forget connections and rings. */
void bf_core_detach(struct bf_core *core);

/* A mask's confirmation (receipts thread). */
void bf_core_masked(struct bf_core *core, uint64_t ticket, uint32_t worker, uint32_t lane);
