/*
 * Broadcast log on Kafka: topic belfry.broadcast with one partition, bseq = base + offset + 1. The
 * mirror thread copies it into the store's rows; rows are what is read. Two nodes may append the
 * same event (when the log gives it again after a rebalance): all mirrors keep the first and skip
 * the second, in the same order.
 *
 * The base is 0 until the topic is deleted and created again. Offsets then begin at 0 again, but
 * bseq, by which clients resume, must not; so the base becomes the head that the mirror had. Nodes
 * of a fleet whose heads differed at that moment give different numbers from then on.
 *
 * A client in a fatal state is replaced by the thread that owns it: the producer by the appender,
 * the consumer by the mirror.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/fatal.h"
#include "belfry/base/fault.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "log/blog_impl.h"
#include "log/kafka.h"
#include "stats/metrics.h"

#define MIRROR_POLL_MS 100
#define APPEND_POLL_MS 10
#define RECORD_VERSION 1u
/* Ids, times, lengths of a record beside its texts. */
#define RECORD_BYTES 64u
/* An append that is not acknowledged is tried again by the caller, so that its consumer can show
 * meanwhile that it lives and keeps its partitions. */
#define APPEND_TIMEOUT_MS "5000"

static struct bf_fault fault = {.point = "kafka_blog_fatal"};
static struct bf_fault mirror_fault = {.point = "kafka_mirror_fatal"};

struct kafka_blog {
    struct bf_blog blog; /* first */
    const struct bf_conf *conf;
    struct bf_store *store;
    void (*on_new)(void *arg, uint64_t bseq);
    void *arg;
    rd_kafka_t *producer; /* appender only */
    rd_kafka_t *consumer; /* mirror only, once its thread runs */
    int64_t base;         /* mirror only */
    uint64_t password_ms; /* of either; a race would only read a file twice */
    bool is_dead;         /* mirror only: the consumer must be made anew */
    bool is_anew;         /* mirror only: the topic was made anew */
    struct bf_kafka_watch watch;
    struct bf_batch *batch; /* mirror only */
    pthread_t mirror;
    bool has_thread;
    _Atomic bool is_closing; /* relaxed: only ends the mirror's loop */
};

/* ---- records ---- */

static bool encode(struct bf_writer *w, const struct bf_bcast_row *row)
{
    bf_put_u8(w, RECORD_VERSION);
    bf_put_raw(w, row->event_id.bytes, sizeof(row->event_id.bytes));
    bf_put_u64(w, row->created_ms);
    bf_put_u64(w, row->expires_ms);
    bf_put_str16(w, row->tenant);
    bf_put_str16(w, row->topic);
    bf_put_str32(w, row->fragment);
    return !w->failed;
}

static bool decode(const rd_kafka_message_t *m, int64_t base, struct bf_bcast_row *row)
{
    struct bf_reader r = {.buf = m->payload, .len = m->len};
    if (m->payload == NULL || bf_get_u8(&r) != RECORD_VERSION)
        return false;
    const uint8_t *id = bf_get_raw(&r, sizeof(row->event_id.bytes));
    row->created_ms = bf_get_u64(&r);
    row->expires_ms = bf_get_u64(&r);
    row->tenant = bf_get_str16(&r);
    row->topic = bf_get_str16(&r);
    row->fragment = bf_get_str32(&r);
    row->bseq = (uint64_t)(base + m->offset + 1);
    if (r.failed || r.at != r.len)
        return false;
    memcpy(row->event_id.bytes, id, sizeof(row->event_id.bytes));
    return true;
}

/* ---- append ---- */

struct delivery {
    bool is_done;
    rd_kafka_resp_err_t err;
};

static void on_delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    struct delivery *delivery = m->_private;
    (void)rk, (void)opaque;
    delivery->is_done = true;
    delivery->err = m->err;
}

static rd_kafka_t *make_producer(struct kafka_blog *kb, char *err, size_t err_len);
static rd_kafka_t *make_consumer(struct kafka_blog *kb, char *err, size_t err_len);

