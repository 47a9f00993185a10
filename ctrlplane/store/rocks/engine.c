/*
 * The RocksDB engine: opening, closing, durability, free space. Opening and closing belong to main;
 * everything else is said in store/engine.h.
 */
#include "store/rocks/engine.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "store/rocks/scrub.h"

static const struct bf_rocks_cf families[BF_FAMILY_COUNT] = {
    [BF_FAMILY_MAIN] = {.name = "default"},
    [BF_FAMILY_STATE] = {.name = "state"},
    [BF_FAMILY_INBOX] = {.name = "inbox", .expires = true, .is_hot = true},
    [BF_FAMILY_ID] = {.name = "id", .is_point = true, .expires = true, .is_hot = true},
    [BF_FAMILY_STATUS] = {.name = "status", .expires = true, .is_hot = true},
    [BF_FAMILY_EXPIRING] = {.name = "expiring", .expires = true},
};

enum bf_family bf_family_of(uint8_t table)
{
    static const uint8_t map[BF_T_COUNT] = {
        [BF_T_STATE] = BF_FAMILY_STATE,
        [BF_T_INBOX] = BF_FAMILY_INBOX,
        [BF_T_ACK] = BF_FAMILY_INBOX,
        [BF_T_ID] = BF_FAMILY_ID,
        [BF_T_EVENT] = BF_FAMILY_STATUS,
        [BF_T_OUTCOME] = BF_FAMILY_STATUS,
        [BF_T_USER_OUTCOME] = BF_FAMILY_STATUS,
        [BF_T_BCAST] = BF_FAMILY_EXPIRING,
        [BF_T_BCAST_ID] = BF_FAMILY_EXPIRING,
        [BF_T_IDEM] = BF_FAMILY_EXPIRING,
        [BF_T_OLD_PUSH] = BF_FAMILY_EXPIRING,
        [BF_T_OLD_PUSH_USER] = BF_FAMILY_EXPIRING,
        [BF_T_OLD_PUSH_COLLAPSE] = BF_FAMILY_EXPIRING,
        [BF_T_LEG_DONE] = BF_FAMILY_EXPIRING,
        [BF_T_LEG] = BF_FAMILY_EXPIRING,
        [BF_T_LEG_USER] = BF_FAMILY_EXPIRING,
        [BF_T_LEG_COLLAPSE] = BF_FAMILY_EXPIRING,
    };
    BF_BUG_ON(table >= BF_T_COUNT);
    return (enum bf_family)map[table];
}

static void enter_thread(struct bf_engine *engine)
{
    (void)engine;
    bf_rocks_hush_thread();
}

static uint64_t count(struct bf_engine *engine, enum bf_table table, uint8_t group)
{
    return bf_resident_count(&bf_rocks_of(engine)->resident, table, group);
}

static int sync_log(struct bf_engine *engine)
{
    char *problem = NULL;
    if (atomic_load_explicit(&engine->is_failed, memory_order_relaxed))
        return BF_ERR_STORE;
    rocksdb_flush_wal(bf_rocks_of(engine)->rocks.db, 1, &problem);
    if (problem == NULL)
        return 0;
    atomic_store_explicit(&engine->is_failed, true, memory_order_relaxed);
    BF_ERROR("ctrlplane", "store: sync failed, nothing is written any more: %s", problem);
    rocksdb_free(problem);
    return BF_ERR_STORE;
}

static int checkpoint(struct bf_engine *engine, const char *dir, char *err, size_t err_len)
{
    return bf_rocks_checkpoint(&bf_rocks_of(engine)->rocks, dir, err, err_len);
}

static int disk(struct bf_engine *engine, uint64_t *ret_free, uint64_t *ret_size)
{
    struct statvfs fs;
    if (statvfs(bf_rocks_of(engine)->dir, &fs) != 0)
        return -errno;
    *ret_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    *ret_size = (uint64_t)fs.f_blocks * fs.f_frsize;
    return 0;
}

