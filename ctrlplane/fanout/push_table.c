/* What a shard remembers of its pushes in memory: flights, pools, throttled devices. See push.h. */
#include "fanout/push.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "fanout/core_state.h"

/* A removed flight's slot: probing goes on, adding may reuse it. Never dereferenced. */
static struct bf_push_flight tombstone;
#define TOMBSTONE (&tombstone)

_Static_assert(BF_PUSH_FLIGHT_SLOTS >= 2 * BF_PUSH_FLIGHTS_MAX &&
                   (BF_PUSH_FLIGHT_SLOTS & (BF_PUSH_FLIGHT_SLOTS - 1)) == 0,
               "flights are found by probing");

int bf_push_table_init(struct bf_shard_push *push)
{
    push->slots = calloc(BF_PUSH_FLIGHT_SLOTS, sizeof(struct bf_push_flight *));
    push->pending = calloc(BF_PUSH_PENDING_MAX, sizeof(*push->pending));
    push->pools = calloc(BF_PUSH_POOLS_MAX, sizeof(*push->pools));
    push->slow = calloc(BF_PUSH_SLOW_DEVICES, sizeof(*push->slow));
    if (!push->slots || !push->pending || !push->pools || !push->slow ||
        getrandom(&push->random, sizeof(push->random), 0) != (ssize_t)sizeof(push->random))
        return BF_ERR_NO_MEMORY;
    return 0;
}

void bf_push_table_fini(struct bf_shard_push *push)
{
    for (struct bf_push_flight *flight = push->oldest; flight;) {
        struct bf_push_flight *next = flight->next;
        free(flight);
        flight = next;
    }
    free(push->slots);
    free(push->pending);
    free(push->pools);
    free(push->slow);
    *push = (struct bf_shard_push){0};
}

/* ---- flights --------------------------------------------------------------------------------- */

/* The same for a message's attempt whoever asks, so a successor knows what flies (census) and what
 * has been answered. The low byte, the partition, routes the receipt; a former version put another
 * number there, so it tells no flight from another. */
uint64_t bf_push_id_of(const struct bf_leg_row *row)
{
    uint64_t hash =
        XXH3_64bits_withSeed(row->message_id.bytes, sizeof(row->message_id.bytes), row->attempts);
    return hash << 8 | row->partition;
}

static struct bf_push_flight **find_slot(const struct bf_shard_push *push, uint64_t push_id)
{
    for (uint32_t i = (uint32_t)(push_id >> 8);; i++) {
        struct bf_push_flight **slot = &push->slots[i & (BF_PUSH_FLIGHT_SLOTS - 1)];
        if (!*slot || (*slot != TOMBSTONE && (*slot)->push_id >> 8 == push_id >> 8))
            return slot;
    }
}

struct bf_push_flight *bf_push_flight_find(const struct bf_shard_push *push, uint64_t push_id)
{
    return *find_slot(push, push_id);
}

struct bf_push_flight *bf_push_flight_of(const struct bf_shard_push *push,
                                         const struct bf_leg_row *row)
{
    struct bf_push_flight *found = bf_push_flight_find(push, bf_push_id_of(row));
    if (found || push->renamed_count == 0)
        return found;
    for (found = push->oldest; found; found = found->next)
        if (found->is_renamed && bf_id_is_equal(&found->what.row.message_id, &row->message_id))
            return found;
    return NULL;
}

uint32_t bf_push_lanes_of(const struct bf_shard_push *push, struct bf_uid uid)
{
    uint32_t lanes = 0;
    for (const struct bf_push_flight *flight = push->oldest; flight; flight = flight->next) {
        const struct bf_leg_row *row = &flight->what.row;
        if (bf_bytes_is_equal(row->uid.user, uid.user) &&
            bf_bytes_is_equal(row->uid.tenant, uid.tenant))
            lanes |= 1u << row->lane;
    }
    return lanes;
}

