/* The API server: joins HTTP, keys and handlers; see api.h. */
#include "api/api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "admin/metrics.h"
#include "api/calls.h"
#include "belfry/base/err.h"

/* A request id is echoed: short and harmless, or not at all. */
#define REQUEST_ID_BYTES_MAX 64u

static void echo_request_id(struct bf_request *r)
{
    struct bf_bytes id = bf_request_header(r, "X-Request-Id");
    if (!id.at || id.len == 0 || id.len > REQUEST_ID_BYTES_MAX)
        return;
    for (size_t i = 0; i < id.len; i++) {
        if (id.at[i] <= 0x20 || id.at[i] >= 0x7f)
            return;
    }
    bf_answer_header(r, "X-Request-Id", "%.*s", (int)id.len, id.at);
}

static void admit(struct bf_request *r)
{
    echo_request_id(r);
    if (r->route->access == 0)
        r->route->handle(r); /* of no path: whoever asks, and before any body */
    else
        bf_auth_admit(bf_api_of(r)->auth, r, &bf_state_of(r)->who);
}

static void answered(struct bf_request *r)
{
    bf_count(BF_CM_M_http_requests, 1);
    if (r->answer.status >= 400)
        bf_count(BF_CM_M_http_errors, 1);
}

static int start_http(struct bf_api *api, int listen_fd, char *err, size_t err_len)
{
    const struct bf_conf *conf = atomic_load(&api->services->conf);
    struct bf_http_options options = {
        .host = conf->api_host,
        .port = (uint16_t)conf->api_port,
        .listen_fd = listen_fd,
        .threads = conf->api_threads,
        .connections_max = conf->api_connections_max,
        .owner = api,
        .admit = admit,
        .answered = answered,
    };
    options.routes = bf_api_routes(&options.route_count);
    return bf_http_start(&options, &api->http, err, err_len);
}

int bf_api_start(struct bf_services *services, int listen_fd, struct bf_api **ret, char *err,
                 size_t err_len)
{
    struct bf_api *api = calloc(1, sizeof(*api));
    if (!api)
        return -ENOMEM;
    api->services = services;
    api->idem = bf_idem_set_create();
    api->recent = bf_recent_create();
    bf_random(api->id_seed, sizeof(api->id_seed));
    int rc = api->idem && api->recent ? bf_auth_create(services, &api->auth, err, err_len)
                                      : -ENOMEM;
    if (rc == 0)
        rc = start_http(api, listen_fd, err, err_len);
    if (rc != 0) {
        bf_api_stop(api);
        return rc;
    }
    *ret = api;
    return 0;
}

int bf_api_port(const struct bf_api *api)
{
    return bf_http_port(api->http);
}

int bf_api_fd(const struct bf_api *api)
{
    return bf_http_fd(api->http);
}

void bf_api_stop(struct bf_api *api)
{
    if (!api)
        return;
    bf_http_stop(api->http);
    bf_auth_destroy(api->auth);
    bf_recent_destroy(api->recent);
    bf_idem_set_destroy(api->idem);
    free(api);
}
