/*
 * Loads the configuration file (YAML) into struct bf_conf, driven by options.def. Both planes and
 * belfryctl use it at start and at reload, hence header-only. Whoever loads owns the result; it never
 * changes afterwards. An error is one line for a person: file:line, what is wrong, what is allowed.
 * Files named by options (JWT keys, the development secret) are read here, so that a worker never
 * reads one.
 */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#include "belfry/base/err.h"
#include "belfry/base/limits.h"
#include "belfry/base/log.h"
#include "belfry/base/text.h"
#include "belfry/conf/conf_table.h"

/* A configuration is a page or two; more is the wrong file. */
#define BF_CONF_FILE_BYTES_MAX (1024u * 1024u)
/* "log.kafka.topics.transactional" is 30; an unknown key is cut in the message. */
#define BF_CONF_PATH_BYTES_MAX 160u
/* RFC 7518 section 3.2: a key of at least the hash's size MUST be used with HS256. */
#define BF_CONF_HMAC_BYTES_MIN 32u
#define BF_CONF_DEV_KID        "dev"

struct bf_conf_loader {
    const char *path;
    struct bf_conf *conf;
    yaml_document_t doc;
    uint32_t line[BF_CONF_OPTION_COUNT]; /* where an option was set; 0: nowhere */
    char *err;
    size_t err_len;
};

/* Words the error once and gives BF_ERR_MALFORMED; line 0: about the whole file. */
__attribute__((format(printf, 3, 4))) static inline int
bf_conf_fail(struct bf_conf_loader *l, size_t line, const char *format, ...)
{
    va_list args;
    int n = line > 0 ? snprintf(l->err, l->err_len, "%s:%zu: ", l->path, line)
                     : snprintf(l->err, l->err_len, "%s: ", l->path ? l->path : "defaults");
    va_start(args, format);
    if (n >= 0 && (size_t)n < l->err_len)
        bf_vformat(l->err + n, l->err_len - (size_t)n, format, args);
    va_end(args);
    return BF_ERR_MALFORMED;
}

static inline size_t bf_conf_line(const yaml_node_t *node)
{
    return node->start_mark.line + 1;
}

/* ---- "did you mean" --------------------------------------------------------------------------- */

/* Levenshtein distance; strings longer than the path limit count as far away. */
static inline unsigned bf_conf_distance(const char *a, const char *b)
{
    unsigned row[BF_CONF_PATH_BYTES_MAX + 1];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);
    if (a_len > BF_CONF_PATH_BYTES_MAX || b_len > BF_CONF_PATH_BYTES_MAX)
        return BF_CONF_PATH_BYTES_MAX;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a_len; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            unsigned least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = change < least ? change : least;
        }
    }
    return row[b_len];
}

static inline const char *bf_conf_nearest(const char *path)
{
    const struct bf_conf_option *options = bf_conf_options();
    const char *best = options[0].path;
    unsigned best_distance = bf_conf_distance(path, best);
    for (unsigned i = 1; i < BF_CONF_OPTION_COUNT + BF_CONF_LIST_COUNT; i++) {
        const char *known = i < BF_CONF_OPTION_COUNT ? options[i].path
                                                     : bf_conf_lists()[i - BF_CONF_OPTION_COUNT];
        unsigned distance = bf_conf_distance(path, known);
        if (distance < best_distance) {
            best_distance = distance;
            best = known;
        }
    }
    return best;
}

/* ---- scalars ---------------------------------------------------------------------------------- */

static inline int bf_conf_parse_number(const char *text, uint64_t *ret_value)
{
    uint64_t value = 0;
    if (text[0] == '\0')
        return BF_ERR_MALFORMED;
    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9' || value > (UINT64_MAX - 9) / 10)
            return BF_ERR_MALFORMED;
        value = value * 10 + (uint64_t)(*p - '0');
    }
    *ret_value = value;
    return 0;
}

