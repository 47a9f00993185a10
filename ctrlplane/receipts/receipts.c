/* See receipts.h. */
#include "receipts/receipts.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "belfry/base/fatal.h"
#include "belfry/base/time.h"
#include "stats/metrics.h"

/* Messages read from one worker before the others get their turn. */
#define BURST 256u

/* Messages of one worker that are on their way: at most one a ring slot. */
struct track {
    struct bf_ring_consumer ring;
    uint32_t cap;                   /* power of two, = ring slots */
    uint64_t next_serial;           /* to be given */
    uint64_t released;              /* all below are done and released */
    uint32_t *end;                  /* ring position after message serial % cap */
    _Atomic uint8_t *done;          /* set by shards (release), read here (acquire) */
    _Atomic uint64_t census_ticket; /* last answered */
};

struct bf_receipts {
    struct bf_core *core;
    struct bf_region *region;
    uint32_t workers;
    struct track *tracks;
    pthread_t thread;
    _Atomic bool stop;
    uint8_t buffer[BF_RCPT_BYTES_MAX] __attribute__((aligned(8)));
};

static void mark_done(struct track *t, uint64_t serial)
{
    atomic_store_explicit(&t->done[serial & (t->cap - 1)], 1, memory_order_release);
}

static void release_done(struct track *t)
{
    uint64_t from = t->released;
    while (t->released < t->next_serial &&
           atomic_load_explicit(&t->done[t->released & (t->cap - 1)], memory_order_acquire)) {
        atomic_store_explicit(&t->done[t->released & (t->cap - 1)], 0, memory_order_relaxed);
        t->released++;
    }
    if (t->released != from)
        bf_ring_release(&t->ring, t->end[(t->released - 1) & (t->cap - 1)]);
}

static struct bf_shard *shard_for(struct bf_receipts *r, uint16_t kind, const uint8_t *bytes)
{
    struct bf_user_key key;
    size_t at = kind == BF_RCPT_CENSUS_CONN ? offsetof(struct bf_rcpt_census_conn, user) : 0;
    if (kind == BF_RCPT_PUSH) /* the low byte of push_id, its first member */
        return bf_core_shard_of_byte(r->core, bytes[0]);
    memcpy(&key, bytes + at, sizeof(key)); /* first in all others; length was checked */
    return bf_core_shard_of_key(r->core, key);
}

_Static_assert(offsetof(struct bf_rcpt_connect, user) == 0, "see shard_for");
_Static_assert(offsetof(struct bf_rcpt_gone, user) == 0, "see shard_for");
_Static_assert(offsetof(struct bf_rcpt_ack, user) == 0, "see shard_for");
_Static_assert(offsetof(struct bf_rcpt_behind, user) == 0, "see shard_for");
_Static_assert(offsetof(struct bf_rcpt_client, user) == 0, "see shard_for");

static size_t least_bytes(uint16_t kind)
{
    switch (kind) {
    case BF_RCPT_CONNECT:
        return sizeof(struct bf_rcpt_connect);
    case BF_RCPT_GONE:
        return sizeof(struct bf_rcpt_gone);
    case BF_RCPT_ACK:
        return sizeof(struct bf_rcpt_ack);
    case BF_RCPT_BEHIND:
        return sizeof(struct bf_rcpt_behind);
    case BF_RCPT_CLIENT:
        return sizeof(struct bf_rcpt_client);
    case BF_RCPT_MASKED:
        return sizeof(struct bf_rcpt_masked);
    case BF_RCPT_CENSUS_CONN:
        return sizeof(struct bf_rcpt_census_conn);
    case BF_RCPT_CENSUS_DONE:
        return sizeof(struct bf_rcpt_census_done);
    case BF_RCPT_POOL:
        return sizeof(struct bf_rcpt_pool);
    case BF_RCPT_PUSH:
        return sizeof(struct bf_rcpt_push);
    case BF_RCPT_CENSUS_PUSH:
        return sizeof(struct bf_rcpt_census_push);
    default:
        return SIZE_MAX;
    }
}

