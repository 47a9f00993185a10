/* belfryctl config, token, key, routes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/calls.h"
#include "api/crypto.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf_load.h"
#include "belfry/conf/conf_print.h"
#include "ctl/ctl.h"
#include "log/log.h"

#define TOKEN_TTL_DEFAULT_S 3600u
#define TOKEN_TTL_MAX_S     31536000u

/* ---- config
 * ----------------------------------------------------------------------------------------- */

static int check_config(struct bf_ctl *ctl, const char *path)
{
    char err[BF_CONF_ERROR_BYTES_MAX] = "";
    struct bf_conf *conf = NULL;
    struct bf_token_keys *keys = NULL;
    if (!path)
        return bf_ctl_fail(BF_CTL_USAGE, "config check which file? --config FILE");
    int rc = bf_conf_load(path, &conf, err, sizeof(err));
    if (rc == 0) /* a PEM that does not parse stops a node as well */
        rc = bf_token_keys_create(conf, &keys, err, sizeof(err));
    if (rc == 0)
        rc = bf_certificates_check(conf, err, sizeof(err));
    if (rc == 0)
        rc = bf_log_check(conf, err, sizeof(err));
    bf_token_keys_destroy(keys);
    bf_conf_free(conf);
    if (rc != 0)
        return bf_ctl_fail(BF_CTL_FAILED, "%s", err);
    printf(ctl->is_json ? "{\"ok\":true}\n" : "%s is right\n", path);
    return BF_CTL_OK;
}

static int reload_config(struct bf_ctl *ctl)
{
    struct bf_reply reply;
    char err[BF_CONF_ERROR_BYTES_MAX];
    struct bf_conf *conf = NULL;
    /* the node checks too; here the message comes with nothing in between */
    if (bf_conf_load(ctl->config_path, &conf, err, sizeof(err)) != 0)
        return bf_ctl_fail(BF_CTL_FAILED, "%s; nothing was reloaded", err);
    ctl->conf = conf;
    bf_ctl_find_node(ctl);
    bool reached = bf_ctl_call(ctl, "POST", "/admin/config/reload", "{}", &reply);
    int code = BF_CTL_FAILED;
    if (reached && reply.status == 200) {
        puts(ctl->is_json ? reply.body : "reloaded");
        code = BF_CTL_OK;
    } else if (reached) {
        code = bf_ctl_refused(&reply);
    }
    if (reached)
        bf_reply_free(&reply);
    bf_conf_free(conf);
    return code;
}

/* The dataplane knows its own sum; it lies beside this program. Does not return where it is found.
 */
static int print_memory(struct bf_ctl *ctl, struct bf_args *args)
{
    static const char program[] = "belfry-dataplane";
    char path[512], number[24];
    uint64_t connections = 0;
    bool tls = bf_args_flag(args, "tls");
    if (!bf_args_number(args, "connections", 100, 2000000, &connections) || !bf_args_done(args))
        return BF_CTL_USAGE;
    if (!ctl->config_path)
        return bf_ctl_fail(BF_CTL_USAGE, "memory of which configuration? --config FILE");
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - sizeof(program));
    path[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(path, '/');
    if (slash)
        memcpy(slash + 1, program, sizeof(program));
    snprintf(number, sizeof(number), "%llu", (unsigned long long)connections);
    const char *argv[9] = {program, "--memory", "--config", ctl->config_path};
    int count = 4;
    if (connections) {
        argv[count++] = "--connections";
        argv[count++] = number;
    }
    if (tls)
        argv[count++] = "--tls";
    if (ctl->is_json)
        argv[count++] = "--json";
    execv(path, (char *const *)(uintptr_t)argv);
    return bf_ctl_fail(BF_CTL_FAILED, "%s: %s", path, strerror(errno));
}

int bf_ctl_config(struct bf_ctl *ctl, struct bf_args *args)
{
    const char *what = bf_args_word(args);
    if (what && strcmp(what, "memory") == 0)
        return print_memory(ctl, args);
    const char *file = bf_args_word(args);
    if (!bf_args_done(args))
        return BF_CTL_USAGE;
    if (what && strcmp(what, "check") == 0)
        return check_config(ctl, file ? file : ctl->config_path);
    if (what && strcmp(what, "reload") == 0)
        return reload_config(ctl);
    if (!what || strcmp(what, "reference") != 0)
        return bf_ctl_fail(BF_CTL_USAGE, "config does check, reload, memory, reference");
    bf_conf_print_yaml(stdout);
    return BF_CTL_OK;
}

/* ---- token
 * ------------------------------------------------------------------------------------------ */

static const struct bf_conf_jwt_key *find_dev_key(const struct bf_conf *conf)
{
    for (uint32_t i = 0; i < conf->jwt_key_count; i++) {
        const struct bf_conf_jwt_key *key = &conf->jwt_keys[i];
        if (key->alg == BF_JWT_HS256 && strcmp(key->kid, BF_CONF_DEV_KID) == 0)
            return key;
    }
    return NULL;
}

