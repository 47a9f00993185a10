/* See push_picture.h. */
#include "admin/push_picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "belfry/conf/conf.h"
#include "channels/push/push_note.h"
#include "ingest/event.h"
#include "main/services.h"
#include "store/legs.h"

/* Room to begin with: most nodes have a few apps. */
#define LINES_FIRST 8u

static struct bf_push_line *next_line(struct bf_push_picture *p)
{
    if (p->count == p->cap) {
        uint32_t cap = p->cap ? 2 * p->cap : LINES_FIRST;
        struct bf_push_line *lines = realloc(p->lines, cap * sizeof(*lines));
        if (!lines)
            return NULL;
        p->lines = lines;
        p->cap = cap;
    }
    return &p->lines[p->count++];
}

/* Texts of a row are views until the walk goes on; a line outlives it. */
static void add_line(void *arg, const struct bf_push_creds_row *row)
{
    struct bf_push_picture *p = arg;
    struct bf_push_line *line = next_line(p);
    if (!line)
        return; /* the answer itself fails for want of memory soon */
    memset(line, 0, sizeof(*line));
    line->creds = *row;
    bf_format(line->app, sizeof(line->app), "%s", row->app);
    bf_format(line->failover, sizeof(line->failover), "%s", row->failover);
    bf_format(line->authority, sizeof(line->authority), "%s", row->authority);
    bf_format(line->why, sizeof(line->why), "%s", row->why);
}

int bf_push_picture_take(struct bf_services *services, struct bf_push_picture *ret)
{
    *ret = (struct bf_push_picture){.apps = atomic_load(&services->conf)->push_app_count};
    for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++)
        ret->queue[lane] = bf_store_leg_depth(services->store, BF_CHANNEL_PUSH, (enum bf_lane)lane);
    bf_push_creds_walk(services->push, add_line, ret);
    if (ret->count == 0)
        return 0;
    struct bf_pool_totals *totals = calloc(1, sizeof(*totals));
    int rc = totals ? bf_core_pool_totals(services->core, totals) : BF_ERR_NO_MEMORY;
    for (uint32_t i = 0; rc == 0 && i < ret->count; i++) {
        struct bf_push_line *line = &ret->lines[i];
        const struct bf_pool_total *total = bf_pool_total_find(totals, line->creds.pool);
        line->creds.app = line->app; /* the array moves no more */
        line->creds.failover = line->failover;
        line->creds.authority = line->authority;
        line->creds.why = line->why;
        (void)bf_core_pool_report(services->core, line->creds.pool, &line->report);
        if (total)
            line->total = *total;
    }
    free(totals);
    return rc;
}

void bf_push_picture_free(struct bf_push_picture *picture)
{
    free(picture->lines);
    *picture = (struct bf_push_picture){0};
}

/* ---- status -------------------------------------------------------------------------------------
 */

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

static void put_credential(struct bf_out *o, const struct bf_push_creds_row *row)
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

static void put_line(struct bf_out *o, const struct bf_push_line *line)
{
    bf_out_text(o, "{\"app\":");
    bf_out_cstr(o, line->app);
    bf_out_print(o, ",\"kind\":\"%s\",\"authority\":", bf_push_kind_name(line->creds.kind));
    bf_out_cstr(o, line->authority);
    bf_out_print(o, ",\"pool\":%u,\"ready\":", line->creds.pool);
    bf_out_bool(o, line->creds.is_ready);
    bf_out_text(o, ",\"why\":");
    bf_out_cstr(o, line->why);
    put_uint(o, ",\"addresses\":", line->creds.addresses);
    put_credential(o, &line->creds);
    put_report(o, &line->report);
    put_total(o, &line->total);
    bf_out_text(o, ",\"failover\":");
    bf_out_cstr(o, line->failover);
    bf_out_text(o, "}");
}

void bf_push_picture_put_json(struct bf_out *o, const struct bf_push_picture *p)
{
    bf_out_print(o, ",\"push\":{\"apps\":%u,\"queue\":{", p->apps);
    for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++)
        bf_out_print(o, "%s\"%s\":%llu", lane ? "," : "", bf_lane_name((enum bf_lane)lane),
                     (unsigned long long)p->queue[lane]);
    bf_out_text(o, "},\"pools\":[");
    for (uint32_t i = 0; i < p->count; i++) {
        bf_out_text(o, i ? "," : "");
        put_line(o, &p->lines[i]);
    }
    bf_out_text(o, "]}");
}

/* ---- metrics ------------------------------------------------------------------------------------
 */

/* One value of a line; how those of an app's pools are put together. */
struct sample {
    const char *name, *type, *help;
    uint64_t (*of)(const struct bf_push_line *line);
    bool is_worst; /* the largest; else the sum */
};