static void place(struct bf_shard_push *push, struct bf_push_flight *flight)
{
    uint32_t i = (uint32_t)(flight->push_id >> 8) & (BF_PUSH_FLIGHT_SLOTS - 1);
    while (push->slots[i] && push->slots[i] != TOMBSTONE)
        i = (i + 1) & (BF_PUSH_FLIGHT_SLOTS - 1);
    push->slots_used += push->slots[i] == NULL;
    push->slots[i] = flight;
}

/* Probing ends at a free slot: tombstones must not fill them. */
static void sweep_tombstones(struct bf_shard_push *push)
{
    if (push->slots_used < BF_PUSH_FLIGHT_SLOTS / 4 * 3)
        return;
    memset(push->slots, 0, BF_PUSH_FLIGHT_SLOTS * sizeof(struct bf_push_flight *));
    push->slots_used = 0;
    for (struct bf_push_flight *flight = push->oldest; flight; flight = flight->next)
        place(push, flight);
}

struct bf_push_flight *bf_push_flight_add(struct bf_shard *shard, const struct bf_push_case *what)
{
    struct bf_shard_push *push = &shard->push;
    struct bf_uid uid = what->row.uid;
    if (push->flight_count >= BF_PUSH_FLIGHTS_MAX || push->is_landing)
        return NULL;
    struct bf_push_flight *flight = calloc(1, sizeof(*flight) + uid.tenant.len + uid.user.len);
    if (!flight)
        return NULL;
    flight->what = *what;
    flight->push_id = bf_push_id_of(&what->row);
    flight->sent_ms = bf_mono_ms();
    if (uid.tenant.len > 0)
        memcpy(flight->uid, uid.tenant.at, uid.tenant.len);
    memcpy(flight->uid + uid.tenant.len, uid.user.at, uid.user.len);
    struct bf_leg_row *row = &flight->what.row;
    row->uid.tenant.at = flight->uid;
    row->uid.user.at = flight->uid + uid.tenant.len;
    row->meta = row->fragment = row->overrides = row->reason = BF_BYTES("");
    sweep_tombstones(push);
    place(push, flight);
    flight->prev = push->newest;
    *(push->newest ? &push->newest->next : &push->oldest) = flight;
    push->newest = flight;
    push->flight_count++;
    return flight;
}

void bf_push_flight_drop(struct bf_shard *shard, struct bf_push_flight *flight)
{
    struct bf_shard_push *push = &shard->push;
    *find_slot(push, flight->push_id) = TOMBSTONE;
    *(flight->prev ? &flight->prev->next : &push->oldest) = flight->next;
    *(flight->next ? &flight->next->prev : &push->newest) = flight->prev;
    if (flight->pool)
        flight->pool->flights--;
    push->flight_count--;
    push->renamed_count -= flight->is_renamed;
    free(flight);
}

/* ---- pools ----------------------------------------------------------------------------------- */

/* FCM: 600,000 a minute and project (PROVIDERS 2); the others document none. */
#define FCM_LIMIT_PER_MIN 600000u

struct bf_push_pool_state *bf_push_pool_state(struct bf_shard *shard, uint32_t id,
                                              enum bf_push_kind kind)
{
    struct bf_push_pool_state *free_place = NULL, *idle = NULL;
    for (uint32_t i = 0; i < BF_PUSH_POOLS_MAX && !free_place; i++) {
        struct bf_push_pool_state *pool = &shard->push.pools[(id + i) % BF_PUSH_POOLS_MAX];
        if (pool->id == id)
            return pool;
        if (pool->id == 0)
            free_place = pool;
        else if (pool->flights == 0)
            idle = pool;
    }
    struct bf_push_pool_state *fresh = free_place ? free_place : idle;
    if (!fresh)
        return NULL;
    uint64_t now = bf_mono_ms();
    uint64_t limit = kind == BF_PUSH_FCM ? FCM_LIMIT_PER_MIN / shard->core->shard_count : 0;
    struct bf_breaker_limits limits = bf_breaker_defaults();
    *fresh = (struct bf_push_pool_state){.id = id, .kind = kind};
    bf_breaker_init(&fresh->breaker, &limits, now);
    bf_bucket_init(&fresh->bucket, limit, now);
    bf_push_budget_init(&fresh->budget, now);
    return fresh;
}

