/*
 * belfryctl's parts: what every command gets, and the commands. One process a call, one thread
 * (bench has a few); errors are said on stderr with what to do, results on stdout.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <yyjson.h>

#include "belfry/base/cursor.h"
#include "belfry/conf/conf.h"
#include "json/out.h"

struct bf_ctl {
    const char *config_path;
    bool is_json;
    const struct bf_conf *conf; /* NULL for commands that need none */
    char api_host[64], admin_host[64];
    int api_port, admin_port;
};

/* Exit codes. */
enum { BF_CTL_OK = 0, BF_CTL_FAILED = 1, BF_CTL_USAGE = 2 };

/* Prints "belfryctl: ..." and returns |code|. */
__attribute__((format(printf, 2, 3))) int bf_ctl_fail(int code, const char *format, ...);

/* Fills hosts and ports from ctl->conf and the running node's announcement. */
void bf_ctl_find_node(struct bf_ctl *ctl);

/* ---- arguments ---- */

/* What is left of the command line; options are taken out as they are asked for. */
struct bf_args {
    int count;
    char **at;
};

/* Value of "--name V" or "--name=V"; NULL when absent. Takes one occurrence. */
const char *bf_args_option(struct bf_args *args, const char *name);
bool bf_args_flag(struct bf_args *args, const char *name);
/* Next word that is no option; NULL when none is left. */
const char *bf_args_word(struct bf_args *args);
/* Whole number option within min..max; *ret keeps its value when absent. False after saying why. */
bool bf_args_number(struct bf_args *args, const char *name, uint64_t min, uint64_t max,
                    uint64_t *ret);
/* False after saying what is not understood. */
bool bf_args_done(struct bf_args *args);

/* ---- HTTP ---- */

struct bf_reply {
    int status;
    char *body; /* malloc'ed, terminated */
    size_t len;
    yyjson_doc
        *json; /* NULL if the body is none. Without --json its texts are escaped for a terminal */
    struct bf_shown *shown; /* the bytes of those that had to be */
};

/* One call of the node's admin port (an /admin path) or API (a /v1 path). |body| may be NULL. False
 * after saying why the node was not reached. */
bool bf_ctl_call(struct bf_ctl *ctl, const char *method, const char *path, const char *body,
                 struct bf_reply *ret);
void bf_reply_free(struct bf_reply *reply);
/* Says a refusal in words (problem+json); gives BF_CTL_FAILED. */
int bf_ctl_refused(const struct bf_reply *reply);
/* Prints the body as it is, one line. */
void bf_ctl_print_body(const struct bf_reply *reply);

/* Reads an API key into |out|; false after saying why. */
bool bf_ctl_api_key(struct bf_ctl *ctl, char *out, size_t cap);

/* Calls over one kept connection to the admin port or the API, by one thread (link.c). Where the
 * API has TLS its own certificate is what is trusted; BELFRY_CLIENT_CERT and BELFRY_CLIENT_KEY (PEM
 * files) are shown if it asks for one. NULL after saying why. */
struct bf_link;
struct bf_link *bf_link_open(struct bf_ctl *ctl, bool is_admin);
/* The status, or -1 after saying why. The body is added to |ret_body|; NULL: dropped. */
int bf_link_call(struct bf_link *link, const char *method, const char *path, const char *body,
                 struct bf_out *ret_body);
void bf_link_close(struct bf_link *link); /* NULL is fine */

/* Replaces this process by the program argv[0] from the directory of belfryctl. Returns only if
 * that failed: prints why and returns BF_CTL_FAILED. */
int bf_ctl_become(const char *const argv[]);
/* Runs it and hands over each line that it prints, without its end. Its exit code, or -1 after
 * saying why there is none. */
int bf_ctl_ask(const char *const argv[], void (*each)(void *arg, const char *line), void *arg);

/* Percent-encodes into |out|. */
void bf_out_percent(struct bf_out *o, const char *text);

/* JSON look-ups along a path of members, "a.b.c"; 0 or "" when absent. */
uint64_t bf_json_number(yyjson_val *root, const char *path);
const char *bf_json_text(yyjson_val *root, const char *path);

/* Channels of a status: a line each, and a table when there are apps (status_channels.c). */
void bf_ctl_print_channels(yyjson_val *root);

/* ---- commands: each parses |args|, works, and gives an exit code ---- */

int bf_ctl_status(struct bf_ctl *ctl, struct bf_args *args);
int bf_ctl_top(struct bf_ctl *ctl, struct bf_args *args);
int bf_ctl_send(struct bf_ctl *ctl, struct bf_args *args);
int bf_ctl_bench(struct bf_ctl *ctl, struct bf_args *args);
int bf_ctl_trace(struct bf_ctl *ctl, struct bf_args *args);
int bf_ctl_connections(struct bf_ctl *ctl, struct bf_args *args);
int bf_ctl_drain(struct bf_ctl *ctl, struct bf_args *args);
int bf_ctl_dlq(struct bf_ctl *ctl, struct bf_args *args);
int bf_ctl_config(struct bf_ctl *ctl, struct bf_args *args);
int bf_ctl_token(struct bf_ctl *ctl, struct bf_args *args);
int bf_ctl_key(struct bf_ctl *ctl, struct bf_args *args);
int bf_ctl_backup(struct bf_ctl *ctl, struct bf_args *args); /* cmd_backup.c */
int bf_ctl_restore(struct bf_ctl *ctl, struct bf_args *args);
int bf_ctl_routes(struct bf_ctl *ctl, struct bf_args *args);
