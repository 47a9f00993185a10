/*
 * The control process's life, on its main thread: open everything, serve the API, follow the
 * dataplane. Detached: API and log on, nothing delivered. Attach: take over ring ends -> drain
 * receipts
 * -> census -> replay (DESIGN 4.4). When the dataplane dies: drain its receipts, re-execute with
 * the listening sockets kept, because EAL initialises once a process (DESIGN 2).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/admin.h"
#include "api/api.h"
#include "backup/backup.h"
#include "belfry/base/explain.h"
#include "belfry/base/fatal.h"
#include "belfry/base/log.h"
#include "belfry/base/text.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf_load.h"
#include "belfry/conf/conf_snapshot.h"
#include "belfry/plane.h"
#include "channels/table/channels.h"
#include "channels/push/push_migrate.h"
#include "config/config_check.h"
#include "config/services.h"
#include "crypto/certificates.h"
#include "crypto/vault.h"
#include "fanout/core_outbound.h"
#include "main/control.h"
#include "main/region_attach.h"
#include "pipeline/eraser.h"
#include "pipeline/pipeline.h"
#include "receipts/receipts.h"
#include "stats/metrics.h"

/* A worker answers a census between turns; with 200,000 connections in slices. */
#define CENSUS_TIMEOUT_MS 30000u
/* Main's turn when nothing wakes it: heartbeat, death check. */
#define TURN_MS 100u
/* A snapshot of the disk that was taken longer ago than this before a kill is told from the disk as
 * it was at the kill. */
#define WITNESS_MS 1000u
/* When keys were used last is written this often: it is for people, who look at days. */
#define KEY_USE_MS 60000u
/* Listening sockets survive a re-execution: "api,admin" descriptors. */
#define LISTEN_ENV "BELFRY_LISTEN_FDS"

struct plane {
    const struct bf_plane_args *args;
    const struct bf_conf *conf;
    struct bf_services services;
    struct bf_vault vault;
    struct bf_ledger *ledger;
    struct bf_pipeline *pipeline;
    struct bf_eraser *eraser;
    struct bf_receipts *receipts;
    struct bf_pool_reports *pool_reports;
    struct bf_channels channels;
    struct bf_api *api;
    struct bf_admin *admin;
    struct bf_control control;
    struct bf_region *region;
    struct bf_current current;
    struct bf_doorbell bell; /* wakes main: new broadcast, reload, drain */
    uint64_t published_ms;   /* when a snapshot was due last, of itself */
    int lock_fd;
    bool attach_failed; /* said once a generation */
    bool eal_spent;     /* an attach failed inside EAL, which initialises once a process */
};

static void wake_main(void *arg)
{
    struct plane *p = arg;
    bf_doorbell_ring(&p->bell);
}

static void on_broadcast(void *arg, uint64_t bseq)
{
    (void)bseq;
    wake_main(arg);
}

/* ---- opening, in the order of services.h ---- */

static bool is_half_restored(const struct bf_conf *conf)
{
    char path[BF_PATH_BYTES_MAX];
    snprintf(path, sizeof(path), "%s/" BF_RESTORING, conf->state_dir);
    return access(path, F_OK) == 0;
}

static int open_store(struct plane *p, char *err, size_t err_len)
{
    static char dir[BF_PATH_BYTES_MAX];
    char links[BF_PATH_BYTES_MAX];
    snprintf(dir, sizeof(dir), "%s/store", p->conf->state_dir);
    int rc = bf_make_dir("node.state_dir", p->conf->state_dir, err, err_len);
    if (rc != 0)
        return rc;
    if (is_half_restored(p->conf)) {
        snprintf(err, err_len,
                 "a restore of %s was interrupted, and its files are of two states; run belfryctl"
                 " restore again",
                 p->conf->state_dir);
        return BF_ERR_MALFORMED;
    }
    const char *witness = p->conf->store_witness_dir;
    snprintf(links, sizeof(links), "%s/" BF_CHECKPOINTS, p->conf->state_dir);
    bf_backup_remove(links); /* of a backup that was killed with us */
    struct bf_store_options options = {.dir = dir,
                                       .witness_dir = witness[0] ? witness : p->conf->run_dir,
                                       .cache_mb = p->conf->store_cache_mb,
                                       .write_buffer_mb = p->conf->store_write_buffer_mb};
    rc = bf_store_open(&options, &p->services.store, err, err_len);
    if (rc != 0 && strstr(err, "lock file")) /* RocksDB's words are of no help to a newcomer */
        snprintf(
            err, err_len,
            "node.state_dir: another process has the store in %.*s open. Two nodes never share "
            "one: stop the other, or set node.state_dir to a directory of this node's own",
            BF_CUT(dir, 300));
    return rc;
}

