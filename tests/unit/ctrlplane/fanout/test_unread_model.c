/*
 * Unread counts beside a plain model: random arrivals, marks by the API and by sockets, read-all,
 * expiry on a clock of the test's own, trims, clean restarts and kills of the control process, with
 * workers that stand still at times. After each step the count of the list, of the state and of
 * each socket must be the number of unread items that the list shows. BELFRY_SEED=N          the
 * first seed (printed at the start, and with each failure) BELFRY_UNREAD_SEEDS=N  seeds,
 * BELFRY_UNREAD_OPS=N operations each; full size: 250 and 500 link: both planes
 */
#include "../store/store_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/time.h"
#include "belfry/conf/conf_load.h"
#include "fake_worker.h"
#include "fanout/core_state.h"
#include "pipeline/open_event.h"
#include "receipts/receipts.h"
#include "stats/metrics.h"
#include "store/rocks/lineage.h"

#define USERS       3u
#define ITEMS_MAX   4096u
#define INBOX_MAX   60u
#define START_MS    UINT64_C(1790000000000)
#define WAIT_MS     5000u
#define STALL_MARKS 1500u

/* ---- a clock of the test's own: RocksDB and the core see it, sleeping and waiting do not ---- */

static _Atomic uint64_t clock_ms; /* 0: the real one; Criterion's runner needs it */

int clock_gettime(clockid_t clock, struct timespec *ts)
{
    uint64_t now = atomic_load(&clock_ms);
    if (clock != CLOCK_REALTIME || now == 0)
        return (int)syscall(SYS_clock_gettime, clock, ts);
    *ts =
        (struct timespec){.tv_sec = (time_t)(now / 1000), .tv_nsec = (long)(now % 1000) * 1000000};
    return 0;
}

/* What a stop of the receipts leaves on purpose (receipts.c): the process ends soon after it. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:bf_receipts_start\n";
}

/* ---- the model ---- */

struct model_item {
    struct bf_id id, event_id;
    uint64_t created_ms, expires_ms;
    bool is_read, is_archived, is_deleted, is_seen, is_trimmed;
};

struct model_user {
    char name[8];
    uint32_t count;
    struct model_item items[ITEMS_MAX];
};

static struct model_user model[USERS];
static uint64_t seed, rng;
static uint32_t op_number;
static const char *op_name = "start";

#define CHECK(cond, ...)                                                                           \
    do {                                                                                           \
        char check_text[300];                                                                      \
        snprintf(check_text, sizeof(check_text), __VA_ARGS__);                                     \
        cr_assert(cond, "BELFRY_SEED=%llu operation %u (%s): %s", (unsigned long long)seed,        \
                  op_number, op_name, check_text);                                                 \
    } while (0)

static uint32_t dice(uint32_t sides)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (uint32_t)((rng >> 32) % sides);
}

static bool is_there(const struct model_item *item)
{
    return !item->is_deleted && !item->is_trimmed && item->expires_ms > atomic_load(&clock_ms);
}

static bool is_unread(const struct model_item *item)
{
    return is_there(item) && !item->is_read && !item->is_archived;
}

static uint32_t unread_of(const struct model_user *u)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < u->count; i++)
        n += is_unread(&u->items[i]);
    return n;
}

/* ---- the control process ---- */

static struct bf_conf *conf;
static struct bf_core *core;
static struct bf_blog *blog;
static struct bf_receipts *receipts;
static uint32_t generation;

static void on_broadcast(void *arg, uint64_t bseq)
{
    (void)arg, (void)bseq;
}

static void core_start(void)
{
    char err[256] = "";
    uint64_t b_min;
    generation++;
    cr_assert_eq(bf_core_create(conf, store, NULL, &core), 0);
    cr_assert_eq(bf_blog_open(conf, store, on_broadcast, NULL, &blog, err, sizeof(err)), 0);
    bf_core_set_log(core, NULL, blog, NULL);
    cr_assert_eq(bf_core_attach(core, fake.region, generation), 0);
    cr_assert_eq(bf_receipts_start(core, fake.region, &receipts), 0);
    fake_census(generation);
    cr_assert(bf_receipts_wait_census(receipts, generation, WAIT_MS));
    cr_assert_eq(bf_core_census_complete(core, &b_min), 0);
}

