/*
 * The states of a connection, HTTP -> OPEN -> AUTH -> LIVE -> CLOSING -> LINGER -> CLOSED, its
 * deadlines and its end (DESIGN 5). No I/O: a connection that is to be closed is put into the ready
 * list, and the worker closes it. Owner: one worker thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "channel/worker_core.h"

/* How long the peer has to take our close frame; then the socket is closed, whatever is still in
 * it. */
#define BF_CLOSE_LINGER_MS 3000u
/* One goaway reason or close reason; RFC 6455 allows 123 bytes. */
#define BF_CLOSE_REASON_BYTES_MAX 100u

/* A fresh socket: the request must come, and a connect, within BF_CONNECT_DEADLINE_MS. */
void bf_life_start(struct bf_worker_core *core, uint32_t slot);

/* Ends the WebSocket with a close frame, dropping what is queued unless |flush|. HTTP: what is
 * queued is the answer, it goes out and the socket is shut. */
void bf_life_close(struct bf_worker_core *core, uint32_t slot, uint16_t code, const char *reason,
                   bool flush);
/* As bf_life_close with a goaway before it. */
void bf_life_goaway(struct bf_worker_core *core, uint32_t slot, uint16_t code, const char *reason,
                    uint32_t reconnect_after_ms);

/* The socket is dead or not needed any more; the worker closes it. |code|: the peer's close code,
 * 0: none. */
void bf_life_gone(struct bf_worker_core *core, uint32_t slot, uint16_t code);

/* AUTH -> LIVE; call with the WELCOME queued. */
/* Sets the end of a LIVE connection: its token's, or that of its age if that comes first. */
void bf_life_set_end(struct bf_worker_core *core, uint32_t slot, uint64_t token_expires_ms);
void bf_life_welcome(struct bf_worker_core *core, uint32_t slot);

/* Called when the wheel comes to a connection: does what is due and files the connection again. */
void bf_life_look(struct bf_worker_core *core, uint32_t slot);

/* Files the connection by its next deadline; call when one may have moved earlier. */
void bf_life_file(struct bf_worker_core *core, uint32_t slot);

/* Tick of a wall-clock instant; far ones are clamped. */
uint32_t bf_life_tick_of_wall(const struct bf_worker_core *core, uint64_t wall_ms);

/* Gives back the chain of allowed topics. */
void bf_grant_drop(struct bf_worker_core *core, uint32_t grant);
/* Gives back a pending connect and, unless |keep_grant|, its topics. */
void bf_pending_drop(struct bf_worker_core *core, uint32_t pending, bool keep_grant);
