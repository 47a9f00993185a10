/*
 * P16 ingest-http: POST /v1/notifications -> 202, durable. First closed loop, all connections busy:
 * the rate per CPU second of the whole control process (its libraries' threads included). Then open
 * loop at half of that throughput: p99 of send call to whole answer. 1,000 users, 200-byte events.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pf_floor.h"
#include "pf_node.h"
#include "pf_post.h"
#include "pf_proc.h"
#include "pf_report.h"

#define USERS        1000u
#define CONNECTIONS  64u
#define SECONDS      8.0
#define WARM_SECONDS 2.0
#define BAR_PER_CORE 20000.0
#define BAR_P99_MS   10.0

static size_t make_body(void *ctx, uint64_t number, uint64_t now_ns, char *out, size_t cap)
{
    (void)ctx;
    (void)now_ns;
    int n = snprintf(
        out, cap,
        "{\"user_id\":\"u%u\",\"type\":\"perf\",\"category\":\"perf\",\"title\":\"Benchmark\","
        "\"body\":\"A message of ordinary length for one person\","
        "\"data\":{\"number\":%llu,\"a\":\"1\",\"b\":\"2\"}}",
        (unsigned)(number * 2654435761u % USERS), (unsigned long long)number);
    return (size_t)n;
}

static void check(const struct pf_post_result *r)
{
    if (r->bad > 0)
        pf_die("%llu answers were not 202; the first: %s", (unsigned long long)r->bad,
               r->first_bad);
}

int main(void)
{
    static struct pf_post_result result;
    static struct pf_node node;
    static struct pf_floor floor;
    struct pf_report *report = pf_report_create("ingest-http");
    pf_floor_sync(&floor);
    pf_node_up(&node, "dataplane:\n  connections_max: 1000\n", NULL);
    pf_node_users(&node, "u", 0, USERS);
    struct pf_post_spec spec = {.host = node.api_host,
                                .port = node.api_port,
                                .api_key = node.api_key,
                                .path = "/v1/notifications",
                                .connections = CONNECTIONS,
                                .seconds = WARM_SECONDS,
                                .expect = 202,
                                .make = make_body};
    pf_say("warming up");
    if (!pf_post_run(&spec, &result))
        pf_die("cannot connect to the API");
    check(&result);
    spec.seconds = SECONDS;
    pf_say("closed loop, %u connections, %.0f s", CONNECTIONS, SECONDS);
    uint64_t cpu = pf_proc_cpu_ns(node.ctrlplane);
    pf_post_run(&spec, &result);
    cpu = pf_proc_cpu_ns(node.ctrlplane) - cpu;
    check(&result);
    double rate = (double)result.good / result.seconds;
    double per_core = (double)result.good / ((double)cpu / 1e9);
    pf_report_u64(report, "requests", result.good);
    pf_report_double(report, "requests_per_s", rate);
    pf_report_double(report, "cpu_us_per_request", (double)cpu / 1e3 / (double)result.good);
    pf_report_double(report, "closed_loop_p99_ms",
                     (double)bf_hist_quantile(&result.latency_ns, 0.99) / 1e6);
    spec.rate = rate / 2;
    pf_say("open loop at %.0f/s, %.0f s", spec.rate, SECONDS);
    pf_post_run(&spec, &result);
    check(&result);
    double p99 = (double)bf_hist_quantile(&result.latency_ns, 0.99) / 1e6;
    pf_report_double(report, "half_load_per_s", spec.rate);
    pf_report_u64(report, "half_load_late", result.late);
    pf_report_double(report, "half_load_p50_ms",
                     (double)bf_hist_quantile(&result.latency_ns, 0.5) / 1e6);
    pf_report_double(report, "half_load_p99_ms", p99);
    pf_report_bar(report, "P16", per_core, "/s", PF_AT_LEAST, BAR_PER_CORE);
    pf_report_bar(report, "P16-p99", p99, "ms", PF_AT_MOST, BAR_P99_MS);
    pf_node_down(&node);
    pf_floor_sync(&floor);
    pf_floor_report(&floor, report);
    return pf_report_print(report);
}
