/*
 * Server-side WebSocket frame header (RFC 6455 section 5.2). Server frames are unmasked, so the
 * same bytes serve every plain connection: ctrlplane encodes a frame once, into a block.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define BF_WS_HEADER_BYTES_MAX 10u

/* Set in the first byte: the message is compressed (RFC 7692 section 6). */
#define BF_WS_RSV1 0x40u

enum bf_ws_opcode {
    BF_WS_CONTINUATION = 0,
    BF_WS_TEXT = 1,
    BF_WS_BINARY = 2,
    BF_WS_CLOSE = 8,
    BF_WS_PING = 9,
    BF_WS_PONG = 10,
};

/* Bytes of the header of a frame with this payload: 2, 4 or 10 (minimal encoding). */
static inline size_t bf_ws_header_bytes(size_t payload_bytes)
{
    return payload_bytes < 126 ? 2 : payload_bytes <= UINT16_MAX ? 4 : 10;
}

/* Writes a FIN header; returns its length. */
static inline size_t bf_ws_header_write(uint8_t *out, enum bf_ws_opcode opcode,
                                        size_t payload_bytes)
{
    out[0] = (uint8_t)(0x80u | (unsigned)opcode);
    if (payload_bytes < 126) {
        out[1] = (uint8_t)payload_bytes;
        return 2;
    }
    if (payload_bytes <= UINT16_MAX) {
        out[1] = 126;
        out[2] = (uint8_t)(payload_bytes >> 8);
        out[3] = (uint8_t)payload_bytes;
        return 4;
    }
    out[1] = 127;
    for (int i = 0; i < 8; i++)
        out[2 + i] = (uint8_t)((uint64_t)payload_bytes >> (56 - 8 * i));
    return 10;
}
