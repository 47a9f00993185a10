/*
 * kafka_tool: the little of Kafka that tests and scripts need, on librdkafka. Standalone on purpose
 * (no Belfry header): tests/support/kafka/kafka compiles it by itself before there is a build.
 *
 *   kafka_tool wait    BROKERS SECONDS              until the broker answers a metadata request
 *   kafka_tool topics  BROKERS NAME:PARTITIONS ...  create topics; one that exists is fine
 *   kafka_tool produce BROKERS TOPIC [NAME=VALUE ...]
 *                                                   stdin lines "key\tvalue" (or "value"),
 * acks=all; each with these headers kafka_tool consume BROKERS TOPIC [MAX]          all there is,
 * from the beginning: one JSON object a message {partition,offset,key,value,headers} kafka_tool lag
 * BROKERS GROUP TOPIC ...      one JSON object: {"lag":N,"topics":{"T":N}}
 *
 *   kafka_tool delete  BROKERS TOPIC ...            delete topics, and wait until they are gone
 *   kafka_tool truncate BROKERS TOPIC               delete every record that is there, as retention
 * does kafka_tool produce-at BROKERS TOPIC TIME        as produce, each record with this timestamp
 *   kafka_tool transact BROKERS TOPIC commit|abort  stdin lines in one transaction, which ends so
 *
 * KAFKA_TOOL_CONF in the environment: more settings of librdkafka, "name=value" separated by ";".
 *
 * Exit code 0, or 1 with a line on stderr. One thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <librdkafka/rdkafka.h>

#define TIMEOUT_MS      10000
#define PARTITIONS_MAX  256
#define TEXT_BYTES_MAX  512
#define METADATA_TRY_MS 1000
#define PRODUCE_POLL_MS 10
#define FLUSH_MS        60000

struct produced {
    uint64_t delivered;
    uint64_t failed;
};

static _Noreturn void die(const char *what, const char *why)
{
    fprintf(stderr, "kafka_tool: %s: %s\n", what, why);
    exit(1);
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    char why[TEXT_BYTES_MAX];
    if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) != RD_KAFKA_CONF_OK)
        die(name, why);
}

static void set_from_environment(rd_kafka_conf_t *conf)
{
    const char *given = getenv("KAFKA_TOOL_CONF");
    char *copy = strdup(given ? given : "");
    char *rest = copy;
    for (char *pair; (pair = strsep(&rest, ";")) != NULL;) {
        char *value = strchr(pair, '=');
        if (!value)
            continue;
        *value++ = '\0';
        set(conf, pair, value);
    }
    free(copy);
}

static rd_kafka_t *make(rd_kafka_type_t type, rd_kafka_conf_t *conf, const char *brokers)
{
    char why[TEXT_BYTES_MAX];
    set(conf, "bootstrap.servers", brokers);
    set_from_environment(conf);
    set(conf, "log_level", "2"); /* a broker that is not up yet is expected, not news */
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof(why));
    if (!rk)
        die("client", why);
    return rk;
}

static time_t now_s(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec;
}

static int cmd_wait(const char *brokers, const char *seconds)
{
    rd_kafka_t *rk = make(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), brokers);
    time_t until = now_s() + strtol(seconds, NULL, 10);
    rd_kafka_resp_err_t err;
    do {
        const struct rd_kafka_metadata *metadata;
        err = rd_kafka_metadata(rk, 0, NULL, &metadata, METADATA_TRY_MS);
        if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
            bool up = metadata->broker_cnt > 0;
            rd_kafka_metadata_destroy(metadata);
            if (up)
                break;
        }
    } while (now_s() < until);
    rd_kafka_destroy(rk);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
        die("no answer", rd_kafka_err2str(err));
    return 0;
}

static rd_kafka_NewTopic_t *new_topic(char *spec)
{
    char why[TEXT_BYTES_MAX];
    char *colon = strrchr(spec, ':');
    int partitions = 1;
    if (colon) {
        *colon = '\0';
        partitions = (int)strtol(colon + 1, NULL, 10);
    }
    rd_kafka_NewTopic_t *topic = rd_kafka_NewTopic_new(spec, partitions, 1, why, sizeof(why));
    if (!topic)
        die(spec, why);
    return topic;
}

