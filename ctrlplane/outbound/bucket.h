/*
 * Token bucket of one provider limit (PSH-4: FCM 600,000 a minute a project), with a share kept for
 * retries. Throttling halves its rate, quiet time grows it back. The caller passes the time; pure;
 * one thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Of the bucket, that first attempts leave to retries. */
#define BF_BUCKET_RETRY_PERCENT 10u
/* A cut halves the rate; answers to what was in flight already do not cut again for this long. */
#define BF_BUCKET_CUT_PAUSE_MS 1000u
/* After a cut the rate stays for this long, then grows by 5% of the limit every 3 s: back after a
 * minute. */
#define BF_BUCKET_CALM_MS      10000u
#define BF_BUCKET_GROW_MS      3000u
#define BF_BUCKET_GROW_PERCENT 5u
/* Never below a hundredth of the limit, because without any call nobody would notice that the
 * throttling is over. */
#define BF_BUCKET_FLOOR_PERCENT 1u
/* What may go at once: a second's worth. Google asks to ramp up rather than step. */
#define BF_BUCKET_BURST_MS 1000u

struct bf_bucket {
    uint64_t limit_per_min;
    uint64_t rate_per_min; /* <= limit */
    uint64_t tokens_x60k;  /* tokens x 60,000: no fraction is lost */
    uint64_t refilled_ms, cut_ms, grown_ms;
    uint32_t cut_count;
};

/* |limit_per_min| 0: no limit. */
void bf_bucket_init(struct bf_bucket *bucket, uint64_t limit_per_min, uint64_t now_ms);
/* One call. False: *ret_wait_ms says when there will be a token. */
bool bf_bucket_take(struct bf_bucket *bucket, uint64_t now_ms, bool is_retry,
                    uint64_t *ret_wait_ms);
/* The provider throttled (BF_VERDICT_CUT_RATE). */
void bf_bucket_cut(struct bf_bucket *bucket, uint64_t now_ms);
