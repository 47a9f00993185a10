/*
 * Write batches: rows gathered in memory, written all or nothing. A batch belongs to one thread; it
 * allocates only while it grows, so a shard's batch costs nothing once it has reached its size.
 */
#include <stdlib.h>

#include "admin/metrics.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "store/store_impl.h"

/* Holds the fixed parts of any row; fragments and bodies make it grow once. */
#define SCRATCH_BYTES_START 4096u

struct bf_batch *bf_batch_create(struct bf_store *store)
{
    struct bf_batch *b = calloc(1, sizeof(*b));
    BF_BUG_ON(b == NULL); /* start-up only */
    b->store = store;
    b->rows = rocksdb_writebatch_create();
    b->scratch = malloc(SCRATCH_BYTES_START);
    b->scratch_cap = SCRATCH_BYTES_START;
    BF_BUG_ON(b->scratch == NULL);
    return b;
}

void bf_batch_destroy(struct bf_batch *b)
{
    if (b == NULL)
        return;
    rocksdb_writebatch_destroy(b->rows);
    bf_sorted_fini(&b->pending);
    free(b->scratch);
    free(b->letters);
    free(b->noted);
    free(b);
}

void bf_batch_clear(struct bf_batch *b)
{
    rocksdb_writebatch_clear(b->rows);
    bf_sorted_clear(&b->pending);
    b->count = 0;
    b->bcast_head = 0;
    b->letter_count = 0;
    b->noted_len = 0;
    b->is_noting = false;
    if (b->has_legs)
        memset(b->leg_delta, 0, sizeof(b->leg_delta));
    b->has_legs = false;
}

uint32_t bf_batch_count(const struct bf_batch *b)
{
    return b->count;
}

struct bf_writer bf_batch_value(struct bf_batch *b, size_t bytes)
{
    size_t need = bytes + BF_ROW_EXPIRY_BYTES;
    if (need > b->scratch_cap) {
        free(b->scratch);
        b->scratch_cap = need * 2;
        b->scratch = malloc(b->scratch_cap);
        BF_BUG_ON(b->scratch == NULL);
    }
    struct bf_writer w = {.buf = b->scratch, .cap = b->scratch_cap};
    bf_put_u8(&w, BF_ROW_VERSION);
    return w;
}

struct bf_writer bf_batch_expiring_value(struct bf_batch *b, uint64_t expires_ms, size_t bytes)
{
    struct bf_writer w = bf_batch_value(b, bytes);
    bf_put_u64(&w, expires_ms);
    return w;
}

static rocksdb_column_family_handle_t *family(const struct bf_batch *b, uint8_t table)
{
    return b->store->rocks.cfs[bf_table_cf((enum bf_table)table)];
}

void bf_batch_put(struct bf_batch *b, const struct bf_key *key, const struct bf_writer *value)
{
    BF_BUG_ON(value->failed);
    bf_sorted_put(&b->pending, (uint8_t)bf_table_cf((enum bf_table)key->at[0]), key->at, key->len,
                  value->buf, value->len);
    b->count++;
}

/* An erasure's rows lie all over the files: which they were is known only now. */
static void note_deleted(struct bf_batch *b, const void *key, size_t key_len)
{
    size_t need = b->noted_len + 2 + key_len;
    if (need > b->noted_cap) {
        b->noted_cap = need * 2;
        b->noted = realloc(b->noted, b->noted_cap);
        BF_BUG_ON(b->noted == NULL);
    }
    uint8_t *at = b->noted + b->noted_len;
    at[0] = (uint8_t)key_len;
    at[1] = (uint8_t)(key_len >> 8);
    memcpy(at + 2, key, key_len);
    b->noted_len = need;
}

void bf_batch_delete(struct bf_batch *b, const void *key, size_t key_len)
{
    if (b->is_noting)
        note_deleted(b, key, key_len);
    bf_sorted_flush(&b->pending, &b->store->rocks, b->rows); /* what was put before stays before */
    rocksdb_writebatch_delete_cf(b->rows, family(b, *(const uint8_t *)key), key, key_len);
    b->count++;
}

void bf_batch_delete_prefix(struct bf_batch *b, const struct bf_key *prefix)
{
    struct bf_key end;
    bf_key_end(&end, prefix);
    bf_sorted_flush(&b->pending, &b->store->rocks, b->rows);
    rocksdb_writebatch_delete_range_cf(b->rows, family(b, prefix->at[0]), (const char *)prefix->at,
                                       prefix->len, (const char *)end.at, end.len);
    b->count++;
}

/* What is kept in memory follows what was written. */
static void apply_counters(struct bf_batch *b)
{
    struct bf_store *s = b->store;
    if (b->bcast_head > atomic_load_explicit(&s->bcast_head, memory_order_relaxed))
        atomic_store_explicit(&s->bcast_head, b->bcast_head, memory_order_relaxed);
    for (unsigned i = 0; b->has_legs && i < BF_CHANNEL_COUNT * BF_LANE_COUNT; i++)
        atomic_fetch_add_explicit(
            &s->leg_depth[i / BF_LANE_COUNT][i % BF_LANE_COUNT],
            (uint64_t)(int64_t)b->leg_delta[i / BF_LANE_COUNT][i % BF_LANE_COUNT],
            memory_order_relaxed);
}

/* A batch with dead letters, which are rare: whether each is new is asked and answered under one
 * lock. */
static void write_letters(struct bf_batch *b, const rocksdb_writeoptions_t *how, char **problem)
{
    struct bf_store *s = b->store;
    int32_t delta[BF_DLQ_CHANNELS] = {0};
    pthread_mutex_lock(&s->dlq_lock);
    bf_batch_count_letters(b, delta);
    rocksdb_write(s->rocks.db, how, b->rows, problem);
    pthread_mutex_unlock(&s->dlq_lock);
    for (unsigned i = 0; *problem == NULL && i < BF_DLQ_CHANNELS; i++)
        atomic_fetch_add_explicit(&s->dlq_depth[i], (uint64_t)(int64_t)delta[i],
                                  memory_order_relaxed);
}

static int fail(struct bf_store *s, char *problem)
{
    atomic_store_explicit(&s->is_failed, true, memory_order_relaxed);
    BF_ERROR("ctrlplane", "store: write failed, nothing is written any more: %s", problem);
    rocksdb_free(problem);
    return BF_ERR_STORE;
}

bool bf_store_is_failed(const struct bf_store *s)
{
    return atomic_load_explicit(&s->is_failed, memory_order_relaxed);
}

int bf_batch_write(struct bf_batch *b, bool sync)
{
    struct bf_store *s = b->store;
    char *problem = NULL;
    if (atomic_load_explicit(&s->is_failed, memory_order_relaxed))
        return BF_ERR_STORE;
    if (b->count > 0) {
        bf_sorted_flush(&b->pending, &s->rocks, b->rows);
        const rocksdb_writeoptions_t *how = sync ? s->rocks.write_sync : s->rocks.write;
        if (b->letter_count > 0)
            write_letters(b, how, &problem);
        else
            rocksdb_write(s->rocks.db, how, b->rows, &problem);
        if (problem == NULL && bf_fault_is_due(&s->write_fault)) /* as if the disk had failed */
            problem = strdup("injected");
        if (problem != NULL)
            return fail(s, problem);
        bf_count(BF_CM_M_store_writes, 1);
        bf_count(BF_CM_M_store_rows, b->count);
        if (sync)
            bf_count(BF_CM_M_store_syncs, 1);
        apply_counters(b);
    } else if (sync) {
        return bf_store_sync(s);
    }
    bf_batch_clear(b);
    return 0;
}