/* ---- small things ---------------------------------------------------------------------------- */

/* xorshift64*: jitter, nothing that must not be guessed. */
uint64_t bf_push_dice(struct bf_shard_push *push, uint64_t below)
{
    push->random |= push->random == 0;
    push->random ^= push->random >> 12;
    push->random ^= push->random << 25;
    push->random ^= push->random >> 27;
    return below ? (push->random * UINT64_C(0x2545f4914f6cdd1d) >> 11) % below : 0;
}

static struct bf_push_slow *slow_place(const struct bf_shard_push *push, const struct bf_id *device)
{
    uint32_t at;
    memcpy(&at, device->bytes, sizeof(at));
    return &push->slow[at % BF_PUSH_SLOW_DEVICES];
}

/* One of many that fell on the same place is forgotten: it is throttled once more, and noted again.
 */
void bf_push_device_slow(struct bf_shard_push *push, const struct bf_id *device, uint64_t until_ms)
{
    *slow_place(push, device) = (struct bf_push_slow){.device = *device, .until_ms = until_ms};
}

uint64_t bf_push_device_slow_until(const struct bf_shard_push *push, const struct bf_id *device)
{
    const struct bf_push_slow *slow = slow_place(push, device);
    return bf_id_is_equal(&slow->device, device) ? slow->until_ms : 0;
}

/* ---- the census ------------------------------------------------------------------------------ */

#define CENSUS_FREE    0u
#define CENSUS_CLEARED 1u

int bf_push_census_init(struct bf_push_census *census, uint32_t workers)
{
    uint32_t slots = 1;
    bf_push_census_fini(census);
    while (slots < 2 * workers * BF_PUSH_REQUESTS_MAX)
        slots *= 2;
    census->ids = calloc(slots, sizeof(*census->ids));
    census->mask = slots - 1;
    return census->ids ? 0 : BF_ERR_NO_MEMORY;
}

void bf_push_census_fini(struct bf_push_census *census)
{
    free((void *)(uintptr_t)census->ids);
    *census = (struct bf_push_census){0};
}

/* An id without the byte that routes: the successor may have another number of shards. Never one of
 * the marks. */
static uint64_t attempt_of(uint64_t push_id)
{
    return push_id >> 8 | UINT64_C(1) << 63;
}

/* The place of an attempt, or the free one that ends its probing. Relaxed throughout: the census'
 * ticket orders all adds before any shard asks, and a slot is cleared by one shard alone. */
static _Atomic uint64_t *census_place(const struct bf_push_census *census, uint64_t attempt)
{
    for (uint32_t i = (uint32_t)attempt;; i++) {
        _Atomic uint64_t *place = &census->ids[i & census->mask];
        uint64_t id = atomic_load_explicit(place, memory_order_relaxed);
        if (id == attempt || id == CENSUS_FREE)
            return place;
    }
}

void bf_push_census_add(struct bf_push_census *census, uint64_t push_id)
{
    uint64_t attempt = attempt_of(push_id);
    if (census->ids)
        atomic_store_explicit(census_place(census, attempt), attempt, memory_order_relaxed);
}

bool bf_push_census_has(const struct bf_push_census *census, uint64_t push_id)
{
    uint64_t attempt = attempt_of(push_id);
    return census->ids &&
           atomic_load_explicit(census_place(census, attempt), memory_order_relaxed) == attempt;
}

void bf_push_census_forget(struct bf_push_census *census, uint64_t push_id)
{
    if (bf_push_census_has(census, push_id))
        atomic_store_explicit(census_place(census, attempt_of(push_id)), CENSUS_CLEARED,
                              memory_order_relaxed);
}

void bf_push_orphan_id(uint64_t push_id, struct bf_id *ret)
{
    static const char mark[8] = {'p', 'u', 's', 'h', '_', 'i', 'd', 0};
    uint64_t attempt = attempt_of(push_id);
    memcpy(ret->bytes, &attempt, sizeof(attempt));
    memcpy(ret->bytes + sizeof(attempt), mark, sizeof(mark));
}