_Static_assert(offsetof(struct bf_rcpt_push, push_id) == 0, "see shard_for");

/* What a worker still has of an earlier control process' pushes. */
static void take_census_push(struct bf_receipts *r, uint32_t len)
{
    struct bf_rcpt_census_push census;
    memcpy(&census, r->buffer, sizeof(census));
    for (uint32_t i = 0; i < census.count; i++) {
        size_t at = sizeof(census) + i * sizeof(uint64_t);
        uint64_t push_id;
        if (at + sizeof(push_id) > len)
            return;
        memcpy(&push_id, r->buffer + at, sizeof(push_id));
        bf_attempt_census_add(&r->core->attempt_census, push_id);
    }
}

/* Receipts that no shard needs. */
static bool take_here(struct bf_receipts *r, struct track *t, uint16_t kind, uint32_t len)
{
    if (kind == BF_RCPT_CENSUS_PUSH) {
        take_census_push(r, len);
        return true;
    }
    if (kind == BF_RCPT_MASKED) {
        struct bf_rcpt_masked masked;
        memcpy(&masked, r->buffer, sizeof(masked));
        bf_core_masked(r->core, masked.ticket, masked.worker, masked.lane);
        return true;
    }
    if (kind == BF_RCPT_CENSUS_DONE) {
        struct bf_rcpt_census_done done;
        memcpy(&done, r->buffer, sizeof(done));
        /* release: whoever sees the ticket sees the bitmap the worker wrote before it */
        atomic_store_explicit(&t->census_ticket, done.ticket, memory_order_release);
        return true;
    }
    if (kind == BF_RCPT_POOL) {
        if (!bf_pool_reports_take(r->core->pool_reports, r->buffer, len, bf_wall_ms()))
            bf_count(BF_CM_M_receipts_bad, 1);
        return true;
    }
    return false;
}

static void post_to_shard(struct bf_receipts *r, uint32_t worker, uint64_t serial, uint16_t kind,
                          uint32_t len)
{
    const struct track *t = &r->tracks[worker];
    struct bf_receipt_msg *msg = malloc(sizeof(*msg) + len);
    if (!msg)
        bf_fatal("ctrlplane",
                 "out of memory for a receipt: stopping; receipts stay in shared memory");
    *msg = (struct bf_receipt_msg){.msg = {.kind = BF_MSG_RECEIPT},
                                   .done = &t->done[serial & (t->cap - 1)],
                                   .worker = worker,
                                   .len = len,
                                   .kind = kind};
    memcpy(msg->bytes, r->buffer, len);
    bf_shard_post(shard_for(r, kind, msg->bytes), &msg->msg);
}

static bool read_one(struct bf_receipts *r, uint32_t worker)
{
    struct track *t = &r->tracks[worker];
    uint16_t kind = 0;
    uint32_t len = 0;
    if (t->next_serial - t->released >= t->cap)
        return false; /* every slot is on its way */
    int slots = bf_ring_get_message(&t->ring, r->buffer, &kind, &len);
    if (slots == 0)
        return false;
    uint64_t serial = t->next_serial++;
    t->end[serial & (t->cap - 1)] = t->ring.next;
    if (slots < 0 || len < least_bytes(kind)) {
        bf_count(BF_CM_M_receipts_bad, 1);
        mark_done(t, serial);
        return true;
    }
    bf_count(BF_CM_M_receipts_read, 1);
    if (take_here(r, t, kind, len))
        mark_done(t, serial);
    else
        post_to_shard(r, worker, serial, kind, len);
    return true;
}

static bool turn(struct bf_receipts *r)
{
    bool any = false;
    for (uint32_t w = 0; w < r->workers; w++) {
        for (uint32_t n = 0; n < BURST && read_one(r, w); n++)
            any = true;
        release_done(&r->tracks[w]);
    }
    return any;
}

static bool is_work_waiting(struct bf_receipts *r)
{
    for (uint32_t w = 0; w < r->workers; w++)
        if (r->tracks[w].next_serial - r->tracks[w].released < r->tracks[w].cap &&
            bf_ring_ready_now(&r->tracks[w].ring) > 0)
            return true;
    return false;
}