static int open_vault(struct plane *p, char *err, size_t err_len)
{
    char path[BF_PATH_BYTES_MAX];
    const char *given = p->conf->push_device_key_file;
    snprintf(path, sizeof(path), "%s%s", given[0] ? given : p->conf->state_dir,
             given[0] ? "" : "/device.key");
    int rc = bf_vault_open(path, &p->vault, err, err_len);
    if (rc == 0)
        p->services.vault = &p->vault;
    return rc;
}

/* Devices of a former version are written in the form in which this one looks for them. */
static int migrate_devices(struct plane *p, char *err, size_t err_len)
{
    struct bf_push_migrated done;
    uint64_t began = bf_mono_ms();
    int rc =
        bf_push_devices_migrate(p->services.store, &p->vault, p->conf->push_tenant_tokens, &done);
    if (rc != 0)
        snprintf(err, err_len, "the push devices cannot be brought to their new form: %s",
                 bf_err_text(rc));
    else if (done.rows > 0)
        BF_INFO("ctrlplane",
                "push devices: %llu looked at, %llu written in their one form, %llu of them were "
                "a phone that another row had too, %llu are sealed with another key; %llu ms",
                (unsigned long long)done.rows, (unsigned long long)done.changed,
                (unsigned long long)done.merged, (unsigned long long)done.unreadable,
                (unsigned long long)(bf_mono_ms() - began));
    return rc;
}

static int open_core(struct plane *p, char *err, size_t err_len)
{
    p->ledger = bf_ledger_create(p->conf->log_inflight_max);
    p->pool_reports = bf_pool_reports_create();
    int rc = p->ledger && p->pool_reports
                 ? bf_core_create(p->conf, p->services.store, NULL, &p->services.core)
                 : BF_ERR_NO_MEMORY;
    if (rc == 0) {
        p->services.core->pool_reports = p->pool_reports;
        p->services.core->wake_main = wake_main;
        p->services.core->wake_main_arg = p;
        bf_core_set_log(p->services.core, NULL, NULL, p->ledger);
        rc = bf_pipeline_create(p->services.core, &p->pipeline);
    }
    if (rc != 0)
        snprintf(err, err_len, "the users cannot be loaded: %s", bf_err_text(rc));
    return rc;
}

/* Another token or address: a snapshot brings it. */
static void on_channel_changed(void *arg)
{
    struct plane *p = arg;
    atomic_store(&p->services.core->config_changed, true);
    wake_main(p);
}

/* No reason not to start, but pushes would fail one by one and nobody would look here. */
static void warn_of_subjects(const struct bf_conf *conf)
{
    for (uint32_t i = 0; i < conf->push_app_count; i++) {
        const struct bf_conf_push_app *app = &conf->push_apps[i];
        const char *fault =
            app->kind == BF_PUSH_WEBPUSH ? bf_vapid_subject_fault(app->subject) : NULL;
        if (fault)
            BF_WARN("ctrlplane",
                    "push.apps: %s: subject '%s': %s; push services may refuse its pushes",
                    app->name, app->subject, fault);
    }
}

static void on_answered(void *arg, const struct bf_provider_answer *answer)
{
    const struct plane *p = arg;
    bf_core_answered(p->services.core, answer);
}

static int open_channels(struct plane *p, char *err, size_t err_len)
{
    const struct bf_channel_env env = {.conf = p->conf,
                                       .store = p->services.store,
                                       .vault = &p->vault,
                                       .shards = p->conf->shards,
                                       .changed = on_channel_changed,
                                       .answered = on_answered,
                                       .arg = p};
    int rc = bf_channels_start(&env, &p->channels, err, err_len);
    warn_of_subjects(p->conf);
    if (rc != 0)
        return rc;
    p->services.channels = &p->channels;
    return bf_core_set_channels(p->services.core, &p->channels);
}

static int open_logs(struct plane *p, char *err, size_t err_len)
{
    int rc = bf_log_open(p->conf, p->services.store, bf_pipeline_hooks(p->pipeline),
                         &p->services.log, err, err_len);
    if (rc == 0)
        rc = bf_blog_open(p->conf, p->services.store, on_broadcast, p, &p->services.blog, err,
                          err_len);
    if (rc == 0)
        bf_core_set_log(p->services.core, p->services.log, p->services.blog, p->ledger);
    return rc;
}