static int cmd_topics(const char *brokers, int count, char **specs)
{
    rd_kafka_NewTopic_t *topics[PARTITIONS_MAX];
    char why[TEXT_BYTES_MAX];
    if (count > PARTITIONS_MAX)
        die("topics", "too many");
    rd_kafka_t *rk = make(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), brokers);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_AdminOptions_t *options =
        rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_operation_timeout(options, TIMEOUT_MS, why, sizeof(why));
    for (int i = 0; i < count; i++)
        topics[i] = new_topic(specs[i]);
    rd_kafka_CreateTopics(rk, topics, (size_t)count, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 2 * TIMEOUT_MS);
    if (!event)
        die("topics", "no answer");
    if (rd_kafka_event_error(event))
        die("topics", rd_kafka_event_error_string(event));
    size_t n;
    const rd_kafka_topic_result_t **results =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &n);
    for (size_t i = 0; i < n; i++) {
        rd_kafka_resp_err_t err = rd_kafka_topic_result_error(results[i]);
        if (err != RD_KAFKA_RESP_ERR_NO_ERROR && err != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
            die(rd_kafka_topic_result_name(results[i]), rd_kafka_err2str(err));
    }
    rd_kafka_event_destroy(event);
    rd_kafka_NewTopic_destroy_array(topics, (size_t)count);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    rd_kafka_destroy(rk);
    return 0;
}

static bool topic_exists(rd_kafka_t *rk, const char *name)
{
    const struct rd_kafka_metadata *metadata;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, name, NULL);
    rd_kafka_resp_err_t err = rd_kafka_metadata(rk, 0, topic, &metadata, TIMEOUT_MS);
    rd_kafka_topic_destroy(topic);
    if (err)
        die(name, rd_kafka_err2str(err));
    bool exists = metadata->topic_cnt > 0 && metadata->topics[0].partition_cnt > 0;
    rd_kafka_metadata_destroy(metadata);
    return exists;
}

static int cmd_delete(const char *brokers, int count, char **names)
{
    rd_kafka_DeleteTopic_t *topics[PARTITIONS_MAX];
    if (count > PARTITIONS_MAX)
        die("delete", "too many");
    rd_kafka_t *rk = make(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), brokers);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    for (int i = 0; i < count; i++)
        topics[i] = rd_kafka_DeleteTopic_new(names[i]);
    rd_kafka_DeleteTopics(rk, topics, (size_t)count, NULL, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 2 * TIMEOUT_MS);
    if (!event || rd_kafka_event_error(event))
        die("delete", event ? rd_kafka_event_error_string(event) : "no answer");
    size_t n;
    const rd_kafka_topic_result_t **results =
        rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &n);
    for (size_t i = 0; i < n; i++) {
        if (rd_kafka_topic_result_error(results[i]))
            die(names[i], rd_kafka_err2str(rd_kafka_topic_result_error(results[i])));
    }
    rd_kafka_event_destroy(event);
    rd_kafka_DeleteTopic_destroy_array(topics, (size_t)count);
    rd_kafka_queue_destroy(queue);
    for (int i = 0; i < count; i++) {
        while (topic_exists(rk, names[i]))
            rd_kafka_poll(rk, PRODUCE_POLL_MS);
    }
    rd_kafka_destroy(rk);
    return 0;
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *message, void *opaque)
{
    struct produced *produced = opaque;
    (void)rk;
    if (message->err)
        produced->failed++;
    else
        produced->delivered++;
}

static rd_kafka_headers_t *make_headers(int count, char **pairs)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t)count);
    for (int i = 0; i < count; i++) {
        const char *value = strchr(pairs[i], '=');
        if (!value)
            die(pairs[i], "a header is NAME=VALUE");
        rd_kafka_header_add(headers, pairs[i], value - pairs[i], value + 1, -1);
    }
    return headers;
}

static void produce_line(rd_kafka_t *rk, const char *topic, const rd_kafka_headers_t *headers,
                         char *line, size_t len, int64_t at)
{
    char *tab = memchr(line, '\t', len);
    size_t key_len = tab ? (size_t)(tab - line) : 0;
    char *value = tab ? tab + 1 : line;
    size_t value_len = len - (size_t)(value - line);
    rd_kafka_headers_t *own = rd_kafka_headers_copy(headers); /* taken over when produced */
    rd_kafka_resp_err_t err;
    while ((err = rd_kafka_producev(
                rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                RD_KAFKA_V_KEY(key_len ? line : NULL, key_len), RD_KAFKA_V_VALUE(value, value_len),
                RD_KAFKA_V_TIMESTAMP(at), RD_KAFKA_V_HEADERS(own), RD_KAFKA_V_END)) ==
           RD_KAFKA_RESP_ERR__QUEUE_FULL)
        rd_kafka_poll(rk, PRODUCE_POLL_MS);
    if (err)
        die("produce", rd_kafka_err2str(err));
}

static void on_error(rd_kafka_error_t *error, const char *what)
{
    if (error)
        die(what, rd_kafka_error_string(error));
}

