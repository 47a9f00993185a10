/*
 * Loads the configuration file (YAML) into struct bf_conf, driven by options.def. Both planes and
 * belfryctl use it at start and at reload, hence header-only. Whoever loads owns the result; it
 * never changes afterwards. An error is one line for a person: file:line, what is wrong, what is
 * allowed. Files named by options (JWT keys, the development secret) are read here, so that a
 * worker never reads one. Its parts: conf_scalar.h (single values), conf_lists.h, conf_keys.h and
 * conf_push.h (lists), conf_rules.h (what options must be to each other), conf_loader.h (what these
 * share).
 */
#pragma once

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "belfry/base/err.h"
#include "belfry/conf/conf_lists.h"
#include "belfry/conf/conf_loader.h"
#include "belfry/conf/conf_rules.h"
#include "belfry/conf/conf_scalar.h"

/* A configuration is a page or two; more is the wrong file. */
#define BF_CONF_FILE_BYTES_MAX (1024u * 1024u)

/* ---- the tree ---- */

static inline bool bf_conf_is_list(const char *path)
{
    for (unsigned i = 0; i < BF_CONF_LIST_COUNT; i++) {
        if (strcmp(bf_conf_lists()[i], path) == 0)
            return true;
    }
    return false;
}

/* Whether options or lists live below this path. */
static inline bool bf_conf_is_section(const char *path)
{
    size_t len = strlen(path);
    for (unsigned i = 0; i < BF_CONF_OPTION_COUNT + BF_CONF_LIST_COUNT; i++) {
        const char *known = i < BF_CONF_OPTION_COUNT ? bf_conf_options()[i].path
                                                     : bf_conf_lists()[i - BF_CONF_OPTION_COUNT];
        if (strncmp(known, path, len) == 0 && known[len] == '.')
            return true;
    }
    return false;
}

/* Recursion is as deep as the paths of options.def: anything else is refused on the way. */
static inline int bf_conf_walk(struct bf_conf_loader *l, const yaml_node_t *node, const char *path)
{
    const char *empty = bf_conf_scalar(node);
    if (empty && empty[0] == '\0')
        return 0; /* a section without content */
    if (node->type != YAML_MAPPING_NODE)
        return bf_conf_fail(l, bf_conf_line(node), "%s: is a section: options below it, indented",
                            path[0] ? path : "the file");
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(&l->doc, pair->key);
        const yaml_node_t *value = yaml_document_get_node(&l->doc, pair->value);
        const char *name = bf_conf_scalar(key);
        char below[BF_CONF_PATH_BYTES_MAX];
        int n =
            snprintf(below, sizeof(below), "%s%s%s", path, path[0] ? "." : "", name ? name : "?");
        int id = bf_conf_find(below);
        int rc;
        if (n >= (int)sizeof(below))
            rc = bf_conf_fail(l, bf_conf_line(key), "unknown option '%.*s...'", BF_CUT(below, 60));
        else if (id >= 0)
            rc = bf_conf_set_option(l, id, value);
        else if (bf_conf_is_list(below))
            rc = bf_conf_set_list(l, below, value);
        else if (bf_conf_is_section(below))
            rc = bf_conf_walk(l, value, below);
        else
            rc = bf_conf_fail(l, bf_conf_line(key), "unknown option '%s'; did you mean '%s'?",
                              below, bf_conf_nearest(below));
        if (rc != 0)
            return rc;
    }
    return 0;
}

static inline int bf_conf_parse(struct bf_conf_loader *l, const uint8_t *text, size_t len)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser))
        return -ENOMEM;
    yaml_parser_set_input_string(&parser, text, len);
    int rc = 0;
    if (!yaml_parser_load(&parser, &l->doc)) {
        rc = bf_conf_fail(l, parser.problem_mark.line + 1, "not valid YAML: %s%s%s",
                          parser.problem ? parser.problem : "unreadable", parser.context ? " " : "",
                          parser.context ? parser.context : "");
    } else {
        const yaml_node_t *root = yaml_document_get_root_node(&l->doc);
        if (root)
            rc = bf_conf_walk(l, root, "");
        yaml_document_delete(&l->doc);
    }
    yaml_parser_delete(&parser);
    return rc;
}

/* ---- public ---- */

