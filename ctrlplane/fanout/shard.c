/* The shard's thread: one loop, and the commit that orders write, send, settle, release. */
#include "fanout/shard.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>

#include "admin/metrics.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "fanout/calls.h"
#include "fanout/core_state.h"
#include "main/fault.h"
#include "receipts/receipts.h"

static struct bf_fault fault_commit = {.point = "shard_commit"};

void bf_shard_settle_heads(struct bf_shard *shard, struct bf_user *user)
{
    if (BF_UNLIKELY(user->state.has_gap))
        bf_store_settle_heads(shard->core->store, bf_user_uid(user), &user->state);
}

void bf_shard_mark_dirty(struct bf_shard *shard, struct bf_user *user)
{
    if (user->dirty)
        return;
    user->dirty = true;
    BF_BUG_ON(shard->dirty_count >= BF_SHARD_BATCH_MAX * 2);
    shard->dirty[shard->dirty_count++] = user;
}

static void put_dirty_states(struct bf_shard *shard)
{
    uint64_t now = bf_wall_ms();
    for (uint32_t i = 0; i < shard->dirty_count; i++) {
        struct bf_user *user = shard->dirty[i];
        bf_batch_put_state(shard->batch, bf_user_uid(user), &user->state, now, false);
        user->dirty = false;
        user->is_behind_store = true; /* "heads may have run on": true until a clean stop */
    }
    shard->dirty_count = 0;
}

static void write_batch(struct bf_shard *shard)
{
    if (bf_batch_count(shard->batch) == 0)
        return;
    int rc = bf_batch_write(shard->batch, false);
    if (rc != 0) {
        /* DESIGN 4.15: a failed write is never tried again; recover from disk at the next start */
        BF_ERROR(
            "ctrlplane",
            "store write failed (%s): stopping; events stay in the log and are "
            "replayed at the next start. Free disk space or replace the disk, then start again",
            bf_err_text(rc));
        _exit(1);
    }
}

static void publish_outgoing(struct bf_shard *shard)
{
    for (uint32_t i = 0; i < shard->outgoing_count; i++)
        bf_shard_dispatch(shard, &shard->outgoing[i]);
    shard->outgoing_count = 0;
    bf_publisher_flush(&shard->pub);
}

static void settle_all(struct bf_shard *shard)
{
    for (uint32_t i = 0; i < shard->settling_count; i++) {
        struct bf_open_event *open = shard->settling[i];
        /* acq_rel: the last leg's thread sees what the other legs' shards did */
        if (atomic_fetch_sub_explicit(&open->legs_open, 1, memory_order_acq_rel) == 1)
            open->settled(open);
    }
    shard->settling_count = 0;
    for (uint32_t i = 0; i < shard->receipt_count; i++)
        bf_receipts_done(shard->receipts[i]);
    shard->receipt_count = 0;
}

void bf_shard_commit(struct bf_shard *shard)
{
    put_dirty_states(shard);
    write_batch(shard);
    bf_fault_pass(&fault_commit);
    bf_outbound_flush(&shard->outbound);
    publish_outgoing(shard);
    settle_all(shard);
    if (shard->fresh_used) {
        memset(shard->fresh_ids, 0, sizeof(shard->fresh_ids));
        shard->fresh_used = false;
    }
    shard->outbound.wants_commit = false;
    shard->batched = 0;
}

/* ---- the turn that is lent ------------------------------------------------------------------- */

static struct bf_shard *shard_of(struct bf_turn *turn)
{
    return (struct bf_shard *)((char *)turn - offsetof(struct bf_shard, turn));
}

static void commit_turn(struct bf_turn *turn)
{
    bf_shard_commit(shard_of(turn));
}

static bool settle_one(struct bf_turn *turn, struct bf_open_event *open)
{
    struct bf_shard *shard = shard_of(turn);
    BF_BUG_ON(shard->settling_count >= BF_SHARD_BATCH_MAX);
    shard->settling[shard->settling_count++] = open;
    return shard->settling_count >= BF_SHARD_BATCH_MAX / 2;
}

static void look_at_due(struct bf_turn *turn, const struct bf_leg_row *row, struct bf_due_plan *ret)
{
    bf_shard_look_at_due(shard_of(turn), row, ret);
}

static const struct bf_outbound_host outbound_host = {
    .commit = commit_turn, .settle = settle_one, .look = look_at_due};

static int init_turn(struct bf_shard *shard)
{
    struct bf_turn *turn = &shard->turn;
    turn->store = shard->core->store;
    turn->batch = shard->batch;
    turn->launches = &shard->launches;
    turn->user_secret = shard->users.secret;
    bf_shard_begin_turn(shard);
    return getrandom(&turn->random, sizeof(turn->random), 0) == (ssize_t)sizeof(turn->random)
               ? 0
               : -errno;
}

