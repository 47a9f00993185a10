/* See raw.h. Runs to its end inside one turn: a benchmark's floor, not a service. */
#include "worker/raw.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "worker/worker.h"

/* Completions of one batch: sends are through when submitted, so few rounds suffice. */
#define REAP_ROUNDS_MAX 1000u

static bool is_target(struct bf_worker *w, uint32_t slot)
{
    const struct bf_conn_hot *hot = bf_hot(&w->core, slot);
    return hot->state >= BF_CONN_OPEN && hot->state <= BF_CONN_LIVE && !(hot->flags & BF_CF_TLS);
}

static void note(struct bf_worker *w, int32_t res, uint32_t len)
{
    bf_worker_count(&w->core, BF_M_bytes_sent, res > 0 ? (uint64_t)res : 0);
    bf_worker_count(&w->core, BF_M_sends_failed, res != (int32_t)len);
}

/* Takes |due| completions of ours (the normal path has no send under way, see trigger); the others
 * are acted on as in any turn. */
static void reap(struct bf_worker *w, uint32_t due, uint32_t len)
{
    struct bf_raw *raw = w->raw;
    for (uint32_t round = 0; due > 0 && round < REAP_ROUNDS_MAX; round++) {
        bf_io_submit(w->io);
        uint32_t n = bf_io_reap(w->io, w->events, BF_REAP_PER_TURN);
        for (uint32_t i = 0; i < n; i++) {
            const struct bf_io_event *event = &w->events[i];
            if (event->op == BF_IO_SEND && !(bf_hot(&w->core, event->slot)->ops & BF_OP_SEND)) {
                note(w, event->res, len);
                due--;
            } else if (event->op == BF_IO_INSTALL) {
                raw->fds[event->slot] = event->res;
                due--;
            } else {
                bf_react_event(w, event);
            }
        }
    }
}

/* Over all sockets in batches of io_uring requests: sends of the block, or installs (bytes NULL).
 */
static void walk(struct bf_worker *w, const uint8_t *bytes, uint32_t len)
{
    uint32_t batch = 0;
    for (uint32_t slot = 0; (slot = bf_conns_skip(&w->core.conns, slot)) < w->core.conns.cap;
         slot++) {
        if (!is_target(w, slot))
            continue;
        if (bytes) {
            bf_io_send(w->io, bf_sock_of(w, slot), bytes, len);
            bf_worker_count(&w->core, BF_M_sends, 1);
        } else {
            if (w->raw->fds[slot] > 0)
                close(w->raw->fds[slot]);
            bf_io_install(w->io, bf_sock_of(w, slot));
            w->raw->generations[slot] = bf_cold(&w->core, slot)->generation;
        }
        if (++batch == BF_RAW_BATCH) {
            reap(w, batch, len);
            batch = 0;
        }
    }
    reap(w, batch, len);
}

static void plain(struct bf_worker *w, const uint8_t *bytes, uint32_t len)
{
    for (uint32_t slot = 0; (slot = bf_conns_skip(&w->core.conns, slot)) < w->core.conns.cap;
         slot++) {
        int fd = w->raw->fds[slot];
        if (fd <= 0 || !is_target(w, slot) ||
            w->raw->generations[slot] != bf_cold(&w->core, slot)->generation)
            continue;
        ssize_t n = send(fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        bf_worker_count(&w->core, BF_M_sends, 1);
        note(w, (int32_t)n, len);
    }
}

static bool trigger(void *context, const struct bf_cmd_broadcast *cmd)
{
    struct bf_worker *w = context;
    const struct bf_block *block = &bf_blocks(w->core.region)[cmd->block.index];
    const uint8_t *bytes = bf_block_data(w->core.region, block);
    if (cmd->topic != BF_RAW_URING && cmd->topic != BF_RAW_SEND && cmd->topic != BF_RAW_INSTALL)
        return false;
    /* what the turn has prepared goes out first, so that its completions are not taken for ours */
    bf_io_submit(w->io);
    while (bf_react(w) > 0)
        bf_io_submit(w->io);
    if (cmd->topic == BF_RAW_URING)
        walk(w, bytes, block->len);
    else if (cmd->topic == BF_RAW_INSTALL)
        walk(w, NULL, 0);
    else
        plain(w, bytes, block->len);
    bf_worker_count(&w->core, BF_M_broadcasts, 1);
    return true;
}

int bf_raw_init(struct bf_worker *w)
{
    uint32_t slots = w->core.conns.cap;
    struct bf_raw *raw = bf_arena_take(&w->arena, "raw mode", 1, sizeof(*raw));
    if (!raw)
        return BF_ERR_NO_MEMORY;
    raw->worker = w;
    raw->fds = bf_arena_take(&w->arena, "raw descriptors", slots, sizeof(*raw->fds));
    raw->generations = bf_arena_take(&w->arena, "raw generations", slots, sizeof(uint32_t));
    if (!raw->fds || !raw->generations)
        return BF_ERR_NO_MEMORY;
    w->raw = raw;
    w->commands.raw = trigger;
    w->commands.raw_context = w;
    BF_INFO("dataplane", "worker %u: --raw: broadcasts on three reserved topics are benchmarks",
            w->core.worker);
    return 0;
}
