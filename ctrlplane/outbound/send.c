/*
 * One leg to one endpoint: may it go now, and through which pool. What may not go now becomes a row
 * of the queue; what never will is ended with its reason. See outbound.h.
 */
#include "outbound/impl.h"

#include <string.h>

#include "stats/metrics.h"
#include "belfry/base/err.h"
#include "publish/launches.h"

/* A pool without its credential or address yet: a token is minted in milliseconds, fetched in a
 * second. The share of the leg's age (below) makes the wait grow. */
#define NOT_READY_MS 100u
/* A pool whose credential was refused: another one makes another pool, which is found at the next
 * look. */
#define STOPPED_MS 60000u
/* Rings, blocks or attempts are short: soon again, spread. */
#define FULL_MS 250u
/* A channel that the table of this node does not have, or that has not started. */
#define NO_CHANNEL_MS 60000u
/* After a wait that many share (breaker, limit, credential): spread over a part of the leg's age,
 * so that an outage of minutes does not rewrite every row each time its breaker is asked. */
#define AGE_PART        4u
#define AGE_WAIT_MAX_MS 600000u

/* A look at one endpoint. */
struct look {
    struct bf_outbound *o;
    struct bf_offer *offer;
    const struct bf_channel_ops *ops;
    struct bf_channel_state *channel;
    struct bf_sending sending;
    struct bf_pool_info info;
    struct bf_pool *pool; /* NULL: not ready */
    bool has_failed_over;
};

static void wait(struct look *l, uint64_t wait_ms, const char *reason)
{
    struct bf_turn *turn = l->o->turn;
    uint64_t now = turn->now_ms;
    uint64_t age = now > l->offer->row.created_ms ? now - l->offer->row.created_ms : 0;
    uint64_t spread = age / AGE_PART < AGE_WAIT_MAX_MS ? age / AGE_PART : AGE_WAIT_MAX_MS;
    uint64_t jitter = bf_turn_dice(turn, spread + FULL_MS);
    bf_offer_postpone(l->o, l->offer, now + wait_ms + jitter, reason);
}

/* ---- which pool ---- */

/* Asks for the pool of the endpoint's account, or of |account|. 0 with l->pool NULL: not ready yet.
 */
static int ask_pool(struct look *l, struct bf_bytes account, char why[BF_WHY_BYTES])
{
    l->pool = NULL;
    int rc = l->ops->pool(l->channel, &l->sending, account, &l->info, why);
    if (rc == 0 && l->info.is_ready)
        l->pool = bf_pool_get(l->o, l->offer->row.channel, l->sending.endpoint->kind, &l->info);
    return rc;
}

/* False: ended. */
static bool find_pool(struct look *l)
{
    char why[BF_WHY_BYTES] = "";
    int rc = ask_pool(l, BF_BYTES(""), why);
    if (rc != 0)
        bf_offer_dead_letter(l->o, l->offer, why);
    return rc == 0;
}

/* ---- may it go now ---- */

/* Why the pool cannot take it, in a way that another account's pool may cure; NULL: it can. */
static const char *outage_of(struct look *l, uint64_t *ret_wait_ms)
{
    const struct bf_turn *turn = l->o->turn;
    *ret_wait_ms = NOT_READY_MS;
    if (!l->pool)
        return "not_ready: the app's credential or address is not there yet";
    *ret_wait_ms = STOPPED_MS;
    if (l->pool->stopped_until_ms > turn->now_ms)
        return "credential_refused: see belfryctl status";
    return bf_breaker_try(&l->pool->breaker, turn->mono_ms, ret_wait_ms) ? NULL : "breaker_open";
}

/* What this leg has to wait for in any case; NULL: nothing. */
static const char *limit_of(struct look *l, uint64_t *ret_wait_ms)
{
    bool is_retry = l->offer->row.attempts > 0;
    uint64_t now = l->o->turn->mono_ms, wall = l->o->turn->now_ms;
    uint64_t slow = bf_endpoint_slow_until(l->o, &l->offer->row.endpoint_id);
    *ret_wait_ms = slow > wall ? slow - wall : FULL_MS;
    if (slow > wall)
        return "device_throttled";
    if (!l->pool)
        return NULL; /* the outage says more */
    if (l->pool->attempts_out >= BF_POOL_ATTEMPTS_OUT_MAX)
        return "busy: too much is on its way to the provider";
    *ret_wait_ms = 1000;
    if (is_retry && !bf_retry_budget_take(&l->pool->budget, now))
        return "retry_budget";
    return bf_bucket_take(&l->pool->bucket, now, is_retry, ret_wait_ms) ? NULL : "rate_limit";
}