static int write_ports(struct plane *p)
{
    char path[BF_PATH_BYTES_MAX], fresh[BF_PATH_BYTES_MAX];
    snprintf(path, sizeof(path), "%s/ctrlplane.ports", p->conf->run_dir);
    snprintf(fresh, sizeof(fresh), "%s/ctrlplane.ports.new", p->conf->run_dir);
    FILE *file = fopen(fresh, "we");
    if (!file)
        return -errno;
    fprintf(file, "{\"api\":%d,\"admin\":%d}\n", bf_api_port(p->api), bf_admin_port(p->admin));
    fclose(file);
    return rename(fresh, path) == 0 ? 0 : -errno;
}

/* Where a newcomer finds it; without a configuration all of it is built in, which few mean. */
static void say_where(const struct plane *p)
{
    if (!p->args->config_path)
        BF_WARN("ctrlplane",
                "no --config was given: the built-in defaults are in force (node.state_dir %s, "
                "node.run_dir %s); nobody's tokens are accepted without websocket.jwt_keys",
                p->conf->state_dir, p->conf->run_dir);
    BF_INFO("ctrlplane", "listening: API %s port %d, admin %s port %d", p->conf->api_host,
            bf_api_port(p->api), p->conf->admin_host, bf_admin_port(p->admin));
}

static int open_servers(struct plane *p, char *err, size_t err_len)
{
    int api_fd = -1, admin_fd = -1;
    const char *kept = getenv(LISTEN_ENV);
    p->services.core->has_lost_dataplane = kept != NULL;
    if (kept && sscanf(kept, "%d,%d", &api_fd, &admin_fd) != 2)
        api_fd = admin_fd = -1;
    unsetenv(LISTEN_ENV);
    int rc = bf_api_start(&p->services, api_fd, &p->api, err, err_len);
    if (rc == 0)
        rc = bf_admin_start(&p->services, admin_fd, &p->admin, err, err_len);
    if (rc == 0 && (rc = write_ports(p)) != 0)
        snprintf(err, err_len, "node.run_dir: cannot write %s/ctrlplane.ports: %s",
                 p->conf->run_dir, bf_err_text(rc));
    if (rc == 0)
        say_where(p);
    return rc;
}

static int open_all(struct plane *p)
{
    char err[BF_CONF_ERROR_BYTES_MAX] = "";
    int rc = bf_certificates_check(p->conf, err, sizeof(err));
    if (rc == 0)
        rc = open_store(p, err, sizeof(err));
    if (rc == 0)
        rc = open_vault(p, err, sizeof(err));
    if (rc == 0)
        rc = migrate_devices(p, err, sizeof(err));
    if (rc == 0)
        rc = open_core(p, err, sizeof(err));
    if (rc == 0)
        rc = open_channels(p, err, sizeof(err));
    if (rc == 0)
        rc = open_logs(p, err, sizeof(err));
    if (rc == 0)
        rc = open_servers(p, err, sizeof(err));
    if (rc == 0)
        rc = bf_pipeline_start(p->pipeline);
    if (rc == 0 && !(p->eraser = bf_eraser_start(p->services.core)))
        rc = BF_ERR_NO_MEMORY;
    if (rc != 0)
        BF_ERROR("ctrlplane", "cannot start: %s", err[0] ? err : bf_err_text(rc));
    return rc;
}

/* ---- attaching ---- */

static int take_census(struct plane *p)
{
    uint64_t b_min = 0;
    uint64_t began = bf_mono_ns();
    uint64_t ticket = bf_control_census(&p->control);
    if (!bf_receipts_wait_census(p->receipts, ticket, CENSUS_TIMEOUT_MS)) {
        BF_ERROR("ctrlplane", "a worker did not answer the census within %u s",
                 CENSUS_TIMEOUT_MS / 1000);
        return BF_ERR_AWAY;
    }
    int rc = bf_core_census_complete(p->services.core, &b_min);
    if (rc == 0)
        rc = bf_control_ready(&p->control, b_min);
    BF_INFO("ctrlplane", "census complete in %llu us",
            (unsigned long long)((bf_mono_ns() - began) / 1000));
    return rc;
}

