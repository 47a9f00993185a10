/* What the files of push/ share. Private to them. */
#pragma once

#include "push/pools.h"

/* ---- requests.c ---- */

static inline struct bf_push_list *bf_push_waiting_list(struct bf_push *p,
                                                        const struct bf_push_request *r)
{
    struct bf_push_pool *pool = &p->pools[r->pool];
    bool apart = r->is_unverified && pool->connections_max > 1;
    return &pool->waiting[apart][r->lane];
}

void bf_push_list_append(struct bf_push *p, struct bf_push_list *list, uint32_t index);
void bf_push_list_prepend(struct bf_push *p, struct bf_push_list *list, uint32_t index);
void bf_push_list_remove(struct bf_push *p, struct bf_push_list *list, uint32_t index);
/* The request has its result; it has been taken from whatever list it was in. */
void bf_push_finish(struct bf_push *p, uint32_t index, enum bf_push_end end, enum bf_push_why why);
/* As bf_push_finish, of one that waits. */
void bf_push_give_back(struct bf_push *p, uint32_t index, enum bf_push_why why);
/* A request that its peer has not processed, taken from its connection: waits again, or NOT_SENT.
 */
void bf_push_move(struct bf_push *p, uint32_t index, enum bf_push_why why);
/* Deadlines that have come. */
void bf_push_deadlines(struct bf_push *p);
/* Results that waited for room. True: some still do. */
bool bf_pool_report(struct bf_push *p);
/* Everything that waits in a pool. */
void bf_push_give_back_all(struct bf_push *p, struct bf_push_pool *pool, enum bf_push_why why);
/* An index of |p->requests| from a stream. */
uint32_t bf_push_request_of(const struct bf_push *p, const struct bf_h2_stream *stream);
/* Prefetches what the requests after |index| in its list will need: the slot of the third, the
 * block's record of the second, and the block of the first, which another core has written. */
void bf_push_fetch_early(const struct bf_push *p, uint32_t index);
/* Gives the request its body and fields from its block. False: malformed. */
bool bf_push_parse(struct bf_push *p, struct bf_push_request *r, struct bf_h2_request *ret,
                   struct bf_h2_field *fields);

/* ---- conns.c ---- */

bool bf_push_conn_open(struct bf_push *p, uint32_t pool, bool is_unverified);
/* Ends a connection of ours: its requests are moved or given up. |text|: why, for the pool's
 * report. */
void bf_push_conn_end(struct bf_push *p, uint32_t conn, const char *text, bool is_failure);
/* No new requests; closed once its streams have ended. */
void bf_push_conn_drain(struct bf_push *p, uint32_t conn);
/* The worker stops and no request is under way any more: all connections are closed. */
void bf_push_conns_end(struct bf_push *p);
/* Streams that it may have now. */
uint32_t bf_push_conn_limit(const struct bf_push *p, const struct bf_push_conn *conn);
void bf_push_conn_ready(struct bf_push *p, uint32_t conn);
/* A stream was given up: checks whether the peer is still there. */
void bf_push_conn_ping(struct bf_push *p, uint32_t conn);
/* Opens, closes, pings; gives requests that wait to connections. */
void bf_push_keep(struct bf_push *p);
void bf_push_grant(struct bf_push *p);

/* ---- pools.c ---- */

void bf_push_pool_say(struct bf_push_pool *pool, const char *text, size_t len);
/* State of pools that has changed. True: some waits for room or its time. */
bool bf_push_pools_report(struct bf_push *p);

/* 0 .. bound - 1: jitter, not secrecy. */
static inline uint32_t bf_push_random(struct bf_push *p, uint32_t bound)
{
    uint32_t x = p->random;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    p->random = x;
    return bound ? x % bound : 0;
}
