/* A connection: TLS, then HTTP/2 (sim_h2.c) or HTTP/1.1. Belongs to one worker, which alone touches
 * it. */
#pragma once

#include "sim_h2.h"
#include "sim_worker.h"

#define SIM_OUT_BYTES_MIN (16u << 10)
#define SIM_OUT_BYTES_MAX                                                                          \
    (4u << 20) /* a peer that reads nothing gets no more: twice 1,000 answers */

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

    struct sim_h2 h2;
    uint64_t streams; /* requests begun on this connection */
    int32_t newest_id;
    int32_t goaway_last;               /* streams above are held; 0 = no GOAWAY planned */
    uint32_t goaway_held, goaway_drop; /* held now, to hold before it is sent */
    char goaway_reason[64];

    struct sim_stream *h1; /* request being read or waiting for its latency */
    char *h1_in;
    size_t h1_bytes;

    uint8_t *out; /* plain bytes for TLS */
    size_t out_bytes, out_sent, out_room;
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

/* Room for |bytes| more in the out buffer, counted as written. NULL, and the connection is lost,
 * when the peer has let too much pile up. */
uint8_t *sim_conn_out(struct sim_conn *c, size_t bytes);
/* Takes the last |bytes| of it back. */
void sim_conn_out_less(struct sim_conn *c, size_t bytes);

/* ---- sim_request.c ---- */

/* A whole HTTP/2 request: faults, decision, answer now or later. */
void sim_on_request(struct sim_conn *c, struct sim_stream *s);
void sim_on_delay(struct sim_conn *c, const struct sim_delay_row *row);
/* The stream limit that this connection should have now. */
uint32_t sim_streams_wanted(struct sim_conn *c);
