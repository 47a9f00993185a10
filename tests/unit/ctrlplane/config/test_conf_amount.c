/* Times, sizes and rates as people write them: spellings, refusals with their reasons, and that
 * what is printed is read as the same value (OPS-1). */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <time.h>

#include "belfry/conf/conf_load.h"

#define ROUNDS_PER_UNIT 20000u

/* Units that count things: their values are plain numbers. */
static const char *const things[] = {"",       "threads",  "core",     "connections",
                                     "port",   "frames",   "slots",    "blocks",
                                     "starts", "messages", "requests", "events"};
static const char *const amounts[] = {"ms",       "s",           "days",          "bytes",
                                      "MiB",      "bytes/s",     "connections/s", "deliveries/s",
                                      "frames/s", "requests/min"};

Test(amount, every_unit_of_the_table_is_one_or_the_other)
{
    for (unsigned i = 0; i < BF_CONF_OPTION_COUNT; i++) {
        const struct bf_conf_option *o = &bf_conf_options()[i];
        bool is_thing = false;
        for (size_t k = 0; k < sizeof(things) / sizeof(things[0]); k++)
            is_thing = is_thing || strcmp(things[k], o->unit) == 0;
        cr_expect_eq(bf_amount_of(o->unit) != NULL, !is_thing,
                     "%s: give the unit '%s' a row in bf_amount_of, or list it here as one that "
                     "counts things",
                     o->path, o->unit);
    }
}

/* ---- spellings ---- */

static const struct {
    const char *unit, *text;
    uint64_t value;
    const char *printed; /* NULL: as |text| */
} good[] = {
    {"ms", "0", 0, NULL},
    {"ms", "0s", 0, "0"},
    {"ms", "1500", 1500, "1500ms"},
    {"ms", "1ms", 1, NULL},
    {"ms", "30s", 30000, NULL},
    {"ms", "30000", 30000, "30s"},
    {"ms", "30000ms", 30000, "30s"},
    {"ms", "5min", 300000, NULL},
    {"ms", "5m", 300000, "5min"},
    {"ms", "60min", 3600000, "1h"},
    {"ms", "007s", 7000, "7s"},
    {"s", "10", 10, "10s"},
    {"s", "10s", 10, NULL},
    {"s", "3000ms", 3, "3s"},
    {"s", "75s", 75, NULL},
    {"s", "24h", 86400, "1d"},
    {"s", "90d", 7776000, NULL},
    {"s", "1w", 604800, "7d"},
    {"days", "270", 270, "270d"},
    {"days", "270d", 270, NULL},
    {"days", "2w", 14, "14d"},
    {"days", "48h", 2, "2d"},
    {"bytes", "1B", 1, NULL},
    {"bytes", "262144", 262144, "256KiB"},
    {"bytes", "256KiB", 262144, NULL},
    {"bytes", "16MiB", 16777216, NULL},
    {"bytes", "1000", 1000, "1000B"},
    {"MiB", "256", 256, "256MiB"},
    {"MiB", "256MiB", 256, NULL},
    {"MiB", "1GiB", 1024, NULL},
    {"MiB", "1TiB", 1048576, NULL},
    {"MiB", "2048KiB", 2, "2MiB"},
    {"MiB", "1048576B", 1, "1MiB"},
    {"bytes/s", "1024", 1024, "1KiB/s"},
    {"bytes/s", "1KiB/s", 1024, NULL},
    {"bytes/s", "300B/s", 300, NULL},
    {"connections/s", "500/s", 500, NULL},
    {"deliveries/s", "50000", 50000, "50000/s"},
    {"frames/s", "2000/s", 2000, NULL},
    {"requests/min", "1000/min", 1000, NULL},
    {"MiB", "18446744073709551615", UINT64_MAX, "18446744073709551615MiB"},
    {"ms", "18446744073709551615", UINT64_MAX, "18446744073709551615ms"},
};

Test(amount, good_spellings)
{
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        char why[BF_AMOUNT_WHY_BYTES] = "", text[BF_AMOUNT_TEXT_BYTES];
        const struct bf_amount *amount = bf_amount_of(good[i].unit);
        uint64_t value = ~good[i].value;
        cr_assert_eq(bf_amount_parse(amount, good[i].text, &value, why, sizeof(why)), 0,
                     "'%s' in %s: %s", good[i].text, good[i].unit, why);
        cr_expect_eq(value, good[i].value, "'%s' in %s is %llu", good[i].text, good[i].unit,
                     (unsigned long long)value);
        bf_amount_text(amount, value, text, sizeof(text));
        cr_expect_str_eq(text, good[i].printed ? good[i].printed : good[i].text);
    }
}

