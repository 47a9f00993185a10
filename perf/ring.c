/*
 * Targeted commands through shared memory, route look-up included (P10): for users in uniform
 * random order, slot checked, key -> connection -> reference queued under the sequence rule,
 * reference dropped, block returned to its producer. The real commands, user index, channel and
 * holds of the dataplane, and the real publisher of the control plane, over a region laid out by
 * bf_region_create.
 *
 * Producer (core 1) fills the ring of the default configuration, then the worker (core 0) drains
 * it, in turns: the figure is the worker's CPU time alone, and the slots come out of the other
 * core's cache, as in service. The second figure, with_batch, also builds the send of each
 * connection (mask test, frame length) as a turn would. queue_ns and unqueue_ns are a command's
 * share of the two halves.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "belfry/base/time.h"
#include "belfry/base/ws_frame.h"
#include "belfry/conf/conf_load.h"
#include "belfry/plane.h"
#include "channel/channel.h"
#include "commands/commands.h"
#include "pf_args.h"
#include "pf_floor.h"
#include "pf_load.h"
#include "pf_report.h"
#include "memory/arena.h"
#include "memory/memory_plan.h"
#include "publish/publisher.h"

#define WORKER_CORE   0
#define PRODUCER_CORE 1
/* Fillings of one sample: some milliseconds. */
#define FILLS       16u
#define SLOTS_RING  18000u
#define P10_M       20.0
#define BATCH_BYTES 16384u
#define HUGE_BYTES  (UINT64_C(2) << 20)

struct options {
    uint64_t users, payload, rounds;
};

struct bench {
    const struct options *o;
    struct bf_region *region;
    struct bf_worker_core core;
    struct bf_commands commands;
    struct bf_arena arena;
    struct bf_publisher publisher;
    struct bf_user_key *keys; /* by user */
    uint64_t *seqs;
    uint64_t random;
    uint32_t fill;         /* commands of one filling: all that the default ring holds */
    _Atomic uint32_t turn; /* odd: the ring is full; even: it is drained. Release and acquire */
    bool huge;
    struct bf_hist queue_ns; /* wall clock of a whole turn's commands, samples without batch */
    struct bf_hist unqueue_ns;
};

/* ---- the producer ---- */

static uint64_t random_next(struct bench *b)
{
    b->random ^= b->random << 13;
    b->random ^= b->random >> 7;
    b->random ^= b->random << 17;
    return b->random;
}

static void fill(struct bench *b)
{
    struct bf_publisher *p = &b->publisher;
    bf_publisher_reclaim(p);
    for (uint32_t i = 0; i < b->fill; i++) {
        uint64_t user = random_next(b) % b->o->users;
        struct bf_cmd_frame cmd = {.user = b->keys[user]};
        uint8_t *at = bf_publisher_alloc(
            p, (uint32_t)(b->o->payload + bf_ws_header_bytes(b->o->payload)), &cmd.block);
        if (!at)
            pf_die("no block: the worker did not return one");
        size_t header = bf_ws_header_write(at, BF_WS_TEXT, b->o->payload);
        memset(at + header, 'x', b->o->payload);
        cmd.prev = b->seqs[user];
        cmd.seq = ++b->seqs[user];
        if (!bf_publisher_send(p, 0, BF_LANE_NORMAL, BF_CMD_NOTIFY, &cmd, cmd.block))
            pf_die("ring full after %u", i);
    }
    bf_publisher_flush(p);
}

static void *producer_main(void *arg)
{
    struct bench *b = arg;
    pf_pin(PRODUCER_CORE);
    for (uint32_t round = 0; round < 2 * FILLS * b->o->rounds; round++) {
        while (atomic_load_explicit(&b->turn, memory_order_acquire) != 2 * round)
            __builtin_ia32_pause();
        fill(b);
        atomic_store_explicit(&b->turn, 2 * round + 1, memory_order_release);
    }
    return NULL;
}

/* ---- the worker ---- */

static void unqueue(struct bench *b, bool with_batch)
{
    static uint8_t copies[BATCH_BYTES];
    struct bf_worker_core *core = &b->core;
    for (uint32_t slot; (slot = bf_ready_take(core)) != BF_SLOT_NONE;) {
        if (with_batch) {
            struct bf_send batch = bf_channel_batch(core, slot, copies, sizeof(copies));
            (void)bf_channel_sent(core, slot, batch.len);
        }
        bf_channel_drop(core, slot);
    }
}

/* Drains one filling. Returns CPU nanoseconds of this thread: what else runs on the core is not
 * ours. */
