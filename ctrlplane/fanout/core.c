/* The core's life and its calls (core.h): each posts to the user's shard and waits, bounded. */
#include "fanout/core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <xxhash.h>

#include "stats/metrics.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "fanout/calls.h"
#include "fanout/core_state.h"
#include "ingest/cloudevents.h"

/* ---- life ---- */

static int run_plain(struct bf_shard *shard, struct bf_call *call)
{
    return call->plain(shard, call->arg);
}

int bf_core_run_on(struct bf_core *core, uint32_t shard,
                   int (*run)(struct bf_shard *shard, void *arg), void *arg)
{
    struct bf_call *call = bf_call_create((struct bf_uid){0}, (struct bf_bytes){0}, run_plain);
    if (!call)
        return BF_ERR_NO_MEMORY;
    call->plain = run;
    call->arg = arg;
    int rc = bf_call_wait(&core->shards[shard], call, 0);
    bf_call_release(call);
    return rc;
}

static int load_user(void *arg, struct bf_uid uid, const struct bf_user_state *state,
                     struct bf_bytes prefs_json)
{
    struct bf_core *core = arg;
    struct bf_shard *shard = bf_core_shard_of(core, uid);
    struct bf_user *user = bf_user_add(&shard->users, uid);
    struct bf_problem problem;
    if (!user)
        return BF_ERR_NO_MEMORY;
    if (state)
        user->state = *state;
    if (prefs_json.at && bf_prefs_compile(prefs_json, &user->prefs, NULL, &problem) != 0)
        bf_count(BF_CM_M_store_corrupt, 1);
    user->opted_out = user->prefs && bf_prefs_is_opted_out(user->prefs);
    return 0;
}

int bf_core_create(const struct bf_conf *conf, struct bf_store *store, struct bf_log *log,
                   struct bf_core **ret)
{
    struct bf_core *core = calloc(1, sizeof(*core));
    pthread_condattr_t attr;
    int rc = 0;
    if (!core)
        return BF_ERR_NO_MEMORY;
    atomic_store(&core->conf, conf);
    core->store = store;
    core->log = log;
    const char *epoch = bf_store_epoch(store);
    core->epoch = (struct bf_bytes){.at = epoch, .len = strlen(epoch)};
    core->partitions = bf_store_partitions(store);
    core->shard_count = conf->shards; /* 7 at most: producers of the ring matrix */
    core->shards = aligned_alloc(64, sizeof(struct bf_shard) * core->shard_count);
    if (!core->shards)
        return BF_ERR_NO_MEMORY;
    memset(core->shards, 0, sizeof(struct bf_shard) * core->shard_count);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&core->devices_lock, NULL);
    pthread_mutex_init(&core->mask_lock, NULL);
    pthread_cond_init(&core->mask_done, &attr);
    pthread_condattr_destroy(&attr);
    for (uint32_t i = 0; i < core->shard_count && rc == 0; i++)
        rc = bf_shard_init(&core->shards[i], core, i);
    if (rc == 0)
        rc = bf_store_walk_users(store, load_user, core);
    for (uint32_t i = 0; i < core->shard_count && rc == 0; i++)
        rc = bf_shard_start(&core->shards[i]);
    *ret = core;
    return rc;
}

void bf_core_set_log(struct bf_core *core, struct bf_log *log, struct bf_blog *blog,
                     struct bf_ledger *ledger)
{
    core->log = log;
    core->blog = blog;
    core->ledger = ledger;
}

static int set_channels(struct bf_shard *shard, void *arg)
{
    shard->outbound.channels = arg;
    return 0;
}

int bf_core_set_channels(struct bf_core *core, struct bf_channels *channels)
{
    int rc = 0;
    for (uint32_t i = 0; i < core->shard_count && rc == 0; i++)
        rc = bf_core_run_on(core, i, set_channels, channels);
    return rc;
}

static int land_shard(struct bf_shard *shard, void *arg)
{
    (void)arg;
    bf_outbound_requeue(&shard->outbound);
    return 0;
}

void bf_core_requeue_pushes(struct bf_core *core)
{
    for (uint32_t i = 0; i < core->shard_count; i++)
        bf_core_run_on(core, i, land_shard, NULL);
}

void bf_core_destroy(struct bf_core *core)
{
    if (!core)
        return;
    for (uint32_t i = 0; i < core->shard_count; i++)
        bf_shard_stop(&core->shards[i]);
    free(core->shards);
    bf_attempt_census_fini(&core->attempt_census);
    pthread_cond_destroy(&core->mask_done);
    pthread_mutex_destroy(&core->devices_lock);
    pthread_mutex_destroy(&core->mask_lock);
    free(core);
}