static void core_stop(void)
{
    bf_receipts_drain_and_stop(receipts);
    bf_core_detach(core);
    bf_blog_close(blog);
    bf_core_destroy(core);
}

static struct bf_uid uid_of(const struct model_user *u)
{
    return uid("", u->name);
}

/* ---- waiting ---- */

static bool are_sockets_right(char why[200])
{
    for (uint32_t i = 0; i < FAKE_SOCKETS; i++) {
        const struct fake_socket *s = &fake.sockets[i];
        uint32_t want = s->conn ? unread_of(&model[s->user]) : 0;
        if (s->conn && (!s->is_welcomed || (!s->is_stale && s->unread != want))) {
            snprintf(why, 200, "socket %u of %s says %u unread, the model %u", i,
                     model[s->user].name, s->unread, want);
            return false;
        }
    }
    return true;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
}

static int count_telling(struct bf_shard *shard, void *arg)
{
    for (uint32_t i = 0; i < USERS; i++) {
        const struct bf_user *user = bf_user_find(&shard->users, uid_of(&model[i]));
        *(uint32_t *)arg += user && user->conns && user->state.is_telling;
    }
    return 0;
}

/* Whether the sweep has something to tell yet. */
static bool is_telling(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < core->shard_count; i++)
        cr_assert_eq(bf_core_run_on(core, i, count_telling, &count), 0);
    return count > 0;
}

/* Until each socket's count is the model's. What is told by a sweep takes a moment. */
static void await_sockets(void)
{
    char why[200] = "still telling";
    uint64_t until = bf_mono_ms() + WAIT_MS;
    do {
        (void)fake_turn();
        if (!is_telling() && fake_turn() == 0 && are_sockets_right(why))
            return;
        nap();
    } while (bf_mono_ms() < until);
    CHECK(false, "%s", why);
}

/* ---- what the list shows ---- */

struct shown {
    struct model_user *user;
    uint32_t unread, items;
    uint64_t oldest_ms;
    bool is_seen[ITEMS_MAX];
};

static int note_shown(void *arg, const struct bf_item *item)
{
    struct shown *s = arg;
    uint32_t i = 0;
    while (i < s->user->count && !bf_id_is_equal(&s->user->items[i].id, &item->id))
        i++;
    CHECK(i < s->user->count, "%s: the list shows an item that never arrived", s->user->name);
    const struct model_item *m = &s->user->items[i];
    CHECK(is_there(m), "%s: the list shows an item that is gone", s->user->name);
    CHECK(m->is_read == ((item->flags & BF_ITEM_READ) != 0) &&
              m->is_archived == ((item->flags & BF_ITEM_ARCHIVED) != 0) &&
              m->is_seen == ((item->flags & BF_ITEM_SEEN) != 0),
          "%s: item %u has flags %u", s->user->name, i, item->flags);
    s->is_seen[i] = true;
    s->items++;
    s->oldest_ms = item->created_ms < s->oldest_ms ? item->created_ms : s->oldest_ms;
    if (!(item->flags & (BF_ITEM_READ | BF_ITEM_ARCHIVED)))
        s->unread++;
    return 0;
}

static int count_one(void *arg, const struct bf_item *item)
{
    if (!(item->flags & BF_ITEM_ARCHIVED)) /* as the API does */
        ++*(uint32_t *)arg;
    return 0;
}

/* What the list no longer shows was trimmed, if the inbox was full, and it was the oldest. */
static void learn_trims(struct model_user *u, const struct shown *s)
{
    for (uint32_t i = 0; i < u->count; i++) {
        struct model_item *m = &u->items[i];
        if (!is_there(m) || s->is_seen[i])
            continue;
        CHECK(u->count > INBOX_MAX && s->items >= INBOX_MAX - INBOX_MAX / 10 - USERS,
              "%s: item %u is missing, %u are there", u->name, i, s->items);
        CHECK(m->created_ms <= s->oldest_ms, "%s: a newer item than the oldest was trimmed",
              u->name);
        m->is_trimmed = true;
    }
}