void bf_shard_begin_turn(struct bf_shard *shard)
{
    shard->turn.now_ms = bf_wall_ms();
    shard->turn.mono_ms = bf_mono_ms();
    shard->turn.conf = bf_core_conf(shard->core);
    shard->turn.log = shard->core->log;
}

/* ---- messages -------------------------------------------------------------------------------- */

static bool needs_clean_batch(const struct bf_msg *msg)
{
    if (msg->kind == BF_MSG_LEG || msg->kind == BF_MSG_ANSWER)
        return false;
    if (msg->kind == BF_MSG_RECEIPT) {
        uint16_t kind = ((const struct bf_receipt_msg *)msg)->kind;
        return kind != BF_RCPT_ACK && kind != BF_RCPT_PUSH;
    }
    return true; /* calls and replays read the store: what was decided must be in it */
}

static void take_message(struct bf_shard *shard, struct bf_msg *msg)
{
    bool undone = shard->outgoing_count > 0 || shard->dirty_count > 0 ||
                  bf_batch_count(shard->batch) > 0 || shard->launches.count > 0;
    if (undone && needs_clean_batch(msg))
        bf_shard_commit(shard);
    switch (msg->kind) {
    case BF_MSG_LEG:
        bf_shard_deliver(shard, (struct bf_leg *)msg);
        break;
    case BF_MSG_RECEIPT:
        bf_shard_receipt(shard, (struct bf_receipt_msg *)msg);
        break;
    case BF_MSG_CALL:
        bf_call_execute(shard, (struct bf_call *)msg);
        break;
    case BF_MSG_ANSWER:
        bf_outbound_answer(&shard->outbound, &((struct bf_answer_msg *)msg)->answer);
        free(msg);
        break;
    }
    if (++shard->batched >= BF_SHARD_BATCH_MAX || shard->outbound.wants_commit)
        bf_shard_commit(shard);
}

/* The legs at the head of the list, up to a burst of them. Returns the message behind. */
static struct bf_msg *prepare_legs(struct bf_shard *shard, struct bf_msg *msg)
{
    struct bf_leg *legs[BF_SHARD_PREPARE_MAX];
    uint32_t count = 0;
    for (; msg && msg->kind == BF_MSG_LEG && count < BF_SHARD_PREPARE_MAX; msg = msg->next)
        legs[count++] = (struct bf_leg *)msg;
    bf_shard_prepare(shard, legs, count);
    return msg;
}

static void take_messages(struct bf_shard *shard, struct bf_msg *msg)
{
    struct bf_msg *unprepared = msg;
    while (msg) {
        if (msg == unprepared)
            unprepared = msg->kind == BF_MSG_LEG ? prepare_legs(shard, msg) : msg->next;
        struct bf_msg *next = msg->next; /* the message may be freed when taken */
        take_message(shard, msg);
        msg = next;
    }
}

/* The oldest messages of a lane, |max| at most, as a list of their own. NULL: none. */
static struct bf_msg *take_slice(struct bf_shard *shard, enum bf_msgq_lane lane, uint32_t max)
{
    struct bf_backlog *waiting = &shard->backlog[lane];
    struct bf_msg *newest = NULL;
    struct bf_msg *fresh = bf_msgq_take(&shard->queue, lane, &newest);
    if (fresh && waiting->first)
        waiting->last->next = fresh;
    else if (fresh)
        waiting->first = fresh;
    if (fresh)
        waiting->last = newest;
    struct bf_msg *first = waiting->first, *end = first;
    for (uint32_t i = 1; end && end->next && i < max; i++)
        end = end->next;
    if (end) {
        waiting->first = end->next;
        end->next = NULL;
    }
    return first;
}

/* What is urgent; events among it leave at once, with what was decided before them. Returns whether
 * there was anything. */
static bool take_urgent(struct bf_shard *shard)
{
    struct bf_msg *slice = take_slice(shard, BF_MSGQ_URGENT, BF_SHARD_URGENT_MAX);
    bool has_event = false;
    for (const struct bf_msg *msg = slice; msg && !has_event; msg = msg->next)
        has_event = msg->kind == BF_MSG_LEG;
    take_messages(shard, slice);
    if (has_event && shard->batched > 0)
        bf_shard_commit(shard);
    return slice != NULL;
}

/* One slice of each lane, the urgent ones before each. Returns whether there was anything. */
static bool take_turn(struct bf_shard *shard)
{
    static const uint32_t max[BF_MSGQ_LANES] = {
        [BF_MSGQ_NORMAL] = BF_SHARD_NORMAL_MAX,
        [BF_MSGQ_JOB] = BF_SHARD_JOB_MAX,
        [BF_MSGQ_BULK] = BF_SHARD_BULK_MAX,
    };
    bool is_busy = false;
    for (int lane = BF_MSGQ_NORMAL; lane < BF_MSGQ_LANES; lane++) {
        is_busy = take_urgent(shard) || is_busy;
        struct bf_msg *slice = take_slice(shard, (enum bf_msgq_lane)lane, max[lane]);
        is_busy = is_busy || slice != NULL;
        take_messages(shard, slice);
    }
    return is_busy;
}

