/*
 * Commands, ctrlplane -> worker (DESIGN 2 "Rings"). One slot each; bytes travel in blocks. A ring
 * carries one lane of one producer: the lane of a command is its ring's.
 *
 * Sequence rule (DESIGN 4.6, made self-checking). A frame of a lane carries `seq` (the last seq
 * that it holds) and `prev` (the seq that was due before it, for this user and lane). For each
 * connection the worker keeps `sent`, the last seq queued to it in that lane:
 *     lane not open        -> skip (the open marker or a replay brings it)
 *     seq <= sent          -> skip: it has it
 *     prev <= sent < seq   -> queue it; sent = seq
 *     sent < prev          -> a gap: the connection is *behind*; skip, and tell ctrlplane once
 *                             (BF_RCPT_BEHIND) as soon as its queue has drained
 * So whatever was lost before (ring full, queue full, a restart) is sent again by the replay of
 * everything after `sent`, and no order of arrival can skip or reverse anything. Broadcasts obey
 * the same rule with `bseq`.
 */
#pragma once

#include <stdint.h>

#include "belfry/shm/ring.h"
#include "belfry/shm/user_key.h"

/* A connection as ctrlplane names it: worker-local slot and its reuse count. Never a pointer. */
typedef uint64_t bf_conn_id; /* generation << 32 | slot; 0 = none */

/* A block, and the number of the use that is meant (its lap): a late command or return for an
 * earlier use does not match. */
struct bf_block_ref {
    uint32_t index;
    uint32_t lap;
};

enum bf_cmd_kind {
    BF_CMD_NONE = 0,
    BF_CMD_NOTIFY = 1, /* struct bf_cmd_frame: n to every connection of a user */
    BF_CMD_REPLAY =
        2, /* struct bf_cmd_conn_frame: one or more n, back to back, to one connection */
    BF_CMD_WELCOME =
        3,           /* struct bf_cmd_conn_frame: answer to a connect; goes out before all else */
    BF_CMD_OPEN = 4, /* struct bf_cmd_conn_frame, no block: lane opens, sent = seq */
    BF_CMD_BROADCAST = 5, /* struct bf_cmd_broadcast: to everyone, or to a topic's subscribers */
    BF_CMD_OPEN_B = 6,    /* as OPEN, for broadcasts: sent = bseq */
    BF_CMD_REPLAY_B = 7,  /* as REPLAY, for broadcasts */
    BF_CMD_REPLY = 8,     /* struct bf_cmd_conn_frame, unsequenced: ok/error to one connection */
    BF_CMD_STATE = 9, /* struct bf_cmd_frame, unsequenced: to the user's connections, but .except */
    BF_CMD_CLOSE = 10,  /* struct bf_cmd_close */
    BF_CMD_MASK = 11,   /* struct bf_cmd_mask: a person's opt-out or erasure, and its end */
    BF_CMD_CENSUS = 12, /* struct bf_cmd_census: control producer only */
    BF_CMD_DRAIN = 13,  /* struct bf_cmd_drain: control producer only */
    BF_CMD_NOOP = 14,   /* struct bf_cmd_frame with a block: perf ring; returned at once */
    BF_CMD_PUSH = 15,   /* struct bf_cmd_push (shm/push_wire.h): one HTTP/2 request to a provider */
    BF_CMD_COUNT
};

/* bf_cmd_frame.flags */
#define BF_FRAME_TRANSIENT (1u << 0) /* no seq: send or skip (DESIGN 4.5) */
/* Benchmarks, with TRANSIENT: `prev` is the enqueue time (mono ns); the worker adds the time until
 * the submit that carries the frame to its command_to_send_ns histogram. */
#define BF_FRAME_STAMPED (1u << 1)

struct bf_cmd_frame {
    struct bf_user_key user;
    struct bf_block_ref block;
    uint64_t prev;
    uint64_t seq; /* STATE: bf_conn_id that is left out, or 0 */
    uint32_t
        collapse; /* hash of collapse_key, 0 = none: a queued frame with the same is replaced */
    uint32_t flags;
};

/*
 * A replay holds several frames, so it fits only a connection that has got exactly up to `prev`:
 * with prev < sent < seq a part of it would be sent twice, so the worker reports BEHIND again
 * instead. Without a block (lap 0) nothing in (prev, seq] has to be sent any more: sent = seq.
 */