struct attach_arg {
    struct bf_region *region;
    uint32_t generation;
    uint64_t b_min;
};

static int attach_shard(struct bf_shard *shard, void *arg)
{
    struct attach_arg *a = arg;
    int rc = bf_user_table_rekey(&shard->users, a->region->user_secret);
    if (rc == 0)
        rc = bf_conn_table_init(&shard->conns, a->region->geometry.workers);
    if (rc == 0)
        bf_publisher_attach(&shard->pub, a->region, shard->index, a->generation);
    return rc;
}

/* Never 0, which means in a region that nobody was welcomed yet. */
static uint32_t epoch_mark(const struct bf_core *core)
{
    return (uint32_t)XXH3_64bits(core->epoch.at, core->epoch.len) | 1u;
}

int bf_core_attach(struct bf_core *core, struct bf_region *region, uint32_t generation)
{
    struct attach_arg arg = {.region = region, .generation = generation};
    /* relaxed: only control processes use it, one after the other under their lock */
    uint32_t mark = atomic_load_explicit(&region->store_epoch, memory_order_relaxed);
    core->is_other_epoch = mark != 0 && mark != epoch_mark(core);
    int rc = bf_attempt_census_init(&core->attempt_census, region->geometry.workers);
    for (uint32_t i = 0; rc == 0 && i < core->shard_count; i++)
        rc = bf_core_run_on(core, i, attach_shard, &arg);
    return rc;
}

/* The process may have been killed between the worker's mask and the row in the store: the row
 * counts. The rings are empty now, and everything that the dead process sent has reached the
 * connections. */
static int settle_mask(struct bf_shard *shard, const struct bf_conn *conn)
{
    const struct bf_user *user = conn->user;
    struct bf_cmd_mask cmd = {.user = user->key,
                              .op = user->opted_out ? BF_MASK_HOLD : BF_MASK_LIFT,
                              .bseq = bf_blog_head(shard->core->blog)};
    if (conn->is_masked == user->opted_out)
        return 0;
    return bf_publisher_send(&shard->pub, conn->worker, BF_LANE_CRITICAL, BF_CMD_MASK, &cmd,
                             (struct bf_block_ref){0})
               ? 0
               : BF_ERR_FULL;
}

static int settle_masks(struct bf_shard *shard)
{
    int rc = 0;
    for (uint32_t w = 0; w < shard->conns.workers; w++)
        for (uint32_t i = 0; rc == 0 && i < shard->conns.slot_cap[w]; i++)
            if (shard->conns.slots[w][i])
                rc = settle_mask(shard, shard->conns.slots[w][i]);
    bf_publisher_flush(&shard->pub);
    return rc;
}

/* What each surviving connection lacks is replayed, paced by the shard's loop. */
static void heal_conn(struct bf_shard *shard, struct bf_conn *conn, uint64_t *b_min)
{
    bf_shard_settle_heads(shard, conn->user);
    if (conn->unopened)
        bf_shard_open_lost(shard, conn);
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        if (conn->sent[lane] < conn->user->state.head[lane])
            bf_shard_want_replay(shard, conn, lane);
    if (conn->sent[BF_STREAM_BROADCAST] < *b_min)
        *b_min = conn->sent[BF_STREAM_BROADCAST];
}

/* A worker takes thousands of commands a millisecond: a ring that stays full for ten seconds
 * belongs to a worker that is stuck, and its connections are found by their deadlines. */
#define SEND_AWAY_TRIES   10000u
#define SEND_AWAY_WAIT_NS 1000000L

/* Closes a connection that was welcomed with another epoch: its sequence numbers and
 * acknowledgements refer to other messages. The client comes back, is told so, and lists its inbox.
 */
static void send_away(struct bf_shard *shard, struct bf_conn *conn)
{
    struct bf_cmd_close cmd = {.conn = conn->id, .code = BF_CLOSE_DRAIN};
    for (uint32_t i = 0; i < SEND_AWAY_TRIES; i++) {
        if (bf_publisher_send(&shard->pub, conn->worker, BF_LANE_CRITICAL, BF_CMD_CLOSE, &cmd,
                              (struct bf_block_ref){0}))
            break;
        bf_publisher_flush(&shard->pub);
        nanosleep(&(struct timespec){.tv_nsec = SEND_AWAY_WAIT_NS}, NULL);
    }
    bf_conn_unlink(&shard->conns, conn);
}

static void meet_conn(struct bf_shard *shard, struct bf_conn *conn, uint64_t *b_min)
{
    if (shard->core->is_other_epoch)
        send_away(shard, conn);
    else
        heal_conn(shard, conn, b_min);
}