static void sleep_until_work(struct bf_shard *shard)
{
    bf_doorbell_arm(&shard->queue.bell);
    if (bf_msgq_is_empty(&shard->queue))
        bf_doorbell_wait(&shard->queue.bell, BF_SHARD_TICK_MS);
    bf_doorbell_disarm(&shard->queue.bell);
}

static void publish_health(struct bf_shard *shard)
{
    /* relaxed: three unrelated gauges for people */
    atomic_store_explicit(&shard->user_count, shard->users.count, memory_order_relaxed);
    atomic_store_explicit(&shard->conn_count, shard->conns.count, memory_order_relaxed);
    atomic_store_explicit(&shard->blocks_free, bf_publisher_free_total(&shard->pub),
                          memory_order_relaxed);
}

static void *shard_main(void *arg)
{
    struct bf_shard *shard = arg;
    char name[16];
    snprintf(name, sizeof(name), "bf-shard-%u", shard->index % 100);
    prctl(PR_SET_NAME, name);
    bf_fault_arm(&fault_commit);
    bf_store_enter_thread();
    while (shard->running) {
        bf_shard_begin_turn(shard);
        if (!take_turn(shard))
            sleep_until_work(shard);
        if (shard->batched > 0)
            bf_shard_commit(shard);
        bf_publisher_reclaim(&shard->pub);
        bf_shard_retry_held(shard);
        bf_shard_run_replays(shard);
        bf_shard_run_deadlines(shard);
        if (shard->presence_known)
            bf_outbound_run(&shard->outbound);
        bf_shard_sweep_unread(shard);
        bf_publisher_flush(&shard->pub);
        publish_health(shard);
    }
    return NULL;
}

void bf_shard_post(struct bf_shard *shard, struct bf_msg *msg)
{
    bf_msgq_push(&shard->queue, msg);
}

int bf_shard_init(struct bf_shard *shard, struct bf_core *core, uint32_t index)
{
    const struct bf_outbound_node node = {.census = &core->attempt_census,
                                          .host = &outbound_host,
                                          .shards = core->shard_count,
                                          .partitions = core->partitions};
    shard->core = core;
    shard->index = index;
    shard->running = true;
    shard->held_tail = &shard->held;
    shard->batch = bf_batch_create(core->store);
    shard->scratch = malloc(bf_block_class_bytes[BF_BLOCK_80K]);
    if (!shard->batch || !shard->scratch || init_turn(shard) != 0 ||
        bf_launches_init(&shard->launches, &shard->pub) != 0 ||
        bf_outbound_init(&shard->outbound, &node, index, &shard->turn) != 0 ||
        bf_user_table_init(&shard->users, 1024) != 0)
        return BF_ERR_NO_MEMORY;
    shard->users.known = &core->known;
    return 0;
}

int bf_shard_start(struct bf_shard *shard)
{
    int rc = pthread_create(&shard->thread, NULL, shard_main, shard);
    return rc ? -rc : 0;
}

static int stop_running(struct bf_shard *shard, void *arg)
{
    (void)arg;
    shard->running = false;
    return 0;
}

static bool put_exact_state(void *arg, struct bf_user *user)
{
    struct bf_shard *shard = arg;
    if (!user->is_behind_store)
        return true;
    /* a count that nobody looked at since a kill is not exact, whatever was added to it */
    bf_batch_put_state(shard->batch, bf_user_uid(user), &user->state, bf_wall_ms(),
                       !user->state.is_rounded);
    if (bf_batch_count(shard->batch) >= BF_SHARD_BATCH_MAX)
        write_batch(shard);
    return true;
}

/* A clean stop leaves heads and counts as they are, so the next start has nothing to round up. */
static void write_exact_states(struct bf_shard *shard)
{
    bf_user_table_walk(&shard->users, put_exact_state, shard);
    write_batch(shard);
}

void bf_shard_stop(struct bf_shard *shard)
{
    if (!shard->thread)
        return;
    bf_core_run_on(shard->core, shard->index, stop_running, NULL);
    pthread_join(shard->thread, NULL);
    write_exact_states(shard);
    bf_conn_table_fini(&shard->conns);
    bf_user_table_fini(&shard->users);
    bf_publisher_detach(&shard->pub);
    bf_outbound_fini(&shard->outbound);
    bf_launches_fini(&shard->launches);
    bf_batch_destroy(shard->batch);
    free(shard->deadlines);
    free(shard->scratch);
}
