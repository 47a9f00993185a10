/*
 * Embedded log engine: opening, appending, group commit (DESIGN 4.1). A failed write or sync is
 * never tried again: the engine is dead from then on, main sees it in the health and exits
 * (DESIGN 4.15).
 */
#include "belfry/base/fault.h"
#include "log/embedded.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf.h"
#include "stats/metrics.h"

/* The log is read in order and mostly from memory: a small cache is enough. */
#define CACHE_MB 16u
/* Two memtables of half of it fill while one is flushed. */
#define WRITE_BUFFER_MB 64u

static const struct bf_rocks_cf families[BF_EMBEDDED_CFS] = {
    [BF_EMBEDDED_EVENTS] = {.name = "default", .is_hot = true},
    [BF_EMBEDDED_IDEM] = {.name = "idem", .is_point = true, .expires = true},
};

size_t bf_embedded_record_bytes(const struct bf_log_entry *entry)
{
    return 1 + 1 + 8 + 2 + 2 + 4 + entry->key.len + entry->meta.len + entry->body.len;
}

void bf_embedded_record_encode(struct bf_writer *w, const struct bf_log_entry *entry,
                               uint64_t now_ms)
{
    bf_put_u8(w, BF_ROW_VERSION);
    bf_put_u8(w, (uint8_t)entry->lane);
    bf_put_u64(w, now_ms);
    bf_put_str16(w, entry->key);
    bf_put_str16(w, entry->meta);
    bf_put_str32(w, entry->body);
}

bool bf_embedded_record_decode(const uint8_t *at, size_t len, struct bf_log_record *record)
{
    struct bf_reader r = {.buf = at, .len = len};
    bool is_ours = bf_get_u8(&r) == BF_ROW_VERSION;
    uint8_t lane = bf_get_u8(&r);
    record->topic_lane = (enum bf_lane)lane;
    record->timestamp_ms = bf_get_u64(&r);
    record->key = bf_get_str16(&r);
    record->meta = bf_get_str16(&r);
    record->body = bf_get_str32(&r);
    record->has_meta = record->meta.len > 0;
    return is_ours && lane < BF_LANE_COUNT && !r.failed && r.at == r.len;
}

static void list_push(struct bf_embedded_list *list, struct bf_embedded_entry *entry)
{
    entry->next = NULL;
    if (list->last != NULL)
        list->last->next = entry;
    else
        list->first = entry;
    list->last = entry;
    list->count++;
    list->bytes += entry->value_len;
}

static struct bf_embedded_entry *list_pop(struct bf_embedded_list *list)
{
    struct bf_embedded_entry *entry = list->first;
    list->first = entry->next;
    if (list->first == NULL)
        list->last = NULL;
    list->count--;
    list->bytes -= entry->value_len;
    return entry;
}

/* ---- append ---- */

static struct bf_embedded_entry *make_entry(const struct bf_log_entry *from, bf_log_done_fn done,
                                            void *arg)
{
    size_t value_len = bf_embedded_record_bytes(from);
    struct bf_key idem_key = {.len = 0};
    size_t idem_len = from->idem != NULL ? bf_idem_bytes(from->idem) : 0;
    if (from->idem != NULL)
        bf_key_idem(&idem_key, from->idem->key);
    size_t bytes = value_len + idem_key.len + idem_len;
    struct bf_embedded_entry *entry = malloc(sizeof(*entry) + bytes);
    if (entry == NULL)
        return NULL;
    struct bf_writer w = {.buf = entry->bytes, .cap = bytes};
    bf_embedded_record_encode(&w, from, bf_wall_ms());
    bf_put_raw(&w, idem_key.at, idem_key.len);
    if (from->idem != NULL)
        bf_idem_encode(&w, from->idem);
    BF_BUG_ON(w.failed);
    entry->done = done;
    entry->arg = arg;
    entry->value_len = (uint32_t)value_len;
    entry->idem_key_len = idem_key.len;
    entry->idem_value_len = (uint32_t)(w.len - value_len - idem_key.len);
    return entry;
}

static int enqueue(struct bf_embedded *e, struct bf_embedded_entry *entry)
{
    int rc = 0;
    pthread_mutex_lock(&e->queue_lock);
    if (e->is_closing || atomic_load_explicit(&e->is_dead, memory_order_relaxed)) {
        rc = BF_ERR_LOG;
    } else if (e->queue.count >= BF_EMBEDDED_QUEUE_ENTRIES_MAX ||
               e->queue.bytes >= BF_EMBEDDED_QUEUE_BYTES_MAX) {
        rc = BF_ERR_FULL;
    } else {
        list_push(&e->queue, entry);
        if (e->queue.count == 1)
            pthread_cond_signal(&e->queue_wake);
    }
    pthread_mutex_unlock(&e->queue_lock);
    return rc;
}

