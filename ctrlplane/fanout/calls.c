/* See calls.h. */
#include "fanout/calls.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fanout/shard.h"

struct bf_call *bf_call_create(struct bf_uid uid, struct bf_bytes json,
                               int (*run)(struct bf_shard *shard, struct bf_call *call))
{
    size_t text = uid.tenant.len + uid.user.len + json.len;
    struct bf_call *call = calloc(1, sizeof(*call) + text + 1);
    pthread_condattr_t attr;
    if (!call)
        return NULL;
    call->msg.kind = BF_MSG_CALL;
    call->run = run;
    call->refs = 1;
    char *at = call->text;
    struct bf_bytes *views[] = {&call->uid.tenant, &call->uid.user, &call->json};
    const struct bf_bytes from[] = {uid.tenant, uid.user, json};
    for (int i = 0; i < 3; i++) {
        if (from[i].len)
            memcpy(at, from[i].at, from[i].len);
        *views[i] = (struct bf_bytes){.at = at, .len = from[i].len};
        at += from[i].len;
    }
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&call->lock, NULL);
    pthread_cond_init(&call->done_cond, &attr);
    pthread_condattr_destroy(&attr);
    return call;
}

void bf_call_release(struct bf_call *call)
{
    pthread_mutex_lock(&call->lock);
    int left = --call->refs;
    pthread_mutex_unlock(&call->lock);
    if (left > 0)
        return;
    bf_prefs_free(call->prefs);
    pthread_cond_destroy(&call->done_cond);
    pthread_mutex_destroy(&call->lock);
    free(call);
}

static struct timespec deadline_in(uint32_t timeout_ms)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    ts.tv_sec += timeout_ms / 1000;
    ts.tv_nsec += (long)(timeout_ms % 1000) * 1000000L;
    if (ts.tv_nsec >= 1000000000L) {
        ts.tv_sec++;
        ts.tv_nsec -= 1000000000L;
    }
    return ts;
}

int bf_call_wait(struct bf_shard *shard, struct bf_call *call, uint32_t timeout_ms)
{
    struct timespec until = deadline_in(timeout_ms);
    int rc = 0;
    call->refs++; /* the shard's; nobody else sees the call yet */
    bf_shard_post(shard, &call->msg);
    pthread_mutex_lock(&call->lock);
    while (!call->done && rc == 0)
        rc = timeout_ms ? pthread_cond_timedwait(&call->done_cond, &call->lock, &until)
                        : pthread_cond_wait(&call->done_cond, &call->lock);
    rc = call->done ? call->rc : BF_ERR_AWAY;
    pthread_mutex_unlock(&call->lock);
    return rc;
}

void bf_call_execute(struct bf_shard *shard, struct bf_call *call)
{
    int rc = call->run(shard, call);
    bf_shard_commit(shard); /* durable before it is answered */
    pthread_mutex_lock(&call->lock);
    call->rc = rc;
    call->done = true;
    pthread_cond_signal(&call->done_cond);
    pthread_mutex_unlock(&call->lock);
    bf_call_release(call);
}
