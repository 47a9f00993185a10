/*
 * The options that are lists: topics and API clients are read here, keys and certificates by
 * conf_keys.h, push apps by conf_push.h.
 */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "belfry/base/limits.h"
#include "belfry/conf/conf_keys.h"
#include "belfry/conf/conf_loader.h"
#include "belfry/conf/conf_push.h"

static inline int bf_conf_add_topic(struct bf_conf_loader *l, const yaml_node_t *item,
                                    const char *path, const char **topics, uint32_t *count)
{
    const char *text = bf_conf_scalar(item);
    size_t line = bf_conf_line(item);
    if (!text || text[0] == '\0' || strlen(text) > BF_TOPIC_BYTES_MAX)
        return bf_conf_fail(l, line,
                            "%s: takes topic names of 1..%u bytes, or prefixes ending in *", path,
                            BF_TOPIC_BYTES_MAX);
    const char *star = strchr(text, '*');
    if (star && star[1] != '\0')
        return bf_conf_fail(l, line, "%s: '%s': * is allowed at the end only", path, text);
    if (*count == BF_CONF_TOPIC_RULES_MAX)
        return bf_conf_fail(l, line, "%s: more than %u entries", path, BF_CONF_TOPIC_RULES_MAX);
    char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    topics[(*count)++] = copy;
    return 0;
}

/* Who a client certificate is: {name, key}. */
static inline int bf_conf_add_api_client(struct bf_conf_loader *l, const yaml_node_t *item)
{
    struct bf_conf *conf = l->conf;
    size_t line = bf_conf_line(item);
    if (item->type != YAML_MAPPING_NODE)
        return bf_conf_fail(l, line, BF_CONF_LIST_API_CLIENTS ": each entry is {name, key}");
    if (conf->api_client_count == BF_CONF_API_CLIENTS_MAX)
        return bf_conf_fail(l, line, BF_CONF_LIST_API_CLIENTS ": more than %u entries",
                            BF_CONF_API_CLIENTS_MAX);
    struct bf_conf_api_client *client = &conf->api_clients[conf->api_client_count];
    for (yaml_node_pair_t *pair = item->data.mapping.pairs.start;
         pair < item->data.mapping.pairs.top; pair++) {
        const char *name = bf_conf_scalar(yaml_document_get_node(&l->doc, pair->key));
        const char *value = bf_conf_scalar(yaml_document_get_node(&l->doc, pair->value));
        bool is_name = name && strcmp(name, "name") == 0;
        char *slot = is_name ? client->name : client->key;
        size_t cap = is_name ? sizeof(client->name) : sizeof(client->key);
        if (!name || (!is_name && strcmp(name, "key") != 0) || !value || value[0] == '\0' ||
            slot[0] || strlen(value) >= cap)
            return bf_conf_fail(
                l, line,
                BF_CONF_LIST_API_CLIENTS
                ": an entry takes name (1..%zu bytes) and key (the id of an API key), each once",
                sizeof(client->name) - 1);
        snprintf(slot, cap, "%s", value);
    }
    if (!client->name[0] || !client->key[0])
        return bf_conf_fail(l, line, BF_CONF_LIST_API_CLIENTS ": an entry needs name and key");
    for (uint32_t i = 0; i < conf->api_client_count; i++) {
        if (strcmp(conf->api_clients[i].name, client->name) == 0)
            return bf_conf_fail(l, line, BF_CONF_LIST_API_CLIENTS ": name '%s' is listed twice",
                                client->name);
    }
    conf->api_client_count++;
    return 0;
}

static inline int bf_conf_set_list(struct bf_conf_loader *l, const char *path,
                                   const yaml_node_t *list)
{
    struct bf_conf *conf = l->conf;
    const char *empty = bf_conf_scalar(list);
    if (empty && empty[0] == '\0')
        return 0; /* "key:" with nothing below it */
    if (list->type != YAML_SEQUENCE_NODE)
        return bf_conf_fail(l, bf_conf_line(list), "%s: takes a list", path);
    int rc = 0;
    for (yaml_node_item_t *at = list->data.sequence.items.start;
         rc == 0 && at < list->data.sequence.items.top; at++) {
        const yaml_node_t *item = yaml_document_get_node(&l->doc, *at);
        if (strcmp(path, BF_CONF_LIST_JWT_KEYS) == 0)
            rc = bf_conf_add_jwt_key(l, item);
        else if (strcmp(path, BF_CONF_LIST_CERTS) == 0)
            rc = bf_conf_add_cert(l, item);
        else if (strcmp(path, BF_CONF_LIST_PUSH_APPS) == 0)
            rc = bf_conf_add_push_app(l, item);
        else if (strcmp(path, BF_CONF_LIST_API_CLIENTS) == 0)
            rc = bf_conf_add_api_client(l, item);
        else if (strcmp(path, BF_CONF_LIST_BROADCAST) == 0)
            rc = bf_conf_add_topic(l, item, path, conf->broadcast_topics,
                                   &conf->broadcast_topic_count);
        else
            rc = bf_conf_add_topic(l, item, path, conf->public_topics, &conf->public_topic_count);
    }
    if (rc == 0 && strcmp(path, BF_CONF_LIST_PUSH_APPS) == 0)
        rc = bf_conf_check_failovers(l, bf_conf_line(list));
    return rc;
}
