/*
 * Entries of push.apps. Their files are named here; the control process reads them
 * (channels/push/push_creds.h).
 */
#pragma once

#include <stdio.h>
#include <string.h>

#include "belfry/conf/conf_loader.h"
#include "belfry/conf/conf_scalar.h"

/* Fields of an app that are texts. */
static inline char *bf_conf_push_text(struct bf_conf_push_app *app, const char *name,
                                      size_t *ret_cap)
{
    const struct {
        const char *name;
        char *at;
        size_t cap;
    } fields[] = {
        {"name", app->name, sizeof(app->name)},
        {"failover", app->failover, sizeof(app->failover)},
        {"topic", app->topic, sizeof(app->topic)},
        {"team_id", app->team_id, sizeof(app->team_id)},
        {"key_id", app->key_id, sizeof(app->key_id)},
        {"subject", app->subject, sizeof(app->subject)},
        {"host", app->host, sizeof(app->host)},
        {"key", app->key, sizeof(app->key)},
        {"cert", app->cert, sizeof(app->cert)},
        {"service_account", app->service_account, sizeof(app->service_account)},
        {"ca", app->ca, sizeof(app->ca)},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        if (strcmp(fields[i].name, name) == 0) {
            *ret_cap = fields[i].cap;
            return fields[i].at;
        }
    }
    return NULL;
}

static inline uint32_t *bf_conf_push_number(struct bf_conf_push_app *app, const char *name,
                                            uint64_t *ret_max)
{
    *ret_max = 1024; /* APNs: about 300 connections a certificate */
    if (strcmp(name, "connections_min") == 0)
        return &app->connections_min;
    if (strcmp(name, "connections_max") == 0)
        return &app->connections_max;
    *ret_max = UINT16_MAX;
    return strcmp(name, "port") == 0 ? &app->port : NULL;
}

static inline int bf_conf_push_kind(const char *value, struct bf_conf_push_app *app)
{
    static const char *const names[BF_PUSH_KIND_COUNT] = {"apns", "fcm", "webpush"};
    for (unsigned i = 0; i < BF_PUSH_KIND_COUNT; i++) {
        if (strcmp(value, names[i]) == 0) {
            app->kind = (enum bf_push_kind)i;
            return 0;
        }
    }
    return BF_ERR_MALFORMED;
}

static inline int bf_conf_push_field(struct bf_conf_loader *l, size_t line, const char *name,
                                     const char *value, struct bf_conf_push_app *app)
{
    size_t cap;
    uint64_t number, max;
    char *text = bf_conf_push_text(app, name, &cap);
    uint32_t *slot = bf_conf_push_number(app, name, &max);
    if (text && (value[0] == '\0' || text[0] != '\0' || strlen(value) >= cap))
        return bf_conf_fail(l, line, BF_CONF_LIST_PUSH_APPS ": %s: 1..%zu bytes, once", name,
                            cap - 1);
    if (text) {
        snprintf(text, cap, "%s", value);
        return 0;
    }
    if (slot && (bf_conf_parse_number(value, &number) != 0 || number == 0 || number > max))
        return bf_conf_fail(l, line, BF_CONF_LIST_PUSH_APPS ": %s: '%.*s'; allowed 1..%llu", name,
                            BF_CUT(value, 40), (unsigned long long)max);
    if (slot) {
        *slot = (uint32_t)number;
        return 0;
    }
    bool is_sandbox = strcmp(value, "sandbox") == 0;
    if (strcmp(name, "kind") == 0 && bf_conf_push_kind(value, app) != 0)
        return bf_conf_fail(l, line,
                            BF_CONF_LIST_PUSH_APPS ": kind '%.*s'; allowed apns, fcm, webpush",
                            BF_CUT(value, 40));
    if (strcmp(name, "kind") == 0)
        return 0;
    if (strcmp(name, "environment") != 0 || (!is_sandbox && strcmp(value, "production") != 0))
        return bf_conf_fail(l, line,
                            BF_CONF_LIST_PUSH_APPS
                            ": '%.*s: %.*s'; see conf/belfry.yaml for what an app takes",
                            BF_CUT(name, 40), BF_CUT(value, 40));
    app->is_sandbox = is_sandbox;
    return 0;
}

