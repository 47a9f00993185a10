/*
 * Load client: many WebSocket connections on io_uring, in child processes (20,000 descriptors a
 * process can be a hard limit), each bound to a 127.0.0.x of its own (28,000 ports an address). The
 * parent is the benchmark: it starts children, gives orders through shared memory and reads what
 * they counted.
 *
 * Every frame and byte is counted. In a *round* the parent says which bytes each connection must
 * get; a child checks the content and stamps the time from the round's trigger. Functions without
 * "child" in their comment belong to the parent's thread.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "belfry/base/histogram.h"

/* 500,000 connections (P3's stretch) over processes of 18,000. */
#define PF_LOAD_PROCESSES_MAX 64u
/* Below the descriptor limit of 20,000 with room for the process's own. */
#define PF_LOAD_PROCESS_CONNECTIONS 18000u
#define PF_LOAD_MARKER_BYTES_MAX    128u

/* A connection as a message callback sees it. */
struct pf_load_conn {
    uint32_t index; /* over all processes: user is <prefix><first_user + index> */
    uint32_t process;
};

struct pf_load_counters; /* of one process, shared */

/*
 * Called in a child for each text or binary message after the welcome. |now_ns| is CLOCK_MONOTONIC
 * as read when the bytes were taken. Returns true when the message was as expected (else it counts
 * as bad). NULL: the round's content check.
 */
typedef bool (*pf_load_message_fn)(void *ctx, const struct pf_load_conn *conn,
                                   struct pf_load_counters *counters, const uint8_t *data,
                                   size_t len, uint64_t now_ns);

struct pf_load_spec {
    const char *host;
    uint16_t port;         /* all processes connect here, unless .ports is set */
    const uint16_t *ports; /* one a process, or NULL */
    uint32_t connections;
    uint32_t process_connections; /* 0: PF_LOAD_PROCESS_CONNECTIONS */
    const char *path;             /* NULL: /v1/ws */
    const char *subprotocol;      /* NULL: belfry.v1.json */
    const char *user_prefix;      /* NULL: no tokens */
    uint32_t first_user;
    const char *jwt_secret;
    size_t jwt_secret_len;
    void *jwt_es256_key;       /* instead of the secret: pf_jwt_key_make */
    const char *connect_frame; /* text sent after the 101; NULL: none, and no welcome is awaited */
    int core;                  /* children run there; -1: anywhere */
    bool acknowledge;          /* each n by its seq, as a real client: without it they come again */
    bool realtime;             /* SCHED_FIFO: a few measured connections beside a busy client */
    uint32_t pending_max;      /* handshakes at once a process; 0: 128 */
    bool comes_back;           /* reconnects: see pf_load_churn */
    pf_load_message_fn on_message;
    void *ctx;
};

/* Shared, one a process; writer: the child. Relaxed: readers add up numbers, nothing else. */
struct pf_load_counters {
    _Atomic uint64_t open;    /* handshake done (welcome had, where one is awaited) */
    _Atomic uint64_t failed;  /* did not get that far */
    _Atomic uint64_t dropped; /* got there and were closed by the other side */
    _Atomic uint64_t frames;  /* messages after the welcome, control frames apart */
    _Atomic uint64_t bytes;   /* of all received */
    _Atomic uint64_t pings;
    _Atomic uint64_t pongs;        /* sent */
    _Atomic uint64_t bad;          /* wrong content, protocol errors */
    _Atomic uint64_t round_frames; /* of the round, right content */
    _Atomic uint64_t round_last_ns;
    _Atomic uint64_t round_first_ns;
    _Atomic uint32_t round_seen; /* id of the round that the round_ counters are of */
    _Atomic uint64_t last_open_ns;
    _Atomic uint64_t enter_calls;
    /* of clients that come back */
    _Atomic uint64_t left;     /* connections that they ended, without a goodbye */
    _Atomic uint64_t goaways;  /* told to go */
    _Atomic uint64_t returned; /* connected again */
    struct bf_hist latency_ns; /* of the round; of everything when a callback fills it */
} __attribute__((aligned(64)));

struct pf_load;

/* Forks the children (the program has no other threads yet) and lets them connect. Returns at once.
 */
struct pf_load *pf_load_start(const struct pf_load_spec *spec);

/* Sum over processes. */
struct pf_load_totals {
    uint64_t open, failed, dropped, frames, bytes, pings, pongs, bad, round_frames;
    uint64_t round_first_ns, round_last_ns, last_open_ns;
    uint64_t left, goaways, returned;
};
struct pf_load_totals pf_load_totals(const struct pf_load *load);

/* Waits until all connections are open. Returns false on the first failed one or after |seconds|.
 */
bool pf_load_wait_open(const struct pf_load *load, double seconds);

/*
 * For clients made with .comes_back: |per_second| of their connections (of all processes together)
 * end without a goodbye and connect again shortly after; 0 ends it. Whatever .comes_back clients
 * lose they connect again: after the time that a goaway named, else after up to 2 s. Then |open|
 * counts each time it got there, |dropped| each time the server ended it, |failed| each attempt
 * that did not get there.
 */
void pf_load_churn(struct pf_load *load, double per_second);
/* Connections that are up right now. */
uint64_t pf_load_up(const struct pf_load *load);

/*
 * Begins a round: from now on each connection must get one message that contains |marker|, the same
 * bytes on all. Returns the trigger time that latencies count from; call it just before the
 * trigger.
 */
uint64_t pf_load_round_begin(struct pf_load *load, const char *marker, size_t len);

struct pf_round {
    uint64_t frames, bad;
    double seconds;  /* trigger to the last frame */
    double first_ms; /* trigger to the first */
    double p50_ms, p99_ms, max_ms;
};
/* Waits for |expected| frames. Returns false (with what came) after |seconds|. */
bool pf_load_round_wait(const struct pf_load *load, uint64_t expected, double seconds,
                        struct pf_round *ret);

/* Merges the processes' latency histograms into *ret (zeroed first). */
void pf_load_latency(const struct pf_load *load, struct bf_hist *ret);
void pf_load_latency_reset(struct pf_load *load);

/* CPU time of all children, nanoseconds; resident and kernel-visible memory is not counted here. */
uint64_t pf_load_cpu_ns(const struct pf_load *load);

/* Ends the children: sockets are reset, so that no TIME_WAIT is left. Frees |load|. */
void pf_load_stop(struct pf_load *load);

/* Merges |from| into |into|; both idle. */
void pf_hist_merge(struct bf_hist *into, const struct bf_hist *from);

/* Pins the calling process to a core; -1: does nothing. */
void pf_pin(int core);
