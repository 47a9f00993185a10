/* See scrub.h. */
#include "store/rocks/scrub.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"

/* Names of families are ours, a word each. */
#define FAMILY_BYTES_MAX 32u
/* RocksDB's kForceOptimized: files of the last level are rewritten too, those just written are not.
 */
#define REWRITE_LAST_LEVEL 3

static int fail(char *problem)
{
    BF_ERROR("ctrlplane", "erasure: data files cannot be rewritten: %s", problem);
    rocksdb_free(problem);
    return BF_ERR_STORE;
}

int bf_rocks_flush(const struct bf_rocks *rocks)
{
    int rc = 0;
    rocksdb_flushoptions_t *flush = rocksdb_flushoptions_create();
    rocksdb_flushoptions_set_wait(flush, 1);
    for (uint32_t i = 0; rc == 0 && i < rocks->cf_count; i++) {
        char *problem = NULL;
        rocksdb_flush_cf(rocks->db, flush, rocks->cfs[i], &problem);
        if (problem != NULL)
            rc = fail(problem);
    }
    rocksdb_flushoptions_destroy(flush);
    return rc;
}

static int compare(struct bf_bytes a, struct bf_bytes b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int order = n > 0 ? memcmp(a.at, b.at, n) : 0;
    return order != 0 ? order : a.len < b.len ? -1 : a.len > b.len;
}

static int compare_spans(const void *a, const void *b)
{
    return compare(((const struct bf_span *)a)->from, ((const struct bf_span *)b)->from);
}

/* A data file of the last level, or false. Files of a level do not overlap. */
static bool last_level_file(const rocksdb_livefiles_t *files, int i, const char *family, int last,
                            struct bf_span *ret)
{
    if (rocksdb_livefiles_level(files, i) != last || last == 0 ||
        strcmp(rocksdb_livefiles_column_family_name(files, i), family) != 0)
        return false;
    ret->from.at = rocksdb_livefiles_smallestkey(files, i, &ret->from.len);
    ret->to.at = rocksdb_livefiles_largestkey(files, i, &ret->to.len);
    return true;
}

static int last_level(const rocksdb_livefiles_t *files, const char *family)
{
    int last = 0;
    for (int i = 0; i < rocksdb_livefiles_count(files); i++)
        if (strcmp(rocksdb_livefiles_column_family_name(files, i), family) == 0 &&
            rocksdb_livefiles_level(files, i) > last)
            last = rocksdb_livefiles_level(files, i);
    return last;
}

/* Whether any of the sorted spans touches |file|. */
static bool is_touched(const struct bf_spans *spans, const struct bf_span *file)
{
    for (uint32_t i = 0; i < spans->count && compare(spans->at[i].from, file->to) <= 0; i++)
        if (compare(spans->at[i].to, file->from) >= 0)
            return true;
    return false;
}

/* What is compacted: the spans, and the whole files of the last level that they touch, so that a
 * file with many of the keys is rewritten once. Joined where they overlap. */
static void join(const struct bf_spans *spans, const rocksdb_livefiles_t *files, const char *family,
                 struct bf_spans *ret)
{
    struct bf_spans all = {0};
    struct bf_span file;
    int last = last_level(files, family);
    for (uint32_t i = 0; i < spans->count; i++)
        bf_spans_add(&all, spans->at[i].from, spans->at[i].to);
    for (int i = 0; i < rocksdb_livefiles_count(files); i++)
        if (last_level_file(files, i, family, last, &file) && is_touched(spans, &file))
            bf_spans_add(&all, file.from, file.to);
    ret->failed = all.failed;
    if (!all.failed && all.count > 0)
        qsort(all.at, all.count, sizeof(all.at[0]), compare_spans);
    for (uint32_t i = 0; !all.failed && i < all.count;) {
        struct bf_span span = all.at[i++];
        for (; i < all.count && compare(all.at[i].from, span.to) <= 0; i++)
            if (compare(all.at[i].to, span.to) > 0)
                span.to = all.at[i].to;
        bf_spans_add(ret, span.from, span.to);
    }
    bf_spans_free(&all);
}

static int compact(const struct bf_rocks *rocks, uint32_t cf, const struct bf_spans *spans,
                   const struct bf_pace *pace)
{
    int rc = 0;
    rocksdb_compactoptions_t *options = rocksdb_compactoptions_create();
    rocksdb_compactoptions_set_bottommost_level_compaction(options, REWRITE_LAST_LEVEL);
    rocksdb_compactoptions_set_exclusive_manual_compaction(options, 0);
    for (uint32_t i = 0; rc == 0 && i < spans->count; i++) {
        const struct bf_span *span = &spans->at[i];
        uint64_t began = bf_mono_ns();
        rocksdb_compact_range_cf_opt(rocks->db, rocks->cfs[cf], options, span->from.at,
                                     span->from.len, span->to.at, span->to.len);
        if (!pace->go_on(pace->arg, bf_mono_ns() - began))
            rc = -ECANCELED;
    }
    rocksdb_compactoptions_destroy(options);
    return rc;
}

int bf_rocks_scrub(const struct bf_rocks *rocks, uint32_t cf, struct bf_spans *spans,
                   const struct bf_pace *pace)
{
    struct bf_spans joined = {0};
    size_t len;
    if (spans->failed)
        return -ENOMEM;
    if (spans->count == 0)
        return 0;
    qsort(spans->at, spans->count, sizeof(spans->at[0]), compare_spans);
    char family[FAMILY_BYTES_MAX];
    char *name = rocksdb_column_family_handle_get_name(rocks->cfs[cf], &len); /* not terminated */
    snprintf(family, sizeof(family), "%.*s", (int)len, name);
    rocksdb_free(name);
    const rocksdb_livefiles_t *files = rocksdb_livefiles(rocks->db);
    join(spans, files, family, &joined);
    rocksdb_livefiles_destroy(files);
    int rc = joined.failed ? -ENOMEM : compact(rocks, cf, &joined, pace);
    bf_spans_free(&joined);
    return rc;
}

void bf_rocks_stop_scrub(const struct bf_rocks *rocks)
{
    rocksdb_disable_manual_compaction(rocks->db);
}
