/* See memory_plan.h. */
#include "memory/memory_plan.h"

#include "belfry/base/limits.h"
#include "memory/user_index.h"

/* Frames a connection may have waiting on average while everyone is slow at once. The limit of one
 * connection (queue_frames) is higher: slow readers are few. */
#define NODES_PER_CONNECTION 16u
/* Answers of ours waiting at once: most connections have none. */
#define LOCALS_PER_CONNECTION_DIVISOR 2u
/* "a bounded number" of connections waits for a welcome (DESIGN 5). */
#define PENDINGS_MAX 32768u

static uint32_t cap_u32(uint64_t n)
{
    return n > UINT32_MAX / 2u ? UINT32_MAX / 2u : (uint32_t)n;
}

static uint32_t nodes_of(const struct bf_memory_plan_input *in)
{
    uint64_t n = 0;
    n += in->connections;                                  /* the broadcast frame being sent */
    n += in->connections;                                  /* a ping or an answer */
    n += (uint64_t)in->connections * NODES_PER_CONNECTION; /* frames waiting for slow readers */
    n += 16384; /* one connection's full queue, several times */
    return cap_u32(n);
}

static uint32_t locals_of(const struct bf_memory_plan_input *in)
{
    uint64_t n = 0;
    n += in->connections / LOCALS_PER_CONNECTION_DIVISOR; /* handshake answers, pongs, errors */
    n += in->connections / LOCALS_PER_CONNECTION_DIVISOR; /* close frames of a drain */
    n += 4096;                                            /* small nodes are busy nodes too */
    return cap_u32(n);
}

struct bf_memory_plan bf_memory_plan_of(const struct bf_memory_plan_input *in)
{
    struct bf_memory_plan b = {
        .nodes = nodes_of(in),
        .locals = locals_of(in),
        .user_entries = bf_users_entries(in->connections),
        .receive_buffers = BF_RECEIVE_BUFFERS,
        .contexts = BF_RX_CONTEXTS,
        .stashes = BF_RX_STASHES,
    };
    b.pendings = in->connections < PENDINGS_MAX ? in->connections : PENDINGS_MAX;
    b.grants =
        cap_u32((uint64_t)in->connections * 2u); /* tokens that name topics: two chunks each */
    b.streams = in->connections;
    b.subs = cap_u32((uint64_t)in->connections * 8u + BF_CONN_TOPICS_MAX);
    /* a small one for each, so that nobody ever waits for one; where larger ones are all taken, a
     * send carries less */
    b.cipher_small = in->connections;
    b.cipher_medium = in->connections / 8u + 512u;
    b.cipher_large = in->connections / 32u + 256u;
    b.receptions = b.contexts + b.stashes;
    for (b.topics = 4096; b.topics < in->connections * 2u;)
        b.topics *= 2;
    return b;
}
