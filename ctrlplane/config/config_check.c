/* See config_check.h. */
#include "config/config_check.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "belfry/base/err.h"
#include "belfry/base/explain.h"
#include "belfry/base/text.h"
#include "belfry/conf/conf_load.h"
#include "belfry/shm/own.h"
#include "channels/push/push_creds.h"
#include "crypto/certificates.h"
#include "crypto/user_token.h"
#include "log/log.h"

/* statfs's f_type of a file system in memory (linux/magic.h). */
#define TMPFS_MAGIC 0x01021994

struct checker {
    const struct bf_conf *conf;
    bf_config_finding_fn each;
    void *arg;
    unsigned faults;
};

__attribute__((format(printf, 3, 4))) static void find(struct checker *c, bool is_fault,
                                                       const char *format, ...)
{
    char text[2 * BF_CONF_ERROR_BYTES_MAX];
    va_list args;
    va_start(args, format);
    bf_vformat(text, sizeof(text), format, args);
    va_end(args);
    c->faults += is_fault;
    c->each(c->arg, is_fault, text);
}

/* ---- keys and certificates ---- */

static bool is_open_to_others(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0;
}

static void check_keys(struct checker *c)
{
    char err[BF_CONF_ERROR_BYTES_MAX] = "";
    struct bf_token_keys *keys = NULL;
    if (bf_token_keys_create(c->conf, &keys, err, sizeof(err)) != 0)
        find(c, true, "%s", err);
    bf_token_keys_destroy(keys);
    if (bf_certificates_check(c->conf, err, sizeof(err)) != 0)
        find(c, true, "%s", err);
    if (bf_push_creds_check(c->conf, err, sizeof(err)) != 0)
        find(c, true, "%s", err);
    if (bf_log_check(c->conf, err, sizeof(err)) != 0)
        find(c, true, "%s", err);
    if (c->conf->jwt_key_count == 0)
        find(c, false,
             "websocket.jwt_keys is empty: no client can connect, for no token is accepted");
}

static void check_secret_files(struct checker *c)
{
    const struct {
        const char *option, *path;
        bool may_be_missing; /* made at the first start */
    } files[] = {
        {"dev.api_key_file", c->conf->dev_api_key_file, false},
        {"dev.jwt_secret_file", c->conf->dev_jwt_secret_file, false},
        {"push.device_key_file", c->conf->push_device_key_file, true},
        {"admin.token_file", c->conf->admin_token_file, true},
        {"api.tls.key", c->conf->api_tls_key, false},
        {"log.kafka.sasl.password_file", c->conf->kafka_sasl_password_file, false},
        {"log.kafka.security.key_file", c->conf->kafka_key_file, false},
    };
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (files[i].path[0] == '\0')
            continue;
        int rc = eaccess(files[i].path, R_OK) == 0 ? 0 : -errno;
        if (rc != 0 && !(rc == -ENOENT && files[i].may_be_missing))
            find(c, true, "%s: cannot read '%s': %s", files[i].option, files[i].path,
                 strerror(-rc));
        else if (rc == 0 && is_open_to_others(files[i].path))
            find(c, false, "%s: other users of this machine can read '%s': chmod 600",
                 files[i].option, files[i].path);
    }
    for (uint32_t i = 0; i < c->conf->push_app_count; i++) {
        const struct bf_conf_push_app *app = &c->conf->push_apps[i];
        const char *path = app->kind == BF_PUSH_FCM ? app->service_account : app->key;
        if (is_open_to_others(path))
            find(c, false, "push.apps: %s: other users of this machine can read '%s': chmod 600",
                 app->name, path);
    }
}

/* ---- VAPID ---- */

static bool is_public_name(const char *host, size_t len)
{
    static const char *const private[] = {"localhost", ".localhost", ".local", ".internal",
                                          ".invalid",  ".test",      ".lan"};
    char name[256];
    if (len == 0 || len >= sizeof(name) || !memchr(host, '.', len) || host[len - 1] == '.' ||
        host[0] == '.')
        return false;
    memcpy(name, host, len);
    name[len] = '\0';
    for (size_t i = 0; i < sizeof(private) / sizeof(private[0]); i++) {
        size_t end = strlen(private[i]);
        if (len >= end && strcasecmp(name + len - end, private[i]) == 0)
            return false;
    }
    return strspn(name, "0123456789.") != len; /* an address is no public name */
}

const char *bf_vapid_subject_fault(const char *subject)
{
    for (const char *p = subject; *p; p++) {
        if (isspace((unsigned char)*p) || *p == '<' || *p == '>')
            return "it has a blank or angle brackets in it; Apple refuses that (BadJwtToken)";
    }
    if (strncmp(subject, "mailto:", 7) == 0) {
        const char *at = strchr(subject + 7, '@');
        if (!at || at == subject + 7 || !is_public_name(at + 1, strcspn(at + 1, "?")))
            return "mailto: wants a real address, name@domain; localhost and private domains are "
                   "refused";
        return NULL;
    }
    if (strncmp(subject, "https://", 8) != 0)
        return "it must begin with mailto: or https://";
    size_t len = strcspn(subject + 8, ":/?#");
    return is_public_name(subject + 8, len)
               ? NULL
               : "https:// wants a public host name; localhost and addresses are refused";
}

