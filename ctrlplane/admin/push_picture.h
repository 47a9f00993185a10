/*
 * Push as operators see it, put together for status and metrics: apps and credentials (push_creds),
 * connections (the workers' reports), breakers and rates (the shards), and what waits in the queue.
 */
#pragma once

#include "api/out.h"
#include "channels/push/push_creds.h"
#include "fanout/core_outbound.h"

struct bf_services;

struct bf_push_line {
    struct bf_push_creds_row creds; /* texts are those below */
    char app[65], failover[65], authority[272], why[480];
    struct bf_pool_report report; /* workers 0: none of them has said anything of it */
    struct bf_pool_total total;   /* pool 0: no shard has used it */
};

struct bf_push_picture {
    uint32_t apps;
    uint64_t queue[BF_LANE_COUNT];
    uint32_t count, cap;
    struct bf_push_line *lines; /* in the order of the configuration */
};

/* 0 or an error; waits for the shards in turn when there are apps. Free it either way. */
int bf_push_picture_take(struct bf_services *services, struct bf_push_picture *ret);
void bf_push_picture_free(struct bf_push_picture *picture);

/* "push":{..}, a member of status. */
void bf_push_picture_put_json(struct bf_out *o, const struct bf_push_picture *picture);
/* Samples labelled by app and provider: there are at most BF_CONF_PUSH_APPS_MAX; the origins of a
 * Web Push app are put together. */
void bf_push_picture_put_metrics(struct bf_out *o, const struct bf_push_picture *picture);
