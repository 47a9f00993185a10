/* The smallest control plane: see pf_plane.h. */
#include "pf_plane.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "belfry/base/ws_frame.h"
#include "belfry/conf/conf_load.h"
#include "belfry/shm/own.h"
#include "main/region_attach.h"
#include "pf_load.h"
#include "pf_node.h"
#include "pf_proc.h"
#include "pf_report.h"
#include "publish/publisher.h"

#define START_SECONDS   60.0
#define RECEIPT_WAIT_MS 20u
#define SECRET          "perf-secret-perf-secret-perf-secret-perf"
#define WELCOME                                                                                    \
    "{\"t\":\"welcome\",\"conn\":\"0\",\"user\":\"perf\",\"epoch\":\"perf:1\",\"seq\":0,"          \
    "\"lanes\":{\"critical\":0,\"bulk\":0},\"b\":0,\"resumed\":false,\"unread\":0}"

const char *pf_plane_more_keys;

struct pf_plane {
    pid_t pid;
    char dir[64];
    uint16_t port;
    uint16_t tls_port;
    int lock_fd;
    struct bf_region *region;
    struct bf_publisher publisher; /* under |mutex| */
    pthread_mutex_t mutex;
    pthread_t thread;
    struct bf_ring_consumer receipts[BF_WORKERS_MAX];
    uint64_t bseq;
    _Atomic uint32_t welcomed;
    _Atomic int stop;
    void (*take)(void *context, uint16_t kind, const uint8_t *bytes, uint32_t len);
    void *take_context;
};

/* ---- sending ---- */

/* A block with a text frame in it. */
static bool frame_block(struct pf_plane *p, const void *payload, size_t len,
                        struct bf_block_ref *ret)
{
    size_t header = bf_ws_header_bytes(len);
    uint8_t *at = bf_publisher_alloc(&p->publisher, (uint32_t)(header + len), ret);
    if (!at)
        return false;
    bf_ws_header_write(at, BF_WS_TEXT, len);
    memcpy(at + header, payload, len);
    return true;
}

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static void send_or_wait(struct pf_plane *p, uint32_t worker, enum bf_lane lane,
                         enum bf_cmd_kind kind, const void *payload, struct bf_block_ref ref)
{
    while (!bf_publisher_send(&p->publisher, worker, lane, kind, payload, ref)) {
        bf_publisher_flush(&p->publisher);
        pause_briefly();
    }
}

/* Welcome, then every stream opens at 0. */
static void greet(struct pf_plane *p, uint32_t worker, bf_conn_id conn)
{
    struct bf_block_ref none = {0};
    struct bf_cmd_conn_frame cmd = {.conn = conn};
    pthread_mutex_lock(&p->mutex);
    while (!frame_block(p, WELCOME, sizeof(WELCOME) - 1, &cmd.block)) {
        bf_publisher_flush(&p->publisher);
        pause_briefly();
    }
    send_or_wait(p, worker, BF_LANE_CRITICAL, BF_CMD_WELCOME, &cmd, cmd.block);
    cmd.block = none;
    for (uint32_t lane = 0; lane < BF_LANE_COUNT; lane++)
        send_or_wait(p, worker, (enum bf_lane)lane, BF_CMD_OPEN, &cmd, none);
    cmd.seq = p->bseq;
    send_or_wait(p, worker, BF_LANE_NORMAL, BF_CMD_OPEN_B, &cmd, none);
    bf_publisher_flush(&p->publisher);
    pthread_mutex_unlock(&p->mutex);
    atomic_fetch_add_explicit(&p->welcomed, 1, memory_order_relaxed);
}

/* ---- the receipts thread ---- */

static bool take_receipts(struct pf_plane *p, uint32_t worker)
{
    uint8_t bytes[BF_RCPT_BYTES_MAX];
    struct bf_ring_consumer *ring = &p->receipts[worker];
    uint16_t kind = BF_RCPT_NONE;
    uint32_t len = 0;
    bool any = false;
    for (int taken; (taken = bf_ring_get_message(ring, bytes, &kind, &len)) != 0;) {
        any = true;
        if (taken < 0)
            pf_die("a damaged receipt");
        if (kind == BF_RCPT_CONNECT) {
            struct bf_rcpt_connect connect;
            memcpy(&connect, bytes, sizeof(connect));
            greet(p, worker, connect.conn);
        }
        if (p->take)
            p->take(p->take_context, kind, bytes, len);
        bf_ring_release(ring, ring->next);
    }
    return any;
}

