/*
 * The push channel of a shard (FAN-7, DESIGN 4.2-4.7): who gets a push and when, what flies, and
 * what waits. channels/push/push.h says what the parts are; this joins them to users, rings and
 * store.
 *
 *   deliver.c -> push_route.c   one leg: none, now, or a fallback behind the in-app message
 *                push_send.c    device -> request -> block and command; or a row of the push queue
 *                push_result.c  receipt -> verdict -> outcome, dead token, retry, dead letter
 *                push_due.c     rows whose time has come: conditions again, then push_send.c
 *                push_table.c   flights by push_id, pools by id
 *
 * Routes of an event, by `channels`:
 *   not given           in-app; push at once to who is offline; to who is online when the message
 * is not acknowledged within the deadline. Priority critical: both at once push named          push
 * at once, acknowledged or not; with `fallback` and inapp before it: as above push not named none
 * The inbox takes the message whatever the channels (DESIGN 4.5).
 * A broadcast with push named: to who is offline, walked in chunks (pipeline/jobs.h). One to an
 * APNs broadcast channel: a single push by the queue, of nobody: its user id is empty.
 *
 * What flies belongs to a flight. One that came straight from an event holds the event open until
 * its result is durable; one that came from a row leaves the row where it is until then. So a kill
 * loses neither: the log gives the event again, the queue still has the row. Both look first
 * whether the push has ended (its done mark), waits in the queue, or still flies on a worker that
 * outlived us (the census): push_id is made of message id and attempt, so a successor knows it
 * again.
 *
 * Owner: the shard's thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/shm/push.h"
#include "channels/push/push.h"
#include "fanout/msg.h"
#include "prefs/prefs.h"
#include "store/devices.h"
#include "store/legs.h"

struct bf_shard;
struct bf_user;

/* Pushes a shard has with the workers; more wait in the queue. A worker holds BF_PUSH_REQUESTS_MAX.
 */
#define BF_PUSH_FLIGHTS_MAX 8192u
/* Of them in one pool: a provider that answers nothing leaves the others room. */
#define BF_PUSH_POOL_FLIGHTS_MAX 3072u
/* A flight without a result for so long is looked for no more (DESIGN 4.2): the worker's own
 * deadline is BF_PUSH_DEADLINE_MS, so its receipt is lost, or far behind. */
#define BF_PUSH_FLIGHT_MS 10000u
/* Done marks: as long as the log may give an event again. */
#define BF_PUSH_DONE_MS (24u * 3600u * 1000u)
/* Rows looked at in one turn of the shard, each lane: 64 x 40 us is what an in-app message may
 * wait. */
#define BF_PUSH_ROWS_PER_TURN 64u
/* Behind the acknowledgement deadline: time for the copy that is sent again (DESIGN 4.7). */
#define BF_PUSH_FALLBACK_GRACE_MS 2000u
/* After an attach: overdue fallbacks become now + 10 s and up to as much jitter (DESIGN 4.8). */
#define BF_PUSH_ATTACH_HOLD_MS 10000u
/* A dead connection shortens a deadline to this. */
#define BF_PUSH_GONE_MS 10000u
/* Rows of a lane. More: dead letters, `queue_full`. 10 million of 600 bytes are 6 GB of disk. */
#define BF_PUSH_QUEUE_MAX 10000000u
/* Reason of a row whose push may have been sent: it is looked for before it is sent again. */
#define BF_PUSH_NO_RECEIPT "no_receipt"
/* Devices that a provider throttles one by one, remembered until they may be asked again. */
#define BF_PUSH_SLOW_DEVICES 1024u

/*
 * push_ids that workers held when they were asked (BF_RCPT_CENSUS_PUSH). Written by the receipts
 * thread before the census is complete, read and cleared by shards after it; a shard clears its
 * own.
 */
struct bf_push_census {
    _Atomic uint64_t *ids; /* open addressing; 0: free, 1: cleared */
    uint32_t mask;
};
/* Room for what |workers| can hold; forgets an earlier census. 0 or BF_ERR_NO_MEMORY. */
int bf_push_census_init(struct bf_push_census *census, uint32_t workers);
void bf_push_census_fini(struct bf_push_census *census);
void bf_push_census_add(struct bf_push_census *census, uint64_t push_id);
bool bf_push_census_has(const struct bf_push_census *census, uint64_t push_id);
void bf_push_census_forget(struct bf_push_census *census, uint64_t push_id);
/* The done mark of an answer whose message was not known when it came. */
void bf_push_orphan_id(uint64_t push_id, struct bf_id *ret);

