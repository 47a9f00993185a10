/*
 * Start and stop of the dataplane: lock, EAL, region, listeners, workers, announcement; then only a
 * heartbeat. At the stop the workers close their connections in order, and everything is undone in
 * reverse order. In belfry-dev the region is given and EAL is up. Main thread (of the plane).
 */
#include "main/dataplane.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/explain.h"
#include "belfry/base/log.h"
#include "belfry/base/port.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf_table.h"
#include "belfry/plane.h"
#include "belfry/shm/layout.h"
#include "belfry/shm/own.h"
#include "io/ktls.h"
#include "main/eal.h"
#include "main/first_config.h"
#include "worker/worker.h"

/* The main thread looks at the stop flag and beats this often. */
#define BEAT_MS 50u

struct plane {
    const struct bf_conf *conf;
    struct bf_region *region;
    bool owns_region;
    enum bf_dataplane_mode mode;
    int lock_fd;
    uint16_t port;
    uint16_t tls_port;    /* 0: no certificates, no listener */
    uint32_t ktls_suites; /* of which the kernel makes records */
    uint32_t started;     /* threads */
    uint32_t listening;
    struct bf_worker *workers;
    struct bf_arena arena; /* what workers share */
    struct bf_address_counts addresses;
    pthread_t threads[BF_WORKERS_MAX];
    int listen_fds[BF_WORKERS_MAX][BF_IO_LISTENERS_MAX]; /* by worker, as opts.listen_fds */
    uint8_t *config;
    size_t config_len;
};

static void beat(struct bf_region *region)
{
    /* relaxed: an alarm for people, orders nothing */
    atomic_store_explicit(&region->data_heartbeat_ms, bf_mono_ms(), memory_order_relaxed);
}

static void pause_ms(uint32_t ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000u, .tv_nsec = (long)(ms % 1000u) * 1000000L},
              NULL);
}

/* Faults of tests: BELFRY_FAULT=<point>:<n>, as belfry/base/fault.h. 0: not this one. */
static uint32_t fault_of(const char *point)
{
    const char *spec = getenv("BELFRY_FAULT");
    size_t len = strlen(point);
    return spec && strncmp(spec, point, len) == 0 && spec[len] == ':'
               ? (uint32_t)strtoul(spec + len + 1, NULL, 10)
               : 0;
}

/* ---- start ---- */

static int make_run_dir(const struct bf_conf *conf)
{
    char why[512];
    int rc = bf_make_dir("node.run_dir", conf->run_dir, why, sizeof(why));
    if (rc != 0)
        BF_ERROR("dataplane", "%s", why);
    return rc;
}

static int take_lock(struct plane *plane)
{
    const char *run_dir = plane->conf->run_dir;
    int rc = make_run_dir(plane->conf);
    if (rc != 0)
        return rc;
    plane->lock_fd = bf_own_take(run_dir, BF_OWN_DATAPLANE);
    if (plane->lock_fd == BF_ERR_OWNED)
        BF_ERROR("dataplane", "another dataplane runs on %s (it holds dataplane.lock)", run_dir);
    else if (plane->lock_fd < 0)
        BF_ERROR("dataplane", "node.run_dir: cannot lock %s/dataplane.lock: %s", run_dir,
                 bf_err_text(plane->lock_fd));
    if (plane->lock_fd < 0)
        return plane->lock_fd;
    /* What `current` names is dead: with our lock held, ctrlplane would take it for living. */
    char current[BF_PATH_BYTES_MAX];
    snprintf(current, sizeof(current), "%s/current", run_dir);
    (void)unlink(current); /* absent at the first start */
    return 0;
}

static int refuse_port(int rc, const char *host, uint32_t port, uint32_t listener)
{
    char why[512];
    const char *option = listener == BF_LISTENER_TLS ? "tls.port" : "websocket.port";
    bf_port_explain(rc, host, (uint16_t)port, option, why, sizeof(why));
    BF_ERROR("dataplane", "%s", why);
    return rc;
}