static bool has_receipts(struct pf_plane *p)
{
    bool any = false;
    for (uint32_t w = 0; w < p->region->geometry.workers; w++)
        any |= bf_ring_ready_now(&p->receipts[w]) > 0;
    return any;
}

static void *receipts_main(void *arg)
{
    struct pf_plane *p = arg;
    struct bf_doorbell *bell = &p->region->receipts_bell;
    while (atomic_load_explicit(&p->stop, memory_order_relaxed) == 0) {
        bool any = false;
        for (uint32_t w = 0; w < p->region->geometry.workers; w++)
            any |= take_receipts(p, w);
        if (any)
            continue;
        bf_doorbell_arm(bell);
        if (!has_receipts(p))
            (void)bf_doorbell_wait(bell, RECEIPT_WAIT_MS);
        bf_doorbell_disarm(bell);
    }
    return NULL;
}

/* ---- start ---- */

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    if (!file || fputs(text, file) < 0 || fclose(file) != 0)
        pf_die("cannot write %s", path);
}

/* |yaml| may have sections of ours too (dataplane, websocket): scalars of "websocket" go in by
 * name. */
static void write_config(struct pf_plane *p, const char *yaml)
{
    const char *more_keys = pf_plane_more_keys;
    char path[128], text[8192];
    snprintf(path, sizeof(path), "%s/run", p->dir);
    if (mkdir(path, 0700) != 0)
        pf_die("cannot make %s", path);
    snprintf(path, sizeof(path), "%s/secret", p->dir);
    write_file(path, SECRET);
    int n = snprintf(text, sizeof(text),
                     "node:\n  run_dir: %s/run\n  state_dir: %s/data\n"
                     "websocket:\n  host: 127.0.0.1\n  port: 0\n"
                     "  jwt_keys: [{kid: dev, alg: HS256, file: %s}%s]\n%s",
                     p->dir, p->dir, path, more_keys ? more_keys : "", yaml);
    if (n < 0 || (size_t)n >= sizeof(text))
        pf_die("configuration too long");
    snprintf(path, sizeof(path), "%s/belfry.yaml", p->dir);
    write_file(path, text);
}

