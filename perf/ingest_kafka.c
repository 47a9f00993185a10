/*
 * P15 ingest-kafka: a real broker; consume, parse, validate, ledger. Events of 300 B lie in the
 * transactional topic; this process reads them through the log port as ctrlplane does, parses and
 * checks each, opens and settles it in the ledger, and commits watermarks. The figure is events per
 * CPU second of the whole process, librdkafka's threads included, from the first record to the
 * last. Five rounds over the same events, a new group each; median.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <yyjson.h>

#include "belfry/base/time.h"
#include "belfry/conf/conf_load.h"
#include "ingest/event.h"
#include "ledger/ledger.h"
#include "log/log.h"
#include "pf_args.h"
#include "pf_node.h"
#include "pf_proc.h"
#include "pf_report.h"
#include "store/store.h"

#define BAR_PER_S   400000.0
#define EVENT_BYTES 300
#define USERS       200000u
#define ROUNDS      5u
#define BATCH       512
#define IDLE_MS     60000u
#define TOPIC       "belfry.events.transactional"
/* As the pipeline: watermarks are committed now and then, not with every batch. */
#define COMMIT_EVERY 64u

static uint64_t events = 2000000;
static char dir[64] = "/tmp/belfry-perf-XXXXXX";
static char brokers[128];

/* ---- broker and events ---- */

static void kafka_command(const char *verb, char *out, size_t cap)
{
    char command[PF_PATH_BYTES * 2];
    snprintf(command, sizeof(command), "%s/tests/support/kafka/kafka %s --dir %s/kafka", pf_root(),
             verb, dir);
    FILE *pipe = popen(command, "r");
    size_t len = pipe != NULL ? fread(out, 1, cap - 1, pipe) : 0;
    out[len] = 0;
    if (pipe == NULL || pclose(pipe) != 0)
        pf_die("%s failed", command);
}

static void start_broker(void)
{
    char answer[2048];
    kafka_command("start", answer, sizeof(answer));
    yyjson_doc *doc = yyjson_read(answer, strlen(answer), 0);
    const char *bootstrap = yyjson_get_str(yyjson_obj_get(yyjson_doc_get_root(doc), "bootstrap"));
    if (bootstrap == NULL)
        pf_die("kafka said: %s", answer);
    snprintf(brokers, sizeof(brokers), "%s", bootstrap);
    yyjson_doc_free(doc);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void stop_broker(void)
{
    char answer[2048];
    kafka_command("stop", answer, sizeof(answer));
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* An event of exactly EVENT_BYTES, all fields that the checks look at. */
static int make_event(uint64_t n, char out[EVENT_BYTES + 1])
{
    static const char fill[] = "................................................................"
                               "................................................................";
    int len =
        snprintf(out, EVENT_BYTES + 1,
                 "{\"id\":\"evt-%010" PRIu64 "\",\"source\":\"orders\",\"type\":\"order.shipped\","
                 "\"category\":\"transactional\",\"user_id\":\"user-%" PRIu64
                 "\",\"priority\":\"high\",\"title\":\"Your order is on its way\",\"data\":"
                 "{\"order\":\"%" PRIu64 "\",\"items\":3},\"body\":\"",
                 n, n * 2654435761u % USERS, n);
    int pad = EVENT_BYTES - len - 2;
    if (pad < 0 || pad > (int)sizeof(fill) - 1)
        pf_die("the event does not have %d bytes", EVENT_BYTES);
    return len + snprintf(out + len, (size_t)(EVENT_BYTES + 1 - len), "%.*s\"}", pad, fill);
}

static void on_delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    (void)rk, (void)opaque;
    if (m->err != RD_KAFKA_RESP_ERR_NO_ERROR)
        pf_die("produce: %s", rd_kafka_err2str(m->err));
}

/* In a child: what the producers use of the processor must not count. */
static void produce_all(void)
{
    char why[512], body[EVENT_BYTES + 1], key[32];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", brokers, why, sizeof(why));
    rd_kafka_conf_set(conf, "linger.ms", "20", why, sizeof(why));
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivered);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof(why));
    if (rk == NULL)
        pf_die("kafka: %s", why);
    for (uint64_t n = 0; n < events; n++) {
        int len = make_event(n, body);
        int key_len = snprintf(key, sizeof(key), "user-%" PRIu64, n * 2654435761u % USERS);
        while (rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(TOPIC), RD_KAFKA_V_KEY(key, (size_t)key_len),
                                 RD_KAFKA_V_VALUE(body, (size_t)len),
                                 RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                 RD_KAFKA_V_END) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
            rd_kafka_poll(rk, 10);
        rd_kafka_poll(rk, 0);
    }
    if (rd_kafka_flush(rk, 60000) != RD_KAFKA_RESP_ERR_NO_ERROR)
        pf_die("the events could not be produced in time");
    rd_kafka_destroy(rk);
}

static void produce_in_child(void)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        produce_all();
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
        pf_die("the producer failed");
}

/* ---- the side under test ---- */

struct bench {
    struct bf_conf *conf;
    struct bf_store *store;
    struct bf_log *log;
    struct bf_ledger *ledger;
    uint64_t taken, refused, other_order;
    double first_cpu_s, last_cpu_s;
    uint64_t first_ns, last_ns;
};

