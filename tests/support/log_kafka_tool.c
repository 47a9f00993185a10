/*
 * log_kafka_tool: drives the Kafka log engine through the log port against a broker, as main and
 * the pipeline do: append with acknowledgements, consume with a ledger, settle late and out of
 * order, commit, pause at the cap, broadcast. Prints one JSON object last; exit code 0 if what it
 * saw is right.
 *
 * DIR holds the store; its last part is the node's id, so two of them are two nodes of a fleet.
 *
 *   log_kafka_tool append  BROKERS DIR GROUP N        append N events, wait for all
 * acknowledgements log_kafka_tool consume BROKERS DIR GROUP N CAP    consume until N events or 20 s
 * without any; each is settled late, in random order; then commit, close log_kafka_tool bcast
 * BROKERS DIR GROUP N        append N broadcasts twice each, wait for on_new log_kafka_tool health
 * BROKERS DIR GROUP S        print the health each second for S seconds; append one event each time
 * and say how it went
 */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf.h"
#include "ledger/ledger.h"
#include "log/blog.h"
#include "log/log.h"

#define IDLE_MS  20000
#define BATCH    512
#define HELD_MAX 100000
#define WAIT_MS  30000
#define CAP_MAX  65536

static struct bf_conf conf;
static struct bf_store *store;
static struct bf_log *logp;
static struct bf_ledger *ledger;
static _Atomic uint64_t done_good, done_bad, told;
static uint64_t assigned, revoked;

static _Noreturn void die(const char *what, const char *why)
{
    fprintf(stderr, "log_kafka_tool: %s: %s\n", what, why);
    exit(1);
}

static void on_assign(void *arg, uint32_t partition, uint32_t assignment, int64_t offset)
{
    (void)arg;
    fprintf(stderr, "assign %u generation %u at %" PRId64 "\n", partition, assignment, offset);
    bf_ledger_assign(ledger, partition, assignment, offset);
    assigned++;
}

static void on_revoke(void *arg, uint32_t partition, uint32_t assignment)
{
    int64_t offset;
    uint32_t current;
    (void)arg;
    fprintf(stderr, "revoke %u generation %u\n", partition, assignment);
    if (bf_ledger_watermark(ledger, partition, &current, &offset))
        bf_log_commit(logp, partition, current, offset);
    bf_ledger_revoke(ledger, partition, assignment);
    revoked++;
}

static void open_all(char **argv, uint32_t cap)
{
    char err[512] = "";
    static char store_dir[400];
    struct bf_log_hooks hooks = {.on_assign = on_assign, .on_revoke = on_revoke};
    snprintf(store_dir, sizeof(store_dir), "%s/store", argv[3]);
    conf = (struct bf_conf){
        .node_id = strrchr(argv[3], '/') != NULL ? strrchr(argv[3], '/') + 1 : argv[3],
        .state_dir = argv[3],
        .log_engine = "kafka",
        .kafka_brokers = argv[2],
        .kafka_group = argv[4],
        .kafka_topic_transactional = "belfry.events.transactional",
        .kafka_topic_social = "belfry.events.social",
        .kafka_topic_marketing = "belfry.events.marketing",
        .kafka_topic_broadcast = "belfry.broadcast",
        .kafka_topic_dlq = "belfry.dlq",
        .kafka_produce_acks = "all",
    };
    struct bf_store_options options = {.dir = store_dir, .cache_mb = 16, .write_buffer_mb = 8};
    ledger = bf_ledger_create(cap);
    if (bf_store_open(&options, &store, err, sizeof(err)) != 0)
        die("store", err);
    if (bf_log_open(&conf, store, &hooks, &logp, err, sizeof(err)) != 0)
        die("log", err);
}

static void close_all(void)
{
    bf_log_close(logp);
    bf_store_close(store);
    bf_ledger_destroy(ledger);
}

static void on_done(void *arg, int rc)
{
    (void)arg;
    atomic_fetch_add(rc == 0 ? &done_good : &done_bad, 1);
}

