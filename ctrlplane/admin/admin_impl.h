/* What the files of the admin port share: the server's state and its handlers. */
#pragma once

#include <string.h>

#include "admin/credential.h"
#include "api/auth.h"
#include "config/services.h"
#include "crypto/admin_token.h"
#include "fanout/core.h"
#include "http/http.h"
#include "log/log.h"
#include "store/store.h"

struct bf_admin {
    struct bf_services *services;
    struct bf_http *http;
    struct bf_backup_job *backup;
    struct bf_auth *auth; /* for those who come with an API key of scope admin */
    char token[BF_ADMIN_TOKEN_BYTES];
    uint64_t started_ms;
};

static inline struct bf_admin *bf_admin_of(struct bf_request *r)
{
    return r->owner;
}

/* Whose the caller is. An operator sees all tenants: who has the admin token, or an admin key of no
 * tenant. The admin key of a tenant sees that tenant's things only. */
static inline struct bf_bytes bf_admin_tenant(struct bf_request *r)
{
    const struct bf_principal *who = (const struct bf_principal *)(const void *)r->state;
    const char *tenant = who->who == BF_WHO_KEY ? who->key->row.tenant : "";
    return (struct bf_bytes){.at = tenant[0] ? tenant : NULL, .len = strlen(tenant)};
}
/* False, with a 403 set, unless the caller is an operator: for calls that concern the whole node.
 */
bool bf_admin_is_operator(struct bf_request *r);

/* Everything that /metrics, /readyz and status report, read at one moment. */
struct bf_node_status {
    struct bf_core_health core;
    struct bf_log_health log;
    const struct bf_region *region; /* NULL while detached */
    uint64_t disk_free, disk_size;
    uint64_t uptime_s;
    uint64_t dlq[BF_CHANNEL_COUNT + 1]; /* the last one: ingest */
};
void bf_node_status_take(struct bf_admin *admin, struct bf_node_status *ret);
bool bf_node_is_ready(const struct bf_node_status *node);
uint64_t bf_node_dataplane_sum(const struct bf_node_status *node,
                               unsigned metric); /* sum over workers */

/* Names used in metrics and status alike. */
const char *bf_funnel_name(unsigned stage);
const char *bf_stage_name(unsigned stage);
struct bf_hist;
bool bf_latency_at(unsigned i, const char **ret_name, const struct bf_hist **ret_lanes);
const char *bf_dlq_channel_name(uint8_t channel); /* "inapp", ..., "ingest" */
int bf_dlq_channel_find(struct bf_bytes name);    /* -1: no such */

void bf_http_metrics_put(struct bf_out *o);  /* http_metrics.c */
void bf_admin_metrics(struct bf_request *r); /* metrics_text.c */
void bf_admin_health(struct bf_request *r);  /* status.c */
void bf_admin_ready(struct bf_request *r);
void bf_admin_status(struct bf_request *r);
void bf_admin_connections(struct bf_request *r);
void bf_admin_trace(struct bf_request *r);
void bf_admin_list_dlq(struct bf_request *r); /* dlq.c */
void bf_admin_redrive(struct bf_request *r);
void bf_admin_purge(struct bf_request *r);
void bf_admin_drain(struct bf_request *r);  /* ops.c */
void bf_admin_reload(struct bf_request *r); /* reload.c */
void bf_admin_create_key(struct bf_request *r);
void bf_admin_list_keys(struct bf_request *r);

/* backup.c: one backup at a time, made by a thread of its own. Destroying it stops a backup that is
 * being made, of which nothing is left. */
struct bf_backup_job;
struct bf_backup_job *bf_backup_job_create(struct bf_services *services);
void bf_backup_job_destroy(struct bf_backup_job *job); /* NULL is fine */
void bf_admin_begin_backup(struct bf_request *r);
void bf_admin_show_backup(struct bf_request *r);
void bf_admin_revoke_key(struct bf_request *r); /* keys.c */
void bf_admin_rotate_key(struct bf_request *r);
/* Writes a new key; 0, BF_ERR_FULL when there are too many, or an error of the store. */
int bf_admin_write_key(struct bf_services *services, const struct bf_api_key_row *row);
void bf_admin_answer_key_error(struct bf_request *r, int rc);
/* A key as JSON, its last brace left out. */
void bf_admin_put_key(struct bf_out *o, struct bf_store *store, const struct bf_api_key_row *row);
/* The one member |name| of a body that may be empty; false: the answer is set (ops.c). */
bool bf_admin_read_number(struct bf_request *r, const char *name, uint64_t max, uint64_t fallback,
                          uint32_t *ret);