static void program_path(char out[PF_PATH_BYTES])
{
    ssize_t n = readlink("/proc/self/exe", out, PF_PATH_BYTES - 1);
    out[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(out, '/');
    size_t at = slash ? (size_t)(slash + 1 - out) : 0;
    snprintf(out + at, PF_PATH_BYTES - at, "belfry-dataplane");
}

static void spawn(struct pf_plane *p, bool raw)
{
    char program[PF_PATH_BYTES], config[128], log[128];
    program_path(program);
    snprintf(config, sizeof(config), "%s/belfry.yaml", p->dir);
    snprintf(log, sizeof(log), "%s/dataplane.log", p->dir);
    p->pid = fork();
    if (p->pid < 0)
        pf_die("fork failed");
    if (p->pid > 0)
        return;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (!freopen(log, "w", stderr))
        _exit(1);
    execl(program, program, "--config", config, raw ? "--raw" : NULL, NULL);
    perror(program);
    _exit(1);
}

static _Noreturn void start_failed(const struct pf_plane *p, const char *why)
{
    char command[256];
    pf_say("the dataplane did not start: %s", why);
    snprintf(command, sizeof(command), "cat '%s/dataplane.log' >&2", p->dir);
    if (system(command) != 0)
        pf_say("no log");
    if (p->pid > 0)
        kill(p->pid, SIGKILL);
    exit(1);
}

/* Waits until the region is announced and its workers run. */
static struct bf_current wait_announced(const struct pf_plane *p)
{
    char run[128];
    struct bf_current current;
    uint64_t deadline = bf_mono_ns() + (uint64_t)(START_SECONDS * 1e9);
    snprintf(run, sizeof(run), "%s/run", p->dir);
    while (bf_current_read(run, &current) != 0) {
        if (waitpid(p->pid, NULL, WNOHANG) == p->pid)
            start_failed(p, "it ended");
        if (bf_mono_ns() > deadline)
            start_failed(p, "it announced nothing");
        pause_briefly();
    }
    return current;
}

static void read_port(struct pf_plane *p)
{
    char path[128], text[512];
    snprintf(path, sizeof(path), "%s/run/dataplane.ports", p->dir);
    pf_proc_file(path, text, sizeof(text));
    yyjson_doc *doc = yyjson_read(text, strlen(text), 0);
    p->port = (uint16_t)yyjson_get_uint(yyjson_obj_get(yyjson_doc_get_root(doc), "ws"));
    p->tls_port = (uint16_t)yyjson_get_uint(yyjson_obj_get(yyjson_doc_get_root(doc), "wss"));
    yyjson_doc_free(doc);
    if (p->port == 0)
        start_failed(p, "no port announced");
}

static void attach(struct pf_plane *p, const struct bf_current *current)
{
    char err[BF_CONF_ERROR_BYTES_MAX] = "", run[128];
    snprintf(run, sizeof(run), "%s/run", p->dir);
    p->lock_fd = bf_own_take(run, BF_OWN_CTRLPLANE);
    if (p->lock_fd < 0)
        start_failed(p, bf_err_text(p->lock_fd));
    int rc = bf_region_attach(NULL, current, &p->region, err, sizeof(err));
    if (rc != 0)
        start_failed(p, err);
    uint32_t generation = atomic_fetch_add(&p->region->ctrl_generation, 1) + 1;
    bf_publisher_attach(&p->publisher, p->region, 0, generation);
    /* a region without an earlier control plane: the census bitmaps are empty, every block is free
     */
    if (bf_publisher_adopt_blocks(&p->publisher) != 0)
        start_failed(p, "blocks are held");
    for (uint32_t w = 0; w < p->region->geometry.workers; w++)
        bf_ring_consumer_attach(&p->receipts[w], bf_receipt_ring(p->region, w),
                                bf_receipt_control(p->region, w));
}

struct pf_plane *pf_plane_start(const char *yaml, bool raw, int reader_core)
{
    struct pf_plane *p = calloc(1, sizeof(*p));
    if (!p)
        pf_die("out of memory");
    snprintf(p->dir, sizeof(p->dir), "/tmp/belfry-perf-XXXXXX");
    if (!mkdtemp(p->dir))
        pf_die("no directory in /tmp");
    write_config(p, yaml);
    spawn(p, raw);
    struct bf_current current = wait_announced(p);
    read_port(p);
    pf_pin(reader_core);
    attach(p, &current);
    pthread_mutex_init(&p->mutex, NULL);
    if (pthread_create(&p->thread, NULL, receipts_main, p) != 0)
        pf_die("no thread");
    return p;
}

void pf_plane_stop(struct pf_plane *p)
{
    char command[128];
    atomic_store_explicit(&p->stop, 1, memory_order_relaxed);
    pthread_join(p->thread, NULL);
    kill(p->pid, SIGTERM);
    waitpid(p->pid, NULL, 0);
    close(p->lock_fd);
    snprintf(command, sizeof(command), "rm -rf '%s'", p->dir);
    if (system(command) != 0)
        pf_say("%s is left behind", p->dir);
    /* the region stays mapped: EAL of this process ends with it */
    free(p);
}

/* ---- use ---- */

pid_t pf_plane_pid(const struct pf_plane *p)
{
    return p->pid;
}

uint16_t pf_plane_port(const struct pf_plane *p)
{
    return p->port;
}

uint16_t pf_plane_tls_port(const struct pf_plane *p)
{
    return p->tls_port;
}

const char *pf_plane_secret(const struct pf_plane *p, size_t *ret_len)
{
    (void)p;
    *ret_len = sizeof(SECRET) - 1;
    return SECRET;
}

uint32_t pf_plane_welcomed(const struct pf_plane *p)
{
    return atomic_load_explicit(&p->welcomed, memory_order_relaxed);
}

uint64_t pf_plane_metric(const struct pf_plane *p, enum bf_metric metric)
{
    uint64_t total = 0;
    for (uint32_t w = 0; w < p->region->geometry.workers; w++)
        total += bf_metric_get(bf_stats(p->region, w), metric);
    return total;
}

struct bf_worker_stats *pf_plane_stats(const struct pf_plane *p)
{
    return bf_stats(p->region, 0);
}

bool pf_plane_broadcast(struct pf_plane *p, const void *payload, size_t len, uint64_t topic)
{
    bool sent = true;
    struct bf_cmd_broadcast cmd = {.prev = p->bseq, .bseq = p->bseq, .topic = topic};
    pthread_mutex_lock(&p->mutex);
    bf_publisher_reclaim(&p->publisher);
    if (topic == 0)
        cmd.bseq = ++p->bseq;
    sent = frame_block(p, payload, len, &cmd.block);
    for (uint32_t w = 0; sent && w < p->region->geometry.workers; w++)
        sent =
            bf_publisher_send(&p->publisher, w, BF_LANE_NORMAL, BF_CMD_BROADCAST, &cmd, cmd.block);
    bf_publisher_flush(&p->publisher);
    pthread_mutex_unlock(&p->mutex);
    return sent;
}

bool pf_plane_notify_stamped(struct pf_plane *p, struct bf_user_key user, const void *payload,
                             size_t len)
{
    struct bf_cmd_frame cmd = {.user = user, .flags = BF_FRAME_TRANSIENT | BF_FRAME_STAMPED};
    bool sent = false;
    pthread_mutex_lock(&p->mutex);
    bf_publisher_reclaim(&p->publisher);
    if (frame_block(p, payload, len, &cmd.block)) {
        /* the stamp comes last before the enqueue: seal, publish and doorbell count */
        cmd.prev = bf_mono_ns();
        sent =
            bf_publisher_send(&p->publisher, 0, BF_LANE_CRITICAL, BF_CMD_NOTIFY, &cmd, cmd.block);
        bf_publisher_flush(&p->publisher);
    }
    pthread_mutex_unlock(&p->mutex);
    return sent;
}

struct bf_user_key pf_plane_user(const struct pf_plane *p, const char *user)
{
    return bf_user_key_of(p->region->user_secret, "", 0, user, strlen(user));
}

/* ---- bursts ---- */

static const uint8_t *part(const void *payloads, size_t len, uint32_t index)
{
    return (const uint8_t *)payloads + len * index;
}

static bool has_room(struct pf_plane *p, enum bf_lane lane, uint32_t slots)
{
    bf_publisher_reclaim(&p->publisher);
    for (uint32_t w = 0; w < p->region->geometry.workers; w++)
        if (!bf_publisher_has_room(&p->publisher, w, lane, slots))
            return false;
    return true;
}

/* Blocks for the whole burst, or none. */
static bool burst_blocks(struct pf_plane *p, const void *payloads, size_t len, uint32_t count,
                         struct bf_block_ref *refs)
{
    for (uint32_t i = 0; i < count; i++) {
        if (frame_block(p, part(payloads, len, i), len, &refs[i]))
            continue;
        while (i-- > 0)
            bf_publisher_drop(&p->publisher, refs[i]);
        return false;
    }
    return true;
}

bool pf_plane_broadcast_burst(struct pf_plane *p, const void *payloads, size_t len, uint32_t count)
{
    struct bf_block_ref refs[PF_BURST_MAX];
    pthread_mutex_lock(&p->mutex);
    bool room = count <= PF_BURST_MAX && has_room(p, BF_LANE_NORMAL, count) &&
                burst_blocks(p, payloads, len, count, refs);
    for (uint32_t i = 0; room && i < count; i++) {
        struct bf_cmd_broadcast cmd = {.block = refs[i], .prev = p->bseq, .bseq = p->bseq + 1};
        p->bseq++;
        for (uint32_t w = 0; w < p->region->geometry.workers; w++)
            (void)bf_publisher_send(&p->publisher, w, BF_LANE_NORMAL, BF_CMD_BROADCAST, &cmd,
                                    cmd.block);
    }
    bf_publisher_flush(&p->publisher);
    pthread_mutex_unlock(&p->mutex);
    return room;
}

bool pf_plane_raw_burst(struct pf_plane *p, const void *payloads, size_t len, uint32_t count,
                        uint64_t topic)
{
    struct bf_cmd_broadcast cmd = {.prev = p->bseq, .bseq = p->bseq, .topic = topic};
    size_t header = bf_ws_header_bytes(len);
    pthread_mutex_lock(&p->mutex);
    uint8_t *at = NULL;
    if (has_room(p, BF_LANE_NORMAL, 1))
        at = bf_publisher_alloc(&p->publisher, (uint32_t)((header + len) * count), &cmd.block);
    for (uint32_t i = 0; at && i < count; i++, at += header + len) {
        bf_ws_header_write(at, BF_WS_TEXT, len);
        memcpy(at + header, part(payloads, len, i), len);
    }
    for (uint32_t w = 0; at && w < p->region->geometry.workers; w++)
        (void)bf_publisher_send(&p->publisher, w, BF_LANE_NORMAL, BF_CMD_BROADCAST, &cmd,
                                cmd.block);
    bf_publisher_flush(&p->publisher);
    pthread_mutex_unlock(&p->mutex);
    return at != NULL;
}

bool pf_plane_notify_burst(struct pf_plane *p, struct bf_user_key user, const void *payloads,
                           size_t len, uint32_t count)
{
    struct bf_block_ref refs[PF_BURST_MAX];
    struct bf_cmd_frame cmd = {.user = user, .flags = BF_FRAME_TRANSIENT};
    pthread_mutex_lock(&p->mutex);
    bool room = count <= PF_BURST_MAX && has_room(p, BF_LANE_NORMAL, count) &&
                burst_blocks(p, payloads, len, count, refs);
    for (uint32_t i = 0; room && i < count; i++) {
        cmd.block = refs[i];
        (void)bf_publisher_send(&p->publisher, 0, BF_LANE_NORMAL, BF_CMD_NOTIFY, &cmd, refs[i]);
    }
    bf_publisher_flush(&p->publisher);
    pthread_mutex_unlock(&p->mutex);
    return room;
}

/* ---- push ---- */

void pf_plane_snapshot(struct pf_plane *p, const uint8_t *content, size_t len)
{
    struct bf_snapshot_area *area = bf_snapshots(p->region);
    /* the third slot is never the one in use nor the one before: a benchmark publishes few */
    uint64_t seq = atomic_load(&area->current) + 1;
    struct bf_snapshot_slot *slot = &area->slots[seq % BF_SNAPSHOT_SLOTS];
    if (len > sizeof(slot->content))
        pf_die("snapshot too long");
    atomic_store(&slot->seq, 0);
    memcpy(slot->content, content, len);
    slot->len = (uint32_t)len;
    slot->checksum = XXH3_64bits(content, len);
    atomic_store(&slot->seq, seq);
    atomic_store(&area->current, seq);
    for (uint32_t w = 0; w < p->region->geometry.workers; w++)
        (void)bf_doorbell_ring(bf_worker_bell(p->region, w));
}

bool pf_plane_push(struct pf_plane *p, const struct bf_cmd_push *cmd, enum bf_lane lane, size_t len,
                   void (*fill)(void *context, uint8_t *at), void *context)
{
    struct bf_cmd_push own = *cmd;
    bool sent = false;
    pthread_mutex_lock(&p->mutex);
    uint8_t *at = bf_publisher_alloc(&p->publisher, (uint32_t)len, &own.block);
    if (at) {
        fill(context, at);
        sent = bf_publisher_send(&p->publisher, 0, lane, BF_CMD_PUSH, &own, own.block);
        if (!sent)
            bf_publisher_drop(&p->publisher, own.block);
    }
    pthread_mutex_unlock(&p->mutex);
    return sent;
}

void pf_plane_flush(struct pf_plane *p)
{
    pthread_mutex_lock(&p->mutex);
    bf_publisher_flush(&p->publisher);
    bf_publisher_reclaim(&p->publisher);
    pthread_mutex_unlock(&p->mutex);
}

void pf_plane_on_receipt(struct pf_plane *p,
                         void (*take)(void *context, uint16_t kind, const uint8_t *bytes,
                                      uint32_t len),
                         void *context)
{
    p->take_context = context;
    p->take = take;
}
