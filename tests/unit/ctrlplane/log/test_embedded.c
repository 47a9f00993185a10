/*
 * Embedded log: what is acknowledged is read, in order, once, from memory or from disk; the cursor
 * survives; idempotency rows come with their event; retention, low disk and closing.
 */
#include "log_fixture.h"

#include "log/embedded.h"
#include "store/scrub.h"

TestSuite(embedded, .init = setup, .fini = teardown, .timeout = 120);

static _Atomic int done_count, failed_count;
static _Atomic intptr_t last_arg;
static _Atomic int out_of_order;

static void done(void *arg, int rc)
{
    intptr_t n = (intptr_t)arg;
    if (rc != 0)
        atomic_fetch_add(&failed_count, 1);
    if (n <= atomic_exchange(&last_arg, n))
        atomic_store(&out_of_order, 1);
    atomic_fetch_add(&done_count, 1);
}

static void wait_done(int count)
{
    for (int i = 0; i < 20000 && atomic_load(&done_count) < count; i++)
        usleep(1000);
    cr_assert_eq(atomic_load(&done_count), count);
}

static void append_numbers(int from, int to)
{
    for (int i = from; i < to; i++) {
        char body[32];
        snprintf(body, sizeof(body), "{\"n\":%d}", i);
        struct bf_log_entry entry = entry_of(body);
        int rc;
        while ((rc = bf_log_append(logp, &entry, done, (void *)(intptr_t)(i + 1))) == BF_ERR_FULL)
            usleep(100);
        cr_assert_eq(rc, 0);
    }
}

/* Reads [from, to) in order; returns how many polls it took. */
static void read_numbers(int from, int to, int batch)
{
    struct bf_log_record records[512];
    int next = from;
    for (int idle = 0; next < to && idle < 200;) {
        int n = bf_log_poll(logp, records, to - next < batch ? to - next : batch, 50);
        cr_assert_geq(n, 0);
        idle = n == 0 ? idle + 1 : 0;
        for (int i = 0; i < n; i++, next++) {
            char body[32];
            snprintf(body, sizeof(body), "{\"n\":%d}", next);
            cr_assert_eq(records[i].offset, next);
            cr_assert_eq(records[i].partition, 0);
            cr_assert(records[i].has_meta);
            cr_assert(bf_bytes_is_equal(records[i].body, text(body)));
            cr_assert(bf_bytes_is_equal(records[i].key, text("user-1")));
            cr_assert(bf_bytes_is_equal(records[i].meta, text("meta")));
            cr_assert_gt(records[i].timestamp_ms, 1600000000000u);
        }
        bf_log_free_records(logp, records, n);
    }
    cr_assert_eq(next, to);
}

Test(embedded, live_in_order)
{
    struct bf_log_record records[8];
    cr_assert_eq(bf_log_poll(logp, records, 8, 0), 0);
    cr_assert_eq(assigns, 1);
    cr_assert_eq(assigned_at, 0);
    append_numbers(0, 5000);
    read_numbers(0, 5000, 512);
    wait_done(5000);
    cr_assert_eq(atomic_load(&failed_count), 0);
    cr_assert_eq(atomic_load(&out_of_order), 0);
    cr_assert_eq(bf_log_poll(logp, records, 8, 10), 0);
    struct bf_log_health health;
    bf_log_health(logp, &health);
    cr_assert(health.can_append && health.can_consume);
    cr_assert_eq(health.lag_events, 0);
}

Test(embedded, cursor_survives)
{
    append_numbers(0, 100);
    read_numbers(0, 100, 7);
    cr_assert_eq(bf_log_commit(logp, 0, 1, 60), 0);
    cr_assert_eq(bf_log_commit(logp, 0, 1, 40), 0, "a lower one changes nothing");
    log_close();
    log_open();
    read_numbers(60, 100, 512);
    cr_assert_eq(assigned_at, 60);
    cr_assert_eq(bf_log_commit(logp, 0, 1, 100), 0);
    log_close();
    log_open();
    append_numbers(100, 110);
    read_numbers(100, 110, 512);
}

Test(embedded, slow_consumer_reads_back_from_disk)
{
    int count = (int)BF_EMBEDDED_HANDOFF_ENTRIES_MAX + 20000;
    struct bf_log_health health;
    append_numbers(0, count);
    wait_done(count);
    bf_log_health(logp, &health);
    cr_assert_eq(health.lag_events, (uint64_t)count);
    read_numbers(0, count / 2, 500);
    append_numbers(count, count + 1000); /* the hand-off has room again, but must not be used yet */
    wait_done(count + 1000);
    read_numbers(count / 2, count + 1000, 512);
    append_numbers(count + 1000, count + 1010);
    read_numbers(count + 1000, count + 1010, 512);
}

Test(embedded, paused_gives_nothing)
{
    struct bf_log_record records[8];
    append_numbers(0, 3);
    wait_done(3);
    bf_log_pause(logp, 0, true);
    cr_assert_eq(bf_log_poll(logp, records, 8, 20), 0);
    bf_log_pause(logp, 0, false);
    read_numbers(0, 3, 8);
}

