/*
 * Proves what status is told of pools: one with a token and an address is ready; one whose token
 * endpoint refuses says why; an app of Web Push shows before any device has named an origin.
 */
#include <criterion/criterion.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "belfry/base/err.h"
#include "belfry/base/time.h"
#include "channels/push/push_creds.h"
#include "tmp_dir.h"

#define WAIT_MS 10000u

static void changed(void *arg)
{
    (void)arg;
}

static void write_key(const char *path, EVP_PKEY *pkey)
{
    FILE *file = fopen(path, "w");
    cr_assert_eq(PEM_write_PKCS8PrivateKey(file, pkey, NULL, NULL, 0, NULL, NULL), 1);
    fclose(file);
    EVP_PKEY_free(pkey);
}

/* A key in PEM as a JSON text has it. */
static void write_account(const char *path, const char *key_path)
{
    FILE *key = fopen(key_path, "r"), *file = fopen(path, "w");
    fputs("{\"type\":\"service_account\",\"project_id\":\"shop-1\",\"private_key_id\":\"k\","
          "\"client_email\":\"a@b.example\",\"token_uri\":\"https://127.0.0.1:1/token\","
          "\"private_key\":\"",
          file);
    for (int c = fgetc(key); c != EOF; c = fgetc(key)) {
        if (c == '\n')
            fputs("\\n", file);
        else
            fputc(c, file);
    }
    fputs("\"}", file);
    fclose(key);
    fclose(file);
}

struct seen {
    int count;
    struct bf_pool_row rows[4];
    char why[4][200], app[4][70], authority[4][70];
};

static void keep(void *arg, const struct bf_pool_row *row)
{
    struct seen *seen = arg;
    cr_assert_lt(seen->count, 4);
    seen->rows[seen->count] = *row;
    snprintf(seen->why[seen->count], 200, "%s", row->why);
    snprintf(seen->app[seen->count], 70, "%s", row->account);
    snprintf(seen->authority[seen->count], 70, "%s", row->authority);
    seen->count++;
}

/* Once the first pool is ready and the second has failed. */
static struct seen settled(struct bf_push_creds *creds)
{
    struct seen seen;
    uint64_t until_ms = bf_mono_ms() + WAIT_MS;
    do {
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        memset(&seen, 0, sizeof(seen));
        bf_push_creds_walk(creds, keep, &seen);
        cr_assert_lt(bf_mono_ms(), until_ms, "not settled: '%s' '%s'", seen.why[0], seen.why[1]);
    } while (!seen.rows[0].is_ready || seen.rows[1].failures == 0 || seen.rows[1].addresses == 0);
    return seen;
}

static struct bf_conf_push_app *app(struct bf_conf *conf, enum bf_push_kind kind, const char *name)
{
    struct bf_conf_push_app *app = &conf->push_apps[conf->push_app_count++];
    app->kind = kind;
    app->port = 443;
    app->connections_min = app->connections_max = 1;
    snprintf(app->name, sizeof(app->name), "%s", name);
    return app;
}

Test(push_creds, walk_tells_how_each_pool_is, .timeout = 60)
{
    char dir[64], ec[128], rsa[128], account[128], err[256] = "";
    struct bf_conf *conf = calloc(1, sizeof(*conf));
    conf->egress_allow = ""; /* a loaded configuration has no NULL */
    struct bf_push_creds *creds = NULL;
    struct bf_push_pool_info info;
    tmp_dir_make(dir, sizeof(dir));
    snprintf(ec, sizeof(ec), "%s/ec.pem", dir);
    snprintf(rsa, sizeof(rsa), "%s/rsa.pem", dir);
    snprintf(account, sizeof(account), "%s/account.json", dir);
    write_key(ec, EVP_EC_gen("P-256"));
    write_key(rsa, EVP_RSA_gen(2048));
    write_account(account, rsa);
    struct bf_conf_push_app *ios = app(conf, BF_PUSH_APNS, "ios");
    snprintf(ios->key, sizeof(ios->key), "%s", ec);
    strcpy(ios->host, "127.0.0.1");
    ios->port = 4433;
    struct bf_conf_push_app *android = app(conf, BF_PUSH_FCM, "android");
    snprintf(android->service_account, sizeof(android->service_account), "%s", account);
    strcpy(android->host, "127.0.0.1");
    struct bf_conf_push_app *web = app(conf, BF_PUSH_WEBPUSH, "web");
    snprintf(web->key, sizeof(web->key), "%s", ec);
    struct bf_push_creds_options options = {.conf = conf, .changed = changed};
    cr_assert_eq(bf_push_creds_start(&options, &creds, err, sizeof(err)), 0, "%s", err);
    struct seen seen = settled(creds);
    cr_assert_eq(seen.count, 3);
    cr_assert_str_eq(seen.app[0], "ios");
    cr_assert_str_eq(seen.authority[0], "127.0.0.1:4433");
    cr_assert_str_eq(seen.why[0], "");
    cr_assert_gt(seen.rows[0].minted_ms, 0);
    cr_assert_geq(seen.rows[0].renew_ms, seen.rows[0].minted_ms + BF_APNS_TOKEN_MS);
    cr_assert_eq(seen.rows[0].expires_ms, 0, "Apple says no time");
    cr_assert_eq(
        bf_push_creds_find(creds, BF_BYTES("ios"), BF_PUSH_APNS, BF_BYTES(""), BF_BYTES(""), &info),
        0);
    cr_assert_eq(seen.rows[0].pool, info.pool);
    cr_assert(!seen.rows[1].is_ready);
    cr_assert_eq(seen.rows[1].minted_ms, 0);
    cr_assert(strstr(seen.why[1], "no access token: "), "%s", seen.why[1]);
    cr_assert_eq(seen.rows[2].pool, 0);
    cr_assert_str_eq(seen.app[2], "web");
    cr_assert_str_eq(seen.rows[2].kind, "webpush");
    bf_push_creds_stop(creds);
    free(conf);
    tmp_dir_remove(dir);
}