static int follow_region(struct plane *p, struct bf_region *region)
{
    struct bf_core *core = p->services.core;
    /* relaxed: we hold the lock, nobody else writes it */
    uint32_t generation = atomic_fetch_add(&region->ctrl_generation, 1) + 1;
    uint32_t attaches = atomic_fetch_add(&region->ctrl_attaches, 1) + 1;
    int rc = bf_snapshot_publish(region, bf_core_conf(core), &p->channels);
    p->published_ms = bf_mono_ms();
    if (rc == 0)
        rc = bf_core_attach(core, region, generation);
    if (rc == 0) {
        bf_control_attach(&p->control, core, region, generation);
        rc = bf_receipts_start(core, region, &p->receipts);
    }
    if (rc == 0)
        rc = take_census(p);
    if (rc != 0)
        return rc;
    p->region = region;
    atomic_store(&core->generation, region->generation);
    atomic_store(&core->attaches, attaches);
    atomic_store(&core->region, region);
    atomic_store(&core->ready, true);
    bf_count(BF_CM_M_attaches, 1);
    bf_pipeline_resume(p->pipeline);
    BF_INFO("ctrlplane", "attached to dataplane %016llx, attach %u",
            (unsigned long long)region->generation, attaches);
    return 0;
}

static int try_attach(struct plane *p)
{
    char err[256] = "";
    struct bf_region *region = NULL;
    if (p->args->region)
        return follow_region(p, p->args->region);
    if (!bf_own_is_held(p->conf->run_dir, BF_OWN_DATAPLANE) ||
        bf_current_read(p->conf->run_dir, &p->current) != 0 || kill((pid_t)p->current.pid, 0) != 0)
        return BF_ERR_AWAY;
    int rc = bf_region_attach(p->conf, &p->current, &region, err, sizeof(err));
    p->eal_spent = rc != 0 && rc != BF_ERR_CONTRACT;
    if (rc == 0)
        rc = follow_region(p, region);
    if (rc != 0 && !p->attach_failed)
        BF_ERROR("ctrlplane", "%s", err[0] ? err : bf_err_text(rc));
    p->attach_failed = rc != 0;
    return rc;
}

static bool is_dataplane_dead(struct plane *p)
{
    struct bf_current now = {0};
    if (p->args->region)
        return false;
    if (!bf_own_is_held(p->conf->run_dir, BF_OWN_DATAPLANE))
        return true;
    return bf_current_read(p->conf->run_dir, &now) == 0 && now.generation != p->current.generation;
}

/* ---- ending ---- */

static void close_all(struct plane *p)
{
    if (p->services.core)
        bf_core_requeue_pushes(p->services.core);
    bf_pipeline_stop(p->pipeline);
    bf_api_stop(p->api);
    bf_admin_stop(p->admin);
    bf_eraser_stop(p->eraser);
    if (p->services.core)
        bf_core_set_channels(p->services.core, NULL);
    bf_channels_stop(&p->channels);
    bf_receipts_drain_and_stop(p->receipts);
    if (p->services.core)
        bf_core_detach(p->services.core);
    bf_blog_close(p->services.blog);
    bf_log_close(p->services.log);
    bf_core_destroy(p->services.core);
    bf_pool_reports_destroy(p->pool_reports);
    bf_pipeline_destroy(p->pipeline);
    bf_ledger_destroy(p->ledger);
    bf_store_sync(p->services.store);
    bf_store_close(p->services.store);
}

static void keep_over_exec(int fd)
{
    int flags = fcntl(fd, F_GETFD);
    if (flags >= 0)
        fcntl(fd, F_SETFD, flags & ~FD_CLOEXEC);
}

static int re_execute(struct plane *p)
{
    char kept[32];
    /* copies: the servers close their own when they stop; the backlog stays open throughout */
    int api_fd = dup(bf_api_fd(p->api));
    int admin_fd = dup(bf_admin_fd(p->admin));
    BF_WARN("ctrlplane", "%s, starting over detached",
            p->eal_spent ? "cannot attach" : "the dataplane is gone: receipts are drained");
    atomic_store(&p->services.core->ready, false);
    close_all(p);
    snprintf(kept, sizeof(kept), "%d,%d", api_fd, admin_fd);
    setenv(LISTEN_ENV, kept, 1);
    keep_over_exec(api_fd);
    keep_over_exec(admin_fd);
    const char *path = p->args->config_path; /* NULL: started on the defaults, without the option */
    char *argv[] = {(char[]){"belfry-ctrlplane"}, path ? (char[]){"--config"} : NULL,
                    (char *)(uintptr_t)path, NULL};
    execv("/proc/self/exe", argv);
    BF_ERROR("ctrlplane", "cannot re-execute: %s", strerror(errno));
    return 1;
}

/* ---- the loop ---- */

static void heartbeat(struct plane *p)
{
    /* relaxed: an alarm for people, never ownership */
    atomic_store_explicit(&p->region->ctrl_heartbeat_ms, bf_mono_ms(), memory_order_relaxed);
    atomic_store_explicit(&p->services.core->control_blocks_free,
                          bf_publisher_free_total(&p->control.pub), memory_order_relaxed);
}