/* What each kind cannot do without. */
static inline const char *bf_conf_push_missing(const struct bf_conf_push_app *app)
{
    if (app->name[0] == '\0')
        return "an app needs a name and a kind";
    if (app->connections_min > app->connections_max)
        return "connections_min is above connections_max";
    if (app->kind == BF_PUSH_FCM)
        return app->service_account[0] ? NULL : "kind fcm needs service_account";
    if (app->kind == BF_PUSH_WEBPUSH) {
        bool has_subject =
            strncmp(app->subject, "mailto:", 7) == 0 || strncmp(app->subject, "https:", 6) == 0;
        return app->key[0] && has_subject
                   ? NULL
                   : "kind webpush needs key, and subject (mailto: or https:)";
    }
    bool has_token = app->team_id[0] && app->key_id[0] && !app->cert[0];
    bool has_cert = app->cert[0] && !app->team_id[0] && !app->key_id[0];
    return app->topic[0] && app->key[0] && (has_token || has_cert)
               ? NULL
               : "kind apns needs topic, and team_id, key_id, key or cert, key";
}

static inline int bf_conf_add_push_app(struct bf_conf_loader *l, const yaml_node_t *item)
{
    struct bf_conf *conf = l->conf;
    size_t line = bf_conf_line(item);
    bool has_kind = false;
    if (item->type != YAML_MAPPING_NODE)
        return bf_conf_fail(l, line, BF_CONF_LIST_PUSH_APPS ": each entry is {name, kind, ...}");
    if (conf->push_app_count == BF_CONF_PUSH_APPS_MAX)
        return bf_conf_fail(l, line, BF_CONF_LIST_PUSH_APPS ": more than %u apps",
                            BF_CONF_PUSH_APPS_MAX);
    struct bf_conf_push_app *app = &conf->push_apps[conf->push_app_count];
    app->port = 443;
    app->connections_min = 1;
    app->connections_max = 8;
    for (yaml_node_pair_t *pair = item->data.mapping.pairs.start;
         pair < item->data.mapping.pairs.top; pair++) {
        yaml_node_t *key = yaml_document_get_node(&l->doc, pair->key);
        const char *name = bf_conf_scalar(key);
        const char *value = bf_conf_scalar(yaml_document_get_node(&l->doc, pair->value));
        int rc =
            bf_conf_push_field(l, bf_conf_line(key), name ? name : "", value ? value : "", app);
        if (rc != 0)
            return rc;
        has_kind = has_kind || strcmp(name, "kind") == 0;
    }
    const char *missing = has_kind ? bf_conf_push_missing(app) : "an app needs a name and a kind";
    if (missing)
        return bf_conf_fail(l, line, BF_CONF_LIST_PUSH_APPS ": %s", missing);
    for (uint32_t i = 0; i < conf->push_app_count; i++) {
        if (conf->push_apps[i].kind == app->kind && strcmp(conf->push_apps[i].name, app->name) == 0)
            return bf_conf_fail(
                l, line, BF_CONF_LIST_PUSH_APPS ": '%s' of this kind is listed twice", app->name);
    }
    conf->push_app_count++;
    return 0;
}

/* The app that is named as failover may be listed after the app that names it. */
static inline int bf_conf_check_failovers(struct bf_conf_loader *l, size_t line)
{
    const struct bf_conf *conf = l->conf;
    for (uint32_t i = 0; i < conf->push_app_count; i++) {
        const struct bf_conf_push_app *app = &conf->push_apps[i];
        bool is_known = app->failover[0] == '\0';
        for (uint32_t k = 0; k < conf->push_app_count && !is_known; k++)
            is_known = k != i && conf->push_apps[k].kind == app->kind &&
                       strcmp(conf->push_apps[k].name, app->failover) == 0;
        if (!is_known)
            return bf_conf_fail(l, line,
                                BF_CONF_LIST_PUSH_APPS
                                ": failover '%s' of '%s' is no other app of its kind",
                                app->failover, app->name);
    }
    return 0;
}
