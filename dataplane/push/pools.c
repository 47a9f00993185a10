/* Pools: configuration, and what ctrlplane is told of them. See push.h. */
#include <arpa/inet.h>
#include <string.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "push/push_impl.h"

/* ---- reading ---- */

static bool read_address(struct bf_reader *r, struct bf_push_address *ret)
{
    char text[64];
    struct bf_bytes ip = bf_get_str16(r);
    *ret = (struct bf_push_address){.port = bf_get_u16(r)};
    if (r->failed || ip.len == 0 || ip.len >= sizeof(text) || ret->port == 0)
        return false;
    memcpy(text, ip.at, ip.len);
    text[ip.len] = '\0';
    if (inet_pton(AF_INET, text, ret->ip) == 1)
        return true;
    ret->is_v6 = true;
    return inet_pton(AF_INET6, text, ret->ip) == 1;
}

static bool is_sane(const struct bf_push_spec *s)
{
    return s->kind < BF_PUSH_KIND_COUNT && s->authority.len > 0 &&
           s->authority.len <= BF_PUSH_AUTHORITY_BYTES_MAX &&
           s->authorization.len <= BF_PUSH_AUTHORIZATION_BYTES_MAX && s->connections_max > 0 &&
           s->connections_min <= s->connections_max;
}

int bf_push_spec_read(struct bf_bytes value, struct bf_push_spec *ret)
{
    struct bf_reader r = {.buf = (const uint8_t *)value.at, .len = value.len};
    struct bf_push_spec s = {0};
    s.id = bf_get_u32(&r);
    s.kind = bf_get_u8(&r);
    s.name = bf_get_str16(&r);
    s.authority = bf_get_str16(&r);
    s.tls_name = bf_get_str16(&r);
    s.address_count = bf_get_u8(&r);
    if (s.address_count > BF_PUSH_ADDRESSES_MAX)
        return BF_ERR_MALFORMED;
    for (uint32_t i = 0; i < s.address_count; i++)
        if (!read_address(&r, &s.addresses[i]))
            return BF_ERR_MALFORMED;
    s.connections_min = bf_get_u16(&r);
    s.connections_max = bf_get_u16(&r);
    s.streams_first = bf_get_u32(&r);
    s.ping_idle_ms = bf_get_u32(&r);
    s.flags = bf_get_u8(&r);
    s.authorization = bf_get_str32(&r);
    s.cert = bf_get_str32(&r);
    s.key = bf_get_str32(&r);
    s.ca = bf_get_str32(&r);
    if (r.failed || r.at != r.len || !is_sane(&s))
        return BF_ERR_MALFORMED;
    *ret = s;
    return 0;
}

/* ---- taking over ---- */

int bf_push_pool_find(const struct bf_push *p, uint32_t id)
{
    for (uint32_t i = 0; i < p->pool_count; i++)
        if (p->pools[i].is_used && p->pools[i].is_named && p->pools[i].id == id)
            return (int)i;
    return -1;
}

/* A place for a new pool: one that nobody uses any more, or a fresh one. */
static int find_place(struct bf_push *p)
{
    for (uint32_t i = 0; i < p->pool_count; i++)
        if (!p->pools[i].is_used)
            return (int)i;
    return p->pool_count < BF_PUSH_POOLS_MAX ? (int)p->pool_count++ : -1;
}

void bf_push_configure_begin(struct bf_push *p)
{
    for (uint32_t i = 0; i < p->pool_count; i++)
        p->pools[i].is_fresh = false;
}

/* Addresses: what is known of those that stay goes with them. */
static void take_addresses(struct bf_push_pool *pool, const struct bf_push_spec *spec)
{
    struct bf_push_address fresh[BF_PUSH_ADDRESSES_MAX];
    memcpy(fresh, spec->addresses, sizeof(fresh));
    for (uint32_t i = 0; i < spec->address_count; i++) {
        for (uint32_t k = 0; k < pool->address_count; k++) {
            const struct bf_push_address *old = &pool->addresses[k];
            if (old->port == fresh[i].port && old->is_v6 == fresh[i].is_v6 &&
                memcmp(old->ip, fresh[i].ip, sizeof(old->ip)) == 0)
                fresh[i] = *old;
        }
    }
    memcpy(pool->addresses, fresh, sizeof(fresh));
    pool->address_count = spec->address_count;
}

