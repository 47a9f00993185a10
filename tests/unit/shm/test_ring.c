/*
 * Proves the rings of shm/ring.h: order and content, back-pressure, take-over after a producer died
 * between reserve and publish, lap and generation in the check, survival of arbitrary bytes,
 * messages of several slots, and (under ThreadSanitizer too) the hand-off between two threads with
 * a doorbell.
 */
#include <criterion/criterion.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <rte_ring.h>
#include <rte_ring_elem.h>

#include "belfry/shm/doorbell.h"
#include "belfry/shm/ring.h"

#define SLOTS 64u

struct pair {
    struct rte_ring *ring;
    struct bf_ring_control control;
    struct bf_ring_producer p;
    struct bf_ring_consumer c;
};

static void pair_init(struct pair *pair, uint32_t slots)
{
    size_t bytes = (size_t)rte_ring_get_memsize_elem(BF_SLOT_BYTES, slots);
    memset(pair, 0, sizeof(*pair));
    pair->ring = aligned_alloc(128, (bytes + 127) / 128 * 128);
    memset(pair->ring, 0, bytes);
    cr_assert_eq(rte_ring_init(pair->ring, "t", slots, RING_F_SP_ENQ | RING_F_SC_DEQ), 0);
    bf_ring_producer_attach(&pair->p, pair->ring, &pair->control, 1);
    bf_ring_consumer_attach(&pair->c, pair->ring, &pair->control);
}

static bool put(struct bf_ring_producer *p, uint64_t value)
{
    uint32_t at;
    if (!bf_ring_reserve(p, 1, &at))
        return false;
    memset(bf_ring_slot(p, at)->payload, 0, BF_SLOT_PAYLOAD_BYTES);
    memcpy(bf_ring_slot(p, at)->payload, &value, sizeof(value));
    bf_slot_seal(p, at, 7, 0, 1, sizeof(value));
    return true;
}

static bool take(struct bf_ring_consumer *c, uint64_t *ret)
{
    if (bf_ring_ready(c) == 0)
        return false;
    bool good = bf_slot_is_valid(c, c->next);
    memcpy(ret, bf_ring_peek(c, c->next)->payload, sizeof(*ret));
    c->next++;
    bf_ring_release(c, c->next);
    return good;
}

Test(ring, keeps_order_and_refuses_when_full)
{
    struct pair pair;
    uint64_t got;
    pair_init(&pair, SLOTS);
    for (uint64_t lap = 0; lap < 10; lap++) {
        uint64_t n = 0;
        while (put(&pair.p, lap * 1000 + n))
            n++;
        cr_assert_eq(n, SLOTS - 1, "rte_ring keeps one slot free");
        cr_assert(!take(&pair.c, &got), "nothing is visible before publish");
        bf_ring_publish(&pair.p);
        for (uint64_t i = 0; i < n; i++) {
            cr_assert(take(&pair.c, &got));
            cr_assert_eq(got, lap * 1000 + i);
        }
        cr_assert(!take(&pair.c, &got));
    }
    free(pair.ring);
}

Test(ring, successor_drops_what_was_reserved_and_keeps_what_was_published)
{
    struct pair pair;
    uint64_t got;
    pair_init(&pair, SLOTS);
    /* a full lap, so that every slot holds a check that was once good */
    for (uint64_t i = 0; i < SLOTS; i++) {
        cr_assert(put(&pair.p, 100 + i));
        bf_ring_publish(&pair.p);
        cr_assert(take(&pair.c, &got));
    }
    put(&pair.p, 1);
    put(&pair.p, 2);
    bf_ring_publish(&pair.p);
    uint32_t at;
    cr_assert(bf_ring_reserve(&pair.p, 3, &at)); /* killed here: three slots of the earlier lap */
    struct bf_ring_producer successor;
    bf_ring_producer_attach(&successor, pair.ring, &pair.control, 2);
    put(&successor, 3);
    bf_ring_publish(&successor);
    for (uint64_t want = 1; want <= 3; want++) {
        cr_assert(take(&pair.c, &got));
        cr_assert_eq(got, want);
    }
    cr_assert(!take(&pair.c, &got));
    free(pair.ring);
}

Test(ring, predecessor_that_wakes_up_is_not_believed)
{
    struct pair pair;
    uint64_t got = 0;
    pair_init(&pair, SLOTS);
    struct bf_ring_producer successor;
    bf_ring_producer_attach(&successor, pair.ring, &pair.control, 2);
    put(&pair.p, 66); /* the old generation writes after the take-over */
    bf_ring_publish(&pair.p);
    cr_assert(!take(&pair.c, &got));
    free(pair.ring);
}

Test(ring, wrong_lap_fails_the_check)
{
    struct pair pair;
    pair_init(&pair, SLOTS);
    put(&pair.p, 5);
    bf_ring_publish(&pair.p);
    struct bf_slot copy = *bf_ring_peek(&pair.c, 0);
    cr_assert(bf_slot_is_valid(&pair.c, 0));
    cr_assert_neq(copy.check, bf_slot_check(&copy, SLOTS), "same bytes, next lap");
    free(pair.ring);
}

