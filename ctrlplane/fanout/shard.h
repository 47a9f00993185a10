/*
 * A fan-out shard: one thread that owns a part of the users and all that changes with them:
 * records, presence, sequences, deadlines, and the producing end of its rings. Its work goes in
 * turns of five steps (shard.c): gather, decide, apply, then one store batch, then the rings and
 * settlement. Nothing is sent whose record failed (DESIGN 4.15).
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "fanout/conn_table.h"
#include "fanout/msg.h"
#include "fanout/user_table.h"
#include "outbound/outbound.h"
#include "publish/launches.h"

struct bf_core;
struct bf_conf;
struct bf_gathered_leg;
struct bf_push_look;

/* Messages between two store writes: enough to make the write cheap for each, few enough to keep
 * latency low. */
#define BF_SHARD_BATCH_MAX 512u
/* Messages of each lane that a turn of the shard takes: no lane waits for ever. A leg costs some 10
 * us, and its rows in the write as much: a slice of a job or of bulk keeps the others waiting for 1
 * to 2 ms. */
#define BF_SHARD_URGENT_MAX BF_SHARD_BATCH_MAX
#define BF_SHARD_NORMAL_MAX 256u
#define BF_SHARD_JOB_MAX    64u
#define BF_SHARD_BULK_MAX   64u
/* How long a shard sleeps at most: deadlines and waiting replays are looked at this often. */
#define BF_SHARD_TICK_MS 20u

/* A decided in-app delivery that waits for the batch to be written. */
struct bf_outgoing {
    struct bf_user *user;
    struct bf_open_event *open;
    struct bf_id id;
    uint64_t prev, seq; /* 0,0: transient */
    enum bf_lane lane;
    uint32_t collapse;
};

struct bf_deadline {
    uint64_t due_ms;
    uint64_t since_ms;
    bf_conn_id conn;
    uint32_t worker;
    uint32_t lane;
};

/* Messages that were taken off the queue and wait for their turn. */
struct bf_backlog {
    struct bf_msg *first, *last;
};

struct bf_shard {
    struct bf_core *core;
    uint32_t index;
    pthread_t thread;
    bool running;
    struct bf_msgq queue;
    struct bf_backlog backlog[BF_MSGQ_LANES];
    struct bf_publisher pub;
    struct bf_user_table users;
    struct bf_conn_table conns;
    bool presence_known; /* every worker's census is in */

    struct bf_turn turn;   /* lent to |outbound|; filled anew at the beginning of each turn */
    struct bf_rules rules; /* of the turn */
    struct bf_push_look *push_look; /* gather.h */
    struct bf_batch *batch;
    uint32_t batched; /* messages since the last commit */
    struct bf_outgoing outgoing[BF_SHARD_BATCH_MAX];
    uint32_t outgoing_count;
    struct bf_open_event *settling[BF_SHARD_BATCH_MAX];
    uint32_t settling_count;
    struct bf_user *dirty[BF_SHARD_BATCH_MAX * 2];
    uint32_t dirty_count;
    struct bf_receipt_msg *receipts[BF_SHARD_BATCH_MAX];
    uint32_t receipt_count;
    struct bf_id fresh_ids[BF_SHARD_BATCH_MAX * 2]; /* ids of this batch, a small hash set */
    bool fresh_used;

    struct bf_msg *held; /* connects that wait for the census or for room in a ring, oldest first */
    struct bf_msg **held_tail;
    struct bf_launches launches;
    struct bf_outbound outbound;
    struct bf_conn *replays;       /* connections with a replay to do */
    struct bf_deadline *deadlines; /* ring, ordered by due_ms */
    uint32_t deadline_head, deadline_count, deadline_cap;
    uint8_t *scratch; /* frames of a replay are packed here */
    uint64_t
        sweep_ms; /* mono: when the sweep of unread.c took its last turn, and where it stands */
    uint32_t sweep_worker, sweep_slot;

    _Atomic uint32_t user_count, conn_count; /* for health; relaxed */
    _Atomic uint64_t blocks_free;
};

/* Memory first; the thread starts when the users are loaded. */
int bf_shard_init(struct bf_shard *shard, struct bf_core *core, uint32_t index);
int bf_shard_start(struct bf_shard *shard);
void bf_shard_stop(struct bf_shard *shard);
void bf_shard_post(struct bf_shard *shard, struct bf_msg *msg);

/* ---- between the files of the shard (shard thread only) ---- */

