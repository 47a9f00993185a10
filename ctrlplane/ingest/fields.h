/*
 * The event's field table and the checks that come from it alone: known, allowed here, of the right
 * kind, within its limit. Pure; any thread.
 */
#pragma once

#include <yyjson.h>

#include "ingest/event.h"

enum bf_field_kind {
    BF_FIELD_STR = 0,
    BF_FIELD_TEXT,
    BF_FIELD_BOOL,
    BF_FIELD_UINT,
    BF_FIELD_TIME,
    BF_FIELD_LIST,
    BF_FIELD_OBJECT,
};

enum bf_field_who { BF_FIELD_ANY = 0, BF_FIELD_SCOPED, BF_FIELD_LATER };

struct bf_field_row {
    const char *name;
    const char *doc;
    uint32_t limit;
    uint8_t name_len;
    uint8_t kind; /* enum bf_field_kind */
    uint8_t who;  /* enum bf_field_who */
};

enum bf_field {
#define X(name, kind, limit, who, doc) BF_F_##name,
#include "belfry/base/event_fields.def"
#undef X
    BF_F_COUNT
};

extern const struct bf_field_row bf_field_rows[BF_F_COUNT];

/* The values of one event by field; NULL: absent (or null, which is the same). */
struct bf_fields {
    yyjson_val *value[BF_F_COUNT];
    uint32_t unknown; /* Kafka: fields that were skipped */
};

/* Sorts the members of |root| into *ret_fields. Numbers must have been read raw. Returns 0 or
 * BF_ERR_MALFORMED / _TOO_LARGE with *problem. */
int bf_fields_collect(yyjson_val *root, enum bf_event_source source, struct bf_fields *ret_fields,
                      struct bf_problem *problem);

static inline struct bf_bytes bf_json_str(yyjson_val *val)
{
    return val ? (struct bf_bytes){.at = yyjson_get_str(val), .len = yyjson_get_len(val)}
               : (struct bf_bytes){.at = "", .len = 0};
}

/* A raw number that is a plain whole one. False for -1, 1.5, 1e3 and what exceeds 19 digits. */
bool bf_json_uint(yyjson_val *val, uint64_t *ret_value);