static bool is_outstanding(struct bf_receipts *r)
{
    for (uint32_t w = 0; w < r->workers; w++)
        if (r->tracks[w].released < r->tracks[w].next_serial)
            return true;
    return false;
}

/* Shards ring no bell when they finish: while messages are out, look again soon. */
#define RELEASE_POLL_MS 1u

static void sleep_until_work(struct bf_receipts *r)
{
    struct bf_doorbell *bell = &r->region->receipts_bell;
    bf_doorbell_arm(bell);
    if (!is_work_waiting(r)) {
        bool out = is_outstanding(r);
        bool woken = bf_doorbell_wait(bell, out ? RELEASE_POLL_MS : BF_DOORBELL_TIMEOUT_MS);
        if (!woken && !out && is_work_waiting(r) &&
            atomic_load_explicit(&bell->arm, memory_order_relaxed) == 1)
            bf_count(BF_CM_M_receipts_wakes_by_timeout, 1);
    }
    bf_doorbell_disarm(bell);
}

static void *receipts_main(void *arg)
{
    struct bf_receipts *r = arg;
    prctl(PR_SET_NAME, "bf-receipts");
    while (!atomic_load_explicit(&r->stop, memory_order_relaxed)) {
        if (!turn(r))
            sleep_until_work(r);
    }
    return NULL;
}

static int init_track(struct track *t, struct bf_region *region, uint32_t worker)
{
    t->cap = region->geometry.receipt_slots;
    t->end = calloc(t->cap, sizeof(*t->end));
    t->done = calloc(t->cap, sizeof(*t->done));
    if (!t->end || !t->done)
        return BF_ERR_NO_MEMORY;
    bf_ring_consumer_attach(&t->ring, bf_receipt_ring(region, worker),
                            bf_receipt_control(region, worker));
    return 0;
}

int bf_receipts_start(struct bf_core *core, struct bf_region *region, struct bf_receipts **ret)
{
    struct bf_receipts *r = calloc(1, sizeof(*r));
    if (!r)
        return BF_ERR_NO_MEMORY;
    r->core = core;
    r->region = region;
    r->workers = region->geometry.workers;
    r->tracks = calloc(r->workers, sizeof(struct track));
    for (uint32_t w = 0; r->tracks && w < r->workers; w++)
        if (init_track(&r->tracks[w], region, w) != 0)
            return BF_ERR_NO_MEMORY;
    if (!r->tracks || pthread_create(&r->thread, NULL, receipts_main, r) != 0)
        return BF_ERR_NO_MEMORY;
    *ret = r;
    return 0;
}

bool bf_receipts_wait_census(struct bf_receipts *r, uint64_t ticket, uint32_t timeout_ms)
{
    uint64_t until = bf_mono_ms() + timeout_ms;
    for (;;) {
        uint32_t answered = 0;
        for (uint32_t w = 0; w < r->workers; w++)
            answered +=
                atomic_load_explicit(&r->tracks[w].census_ticket, memory_order_acquire) == ticket;
        if (answered == r->workers)
            return true;
        if (bf_mono_ms() >= until)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* start-up only; polled */
    }
}

/* How long a stop waits for shards that hold receipts (connects held for want of room never
 * finish). */
#define DRAIN_MS 2000u

void bf_receipts_drain_and_stop(struct bf_receipts *r)
{
    if (!r)
        return;
    uint64_t until = bf_mono_ms() + DRAIN_MS;
    atomic_store_explicit(&r->stop, true, memory_order_relaxed);
    bf_doorbell_ring(&r->region->receipts_bell);
    pthread_join(r->thread, NULL);
    do {
        while (turn(r))
            continue;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    } while (is_outstanding(r) && bf_mono_ms() < until);
    bf_pool_reports_forget(r->core->pool_reports);
    /* tracks stay: a late shard may still mark a message done; the process ends or re-executes soon
     */
}
