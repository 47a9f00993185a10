/* belfryctl dlq and drain. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "belfry/base/text.h"
#include "ctl/ctl.h"

/* ---- dead letters ---- */

/* Whom a leg was for, and whether there is still time: a member of its channel's name. */
static void print_leg(yyjson_val *leg)
{
    unsigned long long redrive = (unsigned long long)bf_json_number(leg, "redrive");
    const char *tenant = bf_json_text(leg, "tenant");
    const char *title = bf_json_text(leg, "title");
    if (!leg)
        return;
    printf("    to %s%s%s, device %s, lane %s, until %.*s", tenant, tenant[0] ? "/" : "",
           bf_json_text(leg, "user_id"), bf_json_text(leg, "device_id"), bf_json_text(leg, "lane"),
           BF_CUT(bf_json_text(leg, "expires_at"), 19));
    if (redrive)
        printf(", redriven %llu times before", redrive);
    printf("%s%s%s\n", title[0] ? ": \"" : "", title, title[0] ? "\"" : "");
}

static void print_letters(yyjson_val *root, bool with_body)
{
    size_t i;
    size_t max;
    yyjson_val *row;
    yyjson_val *list = yyjson_obj_get(root, "letters");
    yyjson_arr_foreach (list, i, max, row) {
        printf("%s  %-8s %s  %s\n", bf_json_text(row, "at"), bf_json_text(row, "channel"),
               bf_json_text(row, "event_id"), bf_json_text(row, "reason"));
        print_leg(yyjson_obj_get(row, bf_json_text(row, "channel")));
        if (with_body)
            printf("%s\n", bf_json_text(row, "body"));
    }
    printf("%zu dead letters%s\n", yyjson_arr_size(list),
           yyjson_get_bool(yyjson_obj_get(root, "more")) ? ", and more (--limit)" : "");
}

static int no_letter(const char *event_id, const char *channel)
{
    return bf_ctl_fail(BF_CTL_FAILED,
                       "no dead letter of the event '%s'%s%s; belfryctl dlq list shows "
                       "those that there are",
                       event_id, channel ? " in channel " : "", channel ? channel : "");
}

static int list(struct bf_ctl *ctl, const char *channel, uint64_t limit, const char *event_id)
{
    struct bf_out path = {0};
    struct bf_reply reply;
    size_t len;
    bf_out_print(&path, "/admin/dlq?limit=%llu", (unsigned long long)limit);
    if (channel) {
        bf_out_text(&path, "&channel=");
        bf_out_percent(&path, channel);
    }
    if (event_id) {
        bf_out_text(&path, "&event_id=");
        bf_out_percent(&path, event_id);
    }
    char *text = bf_out_take(&path, &len);
    bool reached = text && bf_ctl_call(ctl, "GET", text, NULL, &reply);
    free(text);
    if (!reached)
        return BF_CTL_FAILED;
    int code = BF_CTL_OK;
    bool is_empty =
        yyjson_arr_size(yyjson_obj_get(yyjson_doc_get_root(reply.json), "letters")) == 0;
    if (reply.status != 200)
        code = bf_ctl_refused(&reply);
    else if (event_id && is_empty)
        code = no_letter(event_id, channel);
    else if (ctl->is_json)
        bf_ctl_print_body(&reply);
    else
        print_letters(yyjson_doc_get_root(reply.json), event_id != NULL);
    bf_reply_free(&reply);
    return code;
}

static char *selection(const char *channel, const char *event_id)
{
    struct bf_out o = {0};
    size_t len;
    bf_out_text(&o, "{");
    if (channel) {
        bf_out_text(&o, "\"channel\":");
        bf_out_cstr(&o, channel);
    }
    if (event_id) {
        bf_out_text(&o, channel ? ",\"event_id\":" : "\"event_id\":");
        bf_out_cstr(&o, event_id);
    }
    bf_out_text(&o, "}");
    return bf_out_take(&o, &len);
}

struct totals {
    unsigned long long done, failed, expired;
};

/* One chunk; *ret_more: there are others. Failed letters stay, so a chunk of only those ends it. */
static int act_once(struct bf_ctl *ctl, const char *path, const char *body, const char *done_member,
                    struct totals *totals, bool *ret_more)
{
    struct bf_reply reply;
    if (!bf_ctl_call(ctl, "POST", path, body, &reply))
        return BF_CTL_FAILED;
    if (reply.status != 200) {
        int code = bf_ctl_refused(&reply);
        bf_reply_free(&reply);
        return code;
    }
    yyjson_val *root = yyjson_doc_get_root(reply.json);
    uint64_t done = bf_json_number(root, done_member);
    totals->done += done;
    totals->failed += bf_json_number(root, "failed");
    totals->expired += bf_json_number(root, "expired");
    *ret_more = yyjson_get_bool(yyjson_obj_get(root, "more")) && done > 0;
    bf_reply_free(&reply);
    return BF_CTL_OK;
}