static int check_idem(void *arg, const struct bf_idem_row *row)
{
    (void)arg;
    cr_assert_eq(row->status, 202);
    cr_assert_eq(row->body_hash[0], 9);
    cr_assert(bf_bytes_is_equal(row->answer, text("answer")));
    return 33;
}

Test(embedded, idempotency_row_with_the_event)
{
    struct bf_idem_row idem = {.key = text("t/k/1"),
                               .body_hash = {9},
                               .expires_ms = 2000,
                               .status = 202,
                               .answer = text("answer")};
    struct bf_log_entry entry = entry_of("{\"n\":0}");
    entry.idem = &idem;
    cr_assert_eq(bf_log_append(logp, &entry, done, (void *)1), 0);
    wait_done(1);
    cr_assert_eq(bf_log_get_idem(logp, text("t/k/1"), 1999, check_idem, NULL), 33);
    cr_assert_eq(bf_log_get_idem(logp, text("t/k/1"), 2000, check_idem, NULL), BF_ERR_NOT_FOUND);
    cr_assert_eq(bf_log_get_idem(logp, text("t/k/2"), 1999, check_idem, NULL), BF_ERR_NOT_FOUND);
    read_numbers(0, 1, 8);
    log_close();
    log_open();
    cr_assert_eq(bf_log_get_idem(logp, text("t/k/1"), 1999, check_idem, NULL), 33);
}

Test(embedded, closing_commits_what_was_appended)
{
    append_numbers(0, 3000);
    log_close();
    cr_assert_eq(atomic_load(&done_count), 3000);
    cr_assert_eq(atomic_load(&failed_count), 0);
    log_open();
    read_numbers(0, 3000, 512);
}

Test(embedded, low_disk_closes_the_door)
{
    struct bf_embedded *e = (struct bf_embedded *)logp;
    struct bf_log_entry entry = entry_of("{}");
    struct bf_log_health health;
    atomic_store(&e->is_disk_low, true);
    cr_assert_eq(bf_log_append(logp, &entry, done, (void *)1), -ENOSPC);
    bf_log_health(logp, &health);
    cr_assert(!health.can_append && health.can_consume);
    atomic_store(&e->is_disk_low, false);
    e->reserve_bytes = UINT64_MAX / 4; /* 5% of the disk is less, and less is free than that? */
    bf_embedded_check_disk(e);
    e->reserve_bytes = 0;
    bf_embedded_check_disk(e);
    cr_assert(!atomic_load(&e->is_disk_low));
}

Test(embedded, a_failed_write_is_for_good)
{
    struct bf_embedded *e = (struct bf_embedded *)logp;
    struct bf_log_entry entry = entry_of("{}");
    struct bf_log_record records[4];
    struct bf_log_health health;
    atomic_store(&e->is_dead, true);
    cr_assert_eq(bf_log_append(logp, &entry, done, (void *)1), BF_ERR_LOG);
    cr_assert_eq(bf_log_poll(logp, records, 4, 0), BF_ERR_LOG);
    bf_log_health(logp, &health);
    cr_assert(!health.can_append && !health.can_consume);
    atomic_store(&e->is_dead, false);
}

Test(embedded, retention_keeps_the_offsets)
{
    struct bf_embedded *e = (struct bf_embedded *)logp;
    append_numbers(0, 2000);
    wait_done(2000);
    read_numbers(0, 2000, 512);
    cr_assert_eq(bf_log_commit(logp, 0, 1, 2000), 0);
    e->retention_ms = 0; /* everything settled is past its time */
    usleep(20000);
    bf_embedded_apply_retention(e);
    uint8_t key[8];
    bf_embedded_key(key, 0);
    rocksdb_iterator_t *it =
        rocksdb_create_iterator_cf(e->rocks.db, e->rocks.read, e->rocks.cfs[BF_EMBEDDED_EVENTS]);
    rocksdb_iter_seek(it, (const char *)key, sizeof(key));
    cr_assert(rocksdb_iter_valid(it));
    size_t len;
    const char *first = rocksdb_iter_key(it, &len);
    bf_embedded_key(key, 1999);
    cr_assert_arr_eq(first, key, 8, "only the last record is left");
    rocksdb_iter_destroy(it);
    log_close();
    log_open();
    append_numbers(2000, 2010);
    read_numbers(2000, 2010, 8);
}

Test(embedded, retention_spares_what_is_open)
{
    struct bf_embedded *e = (struct bf_embedded *)logp;
    append_numbers(0, 100);
    wait_done(100);
    read_numbers(0, 100, 64);
    cr_assert_eq(bf_log_commit(logp, 0, 1, 30), 0);
    e->retention_ms = 0;
    usleep(5000);
    bf_embedded_apply_retention(e);
    log_close();
    log_open();
    read_numbers(30, 100, 64);
}