/* For people: that this pool's traffic goes elsewhere. */
static void note_failed_over(struct look *l, const struct bf_pool_info *info)
{
    struct bf_pool *from =
        bf_pool_get(l->o, l->offer->row.channel, l->sending.endpoint->kind, info);
    if (!from || from == l->pool)
        return;
    from->failed_over++;
    from->failed_over_ms = l->o->turn->now_ms;
}

/* The account that takes over, once. */
static bool fail_over(struct look *l)
{
    const struct bf_pool_info from = l->info;
    char why[BF_WHY_BYTES];
    if (from.failover[0] == '\0' || l->has_failed_over)
        return false;
    l->has_failed_over = true;
    struct bf_bytes account = {from.failover, strlen(from.failover)};
    bool has_pool = ask_pool(l, account, why) == 0 && l->pool;
    bf_leg_count(BF_LM_failovers, l->offer->row.channel, has_pool);
    if (has_pool)
        note_failed_over(l, &from);
    return has_pool;
}

/* Limits first: a breaker that lets its one probe through must see it leave. */
static bool may_go(struct look *l)
{
    const char *limit, *outage;
    uint64_t wait_ms = 0;
    do {
        limit = limit_of(l, &wait_ms);
        outage = limit ? NULL : outage_of(l, &wait_ms);
    } while (outage && fail_over(l));
    if (limit || outage)
        wait(l, wait_ms, limit ? limit : outage);
    return !limit && !outage;
}

/* ---- on its way ---- */

static void take_off(const struct look *l, struct bf_outstanding *out)
{
    struct bf_outbound *o = l->o;
    struct bf_offer *offer = l->offer;
    if (offer->open) /* the event stays open until this attempt's result is durable; relaxed: our
                      * own leg holds the count above 0 meanwhile */
        atomic_fetch_add_explicit(&offer->open->legs_open, 1, memory_order_relaxed);
    if (!offer->is_row && offer->row.collapse != 0 &&
        bf_batch_drop_collapsed(o->turn->batch, &offer->row))
        o->wants_commit = true;
    out->pool = l->pool;
    out->attempt.pool = l->pool->id;
    l->pool->attempts_out++;
    if (offer->row.attempts == 0)
        bf_retry_budget_earn(&l->pool->budget, 1);
    o->launched |= 1u << offer->row.channel;
    bf_funnel_count(BF_FUNNEL_DISPATCHED, offer->row.lane, (enum bf_channel)offer->row.channel, 1);
}

static void launch(struct look *l)
{
    struct bf_outbound *o = l->o;
    char why[BF_WHY_BYTES] = "";
    struct bf_outstanding *out = bf_outstanding_add(o, l->offer, l->sending.endpoint);
    int rc = BF_ERR_FULL;
    if (out) {
        l->sending.attempt = out->attempt.id;
        l->sending.pool = l->pool->id;
        rc = l->ops->launch(l->channel, &l->sending, why);
    }
    if (rc == 0) {
        take_off(l, out);
        return;
    }
    if (out)
        bf_outstanding_drop(o, out);
    if (rc == BF_ERR_FULL)
        wait(l, FULL_MS, "busy: no room on the way to a worker");
    else if (rc == BF_ERR_EXPIRED)
        bf_offer_end(o, l->offer, BF_STATUS_EXPIRED, "expired");
    else
        bf_offer_dead_letter(o, l->offer, why);
}

bool bf_outbound_send(struct bf_outbound *o, struct bf_offer *offer,
                      const struct bf_endpoint *endpoint, struct bf_content *content)
{
    struct look l;
    l.o = o;
    l.offer = offer;
    l.ops = bf_channel_ops_of(offer->row.channel);
    l.channel = bf_outbound_channel(o, offer->row.channel);
    l.sending.turn = o->turn; /* |own| is the channel's to fill: it is large */
    l.sending.row = &offer->row;
    l.sending.endpoint = endpoint;
    l.sending.content = content;
    l.info = (struct bf_pool_info){0};
    l.pool = NULL;
    l.has_failed_over = false;
    bool is_full = o->attempt_count >= BF_ATTEMPTS_OUT_MAX ||
                   bf_launches_is_full(o->turn->launches) || o->is_stopping;
    if (is_full && offer->is_row)
        return false;
    if (is_full)
        wait(&l, FULL_MS, "busy: as much is on its way as may be");
    else if (!l.channel)
        wait(&l, NO_CHANNEL_MS, "no_channel: this node does not have it");
    else if (find_pool(&l) && may_go(&l))
        launch(&l);
    return !is_full;
}

void bf_outbound_flush(struct bf_outbound *o)
{
    bf_launches_send(o->turn->launches);
    for (uint8_t i = 0; o->launched >> i; i++) {
        const struct bf_channel_ops *ops = o->launched >> i & 1u ? bf_channel_ops_of(i) : NULL;
        if (ops && ops->flush)
            ops->flush(o->channels->at[i], o->turn);
    }
    o->launched = 0;
}
