/*
 * See push_creds.h. One lock guards all state. The thread takes what is due, releases the lock
 * while it asks a resolver or a token endpoint, and then looks the pool up again by its id, because
 * a reload may have changed it meanwhile.
 */
#include "channels/push/push_creds.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL
#endif
#include <xxhash.h>

#include "stats/metrics.h"
#include "crypto/certificates.h"
#include "crypto/hash.h"
#include "crypto/sign.h"
#include "crypto/vault.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "channels/push/push_egress.h"
#include "belfry/conf/conf_load.h"
#include "channels/push/push_fetch.h"
#include "channels/push/push_note.h"
#include "channels/push/push_tokens.h"
#include "store/store.h"

/* Keys and chains have 2 to 20 KB. */
#define FILE_BYTES_MAX (64u * 1024u)
/* The thread looks this often; what it finds due is a minute old at most. */
#define TURN_MS 1000u
/* A failed fetch is tried again after 1 s, 2 s, ... this. */
#define FETCH_RETRY_MAX_MS 60000u
/* All records beside 256 KiB of certificates and 128 KiB of JWT keys in a snapshot of 512 KiB. */
#define RECORDS_BYTES_MAX (112u * 1024u)
#define AUTHORITY_BYTES   264u /* a host name or [address], ':' and a port */
#define WHY_BYTES         160u

struct app {
    struct bf_conf_push_app conf;
    struct bf_sign_key *key;
    struct bf_service_account account;
    char *cert, *cert_key, *ca; /* PEM */
    uint64_t fingerprint;       /* of the credential: another one is another pool */
};

struct pool {
    uint32_t id, app;
    char authority[AUTHORITY_BYTES], host[256];
    uint16_t port;
    struct bf_push_addresses addresses;
    uint64_t resolve_ms; /* due */
    uint64_t used_ms;    /* mono: when a push last asked for it */
    uint64_t tenant;     /* hash of whose push has made it, of a Web Push origin */
    bool has_failed;     /* its name gave no address that may be used */
    char *authorization; /* NULL: none yet, or none needed */
    uint64_t minted_ms, renew_ms, expires_ms;
    uint32_t failures;
    char why[WHY_BYTES]; /* the last attempt at a token failed */
};

struct set {
    char *allow; /* egress.allow */
    uint32_t app_count, pool_count;
    struct app apps[BF_CONF_PUSH_APPS_MAX];
    struct pool pools[BF_PUSH_POOLS_MAX];
};

struct bf_push_creds {
    struct bf_push_creds_options options;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;
    pthread_t thread;
    bool is_stopping, is_changed, has_work;
    struct set *set;
    uint8_t *records;
    size_t records_len;
};

static uint64_t jitter(uint64_t max)
{
    uint64_t random;
    bf_random(&random, sizeof(random));
    return random % max;
}

/* ---- apps and their files ---- */

static int read_file(const char *path, char **ret, char *err, size_t err_len)
{
    FILE *file = fopen(path, "re");
    char *text = file ? calloc(1, FILE_BYTES_MAX + 1) : NULL;
    size_t len = text ? fread(text, 1, FILE_BYTES_MAX, file) : 0;
    bool ok = text && len > 0 && len < FILE_BYTES_MAX;
    if (!ok)
        snprintf(err, err_len, "push.apps: cannot read '%s': %s", path,
                 file ? "empty, or larger than 64 KiB" : strerror(errno));
    if (file)
        fclose(file);
    if (ok)
        *ret = text;
    else
        free(text);
    return ok ? 0 : BF_ERR_MALFORMED;
}

