/*
 * What goes out by providers in `belfryctl status`: a table for the eye, a row a pool, and below a
 * row what is wrong or was. Colours and bars on a terminal only (NO_COLOR is honoured), plain text
 * elsewhere.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "belfry/base/text.h"
#include "ctl/ctl.h"

#define BAR_CELLS 10u
/* Longer names are cut in the table; --json has them whole. */
#define COLUMN_MAX 40

enum paint { PLAIN = 0, GOOD = 1, BUSY = 2, BAD = 3, FAINT = 4 };

struct look {
    bool has_colour;
    bool has_blocks; /* the terminal shows UTF-8 */
    int app_width, authority_width;
};

static bool says_utf8(const char *name)
{
    const char *value = getenv(name);
    return value && (strstr(value, "UTF-8") || strstr(value, "utf8"));
}

static struct look look_at_terminal(void)
{
    bool is_terminal = isatty(STDOUT_FILENO) == 1;
    bool is_utf8 = says_utf8("LC_ALL") || says_utf8("LC_CTYPE") || says_utf8("LANG");
    return (struct look){.has_colour = is_terminal && !getenv("NO_COLOR"),
                         .has_blocks = is_terminal && is_utf8,
                         .app_width = 3,
                         .authority_width = 9};
}

static void paint(const struct look *look, enum paint as)
{
    static const char *const codes[] = {"\033[0m", "\033[32m", "\033[33m", "\033[1;31m", "\033[2m"};
    if (look->has_colour)
        fputs(codes[as], stdout);
}

static unsigned long long number(yyjson_val *pool, const char *member)
{
    return (unsigned long long)bf_json_number(pool, member);
}

/* ---- one pool ---- */

/* In a word; the worst first. */
static const char *state_of(yyjson_val *pool, enum paint *ret)
{
    const char *breaker = bf_json_text(pool, "breaker");
    *ret = BAD;
    if (number(pool, "pool") == 0) {
        *ret = FAINT;
        return "unused";
    }
    if (bf_json_text(pool, "stopped_until")[0])
        return "STOPPED";
    if (!yyjson_get_bool(yyjson_obj_get(pool, "ready")))
        return "NOT READY";
    if (strcmp(breaker, "open") == 0)
        return "OPEN";
    *ret = BUSY;
    if (strcmp(breaker, "closed") != 0)
        return breaker;
    if (number(pool, "connections") == 0)
        return number(pool, "failures") > 0 ? "no connection" : "opening";
    if (bf_json_text(pool, "why")[0])
        return "token fails";
    *ret = GOOD;
    return "ok";
}

static void print_bar(const struct look *look, unsigned long long value, unsigned long long of)
{
    unsigned long long cells = of ? (value * BAR_CELLS + of - 1) / of : 0;
    cells = cells > BAR_CELLS ? BAR_CELLS : cells;
    for (unsigned i = 0; i < BAR_CELLS; i++) {
        paint(look, i < cells ? (cells > BAR_CELLS * 8 / 10 ? BUSY : GOOD) : FAINT);
        if (look->has_blocks)
            fputs(i < cells ? "\u2588" : "\u2591", stdout);
        else
            putchar(i < cells ? '#' : '.');
    }
    paint(look, PLAIN);
}

static void print_load(const struct look *look, yyjson_val *pool)
{
    char conns[48], streams[48];
    int len = snprintf(conns, sizeof(conns), "%llu", number(pool, "connections"));
    if (number(pool, "connecting"))
        snprintf(conns + len, sizeof(conns) - (size_t)len, "+%llu", number(pool, "connecting"));
    snprintf(streams, sizeof(streams), "%llu/%llu", number(pool, "streams"),
             number(pool, "streams_max"));
    printf("%6s  ", conns);
    print_bar(look, number(pool, "streams"), number(pool, "streams_max"));
    printf(" %-11s %7llu %8llu %8llu %7llu  ", streams, number(pool, "waiting"),
           number(pool, "flights"), number(pool, "failures"), number(pool, "goaways"));
}

static void print_row(const struct look *look, yyjson_val *pool)
{
    enum paint as;
    const char *state = state_of(pool, &as);
    const char *authority = bf_json_text(pool, "authority");
    printf("%-*.*s  %-8s  %-*.*s ", look->app_width,
           BF_CUT(bf_json_text(pool, "app"), (size_t)look->app_width), bf_json_text(pool, "kind"),
           look->authority_width,
           BF_CUT(authority[0] ? authority : "-", (size_t)look->authority_width));
    if (authority[0])
        print_load(look, pool);
    else
        printf("%6s  %-22s %7s %8s %8s %7s  ", "-", "-", "-", "-", "-", "-");
    paint(look, as);
    fputs(state, stdout);
    paint(look, PLAIN);
    putchar('\n');
}

