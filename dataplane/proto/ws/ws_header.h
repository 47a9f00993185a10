/*
 * Header of a client's frame (RFC 6455 section 5.2). It is judged byte by byte, so however a stream
 * is cut into reads, the verdict is the same. Private to proto/ws. Pure; any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 2 bytes, 8 of extended length, 4 of mask. */
#define BF_WS_CLIENT_HEADER_BYTES_MAX 14u
#define BF_WS_CONTROL_BYTES_MAX       125u

struct bf_ws_header {
    uint8_t opcode;
    bool is_fin;
    bool is_compressed; /* RSV1: RFC 7692 section 6.2, on the first frame of a message only */
    uint8_t header_bytes;
    uint8_t mask[4];
    uint64_t payload_bytes;
};

/* Largest payloads of data frames, for both kinds of message. */
struct bf_ws_room {
    uint64_t plain;
    uint64_t packed; /* 0: compression was not agreed */
};

/*
 * Returns 1 with *ret filled, 0 when more bytes are needed, or the negated close code (-1002, or
 * -1009 when the payload is above |room|); then *ret_why says what is wrong.
 */
int bf_ws_header_parse(const uint8_t *p, size_t len, struct bf_ws_room room,
                       struct bf_ws_header *ret, const char **ret_why);

static inline bool bf_ws_is_control(uint8_t opcode)
{
    return (opcode & 8u) != 0;
}

/* XORs |len| bytes with the mask, from payload position 0. */
void bf_ws_unmask(uint8_t *p, size_t len, const uint8_t mask[4]);
