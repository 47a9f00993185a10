/*
 * Preferences (PRF-1) as one immutable allocation: opt-out, a default by channel, and sorted tables
 * of categories, types and muted topics. Compiling is rare and careful. Pure; any thread.
 */
#include "prefs/prefs_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <yyjson.h>

#include "belfry/base/err.h"
#include "belfry/base/text.h"
#include "belfry/base/utf8.h"

/* A preference document is a page of switches; a larger one is a mistake. 413. */
#define PREFS_BYTES_MAX (32u * 1024u)
/* Categories, types and topics together: bounds what one user costs in memory. */
#define PREFS_ENTRIES_MAX 512u

/* ---- compiling ---- */

/* A row before it is packed. */
struct draft_entry {
    struct bf_bytes name;
    struct choice choice;
};

struct draft {
    bool opt_out;
    struct choice channels;
    unsigned category_count, type_count, topic_count;
    struct draft_entry entries[PREFS_ENTRIES_MAX];
    unsigned count;
    struct bf_problem *problem;
};

static int refuse(struct draft *d, const char *type, const char *field, const char *detail)
{
    bf_problem_set(d->problem, 400, type, field, "%s: %s", field, detail);
    return BF_ERR_MALFORMED;
}

static int find_channel(const char *name)
{
    for (int i = 0; i < BF_CHANNEL_COUNT; i++) {
        if (strcmp(bf_channel_name((enum bf_channel)i), name) == 0)
            return i;
    }
    return -1;
}

static int take_channel_map(struct draft *d, yyjson_val *map, const char *field,
                            struct choice *ret_choice)
{
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    struct choice choice = {0};
    yyjson_obj_foreach (map, i, max, key, val) {
        int channel = find_channel(yyjson_get_str(key));
        if (channel < 0) {
            bf_problem_set(d->problem, 400, "unknown-channel", field,
                           "%s: '%.*s' is no channel; inapp, push, email, sms, webhook are", field,
                           BF_CUT(yyjson_get_str(key), 64));
            return BF_ERR_MALFORMED;
        }
        if (!yyjson_is_bool(val))
            return refuse(d, "wrong-type", field, "each channel is true or false");
        choice.said |= (uint8_t)(1u << channel);
        if (yyjson_get_bool(val))
            choice.on |= (uint8_t)(1u << channel);
        else
            choice.on &= (uint8_t) ~(1u << channel);
    }
    *ret_choice = choice;
    return 0;
}

/* {channel: bool} or one bool for all of them. */
static int take_choice(struct draft *d, yyjson_val *val, const char *field,
                       struct choice *ret_choice)
{
    const uint8_t all = (1u << BF_CHANNEL_COUNT) - 1;
    if (yyjson_is_bool(val)) {
        *ret_choice = (struct choice){.said = all, .on = yyjson_get_bool(val) ? all : 0};
        return 0;
    }
    if (!yyjson_is_obj(val))
        return refuse(d, "wrong-type", field, "an entry is true, false or {channel: true|false}");
    return take_channel_map(d, val, field, ret_choice);
}

static int add_entry(struct draft *d, const char *field, yyjson_val *key, struct choice choice)
{
    size_t len = yyjson_get_len(key);
    if (d->count == PREFS_ENTRIES_MAX)
        return refuse(d, "too-many", field, "more than 512 categories, types and topics");
    if (len == 0 || len > BF_TYPE_BYTES_MAX)
        return refuse(d, "too-long", field, "a name has 1..128 bytes");
    d->entries[d->count++] =
        (struct draft_entry){.name = {yyjson_get_str(key), len}, .choice = choice};
    return 0;
}

static int compare_entries(const void *left, const void *right)
{
    const struct draft_entry *a = left;
    const struct draft_entry *b = right;
    size_t common = a->name.len < b->name.len ? a->name.len : b->name.len;
    int order = memcmp(a->name.at, b->name.at, common);
    return order != 0 ? order : (a->name.len > b->name.len) - (a->name.len < b->name.len);
}

/* Sorts what one table added; two rows of one name would make the answer depend on the order. */
static int close_table(struct draft *d, const char *field, unsigned first)
{
    if (d->count > first)
        qsort(d->entries + first, d->count - first, sizeof(d->entries[0]), compare_entries);
    for (unsigned i = first + 1; i < d->count; i++) {
        if (bf_bytes_is_equal(d->entries[i].name, d->entries[i - 1].name))
            return refuse(d, "duplicate-field", field, "a name is listed twice");
    }
    return 0;
}

