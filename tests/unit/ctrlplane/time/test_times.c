/* RFC 3339 and times of records: tables of what is taken and what is not. */
#include <criterion/criterion.h>

#include "time/record_time.h"
#include "time/rfc3339.h"

static const struct {
    const char *text;
    uint64_t ms;
} times[] = {
    {"1970-01-01T00:00:00Z", 0},
    {"1970-01-01T00:00:00.001Z", 1},
    {"2026-01-01T00:00:00Z", 1767225600000},
    {"2026-01-01t00:00:00z", 1767225600000},
    {"2026-01-01 02:30:00+02:30", 1767225600000},
    {"2025-12-31T22:00:00-02:00", 1767225600000},
    {"2026-01-01T00:00:00.123456789Z", 1767225600123},
    {"2024-02-29T12:00:00Z", 1709208000000},
    {"2000-02-29T00:00:00Z", 951782400000},
    {"2016-12-31T23:59:60Z", 1483228799000},
    {"9999-12-31T23:59:59Z", 253402300799000},
};

static const char *const bad_times[] = {
    "",
    "2026-01-01",
    "2026-01-01T00:00:00",
    "2026-1-01T00:00:00Z",
    "2026-13-01T00:00:00Z",
    "2026-00-01T00:00:00Z",
    "2025-02-29T00:00:00Z",
    "1900-02-29T00:00:00Z",
    "2026-01-32T00:00:00Z",
    "2026-01-01T24:00:00Z",
    "2026-01-01T00:60:00Z",
    "2026-01-01T00:00:61Z",
    "2026-01-01T00:00:00.Z",
    "2026-01-01T00:00:00+2:00",
    "2026-01-01T00:00:00+24:00",
    "2026-01-01T00:00:00Zx",
    "1969-12-31T23:59:59Z",
    "1970-01-01T00:00:00+01:00",
    "20260101T000000Z",
};

Test(rfc3339, table)
{
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        uint64_t ms = 7;
        cr_assert(bf_rfc3339_parse((struct bf_bytes){times[i].text, strlen(times[i].text)}, &ms),
                  "%s", times[i].text);
        cr_assert_eq(ms, times[i].ms, "%s -> %llu", times[i].text, (unsigned long long)ms);
    }
    for (size_t i = 0; i < sizeof(bad_times) / sizeof(bad_times[0]); i++) {
        uint64_t ms = 7;
        cr_assert_not(bf_rfc3339_parse((struct bf_bytes){bad_times[i], strlen(bad_times[i])}, &ms),
                      "%s", bad_times[i]);
        cr_assert_eq(ms, 7, "untouched on failure");
    }
}

Test(rfc3339, formats_what_it_parses)
{
    char text[BF_RFC3339_BYTES_MAX];
    bf_rfc3339_format(1709208000123, text);
    cr_assert_str_eq(text, "2024-02-29T12:00:00.123Z");
}

Test(rfc3339, whatever_is_formatted_is_a_date)
{
    const uint64_t instants[] = {
        0, 1, 253402300799999u, 253402300800000u, UINT64_MAX / 1000, UINT64_MAX};
    char text[BF_RFC3339_BYTES_MAX];
    uint64_t ms;
    for (unsigned i = 0; i < sizeof(instants) / sizeof(instants[0]); i++) {
        bf_rfc3339_format(instants[i], text);
        cr_assert(bf_rfc3339_parse((struct bf_bytes){text, strlen(text)}, &ms), "%s", text);
        cr_assert_eq(strlen(text), 24);
    }
    cr_assert_str_eq(text, "9999-12-31T23:59:59.999Z");
    cr_assert(bf_rfc3339_is_valid(BF_BYTES("0001-01-01T00:00:00Z")));
    cr_assert_not(bf_rfc3339_is_valid(BF_BYTES("0001-13-01T00:00:00Z")));
}

Test(record_time, becomes_a_time_of_this_world)
{
    const uint64_t now = UINT64_C(1767225600000); /* 2026-01-01 */
    const uint64_t minute = 60000;
    const struct {
        int64_t written;
        uint64_t ms;
        bool is_odd;
    } cases[] = {
        {(int64_t)now, now, false},
        {(int64_t)(now - minute), now - minute, false},
        {(int64_t)(now + minute), now + minute, false}, /* clocks differ */
        {(int64_t)(now / 1000), now, true},
        {(int64_t)(now * 1000), now, true},
        {(int64_t)(now * 1000000), now, true},
        {(int64_t)(now + 60 * minute), now, true},
        {946684800000, 946684800000, false}, /* 2000: long past, but a time */
        {1, now, true},
        {0, now, false}, /* none was given */
        {-1, now, false},
        {-2, now, true},
        {INT64_MIN, now, true},
        {INT64_MAX, now, true},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bool is_odd;
        cr_assert_eq(bf_time_from_record(cases[i].written, now, &is_odd), cases[i].ms, "%u", i);
        cr_assert_eq(is_odd, cases[i].is_odd, "%u", i);
    }
}
