/* Connections: opening, requests on them, their ends. See push.h. */
#include <stdio.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "push/push_impl.h"

static struct bf_push_pool *pool_of(struct bf_push *p, const struct bf_push_conn *conn)
{
    return &p->pools[conn->pool];
}

static uint32_t index_of(const struct bf_push *p, const struct bf_push_conn *conn)
{
    return (uint32_t)(conn - p->conns);
}

static void changed(struct bf_push *p, const struct bf_push_conn *conn)
{
    pool_of(p, conn)->has_report = true;
}

void bf_push_conn_ready(struct bf_push *p, uint32_t conn)
{
    struct bf_push_conn *c = &p->conns[conn];
    if (c->is_ready || c->is_blocked || c->state < BF_PUSH_CONN_CONNECTING || !c->h2)
        return;
    c->is_ready = true;
    p->ready[(p->ready_head + p->ready_count++) % BF_PUSH_CONNECTIONS_MAX] = (uint16_t)conn;
}

uint32_t bf_push_ready_take(struct bf_push *p)
{
    while (p->ready_count > 0) {
        uint32_t conn = p->ready[p->ready_head];
        p->ready_head = (p->ready_head + 1) % BF_PUSH_CONNECTIONS_MAX;
        p->ready_count--;
        p->conns[conn].is_ready = false;
        if (p->conns[conn].h2 && !p->conns[conn].is_blocked)
            return conn;
    }
    return UINT32_MAX;
}

/* ---- opening ---- */

static uint32_t conn_take(struct bf_push *p)
{
    uint32_t index = p->conn_free;
    if (index != 0)
        p->conn_free = p->conns[index - 1].next;
    else if (p->conn_bump < BF_PUSH_CONNECTIONS_MAX)
        index = ++p->conn_bump;
    else
        return UINT32_MAX;
    bool is_ready = p->conns[index - 1].is_ready; /* its old place in the list may still stand */
    p->conns[index - 1] = (struct bf_push_conn){.push = p, .is_ready = is_ready};
    p->conns_used++;
    return index - 1;
}

/* The next address that may be tried now; UINT32_MAX: none. */
static uint32_t pick_address(struct bf_push *p, struct bf_push_pool *pool)
{
    uint64_t now = p->core->mono_ms;
    for (uint32_t i = 0; i < pool->address_count; i++) {
        uint32_t at = (pool->next_address + i) % pool->address_count;
        struct bf_push_address *a = &pool->addresses[at];
        if (a->second != now / 1000u) {
            a->second = now / 1000u;
            a->opened = 0;
        }
        if (a->not_before_ms > now || a->opened >= BF_PUSH_OPENS_PER_S)
            continue;
        a->opened++;
        pool->next_address = (uint8_t)((at + 1) % pool->address_count);
        return at;
    }
    return UINT32_MAX;
}

bool bf_push_conn_open(struct bf_push *p, uint32_t pool_index, bool is_unverified)
{
    struct bf_push_pool *pool = &p->pools[pool_index];
    uint32_t address = pick_address(p, pool);
    uint32_t conn = address != UINT32_MAX ? conn_take(p) : UINT32_MAX;
    if (conn == UINT32_MAX)
        return false;
    struct bf_push_conn *c = &p->conns[conn];
    c->pool = (uint16_t)pool_index;
    c->address = (uint8_t)address;
    c->is_unverified = is_unverified;
    c->state = BF_PUSH_CONN_CONNECTING;
    c->since_ms = c->active_ms = p->core->mono_ms;
    c->next = pool->first_conn;
    pool->first_conn = conn + 1;
    pool->conns++;
    pool->connecting++;
    pool->unverified_conns += is_unverified;
    pool->has_report = true;
    bf_worker_count(p->core, BF_M_push_connects, 1);
    if (p->transport.open(p->transport.context, conn, pool_index, &pool->addresses[address]))
        return true;
    bf_push_conn_end(p, conn, "no socket or memory for another connection", true);
    return false;
}

/* ---- ends ---- */

