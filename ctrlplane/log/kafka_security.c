/*
 * How the clients of the Kafka engine prove who they are, and whom they believe: TLS and SASL
 * (log.kafka.security, log.kafka.sasl). The password comes from a file or the environment, is
 * handed to librdkafka and wiped; it is in no log line and no error.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "log/kafka.h"

#define PASSWORD_ENV "BELFRY_KAFKA_PASSWORD"
/* Longer is no password but a wrong file. */
#define PASSWORD_BYTES_MAX 1024u
/* A refused password is looked for again in its file at most so often. */
#define REREAD_MS 1000u

struct secret {
    char
        text[PASSWORD_BYTES_MAX + 2]; /* one byte too many tells a file that is too long; and a 0 */
};

static bool is_sasl(const struct bf_conf *conf)
{
    return strncmp(conf->kafka_security, "sasl_", 5) == 0;
}

static bool is_tls(const struct bf_conf *conf)
{
    return strcmp(conf->kafka_security, "ssl") == 0 ||
           strcmp(conf->kafka_security, "sasl_ssl") == 0;
}

static int read_file(const char *path, struct secret *ret, char *err, size_t err_len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t len = fd >= 0 ? read(fd, ret->text, sizeof(ret->text) - 1) : -1;
    int error = errno;
    if (fd >= 0)
        close(fd);
    if (len < 0) {
        snprintf(err, err_len, "log.kafka.sasl.password_file: cannot read '%s': %s", path,
                 strerror(error));
        return BF_ERR_UNSUPPORTED;
    }
    while (len > 0 && (ret->text[len - 1] == '\n' || ret->text[len - 1] == '\r'))
        len--;
    ret->text[len] = '\0';
    if (len > 0 && len <= (ssize_t)PASSWORD_BYTES_MAX && strlen(ret->text) == (size_t)len)
        return 0;
    snprintf(err, err_len,
             "log.kafka.sasl.password_file: '%s' holds no password: it has one line of 1..%u bytes",
             path, PASSWORD_BYTES_MAX);
    return BF_ERR_UNSUPPORTED;
}

static int read_password(const struct bf_conf *conf, struct secret *ret, char *err, size_t err_len)
{
    if (conf->kafka_sasl_password_file[0])
        return read_file(conf->kafka_sasl_password_file, ret, err, err_len);
    const char *from_env = getenv(PASSWORD_ENV);
    size_t len = from_env != NULL ? strlen(from_env) : 0;
    if (len == 0 || len > PASSWORD_BYTES_MAX) {
        snprintf(
            err, err_len,
            "log.kafka.security.protocol %s needs a password: set log.kafka.sasl.password_file, "
            "or the environment variable " PASSWORD_ENV " (which is %s)",
            conf->kafka_security, len == 0 ? "not set" : "too long");
        return BF_ERR_UNSUPPORTED;
    }
    memcpy(ret->text, from_env, len + 1);
    return 0;
}

/* librdkafka's message about a missing file does not name our option. */
static int check_file(const char *option, const char *path, char *err, size_t err_len)
{
    if (path[0] == '\0' || access(path, R_OK) == 0)
        return 0;
    snprintf(err, err_len, "%s: cannot read '%s': %s", option, path, strerror(errno));
    return BF_ERR_UNSUPPORTED;
}

