/*
 * Client side of WebSocket as the load client needs it: requests and masked frames out, an
 * incremental frame reader in. Sans-IO; strict about what a server may send. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PF_WS_REQUEST_BYTES_MAX 2048u
#define PF_WS_SMALL_BYTES_MAX   (125u + 6u)

/* Writes an upgrade request; |token| may be NULL, |path| begins with '/'. Returns its bytes. */
size_t pf_ws_request(char *out, size_t cap, const char *host, uint16_t port, const char *path,
                     const char *subprotocol, const char *token, size_t token_len);

/* Writes a masked frame. Returns its bytes, 0 if it does not fit. */
size_t pf_ws_frame(uint8_t *out, size_t cap, uint8_t opcode, const void *payload, size_t len);

/* Where a reader is inside a frame. Zero-initialised: at a frame's start. */
struct pf_ws_reader {
    uint8_t head[10];
    uint8_t head_len;
    uint8_t opcode;
    bool in_payload;
    uint64_t left;
    uint8_t *part; /* bytes of a frame cut by the read; malloc'ed, kept while needed */
    uint32_t part_len, part_cap;
};

struct pf_ws_message {
    uint8_t opcode;
    const uint8_t *data; /* valid until the next call */
    size_t len;
};

/*
 * Takes bytes. Returns 1 with a whole frame in *ret (call again with the rest), 0 when all bytes
 * are used, -1 on a frame that a server must not send (masked, fragmented, reserved).
 */
int pf_ws_read(struct pf_ws_reader *reader, const uint8_t *bytes, size_t len, size_t *ret_used,
               struct pf_ws_message *ret);
void pf_ws_reader_fini(struct pf_ws_reader *reader);
