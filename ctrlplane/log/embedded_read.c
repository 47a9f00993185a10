/*
 * Embedded log engine, consumer side: records in offset order, from memory while the consumer keeps
 * up, from RocksDB while it does not; the cursor lives in the store. Consumer thread only.
 */
#include <errno.h>
#include <stdlib.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "log/embedded.h"
#include "stats/metrics.h"

/* Name of the cursor among the store's values. */
#define CURSOR_NAME BF_BYTES("cursor.0")
/* The one partition is assigned once, at the first poll. */
#define ASSIGNMENT 1u

int64_t bf_embedded_load_cursor(struct bf_embedded *e, int *ret_rc)
{
    uint8_t bytes[8];
    size_t len = 0;
    int rc = bf_store_get_value(e->store, CURSOR_NAME, bytes, sizeof(bytes), &len);
    struct bf_reader r = {.buf = bytes, .len = len};
    int64_t cursor = (int64_t)bf_get_u64(&r);
    *ret_rc = 0;
    if (rc == BF_ERR_NOT_FOUND)
        return 0;
    if (rc == 0 && (r.failed || cursor < 0))
        rc = BF_ERR_CORRUPT;
    *ret_rc = rc;
    return cursor;
}

int bf_embedded_commit(struct bf_log *log, uint32_t partition, uint32_t assignment, int64_t offset)
{
    struct bf_embedded *e = (struct bf_embedded *)log;
    uint8_t bytes[8];
    struct bf_writer w = {.buf = bytes, .cap = sizeof(bytes)};
    BF_BUG_ON(partition != 0 || assignment != ASSIGNMENT);
    if (offset <= atomic_load_explicit(&e->settled, memory_order_relaxed))
        return 0;
    bf_put_u64(&w, (uint64_t)offset);
    bf_batch_put_value(e->cursor_batch, CURSOR_NAME, (struct bf_bytes){(char *)bytes, w.len});
    /* unsynced: a cursor that is lost with the power only replays what is settled already */
    int rc = bf_batch_write(e->cursor_batch, false);
    if (rc == 0)
        atomic_store_explicit(&e->settled, offset, memory_order_relaxed);
    return rc;
}

void bf_embedded_pause(struct bf_log *log, uint32_t partition, bool paused)
{
    struct bf_embedded *e = (struct bf_embedded *)log;
    BF_BUG_ON(partition != 0);
    e->is_paused = paused;
}

void bf_embedded_free_records(struct bf_log *log, struct bf_log_record *records, int count)
{
    (void)log;
    for (int i = 0; i < count; i++)
        free(records[i].opaque);
}

static bool fill_record(struct bf_embedded_entry *entry, struct bf_log_record *record)
{
    *record = (struct bf_log_record){
        .assignment = ASSIGNMENT, .offset = entry->offset, .topic = "log", .opaque = entry};
    return bf_embedded_record_decode(entry->bytes, entry->value_len, record);
}

/* Takes what the hand-off holds at the consumer's place. |ret_limit|: where it begins otherwise. */
static int take_handoff(struct bf_embedded *e, struct bf_log_record *records, int max,
                        int64_t *next, int64_t *ret_limit)
{
    struct bf_embedded_entry *chain = NULL, **link = &chain;
    int count = 0;
    pthread_mutex_lock(&e->handoff_lock);
    struct bf_embedded_list *list = &e->handoff;
    while (count < max && list->first != NULL && list->first->offset == *next) {
        struct bf_embedded_entry *entry = list->first;
        list->first = entry->next;
        list->count--;
        list->bytes -= entry->value_len;
        *link = entry;
        link = &entry->next;
        (*next)++;
        count++;
    }
    if (list->first == NULL)
        list->last = NULL;
    *link = NULL;
    BF_BUG_ON(list->first != NULL && list->first->offset < *next);
    /* acquire: pairs with the commit thread's release; rows below end are in RocksDB */
    *ret_limit = list->first != NULL ? list->first->offset
                                     : atomic_load_explicit(&e->end, memory_order_acquire);
    pthread_mutex_unlock(&e->handoff_lock);
    for (int i = 0; i < count; i++, chain = chain->next)
        BF_BUG_ON(!fill_record(chain, &records[i])); /* encoded by ourselves, in this process */
    return count;
}

/* Copies a stored record into an entry of its own. */
static struct bf_embedded_entry *copy_entry(rocksdb_iterator_t *it, int64_t offset)
{
    size_t len;
    const char *value = rocksdb_iter_value(it, &len);
    struct bf_embedded_entry *entry = malloc(sizeof(*entry) + len);
    if (entry == NULL)
        return NULL;
    memcpy(entry->bytes, value, len);
    entry->offset = offset;
    entry->value_len = (uint32_t)len;
    return entry;
}

static int64_t iter_offset(rocksdb_iterator_t *it)
{
    size_t len;
    const char *key = rocksdb_iter_key(it, &len);
    struct bf_reader r = {.buf = (const uint8_t *)key, .len = len};
    return (int64_t)bf_get_be64(&r);
}

