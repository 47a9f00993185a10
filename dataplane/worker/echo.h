/*
 * --echo: a WebSocket server that answers each message with itself, for conformance suites. Worker,
 * sockets and proto/ws are those of the live protocol; this file takes the place of the session.
 * The restrictions of the live protocol do not hold: no token is needed, any sub-protocol may be
 * offered (none is chosen), messages may be text or binary and have up to 16 MiB. Ping, close and
 * errors are answered as RFC 6455 says; queued frames leave before a close. Owner: one worker
 * thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "proto/http1/upgrade.h"
#include "proto/ws/ws_rx.h"

struct bf_worker;

/* The Autobahn suite's largest (section 9). Larger: close 1009. */
#define BF_ECHO_MESSAGE_BYTES_MAX (16u * 1024u * 1024u)
/* Messages being received at once; each may grow to the maximum. The next waits. */
#define BF_ECHO_CONTEXTS 32u
/* Answers waiting in all: seven of the largest (128 MiB, touched when used). */
#define BF_ECHO_CHUNKS 8192u
/* The largest message, compressed; a message that compression would make longer is sent as it is.
 */
#define BF_ECHO_PACKED_BYTES BF_ECHO_MESSAGE_BYTES_MAX
/* A connection with more frames queued than this is not read until some have left. */
#define BF_ECHO_QUEUE_CHUNKS 256u

/* Start of the worker: takes the chunks. 0 or BF_ERR_NO_MEMORY. */
int bf_echo_init(struct bf_worker *w);

/* Answers a parsed request: 101 and state LIVE, or a refusal. */
void bf_echo_upgrade(struct bf_worker *w, uint32_t slot, const struct bf_upgrade *up);

/* Whether the largest message could be answered now. If not: keep the bytes, read no more. */
bool bf_echo_has_room(const struct bf_worker *w, uint32_t slot);

/* One event of the WebSocket. The connection may be CLOSING afterwards. */
void bf_echo_event(struct bf_worker *w, uint32_t slot, const struct bf_ws_event *event);
