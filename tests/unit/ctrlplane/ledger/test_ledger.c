/*
 * Ledger against a reference that keeps a plain set of open offsets: random opens with gaps, random
 * order of settling, reassignments with late settlers; then the same from several threads.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/base/time.h"
#include "ledger/ledger.h"

TestSuite(ledger, .timeout = 120);

#define SIZE 16u

static void expect_watermark(struct bf_ledger *ledger, uint32_t partition, int64_t want)
{
    uint32_t assignment;
    int64_t offset = -1;
    cr_assert(bf_ledger_watermark(ledger, partition, &assignment, &offset));
    cr_assert_eq(offset, want, "watermark %d, wanted %d", (int)offset, (int)want);
}

Test(ledger, watermark_is_contiguous)
{
    struct bf_ledger *ledger = bf_ledger_create(SIZE);
    struct bf_ledger_ticket t[4];
    uint32_t assignment;
    int64_t offset;
    cr_assert(!bf_ledger_watermark(ledger, 0, &assignment, &offset));
    cr_assert_eq(bf_ledger_partitions(ledger), 0);
    bf_ledger_assign(ledger, 2, 7, 100);
    cr_assert_eq(bf_ledger_partitions(ledger), 3);
    expect_watermark(ledger, 2, 100);
    for (int i = 0; i < 4; i++)
        cr_assert(bf_ledger_open(ledger, 2, 7, 100 + i, &t[i]));
    cr_assert_eq(bf_ledger_inflight(ledger, 2), 4);
    bf_ledger_settle(ledger, &t[1]);
    bf_ledger_settle(ledger, &t[3]);
    expect_watermark(ledger, 2, 100);
    bf_ledger_settle(ledger, &t[0]);
    expect_watermark(ledger, 2, 102);
    cr_assert_eq(bf_ledger_inflight(ledger, 2), 2);
    bf_ledger_settle(ledger, &t[2]);
    expect_watermark(ledger, 2, 104);
    cr_assert_eq(bf_ledger_inflight(ledger, 2), 0);
    bf_ledger_destroy(ledger);
    bf_ledger_destroy(NULL);
}

Test(ledger, cap_holds_and_opens_again)
{
    struct bf_ledger *ledger = bf_ledger_create(SIZE);
    struct bf_ledger_ticket t[SIZE], more;
    bf_ledger_assign(ledger, 0, 1, 0);
    for (uint32_t i = 0; i < SIZE; i++)
        cr_assert(bf_ledger_open(ledger, 0, 1, i, &t[i]));
    cr_assert(!bf_ledger_open(ledger, 0, 1, SIZE, &more));
    bf_ledger_settle(ledger, &t[5]);
    cr_assert(!bf_ledger_open(ledger, 0, 1, SIZE, &more), "the oldest holds the window");
    bf_ledger_settle(ledger, &t[0]);
    cr_assert(bf_ledger_open(ledger, 0, 1, SIZE, &more));
    cr_assert(!bf_ledger_open(ledger, 0, 1, SIZE + 1, &more));
    bf_ledger_destroy(ledger);
}

Test(ledger, gaps_count_as_settled)
{
    struct bf_ledger *ledger = bf_ledger_create(SIZE);
    struct bf_ledger_ticket a, b, c;
    bf_ledger_assign(ledger, 0, 1, 0);
    cr_assert(bf_ledger_open(ledger, 0, 1, 3, &a)); /* 0..2 skipped */
    expect_watermark(ledger, 0, 3);
    cr_assert(bf_ledger_open(ledger, 0, 1, 9, &b));
    cr_assert_eq(bf_ledger_inflight(ledger, 0), 2);
    bf_ledger_settle(ledger, &a);
    expect_watermark(ledger, 0, 9);
    cr_assert(!bf_ledger_open(ledger, 0, 1, 1000000, &c), "wider than the window, one open");
    bf_ledger_settle(ledger, &b);
    cr_assert(bf_ledger_open(ledger, 0, 1, 1000000, &c), "nothing open: any gap");
    expect_watermark(ledger, 0, 1000000);
    bf_ledger_settle(ledger, &c);
    expect_watermark(ledger, 0, 1000001);
    bf_ledger_destroy(ledger);
}

Test(ledger, earlier_assignments_are_void)
{
    struct bf_ledger *ledger = bf_ledger_create(SIZE);
    struct bf_ledger_ticket old, now;
    uint32_t assignment;
    int64_t offset;
    bf_ledger_assign(ledger, 0, 1, 0);
    cr_assert(bf_ledger_open(ledger, 0, 1, 0, &old));
    bf_ledger_revoke(ledger, 0, 9); /* not the current one */
    cr_assert(bf_ledger_watermark(ledger, 0, &assignment, &offset));
    bf_ledger_revoke(ledger, 0, 1);
    cr_assert(!bf_ledger_watermark(ledger, 0, &assignment, &offset));
    bf_ledger_revoke(ledger, 0, 1);
    bf_ledger_assign(ledger, 0, 2, 0);
    bf_ledger_settle(ledger, &old); /* slot untouched */
    cr_assert(bf_ledger_open(ledger, 0, 2, 0, &now));
    bf_ledger_settle(ledger, &old); /* slot open by another assignment */
    expect_watermark(ledger, 0, 0);
    bf_ledger_settle(ledger, &now);
    expect_watermark(ledger, 0, 1);
    bf_ledger_destroy(ledger);
}