/* Appends are not in flight between calls: nothing is lost with it. */
static void heal_producer(struct kafka_blog *kb)
{
    char err[BF_KAFKA_TEXT_BYTES] = "";
    if (rd_kafka_fatal_error(kb->producer, err, sizeof(err)) == RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    BF_ERROR("ctrlplane", "broadcast log: the producer is made anew after a fatal error: %s", err);
    rd_kafka_t *fresh = make_producer(kb, err, sizeof(err));
    if (fresh == NULL) {
        bf_kafka_say("broadcast log: the producer cannot be made anew yet", err);
        return;
    }
    rd_kafka_destroy(kb->producer);
    kb->producer = fresh;
    bf_count(BF_CM_M_log_clients_renewed, 1);
}

static int kafka_append(struct bf_blog *blog, const struct bf_bcast_row *row)
{
    struct kafka_blog *kb = (struct kafka_blog *)blog;
    struct delivery delivery = {0};
    uint64_t known;
    heal_producer(kb);
    if (bf_fault_is_due(&fault))
        rd_kafka_test_fatal_error(kb->producer, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
                                  "injected");
    if (bf_store_find_bcast(kb->store, &row->event_id, &known))
        return 0;
    size_t cap = RECORD_BYTES + row->tenant.len + row->topic.len + row->fragment.len;
    struct bf_writer w = {.buf = malloc(cap), .cap = cap};
    if (w.buf == NULL)
        return -ENOMEM;
    bool is_encoded = encode(&w, row);
    BF_BUG_ON(!is_encoded);
    rd_kafka_resp_err_t err = rd_kafka_producev(
        kb->producer, RD_KAFKA_V_TOPIC(kb->conf->kafka_topic_broadcast), RD_KAFKA_V_PARTITION(0),
        RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
        RD_KAFKA_V_KEY((void *)(uintptr_t)row->event_id.bytes, sizeof(row->event_id.bytes)),
        RD_KAFKA_V_VALUE(w.buf, w.len), RD_KAFKA_V_OPAQUE(&delivery), RD_KAFKA_V_END);
    free(w.buf);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
        return BF_ERR_LOG;
    /* bounded by message.timeout.ms: a report comes either way */
    while (!delivery.is_done)
        rd_kafka_poll(kb->producer, APPEND_POLL_MS);
    return delivery.err == RD_KAFKA_RESP_ERR_NO_ERROR ? 0 : BF_ERR_LOG;
}

/* ---- mirror ---- */

/* A store that failed is never tried again (DESIGN 4.15): a row that is left out here would be a
 * broadcast that nobody gets. */
static void write_rows(struct kafka_blog *kb, bool synced)
{
    if (bf_batch_write(kb->batch, synced) == 0)
        return;
    bf_fatal("ctrlplane", "the store refuses a broadcast: stopping; it is read from Kafka again");
}

static void mirror_one(struct kafka_blog *kb, const rd_kafka_message_t *m)
{
    struct bf_bcast_row row = {0};
    uint64_t known;
    if (!decode(m, kb->base, &row)) {
        BF_WARN("ctrlplane", "broadcast log: offset %lld is not ours and is passed",
                (long long)m->offset);
        return;
    }
    if (row.bseq <= bf_store_bcast_head(kb->store) ||
        bf_store_find_bcast(kb->store, &row.event_id, &known))
        return;
    bf_batch_clear(kb->batch);
    bf_batch_put_bcast(kb->batch, &row);
    /* Unsynced: what the power takes is read from Kafka again, from the head that is left. */
    write_rows(kb, false);
    kb->on_new(kb->arg, row.bseq);
}

/* ---- the mirror goes on by itself ---- */

static void assign_at(struct kafka_blog *kb, int64_t offset)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, kb->conf->kafka_topic_broadcast, 0)->offset = offset;
    rd_kafka_assign(kb->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
}

static int64_t next_offset(const struct kafka_blog *kb)
{
    int64_t next = (int64_t)bf_store_bcast_head(kb->store) - kb->base;
    return next > 0 ? next : RD_KAFKA_OFFSET_BEGINNING;
}

/* Our offset is not in the topic any more. If it is after the end, the topic was deleted and
 * created again, and its broadcasts are numbered on from our head. If it is before the beginning,
 * retention has deleted what we did not read. */
static void find_place(struct kafka_blog *kb)
{
    int64_t low = 0, high = 0, at = next_offset(kb);
    const char *topic = kb->conf->kafka_topic_broadcast;
    rd_kafka_resp_err_t err = rd_kafka_query_watermark_offsets(kb->consumer, topic, 0, &low, &high,
                                                               BF_KAFKA_ASK_TIMEOUT_MS);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        bf_kafka_say("broadcast log: its beginning cannot be read yet", rd_kafka_err2str(err));
        assign_at(kb, at); /* which fails in the same way, and comes here again */
        return;
    }
    bool is_anew = at > high || kb->is_anew;
    kb->is_anew = false;
    bf_count(BF_CM_M_log_places_lost, 1);
    BF_ERROR(
        "ctrlplane",
        "broadcast log: we were at place %lld of %s, it holds %lld..%lld: %s; reading goes on at "
        "%lld",
        (long long)at, topic, (long long)low, (long long)high,
        is_anew ? "the topic was made anew" : "retention has deleted what was not read",
        (long long)low);
    if (is_anew) {
        kb->base = (int64_t)bf_store_bcast_head(kb->store) - low;
        bf_batch_clear(kb->batch);
        bf_batch_put_bcast_base(kb->batch, kb->base);
        write_rows(kb, true);
    }
    assign_at(kb, low);
}