static int take_choices(struct draft *d, yyjson_val *map, const char *field, unsigned *ret_count)
{
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    unsigned first = d->count;
    if (!map)
        return 0;
    if (!yyjson_is_obj(map))
        return refuse(d, "wrong-type", field, "must be an object by name");
    yyjson_obj_foreach (map, i, max, key, val) {
        struct choice choice;
        int rc = take_choice(d, val, field, &choice);
        if (rc == 0)
            rc = add_entry(d, field, key, choice);
        if (rc != 0)
            return rc;
    }
    *ret_count = d->count - first;
    return close_table(d, field, first);
}

/* {topic: bool | "mute"}: false and "mute" mute; true is the default and needs no row. */
static int take_topics(struct draft *d, yyjson_val *map)
{
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    unsigned first = d->count;
    if (!map)
        return 0;
    if (!yyjson_is_obj(map))
        return refuse(d, "wrong-type", "topics", "must be an object by topic");
    yyjson_obj_foreach (map, i, max, key, val) {
        bool is_muted = yyjson_equals_str(val, "mute") || yyjson_is_false(val);
        if (!is_muted && !yyjson_is_true(val))
            return refuse(d, "wrong-type", "topics", "a topic is true, false or \"mute\"");
        if (is_muted) {
            int rc = add_entry(d, "topics", key, (struct choice){0});
            if (rc != 0)
                return rc;
        }
    }
    d->topic_count = d->count - first;
    return close_table(d, "topics", first);
}

/* Kept and given back; the order of several channels matters once there are several. */
static int check_order(struct draft *d, yyjson_val *list)
{
    size_t i;
    size_t max;
    yyjson_val *val;
    unsigned seen = 0;
    if (!list)
        return 0;
    if (!yyjson_is_arr(list))
        return refuse(d, "wrong-type", "channel_order", "must be a list of channels");
    yyjson_arr_foreach (list, i, max, val) {
        int channel = yyjson_is_str(val) ? find_channel(yyjson_get_str(val)) : -1;
        if (channel < 0 || (seen & 1u << channel) != 0)
            return refuse(d, "unknown-channel", "channel_order",
                          "lists inapp, push, email, sms, webhook, each once");
        seen |= 1u << channel;
    }
    return 0;
}

static int check_names(struct draft *d, yyjson_val *root)
{
    static const char *const known[] = {
        "opt_out",    "channels", "channel_order", "types",
        "categories", "topics",   "updated_at"}; /* as we gave it: said, not taken */
    static const char *const later[] = {"quiet_hours", "digest"};
    size_t i;
    size_t max;
    yyjson_val *key;
    yyjson_val *val;
    unsigned seen = 0;
    yyjson_obj_foreach (root, i, max, key, val) {
        unsigned at = 0;
        while (at < sizeof(known) / sizeof(known[0]) && !yyjson_equals_str(key, known[at]))
            at++;
        for (size_t j = 0; j < sizeof(later) / sizeof(later[0]); j++) {
            if (yyjson_equals_str(key, later[j]))
                return refuse(d, "unsupported-field", later[j],
                              "this node does not do it yet; send without it");
        }
        if (at == sizeof(known) / sizeof(known[0]))
            return refuse(d, "unknown-field", yyjson_get_str(key), "is no preference");
        if ((seen & 1u << at) != 0)
            return refuse(d, "duplicate-field", known[at], "is given twice");
        seen |= 1u << at;
    }
    return 0;
}

static int take_all(struct draft *d, yyjson_val *root)
{
    yyjson_val *opt_out = yyjson_obj_get(root, "opt_out");
    yyjson_val *channels = yyjson_obj_get(root, "channels");
    int rc = check_names(d, root);
    if (rc == 0 && opt_out && !yyjson_is_bool(opt_out))
        rc = refuse(d, "wrong-type", "opt_out", "is true or false");
    d->opt_out = opt_out && yyjson_get_bool(opt_out);
    if (rc == 0 && channels && !yyjson_is_obj(channels))
        rc = refuse(d, "wrong-type", "channels", "must be {channel: true|false}");
    if (rc == 0 && channels)
        rc = take_channel_map(d, channels, "channels", &d->channels);
    if (rc == 0)
        rc = check_order(d, yyjson_obj_get(root, "channel_order"));
    if (rc == 0)
        rc = take_choices(d, yyjson_obj_get(root, "categories"), "categories", &d->category_count);
    if (rc == 0)
        rc = take_choices(d, yyjson_obj_get(root, "types"), "types", &d->type_count);
    if (rc == 0)
        rc = take_topics(d, yyjson_obj_get(root, "topics"));
    return rc;
}