static int listen_workers(struct plane *plane, uint32_t listener, const char *host, uint32_t port,
                          const struct bf_io_plan *plan, uint16_t *ret_port)
{
    const struct bf_conf *conf = plane->conf;
    struct bf_io_opts io = {.host = host,
                            .port = (uint16_t)port,
                            .user_timeout_ms = conf->presence_timeout_ms + conf->slow_timeout_ms};
    for (uint32_t i = 0; i < plane->conf->workers; i++) {
        int fd = bf_io_listen(&io, plan->backlog, ret_port);
        if (fd < 0)
            return refuse_port(fd, host, io.port, listener);
        io.port = *ret_port;
        plane->listen_fds[i][listener] = fd;
    }
    return 0;
}

/* One listener a worker; the first fixes the port when any free one is asked for. The claim on the
 * port ends when all of them listen; from then on another start finds the port in use. */
static int listen_all(struct plane *plane, uint32_t listener, const char *host, uint32_t port,
                      const struct bf_io_plan *plan, uint16_t *ret_port)
{
    int claim = port != 0 ? bf_port_claim(host, (uint16_t)port) : -1;
    if (port != 0 && claim < 0)
        return refuse_port(claim, host, port, listener);
    int rc = listen_workers(plane, listener, host, port, plan, ret_port);
    if (claim >= 0)
        close(claim);
    return rc;
}

static int open_listeners(struct plane *plane, const struct bf_io_plan *plan)
{
    const struct bf_conf *conf = plane->conf;
    for (uint32_t i = 0; i < BF_WORKERS_MAX; i++)
        for (uint32_t l = 0; l < BF_IO_LISTENERS_MAX; l++)
            plane->listen_fds[i][l] = -1;
    plane->listening = conf->workers;
    int rc = listen_all(plane, BF_LISTENER_PLAIN, conf->ws_host, conf->ws_port, plan, &plane->port);
    if (rc == 0 && conf->cert_count > 0)
        rc = listen_all(plane, BF_LISTENER_TLS, conf->tls_host, conf->tls_port, plan,
                        &plane->tls_port);
    return rc;
}

static int wait_started(const struct bf_worker *w)
{
    int status;
    /* acquire: pairs with the worker's release after its start */
    while ((status = atomic_load_explicit(&w->status, memory_order_acquire)) == 0)
        pause_ms(1);
    return status < 0 ? status : 0;
}

/* Said once, not by each worker. */
static void warn_of_cores(const struct bf_conf *conf)
{
    cpu_set_t cpus;
    uint32_t missing = 0;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) != 0)
        return;
    for (uint32_t core = conf->first_core; core < conf->first_core + conf->workers; core++)
        missing += core >= CPU_SETSIZE || !CPU_ISSET(core, &cpus);
    if (missing > 0)
        BF_WARN("dataplane",
                "%u of %u workers find no core of their own (dataplane.first_core %u; this process "
                "may use %d): they share cores",
                missing, conf->workers, conf->first_core, CPU_COUNT(&cpus));
}

static int start_workers(struct plane *plane)
{
    const struct bf_conf *conf = plane->conf;
    struct bf_io_opts io = {.host = conf->ws_host,
                            .backlog = conf->ws_backlog,
                            .listeners = conf->cert_count > 0 ? 2 : 1,
                            .workers = conf->workers,
                            .connections_max = conf->connections_max,
                            .ring_connections_max = conf->ring_connections_max,
                            .outgoing_max = conf->push_connections_max};
    struct bf_io_plan plan;
    int rc = bf_io_plan(&io, &plan);
    if (rc != 0) {
        BF_ERROR("dataplane", "no rings for %u connections: %s%s", conf->connections_max,
                 bf_err_text(rc),
                 rc == -EMFILE ? ". Raise the limit of open files of this process (LimitNOFILE of "
                                 "the service, ulimit -Hn)"
                               : "");
        return rc;
    }
    rc = bf_address_counts_init(&plane->addresses, &plane->arena,
                                (uint64_t)conf->connections_max * conf->workers);
    if (rc == 0)
        rc = open_listeners(plane, &plan);
    plane->workers = rc == 0 ? calloc(conf->workers, sizeof(struct bf_worker)) : NULL;
    if (!plane->workers)
        return rc != 0 ? rc : BF_ERR_NO_MEMORY;
    BF_INFO("dataplane", "%u workers, each %u rings of up to %u sockets", conf->workers, plan.rings,
            plan.accept_stop);
    warn_of_cores(conf);
    for (uint32_t i = 0; i < conf->workers && rc == 0; i++) {
        struct bf_worker *w = &plane->workers[i];
        io.stats = bf_stats(plane->region, i);
        io.worker = i;
        w->opts = (struct bf_worker_opts){
            .region = plane->region,
            .conf = conf,
            .index = i,
            .core = (int)(conf->first_core + i),
            .io = io,
            .plan = plan,
            .listen_fds = {plane->listen_fds[i][BF_LISTENER_PLAIN],
                           plane->listen_fds[i][BF_LISTENER_TLS]},
            .addresses = &plane->addresses,
            .ktls_suites = plane->ktls_suites,
            .tls_records_max = fault_of("tls_records"),
            .raw = plane->mode == BF_DATAPLANE_RAW,
            .echo = plane->mode == BF_DATAPLANE_ECHO,
            .first_config = plane->config,
            .first_config_len = plane->config_len,
        };
        rc = -pthread_create(&plane->threads[i], NULL, bf_worker_main, w);
        if (rc == 0) {
            plane->started++;
            rc = wait_started(w);
        }
    }
    return rc;
}