/* Writes the batch, publishes, settles, releases. Exits the process if the store fails. */
void bf_shard_commit(struct bf_shard *shard);
void bf_shard_mark_dirty(struct bf_shard *shard, struct bf_user *user);
/* One leg of an event through the first three steps: gather.h, decide/decide.h, and these.
 * apply.c: |plan| is taken again where the facts turn out otherwise (no memory for a new person).
 */
void bf_shard_take_leg(struct bf_shard *shard, struct bf_leg *leg);
void bf_shard_apply(struct bf_shard *shard, struct bf_gathered_leg *g, struct bf_plan *plan);
/* send.c. What was decided leaves: only after the batch was written. */
void bf_shard_send(struct bf_shard *shard);
/* connect.c */
void bf_shard_receipt(struct bf_shard *shard, struct bf_receipt_msg *msg);
void bf_shard_hold(struct bf_shard *shard, struct bf_msg *msg);
void bf_shard_retry_held(struct bf_shard *shard);
void bf_shard_open_lost(struct bf_shard *shard, struct bf_conn *conn);
struct bf_user *bf_shard_user_of_token(struct bf_shard *shard, struct bf_uid uid);
/* replay.c */
void bf_shard_want_replay(struct bf_shard *shard, struct bf_conn *conn, uint32_t stream);
void bf_shard_run_replays(struct bf_shard *shard);
void bf_shard_start_deadline(struct bf_shard *shard, struct bf_conn *conn, enum bf_lane lane,
                             uint64_t now_ms);
void bf_shard_run_deadlines(struct bf_shard *shard);
/* One command for a connection with a frame of |len| bytes (0: none). False: no block or no room.
 */
bool bf_shard_send_conn(struct bf_shard *shard, uint32_t worker, enum bf_lane lane,
                        enum bf_cmd_kind kind, struct bf_cmd_conn_frame cmd, const uint8_t *frame,
                        uint32_t len);
/* state of an inbox item to the user's connections, but |except| on |worker|. False: a ring or the
 * blocks were full, so some may not hear of it. */
bool bf_shard_send_state(struct bf_shard *shard, struct bf_user *user, const struct bf_id *id,
                         const char *member, bool value, uint32_t worker, bf_conn_id except);
/* marks.c: 0 or BF_ERR_NOT_FOUND; commits. */
int bf_shard_mark(struct bf_shard *shard, struct bf_user *user, const struct bf_id *id,
                  uint32_t mark, uint32_t worker, bf_conn_id except);
int bf_shard_read_all(struct bf_shard *shard, struct bf_user *user, uint32_t *ret_changed);
/* trim.c: the oldest messages go when the inbox has more than its cap. */
void bf_shard_trim(struct bf_shard *shard, struct bf_user *user);
/* apply_push.c. The push leg of a plan; |seq| of the leg's in-app message, 0: it has none now.
 * Before the leg settles. A broadcast to an APNs broadcast channel is a single push by the queue,
 * of nobody: its user id is empty. */
void bf_shard_apply_push(struct bf_shard *shard, const struct bf_gathered_leg *g,
                         const struct bf_plan *plan, uint64_t seq);
/* leg_due.c: what is known about a row of the queue whose time has come (bf_outbound_host). */
void bf_shard_gather_due(struct bf_shard *shard, const struct bf_leg_row *row,
                         struct bf_due_facts *ret);
/* What the person has not read; 0: there is no such person. */
uint32_t bf_shard_unread_of(struct bf_shard *shard, struct bf_uid uid);
/* After a kill: reads the user's heads again, before anything is decided by them. */
void bf_shard_settle_heads(struct bf_shard *shard, struct bf_user *user);
/* unread.c. Corrects the unread count by what has expired by |now_ms|. Cheap while nothing can have
 * expired (INB-3). It reads the store, so the batch must hold no inbox rows. */
void bf_shard_recount_unread(struct bf_shard *shard, struct bf_user *user, uint64_t now_ms);
/* One item more or less is unread. */
void bf_shard_add_unread(struct bf_user *user, uint64_t expires_ms);
void bf_shard_drop_unread(struct bf_user *user);
/* The count that a push shows; may commit. */
uint32_t bf_shard_badge(struct bf_shard *shard, struct bf_user *user);
/* To be called around a change that sockets are told of: the beginning is durable with the batch,
 * and the sweep tells what was not told by the end. */
void bf_shard_begin_telling(struct bf_shard *shard, struct bf_user *user);
void bf_shard_end_telling(struct bf_shard *shard, struct bf_user *user, bool is_told);
void bf_shard_sweep_unread(struct bf_shard *shard);
