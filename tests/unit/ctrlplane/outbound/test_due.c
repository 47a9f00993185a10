/*
 * Proves that the scan for due rows misses none although it sleeps until the next one is due: rows
 * that are not written yet, rows put before its cursor or while it runs; that a partition full of
 * due rows keeps no other waiting; and that a shard looks at its own partitions alone.
 */
#include "../store/store_fixture.h"

#include <stdio.h>
#include <stdlib.h>

#include "outbound/impl.h"
#include "publish/launches.h"

#define NOW UINT64_C(1700000000000)

static struct bf_outbound *o;
static struct bf_turn turn;
static struct bf_channels channels;
static struct bf_attempt_census census;
static uint32_t looked;            /* rows that were decided about */
static struct bf_leg_row last;     /* the last of them; texts are gone */
static bool has_seen[64];          /* partitions that rows were looked at of */
static struct bf_leg_row put_then; /* what the next look puts, once */
static bool has_put_then;

static void commit(struct bf_turn *t)
{
    write_batch(t->batch);
    o->wants_commit = false;
}

static bool settle(struct bf_turn *t, struct bf_open_event *open)
{
    (void)t, (void)open;
    return false;
}

/* Everybody has been erased: a row that is looked at goes. */
static void gather(struct bf_turn *t, const struct bf_leg_row *row, struct bf_due_facts *ret)
{
    static const struct bf_rules rules;
    looked++;
    last = *row;
    has_seen[row->partition] = true;
    ret->subject = (struct bf_subject){.channels = (uint8_t)(1u << row->channel),
                                       .is_named = true,
                                       .created_ms = row->created_ms,
                                       .expires_ms = row->expires_ms};
    ret->facts = (struct bf_facts){.moment = BF_DUE,
                                   .now_ms = t->now_ms,
                                   .subject = &ret->subject,
                                   .rules = &rules,
                                   .reachable = UINT8_MAX};
    if (has_put_then)
        bf_outbound_put(o, &put_then);
    has_put_then = false;
}

static uint32_t unread(struct bf_turn *t, const struct bf_leg_row *row)
{
    (void)t, (void)row;
    return 0;
}

static const struct bf_outbound_host host = {
    .commit = commit, .settle = settle, .gather = gather, .unread = unread};

static void begin_as(uint32_t index, uint32_t shards)
{
    const struct bf_outbound_node node = {
        .census = &census, .host = &host, .shards = shards, .partitions = 64};
    cr_assert_eq(bf_outbound_init(o, &node, index, &turn), 0);
    o->channels = &channels;
    turn.now_ms = NOW;
    turn.mono_ms = 100000;
    bf_outbound_attached(o, false);
}

static void begin(void)
{
    setup();
    o = calloc(1, sizeof(*o));
    turn = (struct bf_turn){.store = store, .batch = bf_batch_create(store)};
    begin_as(0, 1);
}

static void end(void)
{
    bf_outbound_fini(o);
    free(o);
    bf_batch_destroy(turn.batch);
    teardown();
}

TestSuite(due, .init = begin, .fini = end, .timeout = 60);

/* Row |n| of a person in |partition|, due at |due_ms|. */
static struct bf_leg_row row_in(uint8_t partition, uint64_t n, uint64_t due_ms)
{
    static char user[32];
    for (uint32_t i = 0;; i++) {
        snprintf(user, sizeof(user), "u%u", i);
        if (bf_store_partition_of(store, uid("", user)) == partition)
            break;
    }
    return (struct bf_leg_row){.partition = partition,
                               .lane = BF_LANE_NORMAL,
                               .not_before_ms = due_ms,
                               .channel = BF_CHANNEL_PUSH,
                               .message_id = id_of(n),
                               .uid = uid("", user),
                               .event_id = id_of(n),
                               .endpoint_id = id_of(1),
                               .created_ms = NOW,
                               .expires_ms = NOW + 1000000};
}

static void put(uint8_t partition, uint64_t n, uint64_t due_ms)
{
    struct bf_leg_row row = row_in(partition, n, due_ms);
    bf_outbound_put(o, &row);
}

/* A turn in which nothing else happens, |ms| later. */
static uint32_t run_after(uint64_t ms)
{
    uint32_t before = looked;
    turn.now_ms += ms;
    turn.mono_ms += ms;
    bf_outbound_run(o);
    if (bf_batch_count(turn.batch) > 0)
        commit(&turn);
    return looked - before;
}