/* A pool as this shard sees it. Its limits are the shard's share. */
struct bf_push_pool_state {
    uint32_t id; /* BF_SNAP_PUSH_POOL; 0: place not used */
    enum bf_push_kind kind;
    struct bf_breaker breaker;
    struct bf_bucket bucket;
    struct bf_push_budget budget;
    uint64_t stopped_until_ms; /* wall; its credential was refused for good */
    uint32_t flights;
    uint64_t failed_over;    /* pushes that the app named as failover took instead */
    uint64_t failed_over_ms; /* wall, the last of them; 0: none */
};

/* Where the scan for due rows of a partition's lane stands. */
struct bf_push_place {
    uint64_t cursor_ms; /* wall: rows due before it have been seen */
    uint64_t look_ms;   /* wall: no look until then, nothing is due */
    uint64_t low_ms;    /* the earliest of the rows that were put since the scan began */
};

/* One push to one device, on its way to an end. Exactly one of the two keeps it: an open event, or
 * a row of the queue. */
struct bf_push_case {
    struct bf_leg_row row; /* what it is; of a kept row also where it lies */
    struct bf_open_event *open;
    bool is_row;
};

/* A case whose request a worker has. */
struct bf_push_flight {
    struct bf_push_flight *next; /* by age, oldest first */
    struct bf_push_flight *prev;
    uint64_t push_id;
    uint64_t sent_ms;                /* mono */
    struct bf_push_case what;        /* texts of its row are not kept; uid views |uid| */
    struct bf_push_pool_state *pool; /* NULL: found in a census, pool not known */
    uint64_t registered_ms;
    uint8_t token_hash[16];
    enum bf_push_kind kind;
    bool is_renamed; /* its row has another message id by now: push_id does not follow from it */
    char uid[];      /* tenant, user */
};

/* A command that leaves once the batch is written. */
struct bf_push_pending {
    uint32_t worker;
    enum bf_lane lane;
    struct bf_block_ref block;
    struct bf_cmd_push cmd;
};
#define BF_PUSH_PENDING_MAX 1024u
/* Twice the flights, so that probing stays short. Power of two. */
#define BF_PUSH_FLIGHT_SLOTS 16384u

struct bf_push_slow {
    struct bf_id device;
    uint64_t until_ms;
};

struct bf_shard_push {
    bool is_on;        /* the node has apps */
    bool is_landing;   /* nothing new flies: the process is about to end */
    bool wants_commit; /* two rows of one collapse key must not meet in a batch (legs.h) */
    struct bf_push_flight **slots; /* BF_PUSH_FLIGHT_SLOTS, by push_id */
    uint32_t slots_used;           /* tombstones too */
    uint32_t flight_count;
    struct bf_push_flight *oldest, *newest;
    struct bf_push_pending *pending; /* BF_PUSH_PENDING_MAX */
    uint32_t pending_count;
    uint32_t next_worker;
    struct bf_push_pool_state *pools;                              /* BF_PUSH_POOLS_MAX */
    struct bf_push_slow *slow;                                     /* BF_PUSH_SLOW_DEVICES */
    struct bf_push_place places[BF_LANE_COUNT][BF_PARTITIONS_MAX]; /* those of the shard's own */
    uint64_t look_ms[BF_LANE_COUNT]; /* the earliest of a lane's places */
    uint32_t first[BF_LANE_COUNT];   /* partition that the next scan of the lane begins with */
    uint32_t renamed_count;          /* flights with is_renamed */
    uint64_t attached_ms;            /* wall: rows due before it may fly already */
    uint64_t presence_from_ms;       /* wall: nobody connected does not mean offline until then */
    uint64_t swept_ms;               /* mono */
    uint64_t paged_ms;               /* mono: when a person was last told */
    uint64_t random;
};

/* ---- between the files of the shard (its thread only) ------------------------------------------
 */

/* push_table.c. Init: 0 or BF_ERR_NO_MEMORY. */
int bf_push_table_init(struct bf_shard_push *push);
void bf_push_table_fini(struct bf_shard_push *push);
uint64_t bf_push_id_of(const struct bf_leg_row *row);
/* Bit l: a push of the person's flies that went through the rings of lane l. */
uint32_t bf_push_lanes_of(const struct bf_shard_push *push, struct bf_uid uid);
/* By the id that a worker knows; its low byte is not looked at. */
struct bf_push_flight *bf_push_flight_find(const struct bf_shard_push *push, uint64_t push_id);
/* The flight that |row| waits for. NULL: it does not fly. */
struct bf_push_flight *bf_push_flight_of(const struct bf_shard_push *push,
                                         const struct bf_leg_row *row);
