/*
 * Embedded log engine, keeper thread: closes appends while the disk is low (DESIGN 4.15) and drops
 * settled events past their retention, earlier when the disk needs it.
 */
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/statvfs.h>

#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "log/embedded.h"

#define DISK_CHECK_MS 1000u
/* Retention is in hours and days: a minute late is fine. */
#define RETENTION_CHECKS 60u
/* Ingest opens again at this much above the limit, so that it does not flap. */
#define REOPEN_PERCENT 110u
/* Below twice the reserve settled events go before their time: they are only kept for replays. */
#define EARLY_FACTOR 2u

static uint64_t disk_limit(const struct bf_embedded *e, uint64_t size)
{
    uint64_t share = size / 20; /* 5% */
    return e->reserve_bytes < share ? e->reserve_bytes : share;
}

static bool disk_state(const struct bf_embedded *e, uint64_t *ret_free, uint64_t *ret_limit)
{
    struct statvfs fs;
    if (statvfs(e->dir, &fs) != 0)
        return false;
    *ret_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    *ret_limit = disk_limit(e, (uint64_t)fs.f_blocks * fs.f_frsize);
    return true;
}

void bf_embedded_check_disk(struct bf_embedded *e)
{
    uint64_t free_bytes, limit;
    if (!disk_state(e, &free_bytes, &limit))
        return;
    bool was_low = atomic_load_explicit(&e->is_disk_low, memory_order_relaxed);
    bool is_low = free_bytes < (was_low ? limit / 100 * REOPEN_PERCENT : limit);
    if (is_low == was_low)
        return;
    atomic_store_explicit(&e->is_disk_low, is_low, memory_order_relaxed);
    BF_WARN("ctrlplane", "log: free disk %llu MiB, limit %llu MiB: ingest %s",
            (unsigned long long)(free_bytes >> 20), (unsigned long long)(limit >> 20),
            is_low ? "closes" : "opens");
}

/* Timestamp of the first record at or above |offset|; UINT64_MAX when there is none below |limit|.
 */
static uint64_t timestamp_at(struct bf_embedded *e, rocksdb_iterator_t *it, int64_t offset,
                             int64_t limit)
{
    uint8_t key[8];
    size_t len;
    struct bf_log_record record = {0};
    (void)e;
    bf_embedded_key(key, offset);
    rocksdb_iter_seek(it, (const char *)key, sizeof(key));
    if (!rocksdb_iter_valid(it))
        return UINT64_MAX;
    const char *at = rocksdb_iter_key(it, &len);
    struct bf_reader r = {.buf = (const uint8_t *)at, .len = len};
    if ((int64_t)bf_get_be64(&r) >= limit)
        return UINT64_MAX;
    at = rocksdb_iter_value(it, &len);
    return bf_embedded_record_decode((const uint8_t *)at, len, &record) ? record.timestamp_ms : 0;
}

/* First offset below |limit| that is not older than |before_ms|; records lie in order of time. */
static int64_t find_cut(struct bf_embedded *e, int64_t limit, uint64_t before_ms)
{
    rocksdb_iterator_t *it =
        rocksdb_create_iterator_cf(e->rocks.db, e->rocks.read, e->rocks.cfs[BF_EMBEDDED_EVENTS]);
    int64_t low = 0, high = limit;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (timestamp_at(e, it, middle, limit) < before_ms)
            low = middle + 1;
        else
            high = middle;
    }
    rocksdb_iter_destroy(it);
    return low;
}

static void delete_below(struct bf_embedded *e, int64_t offset)
{
    uint8_t from[8], last[8], to[8];
    char *problem = NULL;
    bf_embedded_key(from, 0);
    bf_embedded_key(last, offset - 1);
    bf_embedded_key(to, offset);
    /* whole files first (their range includes its end), then one tombstone for the rest */
    rocksdb_delete_file_in_range_cf(e->rocks.db, e->rocks.cfs[BF_EMBEDDED_EVENTS],
                                    (const char *)from, sizeof(from), (const char *)last,
                                    sizeof(last), &problem);
    if (problem == NULL)
        rocksdb_delete_range_cf(e->rocks.db, e->rocks.write, e->rocks.cfs[BF_EMBEDDED_EVENTS],
                                (const char *)from, sizeof(from), (const char *)to, sizeof(to),
                                &problem);
    if (problem == NULL)
        return;
    /* the commit thread's next write fails in the same way and acts on it */
    BF_WARN("ctrlplane", "log: old events could not be deleted: %s", problem);
    rocksdb_free(problem);
}

void bf_embedded_apply_retention(struct bf_embedded *e)
{
    uint64_t free_bytes, limit, now = bf_wall_ms();
    int64_t end = atomic_load_explicit(&e->end, memory_order_relaxed);
    int64_t cut = atomic_load_explicit(&e->settled, memory_order_relaxed);
    if (cut >= end)
        cut = end - 1; /* the last record stays: the next offset is counted from it */
    if (cut <= e->deleted)
        return;
    bool early = disk_state(e, &free_bytes, &limit) && free_bytes < limit * EARLY_FACTOR;
    if (!early)
        cut = find_cut(e, cut, now > e->retention_ms ? now - e->retention_ms : 0);
    if (cut <= e->deleted)
        return;
    delete_below(e, cut);
    e->deleted = cut;
}

static void keep_retention(struct bf_embedded *e)
{
    pthread_mutex_lock(&e->retention_lock);
    bf_embedded_apply_retention(e);
    pthread_mutex_unlock(&e->retention_lock);
}

void *bf_embedded_keeper(void *arg)
{
    struct bf_embedded *e = arg;
    uint32_t checks = 0;
    prctl(PR_SET_NAME, "bf-log-keeper");
    pthread_mutex_lock(&e->keeper_lock);
    while (!e->keeper_stops) {
        uint64_t at = bf_mono_ms() + DISK_CHECK_MS;
        struct timespec until = {(time_t)(at / 1000), (long)(at % 1000) * 1000000};
        if (pthread_cond_timedwait(&e->keeper_wake, &e->keeper_lock, &until) == 0)
            continue;
        pthread_mutex_unlock(&e->keeper_lock);
        bf_embedded_check_disk(e);
        if (checks++ % RETENTION_CHECKS == 0)
            keep_retention(e);
        pthread_mutex_lock(&e->keeper_lock);
    }
    pthread_mutex_unlock(&e->keeper_lock);
    return NULL;
}
