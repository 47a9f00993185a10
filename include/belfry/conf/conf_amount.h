/*
 * Amounts: values of options that are times, sizes or rates, as people write them: 10s, 90d,
 * 256MiB, 500/s. An option counts in a unit of its own (the column "unit" of options.def). A plain
 * number is a number of those; an amount with another unit must come to a whole number of them.
 *
 * KB, MB and GB are refused: some who write them mean powers of ten, others powers of two, and the
 * wrong guess would be a limit that is a few per cent off, which nobody notices. Pure; any thread.
 */
#pragma once

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "belfry/base/err.h"
#include "belfry/base/text.h"

/* Twenty digits and the longest unit. */
#define BF_AMOUNT_TEXT_BYTES 32u
/* Why an amount is refused; the value itself is not part of it. */
#define BF_AMOUNT_WHY_BYTES 160u
/* Units of one kind, and a row that ends them. */
#define BF_AMOUNT_UNITS_MAX 8u

struct bf_amount_unit {
    const char *name;
    uint64_t size;   /* milliseconds, bytes; 1 where a kind has one unit */
    bool is_printed; /* m and w are read, but written as min and d */
};

struct bf_amount_kind {
    const char *units_text;                           /* the units in an error */
    struct bf_amount_unit units[BF_AMOUNT_UNITS_MAX]; /* ascending; the last one has no name */
};

/* What an option counts in. */
struct bf_amount {
    const char *unit; /* as in options.def */
    const struct bf_amount_kind *kind;
    uint64_t size; /* of |unit|, as in bf_amount_unit */
};

/* How |unit| of options.def is written with units; NULL: it counts things (connections, frames,
 * slots), and its values are plain numbers. */
static inline const struct bf_amount *bf_amount_of(const char *unit)
{
    static const struct bf_amount_kind time = {"ms, s, m, min, h, d or w",
                                               {{"ms", 1, true},
                                                {"s", 1000, true},
                                                {"m", UINT64_C(60) * 1000, false},
                                                {"min", UINT64_C(60) * 1000, true},
                                                {"h", UINT64_C(3600) * 1000, true},
                                                {"d", UINT64_C(86400) * 1000, true},
                                                {"w", UINT64_C(604800) * 1000, false}}};
    static const struct bf_amount_kind size = {"B, KiB, MiB, GiB or TiB",
                                               {{"B", 1, true},
                                                {"KiB", UINT64_C(1) << 10, true},
                                                {"MiB", UINT64_C(1) << 20, true},
                                                {"GiB", UINT64_C(1) << 30, true},
                                                {"TiB", UINT64_C(1) << 40, true}}};
    static const struct bf_amount_kind speed = {"B/s, KiB/s, MiB/s or GiB/s",
                                                {{"B/s", 1, true},
                                                 {"KiB/s", UINT64_C(1) << 10, true},
                                                 {"MiB/s", UINT64_C(1) << 20, true},
                                                 {"GiB/s", UINT64_C(1) << 30, true}}};
    static const struct bf_amount_kind per_second = {"/s", {{"/s", 1, true}}};
    static const struct bf_amount_kind per_minute = {"/min", {{"/min", 1, true}}};
    static const struct bf_amount all[] = {
        {"ms", &time, 1},
        {"s", &time, 1000},
        {"days", &time, UINT64_C(86400) * 1000},
        {"bytes", &size, 1},
        {"MiB", &size, UINT64_C(1) << 20},
        {"bytes/s", &speed, 1},
        {"connections/s", &per_second, 1},
        {"deliveries/s", &per_second, 1},
        {"frames/s", &per_second, 1},
        {"requests/min", &per_minute, 1},
    };
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if (strcmp(all[i].unit, unit) == 0)
            return &all[i];
    }
    return NULL;
}

/* |value| of |amount|'s own units, as people write it: in the largest unit in which it is a whole
 * number; 0 without a unit. |out| holds BF_AMOUNT_TEXT_BYTES. */
