/*
 * Embedded log under kill -9: a child appends, and tells each event once it was acknowledged; it
 * also consumes and commits. It is killed at random; every event told is read back, in order, once,
 * from a place at or below what was committed.
 */
#include "log_fixture.h"

#include <signal.h>

#include "writers.h"

TestSuite(log_crash, .timeout = 300);

struct told {
    uint32_t kind; /* 0: acknowledged, 1: committed up to */
    uint32_t n;
};

static int told_fd;

static void done(void *arg, int rc)
{
    struct told t = {0, (uint32_t)(uintptr_t)arg};
    if (rc == 0 && write(told_fd, &t, sizeof(t)) != (ssize_t)sizeof(t))
        _exit(8);
}

static void consume_some(bool commit)
{
    struct bf_log_record records[64];
    int n = bf_log_poll(logp, records, 64, 0);
    if (n < 0)
        _exit(7);
    if (n == 0)
        return;
    int64_t settled = records[n - 1].offset + 1;
    bf_log_free_records(logp, records, n);
    if (!commit)
        return;
    struct told t = {1, (uint32_t)settled};
    if (bf_store_sync(store) != 0 || bf_log_commit(logp, 0, 1, settled) != 0)
        _exit(6);
    if (write(told_fd, &t, sizeof(t)) != (ssize_t)sizeof(t))
        _exit(8);
}

static void append_for_ever(struct writer_order order, int fd)
{
    char err[512];
    told_fd = fd;
    if (log_try_open(err, sizeof(err)) != 0)
        _exit(9);
    for (uint32_t n = order.from;; n++) {
        char body[160];
        memset(body, ' ', sizeof(body));
        snprintf(body, sizeof(body), "%u", n);
        struct bf_log_entry entry = {.key = text("k"), .body = {body, sizeof(body)}};
        while (bf_log_append(logp, &entry, done, (void *)(uintptr_t)n) == BF_ERR_FULL)
            usleep(50);
        if (n % 16 == 0)
            consume_some(n % 64 == 0);
    }
}

/* Sets a child to work, kills it, notes what it told. */
static void run_child(uint32_t from, useconds_t after_us, uint32_t *acked, uint32_t *committed)
{
    struct told t;
    bool started = false;
    struct writer *w = writer_order(from, UINT32_MAX);
    while (read(w->told, &t, sizeof(t)) == (ssize_t)sizeof(t)) {
        if (!started) {
            usleep(after_us);
            kill(w->pid, SIGKILL);
        }
        started = true;
        if (t.kind == 0)
            *acked = t.n + 1;
        else
            *committed = t.n;
    }
    writer_end(w);
    cr_assert(started, "the child did nothing");
}

/* Reads from the cursor to the end; returns the number after the last event. */
static uint32_t read_all(uint32_t committed)
{
    struct bf_log_record records[256];
    uint32_t next = UINT32_MAX;
    for (;;) {
        int n = bf_log_poll(logp, records, 256, 0);
        cr_assert(n >= 0);
        if (next == UINT32_MAX) {
            /* a commit may have been made and not told yet, never the other way round */
            cr_assert_geq(assigned_at, committed);
            next = (uint32_t)assigned_at;
        }
        if (n == 0)
            return next;
        for (int i = 0; i < n; i++, next++) {
            uint32_t number = (uint32_t)strtoul(records[i].body.at, NULL, 10);
            cr_assert_eq(number, next, "%u where %u is due", number, next);
            cr_assert_eq(records[i].offset, number, "offset and number part");
        }
        bf_log_free_records(logp, records, n);
    }
}

Test(log_crash, killed_at_random)
{
    uint32_t next = 0, committed = 0;
    unsigned seed = (unsigned)getpid();
    tmp_dir_make(dir, sizeof(dir));
    writers_start(append_for_ever);
    for (int round = 0; round < 10; round++) {
        uint32_t acked = next;
        run_child(next, 1000 + (useconds_t)rand_r(&seed) % 80000, &acked, &committed);
        log_open();
        next = read_all(committed); /* the next child goes on there: its numbers are its offsets */
        cr_assert_geq(next, acked, "%u acknowledged, %u read", acked, next);
        committed = (uint32_t)assigned_at;
        log_close();
    }
    tmp_dir_remove(dir);
}