static const struct {
    const char *unit, *text, *why;
} bad[] = {
    {"ms", "", "does not begin with a number"},
    {"ms", "soon", "does not begin with a number"},
    {"ms", "s", "does not begin with a number"},
    {"ms", "+5s", "does not begin with a number"},
    {"ms", " 5s", "does not begin with a number"},
    {"ms", "0x10", "is more than one number and one unit"},
    {"ms", "-5", "is negative"},
    {"ms", "-5s", "is negative"},
    {"MiB", "-1GiB", "is negative"},
    {"ms", "10 s", "has a blank between number and unit"},
    {"ms", "10\ts", "has a blank between number and unit"},
    {"ms", "10s ", "has the unit 's ', which this option does not take"},
    {"ms", "1.5s", "has a fraction: take a smaller unit and a whole number"},
    {"ms", "1,5s", "has a fraction"},
    {"MiB", "0.5GiB", "has a fraction"},
    {"ms", "1h30min", "is more than one number and one unit"},
    {"ms", "10_000", "is more than one number and one unit"},
    {"ms", "10sec", "has the unit 'sec', which this option does not take"},
    {"ms", "10 seconds", "has a blank"},
    {"ms", "3mo", "has the unit 'mo'"},
    {"ms", "1y", "has the unit 'y'"},
    {"ms", "5us", "has the unit 'us'"},
    {"ms", "10S", "has the unit 'S', which is spelled 's'"},
    {"ms", "10MS", "has the unit 'MS', which is spelled 'ms'"},
    {"ms", "10Min", "has the unit 'Min', which is spelled 'min'"},
    {"ms", "10M", "has the unit 'M', which is spelled 'm'"},
    {"ms", "10K", "has the unit 'K', which this option does not take"},
    {"ms", "10MiB", "has the unit 'MiB', which this option does not take"},
    {"ms", "10/s", "has the unit '/s', which this option does not take"},
    {"s", "1500ms", "is not a whole number of s, which this option counts in"},
    {"s", "1ms", "is not a whole number of s"},
    {"days", "36h", "is not a whole number of days"},
    {"days", "1s", "is not a whole number of days"},
    {"MiB", "1KiB", "is not a whole number of MiB"},
    {"MiB", "1048577B", "is not a whole number of MiB"},
    {"bytes", "10s", "has the unit 's', which this option does not take"},
    {"bytes", "64KB", "write KiB (powers of two)"},
    {"bytes", "64kB",
     "has the unit 'kB', a power of ten to some and a power of two to others: write KiB"},
    {"bytes", "64K", "write KiB (powers of two)"},
    {"bytes", "64k", "write KiB (powers of two)"},
    {"MiB", "256MB", "write MiB (powers of two)"},
    {"MiB", "256M", "write MiB (powers of two)"},
    {"MiB", "1G", "write GiB (powers of two)"},
    {"MiB", "1TB", "write TiB (powers of two)"},
    {"bytes/s", "64KB/s", "write KiB/s (powers of two)"},
    {"bytes", "64kib", "has the unit 'kib', which is spelled 'KiB'"},
    {"bytes", "64Kb", "write KiB"},
    {"bytes", "64b", "has the unit 'b', which is spelled 'B'"},
    {"bytes", "64KiB/s", "has the unit 'KiB/s', which this option does not take"},
    {"bytes/s", "64KiB", "has the unit 'KiB', which this option does not take"},
    {"bytes", "5%", "has the unit '%', which this option does not take"},
    {"requests/min", "1000/s", "has the unit '/s', which this option does not take"},
    {"requests/min", "1000/MIN", "which is spelled '/min'"},
    {"connections/s", "500 /s", "has a blank"},
    {"connections/s", "500/min", "has the unit '/min', which this option does not take"},
    {"ms", "18446744073709551616", "is out of range"},
    {"ms", "99999999999999999999999999s", "is out of range"},
    {"ms", "18446744073709551615s", "is out of range"},
    {"MiB", "17592186044416TiB", "is out of range"},
    {"ms",
     "10\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9",
     "does not take"},
};

