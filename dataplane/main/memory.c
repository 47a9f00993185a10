/*
 * See memory.h. The sum is not computed a second time: a worker's memory is mapped as at a start
 * (which touches nothing), read out by holder, and given back. What the kernel and OpenSSL take is
 * not ours to sum up: figures measured elsewhere, and said to be.
 */
#include "main/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/conf/conf.h"
#include "belfry/plane.h"
#include "worker/worker.h"

/* Measured, Linux 6.18 (docs/PERFORMANCE.md): an idle TCP socket with everything that belongs to
 * it, its multishot poll, and an idle TLS 1.3 session of OpenSSL 3 with released buffers. */
#define KERNEL_SOCKET_BYTES 5600u
#define KERNEL_POLL_BYTES   263u
#define TLS_SESSION_BYTES   14100u
/* Under tls.lean (its unit test), and what Linux 6.12 takes besides under tls.kernel: slabs. */
#define TLS_LEAN_BYTES   260u
#define TLS_KERNEL_BYTES 1900u
/* Measured by perf/run ws-idle at 18,000 connections: what an idle one touches of the pieces above.
 */
#define IDLE_TOUCHED_BYTES 242u
#define LINE_BYTES         512u

struct sum {
    uint64_t region, worker, idle, sockets, polls, tls;
};

/* What a TLS session takes by the configuration, and where. */
struct tls_kind {
    const char *text;
    uint32_t bytes;
};

static struct tls_kind tls_kind_of(const struct bf_conf *conf)
{
    if (conf->tls_kernel)
        return (struct tls_kind){"TLS keys, here and in the kernel",
                                 TLS_LEAN_BYTES + TLS_KERNEL_BYTES};
    if (conf->tls_lean)
        return (struct tls_kind){"TLS keys", TLS_LEAN_BYTES};
    return (struct tls_kind){"OpenSSL sessions", TLS_SESSION_BYTES};
}

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    char line[LINE_BYTES];
    va_list args;
    va_start(args, format);
    int n = (int)bf_vformat(line, sizeof(line), format, args);
    va_end(args);
    ssize_t written = n > 0 ? write(STDOUT_FILENO, line, strnlen(line, sizeof(line))) : 0;
    (void)written; /* nowhere left to complain */
}

static unsigned long kib(uint64_t bytes)
{
    return (unsigned long)((bytes + 1023u) / 1024u);
}

static double mb(uint64_t bytes)
{
    return (double)bytes / 1e6;
}

static void print_pieces(const struct bf_arena *arena, bool json)
{
    if (json)
        say("\"worker\":[");
    for (uint32_t i = 0; i < arena->count; i++) {
        const struct bf_arena_piece *p = &arena->pieces[i];
        if (json)
            say("%s{\"holder\":\"%s\",\"count\":%lu,\"item_bytes\":%lu,\"bytes\":%lu}",
                i ? "," : "", p->holder, (unsigned long)p->count, (unsigned long)p->item_bytes,
                (unsigned long)p->mapped_bytes);
        else
            say("  %-22s %9lu x %6lu B = %9lu KiB\n", p->holder, (unsigned long)p->count,
                (unsigned long)p->item_bytes, kib(p->mapped_bytes));
    }
    if (json)
        say("],");
}

static void print_text(const struct bf_worker *w, const struct sum *s)
{
    const struct bf_conf *conf = w->opts.conf;
    say("one worker, %u connections, %u rings; at most, touched as it is needed:\n",
        conf->connections_max, w->opts.plan.rings);
    print_pieces(&w->arena, false);
    say("  %-42s = %9lu KiB\n\n", "at most", kib(s->worker));
    say("%-44s = %9.1f MB  taken at start\n", "shared region, hugepages", mb(s->region));
    say("%-44s = %9.1f MB  measured elsewhere: %u B each\n", "idle connections touch of the above",
        mb(s->idle), IDLE_TOUCHED_BYTES);
    say("%-44s = %9.1f MB  measured elsewhere: %u B each\n", "kernel: sockets", mb(s->sockets),
        KERNEL_SOCKET_BYTES);
    say("%-44s = %9.1f MB  measured elsewhere: %u B each\n", "kernel: polls", mb(s->polls),
        KERNEL_POLL_BYTES);
    if (s->tls)
        say("%-44s = %9.1f MB  measured elsewhere: %u B each\n", tls_kind_of(conf).text, mb(s->tls),
            tls_kind_of(conf).bytes);
    say("%-44s = %9.1f MB  %u workers\n", "idle, in all",
        mb(s->region + (s->idle + s->sockets + s->polls + s->tls) * conf->workers), conf->workers);
}