static uint32_t listed_unread(struct model_user *u, bool unread_only, bf_item_fn each, void *arg)
{
    struct bf_inbox_cursor cursor = {.before = {UINT64_MAX, UINT64_MAX, UINT64_MAX}};
    bool more = true;
    while (more)
        cr_assert_eq(bf_store_list_inbox(store, uid_of(u), &cursor, unread_only, 50, bf_wall_ms(),
                                         each, arg, &more),
                     0);
    return 0;
}

static void check_user(struct model_user *u)
{
    static struct shown s;
    struct bf_user_state state = {0};
    uint32_t only = 0;
    s = (struct shown){.user = u, .oldest_ms = UINT64_MAX};
    CHECK(bf_core_state(core, uid_of(u), &state) == 0, "%s has no state", u->name);
    listed_unread(u, false, note_shown, &s);
    learn_trims(u, &s);
    listed_unread(u, true, count_one, &only);
    CHECK(s.unread == unread_of(u), "%s: the list shows %u unread, the model %u", u->name, s.unread,
          unread_of(u));
    CHECK(only == s.unread, "%s: unread_only shows %u, the list %u", u->name, only, s.unread);
    CHECK(state.unread == s.unread, "%s: unread_count is %u, the list shows %u", u->name,
          state.unread, s.unread);
}

/* ---- operations ---- */

static _Atomic uint32_t settled;

static void on_settled(struct bf_open_event *open)
{
    atomic_fetch_add(&settled, 1);
    bf_open_event_free(open);
}

static void arrive(struct model_user *u, uint32_t lane)
{
    static uint64_t number;
    static const char *const lanes[] = {"high", "normal", "low"};
    char json[300], ttl[32] = "";
    struct bf_event *event;
    struct bf_problem problem;
    uint64_t now = bf_wall_ms();
    struct bf_event_meta meta = {.source = BF_SOURCE_HTTP, .accepted_ms = now};
    uint32_t seconds = dice(3) == 0 ? 1 + dice(20) : 0;
    if (u->count == ITEMS_MAX)
        return;
    if (seconds)
        snprintf(ttl, sizeof(ttl), ",\"ttl\":%u", seconds);
    snprintf(
        json, sizeof(json),
        "{\"id\":\"%llu\",\"type\":\"t\",\"title\":\"x\",\"user_id\":\"%s\",\"priority\":\"%s\"%s}",
        (unsigned long long)++number, u->name, lanes[lane], ttl);
    cr_assert_eq(bf_event_parse(text(json), &meta, &event, &problem), 0, "%s", problem.detail);
    struct model_item *m = &u->items[u->count++];
    *m = (struct model_item){.event_id = event->id, .created_ms = now};
    m->expires_ms = seconds ? now + seconds * 1000u : UINT64_MAX;
    bf_message_id(&event->id, text(""), text(u->name), BF_CHANNEL_INAPP, (struct bf_bytes){0}, 0,
                  &m->id);
    struct bf_open_event *open = bf_open_event_create(event, 1, text(""), text(""));
    open->settled = on_settled;
    open->write_row = true;
    bf_open_event_leg(open, 0)->uid = uid_of(u);
    uint32_t before = atomic_load(&settled);
    bf_open_event_post(core, open, 1);
    while (atomic_load(&settled) == before)
        sched_yield();
}

/* Lanes overtake each other and the state frames, which travel in the normal one: after a mixture a
 * socket's own addition means nothing until it is told again. */
static void do_arrive(struct model_user *u)
{
    uint32_t n = dice(12) == 0 ? 1 + dice(30) : 1;
    bool is_mixed = dice(3) == 0;
    for (uint32_t i = 0; i < n; i++)
        arrive(u, is_mixed ? dice(BF_LANE_COUNT) : BF_LANE_NORMAL);
    (void)fake_turn();
    for (uint32_t i = 0; i < FAKE_SOCKETS && is_mixed; i++)
        if (fake.sockets[i].conn && fake.sockets[i].user == (uint32_t)(u - model))
            fake.sockets[i].is_stale = true;
}