static int census_shard(struct bf_shard *shard, void *arg)
{
    struct attach_arg *a = arg;
    int64_t held = bf_publisher_adopt_blocks(&shard->pub);
    if (held < 0)
        return (int)held;
    int rc = settle_masks(shard);
    if (rc != 0)
        return rc;
    shard->presence_known = true;
    bf_outbound_attached(&shard->outbound, shard->core->has_lost_dataplane);
    bf_shard_retry_held(shard); /* connects that our predecessor may have half answered */
    for (uint32_t w = 0; w < shard->conns.workers; w++)
        for (uint32_t i = 0; i < shard->conns.slot_cap[w]; i++)
            if (shard->conns.slots[w][i])
                meet_conn(shard, shard->conns.slots[w][i], &a->b_min);
    bf_publisher_flush(&shard->pub);
    BF_INFO("ctrlplane", "shard %u: census in: %u users, %u connections, %lld blocks held",
            shard->index, shard->users.count, shard->conns.count, (long long)held);
    return 0;
}

int bf_core_census_complete(struct bf_core *core, uint64_t *ret_b_min)
{
    struct attach_arg arg = {.b_min = UINT64_MAX};
    for (uint32_t i = 0; i < core->shard_count; i++) {
        int rc = bf_core_run_on(core, i, census_shard, &arg);
        if (rc != 0)
            return rc;
    }
    *ret_b_min = arg.b_min;
    if (core->is_other_epoch)
        BF_WARN("ctrlplane",
                "another epoch than before: connections of before it were closed (4000)");
    struct bf_region *region = core->shards[0].pub.region;
    atomic_store_explicit(&region->store_epoch, epoch_mark(core), memory_order_relaxed);
    return 0;
}

static int detach_shard(struct bf_shard *shard, void *arg)
{
    (void)arg;
    shard->presence_known = false;
    bf_conn_table_fini(&shard->conns);
    while (shard->replays) {
        struct bf_conn *conn = shard->replays;
        shard->replays = conn->replay_next;
        free(conn);
    }
    bf_publisher_detach(&shard->pub);
    return 0;
}

void bf_core_detach(struct bf_core *core)
{
    for (uint32_t i = 0; i < core->shard_count; i++)
        bf_core_run_on(core, i, detach_shard, NULL);
}

/* ---- hard stops ---- */

/* Bit l: the ring of lane l. */
#define MASK_CRITICAL (1u << BF_LANE_CRITICAL)
#define MASK_ALL      ((1u << BF_LANE_COUNT) - 1u)

static bool is_confirmed(const struct bf_mask_wait *wait)
{
    uint64_t left = 0;
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        left |= wait->workers_left[lane];
    return left == 0;
}

static int claim_mask(struct bf_core *core, uint64_t workers, uint32_t lanes, uint64_t *ret_ticket)
{
    int rc = BF_ERR_FULL;
    uint64_t now = bf_mono_ms();
    pthread_mutex_lock(&core->mask_lock);
    for (uint32_t i = 0; i < BF_MASK_WAITS_MAX && rc != 0; i++) {
        struct bf_mask_wait *wait = &core->masks[i];
        if (wait->ticket != 0 && now - wait->claimed_ms < BF_MASK_ABANDONED_MS)
            continue;
        *ret_ticket = (++core->mask_next_ticket << 8) | (i + 1);
        wait->ticket = *ret_ticket;
        wait->claimed_ms = now;
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
            wait->workers_left[lane] = lanes & 1u << lane ? workers : 0;
        rc = 0;
    }
    pthread_mutex_unlock(&core->mask_lock);
    return rc;
}

void bf_core_masked(struct bf_core *core, uint64_t ticket, uint32_t worker, uint32_t lane)
{
    uint64_t slot = (ticket & 0xff) - 1;
    if (slot >= BF_MASK_WAITS_MAX || worker >= BF_WORKERS_MAX || lane >= BF_LANE_COUNT)
        return;
    pthread_mutex_lock(&core->mask_lock);
    struct bf_mask_wait *wait = &core->masks[slot];
    if (wait->ticket == ticket) {
        wait->workers_left[lane] &= ~(UINT64_C(1) << worker);
        pthread_cond_broadcast(&core->mask_done);
    }
    pthread_mutex_unlock(&core->mask_lock);
}