static int append(struct bf_log *log, const struct bf_log_entry *from, bf_log_done_fn done,
                  void *arg)
{
    struct bf_embedded *e = (struct bf_embedded *)log;
    if (from->key.len > UINT16_MAX || from->meta.len > UINT16_MAX ||
        from->body.len > UINT32_MAX / 2)
        return BF_ERR_TOO_LARGE;
    if (atomic_load_explicit(&e->is_disk_low, memory_order_relaxed))
        return -ENOSPC;
    struct bf_embedded_entry *entry = make_entry(from, done, arg);
    int rc = entry != NULL ? enqueue(e, entry) : -ENOMEM;
    if (rc != 0) {
        free(entry);
        bf_count(BF_CM_M_log_append_errors, 1);
    }
    return rc;
}

/* ---- group commit ---- */

/* Takes what waits, up to a batch; blocks while there is none. False: closing, nothing left. */
static bool take_batch(struct bf_embedded *e, struct bf_embedded_list *batch)
{
    pthread_mutex_lock(&e->queue_lock);
    while (e->queue.count == 0 && !e->is_closing)
        pthread_cond_wait(&e->queue_wake, &e->queue_lock);
    while (e->queue.count > 0 && batch->count < e->batch_max &&
           batch->bytes < BF_EMBEDDED_BATCH_BYTES_MAX)
        list_push(batch, list_pop(&e->queue));
    pthread_mutex_unlock(&e->queue_lock);
    return batch->count > 0;
}

static void put_rows(struct bf_embedded *e, rocksdb_writebatch_t *rows,
                     const struct bf_embedded_entry *entry)
{
    uint8_t key[8];
    const char *at = (const char *)entry->bytes;
    bf_embedded_key(key, entry->offset);
    rocksdb_writebatch_put_cf(rows, e->rocks.cfs[BF_EMBEDDED_EVENTS], (const char *)key,
                              sizeof(key), at, entry->value_len);
    at += entry->value_len;
    if (entry->idem_key_len > 0)
        rocksdb_writebatch_put_cf(rows, e->rocks.cfs[BF_EMBEDDED_IDEM], at, entry->idem_key_len,
                                  at + entry->idem_key_len, entry->idem_value_len);
}

static struct bf_fault sync_fault = {.point = "log_sync"};

static int write_batch(struct bf_embedded *e, rocksdb_writebatch_t *rows,
                       struct bf_embedded_list *batch)
{
    char *problem = NULL;
    int64_t offset = atomic_load_explicit(&e->end, memory_order_relaxed); /* own variable */
    rocksdb_writebatch_clear(rows);
    for (struct bf_embedded_entry *entry = batch->first; entry != NULL; entry = entry->next) {
        entry->offset = offset++;
        put_rows(e, rows, entry);
    }
    rocksdb_write(e->rocks.db, e->rocks.write_sync, rows, &problem);
    if (problem == NULL && bf_fault_is_due(&sync_fault)) /* as if the disk had failed */
        problem = strdup("injected");
    if (problem == NULL) {
        bf_count(BF_CM_M_log_commits, 1);
        bf_count(BF_CM_M_log_appends, batch->count);
        return 0;
    }
    atomic_store_explicit(&e->is_dead, true, memory_order_relaxed);
    BF_ERROR("ctrlplane", "log: synced write failed, nothing is accepted any more: %s", problem);
    rocksdb_free(problem);
    return BF_ERR_LOG;
}

/* Calls the done functions in offset order; entries that the consumer did not get are freed. */
static void finish_batch(struct bf_embedded *e, struct bf_embedded_list *batch, int rc)
{
    struct done {
        bf_log_done_fn fn;
        void *arg;
    };
    /* The consumer may free an entry as soon as it is handed over: what to call is copied first. */
    struct done *calls = malloc(batch->count * sizeof(*calls));
    uint32_t count = 0;
    int64_t end = batch->last->offset + 1;
    BF_BUG_ON(calls == NULL);
    for (struct bf_embedded_entry *entry = batch->first; entry != NULL; entry = entry->next)
        calls[count++] = (struct done){entry->done, entry->arg};
    pthread_mutex_lock(&e->handoff_lock);
    while (batch->count > 0) {
        struct bf_embedded_entry *entry = list_pop(batch);
        bool is_next = e->handoff.count == 0 || e->handoff.last->offset + 1 == entry->offset;
        if (rc == 0 && is_next && e->handoff.count < BF_EMBEDDED_HANDOFF_ENTRIES_MAX &&
            e->handoff.bytes < BF_EMBEDDED_HANDOFF_BYTES_MAX)
            list_push(&e->handoff, entry);
        else
            free(entry);
    }
    /* together with the hand-off, under its lock: else the consumer would read back from RocksDB
     * what is about to be handed to it */
    if (rc == 0)
        atomic_store_explicit(&e->end, end, memory_order_release);
    if (e->consumer_waits)
        pthread_cond_signal(&e->handoff_wake);
    pthread_mutex_unlock(&e->handoff_lock);
    for (uint32_t i = 0; i < count; i++)
        calls[i].fn(calls[i].arg, rc);
    free(calls);
    if (rc != 0)
        bf_count(BF_CM_M_log_append_errors, count);
}