/* A block cannot be read: names its records in the log and continues with the next block. */
static void pass_unreadable(struct bf_embedded *e, int64_t *next, int64_t limit)
{
    int64_t from = *next;
    uint8_t key[8];
    bool found = false;
    for (int64_t step = 1; !found && *next < limit; step *= 2) {
        *next = *next + step < limit ? *next + step : limit;
        bf_embedded_key(key, *next);
        rocksdb_iterator_t *it = rocksdb_create_iterator_cf(e->rocks.db, e->rocks.read,
                                                            e->rocks.cfs[BF_EMBEDDED_EVENTS]);
        rocksdb_iter_seek(it, (const char *)key, sizeof(key));
        found = rocksdb_iter_valid(it);
        rocksdb_iter_destroy(it);
    }
    bf_count(BF_CM_M_store_corrupt, (uint64_t)(*next - from));
    BF_ERROR("ctrlplane",
             "log: offsets %lld to %lld cannot be read and are passed; restore them"
             " from a backup and replay",
             (long long)from, (long long)*next - 1);
}

/* Reads [*next, limit) back from RocksDB, up to |max| records. */
static int read_stored(struct bf_embedded *e, struct bf_log_record *records, int max, int64_t *next,
                       int64_t limit)
{
    uint8_t key[8];
    int count = 0;
    char *problem = NULL;
    rocksdb_iterator_t *it =
        rocksdb_create_iterator_cf(e->rocks.db, e->rocks.read, e->rocks.cfs[BF_EMBEDDED_EVENTS]);
    bf_embedded_key(key, *next);
    rocksdb_iter_seek(it, (const char *)key, sizeof(key));
    for (; count < max && rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
        int64_t offset = iter_offset(it);
        if (offset >= limit)
            break;
        struct bf_embedded_entry *entry = copy_entry(it, offset);
        if (entry == NULL)
            break; /* out of memory: what was read so far, the rest next time */
        *next = offset + 1;
        bool is_sound = fill_record(entry, &records[count]);
        if (is_sound && !bf_embedded_is_erased(&records[count])) {
            count++;
            continue;
        }
        if (!is_sound)
            bf_store_corrupt("log", key, 0);
        free(entry);
    }
    rocksdb_iter_get_error(it, &problem);
    bool is_at_end = !rocksdb_iter_valid(it);
    rocksdb_iter_destroy(it);
    if (problem != NULL) {
        rocksdb_free(problem);
        if (count == 0)
            pass_unreadable(e, next, limit);
    } else if (is_at_end && count < max) {
        *next = limit; /* nothing is stored any more between here and the limit */
    }
    return count;
}

/* Waits until something is committed or the time is over. */
static void wait_committed(struct bf_embedded *e, int64_t next, uint32_t timeout_ms)
{
    struct timespec until;
    uint64_t at = bf_mono_ns() + (uint64_t)timeout_ms * 1000000u;
    until.tv_sec = (time_t)(at / 1000000000u);
    until.tv_nsec = (long)(at % 1000000000u);
    pthread_mutex_lock(&e->handoff_lock);
    e->consumer_waits = true;
    int rc = 0;
    while (rc == 0 &&
           (e->is_paused || (e->handoff.count == 0 &&
                             /* relaxed: the commit thread takes the lock after it moved the end */
                             atomic_load_explicit(&e->end, memory_order_relaxed) <= next)))
        rc = pthread_cond_timedwait(&e->handoff_wake, &e->handoff_lock, &until);
    e->consumer_waits = false;
    pthread_mutex_unlock(&e->handoff_lock);
}

static int take(struct bf_embedded *e, struct bf_log_record *records, int max)
{
    int64_t limit;
    int64_t next = atomic_load_explicit(&e->next_read, memory_order_relaxed); /* own variable */
    int count = take_handoff(e, records, max, &next, &limit);
    if (count == 0 && next < limit)
        count = read_stored(e, records, max, &next, limit);
    atomic_store_explicit(&e->next_read, next, memory_order_relaxed);
    return count;
}

int bf_embedded_poll(struct bf_log *log, struct bf_log_record *records, int max,
                     uint32_t timeout_ms)
{
    struct bf_embedded *e = (struct bf_embedded *)log;
    if (atomic_load_explicit(&e->is_dead, memory_order_relaxed))
        return BF_ERR_LOG;
    if (!e->is_assigned) {
        e->is_assigned = true;
        if (e->hooks.on_assign != NULL)
            e->hooks.on_assign(e->hooks.arg, 0, ASSIGNMENT, e->first_offset);
    }
    int count = e->is_paused ? 0 : take(e, records, max);
    if (count != 0 || timeout_ms == 0)
        return count;
    wait_committed(e, atomic_load_explicit(&e->next_read, memory_order_relaxed), timeout_ms);
    return e->is_paused ? 0 : take(e, records, max);
}