static inline void bf_conf_put_number(struct bf_conf_loader *l, const struct bf_conf_option *o,
                                      uint64_t value)
{
    void *field = bf_conf_field(l->conf, o);
    if (o->type == BF_CONF_TYPE_U32)
        *(uint32_t *)field = (uint32_t)value;
    else
        *(uint64_t *)field = value;
}

/* A time, a size or a rate. The example in the error is the default, or where that is 0 the most. */
static inline int bf_conf_set_amount(struct bf_conf_loader *l, const struct bf_conf_option *o,
                                     const struct bf_amount *amount, const char *text, size_t line)
{
    char why[BF_AMOUNT_WHY_BYTES] = "is out of range";
    char min[BF_AMOUNT_TEXT_BYTES], max[BF_AMOUNT_TEXT_BYTES], example[BF_AMOUNT_TEXT_BYTES];
    uint64_t value = 0;
    int rc = bf_amount_parse(amount, text, &value, why, sizeof(why));
    if (rc == 0 && value >= o->min && value <= o->max) {
        bf_conf_put_number(l, o, value);
        return 0;
    }
    bf_amount_text(amount, o->min, min, sizeof(min));
    bf_amount_text(amount, o->max, max, sizeof(max));
    bf_amount_text(amount, o->def_num ? o->def_num : o->max, example, sizeof(example));
    return bf_conf_fail(l, line,
                        "%s: '%.*s' %s; allowed %s to %s, as a whole number and a unit (%s), e.g. %s "
                        "(a plain number counts in %s)",
                        o->path, BF_CUT(text, 40), why, min, max, amount->kind->units_text,
                        example, o->unit);
}

static inline int bf_conf_set_number(struct bf_conf_loader *l, const struct bf_conf_option *o,
                                     const char *text, size_t line)
{
    uint64_t value;
    const char *space = o->unit[0] ? " " : "";
    const struct bf_amount *amount = bf_amount_of(o->unit);
    if (amount)
        return bf_conf_set_amount(l, o, amount, text, line);
    if (bf_conf_parse_number(text, &value) != 0)
        return bf_conf_fail(l, line, "%s: '%.*s' is not a whole number; allowed %llu..%llu%s%s",
                            o->path, BF_CUT(text, 40), (unsigned long long)o->min, (unsigned long long)o->max,
                            space, o->unit);
    if (value < o->min || value > o->max)
        return bf_conf_fail(l, line, "%s: %llu%s%s is out of range; allowed %llu..%llu%s%s", o->path,
                            (unsigned long long)value, space, o->unit, (unsigned long long)o->min,
                            (unsigned long long)o->max, space, o->unit);
    bf_conf_put_number(l, o, value);
    return 0;
}

static inline int bf_conf_set_bool(struct bf_conf_loader *l, const struct bf_conf_option *o,
                                   const char *text, size_t line)
{
    bool is_true = strcmp(text, "true") == 0;
    if (!is_true && strcmp(text, "false") != 0)
        return bf_conf_fail(l, line, "%s: '%.*s' is not a truth value; allowed true, false",
                            o->path, BF_CUT(text, 40));
    *(bool *)bf_conf_field(l->conf, o) = is_true;
    return 0;
}

static inline int bf_conf_set_str(struct bf_conf_loader *l, const struct bf_conf_option *o,
                                  const char *text, size_t len, size_t line)
{
    const char **field = bf_conf_field(l->conf, o);
    if (len < o->min || len > o->max || strlen(text) != len)
        return bf_conf_fail(l, line, "%s: the text is %zu bytes long; allowed %llu..%llu, no zeros",
                            o->path, len, (unsigned long long)o->min, (unsigned long long)o->max);
    char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    free((char *)(uintptr_t)*field);
    *field = copy;
    return 0;
}

