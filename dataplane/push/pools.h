/*
 * Push: pools of connections to providers, and the requests of a worker (shm/push_wire.h is the
 * contract). No I/O and no TLS here: whoever joins it to sockets (worker/providers.h) opens and
 * closes transports when asked, brings plaintext and takes it; HTTP/2 is proto/h2.
 *
 * A request waits in its pool, by lane, until a connection has a stream for it; critical ones
 * first. It ends once, as a receipt: answered, not sent (safe to send again), or unknown. A request
 * that the peer says it has not processed (GOAWAY, REFUSED_STREAM) goes to another connection as
 * long as its deadline allows, so a request holds its block until it has ended.
 *
 * A connection: NONE -> CONNECTING (transport, TLS, the peer's SETTINGS) -> OPEN -> DRAINING
 * (GOAWAY, or its pool is gone) -> NONE. Opening is paced: an address that failed waits, twice as
 * long each time, with jitter; and no address sees more than BF_PUSH_OPENS_PER_S. Owner: one worker
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/shm/push_wire.h"
#include "channel/worker_core.h"
#include "proto/h2/h2.h"

/* Connections of a worker, all pools: each ~30 KB with its TLS. */
#define BF_PUSH_CONNECTIONS_MAX 4096u
/* Streams on a connection, whatever its peer allows: keeps one loss small. */
#define BF_PUSH_STREAMS_MAX 1000u
/* Requests written a turn: at ~3 us each, 0.4 ms, within what a critical frame may wait. */
#define BF_PUSH_WRITES_PER_TURN 128u
/* Requests that go to one connection in a row, so that they share a TLS record and a send. */
#define BF_PUSH_RUN 16u
/* Connections looked at to find the least loaded. */
#define BF_PUSH_LOOKS 8u
/* How often a request is sent again after REFUSED_STREAM, which may come back at once. What a
 * GOAWAY or the end of a connection left unprocessed is moved until its deadline; how often
 * connections are opened is limited anyway. */
#define BF_PUSH_MOVES_MAX 3u
/* Transport, TLS and SETTINGS together. */
#define BF_PUSH_OPEN_MS 5000u
/* Wait after the first failure of an address, doubled by each further one, up to the most. */
#define BF_PUSH_BACKOFF_MS     200u
#define BF_POOL_BACKOFF_MAX_MS 60000u
/* Connections opened to one address a second: Apple takes more for an attack; so much fills a pool
 * of 2,000 in 20 s. */
#define BF_PUSH_OPENS_PER_S 100u
/* A pool grows by one connection at a time, at most so often. */
#define BF_PUSH_GROW_MS 20u
/* An answer to our PING must come within this. */
#define BF_PUSH_PONG_MS 5000u
/* A connection that has not answered a PING for so long gets no new requests, because it may be
 * dead. */
#define BF_PUSH_DOUBT_MS 1000u
/* Deadlines: granularity and size of the wheel, so rounds of 8 s. */
#define BF_PUSH_WHEEL_MS    32u
#define BF_PUSH_WHEEL_SLOTS 256u
/* Longest deadline that is taken; a longer one is cut. */
#define BF_PUSH_DEADLINE_MAX_MS 60000u
/* A pool's credential: a JWT has 300 bytes, Google's access tokens up to 2,048. */
#define BF_PUSH_AUTHORIZATION_BYTES_MAX 4096u
#define BF_PUSH_AUTHORITY_BYTES_MAX     256u
/* How often connections are checked for opening, closing and pinging, some of them at a time. */
#define BF_PUSH_KEEP_MS    20u
#define BF_PUSH_KEEP_LOOKS 64u
/* What a connection still sends before it is closed: the rest of a frame, and a GOAWAY of 17 bytes.
 */
#define BF_PUSH_LAST_BYTES_MAX (BF_H2_OUT_BYTES_MIN + 64u)
/* Connections that one round of it opens for a pool. */
#define BF_PUSH_OPENS_MAX 4u

enum bf_push_conn_state {
    BF_PUSH_CONN_NONE = 0,
    BF_PUSH_CONN_CONNECTING = 1,
    BF_PUSH_CONN_OPEN = 2,
    BF_PUSH_CONN_DRAINING = 3,
};

enum bf_push_request_state {
    BF_PUSH_REQ_FREE = 0,
    BF_PUSH_REQ_WAITING = 1,   /* in its pool's list */
    BF_PUSH_REQ_IN_FLIGHT = 2, /* on a connection */
    BF_PUSH_REQ_DONE = 3,      /* its result waits for room in the receipts ring */
};