static void set_state(struct bf_push *p, struct bf_push_conn *c, enum bf_push_conn_state state)
{
    struct bf_push_pool *pool = pool_of(p, c);
    pool->connecting -= c->state == BF_PUSH_CONN_CONNECTING;
    pool->open -= c->state == BF_PUSH_CONN_OPEN;
    c->state = (uint8_t)state;
    pool->connecting += state == BF_PUSH_CONN_CONNECTING;
    pool->open += state == BF_PUSH_CONN_OPEN;
    c->since_ms = p->core->mono_ms;
    pool->has_report = true;
}

/* When its address may be tried again: at once but for jitter, or later each time it fails. */
static void set_backoff(struct bf_push *p, struct bf_push_pool *pool, uint8_t address,
                        bool is_failure)
{
    if (address >= pool->address_count)
        return;
    struct bf_push_address *a = &pool->addresses[address];
    uint32_t ms = BF_PUSH_BACKOFF_MS;
    if (!is_failure)
        a->failures = 0;
    else if (a->failures < 16)
        a->failures++;
    for (uint32_t i = 1; i < a->failures && ms < BF_POOL_BACKOFF_MAX_MS; i++)
        ms *= 2;
    if (ms > BF_POOL_BACKOFF_MAX_MS)
        ms = BF_POOL_BACKOFF_MAX_MS;
    uint64_t until = p->core->mono_ms + ms / 2u + bf_push_random(p, ms);
    if (until > a->not_before_ms)
        a->not_before_ms = until;
}

static void unlink_conn(struct bf_push *p, uint32_t conn)
{
    struct bf_push_pool *pool = pool_of(p, &p->conns[conn]);
    uint32_t *link = &pool->first_conn;
    while (*link != conn + 1)
        link = &p->conns[*link - 1].next;
    *link = p->conns[conn].next;
    if (pool->cursor == conn + 1)
        pool->cursor = 0;
    pool->conns--;
    pool->unverified_conns -= p->conns[conn].is_unverified;
}

/* Requests that were under way on a connection that has ended. */
static void give_up_flying(struct bf_push *p, struct bf_push_conn *c)
{
    while (c->in_flight.head != 0) {
        uint32_t index = c->in_flight.head;
        const struct bf_push_request *r = bf_push_request_at(p, index);
        bool has_left = r->stream.end_mark != 0 && r->stream.end_mark <= c->sent;
        bf_push_list_remove(p, &c->in_flight, index);
        pool_of(p, c)->in_flight--;
        p->in_flight--;
        if (has_left)
            bf_push_finish(p, index, BF_PUSH_UNKNOWN, BF_PUSH_WHY_CLOSED);
        else
            bf_push_move(p, index, BF_PUSH_WHY_CLOSED);
    }
}

static void release(struct bf_push *p, uint32_t conn)
{
    struct bf_push_conn *c = &p->conns[conn];
    struct bf_push_pool *pool = pool_of(p, c);
    set_state(p, c, BF_PUSH_CONN_NONE);
    bf_h2_destroy(c->h2);
    c->h2 = NULL;
    give_up_flying(p, c);
    unlink_conn(p, conn);
    if (!pool->is_named && pool->conns == 0)
        pool->is_used = false;
}

void bf_push_conn_end(struct bf_push *p, uint32_t conn, const char *text, bool is_failure)
{
    struct bf_push_conn *c = &p->conns[conn];
    struct bf_push_pool *pool = pool_of(p, c);
    if (is_failure) {
        pool->failures++;
        bf_push_pool_say(pool, text, strlen(text));
        bf_worker_count(p->core, BF_M_push_connection_failures, 1);
    }
    uint8_t last[BF_PUSH_LAST_BYTES_MAX];
    size_t len = c->h2 ? bf_h2_farewell(c->h2, last, sizeof(last)) : 0;
    set_backoff(p, pool, c->address, is_failure && !c->is_proven);
    release(p, conn);
    /* bf_push_released may follow at once */
    p->transport.close(p->transport.context, conn, last, len);
}

void bf_push_released(struct bf_push *p, uint32_t conn)
{
    BF_BUG_ON(p->conns[conn].state != BF_PUSH_CONN_NONE);
    p->conns[conn].next = p->conn_free;
    p->conn_free = conn + 1;
    p->conns_used--;
}

