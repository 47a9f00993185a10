/*
 * Paths that the API does not have: those that it will have are refused by name, with what will
 * serve them and what does the work today (501); a near miss names the right path (404). The last
 * row of the route table brings everything that no other row matches here.
 */
#include <stdio.h>
#include <string.h>

#include "api/calls.h"
#include "ingest/near.h"

#include "belfry/base/text.h"

struct later {
    const char *path; /* also everything below it */
    const char *what; /* will serve it, and today's way */
};

static const struct later later[] = {
    {"/v1/notifications/bulk",
     "it will take many events in one request. Today: recipients holds up to 1,000 user ids of one "
     "event, a topic has any number of subscribers, and requests share kept connections"},
    {"/v1/batches",
     "it will take many events in one request and tell how far they are. Today: POST "
     "/v1/notifications with recipients, or Kafka; GET /v1/notifications/{id}/status for each"},
    {"/v1/templates", "it will store texts that template_id names. Today: render them before you "
                      "send, and give title "
                      "and body"},
    {"/v1/types",
     "it will declare kinds of notifications with their defaults. Today: type is a label that "
     "preferences are kept by; nothing needs to be declared"},
    {"/v1/categories",
     "it will declare categories for preferences. Today: category is a label; nothing needs to be "
     "declared"},
    {"/v1/segments", "it will store queries over users. Today: topics, PUT "
                     "/v1/topics/{topic}/subscriptions/{user}"},
    {"/v1/webhooks", "it will send what happens to your own URLs. Today: GET "
                     "/v1/notifications/{id}/status, and the "
                     "topics belfry.status and belfry.tokens of Kafka"},
    {"/v1/deliveries",
     "it will list deliveries over all notifications. Today: GET /v1/notifications/{id}/status"},
    {"/v1/callbacks",
     "it will take what providers of e-mail and SMS report. Today: nothing to call, those channels "
     "are not built; APNs, FCM and Web Push answer each request"},
    {"/v1/unsubscribe",
     "it will be the one-click link of e-mails. Today: PUT /v1/users/{user}/preferences"},
    {"/v1/users/{user}/export",
     "it will give all that is stored of a person. Today: GET /v1/users/{user}, its /preferences, "
     "/subscriptions, /devices and /notifications"},
};

/* Whether |path| is |pattern| or below it; {..} stands for any one segment. */
static bool is_below(const char *path, const char *pattern)
{
    while (*pattern) {
        if (*pattern == '{') {
            size_t len = strcspn(path, "/?");
            if (len == 0)
                return false;
            path += len;
            pattern = strchr(pattern, '}') + 1;
        } else if (*path++ != *pattern++) {
            return false;
        }
    }
    return *path == '\0' || *path == '/' || *path == '?';
}

static const struct later *find_later(const char *path)
{
    for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++)
        if (is_below(path, later[i].path))
            return &later[i];
    return NULL;
}

/* The path of a table row or of what is not built, for a path that is nearly it. */
static bool find_near(const char *path, char *out, size_t cap)
{
    const char *paths[64];
    unsigned count, n = 0;
    const struct bf_route *routes = bf_api_routes(&count);
    for (unsigned i = 0; i < count && n < sizeof(paths) / sizeof(paths[0]); i++)
        if (strcmp(routes[i].method, BF_ANY_METHOD) != 0)
            paths[n++] = routes[i].path;
    for (size_t i = 0; i < sizeof(later) / sizeof(later[0]) && n < sizeof(paths) / sizeof(paths[0]);
         i++)
        paths[n++] = later[i].path;
    return bf_near_path(path, paths, n, out, cap);
}

void bf_no_such_path(struct bf_request *r)
{
    char path[sizeof(r->path)], near[sizeof(r->path)];
    snprintf(path, sizeof(path), "%.*s", (int)r->name.len, r->name.at);
    const struct later *what = find_later(path);
    if (what)
        bf_answer_fail(r, 501, "not-built", "", "%s is not built yet: %s", what->path, what->what);
    else if (find_near(path, near, sizeof(near)))
        bf_answer_fail(r, 404, "not-found", "", "nothing lives at this path; did you mean %.*s?",
                       BF_CUT(near, 150));
    else
        bf_answer_fail(r, 404, "not-found", "",
                       "nothing lives at this path; the API's begin with "
                       "/v1, see docs/openapi.yaml");
}