static int apply_tls(const struct bf_conf *conf, rd_kafka_conf_t *rk, char *err, size_t err_len)
{
    const struct {
        const char *name, *path, *option;
    } files[] = {
        {"ssl.ca.location", conf->kafka_ca_file, "log.kafka.security.ca_file"},
        {"ssl.certificate.location", conf->kafka_cert_file, "log.kafka.security.cert_file"},
        {"ssl.key.location", conf->kafka_key_file, "log.kafka.security.key_file"},
    };
    const struct bf_kafka_setting verify[] = {
        {"enable.ssl.certificate.verification", conf->kafka_verify ? "true" : "false"},
        {"ssl.endpoint.identification.algorithm", conf->kafka_verify ? "https" : "none"},
        {NULL, NULL},
    };
    int rc = bf_kafka_configure(rk, verify, err, err_len);
    for (unsigned i = 0; rc == 0 && i < sizeof(files) / sizeof(files[0]); i++) {
        const struct bf_kafka_setting file[] = {{files[i].name, files[i].path}, {NULL, NULL}};
        if (files[i].path[0] == '\0')
            continue;
        rc = check_file(files[i].option, files[i].path, err, err_len);
        if (rc == 0)
            rc = bf_kafka_configure(rk, file, err, err_len);
    }
    return rc;
}

static int apply_sasl(const struct bf_conf *conf, rd_kafka_conf_t *rk, char *err, size_t err_len)
{
    struct secret secret;
    int rc = read_password(conf, &secret, err, err_len);
    if (rc == 0) {
        const struct bf_kafka_setting settings[] = {
            {"sasl.mechanism", conf->kafka_sasl_mechanism},
            {"sasl.username", conf->kafka_sasl_username},
            {"sasl.password", secret.text},
            {NULL, NULL},
        };
        rc = bf_kafka_configure(rk, settings, err, err_len);
    }
    explicit_bzero(&secret, sizeof(secret));
    return rc;
}

int bf_kafka_secure(const struct bf_conf *conf, rd_kafka_conf_t *rk, char *err, size_t err_len)
{
    const struct bf_kafka_setting protocol[] = {{"security.protocol", conf->kafka_security},
                                                {NULL, NULL}};
    int rc = bf_kafka_configure(rk, protocol, err, err_len);
    if (rc == 0 && is_tls(conf))
        rc = apply_tls(conf, rk, err, err_len);
    if (rc == 0 && is_sasl(conf))
        rc = apply_sasl(conf, rk, err, err_len);
    return rc;
}

void bf_kafka_refresh_password(const struct bf_conf *conf, rd_kafka_t *rk, uint64_t *at_ms,
                               uint64_t now_ms)
{
    struct secret secret;
    char err[BF_KAFKA_TEXT_BYTES] = "";
    if (!is_sasl(conf) || conf->kafka_sasl_password_file[0] == '\0' || now_ms < *at_ms)
        return;
    *at_ms = now_ms + REREAD_MS;
    if (read_password(conf, &secret, err, sizeof(err)) == 0) {
        rd_kafka_error_t *error =
            rd_kafka_sasl_set_credentials(rk, conf->kafka_sasl_username, secret.text);
        if (error != NULL)
            rd_kafka_error_destroy(error);
    } else {
        bf_kafka_say("password", err);
    }
    explicit_bzero(&secret, sizeof(secret));
}

bool bf_kafka_is_refusal(rd_kafka_resp_err_t err)
{
    return err == RD_KAFKA_RESP_ERR__AUTHENTICATION || err == RD_KAFKA_RESP_ERR__SSL ||
           err == RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED;
}

int bf_log_kafka_check(const struct bf_conf *conf, char *err, size_t err_len)
{
    char why[BF_KAFKA_TEXT_BYTES];
    rd_kafka_conf_t *rk_conf = rd_kafka_conf_new();
    int rc = bf_kafka_secure(conf, rk_conf, err, err_len);
    if (rc != 0) {
        rd_kafka_conf_destroy(rk_conf);
        return rc;
    }
    /* no brokers are named: it reads certificates and keys, and speaks to nobody */
    rd_kafka_t *rk = bf_kafka_client(RD_KAFKA_PRODUCER, rk_conf, why, sizeof(why));
    if (rk == NULL) {
        snprintf(err, err_len, "log.kafka.security: %s", why);
        return BF_ERR_UNSUPPORTED;
    }
    rd_kafka_destroy(rk);
    return 0;
}