static inline int bf_conf_set_option(struct bf_conf_loader *l, int id, const yaml_node_t *value)
{
    const struct bf_conf_option *o = &bf_conf_options()[id];
    size_t line = bf_conf_line(value);
    if (value->type != YAML_SCALAR_NODE)
        return bf_conf_fail(l, line, "%s: takes one value, not a list or a section", o->path);
    if (l->line[id] != 0)
        return bf_conf_fail(l, line, "%s: set twice, first at line %u", o->path, l->line[id]);
    l->line[id] = (uint32_t)line;
    const char *text = (const char *)value->data.scalar.value;
    switch (o->type) {
    case BF_CONF_TYPE_U32:
    case BF_CONF_TYPE_U64:
        return bf_conf_set_number(l, o, text, line);
    case BF_CONF_TYPE_BOOL:
        return bf_conf_set_bool(l, o, text, line);
    case BF_CONF_TYPE_STR:
        return bf_conf_set_str(l, o, text, value->data.scalar.length, line);
    }
    return BF_ERR_MALFORMED;
}

/* ---- lists ------------------------------------------------------------------------------------ */

static inline const char *bf_conf_scalar(const yaml_node_t *node)
{
    return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

static inline int bf_conf_add_topic(struct bf_conf_loader *l, const yaml_node_t *item,
                                    const char *path, const char **topics, uint32_t *count)
{
    const char *text = bf_conf_scalar(item);
    size_t line = bf_conf_line(item);
    if (!text || text[0] == '\0' || strlen(text) > BF_TOPIC_BYTES_MAX)
        return bf_conf_fail(l, line, "%s: takes topic names of 1..%u bytes, or prefixes ending in *",
                            path, BF_TOPIC_BYTES_MAX);
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

/* Reads a whole small file; a secret's trailing line end is not part of it. */
static inline int bf_conf_read_file(const char *path, uint8_t *out, size_t cap, uint32_t *ret_len)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return -errno;
    size_t len = fread(out, 1, cap, file);
    bool is_too_long = len == cap && fgetc(file) != EOF;
    bool has_failed = ferror(file) != 0;
    fclose(file);
    if (has_failed)
        return -EIO;
    if (is_too_long)
        return BF_ERR_TOO_LARGE;
    while (len > 0 && (out[len - 1] == '\n' || out[len - 1] == '\r'))
        len--;
    *ret_len = (uint32_t)len;
    return 0;
}

/* A PEM text whose line ends are the two characters \ and n, as they stand in JSON: no library
 * reads it. */
static inline bool bf_conf_is_escaped_pem(const void *text, size_t len)
{
    static const char begin[] = "-----BEGIN ";
    return memmem(text, len, begin, sizeof(begin) - 1) && memmem(text, len, "-----\\n", 7);
}
#define BF_CONF_ESCAPED_PEM                                                                        \
    "holds the two characters \\n where lines should end (it was copied out of JSON); "            \
    "printf '%b' writes it right"

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
        return bf_conf_fail(l, line, BF_CONF_LIST_JWT_KEYS
                            ": a key has exactly one of file, secret_env");
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
        return bf_conf_fail(l, line, BF_CONF_LIST_JWT_KEYS
                            ": each entry is {kid, alg, file or secret_env}");
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
        return bf_conf_fail(l, line,
                            BF_CONF_LIST_JWT_KEYS
                            ": alg '%.*s'; allowed HS256, RS256, ES256, EdDSA",
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

/* A PEM file: text with a BEGIN line. Whether it makes sense is checked by who has OpenSSL. */
static inline int bf_conf_read_pem(struct bf_conf_loader *l, size_t line, const char *what,
                                   const char *path, uint8_t *out, size_t cap, uint32_t *ret_len)
{
    static const char begin[] = "-----BEGIN ";
    int rc = bf_conf_read_file(path, out, cap, ret_len);
    if (rc == BF_ERR_TOO_LARGE)
        return bf_conf_fail(l, line, "%s: '%s' is larger than %zu bytes", what, path, cap);
    if (rc != 0)
        return bf_conf_fail(l, line, "%s: cannot read '%s': %s", what, path, bf_err_text(rc));
    if (bf_conf_is_escaped_pem(out, *ret_len))
        return bf_conf_fail(l, line, "%s: '%s' %s", what, path, BF_CONF_ESCAPED_PEM);
    if (!memmem(out, *ret_len, begin, sizeof(begin) - 1))
        return bf_conf_fail(l, line, "%s: '%s' is not a PEM file", what, path);
    return 0;
}

static inline int bf_conf_cert_names(struct bf_conf_loader *l, const yaml_node_t *list,
                                     struct bf_conf_cert *cert)
{
    size_t line = bf_conf_line(list);
    if (list->type != YAML_SEQUENCE_NODE)
        return bf_conf_fail(l, line, BF_CONF_LIST_CERTS ": names: takes a list");
    for (yaml_node_item_t *at = list->data.sequence.items.start;
         at < list->data.sequence.items.top; at++) {
        const char *name = bf_conf_scalar(yaml_document_get_node(&l->doc, *at));
        if (!name || name[0] == '\0' || strlen(name) >= BF_CONF_CERT_NAME_BYTES ||
            cert->name_count == BF_CONF_CERT_NAMES_MAX)
            return bf_conf_fail(l, line, BF_CONF_LIST_CERTS
                                ": names: at most %u host names of 1..%u bytes",
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

/* Fields of an app that are texts. */
static inline char *bf_conf_push_text(struct bf_conf_push_app *app, const char *name, size_t *ret_cap)
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
        return bf_conf_fail(l, line, BF_CONF_LIST_PUSH_APPS ": %s: 1..%zu bytes, once", name, cap - 1);
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
        return bf_conf_fail(l, line, BF_CONF_LIST_PUSH_APPS
                            ": kind '%.*s'; allowed apns, fcm, webpush", BF_CUT(value, 40));
    if (strcmp(name, "kind") == 0)
        return 0;
    if (strcmp(name, "environment") != 0 || (!is_sandbox && strcmp(value, "production") != 0))
        return bf_conf_fail(l, line, BF_CONF_LIST_PUSH_APPS
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
        bool has_subject = strncmp(app->subject, "mailto:", 7) == 0 ||
                           strncmp(app->subject, "https:", 6) == 0;
        return app->key[0] && has_subject ? NULL : "kind webpush needs key, and subject (mailto: or https:)";
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
        int rc = bf_conf_push_field(l, bf_conf_line(key), name ? name : "", value ? value : "", app);
        if (rc != 0)
            return rc;
        has_kind = has_kind || strcmp(name, "kind") == 0;
    }
    const char *missing = has_kind ? bf_conf_push_missing(app) : "an app needs a name and a kind";
    if (missing)
        return bf_conf_fail(l, line, BF_CONF_LIST_PUSH_APPS ": %s", missing);
    for (uint32_t i = 0; i < conf->push_app_count; i++) {
        if (conf->push_apps[i].kind == app->kind && strcmp(conf->push_apps[i].name, app->name) == 0)
            return bf_conf_fail(l, line, BF_CONF_LIST_PUSH_APPS
                                ": '%s' of this kind is listed twice", app->name);
    }
    conf->push_app_count++;
    return 0;
}

/* A failover may be listed behind the app that names it. */
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
            return bf_conf_fail(l, line, BF_CONF_LIST_PUSH_APPS
                                ": failover '%s' of '%s' is no other app of its kind", app->failover,
                                app->name);
    }
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
        if (!name || (!is_name && strcmp(name, "key") != 0) || !value || value[0] == '\0' || slot[0] ||
            strlen(value) >= cap)
            return bf_conf_fail(l, line, BF_CONF_LIST_API_CLIENTS
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

/* ---- the tree --------------------------------------------------------------------------------- */

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
        int n = snprintf(below, sizeof(below), "%s%s%s", path, path[0] ? "." : "",
                         name ? name : "?");
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
                          parser.problem ? parser.problem : "unreadable",
                          parser.context ? " " : "", parser.context ? parser.context : "");
    } else {
        const yaml_node_t *root = yaml_document_get_root_node(&l->doc);
        if (root)
            rc = bf_conf_walk(l, root, "");
        yaml_document_delete(&l->doc);
    }
    yaml_parser_delete(&parser);
    return rc;
}

/* ---- rules that join options -------------------------------------------------------------------- */

static inline int bf_conf_check_power(struct bf_conf_loader *l, int id, uint32_t value)
{
    if ((value & (value - 1)) == 0)
        return 0;
    return bf_conf_fail(l, l->line[id], "%s: %u is not a power of two", bf_conf_options()[id].path,
                        value);
}

/* Neither plane resolves names for its own listeners: a node must start without DNS. */
static inline int bf_conf_check_host(struct bf_conf_loader *l, int id, const char *host)
{
    uint8_t address[sizeof(struct in6_addr)];
    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
        return 0;
    return bf_conf_fail(l, l->line[id], "%s: '%s' is not an IPv4 or IPv6 address",
                        bf_conf_options()[id].path, host);
}

static inline int bf_conf_check_engine(struct bf_conf_loader *l)
{
    const struct bf_conf *c = l->conf;
    bool is_kafka = strcmp(c->log_engine, "kafka") == 0;
    if (!is_kafka && strcmp(c->log_engine, "embedded") != 0)
        return bf_conf_fail(l, l->line[BF_CONF_ID_log_engine],
                            "log.engine: '%s'; allowed embedded, kafka", c->log_engine);
    if (is_kafka && c->kafka_brokers[0] == '\0')
        return bf_conf_fail(l, l->line[BF_CONF_ID_log_engine],
                            "log.engine: kafka needs log.kafka.brokers (host:port, ...)");
    if (bf_log_level_find(c->log_level) < 0)
        return bf_conf_fail(l, l->line[BF_CONF_ID_log_level],
                            "log.level: '%s'; allowed error, warn, info, debug", c->log_level);
    if (strcmp(c->log_format, "text") != 0 && strcmp(c->log_format, "json") != 0)
        return bf_conf_fail(l, l->line[BF_CONF_ID_log_format],
                            "log.format: '%s'; allowed text, json", c->log_format);
    if (strcmp(c->kafka_produce_acks, "all") != 0 && strcmp(c->kafka_produce_acks, "1") != 0)
        return bf_conf_fail(l, l->line[BF_CONF_ID_kafka_produce_acks],
                            "log.kafka.acks: '%s'; allowed all, 1", c->kafka_produce_acks);
    return 0;
}

static inline bool bf_conf_is_one_of(const char *text, const char *const *allowed)
{
    for (; *allowed != NULL; allowed++) {
        if (strcmp(text, *allowed) == 0)
            return true;
    }
    return false;
}

/* What the options of log.kafka.security and .sasl must be to each other. Their files are read by
 * the control process alone (log/kafka_security.h): the dataplane may run as a user who cannot. */
static inline int bf_conf_check_kafka_security(struct bf_conf_loader *l)
{
    static const char *const protocols[] = {"plaintext", "ssl", "sasl_plaintext", "sasl_ssl", NULL};
    static const char *const mechanisms[] = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", NULL};
    const struct bf_conf *c = l->conf;
    bool is_sasl = strncmp(c->kafka_security, "sasl_", 5) == 0;
    bool is_tls =
        strcmp(c->kafka_security, "ssl") == 0 || strcmp(c->kafka_security, "sasl_ssl") == 0;
    bool names_files = c->kafka_ca_file[0] || c->kafka_cert_file[0] || c->kafka_key_file[0];
    bool names_user = c->kafka_sasl_username[0] || c->kafka_sasl_password_file[0];
    if (!bf_conf_is_one_of(c->kafka_security, protocols))
        return bf_conf_fail(l, l->line[BF_CONF_ID_kafka_security],
                            "log.kafka.security.protocol: '%s'; allowed plaintext, ssl, "
                            "sasl_plaintext, sasl_ssl",
                            c->kafka_security);
    if (!bf_conf_is_one_of(c->kafka_sasl_mechanism, mechanisms))
        return bf_conf_fail(l, l->line[BF_CONF_ID_kafka_sasl_mechanism],
                            "log.kafka.sasl.mechanism: '%s'; allowed PLAIN, SCRAM-SHA-256, "
                            "SCRAM-SHA-512",
                            c->kafka_sasl_mechanism);
    if (!is_tls && names_files)
        return bf_conf_fail(
            l, l->line[BF_CONF_ID_kafka_security],
            "log.kafka.security: certificates are named, but protocol %s uses none; "
            "set ssl or sasl_ssl",
            c->kafka_security);
    if (!c->kafka_cert_file[0] != !c->kafka_key_file[0])
        return bf_conf_fail(l, l->line[BF_CONF_ID_kafka_cert_file],
                            "log.kafka.security: cert_file and key_file come together");
    if (is_sasl && !c->kafka_sasl_username[0])
        return bf_conf_fail(l, l->line[BF_CONF_ID_kafka_security],
                            "log.kafka.security.protocol: %s needs log.kafka.sasl.username",
                            c->kafka_security);
    if (!is_sasl && names_user)
        return bf_conf_fail(l, l->line[BF_CONF_ID_kafka_security],
                            "log.kafka.sasl: a user is named, but protocol %s asks for none; set "
                            "sasl_ssl or sasl_plaintext",
                            c->kafka_security);
    return 0;
}

/* Reads tls.client_ca; everything TLS must fit a snapshot. */
static inline int bf_conf_check_tls(struct bf_conf_loader *l)
{
    struct bf_conf *c = l->conf;
    size_t bytes = 0;
    int rc = bf_conf_check_host(l, BF_CONF_ID_tls_host, c->tls_host);
    if (rc == 0 && c->tls_client_ca[0])
        rc = bf_conf_read_pem(l, l->line[BF_CONF_ID_tls_client_ca], "tls.client_ca",
                              c->tls_client_ca, c->client_ca, sizeof(c->client_ca),
                              &c->client_ca_len);
    if (rc == 0 && c->tls_client_required && !c->tls_client_ca[0])
        rc = bf_conf_fail(l, l->line[BF_CONF_ID_tls_client_required],
                          "tls.client_required: needs tls.client_ca to check certificates with");
    for (uint32_t i = 0; i < c->cert_count; i++)
        bytes += c->certs[i].chain_len + c->certs[i].key_len;
    if (rc == 0 && bytes + c->client_ca_len > BF_CONF_TLS_BYTES_MAX)
        rc = bf_conf_fail(l, 0, BF_CONF_LIST_CERTS ": %zu bytes with tls.client_ca; allowed %u",
                          bytes + c->client_ca_len, BF_CONF_TLS_BYTES_MAX);
    return rc;
}

/* Reads the files of api.tls. */
static inline int bf_conf_check_api_tls(struct bf_conf_loader *l)
{
    struct bf_conf *c = l->conf;
    size_t line = l->line[BF_CONF_ID_api_tls_cert];
    bool has_tls = c->api_tls_cert[0] != '\0';
    int rc = 0;
    if (has_tls != (c->api_tls_key[0] != '\0'))
        return bf_conf_fail(l, has_tls ? line : l->line[BF_CONF_ID_api_tls_key],
                            "api.tls: cert and key go together; only %s is set", has_tls ? "cert" : "key");
    if (!has_tls && (c->api_tls_client_ca[0] || c->api_client_count > 0))
        return bf_conf_fail(l, l->line[BF_CONF_ID_api_tls_client_ca],
                            "api.tls: client_ca and clients need api.tls.cert and api.tls.key");
    if (!c->api_tls_client_ca[0] && (c->api_tls_client_required || c->api_client_count > 0))
        return bf_conf_fail(l, l->line[BF_CONF_ID_api_tls_client_required],
                            "api.tls: client_required and clients need api.tls.client_ca to check "
                            "certificates with");
    if (has_tls)
        rc = bf_conf_read_pem(l, line, "api.tls.cert", c->api_tls_cert, c->api_cert.chain,
                              sizeof(c->api_cert.chain), &c->api_cert.chain_len);
    if (rc == 0 && has_tls)
        rc = bf_conf_read_pem(l, l->line[BF_CONF_ID_api_tls_key], "api.tls.key", c->api_tls_key,
                              c->api_cert.key, sizeof(c->api_cert.key), &c->api_cert.key_len);
    if (rc == 0 && c->api_tls_client_ca[0])
        rc = bf_conf_read_pem(l, l->line[BF_CONF_ID_api_tls_client_ca], "api.tls.client_ca",
                              c->api_tls_client_ca, c->api_client_ca, sizeof(c->api_client_ca),
                              &c->api_client_ca_len);
    return rc;
}

/* Each origin as a browser sends it: scheme://host[:port]. */
static inline int bf_conf_check_origins(struct bf_conf_loader *l)
{
    const char *at = l->conf->api_origins;
    while (*at) {
        size_t len = strcspn(at, ",");
        size_t skip = strspn(at, " ");
        size_t end = len;
        while (end > skip && at[end - 1] == ' ')
            end--;
        const char *scheme = memmem(at, end, "://", 3);
        bool is_good = end > skip && end - skip <= BF_CONF_ORIGIN_BYTES_MAX &&
                       ((end - skip == 1 && at[skip] == '*') ||
                        (scheme && scheme > at + skip && scheme + 3 < at + end &&
                         !memchr(scheme + 3, '/', (size_t)(at + end - scheme - 3))));
        if (!is_good)
            return bf_conf_fail(l, l->line[BF_CONF_ID_api_origins],
                                "api.origins: '%.*s' is no origin; write scheme://host[:port] without a "
                                "path, of at most %u bytes, or *",
                                (int)(end - (skip < end ? skip : end)), at + skip, BF_CONF_ORIGIN_BYTES_MAX);
        at += len;
        if (*at == ',')
            at++;
    }
    return 0;
}

/* Whether listeners on these two addresses are in each other's way. */
static inline bool bf_conf_hosts_overlap(const char *a, const char *b)
{
    return strcmp(a, b) == 0 || strcmp(a, "0.0.0.0") == 0 || strcmp(b, "0.0.0.0") == 0 ||
           strcmp(a, "::") == 0 || strcmp(b, "::") == 0;
}

/* Two listeners of one node on one port: SO_REUSEPORT would let the dataplane have both. */
static inline int bf_conf_check_ports(struct bf_conf_loader *l)
{
    const struct bf_conf *c = l->conf;
    const struct {
        int id;
        uint32_t port; /* 0: any free one, or closed */
        const char *host;
    } at[] = {
        {BF_CONF_ID_ws_port, c->ws_port, c->ws_host},
        {BF_CONF_ID_tls_port, c->cert_count > 0 ? c->tls_port : 0, c->tls_host},
        {BF_CONF_ID_api_port, c->api_port, c->api_host},
        {BF_CONF_ID_admin_port, c->admin_port, c->admin_host},
    };
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        for (size_t k = 0; k < i; k++) {
            if (at[i].port != 0 && at[i].port == at[k].port &&
                bf_conf_hosts_overlap(at[i].host, at[k].host))
                return bf_conf_fail(l, l->line[at[i].id] ? l->line[at[i].id] : l->line[at[k].id],
                                    "%s and %s are both %u: each listener needs a port of its own",
                                    bf_conf_options()[at[k].id].path,
                                    bf_conf_options()[at[i].id].path, at[i].port);
        }
    }
    return 0;
}

