/* See channels.h. A test builds this file with a table of its own. */
#include "channels/table/channels.h"

#ifndef BF_CHANNELS_DEF
#define BF_CHANNELS_DEF "channels/table/channels.def"
#endif

#include BF_CHANNELS_DEF

static const struct bf_channel_ops *const table[BF_CHANNEL_COUNT] = {
#define X(name, id, ops) [id] = &ops,
#include BF_CHANNELS_DEF
#undef X
};

const struct bf_channel_ops *bf_channel_ops_of(uint8_t channel)
{
    return channel < BF_CHANNEL_COUNT ? table[channel] : NULL;
}

int bf_channels_start(const struct bf_channel_env *env, struct bf_channels *ret, char *err,
                      size_t err_len)
{
    int rc = 0;
    *ret = (struct bf_channels){0};
    for (uint8_t i = 0; i < BF_CHANNEL_COUNT && rc == 0; i++)
        if (table[i])
            rc = table[i]->start(env, &ret->at[i], err, err_len);
    if (rc != 0)
        bf_channels_stop(ret);
    return rc;
}

void bf_channels_stop(struct bf_channels *channels)
{
    for (uint8_t i = 0; i < BF_CHANNEL_COUNT; i++)
        if (channels->at[i])
            table[i]->stop(channels->at[i]);
    *channels = (struct bf_channels){0};
}

int bf_channels_reload(struct bf_channels *channels, const struct bf_conf *conf, char *err,
                       size_t err_len)
{
    int rc = 0;
    for (uint8_t i = 0; i < BF_CHANNEL_COUNT && rc == 0; i++)
        if (channels->at[i] && table[i]->reload)
            rc = table[i]->reload(channels->at[i], conf, err, err_len);
    return rc;
}

void bf_channels_snapshot(struct bf_channels *channels, struct bf_writer *w)
{
    for (uint8_t i = 0; i < BF_CHANNEL_COUNT; i++)
        if (channels->at[i] && table[i]->snapshot)
            table[i]->snapshot(channels->at[i], w);
}