static void serve_requests(struct plane *p)
{
    struct bf_core *core = p->services.core;
    /* a new ticket key is due: a snapshot brings it */
    if (bf_core_conf(core)->cert_count > 0 && bf_mono_ms() - p->published_ms >= BF_TICKET_KEY_MS) {
        p->published_ms = bf_mono_ms();
        atomic_store(&core->config_changed, true);
    }
    if (atomic_exchange(&core->config_changed, false) &&
        bf_snapshot_publish(p->region, bf_core_conf(core), &p->channels) == BF_ERR_FULL)
        atomic_store(&core->config_changed, true); /* every slot in use: next turn */
    if (atomic_exchange(&core->drain_asked, false))
        bf_control_drain(&p->control, atomic_load(&core->drain_rate),
                         atomic_load(&core->drain_after_ms));
}

static void wait_for_work(struct plane *p, bool soon)
{
    bf_doorbell_arm(&p->bell);
    bool waiting = p->region && (p->control.published < bf_blog_head(p->services.blog) ||
                                 atomic_load(&p->services.core->config_changed));
    if (!waiting || soon)
        bf_doorbell_wait(&p->bell, soon ? 1 : TURN_MS);
    bf_doorbell_disarm(&p->bell);
}

/* Log or store cannot recover in this process (a failed write, a Kafka client that could not be
 * replaced): the next process recovers from the disk or from the broker (DESIGN 4.15). */
static void end_if_stuck(struct plane *p)
{
    struct bf_log_health log;
    bf_log_health(p->services.log, &log);
    if (bf_store_is_failed(p->services.store))
        bf_fatal("ctrlplane", "a write to the store failed: stopping, to recover from disk");
    if (log.is_stuck)
        bf_fatal("ctrlplane", "the log is stuck: %s; stopping", log.detail);
}

static int run(struct plane *p)
{
    uint64_t checked_ms = 0, witnessed_ms = 0;
    uint64_t used_ms = bf_mono_ms();
    while (!atomic_load(p->args->stop)) {
        bool done = true;
        end_if_stuck(p);
        if (bf_mono_ms() - witnessed_ms >= WITNESS_MS) {
            witnessed_ms = bf_mono_ms();
            bf_store_witness(p->services.store);
        }
        if (!p->region) {
            if (try_attach(p) == BF_ERR_CONTRACT)
                p->attach_failed = true;
            if (p->eal_spent) {
                wait_for_work(p, false); /* not in a hot loop */
                return re_execute(p);
            }
        } else {
            done = bf_control_broadcast(&p->control);
            heartbeat(p);
            serve_requests(p);
            if (bf_mono_ms() - checked_ms >= BF_DEATH_CHECK_MS) {
                checked_ms = bf_mono_ms();
                if (is_dataplane_dead(p))
                    return re_execute(p);
            }
        }
        if (bf_mono_ms() - used_ms >= KEY_USE_MS) {
            used_ms = bf_mono_ms();
            bf_api_write_key_use(p->api);
            bf_admin_write_key_use(p->admin);
        }
        wait_for_work(p, !done);
    }
    return 0;
}

static int own_side(struct plane *p)
{
    char why[512];
    int rc = bf_make_dir("node.run_dir", p->conf->run_dir, why, sizeof(why));
    if (rc != 0) {
        BF_ERROR("ctrlplane", "cannot start: %s", why);
        return rc;
    }
    p->lock_fd = p->args->region ? 0 : bf_own_take(p->conf->run_dir, BF_OWN_CTRLPLANE);
    if (p->lock_fd == BF_ERR_OWNED)
        BF_ERROR("ctrlplane",
                 "another control process owns %s: it lives, or is stopped (SIGSTOP). "
                 "End it first; two must never touch the rings",
                 p->conf->run_dir);
    else if (p->lock_fd < 0)
        BF_ERROR("ctrlplane", "node.run_dir: cannot lock %s/ctrlplane.lock: %s", p->conf->run_dir,
                 bf_err_text(p->lock_fd));
    return p->lock_fd;
}

int bf_ctrlplane_run(const struct bf_plane_args *args)
{
    static struct plane p; /* large, one a process */
    p.args = args;
    p.conf = args->conf;
    p.services.config_path = args->config_path;
    p.services.first_conf = args->conf;
    atomic_store(&p.services.conf, args->conf);
    if (own_side(&p) < 0 || open_all(&p) != 0)
        return 1;
    int rc = run(&p);
    if (rc == 0)
        close_all(&p);
    return rc;
}
