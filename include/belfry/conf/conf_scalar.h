/*
 * Values of single options: numbers, amounts (conf_amount.h), truth values and texts. Each is
 * checked against its row of options.def and put into the field of struct bf_conf.
 */
#pragma once

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/conf/conf_loader.h"

static inline int bf_conf_parse_number(const char *text, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (text[0] == '\0')
        return BF_ERR_MALFORMED;
    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9' || value > (UINT64_MAX - 9) / 10)
            return BF_ERR_MALFORMED;
        value = value * 10 + (uint64_t)(*p - '0');
    }
    *ret_value = value;
    return 0;
}

static inline void bf_conf_put_number(struct bf_conf_loader *l, const struct bf_conf_option *o,
                                      uint64_t value)
{
    void *field = bf_conf_field(l->conf, o);
    if (o->type == BF_CONF_TYPE_U32)
        *(uint32_t *)field = (uint32_t)value;
    else
        *(uint64_t *)field = value;
}

/* A time, a size or a rate. The example in the error is the default, or where that is 0 the most.
 */
static inline int bf_conf_set_amount(struct bf_conf_loader *l, const struct bf_conf_option *o,
                                     const struct bf_amount *amount, const char *text, size_t line)
{
    char why[BF_AMOUNT_WHY_BYTES] = "is out of range";
    char min[BF_AMOUNT_TEXT_BYTES], max[BF_AMOUNT_TEXT_BYTES], example[BF_AMOUNT_TEXT_BYTES];
    uint64_t value = 0;
    int rc = bf_amount_parse(amount, text, &value, why, sizeof(why));
    if (rc == 0 && value >= o->min && value <= o->max) {
        bf_conf_put_number(l, o, value);
        return 0;
    }
    bf_amount_text(amount, o->min, min, sizeof(min));
    bf_amount_text(amount, o->max, max, sizeof(max));
    bf_amount_text(amount, o->def_num ? o->def_num : o->max, example, sizeof(example));
    return bf_conf_fail(
        l, line,
        "%s: '%.*s' %s; allowed %s to %s, as a whole number and a unit (%s), e.g. %s "
        "(a plain number counts in %s)",
        o->path, BF_CUT(text, 40), why, min, max, amount->kind->units_text, example, o->unit);
}

static inline int bf_conf_set_number(struct bf_conf_loader *l, const struct bf_conf_option *o,
                                     const char *text, size_t line)
{
    uint64_t value;
    const char *space = o->unit[0] ? " " : "";
    const struct bf_amount *amount = bf_amount_of(o->unit);
    if (amount)
        return bf_conf_set_amount(l, o, amount, text, line);
    if (bf_conf_parse_number(text, &value) != 0)
        return bf_conf_fail(l, line, "%s: '%.*s' is not a whole number; allowed %llu..%llu%s%s",
                            o->path, BF_CUT(text, 40), (unsigned long long)o->min,
                            (unsigned long long)o->max, space, o->unit);
    if (value < o->min || value > o->max)
        return bf_conf_fail(l, line, "%s: %llu%s%s is out of range; allowed %llu..%llu%s%s",
                            o->path, (unsigned long long)value, space, o->unit,
                            (unsigned long long)o->min, (unsigned long long)o->max, space, o->unit);
    bf_conf_put_number(l, o, value);
    return 0;
}

static inline int bf_conf_set_bool(struct bf_conf_loader *l, const struct bf_conf_option *o,
                                   const char *text, size_t line)
{
    bool is_true = strcmp(text, "true") == 0;
    if (!is_true && strcmp(text, "false") != 0)
        return bf_conf_fail(l, line, "%s: '%.*s' is not a truth value; allowed true, false",
                            o->path, BF_CUT(text, 40));
    *(bool *)bf_conf_field(l->conf, o) = is_true;
    return 0;
}

static inline int bf_conf_set_str(struct bf_conf_loader *l, const struct bf_conf_option *o,
                                  const char *text, size_t len, size_t line)
{
    const char **field = bf_conf_field(l->conf, o);
    if (len < o->min || len > o->max || strlen(text) != len)
        return bf_conf_fail(l, line, "%s: the text is %zu bytes long; allowed %llu..%llu, no zeros",
                            o->path, len, (unsigned long long)o->min, (unsigned long long)o->max);
    char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    free((char *)(uintptr_t)*field);
    *field = copy;
    return 0;
}

static inline int bf_conf_set_option(struct bf_conf_loader *l, int id, const yaml_node_t *value)
{
    const struct bf_conf_option *o = &bf_conf_options()[id];
    size_t line = bf_conf_line(value);
    if (value->type != YAML_SCALAR_NODE)
        return bf_conf_fail(l, line, "%s: takes one value, not a list or a section", o->path);
    if (l->line[id] != 0)
        return bf_conf_fail(l, line, "%s: set twice, first at line %u", o->path, l->line[id]);
    l->line[id] = (uint32_t)line;
    const char *text = (const char *)value->data.scalar.value;
    switch (o->type) {
    case BF_CONF_TYPE_U32:
    case BF_CONF_TYPE_U64:
        return bf_conf_set_number(l, o, text, line);
    case BF_CONF_TYPE_BOOL:
        return bf_conf_set_bool(l, o, text, line);
    case BF_CONF_TYPE_STR:
        return bf_conf_set_str(l, o, text, value->data.scalar.length, line);
    }
    return BF_ERR_MALFORMED;
}
