/*
 * What goes out by providers as operators see it, put together for status and metrics: accounts and
 * credentials (each channel's pools()), connections (the workers' reports), breakers and rates (the
 * shards), and what waits in the queue. The same for every channel of the node.
 */
#pragma once

#include "json/out.h"
#include "channels/table/channels.h"
#include "fanout/core_outbound.h"

struct bf_services;

struct bf_pool_status {
    struct bf_pool_row row; /* texts are those below */
    char account[65], failover[65], authority[272], why[480];
    struct bf_pool_report report; /* workers 0: none of them has said anything of it */
    struct bf_pool_total total;   /* pool 0: no shard has used it */
};

struct bf_channel_status {
    bool is_there; /* a channel of this node */
    uint32_t accounts;
    uint64_t queue[BF_LANE_COUNT];
    uint32_t count, cap;
    struct bf_pool_status *pools; /* in the order of the configuration */
};

struct bf_channels_status {
    struct bf_channel_status at[BF_CHANNEL_COUNT];
};

/* 0 or an error; waits for the shards in turn when there are accounts. Free it either way. */
int bf_channels_status_take(struct bf_services *services, struct bf_channels_status *ret);
void bf_channels_status_free(struct bf_channels_status *status);

/* "push":{..},...: a member of status for each channel, by its name. */
void bf_channels_status_put_json(struct bf_out *o, const struct bf_channels_status *status);
/* Samples of each channel, belfry_<channel>_..., labelled by app and kind: there are as many as the
 * configuration has; the origins of a Web Push app are put together. */
void bf_channels_status_put_metrics(struct bf_out *o, const struct bf_channels_status *status);
/* Counters of each channel of the node (leg_metrics.def). */
void bf_channels_put_counters(struct bf_out *o);
