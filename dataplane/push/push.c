/* Start, turn and stop of a worker's push. See push.h. */
#include "push/pools.h"

#include "belfry/base/time.h"
#include "push/push_impl.h"

void bf_push_init(struct bf_push *p, struct bf_worker_core *core,
                  const struct bf_push_memory *memory, const struct bf_push_transport *transport)
{
    *p = (struct bf_push){
        .core = core,
        .transport = *transport,
        .requests = memory->requests,
        .conns = memory->conns,
        .pools = memory->pools,
        .ready = memory->ready,
        .random = core->worker * 2654435761u + 77u,
    };
    bf_h2_memory_init(&p->memory, memory->h2, memory->h2_bytes);
}

void bf_push_fini(struct bf_push *p)
{
    for (uint32_t i = 0; i < p->conn_bump; i++) {
        bf_h2_destroy(p->conns[i].h2);
        p->conns[i].h2 = NULL;
    }
}

bool bf_push_turn(struct bf_push *p)
{
    if (p->in_flight > 0)
        p->now_us = bf_mono_ns() / 1000u;
    bf_push_deadlines(p);
    bf_push_keep(p);
    bf_push_grant(p);
    (void)bf_pool_report(p);
    if (p->pool_count > 0)
        (void)bf_push_pools_report(p);
    if (p->is_stopping && p->conns_used > 0 && bf_push_is_idle(p))
        bf_push_conns_end(p);
    return p->ready_count > 0;
}

void bf_push_stop(struct bf_push *p)
{
    if (p->is_stopping)
        return;
    p->is_stopping = true;
    for (uint32_t i = 0; i < p->pool_count; i++)
        if (p->pools[i].is_used)
            bf_push_give_back_all(p, &p->pools[i], BF_PUSH_WHY_STOPPING);
}

bool bf_push_is_idle(const struct bf_push *p)
{
    return p->waiting == 0 && p->in_flight == 0 && p->done.count == 0;
}

bool bf_push_is_impatient(const struct bf_push *p)
{
    return p->waiting > 0 || p->done.count > 0;
}
