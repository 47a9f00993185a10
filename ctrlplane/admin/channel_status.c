/* See channel_status.h. */
#include "admin/channel_status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stats/metrics.h"
#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "config/services.h"
#include "store/legs.h"

/* Room to begin with: most nodes have a few apps. */
#define POOLS_FIRST 8u

static struct bf_pool_status *next_pool(struct bf_channel_status *s)
{
    if (s->count == s->cap) {
        uint32_t cap = s->cap ? 2 * s->cap : POOLS_FIRST;
        struct bf_pool_status *pools = realloc(s->pools, cap * sizeof(*pools));
        if (!pools)
            return NULL;
        s->pools = pools;
        s->cap = cap;
    }
    return &s->pools[s->count++];
}

/* Texts of a row are borrowed until the walk goes on; what is shown outlives it. */
static void add_pool(void *arg, const struct bf_pool_row *row)
{
    struct bf_pool_status *pool = next_pool(arg);
    if (!pool)
        return; /* the answer itself fails for want of memory soon */
    memset(pool, 0, sizeof(*pool));
    pool->row = *row;
    bf_format(pool->account, sizeof(pool->account), "%s", row->account);
    bf_format(pool->failover, sizeof(pool->failover), "%s", row->failover);
    bf_format(pool->authority, sizeof(pool->authority), "%s", row->authority);
    bf_format(pool->why, sizeof(pool->why), "%s", row->why);
}

/* What workers and shards say of the channel's pools. */
static void complete(struct bf_services *services, uint8_t channel,
                     const struct bf_pool_totals *totals, struct bf_channel_status *s)
{
    bool is_dataplanes = bf_channel_ops_of(channel)->snapshot != NULL; /* it has the connections */
    for (uint32_t i = 0; i < s->count; i++) {
        struct bf_pool_status *pool = &s->pools[i];
        const struct bf_pool_total *total = bf_pool_total_find(totals, channel, pool->row.pool);
        pool->row.account = pool->account; /* the array moves no more */
        pool->row.failover = pool->failover;
        pool->row.authority = pool->authority;
        pool->row.why = pool->why;
        if (is_dataplanes)
            (void)bf_core_pool_report(services->core, pool->row.pool, &pool->report);
        if (total)
            pool->total = *total;
    }
}

int bf_channels_status_take(struct bf_services *services, struct bf_channels_status *ret)
{
    uint32_t pools = 0;
    *ret = (struct bf_channels_status){0};
    for (uint8_t c = 0; c < BF_CHANNEL_COUNT; c++) {
        struct bf_channel_status *s = &ret->at[c];
        struct bf_channel_state *channel = services->channels ? services->channels->at[c] : NULL;
        if (!channel)
            continue;
        s->is_there = true;
        for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++)
            s->queue[lane] = bf_store_leg_depth(services->store, c, (enum bf_lane)lane);
        s->accounts = bf_channel_ops_of(c)->pools(channel, add_pool, s);
        pools += s->count;
    }
    if (pools == 0)
        return 0;
    struct bf_pool_totals *totals = calloc(1, sizeof(*totals));
    int rc = totals ? bf_core_pool_totals(services->core, totals) : BF_ERR_NO_MEMORY;
    for (uint8_t c = 0; c < BF_CHANNEL_COUNT && rc == 0; c++)
        if (ret->at[c].is_there)
            complete(services, c, totals, &ret->at[c]);
    free(totals);
    return rc;
}

void bf_channels_status_free(struct bf_channels_status *status)
{
    for (uint8_t c = 0; c < BF_CHANNEL_COUNT; c++)
        free(status->at[c].pools);
    *status = (struct bf_channels_status){0};
}

/* ---- status ---- */

static void put_uint(struct bf_out *o, const char *member, uint64_t value)
{
    bf_out_text(o, member);
    bf_out_uint(o, value);
}

static void put_time(struct bf_out *o, const char *member, uint64_t ms)
{
    if (ms == 0)
        return;
    bf_out_text(o, member);
    bf_out_time(o, ms);
}

static void put_credential(struct bf_out *o, const struct bf_pool_row *row)
{
    bf_out_print(o, ",\"credential\":{\"kind\":\"%s\"",
                 row->is_certificate ? "certificate" : "token");
    put_time(o, ",\"renewed_at\":", row->minted_ms);
    put_time(o, ",\"renews_at\":", row->minted_ms ? row->renew_ms : 0);
    put_time(o, ",\"expires_at\":", row->expires_ms);
    put_uint(o, ",\"failures\":", row->failures);
    bf_out_text(o, "}");
}

