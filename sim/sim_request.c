/* An HTTP/2 request meets the fault script, then its provider: see sim_conn.h. */
#include <stdio.h>

#include "sim_conn.h"
#include "sim_provider.h"

#define GOAWAY_WAIT_NS                                                                             \
    50000000ull /* for streams to leave unprocessed; then it is sent without them */

uint32_t sim_streams_wanted(struct sim_conn *c)
{
    struct sim_fault *f = sim_conn_fault(c, SIM_STREAM_LIMIT);
    if (f && c->streams >= f->after_streams)
        return f->limit;
    /* APNs gives one stream until it has seen good credentials */
    bool locked =
        c->provider == SIM_APNS && !c->peer.authenticated && c->peer.cert == SIM_CERT_NONE;
    return locked ? 1 : c->w->sim->streams_max;
}

static void count_fault(struct sim_conn *c, struct sim_fault *f)
{
    atomic_fetch_add_explicit(&f->fired, 1, memory_order_relaxed); /* a statistic */
    sim_count(&c->w->counters[c->provider].faults, 1);
}

/* ---- faults of a connection ---- */

/* A frame that RFC 9113 forbids, chosen by the worker's random numbers. */
static void spoil(struct sim_conn *c)
{
    static const struct {
        uint8_t bytes[20];
        uint8_t n;
    } frames[] = {
        {{0, 0, 4, SIM_H2_DATA, 1, 0, 0, 0, 0, 'o', 'o', 'p', 's'}, 13},  /* DATA on stream 0 */
        {{0, 0, 5, SIM_H2_SETTINGS, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0}, 14},   /* SETTINGS of 5 bytes */
        {{0xff, 0xff, 0xff, SIM_H2_DATA, 0, 0, 0, 0, 1, 0}, 10},          /* a frame of 16 MB */
        {{0, 0, 4, SIM_H2_WINDOW_UPDATE, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 13}, /* increment 0 */
        {{0, 0, 3, SIM_H2_HEADERS, 4, 0, 0, 0, 1, 0xff, 0xff, 0xff},
         12},                                                      /* HPACK index beyond all */
        {{0, 0, 1, SIM_H2_CONTINUATION, 4, 0, 0, 0, 1, 0x88}, 10}, /* CONTINUATION of nothing */
        {{0, 0, 4, SIM_H2_PUSH_PROMISE, 4, 0, 0, 0, 1, 0, 0, 0, 2},
         13}, /* push, which nobody allowed */
        {{'H', 'T', 'T', 'P', '/', '1', '.', '1', ' ', '2', '0', '0', '\r', '\n', '\r', '\n'}, 16},
    };
    unsigned which = (unsigned)(sim_rng_next(&c->w->rng) % (sizeof(frames) / sizeof(frames[0])));
    uint8_t *at = sim_conn_out(c, frames[which].n);
    if (at)
        memcpy(at, frames[which].bytes, frames[which].n);
    c->state = SIM_CONN_SPOILT;
}

static void begin_endless(struct sim_conn *c)
{
    static const uint8_t ok = 0x88;                           /* :status 200 */
    sim_h2_frame(c, SIM_H2_HEADERS, 0, c->newest_id, &ok, 1); /* without END_HEADERS */
    c->state = SIM_CONN_ENDLESS;
}

static bool fires(struct sim_conn *c, struct sim_stream *s, enum sim_fault_kind kind)
{
    struct sim_fault *f = sim_conn_fault(c, kind);
    if (!f || c->streams <= f->after_streams || (kind == SIM_RESET && f->how[0]))
        return false;
    count_fault(c, f);
    sim_worker_unprocessed(c->w, s, sim_fault_kind_name(kind));
    return true;
}

/* Faults that end the connection as a connection. True when this request is lost to one. */
static bool conn_faults(struct sim_conn *c, struct sim_stream *s)
{
    const uint32_t kinds =
        1u << SIM_RESET | 1u << SIM_HALF_OPEN | 1u << SIM_NONSENSE | 1u << SIM_ENDLESS_HEADERS;
    if (!(c->w->script->kinds & kinds))
        return false;
    if (fires(c, s, SIM_RESET))
        sim_conn_close(c, true);
    else if (fires(c, s, SIM_HALF_OPEN))
        sim_conn_freeze(c);
    else if (fires(c, s, SIM_NONSENSE))
        spoil(c);
    else if (fires(c, s, SIM_ENDLESS_HEADERS))
        begin_endless(c);
    else
        return false;
    return true;
}

/* ---- GOAWAY with unprocessed streams ---- */

static void send_goaway(struct sim_conn *c)
{
    char debug[128] = "";
    if (c->provider == SIM_APNS)
        snprintf(debug, sizeof(debug), "{\"reason\":\"%s\"}", c->goaway_reason);
    sim_h2_goaway(c, c->goaway_last, SIM_H2_NO_ERROR, debug);
}

static void plan_goaway(struct sim_conn *c, struct sim_fault *f)
{
    struct sim_delay_row row = {c->w->now_ns + GOAWAY_WAIT_NS, c->slot, c->w->generations[c->slot],
                                0, SIM_DELAY_GOAWAY};
    c->goaway_last = c->newest_id;
    c->goaway_drop = f->drop;
    snprintf(c->goaway_reason, sizeof(c->goaway_reason), "%s",
             f->reason[0] ? f->reason : "Shutdown");
    count_fault(c, f);
    if (f->drop == 0 || !sim_delay_push(&c->w->delay, row))
        send_goaway(c);
}

/* What comes above the last stream is held, never looked at, and disowned by the GOAWAY. */
static bool goaway_takes(struct sim_conn *c, struct sim_stream *s)
{
    if (c->goaway_last == 0)
        return false;
    sim_worker_unprocessed(c->w, s, "goaway");
    if (++c->goaway_held >= c->goaway_drop)
        send_goaway(c);
    return true;
}

/* ---- faults of a stream ---- */

/* True when the stream gets no answer of a provider. */
static bool stream_faults(struct sim_conn *c, struct sim_stream *s)
{
    struct sim_worker *w = c->w;
    const uint32_t kinds = 1u << SIM_REFUSE_STREAM | 1u << SIM_STALL | 1u << SIM_RESET;
    if (!(w->script->kinds & kinds))
        return false;
    if (sim_script_draw(w->script, SIM_REFUSE_STREAM, c->provider, w->ctx.now_ms, &w->rng)) {
        sim_worker_unprocessed(w, s, "refuse_stream");
        sim_h2_reset(c, s, SIM_H2_REFUSED_STREAM, false);
        return true;
    }
    if (sim_script_draw(w->script, SIM_STALL, c->provider, w->ctx.now_ms, &w->rng)) {
        sim_worker_unprocessed(w, s, "stall");
        return true;
    }
    struct sim_fault *f = sim_script_active(w->script, SIM_RESET, c->provider, w->ctx.now_ms);
    if (!f || !f->how[0] || sim_rng_unit(&w->rng) >= f->rate)
        return false;
    count_fault(c, f);
    sim_worker_unprocessed(w, s, "reset");
    sim_h2_reset(c, s, SIM_H2_INTERNAL_ERROR, strcmp(f->how, "mid") == 0);
    return true;
}

/* ---- the request ---- */

void sim_on_request(struct sim_conn *c, struct sim_stream *s)
{
    c->streams++;
    c->newest_id = s->id;
    if (goaway_takes(c, s) || conn_faults(c, s) || stream_faults(c, s))
        return;
    uint64_t wait_ns = sim_worker_decide(c->w, s);
    if (s->a.authenticated)
        c->peer.authenticated = true;
    struct sim_fault *f = sim_conn_fault(c, SIM_GOAWAY);
    if (f && c->streams >= f->after_streams)
        plan_goaway(c, f);
    struct sim_delay_row row = {c->w->now_ns + wait_ns, c->slot, c->w->generations[c->slot], s->id,
                                SIM_DELAY_ANSWER};
    s->waiting = wait_ns > 0 && sim_delay_push(&c->w->delay, row);
    if (!s->waiting)
        sim_h2_answer(c, s);
}

void sim_on_delay(struct sim_conn *c, const struct sim_delay_row *row)
{
    if (row->kind == SIM_DELAY_GOAWAY) {
        send_goaway(c);
        return;
    }
    struct sim_stream *s = row->kind == SIM_DELAY_ANSWER ? sim_h2_find(c, row->stream) : NULL;
    if (!s || !s->waiting)
        return;
    s->waiting = false;
    sim_h2_answer(c, s);
}
