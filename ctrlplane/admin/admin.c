/*
 * The admin port: one thread, local by default. /metrics and health are open to whoever reaches it.
 * Every call that shows or changes something (/admin/...) needs the token of admin.token
 * (credential.h), or an API key of scope admin; the key of a tenant sees and changes only what
 * belongs to its tenant. Requests that a web page could have sent are refused: those with a Host
 * that is not this port's (DNS rebinding), or with the Origin of another site.
 */
#include "admin/admin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "admin/admin_impl.h"
#include "belfry/base/err.h"
#include "belfry/base/port.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf.h"
#include "belfry/shm/own.h"
#include "crypto/hash.h"
#include "stats/metrics.h"

/* A scraper, a person or two. */
#define ADMIN_CONNECTIONS_MAX 64u
#define ADMIN_BODY            (16u * 1024u)

enum { OPEN = 0 };
#define GUARDED BF_ACCESS(BF_ACCESS_KEY, BF_SCOPE_ADMIN)

static const struct bf_route routes[] = {
    {"GET", "/metrics", OPEN, 0, bf_admin_metrics, NULL},
    {"GET", "/healthz", OPEN, 0, bf_admin_health, NULL},
    {"GET", "/readyz", OPEN, 0, bf_admin_ready, NULL},
    {"GET", "/admin/status", GUARDED, 0, bf_admin_status, NULL},
    {"GET", "/admin/connections", GUARDED, 0, bf_admin_connections, NULL},
    {"GET", "/admin/trace/{id}", GUARDED, 0, bf_admin_trace, NULL},
    {"GET", "/admin/dlq", GUARDED, 0, bf_admin_list_dlq, NULL},
    {"POST", "/admin/dlq/redrive", GUARDED, ADMIN_BODY, bf_admin_redrive, NULL},
    {"POST", "/admin/dlq/purge", GUARDED, ADMIN_BODY, bf_admin_purge, NULL},
    {"POST", "/admin/drain", GUARDED, ADMIN_BODY, bf_admin_drain, NULL},
    {"POST", "/admin/config/reload", GUARDED, ADMIN_BODY, bf_admin_reload, NULL},
    {"POST", "/admin/keys", GUARDED, ADMIN_BODY, bf_admin_create_key, NULL},
    {"GET", "/admin/keys", GUARDED, 0, bf_admin_list_keys, NULL},
    {"POST", "/admin/backup", GUARDED, ADMIN_BODY, bf_admin_begin_backup, NULL},
    {"GET", "/admin/backup", GUARDED, 0, bf_admin_show_backup, NULL},
    {"POST", "/admin/keys/{name}/revoke", GUARDED, ADMIN_BODY, bf_admin_revoke_key, NULL},
    {"POST", "/admin/keys/{name}/rotate", GUARDED, ADMIN_BODY, bf_admin_rotate_key, NULL},
};

/* Whether |header| is "Bearer" and the token of the file. */
static bool has_token(const struct bf_admin *admin, struct bf_bytes header)
{
    static const char prefix[] = "Bearer ";
    const size_t len = sizeof(prefix) - 1;
    return header.len == len + sizeof(admin->token) - 1 &&
           strncasecmp(header.at, prefix, len) == 0 &&
           bf_is_same_secret((const uint8_t *)header.at + len, (const uint8_t *)admin->token,
                             sizeof(admin->token) - 1);
}

/* Load balancers ask for health under host names of their own, and the answer contains nothing that
 * a web page could use. */
static bool is_health(const struct bf_route *route)
{
    return route->handle == bf_admin_health || route->handle == bf_admin_ready;
}

static bool is_meant_for_us(struct bf_admin *admin, struct bf_request *r)
{
    const struct bf_conf *conf = atomic_load(&admin->services->conf);
    struct bf_bytes host = bf_request_header(r, "Host");
    struct bf_bytes origin = bf_request_header(r, "Origin");
    if (!bf_admin_host_is_ours(conf, host))
        bf_answer_fail(r, 403, "host", "Host",
                       "this port answers to localhost, its own address and admin.names, not to "
                       "'%.*s'",
                       (int)(host.len < 64 ? host.len : 64), host.at ? host.at : "");
    else if (origin.at && !bf_admin_origin_is_same(origin, host))
        bf_answer_fail(r, 403, "origin", "Origin", "pages of other origins may not use this port");
    return r->answer.status == 0;
}

