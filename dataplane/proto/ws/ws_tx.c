/* Frames that a worker writes itself: close, ping, pong, short answers. See ws_rx.h. */
#include <string.h>

#include "belfry/base/text.h"
#include "belfry/base/ws_frame.h"
#include "proto/ws/ws_header.h"
#include "proto/ws/ws_rx.h"

static size_t frame_write(uint8_t *out, size_t cap, enum bf_ws_opcode opcode, const void *payload,
                          size_t len)
{
    size_t header = bf_ws_header_bytes(len);
    if (len > cap || header > cap - len)
        return 0;
    bf_ws_header_write(out, opcode, len);
    if (len > 0)
        memcpy(out + header, payload, len);
    return header + len;
}

size_t bf_ws_close_write(uint8_t *out, size_t cap, uint16_t code, const char *reason)
{
    uint8_t body[BF_WS_CONTROL_BYTES_MAX];
    if (code == 0)
        return frame_write(out, cap, BF_WS_CLOSE, NULL, 0);
    body[0] = (uint8_t)(code >> 8);
    body[1] = (uint8_t)code;
    size_t n = reason ? bf_utf8_cut(reason, strlen(reason), sizeof(body) - 2) : 0;
    if (n > 0)
        memcpy(body + 2, reason, n);
    return frame_write(out, cap, BF_WS_CLOSE, body, n + 2);
}

size_t bf_ws_control_write(uint8_t *out, size_t cap, uint8_t opcode, struct bf_bytes payload)
{
    if (!bf_ws_is_control(opcode) || payload.len > BF_WS_CONTROL_BYTES_MAX)
        return 0;
    return frame_write(out, cap, (enum bf_ws_opcode)opcode, payload.at, payload.len);
}

size_t bf_ws_text_write(uint8_t *out, size_t cap, struct bf_bytes payload)
{
    return frame_write(out, cap, BF_WS_TEXT, payload.at, payload.len);
}
