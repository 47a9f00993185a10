/*
 * HTTP API (DESIGN 6). Starts its own threads; a request never waits on a lock
 * held over I/O: POST /v1/notifications and /v1/events suspend until the log says durable.
 */
#pragma once

#include <stddef.h>

struct bf_services;
struct bf_api;
struct bf_http_stats;

enum bf_scope {
    BF_SCOPE_SEND = 0,
    BF_SCOPE_EVENTS = 1,
    BF_SCOPE_BULK = 2,
    BF_SCOPE_TEMPLATES = 3,
    BF_SCOPE_USERS = 4,
    BF_SCOPE_STATUS = 5,
    BF_SCOPE_CRITICAL = 6,
    BF_SCOPE_ADMIN = 7,
    BF_SCOPE_BROADCAST =
        8, /* to everyone of the tenant; stored keys keep their bits: new ones come last */
    BF_SCOPE_COUNT
};

/* Connections of the API by state, refusals and timeouts: of this process, servers come and go. */
extern struct bf_http_stats bf_api_stats;

/* |listen_fd|: a listening socket that the process before this one left open over its exec, or -1
 * to bind conf's host and port. */
int bf_api_start(struct bf_services *services, int listen_fd, struct bf_api **ret, char *err,
                 size_t err_len);
int bf_api_port(const struct bf_api *api);
int bf_api_fd(const struct bf_api *api);
/* Answers requests that are under way first; NULL is fine. Requests that a hanging log or store
 * still holds are not freed, because the process is about to end. */
void bf_api_stop(struct bf_api *api);
/* Writes to the store when API keys were used last; see bf_auth_write_use. */
void bf_api_write_key_use(struct bf_api *api);