static void *commit_main(void *arg)
{
    struct bf_embedded *e = arg;
    struct bf_embedded_list batch = {0};
    rocksdb_writebatch_t *rows = rocksdb_writebatch_create();
    bf_fault_arm(&sync_fault);
    prctl(PR_SET_NAME, "bf-log-commit");
    bf_rocks_hush_thread();
    while (take_batch(e, &batch)) {
        int rc = BF_ERR_LOG;
        if (!atomic_load_explicit(&e->is_dead, memory_order_relaxed))
            rc = write_batch(e, rows, &batch);
        finish_batch(e, &batch, rc);
    }
    rocksdb_writebatch_destroy(rows);
    return NULL;
}

/* ---- the rest of the port ---- */

static int get_idem(struct bf_log *log, struct bf_bytes key, uint64_t now_ms,
                    int (*use)(void *arg, const struct bf_idem_row *row), void *arg)
{
    struct bf_embedded *e = (struct bf_embedded *)log;
    struct bf_key k;
    struct bf_row stored;
    bf_key_idem(&k, key);
    int rc = bf_rocks_get(&e->rocks, BF_EMBEDDED_IDEM, k.at, k.len, &stored);
    if (rc != 0)
        return rc;
    rc = bf_idem_use(key, stored.value, now_ms, use, arg);
    bf_row_put(&stored);
    return rc;
}

static void health(struct bf_log *log, struct bf_log_health *ret)
{
    struct bf_embedded *e = (struct bf_embedded *)log;
    bool is_dead = atomic_load_explicit(&e->is_dead, memory_order_relaxed);
    bool is_disk_low = atomic_load_explicit(&e->is_disk_low, memory_order_relaxed);
    int64_t end = atomic_load_explicit(&e->end, memory_order_relaxed);
    int64_t next = atomic_load_explicit(&e->next_read, memory_order_relaxed);
    *ret = (struct bf_log_health){
        .can_append = !is_dead && !is_disk_low,
        .can_consume = !is_dead,
        .reads = !is_dead,
        .is_stuck = is_dead,
        .is_lag_known = true,
        .lag_events = end > next ? (uint64_t)(end - next) : 0,
    };
    snprintf(
        ret->detail, sizeof(ret->detail), "%s",
        is_dead
            ? "a synced write failed: the process ends, and recovers from disk when it starts again"
        : is_disk_low ? "free disk is below log.disk_reserve"
                      : "embedded");
}

static void dead_letter(struct bf_log *log, struct bf_bytes key, struct bf_bytes body,
                        struct bf_bytes reason, struct bf_bytes ce_headers)
{
    (void)log, (void)key, (void)body, (void)reason,
        (void)ce_headers; /* the store's row is all there is */
}

static int checkpoint(struct bf_log *log, const char *dir, int (*first)(void *arg), void *arg,
                      char *err, size_t err_len)
{
    struct bf_embedded *e = (struct bf_embedded *)log;
    pthread_mutex_lock(&e->retention_lock);
    int rc = first(arg);
    if (rc == 0)
        rc = bf_rocks_checkpoint(&e->rocks, dir, err, err_len);
    pthread_mutex_unlock(&e->retention_lock);
    return rc;
}

static void stop_threads(struct bf_embedded *e)
{
    pthread_mutex_lock(&e->queue_lock);
    e->is_closing = true;
    pthread_cond_signal(&e->queue_wake);
    pthread_mutex_unlock(&e->queue_lock);
    pthread_join(e->commit_thread, NULL);
    pthread_mutex_lock(&e->keeper_lock);
    e->keeper_stops = true;
    pthread_cond_signal(&e->keeper_wake);
    pthread_mutex_unlock(&e->keeper_lock);
    pthread_join(e->keeper_thread, NULL);
}

static void release(struct bf_embedded *e)
{
    while (e->handoff.count > 0)
        free(list_pop(&e->handoff));
    bf_batch_destroy(e->cursor_batch);
    bf_rocks_close(&e->rocks);
    pthread_mutex_destroy(&e->queue_lock);
    pthread_cond_destroy(&e->queue_wake);
    pthread_mutex_destroy(&e->handoff_lock);
    pthread_cond_destroy(&e->handoff_wake);
    pthread_mutex_destroy(&e->keeper_lock);
    pthread_mutex_destroy(&e->retention_lock);
    pthread_cond_destroy(&e->keeper_wake);
    free(e);
}

