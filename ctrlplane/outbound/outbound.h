/*
 * What leaves a node by a provider (FAN-7, DESIGN 4.2-4.7): one queue and one machine. What
 * bf_decide says of a leg (decide/decide.h) is brought to its end here.
 *
 *   offer ──> send ──> (worker, provider) ──> answer ──> verdict ──> end
 *     │         │                                           │
 *     │ later   │ no pool, no room, breaker, limit          │ later
 *     v         v                                           v
 *   rows of the queue ──when due: decided again──> send  <──┘
 *
 *   send.c       one endpoint: may it go now, through which pool, as which bytes
 *   answer.c     an answer -> verdict -> outcome, dead endpoint, retry, dead letter
 *   ends.c       what an end, a wait and a dead letter write
 *   due.c        rows whose time has come
 *   attempts.c   what providers have, by id; pools.c: a pool's breaker, bucket, budget
 *   redrive.c    dead letters back into the queue
 *
 * An offer is one leg for one endpoint on its way to an end. An offer that came from an event keeps
 * the event open until its result is durable; one that came from a row leaves the row in the queue
 * until then. So a kill loses neither: the log gives the event again, or the queue still has the
 * row. Both look first whether the leg has ended (its done mark), waits in the queue, or is with a
 * worker that outlived us (the census): an attempt's id is made of message id and number, so a
 * successor knows it again.
 *
 * One struct bf_outbound a shard; its thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "channels/table/channels.h"
#include "decide/decide.h"
#include "ledger/open_event.h"
#include "outbound/breaker.h"
#include "outbound/bucket.h"
#include "outbound/census.h"
#include "outbound/retry.h"

/* Attempts that a shard has with providers; more wait in the queue. */
#define BF_ATTEMPTS_OUT_MAX 8192u
/* Of them in one pool: a provider that answers nothing leaves the others room. */
#define BF_POOL_ATTEMPTS_OUT_MAX 3072u
/* An attempt that has no result after this long is given up (DESIGN 4.2): the deadline of who sends
 * is shorter (BF_PUSH_DEADLINE_MS), so its answer is lost, or very late. */
#define BF_ATTEMPT_MS 10000u
/* Done marks: as long as the log may give an event again. */
#define BF_LEG_DONE_MS (24u * 3600u * 1000u)
/* Rows looked at in one turn of the shard, each lane: 64 x 40 us is what an in-app message may
 * wait. */
#define BF_DUE_ROWS_PER_TURN 64u
/* After the acknowledgement deadline: time for the copy that is sent again (DESIGN 4.7). */
#define BF_FALLBACK_GRACE_MS 2000u
/* After an attach: overdue fallbacks become now + 10 s and up to as much jitter (DESIGN 4.8). */
#define BF_ATTACH_HOLD_MS 10000u
/* A dead connection shortens a fallback's wait to this. */
#define BF_FALLBACK_GONE_MS 10000u
/* Rows of a channel's lane. More: dead letters, `queue_full`. 10 million of 600 bytes are 6 GB of
 * disk. */
#define BF_QUEUE_ROWS_MAX 10000000u
/* Endpoints that a provider throttles one by one, remembered until they may be asked again. */
#define BF_SLOW_ENDPOINTS 1024u
/* Twice the attempts, so that probing stays short. Power of two. */
#define BF_ATTEMPT_SLOTS 16384u

/* A pool in this shard. Its limits are this shard's share of the node's. */
struct bf_pool {
    uint8_t channel;
    uint8_t kind; /* of its endpoints */
    uint32_t id;  /* struct bf_pool_info; 0: place not used */
    struct bf_breaker breaker;
    struct bf_bucket bucket;
    struct bf_retry_budget budget;
    uint64_t stopped_until_ms; /* wall; its credential was refused for good */
    uint32_t attempts_out;
    uint64_t failed_over;    /* legs that the account named as failover took instead */
    uint64_t failed_over_ms; /* wall, the last of them; 0: none */
};