/* A request slot. Links are indexes of requests, 0 = none. */
struct bf_push_request {
    uint64_t push_id;
    struct bf_user_key user; /* whose it is; zero: nobody's */
    uint64_t deadline_ms;
    uint64_t written_us;
    uint32_t block;
    uint32_t next; /* of the list its state says */
    uint32_t prev;
    uint32_t wheel_next;
    uint32_t wheel_prev;
    uint32_t answer_us;
    uint32_t pool_id;
    uint16_t pool; /* index */
    uint16_t conn; /* index, IN_FLIGHT */
    uint16_t wheel_at;
    uint8_t state;
    uint8_t lane;
    uint8_t refusals;
    uint8_t end; /* enum bf_push_end, of DONE */
    uint8_t why;
    bool is_unverified;
    bool is_masked; /* its person opted out while it was under way: it is not sent again */
    struct bf_h2_stream stream;
};

struct bf_push_list {
    uint32_t head;
    uint32_t tail;
    uint32_t count;
};

struct bf_push_address {
    uint8_t ip[16];
    uint16_t port;
    bool is_v6;
    uint8_t failures; /* in a row */
    uint32_t opened;  /* in |second| */
    uint64_t second;
    uint64_t not_before_ms;
};

struct bf_push_conn {
    struct bf_h2 *h2;
    struct bf_push *push;
    struct bf_push_list in_flight;
    uint64_t since_ms;  /* of its state */
    uint64_t active_ms; /* last bytes of the peer */
    uint64_t ping_ms;   /* of a PING not answered, 0: none */
    uint32_t next;      /* connection of the pool, index + 1; of the free list */
    uint64_t sent;      /* plaintext that the kernel has taken */
    uint16_t pool;
    uint16_t grant; /* requests it may take at its next pull */
    uint8_t address;
    uint8_t state;
    bool is_unverified; /* takes requests of that kind only */
    bool is_proven;     /* an answer below 400 has come */
    bool is_ready;      /* in the list of those with bytes to write */
    bool is_blocked;    /* the transport takes no more now */
};

struct bf_push_pool {
    uint32_t id;
    bool is_used;
    bool is_named; /* by the snapshot in force */
    bool is_fresh; /* named by the snapshot that is being read */
    bool has_report;
    uint8_t address_count;
    uint8_t next_address;
    uint16_t connections_min;
    uint16_t connections_max;
    uint32_t streams_first;
    uint32_t ping_idle_ms;
    uint16_t authority_len;
    uint32_t authorization_len;
    char authority[BF_PUSH_AUTHORITY_BYTES_MAX];
    char authorization[BF_PUSH_AUTHORIZATION_BYTES_MAX];
    struct bf_push_address addresses[BF_PUSH_ADDRESSES_MAX];
    struct bf_push_list waiting[2][BF_LANE_COUNT]; /* [unverified] */
    uint32_t first_conn;                           /* index + 1 */
    uint32_t cursor;                               /* where the next look begins, index + 1 */
    uint32_t conns;                                /* all states */
    uint32_t open;
    uint32_t connecting;
    uint32_t unverified_conns;
    uint32_t in_flight;
    uint32_t in_flight_said; /* in the last report */
    uint32_t waiting_said;
    uint32_t failures;
    uint32_t goaways;
    uint64_t grown_ms;
    uint64_t reported_ms;
    uint16_t text_len;
    char text[BF_PUSH_POOL_TEXT_MAX];
};

/* What push asks of the owner of the sockets. Connections are named by index. */
struct bf_push_transport {
    void *context;
    /* Connect, TLS, ALPN: bf_push_opened or bf_push_closed follows, not within the call. False: no
     * resources now. */
    bool (*open)(void *context, uint32_t conn, uint32_t pool,
                 const struct bf_push_address *address);
    /* Closes a connection in any state, also after open returned false. |last|: plaintext of HTTP/2
     * to be sent before that if it still can be. bf_push_released follows, within the call or
     * later: until then its index is not used again. */
    void (*close)(void *context, uint32_t conn, const uint8_t *last, size_t len);
};

/* A pool of a snapshot as it was read; texts are borrowed. */
struct bf_push_spec {
    uint32_t id;
    uint8_t kind;
    struct bf_bytes name;
    struct bf_bytes authority;
    struct bf_bytes tls_name;
    uint8_t address_count;
    struct bf_push_address addresses[BF_PUSH_ADDRESSES_MAX];
    uint16_t connections_min;
    uint16_t connections_max;
    uint32_t streams_first;
    uint32_t ping_idle_ms;
    uint8_t flags;
    struct bf_bytes authorization;
    struct bf_bytes cert;
    struct bf_bytes key;
    struct bf_bytes ca;
};

