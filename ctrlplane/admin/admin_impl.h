/* What the files of the admin port share: the server's state and its handlers. */
#pragma once

#include <string.h>

#include "api/auth.h"
#include "api/http.h"
#include "fanout/core.h"
#include "log/log.h"
#include "main/services.h"
#include "store/store.h"

struct bf_admin {
    struct bf_services *services;
    struct bf_http *http;
    struct bf_auth *auth; /* asked only when the port is not local */
    bool is_local;
    uint64_t started_ms;
};

static inline struct bf_admin *bf_admin_of(struct bf_request *r)
{
    return r->owner;
}

/* Whose the caller is. An operator sees all tenants: whoever asks on the loopback, or has an admin
 * key of no tenant. The admin key of a tenant sees that tenant's things only. */
static inline struct bf_bytes bf_admin_tenant(struct bf_request *r)
{
    const struct bf_principal *who = (const struct bf_principal *)(const void *)r->state;
    const char *tenant = who->who == BF_WHO_KEY ? who->key->row.tenant : "";
    return (struct bf_bytes){.at = tenant[0] ? tenant : NULL, .len = strlen(tenant)};
}
/* False, with a 403 set, unless the caller is an operator: for what is the whole node's. */
bool bf_admin_is_operator(struct bf_request *r);

/* Everything that /metrics, /readyz and status tell, taken at one moment. */
struct bf_view {
    struct bf_core_health core;
    struct bf_log_health log;
    const struct bf_region *region; /* NULL while detached */
    uint64_t disk_free, disk_size;
    uint64_t uptime_s;
    uint64_t dlq[BF_CHANNEL_COUNT + 1]; /* the last one: ingest */
};
void bf_view_take(struct bf_admin *admin, struct bf_view *ret);
bool bf_view_is_ready(const struct bf_view *view);
uint64_t bf_view_dataplane(const struct bf_view *view, unsigned metric); /* sum over workers */

/* Names used in metrics and status alike. */
const char *bf_funnel_name(unsigned stage);
const char *bf_stage_name(unsigned stage);
const char *bf_dlq_channel_name(uint8_t channel); /* "inapp", ..., "ingest" */
int bf_dlq_channel_find(struct bf_bytes name);    /* -1: no such */

void bf_admin_metrics(struct bf_request *r); /* metrics_text.c */
void bf_admin_health(struct bf_request *r);  /* status.c */
void bf_admin_ready(struct bf_request *r);
void bf_admin_status(struct bf_request *r);
void bf_admin_connections(struct bf_request *r);
void bf_admin_trace(struct bf_request *r);
void bf_admin_list_dlq(struct bf_request *r); /* dlq.c */
void bf_admin_redrive(struct bf_request *r);
void bf_admin_purge(struct bf_request *r);
void bf_admin_drain(struct bf_request *r); /* ops.c */
void bf_admin_reload(struct bf_request *r);
void bf_admin_create_key(struct bf_request *r);
void bf_admin_list_keys(struct bf_request *r);
