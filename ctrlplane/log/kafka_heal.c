/*
 * Kafka log engine: how the reading side goes on by itself, without a new process. Consumer thread.
 *
 * - A consumer in a fatal state (fenced by its own past life after a broker's restart, an
 *   assignment that librdkafka refused) is closed, and a new one is made with the same
 *   group.instance.id. What it had is given back first; the new consumer reads from the committed
 *   offsets, and events after them that were settled already are recognised by their ids.
 * - A partition in which our offset no longer exists is begun again. Either the topic was deleted
 *   and created again (or cut at its end): then it is read from its beginning. Or Kafka's retention
 *   has deleted events that we had not read: then reading goes on with what is left. Stopping would
 *   bring nothing back and would hold up the events that follow, so both are logged as errors and
 *   counted.
 */
#include <inttypes.h>
#include <stdio.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "log/kafka.h"
#include "stats/metrics.h"

/* Time between two tries to begin a partition again, and the time that one may take, because events
 * of other partitions wait for it. */
#define RESTART_RETRY_MS 1000u
#define RESTART_ASK_MS   2000

/* ---- a new consumer ---- */

/* Its partitions are not ours any more: the pipeline's results for them are dropped. */
static void drop_assignment(struct bf_kafka *k)
{
    for (uint32_t i = 0; i < k->partition_count; i++) {
        struct bf_kafka_partition *p = &k->partitions[i];
        if (!p->is_assigned)
            continue;
        if (k->hooks.on_revoke != NULL)
            k->hooks.on_revoke(k->hooks.arg, i, p->assignment);
        p->is_assigned = p->is_paused = p->is_lost = false;
    }
    if (k->pending != NULL)
        rd_kafka_topic_partition_list_destroy(k->pending);
    k->pending = NULL;
    k->has_lost = k->has_skips = k->is_idle = false;
    atomic_store_explicit(&k->has_assignment, false, memory_order_relaxed);
    atomic_store_explicit(&k->is_restarting, false, memory_order_relaxed);
}

static bool make_anew(struct bf_kafka *k, uint64_t now)
{
    char err[BF_KAFKA_TEXT_BYTES] = "";
    if (k->consumer != NULL) /* it can neither commit nor leave any more */
        rd_kafka_destroy_flags(k->consumer, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    k->consumer = NULL;
    for (int lane = 0; lane < (int)BF_LANE_COUNT; lane++)
        k->topic_handle[lane] = NULL;
    k->consumer_renewal.made_ms = now;
    if (bf_kafka_consumer_open(k, err, sizeof(err)) != 0) {
        bf_kafka_say("the consumer cannot be made anew yet", err);
        k->consumer_renewal.at_ms = now + BF_KAFKA_RENEW_MIN_MS;
        return false;
    }
    k->consumer_renewal.at_ms = 0;
    atomic_store_explicit(&k->consumer_dead_ms, 0, memory_order_relaxed);
    bf_count(BF_CM_M_log_clients_renewed, 1);
    BF_INFO("ctrlplane", "kafka: the consumer was made anew as %s", k->conf->node_id);
    return true;
}

bool bf_kafka_heal_consumer(struct bf_kafka *k)
{
    uint64_t now = bf_mono_ms();
    if (atomic_load_explicit(&k->consumer_dead_ms, memory_order_relaxed) == 0)
        return true;
    drop_assignment(k);
    if (k->consumer_renewal.at_ms == 0)
        bf_kafka_renewal_plan(&k->consumer_renewal, now);
    /* a message must be given back before its client goes */
    return k->records_out == 0 && now >= k->consumer_renewal.at_ms && make_anew(k, now);
}

/* ---- a partition that begins anew ---- */

void bf_kafka_lose_place(struct bf_kafka *k, struct bf_kafka_partition *p)
{
    p->is_lost = true;
    k->has_lost = true;
    k->lost_at_ms = 0;
    atomic_store_explicit(&k->is_restarting, true, memory_order_relaxed);
}

void bf_kafka_take_anew(struct bf_kafka *k)
{
    /* relaxed: the bits say it all */
    if (atomic_load_explicit(&k->anew, memory_order_relaxed) == 0)
        return;
    uint32_t lanes = atomic_exchange_explicit(&k->anew, 0, memory_order_relaxed);
    for (uint32_t i = 0; i < k->partition_count; i++) {
        if (k->partitions[i].is_assigned && (lanes & 1u << k->partitions[i].lane) != 0)
            bf_kafka_lose_place(k, &k->partitions[i]);
    }
}

static void tell_people(const struct bf_kafka *k, const struct bf_kafka_partition *p, int64_t low,
                        int64_t high)
{
    bool is_overtaken = p->next_offset < low;
    bf_count(BF_CM_M_log_places_lost, 1);
    if (is_overtaken)
        bf_count(BF_CM_M_log_records_lost, (uint64_t)(low - p->next_offset));
    BF_ERROR("ctrlplane",
             "kafka: %s [%d]: we were at place %" PRId64 ", it holds %" PRId64 "..%" PRId64
             ": %s; reading goes on at %" PRId64,
             k->topics[p->lane], p->partition, p->next_offset, low, high,
             is_overtaken ? "Kafka's retention has deleted records that were not read"
                          : "the topic was made anew, or its end was cut off",
             low);
}

/* Taken away from librdkafka and given back at |low|, which is committed between the two: what it
 * remembers to commit belongs to the former topic. */
static bool begin_at(struct bf_kafka *k, const struct bf_kafka_partition *p, int64_t low)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, k->topics[p->lane], p->partition)->offset = low;
    rd_kafka_error_t *error = rd_kafka_incremental_unassign(k->consumer, list);
    list->elems[0].offset = low;
    rd_kafka_resp_err_t err = error == NULL ? rd_kafka_commit(k->consumer, list, 0) : 0;
    list->elems[0].offset = low;
    if (error == NULL)
        error = rd_kafka_incremental_assign(k->consumer, list);
    bool is_done = error == NULL;
    if (!is_done)
        bf_kafka_consumer_dies(k, "a partition cannot begin anew", rd_kafka_error_string(error));
    else if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
        bf_kafka_say("the new beginning is not committed yet", rd_kafka_err2str(err));
    if (is_done)
        bf_kafka_note_assigned(k, &list->elems[0]);
    if (error != NULL)
        rd_kafka_error_destroy(error);
    rd_kafka_topic_partition_list_destroy(list);
    return is_done;
}

