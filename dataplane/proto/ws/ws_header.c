/* Client frame header and unmasking: see ws_header.h. */
#include "proto/ws/ws_header.h"

#include <string.h>

#include "belfry/base/ws_frame.h"

#define CODE_PROTOCOL 1002
#define CODE_TOO_BIG  1009
#define RSV1          0x40u
#define RSV2_RSV3     0x30u

static int refuse(int code, const char *why, const char **ret_why)
{
    *ret_why = why;
    return -code;
}

static bool is_known_opcode(uint8_t opcode)
{
    return opcode <= BF_WS_BINARY || (opcode >= BF_WS_CLOSE && opcode <= BF_WS_PONG);
}

/* What the first two bytes alone forbid. */
static int two_bytes_check(const uint8_t *p, bool may_compress, const char **ret_why)
{
    uint8_t opcode = p[0] & 0x0f;
    bool starts_message = opcode == BF_WS_TEXT || opcode == BF_WS_BINARY;
    if ((p[0] & RSV2_RSV3) || ((p[0] & RSV1) && !(may_compress && starts_message)))
        return refuse(CODE_PROTOCOL, "reserved bit set that nothing agreed to", ret_why);
    if (!is_known_opcode(opcode))
        return refuse(CODE_PROTOCOL, "reserved opcode", ret_why);
    if (!(p[1] & 0x80))
        return refuse(CODE_PROTOCOL, "client frames must be masked", ret_why);
    if (bf_ws_is_control(opcode) && !(p[0] & 0x80))
        return refuse(CODE_PROTOCOL, "fragmented control frame", ret_why);
    if (bf_ws_is_control(opcode) && (p[1] & 0x7f) > BF_WS_CONTROL_BYTES_MAX)
        return refuse(CODE_PROTOCOL, "control frame above 125 bytes", ret_why);
    if (opcode == BF_WS_CLOSE && (p[1] & 0x7f) == 1)
        return refuse(CODE_PROTOCOL, "close body of one byte", ret_why);
    return 0;
}

int bf_ws_header_parse(const uint8_t *p, size_t len, struct bf_ws_room room,
                       struct bf_ws_header *ret, const char **ret_why)
{
    if (len < 2)
        return 0;
    int rc = two_bytes_check(p, room.packed > 0, ret_why);
    if (rc != 0)
        return rc;
    size_t ext = (p[1] & 0x7f) == 126 ? 2 : (p[1] & 0x7f) == 127 ? 8 : 0;
    if (len < 2 + ext)
        return 0;
    uint64_t payload = ext == 0 ? p[1] & 0x7f : 0;
    for (size_t i = 0; i < ext; i++)
        payload = payload << 8 | p[2 + i];
    if (payload >> 63)
        return refuse(CODE_PROTOCOL, "length with its top bit set", ret_why);
    if ((ext == 2 && payload < 126) || (ext == 8 && payload <= UINT16_MAX))
        return refuse(CODE_PROTOCOL, "length not in its shortest form", ret_why);
    if (!bf_ws_is_control(p[0] & 0x0f) && payload > (p[0] & RSV1 ? room.packed : room.plain))
        return refuse(CODE_TOO_BIG, "message too big", ret_why);
    if (len < 2 + ext + 4)
        return 0;
    *ret = (struct bf_ws_header){
        .opcode = p[0] & 0x0f,
        .is_fin = (p[0] & 0x80) != 0,
        .is_compressed = (p[0] & RSV1) != 0,
        .header_bytes = (uint8_t)(2 + ext + 4),
        .payload_bytes = payload,
    };
    memcpy(ret->mask, p + 2 + ext, sizeof(ret->mask));
    return 1;
}

void bf_ws_unmask(uint8_t *p, size_t len, const uint8_t mask[4])
{
    uint32_t half;
    uint64_t wide, word;
    memcpy(&half, mask, sizeof(half));
    wide = (uint64_t)half << 32 | half;
    size_t i = 0;
    for (; len - i >= sizeof(word); i += sizeof(word)) {
        memcpy(&word, p + i, sizeof(word));
        word ^= wide;
        memcpy(p + i, &word, sizeof(word));
    }
    for (; i < len; i++)
        p[i] ^= mask[i & 3u];
}