static void check_push(struct checker *c)
{
    for (uint32_t i = 0; i < c->conf->push_app_count; i++) {
        const struct bf_conf_push_app *app = &c->conf->push_apps[i];
        const char *fault =
            app->kind == BF_PUSH_WEBPUSH ? bf_vapid_subject_fault(app->subject) : NULL;
        if (fault)
            find(c, true, "push.apps: %s: subject '%s': %s", app->name, app->subject, fault);
    }
    if (c->conf->push_app_count > 0 && c->conf->push_connections_max == 0)
        find(c, true,
             "push.apps names apps, but dataplane.push_connections_max is 0: no push would be "
             "sent");
}

/* ---- directories ---- */

/* Tries it where the directory is, or where it would be made. */
static int try_dir(const char *path)
{
    char name[BF_PATH_BYTES_MAX + 16];
    char at[BF_PATH_BYTES_MAX];
    struct stat st;
    snprintf(at, sizeof(at), "%s", path);
    while (stat(at, &st) != 0) {
        char *slash = strrchr(at, '/');
        if (errno != ENOENT || !slash)
            return -errno;
        /* only the last directory is made at the start */
        if (strlen(at) != strlen(path))
            return -ENOENT;
        *(slash == at ? slash + 1 : slash) = '\0';
    }
    if (!S_ISDIR(st.st_mode))
        return -ENOTDIR;
    snprintf(name, sizeof(name), "%s/.check-XXXXXX", at);
    int fd = mkstemp(name);
    if (fd < 0)
        return -errno;
    close(fd);
    return unlink(name) == 0 ? 0 : -errno;
}

static void check_dir(struct checker *c, const char *option, const char *path)
{
    char why[BF_CONF_ERROR_BYTES_MAX];
    struct stat st;
    int rc = try_dir(path);
    if (rc != 0) {
        bf_explain_path(rc, option, path, why, sizeof(why));
        find(c, true, "%s", why);
    } else if (stat(path, &st) == 0 && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
        find(c, false, "%s: other users of this machine can look into %s: chmod 700", option, path);
    }
}

static bool is_inside(const char *path, const char *dir)
{
    size_t len = strlen(dir);
    return strncmp(path, dir, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

static void check_dirs(struct checker *c)
{
    struct statfs fs;
    check_dir(c, "node.state_dir", c->conf->state_dir);
    check_dir(c, "node.run_dir", c->conf->run_dir);
    if (is_inside(c->conf->state_dir, c->conf->run_dir))
        find(c, true,
             "node.state_dir (%s) lies in node.run_dir (%s), which is emptied at a reboot: "
             "inboxes and accepted events would be lost",
             c->conf->state_dir, c->conf->run_dir);
    else if (statfs(c->conf->state_dir, &fs) == 0 && fs.f_type == TMPFS_MAGIC)
        find(c, false,
             "node.state_dir (%s) is in memory (tmpfs): a reboot loses inboxes and accepted "
             "events",
             c->conf->state_dir);
    if (c->conf->huge_dir[0] && eaccess(c->conf->huge_dir, W_OK | X_OK) != 0)
        find(c, true, "node.huge_dir: %s cannot be written to: %s", c->conf->huge_dir,
             strerror(errno));
}

/* ---- values that do not fit together ---- */

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

static void check_contradictions(struct checker *c)
{
    const struct bf_conf *conf = c->conf;
    long cores = sysconf(_SC_NPROCESSORS_CONF);
    if (cores > 0 && conf->first_core + conf->workers > (unsigned long)cores)
        find(c, false,
             "dataplane.workers: %u workers from core %u on, but this machine has %ld cores: "
             "those beyond share cores",
             conf->workers, conf->first_core, cores);
    if (!is_loopback(conf->admin_host))
        find(c, false,
             "admin.host: %s: metrics are open to whoever reaches this port, and admin calls "
             "go without TLS",
             conf->admin_host);
    if (strcmp(conf->log_engine, "embedded") == 0 && conf->kafka_brokers[0])
        find(c, false, "log.kafka.brokers is set, but log.engine is embedded: Kafka is not used");
    if (conf->cert_count == 0 && (conf->tls_client_ca[0] || conf->tls_lean || conf->tls_kernel))
        find(c, false,
             "tls.*: options of TLS are set, but tls.certificates is empty: no TLS port is "
             "opened");
}

unsigned bf_config_check(const struct bf_conf *conf, bf_config_finding_fn each, void *arg)
{
    struct checker c = {.conf = conf, .each = each, .arg = arg};
    check_keys(&c);
    check_secret_files(&c);
    check_push(&c);
    check_dirs(&c);
    check_contradictions(&c);
    return c.faults;
}
