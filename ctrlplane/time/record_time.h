/* Checks the time that somebody else wrote on a record. Whatever was written, the result is a
 * plausible time in epoch milliseconds. Pure; any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* |written|: Kafka's timestamp (-1: none). Seconds, microseconds and nanoseconds, which producers
 * write by mistake, are recognised and converted; what is no time in any unit, or far in the
 * future, becomes |now_ms|. Both set |*ret_is_odd|. A time long past is kept: such an event is
 * stale. So is one a little in the future: clocks differ, and a record that is read again must get
 * the same time again. */
uint64_t bf_time_from_record(int64_t written, uint64_t now_ms, bool *ret_is_odd);
/* Whether it can be the time of an event that exists at |now_ms|. */
bool bf_time_is_plausible(uint64_t ms, uint64_t now_ms);