/* NULL: no memory, or as many fly as may. */
struct bf_push_flight *bf_push_flight_add(struct bf_shard *shard, const struct bf_push_case *what);
void bf_push_flight_drop(struct bf_shard *shard, struct bf_push_flight *flight);
/* The pool, made at its first use. NULL: no room. */
struct bf_push_pool_state *bf_push_pool_state(struct bf_shard *shard, uint32_t id,
                                              enum bf_push_kind kind);
uint64_t bf_push_dice(struct bf_shard_push *push, uint64_t below);
void bf_push_device_slow(struct bf_shard_push *push, const struct bf_id *device, uint64_t until_ms);
uint64_t bf_push_device_slow_until(const struct bf_shard_push *push, const struct bf_id *device);

/* push_route.c. The push legs of a leg whose in-app decision was |inapp|; |seq| of its message, 0:
 * it has none. Before the leg settles. */
void bf_shard_push_leg(struct bf_shard *shard, struct bf_user *user, struct bf_leg *leg,
                       enum bf_suppress inapp, uint64_t seq);
bool bf_push_is_fallback(const struct bf_leg_row *row);

/* The push leg of a broadcast: to who is not connected; of BF_PUSH_CHANNEL_USER: to the channel. */
void bf_shard_push_broadcast(struct bf_shard *shard, struct bf_leg *leg);
bool bf_push_is_channel(const struct bf_leg_row *row);
/* push_send.c. The broadcast channel as a device that nobody holds. Views of the note. False: the
 * event names none. */
bool bf_push_channel_device(const struct bf_leg_row *row, const struct bf_push_note *note,
                            struct bf_device_row *ret);
/* An app that is gone for good tells nobody: unseen for push.device_stale. */
bool bf_push_is_stale(const struct bf_shard *shard, const struct bf_device_row *device);
/* Sends |what| to a device, or keeps it as a row for later, or ends it. |note| is open.
 * False: too much flies; nothing was done (of a row), or it is a row now. */
bool bf_shard_push_send(struct bf_shard *shard, struct bf_push_case *what,
                        const struct bf_device_row *device, struct bf_push_note *note);
/* The commit: commands of a written batch. */
void bf_shard_push_dispatch(struct bf_shard *shard);

/* push_result.c. The ends of a case: each writes into the batch; the event settles with it. */
void bf_push_case_end(struct bf_shard *shard, struct bf_push_case *what, enum bf_status status,
                      const char *reason);
void bf_push_case_dead_letter(struct bf_shard *shard, struct bf_push_case *what,
                              const char *reason);
/* Waits in the queue until |not_before_ms| (wall). */
void bf_push_case_postpone(struct bf_shard *shard, struct bf_push_case *what,
                           uint64_t not_before_ms, const char *reason);
/* Puts a row: of the shard's batch, seen when it is due. Every row of the queue is put by this, or
 * told to the scan by bf_push_note_row. */
void bf_shard_queue_push(struct bf_shard *shard, const struct bf_leg_row *row);
void bf_shard_push_result(struct bf_shard *shard, const struct bf_receipt_msg *msg);
/* What flies goes into the queue, its events settle; nothing flies any more. */
void bf_shard_push_land(struct bf_shard *shard);
/* What flies of an erased user: its event settles, its answer is nobody's. */
void bf_shard_push_forget(struct bf_shard *shard, struct bf_uid uid);
/* The same for flights that had no receipt within BF_PUSH_FLIGHT_MS. */
void bf_shard_push_sweep(struct bf_shard *shard);

/* push_due.c. |is_new|: the dataplane died under us, its people are about to come back. */
void bf_shard_push_attached(struct bf_shard *shard, bool is_new);
/* The user's last connection has died: what it has not acknowledged waits 10 s, no longer
 * (DESIGN 4.8). */
void bf_shard_push_gone(struct bf_shard *shard, struct bf_user *user);
void bf_shard_run_pushes(struct bf_shard *shard);
/* The scan for due rows sees |row|, whose batch is not written yet. */
void bf_push_note_row(struct bf_shard_push *push, const struct bf_leg_row *row);
/* A row that waits has become |is|: another device of its person has the token by now. */
void bf_shard_push_moved(struct bf_shard *shard, const struct bf_leg_row *was,
                         const struct bf_leg_row *is);
/* Whether a row of the same message waits in the queue. */
bool bf_push_is_queued(struct bf_shard *shard, const struct bf_leg_row *row);
/* Whether |what| has ended, waits or flies already; one that flies is adopted. */
bool bf_push_is_known(struct bf_shard *shard, struct bf_push_case *what,
                      const struct bf_device_row *device);
