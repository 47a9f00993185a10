/* Load client, the parent's side: see pf_load.h. */
#include "pf_load.h"

#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "pf_load_shared.h"
#include "pf_proc.h"
#include "pf_report.h"

#define POLL_NS 1000000L

void pf_pin(int core)
{
    cpu_set_t set;
    if (core < 0)
        return;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

/* As many descriptors as the hard limit allows; children inherit it. */
static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static void child_enter(struct pf_load *load, uint32_t process)
{
    uint32_t first = process * load->process_connections;
    uint32_t left = load->spec.connections - first;
    uint32_t count = left < load->process_connections ? left : load->process_connections;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGINT, SIG_IGN); /* the parent ends us */
    pf_pin(load->spec.core);
    if (load->spec.realtime) {
        struct sched_param param = {.sched_priority = 10};
        if (sched_setscheduler(0, SCHED_FIFO, &param) != 0)
            pf_say("no real-time priority: latencies include the client's own waiting");
    }
    pf_load_child(load, process, first, count);
}

struct pf_load *pf_load_start(const struct pf_load_spec *spec)
{
    static uint32_t instances;
    struct pf_load *load = calloc(1, sizeof(*load));
    if (!load)
        pf_die("out of memory");
    load->spec = *spec;
    load->instance = instances++ % 256;
    raise_descriptors();
    load->process_connections =
        spec->process_connections ? spec->process_connections : PF_LOAD_PROCESS_CONNECTIONS;
    load->process_count =
        (spec->connections + load->process_connections - 1) / load->process_connections;
    if (load->process_connections > PF_LOAD_PROCESS_CONNECTIONS ||
        load->process_count > PF_LOAD_PROCESSES_MAX)
        pf_die("%u connections need more than %u processes", spec->connections,
               PF_LOAD_PROCESSES_MAX);
    load->shared = mmap(NULL, sizeof(*load->shared), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (load->shared == MAP_FAILED)
        pf_die("out of memory");
    for (uint32_t i = 0; i < load->process_count; i++) {
        load->pids[i] = fork();
        if (load->pids[i] < 0)
            pf_die("fork failed");
        if (load->pids[i] == 0)
            child_enter(load, i);
    }
    return load;
}

static uint64_t get(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

struct pf_load_totals pf_load_totals(const struct pf_load *load)
{
    struct pf_load_totals t = {.round_first_ns = UINT64_MAX};
    uint32_t round = atomic_load_explicit(&load->shared->round, memory_order_relaxed);
    for (uint32_t i = 0; i < load->process_count; i++) {
        const struct pf_load_counters *c = &load->shared->counters[i];
        t.open += get(&c->open);
        t.failed += get(&c->failed);
        t.dropped += get(&c->dropped);
        t.frames += get(&c->frames);
        t.bytes += get(&c->bytes);
        t.pings += get(&c->pings);
        t.pongs += get(&c->pongs);
        t.bad += get(&c->bad);
        t.left += get(&c->left);
        t.goaways += get(&c->goaways);
        t.returned += get(&c->returned);
        uint64_t opened = get(&c->last_open_ns);
        t.last_open_ns = opened > t.last_open_ns ? opened : t.last_open_ns;
        /* acquire: the round_ counters are reset before the child names the round */
        if (atomic_load_explicit(&c->round_seen, memory_order_acquire) != round)
            continue;
        t.round_frames += get(&c->round_frames);
        uint64_t first = get(&c->round_first_ns), last = get(&c->round_last_ns);
        t.round_first_ns = first && first < t.round_first_ns ? first : t.round_first_ns;
        t.round_last_ns = last > t.round_last_ns ? last : t.round_last_ns;
    }
    return t;
}

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
}

bool pf_load_wait_open(const struct pf_load *load, double seconds)
{
    uint64_t deadline = bf_mono_ns() + (uint64_t)(seconds * 1e9);
    for (;;) {
        struct pf_load_totals t = pf_load_totals(load);
        if (t.failed == 0 && t.open == load->spec.connections)
            return true;
        if (t.failed > 0 || bf_mono_ns() > deadline) {
            pf_say("%lu of %u connections open, %lu failed", t.open, load->spec.connections,
                   t.failed);
            return false;
        }
        pause_briefly();
    }
}

void pf_load_churn(struct pf_load *load, double per_second)
{
    if (!load->spec.comes_back)
        pf_die("these clients do not come back");
    /* relaxed: a wish, nothing is published with it */
    atomic_store_explicit(&load->shared->churn_milli,
                          (uint32_t)(per_second * 1000 / load->process_count),
                          memory_order_relaxed);
}

uint64_t pf_load_up(const struct pf_load *load)
{
    struct pf_load_totals t = pf_load_totals(load);
    uint64_t down = t.dropped + t.left;
    return t.open > down ? t.open - down : 0; /* read one after the other: never below nothing */
}

uint64_t pf_load_round_begin(struct pf_load *load, const char *marker, size_t len)
{
    struct pf_load_shared *shared = load->shared;
    if (len > sizeof(shared->marker))
        pf_die("marker of %zu bytes", len);
    pf_load_latency_reset(load);
    shared->marker_len = (uint32_t)len;
    memcpy(shared->marker, marker, len);
    shared->trigger_ns = bf_mono_ns();
    /* release: a child that sees the id sees marker and trigger */
    atomic_fetch_add_explicit(&shared->round, 1, memory_order_release);
    return shared->trigger_ns;
}

bool pf_load_round_wait(const struct pf_load *load, uint64_t expected, double seconds,
                        struct pf_round *ret)
{
    static struct bf_hist merged;
    uint64_t bad_before = pf_load_totals(load).bad;
    uint64_t deadline = bf_mono_ns() + (uint64_t)(seconds * 1e9);
    struct pf_load_totals t;
    do {
        pause_briefly();
        t = pf_load_totals(load);
    } while (t.round_frames < expected && bf_mono_ns() < deadline);
    uint64_t trigger = load->shared->trigger_ns;
    pf_load_latency(load, &merged);
    *ret = (struct pf_round){
        .frames = t.round_frames,
        .bad = t.bad - bad_before,
        .seconds = t.round_frames ? (double)(t.round_last_ns - trigger) / 1e9 : NAN,
        .first_ms = t.round_frames ? (double)(t.round_first_ns - trigger) / 1e6 : NAN,
        .p50_ms = (double)bf_hist_quantile(&merged, 0.50) / 1e6,
        .p99_ms = (double)bf_hist_quantile(&merged, 0.99) / 1e6,
        .max_ms = (double)get(&merged.max) / 1e6,
    };
    return t.round_frames == expected && ret->bad == 0;
}

void pf_hist_merge(struct bf_hist *into, const struct bf_hist *from)
{
    bf_hist_bump(&into->count, get(&from->count));
    bf_hist_bump(&into->sum, get(&from->sum));
    if (get(&from->max) > get(&into->max))
        atomic_store_explicit(&into->max, get(&from->max), memory_order_relaxed);
    for (unsigned i = 0; i < BF_HIST_BUCKETS; i++)
        bf_hist_bump(&into->buckets[i], get(&from->buckets[i]));
}

void pf_load_latency(const struct pf_load *load, struct bf_hist *ret)
{
    memset(ret, 0, sizeof(*ret));
    for (uint32_t i = 0; i < load->process_count; i++)
        pf_hist_merge(ret, &load->shared->counters[i].latency_ns);
}

void pf_load_latency_reset(struct pf_load *load)
{
    for (uint32_t i = 0; i < load->process_count; i++)
        memset(&load->shared->counters[i].latency_ns, 0, sizeof(struct bf_hist));
}

uint64_t pf_load_cpu_ns(const struct pf_load *load)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < load->process_count; i++)
        total += pf_proc_cpu_ns(load->pids[i]);
    return total;
}

void pf_load_stop(struct pf_load *load)
{
    atomic_store_explicit(&load->shared->stop, 1, memory_order_release);
    for (uint32_t i = 0; i < load->process_count; i++)
        waitpid(load->pids[i], NULL, 0);
    munmap(load->shared, sizeof(*load->shared));
    free(load);
}
