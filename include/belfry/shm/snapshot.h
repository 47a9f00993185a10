/*
 * Configuration snapshot (DESIGN 2): three slots. The control process writes a free one, then names
 * it in `current`; each worker publishes the seq of the one that it uses, and 0 ("none") before it
 * sleeps; the control process reuses no slot that a worker names. Content is TLV by base/cursor.h:
 * u16 tag, str32 value.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "belfry/base/limits.h"

#define BF_SNAPSHOT_SLOTS     3u
#define BF_SNAPSHOT_BYTES_MAX (512u * 1024u)

enum bf_snapshot_tag {
    BF_SNAP_END = 0,
    BF_SNAP_JWT_KEY =
        1, /* str16 kid ("" = any), u8 enum bf_jwt_alg, str16 key: raw secret (HS*) or PEM */
    BF_SNAP_JWT_AUDIENCE = 2, /* text; absent: aud is not checked */
    BF_SNAP_LIMITS = 3,       /* struct bf_snap_limits as u32s in order of the list below */
    BF_SNAP_PUBLIC_TOPIC = 4, /* text: topic prefix that any socket may subscribe to */
    BF_SNAP_ORIGIN = 5,       /* text: allowed Origin; none: all */
    BF_SNAP_TLS_CERT = 6, /* str32 chain (PEM), str32 key (PEM), u8 count, count x str16 name; the
                             first is the default */
    BF_SNAP_TLS_TICKET =
        7, /* u64 wall ms of its making, then BF_SNAP_TICKET_KEY_BYTES; the newest first */
    BF_SNAP_TLS_OPTIONS =
        8,                 /* u8 BF_SNAP_TLS_*, str32 CA of client certificates (PEM, "" = none) */
    BF_SNAP_PUSH_POOL = 9, /* one pool of connections to a provider (shm/push_wire.h) */
    BF_SNAP_LOG = 10,      /* str16 log.level, str16 log.format */
    BF_SNAP_COUNT
};

/* Flags of BF_SNAP_TLS_OPTIONS. */
#define BF_SNAP_TLS_F_TICKETS (1u << 0) /* sessions may be resumed */
#define BF_SNAP_TLS_F_REQUIRE (1u << 1) /* a client without a certificate is refused */
#define BF_SNAP_TLS_F_LEAN    (1u << 2) /* keep keys only, once open */
#define BF_SNAP_TLS_F_KERNEL  (1u << 3) /* the kernel makes our records where it can; with LEAN */

/* A ticket key (RFC 5077 section 4): 16 name, 32 for AES-256, 32 for HMAC-SHA256. */
#define BF_SNAP_TICKET_KEY_BYTES 80u
/* The key that tickets are made with, and the one before it, which still opens them. */
#define BF_SNAP_TICKET_KEYS_MAX 2u

enum bf_jwt_alg {
    BF_JWT_HS256 = 0,
    BF_JWT_RS256 = 1,
    BF_JWT_ES256 = 2,
    BF_JWT_EDDSA = 3,
    BF_JWT_ALG_COUNT
};

/* Order and meaning of the u32s of BF_SNAP_LIMITS. */
#define BF_SNAP_LIMIT_LIST(X)                                                                      \
    X(ping_interval_ms)                                                                            \
    X(presence_timeout_ms)                                                                         \
    X(conn_queue_frames)                                                                           \
    X(conn_queue_bytes)                                                                            \
    X(slow_timeout_ms)                                                                             \
    X(max_connections)                                                                             \
    X(client_frames_per_s)                                                                         \
    X(lifetime_s)                                                                                  \
    X(accept_rate)                                                                                 \
    X(per_address)

struct bf_snapshot_slot {
    _Atomic uint64_t seq; /* 0 while being written */
    uint64_t checksum;    /* XXH3 of the content */
    uint32_t len;
    uint32_t reserved;
    uint8_t content[BF_SNAPSHOT_BYTES_MAX];
};

struct bf_snapshot_area {
    _Atomic uint64_t current; /* seq; slot = seq % BF_SNAPSHOT_SLOTS. Writer: ctrlplane, release */
    uint8_t _pad[56];
    struct {
        _Atomic uint64_t
            seq; /* in use; 0 = none. Writer: the worker, seq_cst (Dekker with current) */
        uint8_t _pad[56];
    } using_by[BF_WORKERS_MAX] __attribute__((aligned(64)));
    struct bf_snapshot_slot slots[BF_SNAPSHOT_SLOTS];
};