#define OF(name, value)                                                                            \
    static uint64_t name(const struct bf_push_line *line)                                          \
    {                                                                                              \
        return (value);                                                                            \
    }
OF(unready_of, line->creds.pool != 0 && !line->creds.is_ready)
OF(credential_failures_of, line->creds.failures)
OF(connections_of, line->report.connections)
OF(connecting_of, line->report.connecting)
OF(streams_of, line->report.streams)
OF(streams_max_of, line->report.streams_max)
OF(waiting_of, line->report.waiting)
OF(failures_of, line->report.failures)
OF(goaways_of, line->report.goaways)
OF(breaker_of, bf_breaker_badness(line->total.breaker))
OF(opened_of, line->total.opened_count)
OF(flights_of, line->total.attempts_out)
OF(rate_of, line->total.rate_per_min)
OF(limit_of, line->total.limit_per_min)
OF(stopped_of, line->total.stopped_until_ms != 0)
OF(failed_over_of, line->total.failed_over)

static const struct sample samples[] = {
    {"belfry_push_pool_unready", "gauge", "pools without a credential or an address", unready_of,
     false},
    {"belfry_push_credential_failures", "gauge",
     "attempts in a row that brought no credential, the worst pool", credential_failures_of, true},
    {"belfry_push_pool_connections", "gauge", "open connections to the provider", connections_of,
     false},
    {"belfry_push_pool_connecting", "gauge", "connections being opened", connecting_of, false},
    {"belfry_push_pool_streams", "gauge", "requests on their way", streams_of, false},
    {"belfry_push_pool_streams_max", "gauge", "requests that the provider allows at once",
     streams_max_of, false},
    {"belfry_push_pool_waiting", "gauge", "requests that wait for a stream", waiting_of, false},
    {"belfry_push_pool_failures_total", "counter",
     "connections that could not be opened or died, since the dataplane started", failures_of,
     false},
    {"belfry_push_pool_goaways_total", "counter", "GOAWAYs, since the dataplane started",
     goaways_of, false},
    {"belfry_push_breaker_state", "gauge",
     "0 closed, 1 ramp, 2 probe, 3 open: the worst of pools and shards", breaker_of, true},
    {"belfry_push_breaker_opened_total", "counter",
     "times that a breaker opened, since the control process started", opened_of, false},
    {"belfry_push_flights", "gauge", "pushes handed to the workers and not answered", flights_of,
     false},
    {"belfry_push_limit_per_min", "gauge", "pushes a minute that the provider allows; 0: any",
     limit_of, false},
    {"belfry_push_rate_per_min", "gauge", "pushes a minute that are sent at most by now", rate_of,
     false},
    {"belfry_push_pool_stopped", "gauge",
     "pools that send nothing: their credential was refused for good", stopped_of, false},
    {"belfry_push_failed_over_total", "counter",
     "pushes that the app's failover took, since the control process started", failed_over_of,
     false},
};

static bool is_same_app(const struct bf_push_line *a, const struct bf_push_line *b)
{
    return a->creds.kind == b->creds.kind && strcmp(a->app, b->app) == 0;
}

/* |first|..|end| are of one app. */
static void put_sample(struct bf_out *o, const struct sample *sample,
                       const struct bf_push_line *first, const struct bf_push_line *end)
{
    uint64_t value = 0;
    for (const struct bf_push_line *line = first; line < end; line++) {
        uint64_t one = sample->of(line);
        if (!sample->is_worst)
            value += one;
        else if (one > value)
            value = one;
    }
    bf_out_print(o, "%s{app=", sample->name);
    bf_out_cstr(o, first->app);
    bf_out_print(o, ",kind=\"%s\"} %llu\n", bf_push_kind_name(first->creds.kind),
                 (unsigned long long)value);
}

void bf_push_picture_put_metrics(struct bf_out *o, const struct bf_push_picture *p)
{
    bf_out_text(o, "# HELP belfry_push_queue_depth pushes that wait for their time\n"
                   "# TYPE belfry_push_queue_depth gauge\n");
    for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++)
        bf_out_print(o, "belfry_push_queue_depth{lane=\"%s\"} %llu\n",
                     bf_lane_name((enum bf_lane)lane), (unsigned long long)p->queue[lane]);
    const struct bf_push_line *end = p->lines + p->count;
    for (size_t s = 0; p->count > 0 && s < sizeof(samples) / sizeof(samples[0]); s++) {
        bf_out_print(o, "# HELP %s %s\n# TYPE %s %s\n", samples[s].name, samples[s].help,
                     samples[s].name, samples[s].type);
        for (const struct bf_push_line *first = p->lines, *next; first < end; first = next) {
            next = first + 1;
            while (next < end && is_same_app(first, next))
                next++;
            put_sample(o, &samples[s], first, next);
        }
    }
}
