/*
 * Write batches: changes gathered in memory, committed all or nothing. A batch belongs to one
 * thread; it allocates only while it grows, so a shard's batch costs nothing once it has reached
 * its size.
 */
#include <stdlib.h>

#include "stats/metrics.h"
#include "belfry/base/err.h"
#include "store/store_impl.h"

/* Holds the fixed parts of any row; fragments and bodies make it grow once. */
#define SCRATCH_BYTES_START 4096u

struct bf_batch *bf_batch_create(struct bf_store *store)
{
    struct bf_batch *b = calloc(1, sizeof(*b));
    BF_BUG_ON(b == NULL); /* start-up only */
    b->store = store;
    b->committer = store->engine->ops->committer_create(store->engine);
    b->scratch = malloc(SCRATCH_BYTES_START);
    b->scratch_cap = SCRATCH_BYTES_START;
    BF_BUG_ON(b->scratch == NULL || b->committer == NULL);
    return b;
}

void bf_batch_destroy(struct bf_batch *b)
{
    if (b == NULL)
        return;
    b->store->engine->ops->committer_destroy(b->committer);
    bf_changes_fini(&b->changes);
    free(b->scratch);
    free(b->noted);
    free(b);
}

void bf_batch_clear(struct bf_batch *b)
{
    bf_changes_clear(&b->changes);
    b->bcast_head = 0;
    b->noted_len = 0;
    b->is_noting = false;
}

uint32_t bf_batch_count(const struct bf_batch *b)
{
    return b->changes.count;
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

void bf_batch_put(struct bf_batch *b, const struct bf_key *key, const struct bf_writer *value)
{
    BF_BUG_ON(value->failed);
    bf_changes_add(&b->changes, BF_CHANGE_PUT, key->at, key->len, value->buf, value->len);
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
    bf_changes_add(&b->changes, BF_CHANGE_DELETE, key, key_len, NULL, 0);
}

void bf_batch_delete_prefix(struct bf_batch *b, const struct bf_key *prefix)
{
    BF_BUG_ON(bf_tables[prefix->at[0]].is_whole_key_only);
    bf_changes_add(&b->changes, BF_CHANGE_DELETE_PREFIX, prefix->at, prefix->len, NULL, 0);
}

/* What is kept in memory follows what was written. */
static void raise_bcast_head(struct bf_batch *b)
{
    struct bf_store *s = b->store;
    if (b->bcast_head > atomic_load_explicit(&s->bcast_head, memory_order_relaxed))
        atomic_store_explicit(&s->bcast_head, b->bcast_head, memory_order_relaxed);
}

int bf_batch_write(struct bf_batch *b, bool sync)
{
    struct bf_store *s = b->store;
    if (b->changes.count == 0 && sync)
        return bf_store_sync(s);
    if (bf_store_is_failed(s))
        return BF_ERR_STORE;
    if (b->changes.count > 0) {
        int rc = s->engine->ops->commit(b->committer, &b->changes, sync);
        if (rc != 0)
            return rc;
        bf_count(BF_CM_M_store_writes, 1);
        bf_count(BF_CM_M_store_rows, b->changes.count);
        if (sync)
            bf_count(BF_CM_M_store_syncs, 1);
        raise_bcast_head(b);
    }
    bf_batch_clear(b);
    return 0;
}
