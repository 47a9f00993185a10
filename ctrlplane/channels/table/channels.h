/*
 * The table of channels (channels.def) and those that run. Made by main at start, shared by all
 * threads until all of them stopped.
 */
#pragma once

#include "channels/channel.h"

/* Channels that run, by enum bf_channel. NULL: not in the table, or not started. */
struct bf_channels {
    struct bf_channel_state *at[BF_CHANNEL_COUNT];
};

/* NULL: not in the table. */
const struct bf_channel_ops *bf_channel_ops_of(uint8_t channel);

/* Starts all of the table. On failure those that did start are stopped again. */
int bf_channels_start(const struct bf_channel_env *env, struct bf_channels *ret, char *err,
                      size_t err_len);
void bf_channels_stop(struct bf_channels *channels);
/* All of them take another configuration over. On an error the ones before have it already; the
 * caller keeps the old one and says so. */
int bf_channels_reload(struct bf_channels *channels, const struct bf_conf *conf, char *err,
                       size_t err_len);
/* What the dataplane has to know of all of them. */
void bf_channels_snapshot(struct bf_channels *channels, struct bf_writer *w);
