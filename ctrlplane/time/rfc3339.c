/* RFC 3339 to epoch milliseconds and back; see rfc3339.h. No time zone data, no locale: pure. */
#include "time/rfc3339.h"

#include <stdio.h>
#include <time.h>

#include "belfry/base/text.h"

struct cursor {
    const char *at;
    const char *end;
    bool failed;
};

static unsigned digits(struct cursor *c, unsigned count)
{
    unsigned value = 0;
    if ((size_t)(c->end - c->at) < count) {
        c->failed = true;
        return 0;
    }
    for (unsigned i = 0; i < count; i++, c->at++) {
        if (*c->at < '0' || *c->at > '9')
            c->failed = true;
        value = value * 10 + (unsigned)(*c->at - '0');
    }
    return value;
}

static char one_of(struct cursor *c, const char *allowed)
{
    char got = c->at < c->end ? *c->at++ : '\0';
    for (const char *a = allowed; *a; a++) {
        if (got == *a)
            return got;
    }
    c->failed = true;
    return '\0';
}

/* ".123456789" -> 123; further digits are cut. */
static unsigned fraction_ms(struct cursor *c)
{
    unsigned scale = 100;
    unsigned ms = 0;
    if (c->at == c->end || *c->at != '.')
        return 0;
    c->at++;
    if (c->at == c->end || *c->at < '0' || *c->at > '9')
        c->failed = true;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++, scale /= 10)
        ms += (unsigned)(*c->at - '0') * scale;
    return ms;
}

/* Minutes east of UTC. */
static int offset_minutes(struct cursor *c)
{
    char sign = one_of(c, "Zz+-");
    if (sign != '+' && sign != '-')
        return 0;
    unsigned hours = digits(c, 2);
    one_of(c, ":");
    unsigned minutes = digits(c, 2);
    if (hours > 23 || minutes > 59)
        c->failed = true;
    int total = (int)(hours * 60 + minutes);
    return sign == '-' ? -total : total;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return month == 2 && is_leap ? 29 : days[month - 1];
}

/* Days since 1970-01-01 of a Gregorian date (years from March, so that the leap day is the last).
 */
static int64_t days_since_epoch(unsigned year, unsigned month, unsigned day)
{
    int64_t y = (int64_t)year - (month <= 2);
    int64_t era = y / 400;
    int64_t year_of_era = y - era * 400;
    int64_t month_from_march = (month + 9) % 12;
    int64_t day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

/* Epoch milliseconds, which are negative before 1970. */
static bool parse(struct bf_bytes text, int64_t *ret_ms)
{
    struct cursor c = {.at = text.at, .end = text.at + text.len};
    unsigned year = digits(&c, 4);
    one_of(&c, "-");
    unsigned month = digits(&c, 2);
    one_of(&c, "-");
    unsigned day = digits(&c, 2);
    one_of(&c, "Tt ");
    unsigned hour = digits(&c, 2);
    one_of(&c, ":");
    unsigned minute = digits(&c, 2);
    one_of(&c, ":");
    unsigned second = digits(&c, 2);
    unsigned ms = fraction_ms(&c);
    int east = offset_minutes(&c);
    if (c.failed || c.at != c.end || month < 1 || month > 12 || day < 1 ||
        day > days_in_month(year, month) || hour > 23 || minute > 59 || second > 60)
        return false;
    if (second == 60)
        second = 59;
    int64_t minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute - east;
    int64_t total = (minutes * 60 + second) * 1000 + ms;
    *ret_ms = total;
    return true;
}

bool bf_rfc3339_parse(struct bf_bytes text, uint64_t *ret_ms)
{
    int64_t ms;
    if (!parse(text, &ms) || ms < 0)
        return false;
    *ret_ms = (uint64_t)ms;
    return true;
}

bool bf_rfc3339_is_valid(struct bf_bytes text)
{
    int64_t ms;
    return parse(text, &ms);
}

void bf_rfc3339_format(uint64_t ms, char out[BF_RFC3339_BYTES_MAX])
{
    if (ms > BF_RFC3339_MS_MAX)
        ms = BF_RFC3339_MS_MAX;
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    char text[64];
    gmtime_r(&seconds, &tm);
    size_t len = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(text + len, sizeof(text) - len, ".%03uZ", (unsigned)(ms % 1000));
    snprintf(out, BF_RFC3339_BYTES_MAX, "%.*s", BF_CUT(text, 24));
}
