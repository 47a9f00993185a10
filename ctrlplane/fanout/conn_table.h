/*
 * Connections of one shard's users as the control process knows them: presence, and up to where
 * each lane was published to each connection. Indexed by (worker, slot), generation compared. Shard
 * thread only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/err.h"
#include "belfry/shm/receipt.h"
#include "fanout/user_table.h"

struct bf_conn {
    struct bf_user *user;
    struct bf_conn *next;        /* of the same user */
    struct bf_conn *replay_next; /* shard's list of connections with a replay to do */
    bf_conn_id id;
    uint64_t device_hash; /* 0: none given */
    uint64_t connected_ms;
    uint64_t opened[BF_LANE_COUNT]; /* lane's seq when it opened here */
    uint64_t sent[BF_STREAM_COUNT]; /* last published to it; the worker's own count may lag */
    uint64_t acked[BF_LANE_COUNT];
    uint64_t resent_to[BF_LANE_COUNT];
    uint64_t unacked_since_ms[BF_LANE_COUNT]; /* mono; 0: all acknowledged */
    uint32_t worker;
    uint8_t replay_streams; /* bit s: stream s is to be replayed above sent[s] */
    uint8_t unopened;       /* stream s: its open marker was lost with the process before */
    bool on_replay_list;
    bool is_masked;  /* as the census said; compared with the person's preferences later */
    bool is_leaving; /* was told to close and has not ended yet */
    bool gone;       /* unlinked; freed when it leaves the replay list */
    uint8_t device_len;
    char device[BF_DEVICE_BYTES_MAX];
};

/* More sockets than one worker can name (its user_data has 24 bits for a slot). */
#define BF_CONN_SLOTS_MAX (1u << 24)

struct bf_conn_table {
    struct bf_conn **slots[BF_WORKERS_MAX]; /* grown to the highest slot seen */
    uint32_t slot_cap[BF_WORKERS_MAX];
    uint32_t slot_used[BF_WORKERS_MAX]; /* the highest slot ever taken, and one */
    uint32_t workers;
    uint32_t count;
};

int bf_conn_table_init(struct bf_conn_table *t, uint32_t workers);
/* Frees all connections; their users' lists are emptied. */
void bf_conn_table_fini(struct bf_conn_table *t);
struct bf_conn *bf_conn_find(struct bf_conn_table *t, uint32_t worker, bf_conn_id id);
/* NULL on no memory or an impossible id. A connection that sat in the slot is unlinked first. */
struct bf_conn *bf_conn_add(struct bf_conn_table *t, uint32_t worker, bf_conn_id id,
                            struct bf_user *user);
/* Takes it out of table and user; frees it unless it is on the replay list. */
void bf_conn_unlink(struct bf_conn_table *t, struct bf_conn *conn);