void bf_push_closed(struct bf_push *p, uint32_t conn, const char *text)
{
    const struct bf_push_conn *c = &p->conns[conn];
    bool is_expected = c->state == BF_PUSH_CONN_DRAINING && c->in_flight.count == 0;
    bf_push_conn_end(p, conn, text, !is_expected);
}

void bf_push_conns_end(struct bf_push *p)
{
    for (uint32_t i = 0; i < p->conn_bump; i++)
        if (p->conns[i].state != BF_PUSH_CONN_NONE)
            bf_push_conn_end(p, i, "", false);
}

void bf_push_conn_drain(struct bf_push *p, uint32_t conn)
{
    struct bf_push_conn *c = &p->conns[conn];
    if (c->state == BF_PUSH_CONN_CONNECTING)
        bf_push_conn_end(p, conn, "", false);
    else if (c->state == BF_PUSH_CONN_OPEN)
        set_state(p, c, BF_PUSH_CONN_DRAINING);
}

void bf_push_drain(struct bf_push *p, uint32_t conn)
{
    bf_push_conn_drain(p, conn);
    bf_push_blocked(p, conn, true);
}

/* ---- what HTTP/2 tells ---- */

static void stream_ended(struct bf_push *p, struct bf_push_conn *c, const struct bf_h2_event *event)
{
    uint32_t index = bf_push_request_of(p, event->stream);
    const struct bf_h2_stream *s = event->stream;
    bf_push_list_remove(p, &c->in_flight, index);
    pool_of(p, c)->in_flight--;
    p->in_flight--;
    if (s->is_bad) {
        bf_push_finish(p, index, BF_PUSH_UNKNOWN, BF_PUSH_WHY_BAD_ANSWER);
    } else if (s->is_answered && s->status != 0) {
        if (s->status < 400 && !c->is_proven) {
            c->is_proven = true;
            pool_of(p, c)->addresses[c->address].failures = 0;
            changed(p, c);
        }
        bf_push_finish(p, index, BF_PUSH_ANSWERED, BF_PUSH_WHY_NONE);
    } else if (event->is_refused) {
        bf_push_move(p, index, event->is_goaway ? BF_PUSH_WHY_GOAWAY : BF_PUSH_WHY_REFUSED);
    } else if (event->is_malformed) {
        bf_push_finish(p, index, BF_PUSH_UNKNOWN, BF_PUSH_WHY_BAD_ANSWER);
    } else {
        bf_push_finish(p, index, s->end_mark != 0 ? BF_PUSH_UNKNOWN : BF_PUSH_NOT_SENT,
                       BF_PUSH_WHY_RESET);
    }
}

static void goaway(struct bf_push *p, struct bf_push_conn *c, const struct bf_h2_event *event)
{
    struct bf_push_pool *pool = pool_of(p, c);
    char text[64];
    pool->goaways++;
    bf_worker_count(p->core, BF_M_push_goaways, 1);
    if (event->debug.len > 0) {
        bf_push_pool_say(pool, event->debug.at, event->debug.len);
    } else {
        int n = snprintf(text, sizeof(text), "GOAWAY, error %u", event->error_code);
        bf_push_pool_say(pool, text, (size_t)n);
    }
    set_backoff(p, pool, c->address, event->error_code != 0 && !c->is_proven);
    if (c->state != BF_PUSH_CONN_DRAINING)
        set_state(p, c, BF_PUSH_CONN_DRAINING);
}

static void on_h2(void *context, const struct bf_h2_event *event)
{
    struct bf_push_conn *c = context;
    struct bf_push *p = c->push;
    switch (event->kind) {
    case BF_H2_STREAM_END:
        stream_ended(p, c, event);
        break;
    case BF_H2_SETTINGS:
        if (c->state == BF_PUSH_CONN_CONNECTING)
            set_state(p, c, BF_PUSH_CONN_OPEN);
        changed(p, c);
        break;
    case BF_H2_GOAWAY:
        goaway(p, c, event);
        break;
    case BF_H2_PONG:
        c->ping_ms = 0;
        bf_worker_count(p->core, BF_M_push_pongs, 1);
        break;
    }
}

/* ---- transports ---- */

