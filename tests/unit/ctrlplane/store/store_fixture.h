/*
 * Opens a store in a directory of its own; shorthands for ids and texts. STORE_OPEN, if it is
 * defined before, opens it on another engine.
 */
#pragma once

#include <criterion/criterion.h>
#include <string.h>

#include "belfry/base/err.h"
#include "store/store.h"
#include "tmp_dir.h"

#ifndef STORE_OPEN
#define STORE_OPEN     bf_store_open
#define STORE_ON_ROCKS 1
#endif

static char dir[200];
static struct bf_store *store;

static inline void store_open(void)
{
    char err[512] = "";
    struct bf_store_options options = {.dir = dir, .cache_mb = 8, .write_buffer_mb = 4};
    int rc = STORE_OPEN(&options, &store, err, sizeof(err));
    cr_assert_eq(rc, 0, "%s", err);
}

static inline void setup(void)
{
    tmp_dir_make(dir, sizeof(dir));
    store_open();
}

static inline void teardown(void)
{
    bf_store_close(store);
    store = NULL;
    tmp_dir_remove(dir);
}

static inline void reopen(void)
{
    bf_store_close(store);
    store_open();
}

static inline struct bf_bytes text(const char *s)
{
    return (struct bf_bytes){s, strlen(s)};
}

static inline struct bf_uid uid(const char *tenant, const char *user)
{
    return (struct bf_uid){text(tenant), text(user)};
}

static inline struct bf_id id_of(uint64_t n)
{
    struct bf_id id = {0};
    memcpy(id.bytes, &n, sizeof(n));
    id.bytes[15] = 0x5a;
    return id;
}

static inline void write_batch(struct bf_batch *b)
{
    cr_assert_eq(bf_batch_write(b, false), 0);
    cr_assert_eq(bf_batch_count(b), 0);
}
