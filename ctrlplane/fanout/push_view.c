/* See push_view.h. */
#include "fanout/push_view.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/limits.h"
#include "fanout/core_state.h"
#include "fanout/push.h"

/* A worker's last report. */
struct row {
    bool is_heard;
    struct bf_rcpt_pool rcpt;
    uint64_t text_ms;
    char text[BF_PUSH_POOL_TEXT_MAX + 1];
};

struct seen_pool {
    uint32_t id; /* 0: free */
    uint64_t heard_ms;
    struct row rows[BF_WORKERS_MAX];
};

struct bf_push_view {
    pthread_mutex_t lock; /* guards all below; held for copies only */
    struct seen_pool pools[BF_PUSH_POOLS_MAX];
};

struct bf_push_view *bf_push_view_create(void)
{
    /* 4 MB of which only what is written becomes memory */
    struct bf_push_view *view = calloc(1, sizeof(*view));
    if (view)
        pthread_mutex_init(&view->lock, NULL);
    return view;
}

void bf_push_view_destroy(struct bf_push_view *view)
{
    if (!view)
        return;
    pthread_mutex_destroy(&view->lock);
    free(view);
}

static struct seen_pool *find(struct bf_push_view *view, uint32_t id)
{
    for (uint32_t i = 0; i < BF_PUSH_POOLS_MAX; i++)
        if (view->pools[i].id == id)
            return &view->pools[i];
    return NULL;
}

static struct seen_pool *find_or_take(struct bf_push_view *view, uint32_t id)
{
    struct seen_pool *pool = find(view, id);
    if (pool)
        return pool;
    pool = &view->pools[0];
    for (uint32_t i = 0; i < BF_PUSH_POOLS_MAX && pool->id != 0; i++)
        if (view->pools[i].id == 0 || view->pools[i].heard_ms < pool->heard_ms)
            pool = &view->pools[i];
    memset(pool, 0, sizeof(*pool));
    pool->id = id;
    return pool;
}

static void take_row(struct row *row, const struct bf_rcpt_pool *rcpt, const char *text,
                     uint64_t now_ms)
{
    bool is_same = row->is_heard && row->rcpt.text_len == rcpt->text_len &&
                   memcmp(row->text, text, rcpt->text_len) == 0 &&
                   row->rcpt.failures == rcpt->failures && row->rcpt.goaways == rcpt->goaways;
    row->is_heard = true;
    row->rcpt = *rcpt;
    if (is_same)
        return;
    memcpy(row->text, text, rcpt->text_len);
    row->text[rcpt->text_len] = '\0';
    row->text_ms = rcpt->text_len > 0 ? now_ms : 0;
}

bool bf_push_view_take(struct bf_push_view *view, const void *bytes, uint32_t len, uint64_t now_ms)
{
    struct bf_rcpt_pool rcpt;
    if (!view || len < sizeof(rcpt))
        return false;
    memcpy(&rcpt, bytes, sizeof(rcpt));
    if (rcpt.pool == 0 || rcpt.worker >= BF_WORKERS_MAX || rcpt.text_len > BF_PUSH_POOL_TEXT_MAX ||
        rcpt.text_len > len - sizeof(rcpt))
        return false;
    pthread_mutex_lock(&view->lock);
    struct seen_pool *pool = find_or_take(view, rcpt.pool);
    pool->heard_ms = now_ms;
    take_row(&pool->rows[rcpt.worker], &rcpt, (const char *)bytes + sizeof(rcpt), now_ms);
    pthread_mutex_unlock(&view->lock);
    return true;
}

void bf_push_view_forget(struct bf_push_view *view)
{
    if (!view)
        return;
    pthread_mutex_lock(&view->lock);
    for (uint32_t i = 0; i < BF_PUSH_POOLS_MAX; i++)
        if (view->pools[i].id != 0)
            memset(&view->pools[i], 0, sizeof(view->pools[i]));
    pthread_mutex_unlock(&view->lock);
}

