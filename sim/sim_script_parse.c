/* Fault script, parsing: one table of fields, unknown ones refused, errors in a sentence. */
#include "sim_script.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>
#include <yyjson.h>

#include "sim_provider.h"

struct parse {
    struct sim_script *script;
    char *error;
};

static bool fail(struct parse *p, const char *where, const char *what)
{
    if (!p->error[0])
        snprintf(p->error, SIM_SCRIPT_ERROR_BYTES, "%s: %s", where, what);
    return false;
}

static bool text_of(struct parse *p, yyjson_val *v, const char *name, char *out, size_t size)
{
    if (!yyjson_is_str(v) || yyjson_get_len(v) >= size)
        return fail(p, name, "a text is wanted, not longer than its field");
    memcpy(out, yyjson_get_str(v), yyjson_get_len(v) + 1);
    return true;
}

static bool number_of(struct parse *p, yyjson_val *v, const char *name, double max, double *ret)
{
    if (!yyjson_is_num(v) || yyjson_get_num(v) < 0 || yyjson_get_num(v) > max)
        return fail(p, name, "a number is wanted, from 0 to its largest");
    *ret = yyjson_get_num(v);
    return true;
}

static bool providers_of(struct parse *p, yyjson_val *v, uint32_t *ret_mask)
{
    const char *name = yyjson_get_str(v);
    int row = name ? sim_provider_find(name) : -1;
    if (name && strcmp(name, "all") == 0)
        *ret_mask = (1u << SIM_PROVIDER_COUNT) - 1;
    else if (row >= 0)
        *ret_mask = 1u << row;
    else
        return fail(p, "provider", "apns, fcm, oauth, webpush or all");
    return true;
}

static bool kind_of(struct parse *p, yyjson_val *v, enum sim_fault_kind *ret_kind)
{
    const char *name = yyjson_get_str(v);
    for (unsigned k = 0; name && k < SIM_FAULT_KIND_COUNT; k++)
        if (strcmp(name, sim_fault_kind_name((enum sim_fault_kind)k)) == 0) {
            *ret_kind = (enum sim_fault_kind)k;
            return true;
        }
    return fail(p, "kind", "not a kind of fault; docs/SIM.md lists them");
}

/* Numbers of a fault: name, largest value. The order is that of store_number. */
static const struct {
    const char *name;
    double max;
} numbers[] = {
    {"start_s", 1e9},        {"duration_s", 1e9},    {"rate", 1},    {"per_s", 1e8},
    {"after_streams", 1e15}, {"drop", 1000},         {"limit", 1e6}, {"delay_ms", 6e5},
    {"status", 599},         {"retry_after_s", 1e6}, {"times", 1e9}, {"timestamp_ms", 9e15},
};

static void store_number(struct sim_fault *f, unsigned which, double v)
{
    switch (which) {
    case 0:
        f->start_ms = (int64_t)(v * 1000);
        break;
    case 1:
        f->stop_ms = (int64_t)(v * 1000);
        break;
    case 2:
        f->rate = v;
        break;
    case 3:
        f->per_s = v;
        break;
    case 4:
        f->after_streams = (uint64_t)v;
        break;
    case 5:
        f->drop = (uint32_t)v;
        break;
    case 6:
        f->limit = (uint32_t)v;
        break;
    case 7:
        f->delay_ms = (uint32_t)v;
        break;
    case 8:
        f->status = (uint16_t)v;
        break;
    case 9:
        f->retry_after_s = (uint32_t)v;
        break;
    case 10:
        f->times = (uint32_t)v;
        break;
    default:
        f->timestamp_ms = (int64_t)v;
        break;
    }
}

