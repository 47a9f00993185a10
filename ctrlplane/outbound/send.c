/*
 * One leg to one endpoint: may it go now, through which pool, as which bytes. What may not go now
 * becomes a row of the queue; what never will is ended with its reason. See outbound.h.
 */
#include "outbound/impl.h"

#include <string.h>

#include "admin/metrics.h"
#include "belfry/base/err.h"
#include "belfry/conf/conf.h"
#include "belfry/shm/user_key.h"
#include "publish/launches.h"

/* A pool without its credential or address yet: a token is minted in milliseconds, fetched in a
 * second. The share of the push's age (below) makes the wait grow. */
#define NOT_READY_MS 100u
/* A pool whose credential was refused: another one makes another pool, which is found at the next
 * look. */
#define STOPPED_MS 60000u
/* Rings, blocks or attempts are short: soon again, spread. */
#define FULL_MS 250u
/* After a wait that many share (breaker, limit, credential): spread over a part of the leg's age,
 * so that an outage of minutes does not rewrite every row each time its breaker is asked. */
#define AGE_PART        4u
#define AGE_WAIT_MAX_MS 600000u

/* A look at one device. */
struct look {
    struct bf_outbound *o;
    struct bf_offer *offer;
    const struct bf_device_row *device;
    struct bf_push_note *note;
    struct bf_push_target target;
    struct bf_push_pool_info info;
    struct bf_pool *pool; /* NULL: not ready */
    bool has_failed_over;
    uint8_t room[BF_DEVICE_SEALED_BYTES_MAX];
};

static void wait(struct look *l, uint64_t wait_ms, const char *reason)
{
    uint64_t now = l->o->turn->now_ms;
    uint64_t age = now > l->offer->row.created_ms ? now - l->offer->row.created_ms : 0;
    uint64_t spread = age / AGE_PART < AGE_WAIT_MAX_MS ? age / AGE_PART : AGE_WAIT_MAX_MS;
    uint64_t jitter = bf_turn_dice(l->o->turn, spread + FULL_MS);
    bf_offer_postpone(l->o, l->offer, now + wait_ms + jitter, reason);
}

/* ---- which pool ------------------------------------------------------------------------------ */

/* Asks for the pool of |app|. 0 with l->pool NULL: not ready yet. */
static int ask_pool(struct look *l, struct bf_bytes app)
{
    struct bf_bytes authority = BF_BYTES(""), path;
    enum bf_push_kind kind = (enum bf_push_kind)l->device->kind;
    if (kind == BF_PUSH_WEBPUSH)
        (void)bf_push_endpoint_split(l->target.token, &authority, &path);
    l->pool = NULL;
    int rc =
        bf_push_creds_find(l->o->push, app, kind, authority, l->offer->row.uid.tenant, &l->info);
    if (rc == BF_ERR_FULL) { /* as one that is not ready: others give their places back */
        l->info = (struct bf_push_pool_info){.kind = kind};
        return 0;
    }
    if (rc != 0)
        return rc;
    l->target.app_topic = (struct bf_bytes){l->info.topic, strlen(l->info.topic)};
    l->target.is_certificate = l->info.is_certificate;
    l->pool = l->info.is_ready ? bf_pool_get(l->o, l->info.pool, kind) : NULL;
    return 0;
}

bool bf_push_channel_device(const struct bf_leg_row *row, const struct bf_push_note *note,
                            struct bf_device_row *ret)
{
    struct bf_bytes channel, app;
    bool is_named = bf_push_note_channel(note, &channel, &app);
    *ret = (struct bf_device_row){.id = row->endpoint_id,
                                  .kind = BF_PUSH_APNS,
                                  .state = BF_DEVICE_LIVE,
                                  .registered_ms = row->created_ms,
                                  .seen_ms = note->now_ms,
                                  .app = app};
    return is_named;
}

/* Where it goes: an opened token, or a broadcast channel's id. */
static int open_target(struct look *l)
{
    struct bf_bytes app;
    if (!bf_leg_is_nobodys(&l->offer->row))
        return bf_push_device_open(l->o->vault, l->device, l->room, &l->target);
    l->target = (struct bf_push_target){.kind = BF_PUSH_APNS, .is_broadcast = true};
    return bf_push_note_channel(l->note, &l->target.token, &app) ? 0 : BF_ERR_MALFORMED;
}

/* Opens the token and finds the pool of its app. False: ended. */
static bool find_pool(struct look *l)
{
    if (open_target(l) != 0) {
        bf_offer_dead_letter(l->o, l->offer,
                             "unreadable_token: sealed with another key (push.device_key_file)");
        return false;
    }
    int rc = ask_pool(l, l->device->app);
    if (rc != 0)
        bf_offer_dead_letter(l->o, l->offer,
                             rc == BF_ERR_DENIED
                                 ? "origin_not_allowed: the app serves no such push service"
                                 : "unknown_app: push.apps names no app of this kind and name");
    return rc == 0;
}

/* ---- may it go now --------------------------------------------------------------------------- */

