/*
 * Reload of the configuration, with a report: which changed options were taken, and which wait for
 * a restart of which process. The control process knows what it started with; the dataplane leaves
 * what it started with in <run>/dataplane.options.
 */
#include <stdio.h>
#include <string.h>

#include "admin/admin_impl.h"
#include "belfry/base/text.h"
#include "belfry/base/err.h"
#include "belfry/conf/conf_load.h"
#include "belfry/shm/own.h"

/* A path and the longest value of an option that only a dataplane's start takes. */
#define LINE_BYTES_MAX 1024u

/* ---- what the dataplane has ---- */

struct in_force {
    char text[BF_CONF_OPTION_COUNT][LINE_BYTES_MAX / 2]; /* "" = not said */
    bool is_said[BF_CONF_OPTION_COUNT];
    bool has_certs_said;
    unsigned cert_count;
};

/* A dataplane that was built before values had units left plain numbers: compared as they would be
 * written today. */
static void write_with_unit(const struct bf_conf_option *o, char *text, size_t cap)
{
    const struct bf_amount *amount = bf_amount_of(o->unit);
    char why[BF_AMOUNT_WHY_BYTES];
    uint64_t value;
    if (amount && bf_amount_parse(amount, text, &value, why, sizeof(why)) == 0)
        bf_amount_text(amount, value, text, cap);
}

static void read_in_force(const struct bf_conf *conf, struct in_force *ret)
{
    char line[LINE_BYTES_MAX];
    snprintf(line, sizeof(line), "%s/dataplane.options", conf->run_dir);
    FILE *file = fopen(line, "re");
    while (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = '\0';
        char *tab = strchr(line, '\t');
        if (!tab)
            continue;
        *tab = '\0';
        int id = bf_conf_find(line);
        if (id >= 0) {
            ret->is_said[id] = true;
            snprintf(ret->text[id], sizeof(ret->text[id]), "%.*s",
                     BF_CUT(tab + 1, LINE_BYTES_MAX / 2 - 1));
            write_with_unit(&bf_conf_options()[id], ret->text[id], sizeof(ret->text[id]));
        } else if (strcmp(line, BF_CONF_LIST_CERTS) == 0) {
            ret->has_certs_said = sscanf(tab + 1, "%u", &ret->cert_count) == 1;
        }
    }
    if (file)
        fclose(file);
}

/* ---- the answer ---- */

struct answer {
    struct bf_out o;
    unsigned count; /* of the list that is being written */
};

static void put_taken(struct answer *a, const char *path)
{
    bf_out_text(&a->o, a->count++ ? "," : "");
    bf_out_cstr(&a->o, path);
}

static void put_waiting(struct answer *a, const char *path, const char *now, const char *wanted,
                        bool is_dataplane)
{
    bf_out_text(&a->o, a->count++ ? ",{\"option\":" : "{\"option\":");
    bf_out_cstr(&a->o, path);
    bf_out_text(&a->o, ",\"in_force\":");
    bf_out_cstr(&a->o, now);
    bf_out_text(&a->o, ",\"wanted\":");
    bf_out_cstr(&a->o, wanted);
    bf_out_text(&a->o,
                is_dataplane ? ",\"restart\":\"dataplane\"}" : ",\"restart\":\"ctrlplane\"}");
}

static bool are_same_topics(const char *const *a, uint32_t a_count, const char *const *b,
                            uint32_t b_count)
{
    bool same = a_count == b_count;
    for (uint32_t i = 0; same && i < a_count; i++)
        same = strcmp(a[i], b[i]) == 0;
    return same;
}

