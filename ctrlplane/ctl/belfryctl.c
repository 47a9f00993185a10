/*
 * belfryctl: the command line of a node. Reads the node's configuration to find its ports and keys,
 * talks to it over HTTP, and ends. Nothing here outlives a call.
 */
#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "belfry/base/text.h"
#include "belfry/conf/conf_load.h"
#include "ctl/ctl.h"

#define DEFAULT_CONFIG "/etc/belfry/belfry.yaml"

struct command {
    const char *name;
    const char *synopsis;
    const char *help;
    bool needs_conf;
    int (*run)(struct bf_ctl *ctl, struct bf_args *args);
};

static int print_version(struct bf_ctl *ctl, struct bf_args *args)
{
    if (args && !bf_args_done(args))
        return BF_CTL_USAGE;
    printf(ctl->is_json ? "{\"version\":\"%s\"}\n" : "belfryctl %s\n", BELFRY_VERSION);
    return BF_CTL_OK;
}

static const struct command commands[] = {
    {"status", "", "How the node is: ready or what is missing, connections, lag, dead letters.",
     true, bf_ctl_status},
    {"top", "[--interval S] [--count N]",
     "Rates and latencies, a line a second until interrupted (or N lines).", true, bf_ctl_top},
    {"send", "--user U... | --topic T | --broadcast  --title T [--body B] [options]",
     "Sends one notification as a producer would. Options: --type, --category, --priority\n"
     "    critical|high|normal|low, --data JSON, --action-url URL, --ttl S, --transient,\n"
     "    --collapse-key K, --idempotency-key K. The API key is dev.api_key_file's, or the\n"
     "    environment's BELFRY_API_KEY.",
     true, bf_ctl_send},
    {"trace", "ID [--follow] | --user U [--follow]",
     "What became of a notification, by recipient, channel and attempt; or a user's connections\n"
     "    and newest notifications. --follow goes on and shows changes.",
     true, bf_ctl_trace},
    {"connections", "[--user U] [--limit N]",
     "Open connections, with what each was sent and acknowledged.", true, bf_ctl_connections},
    {"drain", "--rate N [--reconnect-after MS] [--follow [--timeout S]]",
     "Asks N connections a second to leave (goaway, then close 4000); --rate 0 ends it. --follow\n"
     "    shows how many are left, a line a second, until nobody is.",
     true, bf_ctl_drain},
    {"dlq",
     "list [--channel C] [--limit N] | show ID | redrive [ID] [--channel C] | purge ID|--all",
     "Dead letters: list, look at those of an event (show, inspect), put back in front, throw "
     "away.",
     true, bf_ctl_dlq},
    {"config", "check [FILE] | reload | memory [--connections N] [--tls] | reference",
     "check: is the file right. reload: the node takes live options, sockets stay open.\n"
     "    memory: what N connections of a worker will take, by name, before they do.\n"
     "    reference: every option with range and default, as YAML.",
     false, bf_ctl_config},
    {"token", "--sub USER [--ttl S] [--tenant T]",
     "A user's JWT, signed with the development key; the bare token on one line.", true,
     bf_ctl_token},
    {"key",
     "create --scope S... [--name N] [--tenant T] [--rate N] [--ttl S] | list | revoke ID |\n"
     "    rotate ID [--overlap S]",
     "API keys of producers. Scopes: send, events, bulk, templates, users, status, critical,\n"
     "    admin. The text of a new key is shown once. list: with the time of the last use, to the\n"
     "    minute. revoke: refused from now on. rotate: a new key of the same rights; the former "
     "one\n"
     "    goes on for --overlap seconds (a day), so that producers can change over.",
     true, bf_ctl_key},
    {"bench", "[--user U] [--count N] [--connections C]",
     "A short load of POST /v1/notifications, with progress; says rate and latency.", true,
     bf_ctl_bench},
    {"backup", "DEST",
     "Copies the running node's state (store, embedded log, key files) into the new directory "
     "DEST,\n"
     "    on the node's machine; shows how far it is. Keep it as secret as the state itself.",
     true, bf_ctl_backup},
    {"restore", "SRC [--check]",
     "Puts a backup in the place of the state of a stopped node, whose former state stays beside "
     "it.\n"
     "    Clients are told that they cannot resume. --check only verifies the backup.",
     true, bf_ctl_restore},
    {"version", "",
     "The version of this belfryctl; --version is the same. The node's is in its "
     "/healthz.",
     false, print_version},
    {"routes", "", "The API's calls, one a line.", false, bf_ctl_routes},
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* A longer reason is cut: problem details are shorter. */
#define FAIL_BYTES_MAX 2048u

int bf_ctl_fail(int code, const char *format, ...)
{
    char said[FAIL_BYTES_MAX], shown[FAIL_BYTES_MAX * BF_TEXT_ESCAPE_BYTES];
    va_list args;
    va_start(args, format);
    size_t len = bf_vformat(said, sizeof(said), format, args);
    va_end(args);
    bf_text_escape(shown, sizeof(shown), said,
                   len); /* it may quote what the node or somebody sent */
    fprintf(stderr, "belfryctl: %s\n", shown);
    return code;
}

/* ---- arguments ---- */

static void drop(struct bf_args *args, int index, int count)
{
    for (int i = index; i + count < args->count; i++)
        args->at[i] = args->at[i + count];
    args->count -= count;
}

const char *bf_args_option(struct bf_args *args, const char *name)
{
    size_t len = strlen(name);
    for (int i = 0; i < args->count; i++) {
        const char *arg = args->at[i];
        if (strncmp(arg, "--", 2) != 0 || strncmp(arg + 2, name, len) != 0)
            continue;
        if (arg[2 + len] == '=') {
            drop(args, i, 1);
            return arg + 3 + len;
        }
        if (arg[2 + len] == '\0' && i + 1 < args->count) {
            const char *value = args->at[i + 1];
            drop(args, i, 2);
            return value;
        }
    }
    return NULL;
}

bool bf_args_flag(struct bf_args *args, const char *name)
{
    for (int i = 0; i < args->count; i++) {
        if (strncmp(args->at[i], "--", 2) == 0 && strcmp(args->at[i] + 2, name) == 0) {
            drop(args, i, 1);
            return true;
        }
    }
    return false;
}

const char *bf_args_word(struct bf_args *args)
{
    for (int i = 0; i < args->count; i++) {
        const char *word = args->at[i];
        if (word[0] == '-' && word[1] == '-')
            continue;
        drop(args, i, 1);
        return word;
    }
    return NULL;
}

bool bf_args_number(struct bf_args *args, const char *name, uint64_t min, uint64_t max,
                    uint64_t *ret)
{
    const char *text = bf_args_option(args, name);
    char *end;
    if (!text)
        return true;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || value < min || value > max) {
        bf_ctl_fail(BF_CTL_USAGE, "--%s '%s': takes a whole number, %llu..%llu", name, text,
                    (unsigned long long)min, (unsigned long long)max);
        return false;
    }
    *ret = value;
    return true;
}

