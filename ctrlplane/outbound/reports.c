/* See reports.h. */
#include "outbound/reports.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/limits.h"

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

struct bf_pool_reports {
    pthread_mutex_t lock; /* guards all below; held for copies only */
    struct seen_pool pools[BF_PUSH_POOLS_MAX];
};

struct bf_pool_reports *bf_pool_reports_create(void)
{
    /* 4 MB of which only what is written becomes memory */
    struct bf_pool_reports *reports = calloc(1, sizeof(*reports));
    if (reports)
        pthread_mutex_init(&reports->lock, NULL);
    return reports;
}

void bf_pool_reports_destroy(struct bf_pool_reports *reports)
{
    if (!reports)
        return;
    pthread_mutex_destroy(&reports->lock);
    free(reports);
}

static struct seen_pool *find(struct bf_pool_reports *reports, uint32_t id)
{
    for (uint32_t i = 0; i < BF_PUSH_POOLS_MAX; i++)
        if (reports->pools[i].id == id)
            return &reports->pools[i];
    return NULL;
}

static struct seen_pool *find_or_take(struct bf_pool_reports *reports, uint32_t id)
{
    struct seen_pool *pool = find(reports, id);
    if (pool)
        return pool;
    pool = &reports->pools[0];
    for (uint32_t i = 0; i < BF_PUSH_POOLS_MAX && pool->id != 0; i++)
        if (reports->pools[i].id == 0 || reports->pools[i].heard_ms < pool->heard_ms)
            pool = &reports->pools[i];
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

bool bf_pool_reports_take(struct bf_pool_reports *reports, const void *bytes, uint32_t len,
                          uint64_t now_ms)
{
    struct bf_rcpt_pool rcpt;
    if (!reports || len < sizeof(rcpt))
        return false;
    memcpy(&rcpt, bytes, sizeof(rcpt));
    if (rcpt.pool == 0 || rcpt.worker >= BF_WORKERS_MAX || rcpt.text_len > BF_PUSH_POOL_TEXT_MAX ||
        rcpt.text_len > len - sizeof(rcpt))
        return false;
    pthread_mutex_lock(&reports->lock);
    struct seen_pool *pool = find_or_take(reports, rcpt.pool);
    pool->heard_ms = now_ms;
    take_row(&pool->rows[rcpt.worker], &rcpt, (const char *)bytes + sizeof(rcpt), now_ms);
    pthread_mutex_unlock(&reports->lock);
    return true;
}

void bf_pool_reports_forget(struct bf_pool_reports *reports)
{
    if (!reports)
        return;
    pthread_mutex_lock(&reports->lock);
    for (uint32_t i = 0; i < BF_PUSH_POOLS_MAX; i++)
        if (reports->pools[i].id != 0)
            memset(&reports->pools[i], 0, sizeof(reports->pools[i]));
    pthread_mutex_unlock(&reports->lock);
}

static void add_row(struct bf_pool_report *sum, const struct row *row)
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

bool bf_pool_reports_get(struct bf_pool_reports *reports, uint32_t pool, struct bf_pool_report *ret)
{
    *ret = (struct bf_pool_report){0};
    pthread_mutex_lock(&reports->lock);
    const struct seen_pool *found = pool != 0 ? find(reports, pool) : NULL;
    for (uint32_t w = 0; found && w < BF_WORKERS_MAX; w++)
        if (found->rows[w].is_heard)
            add_row(ret, &found->rows[w]);
    pthread_mutex_unlock(&reports->lock);
    return ret->workers > 0;
}
