/* Health, and what `belfryctl status|top|connections|trace` show: JSON, computed when asked. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/admin_impl.h"
#include "stats/metrics.h"
#include "admin/channel_status.h"
#include "api/status.h"
#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "belfry/shm/layout.h"
#include "stats/metrics.h"

#define CONNECTIONS_LIMIT_DEFAULT 100u
#define CONNECTIONS_LIMIT_MAX     10000u

void bf_node_status_take(struct bf_admin *admin, struct bf_node_status *ret)
{
    struct bf_services *services = admin->services;
    *ret = (struct bf_node_status){.uptime_s = (bf_mono_ms() - admin->started_ms) / 1000};
    bf_core_health(services->core, &ret->core);
    bf_log_health(services->log, &ret->log);
    ret->region = bf_core_region(services->core);
    if (bf_store_disk(services->store, &ret->disk_free, &ret->disk_size) != 0)
        ret->disk_free = ret->disk_size = 0;
    for (unsigned i = 0; i < BF_CHANNEL_COUNT; i++)
        ret->dlq[i] = bf_store_dlq_depth(services->store, (uint8_t)i);
    ret->dlq[BF_CHANNEL_COUNT] = bf_store_dlq_depth(services->store, BF_DLQ_INGEST);
}

bool bf_node_is_ready(const struct bf_node_status *node)
{
    return node->core.dataplane_attached && node->core.presence_known && node->log.can_append &&
           node->log.can_consume;
}

uint64_t bf_node_dataplane_sum(const struct bf_node_status *node, unsigned metric)
{
    uint64_t sum = 0;
    for (uint32_t w = 0; node->region && w < node->region->geometry.workers; w++)
        sum += bf_metric_get(bf_stats(node->region, w), (enum bf_metric)metric);
    return sum;
}

void bf_admin_health(struct bf_request *r)
{
    struct bf_log_health log;
    struct bf_out o = {0};
    bf_log_health(bf_admin_of(r)->services->log, &log);
    if (log.is_stuck) { /* a supervisor may end the process */
        bf_out_text(&o, "{\"status\":\"stuck\",\"version\":\"" BELFRY_VERSION "\",\"log\":");
        bf_out_cstr(&o, log.detail);
        bf_out_text(&o, "}");
    } else {
        bf_out_text(&o, "{\"status\":\"alive\",\"version\":\"" BELFRY_VERSION "\"}");
    }
    bf_answer_json(r, log.is_stuck ? 503 : 200, &o);
}

static void put_bool(struct bf_out *o, const char *member, bool value)
{
    bf_out_text(o, member);
    bf_out_bool(o, value);
}

static void put_uint(struct bf_out *o, const char *member, uint64_t value)
{
    bf_out_text(o, member);
    bf_out_uint(o, value);
}

/* What is missing, by name: members that are false. */
static void put_readiness(struct bf_out *o, const struct bf_node_status *node)
{
    put_bool(o, "\"ready\":", bf_node_is_ready(node));
    put_bool(o, ",\"dataplane_attached\":", node->core.dataplane_attached);
    put_bool(o, ",\"presence_known\":", node->core.presence_known);
    put_bool(o, ",\"log_can_append\":", node->log.can_append);
    put_bool(o, ",\"log_can_consume\":", node->log.can_consume);
    put_bool(o, ",\"log_reads\":", node->log.reads);
    bf_out_text(o, ",\"log\":");
    bf_out_cstr(o, node->log.detail);
}

void bf_admin_ready(struct bf_request *r)
{
    struct bf_node_status node;
    struct bf_out o = {0};
    bf_node_status_take(bf_admin_of(r), &node);
    bf_out_text(&o, "{");
    put_readiness(&o, &node);
    bf_out_text(&o, "}");
    bf_answer_json(r, bf_node_is_ready(&node) ? 200 : 503, &o);
}

/* ---- status ---- */