static bool fault_field(struct parse *p, struct sim_fault *f, const char *key, yyjson_val *v)
{
    if (strcmp(key, "provider") == 0)
        return providers_of(p, v, &f->providers);
    if (strcmp(key, "kind") == 0)
        return kind_of(p, v, &f->kind);
    if (strcmp(key, "reason") == 0)
        return text_of(p, v, key, f->reason, sizeof(f->reason));
    if (strcmp(key, "how") == 0)
        return text_of(p, v, key, f->how, sizeof(f->how));
    if (strcmp(key, "token") == 0)
        return text_of(p, v, key, f->token, sizeof(f->token));
    if (strcmp(key, "per") == 0) {
        f->per_token = yyjson_equals_str(v, "token");
        return f->per_token || yyjson_equals_str(v, "provider") ? true
                                                                : fail(p, key, "provider or token");
    }
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        double value = 0;
        if (strcmp(key, numbers[i].name) != 0)
            continue;
        if (!number_of(p, v, key, numbers[i].max, &value))
            return false;
        store_number(f, i, value);
        return true;
    }
    return fail(p, key, "not a field of a fault");
}

static bool parse_fault(struct parse *p, yyjson_val *object)
{
    struct sim_script *s = p->script;
    size_t i, n;
    yyjson_val *key, *value;
    if (s->faults_count == SIM_FAULTS_MAX)
        return fail(p, "faults", "more than 64");
    if (!yyjson_obj_get(object, "kind"))
        return fail(p, "faults", "each is an object with a kind");
    struct sim_fault *f = &s->faults[s->faults_count];
    f->rate = 1;
    f->providers = (1u << SIM_PROVIDER_COUNT) - 1;
    f->drop = f->limit = 1;
    yyjson_obj_foreach (object, i, n, key, value) {
        if (!fault_field(p, f, yyjson_get_str(key), value))
            return false;
    }
    if (f->stop_ms)
        f->stop_ms += f->start_ms;
    if (f->kind == SIM_THROTTLE && f->per_s <= 0)
        return fail(p, "throttle", "per_s is wanted");
    if (f->status && f->status < 200)
        return fail(p, "status", "200 to 599");
    if (f->per_token && !s->token_windows) {
        s->token_windows = calloc(SIM_TOKEN_WINDOWS, sizeof(*s->token_windows));
        if (!s->token_windows)
            return fail(p, "per", "out of memory");
    }
    s->kinds |= 1u << f->kind;
    s->faults_count++;
    return true;
}

static bool parse_latency(struct parse *p, yyjson_val *object)
{
    size_t i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach (object, i, n, key, value) {
        static const struct {
            const char *a, *b;
        } names[] = {{"", ""}, {"ms", "ms"}, {"min_ms", "max_ms"}, {"p50_ms", "p99_ms"}};
        uint32_t mask = 0;
        struct sim_latency l = {SIM_LATENCY_NONE, 0, 0};
        if (!providers_of(p, key, &mask))
            return false;
        for (unsigned k = SIM_LATENCY_FIXED; k <= SIM_LATENCY_LOGNORMAL; k++)
            if (yyjson_obj_get(value, names[k].a)) {
                l.kind = (enum sim_latency_kind)k;
                if (!number_of(p, yyjson_obj_get(value, names[k].a), names[k].a, SIM_LATENCY_MS_MAX,
                               &l.a_ms) ||
                    !number_of(p, yyjson_obj_get(value, names[k].b), names[k].b, SIM_LATENCY_MS_MAX,
                               &l.b_ms))
                    return false;
            }
        if (l.b_ms < l.a_ms || (l.kind == SIM_LATENCY_LOGNORMAL && l.a_ms <= 0))
            return fail(p, "latency",
                        "the second figure is not below the first, p50_ms is above 0");
        for (unsigned k = 0; k < SIM_PROVIDER_COUNT; k++)
            if (mask >> k & 1u)
                p->script->latency[k] = l;
    }
    return true;
}