static int append_one(uint64_t n, bool with_idem)
{
    char key[32], body[128], idem_key[48];
    snprintf(key, sizeof(key), "user-%" PRIu64, n % 1000);
    snprintf(body, sizeof(body), "{\"n\":%" PRIu64 "}", n);
    snprintf(idem_key, sizeof(idem_key), "tenant/key/%" PRIu64, n);
    struct bf_idem_row idem = {.key = {idem_key, strlen(idem_key)},
                               .expires_ms = UINT64_MAX,
                               .status = 202,
                               .answer = BF_BYTES("{}")};
    struct bf_log_entry entry = {.lane = (enum bf_lane)(n % BF_LANE_COUNT),
                                 .key = {key, strlen(key)},
                                 .meta = BF_BYTES("meta"),
                                 .body = {body, strlen(body)},
                                 .idem = with_idem ? &idem : NULL};
    return bf_log_append(logp, &entry, on_done, NULL);
}

static int use_idem(void *arg, const struct bf_idem_row *row)
{
    *(uint64_t *)arg += row->status == 202;
    return 0;
}

static int run_append(uint64_t count)
{
    uint64_t full = 0, refused = 0, idem = 0, t0 = bf_mono_ms();
    for (uint64_t n = 0; n < count; n++) {
        int rc = append_one(n, n % 10 == 0);
        if (rc == BF_ERR_FULL) {
            full++;
            n--;
            usleep(1000);
        } else if (rc != 0) {
            refused++;
        }
    }
    while (atomic_load(&done_good) + atomic_load(&done_bad) + refused < count &&
           bf_mono_ms() - t0 < WAIT_MS + count / 10)
        usleep(1000);
    uint64_t ms = bf_mono_ms() - t0;
    for (uint64_t n = 0; n < count; n += 10) {
        char key[48];
        snprintf(key, sizeof(key), "tenant/key/%" PRIu64, n);
        bf_log_get_idem(logp, (struct bf_bytes){key, strlen(key)}, 1, use_idem, &idem);
    }
    printf("{\"appended\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"refused\":%" PRIu64
           ",\"full\":%" PRIu64 ",\"idem_rows\":%" PRIu64 ",\"ms\":%" PRIu64 "}\n",
           atomic_load(&done_good), atomic_load(&done_bad), refused, full, idem, ms);
    return atomic_load(&done_good) == count && idem == (count + 9) / 10 ? 0 : 1;
}

/* ---- consume ---- */

struct consumer {
    struct bf_ledger_ticket held[HELD_MAX];
    uint32_t held_count;
    bool paused[BF_LEDGER_PARTITIONS_MAX];
    int64_t last[BF_LEDGER_PARTITIONS_MAX];
    struct bf_log_record records[BATCH];
    uint64_t taken, pauses, backwards, without_meta;
};

/* Settles a random third of what is held and commits what that gives. */
static void settle_some(struct consumer *c, uint32_t part)
{
    uint32_t count = c->held_count / part;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = (uint32_t)rand() % c->held_count;
        bf_ledger_settle(ledger, &c->held[at]);
        c->held[at] = c->held[--c->held_count];
    }
    for (uint32_t p = 0; p < bf_ledger_partitions(ledger); p++) {
        uint32_t assignment;
        int64_t offset;
        if (!bf_ledger_watermark(ledger, p, &assignment, &offset))
            continue;
        if (bf_log_commit(logp, p, assignment, offset) != 0)
            fprintf(stderr, "commit %u at %" PRId64 " failed\n", p, offset);
        if (c->paused[p] && bf_ledger_inflight(ledger, p) < 100) {
            bf_log_pause(logp, p, false);
            c->paused[p] = false;
        }
    }
}

static void take(struct consumer *c, const struct bf_log_record *r)
{
    struct bf_ledger_ticket ticket;
    while (!bf_ledger_open(ledger, r->partition, r->assignment, r->offset, &ticket)) {
        if (!c->paused[r->partition]) {
            bf_log_pause(logp, r->partition, true);
            c->paused[r->partition] = true;
            c->pauses++;
        }
        settle_some(c, 1);
    }
    if (r->offset <= c->last[r->partition])
        c->backwards++;
    c->last[r->partition] = r->offset;
    c->without_meta += !r->has_meta;
    c->held[c->held_count++] = ticket;
    c->taken++;
    if (c->held_count == HELD_MAX)
        settle_some(c, 2);
}