struct bf_push {
    struct bf_worker_core *core;
    struct bf_push_transport transport;
    struct bf_h2_memory memory;
    struct bf_slab requests; /* struct bf_push_request */
    struct bf_push_conn *conns;
    struct bf_push_pool *pools;
    uint32_t pool_count; /* places ever used */
    uint32_t conn_bump;
    uint32_t conn_free; /* index + 1 */
    uint32_t conns_used;
    uint32_t waiting; /* requests, all pools */
    uint32_t in_flight;
    struct bf_push_list done;
    uint32_t ready_head; /* connections with bytes to write: a circle of indexes */
    uint32_t ready_count;
    uint16_t *ready;
    uint32_t wheel[BF_PUSH_WHEEL_SLOTS];
    uint64_t wheel_at; /* ticks of BF_PUSH_WHEEL_MS looked at */
    uint64_t kept_ms;
    uint64_t now_us;    /* read once for each batch of requests or answers */
    uint32_t look;      /* connection that the housekeeping looks at next */
    uint32_t pool_next; /* pool that writes first; rotates */
    uint32_t random;
    bool is_stopping;
};

/* Memory is the caller's: zeroed pages for HTTP/2, slabs and arrays of the sizes above. */
struct bf_push_memory {
    void *h2;
    size_t h2_bytes;
    struct bf_slab requests;    /* sizeof(struct bf_push_request) each */
    struct bf_push_conn *conns; /* BF_PUSH_CONNECTIONS_MAX */
    struct bf_push_pool *pools; /* BF_PUSH_POOLS_MAX */
    uint16_t *ready;            /* BF_PUSH_CONNECTIONS_MAX */
};
void bf_push_init(struct bf_push *p, struct bf_worker_core *core,
                  const struct bf_push_memory *memory, const struct bf_push_transport *transport);
/* End of the worker: sessions go. */
void bf_push_fini(struct bf_push *p);

/* ---- configuration (pools.c) ---- */

/* Reads one value of BF_SNAP_PUSH_POOL. 0 or BF_ERR_MALFORMED. */
int bf_push_spec_read(struct bf_bytes value, struct bf_push_spec *ret);
/* Brackets of a snapshot: pools that are not named between them are drained. */
void bf_push_configure_begin(struct bf_push *p);
/* Makes or changes a pool. Returns its index, or -1: no room. |is_other|: what connections were
 * made with has changed (TLS name, certificate, trust), so those open are replaced. */
int bf_push_configure_pool(struct bf_push *p, const struct bf_push_spec *spec, bool is_other);
void bf_push_configure_end(struct bf_push *p);
/* Index of a pool in use, -1: unknown. */
int bf_push_pool_find(const struct bf_push *p, uint32_t id);

/* ---- commands and time ---- */

/* Takes a command whose block is held by the caller (push holds it too). False: leave it in its
 * ring: no slot is free, nor room for a receipt that says so. */
bool bf_push_take(struct bf_push *p, const struct bf_cmd_push *cmd, uint32_t lane);
/* The person opted out or was erased: requests that wait end NOT_SENT; those under way are not sent
 * a second time. */
void bf_push_mask(struct bf_push *p, struct bf_user_key user);
/* One turn: writes what waits, opens and closes, deadlines, results. Returns true if more is to do.
 */
bool bf_push_turn(struct bf_push *p);
/* The worker stops: requests that wait are given back, those under way are waited for; then
 * connections are closed. */
void bf_push_stop(struct bf_push *p);
/* No request waits or is under way, and nothing is left to report. */
bool bf_push_is_idle(const struct bf_push *p);
/* Results or pool reports wait for room in the receipts ring. */
bool bf_push_is_impatient(const struct bf_push *p);
/* The ids of requests held, from |*cursor| on (0 at first), as BF_RCPT_CENSUS_PUSH. True: all are
 * said. False: no room, go on later. */
bool bf_push_census(struct bf_push *p, uint64_t ticket, uint32_t *cursor);

/* ---- transports ---- */

void bf_push_opened(struct bf_push *p, uint32_t conn);
/* The transport failed or ended; |text| says why. */
void bf_push_closed(struct bf_push *p, uint32_t conn, const char *text);
/* After transport.close: the index is free. */
void bf_push_released(struct bf_push *p, uint32_t conn);
/* Plaintext came. The connection may be closed (by transport.close) before this returns. */
void bf_push_received(struct bf_push *p, uint32_t conn, const uint8_t *bytes, size_t len);
/* The next connection with bytes to write, or UINT32_MAX. */
uint32_t bf_push_ready_take(struct bf_push *p);
/* Writes plaintext of it into |to|: control frames, bodies, then new requests while at least
 * BF_H2_REQUEST_OUT_MAX are left. */
size_t bf_push_pull(struct bf_push *p, uint32_t conn, uint8_t *to, size_t cap);
/* |bytes| of what was pulled are with the kernel. */
void bf_push_sent(struct bf_push *p, uint32_t conn, size_t bytes);
/* The transport will take no more, ever, but may still bring what the peer has sent: no new
 * requests. It is closed when those on it have ended. */
void bf_push_drain(struct bf_push *p, uint32_t conn);
/* The transport takes no more (true), or does again. */
void bf_push_blocked(struct bf_push *p, uint32_t conn, bool is_blocked);

static inline struct bf_push_request *bf_push_request_at(const struct bf_push *p, uint32_t index)
{
    return bf_slab_at(&p->requests, index);
}
