/* belfryctl config, token, key, routes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "belfry/base/text.h"
#include "belfry/base/time.h"
#include "belfry/conf/conf_load.h"
#include "belfry/conf/conf_print.h"
#include "crypto/user_token.h"
#include "ctl/ctl.h"

#define TOKEN_TTL_DEFAULT_S 3600u
#define TOKEN_TTL_MAX_S     31536000u
/* As the node has them (admin/ops.c, admin/keys.c). */
#define KEY_TTL_MAX_S 315360000u
#define OVERLAP_MAX_S 7776000u

/* ---- config ---- */

struct findings {
    bool is_json;
    unsigned count, faults;
};

/* A line of belfry-ctrlplane --check: "wrong: ..." or "note: ...". */
static void show_finding(void *arg, const char *line)
{
    struct findings *findings = arg;
    bool is_fault = strncmp(line, "wrong: ", 7) == 0;
    if (!is_fault && strncmp(line, "note: ", 6) != 0)
        return;
    const char *text = line + (is_fault ? 7 : 6);
    findings->faults += is_fault;
    struct bf_out o = {0};
    size_t len;
    if (!findings->is_json) {
        fprintf(stderr, "%s: %s\n", is_fault ? "wrong" : "note", text);
        return;
    }
    bf_out_print(&o, "%s{\"%s\":", findings->count++ ? "," : "", is_fault ? "wrong" : "note");
    bf_out_cstr(&o, text);
    bf_out_text(&o, "}");
    char *shown = bf_out_take(&o, &len);
    fputs(shown ? shown : "", stdout);
    free(shown);
}

/* Whatever the loading does not see: all of it at once, not the first alone. The control process
 * looks: it has what reads the keys of push and of Kafka. */
static int check_config(struct bf_ctl *ctl, const char *path)
{
    char err[BF_CONF_ERROR_BYTES_MAX] = "";
    struct bf_conf *conf = NULL;
    struct findings findings = {.is_json = ctl->is_json};
    const char *const argv[] = {"belfry-ctrlplane", "--check", "--config", path, NULL};
    if (!path)
        return bf_ctl_fail(BF_CTL_USAGE, "config check which file? --config FILE");
    if (bf_conf_load(path, &conf, err, sizeof(err)) != 0)
        return bf_ctl_fail(BF_CTL_FAILED, "%s", err);
    bf_conf_free(conf);
    if (ctl->is_json)
        fputs("{\"findings\":[", stdout);
    int code = bf_ctl_ask(argv, show_finding, &findings);
    bool is_good = code == 0 && findings.faults == 0;
    if (ctl->is_json)
        printf("],\"ok\":%s}\n", is_good ? "true" : "false");
    if (findings.faults > 0)
        return bf_ctl_fail(BF_CTL_FAILED, "%s: %u %s wrong", path, findings.faults,
                           findings.faults == 1 ? "thing is" : "things are");
    if (!is_good)
        return code < 0
                   ? BF_CTL_FAILED
                   : bf_ctl_fail(BF_CTL_FAILED, "belfry-ctrlplane --check ended with %d", code);
    if (!ctl->is_json)
        printf("%s is right\n", path);
    return BF_CTL_OK;
}

/* What was taken, and what waits for which restart. */
static void print_reload(yyjson_val *root)
{
    size_t i;
    size_t max;
    yyjson_val *row;
    yyjson_val *taken = yyjson_obj_get(root, "taken");
    printf("reloaded from %s", bf_json_text(root, "config"));
    yyjson_arr_foreach (taken, i, max, row)
        printf("%s%s", i == 0 ? "; taken: " : ", ", yyjson_get_str(row));
    puts(yyjson_arr_size(taken) == 0 ? "; no live option has changed" : "");
    yyjson_arr_foreach (yyjson_obj_get(root, "waiting"), i, max, row) {
        bool is_data = strcmp(bf_json_text(row, "restart"), "dataplane") == 0;
        printf("not taken: %s: '%s' is in force, '%s' is wanted; restart %s\n",
               bf_json_text(row, "option"), bf_json_text(row, "in_force"),
               bf_json_text(row, "wanted"),
               is_data ? "belfry-dataplane (its clients come back by themselves)"
                       : "belfry-ctrlplane (sockets stay open)");
    }
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
    if (reached && reply.status != 200) {
        code = bf_ctl_refused(&reply);
    } else if (reached) {
        code = BF_CTL_OK;
        if (ctl->is_json)
            bf_ctl_print_body(&reply);
        else
            print_reload(yyjson_doc_get_root(reply.json));
    }
    if (reached)
        bf_reply_free(&reply);
    bf_conf_free(conf);
    return code;
}

