/* /metrics of the API's connections: what they are doing, who was turned away, who took too long.
 */
#include "admin/admin_impl.h"
#include "api/api.h"

static const char *const states[BF_HTTP_CONN_STATE_COUNT] = {
    [BF_HTTP_CONN_HEAD] = "head",       [BF_HTTP_CONN_BODY] = "body",
    [BF_HTTP_CONN_WORKING] = "working", [BF_HTTP_CONN_WRITING] = "writing",
    [BF_HTTP_CONN_IDLE] = "idle",       [BF_HTTP_CONN_CLOSING] = "closing",
};

static const char *const refusals[BF_REFUSED_COUNT] = {
    [BF_REFUSED_CONNECTIONS] = "connections",
    [BF_REFUSED_ADDRESS] = "address",
    [BF_REFUSED_DESCRIPTORS] = "descriptors",
    [BF_REFUSED_MALFORMED] = "malformed",
    [BF_REFUSED_TLS] = "tls",
    [BF_REFUSED_KEY] = "key",
};

/* States that have a deadline which a client can pass. */
static const enum bf_http_conn_state timed[] = {BF_HTTP_CONN_HEAD, BF_HTTP_CONN_BODY,
                                                BF_HTTP_CONN_WRITING, BF_HTTP_CONN_IDLE};

static uint64_t load(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed); /* counters order nothing */
}

static void head(struct bf_out *o, const char *name, const char *type, const char *help)
{
    bf_out_print(o, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_one(struct bf_out *o, const char *name, const char *help, uint64_t value)
{
    head(o, name, "counter", help);
    bf_out_print(o, "%s %llu\n", name, (unsigned long long)value);
}

void bf_http_metrics_put(struct bf_out *o)
{
    const struct bf_http_stats *stats = &bf_api_stats;
    head(o, "belfry_api_connections", "gauge", "connections of the API by what they do");
    for (unsigned i = 0; i < BF_HTTP_CONN_STATE_COUNT; i++) {
        uint32_t sum = 0;
        for (unsigned t = 0; t < BF_HTTP_THREADS_MAX; t++)
            sum += atomic_load_explicit(&stats->threads[t].states[i], memory_order_relaxed);
        bf_out_print(o, "belfry_api_connections{state=\"%s\"} %u\n", states[i], sum);
    }
    head(o, "belfry_api_refused_total", "counter",
         "connections and requests of the API that were refused before any work, by reason");
    for (unsigned i = 0; i < BF_REFUSED_COUNT; i++)
        bf_out_print(o, "belfry_api_refused_total{reason=\"%s\"} %llu\n", refusals[i],
                     (unsigned long long)load(&stats->refused[i]));
    head(o, "belfry_api_timeouts_total", "counter",
         "connections of the API that were closed because they took too long, by what they did");
    for (unsigned i = 0; i < sizeof(timed) / sizeof(timed[0]); i++)
        bf_out_print(o, "belfry_api_timeouts_total{kind=\"%s\"} %llu\n", states[timed[i]],
                     (unsigned long long)load(&stats->timeouts[timed[i]]));
    put_one(o, "belfry_api_evicted_total",
            "idle connections of the API that made room for new ones", load(&stats->evicted));
    put_one(o, "belfry_api_hang_ups_total", "clients that left while their request was worked on",
            load(&stats->hang_ups));
}