/* Waits for all workers' confirmation; frees the slot either way. */
static int await_mask(struct bf_core *core, uint64_t ticket)
{
    struct timespec until;
    int rc = 0;
    if (ticket == 0)
        return 0; /* detached: no worker holds anything */
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += BF_CORE_WAIT_MS / 1000;
    struct bf_mask_wait *wait = &core->masks[(ticket & 0xff) - 1];
    pthread_mutex_lock(&core->mask_lock);
    while (!is_confirmed(wait) && rc == 0)
        rc = pthread_cond_timedwait(&core->mask_done, &core->mask_lock, &until);
    bool done = is_confirmed(wait);
    wait->ticket = 0;
    pthread_mutex_unlock(&core->mask_lock);
    bf_count(done ? BF_CM_M_mask_waits : BF_CM_M_mask_timeouts, 1);
    return done ? 0 : BF_ERR_AWAY;
}

/* Sends a mask command to every worker through the rings of |lanes|, after all that this shard sent
 * through them before. It is published when the batch has been written: by the call's commit. */
static int send_mask(struct bf_shard *shard, struct bf_user *user, enum bf_mask_op op,
                     uint32_t lanes, uint64_t *ret_ticket)
{
    uint32_t workers = shard->pub.region ? shard->pub.workers : 0;
    uint64_t all = workers == 64 ? UINT64_MAX : (UINT64_C(1) << workers) - 1;
    *ret_ticket = 0;
    if (workers == 0)
        return 0;
    for (uint32_t w = 0; w < workers; w++)
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
            if (lanes & 1u << lane && !bf_publisher_has_room(&shard->pub, w, (enum bf_lane)lane, 1))
                return BF_ERR_AWAY;
    if (claim_mask(shard->core, all, lanes, ret_ticket) != 0)
        return BF_ERR_AWAY;
    struct bf_cmd_mask cmd = {.user = user->key, .ticket = *ret_ticket, .op = (uint32_t)op};
    if (op == BF_MASK_LIFT && shard->core->blog)
        cmd.bseq = bf_blog_head(shard->core->blog);
    for (uint32_t w = 0; w < workers; w++)
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
            if (lanes & 1u << lane)
                (void)bf_publisher_send(&shard->pub, w, (enum bf_lane)lane, BF_CMD_MASK, &cmd,
                                        (struct bf_block_ref){0});
    return 0;
}

/* Nothing of the person's leaves any more. Through the rings, too, in which a push of theirs may
 * still lie: the critical ring would overtake it. */
static int send_hold(struct bf_shard *shard, struct bf_user *user, uint64_t *ret_ticket)
{
    uint32_t lanes = MASK_CRITICAL | bf_outbound_lanes_of(&shard->outbound, bf_user_uid(user));
    return send_mask(shard, user, BF_MASK_HOLD, lanes, ret_ticket);
}

/* ---- calls ---- */

static int post(struct bf_core *core, struct bf_uid uid, struct bf_call *call)
{
    return call ? bf_call_wait(bf_core_shard_of(core, uid), call, BF_CORE_WAIT_MS)
                : BF_ERR_NO_MEMORY;
}

static int do_put_user(struct bf_shard *shard, struct bf_call *call)
{
    struct bf_user *user = bf_user_find(&shard->users, call->uid);
    call->flag = !user;
    if (!user && !bf_user_add(&shard->users, call->uid))
        return BF_ERR_NO_MEMORY;
    bf_batch_put_user(shard->batch, call->uid, call->json);
    return 0;
}

int bf_core_put_user(struct bf_core *core, struct bf_uid uid, struct bf_bytes profile_json,
                     bool *ret_created)
{
    struct bf_call *call = bf_call_create(uid, profile_json, do_put_user);
    int rc = post(core, uid, call);
    if (rc == 0)
        *ret_created = call->flag;
    if (call)
        bf_call_release(call);
    return rc;
}

static int do_admit(struct bf_shard *shard, struct bf_call *call)
{
    return bf_shard_user_of_token(shard, call->uid) ? 0 : BF_ERR_NO_MEMORY;
}

int bf_core_admit_user(struct bf_core *core, struct bf_uid uid)
{
    if (bf_core_has_user(core, uid))
        return 0;
    struct bf_call *call = bf_call_create(uid, (struct bf_bytes){0}, do_admit);
    int rc = post(core, uid, call);
    if (call)
        bf_call_release(call);
    return rc;
}

static void close_conns(struct bf_shard *shard, struct bf_user *user)
{
    for (const struct bf_conn *conn = user->conns; conn; conn = conn->next) {
        struct bf_cmd_close cmd = {.conn = conn->id, .code = BF_CLOSE_REVOKED};
        (void)bf_publisher_send(&shard->pub, conn->worker, BF_LANE_CRITICAL, BF_CMD_CLOSE, &cmd,
                                (struct bf_block_ref){0});
    }
    bf_publisher_flush(&shard->pub);
}

