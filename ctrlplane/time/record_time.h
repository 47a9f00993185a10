/* The time that somebody else wrote on a record, checked once: whatever it is, what comes out is a
 * time of this world, in epoch milliseconds. Pure; any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* |written|: Kafka's timestamp (-1: none). Seconds, microseconds and nanoseconds are recognised, as
 * producers write them by mistake; what is no time in any unit, or far ahead of |now_ms|, becomes
 * now. Both set |*ret_is_odd|. A time long past stays: such an event is stale. One a little ahead
 * stays too: clocks differ, and a record that is read again must have the time that it had. */
uint64_t bf_time_from_record(int64_t written, uint64_t now_ms, bool *ret_is_odd);
/* Whether it can be the time of an event that exists at |now_ms|. */
bool bf_time_is_plausible(uint64_t ms, uint64_t now_ms);