static double cpu_s(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void on_assign(void *arg, uint32_t partition, uint32_t assignment, int64_t offset)
{
    struct bench *b = arg;
    bf_ledger_assign(b->ledger, partition, assignment, offset);
}

static void on_revoke(void *arg, uint32_t partition, uint32_t assignment)
{
    struct bench *b = arg;
    bf_ledger_revoke(b->ledger, partition, assignment);
}

static void take(struct bench *b, const struct bf_log_record *r)
{
    struct bf_ledger_ticket ticket;
    struct bf_event *event;
    struct bf_problem problem;
    struct bf_event_meta meta = {
        .source = BF_SOURCE_KAFKA,
        .topic_lane = r->topic_lane,
        .critical_allowed = true,
        .accepted_ms = r->timestamp_ms,
        .partition = r->topic_partition,
        .offset = r->offset,
    };
    snprintf(meta.producer, sizeof(meta.producer), "%s", r->topic);
    if (!bf_ledger_open(b->ledger, r->partition, r->assignment, r->offset, &ticket))
        pf_die("the ledger is full although everything is settled");
    if (bf_event_parse(r->body, &meta, &event, &problem) == 0)
        bf_event_unref(event);
    else
        b->refused++;
    bf_ledger_settle(b->ledger, &ticket);
    b->taken++;
}

static void commit_all(struct bench *b)
{
    for (uint32_t p = 0; p < bf_ledger_partitions(b->ledger); p++) {
        uint32_t assignment;
        int64_t offset;
        if (bf_ledger_watermark(b->ledger, p, &assignment, &offset))
            bf_log_commit(b->log, p, assignment, offset);
    }
}

static void consume_all(struct bench *b)
{
    static struct bf_log_record records[BATCH];
    uint64_t idle_since = bf_mono_ms();
    for (uint32_t turn = 0; b->taken < events; turn++) {
        int n = bf_log_poll(b->log, records, BATCH, 100);
        if (n < 0 || (n == 0 && bf_mono_ms() - idle_since > IDLE_MS))
            pf_die("only %" PRIu64 " of %" PRIu64 " events came", b->taken, events);
        if (n == 0)
            continue;
        if (b->taken == 0) {
            b->first_cpu_s = cpu_s();
            b->first_ns = bf_mono_ns();
        }
        for (int i = 0; i < n; i++)
            take(b, &records[i]);
        bf_log_free_records(b->log, records, n);
        if (turn % COMMIT_EVERY == 0)
            commit_all(b);
        idle_since = bf_mono_ms();
    }
    commit_all(b);
    b->last_cpu_s = cpu_s();
    b->last_ns = bf_mono_ns();
}

static double run_round(uint32_t round, double *ret_wall_rate)
{
    struct bench b = {0};
    struct bf_conf *conf;
    char err[512], store_dir[128], group[32];
    struct bf_log_hooks hooks = {.arg = &b, .on_assign = on_assign, .on_revoke = on_revoke};
    if (bf_conf_load(NULL, &conf, err, sizeof(err)) != 0)
        pf_die("%s", err);
    snprintf(store_dir, sizeof(store_dir), "%s/store-%u", dir, round);
    snprintf(group, sizeof(group), "perf-%u", round);
    conf->log_engine = "kafka";
    conf->kafka_brokers = brokers;
    conf->kafka_group = group;
    struct bf_store_options options = {.dir = store_dir, .cache_mb = 16, .write_buffer_mb = 16};
    b.ledger = bf_ledger_create(conf->log_inflight_max);
    if (bf_store_open(&options, &b.store, err, sizeof(err)) != 0 ||
        bf_log_open(conf, b.store, &hooks, &b.log, err, sizeof(err)) != 0)
        pf_die("%s", err);
    consume_all(&b);
    bf_log_close(b.log);
    bf_store_close(b.store);
    bf_ledger_destroy(b.ledger);
    if (b.refused > 0)
        pf_die("%" PRIu64 " events were refused", b.refused);
    *ret_wall_rate = (double)events * 1e9 / (double)(b.last_ns - b.first_ns);
    return (double)events / (b.last_cpu_s - b.first_cpu_s);
}

int main(int argc, char **argv)
{
    uint64_t rounds = ROUNDS;
    const struct pf_option options[] = {
        {"--events", &events, NULL, NULL, "events in the topic"},
        {"--rounds", &rounds, NULL, NULL, "times that they are read"},
        {NULL, NULL, NULL, NULL, NULL},
    };
    double rates[PF_ROUNDS_MAX], walls[PF_ROUNDS_MAX];
    pf_args(argc, argv, options);
    if (rounds == 0 || rounds > PF_ROUNDS_MAX || !mkdtemp(dir))
        pf_die("--rounds is 1 to %u", PF_ROUNDS_MAX);
    start_broker();
    pf_say("producing %" PRIu64 " events of %d B", events, EVENT_BYTES);
    produce_in_child();
    for (uint32_t i = 0; i < rounds; i++) {
        rates[i] = run_round(i, &walls[i]);
        pf_say("round %u: %.0f events per CPU second, %.0f a second", i + 1, rates[i], walls[i]);
    }
    stop_broker();
    struct pf_report *report = pf_report_create("ingest-kafka");
    pf_report_u64(report, "events", events);
    pf_report_u64(report, "event_bytes", EVENT_BYTES);
    pf_report_text(report, "counted", "CPU of the whole process, librdkafka's threads included");
    pf_report_list(report, "rounds_per_cpu_s", rates, (uint32_t)rounds);
    pf_report_list(report, "rounds_per_s", walls, (uint32_t)rounds);
    pf_report_bar(report, "P15", pf_median(rates, (uint32_t)rounds), "/s", PF_AT_LEAST, BAR_PER_S);
    return pf_report_print(report);
}
