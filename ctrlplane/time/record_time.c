/* See record_time.h. */
#include "time/record_time.h"

/* 2000-01-01: before it nobody wrote events; less, read as milliseconds, is another unit. */
#define EARLIEST_MS 946684800000u
/* What clocks may differ by; a record from further ahead has another unit or no time at all. */
#define AHEAD_MS (5u * 60u * 1000u)

bool bf_time_is_plausible(uint64_t ms, uint64_t now_ms)
{
    return ms >= EARLIEST_MS && ms <= now_ms + AHEAD_MS;
}

uint64_t bf_time_from_record(int64_t written, uint64_t now_ms, bool *ret_is_odd)
{
    const uint64_t at = written > 0 ? (uint64_t)written : 0;
    /* milliseconds first; then what a clock in seconds, microseconds, nanoseconds writes */
    const uint64_t units[] = {at, at < UINT64_MAX / 1000 ? at * 1000 : 0, at / 1000, at / 1000000};
    *ret_is_odd = false;
    if (written <= 0 && written >= -1)
        return now_ms; /* none was given */
    for (unsigned i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (bf_time_is_plausible(units[i], now_ms)) {
            *ret_is_odd = i > 0;
            return units[i];
        }
    }
    *ret_is_odd = true;
    return now_ms;
}
