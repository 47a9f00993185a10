/* Requests: from their command to their receipt. See push.h. */
#include <stddef.h>
#include <string.h>

#include "push/push_impl.h"

/* How much of a block is prefetched: a whole request of 256 bytes with its fields. */
#define FETCH_BYTES_MAX 640u

/* ---- lists ---- */

void bf_push_list_append(struct bf_push *p, struct bf_push_list *list, uint32_t index)
{
    struct bf_push_request *r = bf_push_request_at(p, index);
    r->next = 0;
    r->prev = list->tail;
    if (list->tail != 0)
        bf_push_request_at(p, list->tail)->next = index;
    else
        list->head = index;
    list->tail = index;
    list->count++;
}

void bf_push_list_prepend(struct bf_push *p, struct bf_push_list *list, uint32_t index)
{
    struct bf_push_request *r = bf_push_request_at(p, index);
    r->prev = 0;
    r->next = list->head;
    if (list->head != 0)
        bf_push_request_at(p, list->head)->prev = index;
    else
        list->tail = index;
    list->head = index;
    list->count++;
}

void bf_push_list_remove(struct bf_push *p, struct bf_push_list *list, uint32_t index)
{
    const struct bf_push_request *r = bf_push_request_at(p, index);
    if (r->prev != 0)
        bf_push_request_at(p, r->prev)->next = r->next;
    else
        list->head = r->next;
    if (r->next != 0)
        bf_push_request_at(p, r->next)->prev = r->prev;
    else
        list->tail = r->prev;
    BF_BUG_ON(list->count == 0);
    list->count--;
}

uint32_t bf_push_request_of(const struct bf_push *p, const struct bf_h2_stream *stream)
{
    const uint8_t *at =
        (const uint8_t *)(const void *)stream - offsetof(struct bf_push_request, stream);
    return (uint32_t)((size_t)(at - p->requests.base) / p->requests.item_bytes) + 1u;
}

/* ---- deadlines: a wheel of lists ---- */

static void wheel_add(struct bf_push *p, uint32_t index)
{
    struct bf_push_request *r = bf_push_request_at(p, index);
    r->wheel_at = (uint16_t)(r->deadline_ms / BF_PUSH_WHEEL_MS % BF_PUSH_WHEEL_SLOTS);
    r->wheel_prev = 0;
    r->wheel_next = p->wheel[r->wheel_at];
    if (r->wheel_next != 0)
        bf_push_request_at(p, r->wheel_next)->wheel_prev = index;
    p->wheel[r->wheel_at] = index;
}

static void wheel_remove(struct bf_push *p, uint32_t index)
{
    const struct bf_push_request *r = bf_push_request_at(p, index);
    if (r->wheel_prev != 0)
        bf_push_request_at(p, r->wheel_prev)->wheel_next = r->wheel_next;
    else
        p->wheel[r->wheel_at] = r->wheel_next;
    if (r->wheel_next != 0)
        bf_push_request_at(p, r->wheel_next)->wheel_prev = r->wheel_prev;
}

static void too_late(struct bf_push *p, uint32_t index)
{
    struct bf_push_request *r = bf_push_request_at(p, index);
    if (r->state == BF_PUSH_REQ_WAITING) {
        bool has_open = p->pools[r->pool].open > 0;
        bf_push_give_back(p, index, has_open ? BF_PUSH_WHY_BUSY : BF_PUSH_WHY_NO_CONNECTION);
        return;
    }
    struct bf_push_conn *conn = &p->conns[r->conn];
    uint32_t conn_index = r->conn;
    bool has_left = r->stream.end_mark != 0;
    bf_h2_forget(conn->h2, &r->stream);
    bf_push_list_remove(p, &conn->in_flight, index);
    p->pools[r->pool].in_flight--;
    p->in_flight--;
    bf_push_conn_ready(p, conn_index);
    bf_push_conn_ping(p, conn_index);
    bf_push_finish(p, index, has_left ? BF_PUSH_UNKNOWN : BF_PUSH_NOT_SENT, BF_PUSH_WHY_TIMEOUT);
}

