/* See breaker.h. */
#include "outbound/breaker.h"

#include <string.h>

const char *bf_breaker_state_name(enum bf_breaker_state state)
{
    static const char *const names[BF_BREAKER_STATE_COUNT] = {"closed", "open", "probe", "ramp"};
    return (unsigned)state < BF_BREAKER_STATE_COUNT ? names[state] : "?";
}

struct bf_breaker_limits bf_breaker_defaults(void)
{
    return (struct bf_breaker_limits){
        .calls_min = 20, .error_percent = 50, .in_a_row = 10, .open_ms = 60000, .probe_ms = 10000};
}

static void forget(struct bf_breaker *b, uint64_t now_ms)
{
    memset(b->calls, 0, sizeof(b->calls));
    memset(b->errors, 0, sizeof(b->errors));
    b->calls_sum = b->errors_sum = b->in_a_row = 0;
    b->second = now_ms / 1000;
}

void bf_breaker_init(struct bf_breaker *b, const struct bf_breaker_limits *limits, uint64_t now_ms)
{
    *b = (struct bf_breaker){.limits = *limits, .since_ms = now_ms};
    forget(b, now_ms);
}

static void enter(struct bf_breaker *b, enum bf_breaker_state state, uint64_t since_ms)
{
    b->state = state;
    b->since_ms = since_ms;
}

/* Empties the buckets of the seconds that have passed. */
static void turn(struct bf_breaker *b, uint64_t now_ms)
{
    uint64_t second = now_ms / 1000;
    if (second >= b->second + BF_BREAKER_SECONDS) {
        uint32_t in_a_row = b->in_a_row;
        forget(b, now_ms);
        b->in_a_row = in_a_row; /* a row has no window */
        return;
    }
    while (b->second < second) {
        uint32_t at = (uint32_t)(++b->second % BF_BREAKER_SECONDS);
        b->calls_sum -= b->calls[at];
        b->errors_sum -= b->errors[at];
        b->calls[at] = b->errors[at] = 0;
    }
}

static bool try_ramp(struct bf_breaker *b, uint64_t now_ms, uint64_t *ret_wait_ms)
{
    uint64_t second = now_ms > b->since_ms ? (now_ms - b->since_ms) / 1000 : 0;
    if (second >= BF_BREAKER_RAMP_SECONDS) {
        enter(b, BF_BREAKER_CLOSED, now_ms);
        return true;
    }
    if (second != b->ramp_second) {
        b->ramp_second = second;
        b->ramp_left = BF_BREAKER_RAMP_FIRST << second;
    }
    if (b->ramp_left > 0) {
        b->ramp_left--;
        return true;
    }
    *ret_wait_ms = b->since_ms + (second + 1) * 1000 - now_ms;
    return false;
}

bool bf_breaker_try(struct bf_breaker *b, uint64_t now_ms, uint64_t *ret_wait_ms)
{
    uint64_t until_ms = b->since_ms + b->limits.open_ms;
    *ret_wait_ms = 0;
    if (b->state == BF_BREAKER_OPEN && now_ms < until_ms) {
        *ret_wait_ms = until_ms - now_ms;
        return false;
    }
    if (b->state == BF_BREAKER_OPEN)
        enter(b, BF_BREAKER_PROBE, 0);
    if (b->state == BF_BREAKER_PROBE) {
        uint64_t lost_ms = b->since_ms + b->limits.probe_ms;
        if (b->since_ms != 0 && now_ms < lost_ms) {
            *ret_wait_ms = lost_ms - now_ms;
            return false;
        }
        b->since_ms = now_ms > 0 ? now_ms : 1; /* 0 says that none is out */
        return true;
    }
    if (b->state == BF_BREAKER_RAMP)
        return try_ramp(b, now_ms, ret_wait_ms);
    return true;
}

static bool is_tripped(const struct bf_breaker *b)
{
    if (b->limits.in_a_row > 0 && b->in_a_row >= b->limits.in_a_row)
        return true;
    return b->calls_sum >= b->limits.calls_min &&
           (uint64_t)b->errors_sum * 100 >= (uint64_t)b->calls_sum * b->limits.error_percent;
}

static void open(struct bf_breaker *b, uint64_t now_ms)
{
    enter(b, BF_BREAKER_OPEN, now_ms);
    b->opened_count++;
    forget(b, now_ms); /* what failed together is judged once */
}

void bf_breaker_note(struct bf_breaker *b, uint64_t now_ms, bool is_error)
{
    if (b->state == BF_BREAKER_OPEN)
        return; /* an answer to a call from before the last change of state */
    if (b->state == BF_BREAKER_PROBE) {
        if (is_error) {
            open(b, now_ms);
            return;
        }
        forget(b, now_ms);
        enter(b, BF_BREAKER_RAMP, now_ms);
        b->ramp_second = 0;
        b->ramp_left = BF_BREAKER_RAMP_FIRST;
        return;
    }
    turn(b, now_ms);
    uint32_t at = (uint32_t)(b->second % BF_BREAKER_SECONDS);
    b->calls[at]++;
    b->calls_sum++;
    b->errors[at] += is_error;
    b->errors_sum += is_error;
    b->in_a_row = is_error ? b->in_a_row + 1 : 0;
    if (is_tripped(b))
        open(b, now_ms);
}
