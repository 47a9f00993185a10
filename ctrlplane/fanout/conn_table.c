/* See conn_table.h. */
#include "fanout/conn_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int bf_conn_table_init(struct bf_conn_table *t, uint32_t workers, uint32_t slots_per_worker)
{
    memset(t, 0, sizeof(*t));
    t->workers = workers;
    t->slots_per_worker = slots_per_worker;
    for (uint32_t w = 0; w < workers; w++) {
        t->slots[w] = calloc(slots_per_worker, sizeof(struct bf_conn *));
        if (!t->slots[w])
            return -ENOMEM;
    }
    return 0;
}

void bf_conn_table_fini(struct bf_conn_table *t)
{
    for (uint32_t w = 0; w < t->workers; w++) {
        for (uint32_t i = 0; t->slots[w] && i < t->slots_per_worker; i++)
            if (t->slots[w][i])
                bf_conn_unlink(t, t->slots[w][i]);
        free(t->slots[w]);
    }
    memset(t, 0, sizeof(*t));
}

static struct bf_conn **slot_of(struct bf_conn_table *t, uint32_t worker, bf_conn_id id)
{
    uint32_t slot = (uint32_t)id;
    if (worker >= t->workers || slot >= t->slots_per_worker)
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
    struct bf_conn **slot = slot_of(t, worker, id);
    if (!slot)
        return NULL;
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