static void add_row(struct bf_push_report *sum, const struct row *row)
{
    sum->workers++;
    sum->connections += row->rcpt.connections;
    sum->connecting += row->rcpt.connecting;
    sum->streams += row->rcpt.streams;
    sum->streams_max += row->rcpt.streams_max;
    sum->waiting += row->rcpt.waiting;
    sum->failures += row->rcpt.failures;
    sum->goaways += row->rcpt.goaways;
    if (row->text_ms > sum->text_ms) {
        sum->text_ms = row->text_ms;
        memcpy(sum->text, row->text, sizeof(sum->text));
    }
}

bool bf_push_view_get(struct bf_push_view *view, uint32_t pool, struct bf_push_report *ret)
{
    *ret = (struct bf_push_report){0};
    pthread_mutex_lock(&view->lock);
    const struct seen_pool *found = pool != 0 ? find(view, pool) : NULL;
    for (uint32_t w = 0; found && w < BF_WORKERS_MAX; w++)
        if (found->rows[w].is_heard)
            add_row(ret, &found->rows[w]);
    pthread_mutex_unlock(&view->lock);
    return ret->workers > 0;
}

/* ---- shards -------------------------------------------------------------------------------------
 */

unsigned bf_push_badness(enum bf_breaker_state state)
{
    static const unsigned char order[BF_BREAKER_STATE_COUNT] = {[BF_BREAKER_CLOSED] = 0,
                                                                [BF_BREAKER_RAMP] = 1,
                                                                [BF_BREAKER_PROBE] = 2,
                                                                [BF_BREAKER_OPEN] = 3};
    return (unsigned)state < BF_BREAKER_STATE_COUNT ? order[state] : 0;
}

const struct bf_push_sight *bf_push_sight_find(const struct bf_push_sights *sights, uint32_t pool)
{
    for (uint32_t i = 0; i < sights->count; i++)
        if (sights->at[i].pool == pool)
            return &sights->at[i];
    return NULL;
}

static void add_state(struct bf_push_sights *sum, const struct bf_push_pool_state *state)
{
    struct bf_push_sight *sight = NULL;
    for (uint32_t i = 0; i < sum->count && !sight; i++)
        if (sum->at[i].pool == state->id)
            sight = &sum->at[i];
    if (!sight && sum->count == BF_PUSH_POOLS_MAX)
        return; /* shards that remember pools of an earlier configuration: the first shard's are
                   shown */
    if (!sight) {
        sight = &sum->at[sum->count++];
        *sight = (struct bf_push_sight){.pool = state->id};
    }
    if (bf_push_badness(state->breaker.state) > bf_push_badness(sight->breaker))
        sight->breaker = state->breaker.state;
    sight->opened_count += state->breaker.opened_count;
    sight->flights += state->flights;
    sight->cuts += state->bucket.cut_count;
    sight->limit_per_min += state->bucket.limit_per_min;
    sight->rate_per_min += state->bucket.rate_per_min;
    if (state->stopped_until_ms > sight->stopped_until_ms)
        sight->stopped_until_ms = state->stopped_until_ms;
    sight->failed_over += state->failed_over;
    if (state->failed_over_ms > sight->failed_over_ms)
        sight->failed_over_ms = state->failed_over_ms;
}

void bf_push_sights_add(struct bf_push_sights *sum, const struct bf_push_pool_state *pools)
{
    for (uint32_t i = 0; pools && i < BF_PUSH_POOLS_MAX; i++)
        if (pools[i].id != 0)
            add_state(sum, &pools[i]);
}

bool bf_core_push_report(struct bf_core *core, uint32_t pool, struct bf_push_report *ret)
{
    return bf_push_view_get(core->push_view, pool, ret);
}

static int look(struct bf_shard *shard, void *arg)
{
    bf_push_sights_add(arg, shard->push.pools);
    return 0;
}

int bf_core_look_at_push(struct bf_core *core, struct bf_push_sights *ret)
{
    int rc = 0;
    ret->count = 0;
    for (uint32_t i = 0; i < core->shard_count && rc == 0; i++)
        rc = bf_core_run_on(core, i, look, ret);
    return rc;
}