/* Lists are live, all of them. Their structs were zeroed before they were filled. */
static void put_taken_lists(struct answer *a, const struct bf_conf *x, const struct bf_conf *y)
{
    if (x->jwt_key_count != y->jwt_key_count ||
        memcmp(x->jwt_keys, y->jwt_keys, sizeof(x->jwt_keys)) != 0)
        put_taken(a, BF_CONF_LIST_JWT_KEYS);
    if (x->cert_count != y->cert_count || memcmp(x->certs, y->certs, sizeof(x->certs)) != 0)
        put_taken(a, BF_CONF_LIST_CERTS);
    if (x->client_ca_len != y->client_ca_len ||
        memcmp(x->client_ca, y->client_ca, x->client_ca_len) != 0)
        put_taken(a, "the content of tls.client_ca");
    if (x->push_app_count != y->push_app_count ||
        memcmp(x->push_apps, y->push_apps, sizeof(x->push_apps)) != 0)
        put_taken(a, BF_CONF_LIST_PUSH_APPS);
    if (!are_same_topics(x->broadcast_topics, x->broadcast_topic_count, y->broadcast_topics,
                         y->broadcast_topic_count))
        put_taken(a, BF_CONF_LIST_BROADCAST);
    if (!are_same_topics(x->public_topics, x->public_topic_count, y->public_topics,
                         y->public_topic_count))
        put_taken(a, BF_CONF_LIST_PUBLIC);
}

static void put_all_taken(struct answer *a, const struct bf_conf *before,
                          const struct bf_conf *fresh)
{
    static char was[BF_CONF_STR_BYTES_MAX],
        is[BF_CONF_STR_BYTES_MAX]; /* the admin port's one thread */
    for (unsigned i = 0; i < BF_CONF_OPTION_COUNT; i++) {
        const struct bf_conf_option *o = &bf_conf_options()[i];
        bf_conf_value_text(before, o, was, sizeof(was));
        bf_conf_value_text(fresh, o, is, sizeof(is));
        if (o->reload == BF_CONF_RELOAD_LIVE && strcmp(was, is) != 0)
            put_taken(a, o->path);
    }
    put_taken_lists(a, before, fresh);
}

/* Against what the processes started with, not what was loaded last: an option that was not taken
 * before waits still. */
static void put_all_waiting(struct answer *a, const struct bf_conf *first,
                            const struct bf_conf *fresh)
{
    static char is[BF_CONF_STR_BYTES_MAX], wanted[BF_CONF_STR_BYTES_MAX];
    static struct in_force in_force;
    memset(&in_force, 0, sizeof(in_force));
    read_in_force(first, &in_force);
    for (unsigned i = 0; i < BF_CONF_OPTION_COUNT; i++) {
        const struct bf_conf_option *o = &bf_conf_options()[i];
        if (o->reload == BF_CONF_RELOAD_LIVE)
            continue;
        bool is_dataplane = o->reload == BF_CONF_RELOAD_DATA;
        bf_conf_value_text(first, o, is, sizeof(is));
        if (is_dataplane && in_force.is_said[i])
            snprintf(is, sizeof(is), "%s", in_force.text[i]);
        bf_conf_value_text(fresh, o, wanted, sizeof(wanted));
        if (strcmp(is, wanted) != 0)
            put_waiting(a, o->path, is, wanted, is_dataplane);
    }
    if (in_force.has_certs_said && in_force.cert_count == 0 && fresh->cert_count > 0)
        put_waiting(a, BF_CONF_LIST_CERTS, "no port for TLS is open",
                    "the first certificate opens tls.port", true);
}

void bf_admin_reload(struct bf_request *r)
{
    struct bf_services *services = bf_admin_of(r)->services;
    const struct bf_conf *before = atomic_load(&services->conf);
    char err[BF_CONF_ERROR_BYTES_MAX] = "";
    struct answer a = {.count = 0};
    if (!bf_admin_is_operator(r))
        return;
    if (!services->config_path) {
        bf_answer_fail(r, 422, "configuration", "",
                       "the control process was started without --config, so there is no file to "
                       "load again; start it with --config FILE");
        return;
    }
    int rc = bf_services_reload(services, err, sizeof(err));
    if (rc != 0) {
        bf_answer_fail(r, 422, "configuration", "", "%s; the old one stays in force",
                       err[0] ? err : bf_err_text(rc));
        return;
    }
    const struct bf_conf *fresh = atomic_load(&services->conf);
    bf_out_text(&a.o, "{\"reloaded\":true,\"config\":");
    bf_out_cstr(&a.o, services->config_path);
    bf_out_text(&a.o, ",\"taken\":[");
    put_all_taken(&a, before, fresh);
    bf_out_text(&a.o, "],\"waiting\":[");
    a.count = 0;
    put_all_waiting(&a, services->first_conf, fresh);
    bf_out_text(&a.o, "]}");
    bf_answer_json(r, 200, &a.o);
}
