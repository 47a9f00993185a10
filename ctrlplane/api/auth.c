/* Keys, tokens, scopes, rate; see auth.h. Any server thread. */
#include "api/auth.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "api/client_cert.h"
#include "belfry/base/err.h"
#include "belfry/base/log.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf.h"
#include "config/services.h"
#include "crypto/hash.h"
#include "stats/metrics.h"

/* Chains of the key table: a node has tens of keys, not thousands. Power of two. */
#define KEY_CHAINS 256u
/* The whole text of a key; longer is none of ours. */
#define KEY_TEXT_BYTES_MAX 128u
#define KEY_RANDOM_BYTES   24u
#define RATE_NONE          UINT32_MAX
/* The end of a key whose row is no longer there: any time that is over. */
#define KEY_IS_GONE 1u

/* Token keys of one configuration; older ones stay until the stop (reloads are few). */
struct token_set {
    const struct bf_conf *conf;
    struct bf_token_keys *keys;
    struct token_set *older;
};

struct bf_auth {
    struct bf_services *services;
    _Atomic(struct bf_key_entry *) chains[KEY_CHAINS];
    struct bf_key_entry *dev; /* NULL without a development key */
    _Atomic(struct token_set *) tokens;
    pthread_mutex_t lock; /* additions to the above; never held over I/O */
};

static const char *const scope_names[BF_SCOPE_COUNT] = {
    "send", "events", "bulk", "templates", "users", "status", "critical", "admin", "broadcast"};

const char *bf_scope_name(enum bf_scope scope)
{
    return scope_names[scope];
}

int bf_scope_find(struct bf_bytes name)
{
    for (int i = 0; i < BF_SCOPE_COUNT; i++) {
        if (strlen(scope_names[i]) == name.len && memcmp(scope_names[i], name.at, name.len) == 0)
            return i;
    }
    return -1;
}

bool bf_auth_has_scope(const struct bf_principal *who, enum bf_scope scope)
{
    return who->who == BF_WHO_KEY && (who->key->row.scopes & 1u << scope) != 0;
}

void bf_auth_make_key(const char *name, const char *tenant, uint32_t scopes, uint32_t rate_per_min,
                      char text[BF_API_KEY_BYTES], struct bf_api_key_row *ret_row)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t secret[KEY_RANDOM_BYTES];
    uint8_t id[8];
    bf_random(secret, sizeof(secret));
    bf_random(id, sizeof(id));
    memcpy(text, "bfk_", 4);
    for (unsigned i = 0; i < sizeof(secret); i++) {
        text[4 + 2 * i] = hex[secret[i] >> 4];
        text[5 + 2 * i] = hex[secret[i] & 15];
    }
    text[BF_API_KEY_BYTES - 1] = '\0';
    *ret_row = (struct bf_api_key_row){
        .scopes = scopes, .rate_per_min = rate_per_min, .created_ms = bf_wall_ms()};
    for (unsigned i = 0; i < sizeof(id); i++)
        snprintf(ret_row->id + 2 * i, 3, "%02x", id[i]);
    bf_format(ret_row->name, sizeof(ret_row->name), "%s", name);
    snprintf(ret_row->tenant, sizeof(ret_row->tenant), "%s", tenant);
    bf_sha256((struct bf_bytes){text, BF_API_KEY_BYTES - 1}, ret_row->hash);
}

/* ---- keys ---- */

static _Atomic(struct bf_key_entry *) *chain_of(struct bf_auth *auth, const uint8_t *hash)
{
    uint32_t index;
    memcpy(&index, hash, sizeof(index)); /* the hash is even as it is */
    return &auth->chains[index & (KEY_CHAINS - 1)];
}

static struct bf_key_entry *find_cached(struct bf_auth *auth, const uint8_t *hash)
{
    /* acquire: pairs with the release that published the entry, whose row never changes */
    struct bf_key_entry *entry = atomic_load_explicit(chain_of(auth, hash), memory_order_acquire);
    while (entry && memcmp(entry->row.hash, hash, BF_SHA256_BYTES) != 0)
        entry = entry->next;
    return entry;
}