static void on_anew(void *arg, int topic)
{
    (void)topic;
    ((struct kafka_blog *)arg)->is_anew = true;
}

static void heal_consumer(struct kafka_blog *kb)
{
    char err[BF_KAFKA_TEXT_BYTES] = "";
    rd_kafka_t *fresh = make_consumer(kb, err, sizeof(err));
    if (fresh == NULL) {
        bf_kafka_say("broadcast log: the consumer cannot be made anew yet", err);
        nanosleep(&(struct timespec){.tv_nsec = MIRROR_POLL_MS * 1000000L}, NULL);
        return;
    }
    rd_kafka_destroy_flags(kb->consumer, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    kb->consumer = fresh;
    kb->is_dead = false;
    rd_kafka_poll_set_consumer(kb->consumer);
    assign_at(kb, next_offset(kb));
    bf_count(BF_CM_M_log_clients_renewed, 1);
}

static void note_error(struct kafka_blog *kb, const rd_kafka_message_t *m)
{
    char why[BF_KAFKA_TEXT_BYTES] = "";
    if (m->err == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET ||
        m->err == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE) {
        find_place(kb);
    } else if (rd_kafka_fatal_error(kb->consumer, why, sizeof(why)) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        BF_ERROR("ctrlplane", "broadcast log: the consumer is made anew after a fatal error: %s",
                 why);
        kb->is_dead = true;
    } else {
        if (bf_kafka_is_refusal(m->err))
            bf_kafka_refresh_password(kb->conf, kb->consumer, &kb->password_ms, bf_mono_ms());
        bf_kafka_say("broadcast log", rd_kafka_message_errstr(m));
    }
}

static void *mirror_main(void *arg)
{
    struct kafka_blog *kb = arg;
    prctl(PR_SET_NAME, "bf-blog");
    while (!atomic_load_explicit(&kb->is_closing, memory_order_relaxed)) {
        if (kb->is_dead)
            heal_consumer(kb);
        bf_kafka_watch_turn(&kb->watch, kb->consumer, bf_mono_ms());
        if (kb->is_anew)
            find_place(kb);
        if (bf_fault_is_due(&mirror_fault))
            rd_kafka_test_fatal_error(kb->consumer, RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID,
                                      "injected");
        rd_kafka_message_t *m = rd_kafka_consumer_poll(kb->consumer, MIRROR_POLL_MS);
        if (m == NULL)
            continue;
        if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR)
            mirror_one(kb, m);
        else
            note_error(kb, m);
        rd_kafka_message_destroy(m);
    }
    return NULL;
}

/* ---- opening ---- */

/* Errors of a connection come here, not as messages. */
static void on_error(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
    struct kafka_blog *kb = opaque;
    if (!bf_kafka_is_refusal((rd_kafka_resp_err_t)err))
        return; /* the log's own clients say that a broker is away */
    bf_kafka_say("broadcast log", reason);
    bf_kafka_refresh_password(kb->conf, rk, &kb->password_ms, bf_mono_ms());
}

static rd_kafka_t *make_client(struct kafka_blog *kb, rd_kafka_type_t type,
                               const struct bf_kafka_setting *settings, char *err, size_t err_len)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (type == RD_KAFKA_PRODUCER)
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivered);
    rd_kafka_conf_set_opaque(conf, kb);
    if (type == RD_KAFKA_PRODUCER) /* a consumer without it gets its fatal errors as messages */
        rd_kafka_conf_set_error_cb(conf, on_error);
    int rc = bf_kafka_configure(conf, settings, err, err_len);
    if (rc == 0)
        rc = bf_kafka_secure(kb->conf, conf, err, err_len);
    if (rc != 0) {
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    return bf_kafka_client(type, conf, err, err_len);
}

static rd_kafka_t *make_producer(struct kafka_blog *kb, char *err, size_t err_len)
{
    const struct bf_kafka_setting settings[] = {
        {"bootstrap.servers", kb->conf->kafka_brokers},
        {"client.id", kb->conf->node_id},
        {"acks", "all"},
        {"enable.idempotence", "true"},
        {"linger.ms", "0"}, /* each append is waited for */
        {"message.timeout.ms", APPEND_TIMEOUT_MS},
        {"reconnect.backoff.max.ms", "1000"},
        {NULL, NULL},
    };
    return make_client(kb, RD_KAFKA_PRODUCER, settings, err, err_len);
}

