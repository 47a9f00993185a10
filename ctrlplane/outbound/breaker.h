/*
 * Circuit breaker of one pool, i.e. one provider and credential (REL-4): opens at half of at least
 * 20 calls of the last minute failing, or at N failures in a row; stays open for 60 s; then one
 * probe; then a slow ramp. The caller passes the time; pure; one thread.
 *
 *   CLOSED --errors--> OPEN --60 s--> PROBE --ok--> RAMP --10 s without a trip--> CLOSED
 *                       ^---------fail---'             '--errors--> OPEN
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum bf_breaker_state {
    BF_BREAKER_CLOSED = 0,
    BF_BREAKER_OPEN = 1,
    BF_BREAKER_PROBE = 2, /* the next call is the probe, or it is out */
    BF_BREAKER_RAMP = 3,
    BF_BREAKER_STATE_COUNT
};
const char *bf_breaker_state_name(enum bf_breaker_state state);

#define BF_BREAKER_SECONDS 60u /* of the window, a bucket each */
/* Calls let through in each second of the ramp: 16, 32, ... 8,192; then closed. */
#define BF_BREAKER_RAMP_FIRST   16u
#define BF_BREAKER_RAMP_SECONDS 10u

struct bf_breaker_limits {
    uint32_t calls_min;     /* 20 */
    uint32_t error_percent; /* 50 */
    uint32_t in_a_row;      /* 10 */
    uint32_t open_ms;       /* 60,000 */
    uint32_t probe_ms;      /* after this long without an answer the next probe may go: 10,000 */
};
struct bf_breaker_limits bf_breaker_defaults(void);

struct bf_breaker {
    struct bf_breaker_limits limits;
    enum bf_breaker_state state;
    uint64_t since_ms; /* of the state; PROBE: when the probe left, 0: it has not */
    uint64_t second;   /* of the newest bucket */
    uint32_t calls[BF_BREAKER_SECONDS], errors[BF_BREAKER_SECONDS];
    uint32_t calls_sum, errors_sum;
    uint32_t in_a_row;
    uint32_t ramp_left; /* calls that this second of the ramp still lets through */
    uint64_t ramp_second;
    uint32_t opened_count; /* since init, for metrics */
};

void bf_breaker_init(struct bf_breaker *breaker, const struct bf_breaker_limits *limits,
                     uint64_t now_ms);
/* Whether a call may go now. False: *ret_wait_ms says when to ask again (store it until then). */
bool bf_breaker_try(struct bf_breaker *breaker, uint64_t now_ms, uint64_t *ret_wait_ms);
/* The call ended. |is_error|: BF_VERDICT_FAULT of its verdict; every other end is a success of the
 * provider. */
void bf_breaker_note(struct bf_breaker *breaker, uint64_t now_ms, bool is_error);
