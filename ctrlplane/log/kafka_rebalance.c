/*
 * Assignment of partitions (DESIGN 4.14), on the consumer thread while it polls. A partition
 * without a committed offset is read from its beginning, and that offset is committed at once: from
 * then on "no offset" can only mean that something was lost, and is an error.
 */
#include <string.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "log/kafka.h"

/* A partition that is taken from us waits this long for its last commit. */
#define REVOKE_COMMIT_TIMEOUT_MS 5000
/* Between two asks for the committed offsets while no coordinator answers. */
#define ASSIGN_RETRY_MS 1000u

static int lane_of(const struct bf_kafka *k, const char *topic)
{
    for (int lane = 0; lane < (int)BF_LANE_COUNT; lane++) {
        if (strcmp(k->topics[lane], topic) == 0)
            return lane;
    }
    return -1;
}

/* The partition's dense index; a new one the first time. NULL: beyond the bounds. */
static struct bf_kafka_partition *find_partition(struct bf_kafka *k, const char *topic,
                                                 int32_t partition, uint32_t *ret_index)
{
    int lane = lane_of(k, topic);
    if (lane < 0 || partition < 0 || partition >= (int32_t)BF_LEDGER_PARTITIONS_MAX)
        return NULL;
    int16_t *slot = &k->index_of[lane][partition];
    if (*slot < 0) {
        if (k->partition_count == BF_LEDGER_PARTITIONS_MAX)
            return NULL;
        *slot = (int16_t)k->partition_count++;
        k->partitions[*slot].lane = (uint8_t)lane;
        k->partitions[*slot].partition = partition;
    }
    *ret_index = (uint32_t)*slot;
    return &k->partitions[*slot];
}

void bf_kafka_consumer_dies(struct bf_kafka *k, const char *what, const char *why)
{
    uint64_t lives = 0;
    bf_kafka_note_why(k, what, why);
    /* relaxed: a flag with a time in it; the first one counts */
    if (atomic_compare_exchange_strong_explicit(&k->consumer_dead_ms, &lives, bf_mono_ms() + 1,
                                                memory_order_relaxed, memory_order_relaxed))
        BF_ERROR("ctrlplane", "kafka: %s: %s; the consumer is made anew, nothing accepted is lost",
                 what, why);
}

/* Fills in where each partition is read from. |fresh| receives those without a committed offset. */
static bool find_starts(struct bf_kafka *k, rd_kafka_topic_partition_list_t *list,
                        rd_kafka_topic_partition_list_t *fresh)
{
    rd_kafka_resp_err_t err = rd_kafka_committed(k->consumer, list, BF_KAFKA_ASK_TIMEOUT_MS);
    for (int i = 0; err == RD_KAFKA_RESP_ERR_NO_ERROR && i < list->cnt; i++) {
        rd_kafka_topic_partition_t *p = &list->elems[i];
        int64_t low = 0, high = 0;
        err = p->err;
        if (err != RD_KAFKA_RESP_ERR_NO_ERROR || p->offset >= 0)
            continue;
        err = rd_kafka_query_watermark_offsets(k->consumer, p->topic, p->partition, &low, &high,
                                               BF_KAFKA_ASK_TIMEOUT_MS);
        p->offset = low;
        rd_kafka_topic_partition_list_add(fresh, p->topic, p->partition)->offset = low;
    }
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
        return true;
    BF_WARN("ctrlplane", "kafka: the committed offsets cannot be read yet: %s",
            rd_kafka_err2str(err));
    return false;
}

void bf_kafka_note_assigned(struct bf_kafka *k, const rd_kafka_topic_partition_t *from)
{
    uint32_t index;
    struct bf_kafka_partition *p = find_partition(k, from->topic, from->partition, &index);
    if (p == NULL) {
        bf_kafka_consumer_dies(k, "a partition beyond the bounds was assigned", from->topic);
        return;
    }
    p->is_assigned = true;
    p->is_lost = false;
    p->skip_to = -1;
    p->assignment = ++k->last_assignment;
    p->next_offset = p->stored = from->offset;
    if (k->hooks.on_assign != NULL)
        k->hooks.on_assign(k->hooks.arg, index, p->assignment, from->offset);
}

