/*
 * /metrics: Prometheus text (OPS-2). Everything is a counter kept elsewhere or a gauge computed
 * now; the labels are bounded by what the node is (lanes, stages, workers), never by what people
 * send.
 */
#include <string.h>

#include "admin/admin_impl.h"
#include "stats/metrics.h"
#include "admin/channel_status.h"
#include "belfry/shm/layout.h"
#include "stats/metrics.h"

/* Upper bounds of a stage's buckets in microseconds: 100 us to 30 s. */
static const uint64_t stage_bounds_us[] = {100,     250,     500,     1000,     2500,    5000,
                                           10000,   25000,   50000,   100000,   250000,  500000,
                                           1000000, 2500000, 5000000, 10000000, 30000000};
#define STAGE_BOUNDS (sizeof(stage_bounds_us) / sizeof(stage_bounds_us[0]))

static const double quantiles[] = {0.5, 0.9, 0.99, 0.999};
#define QUANTILES (sizeof(quantiles) / sizeof(quantiles[0]))

const char *bf_funnel_name(unsigned stage)
{
    static const char *const names[BF_FUNNEL_COUNT] = {
        [BF_FUNNEL_ACCEPTED] = "accepted",     [BF_FUNNEL_FANNED_OUT] = "fanned_out",
        [BF_FUNNEL_SUPPRESSED] = "suppressed", [BF_FUNNEL_STORED] = "stored",
        [BF_FUNNEL_DISPATCHED] = "dispatched", [BF_FUNNEL_SENT] = "sent",
        [BF_FUNNEL_DELIVERED] = "delivered",   [BF_FUNNEL_OPENED] = "opened",
        [BF_FUNNEL_EXPIRED] = "expired",       [BF_FUNNEL_FAILED] = "failed",
    };
    return names[stage];
}

const char *bf_stage_name(unsigned stage)
{
    static const char *const names[BF_STAGE_COUNT] = {
        [BF_STAGE_ACCEPT] = "accept", [BF_STAGE_QUEUE] = "queue", [BF_STAGE_FANOUT] = "fanout",
        [BF_STAGE_TOTAL] = "total",   [BF_STAGE_ACK] = "ack",
    };
    return names[stage];
}