/* All lines of stdin; returns how many. */
static uint64_t produce_lines(rd_kafka_t *rk, const char *topic, const rd_kafka_headers_t *headers,
                              int64_t at)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;
    uint64_t sent = 0;
    while ((len = getline(&line, &cap, stdin)) > 0) {
        if (line[len - 1] == '\n')
            len--;
        produce_line(rk, topic, headers, line, (size_t)len, at);
        sent++;
        rd_kafka_poll(rk, 0);
    }
    free(line);
    return sent;
}

/* |at| 0: now. |transaction|: NULL, "commit" or "abort". */
static int cmd_produce(const char *brokers, const char *topic, int header_count, char **pairs,
                       int64_t at, const char *transaction)
{
    rd_kafka_headers_t *headers = make_headers(header_count, pairs);
    struct produced produced = {0};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "acks", "all");
    set(conf, "enable.idempotence", "true"); /* retries neither double nor reorder */
    set(conf, "linger.ms", "5");
    if (transaction)
        set(conf, "transactional.id", "kafka_tool");
    rd_kafka_conf_set_opaque(conf, &produced);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_t *rk = make(RD_KAFKA_PRODUCER, conf, brokers);
    if (transaction) {
        on_error(rd_kafka_init_transactions(rk, FLUSH_MS), "init_transactions");
        on_error(rd_kafka_begin_transaction(rk), "begin_transaction");
    }
    uint64_t sent = produce_lines(rk, topic, headers, at);
    rd_kafka_headers_destroy(headers);
    rd_kafka_flush(rk, FLUSH_MS);
    if (transaction && strcmp(transaction, "abort") == 0)
        on_error(rd_kafka_abort_transaction(rk, FLUSH_MS), "abort_transaction");
    else if (transaction)
        on_error(rd_kafka_commit_transaction(rk, FLUSH_MS), "commit_transaction");
    rd_kafka_destroy(rk);
    printf("{\"sent\":%" PRIu64 ",\"delivered\":%" PRIu64 ",\"failed\":%" PRIu64 "}\n", sent,
           produced.delivered, produced.failed);
    return produced.delivered == sent ? 0 : 1;
}

/* JSON string. Header values may be binary: their bytes beyond ASCII are shown as U+0080..U+00FF.
 */
static void print_text(const char *at, size_t len, bool is_binary)
{
    putchar('"');
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)at[i];
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20 || (is_binary && c >= 0x7f))
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void print_message(const rd_kafka_message_t *message)
{
    printf("{\"partition\":%" PRId32 ",\"offset\":%" PRId64 ",\"key\":", message->partition,
           message->offset);
    print_text(message->key ? message->key : "", message->key_len, false);
    printf(",\"value\":");
    print_text(message->payload ? message->payload : "", message->len, false);
    printf(",\"headers\":{");
    rd_kafka_headers_t *headers;
    if (rd_kafka_message_headers(message, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR) {
        const char *name;
        const void *value;
        size_t size;
        for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == 0; i++) {
            printf("%s", i ? "," : "");
            print_text(name, strlen(name), false);
            putchar(':');
            print_text(value ? value : "", size, true);
        }
    }
    printf("}}\n");
}

/* Partitions of a topic, 0 if there is none. */
static int partitions_of(rd_kafka_t *rk, const char *name)
{
    const struct rd_kafka_metadata *metadata;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(rk, name, NULL);
    rd_kafka_resp_err_t err = rd_kafka_metadata(rk, 0, topic, &metadata, TIMEOUT_MS);
    rd_kafka_topic_destroy(topic);
    if (err)
        die(name, rd_kafka_err2str(err));
    int count = metadata->topic_cnt > 0 ? metadata->topics[0].partition_cnt : 0;
    rd_kafka_metadata_destroy(metadata);
    return count;
}

static int cmd_consume(const char *brokers, const char *name, uint64_t max)
{
    int64_t at[PARTITIONS_MAX] = {0};
    int64_t end[PARTITIONS_MAX] = {0};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "group.id",
        "kafka_tool"); /* named because the client asks for one; never committed */
    set(conf, "enable.auto.commit", "false");
    rd_kafka_t *rk = make(RD_KAFKA_CONSUMER, conf, brokers);
    int count = partitions_of(rk, name);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(count);
    if (count > PARTITIONS_MAX)
        die(name, "too many partitions");
    for (int p = 0; p < count; p++) {
        rd_kafka_resp_err_t err =
            rd_kafka_query_watermark_offsets(rk, name, p, &at[p], &end[p], TIMEOUT_MS);
        if (err)
            die(name, rd_kafka_err2str(err));
        rd_kafka_topic_partition_list_add(list, name, p)->offset = at[p];
    }
    rd_kafka_assign(rk, list);
    uint64_t seen = 0;
    for (int p = 0; p < count && seen < max;) {
        if (at[p] >= end[p]) {
            p++;
            continue;
        }
        rd_kafka_message_t *message = rd_kafka_consumer_poll(rk, TIMEOUT_MS);
        if (!message)
            die(name, "no message within 10 s although the topic has more");
        if (!message->err) {
            print_message(message);
            at[message->partition] = message->offset + 1;
            seen++;
        }
        rd_kafka_message_destroy(message);
    }
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
    return 0;
}

