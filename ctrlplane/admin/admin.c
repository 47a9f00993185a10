/*
 * The admin port: one thread, local by default. /metrics and health are open to whoever reaches it; the
 * calls of belfryctl (/admin/...) want a header that no web page can send unasked, and an API key of
 * scope admin if the port is not on the loopback.
 */
#include "admin/admin.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "admin/admin_impl.h"
#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf.h"

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
};

static void admit(struct bf_request *r)
{
    struct bf_admin *admin = bf_admin_of(r);
    struct bf_principal *who = (struct bf_principal *)(void *)r->state;
    *who = (struct bf_principal){.who = BF_WHO_NOBODY};
    if (r->route->access == OPEN)
        return;
    if (!bf_request_header(r, "X-Belfry-Admin").at)
        bf_answer_fail(r, 403, "admin-header", "X-Belfry-Admin",
                       "admin calls carry the header X-Belfry-Admin: 1 (belfryctl does)");
    else if (!admin->is_local)
        bf_auth_admit(admin->auth, r, who);
}

_Static_assert(sizeof(struct bf_principal) <= BF_HTTP_STATE_BYTES, "who asks fits the request");

bool bf_admin_is_operator(struct bf_request *r)
{
    if (!bf_admin_tenant(r).at)
        return true;
    bf_answer_fail(r, 403, "operators-only", "",
                   "this is the whole node's: it takes an admin key of no tenant, and this key is of "
                   "tenant '%s'",
                   bf_admin_tenant(r).at);
    return false;
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0;
}

int bf_admin_start(struct bf_services *services, int listen_fd, struct bf_admin **ret, char *err,
                   size_t err_len)
{
    const struct bf_conf *conf = atomic_load(&services->conf);
    struct bf_admin *admin = calloc(1, sizeof(*admin));
    if (!admin)
        return -ENOMEM;
    admin->services = services;
    admin->is_local = is_loopback(conf->admin_host);
    admin->started_ms = bf_mono_ms();
    struct bf_http_options options = {
        .host = conf->admin_host,
        .port = (uint16_t)conf->admin_port,
        .listen_fd = listen_fd,
        .threads = 1,
        .connections_max = ADMIN_CONNECTIONS_MAX,
        .routes = routes,
        .route_count = sizeof(routes) / sizeof(routes[0]),
        .owner = admin,
        .admit = admit,
    };
    int rc = bf_auth_create(services, &admin->auth, err, err_len);
    if (rc == 0)
        rc = bf_http_start(&options, &admin->http, err, err_len);
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

void bf_admin_stop(struct bf_admin *admin)
{
    if (!admin)
        return;
    bf_http_stop(admin->http);
    bf_auth_destroy(admin->auth);
    free(admin);
}