/* Without TLS nobody's key should cross a network because nobody thought of it. */
static inline int bf_conf_choose_api_host(struct bf_conf_loader *l)
{
    const struct bf_conf_option *o = &bf_conf_options()[BF_CONF_ID_api_host];
    const char *host = l->conf->api_cert.chain_len > 0 ? "0.0.0.0" : "127.0.0.1";
    if (l->conf->api_host[0] != '\0')
        return bf_conf_check_host(l, BF_CONF_ID_api_host, l->conf->api_host);
    return bf_conf_set_str(l, o, host, strlen(host), 0);
}

/* A ping is what keeps a connection alive. */
static inline int bf_conf_check_presence(struct bf_conf_loader *l)
{
    const struct bf_conf_option *options = bf_conf_options();
    const struct bf_conf_option *timeout = &options[BF_CONF_ID_presence_timeout_ms];
    const struct bf_conf_option *interval = &options[BF_CONF_ID_ping_interval_ms];
    char timeout_text[BF_AMOUNT_TEXT_BYTES], interval_text[BF_AMOUNT_TEXT_BYTES];
    if (l->conf->presence_timeout_ms > l->conf->ping_interval_ms)
        return 0;
    bf_conf_value_text(l->conf, timeout, timeout_text, sizeof(timeout_text));
    bf_conf_value_text(l->conf, interval, interval_text, sizeof(interval_text));
    return bf_conf_fail(l, l->line[BF_CONF_ID_presence_timeout_ms],
                        "%s (%s) must be longer than %s (%s): a ping is what keeps a connection "
                        "alive",
                        timeout->path, timeout_text, interval->path, interval_text);
}

