/* See launches.h. */
#include "publish/launches.h"

#include <stdlib.h>
#include <string.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"

/* Ring slots that launches leave to in-app messages of their lane. */
#define RESERVE_SLOTS 64u

int bf_launches_init(struct bf_launches *launches, struct bf_publisher *pub)
{
    *launches =
        (struct bf_launches){.pub = pub, .at = calloc(BF_LAUNCHES_MAX, sizeof(struct bf_launch))};
    return launches->at ? 0 : BF_ERR_NO_MEMORY;
}

void bf_launches_fini(struct bf_launches *launches)
{
    free(launches->at);
    *launches = (struct bf_launches){0};
}

/* Workers take turns, so that each uses its share of a pool's connections. UINT32_MAX: none has
 * room. */
static uint32_t pick_worker(struct bf_launches *launches, enum bf_lane lane)
{
    uint32_t workers = launches->pub->region ? launches->pub->workers : 0;
    /* nothing else is sent between here and the commit, which sends these first */
    uint32_t slots = launches->count + 1 + RESERVE_SLOTS;
    for (uint32_t i = 0; i < workers; i++) {
        uint32_t worker = (launches->next_worker + i) % workers;
        if (!bf_publisher_has_room(launches->pub, worker, lane, slots))
            continue;
        launches->next_worker = worker + 1;
        return worker;
    }
    return UINT32_MAX;
}

struct bf_launch *bf_launches_take(struct bf_launches *launches, enum bf_lane lane,
                                   const uint8_t *bytes, size_t len)
{
    uint32_t worker = bf_launches_is_full(launches) ? UINT32_MAX : pick_worker(launches, lane);
    struct bf_block_ref block;
    uint8_t *data =
        worker != UINT32_MAX ? bf_publisher_alloc(launches->pub, (uint32_t)len, &block) : NULL;
    if (!data)
        return NULL;
    memcpy(data, bytes, len);
    struct bf_launch *launch = &launches->at[launches->count++];
    *launch = (struct bf_launch){.worker = worker, .lane = lane, .block = block};
    return launch;
}

void bf_launches_send(struct bf_launches *launches)
{
    for (uint32_t i = 0; i < launches->count; i++) {
        const struct bf_launch *l = &launches->at[i];
        bool is_sent =
            bf_publisher_send(launches->pub, l->worker, l->lane, l->kind, l->payload, l->block);
        BF_BUG_ON(!is_sent); /* room was made sure of by pick_worker */
    }
    launches->count = 0;
}