/* The dataplane knows its own sum. Does not return where it is found. */
static int print_memory(struct bf_ctl *ctl, struct bf_args *args)
{
    char number[24];
    uint64_t connections = 0;
    bool tls = bf_args_flag(args, "tls");
    if (!bf_args_number(args, "connections", 100, 2000000, &connections) || !bf_args_done(args))
        return BF_CTL_USAGE;
    if (!ctl->config_path)
        return bf_ctl_fail(BF_CTL_USAGE, "memory of which configuration? --config FILE");
    snprintf(number, sizeof(number), "%llu", (unsigned long long)connections);
    const char *argv[9] = {"belfry-dataplane", "--memory", "--config", ctl->config_path};
    int count = 4;
    if (connections) {
        argv[count++] = "--connections";
        argv[count++] = number;
    }
    if (tls)
        argv[count++] = "--tls";
    if (ctl->is_json)
        argv[count++] = "--json";
    return bf_ctl_become(argv);
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

/* ---- token ---- */

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

/* ---- keys ---- */

static int write_wish(struct bf_args *args, struct bf_out *o)
{
    const char *name = bf_args_option(args, "name");
    const char *tenant = bf_args_option(args, "tenant");
    const char *scope = bf_args_option(args, "scope");
    uint64_t rate = 0;
    uint64_t ttl_s = 0;
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
    if (!bf_args_number(args, "rate", 1, UINT32_MAX, &rate) ||
        !bf_args_number(args, "ttl", 1, KEY_TTL_MAX_S, &ttl_s) || !bf_args_done(args))
        return BF_CTL_USAGE;
    bf_out_print(o, ",\"rate_per_min\":%llu,\"ttl_s\":%llu}", (unsigned long long)rate,
                 (unsigned long long)ttl_s);
    return BF_CTL_OK;
}

/* Posts |body| to |path|: answers with a new key, whose text is shown this once. */
static int make_key(struct bf_ctl *ctl, const char *path, const char *body)
{
    struct bf_reply reply;
    int code = BF_CTL_OK;
    if (!bf_ctl_call(ctl, "POST", path, body, &reply))
        return BF_CTL_FAILED;
    yyjson_val *root = yyjson_doc_get_root(reply.json);
    if (reply.status != 201) {
        code = bf_ctl_refused(&reply);
    } else if (ctl->is_json) {
        bf_ctl_print_body(&reply);
    } else {
        puts(bf_json_text(root, "key"));
        fputs("keep it now: only its hash is stored\n", stderr);
        if (bf_json_text(root, "replaces")[0])
            fprintf(stderr, "the former key %s is valid until %s\n", bf_json_text(root, "replaces"),
                    bf_json_text(root, "replaced_expires_at"));
    }
    bf_reply_free(&reply);
    return code;
}

static int create_key(struct bf_ctl *ctl, struct bf_args *args)
{
    struct bf_out o = {0};
    size_t len;
    int code = write_wish(args, &o);
    char *body = code == BF_CTL_OK ? bf_out_take(&o, &len) : NULL;
    bf_out_free(&o);
    if (!body)
        return code;
    code = make_key(ctl, "/admin/keys", body);
    free(body);
    return code;
}

/* /admin/keys/<id>/<what>; the caller frees it. */
static char *key_path(const char *id, const char *what)
{
    struct bf_out o = {0};
    size_t len;
    bf_out_text(&o, "/admin/keys/");
    bf_out_percent(&o, id);
    bf_out_print(&o, "/%s", what);
    return bf_out_take(&o, &len);
}

static int rotate_key(struct bf_ctl *ctl, struct bf_args *args)
{
    char body[48];
    uint64_t overlap_s = UINT64_MAX;
    if (!bf_args_number(args, "overlap", 0, OVERLAP_MAX_S, &overlap_s))
        return BF_CTL_USAGE;
    const char *id = bf_args_word(args);
    if (!bf_args_done(args))
        return BF_CTL_USAGE;
    if (!id)
        return bf_ctl_fail(BF_CTL_USAGE, "key rotate which? An id of key list");
    snprintf(body, sizeof(body), "{\"overlap_s\":%llu}", (unsigned long long)overlap_s);
    char *path = key_path(id, "rotate");
    int code = path ? make_key(ctl, path, overlap_s == UINT64_MAX ? "{}" : body) : BF_CTL_FAILED;
    free(path);
    return code;
}

static int revoke_key(struct bf_ctl *ctl, struct bf_args *args)
{
    struct bf_reply reply;
    const char *id = bf_args_word(args);
    if (!bf_args_done(args))
        return BF_CTL_USAGE;
    if (!id)
        return bf_ctl_fail(BF_CTL_USAGE, "key revoke which? An id of key list");
    char *path = key_path(id, "revoke");
    bool reached = path && bf_ctl_call(ctl, "POST", path, "{}", &reply);
    free(path);
    if (!reached)
        return BF_CTL_FAILED;
    int code = reply.status == 200 ? BF_CTL_OK : bf_ctl_refused(&reply);
    if (code == BF_CTL_OK && ctl->is_json)
        bf_ctl_print_body(&reply);
    else if (code == BF_CTL_OK)
        printf("%s is revoked\n", id);
    bf_reply_free(&reply);
    return code;
}

static void print_key(yyjson_val *row)
{
    const char *used = bf_json_text(row, "last_used_at");
    const char *ends = bf_json_text(row, "expires_at");
    const char *next = bf_json_text(row, "replaced_by");
    char *scopes = yyjson_val_write(yyjson_obj_get(row, "scopes"), 0, NULL);
    printf("%s  %-7s  made %.*s  used %-19.*s  %-24s %s", bf_json_text(row, "id"),
           bf_json_text(row, "state"), BF_CUT(bf_json_text(row, "created_at"), 19),
           BF_CUT(used[0] ? used : "never", 19), bf_json_text(row, "name"), scopes ? scopes : "");
    if (ends[0])
        printf("  until %.*s", BF_CUT(ends, 19));
    if (next[0])
        printf("  replaced by %s", next);
    putchar('\n');
    free(scopes);
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
        yyjson_arr_foreach (yyjson_obj_get(yyjson_doc_get_root(reply.json), "keys"), i, max, row)
            print_key(row);
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
    if (what && strcmp(what, "revoke") == 0)
        return revoke_key(ctl, args);
    if (what && strcmp(what, "rotate") == 0)
        return rotate_key(ctl, args);
    return bf_ctl_fail(BF_CTL_USAGE, "key does create, list, revoke, rotate");
}

int bf_ctl_routes(struct bf_ctl *ctl, struct bf_args *args)
{
    const char *const argv[] = {"belfry-ctrlplane", "--routes", NULL};
    (void)ctl;
    return bf_args_done(args) ? bf_ctl_become(argv) : BF_CTL_USAGE;
}
