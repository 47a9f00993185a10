/*
 * Connections to providers: joins push/ with tls/ and io. Each has a socket that we connect, a TLS
 * session with ALPN h2, and at most one buffer of ciphertext; while it has one, nothing more is
 * pulled for it. In io's events their slots follow those of clients. Owner: the worker.
 *
 * What a turn writes to a connection leaves in one or two TLS records and one send, which its
 * requests share.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/slab.h"
#include "push/pools.h"
#include "tls/tls.h"
#include "worker/slot_queue.h"

struct bf_worker;
struct bf_io_event;

/* Handshake steps of a turn: 0.2-1 ms each, and a critical frame may wait 2 ms (PERFORMANCE, P8).
 */
#define BF_PROVIDER_STEPS_PER_TURN 2u
/* One read: a TLS record with its overhead and a bit, so that a full one is taken whole. */
#define BF_PROVIDER_READ_BYTES 17408u
/* Reads under way at once: they are through when submitted, so a turn's worth. */
#define BF_PROVIDER_READS_MAX 128u
/* Time from the last that we send until the peer closes; a peer that is alive does so within a
 * round trip. */
#define BF_PROVIDER_LINGER_MS 500u
/* Plaintext of a turn: a record's worth of requests, and room for one more of the largest. */
#define BF_PROVIDER_PLAIN_BYTES (BF_TLS_WRITE_BYTES_MAX + BF_H2_REQUEST_OUT_MAX)
/* Its ciphertext: two records; also a handshake's flight. */
#define BF_PROVIDER_WRITE_BYTES (2u * (BF_TLS_WRITE_BYTES_MAX + BF_TLS_RECORD_OVERHEAD))

enum bf_provider_state {
    BF_OUT_FREE = 0,
    BF_OUT_CONNECTING = 1,
    BF_OUT_HANDSHAKE = 2,
    BF_OUT_OPEN = 3,
    BF_OUT_CLOSING =
        4, /* push is done with it: the last bytes are sent, then the peer's end is waited for */
    BF_OUT_CLOSED = 5, /* the kernel's last requests end */
};

struct bf_provider_conn {
    struct bf_tls_session tls;
    uint32_t generation;
    uint32_t out; /* buffer of ciphertext, 0 = none */
    uint32_t out_at;
    uint32_t out_len;
    uint32_t out_plain; /* plaintext in it */
    uint32_t file;
    uint16_t ops; /* requests that the kernel holds: 1 << enum bf_io_op */
    uint16_t pool;
    uint8_t state;
    bool rx_again;       /* readable again while a receive was under way, or not read yet */
    bool rx_waits;       /* in the queue for a receive buffer or a handshake's turn */
    bool rx_ended;       /* the peer has ended its direction */
    bool tx_dead;        /* a send has failed: received bytes are still read, nothing is sent */
    bool cancels[2];     /* of POLL, of POLLOUT or CONNECT */
    uint64_t closing_ms; /* mono: since when CLOSING */
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } address;
};

/* What connections of a pool are made with. */
struct bf_provider_pool {
    struct bf_tls_client *client;
    uint64_t hash;
    char tls_name[BF_PUSH_AUTHORITY_BYTES_MAX];
};

struct bf_provider_sockets {
    uint32_t conns_max;
    uint32_t first_slot;
    struct bf_provider_conn *conns;
    struct bf_provider_pool *pools;
    struct bf_slab out;         /* BF_PROVIDER_WRITE_BYTES each */
    struct bf_slab reads;       /* BF_PROVIDER_READ_BYTES each */
    struct bf_slot_queue waits; /* connections whose socket is to be read */
    uint8_t *plain;
    struct bf_tls_trust *trust;
    uint32_t open;
    uint32_t closing; /* of them CLOSING */
    uint64_t closing_look_ms;
};

/* Start of the worker: memory, push itself. 0 or BF_ERR_NO_MEMORY. */
int bf_provider_init(struct bf_worker *w, uint32_t conns_max, uint32_t first_slot);
void bf_provider_fini(struct bf_worker *w);
/* The pools of a snapshot. 0; or BF_ERR_MALFORMED after a log line: that pool is left out or stays
 * as it was. */
int bf_provider_configure(struct bf_worker *w, const uint8_t *content, size_t len);
/* A completion of a slot from |first_slot| on. */
void bf_provider_event(struct bf_worker *w, const struct bf_io_event *event);
/* One turn: reads that waited, what push does, sends. True: more is to do at once. */
bool bf_provider_turn(struct bf_worker *w);
