/*
 * Rules that join options, checked once the whole file is read: bf_conf_check. What depends on the
 * machine (ports, directories) is checked by the control process (`belfryctl config check`).
 */
#pragma once

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "belfry/base/log.h"
#include "belfry/conf/conf_keys.h"
#include "belfry/conf/conf_loader.h"
#include "belfry/conf/conf_scalar.h"

#define BF_CONF_DEV_KID "dev"

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
                            "api.tls: cert and key go together; only %s is set",
                            has_tls ? "cert" : "key");
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
            return bf_conf_fail(
                l, l->line[BF_CONF_ID_api_origins],
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