void bf_push_opened(struct bf_push *p, uint32_t conn)
{
    struct bf_push_conn *c = &p->conns[conn];
    BF_BUG_ON(c->h2 != NULL);
    if (bf_h2_create(&p->memory, on_h2, c, &c->h2) != 0) {
        bf_push_conn_end(p, conn, "out of the memory set aside for HTTP/2", true);
        return;
    }
    c->active_ms = p->core->mono_ms;
    bf_push_conn_ready(p, conn);
}

void bf_push_received(struct bf_push *p, uint32_t conn, const uint8_t *bytes, size_t len)
{
    struct bf_push_conn *c = &p->conns[conn];
    if (!c->h2)
        return;
    c->active_ms = p->core->mono_ms;
    p->now_us = bf_mono_ns() / 1000u;
    int rc = bf_h2_feed(c->h2, bytes, len, p->core->mono_ms);
    if (rc != 0) {
        char text[BF_PUSH_POOL_TEXT_MAX];
        snprintf(text, sizeof(text), "HTTP/2: %s", bf_h2_error_text(c->h2));
        bf_push_conn_end(p, conn, text, true);
        return;
    }
    if (c->state == BF_PUSH_CONN_DRAINING && c->in_flight.count == 0) {
        bf_push_conn_end(p, conn, "", false);
        return;
    }
    if (bf_h2_wants_write(c->h2))
        bf_push_conn_ready(p, conn);
}

void bf_push_sent(struct bf_push *p, uint32_t conn, size_t bytes)
{
    p->conns[conn].sent += bytes;
}

void bf_push_blocked(struct bf_push *p, uint32_t conn, bool is_blocked)
{
    struct bf_push_conn *c = &p->conns[conn];
    c->is_blocked = is_blocked;
    if (!is_blocked && c->h2 && (c->grant > 0 || bf_h2_wants_write(c->h2)))
        bf_push_conn_ready(p, conn);
}

/* ---- requests on connections ---- */

uint32_t bf_push_conn_limit(const struct bf_push *p, const struct bf_push_conn *c)
{
    bool is_doubtful = c->ping_ms != 0 && p->core->mono_ms - c->ping_ms > BF_PUSH_DOUBT_MS;
    if (c->state != BF_PUSH_CONN_OPEN || is_doubtful || !bf_h2_is_usable(c->h2))
        return 0;
    uint32_t limit = bf_h2_streams_max(c->h2);
    uint32_t first = p->pools[c->pool].streams_first;
    if (limit > BF_PUSH_STREAMS_MAX)
        limit = BF_PUSH_STREAMS_MAX;
    return first != 0 && !c->is_proven && limit > first ? first : limit;
}

static uint32_t free_streams(const struct bf_push *p, const struct bf_push_conn *c)
{
    uint32_t limit = bf_push_conn_limit(p, c);
    uint32_t used = limit > 0 ? bf_h2_streams(c->h2) + c->grant : 0;
    return used < limit ? limit - used : 0;
}

/* The first request that this connection may take: of the highest lane. 0: none waits. */
static uint32_t next_waiting(const struct bf_push *p, const struct bf_push_conn *c,
                             struct bf_push_list **ret)
{
    struct bf_push_pool *pool = &p->pools[c->pool];
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++) {
        *ret = &pool->waiting[c->is_unverified][lane];
        if ((*ret)->head != 0)
            return (*ret)->head;
    }
    return 0;
}

/* Puts a request on the connection and writes it. Returns the bytes; 0: not now; < 0: it failed. */
static int write_request(struct bf_push *p, uint32_t conn, uint32_t index,
                         struct bf_push_list *list, uint8_t *to, size_t cap)
{
    struct bf_push_conn *c = &p->conns[conn];
    struct bf_push_pool *pool = pool_of(p, c);
    struct bf_push_request *r = bf_push_request_at(p, index);
    struct bf_h2_field fields[BF_H2_FIELDS_MAX];
    struct bf_h2_request request = {
        .authority = {pool->authority, pool->authority_len},
        .authorization = {pool->authorization, pool->authorization_len},
    };
    bf_push_fetch_early(p, index);
    if (!bf_push_parse(p, r, &request, fields)) {
        bf_push_give_back(p, index, BF_PUSH_WHY_BAD_REQUEST);
        return 1; /* nothing written, go on */
    }
    bf_push_list_remove(p, list, index);
    p->waiting--;
    r->state = BF_PUSH_REQ_IN_FLIGHT;
    r->conn = (uint16_t)conn;
    r->written_us = p->now_us;
    bf_push_list_append(p, &c->in_flight, index);
    pool->in_flight++;
    p->in_flight++;
    int n = bf_h2_request(c->h2, &request, &r->stream, to, cap);
    if (n > 0 || (n < 0 && n != BF_ERR_TOO_LARGE))
        return n;
    bf_push_list_remove(p, &c->in_flight, index);
    pool->in_flight--;
    p->in_flight--;
    r->state = BF_PUSH_REQ_WAITING;
    bf_push_list_prepend(p, list, index);
    p->waiting++;
    if (n == BF_ERR_TOO_LARGE)
        bf_push_give_back(p, index, BF_PUSH_WHY_BAD_REQUEST);
    return n == BF_ERR_TOO_LARGE ? 1 : 0;
}