static void put_core(struct bf_out *o, const struct bf_node_status *node)
{
    const struct bf_core_health *h = &node->core;
    bf_out_print(o, ",\"dataplane\":{\"generation\":\"%016llx\"",
                 (unsigned long long)h->dataplane_generation);
    put_uint(o, ",\"workers\":", h->workers);
    put_uint(o, ",\"attaches\":", h->attaches);
    put_uint(o, ",\"connections\":", bf_node_dataplane_sum(node, BF_M_connections));
    put_uint(o, ",\"welcomed\":", bf_node_dataplane_sum(node, BF_M_connections_welcomed));
    put_uint(o, ",\"frames_sent\":", bf_node_dataplane_sum(node, BF_M_frames_sent));
    put_uint(o, ",\"bytes_sent\":", bf_node_dataplane_sum(node, BF_M_bytes_sent));
    put_uint(o, ",\"acks\":", bf_node_dataplane_sum(node, BF_M_acks));
    put_uint(o, ",\"closes_slow\":", bf_node_dataplane_sum(node, BF_M_closes_slow));
    put_uint(o, ",\"busy_ns\":", bf_node_dataplane_sum(node, BF_M_busy_ns));
    put_uint(o, "},\"users\":", h->users);
    put_uint(o, ",\"connections\":", h->connections);
    put_uint(o, ",\"inflight\":", h->inflight);
    put_uint(o, ",\"oldest_open_ms\":", h->oldest_open_ms);
    put_uint(o, ",\"jobs\":", h->jobs);
    put_uint(o, ",\"blocks\":{\"total\":", h->blocks_total);
    put_uint(o, ",\"free\":", h->blocks_free);
    bf_out_text(o, "},\"lag_events\":");
    if (node->log.is_lag_known)
        bf_out_uint(o, node->log.lag_events);
    else
        bf_out_text(o, "null"); /* what cannot be read has no lag of 0 */
    put_uint(o, ",\"disk\":{\"free\":", node->disk_free);
    put_uint(o, ",\"size\":", node->disk_size);
    bf_out_text(o, "}");
}

