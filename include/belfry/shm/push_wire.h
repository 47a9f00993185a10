/*
 * Push through the dataplane: one HTTP/2 request a command, one receipt an answer. ctrlplane builds
 * requests, mints credentials, resolves names, classifies answers and owns every retry; a worker
 * holds the connections and knows no provider (PROVIDERS.md 1-3 lives in ctrlplane/channels/push).
 *
 * Pools come with the snapshot (BF_SNAP_PUSH_POOL). A worker opens what a pool's minimum asks for,
 * more under load up to its maximum, spreads over the pool's addresses and closes what a newer
 * snapshot no longer names once its streams have ended. A changed `authorization` is used from the
 * next request on.
 *
 * A worker never keeps a push waiting for long: one that gets no stream within its deadline, or
 * finds no free request slot, comes back NOT_SENT at once, and the control process stores it with a
 * time to try again. A result stays in its request slot until the receipts ring has room.
 */
#pragma once

#include <stdint.h>

#include "belfry/shm/command.h"

/* Pools of a node: providers x apps x credentials x environments, and an origin each for Web Push.
 */
#define BF_PUSH_POOLS_MAX 256u
/* Addresses of a pool: what a resolver answers with. */
#define BF_PUSH_ADDRESSES_MAX 16u
/* Requests a worker holds, waiting or in flight: at 150,000/s and 100 ms to an answer 15,000. */
#define BF_PUSH_REQUESTS_MAX 16384u
/* The largest request: 4,096 of an encrypted Web Push body (5,120 for VoIP) and its header fields.
 */
#define BF_PUSH_REQUEST_BYTES_MAX 8192u
/* What is kept of an answer's body: error objects have 30 to 500 bytes. The rest is read and
 * dropped. */
#define BF_PUSH_ANSWER_BYTES_MAX 512u
/* A stream without an answer for this long is cancelled. */
#define BF_PUSH_DEADLINE_MS 5000u

/* bf_cmd_push.flags */
#define BF_PUSH_UNVERIFIED (1u << 0) /* a token that never worked: kept apart from proven ones */

/*
 * The request lies in the block, base/cursor.h: str16 path, u8 count, count x (u8 length + name,
 * lower case; str16 value), str32 body. :method is POST; :scheme, :authority and authorization come
 * from the pool. Malformed: NOT_SENT, BF_PUSH_WHY_BAD_REQUEST. The block is returned when the
 * request has ended: until then it may have to be written again, to another connection.
 */
struct bf_cmd_push {
    uint64_t push_id; /* > 0; low byte: partition of its person; never used twice by one region */
    struct bf_block_ref block;
    uint32_t pool;        /* id of BF_SNAP_PUSH_POOL */
    uint32_t deadline_ms; /* from now on; 0: BF_PUSH_DEADLINE_MS */
    uint32_t flags;
    uint32_t reserved;
    struct bf_user_key user; /* whose push it is; BF_CMD_MASK withdraws it. Zero: nobody's */
};
_Static_assert(sizeof(struct bf_cmd_push) == BF_SLOT_PAYLOAD_BYTES, "one slot");

enum bf_push_end {
    BF_PUSH_ANSWERED = 0, /* status, and what came with it */
    BF_PUSH_NOT_SENT =
        1, /* it never left, or the peer said that it did not process it: safe to send again */
    BF_PUSH_UNKNOWN = 2, /* it left, no answer came: again may be twice (DESIGN 4.4) */
    BF_PUSH_END_COUNT
};

enum bf_push_why {
    BF_PUSH_WHY_NONE = 0,
    BF_PUSH_WHY_NO_POOL = 1,       /* the snapshot in use does not name it */
    BF_PUSH_WHY_BUSY = 2,          /* no request slot, or no stream before the deadline */
    BF_PUSH_WHY_NO_CONNECTION = 3, /* none could be opened; the POOL receipt says why */
    BF_PUSH_WHY_CLOSED = 4,        /* the connection ended */
    BF_PUSH_WHY_GOAWAY = 5,        /* above last_stream_id (RFC 9113 section 6.8) */
    BF_PUSH_WHY_REFUSED = 6,       /* RST_STREAM with REFUSED_STREAM */
    BF_PUSH_WHY_RESET = 7,         /* RST_STREAM with anything else */
    BF_PUSH_WHY_TIMEOUT = 8,
    BF_PUSH_WHY_STOPPING = 9, /* this worker drains */
    BF_PUSH_WHY_BAD_REQUEST = 10,
    BF_PUSH_WHY_BAD_ANSWER = 11, /* no status, or more header fields than can be */
    BF_PUSH_WHY_MASKED = 12,     /* withdrawn before it left: the person opted out or was erased */
    BF_PUSH_WHY_COUNT
};

#define BF_PUSH_NO_RETRY_AFTER UINT32_MAX

/* BF_RCPT_PUSH. The body follows. */
struct bf_rcpt_push {
    uint64_t push_id;
    uint32_t pool;
    uint32_t
        retry_after_s;  /* of retry-after in seconds or a date; BF_PUSH_NO_RETRY_AFTER: absent */
    uint32_t answer_us; /* from HEADERS written to END_STREAM */
    uint16_t status;    /* ANSWERED only */
    uint16_t body_len;
    uint8_t end; /* enum bf_push_end */
    uint8_t why; /* enum bf_push_why */
    uint16_t reserved;
    uint32_t reserved2;
};

/* BF_RCPT_POOL: state of a pool on a worker, when it changed and after a census, at most every
 * BF_PUSH_POOL_REPORT_MS. The text follows: of the last failure or GOAWAY (its debug data),
 * printable ASCII. */
#define BF_PUSH_POOL_REPORT_MS 500u
#define BF_PUSH_POOL_TEXT_MAX  200u
struct bf_rcpt_pool {
    uint32_t pool;
    uint32_t worker;
    uint32_t connections; /* open */
    uint32_t connecting;
    uint32_t streams;     /* in flight */
    uint32_t streams_max; /* that the peer allows now, all connections */
    uint32_t waiting;
    uint32_t failures; /* connections that could not be opened or died, since the pool was made */
    uint32_t goaways;
    uint32_t text_len;
};

/* BF_RCPT_CENSUS_PUSH: ids in flight on a worker, before its CENSUS_DONE. count x u64 follow. */
#define BF_PUSH_CENSUS_IDS_MAX 64u
struct bf_rcpt_census_push {
    uint64_t ticket;
    uint32_t worker;
    uint32_t count;
};

/*
 * BF_SNAP_PUSH_POOL: u32 id, u8 enum bf_push_kind, str16 name (for people), str16 authority ("host"
 * or "host:port" as :authority has it), str16 TLS name (SNI and certificate check), u8 count, count
 * x (str16 IP address, u16 port), u16 connections_min, u16 connections_max (a worker's share), u32
 * streams_first (streams until the first answer below 400; 0: what SETTINGS says), u32
 * ping_idle_ms, u8 flags, str32 authorization ("" none), str32 client certificate chain, str32 its
 * key, str32 CA (PEM; "" = the system's bundle, read when the dataplane starts).
 */
enum bf_push_kind { BF_PUSH_APNS = 0, BF_PUSH_FCM = 1, BF_PUSH_WEBPUSH = 2, BF_PUSH_KIND_COUNT };

#define BF_PUSH_POOL_NO_VERIFY (1u << 0) /* development: any certificate will do */
