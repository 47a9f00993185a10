/* The API server: joins HTTP, keys and handlers; see api.h. */
#include "api/api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/calls.h"
#include "api/cors.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/port.h"
#include "crypto/hash.h"
#include "stats/metrics.h"

/* A request id is echoed: short and harmless, or not at all. */
#define REQUEST_ID_BYTES_MAX 64u

struct bf_http_stats bf_api_stats;

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

/* One producer cannot hold all connections with requests that wait. */
static void limit_running(struct bf_request *r)
{
    struct bf_call_state *state = bf_state_of(r);
    uint32_t max = bf_conf_of(r)->api_per_key;
    if (r->answer.status != 0 || state->who.who != BF_WHO_KEY || max == 0)
        return;
    state->is_running = true;
    /* relaxed: a bound, it orders nothing */
    if (atomic_fetch_add_explicit(&state->who.key->running, 1, memory_order_relaxed) < max)
        return;
    struct bf_problem problem;
    atomic_fetch_add_explicit(&bf_api_stats.refused[BF_REFUSED_KEY], 1, memory_order_relaxed);
    bf_problem_set(
        &problem, 429, "too-many-at-once", "",
        "this API key has %u requests running, as many as it may have at once (api.per_key); "
        "wait for some of them",
        max);
    problem.retry_after_s = 1;
    bf_answer_problem(r, &problem);
}

static void admit(struct bf_request *r)
{
    echo_request_id(r);
    bf_cors_admit(r);
    if (r->route->access == 0) {
        r->route->handle(r); /* of no path: whoever asks, and before any body */
        return;
    }
    bf_auth_admit(bf_api_of(r)->auth, r, &bf_state_of(r)->who);
    limit_running(r);
}

/* Each request passes here once, whether its client saw the answer or not. */
static void ended(struct bf_request *r)
{
    struct bf_call_state *state = bf_state_of(r);
    if (state->is_running)
        atomic_fetch_sub_explicit(&state->who.key->running, 1, memory_order_relaxed);
    if (state->post.is_marked)
        bf_idem_end(bf_api_of(r)->idem, &state->post.mark);
    state->post.is_marked = state->is_running = false;
}

static const struct bf_conf *current_conf(void *owner)
{
    struct bf_api *api = owner;
    return atomic_load(&api->services->conf);
}

static void answered(struct bf_request *r)
{
    if (r->route->access !=
        0) /* what was refused before it was admitted, a bad id say, is read too */
        bf_cors_admit(r);
    bf_count(BF_CM_M_http_requests, 1);
    if (r->answer.status >= 400)
        bf_count(BF_CM_M_http_errors, 1);
}

static int start_http(struct bf_api *api, int listen_fd, char *err, size_t err_len)
{
    const struct bf_conf *conf = atomic_load(&api->services->conf);
    struct bf_http_options options = {
        .name = "bf-http",
        .host = conf->api_host,
        .port = (uint16_t)conf->api_port,
        .listen_fd = listen_fd,
        .threads = conf->api_threads,
        .connections_max = conf->api_connections_max,
        .limits = {.head_ms = conf->api_head_timeout_s * 1000,
                   .idle_ms = conf->api_idle_timeout_s * 1000,
                   .body_ms = conf->api_body_timeout_s * 1000,
                   .write_ms = conf->api_write_timeout_s * 1000,
                   .rate_min = conf->api_rate_min,
                   .per_address = conf->api_per_address},
        .stats = &bf_api_stats,
        .conf = current_conf,
        .owner = api,
        .admit = admit,
        .answered = answered,
        .preflight = bf_cors_preflight,
        .ended = ended,
    };
    options.routes = bf_api_routes(&options.route_count);
    bool is_local = strncmp(conf->api_host, "127.", 4) == 0 || strcmp(conf->api_host, "::1") == 0;
    if (!is_local && conf->api_cert.chain_len == 0)
        BF_WARN("ctrlplane",
                "the API serves %s without TLS: keys and texts cross the network in clear, unless "
                "something "
                "in front of it has TLS (api.tls.cert, api.tls.key)",
                conf->api_host);
    int rc = bf_http_start(&options, &api->http, err, err_len);
    if (rc == -EADDRINUSE || rc == -EACCES || rc == -EADDRNOTAVAIL)
        bf_port_explain(rc, options.host, options.port, "api.port", err, err_len);
    return rc;
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
    int rc =
        api->idem && api->recent ? bf_auth_create(services, &api->auth, err, err_len) : -ENOMEM;
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

void bf_api_write_key_use(struct bf_api *api)
{
    bf_auth_write_use(api->auth);
}

void bf_api_stop(struct bf_api *api)
{
    if (!api)
        return;
    if (!bf_http_stop(api->http))
        return; /* a thread still holds a request, and with it keys and marks */
    bf_auth_destroy(api->auth);
    bf_recent_destroy(api->recent);
    bf_idem_set_destroy(api->idem);
    free(api);
}
