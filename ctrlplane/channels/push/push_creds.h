/*
 * Credentials and pools of push (PROVIDERS 1.3, 2, 3): keys are read, tokens minted or fetched and
 * hosts resolved on one thread of their own; the result is a run of BF_SNAP_PUSH_POOL records for
 * the snapshot. Minted in this one place: a provider that counts a sender's tokens sees one.
 *
 * - APNs: an ES256 JWT, renewed at 40 to 50 minutes, never twice within 20, over restarts too (the
 *   store keeps it sealed); or a client certificate
 * - FCM: an RS256 assertion to the token endpoint by libcurl, renewed 5 to 6 minutes before its
 *   end; one request at a time; while it fails the old token serves as long as it is valid
 * - Web Push: VAPID by ES256, one for each origin, for 12 hours
 *
 * Functions may be called by any thread unless said otherwise. Secrets are never logged.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "belfry/base/cursor.h"
#include "belfry/conf/conf.h"
#include "channels/channel.h"
#include "channels/push/push_canon.h"

struct bf_store;
struct bf_vault;
struct bf_push_creds;

/* An APNs token is renewed at this age or up to ten minutes later, chosen at random; at most this
 * often. */
#define BF_APNS_TOKEN_MS     (40u * 60u * 1000u)
#define BF_APNS_TOKEN_JITTER (10u * 60u * 1000u)
#define BF_APNS_TOKEN_MIN_MS (20u * 60u * 1000u)
/* An access token is renewed this long before its end, and up to a minute earlier. */
#define BF_FCM_TOKEN_EARLY_MS  (5u * 60u * 1000u)
#define BF_FCM_TOKEN_JITTER_MS (60u * 1000u)
/* Asked for by answers, FCM's and VAPID's are renewed no oftener: a key that is refused stays
 * refused. */
#define BF_PUSH_RENEW_MIN_MS 60000u
/* VAPID allows 24 hours (RFC 8292 section 2). */
#define BF_VAPID_TOKEN_MS (12u * 3600u * 1000u)
/* Addresses are asked for again after this long, and after a failure. */
#define BF_PUSH_RESOLVE_MS       (5u * 60u * 1000u)
#define BF_PUSH_RESOLVE_RETRY_MS 10000u
/* What an open pool asks its connections for. Apple: an idle connection may be pinged hourly. */
#define BF_APNS_PING_IDLE_MS 3600000u
#define BF_PUSH_PING_IDLE_MS 60000u

/* Pools of origins that people can make up (hosts below a suffix, in a network): of all, of one
 * tenant. Windows has some tens of such hosts in use; the rest of BF_PUSH_POOLS_MAX stays for apps
 * and known services, and all records fit a snapshot. */
#define BF_PUSH_ORIGINS_MAX        96u
#define BF_PUSH_ORIGINS_TENANT_MAX 32u
/* One that no push has asked for for so long leaves another its place; and goes of itself. */
#define BF_PUSH_ORIGIN_YIELD_MS 30000u
#define BF_PUSH_ORIGIN_IDLE_MS  600000u

struct bf_push_creds_options {
    const struct bf_conf *conf;
    struct bf_store *store;       /* keeps APNs tokens over a restart; NULL: nothing is kept */
    const struct bf_vault *vault; /* seals them; NULL only with store NULL */
    uint64_t origin_idle_ms;      /* 0: BF_PUSH_ORIGIN_IDLE_MS; tests */
    void (*changed)(void *arg);   /* a new snapshot is due; called on the thread of this module */
    void *arg;
};

/* Checks and reads every file that push.apps names. BF_ERR_MALFORMED with a line in |err|. No apps:
 * a service that does nothing. */
int bf_push_creds_start(const struct bf_push_creds_options *options, struct bf_push_creds **ret,
                        char *err, size_t err_len);
/* The same reading, and nothing else: belfryctl config check. */
int bf_push_creds_check(const struct bf_conf *conf, char *err, size_t err_len);
void bf_push_creds_stop(struct bf_push_creds *creds); /* NULL is fine */
/* Takes another list over: files are read again, pools of unchanged apps keep their tokens. On an
 * error nothing changed. */
int bf_push_creds_reload(struct bf_push_creds *creds, const struct bf_conf *conf, char *err,
                         size_t err_len);

/* Appends the records of all pools that have a credential and an address. */
void bf_push_creds_write(struct bf_push_creds *creds, struct bf_writer *w);

/* What a shard needs to know of an app to send to it. */
struct bf_push_pool_info {
    uint32_t pool; /* id of BF_SNAP_PUSH_POOL; never 0 */
    enum bf_push_kind kind;
    bool is_ready;                       /* in the records by now */
    bool is_certificate;                 /* APNs */
    char topic[BF_CONF_PUSH_TEXT_BYTES]; /* bundle id, project id */
    char failover[65];                   /* app that takes over while this one cannot; "" = none */
};
/* The pool of an app; |authority| is the origin of a Web Push endpoint ("" else), whose pool is
 * made when it is asked for first, if the app allows the origin. |tenant|: whose
 * push it is. BF_ERR_NOT_FOUND: no such app; BF_ERR_DENIED: an origin that is not allowed;
 * BF_ERR_FULL: too many origins are in use, ask again later. */
int bf_push_creds_find(struct bf_push_creds *creds, struct bf_bytes app, enum bf_push_kind kind,
                       struct bf_bytes authority, struct bf_bytes tenant,
                       struct bf_push_pool_info *ret);

/* Whether an app of Web Push sends to endpoints of this origin: its own host, or else the push
 * services that browsers name and what |allow| (egress.allow) lists. Pure. */
bool bf_push_serves(const struct bf_conf_push_app *app, const char *allow,
                    const struct bf_host *host, unsigned port);

/* Every pool, in the order of the configuration; an app without one (Web Push that no device has
 * named an origin for) with pool 0. |each| runs under the lock of this module: it copies, and calls
 * nothing of it. Returns the number of apps. */
uint32_t bf_push_creds_walk(struct bf_push_creds *creds,
                            void (*each)(void *arg, const struct bf_pool_row *row), void *arg);

/* Of push_answer's flags: RENEW (no effect before a token may be renewed), KEEP_TOKEN. */
void bf_push_creds_renew(struct bf_push_creds *creds, uint32_t pool);
void bf_push_creds_keep(struct bf_push_creds *creds, uint32_t pool);
