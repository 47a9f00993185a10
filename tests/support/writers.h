/*
 * Children that write until they are killed, for tests of what survives. All of them are forked
 * before the test opens a store: a process with RocksDB's threads must not fork, its child might
 * find their locks taken for ever. Each waits for its order. One thread.
 */
#pragma once

#include <criterion/criterion.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#define WRITERS 10

struct writer_order {
    uint32_t from, limit;
};

struct writer {
    pid_t pid;
    int orders; /* ours to write one struct writer_order */
    int told;   /* ours to read what it tells */
};

static struct writer writers[WRITERS];
static uint32_t writers_used;

/* What a writer does with its order; tells over |told|. Never returns. */
typedef void (*writer_fn)(struct writer_order order, int told);

static inline _Noreturn void writer_main(writer_fn write_rows, int orders, int told)
{
    struct writer_order order;
    for (uint32_t i = 0; i < writers_used; i++) { /* its brothers' ends */
        close(writers[i].orders);
        close(writers[i].told);
    }
    if (read(orders, &order, sizeof(order)) == (ssize_t)sizeof(order))
        write_rows(order, told);
    _exit(0); /* not needed */
}

static inline void writers_start(writer_fn write_rows)
{
    for (writers_used = 0; writers_used < WRITERS; writers_used++) {
        struct writer *w = &writers[writers_used];
        int orders[2], told[2];
        cr_assert_eq(pipe(orders), 0);
        cr_assert_eq(pipe(told), 0);
        w->pid = fork();
        cr_assert(w->pid >= 0);
        if (w->pid == 0) {
            close(orders[1]);
            close(told[0]);
            writer_main(write_rows, orders[0], told[1]);
        }
        close(orders[0]);
        close(told[1]);
        w->orders = orders[1];
        w->told = told[0];
    }
    writers_used = 0;
}

/* Sets the next writer to work. Read |told| to its end, then writer_end. */
static inline struct writer *writer_order(uint32_t from, uint32_t limit)
{
    const struct writer_order order = {from, limit};
    cr_assert(writers_used < WRITERS);
    struct writer *w = &writers[writers_used++];
    cr_assert_eq(write(w->orders, &order, sizeof(order)), (ssize_t)sizeof(order));
    close(w->orders);
    return w;
}

static inline void writer_end(struct writer *w)
{
    close(w->told);
    waitpid(w->pid, NULL, 0);
}

/* Those that had nothing to do. */
static inline void writers_stop(void)
{
    for (; writers_used < WRITERS; writers_used++) {
        close(writers[writers_used].orders);
        writer_end(&writers[writers_used]);
    }
}