static void put_report(struct bf_out *o, const struct bf_pool_report *report)
{
    put_uint(o, ",\"connections\":", report->connections);
    put_uint(o, ",\"connecting\":", report->connecting);
    put_uint(o, ",\"streams\":", report->streams);
    put_uint(o, ",\"streams_max\":", report->streams_max);
    put_uint(o, ",\"waiting\":", report->waiting);
    put_uint(o, ",\"failures\":", report->failures);
    put_uint(o, ",\"goaways\":", report->goaways);
    if (report->text_ms == 0)
        return;
    bf_out_text(o, ",\"last\":");
    bf_out_cstr(o, report->text);
    put_time(o, ",\"last_at\":", report->text_ms);
}

static void put_total(struct bf_out *o, const struct bf_pool_total *total)
{
    bf_out_print(o, ",\"breaker\":\"%s\"", bf_breaker_state_name(total->breaker));
    put_uint(o, ",\"breaker_opened\":", total->opened_count);
    put_uint(o, ",\"flights\":", total->attempts_out);
    put_uint(o, ",\"limit_per_min\":", total->limit_per_min);
    put_uint(o, ",\"rate_per_min\":", total->rate_per_min);
    put_time(o, ",\"stopped_until\":", total->stopped_until_ms);
    put_uint(o, ",\"failed_over\":", total->failed_over);
    put_time(o, ",\"failed_over_at\":", total->failed_over_ms);
}

static void put_pool(struct bf_out *o, const struct bf_pool_status *pool)
{
    bf_out_text(o, "{\"app\":");
    bf_out_cstr(o, pool->account);
    bf_out_print(o, ",\"kind\":\"%s\",\"authority\":", pool->row.kind);
    bf_out_cstr(o, pool->authority);
    bf_out_print(o, ",\"pool\":%u,\"ready\":", pool->row.pool);
    bf_out_bool(o, pool->row.is_ready);
    bf_out_text(o, ",\"why\":");
    bf_out_cstr(o, pool->why);
    put_uint(o, ",\"addresses\":", pool->row.addresses);
    put_credential(o, &pool->row);
    put_report(o, &pool->report);
    put_total(o, &pool->total);
    bf_out_text(o, ",\"failover\":");
    bf_out_cstr(o, pool->failover);
    bf_out_text(o, "}");
}

static void put_channel(struct bf_out *o, const char *name, const struct bf_channel_status *s)
{
    bf_out_print(o, ",\"%s\":{\"apps\":%u,\"queue\":{", name, s->accounts);
    for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++)
        bf_out_print(o, "%s\"%s\":%llu", lane ? "," : "", bf_lane_name((enum bf_lane)lane),
                     (unsigned long long)s->queue[lane]);
    bf_out_text(o, "},\"pools\":[");
    for (uint32_t i = 0; i < s->count; i++) {
        bf_out_text(o, i ? "," : "");
        put_pool(o, &s->pools[i]);
    }
    bf_out_text(o, "]}");
}

void bf_channels_status_put_json(struct bf_out *o, const struct bf_channels_status *status)
{
    for (unsigned c = 0; c < BF_CHANNEL_COUNT; c++)
        if (status->at[c].is_there)
            put_channel(o, bf_channel_name((enum bf_channel)c), &status->at[c]);
}

/* ---- metrics ---- */

/* One value of a pool; how those of an app's pools are put together. */
struct sample {
    const char *name, *type, *help;
    uint64_t (*of)(const struct bf_pool_status *pool);
    bool is_worst; /* the largest; else the sum */
};

#define OF(name, value)                                                                            \
    static uint64_t name(const struct bf_pool_status *pool)                                        \
    {                                                                                              \
        return (value);                                                                            \
    }
OF(unready_of, pool->row.pool != 0 && !pool->row.is_ready)
OF(credential_failures_of, pool->row.failures)
OF(connections_of, pool->report.connections)
OF(connecting_of, pool->report.connecting)
OF(streams_of, pool->report.streams)
OF(streams_max_of, pool->report.streams_max)
OF(waiting_of, pool->report.waiting)
OF(failures_of, pool->report.failures)
OF(goaways_of, pool->report.goaways)
OF(breaker_of, bf_breaker_badness(pool->total.breaker))
OF(opened_of, pool->total.opened_count)
OF(flights_of, pool->total.attempts_out)
OF(rate_of, pool->total.rate_per_min)
OF(limit_of, pool->total.limit_per_min)
OF(stopped_of, pool->total.stopped_until_ms != 0)
OF(failed_over_of, pool->total.failed_over)

