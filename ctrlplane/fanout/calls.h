/*
 * Calls: work that another thread posts to a shard and waits for, up to a limit. A call has copies
 * of all that it needs, because it may run after its caller has given up waiting.
 */
#pragma once

#include <pthread.h>

#include "fanout/core.h"
#include "fanout/msg.h"

struct bf_call {
    struct bf_msg msg;
    int (*run)(struct bf_shard *shard, struct bf_call *call);
    pthread_mutex_t lock; /* guards done and refs */
    pthread_cond_t done_cond;
    bool done;
    int refs; /* caller and shard; the last one frees */
    int rc;

    /* input */
    /* bf_core_run_on, which waits without bound: what it runs, and with what */
    int (*plain)(struct bf_shard *shard, void *arg);
    void *arg;
    struct bf_uid uid; /* borrowed from text[] */
    struct bf_id id;
    uint32_t mark;
    uint8_t channel;        /* enum bf_channel */
    struct bf_bytes json;   /* borrowed from text[] */
    struct bf_prefs *prefs; /* owned until the shard took it */
    /* output */
    uint64_t number;
    uint64_t ticket;
    struct bf_user_state state;
    bool flag;
    enum bf_lane lane;
    char text[];
};

/* A call with copies of |uid| and |json|; NULL on no memory. */
struct bf_call *bf_call_create(struct bf_uid uid, struct bf_bytes json,
                               int (*run)(struct bf_shard *shard, struct bf_call *call));
void bf_call_release(struct bf_call *call);
/* Posts and waits: timeout_ms 0 = without bound. Returns the call's rc, or BF_ERR_AWAY. */
int bf_call_wait(struct bf_shard *shard, struct bf_call *call, uint32_t timeout_ms);
/* Shard thread. */
void bf_call_execute(struct bf_shard *shard, struct bf_call *call);