static void close_engine(struct bf_log *log)
{
    struct bf_embedded *e = (struct bf_embedded *)log;
    stop_threads(e); /* what was appended is committed first */
    release(e);
}

static const struct bf_log_ops ops = {
    .close = close_engine,
    .append = append,
    .get_idem = get_idem,
    .poll = bf_embedded_poll,
    .free_records = bf_embedded_free_records,
    .pause = bf_embedded_pause,
    .commit = bf_embedded_commit,
    .health = health,
    .checkpoint = checkpoint,
    .erase = bf_embedded_erase,
    .stop_erase = bf_embedded_stop_erase,
    .dead_letter = dead_letter,
};

/* ---- opening ---- */

/* The offset after the last stored one. The keeper never deletes the last one; if the whole log was
 * lost the cursor is used instead, so that no offset is given twice. */
static int load_end(struct bf_embedded *e, int64_t cursor)
{
    char *problem = NULL;
    int64_t end = cursor;
    rocksdb_iterator_t *it =
        rocksdb_create_iterator_cf(e->rocks.db, e->rocks.read, e->rocks.cfs[BF_EMBEDDED_EVENTS]);
    rocksdb_iter_seek_to_last(it);
    if (rocksdb_iter_valid(it)) {
        size_t len;
        const char *key = rocksdb_iter_key(it, &len);
        struct bf_reader r = {.buf = (const uint8_t *)key, .len = len};
        int64_t last = (int64_t)bf_get_be64(&r);
        end = !r.failed && last + 1 > cursor ? last + 1 : cursor;
    }
    rocksdb_iter_get_error(it, &problem);
    rocksdb_iter_destroy(it);
    atomic_store_explicit(&e->end, end, memory_order_relaxed); /* no thread reads it yet */
    if (problem == NULL)
        return 0;
    rocksdb_free(problem);
    return BF_ERR_CORRUPT;
}

static int load_offsets(struct bf_embedded *e)
{
    int rc = 0;
    e->first_offset = bf_embedded_load_cursor(e, &rc);
    if (rc != 0)
        return rc;
    atomic_store_explicit(&e->next_read, e->first_offset, memory_order_relaxed);
    atomic_store_explicit(&e->settled, e->first_offset, memory_order_relaxed);
    return load_end(e, e->first_offset);
}

static void init(struct bf_embedded *e, const struct bf_conf *conf, struct bf_store *store,
                 const struct bf_log_hooks *hooks)
{
    pthread_condattr_t attr;
    e->log.ops = &ops;
    e->store = store;
    e->hooks = *hooks;
    e->batch_max = conf->log_batch_max;
    e->retention_ms = (uint64_t)conf->log_retention_s * 1000u;
    e->reserve_bytes = (uint64_t)conf->log_disk_reserve_mb * 1024u * 1024u;
    e->cursor_batch = bf_batch_create(store);
    snprintf(e->dir, sizeof(e->dir), "%s/log", conf->state_dir);
    pthread_mutex_init(&e->queue_lock, NULL);
    pthread_mutex_init(&e->handoff_lock, NULL);
    pthread_mutex_init(&e->keeper_lock, NULL);
    pthread_mutex_init(&e->retention_lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* timeouts must survive a clock step */
    pthread_cond_init(&e->queue_wake, &attr);
    pthread_cond_init(&e->handoff_wake, &attr);
    pthread_cond_init(&e->keeper_wake, &attr);
    pthread_condattr_destroy(&attr);
}

int bf_log_embedded_open(const struct bf_conf *conf, struct bf_store *store,
                         const struct bf_log_hooks *hooks, struct bf_log **ret, char *err,
                         size_t err_len)
{
    struct bf_embedded *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return -ENOMEM;
    init(e, conf, store, hooks);
    struct bf_rocks_options options = {
        .dir = e->dir,
        .cache_mb = CACHE_MB,
        .write_buffer_mb = WRITE_BUFFER_MB,
        .cf_count = BF_EMBEDDED_CFS,
        .cfs = families,
    };
    int rc = bf_rocks_open(&options, &e->rocks, err, err_len);
    if (rc == 0) {
        rc = load_offsets(e);
        if (rc != 0)
            snprintf(err, err_len, "cannot read the log in %s: %s", e->dir, bf_err_text(rc));
    }
    if (rc != 0) {
        release(e);
        return rc;
    }
    bf_embedded_check_disk(e);
    int made = pthread_create(&e->commit_thread, NULL, commit_main, e);
    BF_BUG_ON(made != 0);
    made = pthread_create(&e->keeper_thread, NULL, bf_embedded_keeper, e);
    BF_BUG_ON(made != 0);
    *ret = &e->log;
    return 0;
}
