/*
 * P17 e2e: from the producer's send call to the client's recv, one clock. 18,000 connected; 1,000
 * of them are read by a process of its own with real-time priority, so that the server is measured
 * and not a busy client. First the highest rate of the whole chain without backlog, then half of it
 * (at least 10,000/s), open loop. HTTP and Kafka apart (--engine http|kafka); with Kafka the
 * broker's own produce -> consume p99 is printed beside. --rate adds a run at a rate of one's own.
 * What the machine itself takes to wake a thread and to sync a file is sampled before and after
 * (pf_floor.h).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <librdkafka/rdkafka.h>

#include "belfry/base/time.h"
#include "pf_args.h"
#include "pf_floor.h"
#include "pf_load.h"
#include "pf_node.h"
#include "pf_post.h"
#include "pf_report.h"

#define CONNECTIONS   18000u
#define MEASURED      1000u
#define POSTERS       64u
#define PEAK_SECONDS  6.0
#define HALF_SECONDS  12
#define RATE_MIN      10000.0
#define DRAIN_SECONDS 20.0
/* Kafka accepts more than the rest can follow: limits the events under way while the peak is looked
 * for. */
#define PEAK_WINDOW 2048u
/* Made for the measurement of the broker alone; Belfry does not read it. */
#define BROKER_TOPIC            "belfry-perf.broker"
#define BROKER_TOPIC_PARTITIONS 4
#define TOPIC_TIMEOUT_MS        20000
#define TOPIC                   "belfry.events.social"
/* The member of `data` that carries the send time; found by search, so its name is unlikely
 * elsewhere. */
#define STAMP "\"sent_ns\":"

struct chain {
    struct pf_node node;
    struct pf_load *measured, *others;
    uint32_t connections;
    uint64_t seconds;    /* of each run at a rate */
    const char *brokers; /* NULL: HTTP */
    rd_kafka_t *producer;
    struct bf_hist broker_ns;
};

static bool on_message(void *ctx, const struct pf_load_conn *conn,
                       struct pf_load_counters *counters, const uint8_t *data, size_t len,
                       uint64_t now_ns)
{
    (void)ctx;
    (void)conn;
    const uint8_t *at = memmem(data, len, STAMP, sizeof(STAMP) - 1);
    if (!at)
        return false;
    uint64_t sent = strtoull((const char *)at + sizeof(STAMP) - 1, NULL, 10);
    bf_hist_add(&counters->latency_ns, now_ns > sent ? now_ns - sent : 0);
    return true;
}

static size_t make_event(void *ctx, uint64_t number, uint64_t now_ns, char *out, size_t cap)
{
    const struct chain *c = ctx;
    int n = snprintf(out, cap,
                     "{\"user_id\":\"u%u\",\"type\":\"perf\",\"title\":\"Benchmark\","
                     "\"body\":\"A message of ordinary length for one person\","
                     "\"data\":{" STAMP "%llu,\"n\":%llu}}",
                     (unsigned)(number * 2654435761u % c->connections), (unsigned long long)now_ns,
                     (unsigned long long)number);
    return (size_t)n;
}

static uint64_t frames_now(const struct chain *c)
{
    return pf_load_totals(c->measured).frames + pf_load_totals(c->others).frames;
}

/* Waits until |target| frames arrived in all. */
static bool wait_frames(const struct chain *c, uint64_t target, double seconds)
{
    uint64_t end = bf_mono_ns() + (uint64_t)(seconds * 1e9);
    while (frames_now(c) < target && bf_mono_ns() < end)
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    return frames_now(c) >= target;
}

/* ---- producers ---- */

static uint64_t post_http(struct chain *c, double rate, double seconds)
{
    static struct pf_post_result result;
    struct pf_post_spec spec = {.host = c->node.api_host,
                                .port = c->node.api_port,
                                .api_key = c->node.api_key,
                                .path = "/v1/notifications",
                                .connections = POSTERS,
                                .rate = rate,
                                .seconds = seconds,
                                .expect = 202,
                                .make = make_event,
                                .ctx = c};
    if (!pf_post_run(&spec, &result))
        pf_die("cannot connect to the API");
    if (result.bad > 0)
        pf_die("%llu answers were not 202; the first: %s", (unsigned long long)result.bad,
               result.first_bad);
    return result.good;
}

