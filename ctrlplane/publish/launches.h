/*
 * Commands with a block that leave once the batch of a shard's turn is written: what is not
 * recorded is not sent (DESIGN 4.15). Their places in the rings are made sure of before, so they
 * leave or there is none. One a shard; its thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "publish/publisher.h"

/* Of one turn. */
#define BF_LAUNCHES_MAX 1024u

struct bf_launch {
    uint32_t worker;
    enum bf_lane lane;
    enum bf_cmd_kind kind;
    struct bf_block_ref block;
    uint8_t payload[BF_SLOT_PAYLOAD_BYTES];
};

struct bf_launches {
    struct bf_publisher *pub;
    struct bf_launch *at; /* BF_LAUNCHES_MAX */
    uint32_t count;
    uint32_t next_worker;
};

/* 0 or BF_ERR_NO_MEMORY. |pub| is the shard's, attached or not. */
int bf_launches_init(struct bf_launches *launches, struct bf_publisher *pub);
void bf_launches_fini(struct bf_launches *launches);
static inline bool bf_launches_is_full(const struct bf_launches *launches)
{
    return launches->count >= BF_LAUNCHES_MAX;
}

/*
 * A place in the ring of |lane| to some worker (they take turns), and a block with a copy of
 * |bytes|. The caller fills in kind and payload at once. NULL: no room on the way to any worker, or
 * detached.
 */
struct bf_launch *bf_launches_take(struct bf_launches *launches, enum bf_lane lane,
                                   const uint8_t *bytes, size_t len);
/* After the batch was written, before anything else is sent. */
void bf_launches_send(struct bf_launches *launches);