static void drain_conns(struct bf_push *p, const struct bf_push_pool *pool)
{
    for (uint32_t c = pool->first_conn, next; c != 0; c = next) {
        next = p->conns[c - 1].next;
        bf_push_conn_drain(p, c - 1);
    }
}

int bf_push_configure_pool(struct bf_push *p, const struct bf_push_spec *spec, bool is_other)
{
    int index = bf_push_pool_find(p, spec->id);
    bool is_new = index < 0;
    if (is_new && (index = find_place(p)) < 0)
        return -1;
    struct bf_push_pool *pool = &p->pools[index];
    if (is_new)
        *pool = (struct bf_push_pool){.id = spec->id, .is_used = true, .is_named = true};
    pool->is_fresh = true;
    pool->connections_min = spec->connections_min;
    pool->connections_max = spec->connections_max;
    pool->streams_first = spec->streams_first;
    pool->ping_idle_ms = spec->ping_idle_ms;
    pool->authority_len = (uint16_t)spec->authority.len;
    pool->authorization_len = (uint32_t)spec->authorization.len;
    memcpy(pool->authority, spec->authority.at, spec->authority.len);
    if (spec->authorization.len > 0)
        memcpy(pool->authorization, spec->authorization.at, spec->authorization.len);
    take_addresses(pool, spec);
    if (!is_new && is_other)
        drain_conns(p, pool);
    return index;
}

void bf_push_configure_end(struct bf_push *p)
{
    for (uint32_t i = 0; i < p->pool_count; i++) {
        struct bf_push_pool *pool = &p->pools[i];
        if (!pool->is_used || pool->is_fresh)
            continue;
        pool->is_named = false;
        bf_push_give_back_all(p, pool, BF_PUSH_WHY_NO_POOL);
        drain_conns(p, pool);
        if (pool->conns == 0)
            pool->is_used = false;
    }
}

/* ---- reports ---- */

void bf_push_pool_say(struct bf_push_pool *pool, const char *text, size_t len)
{
    size_t n = len < sizeof(pool->text) ? len : sizeof(pool->text);
    for (size_t i = 0; i < n; i++) /* a peer's words: printable ASCII */
        pool->text[i] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    pool->text_len = (uint16_t)n;
    pool->has_report = true;
}

static uint32_t waiting_in(const struct bf_push_pool *pool)
{
    uint32_t n = 0;
    for (uint32_t u = 0; u < 2; u++)
        for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
            n += pool->waiting[u][lane].count;
    return n;
}

static bool report(struct bf_push *p, struct bf_push_pool *pool)
{
    uint8_t bytes[sizeof(struct bf_rcpt_pool) + BF_PUSH_POOL_TEXT_MAX];
    struct bf_rcpt_pool rcpt = {
        .pool = pool->id,
        .worker = p->core->worker,
        .connections = pool->open,
        .connecting = pool->connecting,
        .streams = pool->in_flight,
        .waiting = waiting_in(pool),
        .failures = pool->failures,
        .goaways = pool->goaways,
        .text_len = pool->text_len,
    };
    for (uint32_t c = pool->first_conn; c != 0; c = p->conns[c - 1].next)
        rcpt.streams_max += bf_push_conn_limit(p, &p->conns[c - 1]);
    memcpy(bytes, &rcpt, sizeof(rcpt));
    memcpy(bytes + sizeof(rcpt), pool->text, pool->text_len);
    return bf_rcpt_put(&p->core->receipts, BF_RCPT_POOL, bytes,
                       (uint32_t)sizeof(rcpt) + pool->text_len, BF_RCPT_OUT_RESERVE);
}

bool bf_push_pools_report(struct bf_push *p)
{
    bool waits = false;
    for (uint32_t i = 0; i < p->pool_count; i++) {
        struct bf_push_pool *pool = &p->pools[i];
        /* reports are also sent when the load changes, not only when connections come and go */
        bool is_news = pool->has_report || pool->in_flight != pool->in_flight_said ||
                       pool->waiting_said > 0; /* said until it is over */
        if (!pool->is_used || !is_news)
            continue;
        if (p->core->mono_ms - pool->reported_ms < BF_PUSH_POOL_REPORT_MS || !report(p, pool)) {
            waits = true;
            continue;
        }
        pool->reported_ms = p->core->mono_ms;
        pool->in_flight_said = pool->in_flight;
        pool->waiting_said = waiting_in(pool);
        pool->has_report = false;
    }
    return waits;
}