Test(amount, bad_spellings)
{
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char why[BF_AMOUNT_WHY_BYTES] = "";
        const struct bf_amount *amount = bf_amount_of(bad[i].unit);
        uint64_t value = 4711;
        cr_assert_lt(bf_amount_parse(amount, bad[i].text, &value, why, sizeof(why)), 0,
                     "'%s' in %s is %llu", bad[i].text, bad[i].unit, (unsigned long long)value);
        cr_expect(strstr(why, bad[i].why) != NULL, "'%s' in %s %s", bad[i].text, bad[i].unit, why);
        cr_expect_eq(value, 4711, "untouched on failure");
    }
}

/* ---- what is printed is read as the same ---- */

/* Of any magnitude, and often whole in some unit. */
static uint64_t random_value(unsigned *seed)
{
    static const uint64_t steps[] = {1,     1,     60,     1000,    1024,    3600,
                                     86400, 60000, 604800, 1048576, 86400000};
    uint64_t bits =
        (uint64_t)rand_r(seed) << 62 ^ (uint64_t)rand_r(seed) << 31 ^ (uint64_t)rand_r(seed);
    uint64_t value = bits >> rand_r(seed) % 64;
    uint64_t step = steps[(unsigned)rand_r(seed) % (sizeof(steps) / sizeof(steps[0]))];
    return value <= UINT64_MAX / step ? value * step : value;
}

Test(amount, what_is_printed_is_read_as_the_same)
{
    const char *given = getenv("BELFRY_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
    unsigned at = seed;
    printf("BELFRY_SEED=%u\n", seed);
    for (size_t i = 0; i < sizeof(amounts) / sizeof(amounts[0]); i++) {
        const struct bf_amount *amount = bf_amount_of(amounts[i]);
        cr_assert_not_null(amount, "%s", amounts[i]);
        for (unsigned k = 0; k < ROUNDS_PER_UNIT; k++) {
            char text[BF_AMOUNT_TEXT_BYTES], why[BF_AMOUNT_WHY_BYTES] = "";
            uint64_t value = random_value(&at), again = ~value;
            bf_amount_text(amount, value, text, sizeof(text));
            cr_assert_eq(bf_amount_parse(amount, text, &again, why, sizeof(why)), 0,
                         "BELFRY_SEED=%u %llu %s: '%s' %s", seed, (unsigned long long)value,
                         amounts[i], text, why);
            cr_assert_eq(again, value, "BELFRY_SEED=%u %llu %s: '%s' is %llu", seed,
                         (unsigned long long)value, amounts[i], text, (unsigned long long)again);
        }
    }
}

/* Any option, any value of its range: through the loader and back. struct bf_conf is large, so one
 * serves. */
Test(amount, each_option_reads_what_it_writes)
{
    const char *given = getenv("BELFRY_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
    unsigned at = seed, tried = 0;
    struct bf_conf *conf = calloc(1, sizeof(*conf));
    printf("BELFRY_SEED=%u\n", seed);
    for (unsigned i = 0; i < BF_CONF_OPTION_COUNT; i++) {
        const struct bf_conf_option *o = &bf_conf_options()[i];
        if (!bf_amount_of(o->unit))
            continue;
        for (unsigned k = 0; k < 50; k++) {
            char value_text[BF_AMOUNT_TEXT_BYTES], again[BF_AMOUNT_TEXT_BYTES],
                err[BF_CONF_ERROR_BYTES_MAX];
            struct bf_conf_loader l = {
                .path = "t.yaml", .conf = conf, .err = err, .err_len = sizeof(err)};
            uint64_t value = k == 0   ? o->min
                             : k == 1 ? o->max
                                      : o->min + random_value(&at) % (o->max - o->min + 1);
            bf_conf_number_text(o, value, value_text, sizeof(value_text));
            cr_assert_eq(bf_conf_set_number(&l, o, value_text, 1), 0, "BELFRY_SEED=%u %s", seed,
                         err);
            bf_conf_value_text(conf, o, again, sizeof(again));
            cr_assert_str_eq(again, value_text, "BELFRY_SEED=%u %s", seed, o->path);
            cr_assert_eq(*(uint32_t *)bf_conf_field(conf, o), value, "BELFRY_SEED=%u %s", seed,
                         o->path);
            tried++;
        }
    }
    free(conf);
    cr_assert_gt(tried, 1000);
}