size_t bf_push_pull(struct bf_push *p, uint32_t conn, uint8_t *to, size_t cap)
{
    struct bf_push_conn *c = &p->conns[conn];
    uint32_t grant = c->grant;
    c->grant = 0;
    p->now_us = bf_mono_ns() / 1000u;
    size_t len = bf_h2_pull(c->h2, to, cap);
    while (grant > 0 && cap - len >= BF_H2_REQUEST_OUT_MAX) {
        struct bf_push_list *list;
        uint32_t index = next_waiting(p, c, &list);
        uint64_t before = bf_h2_written(c->h2);
        int n = index ? write_request(p, conn, index, list, to + len, cap - len) : 0;
        len += (size_t)(bf_h2_written(c->h2) - before);
        if (n <= 0)
            break;
        grant--;
    }
    if (bf_h2_wants_write(c->h2))
        bf_push_conn_ready(p, conn);
    return len;
}

/* The least loaded of some connections that may take a request; UINT32_MAX: none. */
static uint32_t pick_conn(struct bf_push *p, struct bf_push_pool *pool, bool apart)
{
    uint32_t best = UINT32_MAX, best_streams = UINT32_MAX, found = 0;
    uint32_t at = pool->cursor ? pool->cursor : pool->first_conn;
    for (uint32_t i = 0; i < pool->conns && found < BF_PUSH_LOOKS; i++) {
        const struct bf_push_conn *c = &p->conns[at - 1];
        uint32_t streams = c->h2 ? bf_h2_streams(c->h2) + c->grant : 0;
        if (c->is_unverified == apart && !c->is_blocked && c->grant == 0 &&
            free_streams(p, c) > 0) {
            found++;
            if (streams < best_streams) {
                best = at - 1;
                best_streams = streams;
            }
        }
        at = c->next ? c->next : pool->first_conn;
    }
    pool->cursor = at;
    return best;
}

/* Shares what waits out over connections. Returns how much found a place. */
static uint32_t grant_pool(struct bf_push *p, struct bf_push_pool *pool, bool apart, uint32_t max)
{
    uint32_t left = 0, granted = 0;
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        left += pool->waiting[apart][lane].count;
    left = left < max ? left : max;
    while (left > 0) {
        uint32_t conn = pick_conn(p, pool, apart);
        if (conn == UINT32_MAX)
            break;
        struct bf_push_conn *c = &p->conns[conn];
        uint32_t n = free_streams(p, c);
        n = n < left ? n : left;
        c->grant = (uint16_t)(n < BF_PUSH_RUN ? n : BF_PUSH_RUN);
        left -= c->grant;
        granted += c->grant;
        bf_push_conn_ready(p, conn);
    }
    return granted;
}

void bf_push_grant(struct bf_push *p)
{
    uint32_t left = BF_PUSH_WRITES_PER_TURN;
    if (p->waiting == 0)
        return;
    p->pool_next = p->pool_next + 1 < p->pool_count ? p->pool_next + 1 : 0;
    for (uint32_t i = 0; i < p->pool_count && left > 0; i++) {
        struct bf_push_pool *pool = &p->pools[(p->pool_next + i) % p->pool_count];
        for (uint32_t apart = 0; pool->is_used && apart < 2; apart++)
            left -= grant_pool(p, pool, apart, left);
    }
}

/* ---- housekeeping ---- */