static int do_erase(struct bf_shard *shard, struct bf_call *call)
{
    struct bf_user *user = bf_user_find(&shard->users, call->uid);
    if (!user)
        return BF_ERR_UNKNOWN_USER;
    /* newer than the clock of the turn: what was accepted until now came before it */
    int rc = bf_batch_erase_user(shard->batch, call->uid, bf_wall_ms(), call->json);
    if (rc != 0)
        return rc;
    rc = send_hold(shard, user, &call->ticket);
    if (rc !=
        0) { /* the commit that follows this call must not erase what the answer says is there */
        bf_batch_clear(shard->batch);
        return rc;
    }
    bf_outbound_forget(&shard->outbound, call->uid);
    bf_count(BF_CM_M_erasures, 1);
    close_conns(shard, user);
    while (user->conns)
        bf_conn_unlink(&shard->conns, user->conns);
    bf_user_remove(&shard->users, user);
    return 0;
}

/* With it go tokens: see devices.c. */
static int do_erase_with_devices(struct bf_shard *shard, struct bf_call *call)
{
    pthread_mutex_lock(&shard->core->devices_lock);
    int rc = do_erase(shard, call);
    bf_shard_commit(shard);
    pthread_mutex_unlock(&shard->core->devices_lock);
    return rc;
}

int bf_core_erase_user(struct bf_core *core, struct bf_uid uid, struct bf_bytes by)
{
    struct bf_call *call = bf_call_create(uid, by, do_erase_with_devices);
    int rc = post(core, uid, call);
    if (rc == 0)
        rc = await_mask(core, call->ticket);
    if (rc == 0)
        rc = bf_store_sync(core->store);
    if (call)
        bf_call_release(call);
    return rc;
}

static int do_erase_rest(struct bf_shard *shard, struct bf_call *call)
{
    if (bf_user_find(&shard->users, call->uid))
        return 0;
    return bf_batch_erase_rest(shard->batch, call->uid, call->number);
}

int bf_core_erase_rest(struct bf_core *core, struct bf_uid uid, uint64_t erased_ms)
{
    struct bf_call *call = bf_call_create(uid, (struct bf_bytes){0}, do_erase_rest);
    if (!call)
        return BF_ERR_NO_MEMORY;
    call->number = erased_ms;
    int rc = post(core, uid, call);
    bf_call_release(call);
    return rc;
}

bool bf_core_has_user(struct bf_core *core, struct bf_uid uid)
{
    return bf_store_has_user(core->store, uid);
}

/* The mask is taken away, and the lanes of each connection open again at their heads. What a
 * connection lacked before (because it read slowly, for example) is in the inbox and is not sent by
 * itself any more. */
static int send_lift(struct bf_shard *shard, struct bf_user *user, uint64_t *ret_ticket)
{
    uint32_t slots = 1; /* of one worker, at most: the mask, and a marker a connection */
    for (const struct bf_conn *conn = user->conns; conn; conn = conn->next)
        slots++;
    for (const struct bf_conn *conn = user->conns; conn; conn = conn->next)
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
            if (!bf_publisher_has_room(&shard->pub, conn->worker, (enum bf_lane)lane, slots))
                return BF_ERR_AWAY;
    bf_shard_settle_heads(shard, user);
    int rc = send_mask(shard, user, BF_MASK_LIFT, MASK_CRITICAL, ret_ticket);
    for (struct bf_conn *conn = user->conns; rc == 0 && conn; conn = conn->next)
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++) {
            struct bf_cmd_conn_frame cmd = {.conn = conn->id, .seq = user->state.head[lane]};
            (void)bf_shard_send_conn(shard, conn->worker, (enum bf_lane)lane, BF_CMD_OPEN, cmd,
                                     NULL, 0);
            conn->sent[lane] = user->state.head[lane];
        }
    return rc;
}

/* What do_put_prefs returns when the person opts in again and the rings must drain first. */
#define PREFS_FENCED 1

/*
 * The workers' mask changes together with the preferences. Opting out sets it, even if it is set
 * already, because the first call may have got no answer. Opting in again first sends a fence
 * through all rings (|call->flag|: it has passed), so that nothing from before the opt-out is left
 * in them; the person stays opted out until then, and if the fence does not pass in time nothing
 * changes.
 */