static inline int bf_conf_check(struct bf_conf_loader *l)
{
    const struct bf_conf *c = l->conf;
    int rc = bf_conf_check_power(l, BF_CONF_ID_command_slots, c->command_slots);
    if (rc == 0)
        rc = bf_conf_check_power(l, BF_CONF_ID_receipt_slots, c->receipt_slots);
    if (rc == 0)
        rc = bf_conf_check_power(l, BF_CONF_ID_log_inflight_max, c->log_inflight_max);
    if (rc == 0)
        rc = bf_conf_check_host(l, BF_CONF_ID_ws_host, c->ws_host);
    if (rc == 0)
        rc = bf_conf_check_host(l, BF_CONF_ID_admin_host, c->admin_host);
    if (rc == 0)
        rc = bf_conf_check_presence(l);
    if (rc == 0)
        rc = bf_conf_check_engine(l);
    if (rc == 0)
        rc = bf_conf_check_kafka_security(l);
    if (rc == 0)
        rc = bf_conf_check_tls(l);
    if (rc == 0)
        rc = bf_conf_check_api_tls(l);
    if (rc == 0)
        rc = bf_conf_choose_api_host(l);
    if (rc == 0)
        rc = bf_conf_check_origins(l);
    if (rc == 0)
        rc = bf_conf_check_ports(l);
    return rc;
}

