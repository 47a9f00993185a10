/* See bucket.h. */
#include "outbound/bucket.h"

#define TOKEN UINT64_C(60000) /* one token in units of tokens_x60k: rate per minute x ms */

static uint64_t capacity(const struct bf_bucket *b)
{
    uint64_t burst = b->rate_per_min * BF_BUCKET_BURST_MS;
    /* at least one token above what is kept for retries, else first attempts would wait for ever */
    return burst > 2 * TOKEN ? burst : 2 * TOKEN;
}

void bf_bucket_init(struct bf_bucket *b, uint64_t limit_per_min, uint64_t now_ms)
{
    *b = (struct bf_bucket){
        .limit_per_min = limit_per_min, .rate_per_min = limit_per_min, .refilled_ms = now_ms};
    b->tokens_x60k = capacity(b);
}

static void grow(struct bf_bucket *b, uint64_t now_ms)
{
    if (b->rate_per_min == b->limit_per_min || now_ms < b->cut_ms + BF_BUCKET_CALM_MS)
        return;
    uint64_t from_ms =
        b->grown_ms > b->cut_ms + BF_BUCKET_CALM_MS ? b->grown_ms : b->cut_ms + BF_BUCKET_CALM_MS;
    uint64_t steps = (now_ms - from_ms) / BF_BUCKET_GROW_MS;
    if (steps > 100 / BF_BUCKET_GROW_PERCENT)
        steps = 100 / BF_BUCKET_GROW_PERCENT;
    uint64_t more = (b->limit_per_min * BF_BUCKET_GROW_PERCENT + 99) / 100 * steps;
    b->rate_per_min =
        more >= b->limit_per_min - b->rate_per_min ? b->limit_per_min : b->rate_per_min + more;
    if (steps > 0)
        b->grown_ms = now_ms;
}

static void refill(struct bf_bucket *b, uint64_t now_ms)
{
    grow(b, now_ms);
    if (now_ms <= b->refilled_ms)
        return;
    uint64_t passed_ms = now_ms - b->refilled_ms;
    uint64_t max = capacity(b);
    passed_ms = passed_ms < 60000 ? passed_ms : 60000; /* a minute fills it whatever the rate */
    b->tokens_x60k += passed_ms * b->rate_per_min;
    b->tokens_x60k = b->tokens_x60k < max ? b->tokens_x60k : max;
    b->refilled_ms = now_ms;
}

bool bf_bucket_take(struct bf_bucket *b, uint64_t now_ms, bool is_retry, uint64_t *ret_wait_ms)
{
    *ret_wait_ms = 0;
    if (b->limit_per_min == 0)
        return true;
    refill(b, now_ms);
    uint64_t kept = is_retry ? 0 : capacity(b) * BF_BUCKET_RETRY_PERCENT / 100;
    if (b->tokens_x60k >= kept + TOKEN) {
        b->tokens_x60k -= TOKEN;
        return true;
    }
    uint64_t missing = kept + TOKEN - b->tokens_x60k;
    *ret_wait_ms = (missing + b->rate_per_min - 1) / b->rate_per_min;
    return false;
}

void bf_bucket_cut(struct bf_bucket *b, uint64_t now_ms)
{
    if (b->limit_per_min == 0 || (b->cut_count > 0 && now_ms < b->cut_ms + BF_BUCKET_CUT_PAUSE_MS))
        return;
    uint64_t floor = (b->limit_per_min * BF_BUCKET_FLOOR_PERCENT + 99) / 100;
    refill(b, now_ms);
    b->rate_per_min = b->rate_per_min / 2 > floor ? b->rate_per_min / 2 : floor;
    b->tokens_x60k = 0; /* there was more than they take */
    b->cut_ms = b->grown_ms = now_ms;
    b->cut_count++;
}