static int do_put_prefs(struct bf_shard *shard, struct bf_call *call)
{
    struct bf_user *user = bf_user_find(&shard->users, call->uid);
    if (!user)
        return BF_ERR_UNKNOWN_USER;
    bool out = bf_prefs_is_opted_out(call->prefs);
    int rc = 0;
    if (out)
        rc = send_hold(shard, user, &call->ticket);
    else if (user->opted_out && call->flag)
        rc = send_lift(shard, user, &call->ticket);
    else if (user->opted_out) {
        rc = send_mask(shard, user, BF_MASK_FENCE, MASK_ALL, &call->ticket);
        return rc == 0 ? PREFS_FENCED : rc;
    }
    if (rc != 0)
        return rc;
    bf_batch_put_prefs(shard->batch, call->uid, call->json);
    bf_prefs_free(user->prefs);
    user->prefs = call->prefs;
    call->prefs = NULL;
    user->opted_out = out;
    return 0;
}

/* One visit to the shard and the workers' confirmation. |*prefs| is taken over unless the result is
 * PREFS_FENCED. */
static int put_prefs_once(struct bf_core *core, struct bf_uid uid, struct bf_prefs **prefs,
                          struct bf_bytes stored_json, bool is_fenced)
{
    struct bf_call *call = bf_call_create(uid, stored_json, do_put_prefs);
    if (!call) {
        bf_prefs_free(*prefs);
        return BF_ERR_NO_MEMORY;
    }
    call->prefs = *prefs;
    call->flag = is_fenced;
    int rc = post(core, uid, call);
    if (rc >= 0) {
        int waited = await_mask(core, call->ticket);
        rc = waited != 0 ? waited : rc;
    }
    if (rc == PREFS_FENCED) { /* it has run, and did not take them */
        *prefs = call->prefs;
        call->prefs = NULL;
    }
    bf_call_release(call);
    return rc;
}

int bf_core_put_prefs(struct bf_core *core, struct bf_uid uid, struct bf_prefs *prefs,
                      struct bf_bytes stored_json)
{
    int rc = put_prefs_once(core, uid, &prefs, stored_json, false);
    if (rc == PREFS_FENCED)
        rc = put_prefs_once(core, uid, &prefs, stored_json, true);
    return rc;
}

static int do_mark(struct bf_shard *shard, struct bf_call *call)
{
    struct bf_user *user = bf_user_find(&shard->users, call->uid);
    if (!user)
        return BF_ERR_UNKNOWN_USER;
    int rc = bf_shard_mark(shard, user, &call->id, call->mark, 0, 0);
    call->number = user->state.unread;
    return rc;
}

int bf_core_mark(struct bf_core *core, struct bf_uid uid, const struct bf_id *id, enum bf_mark mark,
                 uint32_t *ret_unread)
{
    struct bf_call *call = bf_call_create(uid, (struct bf_bytes){0}, do_mark);
    if (!call)
        return BF_ERR_NO_MEMORY;
    call->id = *id;
    call->mark = mark;
    int rc = post(core, uid, call);
    if (rc == 0)
        *ret_unread = (uint32_t)call->number;
    bf_call_release(call);
    return rc;
}

static int do_read_all(struct bf_shard *shard, struct bf_call *call)
{
    uint32_t changed = 0;
    struct bf_user *user = bf_user_find(&shard->users, call->uid);
    if (!user)
        return BF_ERR_UNKNOWN_USER;
    int rc = bf_shard_read_all(shard, user, &changed);
    call->number = changed;
    call->state = user->state;
    return rc;
}

int bf_core_read_all(struct bf_core *core, struct bf_uid uid, uint32_t *ret_changed,
                     uint32_t *ret_unread)
{
    struct bf_call *call = bf_call_create(uid, (struct bf_bytes){0}, do_read_all);
    int rc = post(core, uid, call);
    if (rc == 0) {
        *ret_changed = (uint32_t)call->number;
        *ret_unread = call->state.unread;
    }
    if (call)
        bf_call_release(call);
    return rc;
}

static int do_state(struct bf_shard *shard, struct bf_call *call)
{
    struct bf_user *user = bf_user_find(&shard->users, call->uid);
    if (!user)
        return BF_ERR_UNKNOWN_USER;
    bf_shard_settle_heads(shard, user);
    bf_shard_recount_unread(shard, user, shard->turn.now_ms);
    call->state = user->state;
    return 0;
}

int bf_core_state(struct bf_core *core, struct bf_uid uid, struct bf_user_state *ret)
{
    struct bf_call *call = bf_call_create(uid, (struct bf_bytes){0}, do_state);
    int rc = post(core, uid, call);
    if (rc == 0)
        *ret = call->state;
    if (call)
        bf_call_release(call);
    return rc;
}