static bool parse_rule(struct parse *p, yyjson_val *object)
{
    struct sim_token_rule *r = &p->script->rules[p->script->rules_count];
    size_t i, n;
    yyjson_val *key, *value;
    uint32_t mask = 0;
    double number = 0;
    yyjson_obj_foreach (object, i, n, key, value) {
        const char *k = yyjson_get_str(key);
        bool ok = false;
        if (strcmp(k, "provider") == 0)
            ok = providers_of(p, value, &mask);
        else if (strcmp(k, "token") == 0)
            ok = text_of(p, value, k, r->token, sizeof(r->token));
        else if (strcmp(k, "topic") == 0)
            ok = text_of(p, value, k, r->topic, sizeof(r->topic));
        else if (strcmp(k, "reason") == 0)
            ok = text_of(p, value, k, r->reason, sizeof(r->reason));
        else if (strcmp(k, "status") == 0 && (ok = number_of(p, value, k, 599, &number)))
            r->status = (uint16_t)number;
        else if (strcmp(k, "timestamp_ms") == 0 && (ok = number_of(p, value, k, 9e15, &number)))
            r->timestamp_ms = (int64_t)number;
        if (!ok)
            return fail(p, k, "not a good field of a token");
    }
    if (!r->token[0] || mask == 0 || (mask & (mask - 1)))
        return fail(p, "tokens", "each has one provider and a token");
    r->provider = (enum sim_provider_id)__builtin_ctz(mask);
    p->script->rules_count++;
    return true;
}

static bool parse_rules(struct parse *p, yyjson_val *array)
{
    struct sim_script *s = p->script;
    size_t i, n, count = yyjson_arr_size(array);
    yyjson_val *object;
    if (count == 0)
        return true;
    if (count > SIM_TOKEN_RULES_MAX)
        return fail(p, "tokens", "more than 65536");
    uint32_t room = 16;
    while (room < count * 2)
        room *= 2;
    s->rules = calloc(count, sizeof(*s->rules));
    s->buckets = calloc(room, sizeof(*s->buckets));
    s->buckets_mask = room - 1;
    if (!s->rules || !s->buckets)
        return fail(p, "tokens", "out of memory");
    yyjson_arr_foreach (array, i, n, object) {
        if (!parse_rule(p, object))
            return false;
        const struct sim_token_rule *r = &s->rules[i];
        uint32_t at = (uint32_t)XXH3_64bits_withSeed(r->token, strlen(r->token), r->provider) &
                      s->buckets_mask;
        while (s->buckets[at])
            at = (at + 1) & s->buckets_mask;
        s->buckets[at] = (uint32_t)i + 1;
    }
    return true;
}

static bool parse_root(struct parse *p, yyjson_val *root)
{
    size_t i, n, j, m;
    yyjson_val *key, *value, *object;
    if (!yyjson_is_obj(root))
        return fail(p, "script", "a JSON object is wanted");
    yyjson_obj_foreach (root, i, n, key, value) {
        const char *k = yyjson_get_str(key);
        if (strcmp(k, "seed") == 0 && yyjson_is_uint(value)) {
            p->script->seed = yyjson_get_uint(value);
        } else if (strcmp(k, "latency") == 0) {
            if (!parse_latency(p, value))
                return false;
        } else if (strcmp(k, "tokens") == 0) {
            if (!parse_rules(p, value))
                return false;
        } else if (strcmp(k, "faults") == 0) {
            yyjson_arr_foreach (value, j, m, object) {
                if (!parse_fault(p, object))
                    return false;
            }
        } else {
            return fail(p, k, "not a field of a script: seed, latency, faults, tokens");
        }
    }
    return true;
}

struct sim_script *sim_script_parse(const char *json, size_t bytes, const struct sim_script *base,
                                    int64_t now_ms, char error[SIM_SCRIPT_ERROR_BYTES])
{
    yyjson_read_err read_error;
    error[0] = '\0';
    struct sim_script *s = calloc(1, sizeof(*s));
    struct parse p = {s, error};
    yyjson_doc *doc =
        yyjson_read_opts((char *)(uintptr_t)json, bytes, YYJSON_READ_NOFLAG, NULL, &read_error);
    if (s) {
        atomic_init(&s->refs, 1);
        s->began_ms = now_ms;
        s->seed = base ? base->seed : 1;
        if (base)
            memcpy(s->latency, base->latency, sizeof(s->latency));
    }
    bool ok = s && (doc || fail(&p, "script", read_error.msg)) &&
              parse_root(&p, yyjson_doc_get_root(doc));
    yyjson_doc_free(doc);
    if (ok)
        return s;
    sim_script_unref(s);
    return NULL;
}
