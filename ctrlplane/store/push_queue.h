/*
 * The durable push queue (DESIGN 4.3): a push that cannot go now is a row, found by when it is due.
 * Ordered by (shard, lane, not_before, message id), so a shard reads what is due in a lane from one
 * place. An index below the user finds rows by event (acknowledged on another device: cancelled)
 * and for erasure; another finds the row that a newer one of its collapse key replaces.
 */
#pragma once

#include "store/store.h"

/* Compaction drops no row of the queue: whoever walks it writes the outcome `expired`, also after a
 * month off, and counts it. */

struct bf_push_row {
    /* the place */
    uint8_t shard;
    enum bf_lane lane;
    uint64_t not_before_ms;
    struct bf_id message_id;
    /* what it is */
    struct bf_uid uid;
    struct bf_id event_id;
    struct bf_id device_id; /* all zero: an in-app message's fallback, for every device (FAN-7) */
    uint64_t created_ms, expires_ms;
    uint64_t seq; /* of its in-app message in |lane|: acknowledged, it cancels the push; 0: nothing
                     does */
    uint32_t redrive;          /* times that a person put it back from the dead letters */
    uint32_t attempts;         /* made so far */
    uint64_t collapse;         /* hash of the collapse key, 0: none */
    struct bf_bytes meta;      /* struct bf_event_meta, encoded */
    struct bf_bytes fragment;  /* struct bf_event.fragment */
    struct bf_bytes overrides; /* overrides.push, "" = none */
    struct bf_bytes reason;    /* of the last attempt, "" = none made */
};
typedef int (*bf_push_row_fn)(void *arg, const struct bf_push_row *row);

/* Puts the row. One of the same message, and one of the same user, device and collapse key, are
 * deleted, unless they are in this batch still. */
void bf_batch_put_push(struct bf_batch *b, const struct bf_push_row *row);
/* Deletes what waits under the row's device and collapse key: the row itself goes another way.
 * Whether there was one. */
bool bf_batch_drop_collapsed(struct bf_batch *b, const struct bf_push_row *row);
/* By its place and identity, as a walk gave it. */
void bf_batch_delete_push(struct bf_batch *b, const struct bf_push_row *row);
/* All rows of the user that belong to |event_id|; NULL: all of the user's. Count, or an error. */
int bf_batch_cancel_push(struct bf_batch *b, struct bf_uid uid, const struct bf_id *event_id);

/* The user's device |from| is |to| by now: rows that wait for it go there. |rename| gives a moved
 * row the message id that its new device makes. Count, or an error. */
int bf_batch_move_push(struct bf_batch *b, struct bf_uid uid, const struct bf_id *from,
                       const struct bf_id *to, void (*rename)(struct bf_push_row *row));

/*
 * Rows of a shard's lane with from_ms <= not_before_ms <= until_ms, the longest due first; expired
 * ones included. Views during the call; a non-zero result of |each| ends the walk and is returned.
 * |from_ms|: no row is due before it as far as the caller knows (0 if it knows nothing): a walk
 * that begins behind what was deleted does not step over the marks of deletion.
 */
int bf_store_walk_push(struct bf_store *s, uint8_t shard, enum bf_lane lane, uint64_t from_ms,
                       uint64_t until_ms, bf_push_row_fn each, void *arg);
/* One row by its place and message id. BF_ERR_NOT_FOUND: sent, cancelled or replaced. */
int bf_store_get_push(struct bf_store *s, const struct bf_push_row *place, bf_push_row_fn use,
                      void *arg);
/* Rows of one event of a user, in no order; NULL: of all events. */
int bf_store_walk_push_of(struct bf_store *s, struct bf_uid uid, const struct bf_id *event_id,
                          bf_push_row_fn each, void *arg);
/* Rows in a lane of all shards: kept in memory, O(1). Too low for a moment behind a start, until
 * the rows of before are counted. */
uint64_t bf_store_push_depth(struct bf_store *s, enum bf_lane lane);
/* After fanout.shards changed: moves rows to the shard that |shard_of| says. At start, before any
 * shard runs. Count of rows moved, or an error. */
int bf_store_rehome_push(struct bf_store *s, uint8_t (*shard_of)(void *arg, struct bf_uid uid),
                         void *arg);

/*
 * What has come to its end: a message id (an event that the log gives again after a restart does
 * not push twice, DESIGN 4.4), or a push_id whose answer came before its message was known again.
 */
void bf_batch_put_push_done(struct bf_batch *b, const struct bf_id *id, uint64_t expires_ms);
bool bf_store_is_push_done(struct bf_store *s, const struct bf_id *id);
