/*
 * Broadcast log on Kafka: topic belfry.broadcast with one partition, bseq = offset + 1. The mirror
 * thread copies it into the store's rows; rows are what is read. Two nodes may append the same event
 * (a replay after a rebalance): all mirrors keep the first and pass the second, in the same order.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "log/blog_impl.h"
#include "log/kafka.h"

#define MIRROR_POLL_MS 100
#define APPEND_POLL_MS 10
#define RECORD_VERSION 1u
/* Ids, times, lengths of a record beside its texts. */
#define RECORD_BYTES 64u

struct kafka_blog {
    struct bf_blog blog; /* first */
    const struct bf_conf *conf;
    struct bf_store *store;
    void (*on_new)(void *arg, uint64_t bseq);
    void *arg;
    rd_kafka_t *producer; /* appender only */
    rd_kafka_t *consumer; /* mirror only, once its thread runs */
    struct bf_batch *batch; /* mirror only */
    pthread_t mirror;
    bool has_thread;
    _Atomic bool is_closing; /* relaxed: only ends the mirror's loop */
};

/* ---- records ---------------------------------------------------------------------------------------- */

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

static bool decode(const rd_kafka_message_t *m, struct bf_bcast_row *row)
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
    row->bseq = (uint64_t)m->offset + 1;
    if (r.failed || r.at != r.len)
        return false;
    memcpy(row->event_id.bytes, id, sizeof(row->event_id.bytes));
    return true;
}

/* ---- append ----------------------------------------------------------------------------------------- */

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

static int kafka_append(struct bf_blog *blog, const struct bf_bcast_row *row)
{
    struct kafka_blog *kb = (struct kafka_blog *)blog;
    struct delivery delivery = {0};
    uint64_t known;
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

/* ---- mirror ----------------------------------------------------------------------------------------- */

static void mirror_one(struct kafka_blog *kb, const rd_kafka_message_t *m)
{
    struct bf_bcast_row row = {0};
    uint64_t known;
    if (!decode(m, &row)) {
        BF_WARN("ctrlplane", "broadcast log: offset %lld is not ours and is passed",
                (long long)m->offset);
        return;
    }
    if (row.bseq <= bf_store_bcast_head(kb->store) ||
        bf_store_find_bcast(kb->store, &row.event_id, &known))
        return;
    bf_batch_clear(kb->batch);
    bf_batch_put_bcast(kb->batch, &row);
    /* Unsynced: what the power takes is read from Kafka again, from the head that is left. A store that
     * failed is told nothing: the process is about to stop. */
    if (bf_batch_write(kb->batch, false) == 0)
        kb->on_new(kb->arg, row.bseq);
}

static void *mirror_main(void *arg)
{
    struct kafka_blog *kb = arg;
    rd_kafka_resp_err_t last = RD_KAFKA_RESP_ERR_NO_ERROR;
    prctl(PR_SET_NAME, "bf-blog");
    while (!atomic_load_explicit(&kb->is_closing, memory_order_relaxed)) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(kb->consumer, MIRROR_POLL_MS);
        if (m == NULL)
            continue;
        if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR)
            mirror_one(kb, m);
        else if (m->err != last)
            BF_WARN("ctrlplane", "broadcast log: %s", rd_kafka_message_errstr(m));
        last = m->err;
        rd_kafka_message_destroy(m);
    }
    return NULL;
}

/* ---- opening ------------------------------------------------------------------------------------------ */

static rd_kafka_t *make_client(rd_kafka_type_t type, const struct bf_kafka_setting *settings,
                               char *err, size_t err_len)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (type == RD_KAFKA_PRODUCER)
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivered);
    if (bf_kafka_configure(conf, settings, err, err_len) != 0) {
        rd_kafka_conf_destroy(conf);
        return NULL;
    }
    return bf_kafka_client(type, conf, err, err_len);
}

static bool make_clients(struct kafka_blog *kb, char *err, size_t err_len)
{
    const struct bf_kafka_setting producer[] = {
        {"bootstrap.servers", kb->conf->kafka_brokers},
        {"client.id", kb->conf->node_id},
        {"acks", "all"},
        {"enable.idempotence", "true"},
        {"linger.ms", "0"}, /* each append is waited for */
        {"message.timeout.ms", BF_KAFKA_DELIVERY_TIMEOUT_MS},
        {"reconnect.backoff.max.ms", "1000"},
        {NULL, NULL},
    };
    const struct bf_kafka_setting consumer[] = {
        {"bootstrap.servers", kb->conf->kafka_brokers},
        {"client.id", kb->conf->node_id},
        {"group.id", "belfry-broadcast"}, /* named only: it joins no group and commits nothing */
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        /* older than the topic's retention: nobody will resume over it */
        {"auto.offset.reset", "earliest"},
        {"fetch.error.backoff.ms", "100"},
        {"reconnect.backoff.max.ms", "1000"},
        {NULL, NULL},
    };
    kb->producer = make_client(RD_KAFKA_PRODUCER, producer, err, err_len);
    if (kb->producer != NULL)
        kb->consumer = make_client(RD_KAFKA_CONSUMER, consumer, err, err_len);
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
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    uint64_t head = bf_store_bcast_head(kb->store);
    rd_kafka_topic_partition_list_add(list, kb->conf->kafka_topic_broadcast, 0)->offset =
        head > 0 ? (int64_t)head : RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_poll_set_consumer(kb->consumer);
    rd_kafka_assign(kb->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
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
    if (!make_clients(kb, err, err_len) || !check_topic(kb, err, err_len)) {
        kafka_close(&kb->blog);
        return BF_ERR_LOG;
    }
    start_mirror(kb);
    *ret = &kb->blog;
    return 0;
}