void bf_push_deadlines(struct bf_push *p)
{
    uint64_t now = p->core->mono_ms;
    uint64_t until = now / BF_PUSH_WHEEL_MS;
    if (p->wheel_at + BF_PUSH_WHEEL_SLOTS < until)
        p->wheel_at = until - BF_PUSH_WHEEL_SLOTS; /* one round looks at all */
    for (; p->wheel_at < until; p->wheel_at++) {
        uint32_t index = p->wheel[p->wheel_at % BF_PUSH_WHEEL_SLOTS];
        while (index != 0) { /* at most BF_PUSH_REQUESTS_MAX, each of which then is gone */
            struct bf_push_request *r = bf_push_request_at(p, index);
            uint32_t next = r->wheel_next;
            if (r->deadline_ms <= now)
                too_late(p, index);
            index = next;
        }
    }
}

/* ---- results ---- */

static bool put_receipt(struct bf_push *p, const struct bf_push_request *r)
{
    uint8_t bytes[sizeof(struct bf_rcpt_push) + BF_PUSH_ANSWER_BYTES_MAX];
    bool is_answered = r->end == BF_PUSH_ANSWERED;
    const struct bf_rcpt_push rcpt = {
        .push_id = r->push_id,
        .pool = r->pool_id,
        .retry_after_s = is_answered ? r->stream.retry_after_s : BF_PUSH_NO_RETRY_AFTER,
        .answer_us = r->answer_us,
        .status = is_answered ? r->stream.status : 0,
        .body_len = is_answered ? r->stream.answer_len : 0,
        .end = r->end,
        .why = r->why,
    };
    memcpy(bytes, &rcpt, sizeof(rcpt));
    memcpy(bytes + sizeof(rcpt), r->stream.answer, rcpt.body_len);
    return bf_rcpt_put(&p->core->receipts, BF_RCPT_PUSH, bytes,
                       (uint32_t)sizeof(rcpt) + rcpt.body_len, BF_RCPT_OUT_RESERVE);
}

static void count_end(struct bf_push *p, enum bf_push_end end)
{
    static const enum bf_metric metrics[BF_PUSH_END_COUNT] = {
        [BF_PUSH_ANSWERED] = BF_M_push_answered,
        [BF_PUSH_NOT_SENT] = BF_M_push_not_sent,
        [BF_PUSH_UNKNOWN] = BF_M_push_unknown,
    };
    bf_worker_count(p->core, metrics[end], 1);
}

static void put_request(struct bf_push *p, uint32_t index)
{
    bf_push_request_at(p, index)->state = BF_PUSH_REQ_FREE;
    bf_slab_put(&p->requests, index);
}

void bf_push_finish(struct bf_push *p, uint32_t index, enum bf_push_end end, enum bf_push_why why)
{
    struct bf_push_request *r = bf_push_request_at(p, index);
    wheel_remove(p, index);
    bf_holds_drop(&p->core->holds, r->block);
    r->end = (uint8_t)end;
    r->why = (uint8_t)why;
    r->answer_us = r->written_us ? (uint32_t)(p->now_us - r->written_us) : 0;
    count_end(p, end);
    if (p->done.count == 0 && put_receipt(p, r)) {
        put_request(p, index);
        return;
    }
    r->state = BF_PUSH_REQ_DONE;
    bf_push_list_append(p, &p->done, index);
}

void bf_push_give_back(struct bf_push *p, uint32_t index, enum bf_push_why why)
{
    bf_push_list_remove(p, bf_push_waiting_list(p, bf_push_request_at(p, index)), index);
    p->waiting--;
    bf_push_finish(p, index, BF_PUSH_NOT_SENT, why);
}

void bf_push_give_back_all(struct bf_push *p, struct bf_push_pool *pool, enum bf_push_why why)
{
    for (uint32_t u = 0; u < 2; u++)
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
            while (pool->waiting[u][lane].head != 0)
                bf_push_give_back(p, pool->waiting[u][lane].head, why);
}

bool bf_pool_report(struct bf_push *p)
{
    while (p->done.head != 0) {
        uint32_t index = p->done.head;
        if (!put_receipt(p, bf_push_request_at(p, index)))
            return true;
        bf_push_list_remove(p, &p->done, index);
        put_request(p, index);
    }
    return false;
}