static const struct sample samples[] = {
    {"pool_unready", "gauge", "pools without a credential or an address", unready_of, false},
    {"credential_failures", "gauge", "attempts in a row that brought no credential, the worst pool",
     credential_failures_of, true},
    {"pool_connections", "gauge", "open connections to the provider", connections_of, false},
    {"pool_connecting", "gauge", "connections being opened", connecting_of, false},
    {"pool_streams", "gauge", "requests on their way", streams_of, false},
    {"pool_streams_max", "gauge", "requests that the provider allows at once", streams_max_of,
     false},
    {"pool_waiting", "gauge", "requests that wait for a stream", waiting_of, false},
    {"pool_failures_total", "counter",
     "connections that could not be opened or died, since the dataplane started", failures_of,
     false},
    {"pool_goaways_total", "counter", "GOAWAYs, since the dataplane started", goaways_of, false},
    {"breaker_state", "gauge", "0 closed, 1 ramp, 2 probe, 3 open: the worst of pools and shards",
     breaker_of, true},
    {"breaker_opened_total", "counter",
     "times that a breaker opened, since the control process started", opened_of, false},
    {"flights", "gauge", "messages handed over and not answered", flights_of, false},
    {"limit_per_min", "gauge", "messages a minute that the provider allows; 0: any", limit_of,
     false},
    {"rate_per_min", "gauge", "messages a minute that are sent at most by now", rate_of, false},
    {"pool_stopped", "gauge", "pools that send nothing: their credential was refused for good",
     stopped_of, false},
    {"failed_over_total", "counter",
     "messages that the app's failover took, since the control process started", failed_over_of,
     false},
};

static bool is_same_account(const struct bf_pool_status *a, const struct bf_pool_status *b)
{
    return strcmp(a->row.kind, b->row.kind) == 0 && strcmp(a->account, b->account) == 0;
}

/* |first|..|end| are of one account. */
static void put_sample(struct bf_out *o, const char *channel, const struct sample *sample,
                       const struct bf_pool_status *first, const struct bf_pool_status *end)
{
    uint64_t value = 0;
    for (const struct bf_pool_status *pool = first; pool < end; pool++) {
        uint64_t one = sample->of(pool);
        if (!sample->is_worst)
            value += one;
        else if (one > value)
            value = one;
    }
    bf_out_print(o, "belfry_%s_%s{app=", channel, sample->name);
    bf_out_cstr(o, first->account);
    bf_out_print(o, ",kind=\"%s\"} %llu\n", first->row.kind, (unsigned long long)value);
}

static void put_samples(struct bf_out *o, const char *channel, const struct bf_channel_status *s)
{
    const struct bf_pool_status *end = s->pools + s->count;
    for (size_t i = 0; s->count > 0 && i < sizeof(samples) / sizeof(samples[0]); i++) {
        bf_out_print(o, "# HELP belfry_%s_%s %s\n# TYPE belfry_%s_%s %s\n", channel,
                     samples[i].name, samples[i].help, channel, samples[i].name, samples[i].type);
        for (const struct bf_pool_status *first = s->pools, *next; first < end; first = next) {
            next = first + 1;
            while (next < end && is_same_account(first, next))
                next++;
            put_sample(o, channel, &samples[i], first, next);
        }
    }
}

static void put_counters(struct bf_out *o, const char *channel, unsigned c)
{
    static const struct {
        const char *name, *unit, *help;
    } counters[BF_LM_COUNT] = {
#define X(name, unit, help) {#name, unit, help},
#include "stats/leg_metrics.def"
#undef X
    };
    for (unsigned i = 0; i < BF_LM_COUNT; i++) {
        /* relaxed: counters order nothing */
        uint64_t value = atomic_load_explicit(&bf_ctrl_stats.legs[i][c], memory_order_relaxed);
        bf_out_print(o,
                     "# HELP belfry_%s_%s_total %s (%s)\n# TYPE belfry_%s_%s_total counter\n"
                     "belfry_%s_%s_total %llu\n",
                     channel, counters[i].name, counters[i].help, counters[i].unit, channel,
                     counters[i].name, channel, counters[i].name, (unsigned long long)value);
    }
}

void bf_channels_status_put_metrics(struct bf_out *o, const struct bf_channels_status *status)
{
    for (unsigned c = 0; c < BF_CHANNEL_COUNT; c++) {
        const struct bf_channel_status *s = &status->at[c];
        const char *channel = bf_channel_name((enum bf_channel)c);
        if (!s->is_there)
            continue;
        bf_out_print(o,
                     "# HELP belfry_%s_queue_depth messages that wait for their time\n"
                     "# TYPE belfry_%s_queue_depth gauge\n",
                     channel, channel);
        for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++)
            bf_out_print(o, "belfry_%s_queue_depth{lane=\"%s\"} %llu\n", channel,
                         bf_lane_name((enum bf_lane)lane), (unsigned long long)s->queue[lane]);
        put_samples(o, channel, s);
    }
}

void bf_channels_put_counters(struct bf_out *o)
{
    for (unsigned c = 0; c < BF_CHANNEL_COUNT; c++)
        if (bf_channel_ops_of((uint8_t)c))
            put_counters(o, bf_channel_name((enum bf_channel)c), c);
}
