/*
 * What the control process counts: plain counters, the delivery funnel by lane and channel, and
 * stage latency. Process-wide and lock-free: any thread adds (relaxed: counters order nothing),
 * /metrics reads.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "belfry/base/histogram.h"
#include "belfry/base/limits.h"
#include "terms/channel.h"
#include "terms/reason.h"

enum bf_ctrl_metric {
#define X(name, unit, help) BF_CM_M_##name,
#include "stats/metrics.def"
#undef X
    BF_CM_M_COUNT
};

/* Of what goes out by providers, each counted by channel. */
enum bf_leg_metric {
#define X(name, unit, help) BF_LM_##name,
#include "stats/leg_metrics.def"
#undef X
    BF_LM_COUNT
};

/* Stages of the delivery funnel (OPS-2), each counted by lane and channel. */
enum bf_funnel {
    BF_FUNNEL_ACCEPTED = 0,   /* events durable in the log (channel inapp) */
    BF_FUNNEL_FANNED_OUT = 1, /* deliveries decided */
    BF_FUNNEL_SUPPRESSED = 2,
    BF_FUNNEL_STORED = 3,     /* in the inbox */
    BF_FUNNEL_DISPATCHED = 4, /* handed to a worker's ring */
    BF_FUNNEL_SENT = 5,       /* accepted by a provider; no device has confirmed it yet */
    BF_FUNNEL_DELIVERED = 6,  /* acknowledged by a device */
    BF_FUNNEL_OPENED = 7,
    BF_FUNNEL_EXPIRED = 8,
    BF_FUNNEL_FAILED = 9,
    BF_FUNNEL_COUNT
};

/* Latency of a stage, microseconds. */
enum bf_stage {
    BF_STAGE_ACCEPT = 0, /* request read -> durable */
    BF_STAGE_QUEUE = 1,  /* durable -> taken by a shard */
    BF_STAGE_FANOUT = 2, /* taken by a shard -> decided, written, in the ring */
    BF_STAGE_TOTAL = 3,  /* accepted -> in the ring */
    BF_STAGE_ACK = 4,    /* in the ring -> acknowledged by a device */
    BF_STAGE_COUNT
};

struct bf_ctrl_stats {
    _Atomic uint64_t counters[BF_CM_M_COUNT];
    _Atomic uint64_t funnel[BF_FUNNEL_COUNT][BF_LANE_COUNT][BF_CHANNEL_COUNT];
    _Atomic uint64_t suppressed[BF_REASON_COUNT];
    _Atomic uint64_t legs[BF_LM_COUNT][BF_CHANNEL_COUNT];
    /* request written -> answered by the provider, [channel][lane] */
    struct bf_hist answers[BF_CHANNEL_COUNT][BF_LANE_COUNT];
    /* [stage][lane]; added to with bf_stage_add (several writers) */
    struct bf_hist stages[BF_STAGE_COUNT][BF_LANE_COUNT];
};

extern struct bf_ctrl_stats bf_ctrl_stats;

static inline void bf_count(enum bf_ctrl_metric metric, uint64_t by)
{
    atomic_fetch_add_explicit(&bf_ctrl_stats.counters[metric], by, memory_order_relaxed);
}

static inline void bf_funnel_count(enum bf_funnel stage, enum bf_lane lane, enum bf_channel channel,
                                   uint64_t by)
{
    atomic_fetch_add_explicit(&bf_ctrl_stats.funnel[stage][lane][channel], by,
                              memory_order_relaxed);
}

static inline void bf_leg_count(enum bf_leg_metric metric, unsigned channel, uint64_t by)
{
    if (channel < BF_CHANNEL_COUNT)
        atomic_fetch_add_explicit(&bf_ctrl_stats.legs[metric][channel], by, memory_order_relaxed);
}

static inline void bf_latency_add(struct bf_hist *h, uint64_t us)
{
    atomic_fetch_add_explicit(&h->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum, us, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->buckets[bf_hist_index(us)], 1, memory_order_relaxed);
    if (us > atomic_load_explicit(&h->max, memory_order_relaxed))
        atomic_store_explicit(&h->max, us, memory_order_relaxed);
}

static inline void bf_stage_add(enum bf_stage stage, enum bf_lane lane, uint64_t us)
{
    bf_latency_add(&bf_ctrl_stats.stages[stage][lane], us);
}

static inline void bf_answer_add(enum bf_channel channel, enum bf_lane lane, uint64_t us)
{
    bf_latency_add(&bf_ctrl_stats.answers[channel][lane], us);
}