static struct bf_key_entry *add_entry(struct bf_auth *auth, const struct bf_api_key_row *row,
                                      uint32_t read_at)
{
    struct bf_key_entry *fresh = calloc(1, sizeof(*fresh));
    if (!fresh)
        return NULL;
    fresh->row = *row;
    atomic_store_explicit(&fresh->ends_ms, bf_api_key_taken_until(row), memory_order_relaxed);
    atomic_store_explicit(&fresh->read_at, read_at, memory_order_relaxed);
    pthread_mutex_lock(&auth->lock);
    struct bf_key_entry *entry = find_cached(auth, row->hash); /* another thread may have won */
    if (!entry) {
        _Atomic(struct bf_key_entry *) *chain = chain_of(auth, row->hash);
        fresh->next = atomic_load_explicit(chain, memory_order_relaxed);
        atomic_store_explicit(chain, fresh, memory_order_release);
        entry = fresh;
        fresh = NULL;
    }
    pthread_mutex_unlock(&auth->lock);
    free(fresh);
    return entry;
}

/* Reads the key's end again: keys were changed since it was read. 0, or an error of the store. */
static int read_end(struct bf_auth *auth, struct bf_key_entry *entry, uint32_t changed)
{
    struct bf_api_key_row row;
    int rc = bf_store_get_api_key(auth->services->store, entry->row.hash, &row);
    if (rc != 0 && rc != BF_ERR_NOT_FOUND)
        return rc;
    uint64_t ends_ms = rc == 0 ? bf_api_key_taken_until(&row) : KEY_IS_GONE;
    pthread_mutex_lock(&auth->lock);
    /* another thread may have read the row later than we did: then its end counts */
    if ((int32_t)(changed - atomic_load_explicit(&entry->read_at, memory_order_relaxed)) > 0) {
        atomic_store_explicit(&entry->ends_ms, ends_ms, memory_order_relaxed);
        atomic_store_explicit(&entry->read_at, changed, memory_order_relaxed);
    }
    pthread_mutex_unlock(&auth->lock);
    return 0;
}

/* 0 and *ret, BF_ERR_NOT_FOUND, BF_ERR_EXPIRED (revoked or over), or an error of the store. */
static int find_hash(struct bf_auth *auth, const uint8_t hash[BF_SHA256_BYTES],
                     struct bf_key_entry **ret)
{
    struct bf_api_key_row row;
    int rc = 0;
    if (auth->dev && bf_is_same_secret(auth->dev->row.hash, hash, BF_SHA256_BYTES)) {
        *ret = auth->dev;
        return 0;
    }
    /* acquire, and before the row is read: a change that it does not show raises the count later */
    uint32_t changed = atomic_load_explicit(&auth->services->keys_changed, memory_order_acquire);
    struct bf_key_entry *entry = find_cached(auth, hash);
    if (!entry) {
        rc = bf_store_get_api_key(auth->services->store, hash, &row);
        if (rc == 0 && !(entry = add_entry(auth, &row, changed)))
            rc = BF_ERR_NO_MEMORY;
    } else if (atomic_load_explicit(&entry->read_at, memory_order_relaxed) != changed) {
        rc = read_end(auth, entry, changed);
    }
    if (rc != 0)
        return rc;
    uint64_t now_ms = bf_wall_ms();
    if (atomic_load_explicit(&entry->ends_ms, memory_order_relaxed) <= now_ms)
        return BF_ERR_EXPIRED;
    atomic_store_explicit(&entry->used_ms, now_ms, memory_order_relaxed);
    *ret = entry;
    return 0;
}

void bf_auth_write_use(struct bf_auth *auth)
{
    struct bf_batch *batch = NULL;
    for (unsigned i = 0; i < KEY_CHAINS; i++) {
        struct bf_key_entry *entry = atomic_load_explicit(&auth->chains[i], memory_order_acquire);
        for (; entry; entry = entry->next) {
            uint64_t used_ms = atomic_load_explicit(&entry->used_ms, memory_order_relaxed);
            if (used_ms <= entry->use_written_ms)
                continue;
            if (!batch && !(batch = bf_batch_create(auth->services->store)))
                return;
            bf_batch_put_api_key_use(batch, entry->row.id, used_ms);
            entry->use_written_ms = used_ms;
        }
    }
    if (!batch)
        return;
    /* a store that cannot be written to is told of by those who wait for their write */
    (void)bf_batch_write(batch, false);
    bf_batch_destroy(batch);
}

static int find_key(struct bf_auth *auth, struct bf_bytes text, struct bf_key_entry **ret)
{
    uint8_t hash[BF_SHA256_BYTES];
    if (text.len > KEY_TEXT_BYTES_MAX)
        return BF_ERR_NOT_FOUND;
    bf_sha256(text, hash);
    return find_hash(auth, hash, ret);
}