void bf_push_move(struct bf_push *p, uint32_t index, enum bf_push_why why)
{
    struct bf_push_request *r = bf_push_request_at(p, index);
    const struct bf_push_pool *pool = &p->pools[r->pool];
    if (r->is_masked) {
        bf_push_finish(p, index, BF_PUSH_NOT_SENT, BF_PUSH_WHY_MASKED);
        return;
    }
    bool is_worn = why == BF_PUSH_WHY_REFUSED && r->refusals >= BF_PUSH_MOVES_MAX;
    if (p->is_stopping || !pool->is_named || is_worn || p->core->mono_ms >= r->deadline_ms) {
        bf_push_finish(p, index, BF_PUSH_NOT_SENT, p->is_stopping ? BF_PUSH_WHY_STOPPING : why);
        return;
    }
    r->refusals = (uint8_t)(r->refusals + (why == BF_PUSH_WHY_REFUSED));
    r->state = BF_PUSH_REQ_WAITING;
    r->written_us = 0;
    bf_push_list_prepend(p, bf_push_waiting_list(p, r), index);
    p->waiting++;
    bf_worker_count(p->core, BF_M_push_moved, 1);
}

/* ---- commands ---- */

/* Reads a request (shm/push_wire.h). The block is a producer's: any bytes may be in it. */
static bool parse(struct bf_bytes bytes, struct bf_h2_request *ret, struct bf_h2_field *fields,
                  struct bf_bytes *ret_body)
{
    struct bf_reader r = {.buf = (const uint8_t *)bytes.at, .len = bytes.len};
    ret->path = bf_get_str16(&r);
    ret->fields = fields;
    ret->fields_count = bf_get_u8(&r);
    if (r.failed || ret->path.len == 0 || ret->path.at[0] != '/' ||
        ret->fields_count > BF_H2_FIELDS_MAX - 5u)
        return false;
    for (uint32_t i = 0; i < ret->fields_count; i++) {
        fields[i].name = bf_get_bytes(&r, bf_get_u8(&r));
        fields[i].value = bf_get_str16(&r);
        if (fields[i].name.len == 0 || fields[i].name.at[0] == ':')
            return false;
    }
    *ret_body = bf_get_str32(&r);
    return !r.failed && r.at == r.len;
}

void bf_push_fetch_early(const struct bf_push *p, uint32_t index)
{
    const struct bf_region *region = p->core->region;
    uint32_t following[3]; /* the next, the one after it, .. */
    for (uint32_t i = 0; i < 3; i++) {
        index = index != 0 ? bf_push_request_at(p, index)->next : 0;
        following[i] = index;
    }
    if (following[2] != 0)
        __builtin_prefetch(bf_push_request_at(p, following[2]));
    if (following[1] != 0)
        __builtin_prefetch(&bf_blocks(region)[bf_push_request_at(p, following[1])->block]);
    if (following[0] == 0)
        return;
    const struct bf_block *block = &bf_blocks(region)[bf_push_request_at(p, following[0])->block];
    const uint8_t *bytes = bf_block_data(region, block);
    uint32_t len = block->len < FETCH_BYTES_MAX ? block->len : FETCH_BYTES_MAX;
    for (uint32_t at = 0; at < len; at += BF_CACHE_LINE)
        __builtin_prefetch(bytes + at);
}

bool bf_push_parse(struct bf_push *p, struct bf_push_request *r, struct bf_h2_request *ret,
                   struct bf_h2_field *fields)
{
    const struct bf_region *region = p->core->region;
    const struct bf_block *block = &bf_blocks(region)[r->block];
    struct bf_bytes body;
    struct bf_bytes bytes = {(const char *)bf_block_data(region, block), block->len};
    if (bytes.len > BF_PUSH_REQUEST_BYTES_MAX || !parse(bytes, ret, fields, &body))
        return false;
    r->stream.body = (const uint8_t *)body.at;
    r->stream.body_len = (uint32_t)body.len;
    return true;
}

/* A command that gets no slot. False: its receipt does not fit either. */
static bool refuse(struct bf_push *p, const struct bf_cmd_push *cmd, enum bf_push_why why)
{
    const struct bf_rcpt_push rcpt = {
        .push_id = cmd->push_id,
        .pool = cmd->pool,
        .retry_after_s = BF_PUSH_NO_RETRY_AFTER,
        .end = BF_PUSH_NOT_SENT,
        .why = (uint8_t)why,
    };
    if (!bf_rcpt_put(&p->core->receipts, BF_RCPT_PUSH, &rcpt, sizeof(rcpt), BF_RCPT_OUT_RESERVE))
        return false;
    count_end(p, BF_PUSH_NOT_SENT);
    return true;
}

