/*
 * What the API's handlers share: the state kept with a request, who asks, and the reading of small
 * JSON bodies. One file a group of calls; the table of all of them is in routes.c.
 */
#pragma once

#include <yyjson.h>

#include "api/auth.h"
#include "api/idem.h"
#include "api/recent.h"
#include "belfry/conf/conf.h"
#include "config/services.h"
#include "fanout/core.h"
#include "http/http.h"
#include "store/store.h"

/* A profile or preferences are a page of JSON. */
#define BF_API_SMALL_BODY (32u * 1024u)
/* 10,000 users at 200 bytes. */
#define BF_API_IMPORT_BODY (2u * 1024u * 1024u)

struct bf_api {
    struct bf_services *services;
    struct bf_http *http;
    struct bf_auth *auth;
    struct bf_idem_set *idem;
    struct bf_recent *recent;
    _Atomic uint32_t imports; /* running, each a thread */
    uint8_t id_seed[32];      /* of this start: makes ids unique over starts and nodes */
    _Atomic uint64_t id_count;
};

/* An id that no event had before: the hash of this start's random seed and a count. */
void bf_fresh_id(struct bf_api *api, struct bf_id *ret_id);

/* A POST between its append and its answer. */
struct bf_post {
    struct bf_event_meta meta;
    enum bf_lane lane;
    int rc;
    bool is_marked;
    struct bf_idem_mark mark;
    char answer[96];
};

struct bf_call_state {
    struct bf_principal who;
    bool is_running; /* counted in who.key->running */
    struct bf_post post;
};

_Static_assert(sizeof(struct bf_call_state) <= BF_HTTP_STATE_BYTES, "the state fits the request");

static inline struct bf_call_state *bf_state_of(struct bf_request *r)
{
    return (struct bf_call_state *)(void *)r->state;
}

static inline struct bf_api *bf_api_of(struct bf_request *r)
{
    return r->owner;
}

static inline struct bf_services *bf_services_of(struct bf_request *r)
{
    return bf_api_of(r)->services;
}

static inline const struct bf_conf *bf_conf_of(struct bf_request *r)
{
    return atomic_load(&bf_services_of(r)->conf);
}

/* The caller's tenant and, for the log of changes, their name. */
struct bf_bytes bf_tenant_of(struct bf_request *r);
struct bf_bytes bf_caller_of(struct bf_request *r);
/* The user in the path, in the caller's tenant. */
struct bf_uid bf_path_uid(struct bf_request *r);
/* As above, and the user exists: else 404 and false. */
bool bf_known_path_uid(struct bf_request *r, struct bf_uid *ret);
/* The user whose data a MINE call is about: the token's, or |user_id| of query or body (|root| may
 * be NULL). Sets 400, 403 or 404 and gives false. |room| keeps a decoded query value. */
bool bf_mine_uid(struct bf_request *r, yyjson_val *root, char room[BF_USER_ID_BYTES_MAX],
                 struct bf_uid *ret);

/* Reads the body as an object with these members only. An absent body is {} when |may_be_empty|.
 * The caller frees *ret_doc. Sets a 400 answer and gives false. */
bool bf_read_object(struct bf_request *r, const char *const *members, unsigned count,
                    bool may_be_empty, yyjson_doc **ret_doc, yyjson_val **ret_root);
/* Integer in the query: |fallback| when absent; 400 and false outside |min|..|max|. */
bool bf_query_uint(struct bf_request *r, const char *name, uint32_t min, uint32_t max,
                   uint32_t fallback, uint32_t *ret);
/* true/false in the query; 400 and false on anything else. */
bool bf_query_bool(struct bf_request *r, const char *name, bool *ret);

/* Handlers, by file. */
void bf_no_such_path(struct bf_request *r);      /* not_built.c */
void bf_post_notification(struct bf_request *r); /* post.c */
void bf_post_event(struct bf_request *r);
void bf_post_resumed(struct bf_request *r);
void bf_put_user(struct bf_request *r); /* users.c */
void bf_get_user(struct bf_request *r);
void bf_delete_user(struct bf_request *r);
void bf_import_users(struct bf_request *r);
void bf_get_preferences(struct bf_request *r); /* preferences.c */
void bf_put_preferences(struct bf_request *r);
void bf_list_inbox(struct bf_request *r); /* inbox.c */
void bf_get_inbox_item(struct bf_request *r);
void bf_patch_item(struct bf_request *r);
void bf_read_item(struct bf_request *r);
void bf_delete_item(struct bf_request *r);
void bf_read_all(struct bf_request *r);
void bf_post_item_event(struct bf_request *r);
void bf_get_status(struct bf_request *r); /* status.c */
void bf_put_topic(struct bf_request *r);  /* topics.c */
void bf_get_topic(struct bf_request *r);
void bf_list_topics(struct bf_request *r);
void bf_put_subscription(struct bf_request *r);
void bf_delete_subscription(struct bf_request *r);
void bf_list_subscriptions(struct bf_request *r);
void bf_post_device(struct bf_request *r); /* devices.c */
void bf_list_devices(struct bf_request *r);
void bf_get_device(struct bf_request *r);
void bf_delete_device(struct bf_request *r);
void bf_post_my_device(struct bf_request *r);
void bf_list_my_devices(struct bf_request *r);
void bf_delete_my_device(struct bf_request *r);

/* The table of calls; the same is in docs/openapi.yaml (tested). */
const struct bf_route *bf_api_routes(unsigned *ret_count);
/* One "METHOD /path" a line: `belfryctl routes`. */
void bf_api_print_routes(void *file);
