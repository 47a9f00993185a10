/*
 * TLS connections of a worker: joins tls/ with io. Received ciphertext goes through the session,
 * and its plaintext goes to the same request parser and WebSocket code as plain bytes do; what the
 * channel sends becomes records in a buffer, from which the socket is fed. Connections without TLS
 * touch none of this.
 *
 * Handshakes are work of 0.1-3 ms each, so they have a budget a turn: a socket whose handshake
 * bytes have come waits in a queue, with its bytes left in the kernel, until it gets a turn.
 * Handshakes that have begun go before new ones. One that waits too long is ended by the connect
 * deadline.
 *
 * A connection holds at most one buffer of ciphertext; while it has one, nothing more is encrypted
 * for it.
 *
 * Under tls.kernel a session that has become lean hands its key to the kernel before its first data
 * (secure_kernel.c). From then on its sends are those of a plain connection, blocks by reference
 * and no buffer; it is read here as before. If the kernel refuses the key, the connection goes on
 * as before. Owner: the worker.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/slab.h"
#include "tls/tls.h"
#include "worker/slot_queue.h"

struct bf_worker;
struct bf_io_event;
struct bf_memory_plan;

/* Handshake work of a turn. A critical frame may wait 2 ms (PERFORMANCE, P8), and a turn has sends
 * too. */
#define BF_TLS_TURN_NS 1000000u
/* The assumed cost of a step until some were measured: P-256 on a core of today. */
#define BF_TLS_STEP_NS 200000u
/* Steps of a turn, however cheap they are. */
#define BF_TLS_STEPS_MAX 16u
/* Handshakes begun and not over, at ~50 KB of OpenSSL each: 400 MB. More wait, unread, in the
 * kernel. */
#define BF_TLS_HANDSHAKES_MAX 8192u
/* Sessions that hold a part of a record, at up to 16.7 KB each: 68 MB. More are closed. */
#define BF_TLS_PARTIALS_MAX 4096u

/* Keys that are being given to the kernel at one time: twice the sends of a turn, because they come
 * back with the completions of the next. Beyond this number a connection keeps its key. */
#define BF_TLS_HANDOVERS 512u

enum bf_cipher_class {
    BF_CIPHER_NONE = 0,
    BF_CIPHER_SMALL = 1,
    BF_CIPHER_MEDIUM = 2,
    BF_CIPHER_LARGE = 3,
    BF_CIPHER_COUNT
};

/* bf_secure_conn.flags */
#define BF_SF_QUEUED  (1u << 0) /* in one of the queues */
#define BF_SF_GRANTED (1u << 1) /* its turn: a receive for the handshake is under way */
#define BF_SF_COUNTED (1u << 2) /* among the handshakes begun */
#define BF_SF_PARTIAL (1u << 3) /* among the sessions with a part of a record */
#define BF_SF_CLOSED  (1u << 4) /* close_notify was said */
#define BF_SF_OFFER   (1u << 5) /* its key goes to the kernel before its first data */
#define BF_SF_KERNEL  (1u << 6) /* the kernel makes its records */

/* A TLS connection's part, by slot. */
struct bf_secure_conn {
    struct bf_tls_session tls;
    uint32_t out;       /* buffer of ciphertext, 0 = none */
    uint32_t out_plain; /* bytes of the batch in it, until its first completion */
    uint16_t out_at;
    uint16_t out_len;
    uint8_t out_class; /* enum bf_cipher_class */
    uint8_t flags;
};