/* Whether the mark changes the item; makes it in the model. */
static bool model_mark(struct model_item *m, enum bf_mark mark)
{
    struct model_item was = *m;
    m->is_read = mark == BF_MARK_READ || (m->is_read && mark != BF_MARK_UNREAD);
    m->is_seen = m->is_seen || mark == BF_MARK_READ || mark == BF_MARK_SEEN;
    m->is_archived = mark == BF_MARK_ARCHIVED || (m->is_archived && mark != BF_MARK_UNARCHIVED);
    m->is_deleted = m->is_deleted || mark == BF_MARK_DELETED;
    return was.is_read != m->is_read || was.is_seen != m->is_seen ||
           was.is_archived != m->is_archived || was.is_deleted != m->is_deleted;
}

static uint32_t states_of(const struct model_user *u)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < FAKE_SOCKETS; i++)
        if (fake.sockets[i].conn && fake.sockets[i].user == (uint32_t)(u - model))
            sum += fake.sockets[i].states;
    return sum;
}

static uint32_t sockets_of(const struct model_user *u)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < FAKE_SOCKETS; i++)
        n += fake.sockets[i].conn && fake.sockets[i].user == (uint32_t)(u - model);
    return n;
}

/* An item that is mostly there; NULL: none ever was. */
static struct model_item *pick(struct model_user *u)
{
    struct model_item *m = NULL;
    for (uint32_t i = 0; i < 4 && u->count > 0 && (!m || !is_there(m)); i++)
        m = &u->items[dice(2) ? dice(u->count)
                              : u->count - 1 - dice(u->count < 20 ? u->count : 20)];
    return m;
}

/* A mark over the API: what it answers, what it changes and whom it tells. */
static void api_mark(struct model_user *u, bool is_stalled)
{
    struct model_item nobody = {.is_deleted = true};
    struct model_item *m = pick(u);
    enum bf_mark mark = (enum bf_mark)dice(dice(4) ? 5 : 6);
    uint32_t unread = 0, before = states_of(u);
    if (!m || dice(20) == 0) {
        m = &nobody;
        m->id = id_of(UINT64_C(1) << 40 | dice(1000));
    }
    bool was_there = is_there(m);
    int rc = bf_core_mark(core, uid_of(u), dice(2) || m == &nobody ? &m->id : &m->event_id, mark,
                          &unread);
    CHECK(rc == (was_there ? 0 : BF_ERR_NOT_FOUND), "mark %d answers %d, is there: %d", mark, rc,
          was_there);
    bool is_changed = was_there && model_mark(m, mark);
    CHECK(rc != 0 || unread == unread_of(u), "mark %d says %u unread, the model %u", mark, unread,
          unread_of(u));
    if (is_stalled)
        return;
    (void)fake_turn();
    uint32_t told = states_of(u) - before;
    CHECK(told == (is_changed ? sockets_of(u) : 0), "mark %d told %u sockets of %u, changed: %d",
          mark, told, sockets_of(u), is_changed);
}

static void do_api_mark(struct model_user *u)
{
    api_mark(u, false);
}

static struct fake_socket *any_socket(void)
{
    uint32_t first = dice(FAKE_SOCKETS);
    for (uint32_t i = 0; i < FAKE_SOCKETS; i++)
        if (fake.sockets[(first + i) % FAKE_SOCKETS].conn)
            return &fake.sockets[(first + i) % FAKE_SOCKETS];
    return NULL;
}