/* ---- origins that people make up ---- */

static struct bf_push_creds *web_creds(char dir[64], struct bf_conf *conf, uint64_t idle_ms)
{
    char ec[128], err[256] = "";
    struct bf_push_creds *creds = NULL;
    tmp_dir_make(dir, 64);
    snprintf(ec, sizeof(ec), "%s/ec.pem", dir);
    write_key(ec, EVP_EC_gen("P-256"));
    conf->egress_allow = "127.0.0.0/8"; /* each of its addresses is an origin that resolves */
    struct bf_conf_push_app *web = app(conf, BF_PUSH_WEBPUSH, "web");
    snprintf(web->key, sizeof(web->key), "%s", ec);
    struct bf_push_creds_options options = {
        .conf = conf, .changed = changed, .origin_idle_ms = idle_ms};
    cr_assert_eq(bf_push_creds_start(&options, &creds, err, sizeof(err)), 0, "%s", err);
    return creds;
}

static int ask(struct bf_push_creds *creds, const char *tenant, const char *authority, bool *ready)
{
    struct bf_push_pool_info info = {0};
    int rc = bf_push_creds_find(creds, BF_BYTES("web"), BF_PUSH_WEBPUSH,
                                (struct bf_bytes){authority, strlen(authority)},
                                (struct bf_bytes){tenant, strlen(tenant)}, &info);
    if (ready)
        *ready = rc == 0 && info.is_ready;
    return rc;
}

static void count_row(void *arg, const struct bf_pool_row *row)
{
    *(uint32_t *)arg += row->pool != 0;
}

static uint32_t pools_of(struct bf_push_creds *creds)
{
    uint32_t count = 0;
    bf_push_creds_walk(creds, count_row, &count);
    return count;
}

/* A user of one tenant has registered 1,000 origins that nobody else would; all are pushed to. */
Test(push_creds, invented_origins_leave_room, .timeout = 120)
{
    char dir[64], name[80];
    struct bf_conf *conf = calloc(1, sizeof(*conf));
    struct bf_push_creds *creds = web_creds(dir, conf, 0);
    uint32_t taken = 0;
    for (unsigned n = 0; n < 1000; n++) {
        snprintf(name, sizeof(name), "127.1.%u.%u", n / 250, n % 250 + 1);
        int rc = ask(creds, "evil", name, NULL);
        cr_assert(rc == 0 || rc == BF_ERR_FULL, "%d", rc);
        taken += rc == 0;
    }
    cr_expect_eq(taken, BF_PUSH_ORIGINS_TENANT_MAX, "%u", taken);
    cr_expect_eq(pools_of(creds), BF_PUSH_ORIGINS_TENANT_MAX);
    /* the services that browsers name always find room, his tenant's too */
    cr_expect_eq(ask(creds, "evil", "fcm.googleapis.com", NULL), 0);
    cr_expect_eq(ask(creds, "good", "updates.push.services.mozilla.com", NULL), 0);
    /* and another tenant has places of its own, which work */
    bool is_ready = false;
    uint64_t until_ms = bf_mono_ms() + WAIT_MS;
    while (!is_ready && bf_mono_ms() < until_ms)
        cr_assert_eq(ask(creds, "good", "127.9.9.9", &is_ready), 0);
    cr_expect(is_ready, "it has an address and a token");
    /* many tenants do not use them up either */
    for (unsigned n = 0; n < 1000; n++) {
        char tenant[16];
        snprintf(tenant, sizeof(tenant), "t%u", n % 50);
        snprintf(name, sizeof(name), "127.2.%u.%u", n / 250, n % 250 + 1);
        (void)ask(creds, tenant, name, NULL);
    }
    cr_expect_leq(pools_of(creds), BF_PUSH_ORIGINS_MAX + 2);
    cr_expect_eq(ask(creds, "late", "web.push.apple.com", NULL), 0);
    bf_push_creds_stop(creds);
    free(conf);
    tmp_dir_remove(dir);
}

/* Nobody pushes to them any more: they are given back, and made again when somebody does. */
Test(push_creds, idle_origins_are_given_back, .timeout = 120)
{
    char dir[64];
    struct bf_conf *conf = calloc(1, sizeof(*conf));
    struct bf_push_creds *creds = web_creds(dir, conf, 200);
    cr_assert_eq(ask(creds, "t", "127.0.0.1:1", NULL), 0);
    cr_assert_eq(ask(creds, "t", "127.0.0.2:1", NULL), 0);
    cr_assert_eq(pools_of(creds), 2);
    uint64_t until_ms = bf_mono_ms() + WAIT_MS;
    while (pools_of(creds) > 0 && bf_mono_ms() < until_ms)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    cr_assert_eq(pools_of(creds), 0);
    cr_assert_eq(ask(creds, "t", "127.0.0.1:1", NULL), 0);
    cr_assert_eq(pools_of(creds), 1);
    bf_push_creds_stop(creds);
    free(conf);
    tmp_dir_remove(dir);
}
