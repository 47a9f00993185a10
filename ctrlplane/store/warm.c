/* See warm.h. */
#include "store/warm.h"

#include <errno.h>
#include <stdlib.h>

#include "belfry/base/log.h"
#include "store/store_impl.h"

/* Rows between looks at the stop flag. */
#define ROWS_PER_LOOK 4096u

struct warm_up {
    struct bf_store *store;
    struct bf_scan legs; /* the queue at the start: what came later, its batches have counted */
};

static bool wants_stop(const struct bf_store *s)
{
    return atomic_load_explicit(&s->warm.stop, memory_order_relaxed);
}

/* Calls |each| for every row. False: stopped, or a part could not be read. */
static bool walk(struct bf_store *s, struct bf_scan *scan,
                 void (*each)(struct bf_store *s, struct bf_bytes key))
{
    uint32_t rows = 0;
    bool stopped = wants_stop(s);
    while (!stopped && bf_scan_next(scan)) {
        each(s, scan->key);
        if (++rows % ROWS_PER_LOOK == 0)
            stopped = wants_stop(s);
    }
    return bf_scan_close(scan) == 0 && !stopped;
}

static void count_leg(struct bf_store *s, struct bf_bytes key)
{
    struct bf_reader k = bf_key_reader(key);
    bf_get_u8(&k); /* partition */
    uint8_t lane = bf_get_u8(&k);
    bf_get_be64(&k); /* not before */
    uint8_t channel = bf_get_u8(&k);
    if (!k.failed && lane < BF_LANE_COUNT && channel < BF_CHANNEL_COUNT)
        atomic_fetch_add_explicit(&s->leg_depth[channel][lane], 1, memory_order_relaxed);
}

static void see_id(struct bf_store *s, struct bf_bytes key)
{
    struct bf_id id;
    if (key.len < sizeof(id.bytes))
        return;
    memcpy(id.bytes, key.at + key.len - sizeof(id.bytes), sizeof(id.bytes));
    bf_seen_add(&s->seen, &id);
}

static void *warm_up(void *arg)
{
    struct warm_up *w = arg;
    struct bf_store *s = w->store;
    struct bf_key prefix;
    struct bf_scan ids;
    if (!walk(s, &w->legs, count_leg) && !wants_stop(s))
        BF_WARN("ctrlplane",
                "store: queued messages could not all be counted, the depth is too low");
    /* an unreadable part may hide ids: then the filter never says no */
    bf_key_begin(&prefix, BF_T_ID);
    bf_scan_open(&ids, s, &prefix, NULL, BF_SCAN_BULK);
    if (walk(s, &ids, see_id))
        bf_seen_complete(&s->seen);
    free(w);
    return NULL;
}

int bf_warm_start(struct bf_store *s)
{
    struct warm_up *w = calloc(1, sizeof(*w));
    struct bf_key prefix;
    if (w == NULL)
        return -ENOMEM;
    w->store = s;
    bf_key_begin(&prefix, BF_T_LEG);
    bf_scan_open(&w->legs, s, &prefix, NULL, BF_SCAN_BULK | BF_SCAN_LATE);
    int rc = pthread_create(&s->warm.thread, NULL, warm_up, w);
    s->warm.is_running = rc == 0;
    if (rc == 0)
        return 0;
    (void)bf_scan_close(&w->legs);
    free(w);
    return -rc;
}

void bf_warm_stop(struct bf_store *s)
{
    atomic_store_explicit(&s->warm.stop, true, memory_order_relaxed);
    if (s->warm.is_running)
        pthread_join(s->warm.thread, NULL);
    s->warm.is_running = false;
}