static void print_json(const struct bf_worker *w, const struct sum *s)
{
    const struct bf_conf *conf = w->opts.conf;
    say("{\"connections\":%u,\"workers\":%u,", conf->connections_max, conf->workers);
    print_pieces(&w->arena, true);
    say("\"worker_bytes_max\":%lu,\"region_bytes\":%lu,\"idle_touched_bytes\":%lu,"
        "\"kernel_socket_bytes\":%lu,\"kernel_poll_bytes\":%lu,\"tls_bytes\":%lu,"
        "\"measured_elsewhere\":[\"idle_touched_bytes\",\"kernel_socket_bytes\","
        "\"kernel_poll_bytes\",\"tls_bytes\"],",
        (unsigned long)s->worker, (unsigned long)s->region, (unsigned long)s->idle,
        (unsigned long)s->sockets, (unsigned long)s->polls, (unsigned long)s->tls);
    say("\"idle_total_bytes\":%lu}\n",
        (unsigned long)(s->region + (s->idle + s->sockets + s->polls + s->tls) * conf->workers));
}

static int map_and_print(struct bf_worker *w, const struct bf_memory_wish *wish, uint64_t region)
{
    struct bf_worker_memory memory;
    uint64_t n = w->opts.conf->connections_max;
    int rc = bf_worker_map(w, &memory);
    if (rc == 0) {
        const struct sum sum = {.region = region,
                                .worker = w->arena.bytes,
                                .idle = n * IDLE_TOUCHED_BYTES,
                                .sockets = n * KERNEL_SOCKET_BYTES,
                                .polls = n * KERNEL_POLL_BYTES,
                                .tls = wish->tls ? n * tls_kind_of(w->opts.conf).bytes : 0};
        if (wish->json)
            print_json(w, &sum);
        else
            print_text(w, &sum);
    }
    bf_worker_unmap(w);
    return rc;
}

int bf_memory_print(struct bf_conf *conf, const struct bf_memory_wish *wish)
{
    if (wish->connections)
        conf->connections_max = wish->connections;
    struct bf_region *region = NULL;
    size_t bytes = bf_region_bytes(conf);
    /* its header alone is wanted, for the number of blocks */
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct bf_worker *w = calloc(1, sizeof(*w));
    const struct bf_io_opts io = {.listeners = conf->cert_count > 0 ? 2 : 1,
                                  .backlog = conf->ws_backlog,
                                  .workers = conf->workers,
                                  .connections_max = conf->connections_max,
                                  .ring_connections_max = conf->ring_connections_max,
                                  .outgoing_max = conf->push_connections_max};
    int rc = memory == MAP_FAILED || !w ? BF_ERR_NO_MEMORY
                                        : bf_region_create(memory, bytes, conf, &region);
    if (rc == 0) {
        w->opts = (struct bf_worker_opts){.region = region, .conf = conf, .io = io};
        w->core.region = region;
        rc = bf_io_plan(&io, &w->opts.plan);
    }
    if (rc == 0)
        rc = map_and_print(w, wish, bytes);
    if (rc != 0)
        BF_ERROR("dataplane", "no sum for %u connections: %s", conf->connections_max,
                 bf_err_text(rc));
    free(w);
    if (memory != MAP_FAILED)
        (void)munmap(memory, bytes);
    return rc == 0 ? 0 : 1;
}
