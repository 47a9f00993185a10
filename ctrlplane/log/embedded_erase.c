/*
 * Embedded log engine, erasure: records of an erased user are written over by empty ones of the
 * same offset and time, then the data files that held them are rewritten. An empty record keeps a
 * number in the place of its key, by which an erasure that was killed finds its offsets again.
 * Eraser thread.
 */
#include <errno.h>
#include <stdlib.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "log/embedded.h"
#include "stats/metrics.h"
#include "store/rocks/scrub.h"

/* A walk over the whole log reads in steps of this size and leaves the cache to others. */
#define READAHEAD_BYTES (2u * 1024u * 1024u)
/* Records written over in one synced write. */
#define BATCH_RECORDS 512u
/* Records after which the pace is asked: 64 MiB of small ones. */
#define RECORDS_PER_ASK 131072u

struct eraser {
    struct bf_embedded *e;
    bf_log_match_fn match;
    void *arg;
    struct bf_spans spans; /* of the offsets */
    rocksdb_writebatch_t *batch;
    uint32_t batched;
    uint64_t erased;
};

bool bf_embedded_is_erased(const struct bf_log_record *record)
{
    return record->body.len == 0 && record->meta.len == 0; /* an event has both */
}

static int flush_batch(struct eraser *x)
{
    char *problem = NULL;
    if (x->batched == 0)
        return 0;
    rocksdb_write(x->e->rocks.db, x->e->rocks.write_sync, x->batch, &problem);
    rocksdb_writebatch_clear(x->batch);
    x->batched = 0;
    if (problem == NULL)
        return 0;
    BF_ERROR("ctrlplane", "erasure: the log cannot be written: %s", problem);
    rocksdb_free(problem);
    return BF_ERR_LOG;
}

static int write_over(struct eraser *x, const uint8_t key[8], const struct bf_log_record *record,
                      uint64_t tag)
{
    uint8_t value[64];
    struct bf_writer w = {.buf = value, .cap = sizeof(value)};
    struct bf_log_entry empty = {.lane = record->topic_lane,
                                 .key = {(const char *)&tag, sizeof(tag)}};
    bf_embedded_record_encode(&w, &empty, record->timestamp_ms);
    rocksdb_writebatch_put_cf(x->batch, x->e->rocks.cfs[BF_EMBEDDED_EVENTS], (const char *)key, 8,
                              (const char *)value, w.len);
    x->erased++;
    return ++x->batched < BATCH_RECORDS ? 0 : flush_batch(x);
}

/* One stored record: what matches is noted, and written over unless it is already. */
static int look_at(struct eraser *x, rocksdb_iterator_t *it)
{
    size_t key_len, len;
    struct bf_log_record record = {0};
    uint64_t tag = 0;
    const uint8_t *key = (const uint8_t *)rocksdb_iter_key(it, &key_len);
    const uint8_t *value = (const uint8_t *)rocksdb_iter_value(it, &len);
    if (key_len != 8 || !bf_embedded_record_decode(value, len, &record))
        return 0; /* counted where it is read to be worked on */
    bool is_erased = bf_embedded_is_erased(&record);
    if (is_erased && record.key.len == sizeof(tag))
        memcpy(&tag, record.key.at, sizeof(tag));
    if (!x->match(x->arg, is_erased ? NULL : &record, &tag))
        return 0;
    struct bf_bytes place = {(const char *)key, key_len};
    bf_spans_add(&x->spans, place, place);
    return is_erased ? 0 : write_over(x, key, &record, tag);
}

static int walk(struct eraser *x, const struct bf_pace *pace)
{
    int rc = 0;
    uint32_t seen = 0;
    char *problem = NULL;
    rocksdb_readoptions_t *read = rocksdb_readoptions_create();
    rocksdb_readoptions_set_readahead_size(read, READAHEAD_BYTES);
    rocksdb_readoptions_set_fill_cache(read, 0);
    rocksdb_iterator_t *it =
        rocksdb_create_iterator_cf(x->e->rocks.db, read, x->e->rocks.cfs[BF_EMBEDDED_EVENTS]);
    for (rocksdb_iter_seek_to_first(it); rc == 0 && rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
        rc = look_at(x, it);
        if (rc == 0 && ++seen % RECORDS_PER_ASK == 0 && !pace->go_on(pace->arg, 0))
            rc = -ECANCELED;
    }
    rocksdb_iter_get_error(it, &problem);
    rocksdb_iter_destroy(it); /* it holds the old data files */
    rocksdb_readoptions_destroy(read);
    if (problem != NULL) {
        BF_ERROR("ctrlplane", "erasure: the log cannot be read: %s", problem);
        rocksdb_free(problem);
        rc = BF_ERR_CORRUPT;
    }
    return rc == 0 ? flush_batch(x) : rc;
}

int bf_embedded_erase(struct bf_log *log, bf_log_match_fn match, void *arg,
                      const struct bf_pace *pace)
{
    struct eraser x = {.e = (struct bf_embedded *)log, .match = match, .arg = arg};
    x.batch = rocksdb_writebatch_create();
    int rc = walk(&x, pace);
    rocksdb_writebatch_destroy(x.batch);
    bf_count(BF_CM_M_erased_records, x.erased);
    if (rc == 0 && x.spans.count > 0)
        rc = bf_rocks_flush(&x.e->rocks);
    if (rc == 0)
        rc = bf_rocks_scrub(&x.e->rocks, BF_EMBEDDED_EVENTS, &x.spans, pace);
    bf_spans_free(&x.spans);
    return rc;
}

void bf_embedded_stop_erase(struct bf_log *log)
{
    bf_rocks_stop_scrub(&((struct bf_embedded *)log)->rocks);
}