/* dev.jwt_secret_file is an HS256 key of kid "dev", unless a key of that kid is listed. */
static inline int bf_conf_add_dev_key(struct bf_conf_loader *l)
{
    struct bf_conf *c = l->conf;
    size_t line = l->line[BF_CONF_ID_dev_jwt_secret_file];
    if (c->dev_jwt_secret_file[0] == '\0')
        return 0;
    for (uint32_t i = 0; i < c->jwt_key_count; i++) {
        if (strcmp(c->jwt_keys[i].kid, BF_CONF_DEV_KID) == 0)
            return 0;
    }
    if (c->jwt_key_count == BF_CONF_JWT_KEYS_MAX)
        return bf_conf_fail(l, line, "dev.jwt_secret_file: no room beside %u JWT keys",
                            BF_CONF_JWT_KEYS_MAX);
    struct bf_conf_jwt_key *key = &c->jwt_keys[c->jwt_key_count];
    snprintf(key->kid, sizeof(key->kid), "%s", BF_CONF_DEV_KID);
    key->alg = BF_JWT_HS256;
    int rc = bf_conf_read_file(c->dev_jwt_secret_file, key->key, sizeof(key->key), &key->len);
    if (rc != 0)
        return bf_conf_fail(l, line, "dev.jwt_secret_file: cannot read '%s': %s",
                            c->dev_jwt_secret_file, bf_err_text(rc));
    rc = bf_conf_check_key(l, line, "dev.jwt_secret_file", key);
    if (rc == 0)
        c->jwt_key_count++;
    return rc;
}

/* ---- public ------------------------------------------------------------------------------------- */

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
