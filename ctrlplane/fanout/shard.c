/*
 * The shard's thread. Messages are taken in slices, lane by lane; each slice is a turn, and each of
 * its legs goes through five steps: gather what the decision needs, decide (pure), apply (to the
 * person's record and the batch, at once, so that the next leg sees it), commit (one write for many
 * legs), send. A write is made when the batch is full, when something urgent was decided, before
 * what must see the store as it is, and when there is nothing left to do.
 */
#include "fanout/shard.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>

#include "stats/metrics.h"
#include "belfry/base/fatal.h"
#include "belfry/base/time.h"
#include "channels/push/push_note.h"
#include "fanout/calls.h"
#include "fanout/core_state.h"
#include "fanout/gather.h"
#include "belfry/base/fault.h"

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
    for (uint32_t i = 0; i < shard->dirty_count; i++) {
        struct bf_user *user = shard->dirty[i];
        bf_batch_put_state(shard->batch, bf_user_uid(user), &user->state, shard->turn.now_ms,
                           false);
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
        bf_fatal(
            "ctrlplane",
            "store write failed (%s): stopping; events stay in the log and are "
            "replayed at the next start. Free disk space or replace the disk, then start again",
            bf_err_text(rc));
    }
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
        bf_receipt_msg_done(shard->receipts[i]);
    shard->receipt_count = 0;
}

/* The fourth and the fifth step, for all that was applied since the last time. */
void bf_shard_commit(struct bf_shard *shard)
{
    put_dirty_states(shard);
    write_batch(shard);
    bf_fault_pass(&fault_commit);
    bf_shard_send(shard);
    settle_all(shard);
    if (shard->fresh_used) {
        memset(shard->fresh_ids, 0, sizeof(shard->fresh_ids));
        shard->fresh_used = false;
    }
    shard->outbound.wants_commit = false;
    shard->batched = 0;
}

/* The first three steps. */
void bf_shard_take_leg(struct bf_shard *shard, struct bf_leg *leg)
{
    struct bf_gathered_leg gathered;
    struct bf_plan plan;
    bf_shard_gather(shard, leg, &gathered);
    bf_decide(&gathered.facts, &plan);
    bf_shard_apply(shard, &gathered, &plan);
    bf_shard_gather_close(&gathered);
}

/* ---- the turn ---- */

static struct bf_rules rules_of(const struct bf_shard *shard)
{
    const struct bf_conf *conf = bf_core_conf(shard->core);
    uint32_t push = conf->push_app_count > 0 ? 1u << BF_CHANNEL_PUSH : 0;
    return (struct bf_rules){
        /* relaxed: for people; the configuration itself was acquired */
        .version = atomic_load_explicit(&shard->core->conf_version, memory_order_relaxed),
        .channels = (uint8_t)(1u << BF_CHANNEL_INAPP | push),
        .max_age_ms = (uint64_t)conf->event_max_age_s * 1000,
        .ttl_ms = BF_PUSH_TTL_DEFAULT_MS,
        .ack_ms = conf->ack_deadline_ms + BF_FALLBACK_GRACE_MS,
        .attached_ms = shard->outbound.attached_ms,
        .hold_until_ms = shard->outbound.attached_ms + BF_ATTACH_HOLD_MS,
    };
}

/* Clock and rules are read here, once a turn, when its inputs have been taken. Elsewhere the clock
 * is read only where a newer one is needed, which is said there. */
static void begin_turn(struct bf_shard *shard)
{
    shard->turn.now_ms = bf_wall_ms();
    shard->turn.mono_ms = bf_mono_ms();
    shard->turn.conf = bf_core_conf(shard->core);
    shard->turn.log = shard->core->log;
    shard->rules = rules_of(shard);
}

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

static void gather_due(struct bf_turn *turn, const struct bf_leg_row *row, struct bf_due_facts *ret)
{
    bf_shard_gather_due(shard_of(turn), row, ret);
}

static uint32_t count_unread(struct bf_turn *turn, const struct bf_leg_row *row)
{
    return bf_shard_unread_of(shard_of(turn), row->uid);
}

static const struct bf_outbound_host outbound_host = {
    .commit = commit_turn, .settle = settle_one, .gather = gather_due, .unread = count_unread};

static int init_turn(struct bf_shard *shard)
{
    struct bf_turn *turn = &shard->turn;
    turn->store = shard->core->store;
    turn->batch = shard->batch;
    turn->launches = &shard->launches;
    turn->user_secret = shard->users.secret;
    turn->rules = &shard->rules;
    begin_turn(shard);
    return getrandom(&turn->random, sizeof(turn->random), 0) == (ssize_t)sizeof(turn->random)
               ? 0
               : -errno;
}

/* ---- messages ---- */

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
        bf_shard_take_leg(shard, (struct bf_leg *)msg);
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

/* The legs at the head of the list, up to a burst of them. Returns the message after them. */
static struct bf_msg *gather_ahead(struct bf_shard *shard, struct bf_msg *msg)
{
    struct bf_leg *legs[BF_GATHER_AHEAD_MAX];
    uint32_t count = 0;
    for (; msg && msg->kind == BF_MSG_LEG && count < BF_GATHER_AHEAD_MAX; msg = msg->next)
        legs[count++] = (struct bf_leg *)msg;
    bf_shard_gather_ahead(shard, legs, count);
    return msg;
}

/* A turn: its inputs in the order in which they came. */
static void run_turn(struct bf_shard *shard, struct bf_msg *msg)
{
    struct bf_msg *unprepared = msg;
    if (msg)
        begin_turn(shard);
    while (msg) {
        if (msg == unprepared)
            unprepared = msg->kind == BF_MSG_LEG ? gather_ahead(shard, msg) : msg->next;
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
    run_turn(shard, slice);
    if (has_event && shard->batched > 0)
        bf_shard_commit(shard);
    return slice != NULL;
}

/* A turn of each lane, one of the urgent messages before each. Returns whether there was anything.
 */
static bool take_lanes(struct bf_shard *shard)
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
        run_turn(shard, slice);
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

/* What is due without a message. */
static void run_due(struct bf_shard *shard)
{
    begin_turn(shard); /* the shard may have slept */
    bf_publisher_reclaim(&shard->pub);
    bf_shard_retry_held(shard);
    bf_shard_run_replays(shard);
    bf_shard_run_deadlines(shard);
    if (shard->presence_known)
        bf_outbound_run(&shard->outbound);
    bf_shard_sweep_unread(shard);
    bf_publisher_flush(&shard->pub);
}

static void *shard_main(void *arg)
{
    struct bf_shard *shard = arg;
    char name[16];
    snprintf(name, sizeof(name), "bf-shard-%u", shard->index % 100);
    prctl(PR_SET_NAME, name);
    bf_fault_arm(&fault_commit);
    bf_store_enter_thread(shard->core->store);
    while (shard->running) {
        if (!take_lanes(shard))
            sleep_until_work(shard);
        if (shard->batched > 0)
            bf_shard_commit(shard);
        run_due(shard);
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
    shard->push_look = malloc(sizeof(*shard->push_look));
    if (!shard->batch || !shard->scratch || !shard->push_look || init_turn(shard) != 0 ||
        bf_launches_init(&shard->launches, &shard->pub) != 0 ||
        bf_outbound_init(&shard->outbound, &node, index, &shard->turn) != 0 ||
        bf_user_table_init(&shard->users, 1024) != 0)
        return BF_ERR_NO_MEMORY;
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
    /* a count that nobody looked at since a kill is not exact, whatever was added to it; the thread
     * has ended, and with it its turns: a clock of its own */
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
    free(shard->push_look);
}
