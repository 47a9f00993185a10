/* See packed.h. */
#include "channel/packed.h"

#include <string.h>

#include "belfry/base/ws_frame.h"
#include "channel/channel.h"
#include "proto/ws/deflate.h"

/* Kept only if it saves at least an eighth: less is not worth the client's work. */
#define SAVE_DIVISOR 8u

static uint8_t *bytes_of(const struct bf_packs *p, uint32_t index)
{
    return p->bytes + (uint64_t)index * BF_PACKED_BYTES_MAX;
}

/* Bytes of the header if the block is one whole text frame, else 0 (a replay holds several). */
static uint32_t one_frame(const uint8_t *bytes, uint32_t len)
{
    if (len < 4 || bytes[0] != (0x80u | BF_WS_TEXT))
        return 0;
    uint32_t small = bytes[1];
    if (small < 126)
        return small + 2u == len ? 2 : 0;
    if (small == 126)
        return ((uint32_t)bytes[2] << 8 | bytes[3]) + 4u == len ? 4 : 0;
    if (len < BF_WS_HEADER_BYTES_MAX)
        return 0;
    uint64_t payload = 0;
    for (int i = 0; i < 8; i++)
        payload = payload << 8 | bytes[2 + i];
    return payload == len - BF_WS_HEADER_BYTES_MAX ? BF_WS_HEADER_BYTES_MAX : 0;
}

/* Writes the compressed frame. Returns its bytes, or 0 when it does not pay. */
static uint32_t pack(struct bf_packs *p, unsigned bits, const uint8_t *frame, uint32_t len,
                     uint32_t header, uint8_t *out)
{
    const struct bf_bytes payload = {.at = (const char *)frame + header, .len = len - header};
    size_t cap = payload.len - payload.len / SAVE_DIVISOR;
    if (cap > BF_PACKED_BYTES_MAX - BF_WS_HEADER_BYTES_MAX)
        cap = BF_PACKED_BYTES_MAX - BF_WS_HEADER_BYTES_MAX;
    /* written after room for the largest header, then moved down to the real one */
    size_t packed = bf_deflate(p->deflater, bits, payload, out + BF_WS_HEADER_BYTES_MAX, cap);
    if (packed == 0)
        return 0;
    size_t head = bf_ws_header_write(out, BF_WS_TEXT, packed);
    out[0] |= BF_WS_RSV1;
    memmove(out + head, out + BF_WS_HEADER_BYTES_MAX, packed);
    return (uint32_t)(head + packed);
}

/* The place of this copy, or one to make it in (lap 0 then), or BF_PACKED_COPIES: all are held. */
static uint32_t place_of(struct bf_packs *p, uint32_t block, uint32_t lap, uint8_t bits)
{
    uint32_t first = (block * 31u + bits) % (BF_PACKED_COPIES / BF_PACKED_WAYS) * BF_PACKED_WAYS;
    uint32_t idle = BF_PACKED_COPIES;
    for (uint32_t i = 0; i < BF_PACKED_WAYS; i++) {
        struct bf_packed *copy = &p->copies[first + (p->victim + i) % BF_PACKED_WAYS];
        if (copy->block == block && copy->lap == lap && copy->bits == bits)
            return (uint32_t)(copy - p->copies);
        if (copy->holders == 0 && (idle == BF_PACKED_COPIES || copy->lap == 0))
            idle = (uint32_t)(copy - p->copies);
    }
    if (idle < BF_PACKED_COPIES)
        p->copies[idle].lap = 0;
    return idle;
}

bool bf_packed_node(struct bf_worker_core *core, uint32_t slot, struct bf_node *node)
{
    struct bf_packs *p = &core->packs;
    const struct bf_block *block = &bf_blocks(core->region)[node->ref];
    const uint8_t *bytes = bf_block_data(core->region, block);
    uint8_t bits = bf_cold(core, slot)->deflate;
    uint32_t len = block->len;
    if (bits == 0 || len < p->payload_min)
        return false;
    /* relaxed: the block is held, so its lap does not change; the ring ordered its writes */
    uint32_t lap = atomic_load_explicit(&block->lap, memory_order_relaxed);
    uint32_t index = place_of(p, node->ref, lap, bits);
    if (index == BF_PACKED_COPIES)
        return false;
    struct bf_packed *copy = &p->copies[index];
    if (copy->lap == 0) {
        uint32_t header = one_frame(bytes, len);
        if (header == 0 || len - header < p->payload_min || len > p->turn_left)
            return false;
        p->turn_left -= len;
        p->victim++;
        *copy = (struct bf_packed){.block = node->ref, .lap = lap, .bits = bits};
        copy->len = pack(p, bits, bytes, len, header, bytes_of(p, index));
        bf_worker_count(core, BF_M_blocks_packed, copy->len > 0);
    }
    if (copy->len == 0)
        return false;
    copy->holders++;
    node->kind = BF_NODE_PACKED;
    node->ref = index;
    bf_worker_count(core, BF_M_frames_packed, 1);
    bf_worker_count(core, BF_M_packed_saved, len - copy->len);
    return true;
}

void bf_packed_drop(struct bf_worker_core *core, uint32_t index)
{
    BF_BUG_ON(core->packs.copies[index].holders == 0);
    core->packs.copies[index].holders--;
}

uint32_t bf_packed_bytes(const struct bf_worker_core *core, uint32_t index, const uint8_t **ret_at)
{
    *ret_at = bytes_of(&core->packs, index);
    return core->packs.copies[index].len;
}
