/* See retry.h. */
#include "outbound/retry.h"

uint64_t bf_backoff_ms(uint32_t attempts)
{
    uint64_t wait_ms = BF_BACKOFF_FIRST_MS;
    for (uint32_t i = 1; i < attempts && wait_ms < BF_BACKOFF_MAX_MS; i++)
        wait_ms *= BF_BACKOFF_FACTOR;
    return wait_ms < BF_BACKOFF_MAX_MS ? wait_ms : BF_BACKOFF_MAX_MS;
}

uint64_t bf_retry_at(const struct bf_retry *retry)
{
    if (retry->attempts >= BF_ATTEMPTS_MAX)
        return 0;
    /* full jitter: any time within the wait, or those that failed together would come back together
     */
    uint64_t at_ms =
        retry->now_ms + retry->floor_ms + retry->random % (bf_backoff_ms(retry->attempts) + 1);
    return at_ms < retry->expires_ms ? at_ms : 0;
}

void bf_retry_budget_init(struct bf_retry_budget *budget, uint64_t now_ms)
{
    *budget =
        (struct bf_retry_budget){.hundredths = BF_RETRY_BUDGET_FLOOR * 100u, .refilled_ms = now_ms};
}

static void add(struct bf_retry_budget *budget, uint64_t hundredths)
{
    const uint64_t max = BF_RETRY_BUDGET_MAX * UINT64_C(100);
    budget->hundredths =
        hundredths >= max - budget->hundredths ? max : budget->hundredths + hundredths;
}

void bf_retry_budget_earn(struct bf_retry_budget *budget, uint32_t first_attempts)
{
    add(budget, (uint64_t)first_attempts * BF_RETRY_BUDGET_PERCENT);
}

bool bf_retry_budget_take(struct bf_retry_budget *budget, uint64_t now_ms)
{
    if (now_ms > budget->refilled_ms) {
        add(budget, (now_ms - budget->refilled_ms) * BF_RETRY_BUDGET_FLOOR / 10);
        budget->refilled_ms = now_ms;
    }
    if (budget->hundredths < 100)
        return false;
    budget->hundredths -= 100;
    return true;
}