static rd_kafka_t *make_consumer(struct kafka_blog *kb, char *err, size_t err_len)
{
    char group[BF_KAFKA_TEXT_BYTES];
    bf_kafka_watch_group(kb->conf, group, sizeof(group));
    const struct bf_kafka_setting settings[] = {
        {"bootstrap.servers", kb->conf->kafka_brokers},
        {"client.id", kb->conf->node_id},
        {"group.id", group}, /* it joins no group; the topic's mark is committed for this one */
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "error"}, /* find_place decides */
        {"fetch.error.backoff.ms", "100"},
        {"reconnect.backoff.max.ms", "1000"},
        {NULL, NULL},
    };
    return make_client(kb, RD_KAFKA_CONSUMER, settings, err, err_len);
}

static bool make_clients(struct kafka_blog *kb, char *err, size_t err_len)
{
    kb->producer = make_producer(kb, err, err_len);
    if (kb->producer != NULL)
        kb->consumer = make_consumer(kb, err, err_len);
    return kb->consumer != NULL;
}

/* One partition is what makes one order. Without a broker this is checked at the next start. */
static bool check_topic(struct kafka_blog *kb, char *err, size_t err_len)
{
    const rd_kafka_metadata_t *metadata = NULL;
    const char *name = kb->conf->kafka_topic_broadcast;
    bf_kafka_ensure_topic(kb->producer, name, 1);
    rd_kafka_topic_t *topic = rd_kafka_topic_new(kb->producer, name, NULL);
    if (topic == NULL)
        return true;
    bool is_good = true;
    if (rd_kafka_metadata(kb->producer, 0, topic, &metadata, BF_KAFKA_ASK_TIMEOUT_MS) ==
        RD_KAFKA_RESP_ERR_NO_ERROR) {
        is_good = metadata->topic_cnt == 0 || metadata->topics[0].partition_cnt <= 1;
        if (!is_good)
            snprintf(err, err_len, "topic %s has %d partitions; it must have one", name,
                     metadata->topics[0].partition_cnt);
        rd_kafka_metadata_destroy(metadata);
    }
    rd_kafka_topic_destroy(topic);
    return is_good;
}

static void start_mirror(struct kafka_blog *kb)
{
    rd_kafka_poll_set_consumer(kb->consumer);
    assign_at(kb, next_offset(kb));
    int made = pthread_create(&kb->mirror, NULL, mirror_main, kb);
    BF_BUG_ON(made != 0); /* start-up only */
    kb->has_thread = true;
}

static void kafka_close(struct bf_blog *blog)
{
    struct kafka_blog *kb = (struct kafka_blog *)blog;
    atomic_store_explicit(&kb->is_closing, true, memory_order_relaxed);
    if (kb->has_thread)
        pthread_join(kb->mirror, NULL);
    if (kb->consumer != NULL) {
        rd_kafka_consumer_close(kb->consumer);
        rd_kafka_destroy(kb->consumer);
    }
    if (kb->producer != NULL)
        rd_kafka_destroy(kb->producer);
    bf_batch_destroy(kb->batch);
    free(kb);
}

static uint64_t kafka_head(struct bf_blog *blog)
{
    return bf_store_bcast_head(((struct kafka_blog *)blog)->store);
}

static const struct bf_blog_ops ops = {
    .close = kafka_close,
    .append = kafka_append,
    .head = kafka_head,
};

int bf_blog_kafka_open(const struct bf_conf *conf, struct bf_store *store,
                       void (*on_new)(void *arg, uint64_t bseq), void *arg, struct bf_blog **ret,
                       char *err, size_t err_len)
{
    struct kafka_blog *kb = calloc(1, sizeof(*kb));
    if (kb == NULL)
        return -ENOMEM;
    kb->blog.ops = &ops;
    kb->conf = conf;
    kb->store = store;
    kb->on_new = on_new;
    kb->arg = arg;
    kb->batch = bf_batch_create(store);
    bf_fault_arm(&fault);
    kb->watch.topics[0] = conf->kafka_topic_broadcast;
    kb->watch.topic_count = 1;
    kb->watch.on_anew = on_anew;
    kb->watch.arg = kb;
    bf_fault_arm(&mirror_fault);
    if (bf_store_bcast_base(store, &kb->base) != 0) {
        snprintf(err, err_len, "the broadcast log's base cannot be read from the store");
        kafka_close(&kb->blog);
        return BF_ERR_CORRUPT;
    }
    if (!make_clients(kb, err, err_len) || !check_topic(kb, err, err_len)) {
        kafka_close(&kb->blog);
        return BF_ERR_LOG;
    }
    start_mirror(kb);
    *ret = &kb->blog;
    return 0;
}