static bool restart(struct bf_kafka *k, uint32_t index)
{
    struct bf_kafka_partition *p = &k->partitions[index];
    int64_t low = 0, high = 0;
    rd_kafka_resp_err_t err = rd_kafka_query_watermark_offsets(
        k->consumer, k->topics[p->lane], p->partition, &low, &high, RESTART_ASK_MS);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        bf_kafka_say("a partition's beginning cannot be read yet", rd_kafka_err2str(err));
        return false;
    }
    tell_people(k, p, low, high);
    if (k->hooks.on_revoke != NULL)
        k->hooks.on_revoke(k->hooks.arg, index, p->assignment);
    p->is_assigned = p->is_lost = false;
    return begin_at(k, p, low);
}

void bf_kafka_restart_lost(struct bf_kafka *k)
{
    uint64_t now = bf_mono_ms();
    bool is_left = false;
    if (!k->has_lost || now < k->lost_at_ms)
        return;
    k->lost_at_ms = now + RESTART_RETRY_MS;
    /* one that fails is asked for again: the others would fail alike, one after the other */
    for (uint32_t i = 0; i < k->partition_count; i++) {
        if (k->partitions[i].is_assigned && k->partitions[i].is_lost)
            is_left = is_left || !restart(k, i);
    }
    k->has_lost = is_left;
    atomic_store_explicit(&k->is_restarting, is_left, memory_order_relaxed);
}

/* ---- records that are no events ---- */

void bf_kafka_tell_skips(struct bf_kafka *k)
{
    bool is_left = false;
    if (!k->has_skips)
        return;
    for (uint32_t i = 0; i < k->partition_count; i++) {
        struct bf_kafka_partition *p = &k->partitions[i];
        if (!p->is_assigned || p->skip_to < 0)
            continue;
        if (k->hooks.on_skip == NULL ||
            k->hooks.on_skip(k->hooks.arg, i, p->assignment, p->skip_to))
            p->skip_to = -1;
        else
            is_left = true;
    }
    k->has_skips = is_left;
}
