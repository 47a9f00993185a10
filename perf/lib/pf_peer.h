/*
 * Other people's servers, to compare with in the same run: npm `ws`, gorilla/websocket, nchan, from
 * their Debian packages, and
 * centrifuge, the library of Centrifugo, as a Go module. Each holds plain WebSocket clients and
 * sends one message to all on demand. Parent's thread only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pf_peer;

/* "ws", "gorilla", "nchan" or "centrifugo"; pinned to |core|. NULL, after saying what is missing,
 * when it cannot run. */
struct pf_peer *pf_peer_start(const char *name, int core);
/* What a client of this peer says first (it is then answered by a text with "welcome"); NULL:
 * nothing. */
const char *pf_peer_connect_frame(const char *name);
uint16_t pf_peer_port(const struct pf_peer *peer);
pid_t pf_peer_pid(const struct pf_peer *peer);
/* Lets the peer send |payload| to everyone. Returns false when it did not take it. */
bool pf_peer_broadcast(struct pf_peer *peer, const void *payload, size_t len);
void pf_peer_stop(struct pf_peer *peer);
