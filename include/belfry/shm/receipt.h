/*
 * Receipts, worker -> ctrlplane: one ring a worker (DESIGN 2 "Receipts"). The control process reads
 * a receipt in place, makes it durable, then releases its slots. If it dies, the next one reads the
 * unreleased receipts again, so taking a receipt twice must do no harm. When the ring is full the
 * worker drops nothing: acknowledgement, "behind" and presence are states of the connection that
 * are sent when there is room, and a client command is answered with a temporary error.
 *
 * Messages travel by bf_ring_put_message / bf_ring_get_message, so they may span slots.
 */
#pragma once

#include <stdint.h>

#include "belfry/base/limits.h"
#include "belfry/shm/command.h"

enum bf_rcpt_kind {
    BF_RCPT_NONE = 0,
    BF_RCPT_CONNECT = 1,      /* struct bf_rcpt_connect + user, device, tenant bytes */
    BF_RCPT_GONE = 2,         /* struct bf_rcpt_gone */
    BF_RCPT_ACK = 3,          /* struct bf_rcpt_ack */
    BF_RCPT_BEHIND = 4,       /* struct bf_rcpt_behind */
    BF_RCPT_CLIENT = 5,       /* struct bf_rcpt_client + ref, id bytes */
    BF_RCPT_MASKED = 6,       /* struct bf_rcpt_masked */
    BF_RCPT_CENSUS_CONN = 7,  /* struct bf_rcpt_census_conn */
    BF_RCPT_CENSUS_DONE = 8,  /* struct bf_rcpt_census_done */
    BF_RCPT_PUSH = 9,         /* struct bf_rcpt_push + body (shm/push_wire.h) */
    BF_RCPT_POOL = 10,        /* struct bf_rcpt_pool + text */
    BF_RCPT_CENSUS_PUSH = 11, /* struct bf_rcpt_census_push + ids */
    BF_RCPT_COUNT
};

/* Lane index of the broadcast stream where a receipt names a stream. */
#define BF_STREAM_BROADCAST 3u
#define BF_STREAM_COUNT     4u

/* bf_rcpt_connect.flags */
#define BF_CONNECT_RESUME     (1u << 0) /* resume_* are set */
#define BF_CONNECT_RESUME_B   (1u << 1)
#define BF_CONNECT_HAS_DEVICE (1u << 2)

/* An authenticated connect. The connection takes nothing until its WELCOME. */
struct bf_rcpt_connect {
    struct bf_user_key user;
    bf_conn_id conn;
    uint64_t device;                    /* bf_name_hash, 0 = none given */
    uint64_t resume_seq[BF_LANE_COUNT]; /* lane absent in the request: UINT64_MAX */
    uint64_t resume_b;
    uint64_t resume_epoch_hash; /* bf_name_hash of the epoch text */
    uint64_t token_expires_ms;  /* wall */
    uint64_t connected_ms;      /* wall */
    uint32_t flags;
    uint16_t user_len;
    uint16_t device_len;
    uint16_t tenant_len;
    uint16_t reserved[3];
    /* user bytes, device bytes, tenant bytes */
};

struct bf_rcpt_gone {
    struct bf_user_key user;
    bf_conn_id conn;
    uint16_t close_code; /* ours or the peer's; 0: the socket just died */
    uint16_t reserved[3];
    uint64_t reserved2[2];
};

/* "All that was sent on this connection and lane in (from, to] has been taken" (DESIGN 4.7). */
struct bf_rcpt_ack {
    struct bf_user_key user;
    bf_conn_id conn;
    uint64_t from; /* the lane's `sent` when it opened here */
    uint64_t to;
    uint32_t lane;
    uint32_t reserved;
};

/* The connection is behind and has room again: replay what comes after `sent` (DESIGN 4.6). */
struct bf_rcpt_behind {
    struct bf_user_key user;
    bf_conn_id conn;
    uint64_t sent;
    uint32_t stream; /* lane, or BF_STREAM_BROADCAST */
    uint32_t reserved;
    uint64_t reserved2;
};

enum bf_client_op {
    BF_CLIENT_READ = 0,
    BF_CLIENT_SEEN = 1,
    BF_CLIENT_ARCHIVE = 2,
    BF_CLIENT_OP_COUNT
};

struct bf_rcpt_client {
    struct bf_user_key user;
    bf_conn_id conn;
    uint32_t op; /* enum bf_client_op */
    uint16_t ref_len;
    uint16_t id_len;
    /* ref as JSON text (a string with quotes, or a number), so that it is echoed as it came; id */
};

struct bf_rcpt_masked {
    uint64_t ticket;
    uint32_t worker;
    uint32_t lane; /* of the ring that the command came through */
};

/* bf_rcpt_census_conn.flags: bit n (0..3) = stream n open; */
#define BF_CENSUS_WELCOMED (1u << 8)
#define BF_CENSUS_MASKED   (1u << 9) /* nothing leaves: the person has opted out */

struct bf_rcpt_census_conn {
    uint64_t ticket;
    struct bf_user_key user;
    bf_conn_id conn;
    uint64_t device;
    uint64_t opened[BF_LANE_COUNT]; /* `from` of its acks */
    uint64_t sent[BF_STREAM_COUNT];
    uint64_t acked[BF_LANE_COUNT];
    uint32_t flags;
    uint32_t reserved;
};

/* The last answer of a worker: all its connections are reported, and its bitmap of held blocks is
 * complete. */
struct bf_rcpt_census_done {
    uint64_t ticket;
    uint32_t worker;
    uint32_t connections;
    uint64_t blocks_held;
};

#define BF_RCPT_BYTES_MAX (BF_SLOT_PARTS_MAX * BF_SLOT_PAYLOAD_BYTES)

_Static_assert(sizeof(struct bf_rcpt_connect) + BF_USER_ID_BYTES_MAX + BF_DEVICE_BYTES_MAX +
                       BF_TENANT_BYTES_MAX <=
                   BF_RCPT_BYTES_MAX,
               "a connect fits one message");
