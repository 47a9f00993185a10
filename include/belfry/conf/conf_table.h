/*
 * The options of options.def as rows that code can walk: the loader, the reference generator, and
 * `belfryctl config` all read this one table. Read-only; any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "belfry/conf/conf.h"
#include "belfry/conf/conf_amount.h"

enum bf_conf_type {
    BF_CONF_TYPE_U32 = 0,
    BF_CONF_TYPE_U64,
    BF_CONF_TYPE_BOOL,
    BF_CONF_TYPE_STR,
};

enum bf_conf_reload {
    BF_CONF_RELOAD_LIVE = 0, /* `belfryctl config reload` takes it */
    BF_CONF_RELOAD_CTRL,     /* restart the control process; sockets stay */
    BF_CONF_RELOAD_DATA,     /* restart the dataplane */
};

struct bf_conf_option {
    const char *path;
    const char *unit; /* of numbers; with a row in bf_amount_of, values are written with units */
    const char *doc;
    const char *def_str; /* STR only */
    uint64_t def_num;    /* the other types */
    uint64_t min, max;   /* of the value, in |unit|; STR: of its length in bytes */
    size_t offset;       /* in struct bf_conf */
    enum bf_conf_type type;
    enum bf_conf_reload reload;
};

enum bf_conf_option_id {
#define X(field, path, type, min, max, def, unit, reload, doc) BF_CONF_ID_##field,
#include "belfry/conf/options.def"
#undef X
    BF_CONF_OPTION_COUNT
};

#define BF_CONF_DEF_U32(value)  .def_num = (value)
#define BF_CONF_DEF_U64(value)  .def_num = (value)
#define BF_CONF_DEF_BOOL(value) .def_num = (value)
#define BF_CONF_DEF_STR(value)  .def_str = (value)

static inline const struct bf_conf_option *bf_conf_options(void)
{
    static const struct bf_conf_option options[] = {
#define X(field_, path_, type_, min_, max_, def_, unit_, reload_, doc_)                            \
    {.path = (path_),                                                                              \
     .unit = (unit_),                                                                              \
     .doc = (doc_),                                                                                \
     BF_CONF_DEF_##type_(def_),                                                                    \
     .min = (min_),                                                                                \
     .max = (max_),                                                                                \
     .offset = offsetof(struct bf_conf, field_),                                                   \
     .type = BF_CONF_TYPE_##type_,                                                                 \
     .reload = BF_CONF_RELOAD_##reload_},
#include "belfry/conf/options.def"
#undef X
    };
    return options;
}

/* Lists are not rows: their paths, for look-ups and for "did you mean". */
#define BF_CONF_LIST_JWT_KEYS    "websocket.jwt_keys"
#define BF_CONF_LIST_BROADCAST   "topics.broadcast"
#define BF_CONF_LIST_PUBLIC      "topics.public"
#define BF_CONF_LIST_CERTS       "tls.certificates"
#define BF_CONF_LIST_PUSH_APPS   "push.apps"
#define BF_CONF_LIST_API_CLIENTS "api.tls.clients"
#define BF_CONF_LIST_COUNT       6u

static inline const char *const *bf_conf_lists(void)
{
    static const char *const lists[BF_CONF_LIST_COUNT] = {
        BF_CONF_LIST_JWT_KEYS, BF_CONF_LIST_BROADCAST, BF_CONF_LIST_PUBLIC,
        BF_CONF_LIST_CERTS,    BF_CONF_LIST_PUSH_APPS, BF_CONF_LIST_API_CLIENTS};
    return lists;
}

static inline void *bf_conf_field(const struct bf_conf *conf, const struct bf_conf_option *option)
{
    return (uint8_t *)(uintptr_t)conf + option->offset;
}

/* Index of the option with this path, or -1. */
static inline int bf_conf_find(const char *path)
{
    const struct bf_conf_option *options = bf_conf_options();
    for (int i = 0; i < (int)BF_CONF_OPTION_COUNT; i++) {
        if (strcmp(options[i].path, path) == 0)
            return i;
    }
    return -1;
}

/* A number of the option as it would stand in the file; BF_AMOUNT_TEXT_BYTES are enough. */
static inline void bf_conf_number_text(const struct bf_conf_option *option, uint64_t value,
                                       char *out, size_t cap)
{
    const struct bf_amount *amount = bf_amount_of(option->unit);
    if (amount)
        bf_amount_text(amount, value, out, cap);
    else
        snprintf(out, cap, "%llu", (unsigned long long)value);
}

/* The value as it would stand in the file. */
static inline void bf_conf_value_text(const struct bf_conf *conf,
                                      const struct bf_conf_option *option, char *out, size_t cap)
{
    const void *field = bf_conf_field(conf, option);
    if (option->type == BF_CONF_TYPE_U32)
        bf_conf_number_text(option, *(const uint32_t *)field, out, cap);
    else if (option->type == BF_CONF_TYPE_U64)
        bf_conf_number_text(option, *(const uint64_t *)field, out, cap);
    else if (option->type == BF_CONF_TYPE_BOOL)
        snprintf(out, cap, "%s", *(const bool *)field ? "true" : "false");
    else
        snprintf(out, cap, "%s", *(const char *const *)field);
}

static inline const char *bf_conf_reload_name(enum bf_conf_reload reload)
{
    static const char *const names[] = {"live", "restart ctrlplane", "restart dataplane"};
    return names[reload];
}
