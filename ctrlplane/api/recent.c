/* Recently accepted events; see recent.h. Direct-mapped, a lock a group of slots. */
#include "api/recent.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* A third of a second at 25,000 events/s; the pipeline follows within milliseconds. Powers of two.
 */
#define SLOTS 8192u
#define LOCKS 64u

struct bf_recent {
    pthread_mutex_t locks[LOCKS];
    struct bf_recent_row rows[SLOTS];
};

struct bf_recent *bf_recent_create(void)
{
    struct bf_recent *recent = calloc(1, sizeof(*recent));
    for (unsigned i = 0; recent && i < LOCKS; i++)
        pthread_mutex_init(&recent->locks[i], NULL);
    return recent;
}

void bf_recent_destroy(struct bf_recent *recent)
{
    for (unsigned i = 0; recent && i < LOCKS; i++)
        pthread_mutex_destroy(&recent->locks[i]);
    free(recent);
}

static unsigned slot_of(const struct bf_id *id)
{
    uint32_t index;
    memcpy(&index, id->bytes, sizeof(index)); /* ids are hashes or random: even as they are */
    return index & (SLOTS - 1);
}

void bf_recent_put(struct bf_recent *recent, const struct bf_event_meta *meta)
{
    unsigned slot = slot_of(&meta->event_id);
    struct bf_recent_row *row = &recent->rows[slot];
    pthread_mutex_lock(&recent->locks[slot & (LOCKS - 1)]);
    row->id = meta->event_id;
    row->accepted_ms = meta->accepted_ms;
    memcpy(row->tenant, meta->tenant, sizeof(row->tenant));
    memcpy(row->producer, meta->producer, sizeof(row->producer));
    memcpy(row->traceparent, meta->traceparent, sizeof(row->traceparent));
    pthread_mutex_unlock(&recent->locks[slot & (LOCKS - 1)]);
}

bool bf_recent_get(struct bf_recent *recent, const struct bf_id *id, struct bf_recent_row *ret)
{
    unsigned slot = slot_of(id);
    pthread_mutex_lock(&recent->locks[slot & (LOCKS - 1)]);
    *ret = recent->rows[slot];
    pthread_mutex_unlock(&recent->locks[slot & (LOCKS - 1)]);
    return ret->accepted_ms > 0 && bf_id_is_equal(&ret->id, id);
}
