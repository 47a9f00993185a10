/* Client side of WebSocket: see pf_ws.h. */
#include "pf_ws.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/ws_frame.h"

size_t pf_ws_request(char *out, size_t cap, const char *host, uint16_t port, const char *path,
                     const char *subprotocol, const char *token, size_t token_len)
{
    int n = snprintf(out, cap,
                     "GET %s HTTP/1.1\r\nHost: %s:%u\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                     "Sec-WebSocket-Version: 13\r\n%s%s%s%s%.*s%s\r\n",
                     path, host, port, subprotocol ? "Sec-WebSocket-Protocol: " : "",
                     subprotocol ? subprotocol : "", subprotocol ? "\r\n" : "",
                     token ? "Authorization: Bearer " : "", token ? (int)token_len : 0,
                     token ? token : "", token ? "\r\n" : "");
    return n > 0 && (size_t)n < cap ? (size_t)n : 0;
}

size_t pf_ws_frame(uint8_t *out, size_t cap, uint8_t opcode, const void *payload, size_t len)
{
    /* a constant mask: the server unmasks all the same, and the client's core is not the one
     * measured */
    static const uint8_t mask[4] = {0x12, 0x34, 0x56, 0x78};
    size_t header = bf_ws_header_bytes(len);
    if (cap < header + 4 || len > cap - header - 4)
        return 0;
    bf_ws_header_write(out, (enum bf_ws_opcode)opcode, len);
    out[1] |= 0x80;
    memcpy(out + header, mask, 4);
    for (size_t i = 0; i < len; i++)
        out[header + 4 + i] = ((const uint8_t *)payload)[i] ^ mask[i & 3];
    return header + 4 + len;
}

/* Header bytes known from the first two. */
static size_t head_bytes(const uint8_t *head)
{
    uint8_t len = head[1] & 0x7f;
    return len == 127 ? 10 : len == 126 ? 4 : 2;
}

static int head_take(struct pf_ws_reader *r)
{
    const uint8_t *h = r->head;
    uint8_t opcode = h[0] & 0x0f;
    if ((h[0] & 0xf0) != 0x80 || (h[1] & 0x80) || opcode == 0 || (opcode > 2 && opcode < 8) ||
        opcode > 10)
        return -1;
    r->opcode = opcode;
    r->left = h[1] & 0x7f;
    if (r->left >= 126) {
        size_t n = head_bytes(h);
        r->left = 0;
        for (size_t i = 2; i < n; i++)
            r->left = r->left << 8 | h[i];
    }
    r->in_payload = true;
    r->part_len = 0;
    return 0;
}

static int part_add(struct pf_ws_reader *r, const uint8_t *p, size_t n)
{
    if (r->part_len + n > r->part_cap) {
        size_t cap = r->part_len + r->left;
        uint8_t *grown = cap > UINT32_MAX ? NULL : realloc(r->part, cap);
        if (!grown)
            return -1;
        r->part = grown;
        r->part_cap = (uint32_t)cap;
    }
    memcpy(r->part + r->part_len, p, n);
    r->part_len += (uint32_t)n;
    return 0;
}

/* Payload bytes. Returns 1 when the frame is whole. */
static int payload_take(struct pf_ws_reader *r, const uint8_t *p, size_t have, size_t *used,
                        struct pf_ws_message *ret)
{
    size_t n = r->left < have ? (size_t)r->left : have;
    bool whole = n == r->left;
    *ret = (struct pf_ws_message){.opcode = r->opcode, .data = p, .len = n};
    if (!whole || r->part_len > 0) {
        if (n > 0 && part_add(r, p, n) != 0)
            return -1;
        ret->data = r->part;
        ret->len = r->part_len;
    }
    *used += n;
    r->left -= n;
    if (!whole)
        return 0;
    r->in_payload = false;
    r->head_len = 0;
    r->part_len = 0;
    return 1;
}

int pf_ws_read(struct pf_ws_reader *r, const uint8_t *bytes, size_t len, size_t *ret_used,
               struct pf_ws_message *ret)
{
    size_t used = 0;
    int rc = 0;
    while (rc == 0 && (used < len || (r->in_payload && r->left == 0))) {
        if (r->in_payload) {
            rc = payload_take(r, bytes + used, len - used, &used, ret);
            continue;
        }
        r->head[r->head_len++] = bytes[used++];
        if (r->head_len >= 2 && r->head_len == head_bytes(r->head))
            rc = head_take(r);
    }
    *ret_used = used;
    return rc;
}

void pf_ws_reader_fini(struct pf_ws_reader *reader)
{
    free(reader->part);
    *reader = (struct pf_ws_reader){0};
}