int bf_core_locate(struct bf_core *core, struct bf_uid uid, const struct bf_id *id,
                   enum bf_lane *ret_lane, uint64_t *ret_seq)
{
    struct bf_id message;
    if (bf_store_find_message(core->store, uid, id, ret_lane, ret_seq))
        return 0;
    bf_message_id(id, uid.tenant, uid.user, BF_CHANNEL_INAPP, (struct bf_bytes){0}, 0, &message);
    return bf_store_find_message(core->store, uid, &message, ret_lane, ret_seq) ? 0
                                                                                : BF_ERR_NOT_FOUND;
}

/* ---- views ---- */

struct walk_arg {
    struct bf_uid uid;
    uint32_t limit;
    void (*each)(void *arg, const struct bf_connection_row *row);
    void *each_arg;
    enum bf_presence presence;
};

static void show_conn(struct walk_arg *w, const struct bf_conn *conn)
{
    struct bf_connection_row row = {.worker = conn->worker,
                                    .conn = conn->id,
                                    .uid = bf_user_uid(conn->user),
                                    .device = {.at = conn->device, .len = conn->device_len},
                                    .device_hash = conn->device_hash,
                                    .connected_ms = conn->connected_ms};
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++) {
        row.sent[lane] = conn->sent[lane];
        row.acked[lane] = conn->acked[lane];
    }
    if (w->limit > 0) {
        w->limit--;
        w->each(w->each_arg, &row);
    }
}

static int walk_shard(struct bf_shard *shard, void *arg)
{
    struct walk_arg *w = arg;
    if (!shard->presence_known)
        return 0;
    w->presence = BF_PRESENCE_OFFLINE;
    if (w->uid.user.at) {
        struct bf_user *user = bf_user_find(&shard->users, w->uid);
        for (const struct bf_conn *conn = user ? user->conns : NULL; conn; conn = conn->next) {
            w->presence = BF_PRESENCE_ONLINE;
            show_conn(w, conn);
        }
        return 0;
    }
    for (uint32_t worker = 0; worker < shard->conns.workers; worker++)
        for (uint32_t i = 0; i < shard->conns.slot_cap[worker] && w->limit > 0; i++)
            if (shard->conns.slots[worker][i])
                show_conn(w, shard->conns.slots[worker][i]);
    return 0;
}

int bf_core_walk_connections(struct bf_core *core, struct bf_uid uid, uint32_t limit,
                             void (*each)(void *arg, const struct bf_connection_row *row),
                             void *arg, enum bf_presence *ret_presence)
{
    struct walk_arg w = {.uid = uid, .limit = limit, .each = each, .each_arg = arg};
    for (uint32_t i = 0; i < core->shard_count; i++) {
        if (uid.user.at && bf_core_shard_of(core, uid) != &core->shards[i])
            continue;
        int rc = bf_core_run_on(core, i, walk_shard, &w);
        if (rc != 0)
            return rc;
    }
    if (ret_presence)
        *ret_presence = w.presence;
    return 0;
}

int bf_core_drain(struct bf_core *core, uint32_t rate, uint32_t reconnect_after_ms)
{
    if (!atomic_load(&core->ready))
        return BF_ERR_AWAY;
    atomic_store(&core->drain_rate, rate);
    atomic_store(&core->drain_after_ms, reconnect_after_ms);
    atomic_store(&core->drain_asked, true);
    if (core->wake_main)
        core->wake_main(core->wake_main_arg);
    return 0;
}

int bf_core_reload(struct bf_core *core, const struct bf_conf *conf)
{
    atomic_store_explicit(&core->conf, conf, memory_order_release);
    atomic_fetch_add_explicit(&core->conf_version, 1, memory_order_relaxed); /* for people */
    atomic_store(&core->config_changed, true);
    if (core->wake_main)
        core->wake_main(core->wake_main_arg);
    return 0;
}

void bf_core_health(struct bf_core *core, struct bf_core_health *ret)
{
    struct bf_region *region = atomic_load(&core->region);
    memset(ret, 0, sizeof(*ret));
    ret->presence_known = atomic_load(&core->ready);
    ret->dataplane_attached = region != NULL;
    ret->dataplane_generation = atomic_load(&core->generation);
    ret->attaches = atomic_load(&core->attaches);
    ret->workers = region ? region->geometry.workers : 0;
    ret->blocks_total = region ? region->block_count : 0;
    ret->jobs = atomic_load(&core->jobs);
    for (uint32_t i = 0; i < core->shard_count; i++) {
        struct bf_shard *shard = &core->shards[i];
        ret->users += atomic_load_explicit(&shard->user_count, memory_order_relaxed);
        ret->connections += atomic_load_explicit(&shard->conn_count, memory_order_relaxed);
        ret->blocks_free += atomic_load_explicit(&shard->blocks_free, memory_order_relaxed);
    }
    ret->blocks_free += atomic_load_explicit(&core->control_blocks_free, memory_order_relaxed);
    for (uint32_t p = 0; core->ledger && p < bf_ledger_partitions(core->ledger); p++)
        ret->inflight += bf_ledger_inflight(core->ledger, p);
    ret->oldest_open_ms = core->ledger ? bf_ledger_oldest_ms(core->ledger, bf_mono_ms()) : 0;
}