static uint64_t drain(struct bench *b, bool with_batch)
{
    uint32_t taken = 0;
    uint64_t start = bf_clock_ns(CLOCK_THREAD_CPUTIME_ID);
    while (taken < b->fill) {
        uint64_t begin_ns = bf_mono_ns();
        uint32_t n = bf_commands_turn(&b->commands);
        uint64_t queued_ns = bf_mono_ns();
        unqueue(b, with_batch);
        if (n == BF_COMMANDS_PER_TURN && !with_batch) {
            bf_hist_add(&b->queue_ns, queued_ns - begin_ns);
            bf_hist_add(&b->unqueue_ns, bf_mono_ns() - queued_ns);
        }
        (void)bf_holds_flush(&b->core.holds);
        taken += n;
    }
    return bf_clock_ns(CLOCK_THREAD_CPUTIME_ID) - start;
}

/* ---- set-up ---- */

static void *region_memory(struct bench *b, uint64_t bytes)
{
    uint64_t whole = (bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES;
    void *at =
        mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    b->huge = at != MAP_FAILED; /* as EAL maps it in service */
    if (!b->huge)
        at = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        pf_die("no memory for the region");
    return at;
}

static void region_make(struct bench *b)
{
    char err[BF_CONF_ERROR_BYTES_MAX] = "";
    struct bf_conf *conf = NULL;
    if (bf_conf_load(NULL, &conf, err, sizeof(err)) != 0)
        pf_die("%s", err);
    conf->workers = 1;
    conf->shards = 1;
    conf->connections_max = (uint32_t)b->o->users;
    b->fill = conf->command_slots - 1;
    unsigned long bytes = bf_region_bytes(conf);
    int rc = bf_region_create(region_memory(b, bytes), bytes, conf, &b->region);
    if (rc != 0)
        pf_die("region: %s", bf_err_text(rc));
    bf_conf_free(conf);
}

static void *take(struct bench *b, uint64_t count, uint64_t item_bytes)
{
    void *at = bf_arena_take(&b->arena, "bench", count, item_bytes);
    if (!at)
        pf_die("out of memory");
    return at;
}

static void *take_wide(struct bench *b, uint64_t count, uint64_t item_bytes)
{
    void *at = bf_arena_take_wide(&b->arena, "bench", count, item_bytes);
    if (!at)
        pf_die("out of memory");
    return at;
}

static void core_make(struct bench *b)
{
    struct bf_worker_core *core = &b->core;
    uint32_t rings = ((uint32_t)b->o->users + SLOTS_RING - 1) / SLOTS_RING;
    const struct bf_memory_plan_input in = {.connections = (uint32_t)b->o->users,
                                            .slots = rings * SLOTS_RING,
                                            .blocks = b->region->block_count};
    const struct bf_memory_plan budget = bf_memory_plan_of(&in);
    core->region = b->region;
    core->stats = bf_stats(b->region, 0);
    core->limits.conn_queue_frames = 64;
    core->limits.conn_queue_bytes = 262144;
    core->limits.max_connections = in.connections;
    core->users.entries = take_wide(b, budget.user_entries, sizeof(uint32_t));
    core->users.mask = budget.user_entries - 1;
    core->topics.table = take(b, budget.topics, sizeof(struct bf_topic));
    core->topics.mask = budget.topics - 1;
    core->urgent.slots = take(b, BF_URGENT_MAX, sizeof(uint32_t));
    core->ready = (struct bf_ready){.slots = take(b, in.slots, sizeof(uint32_t)), .cap = in.slots};
    if (bf_arena_slab(&b->arena, "nodes", budget.nodes, sizeof(struct bf_node), &core->nodes) != 0)
        pf_die("out of memory");
    bf_conns_init(&core->conns, take_wide(b, in.slots, sizeof(struct bf_conn_hot)),
                  take(b, in.slots, sizeof(struct bf_conn_cold)), rings, SLOTS_RING,
                  in.connections);
    bf_holds_init(&core->holds, b->region, 0, take(b, in.blocks, sizeof(struct bf_hold)));
    bf_wheel_init(&core->wheel, 0);
    bf_worker_core_open_outbox(core);
    bf_commands_init(&b->commands, core);
}

/* A live connection for every user, its normal lane open. */
static void connect_all(struct bench *b)
{
    struct bf_worker_core *core = &b->core;
    b->keys = calloc(b->o->users, sizeof(*b->keys));
    b->seqs = calloc(b->o->users, sizeof(*b->seqs));
    if (!b->keys || !b->seqs)
        pf_die("out of memory");
    for (uint32_t i = 0; i < b->o->users; i++) {
        char user[32];
        size_t len = (size_t)snprintf(user, sizeof(user), "user-%u", i);
        uint32_t slot = bf_conn_take(&core->conns, i / SLOTS_RING);
        struct bf_conn_hot *hot = bf_hot(core, slot);
        b->keys[i] = bf_user_key_of(b->region->user_secret, "", 0, user, len);
        hot->user = b->keys[i];
        hot->state = BF_CONN_LIVE;
        hot->flags |= BF_CF_LINKED;
        bf_users_link(&core->users, &core->conns, slot);
        bf_channel_open(core, slot, BF_LANE_NORMAL, 0);
    }
}

static void bench_make(struct bench *b)
{
    region_make(b);
    core_make(b);
    connect_all(b);
    bf_publisher_attach(&b->publisher, b->region, 0, 1);
    if (bf_publisher_adopt_blocks(&b->publisher) < 0)
        pf_die("out of memory");
}

/* ---- */

static void check(struct bench *b, uint64_t commands)
{
    const struct bf_worker_stats *stats = b->core.stats;
    if (bf_metric_get(stats, BF_M_frames_queued) != commands)
        pf_die("%" PRIu64 " of %" PRIu64 " frames queued", bf_metric_get(stats, BF_M_frames_queued),
               commands);
    bf_publisher_reclaim(&b->publisher);
    if (bf_publisher_free_total(&b->publisher) != b->region->blocks_per_producer)
        pf_die("%" PRIu64 " of %" PRIu64 " blocks came back",
               bf_publisher_free_total(&b->publisher), b->region->blocks_per_producer);
}

int main(int argc, char **argv)
{
    static struct bench b;
    static struct options o = {.users = 200000, .payload = 64, .rounds = 40};
    double plain[PF_ROUNDS_MAX], batch[PF_ROUNDS_MAX];
    pthread_t producer;
    const struct pf_option table[] = {
        {"--connections", &o.users, NULL, NULL, "users, a connection each"},
        {"--payload", &o.payload, NULL, NULL, "bytes of a frame"},
        {"--rounds", &o.rounds, NULL, NULL, "samples of 16 fillings each"},
        {0},
    };
    pf_args(argc, argv, table);
    if (o.users == 0 || o.payload > 200 || o.rounds < 2 || o.rounds > PF_ROUNDS_MAX)
        pf_die("--payload at most 200, --rounds 2 to %u", PF_ROUNDS_MAX);
    b.o = &o;
    b.random = 0x9e3779b97f4a7c15u;
    struct pf_report *report = pf_report_create("ring");
    bench_make(&b);
    pf_pin(WORKER_CORE);
    if (pthread_create(&producer, NULL, producer_main, &b) != 0)
        pf_die("no thread");
    uint64_t ns = 0;
    for (uint32_t round = 0; round < 2 * FILLS * o.rounds; round++) {
        uint32_t sample = round / FILLS; /* even ones plain, odd ones with batch */
        while (atomic_load_explicit(&b.turn, memory_order_acquire) != 2 * round + 1)
            __builtin_ia32_pause();
        ns += drain(&b, sample % 2);
        atomic_store_explicit(&b.turn, 2 * round + 2, memory_order_release);
        if (round % FILLS != FILLS - 1)
            continue;
        double *list = sample % 2 ? batch : plain;
        list[sample / 2] = FILLS * b.fill * 1e3 / (double)ns;
        ns = 0;
    }
    pthread_join(producer, NULL);
    check(&b, 2 * FILLS * o.rounds * b.fill);
    pf_report_u64(report, "N", o.users);
    pf_report_u64(report, "payload", o.payload);
    pf_report_u64(report, "commands", FILLS * o.rounds * b.fill);
    pf_report_bool(report, "hugepages", b.huge);
    pf_report_list(report, "m_per_s", plain, (uint32_t)o.rounds);
    pf_report_double(report, "with_batch_m_per_s", pf_median(batch, (uint32_t)o.rounds));
    pf_report_double(report, "queue_ns_p50",
                     (double)bf_hist_quantile(&b.queue_ns, 0.5) / BF_COMMANDS_PER_TURN);
    pf_report_double(report, "unqueue_ns_p50",
                     (double)bf_hist_quantile(&b.unqueue_ns, 0.5) / BF_COMMANDS_PER_TURN);
    /* at the clock that the core gave at the end: what compares with a faster one */
    pf_report_double(report, "cycles_per_command",
                     pf_floor_core_ghz() * 1e3 / pf_median(plain, (uint32_t)o.rounds));
    pf_report_bar(report, "P10", pf_median(plain, (uint32_t)o.rounds), "M/s", PF_AT_LEAST, P10_M);
    return pf_report_print(report);
}