static int act(struct bf_ctl *ctl, const char *path, const char *done_member, const char *channel,
               const char *event_id)
{
    struct totals totals = {0};
    char *body = selection(channel, event_id);
    bool more = true;
    int code = body ? BF_CTL_OK : BF_CTL_FAILED;
    while (code == BF_CTL_OK && more) {
        code = act_once(ctl, path, body, done_member, &totals, &more);
        if (code == BF_CTL_OK && more && !ctl->is_json)
            fprintf(stderr, "\r%s %llu ", done_member, totals.done);
    }
    free(body);
    if (code != BF_CTL_OK)
        return code;
    if (event_id && totals.done + totals.failed + totals.expired == 0)
        return no_letter(event_id, channel);
    if (ctl->is_json)
        printf("{\"%s\":%llu,\"failed\":%llu,\"expired\":%llu}\n", done_member, totals.done,
               totals.failed, totals.expired);
    else
        printf("%s %llu\n", done_member, totals.done);
    if (totals.failed && !ctl->is_json)
        printf("%llu could not be taken and stay (belfryctl dlq list)\n", totals.failed);
    if (totals.expired && !ctl->is_json)
        printf("%llu of them have expired: nobody wants them any more (belfryctl dlq purge)\n",
               totals.expired);
    return totals.failed ? BF_CTL_FAILED : BF_CTL_OK;
}

int bf_ctl_dlq(struct bf_ctl *ctl, struct bf_args *args)
{
    /* options first: their values are words too */
    const char *channel = bf_args_option(args, "channel");
    uint64_t limit = 100;
    bool all = bf_args_flag(args, "all");
    if (!bf_args_number(args, "limit", 1, 1000, &limit))
        return BF_CTL_USAGE;
    const char *what = bf_args_word(args);
    const char *event_id = bf_args_word(args);
    if (!bf_args_done(args))
        return BF_CTL_USAGE;
    if (!what || strcmp(what, "list") == 0)
        return list(ctl, channel, limit, NULL);
    if (strcmp(what, "show") == 0 || strcmp(what, "inspect") == 0)
        return event_id ? list(ctl, channel, limit, event_id)
                        : bf_ctl_fail(BF_CTL_USAGE, "dlq show which? An event_id of dlq list");
    if (strcmp(what, "redrive") == 0)
        return act(ctl, "/admin/dlq/redrive", "redriven", channel, event_id);
    if (strcmp(what, "purge") != 0)
        return bf_ctl_fail(BF_CTL_USAGE, "dlq does list, show, redrive, purge; not '%s'", what);
    if (!event_id && !all)
        return bf_ctl_fail(BF_CTL_USAGE, "dlq purge throws away for good: name an event_id, or say "
                                         "--all");
    return act(ctl, "/admin/dlq/purge", "purged", channel, event_id);
}

/* ---- drain ---- */

#define FOLLOW_MAX_S 86400u

/* Connections of the node now; false after saying why. */
static bool count_connections(struct bf_ctl *ctl, uint64_t *ret)
{
    struct bf_reply reply;
    if (!bf_ctl_call(ctl, "GET", "/admin/status", NULL, &reply))
        return false;
    bool ok = reply.status == 200 && reply.json;
    if (ok)
        *ret = bf_json_number(yyjson_doc_get_root(reply.json), "dataplane.connections");
    else
        (void)bf_ctl_refused(&reply);
    bf_reply_free(&reply);
    return ok;
}

/* Prints a line each second until no connection is left. If clients keep coming back to this node
 * the time limit ends it. */
static int follow_drain(struct bf_ctl *ctl, uint64_t seconds)
{
    uint64_t first = 0;
    uint64_t left = 0;
    if (!count_connections(ctl, &first))
        return BF_CTL_FAILED;
    left = first;
    for (uint64_t s = 0; s <= seconds; s++) {
        const char *format = ctl->is_json ? "{\"seconds\":%llu,\"left\":%llu,\"of\":%llu}\n"
                                          : "%5llu s  %10llu of %llu connections left\n";
        printf(format, (unsigned long long)s, (unsigned long long)left, (unsigned long long)first);
        fflush(stdout);
        if (left == 0)
            return BF_CTL_OK;
        nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
        if (!count_connections(ctl, &left))
            return BF_CTL_FAILED;
    }
    return bf_ctl_fail(
        BF_CTL_FAILED,
        "%llu connections are left after %llu s; the drain goes on (--rate 0 ends it)",
        (unsigned long long)left, (unsigned long long)seconds);
}

int bf_ctl_drain(struct bf_ctl *ctl, struct bf_args *args)
{
    char body[96];
    bool follow = bf_args_flag(args, "follow");
    uint64_t seconds = FOLLOW_MAX_S;
    struct bf_reply reply;
    uint64_t rate = UINT64_MAX;
    uint64_t after_ms = 5000;
    if (!bf_args_number(args, "rate", 0, 1000000, &rate) ||
        !bf_args_number(args, "reconnect-after", 0, 3600000, &after_ms) ||
        !bf_args_number(args, "timeout", 1, FOLLOW_MAX_S, &seconds) || !bf_args_done(args))
        return BF_CTL_USAGE;
    if (rate == UINT64_MAX)
        return bf_ctl_fail(BF_CTL_USAGE,
                           "drain how fast? --rate N connections a second; 0 ends it");
    snprintf(body, sizeof(body), "{\"rate\":%llu,\"reconnect_after_ms\":%llu}",
             (unsigned long long)rate, (unsigned long long)after_ms);
    if (!bf_ctl_call(ctl, "POST", "/admin/drain", body, &reply))
        return BF_CTL_FAILED;
    int code = BF_CTL_OK;
    if (reply.status != 200)
        code = bf_ctl_refused(&reply);
    else if (ctl->is_json)
        bf_ctl_print_body(&reply);
    else
        puts(rate ? "draining; --follow shows the connections go, --rate 0 ends it"
                  : "draining has ended");
    bf_reply_free(&reply);
    return code == BF_CTL_OK && follow && rate ? follow_drain(ctl, seconds) : code;
}
