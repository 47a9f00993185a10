/*
 * One push to one device: may it go now, through which pool, as which bytes, by which worker. What
 * may not go now becomes a row of the queue; what never will is ended with its reason. See push.h.
 */
#include "fanout/push.h"

#include <string.h>

#include "admin/metrics.h"
#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "fanout/core_state.h"

/* A pool without its credential or address yet: a token is minted in milliseconds, fetched in a
 * second. The share of the push's age (below) makes the wait grow. */
#define NOT_READY_MS 100u
/* A pool whose credential was refused: another one makes another pool, which is found at the next
 * look. */
#define STOPPED_MS 60000u
/* Rings, blocks or flights are short: soon again, spread. */
#define FULL_MS 250u
/* Behind a wait that many share (breaker, limit, credential): spread over a part of the push's age,
 * so that an outage of minutes does not rewrite every row each time its breaker is asked. */
#define AGE_PART        4u
#define AGE_WAIT_MAX_MS 600000u
/* Ring slots that pushes leave to in-app messages of their lane. */
#define RESERVE_SLOTS 64u

/* A look at one device. */
struct attempt {
    struct bf_shard *shard;
    struct bf_push_case *what;
    const struct bf_device_row *device;
    struct bf_push_note *note;
    struct bf_push_target target;
    struct bf_push_pool_info info;
    struct bf_push_pool_state *pool; /* NULL: not ready */
    bool has_failed_over;
    uint8_t room[BF_DEVICE_SEALED_BYTES_MAX];
};

static void wait(struct attempt *a, uint64_t wait_ms, const char *reason)
{
    uint64_t now = bf_wall_ms();
    uint64_t age = now > a->what->row.created_ms ? now - a->what->row.created_ms : 0;
    uint64_t spread = age / AGE_PART < AGE_WAIT_MAX_MS ? age / AGE_PART : AGE_WAIT_MAX_MS;
    uint64_t jitter = bf_push_dice(&a->shard->push, spread + FULL_MS);
    bf_push_case_postpone(a->shard, a->what, now + wait_ms + jitter, reason);
}

/* ---- which pool ------------------------------------------------------------------------------ */