/* <run>/dataplane.options: what this start took of the options that only a start can take, a line
 * each, so that a reload of the control process can say which of them wait for the next one. */
static int write_options(const struct plane *plane)
{
    char path[BF_PATH_BYTES_MAX], fresh[BF_PATH_BYTES_MAX], value[BF_CONF_STR_BYTES_MAX];
    snprintf(path, sizeof(path), "%s/dataplane.options", plane->conf->run_dir);
    snprintf(fresh, sizeof(fresh), "%s/dataplane.options.new", plane->conf->run_dir);
    FILE *file = fopen(fresh, "we");
    if (!file)
        return -errno;
    for (unsigned i = 0; i < BF_CONF_OPTION_COUNT; i++) {
        const struct bf_conf_option *o = &bf_conf_options()[i];
        if (o->reload != BF_CONF_RELOAD_DATA)
            continue;
        bf_conf_value_text(plane->conf, o, value, sizeof(value));
        fprintf(file, "%s\t%s\n", o->path, value);
    }
    fprintf(file, "%s\t%u\n", BF_CONF_LIST_CERTS, plane->conf->cert_count);
    return fclose(file) == 0 && rename(fresh, path) == 0 ? 0 : -errno;
}

/* <run>/dataplane.ports by rename, and a line in the log: port 0 in the configuration means any. */
static int write_ports(const struct plane *plane)
{
    char path[BF_PATH_BYTES_MAX];
    char fresh[BF_PATH_BYTES_MAX];
    snprintf(path, sizeof(path), "%s/dataplane.ports", plane->conf->run_dir);
    snprintf(fresh, sizeof(fresh), "%s/dataplane.ports.new", plane->conf->run_dir);
    FILE *file = fopen(fresh, "we");
    if (!file)
        return -errno;
    char text[64];
    if (plane->tls_port != 0)
        snprintf(text, sizeof(text), "{\"ws\":%u,\"wss\":%u}", plane->port, plane->tls_port);
    else
        snprintf(text, sizeof(text), "{\"ws\":%u}", plane->port);
    fprintf(file, "%s\n", text);
    int rc = fclose(file) == 0 && rename(fresh, path) == 0 ? 0 : -errno;
    BF_INFO("dataplane", "listening %s", text);
    return rc;
}

/* Before the workers, who own the counters and must not wait for modules. */
static void probe_ktls(struct plane *plane)
{
    /* ktls_offered:7: the kernel promises all, whatever it keeps */
    uint32_t promised = fault_of("ktls_offered");
    int rc = promised ? (int)promised : bf_ktls_probe();
    plane->ktls_suites = rc > 0 ? (uint32_t)rc : 0;
    bf_metric_set(bf_stats(plane->region, 0), BF_M_ktls_offered, rc > 0);
    if (rc > 0)
        BF_DEBUG("dataplane",
                 "TLS records in the kernel: AES-128-GCM %s, AES-256-GCM %s, "
                 "ChaCha20-Poly1305 %s",
                 rc & 1 ? "yes" : "no", rc & 2 ? "yes" : "no", rc & 4 ? "yes" : "no");
    else
        BF_DEBUG("dataplane", "TLS records in the kernel: %s",
                 rc == -ENOENT ? "not offered" : strerror(-rc));
}