static void do_socket_mark(struct model_user *unused)
{
    static const enum bf_mark marks[] = {BF_MARK_READ, BF_MARK_SEEN, BF_MARK_ARCHIVED};
    struct fake_socket *s = any_socket();
    (void)unused;
    if (!s)
        return;
    struct model_user *u = &model[s->user];
    struct model_item *m = pick(u);
    uint32_t op = dice(3), before = states_of(u), own = s->states;
    uint32_t answers = s->answers, errors = s->errors;
    if (!m)
        return;
    bool was_there = is_there(m);
    fake_mark(s, (enum bf_client_op)op, &m->id);
    uint64_t until = bf_mono_ms() + WAIT_MS;
    while (s->answers == answers && s->errors == errors && bf_mono_ms() < until)
        if (fake_turn() == 0)
            nap();
    (void)is_telling(); /* the shards have published to every worker before they answer this */
    (void)fake_turn();
    CHECK(was_there ? s->answers == answers + 1 : s->errors == errors + 1,
          "a socket's mark %u is answered by %u ok, %u errors, is there: %d", op,
          s->answers - answers, s->errors - errors, was_there);
    bool is_changed = was_there && model_mark(m, marks[op]);
    uint32_t told = states_of(u) - before;
    CHECK(s->states == own, "the acting socket was told of its own mark");
    CHECK(told == (is_changed ? sockets_of(u) - 1 : 0), "a socket's mark told %u of %u others",
          told, sockets_of(u) - 1);
}

static void do_read_all(struct model_user *u)
{
    uint32_t changed = 0, left = 1, want = unread_of(u);
    CHECK(bf_core_read_all(core, uid_of(u), &changed, &left) == 0, "read-all fails");
    CHECK(left == 0, "read-all leaves %u unread", left);
    CHECK(changed == want, "read-all changed %u, %u were unread", changed, want);
    for (uint32_t i = 0; i < u->count; i++)
        if (is_unread(&u->items[i]))
            model_mark(&u->items[i], BF_MARK_READ);
}

static void do_advance(struct model_user *unused)
{
    (void)unused;
    atomic_fetch_add(&clock_ms, 1 + dice(dice(4) ? 3000 : 15000));
}

static void do_open(struct model_user *u)
{
    (void)fake_connect((uint32_t)(u - model), u->name);
}

static void do_close(struct model_user *unused)
{
    struct fake_socket *s = any_socket();
    (void)unused;
    if (s)
        fake_disconnect(s);
}

static void do_restart(struct model_user *unused)
{
    (void)unused;
    core_stop();
    if (dice(2))
        atomic_fetch_add(&clock_ms, dice(10000));
    reopen();
    core_start();
}

/* Copies the store's directory as it stands; again, if a compaction changed it meanwhile. */
static void copy_store(char copy[200])
{
    char command[1200];
    tmp_dir_make(copy, 200);
    snprintf(command, sizeof(command),
             "for i in $(seq 100); do rm -rf %s/*; a=$(ls -R %s); cp -a %s/. %s/ 2>/dev/null && "
             "[ \"$a\" = \"$(ls -R %s)\" ] && exit 0; done; exit 1",
             copy, dir, dir, copy, dir);
    cr_assert_eq(system(command), 0, "the directory never stood still");
}

/* A kill leaves the directory itself, not a copy of it: the stamp of the last start says so again.
 */
static void stand_in_for(const char *copy)
{
    struct bf_stamp stamp;
    const char *why;
    cr_assert(bf_stamp_read(dir, &stamp, &why), "%s", why);
    cr_assert_eq(bf_stamp_write(copy, &stamp), 0);
}

/* The directory as it stood when the process died: what the stop wrote goes with the old one. */
static void do_kill(struct model_user *unused)
{
    char copy[200];
    (void)unused;
    copy_store(copy);
    stand_in_for(copy);
    core_stop();
    bf_store_close(store);
    tmp_dir_remove(dir);
    memcpy(dir, copy, sizeof(dir));
    if (dice(2))
        atomic_fetch_add(&clock_ms, dice(10000));
    store_open();
    core_start();
}

/* Workers stand still while hundreds of marks are made: rings and blocks run full. */
static void do_stalled_marks(struct model_user *u)
{
    uint32_t n = dice(STALL_MARKS);
    for (uint32_t i = 0; i < n; i++)
        api_mark(u, true);
    if (dice(3) == 0)
        do_read_all(u);
    if (dice(4) == 0)
        do_advance(u);
}

