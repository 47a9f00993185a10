/*
 * A worker: one thread with its sockets, its connections, and its ends of the rings. It joins io
 * (sockets), proto (bytes to events), session and channel (events to frames), commands and receipts
 * (rings); none of these knows io. Everything is created by the worker's own thread, which the
 * rings require.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "channel/worker_core.h"
#include "commands/commands.h"
#include "io/io.h"
#include "memory/address_counts.h"
#include "memory/arena.h"
#include "memory/memory_plan.h"
#include "push/pools.h"
#include "session/session.h"
#include "worker/admission.h"
#include "worker/providers.h"
#include "worker/secure.h"
#include "worker/slot_queue.h"

/* Completions a turn: with ~0.3 us each, less than the time of 20 sends. */
#define BF_REAP_PER_TURN 256u
/* Connections a broadcast slice sends to: at 5 us a send, a critical frame waits 0.64 ms at most.
 */
#define BF_SENDS_PER_SLICE 128u
/* Sends a turn in all: one slice and as many targeted ones. */
#define BF_SENDS_PER_TURN 256u
/* Connections the wheel looks at in a turn: a look costs ~100 ns and may send a ping. */
#define BF_TIMERS_PER_TURN 128u
/* Several queued frames are copied into one send up to this; larger ones leave from their block. */
#define BF_COALESCE_BYTES 16384u
/* Copies of one turn: free again after its submit. */
#define BF_COPY_ARENA_BYTES (1024u * 1024u)
/* How long connections have at a stop to end in order; then sockets are closed as they are. */
#define BF_STOP_DRAIN_MS 5000u
/* A client told to go away at a stop comes back after about this. */
#define BF_STOP_RECONNECT_MS 2000u
/* Sleep while something waits for ctrlplane to read its receipts, or for a paced drain. */
#define BF_IMPATIENT_MS 2u

/* A message that is being received must end within this: a large one over a slow mobile network
 * does, one that is fragmented forever is closed (1008). */
#define BF_MESSAGE_DEADLINE_MS 10000u
/* The same while others wait for a context: the longest that one message can make them wait. */
#define BF_MESSAGE_CROWDED_MS 1000u

/* A connection inside a request or a message. Those inside a message are in a list, oldest first.
 */
struct bf_reception {
    struct bf_ws_rx *context;
    uint32_t stash; /* 0 = none */
    uint32_t stash_bytes;
    uint32_t slot;
    uint32_t since; /* tick at which the message began; with a context only */
    uint32_t older; /* reception, 0 = none */
    uint32_t newer;
};

/* Places of opts.listen_fds. */
#define BF_LISTENER_PLAIN 0u
#define BF_LISTENER_TLS   1u

/* What a worker is started with. All borrowed. */
struct bf_worker_opts {
    struct bf_region *region;
    const struct bf_conf *conf;
    uint32_t index;
    int core; /* processor to run on, -1: any */
    struct bf_io_opts io;
    struct bf_io_plan plan;
    int listen_fds[BF_IO_LISTENERS_MAX]; /* plain, TLS; -1: none */
    struct bf_address_counts *addresses; /* of all workers */
    uint32_t ktls_suites;     /* bits of those that the kernel makes records of (io/ktls.h) */
    uint32_t tls_records_max; /* tests: lean keys are renewed after so many; 0: as usual */
    bool raw;
    bool echo;
    const uint8_t *first_config; /* TLV, until the first snapshot */
    size_t first_config_len;
};

struct bf_raw;

struct bf_worker {
    struct bf_worker_opts opts;
    struct bf_worker_core core;
    struct bf_session session;
    struct bf_commands commands;
    struct bf_io *io;
    struct bf_arena arena;
    struct bf_ws_rx_pool *rx_pool;
    struct bf_slab receptions; /* struct bf_reception */
    uint32_t rx_oldest;        /* with a context; 0 = none */
    uint32_t rx_newest;
    struct bf_slab stashes;       /* BF_UPGRADE_BYTES_MAX each */
    struct bf_slab buffers;       /* receive buffers */
    struct bf_slot_queue rx_wait; /* readable, but no buffer was free */
    struct bf_slot_queue blocked; /* bytes wait for a reception context */
    uint8_t *copies;              /* BF_COPY_ARENA_BYTES */
    size_t copied;
    struct bf_raw *raw;
    uint8_t *echo_packed; /* --echo */
    struct bf_secure secure;
    struct bf_admission admission;
    struct bf_push push;
    struct bf_provider_sockets providers;
    uint64_t snapshot_seq;
    uint64_t start_ms;
    uint64_t stop_ms; /* when the stop was seen, 0 = running */
    struct bf_io_event events[BF_REAP_PER_TURN];
    _Atomic int stop;   /* writer: the main thread */
    _Atomic int status; /* 0 starting, 1 runs, < 0 failed, 2 ended. Writer: the worker */
};

/* The thread: arg is a struct bf_worker with |opts| set. */
void *bf_worker_main(void *arg);

/* What the start needs of the mapped memory by name. */
struct bf_worker_memory {
    void *json_pool, *io;
};

/* Maps all memory of a worker with |opts| set, as its start does, into |w|->arena; nothing is
 * opened. 0 or BF_ERR_NO_MEMORY. _unmap takes it back, also after a failure. Any thread, before the
 * worker's. */
int bf_worker_map(struct bf_worker *w, struct bf_worker_memory *ret);
void bf_worker_unmap(struct bf_worker *w);

/* Turns until stopped and drained. */
void bf_worker_loop(struct bf_worker *w);
/* One turn (worker_loop.c). Returns true if there was something to do. */
bool bf_worker_turn(struct bf_worker *w);

/* ---- parts of a turn ---- */

static inline struct bf_io_sock bf_sock_of(struct bf_worker *w, uint32_t slot)
{
    const struct bf_conn_cold *cold = bf_cold(&w->core, slot);
    return (struct bf_io_sock){
        .slot = slot, .generation = cold->generation, .file = cold->file, .ring = cold->ring};
}

/* rx.c: bytes in */
void bf_rx_readable(struct bf_worker *w, uint32_t slot);
void bf_rx_received(struct bf_worker *w, const struct bf_io_event *event);
void bf_rx_retry(struct bf_worker *w);
void bf_rx_drop(struct bf_worker *w, uint32_t slot);
/* Takes plaintext of a connection: passes it to its request or its WebSocket, or appends it to
 * bytes that wait already. */
void bf_rx_take(struct bf_worker *w, uint32_t slot, uint8_t *bytes, size_t len);

/* tx.c: bytes out, ends of sockets */
uint32_t bf_tx_run(struct bf_worker *w, uint32_t sends_max);
void bf_tx_sent(struct bf_worker *w, const struct bf_io_event *event);
/* Starts a send of what is queued, as it is. Returns its bytes; 0: nothing may leave now. No send
 * is under way. */
size_t bf_tx_queued(struct bf_worker *w, uint32_t slot);
/* The socket took something just now. */
void bf_tx_stamp(struct bf_worker *w, uint32_t slot);
/* The socket takes no more until it is writable. */
void bf_tx_wait(struct bf_worker *w, uint32_t slot);

/* react.c: what a completion means */
uint32_t bf_react(struct bf_worker *w);
void bf_react_event(struct bf_worker *w, const struct bf_io_event *event);

/* snapshot.c */
void bf_snapshot_check(struct bf_worker *w);
void bf_snapshot_none(struct bf_worker *w);
