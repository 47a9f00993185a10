/*
 * The worker's loop. One turn is a list of bounded steps; no step waits. What arrives in a turn
 * leaves in the same turn: commands are taken before sends, sends before the one submit (urgent
 * ones have a submit of their own while a broadcast is walked).
 */
#include <time.h>

#include "belfry/base/time.h"
#include "belfry/conf/conf.h"
#include "session/life.h"
#include "worker/worker.h"

static void read_clocks(struct bf_worker *w)
{
    struct bf_worker_core *core = &w->core;
    core->mono_ms = bf_mono_ms();
    core->wall_ms = bf_wall_ms();
    core->tick = (uint32_t)((core->mono_ms - w->start_ms) / BF_TICK_MS);
}

static uint32_t run_timers(struct bf_worker *w)
{
    uint32_t looked = 0;
    while (looked < BF_TIMERS_PER_TURN) {
        uint32_t slot = bf_wheel_take(&w->core.wheel, &w->core.conns, w->core.tick);
        if (slot == BF_SLOT_NONE)
            break;
        bf_life_look(&w->core, slot);
        looked++;
    }
    return looked;
}

static void submit(struct bf_worker *w)
{
    if (BF_UNLIKELY(w->commands.stamp_ns != 0)) {
        uint64_t now_ns = bf_mono_ns();
        if (now_ns > w->commands.stamp_ns)
            bf_hist_add(&w->core.stats->command_to_send_ns, now_ns - w->commands.stamp_ns);
        w->commands.stamp_ns = 0;
    }
    bf_io_submit(w->io);
    w->copied = 0; /* sends are through: their copies are free */
}

/* Frames that must not wait for a broadcast leave before the next slice is queued: rings are
 * submitted one after the other, so in the same submit they would come after a whole slice of an
 * earlier ring. */
static uint32_t send_urgent(struct bf_worker *w)
{
    const struct bf_urgent *urgent = &w->core.urgent;
    uint32_t count = urgent->tail - urgent->head;
    if (count == 0 || w->commands.broadcasts.head == w->commands.broadcasts.tail)
        return 0; /* without a broadcast the turn's one submit follows at once */
    count = bf_tx_run(w, count);
    submit(w);
    return count;
}

static void check_accepts(struct bf_worker *w)
{
    const struct bf_conns *conns = &w->core.conns;
    bool may_accept = w->stop_ms == 0 && conns->used < conns->limit;
    for (uint32_t ring = 0; ring < conns->group_count; ring++)
        bf_io_accept_check(w->io, ring, may_accept);
}

static void set_gauges(struct bf_worker *w)
{
    bf_metric_set(w->core.stats, BF_M_connections, bf_io_open(w->io));
    bf_metric_set(w->core.stats, BF_M_connections_welcomed, w->core.welcomed);
}

static void check_stop(struct bf_worker *w)
{
    /* relaxed: a flag, nothing is published with it */
    if (w->stop_ms != 0 || atomic_load_explicit(&w->stop, memory_order_relaxed) == 0)
        return;
    w->stop_ms = w->core.mono_ms;
    bf_push_stop(&w->push);
    uint64_t rate = w->core.conns.used;
    bf_commands_drain(&w->commands, rate < 1000 ? 1000 : rate, BF_STOP_RECONNECT_MS);
}

bool bf_worker_turn(struct bf_worker *w)
{
    uint64_t start_ns = bf_mono_ns();
    uint32_t done = 0;
    read_clocks(w);
    bf_packs_turn(&w->core.packs);
    check_stop(w);
    bf_snapshot_check(w);
    done += bf_react(w);
    bf_rx_retry(w);
    bf_secure_turn(w);
    done += bf_commands_turn(&w->commands);
    done += send_urgent(w);
    uint32_t waiting = bf_ready_count(&w->core);
    /* a slice is added only if the sends keep up */
    bool more =
        bf_commands_jobs(&w->commands, waiting < BF_SENDS_PER_SLICE ? BF_SENDS_PER_SLICE : 0);
    done += bf_tx_run(w, BF_SENDS_PER_TURN);
    more |= bf_provider_turn(w); /* after the people */
    done += run_timers(w);
    done += bf_io_queued(w->io);
    submit(w);
    (void)bf_worker_core_flush_outbox(&w->core);
    bf_worker_count(&w->core, BF_M_blocks_returned, bf_holds_flush(&w->core.holds));
    check_accepts(w);
    set_gauges(w);
    uint64_t ns = bf_mono_ns() - start_ns;
    bf_worker_count(&w->core, BF_M_turns, 1);
    bf_worker_count(&w->core, BF_M_busy_ns, ns);
    if (done > 0)
        bf_hist_add(&w->core.stats->turn_ns, ns);
    return done > 0 || more || bf_ready_count(&w->core) > 0 || bf_secure_has_work(w);
}

/* Something waits for the other process, or for its time: look again soon. */
static bool is_impatient(const struct bf_worker *w)
{
    return w->core.receipts.dirty_count > 0 || w->core.receipts.masked_count > 0 ||
           w->commands.census.active || w->commands.drain.rate > 0 || w->commands.work_due ||
           w->stop_ms != 0 || w->blocked.count > 0 || w->rx_wait.count > 0 ||
           bf_push_is_impatient(&w->push);
}

static void sleep_until_bell(struct bf_worker *w)
{
    struct bf_doorbell *bell = bf_worker_bell(w->core.region, w->core.worker);
    uint32_t timeout_ms = is_impatient(w) ? BF_IMPATIENT_MS : BF_DOORBELL_TIMEOUT_MS;
    bf_snapshot_none(w);
    bf_doorbell_arm(bell);
    bool waiting = bf_commands_has_waiting(&w->commands) && !w->commands.work_due;
    if (!waiting && !bf_io_has_events(w->io)) {
        bf_worker_count(&w->core, BF_M_sleeps, 1);
        bool timed_out = bf_io_sleep(w->io, bell, timeout_ms);
        /* still armed: nobody has rung, and yet there is work. relaxed: our own store, or a waker's
         * exchange, which says that a wake was sent */
        bool still_armed = atomic_load_explicit(&bell->arm, memory_order_relaxed) == 1;
        if (timed_out && still_armed && !w->commands.work_due &&
            bf_commands_has_waiting(&w->commands))
            bf_worker_count(&w->core, BF_M_wakes_by_timeout, 1);
    }
    bf_doorbell_disarm(bell);
}

static bool is_over(const struct bf_worker *w)
{
    return w->stop_ms != 0 &&
           ((bf_io_open(w->io) == 0 && bf_push_is_idle(&w->push) && w->providers.open == 0) ||
            w->core.mono_ms - w->stop_ms > BF_STOP_DRAIN_MS);
}

void bf_worker_loop(struct bf_worker *w)
{
    while (!is_over(w)) {
        bool busy = bf_worker_turn(w);
        if (!busy && !w->opts.conf->busy_poll)
            sleep_until_bell(w);
    }
}