static int run_consume(uint64_t want)
{
    static struct consumer c;
    struct bf_log_health health;
    uint64_t idle_since = bf_mono_ms(), t0 = idle_since;
    memset(c.last, -1, sizeof(c.last));
    while (c.taken < want && bf_mono_ms() - idle_since < IDLE_MS) {
        int n = bf_log_poll(logp, c.records, BATCH, 100);
        if (n < 0)
            die("poll", bf_err_text(n));
        if (n > 0)
            idle_since = bf_mono_ms();
        for (int i = 0; i < n; i++)
            take(&c, &c.records[i]);
        bf_log_free_records(logp, c.records, n);
        settle_some(&c, 3);
    }
    settle_some(&c, 1);
    bf_log_health(logp, &health);
    printf("{\"taken\":%" PRIu64 ",\"pauses\":%" PRIu64 ",\"backwards\":%" PRIu64
           ",\"without_meta\":%" PRIu64 ",\"assigned\":%" PRIu64 ",\"lag\":%" PRIu64
           ",\"ms\":%" PRIu64 "}\n",
           c.taken, c.pauses, c.backwards, c.without_meta, assigned, health.lag_events,
           bf_mono_ms() - t0);
    return c.taken >= want && c.backwards == 0 ? 0 : 1;
}

/* ---- broadcasts, health ---- */

static void on_new(void *arg, uint64_t bseq)
{
    (void)arg, (void)bseq;
    atomic_fetch_add(&told, 1);
}

static int run_bcast(uint64_t count)
{
    struct bf_blog *blog;
    char err[512] = "";
    uint64_t bad = 0, t0 = bf_mono_ms(), found = 0;
    if (bf_blog_open(&conf, store, on_new, NULL, &blog, err, sizeof(err)) != 0)
        die("broadcast log", err);
    for (uint64_t round = 0; round < 2; round++) {
        for (uint64_t n = 0; n < count; n++) {
            struct bf_bcast_row row = {.created_ms = t0,
                                       .expires_ms = UINT64_MAX,
                                       .topic = BF_BYTES("news"),
                                       .fragment = BF_BYTES("\"a\":1")};
            memcpy(row.event_id.bytes, &t0, 8);
            memcpy(row.event_id.bytes + 8, &n, 8);
            bad += bf_blog_append(blog, &row) != 0;
        }
    }
    while (atomic_load(&told) < count && bf_mono_ms() - t0 < WAIT_MS)
        usleep(1000);
    usleep(300000); /* one told too many would come by now */
    for (uint64_t n = 0; n < count; n++) {
        struct bf_id id;
        uint64_t bseq;
        memcpy(id.bytes, &t0, 8);
        memcpy(id.bytes + 8, &n, 8);
        found += bf_store_find_bcast(store, &id, &bseq);
    }
    printf("{\"told\":%" PRIu64 ",\"found\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"head\":%" PRIu64
           "}\n",
           atomic_load(&told), found, bad, bf_blog_head(blog));
    bf_blog_close(blog);
    return atomic_load(&told) >= count && found == count && bad == 0 ? 0 : 1;
}

static int run_health(uint64_t seconds)
{
    struct bf_log_record records[BATCH];
    for (uint64_t i = 0; i < seconds; i++) {
        struct bf_log_health health;
        uint64_t t0 = bf_mono_ns();
        int rc = append_one(i, false);
        uint64_t us = (bf_mono_ns() - t0) / 1000;
        uint64_t until = bf_mono_ms() + 1000;
        int polled = 0, n;
        while (bf_mono_ms() < until && (n = bf_log_poll(logp, records, BATCH, 100)) >= 0) {
            bf_log_free_records(logp, records, n);
            polled += n;
        }
        bf_log_health(logp, &health);
        printf("{\"append\":\"%s\",\"us\":%" PRIu64 ",\"good\":%" PRIu64 ",\"bad\":%" PRIu64
               ",\"polled\":%d,\"can_append\":%d,\"can_consume\":%d,\"detail\":\"%s\"}\n",
               bf_err_text(rc), us, atomic_load(&done_good), atomic_load(&done_bad), polled,
               health.can_append, health.can_consume, health.detail);
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 6)
        die("usage", "log_kafka_tool append|consume|bcast|health BROKERS DIR GROUP N [CAP]");
    uint64_t count = strtoull(argv[5], NULL, 10);
    uint32_t cap = argc > 6 ? (uint32_t)strtoul(argv[6], NULL, 10) : CAP_MAX;
    int rc = 2;
    open_all(argv, cap);
    if (strcmp(argv[1], "append") == 0)
        rc = run_append(count);
    else if (strcmp(argv[1], "consume") == 0)
        rc = run_consume(count);
    else if (strcmp(argv[1], "bcast") == 0)
        rc = run_bcast(count);
    else if (strcmp(argv[1], "health") == 0)
        rc = run_health(count);
    close_all();
    return rc;
}