bool bf_args_done(struct bf_args *args)
{
    if (args->count == 0)
        return true;
    bf_ctl_fail(BF_CTL_USAGE, "'%s' is not understood here; belfryctl help lists the commands",
                args->at[0]);
    return false;
}

/* ---- help ---- */

static int print_help(void)
{
    puts("belfryctl: the command line of a Belfry node\n\n"
         "usage: belfryctl [--config FILE] [--json] COMMAND [options]\n\n"
         "--config FILE  the node's configuration (else $BELFRY_CONFIG, else " DEFAULT_CONFIG ")\n"
         "--json         machine-readable answers, one JSON object (or one a line)\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %s %s\n    %s\n\n", commands[i].name, commands[i].synopsis, commands[i].help);
    return BF_CTL_OK;
}

static int print_command_help(const struct command *command)
{
    printf("usage: belfryctl [--config FILE] [--json] %s %s\n\n    %s\n", command->name,
           command->synopsis, command->help);
    return BF_CTL_OK;
}

/* ---- finding the node ---- */

static const char *default_config(void)
{
    const char *path = getenv("BELFRY_CONFIG");
    if (path)
        return path;
    return access(DEFAULT_CONFIG, R_OK) == 0 ? DEFAULT_CONFIG : NULL;
}

/* Where to connect to reach a listener on |host|. */
static void reach(const char *host, char out[64])
{
    if (strcmp(host, "0.0.0.0") == 0)
        host = "127.0.0.1";
    if (strcmp(host, "::") == 0)
        host = "::1";
    snprintf(out, 64, "%s", host);
}

/* A running node writes its ports to <run_dir>/ctrlplane.ports; there is no other way to find the
 * port if port 0 is configured. */
static void find_ports(struct bf_ctl *ctl)
{
    char path[512];
    int api;
    int admin;
    snprintf(path, sizeof(path), "%s/ctrlplane.ports", ctl->conf->run_dir);
    ctl->api_port = (int)ctl->conf->api_port;
    ctl->admin_port = (int)ctl->conf->admin_port;
    FILE *file = fopen(path, "re");
    if (!file)
        return;
    if (fscanf(file, "{\"api\":%d,\"admin\":%d}", &api, &admin) == 2) {
        ctl->api_port = api;
        ctl->admin_port = admin;
    }
    fclose(file);
}

void bf_ctl_find_node(struct bf_ctl *ctl)
{
    reach(ctl->conf->api_host, ctl->api_host);
    reach(ctl->conf->admin_host, ctl->admin_host);
    find_ports(ctl);
}

static int run(struct bf_ctl *ctl, const struct command *command, struct bf_args *args)
{
    char err[BF_CONF_ERROR_BYTES_MAX];
    struct bf_conf *conf = NULL;
    if (command->needs_conf) {
        if (bf_conf_load(ctl->config_path, &conf, err, sizeof(err)) != 0)
            return bf_ctl_fail(BF_CTL_FAILED, "%s", err);
        ctl->conf = conf;
        bf_ctl_find_node(ctl);
    }
    int code = command->run(ctl, args);
    bf_conf_free(conf);
    return code;
}

int main(int argc, char **argv)
{
    struct bf_args args = {.count = argc - 1, .at = argv + 1};
    struct bf_ctl ctl = {.config_path = bf_args_option(&args, "config")};
    bool wants_help = bf_args_flag(&args, "help");
    ctl.is_json = bf_args_flag(&args, "json");
    if (bf_args_flag(&args, "version"))
        return print_version(&ctl, NULL);
    if (!ctl.config_path)
        ctl.config_path = default_config();
    const char *name = bf_args_word(&args);
    if (!name || strcmp(name, "help") == 0)
        return print_help();
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return wants_help ? print_command_help(&commands[i]) : run(&ctl, &commands[i], &args);
    }
    return bf_ctl_fail(BF_CTL_USAGE, "no command '%s'; belfryctl help lists them", name);
}
