/*
 * The store above its engine: opening, closing, and what is passed on. Tables are in the files
 * named after them. Opening and closing belong to main; everything else is said in store.h.
 */
#include "store/store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "stats/metrics.h"
#include "belfry/base/err.h"
#include "store/store_impl.h"

int bf_store_open_on(struct bf_engine *engine, struct bf_store **ret, char *err, size_t err_len)
{
    struct bf_store *s = calloc(1, sizeof(*s));
    int rc = s != NULL ? 0 : -ENOMEM;
    err[0] = 0;
    if (rc == 0) {
        s->engine = engine;
        rc = bf_store_load_bcast_head(s);
    }
    if (rc == 0)
        rc = bf_store_load_partitions(s, err, err_len);
    if (rc != 0) {
        if (err[0] == 0)
            snprintf(err, err_len, "cannot read the store: %s", bf_err_text(rc));
        engine->ops->close(engine, false);
        free(s);
        return rc;
    }
    *ret = s;
    return 0;
}

void bf_store_close(struct bf_store *s)
{
    if (s == NULL)
        return;
    s->engine->ops->close(s->engine, true);
    free(s);
}

void bf_store_enter_thread(struct bf_store *s)
{
    s->engine->ops->enter_thread(s->engine);
}

bool bf_store_is_failed(const struct bf_store *s)
{
    return atomic_load_explicit(&s->engine->is_failed, memory_order_relaxed);
}

const char *bf_store_epoch(const struct bf_store *s)
{
    return s->engine->epoch;
}

void bf_store_witness(struct bf_store *s)
{
    s->engine->ops->witness(s->engine);
}

int bf_store_sync(struct bf_store *s)
{
    int rc = s->engine->ops->sync(s->engine);
    if (rc == 0)
        bf_count(BF_CM_M_store_syncs, 1);
    return rc;
}

int bf_store_checkpoint(struct bf_store *s, const char *dir, char *err, size_t err_len)
{
    return s->engine->ops->checkpoint(s->engine, dir, err, err_len);
}

int bf_store_disk(const struct bf_store *s, uint64_t *ret_free, uint64_t *ret_size)
{
    return s->engine->ops->disk(s->engine, ret_free, ret_size);
}