const struct bf_region *bf_core_region(struct bf_core *core)
{
    return atomic_load(&core->region);
}

/* ---- dead letters ---- */

struct redrive {
    const struct bf_id *event_id;
    uint64_t at_ms;
    struct bf_event_meta meta;
    char *body;
    size_t body_len;
    bool found;
};

/* The letter's event, plain: of a CloudEvent what its headers and body say together, so that either
 * engine takes it back. BF_ERR_MALFORMED: it is as broken as it was. */
static int copy_body(struct redrive *r, const struct bf_dlq_row *row)
{
    struct bf_problem problem;
    if (row->headers.len > 0 && bf_cloudevent_is(row->headers))
        return bf_cloudevent_convert(row->headers, row->body, &r->body, &r->body_len, &problem);
    r->body = malloc(row->body.len + 1);
    if (!r->body)
        return -ENOMEM;
    if (row->body.len > 0)
        memcpy(r->body, row->body.at, row->body.len);
    r->body_len = row->body.len;
    return 0;
}

static int pick_dead_letter(void *arg, const struct bf_dlq_row *row)
{
    struct redrive *r = arg;
    if (row->at_ms != r->at_ms || !bf_id_is_equal(&row->event_id, r->event_id))
        return row->at_ms > r->at_ms;
    if (bf_event_meta_decode((const uint8_t *)row->meta.at, row->meta.len, &r->meta) != 0) {
        /* a foreign producer's event has none. Time 0 would make it expired at once, and lost */
        r->meta = (struct bf_event_meta){
            .source = BF_SOURCE_KAFKA, .topic_lane = BF_LANE_NORMAL, .accepted_ms = row->at_ms};
    }
    r->found = true;
    int rc = copy_body(r, row);
    return rc == 0 ? 1 : rc;
}

struct redrive_wait {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    int rc;
};

static void redrive_done(void *arg, int rc)
{
    struct redrive_wait *wait = arg;
    pthread_mutex_lock(&wait->lock);
    wait->rc = rc;
    wait->done = true;
    pthread_cond_signal(&wait->cond);
    pthread_mutex_unlock(&wait->lock);
}

/* Appends and waits until durable: the dead letter goes only when its event is safe elsewhere. */
static int append_and_wait(struct bf_core *core, const struct bf_log_entry *entry)
{
    struct redrive_wait wait = {.lock = PTHREAD_MUTEX_INITIALIZER,
                                .cond = PTHREAD_COND_INITIALIZER};
    int rc = bf_log_append(core->log, entry, redrive_done, &wait);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&wait.lock);
    while (!wait.done)
        pthread_cond_wait(&wait.cond, &wait.lock);
    pthread_mutex_unlock(&wait.lock);
    return wait.rc;
}

int bf_core_redrive(struct bf_core *core, uint8_t channel, uint64_t at_ms,
                    const struct bf_id *event_id)
{
    struct redrive r = {.event_id = event_id, .at_ms = at_ms};
    uint8_t meta[BF_EVENT_META_BYTES_MAX];
    int rc = bf_store_walk_dlq(core->store, channel, at_ms ? at_ms - 1 : 0, pick_dead_letter, &r);
    if (rc < 0)
        return rc;
    if (!r.found)
        return BF_ERR_NOT_FOUND;
    struct bf_log_entry entry = {
        .lane = r.meta.topic_lane,
        .key = {.at = (const char *)event_id->bytes, .len = sizeof(event_id->bytes)},
        .meta = {.at = (const char *)meta, .len = bf_event_meta_encode(&r.meta, meta)},
        .body = {.at = r.body, .len = r.body_len},
    };
    rc = append_and_wait(core, &entry);
    if (rc == 0) {
        struct bf_batch *batch = bf_batch_create(core->store);
        bf_batch_delete_dlq(batch, channel, at_ms, event_id);
        rc = bf_batch_write(batch, false);
        bf_batch_destroy(batch);
    }
    free(r.body);
    return rc;
}
