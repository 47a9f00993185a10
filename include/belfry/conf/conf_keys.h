/*
 * Entries of websocket.jwt_keys and tls.certificates: keys and certificates with the content of
 * their files, so that a worker never reads one. Whether a certificate is valid is checked by who
 * has OpenSSL.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "belfry/conf/conf_loader.h"

/* RFC 7518 section 3.2: a key of at least the hash's size MUST be used with HS256. */
#define BF_CONF_HMAC_BYTES_MIN 32u

/* ---- JWT keys ---- */

static inline int bf_conf_parse_alg(const char *text, enum bf_jwt_alg *ret_alg)
{
    static const char *const names[BF_JWT_ALG_COUNT] = {
        [BF_JWT_HS256] = "HS256",
        [BF_JWT_RS256] = "RS256",
        [BF_JWT_ES256] = "ES256",
        [BF_JWT_EDDSA] = "EdDSA",
    };
    for (unsigned i = 0; text && i < BF_JWT_ALG_COUNT; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret_alg = (enum bf_jwt_alg)i;
            return 0;
        }
    }
    return BF_ERR_MALFORMED;
}

/* |what| names the key for people: its kid or option. */
static inline int bf_conf_check_key(struct bf_conf_loader *l, size_t line, const char *what,
                                    const struct bf_conf_jwt_key *key)
{
    static const char pem[] = "-----BEGIN ";
    bool is_pem = key->len >= sizeof(pem) - 1 && memcmp(key->key, pem, sizeof(pem) - 1) == 0;
    if (bf_conf_is_escaped_pem(key->key, key->len))
        return bf_conf_fail(l, line, "%s: kid '%s' %s", what, key->kid, BF_CONF_ESCAPED_PEM);
    if (key->alg == BF_JWT_HS256) {
        if (key->len < BF_CONF_HMAC_BYTES_MIN || is_pem)
            return bf_conf_fail(l, line,
                                "%s: an HS256 secret has at least %u bytes (this one: %u) and is "
                                "no PEM file",
                                what, BF_CONF_HMAC_BYTES_MIN, key->len);
        return 0;
    }
    if (!is_pem)
        return bf_conf_fail(l, line, "%s: RS256, ES256 and EdDSA take a public key in PEM form",
                            what);
    return 0;
}

static inline int bf_conf_key_material(struct bf_conf_loader *l, size_t line, const char *file,
                                       const char *env, struct bf_conf_jwt_key *key)
{
    if (!file == !env)
        return bf_conf_fail(l, line,
                            BF_CONF_LIST_JWT_KEYS ": a key has exactly one of file, secret_env");
    if (file) {
        int rc = bf_conf_read_file(file, key->key, sizeof(key->key), &key->len);
        if (rc != 0)
            return bf_conf_fail(l, line, BF_CONF_LIST_JWT_KEYS ": cannot read '%s': %s", file,
                                bf_err_text(rc));
        return 0;
    }
    const char *secret = getenv(env);
    size_t len = secret ? strlen(secret) : 0;
    if (len == 0 || len > sizeof(key->key))
        return bf_conf_fail(l, line,
                            BF_CONF_LIST_JWT_KEYS ": environment variable %s is %s; allowed 1..%zu "
                                                  "bytes",
                            env, len == 0 ? "not set" : "too long", sizeof(key->key));
    memcpy(key->key, secret, len);
    key->len = (uint32_t)len;
    return 0;
}

struct bf_conf_jwt_texts {
    const char *kid, *alg, *file, *env;
};

static inline int bf_conf_jwt_fields(struct bf_conf_loader *l, const yaml_node_t *item,
                                     struct bf_conf_jwt_texts *texts)
{
    for (yaml_node_pair_t *pair = item->data.mapping.pairs.start;
         pair < item->data.mapping.pairs.top; pair++) {
        yaml_node_t *key_node = yaml_document_get_node(&l->doc, pair->key);
        yaml_node_t *value_node = yaml_document_get_node(&l->doc, pair->value);
        const char *name = bf_conf_scalar(key_node);
        const char *value = bf_conf_scalar(value_node);
        const char **slot = NULL;
        if (name && strcmp(name, "kid") == 0)
            slot = &texts->kid;
        else if (name && strcmp(name, "alg") == 0)
            slot = &texts->alg;
        else if (name && strcmp(name, "file") == 0)
            slot = &texts->file;
        else if (name && strcmp(name, "secret_env") == 0)
            slot = &texts->env;
        if (!slot || !value || *slot)
            return bf_conf_fail(l, bf_conf_line(key_node),
                                BF_CONF_LIST_JWT_KEYS
                                ": '%.*s': a key takes kid, alg, file, secret_env, each once",
                                BF_CUT(name ? name : "", 40));
        *slot = value;
    }
    return 0;
}

