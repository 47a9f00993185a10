/* Opens store and log of the embedded engine in a directory of its own. */
#pragma once

#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/conf/conf.h"
#include "log/log.h"
#include "store/store.h"
#include "tmp_dir.h"

static char dir[200];
static char store_dir[256];
static struct bf_conf conf;
static struct bf_store *store;
static struct bf_log *logp;
static int64_t assigned_at = -1;
static int assigns;

static inline void note_assign(void *arg, uint32_t partition, uint32_t assignment, int64_t offset)
{
    (void)arg;
    cr_assert(partition == 0 && assignment > 0);
    assigned_at = offset;
    assigns++;
}

static inline int log_try_open(char *err, size_t err_len)
{
    struct bf_log_hooks hooks = {.on_assign = note_assign};
    snprintf(store_dir, sizeof(store_dir), "%s/store", dir);
    struct bf_store_options options = {.dir = store_dir, .cache_mb = 8, .write_buffer_mb = 4};
    int rc = bf_store_open(&options, &store, err, err_len);
    if (rc != 0)
        return rc;
    conf.state_dir = dir;
    conf.log_engine = "embedded";
    conf.log_batch_max = conf.log_batch_max ? conf.log_batch_max : 2048;
    conf.log_retention_s = conf.log_retention_s ? conf.log_retention_s : 604800;
    conf.log_disk_reserve_mb = conf.log_disk_reserve_mb ? conf.log_disk_reserve_mb : 1;
    return bf_log_open(&conf, store, &hooks, &logp, err, err_len);
}

static inline void log_open(void)
{
    char err[512] = "";
    int rc = log_try_open(err, sizeof(err));
    cr_assert_eq(rc, 0, "%s", err);
}

static inline void log_close(void)
{
    bf_log_close(logp);
    bf_store_close(store);
    logp = NULL;
    store = NULL;
}

static inline void setup(void)
{
    tmp_dir_make(dir, sizeof(dir));
    log_open();
}

static inline void teardown(void)
{
    log_close();
    tmp_dir_remove(dir);
}

static inline struct bf_bytes text(const char *s)
{
    return (struct bf_bytes){s, strlen(s)};
}

static inline struct bf_log_entry entry_of(const char *body)
{
    return (struct bf_log_entry){
        .lane = BF_LANE_CRITICAL, .key = text("user-1"), .meta = text("meta"), .body = text(body)};
}