/* The development key: all scopes, no rate limit, from a file that only this machine reads. */
static int load_dev_key(struct bf_auth *auth, const char *path, char *err, size_t err_len)
{
    char text[KEY_TEXT_BYTES_MAX + 2] = "";
    FILE *file = fopen(path, "re");
    if (!file) {
        snprintf(err, err_len, "dev.api_key_file: cannot read '%s': %s", path, strerror(errno));
        return BF_ERR_MALFORMED;
    }
    size_t len = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        len--;
    if (len < BF_API_KEY_BYTES - 1 || len > KEY_TEXT_BYTES_MAX || memcmp(text, "bfk_", 4) != 0) {
        snprintf(err, err_len, "dev.api_key_file: '%s' holds no key: bfk_ and 48 hex digits", path);
        return BF_ERR_MALFORMED;
    }
    auth->dev = calloc(1, sizeof(*auth->dev));
    if (!auth->dev)
        return -ENOMEM;
    auth->dev->row.scopes = (1u << BF_SCOPE_COUNT) - 1;
    auth->dev->row.rate_per_min = RATE_NONE;
    snprintf(auth->dev->row.id, sizeof(auth->dev->row.id), "dev");
    bf_sha256((struct bf_bytes){text, len}, auth->dev->row.hash);
    explicit_bzero(text, sizeof(text));
    return 0;
}

/* ---- tokens ---- */

static struct token_set *make_token_set(struct bf_auth *auth, const struct bf_conf *conf, char *err,
                                        size_t err_len)
{
    struct token_set *set = calloc(1, sizeof(*set));
    if (!set || bf_token_keys_create(conf, &set->keys, err, err_len) != 0) {
        free(set);
        return NULL;
    }
    set->conf = conf;
    set->older = atomic_load_explicit(&auth->tokens, memory_order_relaxed);
    /* release: pairs with the acquire of whoever verifies */
    atomic_store_explicit(&auth->tokens, set, memory_order_release);
    return set;
}

/* The keys of the configuration in force; a reload is noticed here. A set that cannot be built
 * leaves the one before in force. */
static const struct bf_token_keys *current_tokens(struct bf_auth *auth)
{
    const struct bf_conf *conf = atomic_load(&auth->services->conf);
    struct token_set *set = atomic_load_explicit(&auth->tokens, memory_order_acquire);
    if (set->conf == conf)
        return set->keys;
    pthread_mutex_lock(&auth->lock);
    set = atomic_load_explicit(&auth->tokens, memory_order_relaxed);
    if (set->conf != conf) {
        char err[256] = "";
        struct token_set *fresh = make_token_set(auth, conf, err, sizeof(err));
        if (fresh)
            set = fresh;
        else
            BF_WARN("ctrlplane", "JWT keys of the new configuration are not used: %s", err);
    }
    pthread_mutex_unlock(&auth->lock);
    return set->keys;
}

/* ---- admission ---- */

static void refuse_401(struct bf_request *r, const char *detail)
{
    bf_count(BF_CM_M_http_unauthorized, 1);
    bf_answer_fail(r, 401, "unauthorized", "Authorization",
                   "%s; send Authorization: Bearer with an API key (bfk_...) or a user's JWT",
                   detail);
}

/* The text after "Bearer ", or an empty one. */
static struct bf_bytes bearer(struct bf_bytes header)
{
    const size_t prefix = 7;
    if (header.len <= prefix || strncasecmp(header.at, "Bearer ", prefix) != 0)
        return (struct bf_bytes){"", 0};
    return (struct bf_bytes){header.at + prefix, header.len - prefix};
}

static void take_key(struct bf_request *r, struct bf_principal *who, int rc)
{
    if (rc == 0)
        who->who = BF_WHO_KEY;
    else if (rc == BF_ERR_NOT_FOUND)
        refuse_401(r, "no such API key");
    else if (rc == BF_ERR_EXPIRED)
        refuse_401(r, "this API key was revoked, or its time is over");
    else
        bf_answer_error(r, rc);
}

static void identify(struct bf_auth *auth, struct bf_request *r, struct bf_principal *who)
{
    struct bf_bytes text = bearer(bf_request_header(r, "Authorization"));
    const struct bf_conf *conf = atomic_load(&auth->services->conf);
    uint8_t hash[BF_SHA256_BYTES];
    *who = (struct bf_principal){0};
    if (text.len == 0 && bf_client_cert_key(auth->services->store, conf, r, hash)) {
        take_key(r, who, find_hash(auth, hash, &who->key));
    } else if (text.len == 0) {
        refuse_401(r, "no key and no token");
    } else if (text.len > 4 && memcmp(text.at, "bfk_", 4) == 0) {
        take_key(r, who, find_key(auth, text, &who->key));
    } else {
        enum bf_jwt_verdict verdict =
            bf_token_keys_verify(current_tokens(auth), text, bf_wall_ms() / 1000, &who->claims);
        if (verdict == BF_JWT_OK)
            who->who = BF_WHO_USER;
        else
            refuse_401(r, bf_token_verdict_text(verdict));
    }
}