static void produce(struct chain *c, uint64_t number)
{
    char body[PF_POST_BODY_BYTES_MAX], key[16];
    size_t len = make_event(c, number, bf_mono_ns(), body, sizeof(body));
    int n = snprintf(key, sizeof(key), "u%u", (unsigned)(number * 2654435761u % c->connections));
    while (rd_kafka_producev(c->producer, RD_KAFKA_V_TOPIC(TOPIC), RD_KAFKA_V_KEY(key, (size_t)n),
                             RD_KAFKA_V_VALUE(body, len), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                             RD_KAFKA_V_END) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
        rd_kafka_poll(c->producer, 1);
}

static uint64_t produce_kafka(struct chain *c, double rate, double seconds)
{
    uint64_t begun = bf_mono_ns(), number = 0;
    uint64_t end = begun + (uint64_t)(seconds * 1e9);
    uint64_t before = frames_now(c);
    uint64_t now;
    while ((now = bf_mono_ns()) < end) {
        /* the peak is sought without a backlog: no more under way than a window */
        uint64_t due = rate > 0 ? (uint64_t)((double)(now - begun) / 1e9 * rate)
                                : frames_now(c) - before + PEAK_WINDOW;
        for (; number < due; number++)
            produce(c, number);
        rd_kafka_poll(c->producer, 0);
        if (rate > 0)
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    rd_kafka_flush(c->producer, (int)(DRAIN_SECONDS * 1e3));
    return number;
}

static uint64_t send_events(struct chain *c, double rate, double seconds)
{
    return c->brokers ? produce_kafka(c, rate, seconds) : post_http(c, rate, seconds);
}

static void open_producer(struct chain *c)
{
    char err[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", c->brokers, err, sizeof(err));
    /* one request a message drowns the broker that shares our two cores */
    rd_kafka_conf_set(conf, "linger.ms", "2", err, sizeof(err));
    rd_kafka_conf_set(conf, "acks", "all", err, sizeof(err));
    c->producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, err, sizeof(err));
    if (!c->producer)
        pf_die("Kafka producer: %s", err);
}

static void make_broker_topic(struct chain *c)
{
    char err[256];
    rd_kafka_NewTopic_t *topic =
        rd_kafka_NewTopic_new(BROKER_TOPIC, BROKER_TOPIC_PARTITIONS, 1, err, sizeof(err));
    rd_kafka_queue_t *queue = rd_kafka_queue_new(c->producer);
    rd_kafka_CreateTopics(c->producer, &topic, 1, NULL, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, TOPIC_TIMEOUT_MS);
    if (!event || rd_kafka_event_error(event))
        pf_die("topic %s: %s", BROKER_TOPIC,
               event ? rd_kafka_event_error_string(event) : "no answer from the broker");
    rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_NewTopic_destroy(topic);
}

/* The broker alone: the same events at the same rate, consumed by ourselves with Belfry stopped. */
static void measure_broker(struct chain *c, double rate)
{
    char err[256];
    make_broker_topic(c);
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", c->brokers, err, sizeof(err));
    rd_kafka_conf_set(conf, "group.id", "perf-broker", err, sizeof(err));
    rd_kafka_conf_set(conf, "auto.offset.reset", "latest", err, sizeof(err));
    rd_kafka_conf_set(conf, "fetch.wait.max.ms", "5", err, sizeof(err));
    rd_kafka_t *consumer = rd_kafka_new(RD_KAFKA_CONSUMER, conf, err, sizeof(err));
    rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(topics, BROKER_TOPIC, RD_KAFKA_PARTITION_UA);
    rd_kafka_subscribe(consumer, topics);
    rd_kafka_topic_partition_list_destroy(topics);
    uint64_t begun = bf_mono_ns(), number = 0, end = begun + UINT64_C(12000000000);
    for (uint64_t now; (now = bf_mono_ns()) < end;) {
        uint64_t due = (uint64_t)((double)(now - begun) / 1e9 * rate);
        for (; number < due; number++) {
            char stamp[32];
            int n = snprintf(stamp, sizeof(stamp), "%llu", (unsigned long long)bf_mono_ns());
            rd_kafka_producev(c->producer, RD_KAFKA_V_TOPIC(BROKER_TOPIC),
                              RD_KAFKA_V_VALUE(stamp, (size_t)n),
                              RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
        }
        rd_kafka_poll(c->producer, 0);
        rd_kafka_message_t *m;
        while ((m = rd_kafka_consumer_poll(consumer, 0)) != NULL) {
            uint64_t at = m->err ? 0 : strtoull(m->payload, NULL, 10);
            /* the first seconds belong to joining the group */
            if (at > begun + UINT64_C(5000000000))
                bf_hist_add(&c->broker_ns, bf_mono_ns() - at);
            rd_kafka_message_destroy(m);
        }
    }
    rd_kafka_consumer_close(consumer);
    rd_kafka_destroy(consumer);
}

/* ---- the run ---- */

static struct pf_load *connect_clients(const struct chain *c, uint32_t first, uint32_t count,
                                       bool realtime)
{
    struct pf_load_spec spec = {.host = c->node.ws_host,
                                .port = c->node.ws_port,
                                .connections = count,
                                .user_prefix = "u",
                                .first_user = first,
                                .jwt_secret = c->node.jwt_secret,
                                .jwt_secret_len = c->node.jwt_secret_len,
                                .connect_frame = "{\"t\":\"connect\"}",
                                .core = -1,
                                .acknowledge = true,
                                .realtime = realtime,
                                .on_message = on_message};
    struct pf_load *load = pf_load_start(&spec);
    if (!pf_load_wait_open(load, 120))
        pf_die("clients could not connect: %llu of %u",
               (unsigned long long)pf_load_totals(load).open, count);
    return load;
}

/* Events a second of the whole chain: what was delivered by the time the last frame arrived. */
static double find_peak(struct chain *c)
{
    uint64_t before = frames_now(c);
    uint64_t begun = bf_mono_ns();
    uint64_t sent = send_events(c, 0, PEAK_SECONDS);
    if (!wait_frames(c, before + sent, DRAIN_SECONDS))
        pf_say("peak: %llu of %llu frames arrived", (unsigned long long)(frames_now(c) - before),
               (unsigned long long)sent);
    return (double)(frames_now(c) - before) / ((double)(bf_mono_ns() - begun) / 1e9);
}

static void report_chain(struct pf_report *report, const char *prefix, const char *name,
                         double value)
{
    char full[64];
    snprintf(full, sizeof(full), "%s_%s", prefix, name);
    pf_report_double(report, full, value);
}

/* One open-loop run at a rate; returns p99 in ms. */
static double measure_at(struct chain *c, struct pf_report *report, const char *prefix, double rate,
                         double *p50)
{
    static struct bf_hist latency;
    pf_say("%s: measuring at %.0f/s", prefix, rate);
    pf_load_latency_reset(c->measured);
    uint64_t before = frames_now(c);
    uint64_t sent = send_events(c, rate, (double)c->seconds);
    if (!wait_frames(c, before + sent, DRAIN_SECONDS))
        pf_say("%s: frames are missing", prefix);
    pf_load_latency(c->measured, &latency);
    double p99 = (double)bf_hist_quantile(&latency, 0.99) / 1e6;
    *p50 = (double)bf_hist_quantile(&latency, 0.5) / 1e6;
    report_chain(report, prefix, "rate_per_s", rate);
    report_chain(report, prefix, "events", (double)sent);
    report_chain(report, prefix, "frames_missing",
                 (double)(int64_t)(before + sent - frames_now(c)));
    report_chain(report, prefix, "samples", (double)latency.count);
    report_chain(report, prefix, "p50_ms", *p50);
    report_chain(report, prefix, "p99_ms", p99);
    return p99;
}

/* Half of the peak; where that is below what the bar asks for, the bar's rate too. Returns the p99
 * that counts for the bar. */
static double measure(struct chain *c, struct pf_report *report, const char *prefix, uint64_t rate,
                      double *p50)
{
    char half[32], asked[32];
    double peak = find_peak(c);
    report_chain(report, prefix, "peak_per_s", peak);
    if (rate > 0) {
        snprintf(asked, sizeof(asked), "%s_at_%llu", prefix, (unsigned long long)rate);
        measure_at(c, report, asked, (double)rate, p50);
    }
    if (peak / 2 >= RATE_MIN)
        return measure_at(c, report, prefix, peak / 2, p50);
    snprintf(half, sizeof(half), "%s_half", prefix);
    measure_at(c, report, half, peak / 2, p50);
    return measure_at(c, report, prefix, RATE_MIN, p50);
}

static double run_chain(struct pf_report *report, const char *engine, uint64_t rate,
                        uint64_t seconds, double *p50)
{
    static struct chain c;
    const char *prefix = engine ? "kafka" : "http";
    memset(&c, 0, sizeof(c));
    c.connections = CONNECTIONS;
    c.seconds = seconds;
    /* the broker shares our two cores: a fetch for nearly every record would take all of one */
    pf_node_up(&c.node,
               engine ? "dataplane:\n  connections_max: 19000\n"
                        "log:\n  kafka:\n    fetch_wait: 3\n    fetch_min: 16384\n"
                      : "dataplane:\n  connections_max: 19000\n",
               engine);
    pf_node_users(&c.node, "u", 0, CONNECTIONS);
    c.measured = connect_clients(&c, 0, MEASURED, true);
    c.others = connect_clients(&c, MEASURED, CONNECTIONS - MEASURED, false);
    if (engine) {
        c.brokers = c.node.kafka;
        open_producer(&c);
    }
    double p99 = measure(&c, report, prefix, rate, p50);
    if (engine) {
        measure_broker(&c, RATE_MIN);
        report_chain(report, "kafka", "broker_p99_ms",
                     (double)bf_hist_quantile(&c.broker_ns, 0.99) / 1e6);
        rd_kafka_destroy(c.producer);
    }
    pf_load_stop(c.measured);
    pf_load_stop(c.others);
    pf_node_down(&c.node);
    return p99;
}

static void floor_take(struct pf_floor *floor)
{
    pf_floor_wake(floor);
    pf_floor_sync(floor);
}

int main(int argc, char **argv)
{
    static struct pf_floor floor;
    const char *only = NULL;
    /* One stall of 100 ms decides the p99 of a short run: longer ones compare two builds. */
    uint64_t rate = 0, seconds = HALF_SECONDS;
    double p50 = 0, worst = 0, worst_p50 = 0;
    const struct pf_option table[] = {
        {"--engine", NULL, &only, NULL, "http or kafka; both without it"},
        {"--rate", &rate, NULL, NULL, "events a second of a further run"},
        {"--seconds", &seconds, NULL, NULL, "length of each run at a rate"},
        {0},
    };
    pf_args(argc, argv, table);
    struct pf_report *report = pf_report_create("e2e");
    pf_report_u64(report, "connections", CONNECTIONS);
    pf_report_u64(report, "measured_connections", MEASURED);
    floor_take(&floor);
    for (int kafka = 0; kafka < 2; kafka++) {
        if (only && strcmp(only, kafka ? "kafka" : "http") != 0)
            continue;
        double p99 = run_chain(report, kafka ? "kafka" : NULL, rate, seconds, &p50);
        worst = p99 > worst ? p99 : worst;
        worst_p50 = p50 > worst_p50 ? p50 : worst_p50;
    }
    floor_take(&floor);
    pf_floor_report(&floor, report);
    pf_report_bar(report, "P17", worst, "ms", PF_AT_MOST, 5.0);
    pf_report_bar(report, "P17-p50", worst_p50, "ms", PF_AT_MOST, 1.0);
    return pf_report_print(report);
}