/* Asks for the pool of |app|. 0 with a->pool NULL: not ready yet. */
static int ask_pool(struct attempt *a, struct bf_bytes app)
{
    struct bf_bytes authority = BF_BYTES(""), path;
    enum bf_push_kind kind = (enum bf_push_kind)a->device->kind;
    if (kind == BF_PUSH_WEBPUSH)
        (void)bf_push_endpoint_split(a->target.token, &authority, &path);
    a->pool = NULL;
    int rc = bf_push_creds_find(a->shard->core->push, app, kind, authority, a->what->row.uid.tenant,
                                &a->info);
    if (rc == BF_ERR_FULL) { /* as one that is not ready: others give their places back */
        a->info = (struct bf_push_pool_info){.kind = kind};
        return 0;
    }
    if (rc != 0)
        return rc;
    a->target.app_topic = (struct bf_bytes){a->info.topic, strlen(a->info.topic)};
    a->target.is_certificate = a->info.is_certificate;
    a->pool = a->info.is_ready ? bf_push_pool_state(a->shard, a->info.pool, kind) : NULL;
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
static int open_target(struct attempt *a)
{
    struct bf_bytes app;
    if (!bf_push_is_channel(&a->what->row))
        return bf_push_device_open(a->shard->core->vault, a->device, a->room, &a->target);
    a->target = (struct bf_push_target){.kind = BF_PUSH_APNS, .is_broadcast = true};
    return bf_push_note_channel(a->note, &a->target.token, &app) ? 0 : BF_ERR_MALFORMED;
}

/* Opens the token and finds the pool of its app. False: ended. */
static bool find_pool(struct attempt *a)
{
    if (open_target(a) != 0) {
        bf_push_case_dead_letter(
            a->shard, a->what, "unreadable_token: sealed with another key (push.device_key_file)");
        return false;
    }
    int rc = ask_pool(a, a->device->app);
    if (rc != 0)
        bf_push_case_dead_letter(a->shard, a->what,
                                 rc == BF_ERR_DENIED
                                     ? "origin_not_allowed: the app serves no such push service"
                                     : "unknown_app: push.apps names no app of this kind and name");
    return rc == 0;
}

/* ---- may it go now --------------------------------------------------------------------------- */

/* Why the pool cannot take it, in a way that another app's pool may cure; NULL: it can. */
static const char *outage_of(struct attempt *a, uint64_t *ret_wait_ms)
{
    *ret_wait_ms = NOT_READY_MS;
    if (!a->pool)
        return "not_ready: the app's credential or address is not there yet";
    *ret_wait_ms = STOPPED_MS;
    if (a->pool->stopped_until_ms > bf_wall_ms())
        return "credential_refused: see belfryctl status";
    return bf_breaker_try(&a->pool->breaker, bf_mono_ms(), ret_wait_ms) ? NULL : "breaker_open";
}

/* What this push has to wait for in any case; NULL: nothing. */
static const char *limit_of(struct attempt *a, uint64_t *ret_wait_ms)
{
    bool is_retry = a->what->row.attempts > 0;
    uint64_t now = bf_mono_ms(), wall = bf_wall_ms();
    uint64_t slow = bf_push_device_slow_until(&a->shard->push, &a->what->row.endpoint_id);
    *ret_wait_ms = slow > wall ? slow - wall : FULL_MS;
    if (slow > wall)
        return "device_throttled";
    if (!a->pool)
        return NULL; /* the outage says more */
    if (a->pool->flights >= BF_PUSH_POOL_FLIGHTS_MAX)
        return "busy: too much is on its way to the provider";
    *ret_wait_ms = 1000;
    if (is_retry && !bf_push_budget_take(&a->pool->budget, now))
        return "retry_budget";
    return bf_bucket_take(&a->pool->bucket, now, is_retry, ret_wait_ms) ? NULL : "rate_limit";
}

/* For people: that this pool's traffic goes elsewhere. */
static void note_failed_over(struct attempt *a, uint32_t pool)
{
    struct bf_push_pool_state *from = bf_push_pool_state(a->shard, pool, a->info.kind);
    if (!from || from == a->pool)
        return;
    from->failed_over++;
    from->failed_over_ms = bf_wall_ms();
}

/* The app that takes over, once. */
static bool fail_over(struct attempt *a)
{
    char name[sizeof(a->info.failover)];
    uint32_t pool = a->info.pool;
    if (a->info.failover[0] == '\0' || a->has_failed_over)
        return false;
    memcpy(name, a->info.failover, sizeof(name));
    a->has_failed_over = true;
    bool has_pool = ask_pool(a, (struct bf_bytes){name, strlen(name)}) == 0 && a->pool;
    bf_count(BF_CM_M_push_failovers, has_pool);
    if (has_pool)
        note_failed_over(a, pool);
    return has_pool;
}

/* Limits first: a breaker that lets its one probe through must see it leave. */
static bool may_go(struct attempt *a)
{
    const char *limit, *outage;
    uint64_t wait_ms = 0;
    do {
        limit = limit_of(a, &wait_ms);
        outage = limit ? NULL : outage_of(a, &wait_ms);
    } while (outage && fail_over(a));
    if (limit || outage)
        wait(a, wait_ms, limit ? limit : outage);
    return !limit && !outage;
}

/* ---- bytes and worker ------------------------------------------------------------------------ */

/* Workers take turns, so that each uses its share of a pool's connections. UINT32_MAX: none has
 * room. */
static uint32_t pick_worker(struct bf_shard *shard, enum bf_lane lane)
{
    uint32_t workers = shard->pub.region ? shard->pub.workers : 0;
    /* nothing else is sent between here and the commit, which sends pushes first */
    uint32_t slots = shard->push.pending_count + 1 + RESERVE_SLOTS;
    for (uint32_t i = 0; i < workers; i++) {
        uint32_t worker = (shard->push.next_worker + i) % workers;
        if (!bf_publisher_has_room(&shard->pub, worker, lane, slots))
            continue;
        shard->push.next_worker = worker + 1;
        return worker;
    }
    return UINT32_MAX;
}

static uint8_t *take_block(struct bf_shard *shard, const uint8_t *bytes, size_t len,
                           struct bf_block_ref *ret)
{
    uint8_t *data = bf_publisher_alloc(&shard->pub, (uint32_t)len, ret);
    if (data)
        memcpy(data, bytes, len);
    return data;
}

static void take_off(struct attempt *a, struct bf_push_flight *flight, uint32_t worker,
                     struct bf_block_ref block)
{
    struct bf_shard_push *push = &a->shard->push;
    enum bf_lane lane = a->what->row.lane;
    flight->pool = a->pool;
    flight->kind = a->pool->kind;
    flight->registered_ms = a->device->registered_ms;
    memcpy(flight->token_hash, a->device->token_hash, sizeof(flight->token_hash));
    a->pool->flights++;
    if (a->what->row.attempts == 0)
        bf_push_budget_earn(&a->pool->budget, 1);
    push->pending[push->pending_count++] = (struct bf_push_pending){
        .worker = worker,
        .lane = lane,
        .block = block,
        .cmd = {.push_id = flight->push_id, .block = block, .pool = a->pool->id},
    };
    if (!bf_push_is_channel(&a->what->row))
        push->pending[push->pending_count - 1].cmd.user =
            bf_user_key_in(&a->shard->users, a->what->row.uid);
    bf_funnel_count(BF_FUNNEL_DISPATCHED, lane, BF_CHANNEL_PUSH, 1);
}

/* Takes a place in a worker's ring and a block; both are sure when the batch has been written. */
static void launch(struct attempt *a, const uint8_t *request, size_t len)
{
    struct bf_shard *shard = a->shard;
    struct bf_block_ref block;
    uint32_t worker = pick_worker(shard, a->what->row.lane);
    bool has_block = worker != UINT32_MAX && take_block(shard, request, len, &block);
    struct bf_push_flight *flight = has_block ? bf_push_flight_add(shard, a->what) : NULL;
    if (!flight) {
        if (has_block)
            bf_publisher_drop(&shard->pub, block);
        wait(a, FULL_MS, "busy: no room on the way to a worker");
        return;
    }
    if (a->what->open) /* the event stays open until this flight's result is durable; relaxed: our
                        * own leg holds the count above 0 meanwhile */
        atomic_fetch_add_explicit(&a->what->open->legs_open, 1, memory_order_relaxed);
    if (!a->what->is_row && a->what->row.collapse != 0 &&
        bf_batch_drop_collapsed(shard->batch, &a->what->row))
        shard->push.wants_commit = true;
    take_off(a, flight, worker, block);
}

bool bf_push_is_stale(const struct bf_shard *shard, const struct bf_device_row *device)
{
    uint64_t stale_ms =
        (uint64_t)bf_core_conf(shard->core)->push_device_stale_days * 86400u * 1000u;
    uint64_t now = bf_wall_ms();
    return stale_ms > 0 && now > device->seen_ms && now - device->seen_ms > stale_ms;
}

bool bf_shard_push_send(struct bf_shard *shard, struct bf_push_case *what,
                        const struct bf_device_row *device, struct bf_push_note *note)
{
    struct bf_shard_push *push = &shard->push;
    struct attempt a = {.shard = shard, .what = what, .device = device, .note = note};
    uint8_t request[BF_PUSH_REQUEST_BYTES_MAX];
    char why[BF_PUSH_WHY_BYTES] = "";
    size_t len = 0;
    bool is_full = push->flight_count >= BF_PUSH_FLIGHTS_MAX ||
                   push->pending_count >= BF_PUSH_PENDING_MAX || push->is_landing;
    if (is_full && what->is_row)
        return false;
    if (is_full) {
        wait(&a, FULL_MS, "busy: as much is on its way as may be");
        return false;
    }
    if (!find_pool(&a) || !may_go(&a))
        return true;
    note->message_id = what->row.message_id;
    if (bf_push_request_build(note, &a.target, request, sizeof(request), &len, why) != 0) {
        bool is_late = strncmp(why, "expired", strlen("expired")) == 0;
        if (is_late)
            bf_push_case_end(shard, what, BF_STATUS_EXPIRED, "expired");
        else
            bf_push_case_dead_letter(shard, what, why);
        return true;
    }
    launch(&a, request, len);
    return true;
}

void bf_shard_push_dispatch(struct bf_shard *shard)
{
    struct bf_shard_push *push = &shard->push;
    for (uint32_t i = 0; i < push->pending_count; i++) {
        const struct bf_push_pending *p = &push->pending[i];
        bool is_sent =
            bf_publisher_send(&shard->pub, p->worker, p->lane, BF_CMD_PUSH, &p->cmd, p->block);
        BF_BUG_ON(!is_sent); /* room was made sure of by pick_worker */
    }
    push->pending_count = 0;
}