Test(ring, survives_any_bytes)
{
    struct pair pair;
    uint8_t out[BF_SLOT_PARTS_MAX * BF_SLOT_PAYLOAD_BYTES];
    uint16_t kind = 0;
    uint32_t len = 0;
    uint64_t seed = 88172645463325252u;
    pair_init(&pair, SLOTS);
    for (int round = 0; round < 2000; round++) {
        for (uint32_t i = 0; i < SLOTS * BF_SLOT_BYTES / 8; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            memcpy((uint8_t *)pair.c.slots + i * 8, &seed, 8);
        }
        uint32_t n = (uint32_t)(seed % (SLOTS - 1)) + 1;
        pair.p.head += n;
        bf_ring_publish(&pair.p);
        int rc, good = 0;
        while ((rc = bf_ring_get_message(&pair.c, out, &kind, &len)) != 0)
            good += rc > 0;
        cr_assert_eq(good, 0);
        bf_ring_release(&pair.c, pair.c.next);
    }
    free(pair.ring);
}

Test(ring, every_flipped_bit_is_seen)
{
    struct pair pair;
    pair_init(&pair, SLOTS);
    put(&pair.p, 0x1122334455667788);
    bf_ring_publish(&pair.p);
    for (uint32_t bit = 0; bit < BF_SLOT_BYTES * 8; bit++) {
        uint8_t *byte = (uint8_t *)pair.c.slots + bit / 8;
        *byte ^= (uint8_t)(1u << bit % 8);
        cr_assert(!bf_slot_is_valid(&pair.c, 0), "bit %u", bit);
        *byte ^= (uint8_t)(1u << bit % 8);
    }
    cr_assert(bf_slot_is_valid(&pair.c, 0));
    free(pair.ring);
}

Test(ring, messages_of_every_length)
{
    struct pair pair;
    uint8_t in[BF_SLOT_PARTS_MAX * BF_SLOT_PAYLOAD_BYTES], out[sizeof(in)];
    uint16_t kind = 0;
    uint32_t len = 0;
    pair_init(&pair, SLOTS);
    for (uint32_t i = 0; i < sizeof(in); i++)
        in[i] = (uint8_t)(i * 7 + 3);
    for (uint32_t n = 0; n <= sizeof(in) - BF_SLOT_PAYLOAD_BYTES; n += 1 + n / 9) {
        cr_assert(bf_ring_put_message(&pair.p, 9, in, n));
        bf_ring_publish(&pair.p);
        cr_assert_gt(bf_ring_get_message(&pair.c, out, &kind, &len), 0);
        cr_assert_eq(kind, 9);
        cr_assert_eq(len, n);
        cr_assert_eq(memcmp(in, out, n), 0);
        bf_ring_release(&pair.c, pair.c.next);
    }
    free(pair.ring);
}

Test(ring, a_damaged_message_costs_itself_only)
{
    struct pair pair;
    uint8_t in[200] = {1}, out[BF_SLOT_PARTS_MAX * BF_SLOT_PAYLOAD_BYTES];
    uint16_t kind = 0;
    uint32_t len = 0;
    int damaged = 0;
    pair_init(&pair, SLOTS);
    bf_ring_put_message(&pair.p, 1, in, sizeof(in));
    bf_ring_put_message(&pair.p, 2, in, sizeof(in));
    bf_ring_publish(&pair.p);
    pair.c.slots[2].payload[5] ^= 1;
    while (bf_ring_get_message(&pair.c, out, &kind, &len) < 0)
        damaged++;
    cr_assert_eq(damaged, 5, "each of its slots is skipped");
    cr_assert_eq(kind, 2);
    free(pair.ring);
}

#define HANDOFF 300000u

struct handoff {
    struct pair pair;
    struct bf_doorbell bell;
    _Atomic uint32_t by_timeout;
};

static void *produce(void *arg)
{
    struct handoff *h = arg;
    for (uint64_t i = 0; i < HANDOFF;) {
        uint64_t before = i;
        while (i < HANDOFF && i - before < 17 && put(&h->pair.p, i))
            i++;
        bf_ring_publish(&h->pair.p);
        bf_doorbell_ring(&h->bell);
        if (i % 5 == 0)
            sched_yield(); /* lets the consumer fall asleep */
    }
    return NULL;
}

Test(ring, two_threads_hand_off_without_a_lost_wake, .timeout = 120)
{
    static struct handoff h;
    pthread_t thread;
    uint64_t got, want = 0;
    pair_init(&h.pair, SLOTS);
    pthread_create(&thread, NULL, produce, &h);
    while (want < HANDOFF) {
        if (bf_ring_ready(&h.pair.c) > 0) {
            cr_assert(take(&h.pair.c, &got));
            cr_assert_eq(got, want);
            want++;
            continue;
        }
        bf_doorbell_arm(&h.bell);
        if (bf_ring_ready_now(&h.pair.c) == 0 && !bf_doorbell_wait(&h.bell, 2000) &&
            bf_ring_ready_now(&h.pair.c) > 0 && h.bell.arm == 1)
            h.by_timeout++;
        bf_doorbell_disarm(&h.bell);
    }
    pthread_join(thread, NULL);
    cr_assert_eq(h.by_timeout, 0);
    free(h.pair.ring);
}