struct bf_secure {
    struct bf_tls_engine *engine;
    struct bf_tls_server *server; /* NULL: no certificates */
    uint64_t server_hash;
    struct bf_secure_conn *conns; /* by slot */
    struct bf_slab out[BF_CIPHER_COUNT];
    struct bf_slot_queue middle; /* handshakes that go on */
    struct bf_slot_queue fresh;  /* handshakes that begin */
    uint8_t *flight;             /* output of one read, BF_TLS_FLIGHT_BYTES_MAX */
    uint8_t *plain;              /* plaintext of one read, BF_RECEIVE_BUFFER_BYTES */
    uint64_t step_ns;            /* what a step costs, a moving average */
    uint32_t granted;            /* turns given whose receive is under way */
    uint32_t handshakes;         /* begun and not over */
    uint32_t partials;
    uint32_t open;
    struct bf_slab handovers; /* struct bf_ktls_info */
    uint32_t by_kernel;       /* connections whose records the kernel makes */
    bool wants_kernel;        /* tls.kernel of the configuration in force */
};

_Static_assert(BF_TLS_WRITE_BYTES_MAX + BF_TLS_RECORD_OVERHEAD <= 16512u, "a record fits");

/* Start of the worker: memory and the engine. 0 or BF_ERR_NO_MEMORY. */
int bf_secure_init(struct bf_worker *w, const struct bf_memory_plan *budget, uint32_t slots);
void bf_secure_fini(struct bf_worker *w);
/* Certificates and ticket keys of a snapshot. 0; or BF_ERR_MALFORMED after a log line: those in
 * force stay. A snapshot without certificates leaves those in force. */
int bf_secure_configure(struct bf_worker *w, const uint8_t *content, size_t len);

/* A connection of the TLS port was accepted. */
void bf_secure_start(struct bf_worker *w, uint32_t slot);
/* Whether its socket may be read now. If not, this is noted, and it is read as soon as it may be.
 */
bool bf_secure_may_read(struct bf_worker *w, uint32_t slot);
/* A receive has ended, with whatever result. */
void bf_secure_read_done(struct bf_worker *w, uint32_t slot);
/* Ciphertext has come. The connection may be CLOSED afterwards. */
void bf_secure_received(struct bf_worker *w, uint32_t slot, const uint8_t *bytes, size_t len);
/* Gives turns to handshakes that wait. */
void bf_secure_turn(struct bf_worker *w);
/* Whether a handshake could have a turn now. */
bool bf_secure_has_work(const struct bf_worker *w);

/* The next send of a connection, as send_next in tx.c. Returns whether one was started. False for a
 * CLOSING connection that has sent everything: its socket is to be shut. */
bool bf_secure_send(struct bf_worker *w, uint32_t slot);
/* Whether a CLOSING connection has nothing left to send. */
bool bf_secure_is_drained(struct bf_worker *w, uint32_t slot);
/* A send has ended. */
void bf_secure_sent(struct bf_worker *w, const struct bf_io_event *event);

/* ---- records by the kernel (secure_kernel.c); those that secure.c calls say so ---- */

bool bf_secure_is_by_kernel(const struct bf_worker *w, uint32_t slot);
/* The kernel has taken or refused an offered key. */
void bf_secure_handed_over(struct bf_worker *w, const struct bf_io_event *event);
/* An alert was sent, or could not be. */
void bf_secure_alerted(struct bf_worker *w, const struct bf_io_event *event);
/* secure.c: start of the worker. 0 or BF_ERR_NO_MEMORY. */
int bf_secure_kernel_init(struct bf_worker *w);
/* secure.c: offers the session's key. Returns whether the answer is under way; till then nothing is
 * sent. */
bool bf_secure_offer(struct bf_worker *w, uint32_t slot);
/* secure.c: bf_secure_send and what bf_tls_read has put out, of a connection whose records the
 * kernel makes. */
bool bf_secure_kernel_send(struct bf_worker *w, uint32_t slot);
bool bf_secure_alert(struct bf_worker *w, uint32_t slot, const uint8_t bytes[2]);
/* secure.c: such a connection was read: its peer may have asked for what the kernel cannot. */
void bf_secure_kernel_look(struct bf_worker *w, uint32_t slot);

/* The socket is being closed: frees the session and the buffers that the kernel does not use. */
void bf_secure_drop(struct bf_worker *w, uint32_t slot);