static void put_dlq(struct bf_out *o, const struct bf_node_status *node)
{
    bf_out_text(o, ",\"dlq\":{");
    for (unsigned i = 0; i <= BF_CHANNEL_COUNT; i++)
        bf_out_print(o, "%s\"%s\":%llu", i ? "," : "",
                     bf_dlq_channel_name(i < BF_CHANNEL_COUNT ? (uint8_t)i : BF_DLQ_INGEST),
                     (unsigned long long)node->dlq[i]);
    bf_out_text(o, "}");
}

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void put_leg_counters(struct bf_out *o, unsigned channel)
{
    const char *name = bf_channel_name((enum bf_channel)channel);
#define X(metric, unit, help)                                                                      \
    bf_out_print(o, ",\"%s_" #metric "\":%llu", name,                                              \
                 (unsigned long long)load(&bf_ctrl_stats.legs[BF_LM_##metric][channel]));
#include "stats/leg_metrics.def"
#undef X
}

static void put_counters(struct bf_out *o)
{
    bf_out_text(o, ",\"counters\":{");
#define X(name, unit, help)                                                                        \
    bf_out_print(o, "%s\"" #name "\":%llu", BF_CM_M_##name ? "," : "",                             \
                 (unsigned long long)load(&bf_ctrl_stats.counters[BF_CM_M_##name]));
#include "stats/metrics.def"
#undef X
    for (unsigned c = 0; c < BF_CHANNEL_COUNT; c++)
        if (bf_channel_ops_of((uint8_t)c))
            put_leg_counters(o, c);
    bf_out_text(o, "}");
}

/* {"critical":{"accepted":n,...},...}, all channels together. */
static void put_funnel(struct bf_out *o)
{
    bf_out_text(o, ",\"funnel\":{");
    for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++) {
        bf_out_print(o, "%s\"%s\":{", lane ? "," : "", bf_lane_name((enum bf_lane)lane));
        for (unsigned stage = 0; stage < BF_FUNNEL_COUNT; stage++) {
            uint64_t sum = 0;
            for (unsigned channel = 0; channel < BF_CHANNEL_COUNT; channel++)
                sum += load(&bf_ctrl_stats.funnel[stage][lane][channel]);
            bf_out_print(o, "%s\"%s\":%llu", stage ? "," : "", bf_funnel_name(stage),
                         (unsigned long long)sum);
        }
        bf_out_text(o, "}");
    }
    bf_out_text(o, "}");
}

/* {"total":{"critical":{"count":n,"p50_us":..,"p99_us":..},...},...} */
static void put_stages(struct bf_out *o)
{
    const char *stage;
    const struct bf_hist *lanes;
    bf_out_text(o, ",\"stages\":{");
    for (unsigned i = 0; bf_latency_at(i, &stage, &lanes); i++) {
        bf_out_print(o, "%s\"%s\":{", i ? "," : "", stage);
        for (unsigned lane = 0; lane < BF_LANE_COUNT; lane++) {
            const struct bf_hist *h = &lanes[lane];
            bf_out_print(o, "%s\"%s\":{\"count\":%llu,\"p50_us\":%llu,\"p99_us\":%llu}",
                         lane ? "," : "", bf_lane_name((enum bf_lane)lane),
                         (unsigned long long)load(&h->count),
                         (unsigned long long)bf_hist_quantile(h, 0.5),
                         (unsigned long long)bf_hist_quantile(h, 0.99));
        }
        bf_out_text(o, "}");
    }
    bf_out_text(o, "}");
}

void bf_admin_status(struct bf_request *r)
{
    struct bf_node_status node;
    struct bf_channels_status channels;
    struct bf_out o = {0};
    if (!bf_admin_is_operator(r))
        return;
    bf_node_status_take(bf_admin_of(r), &node);
    int rc = bf_channels_status_take(bf_admin_of(r)->services, &channels);
    if (rc != 0) {
        bf_channels_status_free(&channels);
        bf_answer_error(r, rc);
        return;
    }
    bf_out_print(&o, "{\"version\":\"" BELFRY_VERSION "\",\"pid\":%ld,\"uptime_s\":%llu,",
                 (long)getpid(), (unsigned long long)node.uptime_s);
    put_readiness(&o, &node);
    put_core(&o, &node);
    put_dlq(&o, &node);
    bf_channels_status_put_json(&o, &channels);
    bf_channels_status_free(&channels);
    put_counters(&o);
    put_funnel(&o);
    put_stages(&o);
    bf_out_text(&o, "}");
    bf_answer_json(r, 200, &o);
}

/* ---- connections ---- */

struct connection_list {
    struct bf_out o;
    struct bf_bytes tenant; /* at NULL: all */
    uint32_t count;
};

static void put_seqs(struct bf_out *o, const char *member, const uint64_t seqs[BF_LANE_COUNT])
{
    bf_out_text(o, member);
    for (unsigned i = 0; i < BF_LANE_COUNT; i++)
        bf_out_print(o, "%s\"%s\":%llu", i ? "," : "{", bf_lane_name((enum bf_lane)i),
                     (unsigned long long)seqs[i]);
    bf_out_text(o, "}");
}

static void add_connection(void *arg, const struct bf_connection_row *row)
{
    struct connection_list *list = arg;
    struct bf_out *o = &list->o;
    if (list->tenant.at && !bf_bytes_is_equal(row->uid.tenant, list->tenant))
        return;
    bf_out_text(o, list->count++ > 0 ? ",{\"user_id\":" : "{\"user_id\":");
    bf_out_str(o, row->uid.user);
    bf_out_text(o, ",\"tenant\":");
    bf_out_str(o, row->uid.tenant);
    bf_out_text(o, ",\"device\":");
    bf_out_str(o, row->device);
    bf_out_print(o, ",\"device_hash\":\"%016llx\",\"worker\":%u,\"conn\":%llu,\"connected_at\":",
                 (unsigned long long)row->device_hash, row->worker, (unsigned long long)row->conn);
    bf_out_time(o, row->connected_ms);
    put_seqs(o, ",\"sent\":", row->sent);
    put_seqs(o, ",\"acked\":", row->acked);
    bf_out_text(o, "}");
}

static bool query_limit(struct bf_request *r, uint32_t *ret_limit)
{
    char text[12];
    struct bf_bytes value;
    *ret_limit = CONNECTIONS_LIMIT_DEFAULT;
    if (!bf_request_query(r, "limit", text, sizeof(text) - 1, &value))
        return false;
    if (!value.at)
        return true;
    text[value.len] = '\0';
    unsigned long number = strtoul(text, NULL, 10);
    if (number < 1 || number > CONNECTIONS_LIMIT_MAX) {
        bf_answer_fail(r, 400, "bad-query", "limit", "limit is 1..%u", CONNECTIONS_LIMIT_MAX);
        return false;
    }
    *ret_limit = (uint32_t)number;
    return true;
}

/* A user without a connection is offline; an unknown user is a mistyped id. */
static int find_user(struct bf_store *store, struct bf_uid uid)
{
    char *json = NULL;
    size_t len = 0;
    int rc = bf_store_get_user(store, uid, &json, &len);
    free(json);
    return rc == BF_ERR_NOT_FOUND ? BF_ERR_UNKNOWN_USER : rc;
}

void bf_admin_connections(struct bf_request *r)
{
    static const char *const presence_names[] = {"unknown", "offline", "online"};
    struct connection_list list = {.tenant = bf_admin_tenant(r)};
    enum bf_presence presence = BF_PRESENCE_UNKNOWN;
    char user_room[BF_USER_ID_BYTES_MAX];
    char tenant_room[BF_TENANT_BYTES_MAX];
    struct bf_uid uid;
    uint32_t limit;
    if (!query_limit(r, &limit) ||
        !bf_request_query(r, "user_id", user_room, sizeof(user_room), &uid.user) ||
        !bf_request_query(r, "tenant", tenant_room, sizeof(tenant_room), &uid.tenant))
        return;
    if (list.tenant.at)
        uid.tenant = list.tenant;
    else if (!uid.tenant.at)
        uid.tenant = BF_BYTES("");
    bf_out_text(&list.o, "{\"connections\":[");
    int rc = bf_core_walk_connections(bf_admin_of(r)->services->core, uid, limit, add_connection,
                                      &list, &presence);
    if (rc == 0 && uid.user.at && list.count == 0)
        rc = find_user(bf_admin_of(r)->services->store, uid);
    if (rc != 0) {
        bf_out_free(&list.o);
        if (rc == BF_ERR_UNKNOWN_USER)
            bf_answer_fail(r, 404, "unknown-user", "user_id", "no user has this id in this tenant");
        else
            bf_answer_error(r, rc);
        return;
    }
    bf_out_print(&list.o, "],\"count\":%u", list.count);
    if (uid.user.at)
        bf_out_print(&list.o, ",\"presence\":\"%s\"", presence_names[presence % 3]);
    bf_out_text(&list.o, "}");
    bf_answer_json(r, 200, &list.o);
}

void bf_admin_trace(struct bf_request *r)
{
    struct bf_out o = {0};
    int rc = bf_status_write(bf_admin_of(r)->services->store, &r->id, bf_admin_tenant(r), &o);
    if (rc == 0)
        bf_answer_json(r, 200, &o);
    else if (rc == BF_ERR_NOT_FOUND)
        bf_answer_fail(r, 404, "not-found", "id",
                       "no notification has this id, or its status is kept no longer");
    else
        bf_answer_error(r, rc);
    bf_out_free(&o);
}