static void head(struct bf_out *o, const char *name, const char *type, const char *help)
{
    bf_out_print(o, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void gauge(struct bf_out *o, const char *name, const char *help, uint64_t value)
{
    head(o, name, "gauge", help);
    bf_out_print(o, "%s %llu\n", name, (unsigned long long)value);
}

/* relaxed: counters order nothing */
static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void put_counters(struct bf_out *o)
{
#define X(name, unit, help)                                                                        \
    bf_out_print(o,                                                                                \
                 "# HELP belfry_" #name "_total %s (%s)\n# TYPE belfry_" #name                     \
                 "_total counter\nbelfry_" #name "_total %llu\n",                                  \
                 help, unit, (unsigned long long)load(&bf_ctrl_stats.counters[BF_CM_M_##name]));
#include "stats/metrics.def"
#undef X
}

/* Channels without traffic are left out: they do not exist on this node. */
static void put_funnel(struct bf_out *o)
{
    head(o, "belfry_funnel_total", "counter", "deliveries by stage, lane and channel");
    for (unsigned stage = 0; stage < BF_FUNNEL_COUNT; stage++) {
        for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++) {
            for (unsigned channel = 0; channel < BF_CHANNEL_COUNT; channel++) {
                uint64_t value = load(&bf_ctrl_stats.funnel[stage][lane][channel]);
                if (value == 0 && channel != BF_CHANNEL_INAPP)
                    continue;
                bf_out_print(o,
                             "belfry_funnel_total{stage=\"%s\",lane=\"%s\",channel=\"%s\"} %llu\n",
                             bf_funnel_name(stage), bf_lane_name((enum bf_lane)lane),
                             bf_channel_name((enum bf_channel)channel), (unsigned long long)value);
            }
        }
    }
    head(o, "belfry_suppressed_total", "counter", "deliveries suppressed, by reason");
    for (unsigned i = 1; i < BF_REASON_COUNT; i++) {
        if (bf_reason_is_counted((enum bf_reason)i))
            bf_out_print(o, "belfry_suppressed_total{reason=\"%s\"} %llu\n",
                         bf_reason_name((enum bf_reason)i),
                         (unsigned long long)load(&bf_ctrl_stats.suppressed[i]));
    }
}

/* Cumulative counts of a histogram at the bounds above. */
static void put_histogram(struct bf_out *o, const struct bf_hist *h, const char *labels)
{
    uint64_t total = 0;
    unsigned bucket = 0;
    for (unsigned i = 0; i < STAGE_BOUNDS; i++) {
        while (bucket < BF_HIST_BUCKETS && bf_hist_value(bucket) <= stage_bounds_us[i])
            total += load(&h->buckets[bucket++]);
        bf_out_print(o, "belfry_stage_seconds_bucket{%s,le=\"%g\"} %llu\n", labels,
                     (double)stage_bounds_us[i] / 1e6, (unsigned long long)total);
    }
    while (bucket < BF_HIST_BUCKETS)
        total += load(&h->buckets[bucket++]);
    bf_out_print(o,
                 "belfry_stage_seconds_bucket{%s,le=\"+Inf\"} %llu\n"
                 "belfry_stage_seconds_sum{%s} %g\nbelfry_stage_seconds_count{%s} %llu\n",
                 labels, (unsigned long long)total, labels, (double)load(&h->sum) / 1e6, labels,
                 (unsigned long long)total);
}

/* The i-th stage that latency is kept of: those of every message, then the answers of each
 * channel's providers, by its name. False: there are no more. */
bool bf_latency_at(unsigned i, const char **ret_name, const struct bf_hist **ret_lanes)
{
    if (i < BF_STAGE_COUNT) {
        *ret_name = bf_stage_name(i);
        *ret_lanes = bf_ctrl_stats.stages[i];
        return true;
    }
    for (unsigned c = 0, n = BF_STAGE_COUNT; c < BF_CHANNEL_COUNT; c++) {
        if (!bf_channel_ops_of((uint8_t)c) || n++ < i)
            continue;
        *ret_name = bf_channel_name((enum bf_channel)c);
        *ret_lanes = bf_ctrl_stats.answers[c];
        return true;
    }
    return false;
}

static void put_stages(struct bf_out *o)
{
    char labels[64];
    const char *stage;
    const struct bf_hist *lanes;
    head(o, "belfry_stage_seconds", "histogram", "time spent in a stage, by lane");
    for (unsigned i = 0; bf_latency_at(i, &stage, &lanes); i++) {
        for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++) {
            snprintf(labels, sizeof(labels), "stage=\"%s\",lane=\"%s\"", stage,
                     bf_lane_name((enum bf_lane)lane));
            put_histogram(o, &lanes[lane], labels);
        }
    }
    head(o, "belfry_stage_quantile_seconds", "gauge", "quantiles of a stage since the start");
    for (unsigned i = 0; bf_latency_at(i, &stage, &lanes); i++) {
        for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++) {
            for (unsigned q = 0; q < QUANTILES; q++)
                bf_out_print(
                    o,
                    "belfry_stage_quantile_seconds{stage=\"%s\",lane=\"%s\",quantile=\"%g\"} %g\n",
                    stage, bf_lane_name((enum bf_lane)lane), quantiles[q],
                    (double)bf_hist_quantile(&lanes[lane], quantiles[q]) / 1e6);
        }
    }
}

struct dataplane_metric {
    const char *name, *type, *help;
};

static const struct dataplane_metric dataplane_metrics[] = {
#define TYPE_COUNTER                  "counter"
#define TYPE_GAUGE                    "gauge"
#define NAME_COUNTER(name)            "belfry_dataplane_" name "_total"
#define NAME_GAUGE(name)              "belfry_dataplane_" name
#define X(name_, kind_, unit_, help_) {NAME_##kind_(#name_), TYPE_##kind_, help_ " (" unit_ ")"},
#include "belfry/shm/metrics.def"
#undef X
};

static void put_worker_counters(struct bf_out *o, const struct bf_region *region)
{
    for (unsigned m = 0; m < BF_M_COUNT; m++) {
        const struct dataplane_metric *metric = &dataplane_metrics[m];
        head(o, metric->name, metric->type, metric->help);
        for (uint32_t w = 0; w < region->geometry.workers; w++)
            bf_out_print(o, "%s{worker=\"%u\"} %llu\n", metric->name, w,
                         (unsigned long long)bf_metric_get(bf_stats(region, w), m));
    }
}

static void put_worker_quantiles(struct bf_out *o, const struct bf_region *region, const char *name,
                                 const char *help, size_t offset, double scale)
{
    head(o, name, "gauge", help);
    for (uint32_t w = 0; w < region->geometry.workers; w++) {
        const struct bf_hist *h =
            (const struct bf_hist *)(const void *)((const char *)bf_stats(region, w) + offset);
        for (unsigned q = 0; q < QUANTILES; q++)
            bf_out_print(o, "%s{worker=\"%u\",quantile=\"%g\"} %g\n", name, w, quantiles[q],
                         (double)bf_hist_quantile(h, quantiles[q]) * scale);
    }
}

/* Both ends' words are read one after the other: a depth may be off by what moved in between. */
static uint32_t depth_of(struct rte_ring *ring)
{
    uint32_t cons = bf_ring_load(&ring->cons.tail);
    uint32_t depth = bf_ring_load(&ring->prod.tail) - cons;
    return depth <= ring->capacity ? depth : ring->capacity;
}

static void put_rings(struct bf_out *o, const struct bf_region *region)
{
    const struct bf_geometry *g = &region->geometry;
    head(o, "belfry_ring_depth", "gauge", "commands waiting in a ring");
    for (uint32_t p = 0; p < g->producers; p++) {
        for (uint32_t w = 0; w < g->workers; w++) {
            for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
                bf_out_print(o, "belfry_ring_depth{producer=\"%u\",worker=\"%u\",lane=\"%s\"} %u\n",
                             p, w, bf_lane_name((enum bf_lane)lane),
                             depth_of(bf_command_ring(region, p, w, lane)));
        }
    }
    head(o, "belfry_receipts_ring_depth", "gauge", "receipts waiting in a ring");
    for (uint32_t w = 0; w < g->workers; w++)
        bf_out_print(o, "belfry_receipts_ring_depth{worker=\"%u\"} %u\n", w,
                     depth_of(bf_receipt_ring(region, w)));
}

static void put_region(struct bf_out *o, const struct bf_region *region)
{
    put_worker_counters(o, region);
    put_worker_quantiles(o, region, "belfry_dataplane_turn_quantile_seconds",
                         "quantiles of a worker's turn", offsetof(struct bf_worker_stats, turn_ns),
                         1e-9);
    put_worker_quantiles(o, region, "belfry_dataplane_send_quantile_bytes",
                         "quantiles of the bytes of one send",
                         offsetof(struct bf_worker_stats, send_bytes), 1);
    put_rings(o, region);
}

static void put_dlq(struct bf_out *o, const struct bf_node_status *node)
{
    head(o, "belfry_dlq_depth", "gauge", "dead letters by channel");
    for (unsigned i = 0; i <= BF_CHANNEL_COUNT; i++)
        bf_out_print(o, "belfry_dlq_depth{channel=\"%s\"} %llu\n",
                     i < BF_CHANNEL_COUNT ? bf_channel_name((enum bf_channel)i) : "ingest",
                     (unsigned long long)node->dlq[i]);
}

static void put_gauges(struct bf_out *o, const struct bf_node_status *node)
{
    const struct bf_core_health *h = &node->core;
    head(o, "belfry_log_lag_events", "gauge",
         "events in the log that are not read yet; NaN: not known, nothing is read");
    if (node->log.is_lag_known)
        bf_out_print(o, "belfry_log_lag_events %llu\n", (unsigned long long)node->log.lag_events);
    else
        bf_out_text(o, "belfry_log_lag_events NaN\n");
    gauge(o, "belfry_log_reads", "1: nothing is in the way of reading the log", node->log.reads);
    gauge(o, "belfry_log_can_append", "1: the log takes events", node->log.can_append);
    gauge(o, "belfry_log_can_consume", "1: events are read from the log, or were a moment ago",
          node->log.can_consume);
    gauge(o, "belfry_inflight_events", "events read and not settled", h->inflight);
    head(o, "belfry_oldest_open_seconds", "gauge",
         "age of the oldest unsettled event: lag in time");
    bf_out_print(o, "belfry_oldest_open_seconds %g\n", (double)h->oldest_open_ms / 1e3);
    gauge(o, "belfry_dataplane_attached", "1: a living dataplane is attached",
          h->dataplane_attached);
    gauge(o, "belfry_presence_known", "1: every worker's census is in", h->presence_known);
    gauge(o, "belfry_attach_count", "attaches of the living region (shm.attaches_max bounds them)",
          h->attaches);
    gauge(o, "belfry_users", "users resident in memory", h->users);
    gauge(o, "belfry_connections", "connections known to the control process", h->connections);
    gauge(o, "belfry_jobs", "topic and broadcast expansions under way", h->jobs);
    head(o, "belfry_blocks", "gauge", "payload blocks by state");
    bf_out_print(o, "belfry_blocks{state=\"total\"} %llu\nbelfry_blocks{state=\"free\"} %llu\n",
                 (unsigned long long)h->blocks_total, (unsigned long long)h->blocks_free);
    gauge(o, "belfry_disk_free_bytes", "free space below the state directory", node->disk_free);
    gauge(o, "belfry_disk_size_bytes", "size of the file system below it", node->disk_size);
    gauge(o, "belfry_uptime_seconds", "since the control process started", node->uptime_s);
    head(o, "belfry_build_info", "gauge", "version of this build");
    bf_out_text(o, "belfry_build_info{version=\"" BELFRY_VERSION "\"} 1\n");
}

void bf_admin_metrics(struct bf_request *r)
{
    struct bf_node_status node;
    struct bf_channels_status channels;
    struct bf_out o = {0};
    bf_node_status_take(bf_admin_of(r), &node);
    put_gauges(&o, &node);
    put_dlq(&o, &node);
    if (bf_channels_status_take(bf_admin_of(r)->services, &channels) == 0)
        bf_channels_status_put_metrics(&o, &channels);
    bf_channels_status_free(&channels);
    bf_channels_put_counters(&o);
    put_counters(&o);
    bf_http_metrics_put(&o);
    put_funnel(&o);
    put_stages(&o);
    if (node.region)
        put_region(&o, node.region);
    bf_answer_text(r, 200, "text/plain; version=0.0.4", &o);
}