static uint64_t deadline_of(const struct bf_push *p, const struct bf_cmd_push *cmd)
{
    uint32_t ms = cmd->deadline_ms ? cmd->deadline_ms : BF_PUSH_DEADLINE_MS;
    return p->core->mono_ms + (ms < BF_PUSH_DEADLINE_MAX_MS ? ms : BF_PUSH_DEADLINE_MAX_MS);
}

bool bf_push_take(struct bf_push *p, const struct bf_cmd_push *cmd, uint32_t lane)
{
    if (p->done.count > 0)
        return false; /* results come first: no new push until ctrlplane reads */
    int pool = bf_push_pool_find(p, cmd->pool);
    if (pool < 0 || p->is_stopping)
        return refuse(p, cmd, pool < 0 ? BF_PUSH_WHY_NO_POOL : BF_PUSH_WHY_STOPPING);
    uint32_t index = bf_slab_take(&p->requests);
    if (index == 0)
        return refuse(p, cmd, BF_PUSH_WHY_BUSY);
    struct bf_push_request *r = bf_push_request_at(p, index);
    memset(r, 0, offsetof(struct bf_push_request, stream));
    r->push_id = cmd->push_id;
    r->user = cmd->user;
    r->deadline_ms = deadline_of(p, cmd);
    r->block = cmd->block.index;
    r->pool_id = cmd->pool;
    r->pool = (uint16_t)pool;
    r->lane = (uint8_t)lane;
    r->is_unverified = cmd->flags & BF_PUSH_UNVERIFIED;
    r->state = BF_PUSH_REQ_WAITING;
    r->stream.retry_after_s = BF_PUSH_NO_RETRY_AFTER;
    bf_holds_add(&p->core->holds, r->block);
    wheel_add(p, index);
    bf_push_list_append(p, bf_push_waiting_list(p, r), index);
    p->waiting++;
    bf_worker_count(p->core, BF_M_push_requests, 1);
    return true;
}

/* Looks at each slot that was ever used (at most BF_PUSH_REQUESTS_MAX: 1 ms) while any request
 * waits or is under way: opt-outs are rare, and an index by person would cost time for every push.
 */
void bf_push_mask(struct bf_push *p, struct bf_user_key user)
{
    for (uint32_t i = 1; i <= p->requests.bump && p->waiting + p->in_flight > 0; i++) {
        struct bf_push_request *r = bf_push_request_at(p, i);
        if (!bf_user_key_is_equal(r->user, user))
            continue;
        if (r->state == BF_PUSH_REQ_WAITING)
            bf_push_give_back(p, i, BF_PUSH_WHY_MASKED);
        else if (r->state == BF_PUSH_REQ_IN_FLIGHT)
            r->is_masked = true;
    }
}

bool bf_push_census(struct bf_push *p, uint64_t ticket, uint32_t *cursor)
{
    uint8_t bytes[sizeof(struct bf_rcpt_census_push) + BF_PUSH_CENSUS_IDS_MAX * sizeof(uint64_t)];
    /* the control process has had no report yet */
    for (uint32_t i = 0; i < p->pool_count; i++)
        p->pools[i].has_report = p->pools[i].is_used;
    while (*cursor < p->requests.bump) {
        struct bf_rcpt_census_push rcpt = {.ticket = ticket, .worker = p->core->worker};
        uint32_t at = *cursor;
        for (; at < p->requests.bump && rcpt.count < BF_PUSH_CENSUS_IDS_MAX; at++) {
            const struct bf_push_request *r = bf_push_request_at(p, at + 1);
            if (r->state == BF_PUSH_REQ_FREE)
                continue;
            memcpy(bytes + sizeof(rcpt) + rcpt.count * sizeof(uint64_t), &r->push_id,
                   sizeof(uint64_t));
            rcpt.count++;
        }
        memcpy(bytes, &rcpt, sizeof(rcpt));
        if (rcpt.count > 0 &&
            !bf_rcpt_put(&p->core->receipts, BF_RCPT_CENSUS_PUSH, bytes,
                         (uint32_t)(sizeof(rcpt) + rcpt.count * sizeof(uint64_t)), 0))
            return false;
        *cursor = at;
    }
    return true;
}