static int start(struct plane *plane)
{
    int rc;
    if (plane->owns_region) {
        if ((rc = take_lock(plane)) != 0 || (rc = bf_eal_start(plane->conf, &plane->region)) != 0)
            return rc;
    } else if ((rc = make_run_dir(plane->conf)) != 0) {
        return rc;
    }
    probe_ktls(plane);
    if ((rc = bf_first_config(plane->conf, &plane->config, &plane->config_len)) != 0 ||
        (rc = start_workers(plane)) != 0) {
        if (rc == BF_ERR_MALFORMED)
            BF_ERROR("dataplane", "a key or certificate of the configuration cannot be used: "
                                  "belfryctl config check says which, and why");
        return rc;
    }
    if ((rc = write_options(plane)) != 0 || (rc = write_ports(plane)) != 0)
        return rc;
    beat(plane->region);
    /* release: whoever sees it ready sees rings that are consumed; the ports are on file */
    atomic_store_explicit(&plane->region->data_ready, 1, memory_order_release);
    return plane->owns_region ? bf_eal_announce(plane->conf, plane->region) : 0;
}

/* ---- stop ---- */

static bool are_ended(const struct plane *plane)
{
    for (uint32_t i = 0; i < plane->started; i++) {
        int status = atomic_load_explicit(&plane->workers[i].status, memory_order_acquire);
        if (status == 1)
            return false;
    }
    return true;
}

static void stop_workers(struct plane *plane)
{
    for (uint32_t i = 0; i < plane->started; i++) {
        /* relaxed: a flag; the bell that follows has the fence */
        atomic_store_explicit(&plane->workers[i].stop, 1, memory_order_relaxed);
        (void)bf_doorbell_ring(bf_worker_bell(plane->region, i));
    }
    while (!are_ended(plane)) {
        beat(plane->region);
        pause_ms(5);
    }
    for (uint32_t i = 0; i < plane->started; i++)
        (void)pthread_join(plane->threads[i], NULL);
}

static void stop(struct plane *plane)
{
    char path[BF_PATH_BYTES_MAX];
    if (plane->region)
        stop_workers(plane);
    for (uint32_t i = 0; i < plane->listening; i++)
        for (uint32_t l = 0; l < BF_IO_LISTENERS_MAX; l++)
            if (plane->listen_fds[i][l] >= 0)
                close(plane->listen_fds[i][l]);
    if (plane->region)
        atomic_store_explicit(&plane->region->data_ready, 0, memory_order_release);
    free(plane->workers);
    bf_arena_fini(&plane->arena);
    free(plane->config);
    if (plane->lock_fd >= 0 || !plane->owns_region) {
        snprintf(path, sizeof(path), "%s/dataplane.ports", plane->conf->run_dir);
        (void)unlink(path);
    }
    if (plane->owns_region && plane->region)
        bf_eal_stop(plane->conf);
    if (plane->lock_fd >= 0)
        close(plane->lock_fd);
}

int bf_dataplane_run_as(const struct bf_plane_args *args, enum bf_dataplane_mode mode)
{
    struct plane plane = {.conf = args->conf,
                          .region = args->region,
                          .owns_region = args->region == NULL,
                          .mode = mode,
                          .lock_fd = -1};
    int rc = start(&plane);
    if (rc != 0)
        BF_ERROR("dataplane", "not started: %s", bf_err_text(rc));
    else
        BF_INFO("dataplane", "ready: contract %u, layout %016lx", BF_SHM_CONTRACT_VERSION,
                (unsigned long)plane.region->layout_hash);
    /* relaxed: set by a signal handler, nothing else is published with it */
    while (rc == 0 && atomic_load_explicit(args->stop, memory_order_relaxed) == 0) {
        beat(plane.region);
        pause_ms(BEAT_MS);
    }
    if (rc == 0)
        BF_INFO("dataplane", "stopping: connections are told to come back");
    stop(&plane);
    if (rc == 0)
        BF_INFO("dataplane", "stopped");
    return rc == 0 ? 0 : 1;
}

int bf_dataplane_run(const struct bf_plane_args *args)
{
    return bf_dataplane_run_as(args, BF_DATAPLANE_NORMAL);
}