static struct bf_prefs *pack(const struct draft *d)
{
    size_t names_bytes = 0;
    for (unsigned i = 0; i < d->count; i++)
        names_bytes += d->entries[i].name.len;
    size_t rows_bytes = d->count * sizeof(struct entry);
    struct bf_prefs *prefs = malloc(sizeof(*prefs) + rows_bytes + names_bytes);
    if (!prefs)
        return NULL;
    char *names = (char *)prefs->entries + rows_bytes;
    *prefs = (struct bf_prefs){
        .opt_out = d->opt_out,
        .channels = d->channels,
        .category_count = (uint16_t)d->category_count,
        .type_count = (uint16_t)d->type_count,
        .topic_count = (uint16_t)d->topic_count,
        .names = names,
    };
    uint32_t at = 0;
    for (unsigned i = 0; i < d->count; i++) {
        const struct draft_entry *from = &d->entries[i];
        memcpy(names + at, from->name.at, from->name.len);
        prefs->entries[i] = (struct entry){
            .name_at = at, .name_len = (uint16_t)from->name.len, .choice = from->choice};
        at += (uint32_t)from->name.len;
    }
    return prefs;
}

static int compile_root(yyjson_val *root, struct bf_prefs **ret, struct bf_problem *problem)
{
    struct draft *d = calloc(1, sizeof(*d));
    if (!d)
        return -ENOMEM;
    d->problem = problem;
    int rc = take_all(d, root);
    struct bf_prefs *prefs = rc == 0 ? pack(d) : NULL;
    free(d);
    if (rc == 0 && !prefs)
        rc = -ENOMEM;
    if (rc == 0)
        *ret = prefs;
    return rc;
}

static int read_root(struct bf_bytes json, yyjson_doc **ret_doc, struct bf_problem *problem)
{
    yyjson_read_err err = {0};
    if (json.len > PREFS_BYTES_MAX) {
        bf_problem_set(problem, 413, "too-large", "", "preferences have %zu bytes; at most %u",
                       json.len, PREFS_BYTES_MAX);
        return BF_ERR_MALFORMED;
    }
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)json.at, json.len, 0, NULL, &err);
    if (doc && yyjson_is_obj(yyjson_doc_get_root(doc))) {
        *ret_doc = doc;
        return 0;
    }
    size_t valid = bf_utf8_valid_bytes(json);
    if (doc)
        bf_problem_set(problem, 400, "wrong-type", "", "preferences are a JSON object");
    else if (valid < json.len)
        bf_problem_set(problem, 400, "bad-utf8", "", "byte %zu of the body is not valid UTF-8",
                       valid);
    else
        bf_problem_set(problem, 400, "bad-json", "", "not valid JSON at byte %zu: %s", err.pos,
                       err.msg ? err.msg : "unreadable");
    yyjson_doc_free(doc);
    return BF_ERR_MALFORMED;
}

/* Canonical form: compact, without updated_at, which is whoever stores it to say. */
static int write_stored(yyjson_doc *doc, char **ret_stored)
{
    yyjson_mut_doc *copy = yyjson_doc_mut_copy(doc, NULL);
    char *stored = NULL;
    if (copy) {
        yyjson_mut_obj_remove_key(yyjson_mut_doc_get_root(copy), "updated_at");
        stored = yyjson_mut_write(copy, 0, NULL);
    }
    yyjson_mut_doc_free(copy);
    if (!stored)
        return -ENOMEM;
    *ret_stored = stored;
    return 0;
}

int bf_prefs_compile(struct bf_bytes json, struct bf_prefs **ret, char **ret_stored,
                     struct bf_problem *problem)
{
    yyjson_doc *doc;
    struct bf_prefs *prefs = NULL;
    int rc = read_root(json, &doc, problem);
    if (rc != 0)
        return rc;
    rc = compile_root(yyjson_doc_get_root(doc), &prefs, problem);
    if (rc == 0 && ret_stored)
        rc = write_stored(doc, ret_stored);
    yyjson_doc_free(doc);
    if (rc == 0)
        *ret = prefs;
    else
        bf_prefs_free(prefs);
    if (rc == -ENOMEM)
        bf_problem_set(problem, 503, "out-of-memory", "", "out of memory; try again");
    return rc;
}

void bf_prefs_free(struct bf_prefs *prefs)
{
    free(prefs);
}
