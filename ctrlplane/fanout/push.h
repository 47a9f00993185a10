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
#include "store/devices.h"
#include "store/push_queue.h"

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
/* Rows of a lane. More: dead letters, `queue_full`. 10 million of 600 bytes are 6 GB of disk. */
#define BF_PUSH_QUEUE_MAX 10000000u
/* Devices that a provider throttles one by one, remembered until they may be asked again. */
#define BF_PUSH_SLOW_DEVICES 1024u

/* A pool as this shard sees it. Its limits are the shard's share. */
struct bf_push_pool_state {
    uint32_t id; /* BF_SNAP_PUSH_POOL; 0: place not used */
    enum bf_push_kind kind;
    struct bf_breaker breaker;
    struct bf_bucket bucket;
    struct bf_push_budget budget;
    uint64_t stopped_until_ms; /* wall; its credential was refused for good */
    uint32_t flights;
};

struct bf_push_flight {
    struct bf_push_flight *next; /* by age, oldest first */
    struct bf_push_flight *prev;
    uint64_t push_id;
    uint64_t sent_ms;                /* mono */
    struct bf_open_event *open;      /* NULL: it came from a row */
    struct bf_push_pool_state *pool; /* NULL: adopted from a census, pool not known */
    struct bf_push_row
        place; /* ids, times, attempts; of a row: where it lies. Texts are not kept */
    uint64_t registered_ms;
    uint8_t token_hash[16];
    enum bf_push_kind kind;
    bool is_row;
    char uid[]; /* tenant and user, what place.uid views */
};

/* A command whose batch is not written yet. */
struct bf_push_pending {
    uint32_t worker;
    enum bf_lane lane;
    struct bf_cmd_push cmd;
};
#define BF_PUSH_PENDING_MAX 1024u

struct bf_shard_push {
    bool is_on;                    /* the node has apps */
    struct bf_push_flight **slots; /* open addressing by push_id */
    uint32_t flight_count;
    struct bf_push_flight *oldest, *newest;
    struct bf_push_pending pending[BF_PUSH_PENDING_MAX];
    uint32_t pending_count;
    uint32_t next_worker;
    struct bf_push_pool_state *pools;  /* BF_PUSH_POOLS_MAX */
    uint64_t cursor_ms[BF_LANE_COUNT]; /* no row is due before it */
    uint64_t look_ms[BF_LANE_COUNT];   /* nothing is due before it: no look until then */
    uint64_t fallbacks_from_ms;        /* wall; after an attach */
    uint64_t attached_ms;              /* wall: rows due before it may fly already */
    uint64_t swept_ms;
    struct {
        struct bf_id device;
        uint64_t until_ms;
    } slow[BF_PUSH_SLOW_DEVICES];
    uint64_t random;
};