Test(due, what_is_not_written_yet)
{
    put(7, 1, NOW);
    cr_assert_eq(run_after(0), 1, "the scan came before the write, and went to sleep");
    cr_assert_eq(run_after(100), 0);
    put(7, 2, NOW + 100);
    commit(&turn);
    cr_assert_eq(run_after(0), 1);
}

Test(due, sleeps_until_the_next_is_due)
{
    put(7, 1, NOW + 1000);
    put(7, 2, NOW + 2000);
    put(9, 3, NOW + 3000);
    cr_assert_eq(run_after(0), 0);
    cr_assert_eq(o->places[BF_LANE_NORMAL][7].look_ms, NOW + 1000);
    cr_assert_eq(o->places[BF_LANE_NORMAL][9].look_ms, NOW + 3000);
    cr_assert_eq(o->places[BF_LANE_NORMAL][8].look_ms, UINT64_MAX);
    cr_assert_eq(o->look_ms[BF_LANE_NORMAL], NOW + 1000);
    cr_assert_eq(o->look_ms[BF_LANE_BULK], UINT64_MAX);
    cr_assert_eq(run_after(999), 0);
    cr_assert_eq(run_after(1), 1);
    cr_assert_eq(last.not_before_ms, NOW + 1000);
    cr_assert_eq(run_after(1000), 1);
    cr_assert_eq(run_after(1000), 1);
    cr_assert_eq(run_after(100000), 0);
}

/* The clock was set back, or somebody wants a row sooner. */
Test(due, before_the_cursor)
{
    put(7, 1, NOW);
    cr_assert_eq(run_after(0), 1);
    cr_assert_eq(run_after(5000), 0);
    put(7, 2, NOW - 500);
    cr_assert_eq(run_after(0), 1);
    cr_assert_eq(last.not_before_ms, NOW - 500);
    put(7, 3, NOW + 90000); /* sooner, by another row of the same message */
    commit(&turn);
    put(7, 3, NOW + 6000);
    cr_assert_eq(run_after(0), 0);
    cr_assert_eq(run_after(1000), 1);
    cr_assert_eq(run_after(100000), 0);
}

Test(due, put_while_the_scan_runs)
{
    put(7, 1, NOW);
    put_then = row_in(7, 2, NOW - 10);
    has_put_then = true;
    cr_assert_eq(run_after(0), 1);
    cr_assert_eq(run_after(0), 1, "it lies before where the scan has come to");
    put(7, 3, NOW);
    put_then = row_in(11, 4, NOW);
    has_put_then = true;
    cr_assert_eq(run_after(0), 1);
    cr_assert_eq(run_after(0), 1);
}

Test(due, a_full_partition_keeps_no_other_waiting)
{
    enum { MANY = 1000 };
    for (uint64_t n = 0; n < MANY; n++)
        put(3, 10 + n, NOW - 1000 + n / 10);
    put(40, 5, NOW); /* the youngest of all */
    uint32_t turns = 0, all = 0;
    while (!has_seen[40] && turns < 10) {
        uint32_t rows = run_after(0);
        cr_assert_leq(rows, BF_DUE_ROWS_PER_TURN);
        all += rows;
        turns++;
    }
    cr_assert_leq(turns, 2);
    while (all < MANY + 1 && turns++ < 100)
        all += run_after(0);
    cr_assert_eq(all, MANY + 1);
    cr_assert_eq(run_after(100), 0);
}

Test(due, own_partitions_alone)
{
    struct bf_leg_row row;
    bf_outbound_fini(o);
    begin_as(1, 3); /* 1, 4, 7, ... 61 */
    for (uint32_t p = 0; p < 64; p++) {
        row = row_in((uint8_t)p, 100 + p, NOW);
        bf_batch_put_leg(turn.batch, &row);
    }
    commit(&turn);
    cr_assert_eq(run_after(0), 21);
    cr_assert_eq(last.partition % 3, 1);
    cr_assert_eq(run_after(100), 0);
    cr_assert_eq(bf_store_leg_depth(store, BF_CHANNEL_PUSH, BF_LANE_NORMAL), 64 - 21);
}

Test(due, nothing_before_the_channels_run)
{
    o->channels = NULL;
    put(7, 1, NOW);
    cr_assert_eq(run_after(100), 0);
    o->channels = &channels;
    cr_assert_eq(run_after(0), 1);
}