/* One leg for one endpoint, on its way to an end. Exactly one of the two keeps it: an open event,
 * or a row of the queue. */
struct bf_offer {
    struct bf_leg_row row; /* what it is; of a kept row also where it lies */
    struct bf_open_event *open;
    bool is_row;
};

/* An offer whose attempt has no answer yet. */
struct bf_outstanding {
    struct bf_outstanding *next; /* by age, oldest first */
    struct bf_outstanding *prev;
    struct bf_attempt attempt; /* as the channel sees it; its row is the offer's */
    uint64_t sent_ms;          /* mono */
    struct bf_offer offer;     /* its row without texts; the uid is borrowed from |uid| */
    struct bf_pool *pool;      /* NULL: found in a census, pool not known */
    bool is_renamed; /* its row has another message id by now: the attempt's id does not follow from
                      * it */
    char uid[];      /* tenant, user */
};

struct bf_slow_endpoint {
    struct bf_id endpoint;
    uint64_t until_ms;
};

/* Where the scan for due rows of a partition's lane stands. */
struct bf_due_place {
    uint64_t cursor_ms; /* wall: rows due before it have been seen */
    uint64_t look_ms;   /* wall: no look until then, nothing is due */
    uint64_t low_ms;    /* the earliest of the rows that were put since the scan began */
};

/* What is known about a row that is due, for the decision. Not to be moved: facts point into it. */
struct bf_due_facts {
    struct bf_subject subject;
    struct bf_person person;
    struct bf_facts facts;
};

/* What fanout/ does for outbound. */
struct bf_outbound_host {
    /* Writes the batch; then what waits for it leaves, and events settle. */
    void (*commit)(struct bf_turn *turn);
    /* One leg of |open| less, once the batch is written. True: many have gathered, commit before
     * more do. */
    bool (*settle)(struct bf_turn *turn, struct bf_open_event *open);
    /* What is known about a row whose time has come, but for its endpoints and whether its content
     * can be read, which are taken for granted. Texts are views of the row. */
    void (*gather)(struct bf_turn *turn, const struct bf_leg_row *row, struct bf_due_facts *ret);
    /* What the row's person has not read, for a badge. */
    uint32_t (*unread)(struct bf_turn *turn, const struct bf_leg_row *row);
};

/* What the shards of a node have in common. Borrowed. */
struct bf_outbound_node {
    struct bf_attempt_census *census;
    const struct bf_outbound_host *host;
    uint32_t shards, partitions;
};

struct bf_outbound {
    struct bf_turn *turn;
    struct bf_channels *channels; /* NULL: not started, nothing is sent */
    struct bf_outbound_node node;
    uint32_t index; /* serves the partitions p with p mod shards = index */

    bool is_stopping;  /* no new attempt is made: the process is about to end */
    bool wants_commit; /* two rows of one collapse key must not be in one batch (legs.h) */
    uint32_t launched; /* channels that have something prepared for flush(); 1u << channel */
    struct bf_outstanding **slots; /* BF_ATTEMPT_SLOTS, by id */
    uint32_t slots_used;           /* tombstones too */
    uint32_t attempt_count;
    uint32_t renamed_count; /* attempts with is_renamed */
    struct bf_outstanding *oldest, *newest;
    struct bf_pool *pools;                                        /* BF_POOLS_MAX */
    struct bf_slow_endpoint *slow;                                /* BF_SLOW_ENDPOINTS */
    struct bf_due_place places[BF_LANE_COUNT][BF_PARTITIONS_MAX]; /* those of the shard's own */
    uint64_t look_ms[BF_LANE_COUNT]; /* the earliest of a lane's places */
    uint32_t first[BF_LANE_COUNT];   /* partition that the next scan of the lane begins with */
    uint64_t attached_ms;            /* wall: rows due before it may be with a provider already */
    uint64_t presence_from_ms;       /* wall: nobody connected does not mean offline until then */
    uint64_t swept_ms;               /* mono */
    uint64_t paged_ms;               /* mono: when a person was last told */
};