int bf_ctl_token(struct bf_ctl *ctl, struct bf_args *args)
{
    const char *sub = bf_args_option(args, "sub");
    const char *tenant = bf_args_option(args, "tenant");
    uint64_t ttl_s = TOKEN_TTL_DEFAULT_S;
    struct bf_out payload = {0};
    if (!bf_args_number(args, "ttl", 1, TOKEN_TTL_MAX_S, &ttl_s) || !bf_args_done(args))
        return BF_CTL_USAGE;
    if (!sub)
        return bf_ctl_fail(BF_CTL_USAGE, "a token for whom? --sub USER");
    const struct bf_conf_jwt_key *key = find_dev_key(ctl->conf);
    if (!key)
        return bf_ctl_fail(BF_CTL_FAILED,
                           "no development key is configured: dev.jwt_secret_file, or "
                           "an HS256 key of kid '" BF_CONF_DEV_KID "' in websocket.jwt_keys");
    uint64_t now_s = bf_wall_ms() / 1000;
    bf_out_text(&payload, "{\"sub\":");
    bf_out_cstr(&payload, sub);
    if (tenant) {
        bf_out_text(&payload, ",\"tenant\":");
        bf_out_cstr(&payload, tenant);
    }
    if (ctl->conf->jwt_audience[0]) {
        bf_out_text(&payload, ",\"aud\":");
        bf_out_cstr(&payload, ctl->conf->jwt_audience);
    }
    bf_out_print(&payload, ",\"iat\":%llu,\"exp\":%llu}", (unsigned long long)now_s,
                 (unsigned long long)(now_s + ttl_s));
    char *token = bf_token_sign_hs256(key->kid, (struct bf_bytes){payload.at, payload.len},
                                      (struct bf_bytes){(const char *)key->key, key->len});
    bf_out_free(&payload);
    if (!token)
        return bf_ctl_fail(BF_CTL_FAILED, "the token could not be signed");
    puts(token);
    free(token);
    return BF_CTL_OK;
}

/* ---- keys
 * ------------------------------------------------------------------------------------------- */

static int write_wish(struct bf_args *args, struct bf_out *o)
{
    const char *name = bf_args_option(args, "name");
    const char *tenant = bf_args_option(args, "tenant");
    const char *scope = bf_args_option(args, "scope");
    uint64_t rate = 0;
    if (!scope)
        return bf_ctl_fail(BF_CTL_USAGE, "key create with which --scope? send is what most need");
    bf_out_text(o, "{\"scopes\":[");
    for (unsigned i = 0; scope; i++, scope = bf_args_option(args, "scope")) {
        bf_out_text(o, i ? "," : "");
        bf_out_cstr(o, scope);
    }
    bf_out_text(o, "],\"name\":");
    bf_out_cstr(o, name ? name : "");
    bf_out_text(o, ",\"tenant\":");
    bf_out_cstr(o, tenant ? tenant : "");
    if (!bf_args_number(args, "rate", 1, UINT32_MAX, &rate) || !bf_args_done(args))
        return BF_CTL_USAGE;
    bf_out_print(o, ",\"rate_per_min\":%llu}", (unsigned long long)rate);
    return BF_CTL_OK;
}

static int create_key(struct bf_ctl *ctl, struct bf_args *args)
{
    struct bf_out o = {0};
    struct bf_reply reply;
    size_t len;
    int code = write_wish(args, &o);
    char *body = code == BF_CTL_OK ? bf_out_take(&o, &len) : NULL;
    bf_out_free(&o);
    if (!body)
        return code;
    bool reached = bf_ctl_call(ctl, "POST", "/admin/keys", body, &reply);
    free(body);
    if (!reached)
        return BF_CTL_FAILED;
    if (reply.status != 201) {
        code = bf_ctl_refused(&reply);
    } else if (ctl->is_json) {
        bf_ctl_print_body(&reply);
    } else {
        puts(bf_json_text(yyjson_doc_get_root(reply.json), "key"));
        fputs("keep it now: only its hash is stored\n", stderr);
    }
    bf_reply_free(&reply);
    return code;
}

static int list_keys(struct bf_ctl *ctl, struct bf_args *args)
{
    struct bf_reply reply;
    size_t i;
    size_t max;
    yyjson_val *row;
    if (!bf_args_done(args))
        return BF_CTL_USAGE;
    if (!bf_ctl_call(ctl, "GET", "/admin/keys", NULL, &reply))
        return BF_CTL_FAILED;
    int code = reply.status == 200 ? BF_CTL_OK : bf_ctl_refused(&reply);
    if (code == BF_CTL_OK && ctl->is_json) {
        bf_ctl_print_body(&reply);
    } else if (code == BF_CTL_OK) {
        yyjson_arr_foreach (yyjson_obj_get(yyjson_doc_get_root(reply.json), "keys"), i, max, row) {
            char *scopes = yyjson_val_write(yyjson_obj_get(row, "scopes"), 0, NULL);
            printf("%s  %s  %-24s %s\n", bf_json_text(row, "id"), bf_json_text(row, "created_at"),
                   bf_json_text(row, "name"), scopes ? scopes : "");
            free(scopes);
        }
    }
    bf_reply_free(&reply);
    return code;
}

int bf_ctl_key(struct bf_ctl *ctl, struct bf_args *args)
{
    const char *what = bf_args_word(args);
    if (what && strcmp(what, "create") == 0)
        return create_key(ctl, args);
    if (what && strcmp(what, "list") == 0)
        return list_keys(ctl, args);
    return bf_ctl_fail(BF_CTL_USAGE, "key does create, list");
}

int bf_ctl_routes(struct bf_ctl *ctl, struct bf_args *args)
{
    (void)ctl;
    if (!bf_args_done(args))
        return BF_CTL_USAGE;
    bf_api_print_routes(stdout);
    return BF_CTL_OK;
}