/* Spans of all tables, each into the family in which its keys lie. */
static int scrub(struct bf_engine *engine, struct bf_spans *spans, const struct bf_pace *pace)
{
    const struct bf_rocks *rocks = &bf_rocks_of(engine)->rocks;
    struct bf_spans by_family[BF_FAMILY_COUNT] = {0};
    int rc = spans->failed ? -ENOMEM : bf_rocks_flush(rocks);
    for (uint32_t i = 0; rc == 0 && i < spans->count; i++) {
        enum bf_family family = bf_family_of((uint8_t)spans->at[i].from.at[0]);
        bf_spans_add(&by_family[family], spans->at[i].from, spans->at[i].to);
    }
    for (uint32_t i = 0; i < BF_FAMILY_COUNT; i++) {
        if (rc == 0)
            rc = bf_rocks_scrub(rocks, i, &by_family[i], pace);
        bf_spans_free(&by_family[i]);
    }
    return rc;
}

static void stop_scrub(struct bf_engine *engine)
{
    bf_rocks_stop_scrub(&bf_rocks_of(engine)->rocks);
}

static void release(struct bf_rocks_engine *e)
{
    bf_resident_fini(&e->resident);
    if (e->witness_fd >= 0)
        close(e->witness_fd);
    bf_rocks_close(&e->rocks);
    free(e);
}

static void close_engine(struct bf_engine *engine, bool is_clean)
{
    struct bf_rocks_engine *e = bf_rocks_of(engine);
    bf_warm_stop(e);
    if (is_clean && bf_rocks_mark_clean(e) != 0)
        BF_WARN("ctrlplane", "store: the clean shutdown could not be recorded");
    if (is_clean)
        bf_rocks_witness(engine);
    release(e);
}

static const struct bf_engine_ops ops = {
    .close = close_engine,
    .enter_thread = enter_thread,
    .get = bf_rocks_engine_get,
    .has = bf_rocks_engine_has,
    .expect = bf_rocks_engine_expect,
    .gather = bf_rocks_gather,
    .scan_open = bf_rocks_scan_open,
    .scan_next = bf_rocks_scan_next,
    .scan_close = bf_rocks_scan_close,
    .count = count,
    .committer_create = bf_rocks_committer_create,
    .committer_destroy = bf_rocks_committer_destroy,
    .commit = bf_rocks_commit,
    .sync = sync_log,
    .witness = bf_rocks_witness,
    .checkpoint = checkpoint,
    .disk = disk,
    .scrub = scrub,
    .stop_scrub = stop_scrub,
};

static int load(struct bf_rocks_engine *e, char *err, size_t err_len)
{
    e->write_fault.point = "store_write";
    bf_fault_arm(&e->write_fault);
    int rc = bf_resident_init(&e->resident);
    if (rc == 0)
        rc = bf_rocks_load_epoch(e, err, err_len);
    if (rc == 0)
        rc = bf_resident_load(&e->resident, &e->engine);
    if (rc == 0)
        rc = bf_warm_start(e);
    if (rc != 0 && err[0] == 0)
        snprintf(err, err_len, "cannot read the store in %s: %s", e->dir, bf_err_text(rc));
    return rc;
}

int bf_rocks_engine_open(const struct bf_store_options *options, struct bf_engine **ret, char *err,
                         size_t err_len)
{
    struct bf_rocks_options ro = {
        .dir = options->dir,
        .cache_mb = options->cache_mb,
        .write_buffer_mb = options->write_buffer_mb,
        .cf_count = BF_FAMILY_COUNT,
        .cfs = families,
    };
    err[0] = 0;
    struct bf_rocks_engine *e = calloc(1, sizeof(*e));
    if (e == NULL)
        return -ENOMEM;
    e->engine.ops = &ops;
    snprintf(e->dir, sizeof(e->dir), "%s", options->dir);
    snprintf(e->witness_dir, sizeof(e->witness_dir), "%s",
             options->witness_dir ? options->witness_dir : "");
    e->witness_fd = -1;
    int rc = bf_rocks_open(&ro, &e->rocks, err, err_len);
    if (rc == 0)
        rc = load(e, err, err_len);
    if (rc != 0) {
        release(e);
        return rc;
    }
    *ret = &e->engine;
    return 0;
}