static void wipe(char *text)
{
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

static void app_clear(struct app *app)
{
    bf_sign_key_free(app->key);
    bf_service_account_clear(&app->account);
    wipe(app->cert_key);
    free(app->cert);
    free(app->ca);
}

static void set_free(struct set *set)
{
    if (!set)
        return;
    for (uint32_t i = 0; i < set->app_count; i++)
        app_clear(&set->apps[i]);
    for (uint32_t i = 0; i < set->pool_count; i++)
        wipe(set->pools[i].authorization);
    free(set->allow);
    free(set);
}

static struct bf_bytes text_of(const char *text)
{
    return (struct bf_bytes){text, text ? strlen(text) : 0};
}

static int bad(const struct app *app, char *err, size_t err_len, const char *what)
{
    snprintf(err, err_len, "push.apps: %s: %s", app->conf.name, what);
    return BF_ERR_MALFORMED;
}

static int read_signing_key(struct app *app, char *err, size_t err_len)
{
    char *pem = NULL;
    int rc = read_file(app->conf.key, &pem, err, err_len);
    if (rc == 0 && bf_conf_is_escaped_pem(pem, strlen(pem)))
        rc = bad(app, err, err_len, "key " BF_CONF_ESCAPED_PEM);
    if (rc == 0 && bf_sign_key_read(text_of(pem), BF_JWT_ES256, &app->key) != 0)
        rc = bad(app, err, err_len, "key is not a P-256 private key in PEM");
    if (rc == 0)
        app->fingerprint = XXH3_64bits(pem, strlen(pem));
    wipe(pem);
    return rc;
}

static int read_certificate(struct app *app, char *err, size_t err_len)
{
    int rc = read_file(app->conf.cert, &app->cert, err, err_len);
    if (rc == 0)
        rc = read_file(app->conf.key, &app->cert_key, err, err_len);
    if (rc == 0 && !bf_is_certificate_pair(text_of(app->cert), text_of(app->cert_key)))
        rc = bad(app, err, err_len, "key does not belong to cert");
    if (rc == 0)
        app->fingerprint = XXH3_64bits(app->cert, strlen(app->cert));
    return rc;
}

static int read_account(struct app *app, char *err, size_t err_len)
{
    char *json = NULL;
    char why[256];
    int rc = read_file(app->conf.service_account, &json, err, err_len);
    if (rc == 0 && bf_service_account_read(text_of(json), &app->account, why, sizeof(why)) != 0)
        rc = bad(app, err, err_len, why);
    if (rc == 0)
        app->fingerprint = XXH3_64bits(json, strlen(json));
    wipe(json);
    return rc;
}

static int app_open(struct app *app, const struct bf_conf_push_app *conf, char *err, size_t err_len)
{
    int rc = 0;
    app->conf = *conf;
    if (conf->kind == BF_PUSH_FCM)
        rc = read_account(app, err, err_len);
    else if (conf->cert[0])
        rc = read_certificate(app, err, err_len);
    else
        rc = read_signing_key(app, err, err_len);
    if (rc == 0 && conf->ca[0])
        rc = read_file(conf->ca, &app->ca, err, err_len);
    if (rc == 0 && conf->kind == BF_PUSH_FCM && !app->conf.topic[0])
        memcpy(app->conf.topic, app->account.project,
               sizeof(app->account.project)); /* with its zeros */
    return rc;
}

/* ---- pools ---- */

static const char *usual_host(const struct bf_conf_push_app *conf)
{
    if (conf->host[0])
        return conf->host;
    if (conf->kind == BF_PUSH_FCM)
        return "fcm.googleapis.com";
    return conf->is_sandbox ? "api.sandbox.push.apple.com" : "api.push.apple.com";
}

/* The same as long as nothing changes that a provider binds to a connection. */
static uint32_t id_of(const struct app *app, const char *authority)
{
    char text[1200];
    int n = snprintf(text, sizeof(text), "%s|%u|%s|%s|%s|%016llx", app->conf.name, app->conf.kind,
                     authority, app->conf.team_id, app->conf.key_id,
                     (unsigned long long)app->fingerprint);
    uint32_t id = (uint32_t)XXH3_64bits(text, (size_t)n);
    return id ? id : 1;
}

/* Push services that browsers name. */
static const char *const known_hosts[] = {"fcm.googleapis.com", "updates.push.services.mozilla.com",
                                          "web.push.apple.com"};
static const char *const known_suffixes[] = {".notify.windows.com", ".push.apple.com"};

static bool is_known_host(const char *host)
{
    for (size_t i = 0; i < sizeof(known_hosts) / sizeof(known_hosts[0]); i++)
        if (strcmp(host, known_hosts[i]) == 0)
            return true;
    return false;
}

/* Whether people who register devices can cause any number of such pools: hosts of a suffix, or of
 * a network in egress.allow. Such pools are limited in number and freed again. */
static bool is_inventable(const struct app *app, const char *host)
{
    return app->conf.kind == BF_PUSH_WEBPUSH && !app->conf.host[0] && !is_known_host(host);
}

static struct pool *pool_by_id(struct set *set, uint32_t id)
{
    for (uint32_t i = 0; i < set->pool_count; i++)
        if (set->pools[i].id == id)
            return &set->pools[i];
    return NULL;
}

static struct pool *pool_add(struct set *set, uint32_t app_at, const char *host, uint16_t port)
{
    struct pool pool = {.app = app_at, .port = port};
    if (set->pool_count == BF_PUSH_POOLS_MAX)
        return NULL;
    const char *open = strchr(host, ':') ? "[" : "", *close = open[0] ? "]" : ""; /* IPv6 */
    snprintf(pool.host, sizeof(pool.host), "%s", host);
    if (port == 443)
        snprintf(pool.authority, sizeof(pool.authority), "%s%s%s", open, host, close);
    else
        snprintf(pool.authority, sizeof(pool.authority), "%s%s%s:%u", open, host, close, port);
    pool.id = id_of(&set->apps[app_at], pool.authority);
    if (pool_by_id(set, pool.id))
        return NULL; /* the same app twice, or one chance in 2^32 */
    set->pools[set->pool_count] = pool;
    return &set->pools[set->pool_count++];
}

/* What an unchanged pool has stays its own. */
static void inherit(struct pool *pool, struct set *old)
{
    struct pool *before = old ? pool_by_id(old, pool->id) : NULL;
    if (!before)
        return;
    uint32_t app = pool->app;
    *pool = *before;
    pool->app = app;
    before->authorization = NULL; /* moved */
}

static int set_read(const struct bf_conf *conf, struct set **ret, char *err, size_t err_len)
{
    struct set *set = calloc(1, sizeof(*set));
    struct bf_bytes odd;
    int rc = set && (set->allow = strdup(conf->egress_allow)) ? 0 : -ENOMEM;
    if (rc == 0 && !bf_egress_check(set->allow, &odd)) {
        snprintf(err, err_len, "egress.allow: '%.*s' is no host, address or network",
                 (int)(odd.len < 100 ? odd.len : 100), odd.at);
        rc = BF_ERR_MALFORMED;
    }
    for (uint32_t i = 0; rc == 0 && i < conf->push_app_count; i++) {
        struct app *app = &set->apps[set->app_count++];
        rc = app_open(app, &conf->push_apps[i], err, err_len);
        if (rc == 0 && app->conf.kind != BF_PUSH_WEBPUSH &&
            !pool_add(set, i, usual_host(&app->conf), (uint16_t)app->conf.port))
            rc = bad(app, err, err_len, "is listed twice");
    }
    if (rc == 0)
        *ret = set;
    else
        set_free(set);
    return rc;
}

/* ---- records ---- */

static bool is_ready(const struct set *set, const struct pool *pool)
{
    const struct app *app = &set->apps[pool->app];
    return pool->addresses.count > 0 && (pool->authorization || app->cert);
}

static void put_pool(struct bf_writer *w, const struct set *set, const struct pool *pool)
{
    const struct app *app = &set->apps[pool->app];
    bool is_apns = app->conf.kind == BF_PUSH_APNS;
    bf_put_u16(w, BF_SNAP_PUSH_POOL);
    size_t at = w->len;
    bf_put_u32(w, 0);
    bf_put_u32(w, pool->id);
    bf_put_u8(w, (uint8_t)app->conf.kind);
    bf_put_str16(w, text_of(app->conf.name));
    bf_put_str16(w, text_of(pool->authority));
    bf_put_str16(w, text_of(pool->host));
    bf_put_u8(w, (uint8_t)pool->addresses.count);
    for (uint32_t i = 0; i < pool->addresses.count; i++) {
        bf_put_str16(w, text_of(pool->addresses.text[i]));
        bf_put_u16(w, pool->port);
    }
    bf_put_u16(w, (uint16_t)app->conf.connections_min);
    bf_put_u16(w, (uint16_t)app->conf.connections_max);
    bf_put_u32(w, is_apns && !app->cert ? 1 : 0); /* PROVIDERS 1.1: 1 until a good token was seen */
    bf_put_u32(w, is_apns ? BF_APNS_PING_IDLE_MS : BF_PUSH_PING_IDLE_MS);
    bf_put_u8(w, 0);
    bf_put_str32(w, text_of(pool->authorization));
    bf_put_str32(w, text_of(app->cert));
    bf_put_str32(w, text_of(app->cert_key));
    bf_put_str32(w, text_of(app->ca));
    if (w->failed)
        return;
    struct bf_writer len = {.buf = w->buf + at, .cap = 4};
    bf_put_u32(&len, (uint32_t)(w->len - at - 4));
}

/* Under the lock. */
static void rebuild(struct bf_push_creds *c)
{
    struct bf_writer w = {.buf = c->records, .cap = RECORDS_BYTES_MAX};
    for (uint32_t i = 0; i < c->set->pool_count; i++) {
        size_t before = w.len;
        if (!is_ready(c->set, &c->set->pools[i]))
            continue;
        put_pool(&w, c->set, &c->set->pools[i]);
        if (w.failed) {
            w.len = before; /* whole records only */
            BF_ERROR("ctrlplane",
                     "push: the pools do not fit the snapshot; %u and later ones are left out", i);
            break;
        }
    }
    c->records_len = w.len;
    c->is_changed = true;
}

void bf_push_creds_write(struct bf_push_creds *c, struct bf_writer *w)
{
    pthread_mutex_lock(&c->lock);
    bf_put_raw(w, c->records, c->records_len);
    pthread_mutex_unlock(&c->lock);
}

/* ---- tokens ---- */

static void take_token(struct pool *pool, char *authorization, uint64_t minted_ms,
                       uint64_t renew_ms, uint64_t expires_ms)
{
    wipe(pool->authorization);
    pool->authorization = authorization;
    pool->minted_ms = minted_ms;
    pool->renew_ms = renew_ms;
    pool->expires_ms = expires_ms;
    pool->failures = 0;
    pool->why[0] = '\0';
}

static struct bf_bytes kept_name(const struct pool *pool, char text[32])
{
    return (struct bf_bytes){text, (size_t)snprintf(text, 32, "push.token.%08x", pool->id)};
}

/* An APNs token that the process before minted: another one so soon would be refused. */
static bool restore(struct bf_push_creds *c, struct pool *pool, uint64_t now_ms)
{
    uint8_t sealed[2048], plain[2048];
    char name[32];
    size_t len = 0;
    struct bf_bytes bound = kept_name(pool, name);
    if (!c->options.store ||
        bf_store_get_value(c->options.store, bound, sealed, sizeof(sealed), &len) != 0 ||
        bf_vault_unseal(c->options.vault, bound, (struct bf_bytes){(char *)sealed, len}, plain,
                        &len) != 0)
        return false;
    struct bf_reader r = {.buf = plain, .len = len};
    uint64_t minted_ms = bf_get_u64(&r);
    struct bf_bytes text = bf_get_str16(&r);
    char *copy = !r.failed && minted_ms <= now_ms && now_ms - minted_ms < BF_APNS_TOKEN_MS
                     ? strndup(text.at, text.len)
                     : NULL;
    if (copy)
        take_token(pool, copy, minted_ms,
                   minted_ms + BF_APNS_TOKEN_MS + jitter(BF_APNS_TOKEN_JITTER), UINT64_MAX);
    explicit_bzero(plain, sizeof(plain));
    return copy != NULL;
}

static void keep(struct bf_push_creds *c, const struct pool *pool)
{
    uint8_t plain[1024], sealed[sizeof(plain) + BF_VAULT_EXTRA_BYTES];
    char name[32];
    struct bf_writer w = {.buf = plain, .cap = sizeof(plain)};
    struct bf_bytes bound = kept_name(pool, name);
    bf_put_u64(&w, pool->minted_ms);
    bf_put_str16(&w, text_of(pool->authorization));
    if (!c->options.store || w.failed ||
        bf_vault_seal(c->options.vault, bound, (struct bf_bytes){(char *)plain, w.len}, sealed) !=
            0)
        return;
    struct bf_batch *b = bf_batch_create(c->options.store);
    bf_batch_put_value(b, bound, (struct bf_bytes){(char *)sealed, w.len + BF_VAULT_EXTRA_BYTES});
    if (bf_batch_write(b, false) != 0)
        BF_WARN("ctrlplane", "push: a token could not be kept; a restart mints another");
    bf_batch_destroy(b);
    explicit_bzero(plain, sizeof(plain));
}

/* Signs here and now. Under the lock. */
static bool mint(struct bf_push_creds *c, struct pool *pool, uint64_t now_ms)
{
    const struct app *app = &c->set->apps[pool->app];
    char origin[AUTHORITY_BYTES + 16];
    char *token;
    if (app->conf.kind == BF_PUSH_APNS) {
        if (!pool->authorization && restore(c, pool, now_ms))
            return true;
        token = bf_apns_token(app->key, app->conf.key_id, app->conf.team_id, now_ms);
        if (token) {
            take_token(pool, token, now_ms,
                       now_ms + BF_APNS_TOKEN_MS + jitter(BF_APNS_TOKEN_JITTER), UINT64_MAX);
            keep(c, pool);
        }
    } else {
        snprintf(origin, sizeof(origin), "https://%s", pool->authority);
        uint64_t ends_ms = now_ms + BF_VAPID_TOKEN_MS;
        token = bf_vapid_token(app->key, origin, app->conf.subject, ends_ms);
        if (token)
            take_token(pool, token, now_ms, now_ms + BF_VAPID_TOKEN_MS / 2, ends_ms);
    }
    if (!token && pool->failures++ == 0)
        BF_ERROR("ctrlplane", "push: no token could be signed for app %s", app->conf.name);
    if (!token)
        snprintf(pool->why, sizeof(pool->why), "no token could be signed");
    return token != NULL;
}

/* Asks the token endpoint. The lock is held on entry and on return, but not while waiting for the
 * answer. */
static bool fetch(struct bf_push_creds *c, uint32_t id, const struct app *app, uint64_t now_ms)
{
    char url[sizeof(app->account.token_uri)], name[sizeof(app->conf.name)], why[WHY_BYTES] = "";
    char *form = bf_service_account_form(&app->account, now_ms);
    char *ca = app->ca ? strdup(app->ca) : NULL;
    char *authorization = NULL;
    uint64_t life_ms = 0;
    snprintf(url, sizeof(url), "%s", app->account.token_uri);
    snprintf(name, sizeof(name), "%s", app->conf.name);
    pthread_mutex_unlock(&c->lock);
    int rc =
        form ? bf_push_fetch(url, form, ca, &authorization, &life_ms, why, sizeof(why)) : -ENOMEM;
    wipe(form);
    free(ca);
    pthread_mutex_lock(&c->lock);
    struct pool *pool = pool_by_id(c->set, id); /* a reload may have taken it away */
    now_ms = bf_wall_ms();
    if (!pool) {
        wipe(authorization);
        return false;
    }
    if (rc == 0) {
        uint64_t early_ms = BF_FCM_TOKEN_EARLY_MS + jitter(BF_FCM_TOKEN_JITTER_MS);
        early_ms = early_ms < life_ms / 2 ? early_ms
                                          : life_ms / 2; /* a short life is not renewed at once */
        take_token(pool, authorization, now_ms, now_ms + life_ms - early_ms, now_ms + life_ms);
        return true;
    }
    uint64_t wait_ms = UINT64_C(1000) << (pool->failures < 6 ? pool->failures : 6);
    bf_format(pool->why, sizeof(pool->why), "no access token: %.*s", BF_CUT(why, 130));
    if (pool->failures++ == 0)
        BF_ERROR("ctrlplane", "push: app %s gets no access token: %s", name, why);
    pool->renew_ms = now_ms + (wait_ms < FETCH_RETRY_MAX_MS ? wait_ms : FETCH_RETRY_MAX_MS);
    return false;
}

/* ---- the thread ---- */

/* The lock is held on entry and on return, but not while waiting for the resolver. */
static bool resolve(struct bf_push_creds *c, uint32_t id)
{
    struct pool *pool = pool_by_id(c->set, id);
    struct bf_push_addresses fresh = {0};
    char host[sizeof(pool->host)];
    const struct bf_conf_push_app *conf = &c->set->apps[pool->app].conf;
    /* the hosts of Web Push are named by people, so none may be one of ours; a host from the
     * configuration is meant so */
    bool is_meant = conf->kind != BF_PUSH_WEBPUSH || conf->host[0];
    char *allow = is_meant ? NULL : strdup(c->set->allow); /* a reload may come meanwhile */
    snprintf(host, sizeof(host), "%s", pool->host);
    pthread_mutex_unlock(&c->lock);
    if (is_meant || allow)
        bf_push_resolve(host, allow, &fresh);
    free(allow);
    pthread_mutex_lock(&c->lock);
    pool = pool_by_id(c->set, id);
    if (!pool)
        return false;
    pool->has_failed = fresh.count == 0;
    pool->resolve_ms = bf_mono_ms() + (fresh.count ? BF_PUSH_RESOLVE_MS : BF_PUSH_RESOLVE_RETRY_MS);
    if (fresh.count == 0) {
        if (pool->addresses.count == 0)
            BF_WARN("ctrlplane", "push: %s has no address that may be used", host);
        return false; /* what was known serves on */
    }
    bool is_new = memcmp(&fresh, &pool->addresses, sizeof(fresh)) != 0;
    pool->addresses = fresh;
    return is_new;
}

/* One piece of work for one pool; whether its record changed. */
static bool serve(struct bf_push_creds *c, struct pool *pool, uint64_t now_ms)
{
    const struct app *app = &c->set->apps[pool->app];
    uint32_t id = pool->id;
    bool is_changed = false;
    if (!app->cert && now_ms >= pool->renew_ms)
        is_changed =
            app->conf.kind == BF_PUSH_FCM ? fetch(c, id, app, now_ms) : mint(c, pool, now_ms);
    pool = pool_by_id(c->set, id);
    if (pool && pool->authorization && now_ms >= pool->expires_ms) {
        wipe(pool->authorization);
        pool->authorization = NULL;
        is_changed = true;
    }
    if (pool && bf_mono_ms() >= pool->resolve_ms)
        is_changed |= resolve(c, id);
    return is_changed;
}

static bool give_back_idle(struct bf_push_creds *c);

static void turn(struct bf_push_creds *c)
{
    bool is_changed = give_back_idle(c), has_asked = false;
    c->has_work = false;
    for (uint32_t i = 0; i < c->set->pool_count && !c->is_stopping; i++) {
        struct pool *pool = &c->set->pools[i];
        bool is_unknown =
            pool->addresses.count == 0 && is_inventable(&c->set->apps[pool->app], pool->host);
        if (is_unknown && has_asked && bf_mono_ms() >= pool->resolve_ms) {
            c->has_work = true;
            continue;
        }
        /* a resolver may think for seconds about a name that does not exist: one a turn, so that
         * tokens and the services that are in use do not wait for what people make up */
        has_asked |= is_unknown && bf_mono_ms() >= pool->resolve_ms;
        is_changed |= serve(c, pool, bf_wall_ms());
    }
    if (is_changed)
        rebuild(c);
}

static void *creds_main(void *arg)
{
    struct bf_push_creds *c = arg;
    prctl(PR_SET_NAME, "bf-push-creds");
    pthread_mutex_lock(&c->lock);
    while (!c->is_stopping) {
        struct timespec until;
        turn(c);
        if (c->is_changed) {
            c->is_changed = false;
            pthread_mutex_unlock(&c->lock);
            c->options.changed(c->options.arg);
            pthread_mutex_lock(&c->lock);
        }
        clock_gettime(CLOCK_MONOTONIC, &until); /* tokens age though the clock is set back */
        until.tv_sec += TURN_MS / 1000;
        if (!c->is_stopping && !c->has_work)
            pthread_cond_timedwait(&c->wake, &c->lock, &until);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

int bf_push_creds_start(const struct bf_push_creds_options *options, struct bf_push_creds **ret,
                        char *err, size_t err_len)
{
    struct bf_push_creds *c = calloc(1, sizeof(*c));
    int rc = c && (c->records = malloc(RECORDS_BYTES_MAX)) ? 0 : -ENOMEM;
    if (rc == 0)
        rc = bf_push_fetch_init();
    if (rc == 0)
        rc = set_read(options->conf, &c->set, err, err_len);
    if (rc == 0) {
        c->options = *options;
        pthread_mutex_init(&c->lock, NULL);
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&c->wake, &attr);
        pthread_condattr_destroy(&attr);
        rc = -pthread_create(&c->thread, NULL, creds_main, c);
    }
    if (rc == 0) {
        *ret = c;
        return 0;
    }
    if (c) {
        set_free(c->set);
        free(c->records);
        free(c);
    }
    return rc;
}

void bf_push_creds_stop(struct bf_push_creds *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->is_stopping = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->wake);
    set_free(c->set);
    explicit_bzero(c->records, RECORDS_BYTES_MAX);
    free(c->records);
    free(c);
}

static void wake(struct bf_push_creds *c)
{
    c->has_work = true;
    pthread_cond_signal(&c->wake);
}

/* Origins that an app of the new list still serves. */
static void keep_origins(struct set *set, struct set *old)
{
    for (uint32_t i = 0; i < old->pool_count; i++) {
        const struct pool *pool = &old->pools[i];
        const struct app *app = &old->apps[pool->app];
        for (uint32_t k = 0; app->conf.kind == BF_PUSH_WEBPUSH && k < set->app_count; k++)
            if (strcmp(set->apps[k].conf.name, app->conf.name) == 0 &&
                id_of(&set->apps[k], pool->authority) == pool->id)
                (void)pool_add(set, k, pool->host, pool->port);
    }
}

int bf_push_creds_check(const struct bf_conf *conf, char *err, size_t err_len)
{
    struct set *set = NULL;
    int rc = set_read(conf, &set, err, err_len);
    if (rc == 0)
        set_free(set);
    return rc;
}

int bf_push_creds_reload(struct bf_push_creds *c, const struct bf_conf *conf, char *err,
                         size_t err_len)
{
    struct set *fresh = NULL;
    int rc = set_read(conf, &fresh, err, err_len);
    if (rc != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    struct set *old = c->set;
    keep_origins(fresh, old);
    for (uint32_t i = 0; i < fresh->pool_count; i++)
        inherit(&fresh->pools[i], old);
    c->set = fresh;
    rebuild(c);
    wake(c);
    pthread_mutex_unlock(&c->lock);
    set_free(old);
    return 0;
}

/* ---- questions ---- */

/* Push services that browsers name; an app with a host of its own serves that one alone. */
bool bf_push_serves(const struct bf_conf_push_app *app, const char *allow,
                    const struct bf_host *host, unsigned port)
{
    struct bf_host own;
    if (app->host[0]) {
        (void)bf_host_read(text_of(app->host), &own);
        return strcmp(own.text, host->text) == 0 && app->port == port;
    }
    if (bf_egress_is_listed(allow, host))
        return true;
    bool is_known = is_known_host(host->text);
    size_t len = strlen(host->text);
    for (size_t i = 0; i < sizeof(known_suffixes) / sizeof(known_suffixes[0]) && !is_known; i++) {
        size_t n = strlen(known_suffixes[i]);
        is_known = len > n && strcmp(host->text + len - n, known_suffixes[i]) == 0;
    }
    return is_known && port == 443;
}

/* ---- origins that people make up ---- */

static void give_back(struct set *set, struct pool *pool)
{
    wipe(pool->authorization);
    *pool = set->pools[--set->pool_count];
    set->pools[set->pool_count] = (struct pool){0};
    bf_count(BF_CM_M_push_origins_given_back, 1);
}

/* The pool that is needed least: one without an address, else the one that was not used for the
 * longest time, but for a while at least. |tenant| NULL: of any tenant. Returns NULL if all are in
 * use. */
static struct pool *least_missed(struct set *set, const uint64_t *tenant)
{
    uint64_t now = bf_mono_ms();
    struct pool *best = NULL;
    for (uint32_t i = 0; i < set->pool_count; i++) {
        struct pool *pool = &set->pools[i];
        if (!is_inventable(&set->apps[pool->app], pool->host) ||
            (tenant && pool->tenant != *tenant))
            continue;
        bool is_idle = now - pool->used_ms > BF_PUSH_ORIGIN_YIELD_MS;
        bool is_useless = pool->has_failed && pool->addresses.count == 0;
        if (is_useless)
            return pool;
        if (is_idle && (!best || pool->used_ms < best->used_ms))
            best = pool;
    }
    return best;
}

static bool make_room(struct set *set, bool is_full, const uint64_t *tenant)
{
    struct pool *pool = is_full ? least_missed(set, tenant) : NULL;
    if (pool)
        give_back(set, pool);
    return !is_full || pool;
}

/* Room for a pool that |tenant| asks for. A service that browsers are known to use always finds
 * some, because those that people make up leave it. */
static bool find_room(struct set *set, bool is_inventable_one, uint64_t tenant)
{
    uint32_t all = 0, of_tenant = 0;
    for (uint32_t i = 0; i < set->pool_count; i++) {
        bool is_one = is_inventable(&set->apps[set->pools[i].app], set->pools[i].host);
        all += is_one;
        of_tenant += is_one && set->pools[i].tenant == tenant;
    }
    if (!is_inventable_one)
        return set->pool_count < BF_PUSH_POOLS_MAX;
    return make_room(set, of_tenant >= BF_PUSH_ORIGINS_TENANT_MAX, &tenant) &&
           make_room(set, all >= BF_PUSH_ORIGINS_MAX, NULL);
}

/* Those that nobody has pushed to for a while. Whether there were any. */
static bool give_back_idle(struct bf_push_creds *c)
{
    uint64_t idle_ms =
        c->options.origin_idle_ms ? c->options.origin_idle_ms : BF_PUSH_ORIGIN_IDLE_MS;
    uint64_t now = bf_mono_ms();
    bool is_changed = false;
    for (uint32_t i = 0; i < c->set->pool_count; i++) {
        struct pool *pool = &c->set->pools[i];
        if (!is_inventable(&c->set->apps[pool->app], pool->host) || now - pool->used_ms <= idle_ms)
            continue;
        give_back(c->set, pool);
        i--; /* another has taken its place */
        is_changed = true;
    }
    return is_changed;
}

/* 0, BF_ERR_DENIED or BF_ERR_FULL. */
static int find_pool(struct bf_push_creds *c, uint32_t app_at, struct bf_bytes authority,
                     struct bf_bytes tenant, struct pool **ret)
{
    struct set *set = c->set;
    const struct app *app = &set->apps[app_at];
    struct bf_host host;
    unsigned port;
    for (uint32_t i = 0; i < set->pool_count; i++) {
        struct pool *pool = &set->pools[i];
        if (pool->app != app_at || (app->conf.kind == BF_PUSH_WEBPUSH &&
                                    !bf_bytes_is_equal(text_of(pool->authority), authority)))
            continue;
        pool->used_ms = bf_mono_ms();
        *ret = pool;
        return 0;
    }
    if (app->conf.kind != BF_PUSH_WEBPUSH || !bf_authority_read(authority, &host, &port) ||
        !bf_push_serves(&app->conf, set->allow, &host, port))
        return BF_ERR_DENIED;
    uint64_t whose = XXH3_64bits(tenant.at ? tenant.at : "", tenant.len);
    if (!find_room(set, is_inventable(app, host.text), whose))
        return BF_ERR_FULL;
    struct pool *pool = pool_add(set, app_at, host.text, (uint16_t)port);
    if (!pool)
        return BF_ERR_DENIED;
    pool->used_ms = bf_mono_ms();
    pool->tenant = whose;
    wake(c);
    *ret = pool;
    return 0;
}

int bf_push_creds_find(struct bf_push_creds *c, struct bf_bytes app, enum bf_push_kind kind,
                       struct bf_bytes authority, struct bf_bytes tenant,
                       struct bf_push_pool_info *ret)
{
    int rc = BF_ERR_NOT_FOUND;
    pthread_mutex_lock(&c->lock);
    for (uint32_t i = 0; i < c->set->app_count; i++) {
        const struct app *at = &c->set->apps[i];
        if (at->conf.kind != kind || !bf_bytes_is_equal(text_of(at->conf.name), app))
            continue;
        struct pool *pool = NULL;
        rc = find_pool(c, i, authority, tenant, &pool);
        if (rc != 0)
            break;
        *ret = (struct bf_push_pool_info){.pool = pool->id,
                                          .kind = kind,
                                          .is_ready = is_ready(c->set, pool),
                                          .is_certificate = at->cert != NULL};
        snprintf(ret->topic, sizeof(ret->topic), "%s", at->conf.topic);
        snprintf(ret->failover, sizeof(ret->failover), "%s", at->conf.failover);
        break;
    }
    pthread_mutex_unlock(&c->lock);
    return rc;
}

static void show_pool(const struct set *set, const struct pool *pool,
                      void (*each)(void *arg, const struct bf_pool_row *row), void *arg)
{
    const struct app *app = &set->apps[pool->app];
    char why[WHY_BYTES + 300];
    bf_format(why, sizeof(why), "%s", pool->why);
    if (pool->addresses.count == 0 && pool->resolve_ms > 0)
        snprintf(why, sizeof(why), "%s has no address that may be used%s%s", pool->host,
                 pool->why[0] ? "; " : "", pool->why);
    struct bf_pool_row row = {
        .pool = pool->id,
        .kind = bf_push_kind_name(app->conf.kind),
        .account = app->conf.name,
        .authority = pool->authority,
        .failover = app->conf.failover,
        .is_ready = is_ready(set, pool),
        .is_certificate = app->cert != NULL,
        .addresses = pool->addresses.count,
        .failures = pool->failures,
        .why = why,
    };
    if (pool->authorization) {
        row.minted_ms = pool->minted_ms;
        row.renew_ms = pool->renew_ms;
        row.expires_ms = pool->expires_ms != UINT64_MAX ? pool->expires_ms : 0;
    }
    each(arg, &row);
}

uint32_t bf_push_creds_walk(struct bf_push_creds *c,
                            void (*each)(void *arg, const struct bf_pool_row *row), void *arg)
{
    pthread_mutex_lock(&c->lock);
    uint32_t apps = c->set->app_count;
    for (uint32_t a = 0; a < c->set->app_count; a++) {
        const struct app *app = &c->set->apps[a];
        bool has_pool = false;
        for (uint32_t i = 0; i < c->set->pool_count; i++) {
            if (c->set->pools[i].app != a)
                continue;
            has_pool = true;
            show_pool(c->set, &c->set->pools[i], each, arg);
        }
        if (!has_pool)
            each(arg, &(struct bf_pool_row){.kind = bf_push_kind_name(app->conf.kind),
                                            .account = app->conf.name,
                                            .authority = "",
                                            .failover = app->conf.failover,
                                            .why = ""});
    }
    pthread_mutex_unlock(&c->lock);
    return apps;
}

void bf_push_creds_renew(struct bf_push_creds *c, uint32_t id)
{
    uint64_t now_ms = bf_wall_ms();
    pthread_mutex_lock(&c->lock);
    struct pool *pool = pool_by_id(c->set, id);
    const struct app *app = pool ? &c->set->apps[pool->app] : NULL;
    uint64_t least_ms =
        app && app->conf.kind == BF_PUSH_APNS ? BF_APNS_TOKEN_MIN_MS : BF_PUSH_RENEW_MIN_MS;
    /* many pushes come back at the same time: the first one asks for a new token, the others find
     * that done or under way */
    if (pool && pool->failures == 0 && now_ms >= pool->minted_ms + least_ms) {
        pool->renew_ms = now_ms;
        wake(c);
    }
    pthread_mutex_unlock(&c->lock);
}

void bf_push_creds_keep(struct bf_push_creds *c, uint32_t id)
{
    uint64_t until_ms = bf_wall_ms() + BF_APNS_TOKEN_MIN_MS;
    pthread_mutex_lock(&c->lock);
    struct pool *pool = pool_by_id(c->set, id);
    if (pool && pool->renew_ms < until_ms)
        pool->renew_ms = until_ms;
    pthread_mutex_unlock(&c->lock);
}