static void admit(struct bf_request *r)
{
    struct bf_admin *admin = bf_admin_of(r);
    struct bf_principal *who = (struct bf_principal *)(void *)r->state;
    struct bf_bytes credential = bf_request_header(r, "Authorization");
    *who = (struct bf_principal){.who = BF_WHO_NOBODY};
    if (is_health(r->route) || !is_meant_for_us(admin, r) || r->route->access == OPEN ||
        has_token(admin, credential))
        return;
    if (credential.len < 11 || strncasecmp(credential.at, "Bearer bfk_", 11) != 0) {
        bf_count(BF_CM_M_http_unauthorized, 1);
        bf_answer_fail(r, 401, "unauthorized", "Authorization",
                       "admin calls carry Authorization: Bearer with the token in the file "
                       "admin.token of the state directory (belfryctl reads it)");
        return;
    }
    bf_auth_admit(admin->auth, r, who);
}

_Static_assert(sizeof(struct bf_principal) <= BF_HTTP_STATE_BYTES, "who asks fits the request");

bool bf_admin_is_operator(struct bf_request *r)
{
    if (!bf_admin_tenant(r).at)
        return true;
    bf_answer_fail(
        r, 403, "operators-only", "",
        "this is the whole node's: it takes the admin token or an admin key of no tenant, "
        "and this key is of tenant '%s'",
        bf_admin_tenant(r).at);
    return false;
}

int bf_admin_start(struct bf_services *services, int listen_fd, struct bf_admin **ret, char *err,
                   size_t err_len)
{
    const struct bf_conf *conf = atomic_load(&services->conf);
    struct bf_admin *admin = calloc(1, sizeof(*admin));
    if (!admin)
        return -ENOMEM;
    admin->services = services;
    admin->started_ms = bf_mono_ms();
    struct bf_http_options options = {
        .name = "bf-admin",
        .host = conf->admin_host,
        .port = (uint16_t)conf->admin_port,
        .listen_fd = listen_fd,
        .threads = 1,
        .connections_max = ADMIN_CONNECTIONS_MAX,
        .limits = {.head_ms = conf->api_head_timeout_s * 1000,
                   .idle_ms = conf->api_idle_timeout_s * 1000,
                   .body_ms = conf->api_body_timeout_s * 1000,
                   .write_ms = conf->api_write_timeout_s * 1000,
                   .rate_min = conf->api_rate_min},
        .routes = routes,
        .route_count = sizeof(routes) / sizeof(routes[0]),
        .owner = admin,
        .admit = admit,
    };
    char path[BF_PATH_BYTES_MAX];
    bf_admin_token_path(conf, path, sizeof(path));
    admin->backup = bf_backup_job_create(services);
    int rc = admin->backup ? bf_admin_token_open(path, admin->token, err, err_len) : -ENOMEM;
    if (rc == 0)
        rc = bf_auth_create(services, &admin->auth, err, err_len);
    if (rc == 0)
        rc = bf_http_start(&options, &admin->http, err, err_len);
    if (rc == -EADDRINUSE || rc == -EACCES || rc == -EADDRNOTAVAIL)
        bf_port_explain(rc, options.host, options.port, "admin.port", err, err_len);
    if (rc != 0) {
        bf_admin_stop(admin);
        return rc;
    }
    *ret = admin;
    return 0;
}

int bf_admin_port(const struct bf_admin *admin)
{
    return bf_http_port(admin->http);
}

int bf_admin_fd(const struct bf_admin *admin)
{
    return bf_http_fd(admin->http);
}

void bf_admin_write_key_use(struct bf_admin *admin)
{
    bf_auth_write_use(admin->auth);
}

void bf_admin_stop(struct bf_admin *admin)
{
    if (!admin)
        return;
    if (!bf_http_stop(admin->http))
        return; /* a handler that hangs still uses it; the process is about to end */
    bf_backup_job_destroy(admin->backup);
    bf_auth_destroy(admin->auth);
    explicit_bzero(admin->token, sizeof(admin->token));
    free(admin);
}