Test(embedded, lost_log_does_not_reuse_offsets)
{
    char path[256];
    append_numbers(0, 50);
    read_numbers(0, 50, 64);
    cr_assert_eq(bf_log_commit(logp, 0, 1, 50), 0);
    log_close();
    snprintf(path, sizeof(path), "%s/log", dir);
    tmp_dir_remove(path);
    log_open();
    append_numbers(50, 60);
    read_numbers(50, 60, 64);
}

Test(embedded, unknown_engine_is_refused)
{
    struct bf_log *other;
    struct bf_log_hooks hooks = {0};
    char err[256] = "";
    conf.log_engine = "paper";
    cr_assert_eq(bf_log_open(&conf, store, &hooks, &other, err, sizeof(err)), BF_ERR_UNSUPPORTED);
    cr_assert(strstr(err, "paper") != NULL);
    conf.log_engine = "embedded";
}

/* ---- erasure ---- */

static int passes_left; /* of the pace; negative: as many as it likes */

static bool go_on(void *arg, uint64_t took_ns)
{
    (void)arg, (void)took_ns;
    return passes_left < 0 || passes_left-- > 0;
}

/* A body with a word of its own, which compression leaves as it is. */
static const char *word_of(int n)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    static char word[17];
    uint64_t x = (uint64_t)n;
    for (unsigned i = 0; i < sizeof(word) - 1; i++) {
        x = (x + 1) * 0x9e3779b97f4a7c15u;
        x ^= x >> 29;
        word[i] = letters[(x >> 32) % (sizeof(letters) - 1)];
    }
    return word;
}

static void append_words(int from, int to)
{
    for (int i = from; i < to; i++) {
        char body[64];
        snprintf(body, sizeof(body), "{\"n\":%d,\"w\":\"%s\"}", i, word_of(i));
        struct bf_log_entry entry = entry_of(body);
        cr_assert_eq(bf_log_append(logp, &entry, done, (void *)(intptr_t)(i + 1)), 0);
    }
    wait_done(to);
}

static int number_of(struct bf_bytes body)
{
    char text_of_body[64];
    int n = -1;
    snprintf(text_of_body, sizeof(text_of_body), "%.*s", (int)body.len, body.at);
    cr_assert_eq(sscanf(text_of_body, "{\"n\":%d", &n), 1);
    return n;
}

/* Every third number goes, under one tag. */
static bool match_third(void *arg, const struct bf_log_record *record, uint64_t *tag)
{
    (void)arg;
    if (!record)
        return *tag == 77;
    *tag = 77;
    return number_of(record->body) % 3 == 0;
}

static int erase_thirds(int passes)
{
    struct bf_pace pace = {go_on, NULL};
    passes_left = passes;
    return bf_log_erase(logp, match_third, NULL, &pace);
}

static bool disk_has(int n)
{
    char command[400];
    snprintf(command, sizeof(command), "grep -rqaF '%s' '%s/log'", word_of(n), dir);
    return system(command) == 0;
}

/* What is left of [0, to): no third, each of the others at its offset. */
static void read_without_thirds(int to)
{
    struct bf_log_record records[64];
    int next = 1;
    for (int idle = 0; next < to && idle < 100;) {
        int n = bf_log_poll(logp, records, 64, 20);
        idle = n == 0 ? idle + 1 : 0;
        for (int i = 0; i < n; i++) {
            cr_assert_eq(records[i].offset, next);
            cr_assert_eq(number_of(records[i].body), next);
            next += next % 3 == 2 ? 2 : 1;
        }
        bf_log_free_records(logp, records, n);
    }
    cr_assert_eq(next, to);
}

Test(embedded, erased_records_leave_the_disk_and_are_passed)
{
    append_words(0, 1000); /* 999, the last, goes too: its offset must not be given again */
    cr_assert(disk_has(996) && disk_has(998));
    cr_assert_eq(erase_thirds(-1), 0);
    for (int n = 0; n < 1000; n += 111)
        cr_assert(!disk_has(n), "%d", n);
    log_close();
    log_open();
    cr_assert(disk_has(998));
    read_without_thirds(1000);
    atomic_store(&done_count, 1000);
    append_words(1000, 1001);
    struct bf_log_record record;
    cr_assert_eq(bf_log_poll(logp, &record, 1, 1000), 1);
    cr_assert_eq(record.offset, 1000);
    bf_log_free_records(logp, &record, 1);
}

Test(embedded, an_erasure_that_ended_early_is_gone_on_with)
{
    append_words(0, 301);
    log_close(); /* into a data file */
    log_open();
    cr_assert(disk_has(297));
    cr_assert_eq(erase_thirds(0), -ECANCELED);
    log_close();
    log_open();
    cr_assert_eq(erase_thirds(-1), 0);
    cr_assert(!disk_has(297) && disk_has(298));
    cr_assert_eq(erase_thirds(-1), 0, "again changes nothing");
    read_without_thirds(301); /* 300 went too */
}