/* Frees what bf_conf_load gave; NULL and half-built are fine. Secrets are wiped first. */
static inline void bf_conf_free(struct bf_conf *conf)
{
    if (!conf)
        return;
    for (unsigned i = 0; i < BF_CONF_OPTION_COUNT; i++) {
        const struct bf_conf_option *o = &bf_conf_options()[i];
        if (o->type == BF_CONF_TYPE_STR)
            free(*(char **)bf_conf_field(conf, o));
    }
    for (uint32_t i = 0; i < conf->broadcast_topic_count; i++)
        free((char *)(uintptr_t)conf->broadcast_topics[i]);
    for (uint32_t i = 0; i < conf->public_topic_count; i++)
        free((char *)(uintptr_t)conf->public_topics[i]);
    explicit_bzero(conf->jwt_keys, sizeof(conf->jwt_keys));
    explicit_bzero(conf->certs, sizeof(conf->certs[0]) * conf->cert_count);
    explicit_bzero(&conf->api_cert, sizeof(conf->api_cert));
    free(conf);
}

static inline int bf_conf_set_defaults(struct bf_conf *conf)
{
    for (unsigned i = 0; i < BF_CONF_OPTION_COUNT; i++) {
        const struct bf_conf_option *o = &bf_conf_options()[i];
        void *field = bf_conf_field(conf, o);
        if (o->type == BF_CONF_TYPE_U32)
            *(uint32_t *)field = (uint32_t)o->def_num;
        else if (o->type == BF_CONF_TYPE_U64)
            *(uint64_t *)field = o->def_num;
        else if (o->type == BF_CONF_TYPE_BOOL)
            *(bool *)field = o->def_num != 0;
        else if (!(*(char **)field = strdup(o->def_str)))
            return -ENOMEM;
    }
    return 0;
}

/*
 * Parses |len| bytes; |name| stands for the file in messages (NULL: defaults). Returns 0 and *ret
 * (free with bf_conf_free), or BF_ERR_MALFORMED / -ENOMEM with one line in |err|.
 */
static inline int bf_conf_load_text(const char *name, const uint8_t *text, size_t len,
                                    struct bf_conf **ret, char *err, size_t err_len)
{
    struct bf_conf *conf = calloc(1, sizeof(*conf));
    struct bf_conf_loader *l = calloc(1, sizeof(*l));
    int rc = -ENOMEM;
    if (err_len > 0)
        err[0] = '\0';
    if (conf && l)
        rc = bf_conf_set_defaults(conf);
    if (rc == 0) {
        *l = (struct bf_conf_loader){.path = name, .conf = conf, .err = err, .err_len = err_len};
        if (len > 0)
            rc = bf_conf_parse(l, text, len);
    }
    if (rc == 0)
        rc = bf_conf_check(l);
    if (rc == 0)
        rc = bf_conf_add_dev_key(l);
    free(l);
    if (rc == 0) {
        *ret = conf;
        return 0;
    }
    if (rc == -ENOMEM)
        snprintf(err, err_len, "%s: out of memory", name ? name : "defaults");
    bf_conf_free(conf);
    return rc;
}

/*
 * Loads |path|; NULL: defaults. Returns 0 and *ret (free with bf_conf_free), or BF_ERR_MALFORMED /
 * -errno with one line in |err| (BF_CONF_ERROR_BYTES_MAX is enough). Any thread; reads files.
 */
static inline int bf_conf_load(const char *path, struct bf_conf **ret, char *err, size_t err_len)
{
    if (!path)
        return bf_conf_load_text(NULL, NULL, 0, ret, err, err_len);
    FILE *file = fopen(path, "re");
    if (!file) {
        int rc = -errno;
        snprintf(err, err_len, "%s: cannot open: %s", path, strerror(-rc));
        return rc;
    }
    uint8_t *text = malloc(BF_CONF_FILE_BYTES_MAX + 1);
    size_t len = text ? fread(text, 1, BF_CONF_FILE_BYTES_MAX + 1, file) : 0;
    bool has_failed = ferror(file) != 0;
    fclose(file);
    int rc;
    if (!text || has_failed) {
        rc = text ? -EIO : -ENOMEM;
        snprintf(err, err_len, "%s: cannot read: %s", path, strerror(-rc));
    } else if (len > BF_CONF_FILE_BYTES_MAX) {
        rc = BF_ERR_MALFORMED;
        snprintf(err, err_len, "%s: larger than %u bytes: not a configuration file", path,
                 BF_CONF_FILE_BYTES_MAX);
    } else {
        rc = bf_conf_load_text(path, text, len, ret, err, err_len);
    }
    free(text);
    return rc;
}
