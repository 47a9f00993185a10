/*
 * When a leg is tried again (REL-2): after an exponential backoff with full jitter, added to what
 * the provider asked for; within a budget of retries; and never after the TTL. The caller passes
 * the time; pure. A budget belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* 5 s, 15 s, 45 s, ... (REL-2). */
#define BF_BACKOFF_FIRST_MS 5000u
#define BF_BACKOFF_FACTOR   3u
/* An hour: 14 attempts fill half a day, most TTLs. */
#define BF_BACKOFF_MAX_MS 3600000u
/* After these attempts it is dead-lettered, whatever its TTL: 30 days of hourly tries are no
 * delivery. */
#define BF_ATTEMPTS_MAX 40u

struct bf_retry {
    uint32_t attempts; /* made, this one included: 1 after the first */
    uint64_t now_ms;
    uint64_t expires_ms;
    uint32_t floor_ms; /* of the verdict */
    uint64_t random;   /* 64 random bits */
};

/* Greatest wait after |attempts|, before jitter. */
uint64_t bf_backoff_ms(uint32_t attempts);
/* The time of the next attempt, or 0: there is none (expired by then, or too many). Never before
 * now + floor_ms, at a random time within the backoff that follows it. */
uint64_t bf_retry_at(const struct bf_retry *retry);

/*
 * A budget: each first attempt earns a fraction of a retry, each retry costs one. When it is empty
 * retries wait in the queue, so that a provider in trouble does not get several times the requests.
 */
#define BF_RETRY_BUDGET_PERCENT 20u /* retries for 100 first attempts */
#define BF_RETRY_BUDGET_FLOOR                                                                      \
    10u /* retries a second whatever the traffic: a quiet node heals too                           \
         */
#define BF_RETRY_BUDGET_MAX 10000u /* retries saved up in good times */

struct bf_retry_budget {
    uint64_t hundredths; /* of a retry */
    uint64_t refilled_ms;
};

void bf_retry_budget_init(struct bf_retry_budget *budget, uint64_t now_ms);
void bf_retry_budget_earn(struct bf_retry_budget *budget, uint32_t first_attempts);
/* Whether one retry may go now; takes it. */
bool bf_retry_budget_take(struct bf_retry_budget *budget, uint64_t now_ms);
