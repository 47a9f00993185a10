/*
 * The embedded store: opening, closing, durability, free space. Tables are in the files named after
 * them. Opening and closing belong to main; everything else is said in store.h.
 */
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "admin/metrics.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "store/store_impl.h"

static const struct bf_rocks_cf families[BF_CF_COUNT] = {
    [BF_CF_MAIN] = {.name = "default"},
    [BF_CF_STATE] = {.name = "state"},
    [BF_CF_INBOX] = {.name = "inbox", .expires = true, .is_hot = true},
    [BF_CF_ID] = {.name = "id", .is_point = true, .expires = true, .is_hot = true},
    [BF_CF_STATUS] = {.name = "status", .expires = true, .is_hot = true},
    [BF_CF_EXPIRING] = {.name = "expiring", .expires = true},
};

enum bf_store_cf bf_table_cf(enum bf_table table)
{
    static const uint8_t map[BF_T_COUNT] = {
        [BF_T_STATE] = BF_CF_STATE,
        [BF_T_INBOX] = BF_CF_INBOX,
        [BF_T_ACK] = BF_CF_INBOX,
        [BF_T_ID] = BF_CF_ID,
        [BF_T_EVENT] = BF_CF_STATUS,
        [BF_T_OUTCOME] = BF_CF_STATUS,
        [BF_T_USER_OUTCOME] = BF_CF_STATUS,
        [BF_T_BCAST] = BF_CF_EXPIRING,
        [BF_T_BCAST_ID] = BF_CF_EXPIRING,
        [BF_T_IDEM] = BF_CF_EXPIRING,
        [BF_T_OLD_PUSH] = BF_CF_EXPIRING,
        [BF_T_OLD_PUSH_USER] = BF_CF_EXPIRING,
        [BF_T_OLD_PUSH_COLLAPSE] = BF_CF_EXPIRING,
        [BF_T_LEG_DONE] = BF_CF_EXPIRING,
        [BF_T_LEG] = BF_CF_EXPIRING,
        [BF_T_LEG_USER] = BF_CF_EXPIRING,
        [BF_T_LEG_COLLAPSE] = BF_CF_EXPIRING,
    };
    BF_BUG_ON(table >= BF_T_COUNT);
    return (enum bf_store_cf)map[table];
}

static int load(struct bf_store *s, char *err, size_t err_len)
{
    s->write_fault.point = "store_write";
    bf_fault_arm(&s->write_fault);
    int rc = bf_store_load_epoch(s, err, err_len);
    if (rc == 0)
        rc = bf_store_load_bcast_head(s);
    if (rc == 0)
        rc = bf_store_load_dlq_depth(s);
    if (rc == 0)
        rc = bf_store_load_partitions(s, err, err_len);
    bf_seen_create(&s->seen);
    if (rc == 0)
        rc = bf_warm_start(s);
    if (rc != 0 && err[0] == 0)
        snprintf(err, err_len, "cannot read the store in %s: %s", s->dir, bf_err_text(rc));
    return rc;
}

int bf_store_open(const struct bf_store_options *options, struct bf_store **ret, char *err,
                  size_t err_len)
{
    struct bf_rocks_options ro = {
        .dir = options->dir,
        .cache_mb = options->cache_mb,
        .write_buffer_mb = options->write_buffer_mb,
        .cf_count = BF_CF_COUNT,
        .cfs = families,
    };
    err[0] = 0;
    struct bf_store *s = calloc(1, sizeof(*s));
    if (s == NULL)
        return -ENOMEM;
    snprintf(s->dir, sizeof(s->dir), "%s", options->dir);
    snprintf(s->witness_dir, sizeof(s->witness_dir), "%s",
             options->witness_dir ? options->witness_dir : "");
    s->witness_fd = -1;
    pthread_mutex_init(&s->dlq_lock, NULL);
    int rc = bf_rocks_open(&ro, &s->rocks, err, err_len);
    if (rc == 0)
        rc = load(s, err, err_len);
    if (rc != 0) {
        bf_seen_destroy(&s->seen);
        bf_rocks_close(&s->rocks);
        if (s->witness_fd >= 0)
            close(s->witness_fd);
        free(s);
        return rc;
    }
    *ret = s;
    return 0;
}

void bf_store_enter_thread(void)
{
    bf_rocks_hush_thread();
}

void bf_store_close(struct bf_store *s)
{
    if (s == NULL)
        return;
    bf_warm_stop(s);
    bf_seen_destroy(&s->seen);
    if (bf_store_mark_clean(s) != 0)
        BF_WARN("ctrlplane", "store: the clean shutdown could not be recorded");
    bf_store_witness(s);
    if (s->witness_fd >= 0)
        close(s->witness_fd);
    bf_rocks_close(&s->rocks);
    pthread_mutex_destroy(&s->dlq_lock);
    free(s);
}

const char *bf_store_epoch(const struct bf_store *s)
{
    return s->epoch;
}

int bf_store_sync(struct bf_store *s)
{
    char *problem = NULL;
    if (atomic_load_explicit(&s->is_failed, memory_order_relaxed))
        return BF_ERR_STORE;
    rocksdb_flush_wal(s->rocks.db, 1, &problem);
    if (problem == NULL) {
        bf_count(BF_CM_M_store_syncs, 1);
        return 0;
    }
    atomic_store_explicit(&s->is_failed, true, memory_order_relaxed);
    BF_ERROR("ctrlplane", "store: sync failed, nothing is written any more: %s", problem);
    rocksdb_free(problem);
    return BF_ERR_STORE;
}

int bf_store_checkpoint(struct bf_store *s, const char *dir, char *err, size_t err_len)
{
    return bf_rocks_checkpoint(&s->rocks, dir, err, err_len);
}

int bf_store_disk(const struct bf_store *s, uint64_t *ret_free, uint64_t *ret_size)
{
    struct statvfs fs;
    if (statvfs(s->dir, &fs) != 0)
        return -errno;
    *ret_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    *ret_size = (uint64_t)fs.f_blocks * fs.f_frsize;
    return 0;
}
