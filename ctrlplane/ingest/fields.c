/* Table-driven checks of an event's members; see fields.h. Pure; any thread. */
#include "ingest/fields.h"

#include <string.h>

#include "belfry/base/bug.h"
#include "belfry/base/err.h"
#include "belfry/base/plain_text.h"
#include "belfry/base/text.h"
#include "ingest/near.h"

const struct bf_field_row bf_field_rows[BF_F_COUNT] = {
#define X(name_, kind_, limit_, who_, doc_)                                                        \
    [BF_F_##name_] = {.name = #name_,                                                              \
                      .doc = (doc_),                                                               \
                      .limit = (limit_),                                                           \
                      .name_len = sizeof(#name_) - 1,                                              \
                      .kind = BF_FIELD_##kind_,                                                    \
                      .who = BF_FIELD_##who_},
#include "belfry/base/event_fields.def"
#undef X
};

/* Fields whose name has this length; a constant once the compiler knows |len|. */
static inline uint32_t fields_of_length(size_t len)
{
    uint32_t mask = 0;
#define X(name, kind, limit, who, doc) mask |= (len == sizeof(#name) - 1 ? 1u : 0u) << BF_F_##name;
#include "belfry/base/event_fields.def"
#undef X
    return mask;
}

_Static_assert(BF_F_COUNT <= 32, "one bit a field");

/* A switch of constants: one or two names are left to compare, whatever the order of the fields. */
static uint32_t candidates(size_t len)
{
#define LENGTH(n)                                                                                  \
    case n:                                                                                        \
        return fields_of_length(n);
    switch (len) {
        LENGTH(2)
        LENGTH(3)
        LENGTH(4)
        LENGTH(5)
        LENGTH(6)
        LENGTH(7)
        LENGTH(8)
        LENGTH(9)
        LENGTH(10)
        LENGTH(11)
        LENGTH(12)
    default:
        return fields_of_length(len);
    }
#undef LENGTH
}

static int find_field(const char *name, size_t len)
{
    for (uint32_t mask = candidates(len); mask != 0; mask &= mask - 1) {
        int id = __builtin_ctz(mask);
        if (memcmp(bf_field_rows[id].name, name, len) == 0)
            return id;
    }
    return -1;
}

bool bf_json_uint(yyjson_val *val, uint64_t *ret_value)
{
    /* 19 digits: the largest count that cannot overflow 64 bits */
    const size_t digits_max = 19;
    if (!val || !yyjson_is_raw(val))
        return false;
    const char *text = yyjson_get_raw(val);
    size_t len = yyjson_get_len(val);
    uint64_t value = 0;
    if (len == 0 || len > digits_max)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    *ret_value = value;
    return true;
}

static int wrong_kind(const struct bf_field_row *row, const char *wanted,
                      struct bf_problem *problem)
{
    bf_problem_set(problem, 400, "wrong-type", row->name, "%s must be %s", row->name, wanted);
    return BF_ERR_MALFORMED;
}

static int check_str(const struct bf_field_row *row, yyjson_val *val, struct bf_problem *problem)
{
    if (!yyjson_is_str(val))
        return wrong_kind(row, "a string", problem);
    size_t len = yyjson_get_len(val);
    if (len > row->limit) {
        bf_problem_set(problem, 400, "too-long", row->name, "%s has %zu bytes; at most %u",
                       row->name, len, row->limit);
        return BF_ERR_TOO_LARGE;
    }
    if (len == 0 && row->kind != BF_FIELD_TEXT) {
        bf_problem_set(problem, 400, "empty", row->name, "%s is empty; leave it out or fill it",
                       row->name);
        return BF_ERR_MALFORMED;
    }
    if (row->kind != BF_FIELD_TEXT && bf_text_has_control(yyjson_get_str(val), len)) {
        bf_problem_set(problem, 400, "bad-character", row->name,
                       "%s holds a control character (U+0000 to U+001F, U+007F)", row->name);
        return BF_ERR_MALFORMED;
    }
    return 0;
}

static int check_uint(const struct bf_field_row *row, yyjson_val *val, struct bf_problem *problem)
{
    uint64_t value;
    if (!bf_json_uint(val, &value))
        return wrong_kind(row, "a whole number", problem);
    if (value > row->limit) {
        bf_problem_set(problem, 400, "out-of-range", row->name, "%s must be 0..%u", row->name,
                       row->limit);
        return BF_ERR_MALFORMED;
    }
    return 0;
}

static int check_list(const struct bf_field_row *row, yyjson_val *val, struct bf_problem *problem)
{
    if (!yyjson_is_arr(val))
        return wrong_kind(row, "a list", problem);
    size_t count = yyjson_arr_size(val);
    if (count == 0 || count > row->limit) {
        bf_problem_set(problem, 400, count == 0 ? "empty" : "too-many", row->name,
                       "%s has %zu entries; allowed 1..%u", row->name, count, row->limit);
        return BF_ERR_MALFORMED;
    }
    return 0;
}

static int check_kind(const struct bf_field_row *row, yyjson_val *val, struct bf_problem *problem)
{
    switch ((enum bf_field_kind)row->kind) {
    case BF_FIELD_STR:
    case BF_FIELD_TEXT:
    case BF_FIELD_TIME:
        return check_str(row, val, problem);
    case BF_FIELD_BOOL:
        return yyjson_is_bool(val) ? 0 : wrong_kind(row, "true or false", problem);
    case BF_FIELD_UINT:
        return check_uint(row, val, problem);
    case BF_FIELD_LIST:
        return check_list(row, val, problem);
    case BF_FIELD_OBJECT:
        return yyjson_is_obj(val) ? 0 : wrong_kind(row, "an object", problem);
    }
    return BF_ERR_MALFORMED;
}

static int take_field(const struct bf_field_row *row, yyjson_val *val, yyjson_val **slot,
                      struct bf_problem *problem)
{
    if (*slot) {
        bf_problem_set(problem, 400, "duplicate-field", row->name, "%s is given twice", row->name);
        return BF_ERR_MALFORMED;
    }
    if (yyjson_is_null(val))
        return 0;
    if (row->who == BF_FIELD_LATER) {
        bf_problem_set(problem, 400, "unsupported-field", row->name,
                       "this node does not do '%s' yet (%s) Send without it.", row->name, row->doc);
        return BF_ERR_MALFORMED;
    }
    *slot = val;
    return check_kind(row, val, problem);
}

int bf_fields_collect(yyjson_val *root, enum bf_event_source source, struct bf_fields *ret_fields,
                      struct bf_problem *problem)
{
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    *ret_fields = (struct bf_fields){0};
    yyjson_obj_foreach (root, i, max, key, val) {
        int id = find_field(yyjson_get_str(key), yyjson_get_len(key));
        if (id >= 0) {
            int rc = take_field(&bf_field_rows[id], val, &ret_fields->value[id], problem);
            if (rc != 0)
                return rc;
        } else if (source == BF_SOURCE_KAFKA) {
            ret_fields->unknown++;
        } else {
            const char *name = yyjson_get_str(key);
            const char *near = bf_near_field((struct bf_bytes){name, yyjson_get_len(key)});
            bf_problem_set(problem, 400, "unknown-field", name,
                           near ? "'%.*s' is no field of an event; did you mean %s?"
                                : "'%.*s' is no field of an event; the API description lists them",
                           BF_CUT(name, 64), near);
            return BF_ERR_MALFORMED;
        }
    }
    return 0;
}
