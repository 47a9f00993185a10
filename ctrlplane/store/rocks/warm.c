/* See warm.h. */
#include "store/rocks/warm.h"

#include <errno.h>
#include <stdlib.h>

#include "belfry/base/log.h"
#include "store/rocks/engine.h"

/* Rows between looks at the stop flag. */
#define ROWS_PER_LOOK 4096u

struct warm_up {
    struct bf_rocks_engine *engine;
    /* Tables counted blindly, as they were at the start: what came later, its commits have counted.
     */
    uint32_t count;
    struct bf_scan scans[BF_T_COUNT];
};

static bool wants_stop(const struct bf_rocks_engine *e)
{
    return atomic_load_explicit(&e->warm.stop, memory_order_relaxed);
}

/* Calls |each| for every row. False: stopped, or a part could not be read. */
static bool walk(struct bf_rocks_engine *e, struct bf_scan *scan,
                 void (*each)(struct bf_resident *resident, struct bf_bytes key))
{
    uint32_t rows = 0;
    bool stopped = wants_stop(e);
    while (!stopped && bf_scan_next(scan)) {
        each(&e->resident, scan->key);
        if (++rows % ROWS_PER_LOOK == 0)
            stopped = wants_stop(e);
    }
    return bf_scan_close(scan) == 0 && !stopped;
}

static void see_id(struct bf_resident *resident, struct bf_bytes key)
{
    struct bf_id id;
    if (key.len < sizeof(id.bytes))
        return;
    memcpy(id.bytes, key.at + key.len - sizeof(id.bytes), sizeof(id.bytes));
    bf_seen_add(&resident->seen, &id);
}

static void see_user(struct bf_resident *resident, struct bf_bytes key)
{
    bf_known_fill(&resident->known, key);
}

/* As it is now: what is written meanwhile, its commits see to. */
static bool walk_table(struct bf_rocks_engine *e, enum bf_table table,
                       void (*each)(struct bf_resident *resident, struct bf_bytes key))
{
    struct bf_key prefix;
    struct bf_scan scan;
    bf_key_begin(&prefix, table);
    bf_engine_scan(&scan, &e->engine, &prefix, NULL, BF_SCAN_BULK);
    return walk(e, &scan, each);
}

static void *warm_up(void *arg)
{
    struct warm_up *w = arg;
    struct bf_rocks_engine *e = w->engine;
    for (uint32_t i = 0; i < w->count; i++) {
        uint8_t table = w->scans[i].prefix.at[0];
        if (!walk(e, &w->scans[i], bf_resident_count_row) && !wants_stop(e))
            BF_WARN("ctrlplane",
                    "store: rows of the table %s could not all be counted: its depth"
                    " is too low",
                    bf_tables[table].name);
    }
    /* an unreadable part may hide some: then they never say no */
    if (walk_table(e, BF_T_USER, see_user))
        bf_known_complete(&e->resident.known);
    if (walk_table(e, BF_T_ID, see_id))
        bf_seen_complete(&e->resident.seen);
    free(w);
    return NULL;
}

static void open_scans(struct warm_up *w)
{
    struct bf_key prefix;
    for (unsigned table = 1; table < BF_T_COUNT; table++) {
        if (bf_tables[table].counting != BF_COUNTED_BLIND)
            continue;
        bf_key_begin(&prefix, (enum bf_table)table);
        bf_engine_scan(&w->scans[w->count++], &w->engine->engine, &prefix, NULL, BF_SCAN_BULK);
    }
}

int bf_warm_start(struct bf_rocks_engine *e)
{
    struct warm_up *w = calloc(1, sizeof(*w));
    if (w == NULL)
        return -ENOMEM;
    w->engine = e;
    open_scans(w);
    int rc = pthread_create(&e->warm.thread, NULL, warm_up, w);
    e->warm.is_running = rc == 0;
    if (rc == 0)
        return 0;
    for (uint32_t i = 0; i < w->count; i++)
        (void)bf_scan_close(&w->scans[i]);
    free(w);
    return -rc;
}

void bf_warm_stop(struct bf_rocks_engine *e)
{
    atomic_store_explicit(&e->warm.stop, true, memory_order_relaxed);
    if (e->warm.is_running)
        pthread_join(e->warm.thread, NULL);
    e->warm.is_running = false;
}