Test(ledger, settling_twice_is_a_bug, .signal = SIGABRT)
{
    struct bf_ledger *ledger = bf_ledger_create(SIZE);
    struct bf_ledger_ticket t;
    bf_ledger_assign(ledger, 0, 1, 0);
    cr_assert(bf_ledger_open(ledger, 0, 1, 0, &t));
    bf_ledger_settle(ledger, &t);
    bf_ledger_settle(ledger, &t);
}

Test(ledger, settling_twice_is_seen_a_lap_later, .signal = SIGABRT)
{
    struct bf_ledger *ledger = bf_ledger_create(SIZE);
    struct bf_ledger_ticket first, t;
    bf_ledger_assign(ledger, 0, 1, 0);
    cr_assert(bf_ledger_open(ledger, 0, 1, 0, &first));
    bf_ledger_settle(ledger, &first);
    for (int64_t i = 1; i <= SIZE; i++) {
        cr_assert(bf_ledger_open(ledger, 0, 1, i, &t));
        if (i < SIZE)
            bf_ledger_settle(ledger, &t);
    }
    bf_ledger_settle(ledger, &first); /* its slot serves offset SIZE now */
}

Test(ledger, offsets_never_go_back, .signal = SIGABRT)
{
    struct bf_ledger *ledger = bf_ledger_create(SIZE);
    struct bf_ledger_ticket t;
    bf_ledger_assign(ledger, 0, 1, 5);
    bf_ledger_open(ledger, 0, 1, 4, &t);
}

Test(ledger, sizes_are_powers_of_two, .signal = SIGABRT)
{
    bf_ledger_create(12);
}

Test(ledger, oldest_age)
{
    struct bf_ledger *ledger = bf_ledger_create(SIZE);
    struct bf_ledger_ticket a, b;
    cr_assert_eq(bf_ledger_oldest_ms(ledger, bf_mono_ms()), 0);
    bf_ledger_assign(ledger, 0, 1, 0);
    bf_ledger_assign(ledger, 1, 2, 0);
    cr_assert_eq(bf_ledger_oldest_ms(ledger, bf_mono_ms()), 0);
    cr_assert(bf_ledger_open(ledger, 1, 2, 0, &a));
    cr_assert(bf_ledger_open(ledger, 0, 1, 0, &b));
    uint64_t now = bf_mono_ms();
    cr_assert_geq(bf_ledger_oldest_ms(ledger, now + 5000), 5000);
    cr_assert_lt(bf_ledger_oldest_ms(ledger, now + 5000), 6000);
    cr_assert_eq(bf_ledger_oldest_ms(ledger, now - 5000), 0, "a clock read before");
    bf_ledger_settle(ledger, &a);
    bf_ledger_settle(ledger, &b);
    expect_watermark(ledger, 0, 1);
    expect_watermark(ledger, 1, 1);
    cr_assert_eq(bf_ledger_oldest_ms(ledger, now + 5000), 0);
    bf_ledger_destroy(ledger);
}

/* ---- model ---- */

struct model {
    int64_t next;
    uint32_t assignment;
    struct bf_ledger_ticket open[SIZE], stale[64];
    int open_count, stale_count;
};

static int64_t model_watermark(const struct model *m)
{
    int64_t low = m->next;
    for (int i = 0; i < m->open_count; i++)
        low = m->open[i].offset < low ? m->open[i].offset : low;
    return low;
}

static void model_step(struct model *m, struct bf_ledger *ledger, unsigned *seed)
{
    unsigned dice = (unsigned)rand_r(seed) % 100;
    if (dice < 48) {
        int64_t offset = m->next + (rand_r(seed) % 4 == 0 ? rand_r(seed) % 40 : 0);
        int64_t low = model_watermark(m);
        bool fits = m->open_count == 0 || offset - low < (int64_t)SIZE;
        struct bf_ledger_ticket t;
        bool opened = bf_ledger_open(ledger, 0, m->assignment, offset, &t);
        cr_assert_eq(opened, fits);
        if (opened) {
            m->open[m->open_count++] = t;
            m->next = offset + 1;
        }
    } else if (dice < 96 && m->open_count > 0) {
        int i = rand_r(seed) % m->open_count;
        bf_ledger_settle(ledger, &m->open[i]);
        m->open[i] = m->open[--m->open_count];
    } else if (dice < 98 && m->stale_count > 0) {
        bf_ledger_settle(ledger, &m->stale[rand_r(seed) % m->stale_count]);
    } else if (dice == 99) {
        for (int i = 0; i < m->open_count && m->stale_count < 64; i++)
            m->stale[m->stale_count++] = m->open[i];
        m->open_count = 0;
        if (rand_r(seed) % 2)
            bf_ledger_revoke(ledger, 0, m->assignment);
        m->next = m->next > 30 ? m->next - rand_r(seed) % 30 : m->next;
        bf_ledger_assign(ledger, 0, ++m->assignment, m->next);
    }
}