static inline int bf_conf_add_jwt_key(struct bf_conf_loader *l, const yaml_node_t *item)
{
    struct bf_conf_jwt_texts texts = {0};
    size_t line = bf_conf_line(item);
    if (item->type != YAML_MAPPING_NODE)
        return bf_conf_fail(l, line,
                            BF_CONF_LIST_JWT_KEYS ": each entry is {kid, alg, file or secret_env}");
    if (l->conf->jwt_key_count == BF_CONF_JWT_KEYS_MAX)
        return bf_conf_fail(l, line, BF_CONF_LIST_JWT_KEYS ": more than %u keys",
                            BF_CONF_JWT_KEYS_MAX);
    int rc = bf_conf_jwt_fields(l, item, &texts);
    if (rc != 0)
        return rc;
    struct bf_conf_jwt_key *key = &l->conf->jwt_keys[l->conf->jwt_key_count];
    if (texts.kid && strlen(texts.kid) >= sizeof(key->kid))
        return bf_conf_fail(l, line, BF_CONF_LIST_JWT_KEYS ": a kid has at most %zu bytes",
                            sizeof(key->kid) - 1);
    snprintf(key->kid, sizeof(key->kid), "%s", texts.kid ? texts.kid : "");
    if (bf_conf_parse_alg(texts.alg, &key->alg) != 0)
        return bf_conf_fail(
            l, line, BF_CONF_LIST_JWT_KEYS ": alg '%.*s'; allowed HS256, RS256, ES256, EdDSA",
            BF_CUT(texts.alg ? texts.alg : "", 40));
    for (uint32_t i = 0; i < l->conf->jwt_key_count; i++) {
        if (strcmp(l->conf->jwt_keys[i].kid, key->kid) == 0)
            return bf_conf_fail(l, line, BF_CONF_LIST_JWT_KEYS ": kid '%s' is listed twice",
                                key->kid);
    }
    rc = bf_conf_key_material(l, line, texts.file, texts.env, key);
    if (rc == 0)
        rc = bf_conf_check_key(l, line, BF_CONF_LIST_JWT_KEYS, key);
    if (rc == 0)
        l->conf->jwt_key_count++;
    return rc;
}

/* ---- certificates ---- */

static inline int bf_conf_cert_names(struct bf_conf_loader *l, const yaml_node_t *list,
                                     struct bf_conf_cert *cert)
{
    size_t line = bf_conf_line(list);
    if (list->type != YAML_SEQUENCE_NODE)
        return bf_conf_fail(l, line, BF_CONF_LIST_CERTS ": names: takes a list");
    for (yaml_node_item_t *at = list->data.sequence.items.start; at < list->data.sequence.items.top;
         at++) {
        const char *name = bf_conf_scalar(yaml_document_get_node(&l->doc, *at));
        if (!name || name[0] == '\0' || strlen(name) >= BF_CONF_CERT_NAME_BYTES ||
            cert->name_count == BF_CONF_CERT_NAMES_MAX)
            return bf_conf_fail(l, line,
                                BF_CONF_LIST_CERTS ": names: at most %u host names of 1..%u bytes",
                                BF_CONF_CERT_NAMES_MAX, BF_CONF_CERT_NAME_BYTES - 1);
        snprintf(cert->names[cert->name_count++], BF_CONF_CERT_NAME_BYTES, "%s", name);
    }
    return 0;
}

struct bf_conf_cert_nodes {
    const char *cert, *key;
    const yaml_node_t *names;
};

static inline int bf_conf_cert_fields(struct bf_conf_loader *l, const yaml_node_t *item,
                                      struct bf_conf_cert_nodes *nodes)
{
    for (yaml_node_pair_t *pair = item->data.mapping.pairs.start;
         pair < item->data.mapping.pairs.top; pair++) {
        yaml_node_t *key_node = yaml_document_get_node(&l->doc, pair->key);
        yaml_node_t *value_node = yaml_document_get_node(&l->doc, pair->value);
        const char *name = bf_conf_scalar(key_node);
        const char *value = bf_conf_scalar(value_node);
        if (name && strcmp(name, "cert") == 0 && value && !nodes->cert)
            nodes->cert = value;
        else if (name && strcmp(name, "key") == 0 && value && !nodes->key)
            nodes->key = value;
        else if (name && strcmp(name, "names") == 0 && !nodes->names)
            nodes->names = value_node;
        else
            return bf_conf_fail(l, bf_conf_line(key_node),
                                BF_CONF_LIST_CERTS
                                ": '%.*s': a certificate takes cert, key, names, each once",
                                BF_CUT(name ? name : "", 40));
    }
    return 0;
}

static inline int bf_conf_add_cert(struct bf_conf_loader *l, const yaml_node_t *item)
{
    struct bf_conf_cert_nodes nodes = {0};
    size_t line = bf_conf_line(item);
    if (item->type != YAML_MAPPING_NODE)
        return bf_conf_fail(l, line, BF_CONF_LIST_CERTS ": each entry is {cert, key, names}");
    if (l->conf->cert_count == BF_CONF_CERTS_MAX)
        return bf_conf_fail(l, line, BF_CONF_LIST_CERTS ": more than %u certificates",
                            BF_CONF_CERTS_MAX);
    struct bf_conf_cert *cert = &l->conf->certs[l->conf->cert_count];
    int rc = bf_conf_cert_fields(l, item, &nodes);
    if (rc == 0 && (!nodes.cert || !nodes.key))
        rc = bf_conf_fail(l, line, BF_CONF_LIST_CERTS ": an entry needs cert and key");
    if (rc == 0)
        rc = bf_conf_read_pem(l, line, BF_CONF_LIST_CERTS, nodes.cert, cert->chain,
                              sizeof(cert->chain), &cert->chain_len);
    if (rc == 0)
        rc = bf_conf_read_pem(l, line, BF_CONF_LIST_CERTS, nodes.key, cert->key, sizeof(cert->key),
                              &cert->key_len);
    if (rc == 0 && nodes.names)
        rc = bf_conf_cert_names(l, nodes.names, cert);
    if (rc == 0)
        l->conf->cert_count++;
    return rc;
}