/* Deletes every record that is there, as retention does. */
static int cmd_truncate(const char *brokers, const char *name)
{
    rd_kafka_t *rk = make(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), brokers);
    int count = partitions_of(rk, name);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(count);
    for (int p = 0; p < count; p++) {
        int64_t low, high;
        if (rd_kafka_query_watermark_offsets(rk, name, p, &low, &high, TIMEOUT_MS))
            die(name, "no offsets");
        rd_kafka_topic_partition_list_add(list, name, p)->offset = high;
    }
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_DeleteRecords_t *records = rd_kafka_DeleteRecords_new(list);
    rd_kafka_DeleteRecords(rk, &records, 1, NULL, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 2 * TIMEOUT_MS);
    if (!event || rd_kafka_event_error(event))
        die("truncate", event ? rd_kafka_event_error_string(event) : "no answer");
    rd_kafka_event_destroy(event);
    rd_kafka_DeleteRecords_destroy(records);
    rd_kafka_queue_destroy(queue);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(rk);
    return 0;
}

static int64_t topic_lag(rd_kafka_t *rk, const char *name)
{
    int64_t lag = 0;
    int count = partitions_of(rk, name);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(count);
    for (int p = 0; p < count; p++)
        rd_kafka_topic_partition_list_add(list, name, p);
    rd_kafka_resp_err_t err = rd_kafka_committed(rk, list, TIMEOUT_MS);
    if (err)
        die(name, rd_kafka_err2str(err));
    for (int p = 0; p < count; p++) {
        int64_t low, high;
        err = rd_kafka_query_watermark_offsets(rk, name, p, &low, &high, TIMEOUT_MS);
        if (err)
            die(name, rd_kafka_err2str(err));
        int64_t committed = list->elems[p].offset;
        lag += high - (committed < 0 ? low : committed);
    }
    rd_kafka_topic_partition_list_destroy(list);
    return lag;
}

static int cmd_lag(const char *brokers, const char *group, int count, char **names)
{
    int64_t total = 0;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "group.id", group);
    set(conf, "enable.auto.commit", "false");
    rd_kafka_t *rk = make(RD_KAFKA_CONSUMER, conf, brokers);
    printf("{\"topics\":{");
    for (int i = 0; i < count; i++) {
        int64_t lag = topic_lag(rk, names[i]);
        printf("%s\"%s\":%" PRId64, i ? "," : "", names[i], lag);
        total += lag;
    }
    printf("},\"lag\":%" PRId64 "}\n", total);
    rd_kafka_destroy(rk);
    return 0;
}

int main(int argc, char **argv)
{
    const char *cmd = argc > 1 ? argv[1] : "";
    if (argc == 4 && strcmp(cmd, "wait") == 0)
        return cmd_wait(argv[2], argv[3]);
    if (argc >= 4 && strcmp(cmd, "topics") == 0)
        return cmd_topics(argv[2], argc - 3, argv + 3);
    if (argc >= 4 && strcmp(cmd, "produce") == 0)
        return cmd_produce(argv[2], argv[3], argc - 4, argv + 4, 0, NULL);
    if (argc == 5 && strcmp(cmd, "produce-at") == 0)
        return cmd_produce(argv[2], argv[3], 0, NULL, strtoll(argv[4], NULL, 10), NULL);
    if (argc == 5 && strcmp(cmd, "transact") == 0)
        return cmd_produce(argv[2], argv[3], 0, NULL, 0, argv[4]);
    if (argc == 4 && strcmp(cmd, "truncate") == 0)
        return cmd_truncate(argv[2], argv[3]);
    if (argc >= 4 && strcmp(cmd, "delete") == 0)
        return cmd_delete(argv[2], argc - 3, argv + 3);
    if ((argc == 4 || argc == 5) && strcmp(cmd, "consume") == 0)
        return cmd_consume(argv[2], argv[3], argc == 5 ? strtoull(argv[4], NULL, 10) : UINT64_MAX);
    if (argc >= 5 && strcmp(cmd, "lag") == 0)
        return cmd_lag(argv[2], argv[3], argc - 4, argv + 4);
    fprintf(stderr,
            "usage: kafka_tool wait|topics|delete|truncate|produce|produce-at|transact|consume|lag "
            "BROKERS ...\n");
    return 1;
}