static void authorise(struct bf_request *r, const struct bf_principal *who)
{
    enum bf_access_kind kind = (enum bf_access_kind)(r->route->access >> 8);
    enum bf_scope scope = (enum bf_scope)(r->route->access & 0xff);
    if (who->who == BF_WHO_KEY) {
        if (!bf_auth_has_scope(who, scope))
            bf_answer_fail(r, 403, "scope", "", "this API key lacks the scope '%s'",
                           bf_scope_name(scope));
        return;
    }
    struct bf_bytes self = {who->claims.user, who->claims.user_len};
    if (kind == BF_ACCESS_KEY)
        bf_answer_fail(r, 403, "scope", "",
                       "this call is for API keys of scope '%s', not for a user's token",
                       bf_scope_name(scope));
    else if (kind == BF_ACCESS_SELF && !bf_bytes_is_equal(self, r->user))
        bf_answer_fail(r, 403, "not-yours", "user_id",
                       "a user's token reaches their own data only");
}

static void limit_rate(struct bf_auth *auth, struct bf_request *r, struct bf_key_entry *key)
{
    const struct bf_conf *conf = atomic_load(&auth->services->conf);
    uint32_t per_min = key->row.rate_per_min ? key->row.rate_per_min : conf->api_rate_per_min;
    if (per_min == 0 || per_min == RATE_NONE)
        return;
    struct bf_rate_verdict v = bf_rate_take(&key->rate, per_min, bf_mono_ns());
    bf_answer_header(r, "RateLimit-Policy", "\"default\";q=%u;w=60", per_min);
    bf_answer_header(r, "RateLimit", "\"default\";r=%u;t=%u", v.remaining, v.reset_s);
    bf_answer_header(r, "RateLimit-Limit", "%u", per_min);
    bf_answer_header(r, "RateLimit-Remaining", "%u", v.remaining);
    bf_answer_header(r, "RateLimit-Reset", "%u", v.reset_s);
    if (v.is_allowed)
        return;
    struct bf_problem problem;
    bf_count(BF_CM_M_http_rate_limited, 1);
    bf_problem_set(&problem, 429, "quota-exceeded", "",
                   "this API key may make %u requests a minute; wait %u s", per_min,
                   v.retry_after_s);
    problem.retry_after_s = v.retry_after_s > 0 ? v.retry_after_s : 1;
    bf_answer_problem(r, &problem);
}

void bf_auth_admit(struct bf_auth *auth, struct bf_request *r, struct bf_principal *who)
{
    identify(auth, r, who);
    if (r->answer.status == 0)
        authorise(r, who);
    if (r->answer.status == 0 && who->who == BF_WHO_KEY)
        limit_rate(auth, r, who->key);
}

/* ---- life ---- */

int bf_auth_create(struct bf_services *services, struct bf_auth **ret, char *err, size_t err_len)
{
    const struct bf_conf *conf = atomic_load(&services->conf);
    struct bf_auth *auth = calloc(1, sizeof(*auth));
    if (!auth)
        return -ENOMEM;
    auth->services = services;
    pthread_mutex_init(&auth->lock, NULL);
    int rc = 0;
    if (conf->dev_api_key_file[0])
        rc = load_dev_key(auth, conf->dev_api_key_file, err, err_len);
    if (rc == 0 && !make_token_set(auth, conf, err, err_len))
        rc = BF_ERR_MALFORMED;
    if (rc != 0) {
        bf_auth_destroy(auth);
        return rc;
    }
    *ret = auth;
    return 0;
}

void bf_auth_destroy(struct bf_auth *auth)
{
    if (!auth)
        return;
    bf_auth_write_use(auth);
    for (unsigned i = 0; i < KEY_CHAINS; i++) {
        struct bf_key_entry *entry = atomic_load(&auth->chains[i]);
        while (entry) {
            struct bf_key_entry *next = entry->next;
            free(entry);
            entry = next;
        }
    }
    struct token_set *set = atomic_load(&auth->tokens);
    while (set) {
        struct token_set *older = set->older;
        bf_token_keys_destroy(set->keys);
        free(set);
        set = older;
    }
    free(auth->dev);
    pthread_mutex_destroy(&auth->lock);
    free(auth);
}
