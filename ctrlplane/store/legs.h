/*
 * The durable queue (DESIGN 4.3): a leg that cannot go now is a row, found by when it is due.
 * Ordered by (partition, lane, not_before), so what is due in a lane of a partition is read from
 * one place. That key begins with the partition, not with the tenant: a scan in the order of time
 * is over all tenants. What is looked up for somebody begins with tenant and user: an index finds
 * rows by event (status, erasure), another the row that a newer one of its collapse key replaces.
 */
#pragma once

#include "store/store.h"

/* Parts of all people that stay together: how many there are is chosen once for a store and never
 * changes. A power of two, at most the values of a shard byte. */
#define BF_PARTITIONS_DEFAULT 64u
#define BF_PARTITIONS_MAX     256u

/* Numbers are on disk: never change or reuse one. */
enum bf_leg_kind {
    BF_LEG_SEND = 0,     /* to one endpoint */
    BF_LEG_FALLBACK = 1, /* to every endpoint, unless the step before has done it by then (FAN-7) */
    BF_LEG_DECIDE = 2,   /* an event that is decided when it is due. No row has it yet */
    BF_LEG_DIGEST = 3,   /* a window of a digest that closes. No row has it yet */
    BF_LEG_KIND_COUNT
};

/* The last attempt may have reached the provider: it is looked for before it is made again. */
#define BF_LEG_MAY_BE_OUT (1u << 0)

/* Compaction drops no row of the queue: whoever walks it writes the outcome `expired`, also after a
 * month off, and counts it. */
struct bf_leg_row {
    /* the place */
    uint8_t partition;
    enum bf_lane lane;
    uint64_t not_before_ms;
    uint8_t channel; /* enum bf_channel */
    struct bf_id message_id;
    /* what it is */
    enum bf_leg_kind kind;
    uint32_t flags;
    struct bf_uid uid; /* user "": nobody's, goes to a provider's broadcast channel */
    struct bf_id event_id;
    struct bf_id endpoint_id; /* of BF_LEG_SEND; else all zero */
    uint64_t created_ms, expires_ms;
    uint64_t seq; /* of its in-app message in |lane|: acknowledged, it cancels the leg; 0: nothing
                     does */
    uint32_t redrive;  /* times that a person put it back from the dead letters */
    uint32_t attempts; /* made so far */
    uint64_t collapse; /* hash of the collapse key, 0: none */
    struct bf_bytes type, category, topic; /* what preferences are about */
    struct bf_bytes meta;                  /* struct bf_event_meta, encoded */
    struct bf_bytes fragment;              /* struct bf_event.fragment */
    struct bf_bytes overrides;             /* of the channel, "" = none */
    struct bf_bytes reason;                /* of the last attempt, "" = none made */
};
typedef int (*bf_leg_fn)(void *arg, const struct bf_leg_row *row);

static inline bool bf_leg_is_nobodys(const struct bf_leg_row *row)
{
    return row->uid.user.len == 0;
}

uint32_t bf_store_partitions(const struct bf_store *s);
uint8_t bf_store_partition_of(const struct bf_store *s, struct bf_uid uid);

/* Puts the row; |partition| is its person's. One of the same message, and one of the same person,
 * channel, endpoint and collapse key, are deleted, unless they are in this batch still. */
void bf_batch_put_leg(struct bf_batch *b, const struct bf_leg_row *row);
/* Deletes what waits under the row's collapse key: the row itself goes another way. Whether there
 * was one. */
bool bf_batch_drop_collapsed(struct bf_batch *b, const struct bf_leg_row *row);
/* By its place and identity, as a walk gave it. */
void bf_batch_delete_leg(struct bf_batch *b, const struct bf_leg_row *row);
/* All rows of the user that belong to |event_id|; NULL: all of the user's. Count, or an error. */
int bf_batch_cancel_legs(struct bf_batch *b, struct bf_uid uid, const struct bf_id *event_id);

/* The user's endpoint |from| is |to| by now: rows that wait for it go there. |rename| gives each
 * the message id that its new endpoint makes. Count, or an error. */
typedef void (*bf_leg_rename_fn)(void *arg, const struct bf_leg_row *was, struct bf_leg_row *is);
int bf_batch_move_legs(struct bf_batch *b, struct bf_uid uid, const struct bf_id *from,
                       const struct bf_id *to, bf_leg_rename_fn rename, void *arg);

/*
 * Rows of a partition's lane with from_ms <= not_before_ms <= until_ms, the longest due first;
 * expired ones included. Borrowed during the call; a non-zero result of |each| ends the walk and is
 * returned. |from_ms|: no row is due before it as far as the caller knows (0 if it knows nothing):
 * a walk that begins after what was deleted does not step over the marks of deletion.
 * |*ret_next_ms| (NULL: not wanted) of a walk that came to its end: when the first row after
 * |until_ms| is due, UINT64_MAX: there is none.
 */
int bf_store_walk_due(struct bf_store *s, uint8_t partition, enum bf_lane lane, uint64_t from_ms,
                      uint64_t until_ms, bf_leg_fn each, void *arg, uint64_t *ret_next_ms);
/* One row by its place. BF_ERR_NOT_FOUND: sent, cancelled or replaced. */
int bf_store_get_leg(struct bf_store *s, const struct bf_leg_row *place, bf_leg_fn use, void *arg);
/* Rows of one event of a user, in no order; NULL: of all events. */
int bf_store_walk_legs_of(struct bf_store *s, struct bf_uid uid, const struct bf_id *event_id,
                          bf_leg_fn each, void *arg);
/* Rows of a channel in a lane of all partitions: kept in memory, O(1). Too low for a moment after a
 * start, until the rows of before are counted. */
uint64_t bf_store_leg_depth(struct bf_store *s, uint8_t channel, enum bf_lane lane);

/*
 * What has come to its end: a message id (an event that the log gives again after a restart is not
 * sent twice, DESIGN 4.4), or an attempt whose answer came before its message was known again.
 */
void bf_batch_put_leg_done(struct bf_batch *b, const struct bf_id *id, uint64_t expires_ms);
bool bf_store_is_leg_done(struct bf_store *s, const struct bf_id *id);
