/* belfryctl trace: what became of a notification, or what goes on around a user. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl/ctl.h"

/* How long to ask again for a notification that was accepted a moment ago and has no row yet. */
#define WAIT_TRIES 40
#define WAIT_NS    50000000L
#define FOLLOW_NS  500000000L

static void pause_ns(long ns)
{
    nanosleep(&(struct timespec){.tv_nsec = ns}, NULL);
}

static void print_channel(yyjson_val *channel)
{
    size_t i;
    size_t max;
    yyjson_val *attempt;
    printf("    %-8s %s\n", bf_json_text(channel, "channel"), bf_json_text(channel, "status"));
    yyjson_arr_foreach (yyjson_obj_get(channel, "attempts"), i, max, attempt) {
        const char *reason = bf_json_text(attempt, "reason");
        const char *not_before = bf_json_text(attempt, "not_before");
        printf("      %-24s  %s%s%s%s%s\n", bf_json_text(attempt, "at"),
               bf_json_text(attempt, "status"), not_before[0] ? " until " : "", not_before,
               reason[0] ? ": " : "", reason);
    }
}

static void print_notification(yyjson_val *root)
{
    size_t i;
    size_t max;
    yyjson_val *recipient;
    printf("%s  accepted %s by %s, %s to %s%s%s, lane %s\n", bf_json_text(root, "notification_id"),
           bf_json_text(root, "accepted_at"), bf_json_text(root, "producer"),
           bf_json_text(root, "type"), bf_json_text(root, "target"),
           bf_json_text(root, "topic")[0] ? " " : "", bf_json_text(root, "topic"),
           bf_json_text(root, "lane"));
    if (bf_json_text(root, "traceparent")[0])
        printf("  trace %s\n", bf_json_text(root, "traceparent"));
    yyjson_arr_foreach (yyjson_obj_get(root, "recipients"), i, max, recipient) {
        size_t j;
        size_t channels;
        yyjson_val *channel;
        printf("  %s\n", bf_json_text(recipient, "user_id"));
        yyjson_arr_foreach (yyjson_obj_get(recipient, "channels"), j, channels, channel)
            print_channel(channel);
    }
    if (yyjson_arr_size(yyjson_obj_get(root, "recipients")) == 0)
        puts("  no recipient has an outcome to show");
}

/* Fetches |path| and prints it if it differs from *last (which it replaces). */
static int show_changed(struct bf_ctl *ctl, const char *path, char **last,
                        void (*print)(yyjson_val *root))
{
    struct bf_reply reply;
    if (!bf_ctl_call(ctl, "GET", path, NULL, &reply))
        return BF_CTL_FAILED;
    if (reply.status != 200 || !reply.json) {
        int code = reply.status == 404 ? -1 : bf_ctl_refused(&reply);
        if (code < 0 && *last)
            code = bf_ctl_refused(&reply);
        bf_reply_free(&reply);
        return code;
    }
    if (!*last || strcmp(*last, reply.body) != 0) {
        if (ctl->is_json)
            bf_ctl_print_body(&reply);
        else
            print(yyjson_doc_get_root(reply.json));
        fflush(stdout);
        free(*last);
        *last = strdup(reply.body);
    }
    bf_reply_free(&reply);
    return BF_CTL_OK;
}

static int follow(struct bf_ctl *ctl, const char *path, bool goes_on,
                  void (*print)(yyjson_val *root))
{
    char *last = NULL;
    int code = -1;
    for (int i = 0; code < 0 && i < WAIT_TRIES; i++) {
        code = show_changed(ctl, path, &last, print);
        if (code < 0)
            pause_ns(WAIT_NS);
    }
    if (code < 0)
        code = bf_ctl_fail(BF_CTL_FAILED, "no such notification or user, or its status is kept no "
                                          "longer (api.status_ttl)");
    while (code == BF_CTL_OK && goes_on) {
        pause_ns(FOLLOW_NS);
        code = show_changed(ctl, path, &last, print);
    }
    free(last);
    return code;
}

static void print_user(yyjson_val *root)
{
    size_t i;
    size_t max;
    yyjson_val *item;
    printf("%llu unread\n", (unsigned long long)bf_json_number(root, "unread_count"));
    yyjson_arr_foreach (yyjson_obj_get(root, "notifications"), i, max, item)
        printf("  %s  %-8s %6llu  %s  %s: %s%s\n", bf_json_text(item, "created_at"),
               bf_json_text(item, "lane"), (unsigned long long)bf_json_number(item, "seq"),
               bf_json_text(item, "id"), bf_json_text(item, "type"), bf_json_text(item, "title"),
               yyjson_get_bool(yyjson_obj_get(item, "read")) ? " (read)" : "");
}

static int trace_user(struct bf_ctl *ctl, const char *user, bool goes_on)
{
    struct bf_out path = {0};
    size_t len;
    bf_out_text(&path, "/v1/users/");
    bf_out_percent(&path, user);
    bf_out_text(&path, "/notifications?limit=10");
    char *text = bf_out_take(&path, &len);
    if (!text)
        return BF_CTL_FAILED;
    if (!ctl->is_json) {
        struct bf_args args = {.count = 2,
                               .at = (char *[]){(char[]){"--user"}, (char *)(uintptr_t)user}};
        bf_ctl_connections(ctl, &args);
    }
    int code = follow(ctl, text, goes_on, print_user);
    free(text);
    return code;
}

int bf_ctl_trace(struct bf_ctl *ctl, struct bf_args *args)
{
    char path[128];
    const char *user = bf_args_option(args, "user");
    bool goes_on = bf_args_flag(args, "follow");
    const char *id = bf_args_word(args);
    struct bf_id parsed;
    if (!bf_args_done(args))
        return BF_CTL_USAGE;
    if (user)
        return trace_user(ctl, user, goes_on);
    if (!id || !bf_id_parse(id, strlen(id), &parsed))
        return bf_ctl_fail(BF_CTL_USAGE, "trace what? A notification's id (as the 202 gave it), or "
                                         "--user U");
    snprintf(path, sizeof(path), "/admin/trace/%s", id);
    return follow(ctl, path, goes_on, print_notification);
}
