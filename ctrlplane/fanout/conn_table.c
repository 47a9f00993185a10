/* See conn_table.h. */
#include "fanout/conn_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int bf_conn_table_init(struct bf_conn_table *t, uint32_t workers)
{
    memset(t, 0, sizeof(*t));
    t->workers = workers;
    return workers <= BF_WORKERS_MAX ? 0 : BF_ERR_MALFORMED;
}

/* Slots of a worker are dense from 0, so the index grows with its highest one. */
static int grow(struct bf_conn_table *t, uint32_t worker, uint32_t slot)
{
    uint32_t cap = t->slot_cap[worker] ? t->slot_cap[worker] : 1024;
    while (cap <= slot)
        cap *= 2;
    struct bf_conn **slots = realloc(t->slots[worker], cap * sizeof(*slots));
    if (!slots)
        return -ENOMEM;
    memset(slots + t->slot_cap[worker], 0, (cap - t->slot_cap[worker]) * sizeof(*slots));
    t->slots[worker] = slots;
    t->slot_cap[worker] = cap;
    return 0;
}

void bf_conn_table_fini(struct bf_conn_table *t)
{
    for (uint32_t w = 0; w < t->workers; w++) {
        for (uint32_t i = 0; i < t->slot_cap[w]; i++)
            if (t->slots[w][i])
                bf_conn_unlink(t, t->slots[w][i]);
        free(t->slots[w]);
    }
    memset(t, 0, sizeof(*t));
}

static struct bf_conn **slot_of(struct bf_conn_table *t, uint32_t worker, bf_conn_id id)
{
    uint32_t slot = (uint32_t)id;
    if (worker >= t->workers || slot >= t->slot_cap[worker])
        return NULL;
    return &t->slots[worker][slot];
}

struct bf_conn *bf_conn_find(struct bf_conn_table *t, uint32_t worker, bf_conn_id id)
{
    struct bf_conn **slot = slot_of(t, worker, id);
    return slot && *slot && (*slot)->id == id ? *slot : NULL;
}

struct bf_conn *bf_conn_add(struct bf_conn_table *t, uint32_t worker, bf_conn_id id,
                            struct bf_user *user)
{
    if (worker >= t->workers || (uint32_t)id >= BF_CONN_SLOTS_MAX ||
        ((uint32_t)id >= t->slot_cap[worker] && grow(t, worker, (uint32_t)id) != 0))
        return NULL;
    struct bf_conn **slot = slot_of(t, worker, id);
    if (*slot)
        bf_conn_unlink(t, *slot);
    struct bf_conn *conn = calloc(1, sizeof(*conn));
    if (!conn)
        return NULL;
    conn->id = id;
    conn->worker = worker;
    conn->user = user;
    conn->next = user->conns;
    user->conns = conn;
    *slot = conn;
    t->count++;
    if ((uint32_t)id >= t->slot_used[worker])
        t->slot_used[worker] = (uint32_t)id + 1;
    return conn;
}

void bf_conn_unlink(struct bf_conn_table *t, struct bf_conn *conn)
{
    struct bf_conn **at = &conn->user->conns;
    while (*at && *at != conn)
        at = &(*at)->next;
    if (*at)
        *at = conn->next;
    struct bf_conn **slot = slot_of(t, conn->worker, conn->id);
    if (slot && *slot == conn) {
        *slot = NULL;
        t->count--;
    }
    conn->gone = true;
    conn->user = NULL;
    if (!conn->on_replay_list)
        free(conn);
}