void bf_push_conn_ping(struct bf_push *p, uint32_t conn)
{
    struct bf_push_conn *c = &p->conns[conn];
    if (c->ping_ms != 0 || !c->h2)
        return;
    c->ping_ms = p->core->mono_ms;
    bf_h2_ping(c->h2);
    bf_worker_count(p->core, BF_M_push_pings, 1);
    bf_push_conn_ready(p, conn);
}

static void keep_conn(struct bf_push *p, struct bf_push_conn *c)
{
    const struct bf_push_pool *pool = pool_of(p, c);
    uint32_t conn = index_of(p, c);
    uint64_t now = p->core->mono_ms;
    if (c->h2 && bf_h2_error_text(c->h2)[0] != '\0')
        bf_push_conn_end(p, conn, bf_h2_error_text(c->h2), true);
    else if (c->state == BF_PUSH_CONN_CONNECTING && now - c->since_ms > BF_PUSH_OPEN_MS)
        bf_push_conn_end(p, conn, "not open within 5 s", true);
    else if (c->ping_ms != 0 && c->active_ms < c->ping_ms && now - c->ping_ms > BF_PUSH_PONG_MS)
        bf_push_conn_end(p, conn, "no answer to PING", true);
    else if (c->state == BF_PUSH_CONN_DRAINING && c->in_flight.count == 0)
        bf_push_conn_end(p, conn, "", false);
    else if (c->state == BF_PUSH_CONN_OPEN && !bf_h2_is_usable(c->h2))
        bf_push_conn_drain(p, conn); /* stream ids are used up */
    else if (c->state == BF_PUSH_CONN_OPEN && pool->ping_idle_ms > 0 &&
             now - c->active_ms > pool->ping_idle_ms)
        bf_push_conn_ping(p, conn);
}

/* Opens what the minimum asks for, and one more when everything is in use. */
static void keep_pool(struct bf_push *p, uint32_t index)
{
    struct bf_push_pool *pool = &p->pools[index];
    uint32_t waits[2] = {0, 0};
    if (!pool->is_used || !pool->is_named || p->is_stopping)
        return;
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++) {
        waits[0] += pool->waiting[0][lane].count;
        waits[1] += pool->waiting[1][lane].count;
    }
    if (waits[1] > 0 && pool->unverified_conns == 0 && pool->conns < pool->connections_max)
        (void)bf_push_conn_open(p, index, true);
    uint32_t alive = pool->open + pool->connecting;
    for (uint32_t i = 0; i < BF_PUSH_OPENS_MAX && alive < pool->connections_min; i++, alive++)
        if (!bf_push_conn_open(p, index, false))
            return;
    /* room stays for the connection of the unverified */
    bool keeps_room = pool->connections_max > 1 && pool->unverified_conns == 0;
    uint32_t max = pool->connections_max - (keeps_room ? 1u : 0u);
    if (waits[0] > 0 && pool->connecting == 0 && alive < max &&
        p->core->mono_ms - pool->grown_ms >= BF_PUSH_GROW_MS &&
        pick_conn(p, pool, false) == UINT32_MAX) {
        pool->grown_ms = p->core->mono_ms;
        (void)bf_push_conn_open(p, index, false);
    }
}

void bf_push_keep(struct bf_push *p)
{
    if (p->core->mono_ms - p->kept_ms < BF_PUSH_KEEP_MS)
        return;
    p->kept_ms = p->core->mono_ms;
    uint32_t looks = BF_PUSH_KEEP_LOOKS < p->conn_bump ? BF_PUSH_KEEP_LOOKS : p->conn_bump;
    for (uint32_t i = 0; i < looks; i++) {
        p->look = p->look + 1 < p->conn_bump ? p->look + 1 : 0;
        if (p->conns[p->look].state != BF_PUSH_CONN_NONE)
            keep_conn(p, &p->conns[p->look]);
    }
    for (uint32_t i = 0; i < p->pool_count; i++)
        keep_pool(p, i);
    bf_metric_set(p->core->stats, BF_M_push_connections, p->conns_used);
    bf_metric_set(p->core->stats, BF_M_push_in_flight, p->in_flight);
    bf_metric_set(p->core->stats, BF_M_push_waiting, p->waiting);
}
