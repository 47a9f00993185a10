/*
 * CORS (Fetch standard, section 3.2) for the calls that a user's token reaches: a web page of
 * another origin may make them if api.origins names it. No cookies are ours, so no credentials are
 * allowed.
 */
#include "api/cors.h"

#include <stdio.h>
#include <string.h>

#include "api/calls.h"

/* A browser asks again after this; Chromium's own bound is two hours. */
#define MAX_AGE_S "600"
/* What calls carry beyond the headers that need no asking. */
#define ALLOWED_HEADERS "Authorization, Content-Type, X-Request-Id, traceparent"
/* What a page may read beyond the few that it always may. */
#define EXPOSED_HEADERS "Retry-After, RateLimit, RateLimit-Policy, X-Request-Id"

_Static_assert(sizeof(ALLOWED_HEADERS) <= sizeof(((struct bf_http_header *)0)->value),
               "fits a header");
_Static_assert(sizeof(EXPOSED_HEADERS) <= sizeof(((struct bf_http_header *)0)->value),
               "fits a header");
_Static_assert(BF_CONF_ORIGIN_BYTES_MAX < sizeof(((struct bf_http_header *)0)->value),
               "fits a header");

/* api.origins, checked when it was loaded. */
static bool is_listed(const char *origins, struct bf_bytes origin)
{
    struct bf_bytes list = {origins, strlen(origins)};
    struct bf_bytes element;
    while (bf_http1_list_next(&list, &element)) {
        if (bf_bytes_is_equal(element, BF_BYTES("*")) || bf_bytes_is_equal(element, origin))
            return true;
    }
    return false;
}

static bool is_for_users(const struct bf_route *route)
{
    return route->access >> 8 != BF_ACCESS_KEY;
}

/* Vary: caches keep answers to different origins apart, and those to none. */
static bool allow_origin(struct bf_request *r)
{
    const char *origins = bf_conf_of(r)->api_origins;
    struct bf_bytes origin = bf_request_header(r, "Origin");
    if (origins[0] == '\0')
        return false;
    bf_answer_header(r, "Vary", "Origin");
    if (!origin.at || origin.len > BF_CONF_ORIGIN_BYTES_MAX || !is_listed(origins, origin))
        return false;
    bf_answer_header(r, "Access-Control-Allow-Origin", "%.*s", (int)origin.len, origin.at);
    return true;
}

void bf_cors_admit(struct bf_request *r)
{
    for (unsigned i = 0; i < r->answer.header_count; i++)
        if (strcmp(r->answer.headers[i].name, "Vary") == 0)
            return; /* it has them */
    if (is_for_users(r->route) && allow_origin(r))
        bf_answer_header(r, "Access-Control-Expose-Headers", EXPOSED_HEADERS);
}

/* Methods of the path that a user's token may call; GET answers HEAD. */
static size_t user_methods(const char *path, char out[96])
{
    static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE"};
    unsigned count;
    const struct bf_route *routes = bf_api_routes(&count);
    size_t used = 0;
    for (unsigned i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        char allow[96];
        const struct bf_route *route =
            bf_route_find(routes, count, methods[i], path, allow, sizeof(allow));
        if (route && is_for_users(route))
            used += (size_t)snprintf(out + used, 96 - used, "%s%s%s", used ? ", " : "", methods[i],
                                     i == 0 ? ", HEAD" : "");
    }
    return used;
}

void bf_cors_preflight(struct bf_request *r, const char *path)
{
    char methods[96];
    bool is_preflight = bf_request_header(r, "Origin").at != NULL &&
                        bf_request_header(r, "Access-Control-Request-Method").at != NULL;
    if (!is_preflight || user_methods(path, methods) == 0 || !allow_origin(r))
        return; /* 405 or 404, as for any method that a path has not */
    bf_answer_header(r, "Access-Control-Allow-Methods", "%s", methods);
    bf_answer_header(r, "Access-Control-Allow-Headers", ALLOWED_HEADERS);
    bf_answer_header(r, "Access-Control-Max-Age", MAX_AGE_S);
    bf_answer_empty(r, 204);
}