static inline void bf_amount_text(const struct bf_amount *amount, uint64_t value, char *out,
                                  size_t cap)
{
    const char *unit = "";
    uint64_t number = value;
    for (const struct bf_amount_unit *u = amount->kind->units; value != 0 && u->name; u++) {
        uint64_t each = u->size / amount->size; /* of the option's units; 0: a smaller one */
        if (each != 0 && u->is_printed && value % each == 0) {
            unit = u->name;
            number = value / each;
        }
    }
    snprintf(out, cap, "%llu%s", (unsigned long long)number, unit);
}

/* Whether |unit| is MB or the like, or one letter of it: a power of ten to some, of two to others.
 */
static inline bool bf_amount_is_ambiguous(const struct bf_amount *amount, const char *unit)
{
    const char *tail = strchr(amount->kind->units[0].name, '/');
    if (amount->kind->units[0].name[0] != 'B' || !unit[0] || !strchr("kKmMgGtT", unit[0]))
        return false;
    unit += unit[1] == 'B' || unit[1] == 'b' ? 2 : 1;
    return strcmp(unit, tail ? tail : "") == 0;
}

/* Words why |rest|, what follows the number, is no unit of |amount|. */
static inline int bf_amount_refuse_unit(const struct bf_amount *amount, const char *rest, char *why,
                                        size_t why_len)
{
    bool is_fraction = (rest[0] == '.' || rest[0] == ',') && isdigit((unsigned char)rest[1]);
    const char *slash = strchr(rest, '/');
    for (const struct bf_amount_unit *u = amount->kind->units; u->name; u++) {
        if (strcasecmp(u->name, rest) == 0) {
            bf_format(why, why_len, "has the unit '%.*s', which is spelled '%s'", BF_CUT(rest, 8),
                      u->name);
            return BF_ERR_MALFORMED;
        }
    }
    if (is_fraction)
        bf_format(why, why_len, "has a fraction: take a smaller unit and a whole number");
    else if (rest[0] == ' ' || rest[0] == '\t')
        bf_format(why, why_len, "has a blank between number and unit");
    else if (bf_amount_is_ambiguous(amount, rest))
        bf_format(why, why_len,
                  "has the unit '%.*s', a power of ten to some and a power of two to others: "
                  "write %ciB%s (powers of two)",
                  BF_CUT(rest, 8), toupper((unsigned char)rest[0]), slash ? slash : "");
    else if (strpbrk(rest, "0123456789"))
        bf_format(why, why_len, "is more than one number and one unit");
    else
        bf_format(why, why_len, "has the unit '%.*s', which this option does not take",
                  BF_CUT(rest, 20));
    return BF_ERR_MALFORMED;
}

/*
 * Reads what a person wrote. Returns 0 and *ret_value in the option's own units; BF_ERR_MALFORMED,
 * or -ERANGE where no number holds it, with the reason in |why| as the end of a sentence that
 * begins with the value ("has a blank between number and unit").
 */
static inline int bf_amount_parse(const struct bf_amount *amount, const char *text,
                                  uint64_t *ret_value, char *why, size_t why_len)
{
    const char *rest = text;
    const struct bf_amount_unit *unit = amount->kind->units;
    uint64_t value = 0;
    bool fits = true;
    for (; *rest >= '0' && *rest <= '9'; rest++)
        fits = fits && !__builtin_mul_overflow(value, UINT64_C(10), &value) &&
               !__builtin_add_overflow(value, (uint64_t)(*rest - '0'), &value);
    if (rest == text) {
        bf_format(why, why_len, text[0] == '-' ? "is negative" : "does not begin with a number");
        return BF_ERR_MALFORMED;
    }
    while (*rest && unit->name && strcmp(unit->name, rest) != 0)
        unit++;
    if (!unit->name)
        return bf_amount_refuse_unit(amount, rest, why, why_len);
    if (*rest && unit->size >= amount->size)
        fits = fits && !__builtin_mul_overflow(value, unit->size / amount->size, &value);
    if (!fits) {
        bf_format(why, why_len, "is out of range");
        return -ERANGE;
    }
    if (*rest && unit->size < amount->size) {
        uint64_t each = amount->size / unit->size;
        if (value % each != 0) {
            bf_format(why, why_len, "is not a whole number of %s, which this option counts in",
                      amount->unit);
            return BF_ERR_MALFORMED;
        }
        value /= each;
    }
    *ret_value = value;
    return 0;
}