Test(ledger, random_orders_agree_with_the_model)
{
    for (unsigned round = 1; round <= 200; round++) {
        unsigned seed = round;
        struct bf_ledger *ledger = bf_ledger_create(SIZE);
        struct model m = {.assignment = 1};
        uint32_t assignment;
        int64_t offset;
        bf_ledger_assign(ledger, 0, 1, 0);
        for (int step = 0; step < 2000; step++) {
            model_step(&m, ledger, &seed);
            cr_assert(bf_ledger_watermark(ledger, 0, &assignment, &offset));
            cr_assert_eq(assignment, m.assignment);
            /* a gap at the end is passed only when the next event opens: then the model's low is
             * the next offset, and so is the ledger's */
            cr_assert_eq(offset, model_watermark(&m), "seed %u step %d: %d, model %d", round, step,
                         (int)offset, (int)model_watermark(&m));
            cr_assert_geq((int)bf_ledger_inflight(ledger, 0), m.open_count);
        }
        bf_ledger_destroy(ledger);
    }
}

/* Records that are no events (of transactions) at the end: the watermark moves over them, but not
 * before what lies below them is settled. */
Test(ledger, passes_what_is_no_event)
{
    struct bf_ledger_ticket first, last;
    uint32_t assignment;
    int64_t offset;
    struct bf_ledger *ledger = bf_ledger_create(64);
    bf_ledger_assign(ledger, 0, 1, 0);
    cr_assert(bf_ledger_open(ledger, 0, 1, 0, &first));
    cr_assert(bf_ledger_skip(ledger, 0, 1, 10));
    cr_assert(bf_ledger_watermark(ledger, 0, &assignment, &offset));
    cr_assert_eq(offset, 0, "an open event holds it");
    cr_assert(bf_ledger_open(ledger, 0, 1, 12, &last));
    bf_ledger_settle(ledger, &first);
    cr_assert(bf_ledger_watermark(ledger, 0, &assignment, &offset));
    cr_assert_eq(offset, 12);
    cr_assert_not(bf_ledger_skip(ledger, 0, 1, 1000),
                  "no room for so wide a gap behind an open event");
    bf_ledger_settle(ledger, &last);
    cr_assert(bf_ledger_skip(ledger, 0, 1, 1000000), "none open: any width");
    cr_assert(bf_ledger_watermark(ledger, 0, &assignment, &offset));
    cr_assert_eq(offset, 1000000);
    cr_assert(bf_ledger_skip(ledger, 0, 1, 5), "never back");
    cr_assert(bf_ledger_skip(ledger, 0, 2, 2000000), "not of another assignment");
    cr_assert(bf_ledger_watermark(ledger, 0, &assignment, &offset));
    cr_assert_eq(offset, 1000000);
    cr_assert_eq(bf_ledger_inflight(ledger, 0), 0);
    bf_ledger_destroy(ledger);
}

/* ---- threads: one opens, three settle, tickets through a plain shared array ---- */

#define EVENTS   300000
#define SETTLERS 3

static struct bf_ledger *shared_ledger;
static struct bf_ledger_ticket tickets[EVENTS];
static _Atomic int published;

static void *settler(void *arg)
{
    int mine = (int)(intptr_t)arg;
    for (int i = mine; i < EVENTS; i += SETTLERS) {
        while (atomic_load_explicit(&published, memory_order_acquire) <= i)
            sched_yield();
        bf_ledger_settle(shared_ledger, &tickets[i]);
    }
    return NULL;
}

Test(ledger, threads)
{
    pthread_t threads[SETTLERS];
    uint32_t assignment;
    int64_t offset = 0, last = 0;
    shared_ledger = bf_ledger_create(1024);
    bf_ledger_assign(shared_ledger, 0, 1, 0);
    for (int i = 0; i < SETTLERS; i++)
        pthread_create(&threads[i], NULL, settler, (void *)(intptr_t)i);
    for (int i = 0; i < EVENTS; i++) {
        while (!bf_ledger_open(shared_ledger, 0, 1, i, &tickets[i]))
            sched_yield();
        atomic_store_explicit(&published, i + 1, memory_order_release);
        cr_assert(bf_ledger_watermark(shared_ledger, 0, &assignment, &offset));
        cr_assert_geq(offset, last);
        cr_assert_leq(offset, i + 1);
        last = offset;
    }
    for (int i = 0; i < SETTLERS; i++)
        pthread_join(threads[i], NULL);
    cr_assert(bf_ledger_watermark(shared_ledger, 0, &assignment, &offset));
    cr_assert_eq(offset, EVENTS);
    cr_assert_eq(bf_ledger_inflight(shared_ledger, 0), 0);
    bf_ledger_destroy(shared_ledger);
}