static const struct operation {
    const char *name;
    void (*run)(struct model_user *u);
    uint32_t weight;
} operations[] = {
    {"arrive", do_arrive, 300},
    {"mark", do_api_mark, 350},
    {"socket mark", do_socket_mark, 120},
    {"read-all", do_read_all, 25},
    {"clock", do_advance, 60},
    {"open", do_open, 60},
    {"close", do_close, 50},
    {"restart", do_restart, 4},
    {"kill", do_kill, 4},
    {"stalled marks", do_stalled_marks, 8},
};

static const struct operation *next_operation(void)
{
    uint32_t total = 0, i = 0;
    for (uint32_t k = 0; k < sizeof(operations) / sizeof(operations[0]); k++)
        total += operations[k].weight;
    uint32_t at = dice(total);
    while (at >= operations[i].weight)
        at -= operations[i++].weight;
    return &operations[i];
}

/* ---- the run ---- */

static uint64_t setting(const char *name, uint64_t otherwise)
{
    const char *value = getenv(name);
    return value ? strtoull(value, NULL, 10) : otherwise;
}

static void start(void)
{
    char err[256];
    cr_assert_eq(bf_conf_load(NULL, &conf, err, sizeof(err)), 0, "%s", err);
    conf->shards = 2;
    conf->workers = FAKE_WORKERS;
    conf->inbox_user_max = INBOX_MAX;
    conf->command_slots = 256; /* small, so that their bounds are reached */
    conf->receipt_slots = 1024;
    conf->blocks_256 = 256;
    conf->blocks_1k = 256;
    conf->blocks_4k = 64;
    conf->blocks_16k = 16;
    conf->blocks_80k = 8;
}

static unsigned long long counted(enum bf_ctrl_metric metric)
{
    return atomic_load(&bf_ctrl_stats.counters[metric]);
}

static void run_seed(uint64_t number, uint64_t ops)
{
    seed = number;
    rng = number * UINT64_C(0x9e3779b97f4a7c15) + 1;
    memset(model, 0, sizeof(model));
    setup();
    fake_start(conf);
    core_start();
    for (uint32_t i = 0; i < USERS; i++) {
        bool created;
        snprintf(model[i].name, sizeof(model[i].name), "u%u", i);
        cr_assert_eq(bf_core_put_user(core, uid_of(&model[i]), text("{}"), &created), 0);
    }
    for (op_number = 1; op_number <= ops; op_number++) {
        struct model_user *u = &model[dice(USERS)];
        const struct operation *op = next_operation();
        op_name = op->name;
        op->run(u);
        for (uint32_t i = 0; i < USERS; i++)
            check_user(&model[i]);
        await_sockets();
    }
    core_stop();
    fake_stop();
    teardown();
}

Test(unread, model, .init = start, .timeout = 3600)
{
    atomic_store(&clock_ms, START_MS);
    uint64_t first = setting("BELFRY_SEED", (uint64_t)getpid() * 1000u);
    uint64_t seeds = setting("BELFRY_UNREAD_SEEDS", 4), ops = setting("BELFRY_UNREAD_OPS", 300);
    fprintf(stderr,
            "unread model: BELFRY_SEED=%llu BELFRY_UNREAD_SEEDS=%llu BELFRY_UNREAD_OPS=%llu\n",
            (unsigned long long)first, (unsigned long long)seeds, (unsigned long long)ops);
    for (uint64_t i = 0; i < seeds; i++)
        run_seed(first + i, ops);
    fprintf(stderr,
            "unread model: %llu operations, %llu trimmed, rings full %llu, blocks short %llu, "
            "told again %llu\n",
            (unsigned long long)(seeds * ops), counted(BF_CM_M_inbox_trimmed),
            counted(BF_CM_M_ring_full), counted(BF_CM_M_blocks_exhausted),
            counted(BF_CM_M_state_told_again));
    cr_expect_gt(counted(BF_CM_M_state_told_again), 0u, "nothing was ever kept from a socket");
}
