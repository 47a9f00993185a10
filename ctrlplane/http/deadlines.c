/*
 * Deadlines, and who goes when room is needed. All connections of a state have the same time for
 * it, so a list in the order of arrival is sorted by deadline: looking costs one comparison a
 * state, moving a connection a few writes.
 */
#include "http/server.h"

#include "belfry/base/time.h"

/* Closing means waiting for the client to see the answer: a round trip and some. */
#define CLOSING_MS 2000u
/* A head that has come so far in this time may give way to others. */
#define HEAD_SLOW_MS 500u
/* The longest sleep. Nothing depends on it, because a stop wakes threads by itself. */
#define SLEEP_MS_MAX 60000u

/* 0: no deadline. */
static uint32_t allowed_ms(const struct bf_http *http, enum bf_http_conn_state state)
{
    const struct bf_http_limits *limits = &http->options.limits;
    switch (state) {
    case BF_HTTP_CONN_HEAD:
        return limits->head_ms;
    case BF_HTTP_CONN_BODY:
        return limits->body_ms;
    case BF_HTTP_CONN_WRITING:
        return limits->write_ms;
    case BF_HTTP_CONN_IDLE:
        return limits->idle_ms;
    case BF_HTTP_CONN_CLOSING:
        return CLOSING_MS;
    case BF_HTTP_CONN_WORKING: /* the log, or who else has it, has deadlines of its own */
    case BF_HTTP_CONN_STATE_COUNT:
    default:
        return 0;
    }
}

static void tell_count(struct bf_http_thread *t, enum bf_http_conn_state state)
{
    bf_http_set(&t->gauges->states[state], t->lists[state].count);
    if (state == BF_HTTP_CONN_IDLE || state == BF_HTTP_CONN_HEAD)
        bf_http_set(&t->idle,
                    t->lists[BF_HTTP_CONN_IDLE].count + t->lists[BF_HTTP_CONN_HEAD].count);
}

void bf_http_conn_leave(struct bf_http_conn *c)
{
    struct bf_http_conn_list *list = &c->thread->lists[c->state];
    if (!c->is_listed)
        return;
    if (c->prev)
        c->prev->next = c->next;
    else
        list->head = c->next;
    if (c->next)
        c->next->prev = c->prev;
    else
        list->tail = c->prev;
    list->count--;
    c->is_listed = false;
    tell_count(c->thread, c->state);
}

void bf_http_conn_enter(struct bf_http_conn *c, enum bf_http_conn_state state)
{
    struct bf_http_thread *t = c->thread;
    struct bf_http_conn_list *list = &t->lists[state];
    uint32_t ms = allowed_ms(t->http, state);
    bf_http_conn_leave(c);
    c->state = state;
    c->due_ms = ms > 0 ? t->now_ms + ms : 0;
    c->moved = 0;
    c->prev = list->tail;
    c->next = NULL;
    if (list->tail)
        list->tail->next = c;
    else
        list->head = c;
    list->tail = c;
    list->count++;
    c->is_listed = true;
    tell_count(t, state);
}

int bf_deadlines_wait_ms(const struct bf_http_thread *t)
{
    uint64_t first = t->listen_again_ms ? t->listen_again_ms : UINT64_MAX;
    for (unsigned i = 0; i < BF_HTTP_CONN_STATE_COUNT; i++) {
        const struct bf_http_conn *c = t->lists[i].head;
        if (c && c->due_ms > 0 && c->due_ms < first)
            first = c->due_ms;
    }
    if (first <= t->now_ms)
        return 0;
    return first - t->now_ms < SLEEP_MS_MAX ? (int)(first - t->now_ms) : (int)SLEEP_MS_MAX;
}

/* Enough has moved since the deadline was set: there is another. */
static bool is_fast_enough(const struct bf_http_conn *c)
{
    const struct bf_http_limits *limits = &c->thread->http->options.limits;
    uint64_t ms = c->state == BF_HTTP_CONN_BODY ? limits->body_ms : limits->write_ms;
    bool is_measured = c->state == BF_HTTP_CONN_BODY || c->state == BF_HTTP_CONN_WRITING;
    return is_measured && c->moved >= limits->rate_min * ms / 1000;
}

/* Requests have begun since the deadline was set, and never had to wait: one that sends faster than
 * it is served is still in the list where its first request found it, and neither idle nor slow. */
static bool renew_busy(struct bf_http_conn *c)
{
    if (!c->has_begun || (c->state != BF_HTTP_CONN_IDLE && c->state != BF_HTTP_CONN_HEAD))
        return false;
    c->has_begun = false;
    bf_http_conn_enter(c, c->state);
    return true;
}

void bf_deadlines_pass(struct bf_http_thread *t)
{
    for (unsigned i = 0; i < BF_HTTP_CONN_STATE_COUNT; i++) {
        /* each round takes the head out of the list, or to its end with a deadline to come */
        for (struct bf_http_conn *c = t->lists[i].head;
             c && c->due_ms > 0 && c->due_ms <= t->now_ms; c = t->lists[i].head) {
            if (renew_busy(c))
                continue;
            if (is_fast_enough(c))
                bf_http_conn_enter(c, c->state);
            else
                bf_http_conn_cut(c, c->state);
        }
    }
}

/* The longest idle; where none is, whoever has owed the rest of a head for longest: half requests
 * keep nobody out, and nothing is lost with them. */
static struct bf_http_conn *whom_to_evict(struct bf_http_thread *t)
{
    struct bf_http_conn *idle, *slow;
    while ((idle = t->lists[BF_HTTP_CONN_IDLE].head) && renew_busy(idle))
        continue;
    while ((slow = t->lists[BF_HTTP_CONN_HEAD].head) && renew_busy(slow))
        continue;
    if (idle)
        return idle;
    uint64_t since_ms = slow ? slow->due_ms - t->http->options.limits.head_ms : 0;
    return slow && slow->due_ms > 0 && since_ms + HEAD_SLOW_MS <= t->now_ms ? slow : NULL;
}

bool bf_deadlines_evict(struct bf_http_thread *t)
{
    struct bf_http_conn *c = whom_to_evict(t);
    if (!c)
        return false;
    bf_http_tell(&t->http->stats->evicted);
    bf_http_conn_end(c);
    return true;
}