/* A line below a pool, with its time if that is said. */
static void note(const struct look *look, enum paint as, const char *time, const char *text)
{
    paint(look, as);
    printf("    %s%.*s%s%.*s%s%s", time ? "at " : "", BF_CUT(time ? time : "", 10), time ? " " : "",
           BF_CUT(time && strlen(time) > 19 ? time + 11 : "", 8), time ? ": " : "", text);
    paint(look, PLAIN);
    putchar('\n');
}

/* Where its traffic goes while it cannot take any, and what went there before. */
static void print_failover(const struct look *look, yyjson_val *pool)
{
    char text[256];
    const char *failover = bf_json_text(pool, "failover");
    const char *at = bf_json_text(pool, "failed_over_at");
    const char *breaker = bf_json_text(pool, "breaker");
    bool is_out = strcmp(breaker, "open") == 0 || strcmp(breaker, "probe") == 0 ||
                  bf_json_text(pool, "stopped_until")[0] ||
                  (number(pool, "pool") != 0 && !yyjson_get_bool(yyjson_obj_get(pool, "ready")));
    if (is_out && failover[0]) {
        bf_format(text, sizeof(text), "its pushes go by app %s while it is out; %llu have so far",
                  failover, number(pool, "failed_over"));
        note(look, BUSY, NULL, text);
    } else if (is_out) {
        note(look, BUSY, NULL,
             "its pushes wait in the queue: push.apps names no failover for this app");
    } else if (at[0]) {
        bf_format(text, sizeof(text), "the last of %llu pushes that went by app %s",
                  number(pool, "failed_over"), failover[0] ? failover : "(none any more)");
        note(look, FAINT, at, text);
    }
}

/* What the numbers do not say. */
static void print_notes(const struct look *look, yyjson_val *pool)
{
    char text[256];
    const char *stopped = bf_json_text(pool, "stopped_until");
    const char *why = bf_json_text(pool, "why");
    const char *last_at = bf_json_text(pool, "last_at");
    if (stopped[0]) {
        snprintf(text, sizeof(text),
                 "the provider refuses its credential: nothing is sent until %.*s %.*s, or until "
                 "another one is configured",
                 BF_CUT(stopped, 10), BF_CUT(strlen(stopped) > 19 ? stopped + 11 : "", 8));
        note(look, BAD, NULL, text);
    }
    if (why[0])
        note(look, BAD, NULL, why);
    if (number(pool, "pool") == 0)
        note(look, FAINT, NULL, "no push to it yet: a device's endpoint names the push service");
    if (number(pool, "breaker_opened") > 0) {
        snprintf(text, sizeof(text), "breaker %s; it has opened %llu times",
                 bf_json_text(pool, "breaker"), number(pool, "breaker_opened"));
        note(look, FAINT, NULL, text);
    }
    print_failover(look, pool);
    if (number(pool, "rate_per_min") < number(pool, "limit_per_min")) {
        snprintf(text, sizeof(text), "throttled: %llu of %llu a minute",
                 number(pool, "rate_per_min"), number(pool, "limit_per_min"));
        note(look, BUSY, NULL, text);
    }
    if (last_at[0])
        note(look, FAINT, last_at, bf_json_text(pool, "last"));
}

/* ---- all ---- */

static void widen(int *width, const char *text)
{
    int len = (int)strlen(text);
    len = len > COLUMN_MAX ? COLUMN_MAX : len;
    if (len > *width)
        *width = len;
}

static void print_channel(const char *name, yyjson_val *channel)
{
    struct look look = look_at_terminal();
    yyjson_val *pools = yyjson_obj_get(channel, "pools");
    yyjson_val *pool;
    size_t i, max;
    if (number(channel, "apps") == 0) {
        printf("\n%s: no apps are configured (%s.apps), so no %s is sent\n", name, name, name);
        return;
    }
    printf("\n%s: %llu apps; in the queue: critical %llu, normal %llu, bulk %llu\n", name,
           number(channel, "apps"), number(channel, "queue.critical"),
           number(channel, "queue.normal"), number(channel, "queue.bulk"));
    yyjson_arr_foreach (pools, i, max, pool) {
        widen(&look.app_width, bf_json_text(pool, "app"));
        widen(&look.authority_width, bf_json_text(pool, "authority"));
    }
    printf("%-*s  %-8s  %-*s %6s  %-22s %7s %8s %8s %7s  %s\n", look.app_width, "app", "provider",
           look.authority_width, "authority", "conns", "requests in flight", "waiting", "flights",
           "failures", "goaways", "state");
    yyjson_arr_foreach (pools, i, max, pool) {
        print_row(&look, pool);
        print_notes(&look, pool);
    }
}

void bf_ctl_print_channels(yyjson_val *root)
{
    size_t i, max;
    yyjson_val *name, *member;
    yyjson_obj_foreach (root, i, max, name, member) /* a channel is what has pools */
        if (yyjson_is_arr(yyjson_obj_get(member, "pools")))
            print_channel(yyjson_get_str(name), member);
}