/* Why the pool cannot take it, in a way that another app's pool may cure; NULL: it can. */
static const char *outage_of(struct look *l, uint64_t *ret_wait_ms)
{
    *ret_wait_ms = NOT_READY_MS;
    if (!l->pool)
        return "not_ready: the app's credential or address is not there yet";
    *ret_wait_ms = STOPPED_MS;
    if (l->pool->stopped_until_ms > l->o->turn->now_ms)
        return "credential_refused: see belfryctl status";
    return bf_breaker_try(&l->pool->breaker, l->o->turn->mono_ms, ret_wait_ms) ? NULL
                                                                               : "breaker_open";
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
static void note_failed_over(struct look *l, uint32_t pool)
{
    struct bf_pool *from = bf_pool_get(l->o, pool, l->info.kind);
    if (!from || from == l->pool)
        return;
    from->failed_over++;
    from->failed_over_ms = l->o->turn->now_ms;
}

/* The app that takes over, once. */
static bool fail_over(struct look *l)
{
    char name[sizeof(l->info.failover)];
    uint32_t pool = l->info.pool;
    if (l->info.failover[0] == '\0' || l->has_failed_over)
        return false;
    memcpy(name, l->info.failover, sizeof(name));
    l->has_failed_over = true;
    bool has_pool = ask_pool(l, (struct bf_bytes){name, strlen(name)}) == 0 && l->pool;
    bf_count(BF_CM_M_push_failovers, has_pool);
    if (has_pool)
        note_failed_over(l, pool);
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

/* ---- on its way ------------------------------------------------------------------------------ */

static void fill_command(const struct look *l, const struct bf_attempt *attempt,
                         struct bf_launch *launch)
{
    struct bf_uid uid = l->offer->row.uid;
    struct bf_cmd_push cmd = {.push_id = attempt->id, .block = launch->block, .pool = l->pool->id};
    if (!bf_leg_is_nobodys(&l->offer->row))
        cmd.user = bf_user_key_of(l->o->turn->user_secret, uid.tenant.at, uid.tenant.len,
                                  uid.user.at, uid.user.len);
    launch->kind = BF_CMD_PUSH;
    memcpy(launch->payload, &cmd, sizeof(cmd));
}

static void take_off(const struct look *l, struct bf_attempt *attempt)
{
    attempt->pool = l->pool;
    attempt->kind = l->pool->kind;
    attempt->registered_ms = l->device->registered_ms;
    memcpy(attempt->token_hash, l->device->token_hash, sizeof(attempt->token_hash));
    l->pool->attempts_out++;
    if (l->offer->row.attempts == 0)
        bf_retry_budget_earn(&l->pool->budget, 1);
    bf_funnel_count(BF_FUNNEL_DISPATCHED, l->offer->row.lane, BF_CHANNEL_PUSH, 1);
}

/* Takes a place in a worker's ring and a block; both are sure when the batch has been written. */
static void launch(struct look *l, const uint8_t *request, size_t len)
{
    struct bf_outbound *o = l->o;
    struct bf_turn *turn = o->turn;
    struct bf_attempt *attempt = bf_attempt_add(o, l->offer);
    struct bf_launch *place =
        attempt ? bf_launches_take(turn->launches, l->offer->row.lane, request, len) : NULL;
    if (!place) {
        if (attempt)
            bf_attempt_drop(o, attempt);
        wait(l, FULL_MS, "busy: no room on the way to a worker");
        return;
    }
    fill_command(l, attempt, place);
    if (l->offer->open) /* the event stays open until this attempt's result is durable; relaxed: our
                         * own leg holds the count above 0 meanwhile */
        atomic_fetch_add_explicit(&l->offer->open->legs_open, 1, memory_order_relaxed);
    if (!l->offer->is_row && l->offer->row.collapse != 0 &&
        bf_batch_drop_collapsed(turn->batch, &l->offer->row))
        o->wants_commit = true;
    take_off(l, attempt);
}

bool bf_push_is_stale(const struct bf_turn *turn, const struct bf_device_row *device)
{
    uint64_t stale_ms = (uint64_t)turn->conf->push_device_stale_days * 86400u * 1000u;
    return stale_ms > 0 && turn->now_ms > device->seen_ms &&
           turn->now_ms - device->seen_ms > stale_ms;
}

bool bf_outbound_send(struct bf_outbound *o, struct bf_offer *offer,
                      const struct bf_device_row *device, struct bf_push_note *note)
{
    struct look l = {.o = o, .offer = offer, .device = device, .note = note};
    uint8_t request[BF_PUSH_REQUEST_BYTES_MAX];
    char why[BF_PUSH_WHY_BYTES] = "";
    size_t len = 0;
    bool is_full = o->attempt_count >= BF_ATTEMPTS_OUT_MAX ||
                   bf_launches_is_full(o->turn->launches) || o->is_landing;
    if (is_full && offer->is_row)
        return false;
    if (is_full) {
        wait(&l, FULL_MS, "busy: as much is on its way as may be");
        return false;
    }
    if (!find_pool(&l) || !may_go(&l))
        return true;
    note->message_id = offer->row.message_id;
    if (bf_push_request_build(note, &l.target, request, sizeof(request), &len, why) != 0) {
        bool is_late = strncmp(why, "expired", strlen("expired")) == 0;
        if (is_late)
            bf_offer_end(o, offer, BF_STATUS_EXPIRED, "expired");
        else
            bf_offer_dead_letter(o, offer, why);
        return true;
    }
    launch(&l, request, len);
    return true;
}