enum bf_replay_end {
    BF_REPLAY_MORE = 0,       /* the next command follows at once */
    BF_REPLAY_HEAD = 1,       /* the head is reached: live frames follow */
    BF_REPLAY_WINDOW_END = 2, /* say BEHIND when this has drained: there is more */
};

/* bf_cmd_conn_frame.flags */
#define BF_CONN_MASKED (1u << 0) /* WELCOME: the person has opted out, see bf_cmd_mask */
#define BF_CONN_NOTICE (1u << 1) /* REPLY: the frame is a notification, so a mask withdraws it */
/* REPLY: the frame is queued after the frames that wait for the connection, not before them. The
 * answer carries an unread count, and the `state` frames that wait carry older ones. */
#define BF_REPLY_IN_ORDER (1u << 2)

struct bf_cmd_conn_frame {
    bf_conn_id conn;
    struct bf_block_ref block; /* lap 0: no block */
    uint64_t prev;
    uint64_t seq;
    uint32_t last; /* REPLAY, REPLAY_B: enum bf_replay_end */
    uint32_t flags;
    uint64_t reserved;
};

struct bf_cmd_broadcast {
    struct bf_block_ref block;
    uint64_t prev; /* bseq before it in the broadcast log, whatever its filter */
    uint64_t bseq;
    uint64_t topic;  /* bf_topic_hash of the topic; 0: everyone of the tenant */
    uint64_t tenant; /* bf_tenant_hash: other tenants' connections take nothing of it */
    uint64_t reserved;
};

struct bf_cmd_close {
    struct bf_user_key user; /* used when conn is 0: all of the user's connections */
    bf_conn_id conn;
    uint32_t reconnect_after_ms; /* > 0: a goaway is sent first */
    uint16_t code;
    uint16_t reserved;
    uint64_t reserved2[2];
};

/*
 * A person's opt-out, as the workers keep it (DESIGN 4.13). HOLD withdraws every notification that
 * waits for one of the person's connections (n, b, replays, copies sent again) and every push of
 * theirs that has not left, and from then on none leaves: each connection is marked. One that is
 * opened later gets its mark with its WELCOME. HOLD goes through the critical ring, and through
 * each other ring in which a push of the person's may still lie.
 *
 * An opt-in comes in two steps. FENCE goes through all three rings of the person's shard and does
 * nothing but answer: when all have answered, what was sent before the opt-out has come to the
 * connections, which withdrew it. Then LIFT takes the marks away. It lets each connection skip the
 * broadcasts up to `bseq`, which were made while the person had opted out.
 */
enum bf_mask_op { BF_MASK_LIFT = 0, BF_MASK_HOLD = 1, BF_MASK_FENCE = 2, BF_MASK_OP_COUNT };

struct bf_cmd_mask {
    struct bf_user_key user;
    uint64_t ticket; /* echoed in BF_RCPT_MASKED; 0: nobody waits, no answer */
    uint32_t op;     /* enum bf_mask_op */
    uint32_t reserved;
    uint64_t bseq; /* LIFT */
    uint64_t reserved2;
};

struct bf_cmd_census {
    uint64_t ticket; /* echoed in every answer */
    uint64_t reserved[5];
};

struct bf_cmd_drain {
    uint64_t rate; /* connections a second told to go away; 0 ends a drain */
    uint32_t reconnect_after_ms;
    uint32_t reserved;
    uint64_t reserved2[4];
};

_Static_assert(sizeof(struct bf_cmd_frame) == BF_SLOT_PAYLOAD_BYTES, "one slot");
_Static_assert(sizeof(struct bf_cmd_conn_frame) == BF_SLOT_PAYLOAD_BYTES, "one slot");
_Static_assert(sizeof(struct bf_cmd_broadcast) == BF_SLOT_PAYLOAD_BYTES, "one slot");
_Static_assert(sizeof(struct bf_cmd_close) == BF_SLOT_PAYLOAD_BYTES, "one slot");
_Static_assert(sizeof(struct bf_cmd_mask) == BF_SLOT_PAYLOAD_BYTES, "one slot");
_Static_assert(sizeof(struct bf_cmd_census) == BF_SLOT_PAYLOAD_BYTES, "one slot");
_Static_assert(sizeof(struct bf_cmd_drain) == BF_SLOT_PAYLOAD_BYTES, "one slot");
