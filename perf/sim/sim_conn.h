/* A connection: TLS, then HTTP/2 (sim_h2.c) or HTTP/1.1. Belongs to one worker, which alone touches
 * it. */
#pragma once

#include <nghttp2/nghttp2.h>

#include "sim_worker.h"

#define SIM_OUT_BYTES (48u << 10) /* at least one frame of 16 KB fits when half of it is taken */

enum sim_conn_state {
    SIM_CONN_WAIT_TLS = 0, /* slow_tls: nothing is read yet */
    SIM_CONN_TLS,
    SIM_CONN_H2,
    SIM_CONN_H1,
    SIM_CONN_FROZEN,  /* half-open: only its end is looked at */
    SIM_CONN_SPOILT,  /* nonsense was sent: what comes in is thrown away */
    SIM_CONN_ENDLESS, /* CONTINUATION frames as long as the peer takes them */
    SIM_CONN_DEAD,
};

struct sim_conn {
    struct sim_worker *w;
    struct sim_conn *next; /* in worker.dead */
    enum sim_provider_id provider;
    enum sim_conn_state state;
    uint32_t slot;
    uint64_t id;
    int fd;
    uint32_t events; /* in epoll now */
    SSL *ssl;
    struct sim_peer peer;
    const char *alpn; /* forced by a fault, else NULL */

    struct sim_conn *dirty_next; /* has answers to send at the end of the turn */
    bool dirty;

    nghttp2_session *h2;
    struct sim_stream *live;
    uint64_t streams;       /* begun on this connection */
    uint32_t streams_limit; /* last one announced */
    int32_t newest_id;
    int32_t goaway_last; /* streams above are held; 0 = no GOAWAY planned */
    uint32_t goaway_held;
    uint32_t goaway_drop; /* streams to hold before it is sent */
    char goaway_reason[64];
    bool goaway_sent;

    struct sim_stream *h1; /* request being read or waiting for its latency */
    char *h1_in;
    size_t h1_bytes;

    uint8_t *out; /* plain bytes for TLS */
    size_t out_bytes, out_sent;
};

struct sim_conn *sim_conn_create(struct sim_worker *w, enum sim_provider_id provider, int fd);
/* Takes the connection out of use; its memory goes at the end of the turn. |reset|: by TCP RST. */
void sim_conn_close(struct sim_conn *c, bool reset);
void sim_conn_free(struct sim_conn *c);

void sim_conn_on_event(struct sim_conn *c, uint32_t events);
void sim_conn_on_delay(struct sim_conn *c, const struct sim_delay_row *row);
/* Sends what the session has to say, as far as the socket takes it. */
void sim_conn_flush(struct sim_conn *c);
void sim_conn_freeze(struct sim_conn *c);

/* A connection fault in force and meant for this connection (its rate is drawn once a connection).
 */
struct sim_fault *sim_conn_fault(struct sim_conn *c, enum sim_fault_kind kind);

/* ---- sim_h2.c
 * -------------------------------------------------------------------------------------- */

bool sim_h2_open(struct sim_conn *c);
void sim_h2_close(struct sim_conn *c);
/* Feeds bytes. False when the connection is lost. */
bool sim_h2_read(struct sim_conn *c, const uint8_t *data, size_t bytes);
/* Moves frames into c->out. False when the session is over and all is sent. */
bool sim_h2_write(struct sim_conn *c);
/* Tells the peer its stream limit when it has changed. */
void sim_h2_announce(struct sim_conn *c);
void sim_h2_on_delay(struct sim_conn *c, const struct sim_delay_row *row);