static void take_list(struct bf_kafka *k, const rd_kafka_topic_partition_list_t *list,
                      const rd_kafka_topic_partition_list_t *fresh)
{
    rd_kafka_error_t *error = rd_kafka_incremental_assign(k->consumer, list);
    if (error != NULL) {
        bf_kafka_consumer_dies(k, "assign", rd_kafka_error_string(error));
        rd_kafka_error_destroy(error);
        return;
    }
    rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (fresh->cnt > 0)
        err = rd_kafka_commit(k->consumer, fresh, 0);
    if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
        BF_WARN("ctrlplane", "kafka: first offsets not committed yet: %s", rd_kafka_err2str(err));
    for (int i = 0; i < list->cnt; i++)
        bf_kafka_note_assigned(k, &list->elems[i]);
    atomic_store_explicit(&k->has_assignment, true, memory_order_relaxed);
}

static void assign_list(struct bf_kafka *k, rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_topic_partition_list_t *fresh = rd_kafka_topic_partition_list_new(list->cnt);
    if (find_starts(k, list, fresh)) {
        take_list(k, list, fresh);
    } else {
        /* librdkafka waits for the assignment; it may be given outside of its callback */
        atomic_store_explicit(&k->has_assignment, false, memory_order_relaxed);
        k->pending = rd_kafka_topic_partition_list_copy(list);
        k->pending_at_ms = bf_mono_ms() + ASSIGN_RETRY_MS;
    }
    rd_kafka_topic_partition_list_destroy(fresh);
}

void bf_kafka_retry_assign(struct bf_kafka *k)
{
    if (k->pending == NULL || bf_mono_ms() < k->pending_at_ms)
        return;
    rd_kafka_topic_partition_list_t *list = k->pending;
    k->pending = NULL;
    for (int i = 0; i < list->cnt; i++)
        list->elems[i].offset = RD_KAFKA_OFFSET_INVALID; /* asked for anew */
    assign_list(k, list);
    rd_kafka_topic_partition_list_destroy(list);
}

/* While we leave nothing is read any more: the assignment is only confirmed. */
static void confirm_list(struct bf_kafka *k, const rd_kafka_topic_partition_list_t *list)
{
    rd_kafka_error_t *error = rd_kafka_incremental_assign(k->consumer, list);
    if (error != NULL)
        rd_kafka_error_destroy(error);
}

static void drop_pending(struct bf_kafka *k)
{
    if (k->pending != NULL)
        rd_kafka_topic_partition_list_destroy(k->pending);
    k->pending = NULL;
}

/* Commits what the hooks stored, for a bounded time. */
static void commit_stored(struct bf_kafka *k)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_new(k->consumer);
    rd_kafka_resp_err_t err = rd_kafka_commit_queue(k->consumer, NULL, queue, NULL, NULL);
    if (err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(queue, REVOKE_COMMIT_TIMEOUT_MS);
        if (event == NULL)
            BF_WARN("ctrlplane", "kafka: offsets of revoked partitions were not committed in time;"
                                 " the next owner repeats a little");
        else
            rd_kafka_event_destroy(event);
    }
    rd_kafka_queue_destroy(queue);
}

static void revoke_list(struct bf_kafka *k, rd_kafka_topic_partition_list_t *list)
{
    bool is_lost = rd_kafka_assignment_lost(k->consumer), had_any = false;
    if (is_lost)
        atomic_store_explicit(&k->has_assignment, false, memory_order_relaxed);
    for (int i = 0; i < list->cnt; i++) {
        uint32_t index;
        struct bf_kafka_partition *p =
            find_partition(k, list->elems[i].topic, list->elems[i].partition, &index);
        if (p == NULL || !p->is_assigned)
            continue;
        if (k->hooks.on_revoke != NULL)
            k->hooks.on_revoke(k->hooks.arg, index, p->assignment);
        p->is_assigned = p->is_lost = false;
        had_any = true;
    }
    if (had_any && !is_lost)
        commit_stored(k);
    rd_kafka_error_t *error = rd_kafka_incremental_unassign(k->consumer, list);
    if (error == NULL)
        return;
    bf_kafka_consumer_dies(k, "unassign", rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
}

void bf_kafka_rebalance(rd_kafka_t *rk, rd_kafka_resp_err_t err,
                        rd_kafka_topic_partition_list_t *partitions, void *opaque)
{
    struct bf_kafka *k = opaque;
    BF_BUG_ON(rk != k->consumer);
    k->rebalanced = true;
    if (err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        if (k->is_leaving)
            confirm_list(k, partitions);
        else
            assign_list(k, partitions);
    } else if (err == RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) {
        drop_pending(k);
        revoke_list(k, partitions);
    } else {
        BF_WARN("ctrlplane", "kafka: rebalance: %s", rd_kafka_err2str(err));
        rd_kafka_assign(rk, NULL);
    }
}
