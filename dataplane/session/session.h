/*
 * Sessions of belfry.v1.json (DESIGN 5): what a client's request and frames mean. What needs no
 * store is answered here (errors, ok, pong, subscriptions); read, seen, archive and connects go to
 * the control process as receipts. Frames in by bf_session_event, frames out by the connection's
 * queue; no I/O. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "channel/worker_core.h"
#include "proto/http1/upgrade.h"
#include "proto/ws/ws_rx.h"
#include "session/client_msg.h"
#include "session/sse_request.h"
#include "tls/jwt.h"

/* Public topic prefixes and allowed origins that a snapshot may carry; further ones are refused
 * with a log line. */
#define BF_PUBLIC_TOPICS_MAX 64u
#define BF_ORIGINS_MAX       64u
#define BF_ORIGIN_BYTES_MAX  255u

struct bf_name {
    uint8_t len;
    char text[255];
};

struct bf_session {
    struct bf_worker_core *core;
    struct bf_jwt_keys *keys; /* NULL until a configuration brings some */
    uint32_t public_count;
    struct bf_name public_topics[BF_PUBLIC_TOPICS_MAX];
    uint32_t origin_count;
    struct bf_name origins[BF_ORIGINS_MAX];
    void *json_pool; /* BF_CLIENT_MSG_POOL_BYTES */
    struct bf_client_msg msg;
    struct bf_claims claims;
    struct bf_sse_request events; /* the request being answered */
};

/* |json_pool|: BF_CLIENT_MSG_POOL_BYTES, the worker's. */
void bf_session_init(struct bf_session *s, struct bf_worker_core *core, void *json_pool);
void bf_session_fini(struct bf_session *s);

/* Takes over the content of a configuration snapshot (TLV, shm/snapshot.h). 0, or BF_ERR_MALFORMED:
 * the previous configuration stays in force. */
int bf_session_configure(struct bf_session *s, const uint8_t *content, size_t len);

/* Answers a parsed upgrade request: 101 and state OPEN, or a refusal. */
void bf_session_upgrade(struct bf_session *s, uint32_t slot, const struct bf_upgrade *up);
/* Answers a request for /v1/sse: 200, and goes on as after a connect frame; or a refusal. */
void bf_session_events(struct bf_session *s, uint32_t slot, const struct bf_upgrade *up);
/* Answers a bad request with |status| and ends the connection. */
void bf_session_refuse(struct bf_session *s, uint32_t slot, int status, const char *why);

/* One event of the WebSocket. The connection may be CLOSING afterwards: then feed no more. */
void bf_session_event(struct bf_session *s, uint32_t slot, const struct bf_ws_event *event);
