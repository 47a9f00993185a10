/* See pf_floor.h. */
#include "pf_floor.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "pf_load.h"
#include "pf_report.h"

/* A second of each: 1,000 samples a call, ten of them beyond p99. */
#define SAMPLES    1000u
#define EVERY_NS   1000000
#define SYNC_FILE  "/tmp/belfry-floor-XXXXXX" /* where pf_node puts a node's state */
#define SYNC_BYTES 4096u

#define GHZ_SAMPLES 5u
#define GHZ_ADDITIONS                                                                              \
    4000000u /* 1-4 ms: what interrupts it is in it, as in everything measured                     \
              */

static void pause_ns(long ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

/* ---- waking ---- */

struct sleeper {
    struct bf_hist *ns;
    int fd;
    /* by ring: a wake that comes late is not measured from a later one. Set before the write to
     * |fd|, whose read orders it: relaxed */
    _Atomic uint64_t rung_ns[SAMPLES];
};

static void *sleeper_main(void *arg)
{
    struct sleeper *s = arg;
    uint64_t value;
    pf_pin(0);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        while (read(s->fd, &value, sizeof(value)) < 0 && errno == EINTR)
            ;
        bf_hist_add(s->ns,
                    bf_mono_ns() - atomic_load_explicit(&s->rung_ns[i], memory_order_relaxed));
    }
    return NULL;
}

/* On a thread of its own, so that the caller's pinning stays what it was. */
static void *ringer_main(void *arg)
{
    struct sleeper *s = arg;
    const uint64_t one = 1;
    pf_pin(1);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        pause_ns(EVERY_NS);
        atomic_store_explicit(&s->rung_ns[i], bf_mono_ns(), memory_order_relaxed);
        if (write(s->fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
            pf_die("floor: eventfd: %s", strerror(errno));
    }
    return NULL;
}

/* An ordinary thread, also where the benchmark itself has raised its priority. */
static void start(pthread_t *ret, void *(*main)(void *), void *arg)
{
    pthread_attr_t plain;
    if (pthread_attr_init(&plain) != 0 ||
        pthread_attr_setinheritsched(&plain, PTHREAD_EXPLICIT_SCHED) != 0 ||
        pthread_create(ret, &plain, main, arg) != 0)
        pf_die("floor: no thread");
    pthread_attr_destroy(&plain);
}

void pf_floor_wake(struct pf_floor *floor)
{
    /* a semaphore: a wake that comes late is not lost in the next */
    struct sleeper s = {.ns = &floor->wake_ns, .fd = eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE)};
    pthread_t sleeper, ringer;
    if (s.fd < 0)
        pf_die("floor: eventfd: %s", strerror(errno));
    start(&sleeper, sleeper_main, &s);
    start(&ringer, ringer_main, &s);
    pthread_join(ringer, NULL);
    pthread_join(sleeper, NULL);
    close(s.fd);
}

/* ---- the disk ---- */

void pf_floor_sync(struct pf_floor *floor)
{
    static const char block[SYNC_BYTES] = "floor";
    char path[] = SYNC_FILE;
    int fd = mkstemp(path);
    if (fd < 0)
        pf_die("floor: %s: %s", path, strerror(errno));
    (void)unlink(path);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        uint64_t begin = bf_mono_ns();
        if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block) || fdatasync(fd) != 0)
            pf_die("floor: %s: %s", path, strerror(errno));
        bf_hist_add(&floor->sync_ns, bf_mono_ns() - begin);
        pause_ns(EVERY_NS);
    }
    close(fd);
}

/* ---- the core ---- */

static double additions_per_ns(void)
{
    uint64_t x = 0;
    uint64_t begin = bf_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    for (uint32_t i = 0; i < GHZ_ADDITIONS; i++)
        __asm__ volatile("add $1, %0" : "+r"(x));
    return (double)x / (double)(bf_clock_ns(CLOCK_THREAD_CPUTIME_ID) - begin);
}

double pf_floor_core_ghz(void)
{
    double samples[GHZ_SAMPLES];
    for (uint32_t i = 0; i < GHZ_SAMPLES; i++)
        samples[i] = additions_per_ns();
    return pf_median(samples, GHZ_SAMPLES);
}

/* ---- */

static void report_tail(struct pf_report *report, const char *p50_name, const char *p99_name,
                        const struct bf_hist *h)
{
    if (h->count == 0)
        return;
    pf_report_double(report, p50_name, (double)bf_hist_quantile(h, 0.5) / 1e6);
    pf_report_double(report, p99_name, (double)bf_hist_quantile(h, 0.99) / 1e6);
}

void pf_floor_report(const struct pf_floor *floor, struct pf_report *report)
{
    report_tail(report, "floor_wake_p50_ms", "floor_wake_p99_ms", &floor->wake_ns);
    report_tail(report, "floor_sync_p50_ms", "floor_sync_p99_ms", &floor->sync_ns);
}
