/* APNs broadcast channels: see sim_channels.h. A list walked under a lock: management is rare. */
#include "sim_channels.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "sim_text.h"

struct channel {
    char app[SIM_TOPIC_BYTES_MAX];
    char id[SIM_CHANNEL_ID_BYTES + 1];
    int policy;
};

struct sim_channels {
    pthread_mutex_t lock; /* everything below */
    struct channel *rows;
    uint32_t count, room;
};

struct sim_channels *sim_channels_create(void)
{
    struct sim_channels *t = calloc(1, sizeof(*t));
    if (t)
        pthread_mutex_init(&t->lock, NULL);
    return t;
}

void sim_channels_destroy(struct sim_channels *t)
{
    if (!t)
        return;
    pthread_mutex_destroy(&t->lock);
    free(t->rows);
    free(t);
}

static bool grow(struct sim_channels *t)
{
    if (t->count < t->room)
        return true;
    uint32_t room = t->room ? t->room * 2 : 64;
    struct channel *rows = realloc(t->rows, room * sizeof(*rows));
    if (!rows)
        return false;
    t->rows = rows;
    t->room = room;
    return true;
}

bool sim_channels_add(struct sim_channels *t, struct sim_slice app, int policy,
                      const uint8_t raw[16], char out[SIM_CHANNEL_ID_BYTES + 1])
{
    bool ok = false;
    pthread_mutex_lock(&t->lock);
    if (t->count < SIM_CHANNELS_MAX && grow(t)) {
        struct channel *ch = &t->rows[t->count];
        ok = sim_text_copy(ch->app, sizeof(ch->app), app);
        EVP_EncodeBlock((unsigned char *)ch->id, raw, 16);
        ch->policy = policy;
        memcpy(out, ch->id, sizeof(ch->id));
        t->count += ok;
    }
    pthread_mutex_unlock(&t->lock);
    return ok;
}

/* Call with the lock held. */
static struct channel *find(struct sim_channels *t, struct sim_slice app, struct sim_slice id)
{
    for (uint32_t i = 0; i < t->count; i++)
        if (sim_slice_is(id, t->rows[i].id) && sim_slice_is(app, t->rows[i].app))
            return &t->rows[i];
    return NULL;
}

int sim_channels_find(struct sim_channels *t, struct sim_slice app, struct sim_slice id)
{
    pthread_mutex_lock(&t->lock);
    struct channel *ch = find(t, app, id);
    int policy = ch ? ch->policy : -1;
    pthread_mutex_unlock(&t->lock);
    return policy;
}

bool sim_channels_remove(struct sim_channels *t, struct sim_slice app, struct sim_slice id)
{
    pthread_mutex_lock(&t->lock);
    struct channel *ch = find(t, app, id);
    if (ch)
        *ch = t->rows[--t->count];
    pthread_mutex_unlock(&t->lock);
    return ch != NULL;
}

size_t sim_channels_list(struct sim_channels *t, struct sim_slice app, char *out, size_t size)
{
    size_t at = 0;
    out[0] = '\0';
    pthread_mutex_lock(&t->lock);
    for (uint32_t i = 0; i < t->count && at + SIM_CHANNEL_ID_BYTES + 4 < size; i++)
        if (sim_slice_is(app, t->rows[i].app))
            at += (size_t)snprintf(out + at, size - at, "%s\"%s\"", at ? "," : "", t->rows[i].id);
    pthread_mutex_unlock(&t->lock);
    return at;
}