/* 0 or BF_ERR_NO_MEMORY. |turn| is lent for the life of |o|. */
int bf_outbound_init(struct bf_outbound *o, const struct bf_outbound_node *node, uint32_t index,
                     struct bf_turn *turn);
void bf_outbound_fini(struct bf_outbound *o);

/* The running channel of a row. NULL: the node has none. */
struct bf_channel_state *bf_outbound_channel(const struct bf_outbound *o, uint8_t channel);

/* Sends to an endpoint, or keeps the offer as a row for later, or ends it. |content| is open.
 * False: too much is out; nothing was done (of a row), or it is a row now. */
bool bf_outbound_send(struct bf_outbound *o, struct bf_offer *offer,
                      const struct bf_endpoint *endpoint, struct bf_content *content);
/* The turn's batch is written: what was sent leaves. Before anything else is. */
void bf_outbound_flush(struct bf_outbound *o);
/* Whether the offer has ended, waits or is out already; one that a worker still has is adopted. */
bool bf_outbound_is_known(struct bf_outbound *o, struct bf_offer *offer,
                          const struct bf_endpoint *endpoint);
/* Whether a row of the same message waits in the queue. */
bool bf_outbound_is_queued(struct bf_outbound *o, const struct bf_leg_row *row);

/* The ends of an offer: each writes into the batch; the event settles with it. */
void bf_offer_end(struct bf_outbound *o, struct bf_offer *offer, enum bf_status status,
                  const char *reason);
void bf_offer_dead_letter(struct bf_outbound *o, struct bf_offer *offer, const char *reason);
/* Waits in the queue until |not_before_ms| (wall). */
void bf_offer_postpone(struct bf_outbound *o, struct bf_offer *offer, uint64_t not_before_ms,
                       const char *reason);

/* Puts a row: of the turn's batch, seen when it is due. Every row of the queue is put by this, or
 * told by bf_outbound_moved. */
void bf_outbound_put(struct bf_outbound *o, const struct bf_leg_row *row);
/* A row that waits has become |is|: another endpoint of its person has the token by now. */
void bf_outbound_moved(struct bf_outbound *o, const struct bf_leg_row *was,
                       const struct bf_leg_row *is);

/* Looks at what is due, and for attempts whose answer was lost. Commits. Once a turn, while
 * presence is known. */
void bf_outbound_run(struct bf_outbound *o);
/* The result of an attempt. */
void bf_outbound_answer(struct bf_outbound *o, const struct bf_provider_answer *answer);
/* At a stop: attempts without an answer go back into the queue, and their events settle. No attempt
 * is made any more. Commits. */
void bf_outbound_requeue(struct bf_outbound *o);
/* Ends the attempts of an erased user: their events settle, their answers are ignored. May commit.
 */
void bf_outbound_forget(struct bf_outbound *o, struct bf_uid uid);
/* |is_new|: the dataplane died under us, its people are about to come back. */
void bf_outbound_attached(struct bf_outbound *o, bool is_new);
/* The user's last connection has died: what it has not acknowledged waits 10 s, no longer
 * (DESIGN 4.8). */
void bf_outbound_hurry(struct bf_outbound *o, struct bf_uid uid);
/* Bit l: an attempt of the person's is out that went through the rings of lane l. */
uint32_t bf_outbound_lanes_of(const struct bf_outbound *o, struct bf_uid uid);

/* A dead letter of a leg becomes a row again, in one batch (redrive.c). |carried|: the letter as
 * bf_letter_carry made it; |is_known|: its person exists. 0; BF_ERR_UNKNOWN_USER: nobody, or erased
 * since, then the letter goes too; BF_ERR_EXPIRED; BF_ERR_FULL; BF_ERR_CORRUPT. */
int bf_outbound_redrive(struct bf_outbound *o, uint8_t channel, const struct bf_id *event_id,
                        struct bf_uid uid, struct bf_bytes carried, bool is_known);
