/* The table of the API's calls: what docs/openapi.yaml describes, and nothing else. The busiest
 * come first: the search is from the top. */
#include <stdio.h>
#include <string.h>

#include "api/calls.h"

#define KEY(scope)  BF_ACCESS(BF_ACCESS_KEY, BF_SCOPE_##scope)
#define SELF(scope) BF_ACCESS(BF_ACCESS_SELF, BF_SCOPE_##scope)
#define MINE(scope) BF_ACCESS(BF_ACCESS_MINE, BF_SCOPE_##scope)

#define EVENT BF_EVENT_BYTES_MAX
#define SMALL BF_API_SMALL_BODY

static const struct bf_route routes[] = {
    {"POST", "/v1/notifications", KEY(SEND), EVENT, bf_post_notification, bf_post_resumed},
    {"POST", "/v1/events", KEY(EVENTS), EVENT, bf_post_event, bf_post_resumed},
    {"GET", "/v1/users/{user}/notifications", SELF(USERS), 0, bf_list_inbox, NULL},
    {"GET", "/v1/users/{user}/notifications/{id}", SELF(USERS), 0, bf_get_inbox_item, NULL},
    {"DELETE", "/v1/users/{user}/notifications/{id}", SELF(USERS), 0, bf_delete_item, NULL},
    {BF_ANY_METHOD, "/v1/notifications/bulk", 0, 0, bf_no_such_path, NULL}, /* is no id */
    {"PATCH", "/v1/notifications/{id}", MINE(USERS), SMALL, bf_patch_item, NULL},
    {"DELETE", "/v1/notifications/{id}", MINE(USERS), SMALL, bf_delete_item, NULL},
    {"PATCH", "/v1/notifications/{id}/read", MINE(USERS), SMALL, bf_read_item, NULL},
    {"POST", "/v1/notifications/{id}/events", MINE(USERS), SMALL, bf_post_item_event, NULL},
    {"GET", "/v1/notifications/{id}/status", KEY(STATUS), 0, bf_get_status, NULL},
    {"POST", "/v1/notifications/read-all", MINE(USERS), SMALL, bf_read_all, NULL},
    {"PUT", "/v1/users/{user}", KEY(USERS), SMALL, bf_put_user, NULL},
    {"GET", "/v1/users/{user}", SELF(USERS), 0, bf_get_user, NULL},
    {"DELETE", "/v1/users/{user}", KEY(USERS), 0, bf_delete_user, NULL},
    {"GET", "/v1/users/{user}/preferences", SELF(USERS), 0, bf_get_preferences, NULL},
    {"PUT", "/v1/users/{user}/preferences", SELF(USERS), SMALL, bf_put_preferences, NULL},
    {"GET", "/v1/users/{user}/subscriptions", SELF(USERS), 0, bf_list_subscriptions, NULL},
    {"POST", "/v1/users/{user}/devices", SELF(USERS), SMALL, bf_post_device, NULL},
    {"GET", "/v1/users/{user}/devices", SELF(USERS), 0, bf_list_devices, NULL},
    {"GET", "/v1/users/{user}/devices/{id}", SELF(USERS), 0, bf_get_device, NULL},
    {"DELETE", "/v1/users/{user}/devices/{id}", SELF(USERS), 0, bf_delete_device, NULL},
    {"POST", "/v1/devices", MINE(USERS), SMALL, bf_post_my_device, NULL},
    {"GET", "/v1/devices", MINE(USERS), 0, bf_list_my_devices, NULL},
    {"DELETE", "/v1/devices/{id}", MINE(USERS), 0, bf_delete_my_device, NULL},
    {"POST", "/v1/users/import", KEY(USERS), BF_API_IMPORT_BODY, bf_import_users, NULL},
    {"GET", "/v1/topics", KEY(EVENTS), 0, bf_list_topics, NULL},
    {"GET", "/v1/topics/{topic}", KEY(EVENTS), 0, bf_get_topic, NULL},
    {"PUT", "/v1/topics/{topic}", KEY(EVENTS), SMALL, bf_put_topic, NULL},
    {"PUT", "/v1/topics/{topic}/subscriptions/{user}", KEY(EVENTS), SMALL, bf_put_subscription,
     NULL},
    {"DELETE", "/v1/topics/{topic}/subscriptions/{user}", KEY(EVENTS), 0, bf_delete_subscription,
     NULL},
    {BF_ANY_METHOD, "", 0, 0, bf_no_such_path, NULL}, /* the last: everything else */
};

const struct bf_route *bf_api_routes(unsigned *ret_count)
{
    *ret_count = sizeof(routes) / sizeof(routes[0]);
    return routes;
}

void bf_api_print_routes(void *file)
{
    for (unsigned i = 0; i < sizeof(routes) / sizeof(routes[0]); i++)
        if (strcmp(routes[i].method, BF_ANY_METHOD) != 0) /* no call of its own */
            fprintf(file, "%s %s\n", routes[i].method, routes[i].path);
}
